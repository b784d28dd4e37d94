"""From the files of a work directory to its report and figures."""

from __future__ import annotations

import os
import pathlib

from score_jax.report import figures, files
from score_jax.report.page import page


def build(workdir: str | os.PathLike[str]) -> pathlib.Path:
  """Writes `report.html` and `plots/*.png`, and returns the former's path.

  Everything is made anew from the files of the run, and the same files give
  the same bytes. A reader never sees half a file.

  Args:
    workdir: of the run, finished or not.

  Raises:
    FileNotFoundError: if there is no such directory.
  """
  folder = pathlib.Path(workdir)
  if not folder.is_dir():
    raise FileNotFoundError(
      f'the work directory of a run must exist before its report; got {folder}.'
    )
  run = files.read(folder)
  pictures = figures.pictures(run)
  (folder / 'plots').mkdir(exist_ok=True)
  for picture in pictures.values():
    write(folder / 'plots' / f'{picture.name}.png', picture.png)
  report = folder / 'report.html'
  # A model may write half of a surrogate pair, which UTF-8 cannot hold.
  write(report, page(run, pictures).encode('utf-8', 'replace'))
  return report


def write(path: pathlib.Path, content: bytes) -> None:
  """Replaces a file; readers see the old bytes or the new ones."""
  temporary = path.with_name(f'.{path.name}.{os.getpid()}')
  try:
    temporary.write_bytes(content)
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)
