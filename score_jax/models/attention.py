"""Softmax attention: of whole rows, with a written gradient, and of a cache.

Every product is of two matrices as they lie in memory, and no array as large
as the scores is turned over between them: on a CPU that is half the time.

Letters: B rows, T query columns, S key columns, K key heads, G queries per
key head, H head width, P prompts (each shared by E = B / P adjacent rows),
Q = G * T.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp

NEGATIVE = -1e30  # Finite, so that a part whose keys are all masked weighs 0.


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KeyValue:
  """Keys and values of one layer, or of all with a leading [L].

  Laid out for the products of decoding: heads first, and the keys' columns
  last, so that a step reads them as they lie (three to five times as fast on
  a CPU as [B, S, K, H], which each step would transpose).
  """

  key: jax.Array  # [B, K, H, S].
  value: jax.Array  # [B, K, S, H].
  # Of int8 ones: what a number counts, for each row, head and column.
  key_scale: jax.Array | None = None  # float32[B, K, S].
  value_scale: jax.Array | None = None  # float32[B, K, S].


@dataclasses.dataclass(frozen=True)
class Softmax:
  """Scores are query . key times a scale, squeezed into (-cap, cap)."""

  scale: float
  cap: float = 0.0  # 0 = off.


Part = tuple[KeyValue, jax.Array]  # With a mask: true where a key is seen.


def softcap(x: jax.Array, cap: float) -> jax.Array:
  """Returns x squeezed smoothly into (-cap, cap); cap 0 leaves it alone."""
  return jnp.tanh(x / cap) * cap if cap else x


# ------------------------------------------------------------------ whole rows


def attend(
  softmax: Softmax, query: jax.Array, own: Part, prompt: Part | None = None
) -> jax.Array:
  """Returns [B, T, K, G, H], what rows see of themselves and of their prompt.

  Args:
    softmax: scale and cap.
    query: [B, T, K, G, H].
    own: keys and values of B rows, and a mask bool[1 or B, T, S].
    prompt: of P rows, each shared by E adjacent rows, whose queries meet its
      keys as one group; mask bool[1 or P, T, S].
  """
  batch, time, heads, queries, width = query.shape
  keys, mask = own
  shared = () if prompt is None else (prompt[0],)
  prompts = prompt[0].key.shape[0] if shared else batch
  each = batch // prompts

  def grouped(x):  # [B, K, ...] -> [P, K, E, ...].
    return jnp.moveaxis(x.reshape(prompts, each, *x.shape[1:]), 2, 1)

  parts = (jax.tree.map(grouped, keys), *shared)
  masks = (_rows_mask(mask, prompts),)
  if shared:
    masks += (prompt[1][:, None, None, None],)
  query = grouped(jnp.moveaxis(query, 1, 3))  # [P, K, E, G, T, H].
  shape = query.shape
  query = query.reshape(*shape[:3], queries * time, width)
  out = _attended(softmax, query, parts, masks)
  out = jnp.moveaxis(out.reshape(shape), 1, 2)  # [P, E, K, G, T, H].
  out = out.reshape(batch, heads, queries, time, width)
  return jnp.moveaxis(out, 3, 1)


def _rows_mask(mask: jax.Array, prompts: int) -> jax.Array:
  """Returns bool[P or 1, 1, E or 1, 1, T, S] of bool[B or 1, T, S]."""
  if mask.shape[0] == 1:
    return mask[:, None, None, None]
  return mask.reshape(prompts, 1, -1, 1, *mask.shape[1:])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attended(
  softmax: Softmax,
  query: jax.Array,
  parts: tuple[KeyValue, ...],
  masks: tuple[jax.Array, ...],
) -> jax.Array:
  """Returns [P, K, E, Q, H], softmax attention over all parts at once.

  Its gradient is written out, for as jax derives it the scores are read and
  written several times more. With weights w = exp(s - max) / total and the
  output o = sum w v, the gradient of a score is w (do . v - do . o).

  Args:
    softmax: scale and cap.
    query: [P, K, E, Q, H].
    parts: of a row, [P, K, E, ...], or shared by E rows, [P, K, ...].
    masks: of each part, bool[1 or P, 1, 1 or E, 1, T, S].
  """
  return _attended_forward(softmax, query, parts, masks)[0]


def _attended_forward(softmax, query, parts, masks):
  wide = [_product(query, part.key) for part in parts]
  scores = [
    _masked(softcap(x * softmax.scale, softmax.cap), mask)
    for x, mask in zip(wide, masks, strict=True)
  ]
  highest = functools.reduce(
    jnp.maximum, [jnp.max(x, axis=-1, keepdims=True) for x in scores]
  )
  weights = [jnp.exp(x - highest) for x in scores]
  total = sum(jnp.sum(x, axis=-1, keepdims=True) for x in weights)
  # The products read them in the type of the values, and so does the gradient.
  kind = query.dtype
  weights = tuple(x.astype(kind) for x in weights)
  out = sum(
    _product(x, part.value) for x, part in zip(weights, parts, strict=True)
  )
  out = (out / total).astype(kind)
  # What a cap passes on of a score's gradient.
  slopes = ()
  if softmax.cap:
    slopes = tuple(
      (1 - jnp.square(jnp.tanh(x * (softmax.scale / softmax.cap)))).astype(kind)
      for x in wide
    )
  return out, (query, parts, weights, slopes, total, out)


def _attended_backward(softmax, kept, cotangent):
  query, parts, weights, slopes, total, out = kept
  along = jnp.sum(cotangent.astype(jnp.float32) * out, axis=-1, keepdims=True)
  along = along / total
  cotangent = (cotangent / total).astype(query.dtype)
  of_query, of_parts = 0.0, []
  for i, (part, weight) in enumerate(zip(parts, weights, strict=True)):
    towards = _product(cotangent, jnp.swapaxes(part.value, -1, -2))
    score = weight * (towards - along)
    if slopes:
      score *= slopes[i]
    score = score.astype(query.dtype)
    of_query += _product(score, jnp.swapaxes(part.key, -1, -2))
    shared = part.key.ndim < query.ndim
    of_key = _product_over_rows(query, score, shared) * softmax.scale
    of_value = _product_over_rows(weight, cotangent, shared)
    kinds = part.key.dtype, part.value.dtype
    of_parts.append(
      KeyValue(of_key.astype(kinds[0]), of_value.astype(kinds[1]))
    )
  # The scale comes last, to what is small.
  of_query = (of_query * softmax.scale).astype(query.dtype)
  return of_query, tuple(of_parts), None


_attended.defvjp(_attended_forward, _attended_backward)


def _masked(scores: jax.Array, mask: jax.Array) -> jax.Array:
  """Returns the scores [P, K, E, Q, S], NEGATIVE where a key is not seen."""
  apart = scores.reshape(*scores.shape[:3], -1, *mask.shape[-2:])
  return jnp.where(mask, apart, NEGATIVE).reshape(scores.shape)


def _product(x: jax.Array, y: jax.Array) -> jax.Array:
  """Returns float32[P, K, E, Q, C] of [P, K, E, Q, A] and [P, K, (E,) A, C]."""
  if y.ndim == x.ndim:
    return jnp.matmul(x, y, preferred_element_type=jnp.float32)
  together = x.reshape(*x.shape[:2], -1, x.shape[-1])
  out = jnp.matmul(together, y, preferred_element_type=jnp.float32)
  return out.reshape(*x.shape[:-1], -1)


def _product_over_rows(x: jax.Array, y: jax.Array, shared: bool) -> jax.Array:
  """Returns float32[P, K, (E,) A, C], products summed over the queries.

  Args:
    x: [P, K, E, Q, A].
    y: [P, K, E, Q, C].
    shared: whether to sum over E as well.
  """
  if shared:
    x, y = (z.reshape(*z.shape[:2], -1, z.shape[-1]) for z in (x, y))
  x = jnp.swapaxes(x, -1, -2)
  return jnp.matmul(x, y, preferred_element_type=jnp.float32)


# ----------------------------------------------------------------- from a cache


def attend_parts(
  softmax: Softmax, query: jax.Array, parts: tuple[Part, ...]
) -> jax.Array:
  """Returns [B, T, K, G, H], softmax attention over several parts at once.

  Args:
    softmax: scale and cap.
    query: [B, T, K, G, H].
    parts: keys and values with masks bool[B, T, S]. A part with fewer rows
      than the query is shared by adjacent rows, which attend to it as one
      group of queries: its keys are read once and never copied.
  """
  sums = [_part_sums(softmax, query, part, mask) for part, mask in parts]
  top = jnp.max(jnp.stack([highest for highest, _, _ in sums]), axis=0)
  total, out = 0.0, 0.0
  for highest, weight, value in sums:
    scale = jnp.exp(highest - top)
    total += weight * scale
    out += value * scale[..., None]
  return (out / total[..., None]).astype(query.dtype)


def _part_sums(
  softmax: Softmax, query: jax.Array, part: KeyValue, mask: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns the highest score, the weights' sum and the weighted values.

  Shapes: float32[B, T, K, G] twice, then float32[B, T, K, G, H].
  """
  batch, time, heads, queries = query.shape[:-1]
  prompts = part.key.shape[0]
  each = batch // prompts * time  # Columns that share a part.

  def together(x):  # [B, T, K, G, H] -> [P, K, all queries of a key, H].
    x = jnp.moveaxis(x.reshape(prompts, each, heads, queries, -1), 2, 1)
    return x.reshape(prompts, heads, each * queries, -1)

  def apart(x):  # The way back.
    x = jnp.moveaxis(x.reshape(prompts, heads, each, queries, -1), 1, 2)
    return x.reshape(batch, time, heads, queries, -1)

  scores = jnp.matmul(
    together(query),
    part.key.astype(query.dtype),
    preferred_element_type=jnp.float32,
  )
  if part.key_scale is not None:
    scores *= part.key_scale[:, :, None]
  scores = softcap(scores * softmax.scale, softmax.cap)
  mask = mask.reshape(prompts, each, mask.shape[-1])
  mask = jnp.repeat(mask, queries, axis=1)[:, None]
  scores = jnp.where(mask, scores, NEGATIVE)
  highest = jnp.max(scores, axis=-1, keepdims=True)
  weights = jnp.exp(scores - highest)
  weighing = weights
  if part.value_scale is not None:
    weighing = weights * part.value_scale[:, :, None]
  value = jnp.matmul(
    weighing.astype(query.dtype),
    part.value.astype(query.dtype),
    preferred_element_type=jnp.float32,
  )
  total = jnp.sum(weights, axis=-1, keepdims=True)
  return apart(highest)[..., 0], apart(total)[..., 0], apart(value)
