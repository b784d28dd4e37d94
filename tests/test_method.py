"""The gradient of both stages is the paper's, and no known mistake is in it.

First every pair of attempts over {0, 1, 2} is listed, and the expected
gradient of the loss, taken through the learner, is held against that of what
the method maximizes. Then each thing that open re-implementations got wrong
has a test of its own.

Letters: B rows, L columns, T turns, V vocabulary.
"""

import dataclasses
import functools
import itertools

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from score_jax import learner
from score_jax.learner import Batch
from score_jax.objective import Groups

BETA2 = 0.7
PROMPT, INSTRUCTION = [1, 2], [2]


@dataclasses.dataclass(frozen=True)
class Credits:
  """A row of the method's table: what each turn's tokens are credited with."""

  first: float  # Weight of r(y1).
  second: float  # Weight of r(y2).
  bonus: float  # Weight of r(y2) - r(y1).
  kl_first: float
  kl_second: float


@dataclasses.dataclass(frozen=True)
class World:
  """All pairs of attempts, rewarded at random, under a policy."""

  model: object
  limits: tuple[int, int]

  @functools.cached_property
  def first(self):
    return tiny.attempts(self.limits[0])

  @functools.cached_property
  def second(self):
    return tiny.attempts(self.limits[1])

  @functools.cached_property
  def batch(self) -> Batch:
    """Rows ordered by first attempt, then by second."""
    pairs = list(itertools.product(self.first, self.second))
    columns = len(PROMPT) + sum(self.limits) + len(INSTRUCTION) + 1
    rows = tiny.trajectory([PROMPT] * len(pairs), pairs, [INSTRUCTION], columns)
    rng = np.random.default_rng(4)
    reward = np.stack(
      [
        np.repeat(rng.random(len(self.first)), len(self.second)),
        rng.random(len(pairs)),
      ],
      axis=1,
    )
    return Batch(rows, jnp.asarray(reward))

  def turn_logp(self, params):
    """Returns [first], log p(y1 | x1), and [first, second], log p(y2 | x2)."""
    tokens, turn = self.batch.trajectory.tokens, self.batch.trajectory.turn
    logits = tiny.logits_of(self.model, params, tokens)
    logp = tiny.token_logp(logits, tokens)
    one, two = (jnp.sum(logp * (turn == t), axis=1) for t in (1, 2))
    shape = len(self.first), len(self.second)
    return one.reshape(shape)[:, 0], two.reshape(shape)

  def maximized(self, params, reference, table: Credits, gamma: float):
    """Returns what a stage maximizes; all in terms of whole attempts.

    What turn 2 earns sends no gradient through p(y1), but for the discounted
    part.
    """
    r1, r2 = jnp.moveaxis(
      self.batch.reward.reshape(len(self.first), len(self.second), 2), 2, 0
    )
    one, two = self.turn_logp(params)
    base_one, base_two = self.turn_logp(reference)
    chance_one, chance_two = jnp.exp(one), jnp.exp(two)
    kl_one = jnp.sum(chance_one * (one - base_one))
    kl_two = jnp.sum(chance_two * (two - base_two), axis=1)
    paid = table.second * r2 + table.bonus * (r2 - r1)
    second = jnp.sum(chance_two * paid, axis=1) - table.kl_second * kl_two
    fixed = jax.lax.stop_gradient
    return (
      jnp.sum(chance_one * table.first * r1[:, 0])
      - table.kl_first * kl_one
      + jnp.sum(fixed(chance_one) * second)
      + gamma * jnp.sum(chance_one * fixed(second))
    )

  def expected_loss(self, params, reference, learning, groups):
    """Returns the mean loss over all that could have been sampled.

    Args:
      params: the policy, whose chances carry no gradient.
      reference: the frozen base.
      learning: of the loss; its groups hold these rows.
      groups: int32[outcomes, rows], the rows of each possible batch; a first
        attempt that several rows share is drawn once.
    """
    one, two = jax.lax.stop_gradient(self.turn_logp(params))
    drawn = groups[:, :: learning.groups.second] // len(self.second)
    logp = jnp.sum(one[drawn], axis=1) + jnp.sum(
      two.reshape(-1)[groups], axis=1
    )

    def of(rows):
      batch = jax.tree.map(lambda x: x[rows], self.batch)
      return learner.loss_and_metrics(
        self.model, learning, params, reference, jnp.asarray(BETA2), batch
      )[0]

    return jnp.sum(jnp.exp(logp) * jax.vmap(of)(groups))

  def groups(self, first: int, second: int) -> np.ndarray:
    """Returns int32[outcomes, first * second], every batch of one problem."""
    rows = range(len(self.second))
    families = [
      [y1 * len(self.second) + y2 for y2 in several]
      for y1 in range(len(self.first))
      for several in itertools.product(rows, repeat=second)
    ]
    return np.array(
      [np.concatenate(g) for g in itertools.product(families, repeat=first)],
      np.int32,
    )


STAGES = {
  'stage I': (tiny.STAGE_ONE, Credits(0.0, 1.0, 0.0, BETA2, 0.3)),
  'stage II': (tiny.STAGE_TWO, Credits(1.0, 1.0, 10.0, 0.3, 0.3)),
}
every_stage = pytest.mark.parametrize('name', STAGES)


def gradients(world, name, params, reference, groups, gamma=0.0, **changes):
  """Returns the expected gradient of the loss, and minus the exact one."""
  stage, table = STAGES[name]
  estimator = changes.pop('kl_estimator', 'k1')
  stage = dataclasses.replace(stage, gamma=gamma, kl_estimator=estimator)
  learning = tiny.learning(stage, groups=Groups(*groups), **changes)
  batches = world.groups(*groups)

  @jax.jit
  def both(params, reference):
    def loss(params):
      return world.expected_loss(params, reference, learning, batches)

    def exact(params):
      return -world.maximized(params, reference, table, gamma)

    return jax.grad(loss)(params), jax.grad(exact)(params)

  found, expected = both(params, reference)
  sizes = [jnp.max(jnp.abs(x)) for x in jax.tree.leaves(expected)]
  assert max(sizes) > 0.05
  return found, expected


def assert_close(found, expected, tolerance):
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=0, atol=tolerance),
    found,
    expected,
  )


def table_world(limits):
  """A world whose policy has logits of its own in every context."""
  columns = len(PROMPT) + sum(limits) + len(INSTRUCTION) + 1
  return World(tiny.PrefixTable(3, columns), limits)


def two_tables(world):
  return (
    jax.tree.map(lambda x: x.astype(float), tiny.params_of(world.model, seed))
    for seed in range(2)
  )


@every_stage
@pytest.mark.parametrize('estimator', ['k1', 'k2', 'k3', 'exact'])
def test_the_expected_gradient_of_the_loss_is_that_of_the_method(
  name, estimator
):
  with jax.enable_x64(True):
    world = table_world((2, 2))
    found, expected = gradients(
      world,
      name,
      *two_tables(world),
      groups=(1, 1),
      baseline='none',
      kl_estimator=estimator,
    )
  assert_close(found, expected, 1e-9)


@every_stage
@pytest.mark.parametrize(
  ('limits', 'groups'), [((2, 2), (2, 1)), ((2, 1), (2, 2))], ids=str
)
def test_the_baseline_leaves_the_expected_gradient_as_it_is(
  name, limits, groups
):
  """Two trajectories, or two first attempts with two second ones each."""
  with jax.enable_x64(True):
    world = table_world(limits)
    found, expected = gradients(world, name, *two_tables(world), groups=groups)
  assert_close(found, expected, 1e-9)


@pytest.mark.parametrize('groups', [(2, 1), (2, 2)], ids=str)
def test_with_a_discount_turn_one_is_credited_with_what_follows(groups):
  with jax.enable_x64(True):
    world = table_world((2, 1))
    found, expected = gradients(
      world, 'stage II', *two_tables(world), groups=groups, gamma=0.6
    )
  assert_close(found, expected, 1e-9)


@pytest.mark.parametrize(
  ('name', 'estimator'), [('stage I', 'exact'), ('stage II', 'k1')]
)
def test_a_transformer_is_taught_the_gradient_of_the_method(name, estimator):
  world = World(tiny.transformer(tiny.THREE_WORDS), (2, 1))
  params, reference = (tiny.params_of(world.model, seed) for seed in range(2))
  found, expected = gradients(
    world, name, params, reference, groups=(2, 1), kl_estimator=estimator
  )
  largest = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(expected))
  assert_close(found, expected, 1e-5 * max(1.0, largest))


# Two problems of two trajectories: prompt, attempt, instruction, attempt.
# One attempt of each turn was cut off.
WRITTEN = [
  ((3, 0), (4, 5, 0)),
  ((5, 6), (3, 0)),
  ((6, 0), (0,)),
  ((0,), (4, 4, 4)),
]
ROWS = tiny.trajectory([[5, 3]] * 2 + [[4]] * 2, WRITTEN, [[6, 4]], 12)
REWARD = jnp.asarray([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])


@functools.cache
def _credit(learning):
  shape = (*ROWS.tokens.shape, 7)
  model = tiny.ColumnLogits(shape)
  params, reference = (tiny.params_of(model, seed) for seed in range(2))

  @jax.jit
  def credit(beta2, batch):
    def loss(params):
      return learner.loss_and_metrics(
        model, learning, params, reference, beta2, batch
      )[0]

    taught = -jax.grad(loss)(params)['logits']
    return jnp.pad(taught[:, :-1], ((0, 0), (1, 0), (0, 0)))

  return credit


def credit(stage, reward=REWARD, beta2=BETA2, rows=ROWS, **changes):
  """Returns float32[B, L, V], minus the gradient at the logits of each token.

  That is what the token at that place is taught, and nothing else is.
  """
  found = _credit(tiny.learning(stage, **changes))
  batch = Batch(rows, jnp.asarray(reward))
  return np.asarray(found(jnp.float32(beta2), batch))


def of_turn(x, turn, rows=slice(None)):
  """Returns [tokens, V], what the tokens of some rows' attempts are taught."""
  return x[rows][np.asarray(ROWS.turn)[rows] == turn]


STAGE_OF = {name: stage for name, (stage, _) in STAGES.items()}
FREE_ONE = dataclasses.replace(tiny.STAGE_ONE, beta1=0.0)
FREE_TWO = dataclasses.replace(tiny.STAGE_TWO, beta1=0.0)
NOTHING = np.zeros(REWARD.shape)


@every_stage
@pytest.mark.parametrize('estimator', ['k1', 'k2', 'k3', 'exact'])
def test_prompt_instruction_and_padding_are_taught_exactly_nothing(
  name, estimator
):
  stage = dataclasses.replace(STAGE_OF[name], kl_estimator=estimator)
  found = credit(stage)
  np.testing.assert_array_equal(of_turn(found, 0), 0)
  for turn in (1, 2):
    assert (np.abs(of_turn(found, turn)).max(axis=-1) > 0).all()


# 1. The turn-1 KL carries no gradient, or only scales the turn-2 gradient.


@pytest.mark.parametrize('estimator', ['k1', 'k2', 'k3', 'exact'])
def test_mistake_1_the_kl_of_turn_one_teaches_turn_one_and_it_alone(estimator):
  stage = dataclasses.replace(FREE_ONE, kl_estimator=estimator)
  held = credit(stage, NOTHING)
  assert (np.abs(of_turn(held, 1)).max(axis=-1) > 1e-3).all()
  np.testing.assert_array_equal(of_turn(held, 2), 0)
  np.testing.assert_allclose(
    credit(stage, NOTHING, 2 * BETA2), 2 * held, rtol=1e-4, atol=1e-7
  )
  np.testing.assert_array_equal(
    of_turn(credit(stage), 2), of_turn(credit(stage, beta2=9.0), 2)
  )


# 2. One summed reward is put on the tokens of both turns.


def test_mistake_2_in_stage_one_no_verdict_reaches_attempt_one():
  expected = of_turn(credit(tiny.STAGE_ONE), 1)
  for reward in (NOTHING, 1 - REWARD, 5 * REWARD):
    found = credit(tiny.STAGE_ONE, reward)
    np.testing.assert_array_equal(of_turn(found, 1), expected)
    assert np.any(of_turn(found, 2) != of_turn(credit(tiny.STAGE_ONE), 2))


def test_mistake_2_in_stage_two_no_verdict_on_attempt_two_reaches_attempt_one():
  changed = REWARD.at[:, 1].set([0.0, 3.0, 2.0, 0.0])
  one, other = credit(tiny.STAGE_TWO), credit(tiny.STAGE_TWO, changed)
  np.testing.assert_array_equal(of_turn(one, 1), of_turn(other, 1))
  assert np.any(of_turn(one, 2) != of_turn(other, 2))


def test_mistake_2_without_a_bonus_attempt_two_is_not_paid_for_attempt_one():
  stage = dataclasses.replace(tiny.STAGE_TWO, progress=0.0)
  changed = REWARD.at[:, 0].set([3.0, 0.0, 0.0, 2.0])
  one, other = credit(stage), credit(stage, changed)
  np.testing.assert_array_equal(of_turn(one, 2), of_turn(other, 2))
  assert np.any(of_turn(one, 1) != of_turn(other, 1))


# 3. The loss is minus the mean reward, with no log-probability in it.


def test_mistake_3_every_token_is_pushed_by_advantage_times_its_score():
  found = credit(FREE_TWO)
  model = tiny.ColumnLogits((*ROWS.tokens.shape, 7))
  logits = np.asarray(tiny.params_of(model)['logits'], np.float64)
  # Against the one sibling: turn 1 earns 0, 1, 1, 0; turn 2 with its bonus of
  # 10 earns 1 + 10, 0 - 10, 1 + 0, 1 + 10.
  advantage = np.array([[-1, 21], [1, -21], [1, -10], [-1, 10]])
  for b, i in zip(*np.nonzero(np.asarray(ROWS.turn)), strict=True):
    chance = np.exp(logits[b, i - 1])
    score = np.eye(7)[ROWS.tokens[b, i]] - chance / chance.sum()
    expected = advantage[b, ROWS.turn[b, i] - 1] * score / len(advantage)
    np.testing.assert_allclose(found[b, i], expected, atol=1e-5)


# 4. y2 is trained without y1 in its context, or without the instruction.


def test_mistake_4_attempt_two_is_scored_behind_all_that_stands_before_it():
  model = tiny.transformer(unroll=False)
  params = tiny.params_of(model)
  # Prompt 1, attempt 3 and its end, instruction 5 and 6, attempt 4 and 4.
  rows = tiny.trajectory([[1]] * 2, [((3, 0), (4, 4))] * 2, [[5, 6]], 9)
  batch = Batch(rows, jnp.asarray([[0.0, 1.0], [0.0, 0.0]]))
  learning = tiny.learning(FREE_ONE, baseline='none')

  @jax.jit
  def gradient(params):
    return jax.grad(learner.loss_and_metrics, argnums=2, has_aux=True)(
      model, learning, params, params, jnp.float32(0), batch
    )[0]['embedding']

  # Embeddings only enter as context: the head is not tied to them. Token 2 is
  # padding.
  reached = np.any(np.asarray(gradient(params)) != 0, axis=1)
  np.testing.assert_array_equal(reached, [1, 1, 0, 1, 1, 1, 1])


# 5. "SCoRe" has no Stage II or no bonus; no turn-2 KL in Stage I.


def test_mistake_5_stage_two_pays_progress_on_attempt_two():
  plain = dataclasses.replace(FREE_TWO, progress=0.0)
  # The gain of two siblings differs by 1 - (-1) = 2, by 0 - 1 = -1 in the
  # other problem.
  expected = 10 * np.array([2, -2, -1, 1]) / 4
  more = credit(FREE_TWO) - credit(plain)
  for b in range(4):
    start, end = ROWS.span[b, 1]
    score = credit_of_one(b)[start:end]
    np.testing.assert_allclose(
      more[b, start:end], expected[b] * score, atol=1e-5
    )


def credit_of_one(row):
  """Returns float32[L, V], the gradient of the log-probability of a row."""
  stage = dataclasses.replace(FREE_TWO, progress=0.0)
  found = credit(stage, jnp.zeros((4, 2)).at[row].set(4.0), baseline='none')
  return found[row]


def test_mistake_5_in_stage_one_the_kl_of_turn_two_weighs_beta1():
  found = credit(tiny.STAGE_ONE, NOTHING, beta2=0.0)
  np.testing.assert_array_equal(of_turn(found, 1), 0)
  assert (np.abs(of_turn(found, 2)).max(axis=-1) > 1e-3).all()
  twice = dataclasses.replace(tiny.STAGE_ONE, beta1=2 * tiny.STAGE_ONE.beta1)
  np.testing.assert_allclose(
    credit(twice, NOTHING, beta2=0.0), 2 * found, rtol=1e-4, atol=1e-7
  )


def test_mistake_5_in_stage_two_the_kl_of_both_turns_weighs_beta1():
  found = credit(tiny.STAGE_TWO, NOTHING)
  np.testing.assert_array_equal(credit(tiny.STAGE_TWO, NOTHING, 99.0), found)
  both = dataclasses.replace(tiny.STAGE_ONE, beta1=0.3)
  np.testing.assert_allclose(found, credit(both, NOTHING, beta2=0.3), rtol=1e-5)


# 6. Responses cut off at the length limit are treated as ended.


@every_stage
@pytest.mark.parametrize('estimator', ['k1', 'exact'])
def test_mistake_6_an_attempt_cut_off_and_masked_teaches_nothing(
  name, estimator
):
  stage = dataclasses.replace(STAGE_OF[name], kl_estimator=estimator)
  found = credit(stage, mask_truncated=True, baseline='none')
  cut = np.asarray(ROWS.truncated)
  assert cut.tolist() == [[0, 0], [1, 0], [0, 0], [0, 1]]
  for b, t in np.ndindex(cut.shape):
    taught = found[b, slice(*ROWS.span[b, t])]
    assert np.any(taught) != cut[b, t]


def test_mistake_6_an_attempt_cut_off_and_masked_is_nobodys_baseline():
  """The first attempt of row 1 and the second of row 3, four of one problem."""
  masked = {'mask_truncated': True, 'groups': Groups(4, 1)}
  one = credit(tiny.STAGE_TWO, **masked)
  other = credit(tiny.STAGE_TWO, REWARD.at[1, 0].set(7.0), **masked)
  np.testing.assert_array_equal(of_turn(one, 1), of_turn(other, 1))
  other = credit(tiny.STAGE_TWO, REWARD.at[3, 1].set(7.0), **masked)
  np.testing.assert_array_equal(one, other)
  assert np.any(of_turn(one, 1))
  assert np.any(of_turn(one, 2))


def test_mistake_6_attempts_cut_off_are_counted_per_turn():
  model = tiny.ColumnLogits((*ROWS.tokens.shape, 7))
  params = tiny.params_of(model)
  learning = tiny.learning(tiny.STAGE_ONE)
  _, metrics = jax.jit(
    lambda batch: learner.loss_and_metrics(
      model, learning, params, params, jnp.float32(0), batch
    )
  )(Batch(ROWS, REWARD))
  np.testing.assert_allclose(metrics['truncated'], [1 / 4, 1 / 4])


# 7. Logits [B, L, V] of policy and reference are all held at once.


def sizes(program):
  """Yields the elements of every array that a program makes."""
  for equation in program.eqns:
    for variable in equation.outvars:
      yield variable.aval.size
    for value in jax.tree.leaves(
      equation.params, is_leaf=lambda x: isinstance(x, PROGRAMS)
    ):
      if isinstance(value, PROGRAMS):
        yield from sizes(value)


PROGRAMS = (jax.extend.core.Jaxpr, jax.extend.core.ClosedJaxpr)


@pytest.mark.parametrize('estimator', ['k1', 'exact'])
def test_mistake_7_logits_exist_for_a_chunk_of_tokens_at_a_time(estimator):
  rows, columns, vocab, chunk = 8, 32, 4096, 16
  config = dataclasses.replace(tiny.PLAIN, vocab_size=vocab, width=4)
  model = tiny.transformer(config, unroll=False)
  stage = dataclasses.replace(tiny.STAGE_TWO, kl_estimator=estimator)
  optimizer = optax.sgd(0.1)
  written = tiny.trajectory(
    [[1]] * rows, [((1, 0), (1, 0))] * rows, [[1]], columns
  )
  params = tiny.params_of(model)
  state = learner.init_state(params, optimizer, BETA2)
  batch = Batch(written, jnp.zeros((rows, 2)))

  def largest_with(chunk):
    learning = tiny.learning(stage, logits_chunk=chunk)
    update = learner.make_update(model, optimizer, learning)
    return max(sizes(update.trace(state, params, batch).jaxpr))

  assert largest_with(rows * columns) == rows * columns * vocab
  assert largest_with(chunk) == chunk * vocab


# 8. No baseline, or a baseline that mixes turns or prompts.


@every_stage
def test_mistake_8_what_other_problems_earn_changes_nothing(name):
  changed = REWARD.at[2:].set([[4.0, 0.0], [0.0, 9.0]])
  one, other = credit(STAGE_OF[name]), credit(STAGE_OF[name], changed)
  np.testing.assert_array_equal(one[:2], other[:2])
  assert np.any(one[2:] != other[2:])


@every_stage
def test_mistake_8_what_all_siblings_earn_alike_teaches_nothing(name):
  stage = dataclasses.replace(STAGE_OF[name], beta1=0.0)
  alike = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
  np.testing.assert_array_equal(credit(stage, alike, beta2=0.0), 0)


def test_mistake_8_baselines_are_of_the_same_turn():
  stage = dataclasses.replace(FREE_TWO, progress=0.0)
  # Of each problem one turn alone tells its siblings apart.
  reward = np.array([[1.0, 5.0], [3.0, 5.0], [5.0, 1.0], [5.0, 3.0]])
  found = credit(stage, reward)
  one, other = slice(0, 2), slice(2, 4)
  np.testing.assert_array_equal(of_turn(found, 2, one), 0)
  np.testing.assert_array_equal(of_turn(found, 1, other), 0)
  assert (np.abs(of_turn(found, 1, one)).max(axis=-1) > 1e-3).all()
  assert (np.abs(of_turn(found, 2, other)).max(axis=-1) > 1e-3).all()


# 9. The bonus reaches turn-1 tokens, and the model learns to fail first.


def test_mistake_9_the_bonus_teaches_attempt_one_nothing():
  one = credit(tiny.STAGE_TWO)
  for alpha in (0.0, 1.0, 100.0):
    stage = dataclasses.replace(tiny.STAGE_TWO, progress=alpha)
    other = credit(stage)
    np.testing.assert_array_equal(of_turn(one, 1), of_turn(other, 1))
    assert np.any(of_turn(one, 2) != of_turn(other, 2))


def test_mistake_9_failing_first_is_never_what_attempt_one_is_taught():
  """A first attempt that is right gains from it, whatever follows."""
  stage = dataclasses.replace(FREE_TWO, progress=10.0)
  for second in itertools.product((0.0, 1.0), repeat=2):
    reward = REWARD.at[:2].set([[1.0, second[0]], [0.0, second[1]]])
    found = credit(stage, reward)
    for row, sign in ((0, 1), (1, -1)):
      for i in range(*ROWS.span[row, 0]):
        assert sign * found[row, i, ROWS.tokens[row, i]] > 0
