"""A user's own problems: one JSON object per line, from a file or a folder.

    {"problem": "What is 7 + 5?", "answer": "12"}

`problem` and `answer` are texts (or whole numbers) and must be there. `id`,
`reference` (a full right response), `difficulty` and `attempt` (a fixed first
attempt) may be; any other field is left alone.
"""

from __future__ import annotations

import pathlib

from score_jax.config import ConfigError
from score_jax.problem import Problem
from score_jax.tasks import rows

SPLITS = ('train', 'validation', 'test')
# Of each HELD_OUT problems to train on, which one a split without a file of
# its own takes.
HELD_OUT = 10
PLACES = {'validation': 8, 'test': 9}


def load(path: str, form: str) -> dict[str, list[Problem]]:
  """Returns the problems of each split; a prompt is the problem as stated.

  Args:
    path: a file of problems, or a folder with train.jsonl and, if wanted,
      validation.jsonl and test.jsonl. A split without a file of its own takes
      every tenth problem of those to train on.
    form: of a reference where a problem has none, with {answer} in it.

  Raises:
    ConfigError: with file and line, if one of them cannot be used.
  """
  files = _files(path)
  found = {split: _read(file) for split, file in files.items()}
  rows.unique_ids([pair for part in found.values() for pair in part])
  problems = {
    split: [_problem(name, row, form) for name, row in part]
    for split, part in found.items()
  }
  return _hold_out(problems) if 'train' in problems else problems


def splits(path: str) -> tuple[str, ...]:
  """Returns which splits a file or folder has.

  Raises:
    ConfigError: if there is no such file.
  """
  files = _files(path)
  return SPLITS if 'train' in files else tuple(files)


def _files(path: str) -> dict[str, pathlib.Path]:
  if not path:
    raise ConfigError(
      "task.name='jsonl' needs task.path; set it to a file with one JSON "
      'object per line, or to a folder with train.jsonl.'
    )
  place = pathlib.Path(path).expanduser()
  if place.is_file():
    return {'train': place}
  files = {split: place / f'{split}.jsonl' for split in SPLITS}
  files = {split: file for split, file in files.items() if file.is_file()}
  if not files:
    raise ConfigError(
      f'task.path={path!r} is neither a file of problems nor a folder with '
      'train.jsonl, validation.jsonl or test.jsonl; set it to one.'
    )
  return files


def _read(path: pathlib.Path) -> list[tuple[str, rows.Row]]:
  """Returns the rows of a file with the ids that they have or get."""
  return [
    (row.optional('id') or f'{path.stem}-{row.line}', row)
    for row in rows.read_lines(path)
  ]


def _problem(name: str, row: rows.Row, form: str) -> Problem:
  answer = row.text('answer')
  return Problem(
    id=name,
    prompt=row.text('problem'),
    answer=answer,
    reference=row.optional('reference') or form.replace('{answer}', answer),
    difficulty=row.optional('difficulty'),
    attempt=row.optional('attempt'),
  )


def _hold_out(problems: dict[str, list[Problem]]) -> dict[str, list[Problem]]:
  """Returns all splits, those that were missing taken from train."""
  taken = {place: s for s, place in PLACES.items() if s not in problems}
  held: dict[str, list[Problem]] = {s: [] for s in ('train', *taken.values())}
  for number, problem in enumerate(problems['train']):
    held[taken.get(number % HELD_OUT, 'train')].append(problem)
  return problems | held
