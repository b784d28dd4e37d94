"""Attention of whole rows by the kernels that a platform's libraries offer.

They keep no array as large as the scores. What a query sees is static for
them: how far away a key stands. Behind a shared prompt that holds once each
prompt ends right before the row's own columns:

    keys   junk, unseen | prompt | own columns

Letters: B rows, T query columns, K key heads, G queries per key head, H head
width, P prompts (each shared by E = B / P adjacent rows), C prompt columns,
S key columns.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from score_jax import sharding
from score_jax.models.architecture import Execution, ModelConfig
from score_jax.models.attention import KeyValue, Softmax


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Window:
  """How far to the left a layer sees, and what it might be."""

  columns: jax.Array  # int32[], the own one counted; one of those below.
  among: tuple[int, ...] = dataclasses.field(metadata={'static': True})


Prompt = tuple[KeyValue, jax.Array]  # Of P rows, and their int32[P] lengths.


def refusal(kind: str, config: ModelConfig) -> str:
  """Returns why a kernel cannot do a model's attention, or ''.

  Args:
    kind: as `Execution.attention` has it.
    config: of the model.
  """
  if kind != 'cudnn':
    return ''  # For TPUs heads 16 to 256 wide compile, with a cap and without.
  cap, width = config.attention_softcap, config.head_dim
  if cap:
    return f'has no cap on scores, and this model caps them at {cap:g}'
  if width % 8 or width > 256:
    return (
      'wants heads whose width is a multiple of 8 and at most 256, and this '
      f"model's are {width} wide"
    )
  return ''


def query_scale(execution: Execution, scale: float) -> float:
  """Returns what the query has to be multiplied by before it is rounded."""
  return scale if execution.attention == 'splash' else 1.0


def attend(
  execution: Execution,
  softmax: Softmax,
  query: jax.Array,
  own: KeyValue,
  window: Window,
  prompt: Prompt | None = None,
) -> jax.Array:
  """Returns [B, T, K, G, H], what rows see of themselves and of their prompt.

  The numbers are those of `attention.attend` with masks of the window.

  Args:
    execution: names the kernel, and the mesh.
    softmax: scale and cap.
    query: [B, T, K, G, H]; times `query_scale` already.
    own: keys and values of B rows of T columns.
    window: of the layer.
    prompt: what adjacent rows stand behind, right after its length.
  """
  mesh = execution.mesh
  kernel = functools.partial(
    _KERNELS[execution.attention], softmax, _platform(mesh)
  )
  local = functools.partial(_attend_local, kernel)
  if mesh is None:
    return local(query, own, window, prompt)
  rows, keys, queries = _split(mesh, query, prompt)
  of_keys = KeyValue(*(PartitionSpec(rows, keys),) * 2)
  of_query = PartitionSpec(rows, None, keys, queries)
  specs = of_query, of_keys, PartitionSpec()
  of_prompt = None if prompt is None else (of_keys, PartitionSpec(rows))
  return jax.shard_map(
    local,
    mesh=mesh,
    in_specs=(*specs, of_prompt),
    out_specs=of_query,
    check_vma=False,
  )(query, own, window, prompt)


def _platform(mesh: Mesh | None) -> str:
  """Returns what the program is compiled for: 'cpu', 'gpu' or 'tpu'."""
  if mesh is None:
    return jax.default_backend()
  return mesh.devices.flat[0].platform


def _split(mesh, query, prompt) -> tuple:
  """Returns which axes of the mesh split rows, key heads, and their queries.

  Where key heads do not divide, their queries may; what does not divide is
  whole on every device.
  """
  rows = query.shape[0]
  if prompt is not None:
    rows = math.gcd(rows, prompt[1].shape[0])
  axes = 'batch', 'act_heads', 'act_heads'
  rows, keys, queries = sharding.partition(
    mesh, axes, (rows, *query.shape[2:4])
  )
  return rows, keys, None if keys else queries


def _attend_local(kernel, query, own, window, prompt) -> jax.Array:
  """Returns what one device's rows see, by the kernel of the layer's window."""
  offset, seen = 0, None
  if prompt is not None:
    keys, length = prompt
    each = query.shape[0] // length.shape[0]
    offset = keys.value.shape[-2]
    own = _behind(keys, length, own, each)
    column = jnp.arange(offset)
    seen = column[None] >= offset - jnp.repeat(length, each)[:, None]
  columns = own.value.shape[-2]
  # What reaches as far as there are columns is no window.
  among = sorted({min(w, columns) for w in window.among})
  kernels = [
    functools.partial(kernel, offset, w if w < columns else 0) for w in among
  ]
  if len(kernels) == 1:
    return kernels[0](query, own, seen)
  nearest = jnp.minimum(window.columns, columns)
  which = jnp.searchsorted(jnp.asarray(among), nearest)
  return jax.lax.switch(which, kernels, query, own, seen)


def _behind(
  prompt: KeyValue, length: jax.Array, own: KeyValue, each: int
) -> KeyValue:
  """Returns keys and values of rows, [B, ..., C + T]: a prompt, then their own.

  Prompts end at the right of their columns; what stands to the left is junk.
  """

  def to_right(x, axis):
    fill = [(0, 0)] * x.ndim
    fill[axis + 1] = x.shape[axis + 1], 0
    moved = jax.vmap(
      lambda x, n: jax.lax.dynamic_slice_in_dim(x, n, x.shape[axis] // 2, axis)
    )(jnp.pad(x, fill), length)
    return jnp.repeat(moved, each, axis=0)

  return KeyValue(
    jnp.concatenate([to_right(prompt.key, 2), own.key], axis=-1),
    jnp.concatenate([to_right(prompt.value, 1), own.value], axis=-2),
  )


def _splash(softmax, platform, offset, window, query, keys, seen) -> jax.Array:
  """Returns [B, T, K, G, H] by the TPU's kernel; elsewhere it is interpreted.

  Args:
    softmax: its scale is in the query already.
    platform: that it is compiled for.
    offset: C, the columns of keys before the row's own.
    window: columns that a query sees; 0 = all to the left.
    query: [B, T, K, G, H].
    keys: of C + T columns.
    seen: bool[B, C], which of the prompt's columns are; None without any.
  """
  from score_jax.models import splash  # Here, for it takes a second.

  run = splash.Run(offset, window, softmax.cap, platform != 'tpu')
  return splash.attend(run, query, keys, seen)


def _cudnn(softmax, platform, offset, window, query, keys, seen) -> jax.Array:
  """Returns the same as `_splash` by the GPU's kernel; elsewhere by XLA."""
  rows, time, heads, queries, width = query.shape
  call = functools.partial(
    jax.nn.dot_product_attention,
    scale=softmax.scale,
    implementation='cudnn' if platform == 'gpu' else 'xla',
  )
  # It wants an even number of columns.
  front, back = offset % 2, time % 2
  offset, padded = offset + front, time + back
  query = query.reshape(rows, time, heads * queries, width)
  query = jnp.pad(query, ((0, 0), (0, back), (0, 0), (0, 0)))
  fill = ((0, 0), (front, back), (0, 0), (0, 0))
  key = jnp.pad(jnp.moveaxis(keys.key, 3, 1), fill)
  value = jnp.pad(jnp.moveaxis(keys.value, 2, 1), fill)
  if seen is None:
    near = (window - 1, 0) if window else None
    out = call(query, key, value, is_causal=True, local_window_size=near)
  else:
    # Its causal mask puts the first query beside the first key, so that what
    # is seen behind a prompt is written out.
    column = jnp.arange(offset + padded)
    distance = column[offset:, None] - column[None]
    near = (distance >= 0) & (distance < (window or offset + padded))
    seen = jnp.pad(seen, ((0, 0), (front, 0)))
    seen = jnp.pad(seen, ((0, 0), (0, padded)), constant_values=True)
    mask = (near[None] & seen[:, None])[:, None]
    out = call(query, key, value, mask=mask)
  return out[:, :time].reshape(rows, time, heads, queries, width)


_KERNELS = {'splash': _splash, 'cudnn': _cudnn}
