import json
import math
import subprocess
import sys

import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.stats

from score_jax import evaluation

NORMAL = scipy.stats.norm.ppf(0.975)
TEXT = st.text('abc ', max_size=90)  # Longer than a machine word.
OUTCOMES = hypothesis.extra.numpy.arrays(
  bool, st.tuples(st.integers(1, 8), st.integers(2, 4))
)


def table_distance(a, b, substitution):
  """The textbook table, one cell at a time."""
  above = list(range(len(b) + 1))
  for i, x in enumerate(a, start=1):
    line = [i]
    for j, y in enumerate(b, start=1):
      change = above[j - 1] + (0 if x == y else substitution)
      line.append(min(above[j] + 1, line[j - 1] + 1, change))
    above = line
  return above[-1]


def attempts(right):
  """Attempts that are described by their outcomes alone."""
  right = np.asarray(right, bool)
  texts = [['' for _ in row] for row in right]
  return evaluation.compare(texts, texts, right, np.zeros_like(right))


@hypothesis.given(TEXT, TEXT)
def test_edit_distances_are_those_of_the_textbook_table(a, b):
  total = max(1, len(a) + len(b))
  indel = evaluation.edit_distance_ratio(a, b)
  levenshtein = evaluation.levenshtein_ratio(a, b)
  assert indel == table_distance(a, b, 2) / total
  assert levenshtein == table_distance(a, b, 1) / total


@hypothesis.given(TEXT, TEXT, TEXT)
def test_shared_ends_do_not_disturb_the_distance(start, a, b):
  words = [list(start + text + start[::-1]) for text in (a, b)]
  total = max(1, sum(map(len, words)))
  assert evaluation.edit_distance_ratio(*words) == (
    table_distance(a, b, 2) / total
  )


@pytest.mark.parametrize(
  ('a', 'b', 'indel', 'levenshtein'),
  [
    ('', '', 0, 0),
    ('same', 'same', 0, 0),
    ('', 'abc', 1, 1),
    ('abc', '', 1, 1),
    ('abc', 'xyz', 1, 1 / 2),
    ('kitten', 'sitting', 5 / 13, 3 / 13),
    ([7, 300, 7], [300, 7, 7], 2 / 6, 2 / 6),
  ],
)
def test_edit_distance_ratios_counted_by_hand(a, b, indel, levenshtein):
  assert evaluation.edit_distance_ratio(a, b) == indel
  assert evaluation.levenshtein_ratio(a, b) == levenshtein


def test_two_turns_give_the_numbers_counted_by_hand():
  facts = evaluation.compare(
    texts=[['12', '12'], ['13', '14'], ['15', '9'], ['1', '2'], ['7', '7']],
    answers=[['12', '12'], ['13', '14'], ['15', None], ['1', '2'], [None] * 2],
    right=np.array([[1, 1], [0, 1], [1, 0], [0, 0], [0, 0]], bool),
    truncated=np.array([[0, 0], [0, 0], [0, 1], [0, 0], [1, 1]], bool),
  )
  summary = evaluation.summarize(facts, resamples=50, seed=0)
  intervals = summary.pop('ci95')
  assert summary == pytest.approx(
    {
      'n': 5,
      'accuracy_t1': 2 / 5,
      'accuracy_t2': 2 / 5,
      'delta': 0,
      'delta_i_to_c': 1 / 5,
      'delta_c_to_i': 1 / 5,
      'keeps_right': 1 / 2,
      'fixes_wrong': 1 / 3,
      'answer_change_rate': 3 / 5,
      'exact_copy_rate': 2 / 5,
      'mean_edit_distance_ratio': (0 + 2 / 4 + 3 / 3 + 2 / 2 + 0) / 5,
      'truncated_t1': 1 / 5,
      'truncated_t2': 2 / 5,
    }
  )
  assert intervals.keys() == summary.keys() - {'n'}


def test_the_third_turn_is_held_against_the_second():
  summary = evaluation.summarize(
    attempts([[1, 0, 1], [0, 1, 1], [0, 1, 0], [0, 0, 1]]), 50, 0
  )
  assert summary['delta'] == 1 / 4
  assert summary['delta_t3'] == 1 / 4
  assert summary['delta_i_to_c_t3'] == 2 / 4
  assert summary['delta_c_to_i_t3'] == 1 / 4
  assert summary['keeps_right_t3'] == 1 / 2
  assert summary['fixes_wrong_t3'] == 2 / 2
  assert summary['truncated_t3'] == 0


@hypothesis.given(OUTCOMES)
def test_every_accuracy_is_the_one_before_plus_fixed_less_broken(right):
  means = {k: x.mean() for k, x in evaluation.outcome_values(right).items()}
  for turn in range(2, right.shape[1] + 1):
    end = '' if turn == 2 else f'_t{turn}'
    gained = means[f'delta_i_to_c{end}'] - means[f'delta_c_to_i{end}']
    assert means[f'delta{end}'] == pytest.approx(gained)
    assert means[f'accuracy_t{turn}'] == pytest.approx(
      means[f'accuracy_t{turn - 1}'] + gained
    )


def test_a_rate_without_a_case_is_null_and_the_rest_is_plain_json():
  summary = evaluation.summarize(attempts([[1, 1], [1, 0]]), 50, 0)
  read = json.loads(json.dumps(summary, allow_nan=False))
  assert read == summary
  assert read['fixes_wrong'] is None
  assert read['ci95']['fixes_wrong'] is None
  assert read['keeps_right'] == 1 / 2


def test_resampled_means_have_the_binomial_distribution():
  resamples = 40_000
  means = evaluation.bootstrap(np.array([[0.0], [0.0], [1.0]]), resamples, 0)
  counts = np.bincount(np.rint(3 * means[:, 0]).astype(int), minlength=4)
  expected = resamples * scipy.stats.binom.pmf(range(4), 3, 1 / 3)
  assert scipy.stats.chisquare(counts, expected).pvalue > 1e-3


def test_a_resample_keeps_problems_whole():
  values = np.arange(7.0)[:, None] * [1, -2]
  means = evaluation.bootstrap(values, 300, 5)
  np.testing.assert_allclose(means[:, 1], -2 * means[:, 0])
  assert len(means) == 300
  assert means[:, 0].std() > 0.1


def test_equal_seeds_draw_equal_problems():
  values = np.random.default_rng(0).normal(size=(20, 2))
  both = evaluation.bootstrap(values, 100, 3)
  alone = evaluation.bootstrap(values[:, 1:], 100, 3)
  np.testing.assert_allclose(alone[:, 0], both[:, 1], rtol=1e-12)
  assert not np.allclose(evaluation.bootstrap(values, 100, 4), both)


def test_intervals_are_those_of_the_normal_approximation():
  problems = 2000
  rng = np.random.default_rng(0)
  right = rng.random((problems, 1)) < [[0.6, 0.6]]
  right[:, 1] ^= rng.random(problems) < 0.1
  summary = evaluation.summarize(attempts(right), 8000, 0)
  differences = right[:, 1] * 1.0 - right[:, 0]
  first = right[:, 0].sum()
  deviations = {
    'accuracy_t1': right[:, 0].std() / math.sqrt(problems),
    'delta': differences.std() / math.sqrt(problems),  # Paired.
    'keeps_right': right[right[:, 0], 1].std() / math.sqrt(first),
  }
  for name, deviation in deviations.items():
    reach = NORMAL * deviation
    expected = [summary[name] - reach, summary[name] + reach]
    assert summary['ci95'][name] == pytest.approx(expected, abs=0.06 * reach)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
  rng = np.random.default_rng(0)
  held = 0
  for trial in range(400):
    values = rng.random((300, 1)) < 0.7
    draws = evaluation.bootstrap(values * 1.0, 400, trial)
    low, high = evaluation.interval(draws[:, 0])
    held += low <= 0.7 <= high
  assert 0.91 < held / 400 < 0.98


def test_an_evaluation_does_not_differ_from_itself():
  values = np.random.default_rng(0).random(50)
  same = evaluation.paired_difference(values, values, 200, 0)
  assert same == evaluation.Difference(0.0, 0.0, 0.0)


def test_a_difference_is_judged_by_what_differs_problem_by_problem():
  rng = np.random.default_rng(0)
  before = rng.normal(size=1000) * 10  # Hard and easy problems.
  gains = 0.5 + rng.normal(size=1000)
  found = evaluation.paired_difference(before, before + gains, 8000, 0)
  reach = NORMAL * gains.std() / math.sqrt(1000)
  assert found.value == pytest.approx(gains.mean())
  assert found.low == pytest.approx(gains.mean() - reach, abs=0.06 * reach)
  assert found.high == pytest.approx(gains.mean() + reach, abs=0.06 * reach)


def test_a_difference_of_rates_leaves_out_what_they_do_not_apply_to():
  before = np.array([np.nan, 0, 1, 0])
  after = np.array([1, np.nan, 1, 0])
  found = evaluation.paired_difference(before, after, 500, 0)
  assert found.value == pytest.approx(2 / 3 - 1 / 3)
  assert -1 <= found.low < found.value < found.high <= 1


@pytest.mark.parametrize(
  ('lost', 'won', 'expected'),
  [(0, 0, 1), (3, 3, 1), (1, 5, 2 * 7 / 64), (0, 10, 2 / 1024)],
)
def test_mcnemar_counted_by_hand(lost, won, expected):
  before = np.array([True] * lost + [False] * won + [True, False])
  after = np.array([False] * lost + [True] * won + [True, False])
  assert evaluation.mcnemar(before, after) == expected


@pytest.mark.parametrize('seed', range(5))
def test_mcnemar_is_the_binomial_test_of_the_disagreements(seed):
  rng = np.random.default_rng(seed)
  before, after = rng.random((2, 3000)) < [[0.5], [0.52]]
  lost, won = (before & ~after).sum(), (~before & after).sum()
  expected = scipy.stats.binomtest(lost, lost + won).pvalue
  found = evaluation.mcnemar(before, after)
  assert found == pytest.approx(expected, rel=1e-9)
  assert evaluation.mcnemar(after, before) == found


@pytest.mark.parametrize('shape', [(0, 2), (3, 1), (3,)])
def test_outcomes_without_a_problem_or_a_second_turn_are_refused(shape):
  with pytest.raises(ValueError, match=r'at least 1 problem and 2 turns'):
    evaluation.outcome_values(np.zeros(shape, bool))


def test_facts_of_different_shapes_are_refused_by_name():
  right = np.zeros((2, 2), bool)
  texts = [['a', 'b'], ['c', 'd']]
  with pytest.raises(ValueError, match=r'^answers must be .* \(2, 2\)'):
    evaluation.compare(texts, [['a', 'b'], ['c']], right, right)
  with pytest.raises(ValueError, match=r'^truncated must be'):
    evaluation.compare(texts, texts, right, right[:, :1])


def test_differences_of_other_problems_or_of_no_value_are_refused():
  with pytest.raises(ValueError, match='the same problems'):
    evaluation.paired_difference(np.zeros(3), np.zeros(4), 10, 0)
  with pytest.raises(ValueError, match='got 3 and 0'):
    evaluation.paired_difference(np.zeros(3), np.full(3, np.nan), 10, 0)


def test_the_core_of_evaluation_loads_numpy_alone():
  code = (
    'import sys, score_jax.evaluation; print(*sorted({"jax", "scipy", '
    '"matplotlib", "seqio", "tensorflow", "transformers"} & set(sys.modules)))'
  )
  loaded = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert loaded.stdout.strip() == ''
