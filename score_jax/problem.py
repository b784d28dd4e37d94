"""What is asked, and what is said of an answer.

Standard library only: graders run in processes of their own, which should
start in an instant.
"""

from __future__ import annotations

import dataclasses
import enum


class Outcome(enum.IntEnum):
  """What a grader says of one attempt."""

  WRONG = 0
  RIGHT = 1
  UNPARSED = 2  # No answer could be read from the text.
  TIMEOUT = 3  # The grader, or the program it ran, ran out of its time.
  ERROR = 4  # The grader itself failed.


@dataclasses.dataclass(frozen=True)
class Verdict:
  """A grader's word on one attempt."""

  outcome: Outcome
  answer: str  # What was read as the attempt's answer; '' if nothing was.
  share: float | None = None  # Of the problem's tests passed; None: has none.


@dataclasses.dataclass(frozen=True)
class Problem:
  """One problem as its task states it."""

  id: str  # Unique in its task, the same in every run.
  prompt: str  # What the model reads before its first attempt.
  answer: str  # The oracle's answer; the grader alone reads it.
  reference: str  # A full right response in the form that the prompt asks for.
  difficulty: str = ''  # The data's own label, where there is one.
  attempt: str = ''  # A fixed first attempt, to be repaired; '' = sampled.
