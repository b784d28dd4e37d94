"""What is kept narrow, or elsewhere, learns what it learns wide and at hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import tiny
from flax.traverse_util import flatten_dict

from score_jax import checkpoint, learner, optimizers, sampler, sharding
from score_jax import config as config_lib
from score_jax.learner import Batch
from score_jax.models import families, transformer, weights
from score_jax.models.architecture import Execution

TINY = 1e-4  # Beside 1, less than the 1/256 by which bfloat16 counts there.


def descend(optimizer, steps, gradient=1.0):
  """Returns bfloat16[3] and the state after some steps from 1."""
  params = {'w': jnp.ones(3, jnp.bfloat16)}
  state = optimizer.init(params)
  grads = {'w': jnp.full(3, gradient, jnp.bfloat16)}

  @jax.jit
  def step(params, state):
    changes, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, changes), state

  for _ in range(steps):
    params, state = step(params, state)
  return params['w'], state


def test_changes_too_small_for_bfloat16_add_up_in_master_weights():
  lost, _ = descend(optax.sgd(TINY), 200)
  np.testing.assert_array_equal(lost, np.ones(3))
  kept, state = descend(optimizers.widen(optax.sgd(TINY), True), 200)
  np.testing.assert_allclose(state.master['w'], 1 - 200 * TINY, rtol=1e-5)
  rounded = jnp.asarray(state.master['w'], jnp.bfloat16)
  np.testing.assert_array_equal(kept, rounded)
  assert np.all(kept < 1)


def test_without_master_weights_moments_are_kept_in_float32_alone():
  _, state = descend(optimizers.widen(optax.adam(TINY), False), 3, 1e-3)
  assert state.master == ()
  shapes = {x.shape: x.dtype for x in jax.tree.leaves(state.inner)}
  assert shapes[3,] == jnp.float32
  # After three equal gradients g, Adam holds (1 - 0.9^3) g and its square.
  gradient = float(jnp.bfloat16(1e-3))
  moments = state.inner[0]
  np.testing.assert_allclose(moments.mu['w'], 0.271 * gradient, rtol=1e-5)
  np.testing.assert_allclose(
    moments.nu['w'], (1 - 0.999**3) * gradient**2, rtol=1e-4
  )


@pytest.mark.parametrize('master', [True, False])
def test_a_widened_float32_optimizer_is_the_optimizer(master):
  rule = optimizers.make_optimizer(
    'adamw', 0.1, 'constant', 0, 4, 0.9, 0.999, 1e-8, 0.5, 0.1
  )
  draw = np.random.default_rng(0).normal
  start = {'w': jnp.asarray(draw(size=(4, 3)), jnp.float32)}
  found = {}
  for name, each in (('plain', rule), ('wide', optimizers.widen(rule, master))):
    params, state = start, each.init(start)
    for i in range(3):
      grads = jax.tree.map(lambda x, i=i: x + i, start)
      changes, state = jax.jit(each.update)(grads, state, params)
      params = optax.apply_updates(params, changes)
    found[name] = params['w']
  np.testing.assert_allclose(found['wide'], found['plain'], atol=1e-6)


MODEL = tiny.transformer(unroll=False)
SGD = optax.sgd(0.05)


def batch():
  """Returns eight rows, sampled by the parameters of seed 0."""
  trajectory = sampler.make_sampler(MODEL, tiny.sampling(first_attempts=2))(
    tiny.params_of(MODEL),
    tiny.prompts([[3, 4, 5], [4], [6, 3], [5]], 3),
    (jnp.asarray([5, 6], jnp.int32),),
    jax.random.key(0),
  )
  reward = np.random.default_rng(0).random((8, 2))
  return Batch(trajectory, jnp.asarray(reward, jnp.float32))


def on_mesh(tree, mesh):
  return jax.tree.map(lambda x: sharding.put_rows(mesh, np.asarray(x)), tree)


@pytest.fixture(scope='module')
def mesh():
  return sharding.make_mesh((1, 2, 4))


def test_masters_and_moments_lie_where_their_parameters_lie(mesh):
  model = tiny.transformer(unroll=False, mesh=mesh)
  like = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16, sharding=x.sharding),
    weights.target(model),
  )
  places = jax.tree.map(lambda x: x.sharding, like)
  optimizer = optimizers.widen(optax.adam(0.1), True)
  state = jax.eval_shape(optimizer.init, like)
  found = sharding.of_optimizer(mesh, optimizer, state, places)
  for tree in (found.master, found.inner[0].mu, found.inner[0].nu):
    assert tree == places
  assert {x.dtype for x in jax.tree.leaves(state.master)} == {
    jnp.dtype(jnp.float32)
  }


def test_a_narrow_policy_learns_what_a_wide_one_learns_within_rounding():
  """The masters see gradients through parameters that differ by 1/256."""
  rows, reference = batch(), tiny.params_of(MODEL, 1)
  wide = tiny.params_of(MODEL)
  narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), wide)
  start = jax.tree.map(lambda x: x.astype(jnp.float32), narrow)
  found = []
  for params, optimizer, parts in (
    (start, SGD, 1),
    (narrow, optimizers.widen(SGD, True), 2),
  ):
    learning = tiny.learning(tiny.STAGE_ONE, accumulation=parts)
    update = learner.make_update(MODEL, optimizer, learning)
    own = jax.tree.map(jnp.copy, params)
    state, _ = update(learner.init_state(own, optimizer, 0.1), reference, rows)
    found.append(state)
  expected, state = found
  master = state.opt_state.master
  for param, each in zip(
    *map(jax.tree.leaves, (state.params, master)), strict=True
  ):
    assert param.dtype == jnp.bfloat16
    np.testing.assert_array_equal(param, each.astype(jnp.bfloat16))
  # Gradients reach bfloat16 parameters as bfloat16.
  for each, wanted, before in zip(
    *map(jax.tree.leaves, (master, expected.params, start)), strict=True
  ):
    change = np.max(np.abs(wanted - before))
    np.testing.assert_allclose(
      each - before, wanted - before, atol=0.01 * change + 1e-6
    )


RATE = 1e-6  # So that a step moves no parameter by more.


def masters_of(workdir, stage, step):
  """Returns {name: float32 array}, the masters of a checkpoint."""
  folder = workdir / 'checkpoints' / stage
  saved = ocp.StandardCheckpointHandler().metadata(folder / str(step) / 'rest')
  alone = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  start = 'opt_state/master/'
  like = {
    name.removeprefix(start): jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=alone
    )
    for name, leaf in dict(saved).items()
    if name.startswith(start)
  }
  target = {'opt_state': {'master': like}}
  state, _ = checkpoint.restore_part(folder, [step], target, pytest.fail)
  return {k: np.asarray(x) for k, x in state['opt_state']['master'].items()}


@pytest.mark.slow
@pytest.mark.parametrize('method', ['score', 'star_d_plus'])
def test_a_stage_starts_from_the_masters_of_the_one_before(
  runs, tmp_path, method
):
  runs.finish(
    tmp_path / 'run',
    method__name=method,
    method__rounds=2,
    model__param_dtype='bfloat16',
    optimizer__name='sgd',
    optimizer__learning_rate=RATE,
    train__stage1_steps=2,
    train__stage2_steps=2,
    checkpoint__every=1,
    checkpoint__keep=2,
    eval__every=0,
  )
  folder = tmp_path / 'run' / 'checkpoints'
  stages = sorted(path.name for path in folder.iterdir())
  assert len(stages) == 2
  base = read_base()
  for before, stage in zip(['base', *stages], stages, strict=False):
    start = base
    if before != 'base':
      best = checkpoint.best_step(folder / before)
      start = masters_of(tmp_path / 'run', before, best)
    after = masters_of(tmp_path / 'run', stage, 1)
    assert after.keys() == start.keys()
    moved, lost = 0.0, 0.0
    for name, x in start.items():
      rounded = np.asarray(jnp.asarray(x, jnp.bfloat16), np.float32)
      moved = max(moved, np.abs(after[name] - x).max())
      lost = max(lost, np.abs(rounded - x).max())
    assert 0 < moved <= 1.1 * RATE
    assert lost > 100 * RATE


def read_base():
  """Returns {name: float32 array} of the bundled model."""
  hf = weights.read_config(config_lib.BUNDLED)
  model = transformer.Transformer(families.model_config(hf), Execution())
  flat = flatten_dict(weights.load(config_lib.BUNDLED, weights.target(model)))
  return {'/'.join(path): np.asarray(x) for path, x in flat.items()}


@pytest.mark.parametrize('unroll', [True, False])
def test_a_reference_on_the_host_changes_nothing(mesh, unroll):
  model = tiny.transformer(unroll=unroll, mesh=mesh)
  places = jax.tree.map(lambda x: x.sharding, weights.target(model))
  at_hand = jax.device_put(tiny.params_of(MODEL, 1), places)
  far = dict(at_hand)
  far['layers'] = jax.device_put(
    at_hand['layers'], jax.tree.map(sharding.on_host, places['layers'])
  )
  kinds = {x.sharding.memory_kind for x in jax.tree.leaves(far['layers'])}
  assert kinds == {sharding.HOST}
  rows = on_mesh(batch(), mesh)
  update = learner.make_update(model, SGD, tiny.learning(tiny.STAGE_ONE))
  found = []
  for reference in (at_hand, far):
    params = jax.device_put(tiny.params_of(MODEL), places, may_alias=False)
    found.append(update(learner.init_state(params, SGD, 0.1), reference, rows))
  jax.tree.map(np.testing.assert_array_equal, *found)
  for leaf, place in zip(
    *map(jax.tree.leaves, (found[1][0].params, places)), strict=True
  ):
    assert leaf.sharding.memory_kind == place.memory_kind


def test_devices_without_host_memory_are_named():
  @dataclasses.dataclass(frozen=True)
  class Memory:
    kind: str

  @dataclasses.dataclass(frozen=True)
  class Device:
    id: int = 0
    platform: str = 'abacus'

    def addressable_memories(self):
      return [Memory('beads'), Memory('rods')]

  @dataclasses.dataclass(frozen=True)
  class Place:
    device_set: frozenset = frozenset({Device()})

  with pytest.raises(
    ValueError, match=r"abacus .* 'pinned_host'.* beads, rods"
  ):
    sharding.on_host(Place())
