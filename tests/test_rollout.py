"""What was sampled is read attempt by attempt, graded and paid."""

import contextlib
import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from score_jax import grading, phase, rollout, sampler, sharding
from score_jax.data import Problems
from score_jax.problem import Outcome, Problem, Verdict
from score_jax.timing import Times

LETTERS = '.!_abcdefg'  # Ids 0, 1 and 2 are the end, the closing and padding.
REWARD = {'wrong': -1.0, 'unparsed': -2.0, 'timeout': -3.0, 'error': -4.0}


class Letters:
  """A tokenizer of one letter per id; the end is no part of the text."""

  def attempts(self, rows):
    return [''.join(LETTERS[i] for i in row if i != tiny.END) for row in rows]


def _grade(problem, text):
  """Right is the problem's answer; an attempt may name its own outcome."""
  outcomes = {
    problem.answer: Outcome.RIGHT,
    'g': Outcome.ERROR,
    'e': Outcome.TIMEOUT,
    'f': Outcome.UNPARSED,
  }
  outcome = outcomes.get(text, Outcome.WRONG)
  unread = outcome in (Outcome.UNPARSED, Outcome.ERROR)
  return Verdict(outcome, '' if unread else text)


def _grader(grade=_grade):
  """Returns a grader that works when its verdicts are asked for."""

  def start(problems, texts):
    return lambda: [grade(*pair) for pair in zip(problems, texts, strict=True)]

  return grading.Grader(start, list)


def _ids(text):
  return tuple(LETTERS.index(letter) for letter in text)


def _problems(*answers):
  stated = tuple(
    Problem(f'p{i}', f'prompt {i}', answer, answer, 'easy')
    for i, answer in enumerate(answers)
  )
  length = np.ones(len(stated), np.int32)
  return Problems(stated, np.full((len(stated), 2), 3, np.int32), length)


def _read(*rows, answers=('a', 'b')):
  """Returns the rollout of rows of attempts, as one types them."""
  written = [tuple(map(_ids, attempts)) for attempts in rows]
  prompts = [[3] * (1 + n % 2) for n in range(len(rows))]
  turns = len(written[0])
  columns = 40
  trajectory = tiny.trajectory(prompts, written, [[4]] * (turns - 1), columns)
  return rollout.start_reading(
    trajectory, _problems(*answers), _grader(), Letters()
  )()


def test_an_attempt_is_read_from_its_own_span_without_its_end():
  graded = _read(('ab.', 'cde.'), ('.', 'abc'), ('b', 'c.'), ('ba.', '.'))
  assert graded.texts == [['ab', 'cde'], ['', 'abc'], ['b', 'c'], ['ba', '']]
  np.testing.assert_array_equal(
    graded.truncated,
    [[False, False], [False, True], [True, False], [False, False]],
  )


def test_adjacent_rows_are_graded_against_their_own_problem():
  graded = _read(('a.', 'b.'), ('b.', 'a.'), ('a.', 'b.'), ('b.', 'a.'))
  assert [p.id for p in graded.problems] == ['p0', 'p0', 'p1', 'p1']
  np.testing.assert_array_equal(
    graded.right(),
    [[True, False], [False, True], [False, True], [True, False]],
  )


def test_three_turns_are_read_where_there_are_three():
  graded = _read(('a.', 'b.', 'c.'), ('b.', 'a', 'b.'))
  assert graded.texts == [['a', 'b', 'c'], ['b', 'a', 'b']]
  assert graded.right().tolist() == [[True, False, False], [True, False, True]]


def test_attempts_that_the_task_gives_are_not_counted_as_sampled():
  graded = _read(('a.', 'b.'), ('abc.', 'a.'))
  found = phase.sampled(graded, 1)
  assert found == {'sampled_attempts': 4, 'sampled_tokens': 10}
  first, second = graded.problems
  given = (dataclasses.replace(first, attempt='a'), second)
  graded = dataclasses.replace(graded, problems=given)
  # As a greedy attempt is, in place of the one that is given.
  assert phase.sampled(graded, 1) == found
  turn = np.array(graded.trajectory.turn)
  turn[0, turn[0] == 1] = 0
  trajectory = dataclasses.replace(graded.trajectory, turn=turn)
  graded = dataclasses.replace(graded, trajectory=trajectory)
  found = phase.sampled(graded, 1)
  assert found == {'sampled_attempts': 3, 'sampled_tokens': 8}


OUTCOMES = (('a.', 'c.'), ('f.', 'e.'), ('g.', 'b.'), ('b', 'c'))


def test_each_outcome_earns_its_own_reward():
  reward = _read(*OUTCOMES).rewards(REWARD, truncated_is_wrong=False)
  assert reward.dtype == np.float32
  np.testing.assert_array_equal(
    reward, [[1.0, -1.0], [-2.0, -3.0], [-4.0, 1.0], [1.0, -1.0]]
  )


def test_an_attempt_cut_off_earns_what_a_wrong_one_does_if_told_so():
  reward = _read(*OUTCOMES).rewards(REWARD, truncated_is_wrong=True)
  np.testing.assert_array_equal(
    reward, [[1.0, -1.0], [-2.0, -3.0], [-4.0, 1.0], [-1.0, -1.0]]
  )


def test_the_share_of_failures_counts_timeouts_and_errors_alone():
  # Of eight attempts one is a timeout and one an error.
  assert _read(*OUTCOMES).failure_share() == 2 / 8


def test_what_evaluation_counts_is_the_graders_word_and_the_text():
  attempts = _read(
    ('a.', 'a.'), ('f.', 'g.'), ('b', 'c.'), ('bb.', 'bb')
  ).attempts()
  np.testing.assert_array_equal(
    attempts.right, [[True, True], [False, False], [True, False], [False] * 2]
  )
  # The grader read no answer of the second row's attempts: nothing changed.
  np.testing.assert_array_equal(
    attempts.changed[:, 0], [False, False, True, False]
  )
  np.testing.assert_array_equal(
    attempts.copied[:, 0], [True, False, False, True]
  )
  np.testing.assert_array_equal(
    attempts.truncated[:, 0], [False, False, True, False]
  )


def test_a_record_says_all_that_a_reader_asks():
  assert _read(('a.', 'f.'), ('e', 'g.'), answers=('a',)).record(1) == {
    'id': 'p0',
    'prompt': 'prompt 0',
    'answer': 'a',
    'difficulty': 'easy',
    'attempts': ['e', 'g'],
    'answers': ['e', ''],
    'outcomes': ['timeout', 'error'],
    'truncated': [True, False],
  }


def test_rates_are_shares_of_each_outcome_at_each_turn():
  rates = _read(*OUTCOMES).rates()
  # Turn 1: right, unparsed, error, right. Turn 2: wrong, timeout, right, wrong.
  expected = {
    'right': (0.5, 0.25),
    'wrong': (0.0, 0.5),
    'unparsed': (0.25, 0.0),
    'timeout': (0.0, 0.25),
    'error': (0.25, 0.0),
  }
  assert rates == {
    f'outcome_{name}_t{turn}': rate
    for name, both in expected.items()
    for turn, rate in enumerate(both, start=1)
  }


def test_tests_passed_is_the_mean_share_over_the_attempts_that_ran():
  shares = {'a': 1.0, 'b': 0.25, 'c': None}

  def grade(problem, text):
    return Verdict(Outcome.WRONG, text, shares[text])

  written = [(_ids('a.'), _ids('b.')), (_ids('c.'), _ids('a.'))]
  trajectory = tiny.trajectory([[3], [3]], written, [[4]], 40)
  graded = rollout.start_reading(
    trajectory, _problems('a'), _grader(grade), Letters()
  )()
  rates = graded.rates()
  assert rates['tests_passed_t1'] == 1.0
  assert rates['tests_passed_t2'] == (0.25 + 1.0) / 2


@pytest.fixture(scope='module')
def base():
  """The base model's sampler of first attempts, and what it is asked with."""
  mesh = sharding.make_mesh((1, 1, 1), jax.devices()[:1])
  model = tiny.transformer(mesh=mesh)
  first = sampler.make_sampler(model, tiny.sampling(max_tokens=(4,)))
  tokens = np.array([[3, 4], [5, 2], [6, 3]], np.int32)
  length = np.array([2, 1, 2], np.int32)
  stated = tuple(Problem(f'p{i}', '', '', '') for i in range(3))
  return types.SimpleNamespace(
    mesh=mesh,
    model=model,
    sample=first,
    params=tiny.params_of(model),
    problems=Problems(stated, tokens, length),
    key=jax.random.key(4),
  )


def _first_attempts(base, rows=(0, 1, 2), given=(True, False, True)):
  index = np.array(rows)
  prompts = rollout.put_prompts(base.mesh, base.problems.take(index), index)
  return rollout.first_attempts(
    base.mesh, base.sample, base.params, prompts, base.key, np.array(given)
  )


def test_the_bases_first_attempts_start_at_their_first_column(base):
  index = np.arange(3)
  prompts = rollout.put_prompts(base.mesh, base.problems, index)
  sampled = base.sample(base.params, prompts, (), base.key)
  found = _first_attempts(base)
  assert found.tokens.shape == (12, 4)
  for row, (start, end) in enumerate(np.asarray(sampled.span)[:, 0]):
    np.testing.assert_array_equal(
      found.tokens[row, : end - start], sampled.tokens[row, start:end]
    )
  np.testing.assert_array_equal(
    found.given, [True] * 4 + [False] * 4 + [True] * 4
  )


def test_a_problems_first_attempts_do_not_depend_on_its_batch(base):
  """So nothing has to be stored for a run to go on."""
  both = _first_attempts(base)
  alone = _first_attempts(base, rows=(2,), given=(True,))
  np.testing.assert_array_equal(alone.tokens, both.tokens[8:])


def test_a_given_first_attempt_is_what_the_policy_reads_and_not_its_own(base):
  params = tiny.params_of(base.model, seed=1)
  sample = sampler.make_sampler(base.model, tiny.sampling(second_attempts=2))
  index = np.arange(3)
  prompts = rollout.put_prompts(base.mesh, base.problems, index)
  between = (jnp.asarray([3, 4], jnp.int32),)
  given = _first_attempts(base)
  found = sample(params, prompts, between, base.key, given)
  theirs = base.sample(base.params, prompts, (), base.key)
  for row in range(24):
    start, end = np.asarray(found.span)[row, 0]
    is_given = bool(given.given[row // 2])
    wrote = np.asarray(found.turn)[row, start:end]
    assert (wrote == (0 if is_given else 1)).all()
    if is_given:
      first, last = np.asarray(theirs.span)[row // 2, 0]
      np.testing.assert_array_equal(
        found.tokens[row, start:end], theirs.tokens[row // 2, first:last]
      )
      assert found.truncated[row, 0] == theirs.truncated[row // 2, 0]
  assert np.asarray(theirs.truncated).any()
  assert not np.asarray(theirs.truncated).all()


@pytest.mark.parametrize('parts', [1, 2, 4])
def test_a_batch_sampled_in_parts_is_the_whole_batch(base, parts):
  sample = sampler.make_sampler(base.model, tiny.sampling(second_attempts=2))
  four = base.problems.take(np.array([0, 1, 2, 0]))
  order = []

  def sampled(places):
    order.append(('sampled', len(places)))
    prompts = rollout.put_prompts(base.mesh, four.take(places), places)
    between = (jnp.asarray([3, 4], jnp.int32),)
    return sample(base.params, prompts, between, base.key)

  def start(problems, texts):
    order.append(('graded', len(texts)))
    return lambda: [Verdict(Outcome.WRONG, x) for x in texts]

  grader = grading.Grader(start, list)
  with contextlib.closing(Times()) as times:
    begun = rollout.start_sampling(sampled, four, parts, times)
    found = rollout.read_parts(begun, grader, Letters(), times)()
    at_once = rollout.read_parts(begun.whole(), grader, Letters(), times)()
  assert at_once.texts == found.texts
  jax.tree.map(
    np.testing.assert_array_equal, at_once.trajectory, found.trajectory
  )
  del order[2 * parts :]
  whole = sampled(np.arange(4))
  for name in ('tokens', 'turn', 'length', 'span', 'truncated'):
    np.testing.assert_array_equal(
      getattr(found.trajectory, name), getattr(whole, name)
    )
  np.testing.assert_allclose(found.trajectory.logp, whole.logp, atol=1e-5)
  assert [p.id for p in found.problems] == [
    f'p{i}' for i in (0, 1, 2, 0) for _ in range(8)
  ]
  assert [[v.answer for v in row] for row in found.verdicts] == found.texts
  # All parts are with the device before the first of them is read.
  assert (
    order[: 2 * parts]
    == [('sampled', 4 // parts)] * parts
    + [('graded', 4 // parts * 8 * 2)] * parts
  )


def test_a_problems_own_first_attempt_is_given_to_all_its_samples(base):
  first = np.array([[5, 6, 0, 2], [2, 2, 2, 2], [4, 0, 2, 2]], np.int32)
  stated = tuple(
    Problem(f'p{i}', '', '', '', attempt=text)
    for i, text in enumerate(['cd', '', 'b'])
  )
  problems = Problems(stated, base.problems.tokens, base.problems.length, first)
  found = rollout.given_attempts(base.mesh, problems, samples=2)
  assert found.given.tolist() == [True, True, False, False, True, True]
  np.testing.assert_array_equal(found.tokens[4:], [[4, 0, 2, 2]] * 2)
  assert rollout.given_attempts(base.mesh, base.problems, samples=2) is None
