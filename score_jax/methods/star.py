"""STaR (arXiv:2203.14465), as the paper of SCoRe turns it to correction.

D keeps the traces whose second attempt mends a wrong first one; D+ adds those
that are right twice. Simplified: no rationalization with the answer as a hint,
for SCoRe's baseline has none, and each round goes on from the model before it
instead of starting over from the base.
"""

from __future__ import annotations

import numpy as np

from score_jax.methods.traces import Collected, Row, two_turns


def rows(
  collected: Collected,
  rng: np.random.Generator,
  keep_right: bool,
  first_weight: float,
) -> list[Row]:
  """Returns a row per trace that ends right after a wrong first attempt.

  Args:
    collected: the traces.
    rng: not used; nothing is drawn.
    keep_right: whether those right twice are kept as well (D+).
    first_weight: of first attempts in the loss.
  """
  del rng
  return [
    two_turns(collected, trace, trace.attempts[1], 1.0, first_weight)
    for trace in collected.traces
    if trace.right[1] and (keep_right or not trace.right[0])
  ]
