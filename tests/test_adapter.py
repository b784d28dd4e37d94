"""Training an adapter: it alone learns, and its base is the reference."""

import dataclasses
import functools
import math

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import runs as small
import tiny

from score_jax import checkpoint, export, files, learner, sampler, sharding
from score_jax.learner import Batch
from score_jax.models import lora, weights
from score_jax.models.lora import Lora

RATE, BETA2 = 0.05, 0.1
SGD = optax.sgd(RATE)
CHOSEN = Lora(2, 4.0, ('query', 'output', 'up', 'down'), 0.0)
PROMPTS = tiny.prompts([[3, 4, 5], [4], [6, 3], [5]], 3)
BETWEEN = (jnp.asarray([5, 6], jnp.int32),)


def learning_of(stage=tiny.STAGE_ONE, dropout=0.0, **changes):
  chosen = dataclasses.replace(CHOSEN, dropout=dropout)
  return tiny.learning(stage, lora=chosen, **changes)


@functools.cache
def model_of(**execution):
  return tiny.transformer(**{'unroll': False, **execution})


@functools.cache
def base():
  return tiny.params_of(model_of())


@functools.cache
def adapter():
  """Returns an adapter that has learned something already."""
  like = lora.target(base(), CHOSEN, 'float32')
  draw = np.random.default_rng(1).normal
  return jax.tree.map(
    lambda x: jnp.asarray(draw(size=x.shape) / 8, jnp.float32), like
  )


def state_of(params, optimizer=SGD):
  return learner.init_state(jax.tree.map(jnp.copy, params), optimizer, BETA2)


@functools.cache
def sample_of():
  return sampler.make_sampler(model_of(), tiny.sampling(first_attempts=2))


def sampled(params, key=0):
  """Returns eight rows of the bound policy, rewarded at random."""
  bound = lora.bind(base(), params, CHOSEN)
  trajectory = sample_of()(bound, PROMPTS, BETWEEN, jax.random.key(key))
  reward = np.random.default_rng(0).random((8, 2))
  return Batch(trajectory, jnp.asarray(reward, jnp.float32))


@functools.cache
def update_of(learning, optimizer=SGD, **execution):
  return learner.make_update(model_of(**execution), optimizer, learning)


def taught(learning, optimizer=SGD, **execution):
  """Returns what one update did to the adapter, and its metrics."""
  update = update_of(learning, optimizer, **execution)
  state, metrics = update(state_of(adapter()), base(), sampled(adapter()))
  return jax.tree.map(
    lambda a, b: (a - b) / RATE, adapter(), state.params
  ), metrics


def assert_close(found, expected, tolerance):
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=0, atol=tolerance),
    found,
    expected,
  )


def gradient_by_full_tuning(stage):
  """Returns the adapter's gradient by the chain rule from the kernels'."""
  merged = lora.merge(base(), adapter(), CHOSEN, 'float32')

  @jax.jit
  def full(params, batch):
    return jax.grad(learner.loss_and_metrics, 2, has_aux=True)(
      model_of(),
      tiny.learning(stage),
      params,
      base(),
      jnp.float32(BETA2),
      batch,
    )[0]

  kernels = flax.traverse_util.flatten_dict(full(merged, sampled(adapter())))
  factors = flax.traverse_util.flatten_dict(adapter())
  found = {}
  for path in {path[:-1] for path in factors}:
    a, b = (factors[*path, leaf] for leaf in ('lora_a', 'lora_b'))
    flat = kernels[*path, 'kernel'].reshape(2, a[0, ..., 0].size, -1)
    a2, b2 = a.reshape(2, -1, 2), b.reshape(2, 2, -1)
    scale = 4.0 / 2
    da = scale * jnp.einsum('lio,lro->lir', flat, b2)
    db = scale * jnp.einsum('lir,lio->lro', a2, flat)
    found[*path, 'lora_a'] = da.reshape(a.shape)
    found[*path, 'lora_b'] = db.reshape(b.shape)
  return flax.traverse_util.unflatten_dict(found)


@pytest.mark.parametrize(
  'stage', [tiny.STAGE_ONE, tiny.STAGE_TWO], ids=['I', 'II']
)
def test_its_gradient_is_the_kernels_by_the_chain_rule(stage):
  found, metrics = taught(learning_of(stage))
  assert_close(found, gradient_by_full_tuning(stage), 1e-4)
  assert metrics['grad_norm'] > 0.1


@pytest.mark.parametrize(
  ('learning', 'execution'),
  [
    ({'accumulation': 2}, {'remat': 'block'}),
    ({}, {'remat': 'products', 'unroll': True}),
  ],
  ids=str,
)
def test_how_the_update_runs_changes_nothing(learning, execution):
  found, _ = taught(learning_of(**learning), **execution)
  assert_close(found, taught(learning_of())[0], 2e-5)


def test_at_its_start_the_policy_is_the_reference():
  new = lora.init(jax.random.key(0), lora.target(base(), CHOSEN, 'float32'))
  _, metrics = update_of(learning_of())(state_of(new), base(), sampled(new))
  np.testing.assert_array_equal(metrics['kl'], [0.0, 0.0])


def test_what_samples_after_an_update_is_what_scores():
  update = update_of(learning_of())
  state, before = update(state_of(adapter()), base(), sampled(adapter()))
  new = jax.tree.map(jnp.copy, state.params)
  _, stale = update(state_of(new), base(), sampled(adapter()))
  _, after = update(state, base(), sampled(new, key=1))
  assert stale['logp_gap_mean'] > 0.01
  for metrics in (before, after):
    assert 0 < metrics['logp_gap_max'] <= 1e-5


def leaves_of(tree):
  return sum(x.size for x in jax.tree.leaves(tree))


def test_the_state_holds_nothing_of_the_base():
  state = state_of(adapter(), optax.adam(RATE))
  beside = 4  # The step, Adam's own count, beta2 and the updates skipped.
  assert leaves_of(state) == 3 * leaves_of(adapter()) + beside


def test_the_update_takes_and_gives_one_copy_of_the_base():
  update = update_of(learning_of())
  compiled = update.lower(
    state_of(adapter()), base(), sampled(adapter())
  ).compile()
  memory = compiled.memory_analysis()
  trees = {'base': base(), 'adapter': adapter()}
  bytes_of = {name: 4 * leaves_of(tree) for name, tree in trees.items()}
  rows = sum(x.nbytes for x in jax.tree.leaves(sampled(adapter())))
  spare = 2000  # Scalars and metrics.
  whole = bytes_of['base'] + bytes_of['adapter'] + rows
  assert memory.argument_size_in_bytes <= whole + spare
  assert memory.output_size_in_bytes <= bytes_of['adapter'] + spare
  assert bytes_of['base'] > 2 * (bytes_of['adapter'] + spare)


def test_dropout_changes_the_gradient_and_nothing_that_is_reported():
  plain, metrics = taught(learning_of())
  noisy, same = taught(learning_of(dropout=0.5))
  for name, number in metrics.items():
    if name not in ('loss', 'grad_norm'):
      np.testing.assert_allclose(same[name], number, atol=1e-6, err_msg=name)
  difference = optax.tree.norm(optax.tree.sub(plain, noisy))
  assert difference > 0.05 * optax.tree.norm(plain)


def test_dropout_follows_from_the_seed_and_the_step_of_the_run():
  def of(step, **changes):
    update = update_of(learning_of(dropout=0.5, **changes))
    state = dataclasses.replace(state_of(adapter()), step=jnp.int32(step))
    state, _ = update(state, base(), sampled(adapter()))
    return np.asarray(state.params['layers']['mlp']['up']['lora_b'])

  first = of(1, seed=1, first_step=2)
  np.testing.assert_array_equal(first, of(1, seed=1, first_step=2))
  # Step 3 of a run is the same whichever stage has got to it.
  np.testing.assert_allclose(first, of(0, seed=1, first_step=3), atol=1e-6)
  for other in (of(2, seed=1, first_step=2), of(1, seed=2, first_step=2)):
    assert np.max(np.abs(first - other)) > 1e-4


def test_a_reference_with_an_adapter_of_its_own_is_what_the_kl_is_to():
  learning = learning_of()
  batch = sampled(adapter())

  def kl(near):
    _, metrics = learner.loss_and_metrics(
      model_of(),
      learning,
      adapter(),
      base(),
      jnp.float32(BETA2),
      batch,
      near=near,
    )
    return np.asarray(metrics['kl'])

  np.testing.assert_allclose(kl(adapter()), 0, atol=1e-5)
  zero = jax.tree.map(jnp.zeros_like, adapter())
  np.testing.assert_allclose(kl(zero), kl(None), atol=1e-5)
  assert np.min(np.abs(kl(None))) > 1e-3


MESHES = [(1, 1, 1), (1, 8, 1), (1, 2, 4)]


@pytest.mark.parametrize('shape', MESHES, ids=str)
def test_a_mesh_changes_nothing_that_is_learned(shape):
  mesh = sharding.make_mesh(shape, jax.devices()[: math.prod(shape)])
  model = tiny.transformer(unroll=False, mesh=mesh)
  like = weights.target(model)
  places = jax.tree.map(lambda x: x.sharding, like)
  aims = lora.target(like, CHOSEN, 'float32')
  optimizer = optax.sgd(RATE, momentum=0.9)
  learning = learning_of(dropout=0.5)
  params = jax.tree.map(
    lambda x, y: jax.device_put(x, y.sharding), adapter(), aims
  )
  state = jax.jit(lambda p: learner.init_state(p, optimizer, BETA2))(params)
  rows = jax.tree.map(
    lambda x: sharding.put_rows(mesh, np.asarray(x)), sampled(adapter())
  )
  update = learner.make_update(model, optimizer, learning)
  state, _ = update(state, jax.device_put(base(), places), rows)
  plain, _ = taught(learning)
  expected = jax.tree.map(lambda x, g: x - RATE * g, adapter(), plain)
  assert_close(state.params, expected, 1e-5)
  momentum = sharding.of_optimizer(
    mesh, optimizer, state.opt_state, jax.tree.map(lambda x: x.sharding, aims)
  )
  for place, aim in zip(
    jax.tree.leaves(momentum[0].trace), jax.tree.leaves(aims), strict=True
  ):
    assert place == aim.sharding


def test_an_adapter_saved_and_restored_learns_on_to_the_bit(tmp_path):
  update = update_of(learning_of())

  def step(state):
    rows = sampled(state.params, key=int(state.step))
    return update(state, base(), rows)[0]

  state = step(state_of(adapter()))
  with_it = checkpoint.open_checkpoints(tmp_path, 2, pytest.fail)
  with_it.save(1, state, {}, 0.0)
  unbroken = step(state)
  alone = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  like = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=alone), unbroken
  )
  restored, _ = with_it.restore(like)
  with_it.close()
  saved = sum(
    f.stat().st_size
    for f in (tmp_path / '1' / 'params').rglob('*')
    if f.is_file()
  )
  assert saved < 4 * leaves_of(base()) + 60_000  # Orbax's own bookkeeping.
  jax.tree.map(np.testing.assert_array_equal, step(restored), unbroken)


SETTINGS = {
  'train__stage1_steps': 2,
  'train__stage2_steps': 2,
  'model__lora__rank': 4,
  'model__lora__targets': "('query','value','down')",
  'model__lora__dropout': 0.1,
}


@pytest.mark.slow
def test_a_run_of_both_stages_says_and_saves_what_it_trains(
  runs, tmp_path_factory
):
  workdir = tmp_path_factory.mktemp('adapted')
  said = runs.finish(workdir, **SETTINGS)
  # Rank 4 on 64 -> 4 x 16 twice and on 128 -> 64, in two layers.
  count = 2 * 4 * (2 * (64 + 64) + (128 + 64))
  assert f'trained   {count:,} parameters of an adapter of rank 4' in said
  # Of the parts of that, the reference is whole, and Adam has the adapter's.
  assert 'of a device at most, in the update' in said
  assert 'reference 338 kB' in said
  for stage in small.STEPS:
    params = small.params(workdir, stage, 2)
    assert sum(map(len, params.values())) == 4 * count
    assert {name.split('/')[-1] for name in params} == {'lora_a', 'lora_b'}
  metrics = small.rows(workdir / 'metrics.jsonl')
  assert max(row['logp_gap_max'] for row in metrics) < 1e-4
  assert metrics[-1]['kl_t1'] != 0
  # A run that is older than a setting is exported all the same.
  config = files.read_json(workdir / 'config.json')
  del config['model']['residual_dtype'], config['model']['lora']['dropout']
  files.write_json(workdir / 'config.json', config)
  out = workdir / 'out'
  export.export(workdir, out, 'stage1', '', adapter=True)
  described = files.read_json(out / 'adapter_config.json')
  assert (described['r'], described['lora_dropout']) == (4, 0.0)
