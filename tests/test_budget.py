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


def accuracy(samples, count, choose=budget.majority):
  values, tokens = budget.outcomes(samples, count, choose)
  return values.mean(), tokens.mean()


def test_samples_side_by_side_are_first_attempts_alone():
  first = budget.first_attempts(SAMPLES)
  # One of the four: 1, 1, 3 wrong and 2 right; 5 right and three 6 wrong.
  assert accuracy(first, 1) == (0.25, 3.0)
  # Four: 1 twice, wrong; 6 three times, wrong.
  assert accuracy(first, 4) == (0.0, 12.0)


def test_corrected_samples_pay_for_both_attempts_and_choose_among_the_last():
  # One trajectory of four: 2, 2, 2 right of 4; 5, 5 right of 4.
  assert accuracy(SAMPLES, 2) == (0.625, 8.0)
  # Two: 2, 2 and a tie of 4 and 2; 5, 5 and 6, 6.
  assert accuracy(SAMPLES, 4) == ((0.75 + 0.5) / 2, 16.0)
  # Four: 2 wins; 5 and 6 tie.
  assert accuracy(SAMPLES, 8) == (0.75, 32.0)


def test_a_choice_is_averaged_over_all_groups_and_none_is_used_twice():
  # Groups of three of four: one group, the fourth sample is left over.
  values, tokens = budget.outcomes(
    budget.first_attempts(SAMPLES), 3, budget.best_of
  )
  np.testing.assert_array_equal(values, [0, 1])
  np.testing.assert_array_equal(tokens, [6, 12])


@pytest.mark.parametrize('count', [0, 3, 10])
def test_a_count_that_is_no_whole_number_of_trajectories_is_refused(count):
  with pytest.raises(ValueError, match=f'multiples of 2 turns.*got {count}'):
    budget.outcomes(SAMPLES, count, budget.majority)


def drawn(rng, problems=60, samples=16, second=1.0):
  """Returns samples whose second attempts are `second` times as long."""
  right = rng.random((problems, samples, 2)) < 0.4
  answers = np.where(right, 0, rng.integers(1, 4, right.shape)).tolist()
  tokens = rng.integers(20, 60, right.shape)
  tokens[..., 1] = (tokens[..., 0] * second).astype(int)
  return budget.Samples(answers, right, tokens)


@pytest.mark.parametrize('second', [0.5, 0.9, 1.0, 1.7])
def test_budgets_of_tokens_are_equal_within_one_percent(second):
  samples = drawn(np.random.default_rng(0), second=second)
  found = budget.at_equal_tokens(samples, [2, 4, 8, 16], budget.majority)
  assert found
  for match in found:
    # All sixteen trajectories are in some group of match.attempts / 2.
    groups = 16 // (match.attempts // 2)
    spent = samples.tokens.sum() / groups / 60
    assert match.tokens.mean() == pytest.approx(spent)
    assert match.parallel_tokens.mean() == pytest.approx(spent, rel=0.01)
    # As many first attempts as so many tokens are.
    count = spent / samples.tokens[..., 0].mean()
    low, high = int(count), min(16, int(count) + 1)
    ends = [
      budget.outcomes(budget.first_attempts(samples), n, budget.majority)[0]
      for n in (low, high)
    ]
    assert (match.parallel >= np.minimum(*ends) - 0.02).all()
    assert (match.parallel <= np.maximum(*ends) + 0.02).all()


def test_between_two_counts_outcomes_are_mixed_so_that_costs_are_equal():
  # Second attempts of half the length: K corrected cost 1.5 K first attempts.
  tokens = np.tile([4, 2], (3, 4, 1))
  right = np.zeros((3, 4, 2), bool)
  right[:, 1, 0] = True  # Of any two first attempts in a row, one is right.
  right[:, 3, 0] = True
  samples = budget.Samples([[('a', 'b')] * 4] * 3, right, tokens)
  (match,) = budget.at_equal_tokens(samples, [2], budget.best_of)
  # Six tokens: one attempt, right with 1/2, or two, right for sure.
  np.testing.assert_allclose(match.parallel, 0.75)
  np.testing.assert_allclose(match.parallel_tokens, 6.0)


def test_a_budget_beyond_what_was_sampled_is_left_out():
  samples = drawn(np.random.default_rng(1), second=1.7)
  # 8 trajectories cost 8 * 2.7 = 21.6 first attempts, and there are 16.
  found = budget.at_equal_tokens(samples, [2, 4, 8, 16], budget.majority)
  assert [match.attempts for match in found] == [2, 4, 8]


def test_budgets_double():
  assert budget.doubled(2, 32) == [2, 4, 8, 16, 32]
  assert budget.doubled(3, 32) == [3, 6, 12, 24]


def test_difficulty_groups_the_problems_that_have_one():
  values = np.array([1.0, 0.0, np.nan, 1.0, 1.0])
  found = budget.by_difficulty(['2', '2', '1', '', '3'], values)
  assert list(found) == ['1', '2', '3']
  np.testing.assert_array_equal(found['2'], [1, 0])
  np.testing.assert_array_equal(found['1'], [np.nan])
