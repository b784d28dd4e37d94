"""What the faults do, apart from signals."""

import contextlib
import os
import pathlib
import subprocess
from collections.abc import Iterator

from score_jax import checkpoint, step_files

DISK_MB = 96  # Of a work directory whose disk can be filled.


@contextlib.contextmanager
def small_disk(folder: pathlib.Path) -> Iterator[bool]:
  """Gives whether a folder is a small disk of its own, which needs root."""
  folder.mkdir(parents=True)
  options = f'size={DISK_MB}m'
  command = ['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', str(folder)]
  mounted = not subprocess.run(command, capture_output=True).returncode
  try:
    yield mounted
  finally:
    if mounted:
      subprocess.run(['umount', '--lazy', str(folder)], check=True)


@contextlib.contextmanager
def full(folder: pathlib.Path) -> Iterator[None]:
  """Fills the disk of a folder, again and again while it is used."""
  path = folder / 'filler'
  fill(path)
  try:
    yield
  finally:
    path.unlink()


def fill(path: pathlib.Path) -> None:
  """Lets a file grow until there is no room left."""
  with open(path, 'ab', buffering=0) as file, contextlib.suppress(OSError):
    while file.write(bytes(1 << 16)):
      pass


def damage(
  workdir: pathlib.Path, how: str, place: float, steps: dict[str, int]
) -> str:
  """Damages a file of what a run goes on from; returns which, or '' for none.

  That is its newest checkpoint, or of a finished stage the best: of the others
  nothing is read any more, and nothing is mended.

  Args:
    workdir: of the run.
    how: 'cut' to half its size, 'flipped' in one byte, or 'deleted'.
    place: of the file among those of the step, from 0 to 1.
    steps: of each stage.
  """
  newest = newest_step(workdir)
  if newest is None:
    return ''
  if int(newest.name) == steps[newest.parent.name]:
    newest = newest.with_name(str(checkpoint.best_step(newest.parent)))
  found = sorted(
    x for x in newest.rglob('*') if x.is_file() and x.stat().st_size
  )
  # Orbax's own notes of a step, which nothing here reads, are in no manifest.
  found = [
    x
    for x in found
    if x.relative_to(newest).parts[0]
    in (*step_files.ITEMS, step_files.MANIFEST)
  ]
  path = found[int(place * len(found))]
  size = path.stat().st_size
  if how == 'cut':
    os.truncate(path, size // 2)
  elif how == 'deleted':
    path.unlink()
  else:
    text = bytearray(path.read_bytes())
    text[size // 2] ^= 1
    path.write_bytes(text)
  return str(path.relative_to(workdir))


def newest_step(workdir: pathlib.Path) -> pathlib.Path | None:
  """Returns the folder of the newest checkpoint of the stage under way."""
  for stage in sorted(workdir.glob('checkpoints/*'), reverse=True):
    if (step := checkpoint.newest_step(stage)) is not None:
      return stage / str(step)
  return None
