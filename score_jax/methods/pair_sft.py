"""Pair-SFT: wrong first attempts paired with right ones of the same problem.

The paper's baseline after Welleck et al. (arXiv:2211.00053), without a
corrector of its own: the same model learns to write the second attempt. One
round of data of the base model. Simplified: as many updates as every other
method makes, which may be more or less than the paper's one epoch.
"""

from __future__ import annotations

import numpy as np

from score_jax.methods.traces import (
  by_problem,
  Collected,
  right_attempts,
  Row,
  two_turns,
)


def rows(
  collected: Collected,
  rng: np.random.Generator,
  keep_right: bool,
  first_weight: float,
) -> list[Row]:
  """Returns a row per wrong first attempt whose problem was ever solved.

  Args:
    collected: the traces.
    rng: draws the partner from all right attempts, first and second ones.
    keep_right: whether right first attempts are paired as well (D+).
    first_weight: of first attempts in the loss.
  """
  found = []
  for group in by_problem(collected.traces):
    partners = right_attempts(group)
    for trace in group:
      if partners and (keep_right or not trace.right[0]):
        second = partners[rng.integers(len(partners))]
        found.append(two_turns(collected, trace, second, 1.0, first_weight))
  return found
