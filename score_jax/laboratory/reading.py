"""What each finished cell has to say, as numbers per problem.

Beside the metrics of `evaluation`, a cell's values are

    <metric> [<label>]                  of the problems of one difficulty
    attempts_accuracy_t<t>              many attempts in a row
    fixed_first_<metric>                behind the base's first attempts
    samples_avg_at_<K>_t<t>             mean over all K samples of turn t
    samples_pass_at_<k>_t<t>            chance that one of k is right
    samples_<choice>_<n>_parallel       chosen among first attempts,
    samples_<choice>_<n>_corrected      among the corrected ones of n attempts
    samples_<choice>_<n>_gain           the latter less the former
    samples_tokens_<n>                  that both generate

where <choice> is `majority` or `best_of`, and n attempts cost as much either
way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from score_jax import budget, evaluation
from score_jax.laboratory import asking, comparison
from score_jax.laboratory.cells import Plan
from score_jax.laboratory.comparison import Cell

CHOICES = {'majority': budget.majority, 'best_of': budget.best_of}


def cells(todo: Sequence[Plan]) -> dict[str, list[Cell]]:
  """Returns the finished cells of each method, in the order of the seeds."""
  found: dict[str, list[Cell]] = {}
  for plan in todo:
    if plan.is_finished():
      found.setdefault(plan.name, []).append(_cell(plan))
  return found


def _cell(plan: Plan) -> Cell:
  cell = comparison.read_cell(plan.listed(plan.final), plan.steps())
  more = {}
  attempts = asking.attempts_name(plan.given)
  if attempts in plan.results() and plan.name in plan.given.table.attempts:
    more |= in_a_row(_right(plan, attempts))
  if (fixed := asking.fixed(plan)) is not None:
    more |= fixed_first(fixed.right[:, 0])
  elif plan.final == 'base' and plan.name in plan.given.table.shift:
    more |= fixed_first(cell.right)  # Its own first attempts are the base's.
  if (samples := asking.samples(plan)) is not None:
    more |= several(samples)
  return dataclasses.replace(cell, values=cell.values | more)


def _right(plan: Plan, name: str) -> np.ndarray:
  rows = plan.listed(name)
  return np.array([[o == 'right' for o in row['outcomes']] for row in rows])


def in_a_row(right: np.ndarray) -> dict[str, np.ndarray]:
  """Returns the values of many attempts in a row, bool[N, T]."""
  return {
    f'attempts_accuracy_t{t}': x * 1.0 for t, x in enumerate(right.T, start=1)
  }


def fixed_first(right: np.ndarray) -> dict[str, np.ndarray]:
  """Returns the values of attempts, bool[N, T], whose first ones were given."""
  values = evaluation.outcome_values(right)
  return {f'fixed_first_{name}': x for name, x in values.items()}


def several(samples: budget.Samples) -> dict[str, np.ndarray]:
  """Returns the values of K trajectories per problem."""
  _, most, turns = samples.right.shape
  values = {}
  for turn in range(turns):
    right, end = samples.right[..., turn], f'_t{turn + 1}'
    values[f'samples_avg_at_{most}{end}'] = budget.average_at(right, most)
    for k in budget.doubled(1, most)[1:]:  # One of one is the mean.
      values[f'samples_pass_at_{k}{end}'] = budget.pass_at(right, k)
  counts = budget.doubled(turns, most)
  for name, choose in CHOICES.items():
    for match in budget.at_equal_tokens(samples, counts, choose):
      start = f'samples_{name}_{match.attempts}'
      values[f'{start}_parallel'] = match.parallel
      values[f'{start}_corrected'] = match.corrected
      values[f'{start}_gain'] = match.corrected - match.parallel
      values[f'samples_tokens_{match.attempts}'] = match.tokens
  return values
