"""What flows from sampler to update: whole rows of all turns.

Letters: B rows, L columns, T turns.
"""

from __future__ import annotations

import dataclasses

import jax


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
