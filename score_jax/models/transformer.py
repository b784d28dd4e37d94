"""Tokens in, hidden states and logits out.

One decoder for all open families: what differs between them is numbers in
`ModelConfig`. The same modules sample, score and train.

A token's position is its column, so a whole pass needs no mask but the causal
one: what stands to the right of a row's end is never seen from its left.

Letters: B rows, T query columns, S key columns, D width, H head width,
V vocabulary, L layers, P prompts (each shared by B / P adjacent rows).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from score_jax import sharding
from score_jax.models import kernels
from score_jax.models.architecture import Execution, ModelConfig
from score_jax.models.attention import (
  attend,
  attend_parts,
  KeyValue,
  softcap,
  Softmax,
)
from score_jax.models.cache import Cache, kept, written
from score_jax.models.layers import (
  made_once,
  Norm,
  Projection,
  rotate,
  rounded,
  turns,
)
from score_jax.models.stack import product, unstack

# So few states have their logits made with the table as the left factor, which
# a CPU multiplies 1.4 times as fast.
FEW = 64


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Layer:
  """What one layer is told beside its input; numbers, so that layers scan."""

  window: jax.Array  # int32[]: columns seen; a huge number for all.
  rope: jax.Array  # int32[]: which of the angles.
  # What the window may be, where a kernel has to know: of all layers of a scan.
  windows: tuple[int, ...] = dataclasses.field(metadata={'static': True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Columns:
  """What all layers share: where the tokens stand."""

  position: jax.Array  # int32[1 or B, T].
  cos: jax.Array  # float32[kinds of layers, 1 or B, T, H / 2].
  sin: jax.Array
  prompt_length: jax.Array | None  # int32[B]; none in a whole pass.


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
    is_whole = cache is None or cache[1] is None
    scale = kernels.query_scale(self.execution, c.query_scale)
    ahead = (cos * scale, sin * scale) if is_whole else (cos, sin)
    query, key = rotate(query, *ahead), rotate(key, cos, sin)
    query = sharding.constrain(
      self.execution.mesh, query, 'batch', 'length', 'act_heads', 'head_dim'
    )
    query = query.reshape(*x.shape[:2], c.kv_heads, -1, c.head_dim)
    new = KeyValue(jnp.moveaxis(key, 1, 3), jnp.moveaxis(value, 1, 2))
    softmax = Softmax(c.query_scale, c.attention_softcap)
    if is_whole:
      prompt = None if cache is None else cache[0]
      out = _attend_whole(
        self.execution, softmax, query, new, layer, columns, prompt
      )
      new = kept(self.execution, new)
    else:
      new = kept(self.execution, new)
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


def _attend_whole(
  execution: Execution,
  softmax: Softmax,
  query: jax.Array,
  new: KeyValue,
  layer: _Layer,
  columns: _Columns,
  prompt: KeyValue | None,
) -> jax.Array:
  """Returns what whole rows see of themselves, and of their prompt if any."""
  if execution.attention != 'plain':
    window = kernels.Window(layer.window, layer.windows)
    if prompt is not None:
      prompt = prompt, _of_prompts(columns.prompt_length, prompt)
    return kernels.attend(execution, softmax, query, new, window, prompt)
  time = query.shape[1]
  own = (new, _whole_mask(time, layer.window))
  if prompt is not None:
    prompt = _prompt_part(prompt, time, layer, columns)
  return attend(softmax, query, own, prompt)


def _of_prompts(length: jax.Array, prompt: KeyValue) -> jax.Array:
  """Returns int32[P], the lengths of prompts, of those of rows, int32[B]."""
  return length[:: length.shape[0] // prompt.key.shape[0]]


def _whole_mask(columns: int, window: jax.Array) -> jax.Array:
  """Returns bool[1, T, T]: the key stands at or left of the query, and near."""
  column = jnp.arange(columns)
  distance = column[None, :, None] - column[None, None]
  return (distance >= 0) & (distance < window)


def _prompt_part(
  prompt: KeyValue, columns: int, layer: _Layer, shared: _Columns
) -> tuple[KeyValue, jax.Array]:
  """Returns prompts and bool[P, T, S]: a prompt's key, near to what follows."""
  length = _of_prompts(shared.prompt_length, prompt)[:, None, None]
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
  own = written(own, new, slot)
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
    """Makes the parameters, or takes those of layers as they lie."""
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
    layer = _Layer(jnp.int32(1), jnp.int32(0), (1,))
    # Shapes are all that matters, and no kernel has to be made for them.
    execution = dataclasses.replace(self.execution, attention='plain')

    def init(key):
      block = Block(self.config, execution, parent=None)
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
    return _Columns(position, *turns(self.config, position), prompt_length)

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
    if self.execution.is_one_cpu:
      cos, sin = made_once((columns.cos, columns.sin), tokens[0, 0])
      columns = dataclasses.replace(columns, cos=cos, sin=sin)
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

    def one(among, x, params, window, rope, cache, key):
      layer = _Layer(jnp.int32(window), jnp.int32(rope), among)
      return block(params, x, layer, columns, cache, key)

    if not self.execution.unroll:
      inputs = (
        self.layers,
        jnp.asarray(windows, jnp.int32),
        jnp.asarray(self.config.rope_of_layer, jnp.int32),
        cache,
        keys,
      )
      among = tuple(sorted(set(windows)))
      return jax.lax.scan(lambda x, each: one(among, x, *each), x, inputs)
    new = []
    for i, params in enumerate(unstack(self.layers)):
      part = None
      if cache is not None:
        prompt, own = cache
        part = (prompt[i], None if own is None else own[i])
      rope = self.config.rope_of_layer[i]
      key = None if keys is None else keys[i]
      x, pair = one((windows[i],), x, params, windows[i], rope, part, key)
      new.append(pair)
    return x, tuple(new)

  def unembed(self, hidden: jax.Array) -> jax.Array:
    """Returns float32[..., V], the logits of hidden states [..., D]."""
    name = 'embedding' if self.config.tied_embeddings else 'head'
    table = self.embedding if self.config.tied_embeddings else self.head
    between = ('length',) * (hidden.ndim - 2)
    hidden = _to_weights(self.execution, hidden, *between, 'act_embed')
    table = table.astype(hidden.dtype)
    if hidden.ndim == 2 and hidden.shape[0] <= FEW:
      logits = product(hidden, table, jnp.float32)
    else:
      logits = jnp.einsum(
        '...D,VD->...V', hidden, table, preferred_element_type=jnp.float32
      )
    if self.has_variable('params', f'{name}_scale'):
      count = self.get_variable('params', f'{name}_scale')
      logits *= count.reshape((1,) * (logits.ndim - 1) + count.shape)
    logits = _to_rows(self.execution, logits, *between, 'act_vocab_part')
    return softcap(logits, self.config.final_softcap)


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
