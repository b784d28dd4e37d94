"""What is drawn is what is scored, and scores are those of whole logits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import tiny

from score_jax import policy, reading
from score_jax.policy import Policy

# Chances 0.4, 0.1, 0.3, 0.2.
LOGITS = jnp.log(jnp.asarray([[4.0, 1.0, 3.0, 2.0]])) + 5.0


@functools.partial(jax.jit, static_argnums=1)
def log_probabilities(logits, of):
  return jax.nn.log_softmax(policy.policy_logits(logits, of), axis=-1)


draw = jax.jit(policy.draw, static_argnums=2)


@pytest.mark.parametrize(
  ('of', 'chances'),
  [
    (Policy(), [0.4, 0.1, 0.3, 0.2]),
    (Policy(temperature=0.0), [0.4, 0.1, 0.3, 0.2]),
    (Policy(temperature=0.5), np.array([16, 1, 9, 4]) / 30),
    (Policy(top_k=2), [4 / 7, 0, 3 / 7, 0]),
    (Policy(top_p=0.4), [1, 0, 0, 0]),
    (Policy(top_p=0.41), [4 / 7, 0, 3 / 7, 0]),
    (Policy(top_p=0.89), [4 / 9, 0, 3 / 9, 2 / 9]),
    (Policy(top_p=0.91), [0.4, 0.1, 0.3, 0.2]),
    # Of the three likeliest the nucleus of 0.77 is all: 4/9, 7/9, 9/9.
    (Policy(top_k=3, top_p=0.77), [4 / 7, 0, 3 / 7, 0]),
    (Policy(temperature=0.5, top_k=3, top_p=0.9), [16 / 29, 0, 9 / 29, 4 / 29]),
  ],
)
def test_chances_are_these(of, chances):
  found = np.exp(log_probabilities(LOGITS, of))
  np.testing.assert_allclose(found, [chances], atol=1e-6)


def test_a_policy_untruncated_keeps_its_temperature():
  of = Policy(temperature=0.7, top_k=2, top_p=0.5).untruncated()
  assert of == Policy(temperature=0.7)


@pytest.mark.parametrize(
  ('of', 'bounds'),
  [
    (
      Policy(),
      {0: (0.0, 0.39), 1: (0.41, 0.49), 2: (0.51, 0.79), 3: (0.81, 1)},
    ),
    (Policy(top_k=2), {0: (0.0, 0.57), 2: (0.58, 1)}),
    (Policy(temperature=0.0), {0: (0.0, 1)}),
  ],
)
def test_a_draw_inverts_the_distribution_function(of, bounds):
  for token, (low, high) in bounds.items():
    uniform = jnp.asarray([low, (low + high) / 2, min(high, 1 - 2**-24)])
    found, logp = draw(jnp.repeat(LOGITS, 3, axis=0), uniform, of)
    np.testing.assert_array_equal(found, [token] * 3)
    expected = log_probabilities(LOGITS, of)[0, token]
    np.testing.assert_allclose(logp, [expected] * 3, rtol=1e-6)


@pytest.mark.parametrize('of', [Policy(top_k=50), Policy(top_p=0.5)])
def test_rounding_never_moves_a_draw_off_the_support(of):
  """Numbers are those at which the sums of a long vocabulary round."""
  logits = jnp.asarray(np.random.default_rng(0).normal(size=(1, 5000)) * 3)
  logp = log_probabilities(logits, of)
  sums = jnp.unique(jnp.cumsum(jnp.exp(logp[0])))
  edges = sums / sums[-1]
  uniform = jnp.concatenate([edges, jnp.nextafter(edges, 0.0)])
  uniform = jnp.clip(uniform, 0.0, 1 - 2**-24)
  _, drawn = draw(jnp.repeat(logits, len(uniform), axis=0), uniform, of)
  assert jnp.all(jnp.isfinite(drawn))


@pytest.mark.parametrize('vocabulary', [1, 7, 30, 144, 1000])
def test_a_draw_of_any_vocabulary_is_the_first_token_that_is_reached(
  vocabulary,
):
  draws = np.random.default_rng(vocabulary)
  logits = draws.normal(size=(40, vocabulary)).astype(np.float32)
  uniform = draws.uniform(size=40).astype(np.float32)
  found, logp = draw(jnp.asarray(logits), jnp.asarray(uniform), Policy())
  chance = np.exp(logits.astype(np.float64))
  chance /= chance.sum(axis=1, keepdims=True)
  expected = (chance.cumsum(axis=1) > uniform[:, None]).argmax(axis=1)
  np.testing.assert_array_equal(found, expected)
  chosen = np.take_along_axis(chance, expected[:, None], axis=1)[:, 0]
  np.testing.assert_allclose(logp, np.log(chosen), atol=1e-5)


def test_blocks_of_real_vocabularies_can_be_split_by_a_mesh():
  found = {v: policy._block(v) for v in (32_000, 128_256, 151_936, 256_000)}
  assert found == {32_000: 125, 128_256: 334, 151_936: 8, 256_000: 500}


def test_draws_are_as_frequent_as_their_chances():
  uniform = jax.random.uniform(jax.random.key(0), (10_000,))
  token, _ = draw(jnp.repeat(LOGITS, 10_000, axis=0), uniform, Policy())
  counts = np.bincount(token, minlength=4)
  expected = np.array([0.4, 0.1, 0.3, 0.2]) * 10_000
  assert scipy.stats.chisquare(counts, expected).pvalue > 1e-3


ROWS, COLUMNS, WIDTH, VOCAB = 3, 7, 5, 11


@pytest.fixture(scope='module')
def arrays():
  """Heads and states of policy and reference, and tokens."""
  draws = np.random.default_rng(1).normal
  shapes = [(VOCAB, WIDTH), (ROWS, COLUMNS, WIDTH)] * 2
  heads_and_states = [jnp.asarray(draws(size=s), jnp.float32) for s in shapes]
  tokens = np.random.default_rng(2).integers(0, VOCAB, (ROWS, COLUMNS))
  return (*heads_and_states, jnp.asarray(tokens, jnp.int32))


@functools.partial(jax.jit, static_argnums=(5, 6, 7))
def by_chunks(
  head,
  hidden,
  base_head,
  base_hidden,
  tokens,
  of,
  chunk,
  exact_kl=True,
  attempts=None,
):
  return policy.score_tokens(
    lambda x: x @ head.T,
    reading.before(hidden),
    lambda x: x @ base_head.T,
    reading.before(base_hidden),
    tokens,
    of,
    chunk,
    exact_kl,
    attempts,
  )


@functools.partial(jax.jit, static_argnums=5)
def at_once(head, hidden, base_head, base_hidden, tokens, of):
  """Returns logp, entropy, reference logp and KL from whole logits."""
  logits = hidden @ head.T / of.temperature
  base = base_hidden @ base_head.T / of.temperature
  if of.top_k:
    rank = jnp.argsort(jnp.argsort(-logits, axis=-1), axis=-1)
    logits = jnp.where(rank < of.top_k, logits, -1e30)
  logp = jax.nn.log_softmax(logits, axis=-1)
  base_logp = jax.nn.log_softmax(base, axis=-1)
  chance = jnp.exp(logp)
  entropy = -jnp.sum(chance * logp, axis=-1)
  kl = jnp.sum(chance * (logp - base_logp), axis=-1)

  def behind(x):  # What a column predicts belongs to the next one.
    return jnp.pad(x[:, :-1], ((0, 0), (1, 0)))

  return (
    tiny.token_logp(logits, tokens),
    behind(entropy),
    tiny.token_logp(base, tokens),
    behind(kl),
  )


# One block; rows * width; a width that does not divide; less than a column.
@pytest.mark.parametrize('chunk', [1000, 9, 12, 1])
def test_scores_in_chunks_are_those_of_whole_logits(arrays, chunk):
  of = Policy(temperature=0.7, top_k=5)
  found = by_chunks(*arrays, of, chunk)
  logp, entropy, base_logp, kl = (
    np.asarray(x)[:, 1:] for x in at_once(*arrays, of)
  )
  on_support = logp > -1e20
  assert on_support.any()
  assert not on_support.all()
  np.testing.assert_allclose(
    found.logp[:, 1:][on_support], logp[on_support], rtol=1e-5
  )
  np.testing.assert_array_equal(found.logp[:, 1:][~on_support], -np.inf)
  np.testing.assert_allclose(found.entropy[:, 1:], entropy, rtol=1e-4)
  np.testing.assert_allclose(found.reference_logp[:, 1:], base_logp, rtol=1e-5)
  np.testing.assert_allclose(found.kl[:, 1:], kl, rtol=1e-5)


@pytest.mark.parametrize('chunk', [1000, 9])
def test_gradients_in_chunks_are_those_of_whole_logits(arrays, chunk):
  of = Policy(temperature=0.7)
  weights = np.random.default_rng(3).normal(size=(2, ROWS, COLUMNS - 1))

  def total(logp, kl):
    return jnp.sum(weights[0] * logp[:, 1:] + weights[1] * kl[:, 1:])

  def chunked(head, hidden, *others):
    scores = by_chunks(head, hidden, *others, of, chunk)
    return total(scores.logp, scores.kl)

  def whole(head, hidden, *others):
    logp, _, _, kl = at_once(head, hidden, *others, of)
    return total(logp, kl)

  found = jax.jit(jax.grad(chunked, argnums=(0, 1)))(*arrays)
  expected = jax.jit(jax.grad(whole, argnums=(0, 1)))(*arrays)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
    found,
    expected,
  )


# Attempts of two turns: as long as they may be, shorter, next to each other,
# none, and up to the last column.
TURNS = ((0, 1, 1, 0, 2, 2, 0), (0, 1, 2, 2, 0, 0, 0), (0, 0, 0, 0, 1, 1, 2))
STARTS = ((1, 4), (1, 2), (4, 6))


@pytest.mark.parametrize('chunk', [1000, 6])
def test_attempts_alone_are_scored_as_within_whole_rows(arrays, chunk):
  head, hidden, *others = arrays
  turn = jnp.asarray(TURNS)
  attempts = policy.Attempts(jnp.asarray(STARTS), turn, (2, 2))

  def total(head, hidden, attempts):
    found = by_chunks(head, hidden, *others, Policy(), chunk, True, attempts)
    weighted = jnp.where(turn > 0, found.logp * turn + 0.3 * found.kl, 0.0)
    return jnp.sum(weighted), found

  of = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))
  (_, found), gradients = of(head, hidden, attempts)
  (_, whole), expected = of(head, hidden, None)
  for ours, theirs in zip(
    jax.tree.leaves(found), jax.tree.leaves(whole), strict=True
  ):
    np.testing.assert_allclose(
      ours, np.where(turn > 0, theirs, 0.0), rtol=1e-5, atol=1e-6
    )
  for ours, theirs in zip(gradients, expected, strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_entropy_and_reference_carry_no_gradient(arrays):
  def total(*arrays):
    scores = by_chunks(*arrays, Policy(), 9)
    return jnp.sum(scores.entropy + scores.reference_logp)

  gradients = jax.jit(jax.grad(total, argnums=(0, 1, 2, 3)))(*arrays)
  for gradient in gradients:
    np.testing.assert_array_equal(gradient, 0)


def test_without_the_exact_kl_there_is_none(arrays):
  found = by_chunks(*arrays, Policy(), 9, False)
  np.testing.assert_array_equal(found.kl, 0)
  expected, _, _, _ = at_once(*arrays, Policy())
  np.testing.assert_allclose(found.logp[:, 1:], expected[:, 1:], rtol=1e-5)


def test_log_probabilities_alone_are_those_of_the_scores(arrays):
  head, hidden, _, _, tokens = arrays
  before = reading.before(hidden)
  found = jax.jit(
    lambda: policy.token_logp(lambda x: x @ head.T, before, tokens, Policy(), 9)
  )()
  expected, _, _, _ = at_once(*arrays, Policy())
  np.testing.assert_allclose(found[:, 1:], expected[:, 1:], rtol=1e-5)


def test_a_token_off_the_support_gives_no_gradient_that_is_not_a_number():
  logits = jnp.asarray([[[3.0, 2.0, 1.0, 0.0]] * 3])
  tokens = jnp.asarray([[0, 0, 1]])

  @jax.jit
  def gradient(logits):
    def total(logits):
      scores = policy.score_tokens(
        lambda x: x,
        logits,
        lambda x: x,
        logits * 0,
        tokens,
        Policy(top_k=2),
        9,
        True,
      )
      return jnp.sum((scores.logp + scores.kl)[:, 1:])

    return jax.grad(total)(logits)

  found = np.asarray(gradient(logits))
  assert np.isfinite(found).all()
  np.testing.assert_array_equal(found[..., 2:], 0)
