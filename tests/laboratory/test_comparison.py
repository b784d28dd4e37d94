"""The table's figures, by hand and by scipy."""

import numpy as np
import pytest
import scipy.stats

from score_jax import evaluation
from score_jax.laboratory import comparison


def record(first, second, right, difficulty=''):
  """Returns an evaluation's row of two attempts with these answers."""
  outcomes = ['right' if r else 'wrong' for r in right]
  return {
    'attempts': [first, second],
    'answers': [first, second],
    'outcomes': outcomes,
    'truncated': [False, False],
    'difficulty': difficulty,
  }


RECORDS = [
  record('1', '2', (False, True)),
  record('3', '3', (True, True)),
  record('4', '5', (True, False)),
  record('6', '6', (False, False)),
]
STEPS = [
  {'sampled_attempts': 100, 'sampled_tokens': 350},
  {'sampled_attempts': 101, 'sampled_tokens': 352},
]


def cell(rng=None, steps=STEPS, chance=0.5):
  """Returns a cell of forty problems, drawn, or that of RECORDS."""
  if rng is None:
    return comparison.read_cell(RECORDS, steps)
  rows = [
    record('a', rng.choice(['a', 'b']), rng.random(2) < chance)
    for _ in range(40)
  ]
  return comparison.read_cell(rows, steps)


def test_a_cell_counts_its_records():
  found = cell()
  means = {name: np.nanmean(v) for name, v in found.values.items()}
  assert means['accuracy_t1'] == means['accuracy_t2'] == 0.5
  assert (means['delta_i_to_c'], means['delta_c_to_i']) == (0.25, 0.25)
  assert (means['keeps_right'], means['fixes_wrong']) == (0.5, 0.5)
  assert (means['answer_change_rate'], means['exact_copy_rate']) == (0.5, 0.5)
  assert (found.attempts, found.tokens, found.updates) == (201, 702, 2)


def test_the_problems_of_each_difficulty_have_values_of_their_own():
  rows = [
    record('1', '2', (False, True), 'Level 1'),
    record('3', '3', (True, True), 'Level 1'),
    record('4', '5', (True, False), 'Level 5'),
    record('6', '6', (False, False)),
  ]
  values = comparison.read_cell(rows, []).values
  assert values['accuracy_t1 [Level 1]'].tolist() == [0, 1]
  assert values['delta [Level 1]'].tolist() == [1, 0]
  assert values['accuracy_t2 [Level 5]'].tolist() == [0]
  assert len(values['accuracy_t1']) == 4


def test_half_the_width_of_an_interval_over_seeds_is_that_of_student():
  means = np.array([0.3, 0.5, 0.55])
  _, high = scipy.stats.t.interval(
    0.95, 2, means.mean(), scipy.stats.sem(means)
  )
  assert comparison.half_width(means) == pytest.approx(high - means.mean())
  assert comparison.half_width(means[:1]) == 0.0


def test_an_interval_adds_the_squares_of_problems_and_seeds():
  rng = np.random.default_rng(0)
  values = [(rng.random(4000) < p) * 1.0 for p in (0.4, 0.5, 0.6)]
  found = comparison.figure(values)
  means = np.array([v.mean() for v in values])
  assert found.mean == pytest.approx(means.mean())
  # Problems by the normal approximation, of each one's mean over seeds.
  problems = 1.96 * np.std(np.mean(values, axis=0)) / np.sqrt(4000)
  half = np.hypot(problems, comparison.half_width(means))
  assert found.high - found.mean == pytest.approx(half, rel=0.01)
  assert found.mean - found.low == pytest.approx(half, rel=0.01)


def test_problems_alone_decide_where_all_seeds_agree():
  values = (np.arange(400) % 4 == 0) * 1.0
  one, three = comparison.figure([values]), comparison.figure([values] * 3)
  assert (one.mean, one.low, one.high) == pytest.approx(
    (three.mean, three.low, three.high)
  )


def test_no_interval_of_a_share_leaves_it_and_one_of_a_difference_may():
  rare = [np.repeat([1.0, 0.0], [n, 2000 - n]) for n in (0, 1, 20)]
  found, usual = comparison.figure(rare), comparison.figure([-x for x in rare])
  assert found.low == 0.0
  assert usual.high > 0.0
  assert comparison.figure([1 - x for x in rare]).high == 1.0
  assert found.high == pytest.approx(-usual.low)


def test_intervals_hold_the_truth_about_as_often_as_they_say(monkeypatch):
  """Problems of their own chances, and seeds that are better or worse."""
  monkeypatch.setattr(comparison, 'RESAMPLES', 200)
  rng, held = np.random.default_rng(0), 0
  for _ in range(300):
    chance = rng.beta(2, 2, size=(1, 200)) + rng.normal(0, 0.03, size=(3, 1))
    values = (rng.random((3, 200)) < chance) * 1.0
    found = comparison.figure(list(values))
    held += found.low <= 0.5 <= found.high
  assert 0.93 <= held / 300 <= 1.0


def test_an_interval_of_one_seed_is_over_problems():
  values = (np.arange(400) % 4 == 0) * 1.0
  found = comparison.figure([values])
  half = 1.96 * np.sqrt(0.25 * 0.75 / 400)
  assert found.mean == 0.25
  assert (found.low, found.high) == pytest.approx(
    (0.25 - half, 0.25 + half), abs=0.01
  )


def test_a_rate_without_a_case_has_no_figure():
  none = np.full(4, np.nan)
  assert np.isnan(comparison.figure([none, none]).mean)


def test_methods_are_held_against_each_other_problem_by_problem():
  rng = np.random.default_rng(0)
  ours, theirs = ([cell(rng, chance=p) for _ in '123'] for p in (0.9, 0.3))
  found = comparison.against(ours, theirs)
  second = [
    np.mean([c.right[:, 1] for c in side], axis=0) for side in (ours, theirs)
  ]
  assert found.accuracy.mean == pytest.approx(np.mean(second[0] - second[1]))
  tests = [
    scipy.stats.binomtest(
      int((a.right[:, 1] & ~b.right[:, 1]).sum()),
      int((a.right[:, 1] != b.right[:, 1]).sum()),
    ).pvalue
    for a, b in zip(ours, theirs, strict=True)
  ]
  assert found.p == pytest.approx(max(tests))
  assert found.accuracy.low > 0


def test_a_method_is_not_held_against_itself():
  cells = [cell()]
  assert comparison.line('score', 'SCoRe', cells, cells).against is None


def test_one_that_was_not_trained_is_held_against_every_seed():
  rng = np.random.default_rng(2)
  base, ours = [cell(rng, [])], [cell(rng, chance=p) for p in (0.2, 0.5, 0.9)]
  found = comparison.against(base, ours)
  second = np.mean([c.right[:, 1] for c in ours])
  assert found.accuracy.mean == pytest.approx(
    base[0].right[:, 1].mean() - second
  )


def test_of_trained_ones_as_many_seeds_are_compared_as_both_have():
  rng = np.random.default_rng(3)
  ours, theirs = [cell(rng)], [cell(rng, chance=p) for p in (0.2, 0.9)]
  found = comparison.against(ours, theirs)
  gain = ours[0].right[:, 1].mean() - theirs[0].right[:, 1].mean()
  assert found.accuracy.mean == pytest.approx(gain)


def test_a_difference_is_as_sure_as_problems_and_seeds_make_it():
  rng = np.random.default_rng(4)
  ours, theirs = ([cell(rng, chance=p) for _ in '123'] for p in (0.7, 0.4))
  found = comparison.against(ours, theirs).delta
  gain = np.stack(
    [
      a.values['delta'] - b.values['delta']
      for a, b in zip(ours, theirs, strict=True)
    ],
    axis=1,
  )
  draws = evaluation.bootstrap(gain, 2000, 0).mean(axis=1)
  _, high = evaluation.interval(draws)
  mean = gain.mean()
  half = np.hypot(high - mean, comparison.half_width(gain.mean(axis=0)))
  assert found.high == pytest.approx(mean + half)


def test_a_row_has_the_metrics_that_all_its_seeds_have():
  more = cell()
  more.values['samples_avg_at_2_t1'] = np.ones(2)
  figures = comparison.line('rise', 'RISE', [more, cell()], []).figures
  assert 'samples_avg_at_2_t1' not in figures
  figures = comparison.line('rise', 'RISE', [more], []).figures
  assert figures['samples_avg_at_2_t1'].mean == 1.0


def test_the_spread_of_samples_is_over_trained_rows_alone():
  rng = np.random.default_rng(1)
  found = [
    comparison.line(
      name,
      name,
      [cell(rng, [{'sampled_attempts': n, 'sampled_tokens': 9}] * bool(n))],
      [],
    )
    for name, n in (('base', 0), ('score', 201), ('rise', 204))
  ]
  assert comparison.spread(found) == pytest.approx(204 / 201 - 1)


def test_metrics_together_have_the_intervals_that_each_has_alone():
  rng = np.random.default_rng(5)
  values = {
    'a': [rng.random(50) for _ in '12'],
    'b': [rng.random(30) for _ in '12'],
    'c': [np.where(rng.random(50) < 0.5, np.nan, 1.0) for _ in '12'],
    'none': [np.full(50, np.nan)] * 2,
  }
  found = comparison.figures(values)
  assert list(found) == list(values)
  for name in 'abc':
    alone = comparison.figure(values[name])
    assert (found[name].low, found[name].high) == pytest.approx(
      (alone.low, alone.high)
    )
  assert np.isnan(found['none'].mean)
