"""The paper's tables, and the bundled task: what each preset changes.

A preset is the argument of every file in this folder, as in
`--config=configs/stage2.py:math`. MODEL_TASK, as in gemma2_2b_math, is the
task's table on a model and a TPU slice of `configs/models.py`; the folder of
its checkpoint is --config.model.path. Numbers that the paper does not state
are marked *ours*.
"""

from ml_collections import ConfigDict

from configs import models
from score_jax import config as config_lib


def arithmetic(config: ConfigDict) -> None:
  """The bundled model and task: minutes on two CPU cores."""
  config.task.train_problems = 20_000
  config.sampling.max_prompt_tokens = 8
  config.sampling.max_tokens = (6, 6)
  config.optimizer.learning_rate = 3e-4
  config.model.logits_chunk = 32_768  # 34 logits each.
  # In the words that the bundled model knows.
  refine, contrast = config.method.self_refine, config.method.self_contrast
  refine.feedback = contrast.contrast = '\nThere may be an error:\n'
  refine.rewrite = contrast.conclude = '\nIf so, correct it:\n'
  contrast.perspective = '\nIf there may be an error, correct it:\n'


def math(config: ConfigDict) -> None:
  """MATH in the split of Lightman et al. (table 5 of arXiv:2409.12917)."""
  config.task.name = 'math'
  config.method.alpha = 10.0
  config.method.beta1 = 0.01
  config.method.beta2 = 0.1
  config.optimizer.learning_rate = 5e-6
  config.train.trajectories = 512
  config.sampling.parts = 0
  _long(config, steps=3000, prompt=512, answer=768)


def mbpp(config: ConfigDict) -> None:
  """MBPP, evaluated on HumanEval (table 5 of arXiv:2409.12917)."""
  config.task.name = 'mbpp'
  config.task.eval_name = 'humaneval'
  config.sampling.parts = 4  # Programs run while the next ones are sampled.
  # A program that never ends is the model's fault, but counts as a failure.
  config.limits.grader_failures = 0.3
  config.method.alpha = 10.0
  config.method.beta1 = 0.01
  config.method.beta2 = 0.25
  config.optimizer.learning_rate = 1e-5
  config.train.trajectories = 128
  _long(config, steps=1500, prompt=1024, answer=512)


def _long(config: ConfigDict, steps: int, prompt: int, answer: int) -> None:
  """Lengths, and the split of the steps into halves: all *ours*."""
  config.train.stage1_steps = steps // 2
  config.train.stage2_steps = steps - steps // 2
  config.sampling.max_prompt_tokens = prompt
  config.task.long_prompts = 'drop'
  config.sampling.max_tokens = (answer,) * config.turns
  config.sampling.grow = 256
  config.train.widths = (0.3, 0.45, 0.7)
  config.model.unroll = False
  # By the memory of the devices that are there.
  config.model.remat = config_lib.AUTO
  config.train.accumulation = 0
  config.checkpoint.every = 50
  config.eval.every = 50
  config.eval.problems = 500
  config.eval.batch = 64


TASKS = {'math': math, 'mbpp': mbpp}
# The paper's tables alone, on whatever model and mesh is given.
PLAIN = {'arithmetic': arithmetic, **TASKS}
# gemma2_2b_math and so on, one for each model and task.
PRESETS = (*PLAIN, *(f'{m}_{t}' for m in models.MODELS for t in TASKS))


def make(job: str, preset: str) -> ConfigDict:
  """Returns the settings of a job under a preset ('' = the bundled one).

  Raises:
    ConfigError: if there is no preset of that name.
  """
  preset = preset or 'arithmetic'
  if preset not in PRESETS:
    raise config_lib.ConfigError(_unknown(preset))
  config = config_lib.default()
  config.job, config.preset = job, preset
  if preset in PLAIN:
    PLAIN[preset](config)
    return config
  model, _, task = preset.rpartition('_')
  TASKS[task](config)
  models.apply(config, models.MODELS[model])
  return config


def _unknown(preset: str) -> str:
  """Returns what is said of a preset that is not there."""
  return (
    f'--config: preset must be one of {", ".join(PLAIN)}, or MODEL_TASK with '
    f'MODEL one of {", ".join(models.MODELS)} and TASK one of '
    f'{", ".join(TASKS)}; got {preset!r}'
    f'{config_lib.nearest(preset, PRESETS)}.'
  )
