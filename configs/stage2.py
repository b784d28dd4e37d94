"""Stage II: train both attempts, progress between them paid extra.

    python -m score_jax.main --config=configs/stage2.py[:PRESET]

Starts from the best checkpoint of stage I in the same work directory, and
trains stage I first where there is none.
"""

from configs import presets


def get_config(preset: str = ''):
  """Returns the settings of the job under a preset."""
  return presets.make('stage2', preset)
