"""What a run needs to go on where its work directory is lost.

Where checkpoints lie in a folder of their own (`checkpoint.folder`), the work
directory may be on a disk that goes with its machine. So its small files are
copied beside the checkpoints, before each save and after each evaluation:

    files/    config.json, metrics, samples, evaluations and traces
    writer    a word that the job wrote which wrote last; also in its workdir

A bucket cannot be locked. A job that finds another word there than its own was
followed by another one, and ends: of two jobs the later one goes on.
"""

from __future__ import annotations

import dataclasses
import pathlib
import secrets

from score_jax import places
from score_jax.places import Place

FILES, WRITER = 'files', 'writer'
KEPT = (
  'config.json',
  'metrics.jsonl',
  'samples.jsonl',
  'eval.json',
  'evaluations/*.jsonl',
  'traces/*.npz',
)


class TakenOver(RuntimeError):
  """Another job goes on with the checkpoints; the text says with which."""


@dataclasses.dataclass(frozen=True)
class Spare:
  """A folder of checkpoints, and the work directory that it makes up for."""

  folder: Place
  workdir: pathlib.Path
  # Size and time of change of each file as it was copied, by its name.
  copied: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)

  def bring_back(self) -> bool:
    """Copies what was kept to the work directory, if it is not that one's own.

    Returns whether it did.

    Raises:
      OSError: if the folder cannot be read, or the work directory written.
    """
    theirs = _word(self.folder)
    if not theirs or theirs == _word(self.workdir):
      return False
    kept = self.folder / FILES
    for name in places.below(kept):
      data = places.read_bytes(kept / name)
      places.write_bytes(self.workdir / name, data)
    return True

  def take_over(self) -> None:
    """Has another job that writes here end, and keeps what there is to keep.

    Raises:
      OSError: if the folder cannot be written.
    """
    word = secrets.token_hex(16)
    places.write_bytes(self.folder / WRITER, word.encode())
    places.write_bytes(self.workdir / WRITER, word.encode())
    self._copy()

  def keep(self) -> str:
    """Copies what has changed; returns why it could not, or ''.

    Raises:
      TakenOver: if another job took over.
    """
    try:
      if _word(self.folder) != _word(self.workdir):
        raise TakenOver(
          f'another job goes on from the checkpoints in {self.folder}; this one '
          'ends. Give each job a folder of its own, or start only one.'
        )
      self._copy()
    except OSError as error:
      return (
        f'{self.folder}/{FILES} could not be written '
        f'({places.words(error)}); the next save tries again.'
      )
    return ''

  def _copy(self) -> None:
    for pattern in KEPT:
      for path in sorted(self.workdir.glob(pattern)):
        name = str(path.relative_to(self.workdir))
        seen = path.stat()
        now = (seen.st_size, seen.st_mtime_ns)
        if self.copied.get(name) != now:
          places.write_bytes(self.folder / FILES / name, path.read_bytes())
          self.copied[name] = now


def _word(folder: Place) -> str:
  """Returns the word in a folder, or '' where there is none."""
  try:
    return places.read_text(folder / WRITER)
  except FileNotFoundError:
    return ''
