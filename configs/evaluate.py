"""Evaluates a checkpoint folder on a task, and trains nothing.

python -m score_jax.main --config=configs/evaluate.py[:PRESET] \
  --config.model.path=DIR [--config.task.eval_name=humaneval]
"""

from configs import presets


def get_config(preset: str = ''):
  """Returns the settings of the job under a preset."""
  return presets.make('evaluate', preset)
