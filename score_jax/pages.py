"""Asks for memory in huge pages, in which a CPU computes faster.

XLA takes and gives back gigabytes for every update on a CPU. In pages of 4 kB
each of them is a fault, and what the products read misses the table of pages:
the update of `docs/performance.md` takes up to a fifth longer.
"""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Mapping

VARIABLE = 'GLIBC_TUNABLES'
TUNABLE = 'glibc.malloc.hugetlb'
SINCE = (2, 35)  # The release of glibc that has it.
_KERNEL = pathlib.Path('/sys/kernel/mm/transparent_hugepage/enabled')


def ask() -> None:
  """Starts the program anew where only that brings huge pages.

  The C library reads what it is told as a program starts, and never again. The
  process, its arguments and its output stay the same; nothing may have been
  done yet. GLIBC_TUNABLES=glibc.malloc.hugetlb=0 keeps small pages.
  """
  if missing := settings():
    os.environ.update(missing)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def settings() -> dict[str, str]:
  """Returns what the environment lacks for programs to get huge pages."""
  try:
    kernel = _KERNEL.read_text()
    library = os.confstr('CS_GNU_LIBC_VERSION') or ''
  except (OSError, ValueError):  # Another system, or another C library.
    return {}
  wanted = tunables(os.environ, kernel, library)
  return {} if wanted is None else {VARIABLE: wanted}


def tunables(
  environment: Mapping[str, str], kernel: str, library: str
) -> str | None:
  """Returns what VARIABLE should be, or None where nothing is to be changed.

  Args:
    environment: of the process.
    kernel: what Linux says of its huge pages, as 'always [madvise] never'. Only
      where programs have to ask for them does asking change anything.
    library: the C library and its version, as 'glibc 2.36'.
  """
  if '[madvise]' not in kernel:
    return None
  name, _, version = library.partition(' ')
  numbers = tuple(int(n) for n in version.split('.') if n.isdigit())
  if name != 'glibc' or numbers < SINCE:
    return None
  there = environment.get(VARIABLE, '')
  if TUNABLE in there:
    return None
  return ':'.join(filter(None, (there, f'{TUNABLE}=1')))
