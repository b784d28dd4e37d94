"""What each baseline makes of the gradient, by listing all that can be drawn.

One turn of one token over three words, each with its reward: a group of M
attempts is one of 3^M. Then whole trajectories of two turns, whose greedy
attempts are looked up.

Letters: B rows, T turns, M siblings.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import tiny

from score_jax import learner, objective
from score_jax.learner import Batch
from score_jax.objective import Groups

LOGITS = jnp.asarray([0.3, -0.5, 0.9])
REWARD = jnp.asarray([1.0, 0.0, 0.0])


def expected_gradient(baseline, siblings, given=None, reward=REWARD):
  """Returns the mean gradient over all groups, an ascent direction."""
  groups = np.array(list(itertools.product(range(3), repeat=siblings)))

  @jax.jit
  def of(logits):
    def gain(logits):
      logp = jax.nn.log_softmax(logits)[groups]
      chance = jax.lax.stop_gradient(jnp.exp(jnp.sum(logp, axis=1)))

      def of_group(rewards):
        value = rewards[:, None]
        return objective.advantages(
          value,
          jnp.ones(value.shape, bool),
          Groups(siblings, 1),
          baseline,
          given,
        )[:, 0]

      advantage = jax.vmap(of_group)(reward[groups])
      return jnp.sum(chance[:, None] * advantage * logp) / siblings

    return jax.grad(gain)(logits)

  with jax.enable_x64(True):
    return np.asarray(of(LOGITS))


def policy_gradient(reward=REWARD):
  @jax.jit
  def gradient(logits):
    return jax.grad(lambda x: jnp.sum(jax.nn.softmax(x) * reward))(logits)

  with jax.enable_x64(True):
    return np.asarray(gradient(LOGITS))


@pytest.mark.parametrize(
  ('baseline', 'given'),
  [
    ('leave_one_out', None),
    ('none', None),
    ('remax', [[0.0]]),
    ('remax', [[1.0]]),
    ('moving_average', [[0.37]]),
  ],
)
@pytest.mark.parametrize('siblings', [2, 3])
def test_unbiased_baselines_leave_the_policy_gradient(
  baseline, given, siblings
):
  given = None if given is None else jnp.asarray(given)
  rewards = jnp.asarray([1.0, 0.2, -0.4])
  found = expected_gradient(baseline, siblings, given, rewards)
  expected = policy_gradient(rewards)
  np.testing.assert_allclose(found, expected, atol=1e-7)
  assert np.abs(expected).max() > 0.1


def group_factor(chance, siblings):
  """Returns what group normalisation multiplies the gradient of p by.

  With k of M right, a right attempt has sqrt((M - k) / k), a wrong one minus
  sqrt(k / (M - k)), and the score function's mean over right ones is grad p / p
  and over wrong ones - grad p / (1 - p).
  """
  total = 0.0
  for others in range(siblings):
    weight = scipy.stats.binom.pmf(others, siblings - 1, chance)
    with_me = others + 1
    total += weight * math.sqrt((siblings - with_me) / with_me)
    total += weight * math.sqrt(others / (siblings - others))
  return total


@pytest.mark.parametrize('siblings', [2, 3, 5])
def test_group_normalisation_rescales_the_gradient_of_each_problem(siblings):
  chance = float(jax.nn.softmax(LOGITS)[0])
  expected = group_factor(chance, siblings) * policy_gradient()
  found = expected_gradient('group', siblings)
  np.testing.assert_allclose(found, expected, rtol=1e-4)
  # With two rewards, a pair is normalised to their difference: leave-one-out.
  same = siblings == 2
  assert (abs(group_factor(chance, siblings) - 1) < 1e-9) == same


@pytest.mark.parametrize('chance', [0.1, 0.5, 0.8])
def test_large_groups_climb_two_arcsin_of_the_root_of_the_chance(chance):
  step = 1e-6
  slope = (
    2 * math.asin(math.sqrt(chance + step))
    - 2 * math.asin(math.sqrt(chance - step))
  ) / (2 * step)
  assert group_factor(chance, 2000) == pytest.approx(slope, rel=2e-3)


def test_a_group_of_equals_teaches_nothing():
  value = jnp.full((4, 2), 0.7)
  found = objective.advantages(
    value, jnp.ones((4, 2), bool), Groups(4, 1), 'group'
  )
  np.testing.assert_array_equal(found, np.zeros((4, 2)))


def test_group_normalisation_by_hand():
  value = jnp.asarray([[1.0, 5.0], [0.0, 5.0], [0.0, 9.0], [3.0, 5.0]])
  valid = jnp.asarray([[True, True], [True, True], [False, True], [True, True]])
  found = objective.advantages(value, valid, Groups(4, 1), 'group')
  # Turn 1: 1, 0, 3 of mean 4/3 and variance 14/9. Turn 2: mean 6, variance 3.
  one = (np.array([1, 0, 4 / 3, 3]) - 4 / 3) / math.sqrt(14 / 9)
  two = np.array([-1, -1, 3, -1]) / math.sqrt(3)
  np.testing.assert_allclose(found, np.stack([one, two], 1), rtol=1e-5)


def test_a_moving_average_is_the_plain_mean_at_first_and_then_forgets():
  average = jnp.zeros(1)
  values = np.random.default_rng(0).normal(size=30)
  for step, value in enumerate(values[:10]):
    average = objective.next_average(average, jnp.asarray([value]), step)
    assert float(average[0]) == pytest.approx(
      values[: step + 1].mean(), abs=1e-6
    )
  before = float(average[0])
  for step, value in enumerate(values[10:], start=10):
    average = objective.next_average(average, jnp.asarray([value]), step)
  late = sum(0.1 * 0.9 ** (19 - i) * v for i, v in enumerate(values[10:]))
  assert float(average[0]) == pytest.approx(0.9**20 * before + late, abs=1e-5)


def test_a_moving_average_converges_to_the_mean_return():
  average, rng = jnp.zeros(1), np.random.default_rng(1)
  update = jax.jit(objective.next_average)
  for step in range(300):
    value = jnp.asarray([rng.normal(3.0, 0.1)], jnp.float32)
    average = update(average, value, step)
  # Its deviation: .1 sqrt(.1 / 1.9) = .023.
  assert float(average[0]) == pytest.approx(3.0, abs=0.1)


# Two turns, one token each over three words; what a greedy attempt on each
# context earns is looked up, as the sampler and the grader would say it.
MODEL = tiny.PrefixTable(vocab_size=3, columns=4)
PROMPT, INSTRUCTION = [1], [2]
PAIRS = list(itertools.product(range(3), repeat=2))
FIRST = np.array([0.0, 1.0, 0.0])
SECOND = np.array([[0.0, 1.0, 0.2], [1.0, 0.0, 0.5], [0.0, 0.0, 1.0]])


def batch():
  """Returns all nine pairs of attempts, the greedy ones' rewards beside them."""
  rows = tiny.trajectory(
    [PROMPT] * 9, [((a,), (b,)) for a, b in PAIRS], [INSTRUCTION], 5
  )
  reward = np.array([[FIRST[a], SECOND[a, b]] for a, b in PAIRS])
  greedy_one = int(np.argmax(chances()[0].sum(axis=1)))
  greedy_two = np.argmax(chances()[0], axis=1)
  greedy = np.array(
    [[FIRST[greedy_one], SECOND[a, greedy_two[a]]] for a, _ in PAIRS]
  )
  return Batch(rows, jnp.asarray(reward), jnp.asarray(greedy))


@functools.cache
def table():
  rng = np.random.default_rng(5)
  rows = sum(3**i for i in range(5))
  return {'table': jnp.asarray(rng.normal(size=(rows, 3)))}


def log_chances(params):
  """Returns [3, 3], log p of each pair; closing tokens are constants."""
  rows = tiny.trajectory(
    [PROMPT] * 9, [((a,), (b,)) for a, b in PAIRS], [INSTRUCTION], 5
  )
  logits = tiny.logits_of(MODEL, params, rows.tokens)
  logp = tiny.token_logp(logits, rows.tokens)
  return jnp.sum(jnp.where(rows.turn > 0, logp, 0.0), axis=1).reshape(3, 3)


@functools.cache
def chances():
  return (np.asarray(jnp.exp(log_chances(table()))),)


STAGE = objective.Stage((1.0, 1.0), 10.0, (False, False), 0.0, 0.0, 'k1')


def learned(learning, rows, average=None):
  """Returns the mean gradient over all pairs, each a batch of its own."""

  def loss(params, row):
    one = jax.tree.map(lambda x: x[row][None], rows)
    return learner.loss_and_metrics(
      MODEL, learning, params, table(), jnp.asarray(0.0), one, average=average
    )[0]

  @jax.jit
  def gradient(params):
    weight = jnp.exp(log_chances(params)).reshape(-1)
    each = jax.vmap(jax.grad(loss), (None, 0))(params, jnp.arange(9))
    return jnp.einsum('b,brv->rv', weight, each['table'])

  return np.asarray(gradient(table()))


def test_greedy_and_averaged_baselines_leave_the_gradient_of_stage_two():
  rows = batch()
  single = {'groups': Groups(1, 1)}
  plain = Batch(rows.trajectory, rows.reward)
  expected = learned(tiny.learning(STAGE, baseline='none', **single), plain)
  remax = learned(tiny.learning(STAGE, baseline='remax', **single), rows)
  average = jnp.asarray([0.4, -2.0])
  moving = learned(
    tiny.learning(STAGE, baseline='moving_average', **single), plain, average
  )
  np.testing.assert_allclose(remax, expected, atol=1e-5)
  np.testing.assert_allclose(moving, expected, atol=1e-5)
  assert np.abs(expected).max() > 0.1


def test_the_greedy_attempt_is_paid_on_the_context_of_the_row():
  reward = jnp.asarray([[1.0, 0.0], [0.0, 0.0]])
  greedy = jnp.asarray([[1.0, 1.0], [1.0, 1.0]])
  # Second turn: 1 + 10 (1 - r(y1) of the row itself).
  found = objective.paid_for(STAGE, greedy, reward)
  np.testing.assert_array_equal(found, [[1, 1], [1, 11]])


def test_turns_that_are_not_taught_send_no_gradient_by_reward_or_kl():
  rows = batch()
  plain = Batch(rows.trajectory, rows.reward)
  single = {'groups': Groups(1, 1), 'baseline': 'none'}

  def of(taught):
    stage = objective.Stage(
      (1.0, 1.0), 0.0, (False, False), 0.5, 0.0, 'exact', taught
    )
    return learned(tiny.learning(stage, **single), plain)

  both, first, second = of(()), of((True, False)), of((False, True))
  np.testing.assert_allclose(first + second, both, atol=1e-6)
  # The table's row of the prompt decides the first attempt, and no other.
  prompt = 1 + 1
  assert np.abs(first[prompt]).max() > 0.01
  np.testing.assert_array_equal(second[prompt], 0)
  np.testing.assert_array_equal(np.delete(first, prompt, axis=0), 0)
