"""Measures the host memory that importing and exporting 2 GB of weights takes.

    python tests/benchmarks/load_memory.py

Writes a random checkpoint of 2.2 GB to a temporary folder; then a process per
mesh imports it onto forced CPU devices and exports it again. There the devices'
memory is the host's, so what counts is the peak beyond the model itself and
beyond what the process held before. Takes 1 minute, 5 GB of disk and 4 GB of
memory.
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = {
  'model_type': 'llama',
  'hidden_size': 2048,
  'intermediate_size': 8192,
  'num_attention_heads': 16,
  'num_hidden_layers': 16,
  'num_key_value_heads': 4,
  'rope_theta': 500_000.0,
  'vocab_size': 32_000,
  'torch_dtype': 'bfloat16',
}
MB = 1_000_000


def write_checkpoint(folder: pathlib.Path) -> None:
  """Writes noise of every name and shape, a tensor at a time."""
  import numpy as np

  from score_jax.models import families, names, tensor_files, weights
  from score_jax.models.architecture import Execution
  from score_jax.models.transformer import Transformer

  config = families.model_config(CONFIG)
  model = Transformer(config, Execution(param_dtype='bfloat16'))
  params = weights.target(model)
  rng = np.random.default_rng(0)
  outgoing = []
  for tensor in names.tensors(config, names.Layout()):
    param = params
    for key in tensor.path:
      param = param[key]
    own = param.shape[1:] if tensor.is_stacked else param.shape
    shape = tuple(
      int(np.prod([own[axis] for axis in group])) for group in tensor.axes
    )
    size = 2 * int(np.prod(shape))
    for i in range(param.shape[0] if tensor.is_stacked else 1):
      outgoing.append(
        tensor_files.Outgoing(
          tensor.name.format(i),
          size,
          'BF16',
          shape,
          lambda size=size: [rng.integers(0, 60, size, np.uint8)],
        )
      )
  groups = tensor_files.groups(outgoing, 10**9)
  tensor_files.write(folder, groups, lambda size: None)
  (folder / 'config.json').write_text(json.dumps(CONFIG))


def resident() -> int:
  """Returns the bytes of this process that are in memory now."""
  pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
  return pages * os.sysconf('SC_PAGE_SIZE')


def peak() -> int:
  """Returns the most bytes of this process that were in memory so far."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(folder: pathlib.Path, fsdp: int, tensor: int) -> None:
  """Imports and exports the checkpoint in this process; prints one line."""
  import jax

  from score_jax import sharding
  from score_jax.models import families, served, weights
  from score_jax.models.architecture import Execution
  from score_jax.models.transformer import Transformer

  mesh = sharding.make_mesh((1, fsdp, tensor))
  hf = weights.read_config(folder)
  model = Transformer(
    families.model_config(hf), Execution(param_dtype='bfloat16', mesh=mesh)
  )
  target = weights.target(model)
  before, start = resident(), time.monotonic()
  params = weights.load(folder, target)
  loaded, middle = peak(), time.monotonic()
  size = sum(x.nbytes for x in jax.tree.leaves(params))
  largest = 2 * CONFIG['vocab_size'] * CONFIG['hidden_size']
  with tempfile.TemporaryDirectory() as out:
    served.save(pathlib.Path(out) / 'out', params, hf, folder)
  print(
    f'mesh (1, {fsdp}, {tensor}): model {size / MB:.0f} MB, largest tensor '
    f'{largest / MB:.0f} MB; beyond model and start, peak host memory of '
    f'import {(loaded - before - size) / MB:.0f} MB in {middle - start:.1f} s, '
    f'with export {(peak() - before - size) / MB:.0f} MB in '
    f'{time.monotonic() - middle:.1f} s'
  )


def main() -> None:
  parser = argparse.ArgumentParser()
  parser.add_argument(
    '--measure', nargs=3, metavar=('FOLDER', 'FSDP', 'TENSOR')
  )
  arguments = parser.parse_args()
  if arguments.measure:
    folder, fsdp, tensor = arguments.measure
    measure(pathlib.Path(folder), int(fsdp), int(tensor))
    return
  with tempfile.TemporaryDirectory() as folder:
    write_checkpoint(pathlib.Path(folder))
    for fsdp, tensor in ((1, 1), (8, 1), (2, 4)):
      flags = f'--xla_force_host_platform_device_count={fsdp * tensor}'
      subprocess.run(
        [sys.executable, __file__, '--measure', folder, str(fsdp), str(tensor)],
        env={**os.environ, 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': flags},
        check=True,
      )


if __name__ == '__main__':
  sys.path.insert(0, str(ROOT))
  main()
