"""Numbers with intervals, from the outcomes and texts of all attempts.

Every metric is the mean of one value per problem, over the problems it applies
to: NaN marks the others. So one bootstrap over problems serves every metric,
and two evaluations of the same problems are compared pair by pair.

Turn t is always held against turn t - 1. Names for turn 2 carry no suffix
(`delta`), those for later turns do (`delta_t3`). All values are fractions of 1.

Letters: N problems, T turns, C metrics, R resamples.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

RESAMPLES_AT_ONCE = 128  # Bounds the weights to 128 x N floats.
LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Attempts:
  """What every metric is computed from; row n is one problem."""

  right: np.ndarray  # bool[N, T].
  changed: np.ndarray  # bool[N, T-1]: the answer is not the attempt's before.
  copied: np.ndarray  # bool[N, T-1]: the text is the attempt's before.
  edit_ratio: np.ndarray  # float64[N, T-1]: `edit_distance_ratio` to the same.
  truncated: np.ndarray  # bool[N, T]: the attempt met its limit before its end.


@dataclasses.dataclass(frozen=True)
class Difference:
  """A metric's change between two evaluations of the same problems."""

  value: float
  low: float
  high: float


def compare(
  texts: Sequence[Sequence[Sequence[Hashable]]],
  answers: Sequence[Sequence[Hashable]],
  right: np.ndarray,
  truncated: np.ndarray,
) -> Attempts:
  """Returns the facts of N problems with T attempts each.

  Args:
    texts: [N][T], strings or lists of tokens.
    answers: [N][T], as the grader read them; None where it read none, and two
      of these count as the same answer.
    right: bool[N, T].
    truncated: bool[N, T].

  Raises:
    ValueError: if there is no problem, no second turn, or shapes differ.
  """
  right, truncated = np.asarray(right, bool), np.asarray(truncated, bool)
  _check_outcomes(right)
  shape = right.shape
  received = {
    'texts': {(len(texts), len(row)) for row in texts},
    'answers': {(len(answers), len(row)) for row in answers},
    'truncated': {truncated.shape},
  }
  for name, shapes in received.items():
    if shapes != {shape}:
      raise ValueError(
        f'{name} must be [problems, turns] = {shape} as right is; '
        f'got {sorted(shapes)}.'
      )
  return Attempts(
    right=right,
    changed=_against_previous(answers, lambda a, b: a != b, bool),
    copied=_against_previous(texts, lambda a, b: a == b, bool),
    edit_ratio=_against_previous(texts, edit_distance_ratio, float),
    truncated=truncated,
  )


def outcome_values(right: np.ndarray) -> dict[str, np.ndarray]:
  """Returns {metric: float64[N]} of what the outcomes alone decide.

  Args:
    right: bool[N, T].

  Raises:
    ValueError: if there is no problem or no second turn.
  """
  right = np.asarray(right, bool)
  _check_outcomes(right)
  values = {f'accuracy_t{t + 1}': x * 1.0 for t, x in enumerate(right.T)}
  for turn in range(2, right.shape[1] + 1):
    before, after = right[:, turn - 2], right[:, turn - 1]
    metrics = {
      'delta': after * 1.0 - before,
      'delta_i_to_c': ~before & after,
      'delta_c_to_i': before & ~after,
      'keeps_right': np.where(before, after, np.nan),
      'fixes_wrong': np.where(before, np.nan, after),
    }
    values |= _named(metrics, turn)
  return values


def problem_values(attempts: Attempts) -> dict[str, np.ndarray]:
  """Returns {metric: float64[N]}: each metric is the mean of its values."""
  values = outcome_values(attempts.right)
  for turn in range(2, attempts.right.shape[1] + 1):
    metrics = {
      'answer_change_rate': attempts.changed[:, turn - 2],
      'exact_copy_rate': attempts.copied[:, turn - 2],
      'mean_edit_distance_ratio': attempts.edit_ratio[:, turn - 2],
    }
    values |= _named(metrics, turn)
  for turn, cut in enumerate(attempts.truncated.T, start=1):
    values[f'truncated_t{turn}'] = cut * 1.0
  return values


def summarize(attempts: Attempts, resamples: int, seed: int) -> dict[str, Any]:
  """Returns {'n', every metric, 'ci95': {metric: [low, high]}}, all plain.

  A conditional rate without a single case is None. Intervals are percentiles
  of a bootstrap over problems. One that has no width (nothing observed, or
  nothing else) is no proof: the chance of what was seen 0 times in N may still
  be 3 / N.

  Args:
    attempts: of N problems.
    resamples: of the bootstrap; 2000 settle the third digit.
    seed: of the bootstrap.
  """
  values = problem_values(attempts)
  table = np.stack(list(values.values()), axis=1)
  draws = bootstrap(table, resamples, seed)
  means = _means(np.ones((1, len(table))), table)[0]
  summary: dict[str, Any] = {'n': len(table)}
  summary |= {name: _plain(x) for name, x in zip(values, means, strict=True)}
  summary['ci95'] = {
    name: None if math.isnan(mean) else list(interval(draw))
    for name, mean, draw in zip(values, means, draws.T, strict=True)
  }
  return summary


def bootstrap(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
  """Returns float64[R, C], the metrics of R resamples of the N problems.

  The problems drawn depend on N and the seed alone, so that equal seeds pair
  two calls problem by problem.

  Args:
    values: float64[N, C], NaN where a metric does not apply to a problem; a
      resample without a single value gives NaN.
    resamples: R.
    seed: any.
  """
  rng = np.random.default_rng(seed)
  problems = len(values)
  draws = []
  for start in range(0, resamples, RESAMPLES_AT_ONCE):
    rows = min(RESAMPLES_AT_ONCE, resamples - start)
    drawn = rng.integers(problems, size=(rows, problems))
    drawn += problems * np.arange(rows)[:, None]
    times = np.bincount(drawn.ravel(), minlength=rows * problems)
    draws.append(_means(times.reshape(rows, problems).astype(float), values))
  return np.concatenate(draws)


def interval(draws: np.ndarray) -> tuple[float, float]:
  """Returns the central 95 % of float[R], NaNs left out."""
  tail = (1 - LEVEL) / 2
  low, high = np.nanquantile(draws, [tail, 1 - tail])
  return float(low), float(high)


def paired_difference(
  before: np.ndarray, after: np.ndarray, resamples: int, seed: int
) -> Difference:
  """Returns a metric's change between two evaluations, with 95 % bounds.

  Both means are taken over the same resampled problems, so what is hard for
  both cancels.

  Args:
    before: float64[N], from `outcome_values` or `problem_values`.
    after: float64[N], of the same problems in the same order.
    resamples: of the bootstrap.
    seed: of the bootstrap.

  Raises:
    ValueError: if the two differ in length, or a metric has no value.
  """
  if before.shape != after.shape:
    raise ValueError(
      'before and after must hold the same problems in the same order; got '
      f'{len(before)} and {len(after)} values.'
    )
  table = np.stack([before, after], axis=1)
  missing = np.isnan(table).all(axis=0)
  if missing.any():
    raise ValueError(
      'before and after each need a problem that the metric applies to; got '
      f'{int((~np.isnan(before)).sum())} and {int((~np.isnan(after)).sum())}.'
    )
  draws = bootstrap(table, resamples, seed)
  low, high = interval(draws[:, 1] - draws[:, 0])
  value = float(np.nanmean(after) - np.nanmean(before))
  return Difference(value, low, high)


def mcnemar(before: np.ndarray, after: np.ndarray) -> float:
  """Returns the exact two-sided p-value that both are right equally often.

  Under that hypothesis each problem on which the two disagree is a fair coin
  (McNemar 1947, in the exact form).

  Args:
    before: bool[N].
    after: bool[N], of the same problems in the same order.
  """
  lost = int((before & ~after).sum())
  won = int((~before & after).sum())
  tosses = lost + won
  tail = sum(math.comb(tosses, k) for k in range(min(lost, won) + 1))
  return min(1.0, 2 * tail / 2**tosses)


def edit_distance_ratio(a: Sequence[Hashable], b: Sequence[Hashable]) -> float:
  """Returns the insertions and deletions from a to b per symbol of both.

  0 where they are equal (or both empty), 1 where they share no symbol. It is
  1 - 2 LCS / (len a + len b), with LCS the longest common subsequence.

  Args:
    a: a string or tokens.
    b: the same kind.
  """
  return _ratio(_insertions_and_deletions, a, b)


def levenshtein_ratio(a: Sequence[Hashable], b: Sequence[Hashable]) -> float:
  """Returns the Levenshtein distance per symbol of both.

  A substitution counts 1, not 2 as in `edit_distance_ratio`, so two texts of
  one length with nothing in common stand at 0.5.

  Args:
    a: a string or tokens.
    b: the same kind.
  """
  return _ratio(_levenshtein, a, b)


def shared_ends(
  a: Sequence[Hashable], b: Sequence[Hashable]
) -> tuple[int, int]:
  """Returns how many symbols a and b share at the start, then at the end.

  No symbol is counted twice, so both texts are at least as long as the sum.

  Args:
    a: a string or tokens.
    b: the same kind.
  """
  shorter = min(len(a), len(b))
  start = 0
  while start < shorter and a[start] == b[start]:
    start += 1
  end = 0
  while end < shorter - start and a[-1 - end] == b[-1 - end]:
    end += 1
  return start, end


def _ratio(
  distance: Callable[[Sequence, Sequence], int], a: Sequence, b: Sequence
) -> float:
  total = len(a) + len(b)
  # Neither distance counts shared ends, and a near-copy, the common case,
  # becomes short without them.
  start, end = shared_ends(a, b)
  a, b = a[start : len(a) - end], b[start : len(b) - end]
  return distance(a, b) / total if total else 0.0


def _positions(a: Sequence) -> dict[Hashable, int]:
  """Returns {symbol: an integer with bit i set where a[i] is the symbol}."""
  masks: dict[Hashable, int] = {}
  for i, symbol in enumerate(a):
    masks[symbol] = masks.get(symbol, 0) | 1 << i
  return masks


def _insertions_and_deletions(a: Sequence, b: Sequence) -> int:
  """Returns len a + len b - 2 LCS, a row of the table per integer operation.

  Bit i of `row` is 0 where the common subsequence grows by one from a[:i] to
  a[:i + 1] (Hyyro 2004, "Bit-parallel LCS-length computation revisited").
  """
  masks, every = _positions(a), (1 << len(a)) - 1
  row = every
  for symbol in b:
    match = row & masks.get(symbol, 0)
    row = ((row + match) | (row - match)) & every
  common = len(a) - row.bit_count()
  return len(a) + len(b) - 2 * common


def _levenshtein(a: Sequence, b: Sequence) -> int:
  """Returns the Levenshtein distance, a row of the table per few operations.

  Bit i of `up` and `down` says that the distance grows or falls by one from
  a[:i] to a[:i + 1] (Myers 1999 in the form of Hyyro 2003).
  """
  masks, every = _positions(a), (1 << len(a)) - 1
  last = 1 << len(a) >> 1
  up, down, distance = every, 0, len(a)
  for symbol in b:
    match = masks.get(symbol, 0)
    diagonal = (((match & up) + up) ^ up) | match | down
    grows = down | (every & ~(diagonal | up))
    falls = diagonal & up
    distance += bool(grows & last) - bool(falls & last)
    grows, falls = grows << 1 | 1, falls << 1
    up = (falls | ~(diagonal | grows)) & every
    down = grows & diagonal & every
  return distance if a else len(b)


def _check_outcomes(right: np.ndarray) -> None:
  if right.ndim != 2 or right.shape[0] < 1 or right.shape[1] < 2:
    raise ValueError(
      'right must be [problems, turns] with at least 1 problem and 2 turns; '
      f'got shape {right.shape}.'
    )


def _against_previous(
  rows: Sequence[Sequence], relation: Callable[[Any, Any], Any], dtype: type
) -> np.ndarray:
  """Returns [N, T-1]: the relation of each entry to the one before it."""
  return np.array(
    [
      [relation(row[t - 1], row[t]) for t in range(1, len(row))] for row in rows
    ],
    dtype,
  )


def _named(
  metrics: Mapping[str, np.ndarray], turn: int
) -> dict[str, np.ndarray]:
  suffix = '' if turn == 2 else f'_t{turn}'
  return {name + suffix: x.astype(float) for name, x in metrics.items()}


def _means(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
  """Returns float64[R, C]: means of [N, C] under [R, N], NaNs left out."""
  known = ~np.isnan(values)
  total = weights @ np.where(known, values, 0.0)
  with np.errstate(invalid='ignore'):
    return total / (weights @ known)


def _plain(x: float) -> float | None:
  return None if math.isnan(x) else float(x)
