"""What flows through the house: problems, trajectories and outcomes.

Letters: B rows, L columns, T turns.
"""

from __future__ import annotations

import dataclasses
import enum

import jax


class Outcome(enum.IntEnum):
  """What a grader says of one attempt."""

  WRONG = 0
  RIGHT = 1
  UNPARSED = 2  # No answer could be read from the text.
  TIMEOUT = 3  # The grader ran out of its time.
  ERROR = 4  # The grader itself failed.


@dataclasses.dataclass(frozen=True)
class Verdict:
  """A grader's word on one attempt."""

  outcome: Outcome
  answer: str  # What was read as the attempt's answer; '' if nothing was.


@dataclasses.dataclass(frozen=True)
class Problem:
  """One problem as its task states it."""

  id: str  # Unique in its task, the same in every run.
  prompt: str  # What the model reads before its first attempt.
  answer: str  # The oracle's answer; the grader alone reads it.
  reference: str  # A full right response in the form that the prompt asks for.
  difficulty: str = ''  # The data's own label, where there is one.


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Trajectory:
  """Rows that only grow to the right; a token's column is its position.

  A row reads `prompt | attempt 1 | instruction | attempt 2 | ... | padding`.
  `x[b, i]` always belongs to `tokens[b, i]`: nothing is shifted.
  Samples of one problem are adjacent rows, and those that share their first
  attempt are adjacent among these.
  """

  tokens: jax.Array  # int32[B, L].
  turn: jax.Array  # int32[B, L]: 1..T where an attempt wrote the token, else 0.
  logp: jax.Array  # float32[B, L]: of the sampling policy; 0 where turn is 0.
  length: jax.Array  # int32[B]: columns before the padding.
  span: jax.Array  # int32[B, T, 2]: first column of an attempt, and behind it.
  truncated: jax.Array  # bool[B, T]: the attempt met its limit before its end.
