"""Every method on the bundled task, at equal samples and updates.

    python -m score_jax.table --config=configs/table.py[:PRESET] --seeds=3

Fewer and smaller steps than a run of one's own, so that all rows with three
seeds end within 90 minutes on two CPU cores: each of the 72 that are trained
takes about a minute of one core. Which methods the figures show, and which are
asked more for them, is `config.table`.
"""

from configs import presets


def get_config(preset: str = ''):
  """Returns the settings of all rows under a preset."""
  config = presets.make('score', preset)
  # One record of each run is enough, and figures are made of all together.
  config.log.tensorboard = False
  config.log.report = False
  config.log.progress = False
  if config.preset == 'arithmetic':
    # 240 attempts an update, which groups of 5 x 3 (three turns) and of
    # 5 x 3 + 1 (ReMax, with its greedy ones) divide as well as 5 x 2.
    config.sampling.first_attempts = 5
    config.train.trajectories = 120
    config.train.stage1_steps = 120
    config.train.stage2_steps = 120
    config.optimizer.learning_rate = 5e-4
    config.checkpoint.every = 20
    config.eval.every = 20
    config.eval.validation_problems = 128
    config.eval.batch = 1000
  return config
