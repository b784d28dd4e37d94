"""Progressively selective label enhancement (arXiv:2408.02599).

Responses to one prompt are compared by their rewards. Where the best is better
than the others by more than a threshold, it alone is imitated; where it is
not, all are, each by its softmax weight in the rewards (the enhanced label).
The threshold falls from round to round, so that the choice becomes stricter.
Simplified: the responses are the group's second attempts rather than one drawn
plainly and one under a list of principles; the margin is that of the best over
the mean reward; the ranking loss between chosen and rejected is left out.
"""

from __future__ import annotations

import numpy as np

from score_jax.methods.traces import by_problem, Collected, Row, two_turns


def rows(
  collected: Collected,
  rng: np.random.Generator,
  threshold: float,
  temperature: float,
) -> list[Row]:
  """Returns rows of second attempts, the weights of a group being 1 in sum.

  Args:
    collected: the traces.
    rng: not used; nothing is drawn.
    threshold: on the best less the mean reward of a group, 0 to 1.
    temperature: of the softmax over rewards.
  """
  del rng
  found = []
  for group in by_problem(collected.traces):
    reward = np.array([trace.right[1] for trace in group], float)
    label = np.exp(reward / temperature)
    if reward.max() - reward.mean() > threshold:
      label = reward
    label = label / label.sum()
    found += [
      two_turns(collected, trace, trace.attempts[1], float(weight))
      for trace, weight in zip(group, label, strict=True)
      if weight > 0
    ]
  return found
