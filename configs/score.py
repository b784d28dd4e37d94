"""SCoRe: both stages in one job, evaluated before, between and after.

python -m score_jax.main --config=configs/score.py[:PRESET]
"""

from configs import presets


def get_config(preset: str = ''):
  """Returns the settings of the job under a preset."""
  return presets.make('score', preset)
