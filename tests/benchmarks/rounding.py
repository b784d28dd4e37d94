"""Measures what bfloat16 costs: against transformers, float32 and the sampler.

    python tests/benchmarks/rounding.py

For each family a small random bfloat16 checkpoint, and several draws of 8 rows
of 24 tokens. One line each per type of the residual stream:

- apart: our logits from those of transformers, over what two runs of
  transformers differ by (rows as they are, and behind eight columns of
  padding); root mean square, of both runs, the mean and the highest of all
  draws;
- error: our logits from float32's, over those of transformers from it; mean;
- gap: of log-probabilities between sampling token by token and scoring whole
  rows, nats, mean over the tokens of two turns of 16.

Takes 155 s of one core.
"""

import os
import pathlib
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[2]
DRAWS = 6


def off(one, other) -> float:
  """Returns the root of the mean square of what two arrays differ by."""
  import numpy as np

  return float(np.sqrt(np.mean(np.square(one - other))))


def two_runs(model, tokens):
  """Returns what transformers computes, as they are and behind padding."""
  import numpy as np
  import tiny_checkpoints

  gap = np.zeros((len(tokens), 8), np.int32)
  mask = np.concatenate([gap, np.ones_like(tokens)], axis=1)
  padded = np.concatenate([gap, tokens], axis=1)
  return (
    tiny_checkpoints.logits(model, tokens),
    tiny_checkpoints.logits(model, padded, mask)[:, 8:],
  )


def sampling_gap(model, params) -> float:
  """Returns the mean |sampled - scored| log-probability of a token."""
  import jax
  import jax.numpy as jnp
  import numpy as np
  import tiny

  from score_jax import sampler

  sampling = tiny.sampling(max_tokens=(16, 16), end_tokens=(-1,))
  rows = np.random.default_rng(0).integers(0, 90, (8, 9)).tolist()
  between = (jnp.asarray([5, 6, 8], jnp.int32),)
  found = sampler.make_sampler(model, sampling)(
    params, tiny.prompts(rows, 9), between, jax.random.key(0)
  )
  logits = tiny.logits_of(model, params, found.tokens)
  gap = np.abs(tiny.token_logp(logits, found.tokens) - found.logp)
  return float(gap[np.asarray(found.turn) > 0].mean())


def measure(case: str) -> None:
  """Prints a line for each type of the residual stream."""
  import jax
  import numpy as np
  import tiny
  import tiny_checkpoints

  from score_jax.models import families, weights
  from score_jax.models.architecture import Execution
  from score_jax.models.transformer import Transformer

  theirs = tiny_checkpoints.build(case, 'bfloat16')
  with tempfile.TemporaryDirectory() as folder:
    theirs.save_pretrained(folder)
    config = families.model_config(weights.read_config(folder))
    exact = Transformer(config, Execution(param_dtype='bfloat16'))
    params = weights.load(folder, weights.target(exact))
  draws = []
  for seed in range(DRAWS):
    tokens = np.random.default_rng(seed).integers(0, 90, (8, 24))
    tokens = tokens.astype(np.int32)
    wide = tiny.logits_of(exact, params, tokens)
    draws.append((tokens, np.asarray(wide), *two_runs(theirs, tokens)))
  for residual in ('float32', 'bfloat16'):
    execution = Execution('bfloat16', 'bfloat16', residual)
    model = Transformer(config, execution)
    apart, error = [], []
    for tokens, wide, one, other in draws:
      found = np.asarray(tiny.logits_of(model, params, tokens))
      apart += [off(found, x) / off(one, other) for x in (one, other)]
      error.append(off(found, wide) / off(one, wide))
    print(
      f'{case:20} {residual:9} apart {np.mean(apart):.2f}, at most '
      f'{max(apart):.2f}; error {np.mean(error):.2f}; gap '
      f'{sampling_gap(model, params):.4f}',
      flush=True,
    )
    jax.clear_caches()


def main() -> None:
  os.environ['JAX_PLATFORMS'] = 'cpu'
  sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]
  import tiny_checkpoints

  for case in tiny_checkpoints.FAMILIES:
    measure(case)


if __name__ == '__main__':
  main()
