"""What is kept of a batch whose update was not finite, for people to look at.

nonfinite/<phase>-<step>.npz     its arrays, by their names in the code
nonfinite/<phase>-<step>.jsonl   its rows as text, where they have one
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from score_jax import files, processes, shards
from score_jax.journal import say

FOLDER = 'nonfinite'
KEPT = 8  # Batches; older ones make room.


def keep(
  workdir: pathlib.Path,
  name: str,
  arrays: Mapping[str, Any],
  rows: Iterable[Mapping[str, Any]] = (),
) -> None:
  """Writes a batch to the work directory, or says why that cannot be.

  To be called by all processes, the first of which writes.

  Args:
    workdir: of the run.
    name: of the batch, as 'stage1-000012'.
    arrays: by name; on the devices, or the same on every process's host.
    rows: of the batch as text.
  """
  whole = shards.fetch(dict(arrays))

  def write() -> None:
    folder = workdir / FOLDER
    try:
      folder.mkdir(exist_ok=True)
      files.write_arrays(folder / f'{name}.npz', **whole)
      if texts := list(rows):
        files.write_jsonl(folder / f'{name}.jsonl', texts)
      _make_room(folder)
    except OSError as error:
      say(f'{name}: its batch could not be kept ({error.strerror})')
    else:
      say(f'{name}: its batch is kept in {folder}')

  processes.decide(write)


def _make_room(folder: pathlib.Path) -> None:
  """Deletes all but the newest batches."""
  newest = sorted(folder.glob('*.npz'), key=lambda x: x.stat().st_mtime_ns)
  for path in newest[:-KEPT]:
    path.unlink()
    path.with_suffix('.jsonl').unlink(missing_ok=True)
