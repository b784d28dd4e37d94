"""A control: second attempts that are written without a look at the first.

No method of self-correction, but what to start one from. Of traces of the base
model, a second attempt becomes a copy of the first or, in a share of them,
another first attempt of the same problem, drawn whatever either of them is
worth. A model that imitates these changes right answers as often as wrong ones:
whatever tells them apart later, it was trained to.
"""

from __future__ import annotations

import numpy as np

from score_jax.methods.traces import by_problem, Collected, Row, two_turns

AGAIN = 0.1  # Share of second attempts that are not copies.


def rows(collected: Collected, rng: np.random.Generator) -> list[Row]:
  """Returns a row per trace; its first attempt is imitated as well.

  Args:
    collected: the traces.
    rng: draws which second attempts are copies.
  """
  found = []
  for group in by_problem(collected.traces):
    for i, trace in enumerate(group):
      again = len(group) > 1 and rng.random() < AGAIN
      source = group[(i + 1) % len(group)] if again else trace
      second = source.attempts[0]
      found.append(two_turns(collected, trace, second, 1.0, 1.0))
  return found
