"""The machine: its cores, and how fast one of them copies.

The speed of its products is measured beside each repeat, by `link.canary`.
"""

from __future__ import annotations

import os
import pathlib
import platform
import time

import numpy as np
from absl import app


def bandwidth() -> float:
  """Returns bytes a second of one core that copies what fits in no cache."""
  source = np.ones(1 << 26, np.float32)
  target, seconds = source.copy(), []
  for _ in range(5):
    start = time.thread_time()
    np.copyto(target, source)
    seconds.append(time.thread_time() - start)
  return 2 * source.nbytes / min(seconds)


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
