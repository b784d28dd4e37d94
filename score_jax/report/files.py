"""A work directory as data; what cannot be read becomes a note, not an error.

A run may still be going, or may have been killed in the middle of a line.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
import math
import pathlib
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from score_jax import config as config_lib
from score_jax import journal

OUTCOMES = ('right', 'wrong', 'unparsed', 'timeout', 'error')
ANEW = ' Delete it, and the command of the run evaluates anew.'


@dataclasses.dataclass(frozen=True)
class Row:
  """All attempts at one problem, as text."""

  id: str
  prompt: str
  answer: str  # The oracle's.
  attempts: tuple[str, ...]
  outcomes: tuple[str, ...]  # Of OUTCOMES, one per attempt.
  truncated: tuple[bool, ...]  # One per attempt.
  difficulty: str
  task: str = ''  # Where the test problems are of several tasks.


@dataclasses.dataclass(frozen=True)
class Tokens:
  """The tokens of one trajectory; all fields are equally long."""

  text: tuple[str, ...]
  turn: tuple[int, ...]  # The attempt that wrote the token, or 0.
  logp: tuple[float, ...]  # Of the policy that sampled; nats.
  kl: tuple[float, ...]  # Its share of the KL to the reference; nats.


@dataclasses.dataclass(frozen=True)
class Sample:
  """One trajectory of training."""

  row: Row
  stage: str
  step: int
  reward: tuple[float, ...]  # Per attempt.
  advantage: tuple[float, ...]  # Per attempt.
  paid: tuple[float, ...] = ()  # Per attempt, less the KL; () = not logged.
  tokens: Tokens | None = None  # None = not logged.


@dataclasses.dataclass(frozen=True)
class Segment:
  """A part of the training spent in one stage without a break."""

  stage: str
  start: int  # Steps of all segments before.
  steps: tuple[dict[str, Any], ...]  # Metrics by name, in order of 'step'.

  @property
  def x(self) -> np.ndarray:
    """int[S]: the step of each entry, counted over all segments."""
    step = np.array([entry['step'] for entry in self.steps])
    return self.start + step - step[0] + 1

  def series(self, name: str) -> np.ndarray:
    """float64[S]: one metric, NaN where an entry lacks it."""
    return np.array([_number(entry.get(name)) for entry in self.steps])


@dataclasses.dataclass(frozen=True)
class Run:
  """All that the report knows of a run; any part may be empty."""

  settings: dict[str, Any]  # Flat, {'part.setting': value}.
  segments: tuple[Segment, ...]
  # By checkpoint, oldest first; then by what the last was asked beside.
  summaries: dict[str, dict[str, Any]]
  rows: dict[str, tuple[Row, ...]]
  samples: tuple[Sample, ...]
  notes: tuple[str, ...]  # What was left out, and why.

  @property
  def trains(self) -> bool:
    """Whether its job does; the other kind evaluates a model as it is."""
    return self.settings.get('job') != 'evaluate'

  @property
  def turns(self) -> int:
    """The most attempts that an evaluation knows of, 2 where there is none."""
    turns = [_turns(summary) for summary in self.summaries.values()]
    turns += [len(rows[0].attempts) for rows in self.rows.values()]
    return max([2, *turns])

  @property
  def turns_trained(self) -> int:
    """The most attempts that a step of training knows of."""
    steps = (entry for part in self.segments for entry in part.steps)
    return max([2, *map(_turns, steps)])

  @property
  def trained(self) -> str | None:
    """The newest checkpoint with a summary, unless that is the base."""
    names = [name for name in self.checkpoints if name != 'base']
    return names[-1] if names else None

  @property
  def checkpoints(self) -> list[str]:
    """The checkpoints with a summary, oldest first."""
    asked = _asked(self.settings)
    return [name for name in self.summaries if name not in asked]

  @property
  def newest(self) -> str | None:
    """The newest checkpoint whose problems are listed."""
    asked = _asked(self.settings)
    names = [name for name in self.rows if name not in asked]
    return names[-1] if names else next(reversed(self.rows), None)


def read(workdir: pathlib.Path) -> Run:
  """Returns all that a work directory says of its run.

  Args:
    workdir: the directory; every file in it may be missing.
  """
  notes: list[str] = []
  config = _read_json(workdir / 'config.json', notes)
  summaries = _read_json(workdir / 'eval.json', notes, ANEW)
  summaries = {k: v for k, v in summaries.items() if isinstance(v, dict)}
  settings = config_lib.flatten(config)
  age = functools.partial(_age, _asked(settings))
  paths = sorted((workdir / 'evaluations').glob('*.jsonl'))
  rows = {p.stem: _read_rows(p, workdir, notes) for p in paths}
  return Run(
    settings=settings,
    segments=segments(
      _read_lines(workdir / 'metrics.jsonl', workdir, _step, notes)
    ),
    summaries={k: summaries[k] for k in sorted(summaries, key=age)},
    rows={k: rows[k] for k in sorted(rows, key=age) if rows[k]},
    samples=_read_lines(workdir / 'samples.jsonl', workdir, _sample, notes),
    notes=tuple(notes),
  )


def value(summary: dict[str, Any], name: str) -> float:
  """Returns a metric of a summary, NaN where it has none."""
  return _number(summary.get(name))


def bounds(summary: dict[str, Any], name: str) -> tuple[float, float]:
  """Returns the 95 % interval of a metric, NaNs where it has none."""
  intervals = summary.get('ci95')
  pair = intervals.get(name) if isinstance(intervals, dict) else None
  if not isinstance(pair, list) or len(pair) != 2:
    return math.nan, math.nan
  return _number(pair[0]), _number(pair[1])


def _age(
  asked: set[str], checkpoint: str
) -> tuple[bool, bool, list[str | int]]:
  return checkpoint != 'base', checkpoint in asked, journal.order(checkpoint)


def _asked(settings: dict[str, Any]) -> set[str]:
  """Returns the names of evaluations that ask for other than the attempts."""
  more = f'attempts{settings.get("eval.attempts")}'
  return {more, str(settings.get('method.name'))} - {'base'}


def _turns(metrics: dict[str, Any]) -> int:
  matches = (re.fullmatch(r'accuracy_t(\d+)', name) for name in metrics)
  return max((int(match[1]) for match in matches if match), default=0)


def _number(x: Any) -> float:
  # Neither NaN, nor infinite, nor an integer that no float can hold.
  usable = isinstance(x, int | float) and abs(x) <= sys.float_info.max
  return float(x) if usable else math.nan


def _read_json(
  path: pathlib.Path, notes: list[str], remedy: str = ''
) -> dict[str, Any]:
  if not path.exists():
    return {}
  try:
    content = json.loads(path.read_text('utf-8', 'replace'))
  except (ValueError, RecursionError):
    content = None
  if not isinstance(content, dict):
    notes.append(
      f'{path.name} is damaged (no JSON object) and was left out.{remedy}'
    )
    return {}
  return content


def _read_lines(
  path: pathlib.Path,
  workdir: pathlib.Path,
  parse: Callable[[dict[str, Any]], Any],
  notes: list[str],
) -> tuple[Any, ...]:
  """Returns what `parse` makes of each line, and notes the lines it refuses."""
  if not path.exists():
    return ()
  parsed, refused = [], []
  lines = path.read_text('utf-8', 'replace').split('\n')
  for number, line in enumerate(lines, start=1):
    if not line.strip():
      continue
    try:
      parsed.append(parse(json.loads(line)))
    except (ValueError, TypeError, LookupError, RecursionError):
      refused.append(number)
  if refused:
    notes.append(
      f'{path.relative_to(workdir)}: {len(refused)} of {len(lines)} lines '
      f'could not be read and were left out (the first is line {refused[0]}).'
    )
  return tuple(parsed)


def _read_rows(
  path: pathlib.Path, workdir: pathlib.Path, notes: list[str]
) -> tuple[Row, ...]:
  rows = _read_lines(path, workdir, _row, notes)
  turns = collections.Counter(len(row.attempts) for row in rows)
  usual = turns.most_common(1)[0][0] if turns else 0
  if len(turns) > 1:
    notes.append(
      f'{path.relative_to(workdir)}: {len(rows) - turns[usual]} problems do '
      f'not have {usual} attempts as the others and were left out.'
    )
  return tuple(row for row in rows if len(row.attempts) == usual)


def _row(record: dict[str, Any]) -> Row:
  row = Row(
    id=str(record['id']),
    prompt=str(record['prompt']),
    answer=str(record['answer']),
    attempts=tuple(str(text) for text in record['attempts']),
    outcomes=tuple(record['outcomes']),
    truncated=tuple(bool(cut) for cut in record['truncated']),
    difficulty=str(record.get('difficulty', '')),
    task=str(record.get('task', '')),
  )
  if not 1 <= len(row.attempts) == len(row.outcomes) == len(row.truncated):
    raise ValueError('attempts, outcomes and truncated differ in length.')
  if not set(row.outcomes) <= set(OUTCOMES):
    raise ValueError('an outcome is none of OUTCOMES.')
  return row


def _sample(record: dict[str, Any]) -> Sample:
  sample = Sample(
    row=_row(record),
    stage=str(record['stage']),
    step=int(record['step']),
    reward=tuple(float(x) for x in record['reward']),
    advantage=tuple(float(x) for x in record['advantage']),
    paid=tuple(float(x) for x in record.get('paid', ())),
    tokens=_tokens(record) if 'tokens' in record else None,
  )
  turns = len(sample.row.attempts)
  if not turns == len(sample.reward) == len(sample.advantage):
    raise ValueError('attempts, reward and advantage differ in length.')
  if sample.paid and len(sample.paid) != turns:
    raise ValueError('attempts and paid differ in length.')
  return sample


def _tokens(record: dict[str, Any]) -> Tokens:
  tokens = Tokens(
    text=tuple(str(text) for text in record['tokens']),
    turn=tuple(int(turn) for turn in record['turn']),
    logp=tuple(float(x) for x in record['logp']),
    kl=tuple(float(x) for x in record['kl']),
  )
  if len({len(x) for x in vars(tokens).values()}) > 1:
    raise ValueError('tokens, turn, logp and kl differ in length.')
  return tokens


def _step(record: dict[str, Any]) -> dict[str, Any]:
  return record | {'stage': str(record['stage']), 'step': int(record['step'])}


def segments(entries: Iterable[dict[str, Any]]) -> tuple[Segment, ...]:
  """Returns the stages of the records of steps, in the order they ran.

  A run that was resumed writes some steps again: the last writing counts.
  """
  parts: list[tuple[str, dict[int, dict[str, Any]]]] = []
  for entry in entries:
    if not parts or parts[-1][0] != entry['stage']:
      parts.append((entry['stage'], {}))
    parts[-1][1][entry['step']] = entry
  found, start = [], 0
  for stage, by_step in parts:
    steps = tuple(by_step[step] for step in sorted(by_step))
    found.append(Segment(stage, start, steps))
    start = int(found[-1].x[-1])
  return tuple(found)
