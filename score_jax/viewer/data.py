"""Trajectories of one run or two as columns, each text stored once.

The page reads these columns as they are; `assets/viewer.js` is their reader.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from score_jax.report import files, words
from score_jax.report.files import Row, Run, Sample, Tokens

DIGITS = 4  # Significant, of logged numbers.
NONE = -1  # Stands for a text that a row does not have.
TEXTS = ('id', 'task', 'prompt', 'answer', 'difficulty')


@dataclasses.dataclass(frozen=True)
class Source:
  """Trajectories of one origin: a checkpoint's test, or a stage's training."""

  run: int  # Which of the runs.
  name: str  # Of the checkpoint or stage.
  label: str  # For people.
  training: bool
  entries: Sequence[Row | Sample]


def columns(
  workdirs: Sequence[pathlib.Path], runs: Sequence[Run]
) -> dict[str, Any]:
  """Returns all trajectories of the runs as plain columns, ready for JSON.

  Rows of one source are neighbours: `sources` says where each starts and ends.
  Texts are numbers that point into `strings`.

  Args:
    workdirs: of the runs, for their names.
    runs: what the work directories hold.
  """
  sources = [s for i, run in enumerate(runs) for s in _sources(i, run)]
  rows = [_row(entry) for source in sources for entry in source.entries]
  turns = max((len(row.attempts) for row in rows), default=2)
  number, strings = _numbering()
  return {
    'runs': _names(workdirs),
    'notes': [note for run in runs for note in run.notes],
    'turns': turns,
    'verdicts': [words.VERDICTS[name] for name in files.OUTCOMES],
    'sources': _places(sources),
    'columns': {
      name: [number(getattr(row, name)) for row in rows] for name in TEXTS
    },
    'attempts': [
      [number(_at(row.attempts, turn)) for row in rows] for turn in range(turns)
    ],
    'outcomes': [
      [_outcome(_at(row.outcomes, turn)) for row in rows]
      for turn in range(turns)
    ],
    'truncated': [
      [int(bool(_at(row.truncated, turn))) for row in rows]
      for turn in range(turns)
    ],
    'training': _training(sources, number),
    'strings': strings,
  }


def _sources(index: int, run: Run) -> list[Source]:
  stages = dict.fromkeys(sample.stage for sample in run.samples)
  tests = [
    Source(index, name, words.checkpoint(name, run.trains), False, rows)
    for name, rows in run.rows.items()
  ]
  return tests + [
    Source(
      index,
      stage,
      f'Training, {words.stage(stage)}',
      True,
      [sample for sample in run.samples if sample.stage == stage],
    )
    for stage in stages
  ]


def _row(entry: Row | Sample) -> Row:
  return entry.row if isinstance(entry, Sample) else entry


def _names(workdirs: Sequence[pathlib.Path]) -> list[str]:
  """Returns what tells the runs apart: their folders' names, or whole paths."""
  short = [path.absolute().name for path in workdirs]
  return short if len(set(short)) == len(short) else list(map(str, workdirs))


def _numbering() -> tuple[Callable[[str | None], int], list[str]]:
  """Returns a function from a text to its number, and the list it fills."""
  numbers: dict[str, int] = {}
  strings: list[str] = []

  def number(text: str | None) -> int:
    if text is None:
      return NONE
    if text not in numbers:
      numbers[text] = len(strings)
      strings.append(text)
    return numbers[text]

  return number, strings


def _at(values: Sequence, index: int) -> Any:
  return values[index] if index < len(values) else None


def _outcome(name: str | None) -> int:
  return NONE if name is None else files.OUTCOMES.index(name)


def _places(sources: Sequence[Source]) -> list[dict[str, Any]]:
  places, start = [], 0
  for source in sources:
    end = start + len(source.entries)
    places.append(
      {
        'run': source.run,
        'name': source.name,
        'label': source.label,
        'training': source.training,
        'start': start,
        'end': end,
      }
    )
    start = end
  return places


def _training(
  sources: Sequence[Source], number: Callable[[str | None], int]
) -> dict[int, dict[str, Any]]:
  """Returns {row: what is known of training trajectories alone}."""
  entries = [entry for source in sources for entry in source.entries]
  return {
    index: _credit(entry, number)
    for index, entry in enumerate(entries)
    if isinstance(entry, Sample)
  }


def _credit(
  sample: Sample, number: Callable[[str | None], int]
) -> dict[str, Any]:
  known = {
    'step': sample.step,
    'reward': _short(sample.reward),
    'paid': _short(sample.paid),
    'advantage': _short(sample.advantage),
  }
  if sample.tokens is not None:
    known['tokens'] = _tokens(sample.tokens, number)
  return known


def _tokens(
  tokens: Tokens, number: Callable[[str | None], int]
) -> dict[str, list]:
  return {
    'text': [number(text) for text in tokens.text],
    'turn': list(tokens.turn),
    'logp': _short(tokens.logp),
    'kl': _short(tokens.kl),
  }


def _short(values: Sequence[float]) -> list[float | None]:
  """Returns numbers as JSON can hold them, in no more digits than are read."""
  return [
    float(f'{x:.{DIGITS}g}') + 0.0 if math.isfinite(x) else None for x in values
  ]
