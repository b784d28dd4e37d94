"""The other library of products gives the same numbers, where it is asked."""

from __future__ import annotations

import pathlib
import platform

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax import config as config_lib
from score_jax import programs, sharding
from score_jax.config import ConfigError
from score_jax.models.layers import product
from score_jax.models.products import compiler_options
from tests import tiny

ONEDNN = tiny.Execution(products='onednn')
# Of a projection into the MLP, out of it, into heads and out of them.
EQUATIONS = [
  ('BTI,IO->BTO', (3, 5, 8), (8, 24)),
  ('BTI,IO->BTO', (3, 5, 24), (24, 8)),
  ('BTD,DNH->BTNH', (3, 5, 16), (16, 4, 8)),
  ('BTNH,NHD->BTD', (3, 5, 4, 8), (4, 8, 16)),
]


@pytest.mark.parametrize(('equation', 'of_x', 'of_kernel'), EQUATIONS)
def test_its_gradients_are_those_of_the_einsum(equation, of_x, of_kernel):
  keys = jax.random.split(jax.random.key(0))
  x, kernel = map(jax.random.normal, keys, (of_x, of_kernel))

  def gradients(multiply, **options):
    def loss(x, kernel):
      return jnp.sum(jnp.sin(multiply(equation, x, kernel)))

    return jax.jit(jax.grad(loss, argnums=(0, 1)), **options)(x, kernel)

  def ours(equation, x, kernel):
    return product(equation, x, kernel, False, 'onednn')

  expected = gradients(jnp.einsum)
  found = gradients(ours, compiler_options=compiler_options(ONEDNN))
  for one, other in zip(found, expected, strict=True):
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


@pytest.mark.skipif(
  platform.machine() != 'x86_64', reason='oneDNN is in builds for x86 alone'
)
def test_a_program_multiplies_by_the_library_that_it_asks_for():
  x, kernel = jnp.ones((64, 32)), jnp.ones((32, 48))

  def compiled(execution):
    options = compiler_options(execution)
    made = jax.jit(jnp.matmul, compiler_options=options).lower(x, kernel)
    return made.compile().as_text()

  assert '__onednn_fusion' in compiled(ONEDNN)
  assert 'onednn' not in compiled(tiny.Execution())


def test_it_is_for_programs_on_cpus(monkeypatch):
  monkeypatch.setattr(programs, 'onednn_ends', lambda: True)
  config = config_lib.default()
  config.model.products = 'onednn'
  mesh = sharding.make_mesh((1, 1, 1), jax.devices()[:1])

  def products(mesh):
    return programs.decoder(config, tiny.PLAIN, mesh).execution.products

  assert products(mesh) == 'onednn'
  assert products(mesh.abstract_mesh) == 'xla'
  monkeypatch.setattr(programs, 'onednn_ends', lambda: False)
  with pytest.raises(
    ConfigError, match=r'AVX-512, as here; set model.products'
  ):
    products(mesh)
  assert products(mesh.abstract_mesh) == 'xla'


@pytest.mark.parametrize(
  ('cores', 'flags', 'ends'),
  [(1, 'avx2', True), (2, 'avx2', False), (2, 'avx2 avx512f', True)],
)
def test_its_products_end_where_one_thread_waits_for_no_other(
  monkeypatch, cores, flags, ends
):
  monkeypatch.setattr(programs, '_cores', lambda: cores)
  monkeypatch.setattr(pathlib.Path, 'read_text', lambda path: f'flags: {flags}')
  assert programs.onednn_ends() is ends
