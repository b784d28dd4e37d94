"""Small files that are whole or absent, however the program ends."""

from __future__ import annotations

import io
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


def write_text(path: pathlib.Path, text: str) -> None:
  """Replaces a file by a text; see `write_bytes`."""
  write_bytes(path, text.encode())


def write_bytes(path: pathlib.Path, data: bytes) -> None:
  """Replaces a file, so that readers see the old one or the new, no mixture.

  Args:
    path: of the file; one process at a time may write it.
    data: all it will hold.

  Raises:
    OSError: if it cannot be written; the old file is then as it was.
  """
  temporary = path.with_name(path.name + '.tmp')
  try:
    with open(temporary, 'wb') as file:
      file.write(data)
      file.flush()
      os.fsync(file.fileno())  # Else a power cut may keep only the new name.
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def write_arrays(path: pathlib.Path, **arrays: Any) -> None:
  """Replaces a file by compressed arrays (.npz); see `write_bytes`."""
  data = io.BytesIO()
  np.savez_compressed(data, **arrays)
  write_bytes(path, data.getvalue())


def write_json(path: pathlib.Path, value: Any) -> None:
  """Replaces a file by a value as indented JSON; see `write_text`."""
  write_text(path, json.dumps(value, indent=2) + '\n')


def append_jsonl(path: pathlib.Path, row: Mapping[str, Any]) -> None:
  """Adds a row to a file of one JSON object per line.

  A last line that a kill cut short is ended first, so that only it is lost.

  Raises:
    OSError: if it cannot be written; the file is then as it was.
  """
  line = json.dumps(row).encode() + b'\n'
  with open(path, 'a+b', buffering=0) as file:
    size = file.seek(0, os.SEEK_END)
    if size:
      file.seek(-1, os.SEEK_END)
      line = line if file.read(1) == b'\n' else b'\n' + line
    try:
      while line:  # Where there is room for a part, that is what is written.
        line = line[file.write(line) :]
    except OSError:
      file.truncate(size)
      raise


def read_jsonl(
  path: pathlib.Path,
) -> tuple[list[dict[str, Any]], list[int]]:
  """Returns the rows of a file of JSON lines, and the numbers of bad lines.

  Args:
    path: of the file. Its last line may have been cut short.

  Returns:
    The rows that could be read, in order, and the numbers (from 1) of the
    lines that could not.
  """
  rows, bad = [], []
  for number, line in enumerate(path.read_bytes().split(b'\n'), start=1):
    if not line:
      continue
    try:
      rows.append(json.loads(line))
    except ValueError:
      bad.append(number)
  return rows, bad


def write_jsonl(path: pathlib.Path, rows: Iterable[Mapping[str, Any]]) -> None:
  """Replaces a file by one JSON object per line; see `write_text`."""
  write_text(path, ''.join(json.dumps(row) + '\n' for row in rows))


def read_json(path: pathlib.Path) -> Any:
  """Returns the value in a file of JSON."""
  return json.loads(path.read_text(encoding='utf-8'))
