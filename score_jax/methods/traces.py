"""What supervised methods read and write: graded traces in, weighted rows out.

Builders are pure: traces with their outcomes in, rows out. All have two turns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

Ids = tuple[int, ...]
Part = tuple[Ids, float]  # Tokens, and the weight of each of them in the loss.
Row = list[Part]  # What stands in a row, from its start.


@dataclasses.dataclass(frozen=True)
class Trace:
  """Both attempts of one model at one problem, graded."""

  problem: str  # Its id.
  prompt: Ids
  attempts: tuple[Ids, Ids]  # Their end tokens included.
  right: tuple[bool, bool]
  nats: tuple[float, float]  # -log p per token, of the model that wrote them.
  gold: Ids  # The problem's reference response, its end token included.


@dataclasses.dataclass(frozen=True)
class Collected:
  """All that one round collected."""

  traces: Sequence[Trace]  # Those of one problem are adjacent.
  between: Ids  # From an attempt's end token to the next attempt.
  gold_nats: float  # -log p per token of references held out, same model.


def one_turn(trace: Trace, response: Ids, weight: float = 1.0) -> Row:
  """Returns a row that teaches a first attempt."""
  return [(trace.prompt, 0.0), (response, weight)]


def two_turns(
  collected: Collected,
  trace: Trace,
  second: Ids,
  weight: float = 1.0,
  first_weight: float = 0.0,
) -> Row:
  """Returns a row that teaches a second attempt behind the trace's first one.

  Args:
    collected: what the trace is of.
    trace: gives prompt and first attempt.
    second: the attempt to imitate.
    weight: of its tokens.
    first_weight: of the first attempt's tokens; 0 = they are context.
  """
  return [
    (trace.prompt, 0.0),
    (trace.attempts[0], first_weight),
    (collected.between, 0.0),
    (second, weight),
  ]


def by_problem(traces: Iterable[Trace]) -> list[list[Trace]]:
  """Returns the traces in groups of neighbours of one problem."""
  groups: list[list[Trace]] = []
  for trace in traces:
    if groups and groups[-1][0].problem == trace.problem:
      groups[-1].append(trace)
    else:
      groups.append([trace])
  return groups


def right_attempts(group: Iterable[Trace]) -> list[Ids]:
  """Returns all right attempts of some traces, first and second ones."""
  return [
    attempt
    for trace in group
    for attempt, right in zip(trace.attempts, trace.right, strict=True)
    if right
  ]


def pack(
  rows: Sequence[Row], columns: int, pad: int
) -> tuple[np.ndarray, np.ndarray]:
  """Returns int32[n, L], the rows' tokens, and float32[n, L], their weights.

  Args:
    rows: n of them, none longer than `columns`.
    columns: L.
    pad: fills what is left; it weighs nothing.
  """
  tokens = np.full((len(rows), columns), pad, np.int32)
  weight = np.zeros((len(rows), columns), np.float32)
  for i, parts in enumerate(rows):
    ids = [token for part, _ in parts for token in part]
    tokens[i, : len(ids)] = ids
    weight[i, : len(ids)] = [w for part, w in parts for _ in part]
  return tokens, weight
