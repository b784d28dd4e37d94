"""Keys and values of what was read, as rows go on from it.

Letters: B rows, P prompts (each shared by B / P adjacent rows), K key heads,
S columns.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from score_jax import sharding
from score_jax.models import narrow
from score_jax.models.architecture import Execution, ModelConfig
from score_jax.models.attention import KeyValue


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
  """What turns go on from: a prompt once per problem, the rest per row.

  Slot `s` of a row's own part holds column `prompt_length + s`.
  """

  prompt: tuple[KeyValue, ...] | KeyValue  # Per layer of P rows, or stacked.
  # Per layer of B rows, or stacked; None where rows are read whole behind
  # their prompts.
  own: tuple[KeyValue, ...] | KeyValue | None
  prompt_length: jax.Array  # int32[P].


def row_axis(cache: Cache) -> int:
  """Returns where rows lie; in a scanned cache layers lie before them."""
  return 1 if isinstance(cache.prompt, KeyValue) else 0


def written(own: KeyValue, new: KeyValue, slot: jax.Array) -> KeyValue:
  """Returns one layer's keys and values with those of some columns replaced.

  Row by row, so that XLA sees that each device writes what it has; of indices
  over all rows it does not, and sends all that is written to all devices.

  Args:
    own: of B rows.
    new: of the same rows, T columns.
    slot: int32[B, T], where they are written.
  """

  def put(old, new, slot):  # [K, S, ...]; nothing where there are no scales.
    return None if old is None else old.at[:, slot].set(new)

  def row(own, new, slot):
    return KeyValue(
      own.key.at[..., slot].set(new.key),
      put(own.value, new.value, slot),
      put(own.key_scale, new.key_scale, slot),
      put(own.value_scale, new.value_scale, slot),
    )

  return jax.vmap(row)(own, new, slot)


def kept(execution: Execution, part: KeyValue) -> KeyValue:
  """Returns keys and values of some columns as a cache keeps them."""
  dtype = execution.cache_dtype or execution.dtype
  if dtype != 'int8':
    return KeyValue(part.key.astype(dtype), part.value.astype(dtype))
  key, key_scale = narrow.quantize(part.key, (-2,))
  value, value_scale = narrow.quantize(part.value, (-1,))
  return KeyValue(key, value, key_scale, value_scale)


def grown(
  execution: Execution,
  own: tuple[KeyValue, ...] | KeyValue,
  columns: int,
) -> tuple[KeyValue, ...] | KeyValue:
  """Returns the own part of a cache with so many more columns, zeros."""
  stacked = () if execution.unroll else ('layers',)

  def longer(x, *axes):
    axes = (*stacked, 'batch', 'kv_heads', *axes)
    fill = [(0, columns * (axis == 'length')) for axis in axes]
    return sharding.constrain(execution.mesh, jnp.pad(x, fill), *axes)

  def layer(kept):
    numbers = KeyValue(
      longer(kept.key, 'head_dim', 'length'),
      longer(kept.value, 'length', 'head_dim'),
    )
    if kept.key_scale is None:
      return numbers
    return dataclasses.replace(
      numbers,
      key_scale=longer(kept.key_scale, 'length'),
      value_scale=longer(kept.value_scale, 'length'),
    )

  return layer(own) if stacked else tuple(map(layer, own))


def empty_cache(
  config: ModelConfig, execution: Execution, rows: int, slots: int
) -> tuple[KeyValue, ...] | KeyValue:
  """Returns the own part of a cache, all zeros, with `slots` columns."""
  sizes = {
    'layers': config.layers,
    'batch': rows,
    'kv_heads': config.kv_heads,
    'head_dim': config.head_dim,
    'length': slots,
  }
  stacked = () if execution.unroll else ('layers',)
  dtype = execution.cache_dtype or execution.dtype

  def zeros(dtype, *axes):
    axes = stacked + axes
    empty = jnp.zeros([sizes[axis] for axis in axes], dtype)
    return sharding.constrain(execution.mesh, empty, *axes)

  def layer():
    numbers = KeyValue(
      zeros(dtype, 'batch', 'kv_heads', 'head_dim', 'length'),
      zeros(dtype, 'batch', 'kv_heads', 'length', 'head_dim'),
    )
    if dtype != 'int8':
      return numbers
    count = zeros('float32', 'batch', 'kv_heads', 'length')
    return dataclasses.replace(numbers, key_scale=count, value_scale=count)

  if not execution.unroll:
    return layer()
  return tuple(layer() for _ in range(config.layers))
