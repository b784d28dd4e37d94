"""Layers apart, kernels in blocks or turned: all give what they gave."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from score_jax import programs, sharding
from score_jax.models import stack
from score_jax.models.stack import PROJECTIONS

FEW = 32


def layers_of(model, params, form='blocks'):
  apart = stack.by_layer(model.execution, params)
  return stack.laid_out(model.execution, apart, form)


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
  monkeypatch.setattr(stack, 'BLOCK', 8)


@pytest.mark.parametrize('rows', [3, FEW // 4, FEW])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('form', ['blocks', 'turned'])
def test_a_pass_is_the_same_with_kernels_in_another_form(form, rows, dtype):
  model = tiny.transformer(tiny.RICH, dtype=dtype, param_dtype=dtype)
  params = jax.tree.map(
    lambda x: x.astype(dtype), tiny.params_of(tiny.transformer(tiny.RICH))
  )
  tokens = np.random.default_rng(0).integers(0, 7, (rows, 4))
  cut = layers_of(model, params, form)
  for layer in cut['layers']:
    for name, (module, _) in PROJECTIONS.items():
      assert 'kernel' not in layer[module][name]
      kernel = layer[module][name][form]
      assert kernel.ndim == {'blocks': 3, 'turned': 2}[form]
      assert form == 'turned' or kernel.shape[2] == 8
  found, expected = (
    model.apply({'params': p}, jnp.asarray(tokens))[0] for p in (cut, params)
  )
  close = 1e-5 if dtype == 'float32' else 0.05
  np.testing.assert_allclose(
    *(np.asarray(x, np.float32) for x in (found, expected)), atol=close
  )


def test_kernels_without_whole_blocks_stay(monkeypatch):
  monkeypatch.setattr(stack, 'BLOCK', 16)
  model = tiny.transformer()  # Its MLP is 24 wide.
  layer = layers_of(model, tiny.params_of(model))['layers'][0]
  stayed = {
    name
    for name, (module, _) in PROJECTIONS.items()
    if 'kernel' in layer[module][name]
  }
  assert stayed == {'gate', 'up'}


@pytest.mark.parametrize('form', ['blocks', 'turned'])
def test_kernels_narrower_than_products_stay(form):
  model = tiny.transformer()
  params = tiny.params_of(model)
  params = jax.tree.map(lambda x: x.astype('bfloat16'), params)
  layer = layers_of(model, params, form)['layers'][0]
  assert all('kernel' in layer[m][name] for name, (m, _) in PROJECTIONS.items())


@pytest.mark.parametrize('form', ['blocks', 'turned'])
def test_kernels_of_stacked_layers_stay(form):
  model = tiny.transformer(unroll=False)
  params = tiny.params_of(model)
  assert layers_of(model, params, form) is params


def test_blocks_are_for_few_rows_and_turned_kernels_for_some():
  execution = tiny.Execution(few=4, some=16)
  forms = [stack.form_of(execution, rows) for rows in (1, 4, 5, 16, 17)]
  assert forms == ['blocks', 'blocks', 'turned', 'turned', 'kernel']
  assert stack.forms(execution) == {'blocks', 'turned', 'kernel'}
  assert stack.forms(tiny.Execution()) == {'kernel'}


def test_other_forms_are_for_float32_on_one_cpu(monkeypatch):
  monkeypatch.setattr(programs, '_cores', lambda: 2)
  one = sharding.make_mesh((1, 1, 1), jax.devices()[:1])
  assert programs.few_rows(one, 'float32') == {'few': 2, 'some': 128}
  assert programs.few_rows(one, 'bfloat16') == {}
  assert programs.few_rows(one.abstract_mesh, 'float32') == {}
  monkeypatch.setattr(programs, '_cores', lambda: 64)
  assert programs.few_rows(one, 'float32')['few'] == 0


def test_layers_apart_have_stacked_gradients():
  model = tiny.transformer()
  params, tokens = tiny.params_of(model), jnp.asarray([[1, 2, 3]])

  def apart(params):
    params = stack.by_layer(model.execution, params)
    return jnp.sum(jnp.sin(model.apply({'params': params}, tokens)[0]))

  def scanned(params):
    whole = tiny.transformer(unroll=False)
    return jnp.sum(jnp.sin(whole.apply({'params': params}, tokens)[0]))

  found, expected = jax.grad(apart)(params), jax.grad(scanned)(params)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), found, expected
  )
