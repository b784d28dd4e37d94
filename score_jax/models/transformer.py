"""Tokens in, hidden states and logits out; the cache.

One decoder for all open families: what differs between them is numbers in
`ModelConfig`. The same modules sample, score and train.

A token's position is its column, so a whole pass needs no mask but the causal
one: what stands to the right of a row's end is never seen from its left.

Letters: B rows, T query columns, S key columns, D width, K key heads,
G queries per key head, H head width, F MLP width, V vocabulary, L layers,
P prompts (each shared by B / P adjacent rows).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from score_jax import sharding
from score_jax.models import narrow
from score_jax.models.attention import (
  attend,
  attend_parts,
  KeyValue,
  softcap,
  Softmax,
)

# So few states have their logits made with the table as the left factor, which
# a CPU multiplies 1.4 times as fast.
FEW = 64


@dataclasses.dataclass(frozen=True)
class Rope:
  """Rotary angles of one kind of layer."""

  theta: float
  scaling: str = 'default'  # 'default', 'linear' or 'llama3'.
  factor: float = 1.0
  low_frequency_factor: float = 1.0  # llama3 alone reads this and what follows.
  high_frequency_factor: float = 4.0
  original_positions: int = 8192


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """The architecture: every number that the families differ in."""

  vocab_size: int
  layers: int
  width: int
  heads: int
  kv_heads: int
  head_dim: int
  mlp: int
  activation: str  # 'silu' or 'gelu_tanh'.
  norm_eps: float
  query_scale: float  # Scores are query . key times this.
  tied_embeddings: bool
  ropes: tuple[Rope, ...]  # The kinds of layers,
  rope_of_layer: tuple[int, ...]  # and which of them each layer is.
  window_of_layer: tuple[
    int, ...
  ]  # Columns seen, the own one counted; 0 = all.
  norm_offset: float = 0.0  # 1 where the norm's weight is stored less 1.
  norm_rounds_first: bool = False  # Before the weight is multiplied in, too.
  post_norms: bool = False  # Norms behind attention and MLP as well.
  query_key_norms: bool = False
  query_key_value_bias: bool = False
  output_bias: bool = False
  mlp_bias: bool = False
  embedding_scale: float = 1.0
  attention_softcap: float = 0.0  # 0 = off.
  final_softcap: float = 0.0  # 0 = off.


@dataclasses.dataclass(frozen=True)
class Execution:
  """How the decoder runs: numbers change in rounding at most."""

  dtype: str = 'float32'  # Of what products read.
  param_dtype: str = 'float32'
  residual_dtype: str = 'float32'  # Of what is summed up between products.
  remat: str = 'none'  # 'none', 'products' (keeps products) or 'block'.
  unroll: bool = True  # Layers one by one, or under a scan.
  mesh: Mesh | None = None  # Activations are laid out on it.
  adapter_dropout: float = 0.0  # Above 0, a pass needs the key 'dropout'.
  cache_dtype: str = ''  # Of cached keys and values; '' = dtype.
  # Whether rows go to where parts of the parameters lie (sharding.SPLIT),
  # instead of parameters to where the rows are.
  rows_travel: bool = False


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


def inverse_frequencies(rope: Rope, head_dim: int) -> np.ndarray:
  """Returns float32[H / 2], radians per column.

  Computed on the host, so that every backend turns by the same angles: a last
  bit of these is multiplied by the column.

  Raises:
    ValueError: if the scaling is not one of 'default', 'linear', 'llama3'.
  """
  exponent = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
  base = np.float32(1) / np.float32(rope.theta) ** exponent
  if rope.scaling == 'default':
    return base
  if rope.scaling == 'linear':
    return base / np.float32(rope.factor)
  if rope.scaling != 'llama3':
    raise ValueError(
      f'rope scaling must be default, linear or llama3; got {rope.scaling!r}.'
    )
  # Long waves are stretched, short ones kept, those between are mixed.
  turns = rope.original_positions * base / (2 * math.pi)
  low, high = rope.low_frequency_factor, rope.high_frequency_factor
  keep = np.clip((turns - low) / (high - low), 0.0, 1.0)
  return (keep * base + (1 - keep) * base / rope.factor).astype(np.float32)


def rounded(x: jax.Array, dtype: str) -> jax.Array:
  """Returns x in its own type, each number the nearest that `dtype` has.

  A cast there and back says the same, but compilers leave that out, and then
  programs that fuse otherwise round otherwise.
  """
  kind = jnp.finfo(dtype)
  return jax.lax.reduce_precision(x, kind.nexp, kind.nmant)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def product(
  equation: str, x: jax.Array, kernel: jax.Array, wide: bool = False
) -> jax.Array:
  """Returns the einsum of two arrays of one type.

  The products of its gradient are in the type of `x` too. They are einsums of
  their own: as jax derives it, the kernel's gradient comes out transposed, and
  on a CPU XLA multiplies that at half the speed.

  Args:
    equation: of einsum, 'input,kernel->output'.
    x: the input.
    kernel: of the same type.
    wide: whether it comes back in float32, as it is summed up, instead of
      rounded to the type of `x`.
  """
  kind = jnp.float32 if wide else x.dtype
  return jnp.einsum(equation, x, kernel, preferred_element_type=kind)


def _product_forward(equation, x, kernel, wide):
  return product(equation, x, kernel, wide), (x, kernel)


def _product_backward(equation, wide, kept, cotangent):
  del wide
  x, kernel = kept
  cotangent = cotangent.astype(x.dtype)
  inputs, out = equation.split('->')
  of_x, of_kernel = inputs.split(',')
  of_input = jnp.einsum(f'{out},{of_kernel}->{of_x}', cotangent, kernel)
  return of_input, jnp.einsum(f'{of_x},{out}->{of_kernel}', x, cotangent)


product.defvjp(_product_forward, _product_backward)


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
  """Returns [B, T, N, H] with its halves rotated; angles are [B, T, H / 2]."""
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  cos, sin = cos[:, :, None, :], sin[:, :, None, :]
  turned = (first * cos - second * sin, second * cos + first * sin)
  return jnp.concatenate(turned, axis=-1).astype(x.dtype)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Layer:
  """What one layer is told beside its input; numbers, so that layers scan."""

  window: jax.Array  # int32[]: columns seen; a huge number for all.
  rope: jax.Array  # int32[]: which of the angles.


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Columns:
  """What all layers share: where the tokens stand."""

  position: jax.Array  # int32[1 or B, T].
  cos: jax.Array  # float32[kinds of layers, 1 or B, T, H / 2].
  sin: jax.Array
  prompt_length: jax.Array | None  # int32[B]; none in a whole pass.


class Norm(nn.Module):
  """Root-mean-square norm over the last axis (arXiv:1910.07467).

  Gemma rounds what it gives; the others round before the weight comes to it
  as well, which no two programs may do differently and agree in bfloat16.
  """

  config: ModelConfig
  execution: Execution
  is_summed: bool = False  # Whether what it gives is added up, not multiplied.

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    start = nn.initializers.constant(1.0 - self.config.norm_offset)
    scale = self.param(
      'scale',
      nn.with_logical_partitioning(start, ('norm',)),
      (x.shape[-1],),
      self.execution.param_dtype,
    )
    wide = x.astype(jnp.float32)
    mean = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
    wide = wide * jax.lax.rsqrt(mean + self.config.norm_eps)
    if self.config.norm_rounds_first:
      wide = rounded(wide, self.execution.dtype)
    scale = scale.astype(jnp.float32) + self.config.norm_offset
    axes = (1,) * (x.ndim - 1) + scale.shape
    run = self.execution
    return (wide * scale.reshape(axes)).astype(
      run.residual_dtype if self.is_summed else run.dtype
    )


class Projection(nn.Module):
  """A product with a named weight, and a bias where there is one.

  Where 'lora_a' and 'lora_b' lie beside the kernel, what they make of the
  input is added; how they get there is for `lora.bind` to say. Where a
  'kernel_scale' does, the kernel is int8, and what the product gives is scaled.
  """

  execution: Execution
  equation: str  # Of einsum: input, kernel -> output.
  shape: tuple[int, ...]
  axes: tuple[str, ...]
  inputs: int  # How many leading axes of the kernel are contracted.
  bias: bool
  is_summed: bool = False  # Whether no product reads what it gives as it is.

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    param_dtype = self.execution.param_dtype
    scale = math.prod(self.shape[: self.inputs]) ** -0.5
    start = nn.initializers.normal(scale)
    kernel = self.param(
      'kernel',
      nn.with_logical_partitioning(start, self.axes),
      self.shape,
      param_dtype,
    )
    dtype = x.dtype
    if self.is_summed:
      dtype = jnp.dtype(self.execution.residual_dtype)
    kernel = kernel.astype(x.dtype)
    scaled = self.has_variable('params', 'kernel_scale')
    # With a bias or a wider sum it is rounded once, when all is added up.
    wide = self.bias or scaled or dtype != x.dtype
    out = product(self.equation, x, kernel, wide)
    if scaled:
      scale = self.get_variable('params', 'kernel_scale')
      out = out * scale.reshape((1,) * (out.ndim - scale.ndim) + scale.shape)
    if self.has_variable('params', 'lora_a'):
      out = out + self._low_rank(x)
    if self.bias:
      shape, axes = self.shape[self.inputs :], self.axes[self.inputs :]
      zeros = nn.with_logical_partitioning(nn.initializers.zeros, axes)
      bias = self.param('bias', zeros, shape, param_dtype).astype(x.dtype)
      out = out + bias.reshape((1,) * (out.ndim - bias.ndim) + shape)
    return out.astype(dtype)

  def _low_rank(self, x: jax.Array) -> jax.Array:
    a, b = (
      self.get_variable('params', name).astype(x.dtype)
      for name in ('lora_a', 'lora_b')
    )
    if rate := self.execution.adapter_dropout:
      kept = jax.random.bernoulli(self.make_rng('dropout'), 1 - rate, x.shape)
      x = jnp.where(kept, x / (1 - rate), 0)
    return jnp.tensordot(jnp.tensordot(x, a, self.inputs), b, 1)


class Attention(nn.Module):
  """Causal attention with grouped queries (arXiv:2305.13245)."""

  config: ModelConfig
  execution: Execution

  def _project(self, name: str, x: jax.Array, heads: int) -> jax.Array:
    c = self.config
    axis = 'heads' if name == 'query' else 'kv_heads'
    out = Projection(
      self.execution,
      'BTD,DNH->BTNH',
      (c.width, heads, c.head_dim),
      ('embed', axis, 'head_dim'),
      1,
      c.query_key_value_bias,
      name=name,
    )(x)
    return _to_rows(self.execution, out, 'length', 'act_heads', 'head_dim_part')

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    layer: _Layer,
    columns: _Columns,
    cache: tuple[KeyValue, KeyValue | None] | None,
  ) -> tuple[jax.Array, KeyValue]:
    c = self.config
    x = _to_weights(self.execution, x, 'length', 'act_embed')
    query = self._project('query', x, c.heads)
    key = self._project('key', x, c.kv_heads)
    value = self._project('value', x, c.kv_heads)
    if c.query_key_norms:
      query = Norm(c, self.execution, name='query_norm')(query)
      key = Norm(c, self.execution, name='key_norm')(key)
    cos, sin = columns.cos[layer.rope], columns.sin[layer.rope]
    query, key = rotate(query, cos, sin), rotate(key, cos, sin)
    query = sharding.constrain(
      self.execution.mesh, query, 'batch', 'length', 'act_heads', 'head_dim'
    )
    query = query.reshape(*x.shape[:2], c.kv_heads, -1, c.head_dim)
    new = KeyValue(jnp.moveaxis(key, 1, 3), jnp.moveaxis(value, 1, 2))
    softmax = Softmax(c.query_scale, c.attention_softcap)
    if cache is None or cache[1] is None:
      own = (new, _whole_mask(x.shape[1], layer.window))
      prompt = None
      if cache is not None:
        prompt = _prompt_part(cache[0], x.shape[1], layer, columns)
      out = attend(softmax, query, own, prompt)
      new = _kept(self.execution, new)
    else:
      new = _kept(self.execution, new)
      out, new = _attend_cached(softmax, query, new, layer, columns, cache)
    out = out.reshape(*x.shape[:2], c.heads, c.head_dim)
    out = _to_weights(
      self.execution, out, 'length', 'act_heads', 'head_dim_part'
    )
    out = Projection(
      self.execution,
      'BTNH,NHD->BTD',
      (c.heads, c.head_dim, c.width),
      ('heads', 'head_dim', 'embed'),
      2,
      c.output_bias,
      is_summed=True,
      name='output',
    )(out)
    return _to_rows(self.execution, out, 'length', 'act_embed'), new


def _to_weights(execution: Execution, x: jax.Array, *axes: str) -> jax.Array:
  """Returns x [B, ...] as parameters that stay where they are multiply it.

  Where parameters come to the rows instead, it is x as it lies.

  Args:
    execution: says which of the two it is.
    x: rows.
    axes: of AXES, of all dimensions but the first.
  """
  if not execution.rows_travel:
    return x
  return sharding.constrain(execution.mesh, x, 'all_rows', *axes)


def _to_rows(execution: Execution, x: jax.Array, *axes: str) -> jax.Array:
  """Returns what such parameters gave, back where its rows live.

  Args:
    execution: as for `_to_weights`.
    x: rows, [B, ...].
    axes: as the product gives them.
  """
  if not execution.rows_travel:
    return x
  # Of what is still to be summed up, each device gets its rows' sums.
  if 'act_embed' not in axes:
    x = sharding.constrain(execution.mesh, x, 'all_rows', *axes)
  back = (axis.removesuffix('_part') for axis in axes)
  return sharding.constrain(execution.mesh, x, 'batch', *back)


def _kept(execution: Execution, part: KeyValue) -> KeyValue:
  """Returns keys and values of some columns as a cache keeps them."""
  dtype = execution.cache_dtype or execution.dtype
  if dtype != 'int8':
    return KeyValue(part.key.astype(dtype), part.value.astype(dtype))
  key, key_scale = narrow.quantize(part.key, (-2,))
  value, value_scale = narrow.quantize(part.value, (-1,))
  return KeyValue(key, value, key_scale, value_scale)


def _whole_mask(columns: int, window: jax.Array) -> jax.Array:
  """Returns bool[1, T, T]: the key stands at or left of the query, and near."""
  column = jnp.arange(columns)
  distance = column[None, :, None] - column[None, None]
  return (distance >= 0) & (distance < window)


def _prompt_part(
  prompt: KeyValue, columns: int, layer: _Layer, shared: _Columns
) -> tuple[KeyValue, jax.Array]:
  """Returns prompts and bool[P, T, S]: a prompt's key, near to what follows."""
  rows, prompts = shared.prompt_length.shape[0], prompt.key.shape[0]
  length = shared.prompt_length[:: rows // prompts, None, None]
  key = jnp.arange(prompt.key.shape[-1])[None, None]
  near = length + jnp.arange(columns)[None, :, None] - key < layer.window
  return prompt, (key < length) & near


def _attend_cached(
  softmax: Softmax,
  query: jax.Array,
  new: KeyValue,
  layer: _Layer,
  columns: _Columns,
  cache: tuple[KeyValue, KeyValue],
) -> tuple[jax.Array, KeyValue]:
  """Writes the new keys, then attends to the prompt and to the own columns."""
  prompt, own = cache
  position, start = columns.position, columns.prompt_length
  slot = position - start[:, None]
  row = jnp.arange(slot.shape[0])[:, None]

  def put(old, new):  # [B, K, T]; nothing where there are no scales.
    if old is None:
      return None
    return old.at[row, :, slot].set(jnp.moveaxis(new, 2, 1))

  own = KeyValue(
    own.key.at[row, :, :, slot].set(jnp.moveaxis(new.key, 3, 1)),
    put(own.value, new.value),
    put(own.key_scale, new.key_scale),
    put(own.value_scale, new.value_scale),
  )
  column = jnp.arange(prompt.key.shape[-1])[None, None]
  near = position[:, :, None] - column < layer.window
  seen_prompt = (column < start[:, None, None]) & near
  distance = slot[:, :, None] - jnp.arange(own.key.shape[-1])[None, None]
  seen_own = (distance >= 0) & (distance < layer.window)
  parts = ((prompt, seen_prompt), (own, seen_own))
  return attend_parts(softmax, query, parts), own


class Mlp(nn.Module):
  """The gated MLP (arXiv:2002.05202)."""

  config: ModelConfig
  execution: Execution

  def _project(self, name: str, x: jax.Array, out: int) -> jax.Array:
    axes = ('mlp', 'embed') if name == 'down' else ('embed', 'mlp')
    return Projection(
      self.execution,
      'BTI,IO->BTO',
      (x.shape[-1], out),
      axes,
      1,
      self.config.mlp_bias,
      is_summed=True,
      name=name,
    )(x)

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = _to_weights(self.execution, x, 'length', 'act_embed')
    gate = _activation(self.config)(self._project('gate', x, self.config.mlp))
    hidden = gate * self._project('up', x, self.config.mlp)
    hidden = hidden.astype(self.execution.dtype)
    rows, part = (
      ('all_rows', '_part') if self.execution.rows_travel else ('batch', '')
    )
    hidden = sharding.constrain(
      self.execution.mesh, hidden, rows, 'length', f'act_mlp{part}'
    )
    out = self._project('down', hidden, x.shape[-1])
    return _to_rows(self.execution, out, 'length', 'act_embed')


def _activation(config: ModelConfig) -> Callable[[jax.Array], jax.Array]:
  if config.activation == 'silu':
    return nn.silu
  if config.activation == 'gelu_tanh':
    return lambda x: nn.gelu(x, approximate=True)
  raise ValueError(
    f'activation must be silu or gelu_tanh; got {config.activation!r}.'
  )


class Block(nn.Module):
  """One layer: attention and MLP, each beside a residual stream."""

  config: ModelConfig
  execution: Execution

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    layer: _Layer,
    columns: _Columns,
    cache: tuple[KeyValue, KeyValue] | None,
  ) -> tuple[jax.Array, KeyValue]:
    def norm(name, value, is_summed=False):
      return Norm(self.config, self.execution, is_summed=is_summed, name=name)(
        value
      )

    out, new = Attention(self.config, self.execution, name='attention')(
      norm('attention_norm', x), layer, columns, cache
    )
    if self.config.post_norms:
      out = norm('post_attention_norm', out, is_summed=True)
    x = x + out
    out = Mlp(self.config, self.execution, name='mlp')(norm('mlp_norm', x))
    if self.config.post_norms:
      out = norm('post_mlp_norm', out, is_summed=True)
    x = x + out
    return sharding.constrain(
      self.execution.mesh, x, 'batch', 'length', 'act_embed'
    ), new


class Transformer(nn.Module):
  """The decoder: `__call__` gives hidden states, `unembed` their logits.

  Parameters of the layers are stacked, [L, ...] each, whether the layers run
  under a scan or unrolled; `unstack` gives them one by one, which saves a
  decoding loop from slicing them anew at every step.
  """

  config: ModelConfig
  execution: Execution

  def setup(self):
    c, dtype = self.config, self.execution.param_dtype
    self.embedding = self.param(
      'embedding',
      nn.with_logical_partitioning(
        nn.initializers.normal(c.width**-0.5), ('vocab', 'embed')
      ),
      (c.vocab_size, c.width),
      dtype,
    )
    if self.is_initializing():
      self.param('layers', self._init_layers)
    # Not what `param` gives, for that refuses layers that are unstacked.
    self.layers = nn.meta.unbox(self.get_variable('params', 'layers'))
    self.final_norm = Norm(c, self.execution)
    if not c.tied_embeddings:
      self.head = self.param(
        'head',
        nn.with_logical_partitioning(
          nn.initializers.normal(c.width**-0.5), ('vocab', 'embed')
        ),
        (c.vocab_size, c.width),
        dtype,
      )

  def _init_layers(self, key: jax.Array) -> dict:
    x = jnp.zeros((1, 1, self.config.width), self.execution.residual_dtype)
    columns = self._columns(jnp.zeros((1, 1), jnp.int32), None)
    layer = _Layer(jnp.int32(1), jnp.int32(0))

    def init(key):
      block = Block(self.config, self.execution, parent=None)
      return block.init(key, x, layer, columns, None)['params']

    stacked = jax.vmap(init)(jax.random.split(key, self.config.layers))
    return jax.tree.map(
      lambda box: box.add_axis(0, {nn.PARTITION_NAME: 'layers'}),
      stacked,
      is_leaf=lambda x: isinstance(x, nn.meta.AxisMetadata),
    )

  def _columns(
    self, position: jax.Array, prompt_length: jax.Array | None
  ) -> _Columns:
    c = self.config
    speed = np.stack([inverse_frequencies(r, c.head_dim) for r in c.ropes])
    angle = position[None, :, :, None] * speed[:, None, None, :]
    return _Columns(position, jnp.cos(angle), jnp.sin(angle), prompt_length)

  def __call__(
    self,
    tokens: jax.Array,
    position: jax.Array | None = None,
    cache: Cache | None = None,
  ) -> tuple[jax.Array, tuple[KeyValue, ...] | KeyValue]:
    """Returns hidden states [B, T, D], and keys and values of all layers.

    Args:
      tokens: int32[B, T].
      position: int32[B, T], their columns; needed where a cache has an own
        part, for else rows start at column 0, or behind their prompts.
      cache: what the rows go on from; the new columns are written into its
        own part, which comes back. Without an own part, and without a cache,
        rows are read whole, and their keys and values come back.
    """
    columns = self._places(tokens, position, cache)
    x = sharding.constrain(
      self.execution.mesh, self._embed(tokens), 'batch', 'length', 'act_embed'
    )
    pair = None if cache is None else (cache.prompt, cache.own)
    x, new = self._run_layers(x, columns, pair)
    return self.final_norm(x), new

  def _places(self, tokens, position, cache) -> _Columns:
    whole = jnp.arange(tokens.shape[1])[None]
    if cache is None:
      return self._columns(whole, None)
    each = tokens.shape[0] // cache.prompt_length.shape[0]
    length = jnp.repeat(cache.prompt_length, each)
    if cache.own is None:
      position = length[:, None] + whole
    return self._columns(position, length)

  def _embed(self, tokens: jax.Array) -> jax.Array:
    """Returns the embeddings [B, T, D], scaled in the type of products."""
    dtype = self.execution.dtype
    tokens = _to_weights(self.execution, tokens, 'length')
    rows = jnp.take(self.embedding, tokens, axis=0).astype(jnp.float32)
    if self.has_variable('params', 'embedding_scale'):
      count = self.get_variable('params', 'embedding_scale')
      rows *= jnp.take(count, tokens)[..., None]
    scale = jnp.asarray(self.config.embedding_scale, dtype).astype(jnp.float32)
    scaled = rounded(rounded(rows, dtype) * scale, dtype)
    return scaled.astype(self.execution.residual_dtype)

  def _run_layers(self, x, columns, cache):
    far = jnp.iinfo(jnp.int32).max
    windows = [w or far for w in self.config.window_of_layer]
    block = _rematerialized(self.config, self.execution)

    keys = None
    if self.execution.adapter_dropout:
      keys = jax.random.split(self.make_rng('dropout'), self.config.layers)

    def one(x, params, window, rope, cache, key):
      layer = _Layer(jnp.int32(window), jnp.int32(rope))
      return block(params, x, layer, columns, cache, key)

    if not self.execution.unroll:
      inputs = (
        self.layers,
        jnp.asarray(windows, jnp.int32),
        jnp.asarray(self.config.rope_of_layer, jnp.int32),
        cache,
        keys,
      )
      return jax.lax.scan(lambda x, each: one(x, *each), x, inputs)
    new = []
    for i, params in enumerate(unstack(self.layers, self.config.layers)):
      part = None
      if cache is not None:
        prompt, own = cache
        part = (prompt[i], None if own is None else own[i])
      rope = self.config.rope_of_layer[i]
      key = None if keys is None else keys[i]
      x, pair = one(x, params, windows[i], rope, part, key)
      new.append(pair)
    return x, tuple(new)

  def unembed(self, hidden: jax.Array) -> jax.Array:
    """Returns float32[..., V], the logits of hidden states [..., D]."""
    name = 'embedding' if self.config.tied_embeddings else 'head'
    table = self.embedding if self.config.tied_embeddings else self.head
    between = ('length',) * (hidden.ndim - 2)
    hidden = _to_weights(self.execution, hidden, *between, 'act_embed')
    table = table.astype(hidden.dtype)
    wide = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
    if hidden.ndim == 2 and hidden.shape[0] <= FEW:
      # The table first, and the barrier to keep it there.
      logits = wide('VD,BD->VB', table, hidden)
      logits = jax.lax.optimization_barrier(logits).T
    else:
      logits = wide('...D,VD->...V', hidden, table)
    if self.has_variable('params', f'{name}_scale'):
      count = self.get_variable('params', f'{name}_scale')
      logits *= count.reshape((1,) * (logits.ndim - 1) + count.shape)
    logits = _to_rows(self.execution, logits, *between, 'act_vocab_part')
    return softcap(logits, self.config.final_softcap)


def by_layer(model: Transformer, params: dict) -> dict:
  """Returns the parameters with each layer's apart, if layers run unrolled.

  For programs that make several passes: each would take them apart anew.
  """
  if not model.execution.unroll or 'layers' not in params:
    return params
  return {**params, 'layers': unstack(params['layers'], model.config.layers)}


def unstack(layers: dict | tuple, count: int) -> tuple:
  """Returns the parameters of each layer, from stacked ones or as they are."""
  if isinstance(layers, tuple):
    return layers
  leaves, tree = jax.tree.flatten(layers)
  parts = [_parts(p) for p in leaves]
  return tuple(tree.unflatten([p[i] for p in parts]) for i in range(count))


@jax.custom_vjp
def _parts(x: jax.Array) -> tuple[jax.Array, ...]:
  """Returns x[0], x[1], ...; their gradients are stacked.

  As jax derives it, each is put among zeros of the whole, and these are added.
  """
  return tuple(x[i] for i in range(x.shape[0]))


_parts.defvjp(lambda x: (_parts(x), None), lambda _, parts: (jnp.stack(parts),))


def _rematerialized(config: ModelConfig, execution: Execution):
  """Returns the block as a function of its parameters, remat policy applied."""

  def block(params, x, layer, columns, cache, key):
    params = sharding.fetch(params)  # One layer at a time, if from the host.
    rngs = None if key is None else {'dropout': key}
    module = Block(config, execution, parent=None)
    return module.apply({'params': params}, x, layer, columns, cache, rngs=rngs)

  if execution.remat == 'none':
    return block
  policies = {
    'block': jax.checkpoint_policies.nothing_saveable,
    'products': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  }
  return jax.checkpoint(block, policy=policies[execution.remat])


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
