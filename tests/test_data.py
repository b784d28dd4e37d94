"""Problems as arrays, and a batch as a function of the seed and its number."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from score_jax import data
from score_jax.config import ConfigError
from score_jax.data import Part
from score_jax.problem import Problem
from score_jax.tasks.mixture import Member


@dataclasses.dataclass(frozen=True)
class Letters:
  """A tokenizer whose ids are the letters' places in the alphabet, from 1."""

  pad: int = 0

  def prompts(self, texts):
    return [[ord(letter) - ord('a') + 1 for letter in text] for text in texts]

  def written(self, text):
    return [*self.prompts([text])[0], 99]


def _problems(*prompts):
  return [Problem(f'p{i}', text, '', '') for i, text in enumerate(prompts)]


def test_prompts_stand_at_the_left_and_padding_behind_them():
  encoded = data.encode(_problems('abc', 'd'), Letters(pad=9), 4)
  np.testing.assert_array_equal(encoded.tokens, [[1, 2, 3, 9], [4, 9, 9, 9]])
  np.testing.assert_array_equal(encoded.length, [3, 1])


def test_a_prompt_too_long_is_refused_by_name_with_the_length_it_needs():
  problems = _problems('ab', 'abcde', 'abc')
  with pytest.raises(ConfigError) as caught:
    data.encode(problems, Letters(), 2)
  assert str(caught.value) == (
    'sampling.max_prompt_tokens=2 is less than the 5 tokens of problem p1; '
    '2 of 3 prompts are longer. Set it to 5; or, to train without them, set '
    "task.long_prompts='drop'."
  )
  assert data.encode(problems, Letters(), 5).tokens.shape == (3, 5)


def test_a_selection_keeps_problem_and_prompt_together():
  encoded = data.encode(_problems('a', 'b', 'c'), Letters(), 1)
  chosen = encoded.take(np.array([2, 0, 2]))
  assert [problem.prompt for problem in chosen.problems] == ['c', 'a', 'c']
  np.testing.assert_array_equal(chosen.tokens[:, 0], [3, 1, 3])
  np.testing.assert_array_equal(chosen.length, [1, 1, 1])
  assert len(chosen) == 3


def _batches(count, seed, size, numbers):
  return np.concatenate(
    [data.batch_indices(count, seed, n, size) for n in numbers]
  )


@pytest.mark.parametrize('size', [1, 3, 5, 10, 14])
def test_an_epoch_takes_every_problem_once_across_the_ends_of_batches(size):
  count = 10
  taken = _batches(count, 0, size, range(30))
  whole = taken[: len(taken) // count * count].reshape(-1, count)
  np.testing.assert_array_equal(
    np.sort(whole, axis=1), np.tile(np.arange(count), (len(whole), 1))
  )


def test_the_order_does_not_depend_on_how_it_is_cut_into_batches():
  np.testing.assert_array_equal(
    _batches(7, 3, 4, range(6)), _batches(7, 3, 6, range(4))
  )


def test_epochs_and_seeds_have_orders_of_their_own():
  first, second = _batches(50, 0, 50, [0]), _batches(50, 0, 50, [1])
  other_seed = _batches(50, 1, 50, [0])
  assert (first != second).any()
  assert (first != other_seed).any()


def test_a_batch_does_not_depend_on_those_before_it():
  np.testing.assert_array_equal(
    data.batch_indices(100, 5, 17, 8), _batches(100, 5, 8, range(18))[-8:]
  )


def test_prompts_too_long_are_dropped_and_counted_where_that_is_asked_for():
  problems = _problems('ab', 'abcde', 'abc', 'b')
  encoded = data.encode(problems, Letters(), 2, drop=True)
  assert [p.id for p in encoded.problems] == ['p0', 'p3']
  np.testing.assert_array_equal(encoded.tokens, [[1, 2], [2, 0]])
  assert encoded.dropped == 2
  assert data.encode(problems, Letters(), 5, drop=True).dropped == 0
  with pytest.raises(ConfigError) as caught:
    data.encode(problems[1:3], Letters(), 2, drop=True)
  assert str(caught.value) == (
    'sampling.max_prompt_tokens=2 leaves none of 2 problems, whose prompts '
    'have 3 tokens and more; raise it.'
  )


def _with_attempts(*attempts):
  return [Problem(f'p{i}', 'a', '', '', '', a) for i, a in enumerate(attempts)]


def test_fixed_first_attempts_stand_with_their_ends_and_padding_behind():
  encoded = data.encode(_with_attempts('bc', '', 'd'), Letters(pad=9), 1, 4)
  np.testing.assert_array_equal(encoded.first[0], [2, 3, 99, 9])
  np.testing.assert_array_equal(encoded.first[2], [4, 99, 9, 9])
  chosen = encoded.take(np.array([2]))
  np.testing.assert_array_equal(chosen.first, [[4, 99, 9, 9]])
  assert data.encode(_with_attempts('', ''), Letters(), 1, 4).first is None


def test_a_fixed_first_attempt_that_does_not_fit_is_refused_or_dropped():
  problems = _with_attempts('bc', 'b')
  with pytest.raises(ConfigError) as caught:
    data.encode(problems, Letters(), 1, 2)
  assert (
    'sampling.max_tokens[0]=2 is less than the 3 tokens of problem p0; 1 of 2 fixed first attempts are longer. Set it to 3'
    in str(caught.value)
  )
  assert data.encode(problems, Letters(), 1, 2, drop=True).dropped == 1


PARTS = st.lists(
  st.builds(Part, st.integers(1, 12), st.integers(1, 5)),
  min_size=1,
  max_size=3,
)


@given(PARTS, st.integers(0, 5), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_rates_are_exact_in_every_cycle_and_members_have_whole_epochs(
  parts, seed, size
):
  cycle, cycles = sum(part.rate for part in parts), 8
  batches = -(-cycle * cycles // size)
  taken = np.concatenate(
    [data.mixed_indices(parts, seed, n, size) for n in range(batches)]
  )
  ends = np.cumsum([part.count for part in parts])
  member = np.searchsorted(ends, taken, side='right')
  for start in range(0, cycle * cycles, cycle):
    turns = np.bincount(member[start : start + cycle], minlength=len(parts))
    assert turns.tolist() == [part.rate for part in parts]
  for number, part in enumerate(parts):
    mine = taken[member == number] - (ends[number] - part.count)
    for start in range(0, len(mine) - part.count + 1, part.count):
      assert sorted(mine[start : start + part.count]) == list(range(part.count))


@given(PARTS, st.integers(0, 40), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_a_restored_position_reads_what_the_unbroken_run_reads(
  parts, batch, size
):
  # One long batch is the order itself; it does not know where it was cut.
  unbroken = data.mixed_indices(parts, 7, 0, (batch + 1) * size)
  np.testing.assert_array_equal(
    data.mixed_indices(parts, 7, batch, size), unbroken[-size:]
  )


def test_the_order_of_a_mixture_is_frozen():
  """Worked out by hand from NumPy's own permutations."""
  parts, seed = (Part(3, 2), Part(2, 1)), 4
  expected, place = [], [0, 0]
  for cycle in range(4):
    turns = np.random.default_rng([seed, cycle, 1_000_003]).permutation(
      [0, 0, 1]
    )
    for part in turns:
      count = (3, 2)[part]
      epoch, at = divmod(place[part], count)
      order = np.random.default_rng([seed, epoch, int(part)]).permutation(count)
      expected.append((0, 3)[part] + order[at])
      place[part] += 1
  assert data.mixed_indices(parts, seed, 0, 12).tolist() == expected


def test_the_order_of_one_task_is_frozen():
  order = [np.random.default_rng([5, epoch]).permutation(4) for epoch in (0, 1)]
  np.testing.assert_array_equal(
    data.batch_indices(4, 5, 0, 8), np.concatenate(order)
  )


def test_the_members_of_a_mixture_are_counted_after_some_were_dropped():
  problems = [
    Problem(f'{name}/{n}', 'a' * n, '', '')
    for name in ('x', 'xy')
    for n in (1, 2, 3)
  ]
  members = (Member('x', 2), Member('xy', 1))
  encoded = data.encode(problems, Letters(), 2, drop=True, members=members)
  assert encoded.parts == (Part(2, 2), Part(2, 1))
  taken = [encoded.problems[i].id for i in encoded.batch(0, 0, 6)]
  assert sorted(taken) == ['x/1', 'x/1', 'x/2', 'x/2', 'xy/1', 'xy/2']
  with pytest.raises(
    ConfigError, match='mixes xy, of which no problem is left'
  ):
    data.encode(problems[:3], Letters(), 2, drop=True, members=members)


def test_one_task_alone_takes_its_problems_in_turn():
  encoded = data.encode(_problems(*'abcde'), Letters(), 1)
  np.testing.assert_array_equal(
    encoded.batch(3, 2, 4), data.batch_indices(5, 3, 2, 4)
  )
