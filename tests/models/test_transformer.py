"""Columns are positions, the cache is a whole pass, and windows end in time."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from score_jax import sharding
from score_jax.models.architecture import Execution, inverse_frequencies, Rope
from score_jax.models.cache import Cache, empty_cache
from score_jax.models.layers import Norm, product, rotate, rounded
from score_jax.models.transformer import Transformer

ROWS, COLUMNS, SPLIT = 4, 9, 4


def some_tokens(rows=ROWS, columns=COLUMNS):
  tokens = np.random.default_rng(0).integers(0, 7, (rows, columns))
  return jnp.asarray(tokens, jnp.int32)


@jax.jit(static_argnums=0)
def continued(model: Transformer, params, tokens, length):
  """Returns logits [B, L - P, V], the columns behind a prompt one at a time.

  Every two adjacent rows share the prompt of P = SPLIT columns, of which
  `length` int32[B / 2] count; what stands behind them is junk.
  """
  variables = {'params': params}
  _, prompt = model.apply(variables, tokens[::2, :SPLIT])
  steps = tokens.shape[1] - SPLIT
  own = empty_cache(model.config, model.execution, tokens.shape[0], steps)
  start = jnp.repeat(length, 2)[:, None]

  def step(own, i):
    column = start + i
    token = jnp.take_along_axis(tokens, column, axis=1)
    cache = Cache(prompt, own, length)
    hidden, own = model.apply(variables, token, column, cache)
    return own, model.apply(variables, hidden[:, 0], method='unembed')

  _, logits = jax.lax.scan(step, own, jnp.arange(steps))
  return jnp.moveaxis(logits, 0, 1)


@pytest.mark.parametrize(
  'execution', [{'unroll': True}, {'unroll': False}, {'some': 1}]
)
def test_one_token_at_a_time_gives_the_logits_of_a_whole_pass(execution):
  model = tiny.transformer(tiny.RICH, **execution)
  params = tiny.params_of(model)
  tokens = some_tokens()
  tokens = tokens.at[1::2, :SPLIT].set(tokens[::2, :SPLIT])
  length = np.array([SPLIT, 2])
  # The second pair's prompt ends at column 2, and its rows go on from there.
  tokens = tokens.at[3, 2:SPLIT].add(1) % 7
  found = continued(model, params, tokens, jnp.asarray(length))
  whole = tiny.logits_of(model, params, tokens)
  for row, start in enumerate(np.repeat(length, 2)):
    expected = whole[row, start : start + COLUMNS - SPLIT]
    np.testing.assert_allclose(found[row], expected, atol=1e-5)


def gradient_behind_prompts(some: int):
  """Returns the program, of two rows of each prompt, and its arguments."""
  model = tiny.transformer(tiny.PLAIN, unroll=True, some=some)

  def loss(params, tokens, length):
    variables = {'params': params}
    _, prompt = model.apply(variables, tokens[::2, :SPLIT])
    cache = Cache(prompt, None, length)
    hidden, _ = model.apply(variables, tokens[:, SPLIT:], None, cache)
    return jnp.sum(jnp.square(hidden))

  length = jnp.asarray([SPLIT, 2])
  return jax.jit(jax.grad(loss)), (
    tiny.params_of(model),
    some_tokens(),
    length,
  )


def test_on_one_cpu_no_layer_or_row_has_its_angles_computed_anew():
  found, cosines = {}, {}
  for some in (0, 1):
    program, given = gradient_behind_prompts(some)
    compiled = program.lower(*given).compile()
    cosines[some] = compiled.as_text().count(' cosine(')
    found[some] = compiled(*given)
  # Of the prompts' columns, and of the rows'.
  assert cosines[1] <= 2 < 2 * tiny.PLAIN.layers < cosines[0]
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, atol=1e-5),
    found[0],
    found[1],
  )


@pytest.fixture(scope='module')
def influence():
  """Returns bool[L, L]: whether logits at a column know another's token."""

  @functools.cache
  def of(window: int, layers: int):
    config = dataclasses.replace(
      tiny.PLAIN,
      layers=layers,
      rope_of_layer=(0,) * layers,
      window_of_layer=(window,) * layers,
    )
    model = tiny.transformer(config, unroll=False)
    params = tiny.params_of(model)
    tokens = jnp.repeat(some_tokens(rows=1), COLUMNS + 1, axis=0)
    each = jnp.arange(COLUMNS)
    tokens = tokens.at[each, each].set((tokens[each, each] + 1) % 7)
    logits = np.asarray(tiny.logits_of(model, params, tokens))
    return np.any(logits[:-1] != logits[-1:], axis=-1).T

  return of


def test_every_column_knows_itself_and_all_that_stands_to_its_left(influence):
  np.testing.assert_array_equal(influence(0, 1), np.tri(COLUMNS, dtype=bool))


def test_a_window_of_three_ends_two_columns_to_the_left(influence):
  near = np.tri(COLUMNS, dtype=bool) & ~np.tri(COLUMNS, k=-3, dtype=bool)
  np.testing.assert_array_equal(influence(3, 1), near)


def test_windows_add_up_over_layers(influence):
  near = np.tri(COLUMNS, dtype=bool) & ~np.tri(COLUMNS, k=-5, dtype=bool)
  np.testing.assert_array_equal(influence(3, 2), near)


def test_scores_depend_on_how_far_apart_two_columns_are():
  config = dataclasses.replace(
    tiny.RICH, query_scale=1.0, attention_softcap=0.0
  )
  speed = inverse_frequencies(Rope(100.0), config.head_dim)
  rng = np.random.default_rng(0)
  query, key = jnp.asarray(rng.normal(size=(2, 1, 1, 1, 4)), jnp.float32)

  @jax.jit
  def score(left, right):
    def turned(x, column):
      angle = (column * speed)[None, None]
      return rotate(x, jnp.cos(angle), jnp.sin(angle))

    return jnp.sum(turned(query, left) * turned(key, right))

  near, shifted, far = score(5.0, 3.0), score(45.0, 43.0), score(5.0, 1.0)
  np.testing.assert_allclose(near, shifted, rtol=1e-4)
  assert abs(near - far) > 1e-2


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_a_column_is_rotated_as_it_is_among_others(dtype):
  keys = jax.random.split(jax.random.key(0), 2)
  x = jax.random.normal(keys[0], (2, 3, 4, 6), dtype)
  angle = jax.random.normal(keys[1], (1, 3, 3))
  cos, sin = 0.5 * jnp.cos(angle), 0.5 * jnp.sin(angle)  # Scaled, as queries.
  whole = rotate(x, cos, sin)
  for i in range(3):
    column = slice(i, i + 1)
    alone = rotate(x[:, column], cos[:, column], sin[:, column])
    assert alone.dtype == dtype
    np.testing.assert_allclose(
      *(np.asarray(z, np.float32) for z in (alone, whole[:, column])),
      rtol=1e-6 if dtype == 'float32' else 0.01,
      atol=1e-6,
    )


def test_inverse_frequencies_fall_by_powers_of_theta():
  plain = inverse_frequencies(Rope(100.0), 4)
  np.testing.assert_allclose(plain, [1.0, 0.1], rtol=1e-6)
  linear = inverse_frequencies(Rope(100.0, 'linear', 4.0), 4)
  np.testing.assert_allclose(linear, [0.25, 0.025], rtol=1e-6)


def test_llama3_keeps_short_waves_stretches_long_ones_and_mixes_between():
  rope = Rope(10_000.0, 'llama3', 8.0, 1.0, 4.0, original_positions=100)
  found = inverse_frequencies(rope, 6)
  # 100 positions are 15.9, 0.739 and 0.0343 turns of the three waves.
  base = 10_000.0 ** (-np.arange(3) / 3)
  np.testing.assert_allclose(found, base * [1, 1 / 8, 1 / 8], rtol=1e-6)
  rope = dataclasses.replace(rope, original_positions=300)  # 2.216 turns.
  found = inverse_frequencies(rope, 6)
  kept = (300 * base[1] / (2 * np.pi) - 1) / 3
  mixed = base[1] * (kept + (1 - kept) / 8)
  np.testing.assert_allclose(found[1], mixed, rtol=1e-5)


def test_an_unknown_scaling_or_activation_is_refused():
  with pytest.raises(ValueError, match="llama3; got 'yarn'"):
    inverse_frequencies(Rope(100.0, 'yarn'), 4)
  config = dataclasses.replace(tiny.PLAIN, activation='relu')
  with pytest.raises(ValueError, match="gelu_tanh; got 'relu'"):
    tiny.params_of(tiny.transformer(config))


def test_grouped_queries_are_many_heads_with_equal_keys():
  few = dataclasses.replace(tiny.PLAIN, kv_heads=2)
  model, many = tiny.transformer(few), tiny.transformer()
  params = tiny.params_of(model)
  attention = dict(params['layers']['attention'])
  for name in ('key', 'value'):  # [layers, D, K, H]
    kernel = jnp.repeat(attention[name]['kernel'], 2, axis=2)
    attention[name] = {'kernel': kernel}
  repeated = {**params, 'layers': {**params['layers'], 'attention': attention}}
  np.testing.assert_allclose(
    tiny.logits_of(model, params, some_tokens()),
    tiny.logits_of(many, repeated, some_tokens()),
    atol=1e-5,
  )


def logits_and_gradient(**execution):
  """Returns float32[B, L, V] and what a sum of them teaches parameters."""
  model, tokens = tiny.transformer(tiny.RICH, **execution), some_tokens()
  weights = np.random.default_rng(5).normal(size=(ROWS, COLUMNS, 7))

  @jax.jit
  def both(params):
    def total(params):
      logits = tiny.logits_of(model, params, tokens)
      return jnp.mean(logits * weights), logits

    return jax.grad(total, has_aux=True)(params)

  return both(tiny.params_of(model))


@pytest.fixture(scope='module')
def unrolled():
  return logits_and_gradient()


@pytest.mark.parametrize(
  'execution',
  [{'remat': 'block'}, {'remat': 'products', 'unroll': False}],
  ids=str,
)
def test_how_it_runs_changes_neither_logits_nor_gradients(unrolled, execution):
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, atol=1e-5, rtol=1e-5),
    logits_and_gradient(**execution),
    unrolled,
  )


def test_in_bfloat16_hidden_states_are_narrow_and_logits_wide():
  model = tiny.transformer(dtype='bfloat16', param_dtype='bfloat16')
  params = jax.eval_shape(model.init, jax.random.key(0), some_tokens())[
    'params'
  ]
  assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype('bfloat16')}
  hidden, cache = jax.eval_shape(
    lambda p, t: model.apply({'params': p}, t), params, some_tokens()
  )
  logits = jax.eval_shape(
    lambda p, h: model.apply({'params': p}, h, method='unembed'), params, hidden
  )
  assert hidden.dtype == jnp.bfloat16
  assert cache[0].key.dtype == jnp.bfloat16
  assert logits.dtype == jnp.float32


def test_a_wide_product_is_not_rounded_and_its_gradient_is_the_narrow_ones():
  draw = np.random.default_rng(0).normal
  x, kernel, weight = (
    jnp.asarray(draw(size=shape), jnp.bfloat16)
    for shape in ((3, 40), (40, 5), (3, 5))
  )
  found = product('IJ,JK->IK', x, kernel, True)
  expected = np.asarray(x, float) @ np.asarray(kernel, float)
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)

  def gradient(product, *wide):
    def loss(x, kernel):
      return jnp.sum(product('IJ,JK->IK', x, kernel, *wide) * weight)

    return jax.grad(loss, (0, 1))(x, kernel)

  jax.tree.map(
    np.testing.assert_array_equal,
    gradient(product, True),
    gradient(jnp.einsum),
  )


def test_what_is_rounded_stays_so_in_a_compiled_program():
  x = jnp.asarray([1 + 2**-9, 1 + 2**-7, -3.0], jnp.float32)
  found = jax.jit(rounded, static_argnums=1)(x, 'bfloat16')
  assert found.dtype == jnp.float32
  np.testing.assert_array_equal(found, [1, 1 + 2**-7, -3])
  np.testing.assert_array_equal(rounded(x, 'float32'), x)


@pytest.mark.parametrize('residual', ['float32', 'bfloat16'])
@pytest.mark.parametrize('remat', ['products', 'block'])
def test_in_bfloat16_what_is_computed_anew_changes_no_gradient(remat, residual):
  found, expected = (
    bfloat16_gradient(residual, remat=each, unroll=False)
    for each in (remat, 'none')
  )
  for each, wanted in zip(
    *map(jax.tree.leaves, (found, expected)), strict=True
  ):
    assert each.dtype == jnp.bfloat16
    size = np.abs(np.asarray(wanted, np.float32)).max()
    np.testing.assert_allclose(
      np.asarray(each, np.float32),
      np.asarray(wanted, np.float32),
      atol=0.02 * size,
    )


def bfloat16_gradient(residual, **execution):
  """Returns the gradient of a sum of logits, all narrow but the stream."""
  model = tiny.transformer(
    tiny.RICH,
    dtype='bfloat16',
    param_dtype='bfloat16',
    residual_dtype=residual,
    **execution,
  )
  params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), tiny.params_of(model))

  def loss(params):
    return jnp.mean(jnp.sin(tiny.logits_of(model, params, some_tokens())))

  return jax.jit(jax.grad(loss))(params)


def test_the_norm_divides_by_the_root_mean_square():
  norm = Norm(
    dataclasses.replace(tiny.PLAIN, norm_offset=1.0, norm_eps=0.5),
    Execution(),
  )
  variables = {'params': {'scale': jnp.asarray([0.0, 1.0])}}
  found = norm.apply(variables, jnp.asarray([[3.0, 4.0]]))
  root = np.sqrt((9 + 16) / 2 + 0.5)
  np.testing.assert_allclose(found, [[3 / root, 2 * 4 / root]], rtol=1e-6)


def test_every_axis_of_every_parameter_is_named_in_the_table():
  model = tiny.transformer(tiny.RICH)
  boxed = jax.eval_shape(model.init, jax.random.key(0), some_tokens())['params']
  boxes = jax.tree.leaves(
    boxed, is_leaf=lambda x: isinstance(x, nn.meta.AxisMetadata)
  )
  for box in boxes:
    assert len(box.names) == len(box.value.shape)
    assert set(box.names) <= set(sharding.AXES)


def test_remat_computes_anew_what_its_name_says():
  """Counted in what XLA is given, where a layer stands once, in a loop."""
  tokens = jnp.ones((2, 8), jnp.int32)

  def products(remat):
    model = tiny.transformer(remat=remat, unroll=False)

    def total(params):
      return jnp.sum(model.apply({'params': params}, tokens)[0])

    gradient = jax.jit(jax.grad(total)).lower(tiny.params_of(model, 0))
    return gradient.as_text().count('dot_general')

  # A layer multiplies seven times by weights, and twice in its attention; the
  # last product needs no second look, for its result is only added.
  kept = products('none')
  assert products('products') == kept + 2
  assert products('block') == kept + 8
