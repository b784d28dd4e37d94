"""Has memory come in huge pages, and kept, as a CPU then computes faster.

XLA takes and gives back gigabytes for every update on a CPU. In pages of 4 kB
each of them is a fault, and what the products read misses the table of pages;
given back to the system, all of them are faults again in the next update, and
on a virtual machine each may be a fault of its host too. `docs/performance.md`
says what that costs an update.
"""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Mapping

VARIABLE = 'GLIBC_TUNABLES'
HUGE = 'glibc.malloc.hugetlb'
SINCE = (2, 35)  # The release of glibc that has it.
# Blocks of up to this share of the memory are kept: larger ones are worth more
# to others than the time they cost, and leave no gaps too small for the next.
KEPT = 1 / 8
_KERNEL = pathlib.Path('/sys/kernel/mm/transparent_hugepage/enabled')
_LIMIT = pathlib.Path('/sys/fs/cgroup/memory.max')  # Of a container.
# Where drivers of accelerators put them: their programs take no such blocks
# from the host, whose threads are better off with memory of their own.
_ACCELERATORS = ('accel*', 'vfio/[0-9]*', 'nvidia[0-9]*', 'kfd')


def ask() -> None:
  """Starts the program anew where only that changes how memory comes.

  The C library reads what it is told as a program starts, and never again. The
  process, its arguments and its output stay the same; nothing may have been
  done yet. What GLIBC_TUNABLES names already stays, so that
  GLIBC_TUNABLES=glibc.malloc.hugetlb=0 keeps small pages.
  """
  if missing := settings():
    os.environ.update(missing)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def settings() -> dict[str, str]:
  """Returns what the environment lacks; nothing beside an accelerator."""
  try:
    kernel = _KERNEL.read_text()
    library = os.confstr('CS_GNU_LIBC_VERSION') or ''
    memory = host_memory()
  except (OSError, ValueError):  # Another system, or another C library.
    return {}
  if _has_accelerator(os.environ, pathlib.Path('/dev')):
    return {}
  wanted = tunables(os.environ, kernel, library, memory)
  return {} if wanted is None else {VARIABLE: wanted}


def host_memory(limit: pathlib.Path = _LIMIT) -> int:
  """Returns the bytes that this machine has, or its container may use.

  Args:
    limit: the file that says what a container may, 'max' where that is all.
  """
  whole = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  try:
    text = limit.read_text().strip()
  except OSError:  # No container, or a system without them.
    return whole
  return min(whole, int(text)) if text.isdecimal() else whole


def _has_accelerator(
  environment: Mapping[str, str], devices: pathlib.Path
) -> bool:
  """Returns whether JAX may find something better than a CPU."""
  if environment.get('JAX_PLATFORMS') == 'cpu':
    return False
  return any(any(devices.glob(name)) for name in _ACCELERATORS)


def tunables(
  environment: Mapping[str, str], kernel: str, library: str, memory: int
) -> str | None:
  """Returns what VARIABLE should be, or None where nothing is to be changed.

  Args:
    environment: of the process.
    kernel: what Linux says of its huge pages, as 'always [madvise] never'. Only
      where programs have to ask for them does asking change anything.
    library: the C library and its version, as 'glibc 2.36'.
    memory: bytes of the machine.
  """
  name, _, version = library.partition(' ')
  numbers = tuple(int(n) for n in version.split('.') if n.isdigit())
  if name != 'glibc' or numbers < SINCE:
    return None
  kept = int(memory * KEPT)
  # One arena, for those of other threads have no place for large blocks.
  wanted = {
    'glibc.malloc.arena_max': 1,
    'glibc.malloc.mmap_threshold': kept,
    'glibc.malloc.trim_threshold': kept,
  }
  if '[madvise]' in kernel:
    wanted = {HUGE: 1} | wanted
  there = environment.get(VARIABLE, '')
  missing = [f'{k}={x}' for k, x in wanted.items() if f'{k}=' not in there]
  if not missing:
    return None
  return ':'.join(filter(None, (there, *missing)))
