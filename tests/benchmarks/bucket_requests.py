"""How often does a save ask a bucket, and how often before training goes on?

python tests/benchmarks/bucket_requests.py

Against tests/bucket.py, which answers at once: what a save takes is these
counts times what the service takes to answer, and the bytes.
"""

import os
import pathlib
import sys
import tempfile

sys.path[:0] = [str(pathlib.Path(__file__).parents[i]) for i in (1, 2)]
os.environ |= {'JAX_PLATFORMS': 'cpu', 'TF_CPP_MIN_LOG_LEVEL': '2'}

SAVES = 5
ARRAYS = 14  # Of the parameters; as many more for each of Adam's moments.


def main() -> None:
  """Prints the counts."""
  # Here, behind what is read of the environment when they are imported.
  import bucket as stand_in
  import jax.numpy as jnp
  import optax

  from score_jax import checkpoint, places, spare

  with (
    tempfile.TemporaryDirectory() as folder,
    stand_in.serve(pathlib.Path(folder)) as bucket,
  ):
    os.environ |= bucket.environment()
    del os.environ['GCS_STAT_CACHE_MAX_AGE']  # As in a run.
    params = {f'w{i}': jnp.ones((64, 64)) for i in range(ARRAYS)}
    moments = optax.adam(1e-3).init(params)
    state = {'params': params, 'opt_state': moments, 'step': jnp.int32(1)}
    where = places.at(f'gs://{stand_in.NAME}/run', '')
    checkpoints = checkpoint.open_checkpoints(where / 'stage1', 2, print)
    for step in range(1, SAVES + 1):
      before = len(bucket.asked)
      checkpoints.save(step, state, {'step': step}, -float(step))
      returned = len(bucket.asked) - before
      checkpoints.wait()
      whole = len(bucket.asked) - before
      print(
        f'save {step}: {returned} requests before it returns, {whole} whole'
      )
    checkpoints.close()
    path = pathlib.Path(folder, 'work', 'metrics.jsonl')
    path.parent.mkdir()
    path.write_text('{}\n')
    kept = spare.Spare(where, path.parent)
    kept.take_over()
    path.write_text('{}\n{}\n')
    before = len(bucket.asked)
    kept.keep()
    print(f'a file that is kept: {len(bucket.asked) - before} requests')


if __name__ == '__main__':
  main()
