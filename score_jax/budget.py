"""Several samples per problem: what they reach, and at what cost in tokens.

Parallel samples are answers drawn one beside the other; corrected ones are
first attempts that are followed by corrections. Everything here counts what
was sampled and graded elsewhere.

Letters: N problems, K samples of a problem, T turns.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Hashable, Sequence

import numpy as np


def pass_at(right: np.ndarray, k: int) -> np.ndarray:
  """Returns float64[N]: the chance that one of k samples is right.

  The unbiased estimate 1 - C(K - c, k) / C(K, k) with c of K samples right
  (arXiv:2107.03374), as a product that does not overflow.

  Args:
    right: bool[N, K].
    k: from 1 to K.

  Raises:
    ValueError: if k is not.
  """
  samples = right.shape[1]
  _check_k(k, samples)
  wrong = samples - right.sum(axis=1)
  place = np.arange(k)
  # The i-th of k samples drawn without replacement is wrong as well.
  chance = (wrong[:, None] - place) / (samples - place)
  return 1.0 - np.prod(np.maximum(chance, 0.0), axis=1)


def average_at(right: np.ndarray, k: int) -> np.ndarray:
  """Returns float64[N], avg@k: the share of the first k samples that is right.

  Args:
    right: bool[N, K].
    k: from 1 to K.

  Raises:
    ValueError: if k is not.
  """
  _check_k(k, right.shape[1])
  return right[:, :k].mean(axis=1)


def majority(
  answers: Sequence[Sequence[Hashable]], right: np.ndarray
) -> np.ndarray:
  """Returns float64[N]: whether the answer given most often is right.

  Where several are given equally often, each is the choice with the same
  chance. An attempt without an answer ('' or None) has no vote; a problem
  without any votes counts as wrong.

  Args:
    answers: [N][K], as the grader read them.
    right: bool[N, K]; samples of one answer are right or wrong together.
  """
  return np.array(
    [_vote(row, ok) for row, ok in zip(answers, right, strict=True)]
  )


def _vote(answers: Sequence[Hashable], right: Sequence[bool]) -> float:
  given = [a not in ('', None) for a in answers]
  votes = Counter(a for a, there in zip(answers, given, strict=True) if there)
  if not votes:
    return 0.0
  most = max(votes.values())
  verdict = dict(zip(answers, right, strict=True))
  chosen = [verdict[a] for a, count in votes.items() if count == most]
  return sum(map(bool, chosen)) / len(chosen)


def best_of(
  answers: Sequence[Sequence[Hashable]], right: np.ndarray
) -> np.ndarray:
  """Returns float64[N]: whether any sample is right, as an oracle would choose.

  The most that any way of choosing among the samples could reach.

  Args:
    answers: not read; so that all ways of choosing are called alike.
    right: bool[N, K].
  """
  del answers
  return right.any(axis=1) * 1.0


Choose = Callable[[Sequence[Sequence[Hashable]], np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Samples:
  """Graded samples of all problems, in the order they were drawn."""

  answers: Sequence[Sequence[Sequence[Hashable]]]  # [N][K][T].
  right: np.ndarray  # bool[N, K, T].
  tokens: np.ndarray  # int[N, K, T], generated.


@dataclasses.dataclass(frozen=True)
class Point:
  """One point of a budget curve."""

  samples: int  # Attempts generated per problem.
  tokens: float  # Generated per problem, mean over problems.
  accuracy: float


def parallel(samples: Samples, counts: Sequence[int], choose: Choose):
  """Returns a point per count: so many first attempts, one of them chosen.

  Args:
    samples: whose first turns are taken.
    counts: attempts per problem, each at most K.
    choose: `majority` or `best_of`.
  """
  first = Samples(
    [[[turns[0]] for turns in row] for row in samples.answers],
    samples.right[..., :1],
    samples.tokens[..., :1],
  )
  return corrected(first, counts, choose)


def corrected(
  samples: Samples, counts: Sequence[int], choose: Choose
) -> list[Point]:
  """Returns a point per count: count / T trajectories of T turns each.

  The choice is among last attempts; the attempts before them are paid for.

  Args:
    samples: K trajectories per problem.
    counts: attempts per problem, each a multiple of T and at most K * T.
    choose: `majority` or `best_of`.

  Raises:
    ValueError: if a count is not.
  """
  _, most, turns = samples.right.shape
  points = []
  for count in counts:
    if count % turns or not 1 <= count // turns <= most:
      raise ValueError(
        f'counts must be multiples of {turns} turns, at most {most * turns}; '
        f'got {count}.'
      )
    rows = count // turns
    answers = [[t[-1] for t in row[:rows]] for row in samples.answers]
    accuracy = choose(answers, samples.right[:, :rows, -1]).mean()
    tokens = samples.tokens[:, :rows].sum(axis=(1, 2)).mean()
    points.append(Point(count, float(tokens), float(accuracy)))
  return points


def at_tokens(points: Sequence[Point], tokens: Sequence[float]) -> np.ndarray:
  """Returns float64[n]: the accuracy of a curve at these token budgets.

  Linear between points, so that two curves are compared at equal generated
  tokens; NaN outside of what was measured.

  Args:
    points: of one curve.
    tokens: float[n].
  """
  ordered = sorted(points, key=lambda point: point.tokens)
  return np.interp(
    tokens,
    [p.tokens for p in ordered],
    [p.accuracy for p in ordered],
    left=np.nan,
    right=np.nan,
  )


def by_difficulty(
  difficulty: Sequence[str], values: np.ndarray
) -> dict[str, tuple[float, int]]:
  """Returns {label: (mean, problems)} in the order of the labels.

  Args:
    difficulty: N labels of the data; problems without one ('') are left out.
    values: float64[N], NaN where a metric does not apply.
  """
  found = {}
  labels = np.array(difficulty)
  for label in sorted({*difficulty} - {''}):
    mine = values[labels == label]
    mine = mine[~np.isnan(mine)]
    if len(mine):
      found[label] = (float(mine.mean()), len(mine))
  return found


def over_attempts(right: np.ndarray) -> np.ndarray:
  """Returns float64[T], the accuracy of each attempt; bool[N, T] in."""
  return right.mean(axis=0)


def _check_k(k: int, samples: int) -> None:
  if not 1 <= k <= samples:
    raise ValueError(f'k must be from 1 to the {samples} samples; got {k}.')
