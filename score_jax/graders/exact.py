"""Graders for answers that are right or wrong to the letter."""

from __future__ import annotations

import re

from score_jax.problem import Outcome, Verdict

_DIGITS = re.compile(r'[0-9]{1,30}')  # ASCII alone; no int of a million digits.


def whole_number(answer: str, text: str) -> Verdict:
  """Returns the verdict on an attempt that should be one whole number.

  Args:
    answer: the oracle's number.
    text: the attempt; blanks around the number are allowed, nothing else.
  """
  found = text.strip()
  if not _DIGITS.fullmatch(found):
    return Verdict(Outcome.UNPARSED, '')
  right = int(found) == int(answer)
  return Verdict(Outcome.RIGHT if right else Outcome.WRONG, str(int(found)))
