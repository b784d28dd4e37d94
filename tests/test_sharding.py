"""A mesh changes where arrays live, and nothing else."""

import dataclasses
import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from jax.sharding import PartitionSpec

from score_jax import learner, sampler, sharding
from score_jax.learner import Batch, TrainState
from score_jax.policy import Policy

MESHES = [(8, 1, 1), (1, 8, 1), (1, 1, 8), (2, 2, 2)]
every_mesh = pytest.mark.parametrize('shape', MESHES, ids=str)
# Heads, key heads and vocabulary divide by 2, and not by 8.
CONFIG = dataclasses.replace(tiny.RICH, vocab_size=14)
OPTIMIZER = optax.sgd(0.05, momentum=0.9)
PROMPTS = [[3, 4, 5], [4], [6, 13], [5]]


def mesh_of(shape):
  return sharding.make_mesh(shape, jax.devices()[: math.prod(shape)])


def layout_of(mesh, model, optimizer) -> TrainState:
  """Returns where each part of a train state lives on a mesh."""
  start = jax.ShapeDtypeStruct((1, 1), int)
  boxed = jax.eval_shape(model.init, jax.random.key(0), start)['params']
  params = sharding.of_params(mesh, boxed)
  state = jax.eval_shape(optimizer.init, nn.meta.unbox(boxed))
  whole = sharding.replicated(mesh)
  opt_state = sharding.of_optimizer(mesh, optimizer, state, params)
  return TrainState(whole, params, opt_state, whole, whole)


@dataclasses.dataclass(frozen=True)
class Run:
  """What was sampled and learned on a mesh, on the host."""

  greedy: object
  sampled: object
  state: TrainState
  metrics: list[dict]


@functools.cache
def run_on(shape) -> Run:
  """Returns two samples and what two updates make of one of them."""
  mesh = mesh_of(shape)
  model = tiny.transformer(CONFIG, unroll=False, mesh=mesh)
  layout = layout_of(mesh, model, OPTIMIZER)
  params = jax.device_put(tiny.params_of(model), layout.params)
  reference = jax.device_put(tiny.params_of(model, seed=1), layout.params)
  prompts = jax.tree.map(
    lambda x: sharding.put_rows(mesh, x), tiny.prompts(PROMPTS, 3)
  )

  def sample(temperature):
    sampling = tiny.sampling(first_attempts=2, policy=Policy(temperature))
    return sampler.make_sampler(model, sampling)(
      params, prompts, (jnp.asarray([5, 6], jnp.int32),), jax.random.key(0)
    )

  greedy, sampled = sample(0.0), sample(1.0)
  reward = np.random.default_rng(0).random((8, 2)).astype(np.float32)
  batch = Batch(sampled, sharding.put_rows(mesh, reward))
  update = learner.make_update(model, OPTIMIZER, tiny.learning(tiny.STAGE_ONE))
  state = learner.init_state(params, OPTIMIZER, 0.1)
  state = jax.device_put(jax.tree.map(jnp.copy, state), layout)
  metrics = []
  for _ in range(2):
    state, numbers = update(state, reference, batch)
    metrics.append(numbers)
  return jax.device_get(Run(greedy, sampled, state, metrics))


jax.tree_util.register_dataclass(Run)


@pytest.fixture(scope='module')
def alone():
  return run_on((1, 1, 1))


@every_mesh
def test_every_mesh_samples_what_one_device_samples(alone, shape):
  for found, expected in (
    (run_on(shape).greedy, alone.greedy),
    (run_on(shape).sampled, alone.sampled),
  ):
    np.testing.assert_allclose(found.logp, expected.logp, atol=1e-5)
    for name in ('tokens', 'turn', 'length', 'span', 'truncated'):
      np.testing.assert_array_equal(
        getattr(found, name), getattr(expected, name), err_msg=name
      )


@every_mesh
def test_two_updates_on_every_mesh_are_those_of_one_device(alone, shape):
  found = run_on(shape)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, atol=1e-5),
    found.state,
    alone.state,
  )
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
    found.metrics,
    alone.metrics,
  )
  start = tiny.params_of(tiny.transformer(CONFIG))['embedding']
  assert np.abs(found.state.params['embedding'] - start).max() > 1e-2
