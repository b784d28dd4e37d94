"""Sums written from the leading digit: the bundled task.

The first digit of a sum depends on carries out of digits that are not written
yet. A second look at the finished sum has something to find: each carry can be
read off the digit to its right.

Problems are all pairs of numbers of DIGITS digits, numbered once for all by a
fixed permutation; the splits are ranges of these numbers, so no problem, nor
the same problem with its numbers swapped, is in two of them.
"""

from __future__ import annotations

import numpy as np

from score_jax.graders import exact
from score_jax.problem import Problem, Verdict
from score_jax.tasks import wording

DIGITS = 3
INSTRUCTION = wording.ARITHMETIC_INSTRUCTION
SPLITS = {
  'test': (0, 5_000),
  'validation': (5_000, 10_000),
  'train': (10_000, 405_450),
}

_LOW, _HIGH = 10 ** (DIGITS - 1), 10**DIGITS
_VALUES = _HIGH - _LOW
PAIRS = _VALUES * (_VALUES + 1) // 2
_STEP, _OFFSET = 251_429, 104_729  # Primes; the step does not divide PAIRS.


def pairs(number: np.ndarray) -> np.ndarray:
  """Returns int64[n, 2], the numbers to add in problems of int64[n] numbers."""
  place = (number * _STEP + _OFFSET) % PAIRS
  # Row r of the triangle of unordered pairs has r + 1 places.
  row = ((np.sqrt(8.0 * place + 1) - 1) / 2).astype(np.int64)
  row += (row + 1) * (row + 2) // 2 <= place
  row -= row * (row + 1) // 2 > place
  both = np.stack([row, place - row * (row + 1) // 2], axis=1) + _LOW
  return np.where((number % 2 == 0)[:, None], both, both[:, ::-1])


def columns(split: str) -> dict[str, np.ndarray]:
  """Returns the fields of all problems of a split, an array of text each."""
  number = np.arange(*SPLITS[split])
  both = pairs(number)
  first, second = both.astype(str).T
  total = both.sum(axis=1).astype(str)
  add = np.char.add
  return {
    'id': add('sum-', number.astype(str)),
    'prompt': add(add(first, '+'), add(second, '=')),
    'answer': total,
    'reference': np.char.zfill(total, DIGITS + 1),
    'difficulty': np.full(len(number), ''),
    'attempt': np.full(len(number), ''),
  }


def grade(problem: Problem, text: str) -> Verdict:
  """Returns RIGHT for the sum, with or without leading zeros."""
  return exact.whole_number(problem.answer, text)
