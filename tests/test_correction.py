"""Weighed, what an older policy sampled teaches what the newer one's would.

As in `test_method.py` every pair of attempts over {0, 1, 2} is listed, but
drawn by another policy than the one that learns.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from test_method import assert_close, STAGES, table_world, two_tables

from score_jax import correction, learner
from score_jax.correction import Correction
from score_jax.learner import Batch
from score_jax.objective import Groups

BETA2 = 0.7  # As in STAGES.
FREE = float('inf')
TURN = jnp.asarray([[0, 1, 1, 0, 2, 2, 0], [0, 1, 0, 2, 2, 2, 0]])
TWO = np.log(2.0)
# log pi - log mu, in doublings; other tokens' mean nothing.
DOUBLINGS = np.array([[9, 1, 2, 9, -1, 0, 9], [9, -2, 9, 1, 1, 1, 9]])


def found(level, cap=FREE, masked=False):
  sampled = jnp.full(TURN.shape, -3.0)
  logp = sampled + TWO * jnp.asarray(DOUBLINGS)
  return correction.weights(
    Correction(level, cap, masked), logp, sampled, TURN, 2
  )


@pytest.mark.parametrize(
  ('level', 'expected'),
  [
    ('token', [[1, 2, 4, 1, 0.5, 1, 1], [1, 0.25, 1, 2, 2, 2, 1]]),
    ('attempt', [[1, 8, 8, 1, 0.5, 0.5, 1], [1, 0.25, 1, 8, 8, 8, 1]]),
    ('trajectory', [[1, 8, 8, 1, 4, 4, 1], [1, 0.25, 1, 2, 2, 2, 1]]),
  ],
)
def test_weights_are_ratios_of_a_token_an_attempt_or_all_so_far(
  level, expected
):
  np.testing.assert_allclose(found(level).weight, expected, rtol=1e-6)
  assert not found(level).capped.any()


def test_what_is_above_the_cap_weighs_the_cap_or_nothing():
  truncated = found('token', 1.5)
  weight = [[1, 1.5, 1.5, 1, 0.5, 1, 1], [1, 0.25, 1, 1.5, 1.5, 1.5, 1]]
  np.testing.assert_allclose(truncated.weight, weight, rtol=1e-6)
  above = [[0, 1, 1, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1, 0]]
  np.testing.assert_array_equal(truncated.capped, above)
  masked = found('token', 1.5, masked=True)
  np.testing.assert_allclose(
    masked.weight, np.where(above, 0, weight), rtol=1e-6
  )
  np.testing.assert_array_equal(masked.capped, above)


@pytest.mark.parametrize('level', ['token', 'attempt', 'trajectory'])
def test_a_policy_that_sampled_itself_is_not_weighed(level):
  logp = jnp.asarray(np.random.default_rng(0).normal(size=TURN.shape))
  weights = correction.weights(
    Correction(level, 2.0, True), logp, logp, TURN, 2
  )
  np.testing.assert_array_equal(weights.weight, 1)
  np.testing.assert_array_equal(weights.capped, False)


def test_weights_beyond_all_numbers_are_capped_and_carry_no_gradient():
  @jax.jit
  def total(logp):
    sampled = jnp.full(TURN.shape, -300.0)
    chosen = Correction('trajectory', 2.0, False)
    weights = correction.weights(chosen, logp, sampled, TURN, 2)
    return jnp.sum(weights.weight)

  logp = jnp.zeros(TURN.shape)
  # Eight tokens of attempts weigh two, the six others one.
  assert total(logp) == 2 * 8 + 6
  np.testing.assert_array_equal(jax.jit(jax.grad(total))(logp), 0)


def test_metrics_of_weights_are_these_numbers():
  def metrics(level, cap):
    chosen = Correction(level, cap, False)
    return correction.metrics(
      correction.sums(chosen, found(level, cap), TURN, 2)
    )

  tokens = metrics('token', 1.5)
  # Turn 1: 1.5, 1.5, 0.25. Turn 2: 0.5, 1, 1.5, 1.5, 1.5.
  expected = {
    'weight_mean': [3.25 / 3, 6 / 5],
    'weight_capped': [2 / 3, 3 / 5],
    'weight_ess': [3.25**2 / 4.5625 / 3, 6**2 / 8 / 5],
  }
  assert tokens.keys() == expected.keys()
  for name, numbers in expected.items():
    np.testing.assert_allclose(tokens[name], numbers, rtol=1e-6, err_msg=name)
  attempts = metrics('attempt', 4.0)
  # Turn 1: 4 (of 8), 0.25. Turn 2: 0.5, 4 (of 8).
  np.testing.assert_allclose(attempts['weight_mean'], [2.125, 2.25])
  np.testing.assert_allclose(attempts['weight_capped'], [0.5, 0.5])
  ess = [4.25**2 / 16.0625 / 2, 4.5**2 / 16.25 / 2]
  np.testing.assert_allclose(attempts['weight_ess'], ess, rtol=1e-6)


def test_settings_become_a_correction():
  assert correction.named('none', 'token', 2.0) is None
  assert correction.named('truncated', 'attempt', 3.0) == Correction(
    'attempt', 3.0, False
  )
  assert correction.named('masked', 'token', 2.0) == Correction(
    'token', 2.0, True
  )
  assert correction.named('truncated', 'token', 0).cap == FREE


def drawn_by(world, behaviour) -> Batch:
  """Returns all pairs of attempts, with the chances they were drawn with."""
  rows = world.batch.trajectory
  logits = tiny.logits_of(world.model, behaviour, rows.tokens)
  logp = tiny.token_logp(logits, rows.tokens)
  logp = jnp.where(rows.turn > 0, logp, 0.0)
  return Batch(dataclasses.replace(rows, logp=logp), world.batch.reward)


def taught(world, name, behaviour, params, reference, groups, **changes):
  """Returns the expected gradient of the loss on what another policy drew."""
  stage = STAGES[name][0]
  estimator = changes.pop('kl_estimator', 'k1')
  stage = dataclasses.replace(stage, kl_estimator=estimator)
  learning = tiny.learning(stage, groups=Groups(*groups), **changes)
  batches = world.groups(*groups)

  @jax.jit
  def gradient(behaviour, params, reference):
    batch = drawn_by(world, behaviour)
    one, two = world.turn_logp(behaviour)
    drawn = batches[:, :: groups[1]] // len(world.second)
    logp = jnp.sum(one[drawn], axis=1)
    chance = jnp.exp(logp + jnp.sum(two.reshape(-1)[batches], axis=1))

    def loss(params):
      def of(rows):
        part = jax.tree.map(lambda x: x[rows], batch)
        return learner.loss_and_metrics(
          world.model, learning, params, reference, jnp.asarray(BETA2), part
        )[0]

      return jnp.sum(chance * jax.vmap(of)(batches))

    return jax.grad(loss)(params)

  return gradient(behaviour, params, reference)


@functools.cache
def policies(limits):
  """Returns a world, the policy that samples, the one that learns, the base."""
  world = table_world(limits)
  assert len(world.batch.reward)  # Made here, not within what is traced.
  params, reference = two_tables(world)
  behaviour = jax.tree.map(
    lambda x: x.astype(float), tiny.params_of(world.model, 7)
  )
  return world, behaviour, params, reference


def exact(world, name, params, reference):
  """Returns the gradient of minus what the method maximizes, on-policy."""

  @jax.jit
  def gradient(params, reference):
    return jax.grad(
      lambda p: -world.maximized(p, reference, STAGES[name][1], 0.0)
    )(params)

  return gradient(params, reference)


def apart(one, other):
  pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
  return max(float(jnp.abs(a - b).max()) for a, b in pairs)


@pytest.mark.parametrize('name', STAGES)
@pytest.mark.parametrize('estimator', ['k1', 'k2', 'k3', 'exact'])
def test_without_a_cap_the_expected_gradient_is_the_on_policy_one(
  name, estimator
):
  with jax.enable_x64(True):
    world, *tables = policies((2, 2))
    expected = exact(world, name, *tables[1:])
    alone = {'groups': (1, 1), 'baseline': 'none', 'kl_estimator': estimator}
    whole = Correction('trajectory', FREE, False)
    corrected = taught(world, name, *tables, correction=whole, **alone)
    # Uncorrected, as drawn, it is another one.
    assert apart(taught(world, name, *tables, **alone), expected) > 0.01
  assert_close(corrected, expected, 1e-9)


@pytest.mark.parametrize('name', STAGES)
@pytest.mark.parametrize(
  ('limits', 'groups'), [((2, 1), (2, 1)), ((1, 1), (2, 2))], ids=str
)
def test_the_baseline_leaves_the_corrected_gradient_as_it_is(
  name, limits, groups
):
  with jax.enable_x64(True):
    world, *tables = policies(limits)
    expected = exact(world, name, *tables[1:])
    whole = Correction('trajectory', FREE, False)
    corrected = taught(world, name, *tables, groups=groups, correction=whole)
    assert apart(taught(world, name, *tables, groups=groups), expected) > 0.01
  assert_close(corrected, expected, 1e-9)


def test_weights_of_attempts_leave_the_contexts_of_who_sampled():
  """Turn 1 is unbiased; turn 2 is so behind first attempts as they came."""
  with jax.enable_x64(True):
    world, behaviour, params, reference = policies((2, 1))
    table = STAGES['stage II'][1]
    reward = world.batch.reward.reshape(len(world.first), len(world.second), 2)

    @jax.jit
    def expected(params, reference, behaviour):
      def maximized(params):
        one, two = world.turn_logp(params)
        base_one, base_two = world.turn_logp(reference)
        seen, _ = world.turn_logp(behaviour)
        kl_one = jnp.exp(one) * (one - base_one)
        kl_two = jnp.exp(two) * (two - base_two)
        gain = reward[..., 1] - reward[..., 0]
        paid = table.second * reward[..., 1] + table.bonus * gain
        second = jnp.exp(two) * paid - table.kl_second * kl_two
        first = jnp.exp(one) * table.first * reward[:, 0, 0]
        first = first - table.kl_first * kl_one
        contexts = jnp.exp(seen)
        return jnp.sum(first) + jnp.sum(contexts * jnp.sum(second, axis=1))

      return jax.grad(lambda p: -maximized(p))(params)

    attempts = Correction('attempt', FREE, False)
    corrected = taught(
      world,
      'stage II',
      behaviour,
      params,
      reference,
      groups=(1, 1),
      baseline='none',
      correction=attempts,
    )
    found = expected(params, reference, behaviour)
    assert apart(exact(world, 'stage II', params, reference), found) > 0.01
  assert_close(corrected, found, 1e-9)


def test_each_token_is_taught_by_its_own_weight():
  """The gradient at a token's logits is its weight times the plain one."""
  rows = tiny.trajectory(
    [[5, 3]] * 2, [((3, 0), (4, 5, 0)), ((5, 6), (3, 0))], [[6, 4]], 12
  )
  model = tiny.ColumnLogits((*rows.tokens.shape, 7))
  params, reference = (tiny.params_of(model, seed) for seed in range(2))
  logits = jnp.asarray(params['logits'])
  logp = tiny.token_logp(logits, rows.tokens)
  shift = jnp.asarray(np.random.default_rng(5).normal(size=logp.shape))
  sampled = jnp.where(rows.turn > 0, logp - shift, 0.0)
  batch = Batch(
    dataclasses.replace(rows, logp=sampled.astype(jnp.float32)),
    jnp.asarray([[0.0, 1.0], [1.0, 0.0]]),
  )

  def gradient(chosen):
    learning = tiny.learning(tiny.STAGE_TWO, correction=chosen)

    @jax.jit
    def of(params):
      return jax.grad(learner.loss_and_metrics, argnums=2, has_aux=True)(
        model, learning, params, reference, jnp.float32(0), batch
      )

    grads, metrics = of(params)
    moved = jnp.pad(grads['logits'][:, :-1], ((0, 0), (1, 0), (0, 0)))
    return np.asarray(moved), metrics

  plain, without = gradient(None)
  capped, metrics = gradient(Correction('token', 1.5, False))
  weight = np.where(rows.turn > 0, np.minimum(np.exp(shift), 1.5), 1.0)
  assert (weight == 1.5).any()
  np.testing.assert_allclose(capped, weight[..., None] * plain, atol=1e-5)
  assert {*metrics} - {*without} == {
    'weight_mean',
    'weight_capped',
    'weight_ess',
  }
  for name, value in without.items():  # All else is as it was.
    np.testing.assert_array_equal(metrics[name], value)
