"""A batch that is learned from in parts, each no wider than its rows.

Groups of alike length come into one part, so that few columns are read that
nothing fills. Every width is compiled; which of them a part has is decided on
the devices.

Letters: B rows, P prompt columns, E rows that share a prompt.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from score_jax import reading
from score_jax.trajectory import Trajectory

# Gradients, loss and metrics of a part: its width, its number, its rows.
Learned = tuple[Any, jax.Array, dict[str, jax.Array]]
OfPart = Callable[[int, jax.Array, Any], Learned]


@dataclasses.dataclass(frozen=True)
class Cut:
  """How a batch is cut."""

  parts: int
  group: int  # Adjacent rows that stay together.
  each: int  # E.
  prompt: int  # P; 0 = rows are read whole, and none is shared.
  widths: tuple[int, ...]  # Columns that are read of a row, rising.


def averaged(
  cut: Cut, of_part: OfPart, like: Any, batch: Any, rows: tuple[str, ...]
) -> Learned:
  """Returns gradients, loss and metrics, averaged over the batch's parts.

  Among the metrics is `padding`, the share of the columns read that no token
  fills, float32[]; those in `sums` are added up.

  Args:
    cut: how the batch is cut.
    of_part: what learns from a part.
    like: arrays of the gradients' shapes.
    batch: arrays of B rows each, with a `trajectory`.
    rows: names of metrics of single rows, which come back in their order.
  """
  live = _live(cut, batch.trajectory)
  if cut.parts == 1:
    grads, loss, metrics = _at_its_width(cut, of_part, jnp.int32(0), batch)
  else:
    grads, loss, metrics = _summed(cut, of_part, like, batch, rows)
  read = metrics.pop('read')
  return grads, loss, metrics | {'padding': 1 - live / read}


def _live(cut: Cut, trajectory: Trajectory) -> jax.Array:
  """Returns float32[], the columns that tokens fill, a shared prompt's once."""
  live = jnp.sum(reading.filled(trajectory, cut.prompt))
  if cut.prompt:
    live += jnp.sum(trajectory.span[:: cut.each, 0, 0])
  return live.astype(jnp.float32)


def _at_its_width(
  cut: Cut, of_part: OfPart, i: jax.Array, part: Any
) -> Learned:
  """Returns what a part teaches, read at the least width that holds it."""
  count = len(part.trajectory.tokens)

  def at(width, i, part):
    grads, loss, metrics = of_part(width, i, part)
    read = count * width + count // cut.each * cut.prompt
    return grads, loss, metrics | {'read': jnp.float32(read)}

  ways = [functools.partial(at, width) for width in cut.widths]
  filled = jnp.max(reading.filled(part.trajectory, cut.prompt))
  smaller = jnp.asarray(cut.widths[:-1], jnp.int32)
  chosen = jnp.sum(filled > smaller, dtype=jnp.int32)
  # Of a single way, switch makes a call.
  return jax.lax.switch(chosen, ways, i, part)


def _summed(cut, of_part, like, batch, names) -> Learned:
  order = None
  if len(cut.widths) > 1:
    order = _by_length(cut, batch.trajectory)
    batch = jax.tree.map(lambda x: x[order], batch)
  rows = jax.tree.map(lambda x: x.reshape(cut.parts, -1, *x.shape[1:]), batch)
  zero = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), like)

  def add(total, part):
    grads, *rest = _at_its_width(cut, of_part, *part)
    return jax.tree.map(jnp.add, total, grads), rest

  numbers = jnp.arange(cut.parts)
  total, (losses, metrics) = jax.lax.scan(add, zero, (numbers, rows))
  grads = jax.tree.map(lambda x: x / cut.parts, total)
  means = jax.tree.map(lambda x: jnp.mean(x, axis=0), metrics)
  others = {
    'logp_gap_max': jnp.max(metrics['logp_gap_max']),
    'read': jnp.sum(metrics['read']),
    'sums': jax.tree.map(lambda x: jnp.sum(x, axis=0), metrics.get('sums', {})),
  }
  for name in names:
    found = metrics[name].reshape(-1, metrics[name].shape[-1])
    others[name] = found if order is None else found[jnp.argsort(order)]
  return grads, jnp.mean(losses), means | others


def _by_length(cut: Cut, trajectory: Trajectory) -> jax.Array:
  """Returns int32[B], the rows in order of their groups' longest."""
  filled = reading.filled(trajectory, cut.prompt)
  groups = jnp.argsort(jnp.max(filled.reshape(-1, cut.group), axis=1))
  rows = groups[:, None] * cut.group + jnp.arange(cut.group)[None]
  return rows.reshape(-1)
