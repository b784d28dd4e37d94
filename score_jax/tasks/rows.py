"""Rows out of files of JSON: each with its place, and nothing lost in silence.

Whatever cannot be read is refused with the file and the line. A file that a
download or a copy cut short therefore never passes for a shorter one, unless
it was cut between two lines.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import pathlib
import zlib
from collections.abc import Iterator
from typing import Any

from score_jax.config import ConfigError

_UTF16 = (b'\xff\xfe', b'\xfe\xff')
_BOM = b'\xef\xbb\xbf'
SHOWN = 60  # Characters of a bad line that are shown.


@dataclasses.dataclass(frozen=True)
class Row:
  """One JSON object of a file."""

  path: pathlib.Path
  line: int  # From 1; of a file of one list, the place in it.
  fields: dict[str, Any]

  def error(self, reason: str, remedy: str = '') -> ConfigError:
    """Returns the error to raise; `reason` goes on from the place."""
    return fault(self.path, self.line, reason, remedy)

  def text(self, *names: str) -> str:
    """Returns the text of the first of some fields that is there.

    A whole number is read as its digits.

    Raises:
      ConfigError: if none is there, or if it is neither.
    """
    for name in names:
      if name in self.fields:
        return self._as_text(name, self.fields[name])
    wanted = ' or '.join(repr(name) for name in names)
    raise self.error(f'has no {wanted}', f'it has {sorted(self.fields)}')

  def optional(self, *names: str) -> str:
    """Returns as `text` does; '' where no such field is there, or it is null."""
    there = [name for name in names if self.fields.get(name) is not None]
    return self.text(*there) if there else ''

  def texts(self, name: str) -> list[str]:
    """Returns the texts of a field that is a list of them.

    Raises:
      ConfigError: if it is not there, or holds anything else.
    """
    values = self.fields.get(name)
    if not isinstance(values, list):
      raise self.error(f'needs a list of texts as {name!r}')
    return [self._as_text(name, value) for value in values]

  def number(self, name: str) -> int:
    """Returns the whole number of a field.

    Raises:
      ConfigError: if it is not there, or is none.
    """
    value = self.fields.get(name)
    if type(value) is not int:
      raise self.error(f'needs a whole number as {name!r}; got {value!r:.40}')
    return value

  def _as_text(self, name: str, value: Any) -> str:
    if type(value) is int:
      return str(value)
    if not isinstance(value, str):
      kind = 'null' if value is None else type(value).__name__
      raise self.error(
        f'has {name!r} of the wrong type ({kind})', 'write it as a text'
      )
    try:
      value.encode()
    except UnicodeEncodeError:
      raise self.error(
        f'has half a surrogate pair in {name!r}', 'write whole characters'
      ) from None
    return value


def fault(
  path: pathlib.Path, line: int, reason: str, remedy: str = ''
) -> ConfigError:
  """Returns the error of one line of a file; '' = copy the file anew."""
  behind = remedy or 'mend the line, or copy the file anew'
  return ConfigError(f'{path}, line {line} {reason}; {behind}.')


def read_bytes(path: pathlib.Path) -> bytes:
  """Returns what a file holds, unpacked where its name ends in .gz.

  Raises:
    ConfigError: if it cannot be read, or is cut short.
  """
  try:
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == '.gz' else data
  except (OSError, EOFError, zlib.error) as error:
    raise ConfigError(
      f'{path} cannot be read ({error}); copy the file anew.'
    ) from error


def read_lines(path: pathlib.Path) -> Iterator[Row]:
  """Yields the rows of a file with one JSON object per line.

  UTF-8, with or without a byte-order mark; lines end in LF or CRLF; blank
  lines are left out.

  Raises:
    ConfigError: with the file and the line, if a line is anything else, or if
      there is none.
  """
  data = read_bytes(path)
  if data.startswith(_UTF16):
    raise fault(path, 1, 'is UTF-16', 'save the file as UTF-8')
  empty = True
  for number, line in enumerate(data.removeprefix(_BOM).split(b'\n'), start=1):
    if line.strip():
      empty = False
      yield Row(path, number, _object(path, number, line))
  if empty:
    raise ConfigError(f'{path} is empty; put one JSON object on each line.')


def read_list(path: pathlib.Path) -> Iterator[Row]:
  """Yields the rows of a file that is one JSON list of objects.

  Raises:
    ConfigError: if it is anything else.
  """
  values = _value(path, 1, read_bytes(path).removeprefix(_BOM))
  if not isinstance(values, list):
    raise fault(path, 1, 'must begin a list of objects')
  for number, fields in enumerate(values, start=1):
    if not isinstance(fields, dict):
      raise fault(path, number, f'(of the list) is {fields!r:.40}, no object')
    yield Row(path, number, fields)


def read_object(path: pathlib.Path) -> Row:
  """Returns the row of a file that is one JSON object.

  Raises:
    ConfigError: if it is anything else.
  """
  return Row(path, 1, _object(path, 1, read_bytes(path).removeprefix(_BOM)))


def read_parquet(path: pathlib.Path) -> Iterator[Row]:
  """Yields the rows of a Parquet file.

  Raises:
    ConfigError: if it is none.
  """
  import pyarrow
  from pyarrow import parquet

  try:
    values = parquet.read_table(path).to_pylist()
  except (OSError, pyarrow.ArrowException) as error:
    raise ConfigError(
      f'{path} cannot be read ({error}); copy the file anew.'
    ) from error
  for number, fields in enumerate(values, start=1):
    yield Row(path, number, fields)


def read(path: pathlib.Path) -> Iterator[Row]:
  """Yields the rows of a file, read by what its name ends in."""
  readers = {'.json': read_list, '.parquet': read_parquet}
  yield from readers.get(path.suffix, read_lines)(path)


def _object(path: pathlib.Path, line: int, data: bytes) -> dict[str, Any]:
  value = _value(path, line, data)
  if not isinstance(value, dict):
    raise fault(path, line, f'is {value!r:.40}, no JSON object')
  return value


def _value(path: pathlib.Path, line: int, data: bytes) -> Any:
  """Returns the JSON value of some bytes that begin at a line of a file."""
  if b'\0' in data:
    raise fault(path, line, 'holds a NUL byte')
  try:
    text = data.decode()
  except UnicodeDecodeError as error:
    line += data.count(b'\n', 0, error.start)
    at = error.start - data.rfind(b'\n', 0, error.start)
    raise fault(
      path, line, f'is not UTF-8 at byte {at}', 'save the file as UTF-8'
    ) from None
  try:
    return json.loads(text, object_pairs_hook=_unique)
  except json.JSONDecodeError as error:
    line += error.lineno - 1
    shown = text.strip()
    cut = '...' if len(shown) > SHOWN else ''
    raise fault(
      path,
      line,
      f'is no JSON ({error.msg} at column {error.colno}: '
      f'{shown[:SHOWN]!r}{cut})',
    ) from None
  except RecursionError:
    raise fault(path, line, 'is nested too deeply') from None
  except ValueError as error:  # A name twice, or a number without end.
    raise fault(path, line, f'is no JSON ({error})') from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  found = dict(pairs)
  if len(found) < len(pairs):
    names = [name for name, _ in pairs]
    twice = next(name for name in names if names.count(name) > 1)
    raise ValueError(f'{twice!r} stands twice in one object')
  return found


def unique_ids(ids: list[tuple[str, Row]]) -> None:
  """Refuses rows of which two have one id.

  Raises:
    ConfigError: with both places.
  """
  seen: dict[str, Row] = {}
  for name, row in ids:
    if name in seen:
      first = seen[name]
      raise row.error(
        f'has the id {name!r} of {first.path}, line {first.line}',
        'give every problem an id of its own',
      )
    seen[name] = row
