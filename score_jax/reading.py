"""How the update reads trajectories: a prompt once for all rows of its group.

    prompts [N, P] ──► keys and values ──► rows behind them [B, C]

The keys and values of a prompt do not depend on what follows it, so that a
group's rows share them, and their gradients add up in them. No more columns
are read than the longest of the rows fills, as far as widths were compiled.

Letters: B rows, N prompts, E = B / N rows of a group, L columns, P prompt
columns, C columns that are read per row, D width, T turns.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from score_jax import sharding
from score_jax.models.attention import KeyValue
from score_jax.models.cache import Cache
from score_jax.trajectory import Trajectory

TILE = 128  # Columns that a TPU reads at once.

# Hidden states [B, C, D], keys and values of tokens int32[B, C], which stand
# behind a cache if there is one; the number says which of the calls it is.
Decoder = Callable[
  [int, jax.Array, Cache | None],
  tuple[jax.Array, tuple[KeyValue, ...] | KeyValue],
]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prompts:
  """What the rows of a group begin with."""

  tokens: jax.Array  # int32[N, P]; what stands behind a prompt is junk.
  length: jax.Array  # int32[N].


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Reading:
  """Rows as they are read: whole, or what stands behind their prompts."""

  tokens: jax.Array  # int32[B, C].
  turn: jax.Array  # int32[B, C]: 1..T where an attempt wrote the token, else 0.
  start: jax.Array  # int32[B, T]: the attempts' first columns, among these.
  prompts: Prompts | None = None  # None where rows are read whole.


def sharing(rows: int, group: int, shards: int) -> int:
  """Returns how many adjacent rows read their prompt together, E.

  As many of a group as leave prompts that the devices split like rows, so that
  rows find the keys of their prompt on their own device.

  Args:
    rows: B.
    group: adjacent rows that begin with the same prompt; divides B.
    shards: parts that the devices split rows into.
  """
  divisors = (e for e in range(group, 0, -1) if group % e == 0)
  return next((e for e in divisors if rows // e % shards == 0), group)


def filled(trajectory: Trajectory, columns: int) -> jax.Array:
  """Returns int32[B], how many columns of its reading a row fills.

  Args:
    trajectory: of the rows.
    columns: P where rows are read behind their prompts; 0 = whole.
  """
  t = trajectory
  return t.length - t.span[:, 0, 0] if columns else t.length


def widths(shares: tuple[float, ...], columns: int) -> list[int]:
  """Returns what C may be, rising; the last is all columns.

  Args:
    shares: of all columns.
    columns: that there are. Where they are many, they are cut into tiles.
  """
  step = TILE if columns >= 8 * TILE else 1
  cut = {math.ceil(share * columns / step) * step for share in shares}
  return [*sorted(c for c in cut if c < columns), columns]


def whole(trajectory: Trajectory, width: int) -> Reading:
  """Returns the reading of whole rows.

  Args:
    trajectory: of the rows.
    width: C; no row fills more.
  """
  t = trajectory
  return Reading(t.tokens[:, :width], t.turn[:, :width], t.span[..., 0])


def behind_prompts(
  trajectory: Trajectory, each: int, columns: int, width: int
) -> Reading:
  """Returns the reading of prompts once, and of what stands behind them.

  Args:
    trajectory: whose every `each` adjacent rows begin with the same prompt.
    each: E.
    columns: P, the longest prompt.
    width: C, at most L - P; no row's attempts and instructions fill more.
  """
  t = trajectory
  first = t.span[:, 0, 0]

  def behind(x):  # [B, L] -> [B, C].
    return jax.vmap(
      lambda row, start: jax.lax.dynamic_slice_in_dim(row, start, width)
    )(x, first)

  prompts = Prompts(t.tokens[::each, :columns], first[::each])
  start = t.span[..., 0] - first[:, None]
  return Reading(behind(t.tokens), behind(t.turn), start, prompts)


def before(hidden: jax.Array) -> jax.Array:
  """Returns [B, L, D]: at each column of whole rows the state before it.

  That is the one that predicts its token; at column 0 there is none, and zeros
  stand there.
  """
  return jnp.pad(hidden[:, :-1], ((0, 0), (1, 0), (0, 0)))


def states_before(decoder: Decoder, reading: Reading, mesh) -> jax.Array:
  """Returns [B, C, D]: at each column the state that predicts its token.

  Args:
    decoder: of the model whose states they are.
    reading: of the rows.
    mesh: that they are laid out on, or None.
  """

  def laid(x):
    return sharding.constrain(mesh, x, 'batch', 'length')

  if reading.prompts is None:
    return before(decoder(0, laid(reading.tokens), None)[0])
  prompts = reading.prompts
  states, keys = decoder(0, laid(prompts.tokens), None)
  last = (prompts.length - 1)[:, None, None]
  first = jnp.take_along_axis(states, last, axis=1)  # [N, 1, D].
  first = jnp.repeat(first, reading.tokens.shape[0] // first.shape[0], axis=0)
  cache = Cache(keys, None, prompts.length)
  hidden, _ = decoder(1, laid(reading.tokens), cache)
  return jnp.concatenate([first, hidden[:, :-1]], axis=1)


def to_rows(reading: Reading, x: jax.Array, columns: int) -> jax.Array:
  """Returns [B, L] of [B, C]: each number where its token stands in its row.

  Args:
    reading: of the rows.
    x: one number per column that was read.
    columns: L.
  """
  if reading.prompts is None:
    return jnp.pad(x, ((0, 0), (0, columns - x.shape[1])))
  each = x.shape[0] // reading.prompts.length.shape[0]
  start = jnp.repeat(reading.prompts.length, each)
  put = jax.vmap(jax.lax.dynamic_update_slice_in_dim, (0, 0, 0, None))
  return put(jnp.zeros((x.shape[0], columns), x.dtype), x, start, 0)
