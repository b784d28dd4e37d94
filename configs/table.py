"""Every method on the bundled task, at equal samples and updates.

    python -m score_jax.table --config=configs/table.py[:PRESET] --seeds=3

Fewer and smaller steps than a run of one's own, so that all rows with three
seeds end within 90 minutes on two CPU cores.
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
    config.train.trajectories = 128
    config.train.stage1_steps = 80
    config.train.stage2_steps = 80
    config.optimizer.learning_rate = 1e-3
    config.checkpoint.every = 20
    config.eval.every = 20
    config.eval.validation_problems = 128
    config.eval.batch = 1000
  return config
