"""The tables, of rows whose numbers are made up by hand."""

import csv
import io

import pytest

from score_jax.laboratory import tables
from score_jax.laboratory.comparison import Against, Figure, Line
from score_jax.report import words


def figures(**changes):
  """Returns a figure for every column of the main table."""
  found = {metric: Figure(0.5, 0.4, 0.6) for metric in tables.COLUMNS.values()}
  return found | changes


def line(name, words, figures, attempts=0.0, against=None, seeds=3):
  updates = 160.0 if attempts else 0.0
  return Line(name, words, seeds, figures, attempts, 5.0, updates, against)


AGAINST = Against(Figure(-0.071, -0.09, -0.05), Figure(0.0, -0.0001, 0.0), 3e-7)
LINES = [
  line('base', 'Base model', figures(), against=AGAINST, seeds=1),
  line('score', 'SCoRe', figures(delta=Figure(0.226, 0.204, 0.248)), 38400.0),
  line(
    'rise',
    'RISE',
    figures(keeps_right=Figure(*[float('nan')] * 3)),
    38784.0,
    AGAINST,
  ),
]


def rows_of(text):
  return [
    [cell.strip() for cell in x.strip('|').split('|')]
    for x in text.splitlines()
    if x.startswith('|')
  ]


def test_the_main_table_has_a_row_per_method_and_says_what_it_is():
  text = tables.markdown(tables.grids(LINES, 40)[0])
  heads, _, *rows = rows_of(text)
  assert {len(row) for row in rows} == {len(heads)}
  assert [row[0] for row in rows] == ['Base model', 'SCoRe', 'RISE']
  score = dict(zip(heads, rows[1], strict=True))
  assert score['Δ'] == '22.6 [20.4, 24.8]'
  assert score['Acc@t2 vs SCoRe'] == '–'
  assert (score['attempts'], score['updates']) == ('38,400', '160')
  rise = dict(zip(heads, rows[2], strict=True))
  assert rise['Acc@t2 vs SCoRe'] == '-7.1 [-9.0, -5.0]'
  assert rise['Δ vs SCoRe'] == '0.0 [0.0, 0.0]'  # And no less than nothing.
  assert rise['keeps right'] == '–'
  assert rows[0][-2:] == ['–', '–']
  assert 'Percent of 40 test problems, means over 1 to 3 seeds' in text
  assert 'within 1.0% of each other' in text


def test_tables_round_as_figures_do():
  gains = figures(delta=Figure(0.2485, 0.2, 0.3))
  text = tables.markdown(tables.grids([line('score', 'SCoRe', gains)], 40)[0])
  assert '24.9 [20.0, 30.0]' in text
  assert words.points(0.2485) == '24.9'


def test_only_the_main_table_is_there_where_nothing_else_was_asked():
  assert [grid.title for grid in tables.grids(LINES, 40)] == ['']


def asked(**more):
  return line('score', 'SCoRe', figures(**more), 1.0)


def named(title, *lines):
  (grid,) = [g for g in tables.grids(lines, 40) if g.title == title]
  return grid


def test_turns_beyond_two_have_a_table_of_their_own():
  x = Figure(0.7, 0.6, 0.8)
  grid = named(
    'More than two attempts in training', *LINES, asked(accuracy_t3=x)
  )
  assert list(grid.heads) == ['', 'Acc@t1', 'Acc@t2', 'Acc@t3']
  assert [row[0] for row in grid.rows] == ['SCoRe']
  assert grid.rows[0][3] == x


def test_attempts_in_a_row_are_in_the_order_of_their_numbers():
  more = {f'attempts_accuracy_t{t}': Figure(t, t, t) for t in range(10, 0, -1)}
  grid = named('Attempts in a row', *LINES, asked(**more))
  assert [x.mean for x in grid.rows[0][1:]] == list(range(1, 11))


def test_own_and_fixed_first_attempts_stand_side_by_side():
  fixed = Figure(0.3, 0.2, 0.4)
  title = 'Second attempts behind the base model’s first attempts'
  grid = named(title, *LINES, asked(fixed_first_fixes_wrong=fixed))
  found = dict(zip(grid.heads, grid.rows[0], strict=True))
  assert found['fixes its own'] == Figure(0.5, 0.4, 0.6)
  assert found["fixes the base's"] == fixed
  assert len(grid.rows) == 1


def test_samples_have_a_row_per_turn():
  names = [f'samples_{k}_t{t}' for k in ('avg_at_8', 'pass_at_4') for t in '12']
  more = {name: Figure(i, i, i) for i, name in enumerate(names)}
  grid = named('Several samples', *LINES, asked(**more))
  assert list(grid.heads) == ['', 'avg@8', 'pass@4']
  assert [[x.mean for x in row[1:]] for row in grid.rows] == [[0, 2], [1, 3]]
  assert [row[0] for row in grid.rows] == [
    'SCoRe, attempt 1',
    'SCoRe, attempt 2',
  ]


def test_budgets_have_a_row_each_with_their_tokens():
  more, place = {}, 0
  for n in (16, 2):
    more[f'samples_tokens_{n}'] = Figure(5 * n, 0, 0)
    for choice in ('majority', 'best_of'):
      for way in ('parallel', 'corrected', 'gain'):
        more[f'samples_{choice}_{n}_{way}'] = Figure(place, 0, 0)
        place += 1
  grid = named('Attempts side by side, and corrected ones', asked(**more))
  assert [row[:3] for row in grid.rows] == [
    ['SCoRe', '2', '10.0'],
    ['SCoRe', '16', '80.0'],
  ]
  assert [x.mean for x in grid.rows[1][3:]] == [0, 1, 2, 3, 4, 5]


def test_difficulties_stand_in_their_order():
  more = {
    f'{metric} [Level {n}]': Figure(n, n, n)
    for n in (2, 1)
    for metric in ('accuracy_t1', 'accuracy_t2', 'delta')
  }
  grid = named('By difficulty', *LINES, asked(**more))
  assert list(grid.heads)[1:4] == [
    'Acc@t1, Level 1',
    'Acc@t2, Level 1',
    'Δ, Level 1',
  ]
  assert [x.mean for x in grid.rows[0][1:]] == [1, 1, 1, 2, 2, 2]


def test_hypertext_shows_intervals_below_and_escapes_what_it_is_given():
  hostile = line('rise', '<b>RISE</b>', figures(), 1.0)
  text = tables.hypertext(tables.grids([hostile], 40)[0])
  assert '&lt;b&gt;RISE&lt;/b&gt;' in text
  assert '50.0<small>40.0 to 60.0</small>' in text


def test_the_latex_table_is_rectangular_and_escapes_percent():
  text = tables.latex(tables.grids(LINES, 40)[0])
  body = [x for x in text.splitlines() if ' & ' in x]
  assert len(body) == 4
  assert len({row.count('&') for row in body}) == 1
  assert 'SCoRe & $50.0$ {\\scriptsize $[40.0, 60.0]$}' in text
  assert '%' not in text.replace('\\%', '')


def test_the_csv_holds_every_figure_unrounded():
  text = tables.comma_separated([*LINES, asked(accuracy_t3=Figure(1, 1, 1))])
  rows = list(csv.DictReader(io.StringIO(text)))
  assert [row['name'] for row in rows] == ['base', 'score', 'rise', 'score']
  ends = ('delta', 'delta_low', 'delta_high')
  assert [float(rows[1][x]) for x in ends] == [0.226, 0.204, 0.248]
  assert float(rows[2]['mcnemar_p']) == 3e-7
  assert float(rows[2]['accuracy_t2_vs_score_low']) == pytest.approx(-0.09)
  assert rows[1]['mcnemar_p'] == rows[1]['accuracy_t3'] == ''
  assert rows[3]['accuracy_t3'] == '1'
