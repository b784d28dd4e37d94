"""The table's figures, by hand and by scipy."""

import csv
import io

import numpy as np
import pytest
import scipy.stats

from score_jax import comparison
from score_jax.comparison import Figure


def record(first, second, right):
  """Returns an evaluation's row of two attempts with these answers."""
  outcomes = ['right' if r else 'wrong' for r in right]
  return {
    'attempts': [first, second],
    'answers': [first, second],
    'outcomes': outcomes,
    'truncated': [False, False],
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


def test_an_interval_over_seeds_is_that_of_student():
  values = [np.array([a, a, 1.0, 0.0]) for a in (0.0, 0.5, 1.0)]
  found = comparison.figure(values)
  means = [v.mean() for v in values]
  low, high = scipy.stats.t.interval(
    0.95, 2, np.mean(means), scipy.stats.sem(means)
  )
  assert found.mean == pytest.approx(0.5)
  assert (found.low, found.high) == pytest.approx((low, high))


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
  assert found.accuracy.value == pytest.approx(np.mean(second[0] - second[1]))
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


def lines():
  rng = np.random.default_rng(1)
  theirs = [cell(rng) for _ in '12']
  more = [{'sampled_attempts': 204, 'sampled_tokens': 9}]
  return [
    comparison.line('base', 'Base model', [cell(rng, [])], theirs),
    comparison.line('score', 'SCoRe', theirs, theirs),
    comparison.line('rise', 'RISE', [cell(rng, more) for _ in '12'], theirs),
  ]


def test_the_spread_of_samples_is_over_trained_rows_alone():
  assert comparison.spread(lines()) == pytest.approx(204 / 201 - 1)


def test_the_markdown_table_has_a_row_per_method_and_says_what_it_is():
  text = comparison.markdown(lines(), 40)
  rows = [x for x in text.splitlines() if x.startswith('|')]
  assert len({row.count('|') for row in rows}) == 1
  assert [row.split('|')[1].strip() for row in rows[2:]] == [
    'Base model',
    'SCoRe',
    'RISE',
  ]
  assert 'Percent of 40 test problems, means over 1–2 seeds' in text
  assert 'within 1.5%' in text


def test_the_latex_table_is_rectangular_and_escapes_percent():
  text = comparison.latex(lines(), 40)
  body = [x for x in text.splitlines() if ' & ' in x]
  assert len(body) == 4
  assert len({row.count('&') for row in body}) == 1
  assert '%' not in text.splitlines()[-1].replace('\\%', '')


def test_the_csv_holds_every_figure_unrounded():
  made = lines()
  rows = list(csv.DictReader(io.StringIO(comparison.comma_separated(made))))
  assert [row['name'] for row in rows] == ['base', 'score', 'rise']
  figure = made[2].figures['delta']
  assert (
    Figure(*(float(rows[2][f'delta{end}']) for end in ('', '_low', '_high')))
    == figure
  )
  assert float(rows[2]['mcnemar_p']) == made[2].against.p
  assert rows[1]['mcnemar_p'] == ''
