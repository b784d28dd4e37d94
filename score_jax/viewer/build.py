"""From the files of a run, or of two, to one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import json
import os
import pathlib
import zlib
from collections.abc import Sequence
from typing import Any

from score_jax.report import files
from score_jax.report.build import write
from score_jax.report.markup import escape
from score_jax.viewer import data

NAME = 'viewer.html'


def build(
  workdirs: Sequence[str | os.PathLike[str]],
  out: str | os.PathLike[str] | None = None,
) -> pathlib.Path:
  """Writes the viewer of all trajectories, and returns its path.

  The same files give the same bytes. A reader never sees half a file.

  Args:
    workdirs: of the runs, one or more; those after the first are compared with
      it, problem by problem.
    out: the file to write; None = `viewer.html` in the first work directory.

  Raises:
    FileNotFoundError: if there is no such directory.
  """
  folders = [pathlib.Path(workdir) for workdir in workdirs]
  for folder in folders:
    if not folder.is_dir():
      raise FileNotFoundError(
        'the work directory of a run must exist before its viewer; got '
        f'{folder}.'
      )
  runs = [files.read(folder) for folder in folders]
  path = pathlib.Path(out) if out else folders[0] / NAME
  write(path, page(data.columns(folders, runs)).encode('ascii'))
  return path


def page(columns: dict[str, Any]) -> str:
  """Returns the whole page, in ASCII alone.

  What a model wrote travels compressed and in base 64, and becomes text nodes:
  the browser never reads it as HTML. The page may run this very script, known
  by its hash, and load nothing.

  Args:
    columns: as `data.columns` makes them.
  """
  script = _asset('viewer.js')
  policy = (
    f"default-src 'none'; style-src 'unsafe-inline'; "
    f"script-src '{_digest(script)}'"
  )
  parts = {
    'policy': policy,
    'title': escape('Trajectories: ' + ', '.join(columns['runs'])),
    'style': _asset('viewer.css'),
    'script': script,
    'data': packed(columns),
  }
  text = _asset('viewer.html')
  # In one pass, so that nothing put in is itself looked through.
  pieces = text.split('@')
  filled = [parts[p] if i % 2 else p for i, p in enumerate(pieces)]
  return ''.join(filled).encode('ascii', 'xmlcharrefreplace').decode()


def packed(columns: dict[str, Any]) -> str:
  """Returns columns as JSON, compressed by zlib, in base 64."""
  text = json.dumps(columns, separators=(',', ':'), allow_nan=False)
  return base64.b64encode(zlib.compress(text.encode('ascii'), 6)).decode()


def _asset(name: str) -> str:
  folder = importlib.resources.files('score_jax') / 'assets'
  return (folder / name).read_text('utf-8')


def _digest(script: str) -> str:
  digest = hashlib.sha256(script.encode()).digest()
  return 'sha256-' + base64.b64encode(digest).decode()
