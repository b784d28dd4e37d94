"""RISE: recursive introspection (arXiv:2407.18219).

Every round, the model's own traces are imitated with the weight
exp(r / temperature): first attempts as they are, second ones replaced by the
best of N, the problem's own attempts ("self-distillation"). Simplified: N is
the group that is sampled anyway, both turns are in one row, and the weight is
divided by its mean over the round so that the learning rate keeps its meaning.
"""

from __future__ import annotations

import math

import numpy as np

from score_jax.methods.traces import (
  by_problem,
  Collected,
  right_attempts,
  Row,
  two_turns,
)


def rows(
  collected: Collected, rng: np.random.Generator, temperature: float
) -> list[Row]:
  """Returns a row per trace, better attempts weighing more.

  Args:
    collected: the traces.
    rng: draws among equally good attempts.
    temperature: of exp(r / temperature), with r 0 or 1.
  """
  made, weights = [], []
  for group in by_problem(collected.traces):
    best = right_attempts(group)
    for trace in group:
      second = best[rng.integers(len(best))] if best else trace.attempts[1]
      rewards = (trace.right[0], bool(best))
      weights.append([math.exp(r / temperature) for r in rewards])
      made.append((trace, second))
  scale = 1 / np.mean(weights) if weights else 1.0
  return [
    two_turns(collected, trace, second, two * scale, one * scale)
    for (trace, second), (one, two) in zip(made, weights, strict=True)
  ]
