"""Importance-weighted self-improvement (arXiv:2408.09849).

How far a self-generated sample is from the distribution wanted is told by its
loss against that of a few held-out samples: with w = loss held out / loss of
the sample, its shift is max(w, 1 / w), at least 1. The samples with the largest
shifts are left out, as there. Simplified: the grader takes the place of the
vote among answers that says there which samples are right, and every sample
that is kept weighs the same.
"""

from __future__ import annotations

import numpy as np

from score_jax.methods.traces import Collected, Row, Trace, two_turns

TINY = 1e-6  # Nats; a sample that is certain has a loss of zero.


def rows(
  collected: Collected, rng: np.random.Generator, share: float
) -> list[Row]:
  """Returns rows of traces that end right, those of the least shift.

  Args:
    collected: the traces, and the loss of references held out.
    rng: not used; nothing is drawn.
    share: of the right traces that is kept.
  """
  del rng
  right = [trace for trace in collected.traces if trace.right[1]]
  shifts = np.array([shift(trace, collected.gold_nats) for trace in right])
  count = round(share * len(right))
  # Stable, so that of equal shifts the earlier trace is kept.
  kept = np.sort(np.argsort(shifts, kind='stable')[:count])
  return [
    two_turns(collected, right[i], right[i].attempts[1], 1.0, right[i].right[0])
    for i in kept
  ]


def shift(trace: Trace, held_out: float) -> float:
  """Returns max(w, 1 / w), at least 1, of a trace's second attempt."""
  ratio = max(held_out, TINY) / max(trace.nats[1], TINY)
  return max(ratio, 1 / ratio)
