"""How a batch is cut, run and stored changes nothing that is learned.

What is learned is in `test_method.py`.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from score_jax import (
  correction,
  learner,
  likelihood,
  optimizers,
  reading,
  sampler,
)
from score_jax.learner import Batch
from score_jax.likelihood import Examples
from score_jax.policy import Policy

MODEL = tiny.transformer(unroll=False)
RATE, BETA2 = 0.05, 0.1
SGD, ADAM = optax.sgd(RATE), optax.adam(RATE)
LEARNING = tiny.learning(tiny.STAGE_ONE)
ADAPTIVE = dataclasses.replace(
  LEARNING, beta2_rate=0.5, beta2_fraction=0.2, beta2_low=1e-4
)
TRUNCATED = tiny.learning(
  tiny.STAGE_TWO, policy=Policy(temperature=0.8, top_k=3), beta2_rate=0.5
)


@functools.cache
def params_of(seed):
  return tiny.params_of(MODEL, seed)


def sample(sampling):
  return sampler.make_sampler(MODEL, sampling)(
    params_of(0),
    tiny.prompts([[3, 4, 5], [4], [6, 3], [5]], 3),
    (jnp.asarray([5, 6], jnp.int32),),
    jax.random.key(0),
  )


@pytest.fixture(scope='module')
def batch():
  """Eight rows, sampled by the parameters of seed 0, rewarded at random."""
  reward = np.random.default_rng(0).random((8, 2))
  trajectory = sample(tiny.sampling(first_attempts=2))
  return Batch(trajectory, jnp.asarray(reward, jnp.float32))


def fresh_state(optimizer=SGD, seed=0):
  params = jax.tree.map(jnp.copy, params_of(seed))
  return learner.init_state(params, optimizer, BETA2)


@functools.cache
def update_of(learning, optimizer=SGD, **execution):
  model = tiny.transformer(**{'unroll': False, **execution})
  return learner.make_update(model, optimizer, learning)


def gradient(batch, learning=LEARNING, **execution):
  """Returns what one step of plain descent did to the parameters."""
  update = update_of(learning, **execution)
  state, metrics = update(fresh_state(), params_of(1), batch)
  taught = jax.tree.map(lambda a, b: (a - b) / RATE, params_of(0), state.params)
  return taught, metrics


@pytest.fixture(scope='module')
def plain(batch):
  return gradient(batch)


def assert_same(found, expected, tolerance):
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=0, atol=tolerance),
    found,
    expected,
  )


def test_the_update_goes_down_the_gradient_of_the_loss(batch, plain):
  @jax.jit
  def both(params):
    return jax.value_and_grad(learner.loss_and_metrics, 2, has_aux=True)(
      MODEL, LEARNING, params, params_of(1), jnp.float32(BETA2), batch
    )

  (loss, _), expected = both(params_of(0))
  taught, metrics = plain
  assert_same(taught, expected, 1e-5)
  np.testing.assert_allclose(metrics['loss'], loss, rtol=1e-5)
  squares = [np.sum(np.square(x)) for x in jax.tree.leaves(expected)]
  np.testing.assert_allclose(
    metrics['grad_norm'], np.sqrt(sum(squares)), rtol=1e-5
  )
  assert metrics['grad_norm'] > 0.1


def test_a_batch_in_parts_teaches_what_it_teaches_at_once(batch, plain):
  learning = dataclasses.replace(LEARNING, accumulation=2)
  taught, metrics = gradient(batch, learning)
  assert_same(taught, plain[0], 1e-5)
  for name in ('reward', 'paid', 'value', 'kl', 'truncated', 'tokens', 'loss'):
    np.testing.assert_allclose(metrics[name], plain[1][name], atol=1e-5)
  for name in ('logp_gap_max', 'advantage', 'credit', 'token_kl'):
    np.testing.assert_allclose(metrics[name], plain[1][name], atol=1e-5)


def test_the_size_of_a_chunk_changes_nothing(batch, plain):
  learning = dataclasses.replace(LEARNING, logits_chunk=24)
  assert_same(gradient(batch, learning)[0], plain[0], 1e-5)


@pytest.mark.parametrize('unroll', [False, True])
def test_the_library_of_products_changes_nothing(batch, plain, unroll):
  taught, _ = gradient(batch, products='onednn', unroll=unroll)
  assert_same(taught, plain[0], 1e-5)


def test_how_the_decoder_runs_changes_nothing(batch, plain):
  taught, _ = gradient(batch, remat='block', unroll=True)
  assert_same(taught, plain[0], 1e-5)


def test_scoring_attempts_alone_changes_nothing(batch, plain):
  longest = tiny.sampling(first_attempts=2).max_tokens
  assert sum(longest) < batch.trajectory.tokens.shape[1]
  alone = dataclasses.replace(LEARNING, attempt_tokens=longest)
  for chunk in (1024, 12):
    learning = dataclasses.replace(alone, logits_chunk=chunk)
    taught, metrics = gradient(batch, learning)
    assert_same(taught, plain[0], 1e-5)
    assert_same(metrics, plain[1], 1e-5)


@pytest.mark.parametrize('unroll', [True, False])
def test_reading_a_prompt_once_for_its_group_changes_nothing(
  batch, plain, unroll
):
  once = dataclasses.replace(LEARNING, prompt_tokens=3)
  longest = tiny.sampling(first_attempts=2).max_tokens
  for alone in ((), longest):
    learning = dataclasses.replace(once, attempt_tokens=alone)
    taught, metrics = gradient(batch, learning, unroll=unroll)
    assert_same(taught, plain[0], 1e-5)
    assert metrics.pop('padding') < plain[1]['padding']
    rest = {name: plain[1][name] for name in metrics}
    assert_same(metrics, rest, 1e-5)


def test_prompts_read_once_run_in_parts_and_recompute_alike(batch, plain):
  once = dataclasses.replace(LEARNING, prompt_tokens=3, accumulation=2)
  taught, metrics = gradient(batch, once, remat='block')
  assert_same(taught, plain[0], 1e-5)
  np.testing.assert_allclose(
    metrics['token_kl'], plain[1]['token_kl'], atol=1e-5
  )


def with_short_groups(batch):
  """Returns the batch with the second attempts of every other group empty."""
  t = batch.trajectory
  short = jnp.asarray([True, True, False, False] * 2)
  start = t.span[:, 1, 0]
  t = dataclasses.replace(
    t,
    length=jnp.where(short, start, t.length),
    turn=jnp.where(short[:, None] & (t.turn == 2), 0, t.turn),
    span=t.span.at[:, 1, 1].set(jnp.where(short, start, t.span[:, 1, 1])),
  )
  return dataclasses.replace(batch, trajectory=t)


@pytest.mark.parametrize('prompt', [0, 3])
def test_rows_read_no_wider_than_needed_teach_the_same(batch, prompt):
  batch = with_short_groups(batch)
  expected, plain = gradient(batch)
  learning = dataclasses.replace(
    LEARNING, accumulation=2, prompt_tokens=prompt, widths=(0.7, 0.8, 0.9)
  )
  taught, metrics = gradient(batch, learning)
  assert_same(taught, expected, 1e-5)
  for name in ('reward', 'kl', 'tokens', 'logp_gap_max', *learner.ROWS):
    np.testing.assert_allclose(metrics[name], plain[name], atol=1e-5)
  assert metrics['padding'] < plain['padding'] - 0.05


def test_the_gap_to_the_sampler_is_rounding_right_after_sampling(plain):
  assert 0 < plain[1]['logp_gap_max'] <= 1e-5
  assert plain[1]['logp_gap_mean'] <= plain[1]['logp_gap_max']


def test_the_gap_to_the_sampler_shows_that_parameters_are_stale(batch):
  _, metrics = update_of(LEARNING)(fresh_state(seed=2), params_of(1), batch)
  assert metrics['logp_gap_mean'] > 0.1
  assert metrics['logp_gap_max'] > metrics['logp_gap_mean']


def test_the_state_that_is_passed_in_is_donated(batch):
  state = fresh_state()
  update_of(LEARNING)(state, params_of(1), batch)
  assert all(x.is_deleted() for x in jax.tree.leaves(state.params))


def host(tree):
  return jax.tree.map(np.asarray, tree)


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_an_update_that_is_not_finite_changes_nothing_and_is_counted(
  batch, bad
):
  update = update_of(ADAPTIVE, ADAM)
  reference = params_of(1)
  state, _ = update(fresh_state(ADAM), reference, batch)
  good = host(state)
  assert good.skipped == 0
  assert good.beta2 != np.float32(BETA2)
  spoilt = dataclasses.replace(batch, reward=batch.reward.at[3, 1].set(bad))
  for count in (1, 2):
    state, metrics = update(state, reference, spoilt)
    found = host(state)
    for name in ('params', 'opt_state', 'beta2'):
      jax.tree.map(
        np.testing.assert_array_equal, getattr(found, name), getattr(good, name)
      )
    assert (found.step, found.skipped) == (1 + count, count)
    assert metrics['skipped'] == count
    assert not np.isfinite(metrics['loss'])
  state, _ = update(state, reference, batch)
  assert state.skipped == 0
  assert np.any(state.params['head'] != good.params['head'])


def test_an_update_is_skipped_that_a_finite_gradient_makes_infinite(batch):
  divides = optax.scale(np.inf)
  update = update_of(LEARNING, divides)
  state, metrics = update(fresh_state(divides), params_of(1), batch)
  assert np.isfinite(metrics['grad_norm'])
  assert metrics['skipped'] == 1
  assert_same(state.params, params_of(0), 0)


@pytest.mark.parametrize('level', [None, 'token', 'attempt'])
def test_means_over_tokens_are_those_of_the_whole_batch_in_parts_too(
  batch, level
):
  """Parts whose rows are shorter weigh less."""
  batch = with_short_groups(batch)
  chosen = correction.named('truncated', level, 2.0) if level else None
  whole = dataclasses.replace(LEARNING, correction=chosen)
  parts = dataclasses.replace(whole, accumulation=2, widths=(0.7, 0.8, 0.9))
  _, expected = update_of(whole)(fresh_state(seed=2), params_of(1), batch)
  _, found = update_of(parts)(fresh_state(seed=2), params_of(1), batch)
  names = {'entropy', 'logp_gap_mean'}
  if level:
    names |= {'weight_mean', 'weight_capped', 'weight_ess'}
  for name in names:
    np.testing.assert_allclose(found[name], expected[name], rtol=1e-5)
  assert 'sums' not in found


def test_adaptive_beta2_goes_half_way_to_its_goal_in_the_logarithm(batch):
  state, metrics = update_of(ADAPTIVE, ADAM)(
    fresh_state(ADAM), params_of(1), batch
  )
  goal = 0.2 * abs(metrics['value'][1]) / metrics['kl'][0]
  np.testing.assert_allclose(state.beta2, np.sqrt(BETA2 * goal), rtol=1e-5)
  assert metrics['beta2'] == state.beta2


def test_metrics_are_these_numbers():
  """Chances are powers of two: 1/2 for token 4, 1/8 for tokens 0 to 3."""
  rows = tiny.trajectory([[1]] * 2, [((3, 0), (0,)), ((4,), (3, 4))], [[5]], 7)
  rows = dataclasses.replace(
    rows, logp=jnp.where(rows.turn > 0, -0.5 * rows.turn, 0.0)
  )
  model = tiny.ColumnLogits((2, 7, 8))
  logits = jnp.log(jnp.asarray([1.0, 1, 1, 1, 4, 0, 0, 0]))
  params = {'logits': jnp.zeros((2, 7, 8)) + logits[None, None]}
  reference = {'logits': jnp.zeros((2, 7, 8))}
  reward = jnp.asarray([[0.0, 1.0], [1.0, 1.0]])
  learning = dataclasses.replace(
    LEARNING, stage=dataclasses.replace(tiny.STAGE_TWO, beta1=1.0)
  )
  _, metrics = jax.jit(
    lambda batch: learner.loss_and_metrics(
      model, learning, params, reference, jnp.float32(9), batch
    )
  )(Batch(rows, reward))
  two = np.log(2.0)
  # The reference, 1/8 for all, differs on token 4: ln 1/2 - ln 1/8.
  kl = np.array([[0.0, 0.0], [2 * two, 2 * two]])
  paid = np.array([[0.0, 11.0], [1.0, 1.0]])
  value = paid - kl
  gaps = [
    3 * two - 0.5,
    3 * two - 0.5,
    3 * two - 1,
    two - 0.5,
    3 * two - 1,
    1 - two,
  ]
  expected = {
    'reward': [0.5, 1.0],
    'paid': paid.mean(0),
    'value': value.mean(0),
    'kl': kl.mean(0),
    'entropy': [4 / 8 * 3 * two + 1 / 2 * two] * 2,
    'truncated': [0.5, 0.5],
    'tokens': [1.5, 1.5],
    'advantage': [value[0] - value[1], value[1] - value[0]],
    'credit': value,
    # An attempt cut off is closed before the instruction.
    'token_kl': [[0.0] * 7, [0, 2 * two, 0, 0, 0, 2 * two, 0]],
    'advantage_size': np.abs(value[0] - value[1]),
    'flat_groups': [0.0, 0.0],
    'logp_gap_mean': np.mean(gaps),
    'logp_gap_max': max(gaps),
  }
  assert set(metrics) == set(expected)
  for name, number in expected.items():
    np.testing.assert_allclose(metrics[name], number, rtol=1e-5, err_msg=name)


def test_groups_that_teach_nothing_are_counted():
  rows = tiny.trajectory([[1]] * 4, [((3, 0), (0,))] * 4, [[5]], 7)
  model = tiny.ColumnLogits((4, 7, 8))
  params = tiny.params_of(model)
  reward = jnp.asarray([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0], [1.0, 0.0]])
  free = dataclasses.replace(tiny.STAGE_TWO, beta1=0.0)
  _, metrics = jax.jit(
    lambda batch: learner.loss_and_metrics(
      model, tiny.learning(free), params, params, jnp.float32(0), batch
    )
  )(Batch(rows, reward))
  np.testing.assert_array_equal(metrics['flat_groups'], [1.0, 0.5])


@pytest.mark.parametrize(
  ('parts', 'products'), [(1, 'xla'), (2, 'xla'), (2, 'onednn')]
)
def test_imitation_descends_the_weighted_mean_of_minus_log_probability(
  parts, products
):
  rng = np.random.default_rng(1)
  tokens = jnp.asarray(rng.integers(0, 3, (4, 9)), jnp.int32)
  model = tiny.transformer(tiny.THREE_WORDS)
  start = tiny.params_of(model)
  weight = jnp.asarray(rng.random((4, 9)) * (rng.random((4, 9)) < 0.6))
  weight = weight.at[:, 0].set(0.0).astype(jnp.float32)

  @jax.jit
  def by_hand(params):
    def loss(params):
      logp = tiny.token_logp(tiny.logits_of(model, params, tokens), tokens)
      return -jnp.sum(weight * logp) / jnp.sum(weight)

    value, grads = jax.value_and_grad(loss)(params)
    changes, _ = ADAM.update(grads, ADAM.init(params), params)
    return value, optax.apply_updates(params, changes)

  loss, params = by_hand(start)
  model = tiny.transformer(tiny.THREE_WORDS, products=products)
  state, metrics = likelihood.make_imitation(model, ADAM, 16, None, parts)(
    learner.init_state(start, ADAM, BETA2), Examples(tokens, weight)
  )
  np.testing.assert_allclose(metrics['loss'], loss, rtol=1e-5)
  assert_same(state.params, params, 1e-5)
  assert state.step == 1


def rates(schedule, steps, clip_norm=0.0, warmup_steps=0, size=1.0):
  """Returns how far each of some steps of plain descent goes."""
  optimizer = optimizers.make_optimizer(
    'sgd', 0.1, schedule, warmup_steps, 4, 0.9, 0.999, 1e-8, 0.0, clip_norm
  )
  state = optimizer.init(jnp.float32(0))
  found = []
  for _ in range(steps):
    change, state = optimizer.update(jnp.float32(size), state, jnp.float32(0))
    found.append(-float(change))
  return found


def test_the_learning_rate_follows_its_schedule():
  assert rates('constant', 3) == pytest.approx([0.1, 0.1, 0.1])
  assert rates('linear', 5) == pytest.approx([0.1, 0.075, 0.05, 0.025, 0])
  cosine = [0.05 * (1 + np.cos(np.pi * i / 4)) for i in range(5)]
  assert rates('cosine', 5) == pytest.approx(cosine, abs=1e-6)
  warm = rates('linear', 5, warmup_steps=2)
  assert warm == pytest.approx([0.0, 0.05, 0.1, 0.05, 0.0])


def test_large_gradients_are_clipped_to_their_norm():
  assert rates('constant', 1, clip_norm=2.0, size=8.0) == pytest.approx([0.2])
  assert rates('constant', 1, clip_norm=2.0, size=1.0) == pytest.approx([0.1])
  assert rates('constant', 1, clip_norm=0.0, size=8.0) == pytest.approx([0.8])


@pytest.mark.parametrize(
  ('name', 'first'), [('adam', -0.1), ('adamw', -0.1 - 0.1 * 0.5 * 3.0)]
)
def test_adamw_alone_decays_weights(name, first):
  optimizer = optimizers.make_optimizer(
    name, 0.1, 'constant', 0, 4, 0.9, 0.999, 1e-8, 0.5, 0.0
  )
  state = optimizer.init(jnp.float32(3))
  change, _ = optimizer.update(jnp.float32(7), state, jnp.float32(3))
  assert float(change) == pytest.approx(first, rel=1e-4)


@pytest.fixture(scope='module')
def truncated(batch):
  """As `batch`, with a truncated support."""
  sampling = tiny.sampling(first_attempts=2, policy=TRUNCATED.policy)
  return Batch(sample(sampling), batch.reward)


def test_a_truncated_policy_is_scored_as_it_was_sampled(truncated):
  _, metrics = update_of(TRUNCATED)(fresh_state(), params_of(1), truncated)
  assert metrics['logp_gap_max'] <= 1e-5
  assert np.isfinite(metrics['loss'])
  _, metrics = update_of(LEARNING)(fresh_state(), params_of(1), truncated)
  assert metrics['logp_gap_max'] > 0.1


def test_a_stage_that_holds_nothing_keeps_beta2(truncated):
  assert TRUNCATED.beta2_rate > 0
  state, _ = update_of(TRUNCATED)(fresh_state(), params_of(1), truncated)
  assert state.beta2 == np.float32(BETA2)


@pytest.mark.parametrize(
  ('rows', 'group', 'shards', 'each'),
  [(16, 4, 1, 4), (32, 8, 16, 2), (32, 8, 4, 8), (16, 4, 16, 1), (6, 3, 4, 3)],
)
def test_as_many_rows_share_a_prompt_as_lie_on_one_device(
  rows, group, shards, each
):
  assert reading.sharing(rows, group, shards) == each
