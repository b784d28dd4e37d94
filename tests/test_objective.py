"""The mathematics of the paper, by hand and by listing every attempt."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from score_jax import objective
from score_jax.objective import Groups
from score_jax.policy import TokenScores

RIGHT_OR_WRONG = jnp.asarray([[1.0, 1.0], [0.0, 0.0], [0.0, 1.0], [1.0, 0.0]])


def test_stage_one_pays_the_second_attempt_and_holds_the_first():
  stage = objective.stage_one(2, 2, beta1=0.01, gamma=0.0, kl_estimator='k1')
  paid = objective.shaped_reward(stage, RIGHT_OR_WRONG)
  np.testing.assert_array_equal(paid, [[0, 1], [0, 0], [0, 1], [0, 0]])
  weights = objective.kl_weights(stage, jnp.float32(0.1))
  np.testing.assert_allclose(weights, [[0.1, 0.01]])


def test_stage_two_pays_both_attempts_and_the_progress_of_the_second():
  stage = objective.stage_two(2, 10.0, beta1=0.01, gamma=0.0, kl_estimator='k1')
  paid = objective.shaped_reward(stage, RIGHT_OR_WRONG)
  # Right to right, wrong to wrong, wrong to right, right to wrong.
  np.testing.assert_array_equal(paid, [[1, 1], [0, 0], [0, 11], [1, -10]])
  weights = objective.kl_weights(stage, jnp.float32(0.1))
  np.testing.assert_allclose(weights, [[0.01, 0.01]])


def test_with_three_turns_stage_one_teaches_one_attempt_after_the_other():
  common = {'beta1': 0.01, 'gamma': 0.0, 'kl_estimator': 'k1'}
  second = objective.stage_one(3, 2, **common)
  third = objective.stage_one(3, 3, **common)
  assert (second.reward, second.held) == ((0, 1, 0), (True, False, False))
  assert (third.reward, third.held) == ((0, 0, 1), (True, True, False))


def test_with_three_turns_progress_is_paid_against_the_attempt_before():
  stage = objective.stage_two(3, 10.0, 0.01, 0.0, 'k1')
  paid = objective.shaped_reward(stage, jnp.asarray([[0.0, 1.0, 0.0]]))
  np.testing.assert_array_equal(paid, [[0, 11, -10]])


def test_turn_sums_read_nothing_but_the_own_tokens_of_a_turn():
  x = jnp.asarray([[jnp.nan, 1.0, 2.0, jnp.inf, 4.0, 8.0, -jnp.inf]])
  turn = jnp.asarray([[0, 1, 1, 0, 2, 2, 0]])
  np.testing.assert_array_equal(objective.turn_sums(x, turn, 2), [[3, 12]])


def test_returns_discount_what_later_turns_earn():
  value = jnp.asarray([[1.0, 10.0, 100.0]])
  np.testing.assert_allclose(objective.returns(value, 0.0), value)
  np.testing.assert_allclose(objective.returns(value, 0.5), [[31, 60, 100]])
  np.testing.assert_allclose(objective.returns(value, 1.0), [[111, 110, 100]])


jitted_advantages = jax.jit(objective.advantages, static_argnums=(2, 3))


def advantages(value, groups, valid=None, baseline='leave_one_out'):
  value = jnp.asarray(value, jnp.float32)
  valid = jnp.ones(value.shape, bool) if valid is None else jnp.asarray(valid)
  return np.asarray(jitted_advantages(value, valid, groups, baseline))


def test_the_baseline_is_the_mean_of_the_siblings_at_the_same_turn():
  value = [[1, 50], [2, 10], [6, 0], [7, 7], [7, 7], [7, 13]]
  # 1 - (2 + 6) / 2 = -3; 50 - (10 + 0) / 2 = 45; ...
  expected = [[-3, 45], [-1.5, -15], [4.5, -30], [0, -3], [0, -3], [0, 6]]
  np.testing.assert_allclose(advantages(value, Groups(3, 1)), expected)


def test_second_attempts_are_compared_with_those_that_share_their_first():
  value = [[4, 1], [4, 3], [4, 8], [10, 0], [10, 30], [10, 60]]
  # Turn 1: 4 against 10. Turn 2: 1 - (3 + 8) / 2 = -4.5; ...
  turn_one = [-6, -6, -6, 6, 6, 6]
  turn_two = [-4.5, -1.5, 6, -45, 0, 45]
  expected = np.stack([turn_one, turn_two], axis=1)
  np.testing.assert_allclose(advantages(value, Groups(2, 3)), expected)


def test_copies_of_a_first_attempt_count_by_their_mean_return():
  # With a discount what follows differs between the copies.
  value = [[1, 0], [3, 0], [8, 0], [10, 0]]
  found = advantages(value, Groups(2, 2))[:, 0]
  np.testing.assert_allclose(found, [2 - 9, 2 - 9, 9 - 2, 9 - 2])


def test_without_a_baseline_the_advantage_is_the_return():
  value = [[1, 50], [2, 10]]
  valid = [[True, True], [True, False]]
  found = advantages(value, Groups(2, 1), valid, 'none')
  np.testing.assert_allclose(found, [[1, 50], [2, 0]])


def test_an_unknown_baseline_is_refused():
  with pytest.raises(ValueError, match="got 'mean'"):
    advantages(np.zeros((4, 2)), Groups(4, 1), baseline='mean')


def test_a_masked_attempt_earns_nothing_and_is_no_baseline():
  value = [[1, 1], [2, 2], [6, 6], [90, 90]]
  valid = [[True, True], [True, True], [True, False], [False, True]]
  # Turn 1: 1, 2, 6 alone. Turn 2: 1, 2, 90 alone.
  expected = [[-3, -45], [-1.5, -43.5], [4.5, 0], [0, 88.5]]
  np.testing.assert_allclose(advantages(value, Groups(4, 1), valid), expected)


def test_an_attempt_whose_siblings_are_all_masked_teaches_nothing():
  valid = [[True, False], [False, True], [True, True], [True, True]]
  value = [[5, 5], [6, 6], [1, 1], [3, 3]]
  found = advantages(value, Groups(2, 1), valid)
  np.testing.assert_allclose(found, [[0, 0], [0, 0], [-2, -2], [2, 2]])
  shared = advantages(value, Groups(1, 2), valid)[:, 1]
  np.testing.assert_allclose(shared, [0, 0, -2, 2])


def test_rows_that_are_not_whole_groups_are_refused():
  with pytest.raises(ValueError, match=r'groups of 2 x 2; got 6'):
    advantages(np.zeros((6, 2)), Groups(2, 2))


def test_an_unknown_estimator_is_refused():
  stage = dataclasses.replace(tiny.STAGE_ONE, kl_estimator='k4')
  zeros = jnp.zeros((1, 3))
  scores = TokenScores(zeros, zeros, zeros, zeros)
  with pytest.raises(ValueError, match="exact; got 'k4'"):
    objective.kl_terms(stage, scores, jnp.ones((1, 3), int))


def test_the_loss_is_minus_advantage_times_log_probability_plus_weighted_kl():
  turn = jnp.asarray([[0, 1, 1, 0, 2], [0, 1, 0, 2, 2]])
  logp = -jnp.asarray([[9.0, 1, 2, 9, 3], [9, 4, 9, 5, 6]])
  advantage = jnp.asarray([[10.0, 100.0], [20.0, 200.0]])
  kl = jnp.asarray([[1.0, 2.0], [3.0, 4.0]])
  found = objective.loss(advantage, kl, jnp.asarray([[0.5, 0.1]]), logp, turn)
  first = -(10 * -3 + 100 * -3) + 0.5 * 1 + 0.1 * 2
  second = -(20 * -4 + 200 * -11) + 0.5 * 3 + 0.1 * 4
  np.testing.assert_allclose(found, (first + second) / 2, rtol=1e-6)


def test_no_gradient_passes_through_the_advantage():
  turn, logp = jnp.asarray([[1, 2]]), jnp.asarray([[-1.0, -2.0]])

  def loss(advantage):
    weights = jnp.ones((1, 2))
    return objective.loss(advantage, advantage * 0, weights, logp, turn)

  gradient = jax.jit(jax.grad(loss))(jnp.asarray([[3.0, 4.0]]))
  np.testing.assert_array_equal(gradient, [[0, 0]])


def next_beta2(beta2, kl, value, rate=1.0, low=1e-3, high=1e3):
  found = objective.next_beta2(
    jnp.float32(beta2),
    jnp.float32(kl),
    jnp.float32(value),
    rate,
    0.5,
    low,
    high,
  )
  return float(found)


def test_beta2_goes_to_where_its_kl_weighs_a_fraction_of_the_objective():
  # 0.5 * |0.8| / 0.2 = 2, reached at once at rate 1, half way in the logarithm
  # at rate 1/2, never at rate 0.
  assert next_beta2(0.5, kl=0.2, value=-0.8) == pytest.approx(2.0)
  assert next_beta2(0.5, kl=0.2, value=0.8, rate=0.5) == pytest.approx(1.0)
  assert next_beta2(0.5, kl=0.2, value=0.8, rate=0.0) == pytest.approx(0.5)


def test_beta2_rises_with_a_small_kl_and_falls_with_a_large_one():
  assert next_beta2(0.1, kl=0.01, value=1.0, rate=0.1) > 0.1
  assert next_beta2(0.1, kl=100.0, value=1.0, rate=0.1) < 0.1


def test_beta2_stays_in_its_range_whatever_the_magnitudes_are():
  assert next_beta2(0.5, kl=-1.0, value=9.0, high=0.7) == pytest.approx(0.7)
  assert next_beta2(0.5, kl=9.0, value=0.0, low=0.3) == pytest.approx(0.3)


# Every attempt of at most two tokens over {0, 1, 2}, of which 0 ends it: the
# context before the first token is one row of a table, each first token that
# does not end it another.
ATTEMPTS = tiny.attempts(2)
FIRST = np.array([a[0] for a in ATTEMPTS])
SECOND = np.array([a[1] if len(a) == 2 else 0 for a in ATTEMPTS])
LONG = np.array([len(a) == 2 for a in ATTEMPTS])


def _tables():
  rng = np.random.default_rng(3)
  return (
    jax.nn.log_softmax(jnp.asarray(rng.normal(size=(3, 3)))) for _ in '12'
  )


def _logp(table):
  """Returns [7, 2]: of the tokens of each attempt, 0 where there is none."""
  logp = jax.nn.log_softmax(table, axis=-1)
  return jnp.stack(
    [logp[0, FIRST], jnp.where(LONG, logp[FIRST, SECOND], 0.0)], axis=1
  )


def _scores(table, reference):
  """Returns the scores of all attempts, a row each, in turn 1."""
  logp, reference_logp = _logp(table), _logp(reference)
  policy = jax.nn.log_softmax(table, axis=-1)
  gap = policy - jax.nn.log_softmax(reference, axis=-1)
  kl = jnp.sum(jnp.exp(policy) * gap, axis=-1)
  kl = jnp.stack([jnp.full(len(ATTEMPTS), kl[0]), kl[FIRST]], axis=1)
  turn = jnp.stack([jnp.ones(LONG.shape, int), jnp.asarray(LONG, int)], axis=1)
  return TokenScores(logp, logp * 0, reference_logp, kl), turn


def _exact_kl(table, reference):
  """Returns KL(policy || reference) between whole attempts."""
  logp = jnp.sum(_logp(table), axis=1)
  return jnp.sum(jnp.exp(logp) * (logp - jnp.sum(_logp(reference), axis=1)))


def _expected(table, of_attempt):
  chance = jax.lax.stop_gradient(jnp.exp(jnp.sum(_logp(table), axis=1)))
  return jnp.sum(chance * of_attempt)


def _kl_terms(table, reference, estimator):
  stage = objective.Stage((1.0,), 0.0, (False,), 1.0, 0.0, estimator)
  scores, turn = _scores(table, reference)
  return objective.kl_terms(stage, scores, turn), scores, turn


@pytest.mark.parametrize('estimator', ['k1', 'k2', 'k3', 'exact'])
def test_the_expected_gradient_of_each_estimator_is_that_of_the_kl(estimator):
  @jax.jit
  def gradients(table, reference):
    def loss(table):
      (number, term), scores, turn = _kl_terms(table, reference, estimator)
      logp = objective.turn_sums(scores.logp, turn, 1)
      return _expected(table, (number * logp + term)[:, 0])

    return jax.grad(loss)(table), jax.grad(_exact_kl)(table, reference)

  with jax.enable_x64(True):
    found, expected = gradients(*_tables())
  np.testing.assert_allclose(found, expected, atol=1e-12)
  assert np.abs(expected).max() > 0.1


@pytest.mark.parametrize('estimator', ['k1', 'k3', 'exact'])
def test_the_number_in_the_return_has_the_kl_as_its_mean(estimator):
  @jax.jit
  def means(table, reference):
    (number, _), _, _ = _kl_terms(table, reference, estimator)
    return _expected(table, number[:, 0]), _exact_kl(table, reference)

  with jax.enable_x64(True):
    found, expected = means(*_tables())
  np.testing.assert_allclose(found, expected, atol=1e-12)


def test_the_numbers_and_losses_of_the_estimators_are_these():
  logp = jnp.log(jnp.asarray([[0.5, 0.25, 0.125]]))
  reference = jnp.log(jnp.asarray([[0.25, 0.5, 0.125]]))
  kl = jnp.asarray([[3.0, 4.0, 5.0]])
  scores = TokenScores(logp, logp * 0, reference, kl)
  turn = jnp.asarray([[1, 2, 2]])
  two = float(jnp.log(2.0))

  def terms(estimator):
    stage = dataclasses.replace(tiny.STAGE_ONE, kl_estimator=estimator)
    return [np.asarray(x[0]) for x in objective.kl_terms(stage, scores, turn)]

  k3 = [0.5 - 1 + two, 2 - 1 - two]
  np.testing.assert_allclose(terms('k1'), [[two, -two], [0, 0]])
  np.testing.assert_allclose(terms('k2'), [[0, 0], [two**2 / 2, two**2 / 2]])
  np.testing.assert_allclose(terms('k3'), [k3, k3], rtol=1e-6)
  np.testing.assert_allclose(terms('exact'), [[3, 9], [3, 9]])


def test_other_tokens_cannot_spoil_an_estimator():
  wild = jnp.asarray([[-1e4, -1.0, -1.0]])
  scores = TokenScores(wild, wild * 0, wild * 0 - 2, wild * jnp.inf)
  turn = jnp.asarray([[0, 1, 2]])

  @jax.jit
  def gradient(logp):
    def loss(logp):
      both = dataclasses.replace(scores, logp=logp)
      stage = dataclasses.replace(tiny.STAGE_ONE, kl_estimator='k3')
      return jnp.sum(objective.kl_terms(stage, both, turn)[1])

    return jax.grad(loss)(logp)

  # d/du [exp(-u) - 1 + u] = 1 - exp(-u) at u = 1.
  expected = [[0, 1 - np.exp(-1), 1 - np.exp(-1)]]
  np.testing.assert_allclose(gradient(wild), expected, rtol=1e-6)


def test_k1_as_a_loss_teaches_nothing_on_average():
  @jax.jit
  def gradient(table, reference):
    def loss(table):
      k1 = jnp.sum(_logp(table) - _logp(reference), axis=1)
      return _expected(table, k1)

    return jax.grad(loss)(table)

  with jax.enable_x64(True):
    found = gradient(*_tables())
  np.testing.assert_allclose(found, 0, atol=1e-12)


def test_k3_as_a_loss_alone_descends_the_kl_from_reference_to_policy():
  """Of the tokens after each prefix, prefixes weighed as the policy has them."""

  @jax.jit
  def gradients(table, reference):
    def loss(table):
      (_, term), _, _ = _kl_terms(table, reference, 'k3')
      return _expected(table, term[:, 0])

    def forward(table):
      policy = jax.nn.log_softmax(table, axis=-1)
      base = jax.nn.log_softmax(reference, axis=-1)
      kl = jnp.sum(jnp.exp(base) * (base - policy), axis=-1)
      reached = jnp.exp(policy[0]).at[0].set(1.0)  # Row 0 always is.
      return jnp.sum(jax.lax.stop_gradient(reached) * kl)

    return (
      jax.grad(loss)(table),
      jax.grad(forward)(table),
      jax.grad(_exact_kl)(table, reference),
    )

  with jax.enable_x64(True):
    found, forward, reverse = gradients(*_tables())
  np.testing.assert_allclose(found, forward, atol=1e-12)
  assert np.abs(forward - reverse).max() > 0.01
