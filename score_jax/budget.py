"""Several samples per problem: what they reach, and at what cost in tokens.

Parallel samples are answers drawn one beside the other; corrected ones are
first attempts that are followed by corrections. Everything here counts what
was sampled and graded elsewhere.

Letters: N problems, K samples of a problem, T turns.
"""

from __future__ import annotations

import dataclasses
import functools
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


def first_attempts(samples: Samples) -> Samples:
  """Returns the samples with their first turns alone, T = 1."""
  return Samples(
    [[[turns[0]] for turns in row] for row in samples.answers],
    samples.right[..., :1],
    samples.tokens[..., :1],
  )


def outcomes(
  samples: Samples, count: int, choose: Choose
) -> tuple[np.ndarray, np.ndarray]:
  """Returns float64[N], whether what is chosen is right, and float64[N], tokens.

  The K trajectories are dealt into as many groups as there are enough for,
  each of count / T of them, and all groups are averaged over: a choice among
  few is then as sure as one among many. What is left over is not used. The
  choice is among last attempts; those before them are paid for.

  Args:
    samples: K trajectories per problem.
    count: attempts per problem that one choice is among.
    choose: `majority` or `best_of`.

  Raises:
    ValueError: if count is not a multiple of T, or above K * T.
  """
  _, most, turns = samples.right.shape
  if count % turns or not 1 <= count // turns <= most:
    raise ValueError(
      f'counts must be multiples of {turns} turns, at most {most * turns}; '
      f'got {count}.'
    )
  each = count // turns
  groups = most // each
  tokens = samples.tokens[:, : groups * each].sum(axis=(1, 2)) / groups
  values = []
  for group in range(groups):
    mine = slice(group * each, (group + 1) * each)
    answers = [[t[-1] for t in row[mine]] for row in samples.answers]
    values.append(choose(answers, samples.right[:, mine, -1]))
  return np.mean(values, axis=0), tokens


@dataclasses.dataclass(frozen=True)
class Match:
  """Parallel and corrected samples at one budget of generated tokens."""

  attempts: int  # Of the corrected samples, per problem.
  tokens: np.ndarray  # float64[N], that these generate.
  parallel_tokens: np.ndarray  # float64[N], the same of the parallel ones.
  parallel: np.ndarray  # float64[N], the chance that what is chosen is right.
  corrected: np.ndarray  # float64[N].


SLACK = 0.01  # Of a budget, that the largest parallel one may fall short.


def at_equal_tokens(
  samples: Samples, counts: Sequence[int], choose: Choose
) -> list[Match]:
  """Returns parallel against corrected samples at equal generated tokens.

  What the corrected samples cost on the mean over problems, the parallel ones,
  first attempts alone, may cost as well: where that is between two counts of
  attempts, one count is taken with a chance that makes the costs equal. A
  budget beyond what was sampled is left out, unless by less than SLACK.

  Args:
    samples: K trajectories per problem.
    counts: attempts per problem of the corrected samples, multiples of T.
    choose: `majority` or `best_of`.

  Raises:
    ValueError: if a count is not a multiple of T, or above K * T.
  """
  first, found = first_attempts(samples), []
  at = functools.cache(lambda count: outcomes(first, count, choose))
  for count in counts:
    corrected, tokens = outcomes(samples, count, choose)
    parallel, cost = _at_cost(at, first.right.shape[1], tokens.mean())
    if abs(cost.mean() / tokens.mean() - 1) <= SLACK:
      found.append(Match(count, tokens, cost, parallel, corrected))
  return found


def _at_cost(
  at: Callable[[int], tuple[np.ndarray, np.ndarray]], most: int, budget: float
) -> tuple[np.ndarray, np.ndarray]:
  """Returns values and cost, float64[N] each, of what a budget buys.

  Args:
    at: gives both for so many attempts.
    most: attempts that there are.
    budget: mean cost; above that of all attempts, all are taken.
  """
  low, high = 1, most
  while low < high:  # The most attempts that the budget pays for.
    middle = (low + high + 1) // 2
    low, high = (
      (middle, high) if at(middle)[1].mean() <= budget else (low, middle - 1)
    )
  values, cost = at(low)
  if low == most:
    return values, cost
  more, above = at(low + 1)
  share = (budget - cost.mean()) / (above.mean() - cost.mean())
  return values + share * (more - values), cost + share * (above - cost)


def doubled(turns: int, most: int) -> list[int]:
  """Returns budgets in attempts: T, 2 T, 4 T and so on, up to `most`."""
  found = [turns]
  while found[-1] * 2 <= most:
    found.append(found[-1] * 2)
  return found


def by_difficulty(
  difficulty: Sequence[str], values: np.ndarray
) -> dict[str, np.ndarray]:
  """Returns {label: float64[n]}, the values of its n problems, labels in order.

  Args:
    difficulty: N labels of the data; problems without one ('') are left out.
    values: float64[N].
  """
  labels = np.array(difficulty)
  return {x: values[labels == x] for x in sorted({*difficulty} - {''})}


def _check_k(k: int, samples: int) -> None:
  if not 1 <= k <= samples:
    raise ValueError(f'k must be from 1 to the {samples} samples; got {k}.')
