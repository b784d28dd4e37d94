"""Makes the bundled base model.

    python -m score_jax.main --config=configs/pretrain.py --workdir=runs/base

Some 17 minutes on two busy CPU cores; ends with the head-room measured.
"""

from configs import presets


def get_config(preset: str = ''):
  """Returns the settings of the job under a preset."""
  return presets.make('pretrain', preset)
