"""Is there room for what a run writes, before it begins?"""

from __future__ import annotations

import os
import pathlib
import shutil
import tempfile

PROBE_BYTES = 1 << 20


def refusal(folder: pathlib.Path, setting: str = '--workdir') -> str:
  """Returns why nothing can be written to a folder, or ''.

  It writes a megabyte, which it leaves no trace of.

  Args:
    folder: that is there, on a disk.
    setting: that names it.
  """
  try:
    with tempfile.TemporaryFile(dir=folder) as probe:
      probe.write(os.urandom(PROBE_BYTES))
      probe.flush()
      os.fsync(probe.fileno())
  except OSError as error:
    return (
      f'{setting}={folder} cannot be written ({error.strerror}); make room '
      'there, or give another.'
    )
  return ''


def warning(folder: pathlib.Path, each: int, most: int) -> str:
  """Returns that checkpoints may find no room, or ''.

  Args:
    folder: where they go.
    each: bytes of one.
    most: how many more may come to lie there beside each other.
  """
  free = shutil.disk_usage(folder).free
  if free >= each * most:
    return ''
  return (
    f'warning   {folder} has {free / 1e9:.3g} GB left, and {most} more '
    f'checkpoints of up to {each / 1e9:.3g} GB may come to lie there beside '
    'each other; make room, or lower checkpoint.keep'
  )
