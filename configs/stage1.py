"""Stage I: teach the second attempt, hold the first one to the base.

python -m score_jax.main --config=configs/stage1.py[:PRESET]
"""

from configs import presets


def get_config(preset: str = ''):
  """Returns the settings of the job under a preset."""
  return presets.make('stage1', preset)
