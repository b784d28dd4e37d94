"""Problems as arrays, and a batch as a function of the seed and its number."""

import dataclasses

import numpy as np
import pytest

from score_jax import data
from score_jax.config import ConfigError
from score_jax.problem import Problem


@dataclasses.dataclass(frozen=True)
class Letters:
  """A tokenizer whose ids are the letters' places in the alphabet, from 1."""

  pad: int = 0

  def prompts(self, texts):
    return [[ord(letter) - ord('a') + 1 for letter in text] for text in texts]


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
    '2 of 3 prompts are longer. Set it to 5.'
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
