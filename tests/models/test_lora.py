"""An adapter adds what its two factors say, and starts as nothing.

Letters: B rows, T columns, D width, N heads, H head width, R rank.
"""

import dataclasses
import functools
import math

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import PartitionSpec

from score_jax import config as config_lib
from score_jax import sharding
from score_jax.models import lora, stack, weights
from score_jax.models.lora import Lora

ALL = Lora(rank=2, alpha=6.0, targets=config_lib.PROJECTIONS, dropout=0.0)
MODEL = tiny.transformer(tiny.RICH, unroll=False)
TOKENS = np.random.default_rng(0).integers(0, 7, (4, 9)).astype(np.int32)


@functools.cache
def base():
  return tiny.params_of(MODEL)


def adapter_of(params, chosen=ALL, seed=1):
  """Returns an adapter both of whose factors are drawn at random."""
  draw = np.random.default_rng(seed).normal
  like = lora.target(params, chosen, 'float32')
  return jax.tree.map(
    lambda x: jnp.asarray(draw(size=x.shape) / 4, jnp.float32), like
  )


@functools.cache
def plain_logits():
  return np.asarray(tiny.logits_of(MODEL, base(), TOKENS))


@functools.cache
def adapted_logits():
  bound = lora.bind(base(), adapter_of(base()), ALL)
  return np.asarray(tiny.logits_of(MODEL, bound, TOKENS))


def test_the_settings_name_every_projection_there_is():
  assert set(config_lib.PROJECTIONS) == set(stack.PROJECTIONS)
  flat = flax.traverse_util.flatten_dict(base()['layers'])
  kernels = {path[:2] for path in flat if path[-1] == 'kernel'}
  assert kernels == {(at, name) for name, (at, _) in stack.PROJECTIONS.items()}


def test_a_new_adapter_changes_no_bit():
  params = base()
  new = lora.init(jax.random.key(0), lora.target(params, ALL, 'float32'))
  bound = lora.bind(params, new, ALL)
  found = tiny.logits_of(MODEL, bound, TOKENS)
  np.testing.assert_array_equal(found, plain_logits())


def test_a_new_adapter_is_drawn_as_wide_as_its_inputs_say():
  params = base()
  new = lora.init(jax.random.key(0), lora.target(params, ALL, 'float32'))
  attention = new['layers']['attention']
  widths = {'query': tiny.RICH.width, 'output': 4 * 4}  # D, and N x H.
  for name, width in widths.items():
    drawn = np.abs(attention[name]['lora_a'])
    assert 0.8 < np.max(drawn) * math.sqrt(width) <= 1
    assert not np.any(attention[name]['lora_b'])
  first, second = attention['key']['lora_a'], attention['value']['lora_a']
  assert np.all(first != second)


@pytest.mark.parametrize('name', config_lib.PROJECTIONS)
def test_one_projection_adapted_is_its_kernel_plus_the_scaled_product(name):
  chosen = dataclasses.replace(ALL, targets=(name,))
  params, path = base(), ('layers', stack.PROJECTIONS[name][0], name)
  adapter = adapter_of(params, chosen)
  flat = flax.traverse_util.flatten_dict(params)
  factors = flax.traverse_util.flatten_dict(adapter)
  assert set(factors) == {(*path, 'lora_a'), (*path, 'lora_b')}
  a, b = (np.asarray(factors[*path, leaf]) for leaf in ('lora_a', 'lora_b'))
  kernel = np.array(flat[*path, 'kernel'])
  for layer in range(tiny.RICH.layers):
    product = a[layer].reshape(-1, 2) @ b[layer].reshape(2, -1)
    kernel[layer] += 6.0 / 2 * product.reshape(kernel.shape[1:])
  changed = flax.traverse_util.unflatten_dict(
    {**flat, (*path, 'kernel'): jnp.asarray(kernel)}
  )
  expected = tiny.logits_of(MODEL, changed, TOKENS)
  found = tiny.logits_of(MODEL, lora.bind(params, adapter, chosen), TOKENS)
  np.testing.assert_allclose(found, expected, atol=2e-5)
  assert np.max(np.abs(expected - plain_logits())) > 0.01


@pytest.mark.parametrize('unroll', [True, False])
def test_bound_and_merged_give_the_same_logits(unroll):
  model = tiny.transformer(tiny.RICH, unroll=unroll)
  params, adapter = base(), adapter_of(base())
  bound = tiny.logits_of(model, lora.bind(params, adapter, ALL), TOKENS)
  merged = lora.merge(params, adapter, ALL, 'float32')
  assert jax.tree.structure(merged) == jax.tree.structure(params)
  found = tiny.logits_of(model, merged, TOKENS)
  np.testing.assert_allclose(bound, found, atol=2e-5)


def test_to_bind_copies_nothing_of_the_base():
  params = base()
  bound = flax.traverse_util.flatten_dict(
    lora.bind(params, adapter_of(params), ALL)
  )
  for path, leaf in flax.traverse_util.flatten_dict(params).items():
    assert bound[path] is leaf


def test_without_an_adapter_what_is_trained_is_the_policy():
  params = base()
  assert lora.bind(None, params, None) is params


def test_a_merged_projection_that_was_not_adapted_keeps_its_bits():
  chosen = dataclasses.replace(ALL, targets=('query',))
  params = base()
  merged = lora.merge(params, adapter_of(params, chosen), chosen, 'float32')
  before = flax.traverse_util.flatten_dict(params)
  for path, leaf in flax.traverse_util.flatten_dict(merged).items():
    same = np.array_equal(leaf, before[path])
    assert same == (path != ('layers', 'attention', 'query', 'kernel'))


def test_each_parameter_may_be_merged_to_a_type_of_its_own():
  params = base()
  dtypes = jax.tree.map(lambda _: 'float16', params)
  dtypes['embedding'] = 'bfloat16'
  merged = lora.merge(params, adapter_of(params, ALL), ALL, dtypes)
  assert merged['embedding'].dtype == jnp.bfloat16
  others = {x.dtype for x in jax.tree.leaves(merged['layers'])}
  assert others == {jnp.dtype('float16')}


def test_merging_rounds_once_from_float32():
  params, adapter = base(), adapter_of(base())
  narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
  wide = jax.tree.map(lambda x: x.astype(jnp.float32), narrow)
  found = lora.merge(narrow, adapter, ALL, 'bfloat16')
  expected = lora.merge(wide, adapter, ALL, 'float32')
  jax.tree.map(
    lambda x, y: np.testing.assert_array_equal(x, y.astype(jnp.bfloat16)),
    found,
    expected,
  )


MESHES = [(1, 1, 1), (1, 8, 1), (1, 2, 4)]


def on_mesh(shape):
  """Returns a decoder, its parameters and a new adapter's target on a mesh."""
  mesh = sharding.make_mesh(shape, jax.devices()[: math.prod(shape)])
  model = tiny.transformer(tiny.RICH, unroll=False, mesh=mesh)
  like = weights.target(model)
  places = jax.tree.map(lambda x: x.sharding, like)
  return (
    model,
    jax.device_put(base(), places),
    lora.target(like, ALL, 'float32'),
  )


@pytest.mark.parametrize('shape', MESHES, ids=str)
def test_a_mesh_changes_neither_the_draws_nor_the_logits(shape):
  model, params, like = on_mesh(shape)
  new = lora.init(jax.random.key(3), like)
  alone = lora.init(jax.random.key(3), lora.target(base(), ALL, 'float32'))
  jax.tree.map(np.testing.assert_array_equal, new, alone)
  values = adapter_of(base())
  adapter = jax.tree.map(
    lambda x, aim: jax.device_put(x, aim.sharding), values, like
  )
  found = tiny.logits_of(model, lora.bind(params, adapter, ALL), TOKENS)
  np.testing.assert_allclose(found, adapted_logits(), atol=2e-5)


def test_factors_lie_where_their_kernels_axes_lie():
  _, _, like = on_mesh((1, 2, 4))
  query = like['layers']['attention']['query']
  down = like['layers']['mlp']['down']
  for leaf, axes in (
    (query['lora_a'], (None, 'fsdp', None)),
    (query['lora_b'], (None, None, 'tensor', None)),
    (down['lora_a'], (None, 'tensor', None)),
    (down['lora_b'], (None, None, 'fsdp')),
  ):
    assert leaf.sharding.spec == PartitionSpec(*axes)


def logits_with_dropout(rate, key, unroll=False, remat='none'):
  model = tiny.transformer(
    tiny.RICH, unroll=unroll, remat=remat, adapter_dropout=rate
  )
  bound = lora.bind(base(), adapter_of(base()), ALL)

  @jax.jit
  def run(bound, key):
    hidden, _ = model.apply({'params': bound}, TOKENS, rngs={'dropout': key})
    return hidden

  return np.asarray(run(bound, key))


def test_dropout_is_a_function_of_its_key_however_the_decoder_runs():
  one, other = jax.random.split(jax.random.key(0))
  first = logits_with_dropout(0.5, one)
  again = logits_with_dropout(0.5, one, unroll=True, remat='block')
  np.testing.assert_allclose(first, again, atol=2e-5)
  assert np.max(np.abs(first - logits_with_dropout(0.5, other))) > 0.01


def test_dropout_leaves_the_base_alone():
  model = tiny.transformer(tiny.RICH, unroll=False, adapter_dropout=0.5)
  rngs = {'dropout': jax.random.key(0)}
  found, _ = jax.jit(model.apply)({'params': base()}, TOKENS, rngs=rngs)
  expected, _ = jax.jit(MODEL.apply)({'params': base()}, TOKENS)
  np.testing.assert_allclose(found, expected, atol=1e-6)


def test_dropout_keeps_a_projections_mean():
  """One projection, many rows of one input: their mean is what all inputs give."""
  from score_jax.models.architecture import Execution
  from score_jax.models.layers import Projection

  layer = Projection(
    Execution(adapter_dropout=0.25), 'BTI,IO->BTO', (8, 3), ('embed', 'mlp'), 1,
    False,
  )  # fmt: skip
  rng = np.random.default_rng(0)
  params = {
    name: jnp.asarray(rng.normal(size=shape), jnp.float32)
    for name, shape in (
      ('kernel', (8, 3)), ('lora_a', (8, 2)), ('lora_b', (2, 3)),
    )
  }  # fmt: skip
  x = jnp.asarray(rng.normal(size=8), jnp.float32)
  rows = jnp.broadcast_to(x, (40_000, 1, 8))
  rngs = {'dropout': jax.random.key(0)}
  found = layer.apply({'params': params}, rows, rngs=rngs)[:, 0]
  change = params['lora_a'] @ params['lora_b']
  expected = x @ (params['kernel'] + change)
  # Variance of the mean: an input is left out or grows by 1 / 0.75.
  spread = np.sqrt((x**2 / 3) @ change**2 / len(rows))
  assert np.all(np.abs(np.mean(found, 0) - expected) < 4 * spread)
  assert np.std(found, 0).min() > 0.1
