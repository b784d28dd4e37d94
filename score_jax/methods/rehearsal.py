"""Selective self-rehearsal (arXiv:2409.04787).

The model's own response is imitated where it is right, the gold one where it
is not, so that it moves no further from itself than it has to. Their model has
one turn; here both turns are treated so, the second behind the model's own
first attempt.
"""

from __future__ import annotations

import numpy as np

from score_jax.methods.traces import Collected, one_turn, Row, two_turns


def rows(collected: Collected, rng: np.random.Generator) -> list[Row]:
  """Returns a row per trace, and one more per wrong first attempt.

  Args:
    collected: the traces.
    rng: not used; nothing is drawn.
  """
  del rng
  found = []
  for trace in collected.traces:
    second = trace.attempts[1] if trace.right[1] else trace.gold
    found.append(two_turns(collected, trace, second, 1.0, trace.right[0] * 1.0))
    if not trace.right[0]:
      found.append(one_turn(trace, trace.gold))
  return found
