"""Measures how far narrow weights and caches take samples from their scores.

    python tests/benchmarks/narrow.py

Of the bundled model, on 256 problems' worth of random sums, and of a small
random checkpoint of each family: the mean and the highest |sampled - scored|
log-probability of a token in nats, as `logp_gap_mean` and `logp_gap_max` of a
step have them. Scores are of the parameters as they are trained, in float32;
what samples is kept as the line says.
"""

import os
import pathlib
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[2]


# Of the weights, and of the cache.
KEPT = (
  ('same', 'same'),
  ('bfloat16', 'bfloat16'),
  ('int8', 'same'),
  ('same', 'int8'),
  ('int8', 'int8'),
)


def gaps(model, params, decoding, rows, between, lengths):
  """Returns the mean and the highest gap of what is sampled from prompts."""
  import jax
  import jax.numpy as jnp
  import numpy as np
  import tiny

  from score_jax import decoding as decoding_lib
  from score_jax import sampler

  sampling = tiny.sampling(max_tokens=lengths, end_tokens=(-1,))
  found = sampler.make_sampler(decoding_lib.decoder(model, decoding), sampling)(
    decoding_lib.make_prepare(model, decoding)(params),
    tiny.prompts(rows, len(rows[0])),
    (jnp.asarray(between, jnp.int32),),
    jax.random.key(0),
  )
  logits = tiny.logits_of(model, params, found.tokens)
  gap = np.abs(tiny.token_logp(logits, found.tokens) - found.logp)
  gap = gap[np.asarray(found.turn) > 0]
  return float(gap.mean()), float(gap.max())


def measure(name, folder, rows, between, lengths) -> None:
  """Prints a line for each way to keep weights and cache."""
  import jax

  from score_jax.decoding import Decoding
  from score_jax.models import families, weights
  from score_jax.models.architecture import Execution
  from score_jax.models.transformer import Transformer

  config = families.model_config(weights.read_config(folder))
  model = Transformer(config, Execution())
  params = weights.load(folder, weights.target(model))
  for kept, cache in KEPT:
    mean, most = gaps(
      model, params, Decoding(kept, cache), rows, between, lengths
    )
    print(
      f'{name:20} weights {kept:9} cache {cache:9} gap {mean:.5f}, at most '
      f'{most:.3f}',
      flush=True,
    )
  jax.clear_caches()


def main() -> None:
  os.environ['JAX_PLATFORMS'] = 'cpu'
  os.environ['XLA_FLAGS'] = '--xla_backend_optimization_level=0'
  sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]
  import numpy as np
  import tiny_checkpoints

  from score_jax import config as config_lib
  from score_jax import tokenizer
  from score_jax.chat import Chat

  draw = np.random.default_rng(0).integers
  words = tokenizer.load(str(config_lib.BUNDLED), Chat('auto', '', False))
  asked = [f'{a}+{b}=' for a, b in draw(100, 1000, (256, 2))]
  rows = words.prompts(asked)
  between = words.between('\nThere may be an error:\n')
  measure('the bundled model', config_lib.BUNDLED, rows, between, (5, 5))
  for case in tiny_checkpoints.FAMILIES:
    with tempfile.TemporaryDirectory() as folder:
      tiny_checkpoints.build(case, 'float32').save_pretrained(folder)
      rows = draw(0, 90, (64, 24)).tolist()
      measure(case, folder, rows, [5, 6, 8], (24, 24))


if __name__ == '__main__':
  main()
