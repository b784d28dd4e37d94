"""A model so small that it is planned for in no time, and its settings."""

import dataclasses

import tiny

from score_jax import config as config_lib
from score_jax import estimate, programs

# Large enough that products, and not norms, are what costs.
MODEL = dataclasses.replace(
  tiny.PLAIN,
  vocab_size=512,
  width=128,
  heads=4,
  kv_heads=2,
  head_dim=32,
  mlp=256,
  tied_embeddings=True,
)
MESH = (1, 4, 2)


def settings(**changes):
  """Returns settings of 32 rows of 4 + 6 + 5 + 6 columns."""
  config = config_lib.default()
  with config.unlocked():
    config.update_from_flattened_dict(
      {
        'train.trajectories': 32,
        'sampling.max_prompt_tokens': 4,
        'sampling.max_tokens': (6, 6),
        'sampling.first_attempts': 4,
        'model.unroll': False,
        'model.logits_chunk': 128,
        **changes,
      }
    )
  return config


def setup(mesh=MESH, model=MODEL, **changes):
  return programs.setup(
    settings(**changes), model, programs.abstract_mesh(mesh), instruction=4
  )


# Rows so long that attention scores are what the update holds most of, and so
# many that they do not fit beside the processor, which XLA would use for them.
LONG_ROWS = {
  'train.trajectories': 256,
  'model.dtype': 'bfloat16',
  'model.remat': 'block',
  'model.logits_chunk': 1024,
  'sampling.max_prompt_tokens': 256,
  'sampling.max_tokens': (384, 384),
}
WIDE = dataclasses.replace(MODEL, width=256, head_dim=128, mlp=512)


def long_rows(kind, mesh):
  """Returns what an update of long rows is made from, with a kind of attention."""
  config = settings(**LONG_ROWS, **{'model.attention': kind})
  return programs.setup(config, WIDE, mesh, instruction=4)


def predicted(made):
  """Returns the bytes of a device that an update is planned to take."""
  return estimate.peak(estimate.update_moments(made)).total
