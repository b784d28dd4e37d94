"""Which rows does a loop of decoding read? All, those alive, or some at a time.

    all       every row, until the last one has ended
    left out  once few are alive, those alone: taken out, decoded, put back
    refilled  so many at a time: where a row has ended, one that waits goes on

Each device does so with its own rows. It knows neither models nor draws: a step
is a function from state to state.

Letters: B rows, D parts of them, one for each device; N rows of a part, R of
which are decoded at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from score_jax.models.cache import Cache, row_axis


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
  """Rows as a loop of steps carries them."""

  steps: jax.Array  # int32[], of this loop and those before.
  rows: Any  # Arrays [B, ...] that steps write.
  inputs: Any  # Arrays [B, ...] that they only read.
  cache: Cache

  @property
  def size(self) -> int:
    """Returns B."""
    return len(jax.tree.leaves(self.rows)[0])


Step = Callable[[State], State]
Alive = Callable[[State], jax.Array]  # bool[B]: rows that a step goes on with.


def sizes(rows: int, compact: tuple[float, ...], refill: int) -> list[int]:
  """Returns how many of a device's rows are decoded at once, falling.

  Args:
    rows: all of a device's rows.
    compact: shares of those decoded at a time, as of `Sampling`.
    refill: the most that are decoded at a time; 0 = all.
  """
  most = min(rows, refill or rows)
  smaller = {max(1, round(share * most)) for share in compact}
  return [most, *sorted((n for n in smaller if n < most), reverse=True)]


def exchanged(places: int) -> int:
  """Returns how many rows are exchanged at a time, of those decoded at a time.

  Fewer cost more exchanges, more leave places empty for longer.
  """
  return max(1, places // 16)


# ------------------------------------------------------------------ leaving out


def decode(step: Step, alive: Alive, state: State, sizes: list[int]) -> State:
  """Returns the state when no row is alive any more.

  When no more rows are alive than the next size, these alone go on: they are
  taken out, decoded, and put back.

  Args:
    step: one step of the rows that it is given.
    alive: which of them go on.
    state: of all rows.
    sizes: rows of each device, as `sizes` gives them for all rows.
  """
  size, *smaller = sizes
  floor = smaller[0] if smaller else 0

  def more(state):
    return jnp.max(jnp.sum(_parts(alive(state), size), axis=1)) > floor

  state = jax.lax.while_loop(more, step, state)
  if not smaller:
    return state
  place = _first(_parts(alive(state), size), floor)
  few = decode(step, alive, _taken_state(state, place), smaller)
  rows, own = _put_back(state.rows, state.cache.own, few, place)
  cache = dataclasses.replace(state.cache, own=own)
  return dataclasses.replace(state, steps=few.steps, rows=rows, cache=cache)


# -------------------------------------------------------------------- refilling


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Places:
  """Rows that are decoded, in their places, and what became of the others."""

  now: State  # D * R rows.
  row: jax.Array  # int32[D * R]: which of a part's N rows is in each of them.
  begun: jax.Array  # int32[D]: how many have had a place.
  rows: Any  # Of all rows, as they were or as they ended.
  own: Any  # The same of caches; None where nobody reads them.


@dataclasses.dataclass(frozen=True)
class _Refill:
  """What does not change while rows are exchanged."""

  step: Step
  alive: Alive
  size: int  # R, places of each part.
  batch: int  # Rows exchanged at a time.
  state: State  # Of all D * N rows, before.
  order: jax.Array  # int32[D, N], rows as they come to their places.
  count: jax.Array  # int32[D], how many need one.

  def ended(self, now: State) -> jax.Array:
    """Returns bool[D, R], whose places are free."""
    return ~_parts(self.alive(now), self.size)

  def is_due(self, now: State, begun: jax.Array) -> jax.Array:
    """Returns whether a part has enough places free, and rows for them."""
    free = jnp.sum(self.ended(now), axis=1)
    return jnp.any((free >= self.batch) & (begun < self.count))

  def round(self, places: _Places) -> _Places:
    """Returns the places after steps, and then an exchange."""
    now = jax.lax.while_loop(
      lambda now: ~self.is_due(now, places.begun), self.step, places.now
    )
    return self.exchange(dataclasses.replace(places, now=now))

  def exchange(self, places: _Places) -> _Places:
    """Returns the places with rows that wait in those of rows that ended."""
    now, ended = places.now, self.ended(places.now)
    place, turn = _first(ended, self.batch), jnp.arange(self.batch)[None]
    free = jnp.sum(ended, axis=1, keepdims=True)
    next_row = places.begun[:, None] + turn
    moves = (turn < free) & (next_row < self.count[:, None])
    last = self.order.shape[1] - 1
    comes = _chosen(self.order, jnp.minimum(next_row, last))
    # What does not move is written to where nothing is.
    goes = _chosen(_parts(places.row, self.size), place)
    goes = jnp.where(moves, goes, last + 1)
    left = _taken_state(now, place)
    rows, own = _put_back(places.rows, places.own, left, goes)
    place = jnp.where(moves, place, self.size)
    new = _taken_state(dataclasses.replace(self.state, rows=rows), comes)
    return _Places(
      now=_put_state(now, new, place),
      row=_put(places.row, comes.reshape(-1), place),
      begun=places.begun + jnp.sum(moves, axis=1),
      rows=rows,
      own=own,
    )


def refill(
  step: Step,
  alive: Alive,
  state: State,
  sizes: list[int],
  shards: int,
  grow: Callable[[Cache], Cache],
  is_last: bool,
) -> State:
  """Returns the state when no row is alive any more, few decoded at a time.

  A row that waits takes the place of one that has ended. When none waits any
  more, rows that have ended are left out, as `decode` does it.

  Args:
    step: one step of the rows that it is given.
    alive: which of them go on.
    state: of all rows, N of each device.
    sizes: how many of each device's rows have places, and then as they are left
      out; the first is less than N.
    shards: devices, or groups of them, that have rows of their own.
    grow: gives a cache the columns that the steps write.
    is_last: whether nobody reads the rows' own caches any more. None come back
      then; else with what the steps wrote.
  """
  size = sizes[0]
  goes_on = _parts(alive(state), state.size // shards)
  order = _first(goes_on, goes_on.shape[1])
  count = jnp.sum(goes_on, axis=1)
  how = _Refill(step, alive, size, exchanged(size), state, order, count)
  row = order[:, :size]
  now = _taken_state(state, row)
  now = dataclasses.replace(now, cache=grow(now.cache))
  own = None if is_last else grow(state.cache).own
  places = jax.lax.while_loop(
    lambda places: jnp.any(places.begun < count),
    how.round,
    _Places(now, row.reshape(-1), jnp.minimum(count, size), state.rows, own),
  )
  now = decode(step, alive, places.now, sizes)
  row = _parts(places.row, size)
  rows, own = _put_back(places.rows, places.own, now, row)
  cache = dataclasses.replace(state.cache, own=own)
  return dataclasses.replace(state, steps=now.steps, rows=rows, cache=cache)


# ------------------------------------------------------------ taking and putting


def _parts(x: jax.Array, size: int) -> jax.Array:
  """Returns [D, R] of [B], R = size."""
  return x.reshape(-1, size)


def _first(chosen: jax.Array, count: int) -> jax.Array:
  """Returns int32[D, count], places in each part, those of the chosen first."""
  return jnp.argsort(~chosen, axis=1, stable=True)[:, :count]


def _chosen(x: jax.Array, place: jax.Array) -> jax.Array:
  """Returns [D, n], x[d, place[d]] of x [D, R]."""
  return jnp.take_along_axis(x, place, axis=1)


def _taken_state(state: State, place: jax.Array) -> State:
  """Returns the state of some rows, each with a copy of its prompt.

  Rows of a group are then no longer as many as those of the others.
  """
  cache, axis = state.cache, row_axis(state.cache)
  prompt = place // (state.size // len(cache.prompt_length))
  return dataclasses.replace(
    state,
    rows=_taken(state.rows, place),
    inputs=_taken(state.inputs, place),
    cache=Cache(
      _taken(cache.prompt, prompt, axis),
      _taken(cache.own, place, axis),
      _taken(cache.prompt_length, prompt),
    ),
  )


def _put_state(state: State, few: State, place: jax.Array) -> State:
  """Returns the state with the rows at `place` replaced, all of each.

  Own caches of `few` may have less columns: the others stay as they are.
  """
  cache, new, axis = state.cache, few.cache, row_axis(state.cache)
  return dataclasses.replace(
    state,
    rows=_put(state.rows, few.rows, place),
    inputs=_put(state.inputs, few.inputs, place),
    cache=Cache(
      _put(cache.prompt, new.prompt, place, axis),
      _put(cache.own, new.own, place, axis),
      _put(cache.prompt_length, new.prompt_length, place),
    ),
  )


def _put_back(rows: Any, own: Any, few: State, place: jax.Array) -> Any:
  """Returns rows and their own caches, if any, with those of a state put in."""
  if own is not None:
    own = _put(own, few.cache.own, place, row_axis(few.cache))
  return _put(rows, few.rows, place), own


def _taken(tree: Any, place: jax.Array, axis: int = 0) -> Any:
  """Returns the rows at `place`, int32[D, n], of each part's rows."""
  return _of_parts(lambda part, at: part[at], place, axis, tree)


def _put(tree: Any, few: Any, place: jax.Array, axis: int = 0) -> Any:
  """Returns the rows with those at `place` replaced; undoes `_taken`.

  Places out of range are left out. Arrays of `few` may be smaller behind the
  rows, and are then put at the beginning.
  """

  def put(part, at, new):
    begin = (slice(size) for size in new.shape[1:])
    return part.at[at, *begin].set(new, mode='drop')

  return _of_parts(put, place, axis, tree, few)


def _of_parts(
  function: Callable[..., jax.Array],
  place: jax.Array,
  axis: int,
  tree: Any,
  *others: Any,
) -> Any:
  """Returns the tree with a function of each part's rows, places and others.

  The dimensions before the rows stay where they are: turned over, a cache would
  be copied.
  """
  shards = place.shape[0]

  def apart(x):  # [..., D * n, ...] -> [..., D, n, ...].
    shape = shards, x.shape[axis] // shards
    return x.reshape(*x.shape[:axis], *shape, *x.shape[axis + 1 :])

  def one(x, *others):
    over = jax.vmap(function)
    for _ in range(axis):
      over = jax.vmap(over, in_axes=(0, None, *(0 for _ in others)))
    out = over(apart(x), place, *map(apart, others))
    size = out.shape[axis] * out.shape[axis + 1]
    return out.reshape(*out.shape[:axis], size, *out.shape[axis + 2 :])

  return jax.tree.map(one, tree, *others)
