"""The machine: its cores, and how fast they move memory.

The speed of its products is measured beside each repeat, by `link.canary`.
"""

from __future__ import annotations

import itertools
import os
import pathlib
import platform
import time
from collections.abc import Callable
from concurrent import futures

import numpy as np
from absl import app


def bandwidth(cores: int) -> float:
  """Returns bytes a second that so many cores move together at most.

  They copy, or read alone, what fits in no cache, each a part of its own: two
  cores seldom have twice what one has.
  """
  source = np.ones(1 << 26, np.float32)
  target = source.copy()
  edges = np.linspace(0, len(source), cores + 1, dtype=int)
  parts = [slice(*each) for each in itertools.pairwise(edges)]

  def copy(part: slice) -> None:
    np.copyto(target[part], source[part])

  def read(part: slice) -> None:
    np.max(source[part])

  def seconds(work: Callable[[slice], None]) -> float:
    found = []
    for _ in range(5):
      start = time.perf_counter()
      list(pool.map(work, parts))
      found.append(time.perf_counter() - start)
    return min(found)

  with futures.ThreadPoolExecutor(cores) as pool:
    return max(2 * source.nbytes / seconds(copy), source.nbytes / seconds(read))


def pin(cores: int) -> list[int]:
  """Binds this process, and all that it starts, to its least busy cores."""

  def busy() -> dict[int, int]:
    found = {}
    for line in pathlib.Path('/proc/stat').read_text().splitlines():
      name, *ticks = line.split()
      if name.startswith('cpu') and name != 'cpu':
        user, nice, system = map(int, ticks[:3])
        found[int(name[3:])] = user + nice + system
    return found

  before = busy()
  time.sleep(0.5)
  after = busy()
  allowed = os.sched_getaffinity(0)
  if cores > len(allowed):
    raise app.UsageError(f'--cores={cores}: there are {len(allowed)}.')
  quiet = sorted(allowed, key=lambda core: after[core] - before[core])[:cores]
  os.sched_setaffinity(0, quiet)
  return sorted(quiet)


def processor() -> str:
  """Returns the processor's name."""
  with open('/proc/cpuinfo', encoding='ascii') as info:
    names = [line.split(':')[1] for line in info if 'model name' in line]
  return names[0].strip() if names else platform.processor()
