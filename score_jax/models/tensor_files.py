"""Tensors by name in a folder of safetensors files: what is there, and more.

Of the format (eight bytes of length, a JSON header, the data) so little is
needed that it is read and written here. Files are mapped, so a process reads
the pages of its own slices alone; and data is streamed behind a header that
was computed beforehand, which the format's own library does not offer.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import ml_dtypes
import numpy as np

from score_jax import files
from score_jax.config import ConfigError

WEIGHTS = 'model.safetensors'
ADAPTER = 'adapter_model.safetensors'
INDEX = 'model.safetensors.index.json'
DTYPES = {
  'F32': np.dtype(np.float32),
  'F16': np.dtype(np.float16),
  'BF16': np.dtype(ml_dtypes.bfloat16),
}
CODES = {dtype: code for code, dtype in DTYPES.items()}
CHUNK_BYTES = 1 << 26


@dataclasses.dataclass(frozen=True)
class Stored:
  """A tensor that lies in a file."""

  file: pathlib.Path
  offset: int  # In bytes, from the start of the file.
  size: int  # In bytes.
  dtype: str  # As the format names it.
  shape: tuple[int, ...]

  def map(self) -> np.ndarray:
    """Returns the tensor, of which only what is touched is read."""
    return np.memmap(
      self.file, DTYPES[self.dtype], 'r', self.offset, self.shape
    )

  def chunks(self) -> Iterator[np.ndarray]:
    """Yields its bytes, uint8[CHUNK_BYTES] at most each."""
    for start in range(0, self.size, CHUNK_BYTES):
      count = min(CHUNK_BYTES, self.size - start)
      yield np.fromfile(self.file, np.uint8, count, offset=self.offset + start)


@dataclasses.dataclass(frozen=True)
class Outgoing:
  """A tensor to be written."""

  name: str
  size: int  # In bytes.
  dtype: str  # As the format names it.
  shape: tuple[int, ...]
  chunks: Callable[[], Iterable[np.ndarray]]  # Its bytes, in order.


def refuse(text: str) -> NoReturn:
  """Raises a ConfigError."""
  raise ConfigError(text)


def few(names: Iterable[str]) -> str:
  """Returns the first three names, and how many more there are."""
  names = sorted(names)
  more = f' and {len(names) - 3} more' if len(names) > 3 else ''
  return ', '.join(names[:3]) + more


def read_json(file: pathlib.Path) -> dict[str, Any]:
  """Returns the object in a JSON file of a checkpoint.

  Raises:
    ConfigError: the file is not there, or something else is in its place.
  """
  if not file.is_file():
    refuse(
      f'{file} is not there; give the folder of a whole checkpoint, with '
      f'config.json and {WEIGHTS}.'
    )
  try:
    value = json.loads(file.read_bytes())
  except ValueError:
    refuse(f'{file} is not JSON{_remedy(file)}')
  if not isinstance(value, dict) or 'error' in value:
    refuse(f'{file} is not what its name says{_remedy(file)}')
  return value


def _remedy(file: pathlib.Path) -> str:
  return placeholder(file) or '; download it again.'


def placeholder(file: pathlib.Path) -> str:
  """Returns what stands in a file in place of its content, and the remedy.

  '' where it is nothing that is known to stand in for files.
  """
  with open(file, 'rb') as opened:
    start = opened.read(400).decode('utf-8', 'replace').strip()
  if start.startswith('version https://git-lfs'):
    return ': it is a git-lfs pointer; run git lfs pull in its folder.'
  if start.startswith(('<', '{"error')) or 'restricted' in start:
    return (
      ': it is a message of the hub in place of the file; accept the '
      "model's license there, log in and download it again."
    )
  return ''


def stored_tensors(folder: pathlib.Path) -> dict[str, Stored]:
  """Returns every tensor of a folder by name; reads the headers alone.

  Raises:
    ConfigError: there are no weights, a file of them is missing or cut short,
      or it is something else; one line that names it and the remedy.
  """
  if (folder / WEIGHTS).exists():
    return _read_header(folder / WEIGHTS)
  if not (folder / INDEX).exists():
    refuse(_without_weights(folder))
  listed = read_json(folder / INDEX).get('weight_map')
  if not isinstance(listed, dict) or not listed:
    refuse(f'{folder / INDEX} has no weight_map; download it again.')
  found = {}
  for name in sorted(set(listed.values())):
    if not (folder / name).is_file():
      refuse(
        f'{folder / name} is not there, though {INDEX} lists it; download it.'
      )
    header = _read_header(folder / name)
    if twice := found.keys() & header.keys():
      refuse(f'{folder / name} repeats {few(twice)}; download it again.')
    found.update(header)
  if absent := listed.keys() - found.keys():
    refuse(
      f'{folder / listed[min(absent)]} lacks {few(absent)}, though {INDEX} '
      'lists it there; download both again.'
    )
  return found


def _without_weights(folder: pathlib.Path) -> str:
  others = ('*.safetensors', '*.bin', '*.pth', '*.gguf', '*.pt')
  found = [f.name for pattern in others for f in folder.glob(pattern)]
  if any(name.endswith('.safetensors') for name in found):
    return f'{folder} has {few(found)} but no {INDEX}; download that too.'
  if found:
    return (
      f'{folder} has {few(found)} but no {WEIGHTS}; download the safetensors, '
      'or write them with save_pretrained of transformers.'
    )
  return f'{folder} has no {WEIGHTS} and no {INDEX}; download the weights.'


def _read_header(file: pathlib.Path) -> dict[str, Stored]:
  """Returns the tensors of one file, its length and theirs checked."""
  size = file.stat().st_size
  with open(file, 'rb') as opened:
    length = int.from_bytes(opened.read(8), 'little')
    if not 2 <= length <= size - 8:
      refuse(f'{file} is not whole safetensors{_remedy(file)}')
    try:
      header = json.loads(opened.read(length))
    except ValueError:
      refuse(f'{file} is not safetensors{_remedy(file)}')
  header.pop('__metadata__', None)
  start = 8 + length
  ends = {name: start + t['data_offsets'][1] for name, t in header.items()}
  if size != (end := max(ends.values(), default=start)):
    lost = [name for name, last in ends.items() if last > size]
    what = f'cut short, within {few(lost)}' if lost else 'damaged'
    refuse(
      f'{file} has {size} bytes where its header says {end}: it was {what}; '
      'download it again.'
    )
  return {name: _stored(file, start, name, t) for name, t in header.items()}


def _stored(
  file: pathlib.Path, start: int, name: str, entry: Mapping[str, Any]
) -> Stored:
  dtype, shape = entry['dtype'], tuple(entry['shape'])
  first, last = entry['data_offsets']
  width = DTYPES[dtype].itemsize if dtype in DTYPES else None
  if width and last - first != math.prod(shape) * width:
    refuse(
      f'{file}: {name} has {last - first} bytes, too many or too few for '
      f'{dtype}{list(shape)}; download it again.'
    )
  return Stored(file, start + first, last - first, dtype, shape)


def groups(
  outgoing: Sequence[Outgoing], file_bytes: int
) -> list[list[Outgoing]]:
  """Returns which tensors share a file, and in which order.

  Args:
    outgoing: all tensors.
    file_bytes: the most that one file holds, unless one tensor is larger.
  """
  found, room = [], 0
  for each in outgoing:
    if not found or each.size > room:
      found.append([])
      room = file_bytes
    found[-1].append(each)
    room -= each.size
  # Wide numbers first, so that each stands at a multiple of its width.
  return [sorted(g, key=_width, reverse=True) for g in found]


def _width(tensor: Outgoing) -> int:
  return tensor.size // max(1, math.prod(tensor.shape))


def write(
  folder: pathlib.Path,
  groups: Sequence[Sequence[Outgoing]],
  written: Callable[[int], Any],
) -> None:
  """Writes one file, or several and the index that says what is where.

  Args:
    folder: it exists.
    groups: the tensors of each file.
    written: told the bytes of each tensor.
  """
  weight_map, total = {}, 0
  for i, group in enumerate(groups, start=1):
    name = WEIGHTS
    if len(groups) > 1:
      name = f'model-{i:05}-of-{len(groups):05}.safetensors'
    weight_map |= {each.name: name for each in group}
    total += sum(each.size for each in group)
    write_file(folder / name, group, written)
  if len(groups) > 1:
    index = {'metadata': {'total_size': total}, 'weight_map': weight_map}
    files.write_json(folder / INDEX, index)


def write_file(
  file: pathlib.Path,
  outgoing: Sequence[Outgoing],
  written: Callable[[int], Any],
) -> None:
  """Writes tensors to one file, in their order; `written` is told the bytes."""
  with open(file, 'wb') as opened:
    opened.write(_header(outgoing))
    for each in outgoing:
      for chunk in each.chunks():
        opened.write(chunk)
      written(each.size)
    opened.flush()
    os.fsync(opened.fileno())  # Else a power cut may keep only the name.


def _header(outgoing: Sequence[Outgoing]) -> bytes:
  header, end = {'__metadata__': {'format': 'pt'}}, 0
  for each in outgoing:
    header[each.name] = {
      'dtype': each.dtype,
      'shape': each.shape,
      'data_offsets': [end, end := end + each.size],
    }
  text = json.dumps(header, separators=(',', ':')).encode()
  text += b' ' * (-len(text) % 8)
  return len(text).to_bytes(8, 'little') + text
