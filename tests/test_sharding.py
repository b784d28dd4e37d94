"""A mesh changes where arrays live, and nothing else."""

import dataclasses
import functools
import math
import re
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from jax.sharding import PartitionSpec

from score_jax import config as config_lib
from score_jax import learner, sampler, sharding, train
from score_jax.learner import Batch, TrainState
from score_jax.policy import Policy
from score_jax.trajectory import Trajectory

MESHES = [(8, 1, 1), (1, 8, 1), (1, 1, 8), (2, 2, 2)]
every_mesh = pytest.mark.parametrize('shape', MESHES, ids=str)
# Heads, key heads and vocabulary divide by 2, and not by 8.
CONFIG = dataclasses.replace(tiny.PLAIN, kv_heads=2, vocab_size=14)
OPTIMIZER = optax.sgd(0.01, momentum=0.9)
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


def on_mesh(shape):
  """Returns a decoder with parameters, a reference and prompts, on a mesh."""
  mesh = mesh_of(shape)
  model = tiny.transformer(CONFIG, unroll=False, mesh=mesh)
  layout = layout_of(mesh, model, OPTIMIZER).params
  params = (tiny.params_of(model, seed) for seed in range(2))
  prompts = tiny.prompts(PROMPTS, 3)
  return (
    model,
    *(jax.device_put(p, layout) for p in params),
    jax.tree.map(lambda x: sharding.put_rows(mesh, x), prompts),
  )


def sampler_on(shape, temperature, **how):
  """Returns a sampler and what it is called with."""
  model, params, _, prompts = on_mesh(shape)
  policy = Policy(temperature)
  sampling = tiny.sampling(first_attempts=2, policy=policy, **how)
  instructions = (jnp.asarray([5, 6], jnp.int32),)
  arguments = params, prompts, instructions, jax.random.key(0)
  return sampler.make_sampler(model, sampling), arguments


@functools.cache
def sampled_on(shape, temperature, **how) -> Trajectory:
  sample, arguments = sampler_on(shape, temperature, **how)
  return sample(*arguments)


@pytest.mark.parametrize(
  ('shape', 'temperature', 'how'),
  [
    *((shape, 1.0, {}) for shape in MESHES),
    ((2, 2, 2), 0.0, {}),
    ((2, 2, 2), 1.0, {'refill': 1}),
    ((2, 1, 1), 1.0, {'refill': 2, 'compact': (0.5,)}),
  ],
  ids=str,
)
def test_every_mesh_samples_what_one_device_samples(shape, temperature, how):
  found = jax.device_get(sampled_on(shape, temperature, **how))
  expected = jax.device_get(sampled_on((1, 1, 1), temperature))
  np.testing.assert_allclose(found.logp, expected.logp, atol=1e-5)
  same = dataclasses.replace(found, logp=expected.logp)
  jax.tree.map(np.testing.assert_array_equal, same, expected)


@pytest.mark.parametrize(
  'how', [{}, {'grow': 2, 'compact': (0.5,)}, {'refill': 1}], ids=str
)
def test_devices_that_share_rows_alone_tell_each_other_who_goes_on(how):
  sample, arguments = sampler_on((4, 1, 1), 1.0, **how)
  text = sample.lower(*arguments).compile().as_text()
  kinds = 'all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter'
  sent = re.findall(rf' = (.*?) (?:{kinds})(?:-start)?\(', text)
  assert sent
  assert not [kind for kind in sent if re.search(r'\[\d', kind)]


@functools.cache
def updated_on(shape, **changes):
  """Returns the state and metrics after two updates, learned otherwise."""
  model, params, reference, _ = on_mesh(shape)
  mesh = model.execution.mesh
  reward = np.random.default_rng(0).random((8, 2)).astype(np.float32)
  batch = Batch(sampled_on(shape, 1.0), sharding.put_rows(mesh, reward))
  learning = tiny.learning(tiny.STAGE_ONE, **changes)
  update = learner.make_update(model, OPTIMIZER, learning)
  state = learner.init_state(params, OPTIMIZER, 0.1)
  state = jax.device_put(state, layout_of(mesh, model, OPTIMIZER))
  for _ in range(2):
    state, metrics = update(state, reference, batch)
  return state, metrics


@every_mesh
def test_two_updates_on_every_mesh_are_those_of_one_device(shape):
  (state, metrics), (state_alone, metrics_alone) = (
    jax.device_get(updated_on(s)) for s in (shape, (1, 1, 1))
  )
  close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5)
  jax.tree.map(close, state.params, state_alone.params)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
  jax.tree.map(close, state.opt_state, state_alone.opt_state)
  jax.tree.map(close, metrics, metrics_alone)
  start = tiny.params_of(tiny.transformer(CONFIG))
  moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), state.params, start)
  assert min(jax.tree.leaves(moved)) > 1e-4


def test_parts_of_widths_of_their_own_teach_the_same_on_a_mesh():
  # The devices agree on a width, though the longest row is on one of them.
  changes = {'accumulation': 2, 'prompt_tokens': 3, 'widths': (0.5, 0.7, 0.9)}
  (state, metrics), (plain, expected) = (
    jax.device_get(x)
    for x in (updated_on((1, 2, 2), **changes), updated_on((1, 1, 1)))
  )
  close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5)
  jax.tree.map(close, state.params, plain.params)
  for name in learner.ROWS:
    np.testing.assert_allclose(metrics[name], expected[name], atol=1e-4)


MESH = mesh_of((2, 2, 2))


@pytest.mark.parametrize(
  ('axes', 'shape', 'expected'),
  [
    (('batch', 'length'), (8, 3), (('data', 'fsdp'), None)),
    (('batch', None), (6, 3), (None, None)),  # 4 does not divide 6.
    (('vocab', 'embed'), (14, 16), (('tensor',), ('fsdp',))),
    (('vocab', 'embed'), (13, 16), (None, ('fsdp',))),
    (('embed', 'kv_heads', 'head_dim'), (16, 1, 4), (('fsdp',), None, None)),
    (('heads', 'head_dim', 'embed'), (4, 4, 15), (('tensor',), None, None)),
    (('layers', 'norm'), (2, 16), (None, None)),
  ],
)
def test_a_dimension_is_split_where_its_mesh_axes_divide_it(
  axes, shape, expected
):
  assert sharding.partition(MESH, axes, shape) == PartitionSpec(*expected)


def test_an_axis_that_is_not_in_the_table_is_refused():
  with pytest.raises(KeyError, match='rows'):
    sharding.partition(MESH, ('rows',), (8,))


def test_moments_live_where_their_parameters_do():
  """And what is no moment lives everywhere."""
  model = tiny.transformer(CONFIG)
  layout = layout_of(MESH, model, optax.adam(0.1))
  adam = layout.opt_state[0]
  assert adam.mu == layout.params
  assert adam.nu == layout.params
  assert adam.count.is_fully_replicated
  attention = layout.params['layers']['attention']
  assert attention['query']['kernel'].spec == PartitionSpec(
    None, ('fsdp',), ('tensor',), None
  )
  assert layout.params['embedding'].spec == PartitionSpec(
    ('tensor',), ('fsdp',)
  )


def test_updates_leave_every_array_where_it_was():
  state, _ = updated_on((2, 2, 2))
  model = tiny.transformer(CONFIG)
  jax.tree.map(
    lambda x, place: (
      x.sharding.is_equivalent_to(place, x.ndim) or pytest.fail()
    ),
    state,
    layout_of(state.step.sharding.mesh, model, OPTIMIZER),
  )


def test_rows_are_put_a_part_on_each_device():
  rows = np.arange(24).reshape(8, 3)
  found = sharding.put_rows(MESH, rows)
  np.testing.assert_array_equal(found, rows)
  assert {s.data.shape for s in found.addressable_shards} == {(2, 3)}
  odd = sharding.put_rows(MESH, rows[:5])
  assert {s.data.shape for s in odd.addressable_shards} == {(5, 3)}


@pytest.mark.parametrize(
  ('shards', 'rows', 'filled'),
  [(1, 7, 7), (4, 8, 8), (16, 500, 512), (8, 3, 8)],
)
def test_rows_are_filled_up_to_as_many_for_each_device(shards, rows, filled):
  assert sharding.filled(shards, rows) == filled


@pytest.mark.parametrize(('problems', 'size'), [(50, 44), (6, 8)])
def test_an_evaluation_gives_each_device_as_many_problems(problems, size):
  config = config_lib.default()
  config.eval.batch = 42
  job = types.SimpleNamespace(config=config, mesh=MESH)
  assert sharding.row_shards(MESH) == 4
  assert train._batch(job, range(problems)) == size


def test_without_a_mesh_nothing_is_laid_out():
  x = jnp.ones((3, 5))
  assert sharding.constrain(None, x, 'batch', 'length') is x
