"""Several samples per problem, against enumeration, scipy and the hand."""

import itertools

import numpy as np
import pytest
import scipy.stats

from score_jax import budget


@pytest.mark.parametrize('k', [1, 2, 3, 5])
def test_pass_at_k_is_the_mean_over_all_choices_of_k_samples(k):
  right = np.array([[1, 0, 0, 1, 0], [0] * 5, [1] * 5, [0, 0, 0, 0, 1]], bool)
  choices = list(itertools.combinations(range(5), k))
  expected = [
    np.mean([row[list(choice)].any() for choice in choices]) for row in right
  ]
  np.testing.assert_allclose(budget.pass_at(right, k), expected)


def test_pass_at_k_is_hypergeometric_for_many_samples():
  right = np.zeros((1, 1000), bool)
  right[0, :37] = True
  chance = scipy.stats.hypergeom(1000, 37, 100).pmf(0)
  np.testing.assert_allclose(budget.pass_at(right, 100), 1 - chance)


def test_the_average_is_over_the_first_k_samples():
  right = np.array([[1, 0, 0, 1]], bool)
  assert budget.average_at(right, 3) == pytest.approx(1 / 3)
  assert budget.average_at(right, 4) == pytest.approx(1 / 2)


@pytest.mark.parametrize('k', [0, 5])
@pytest.mark.parametrize('count', [budget.pass_at, budget.average_at])
def test_more_samples_than_there_are_are_refused(count, k):
  with pytest.raises(ValueError, match=f'from 1 to the 4 samples; got {k}'):
    count(np.ones((1, 4), bool), k)


def test_the_majority_decides_and_ties_are_drawn():
  answers = [
    ['7', '7', '8'],  # Right answer 7.
    ['7', '8', '8'],  # Right answer 7.
    ['7', '8', ''],  # A tie; right answer 8.
    ['', '', ''],
    ['', '', '5'],  # Who says nothing has no vote.
  ]
  right = np.array(
    [[1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]], bool
  )
  found = budget.majority(answers, right)
  np.testing.assert_allclose(found, [1, 0, 0.5, 0, 1])


def test_the_best_is_right_if_any_is():
  right = np.array([[0, 0], [0, 1]], bool)
  np.testing.assert_array_equal(budget.best_of([[], []], right), [0, 1])


SAMPLES = budget.Samples(
  answers=[
    [('1', '2'), ('1', '2'), ('3', '4'), ('2', '2')],
    [('5', '5'), ('6', '5'), ('6', '6'), ('6', '6')],
  ],
  right=np.array(
    [
      [(0, 1), (0, 1), (0, 0), (1, 1)],
      [(1, 1), (0, 1), (0, 0), (0, 0)],
    ],
    bool,
  ),
  tokens=np.array(
    [[(2, 4)] * 4, [(4, 6)] * 4],
  ),
)


def test_parallel_samples_are_first_attempts_alone():
  found = budget.parallel(SAMPLES, [1, 4], budget.majority)
  # One: answers 1 and 5. Four: 1 twice, wrong; 6 three times, wrong.
  assert found == [budget.Point(1, 3.0, 0.5), budget.Point(4, 12.0, 0.0)]


def test_corrected_samples_pay_for_both_attempts_and_choose_among_the_last():
  found = budget.corrected(SAMPLES, [2, 4, 8], budget.majority)
  # One trajectory: 2 and 5. Two: 2, 2 and 5, 5. Four: 2 wins; 5 and 6 tie.
  assert found == [
    budget.Point(2, 8.0, 1.0),
    budget.Point(4, 16.0, 1.0),
    budget.Point(8, 32.0, 0.75),
  ]


def test_the_best_of_k_never_falls_with_k():
  found = budget.parallel(SAMPLES, [1, 2, 3, 4], budget.best_of)
  assert [p.accuracy for p in found] == [0.5, 0.5, 0.5, 1.0]


@pytest.mark.parametrize('count', [0, 3, 10])
def test_a_count_that_is_no_whole_number_of_trajectories_is_refused(count):
  with pytest.raises(ValueError, match=f'multiples of 2 turns.*got {count}'):
    budget.corrected(SAMPLES, [count], budget.majority)


def test_curves_are_compared_at_equal_tokens():
  curve = [budget.Point(4, 30.0, 0.6), budget.Point(2, 10.0, 0.4)]
  found = budget.at_tokens(curve, [5.0, 10.0, 15.0, 30.0, 31.0])
  np.testing.assert_allclose(found, [np.nan, 0.4, 0.45, 0.6, np.nan])


def test_difficulty_groups_the_problems_that_have_one():
  values = np.array([1.0, 0.0, np.nan, 1.0, 1.0])
  found = budget.by_difficulty(['2', '2', '1', '', '3'], values)
  assert found == {'2': (0.5, 2), '3': (1.0, 1)}


def test_attempts_have_an_accuracy_each():
  right = np.array([[0, 1, 1], [1, 1, 0]], bool)
  np.testing.assert_array_equal(budget.over_attempts(right), [0.5, 1, 0.5])
