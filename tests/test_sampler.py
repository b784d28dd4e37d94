"""Trajectories are what the model would say, in one compiled program.

Most claims are made of four samplers, each compiled once.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import tiny

from score_jax import policy, sampler
from score_jax.models import stack
from score_jax.policy import Policy
from score_jax.sampler import FirstAttempts, make_sampler
from score_jax.trajectory import Trajectory

PROMPTS = [[3, 4, 5], [4], [6, 6, 3, 5], [5, 3], [3, 3, 6], [5]]
WIDTH = 4  # Columns of the prompts.
INSTRUCTIONS = [[5, 6], [6, 4, 3]]
KEY = jax.random.key(7)


@dataclasses.dataclass(frozen=True)
class Case:
  config: object
  sampling: sampler.Sampling
  unroll: bool = True

  @property
  def model(self):
    return tiny.transformer(self.config, unroll=self.unroll)

  @property
  def params(self):
    return tiny.params_of(self.model)

  @property
  def instructions(self):
    return INSTRUCTIONS[: len(self.sampling.max_tokens) - 1]

  @property
  def columns(self):
    return (
      WIDTH
      + sum(self.sampling.max_tokens)
      + sum(len(i) + 1 for i in self.instructions)
    )


CASES = {
  'three turns': Case(
    tiny.PLAIN,
    tiny.sampling(max_tokens=(4, 2, 3), policy=Policy(temperature=0.7)),
    unroll=False,
  ),
  'shared first attempts': Case(
    tiny.PLAIN,
    tiny.sampling(first_attempts=2, second_attempts=2, max_tokens=(4, 5)),
  ),
  'truncated support, scanned layers': Case(
    tiny.RICH,
    tiny.sampling(
      first_attempts=2,
      second_attempts=2,
      max_tokens=(4, 5),
      policy=Policy(top_k=5, top_p=0.95),
    ),
    unroll=False,
  ),
  'greedy': Case(
    tiny.PLAIN, tiny.sampling(policy=Policy(temperature=0.0)), unroll=False
  ),
}
every_case = pytest.mark.parametrize('name', CASES)


def instruction_arrays(instructions):
  return tuple(jnp.asarray(i, jnp.int32) for i in instructions)


@pytest.fixture(scope='module')
def samplers():
  """Returns a function: name of a case to its sampler, compiled once."""
  return functools.cache(
    lambda name: make_sampler(CASES[name].model, CASES[name].sampling)
  )


@pytest.fixture(scope='module')
def sampled(samplers):
  """Returns a function: name of a case to its trajectories, on the host."""

  @functools.cache
  def sample(name) -> Trajectory:
    case = CASES[name]
    return jax.device_get(
      samplers(name)(
        case.params,
        tiny.prompts(PROMPTS, WIDTH),
        instruction_arrays(case.instructions),
        KEY,
      )
    )

  return sample


def of_rows(prompts, trajectory):
  """Returns the prompt of every row."""
  each = len(trajectory.length) // len(prompts)
  return [p for p in prompts for _ in range(each)]


def attempts_of(trajectory):
  """Returns the tokens of every attempt of every row, read by their spans."""
  return [
    tuple(tuple(row[a:b].tolist()) for a, b in spans)
    for row, spans in zip(trajectory.tokens, trajectory.span, strict=True)
  ]


@every_case
def test_recorded_log_probabilities_are_those_of_a_fresh_pass(sampled, name):
  case, found = CASES[name], sampled(name)
  logits = tiny.logits_of(case.model, case.params, jnp.asarray(found.tokens))
  logits = policy.policy_logits(logits[:, :-1], case.sampling.policy)
  logp = jax.nn.log_softmax(logits, axis=-1)
  logp = jnp.take_along_axis(logp, found.tokens[:, 1:, None], axis=-1)[..., 0]
  expected = np.where(found.turn[:, 1:] > 0, logp, 0.0)
  np.testing.assert_allclose(found.logp[:, 1:], expected, atol=1e-5)
  np.testing.assert_array_equal(found.logp[:, 0], 0)
  turns = len(case.sampling.max_tokens)
  for turn in range(1, turns + 1):
    assert (found.logp[found.turn == turn] < -0.1).mean() > 0.5


@every_case
def test_rows_are_prompt_attempts_and_constant_ids_and_nothing_else(
  sampled, name
):
  """Put together in Python from the attempts alone, all else is the same."""
  case, found = CASES[name], sampled(name)
  expected = tiny.trajectory(
    of_rows(PROMPTS, found), attempts_of(found), case.instructions, case.columns
  )
  expected = dataclasses.replace(expected, logp=found.logp)
  jax.tree.map(np.testing.assert_array_equal, found, jax.device_get(expected))


@every_case
def test_attempts_end_at_the_end_token_or_at_their_limit(sampled, name):
  found, limits = sampled(name), CASES[name].sampling.max_tokens
  for attempts, truncated in zip(
    attempts_of(found), found.truncated, strict=True
  ):
    for attempt, limit, cut in zip(attempts, limits, truncated, strict=True):
      assert tiny.END not in attempt[:-1]
      assert cut == (attempt[-1] != tiny.END)
      assert len(attempt) == limit if cut else 1 <= len(attempt) <= limit


def test_some_attempts_end_and_some_are_cut_off_at_every_turn(sampled):
  """Or the claims above would be of less than they say."""
  for name in CASES:
    cut = sampled(name).truncated.mean(axis=0)
    assert (cut > 0).all(), name
    assert (cut < 1).all(), name


def test_the_sampler_compiles_once_per_shape(samplers, sampled):
  name = 'three turns'
  case, sample = CASES[name], samplers(name)
  sampled(name)
  for seed in range(2):
    other = [[1 + seed]] * len(PROMPTS)
    sample(
      tiny.params_of(case.model, seed=seed),
      tiny.prompts(other, WIDTH, number=range(9, 15)),
      instruction_arrays([[seed] * len(i) for i in case.instructions]),
      jax.random.key(seed),
    )
  assert sample._cache_size() == 1


def test_other_keys_numbers_and_samples_have_other_draws(samplers, sampled):
  name = 'three turns'
  case, first = CASES[name], sampled(name)

  def tokens(key, number):
    same = [PROMPTS[0]] * len(PROMPTS)
    prompts = tiny.prompts(same, WIDTH, number)
    instructions = instruction_arrays(case.instructions)
    found = samplers(name)(case.params, prompts, instructions, key)
    return np.asarray(found.tokens).reshape(
      len(same), -1, first.tokens.shape[1]
    )

  found = tokens(KEY, [0, 0, 1, 2, 3, 4])
  other = tokens(jax.random.key(8), [0, 0, 1, 2, 3, 4])
  np.testing.assert_array_equal(found[0], found[1])
  for one, two in [(found[1:-1], found[2:]), (found, other)]:
    assert (one != two).any(axis=(1, 2)).all()
  assert (found[:, :-1] != found[:, 1:]).any(axis=-1).mean() > 0.5


@pytest.mark.parametrize('name', ['three turns', 'greedy'])
def test_a_row_does_not_depend_on_its_batch_its_padding_or_its_siblings(
  sampled, name
):
  """Three of six problems in another order, padded more, half the samples."""
  case, chosen = CASES[name], [3, 0, 2]
  fewer = dataclasses.replace(case.sampling, first_attempts=2)
  found = jax.device_get(
    make_sampler(case.model, fewer)(
      case.params,
      tiny.prompts([PROMPTS[i] for i in chosen], WIDTH + 3, chosen),
      instruction_arrays(case.instructions),
      KEY,
    )
  )
  rows = [4 * problem + sample for problem in chosen for sample in range(2)]
  attempts = attempts_of(sampled(name))
  assert attempts_of(found) == [attempts[row] for row in rows]
  np.testing.assert_allclose(
    found.logp[:, : case.columns], sampled(name).logp[rows], atol=1e-5
  )


def test_greedy_samples_of_a_problem_are_all_the_likeliest_tokens(sampled):
  case, found = CASES['greedy'], sampled('greedy')
  attempts = attempts_of(found)
  for i in range(0, len(attempts), 4):
    assert attempts[i : i + 4] == [attempts[i]] * 4
  logits = tiny.logits_of(case.model, case.params, jnp.asarray(found.tokens))
  best = np.asarray(jnp.argmax(logits, axis=-1))[:, :-1]
  mine = found.turn[:, 1:] > 0
  np.testing.assert_array_equal(found.tokens[:, 1:][mine], best[mine])


@pytest.mark.parametrize(
  'name', ['shared first attempts', 'truncated support, scanned layers']
)
def test_second_attempts_share_a_first_one_and_differ(sampled, name):
  found = sampled(name)
  rows = attempts_of(found)
  pairs = [rows[i : i + 2] for i in range(0, len(rows), 2)]
  assert all(one[0] == other[0] for one, other in pairs)
  assert sum(one[1] != other[1] for one, other in pairs) > len(pairs) / 2
  firsts = [pair[0][0] for pair in pairs]
  assert len(set(firsts)) > len(PROMPTS)


def test_tokens_drawn_with_a_truncated_support_lie_on_it(sampled):
  case, found = (
    CASES['truncated support, scanned layers'],
    sampled('truncated support, scanned layers'),
  )
  logits = tiny.logits_of(case.model, case.params, jnp.asarray(found.tokens))
  inside = 0
  for b, i in zip(*np.nonzero(found.turn), strict=True):
    chance = np.exp(np.asarray(logits[b, i - 1], np.float64))
    order = np.argsort(-chance)[:5]
    chance = chance[order] / chance[order].sum()
    nucleus = order[: 1 + np.searchsorted(np.cumsum(chance), 0.95)]
    inside += len(nucleus) < 5
    assert found.tokens[b, i] in nucleus
  assert inside > 10


def test_first_attempts_that_are_given_are_context_and_not_samples(
  samplers, sampled
):
  name = 'three turns'
  case, free = CASES[name], sampled(name)
  written = [[3, 4, 5, 6], [5, 0, 3, 3], [0, 0, 0, 0], [6, 6, 0, 0]]
  # Of problem 0 all four, of problem 3 the last two, of the others none.
  given = np.isin(np.arange(24), [0, 1, 2, 3, 14, 15])
  first = FirstAttempts(jnp.asarray(written * 6, jnp.int32), jnp.asarray(given))
  found = jax.device_get(
    samplers(name)(
      case.params,
      tiny.prompts(PROMPTS, WIDTH),
      instruction_arrays(case.instructions),
      KEY,
      first,
    )
  )

  def rows(trajectory, mask):
    return jax.tree.map(lambda x: x[mask], trajectory)

  jax.tree.map(
    np.testing.assert_array_equal, rows(found, ~given), rows(free, ~given)
  )
  ours = rows(found, given)
  attempts = attempts_of(ours)
  ended = [(3, 4, 5, 6), (5, 0), (0,), (6, 6, 0)]
  assert [a[0] for a in attempts] == [*ended, *ended[2:]]
  expected = tiny.trajectory(
    [PROMPTS[0]] * 4 + [PROMPTS[3]] * 2,
    attempts,
    case.instructions,
    case.columns,
  )
  np.testing.assert_array_equal(ours.tokens, expected.tokens)
  np.testing.assert_array_equal(ours.span, expected.span)
  np.testing.assert_array_equal(ours.truncated, expected.truncated)
  later = np.where(np.asarray(expected.turn) > 1, expected.turn, 0)
  np.testing.assert_array_equal(ours.turn, later)
  logits = tiny.logits_of(case.model, case.params, jnp.asarray(ours.tokens))
  logits = logits / case.sampling.policy.temperature
  logp = np.where(later > 0, tiny.token_logp(logits, ours.tokens), 0.0)
  np.testing.assert_allclose(ours.logp, logp, atol=1e-5)


@pytest.mark.parametrize(
  ('name', 'how'),
  [
    ('three turns', {'grow': 1}),
    ('three turns', {'compact': (0.5, 0.2)}),
    ('three turns', {'grow': 2, 'compact': (0.7,)}),
    ('three turns', {'refill': 5}),
    ('three turns', {'refill': 16, 'compact': (0.5, 0.2)}),
    ('shared first attempts', {'refill': 1}),
    ('shared first attempts', {'refill': 7, 'compact': (0.5,)}),
    ('shared first attempts', {'grow': 2, 'compact': (0.5, 0.2)}),
    *(
      pytest.param('shared first attempts', how, marks=pytest.mark.long)
      for how in (
        {'grow': 1},
        {'compact': (0.5, 0.2)},
        {'grow': 2, 'compact': (0.7,)},
      )
    ),
  ],
)
def test_growing_and_leaving_out_ended_rows_change_nothing(sampled, name, how):
  case = CASES[name]
  sampling = dataclasses.replace(case.sampling, **how)
  found = make_sampler(case.model, sampling)(
    case.params,
    tiny.prompts(PROMPTS, WIDTH),
    instruction_arrays(case.instructions),
    KEY,
  )
  expected = sampled(name)
  for field in dataclasses.fields(Trajectory):
    np.testing.assert_allclose(
      getattr(found, field.name), getattr(expected, field.name), atol=1e-5
    )


@pytest.mark.parametrize(
  ('name', 'few', 'some'),
  [
    ('three turns', 64, 0),
    ('three turns', 5, 0),
    ('three turns', 0, 64),
    ('shared first attempts', 1, 5),
    pytest.param('three turns', 1, 0, marks=pytest.mark.long),
    pytest.param('shared first attempts', 1, 0, marks=pytest.mark.long),
    pytest.param('shared first attempts', 5, 64, marks=pytest.mark.long),
    pytest.param('shared first attempts', 64, 0, marks=pytest.mark.long),
  ],
)
def test_forms_of_kernels_change_nothing(sampled, monkeypatch, name, few, some):
  """All steps, those of the last rows alone, and none but the last row's."""
  monkeypatch.setattr(stack, 'BLOCK', 8)
  case = CASES[name]
  execution = dataclasses.replace(
    case.model.execution, few=few, some=some, unroll=True
  )
  sampling = dataclasses.replace(case.sampling, compact=(0.5, 0.2, 0.05))
  found = make_sampler(case.model.clone(execution=execution), sampling)(
    case.params,
    tiny.prompts(PROMPTS, WIDTH),
    instruction_arrays(case.instructions),
    KEY,
  )
  make_sampler.cache_clear()  # What was compiled is for blocks this narrow.
  expected = sampled(name)
  for field in dataclasses.fields(Trajectory):
    np.testing.assert_allclose(
      getattr(found, field.name), getattr(expected, field.name), atol=1e-5
    )


@dataclasses.dataclass(frozen=True)
class Listed:
  """A decoder all of whose pairs of attempts are listed, and their chances."""

  model: tiny.Transformer
  params: dict
  first: dict  # Each first attempt's chance.
  second: dict  # Each pair's, given its first attempt.

  def draw(self, **groups):
    """Returns the attempts of every row that a sampler draws."""
    sampling = tiny.sampling(max_tokens=(2, 2), **groups)
    found = make_sampler(self.model, sampling)(
      self.params, tiny.prompts([[1, 2]], 2), instruction_arrays([[2]]), KEY
    )
    return attempts_of(jax.device_get(found))


@pytest.fixture(scope='module')
def listed():
  model = tiny.transformer(tiny.THREE_WORDS)
  params = tiny.params_of(model)
  pairs = [(a, b) for a in tiny.attempts(2) for b in tiny.attempts(2)]
  rows = tiny.trajectory([[1, 2]] * len(pairs), pairs, [[2]], columns=8)
  logits = tiny.logits_of(model, params, rows.tokens)
  logp = np.asarray(tiny.token_logp(logits, rows.tokens), np.float64)
  one, two = (
    np.exp(np.where(np.asarray(rows.turn) == t, logp, 0.0).sum(axis=1))
    for t in (1, 2)
  )
  first = {a: p for (a, _), p in zip(pairs, one, strict=True)}
  return Listed(model, params, first, dict(zip(pairs, two, strict=True)))


def p_value(counts, chances):
  """Returns the chi-square test's, cells expected below 5 taken together."""
  expected = np.asarray(chances) / np.sum(chances) * np.sum(counts)
  few = expected < 5
  if few.any():
    counts = np.append(np.asarray(counts)[~few], np.asarray(counts)[few].sum())
    expected = np.append(expected[~few], expected[few].sum())
  return scipy.stats.chisquare(counts, expected).pvalue


def test_trajectories_are_as_frequent_as_their_chances(listed):
  rows = listed.draw(first_attempts=4096)
  pairs = list(listed.second)
  chances = [listed.first[pair[0]] * listed.second[pair] for pair in pairs]
  assert sum(chances) == pytest.approx(1.0)
  counts = [rows.count(pair) for pair in pairs]
  assert sum(counts) == 4096
  assert p_value(counts, chances) > 1e-3


def test_second_attempts_of_a_first_one_are_independent(listed):
  rows = listed.draw(first_attempts=4096, second_attempts=2)
  triples = [(*pair, b) for pair in listed.second for b in tiny.attempts(2)]
  chances = [
    listed.first[a] * listed.second[a, b] * listed.second[a, c]
    for a, b, c in triples
  ]
  pairs = zip(rows[::2], rows[1::2], strict=True)
  found = [(*one, other[1]) for one, other in pairs]
  assert p_value([found.count(t) for t in triples], chances) > 1e-3
