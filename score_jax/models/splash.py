"""Attention of whole rows by the kernel of JAX's library for TPUs.

Splash attention (jax.experimental.pallas.ops.tpu) goes over blocks of queries
and keys, skips those of which nothing is seen, and keeps of the scores a sum
per query. Its gradient is the library's own.

Letters: B rows, T query columns, K key heads, G queries per key head, H head
width, C columns of keys before the row's own.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu import splash_attention as library

from score_jax.models.attention import KeyValue

LANES = 128  # What the columns of a block have to be a multiple of.
BLOCK = 512  # Columns of a block, at most.


@dataclasses.dataclass(frozen=True)
class Run:
  """What one kernel is made for."""

  offset: int  # C.
  window: int  # Columns that a query sees, the own one counted; 0 = all.
  cap: float  # Of scores; 0 = off.
  interpret: bool  # Computed by XLA, step by step, where there is no TPU.


def attend(
  run: Run, query: jax.Array, keys: KeyValue, seen: jax.Array | None
) -> jax.Array:
  """Returns [B, T, K, G, H]: each query sees what is near to its left.

  Args:
    run: what the kernel is made for.
    query: [B, T, K, G, H], times the scale of scores.
    keys: of C + T columns; the last is that of the last query.
    seen: bool[B, C], which of the first are seen; None = all.
  """
  rows, time, heads, queries, width = query.shape
  padded, block = padded_columns(time)
  columns, key_block = padded_columns(run.offset + padded)
  front, back = columns - padded - run.offset, padded - time
  query = jnp.moveaxis(query, 1, 3).reshape(rows, -1, time, width)
  query = jnp.pad(query, ((0, 0), (0, 0), (0, back), (0, 0)))
  fill = ((0, 0), (0, 0), (front, back), (0, 0))
  key = jnp.pad(jnp.swapaxes(keys.key, -1, -2), fill)
  value = jnp.pad(keys.value, fill)
  segments = None
  if columns > padded:  # What is not seen is of another segment.
    if seen is None:
      seen = jnp.ones((rows, run.offset), bool)
    seen = jnp.pad(seen, ((0, 0), (front, 0)))
    seen = jnp.pad(seen, ((0, 0), (0, padded)), constant_values=True)
    segments = library.SegmentIds(
      jnp.ones((rows, padded), jnp.int32), seen.astype(jnp.int32)
    )
  shape, sizes = (padded, columns), (block, key_block)
  kernel = _kernel(run, heads * queries, shape, sizes)
  out = jax.vmap(kernel)(query, key, value, segments)
  out = out[:, :, :time].reshape(rows, heads, queries, time, width)
  return jnp.moveaxis(out, 3, 1)


def padded_columns(columns: int) -> tuple[int, int]:
  """Returns the columns of whole blocks that cover so many, and a block's."""
  count = -(-columns // BLOCK)
  block = -(-columns // (count * LANES)) * LANES
  return count * block, block


@functools.lru_cache
def _kernel(
  run: Run, heads: int, shape: tuple[int, int], block: tuple[int, int]
):
  """Returns the kernel of one row: its last query sees the last key."""
  offset = shape[1] - shape[0]
  mask = library.CausalMask(shape, offset)
  if run.window:
    mask = library.LocalMask(shape, (run.window - 1, 0), offset)
  sizes = library.BlockSizes(
    block_q=block[0],
    block_kv=block[1],
    block_q_dkv=block[0],
    block_kv_dkv=block[1],
    block_q_dq=block[0],
    block_kv_dq=block[1],
  )
  # Not of the trace in which it is first asked for.
  with jax.ensure_compile_time_eval():
    kernel = library.make_splash_mha(
      library.MultiHeadMask([mask] * heads),
      block_sizes=sizes,
      attn_logits_soft_cap=run.cap or None,
      head_shards=1,
      q_seq_shards=1,
      interpret=run.interpret,
    )
  return jax.tree.map(np.asarray, kernel)
