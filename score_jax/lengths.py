"""How many rows does each step of sampling read, and how wide are updates?

A plan has no samples to look at. It takes attempts to end with the same chance
at every token, so that their lengths are geometric, cut off at the longest; and
it follows the rules by which `batching.py` chooses rows and `parts.py` widths.

Letters: D devices, or groups of them, that have rows of their own; N rows of
each, B rows of all, S rows that share their first attempt.
"""

from __future__ import annotations

import bisect
import functools
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from score_jax import batching

DRAWS = 8  # Of all rows' lengths, whose means are taken.


def goes_on(mean: float, longest: int) -> float:
  """Returns the chance that an attempt goes on at a token, by bisection.

  Args:
    mean: of the tokens of attempts, at least 1; not below `longest`: 1.0.
    longest: tokens, at which attempts are cut off.
  """
  low, high = 0.0, 1.0
  if mean >= longest:
    return high
  tokens = np.arange(longest)
  for _ in range(60):
    middle = (low + high) / 2
    if np.sum(middle**tokens) < mean:
      low = middle
    else:
      high = middle
  return low


def drawn(
  mean: float, longest: int, shape: tuple[int, ...], seed: Sequence[int]
) -> np.ndarray:
  """Returns int64[shape], tokens of attempts, end tokens counted.

  Args:
    mean: of the tokens; 0 = all are as long as they may be.
    longest: tokens.
    shape: of the attempts.
    seed: of the draw.
  """
  chance = goes_on(mean, longest) if mean else 1.0
  if chance == 1.0:
    return np.full(shape, longest)
  found = np.random.default_rng(seed).geometric(1 - chance, shape)
  return np.minimum(found, longest)


@functools.lru_cache(maxsize=1024)
def rows_read(
  mean: float,
  longest: int,
  shape: tuple[int, int],
  sizes: tuple[int, ...],
  piece: int,
  turn: int,
) -> Mapping[tuple[int, int], float]:
  """Returns how many steps of an attempt read so many of N rows.

  The first token, which is drawn from the pass before, counts as a step.

  Args:
    mean: tokens of an attempt; 0 = all are as long as they may be.
    longest: tokens.
    shape: (D, N).
    sizes: how many rows are decoded at once, as `batching.sizes` gives them.
    piece: steps behind which the cache grows; where rows are refilled it does
      not.
    turn: of the attempt, counted from 0.

  Returns:
    {(piece, rows): steps}, pieces counted from 0.
  """
  draws = DRAWS if 0 < mean < longest else 1
  found: Counter[tuple[int, int]] = Counter()
  for draw in range(draws):
    tokens = drawn(mean, longest, shape, (draw, turn))
    read = steps_of(tokens, sizes)
    grows = sizes[0] >= shape[1]
    found.update((i // piece * grows, rows) for i, rows in enumerate(read))
  return {key: steps / draws for key, steps in found.items()}


def steps_of(left: np.ndarray, sizes: tuple[int, ...]) -> list[int]:
  """Returns how many of N rows each step reads.

  Args:
    left: int64[D, N], steps that each row goes on for.
    sizes: as of `rows_read`.
  """
  read: list[int] = []
  if sizes[0] < left.shape[1]:
    left = _refilled(left, sizes[0], read)
  rising = sorted(sizes)
  for token in range(1, 1 + left.max()):
    alive = np.max(np.sum(left >= token, axis=1))
    read.append(rising[bisect.bisect_left(rising, alive)])
  return read


def _refilled(left: np.ndarray, places: int, read: list[int]) -> np.ndarray:
  """Returns what is left of the rows that have places when none waits.

  It puts down what the steps until then have read. As `batching.refill`: rows
  are exchanged some at a time, once a device has enough places free.
  """
  rows, batch = left.shape[1], batching.exchanged(places)
  now, begun = left[:, :places].copy(), np.full(len(left), places)
  while np.any(begun < rows):
    waits = begun < rows
    steps = max(0, np.min(np.sort(now, axis=1)[waits, batch - 1]))
    read.extend([places] * steps)
    now -= steps
    for device in np.flatnonzero(waits):
      free = np.flatnonzero(now[device] <= 0)[:batch]
      comes = left[device, begun[device] :][: len(free)]
      now[device, free[: len(comes)]] = comes
      begun[device] += len(comes)
  return now


@functools.lru_cache(maxsize=1024)
def widths_read(
  mean: float,
  longest: tuple[int, ...],
  other: int,
  rows: tuple[int, int, int, int],
  widths: tuple[int, ...],
) -> Mapping[int, float]:
  """Returns how many parts of an update have which width; their sum is parts.

  Args:
    mean: tokens of an attempt; 0 = all are as long as they may be.
    longest: tokens of each turn's attempt.
    other: columns of a row beside its attempts.
    rows: B, the parts that they are cut into, adjacent rows that stay together,
      and S.
    widths: columns that a part may have, rising.
  """
  count, parts, group, shared = rows
  draws = DRAWS if 0 < mean < max(longest) else 1
  found: Counter[int] = Counter()
  for draw in range(draws):
    turns = [
      drawn(mean, most, (count,), (draw, turn))
      for turn, most in enumerate(longest)
    ]
    turns[0] = np.repeat(turns[0][: count // shared], shared)
    filled = other + np.sum(turns, axis=0)
    found.update(widths_of(filled, parts, group, widths))
  return {width: n / draws for width, n in found.items()}


def widths_of(
  filled: np.ndarray, parts: int, group: int, widths: tuple[int, ...]
) -> list[int]:
  """Returns the width of each part of an update, as `parts.py` chooses it.

  Args:
    filled: int64[B], the columns that tokens fill of each row.
    parts: that the rows are cut into, groups of alike length into one.
    group: adjacent rows that stay together.
    widths: that a part may have, rising; the last holds every row.
  """
  groups = np.sort(filled.reshape(-1, group).max(axis=1))
  longest = groups.reshape(parts, -1).max(axis=1)
  return [widths[bisect.bisect_left(widths, most)] for most in longest]
