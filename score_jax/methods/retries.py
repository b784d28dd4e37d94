"""Training on mistakes and retries (arXiv:2408.16293, Physics of LMs 2.2).

A share of the rows shows a mistake and then the right solution; the others are
right from the start. The mistakes are imitated like everything else, for there
they found that masking them is not needed. Simplified: this is fine-tuning and
not pretraining; the mistakes are the model's own wrong first attempts instead
of sentences put in from elsewhere; the instruction between turns takes the
place of their token [BACK]; and a row without a mistake repeats its solution.
"""

from __future__ import annotations

import numpy as np

from score_jax.methods.traces import Collected, Row


def rows(
  collected: Collected, rng: np.random.Generator, share: float
) -> list[Row]:
  """Returns a row per trace: its mistake and the gold response, or gold twice.

  Args:
    collected: the traces.
    rng: draws which wrong first attempts are shown.
    share: of wrong first attempts that are; the paper goes up to 0.5.
  """
  found = []
  for trace in collected.traces:
    shown = not trace.right[0] and rng.random() < share
    first = trace.attempts[0] if shown else trace.gold
    parts = [(first, 1.0), (collected.between, 0.0), (trace.gold, 1.0)]
    found.append([(trace.prompt, 0.0), *parts])
  return found
