"""Methods side by side: what their evaluations say, with intervals.

Every figure is the mean over seeds. Its interval stands for other problems and
for other seeds: its reach to either side is the root of the sum of two
squares, the reach of a bootstrap over problems, of the mean over seeds, and
that of Student's t over the seeds, where there are several. A method is held
against another in pairs, problem by problem and seed by seed, with an interval
of the same kind; McNemar's test, which knows no seeds, is done for each seed
and its largest p is told.

Letters: N problems, S seeds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.stats

from score_jax import budget, evaluation

RESAMPLES, SEED = 2000, 0


@dataclasses.dataclass(frozen=True)
class Cell:
  """One method trained with one seed, evaluated."""

  # {metric: float64[n]}, NaN: does not apply. The problems of all metrics of
  # the table's own evaluation are the same, n = N of them.
  values: dict[str, np.ndarray]
  right: np.ndarray  # bool[N, T].
  steps: Sequence[dict[str, Any]]  # Records of its training, one per update.
  attempts: int  # Sampled in training.
  tokens: int  # Of these attempts.
  updates: int


@dataclasses.dataclass(frozen=True)
class Figure:
  """A mean with its 95 % interval; NaN where nothing applies."""

  mean: float
  low: float
  high: float


@dataclasses.dataclass(frozen=True)
class Against:
  """How a method differs from the one that all are held against."""

  accuracy: Figure  # Of Acc@t2.
  delta: Figure
  p: float  # McNemar's, of second attempts; the largest over the seeds.


@dataclasses.dataclass(frozen=True)
class Line:
  """One row of the table."""

  name: str
  words: str
  seeds: int
  figures: dict[str, Figure]  # By metric.
  attempts: float  # Sampled in training, mean over seeds; 0 = not trained.
  tokens: float
  updates: float
  against: Against | None  # None: it is the one held against, or there is none.


def read_cell(
  rows: Sequence[dict[str, Any]], steps: Sequence[dict[str, Any]]
) -> Cell:
  """Returns a cell from its records.

  Args:
    rows: of its evaluation, one per problem.
    steps: of its training, one per update.
  """
  right = np.array([[o == 'right' for o in row['outcomes']] for row in rows])
  attempts = evaluation.compare(
    [row['attempts'] for row in rows],
    [row['answers'] for row in rows],
    right,
    np.array([row['truncated'] for row in rows]),
  )
  values = evaluation.problem_values(attempts)
  labels = [row.get('difficulty', '') for row in rows]
  for metric in ('accuracy_t1', 'accuracy_t2', 'delta'):
    of_label = budget.by_difficulty(labels, values[metric])
    values |= {f'{metric} [{label}]': x for label, x in of_label.items()}
  return Cell(
    values,
    right,
    steps,
    sum(step['sampled_attempts'] for step in steps),
    sum(step['sampled_tokens'] for step in steps),
    len(steps),
  )


def figure(values: Sequence[np.ndarray]) -> Figure:
  """Returns the mean of a metric over seeds, with its interval.

  Args:
    values: float64[N] per seed, of the same problems.
  """
  return figures({'': values})['']


def figures(values: Mapping[str, Sequence[np.ndarray]]) -> dict[str, Figure]:
  """Returns the mean of each metric over seeds, with its interval.

  Args:
    values: float64[N] per seed, of the same problems; N may be another one
      for another metric.
  """
  found = {}
  for problems in sorted({len(x[0]) for x in values.values()}):
    names = [name for name, x in values.items() if len(x[0]) == problems]
    # All in one bootstrap, for drawing the problems is what takes its time.
    tables = [np.stack(values[name], axis=1) for name in names]
    draws = evaluation.bootstrap(np.concatenate(tables, 1), RESAMPLES, SEED)
    draws = draws.reshape(len(draws), len(names), -1).mean(axis=-1)
    for name, table, own in zip(names, tables, draws.T, strict=True):
      if np.isnan(table).all(axis=0).any():
        found[name] = Figure(np.nan, np.nan, np.nan)
      else:
        found[name] = _within(_around(np.nanmean(table, axis=0), own), table)
  return {name: found[name] for name in values}


def _around(means: np.ndarray, draws: np.ndarray) -> Figure:
  """Returns the mean of float64[S] and how far it reaches.

  Args:
    means: of each seed.
    draws: float64[R], of their mean by a bootstrap over problems.
  """
  mean = float(means.mean())
  low, high = evaluation.interval(draws)
  seeds = half_width(means)
  return Figure(
    mean,
    mean - float(np.hypot(mean - low, seeds)),
    mean + float(np.hypot(high - mean, seeds)),
  )


def _within(figure: Figure, values: np.ndarray) -> Figure:
  """Returns the figure with an interval that ends where shares end.

  A few seeds that differ reach far, but no share is below 0 or above 1.
  """
  if np.nanmin(values) < 0 or np.nanmax(values) > 1:
    return figure
  return Figure(figure.mean, max(0.0, figure.low), min(1.0, figure.high))


def half_width(means: np.ndarray) -> float:
  """Returns how far Student's t interval of a mean of seeds reaches.

  Args:
    means: float64[S], one per seed; one alone says nothing of others: 0.
  """
  if len(means) < 2:
    return 0.0
  reach = scipy.stats.t.ppf(0.5 + evaluation.LEVEL / 2, len(means) - 1)
  return float(reach * means.std(ddof=1) / np.sqrt(len(means)))


def against(cells: Sequence[Cell], others: Sequence[Cell]) -> Against:
  """Returns how methods differ, cells less others, seed by seed in order.

  Where one has fewer seeds than the other, those it has are compared; what
  was not trained is the same with every seed.
  """
  # What is trained has as many seeds as it has cells.
  seeds = [len(x) for x in (cells, others) if x[0].updates]
  count = min(seeds or (len(cells), len(others)))
  pairs = list(
    zip(_so_many(cells, count), _so_many(others, count), strict=True)
  )

  def difference(metric: str) -> Figure:
    after, before = (
      np.stack([pair[side].values[metric] for pair in pairs], axis=1)
      for side in (0, 1)
    )
    gain = after - before
    draws = evaluation.bootstrap(gain, RESAMPLES, SEED)
    return _around(gain.mean(axis=0), draws.mean(axis=1))

  return Against(
    difference('accuracy_t2'),
    difference('delta'),
    max(evaluation.mcnemar(b.right[:, 1], a.right[:, 1]) for a, b in pairs),
  )


def _so_many(cells: Sequence[Cell], count: int) -> list[Cell]:
  """Returns the first `count` cells, one that was not trained repeated."""
  return [*cells, *[cells[-1]] * count][:count]


def line(
  name: str,
  words: str,
  cells: Sequence[Cell],
  others: Sequence[Cell],
) -> Line:
  """Returns a method's row.

  Args:
    name: of the method.
    words: the same, for people.
    cells: one per seed, in order.
    others: of the method that all are held against; empty = none.
  """
  metrics = [
    m
    for m in cells[0].values
    if not m.startswith('truncated') and all(m in c.values for c in cells)
  ]
  return Line(
    name=name,
    words=words,
    seeds=len(cells),
    figures=figures({m: [cell.values[m] for cell in cells] for m in metrics}),
    attempts=float(np.mean([cell.attempts for cell in cells])),
    tokens=float(np.mean([cell.tokens for cell in cells])),
    updates=float(np.mean([cell.updates for cell in cells])),
    against=against(cells, others) if others and cells is not others else None,
  )


def spread(lines: Sequence[Line]) -> float:
  """Returns how far apart the attempts sampled in training are, as a share.

  The largest over the smallest of all methods that are trained, less 1.
  """
  trained = [x.attempts for x in lines if x.attempts]
  return max(trained) / min(trained) - 1 if trained else 0.0
