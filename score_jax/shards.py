"""What of an array lies with this process, and how each has the whole.

All processes hold the same arrays, each a part of them on its own devices.
`fetch` is to be called by all of them, in one order. Of one process it is
`jax.device_get`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from score_jax import processes


def fetch(tree: Any) -> Any:
  """Returns the whole arrays of a tree on every process's host."""
  if not processes.several():
    return jax.device_get(tree)
  return jax.tree.map(_whole, tree)


def _whole(x: Any) -> np.ndarray:
  if not isinstance(x, jax.Array) or x.is_fully_addressable:
    return np.asarray(x)
  if x.is_fully_replicated:
    return np.asarray(x.addressable_data(0))
  return multihost_utils.process_allgather(x, tiled=True)


def settled(tree: Any) -> Any:
  """Returns a tree, awaited where un-awaited programs may stall."""
  if processes.several() and jax.default_backend() == 'cpu':
    jax.block_until_ready(tree)
  return tree


def own_rows(x: jax.Array) -> np.ndarray:
  """Returns int64[n], the rows of an array that this process reads for all.

  In growing order. A row belongs to one of the processes that hold it; those
  that hold the same rows share them.
  """
  if not processes.several():
    return np.arange(len(x))
  holders: dict[tuple[int, int], set[int]] = {}
  for device, index in x.sharding.devices_indices_map(x.shape).items():
    start, stop, _ = index[0].indices(len(x))
    holders.setdefault((start, stop), set()).add(device.process_index)
  return rows_of(holders, jax.process_index())


def rows_of(
  holders: Mapping[tuple[int, int], set[int]], process: int
) -> np.ndarray:
  """Returns int64[n], the rows that one process reads.

  Args:
    holders: of each range of rows, from start to stop: who holds a copy.
    process: which one.
  """
  mine = [np.arange(0)]
  for (start, stop), who in sorted(holders.items()):
    if process in who:
      shares = np.array_split(np.arange(start, stop), len(who))
      mine.append(shares[sorted(who).index(process)])
  return np.concatenate(mine)


def read_rows(tree: Any, rows: np.ndarray) -> Any:
  """Returns rows of the arrays of a tree, from this process's own devices.

  Args:
    tree: of arrays that are split by rows alone.
    rows: int64[n], as `own_rows` gives them.
  """
  if not processes.several():
    return jax.device_get(tree)

  def one(x):
    found = np.empty((len(rows), *x.shape[1:]), x.dtype)
    for shard in x.addressable_shards:
      start, stop, _ = shard.index[0].indices(len(x))
      inside = (rows >= start) & (rows < stop)
      if inside.any():
        found[inside] = np.asarray(shard.data)[rows[inside] - start]
    return found

  return jax.tree.map(one, tree)
