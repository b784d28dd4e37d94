"""Data sets as published: which files they are, and what was left out."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Mapping, Sequence

from score_jax.config import ConfigError
from score_jax.problem import Problem

Splits = Mapping[str, Sequence[Problem]]
# Of a split that has no validation problems of its own: so many are held out,
# but no more than one in ten.
HELD_OUT, ONE_IN = 500, 10


@dataclasses.dataclass(frozen=True)
class File:
  """One published file, or folder."""

  names: tuple[str, ...]  # Under any of which it is looked for.
  url: str = ''  # Where it is published; '' = a folder, or an alternative.


@dataclasses.dataclass(frozen=True)
class Layout:
  """One form in which a data set is published."""

  files: Mapping[str, File]
  # From the path of each file to the problems of each split; a prompt is the
  # problem as stated, for the wording comes later.
  parse: Callable[[Mapping[str, pathlib.Path]], Splits]


@dataclasses.dataclass(frozen=True)
class Source:
  """A data set, and how its published files are read."""

  name: str
  folder: str  # Of a user's folder with several data sets, the part for this.
  about: str
  layouts: tuple[Layout, ...]  # The first one is downloaded.
  published: Mapping[str, int]  # Problems per split, without those left out.
  # {id: reason} of problems that no answer can solve as they are published.
  left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)


def find(
  source: Source, folder: pathlib.Path
) -> tuple[Layout, dict[str, pathlib.Path]]:
  """Returns the layout that a folder holds, and the path of each file.

  Raises:
    ConfigError: if it holds none, with what is missing and where it is from.
  """
  for layout in source.layouts:
    paths = {
      key: _first(folder, source.folder, file.names)
      for key, file in layout.files.items()
    }
    if all(paths.values()):
      return layout, paths
  raise ConfigError(
    f'task.manual_dir={str(folder)!r} does not hold {source.name}; put '
    f'{wanted(source)} there or in {source.folder}/ of it, or set '
    "task.manual_dir='' to download it."
  )


def wanted(source: Source) -> str:
  """Returns which files a data set needs, and where they are published."""
  return ', or '.join(
    ' and '.join(
      f'{f.names[0]} ({f.url})' if f.url else f.names[0]
      for f in layout.files.values()
    )
    for layout in source.layouts
  )


def _first(
  folder: pathlib.Path, inside: str, names: Sequence[str]
) -> pathlib.Path | None:
  places = [folder / part / name for part in (inside, '.') for name in names]
  return next((place for place in places if place.exists()), None)


def read(
  source: Source, layout: Layout, paths: Mapping[str, pathlib.Path]
) -> tuple[dict[str, list[Problem]], list[str]]:
  """Returns the problems of each split, and notes for people.

  Raises:
    ConfigError: with file and line, if a file is damaged; or if two problems
      have one id, or a split has none.
  """
  found = layout.parse(paths)
  ids = [problem.id for split in found.values() for problem in split]
  if len(set(ids)) < len(ids):
    twice = next(name for name in ids if ids.count(name) > 1)
    raise ConfigError(
      f'{_names(paths)}: {source.name} has the id {twice!r} twice; copy the '
      'files anew.'
    )
  splits = {
    name: [p for p in split if p.id not in source.left_out]
    for name, split in found.items()
  }
  empty = [name for name in source.published if not splits.get(name)]
  if empty:
    raise ConfigError(
      f'{_names(paths)}: {source.name} has no problem of its split {empty[0]}; '
      'copy the files anew.'
    )
  return splits, _notes(source, ids, splits)


def _names(paths: Mapping[str, pathlib.Path]) -> str:
  return ', '.join(str(path) for path in paths.values())


def _notes(source: Source, ids: Sequence[str], splits: Splits) -> list[str]:
  notes = [
    f'{source.name}: {name} is left out: {reason}.'
    for name, reason in source.left_out.items()
    if name in ids
  ]
  for split, count in source.published.items():
    if len(splits.get(split, ())) != count:
      notes.append(
        f'{source.name}: {len(splits.get(split, ()))} problems in {split}, '
        f'where {count} were published.'
      )
  return notes


def hold_out(problems: Sequence[Problem]) -> dict[str, list[Problem]]:
  """Returns a split to train on and one to validate with, the same for ever.

  Which problems are held out depends on their ids alone.
  """
  count = min(HELD_OUT, len(problems) // ONE_IN)
  held = {p.id for p in shuffled(problems)[:count]}
  return {
    'train': [p for p in problems if p.id not in held],
    'validation': [p for p in problems if p.id in held],
  }


def shuffled(problems: Sequence[Problem]) -> list[Problem]:
  """Returns problems in an order that depends on their ids alone."""
  return sorted(problems, key=lambda p: hashlib.sha256(p.id.encode()).digest())
