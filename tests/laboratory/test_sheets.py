"""Figures and their captions, of cells whose numbers are made up by hand."""

import io

import matplotlib as mpl
import matplotlib.image
import numpy as np
import pytest

from score_jax import config as config_lib
from score_jax.laboratory import comparison, drawings, history, looks, sheets
from score_jax.methods import catalogue
from score_jax.report import style

TABLE = config_lib.default().table
NAMES = ('base', 'star_d', 'pair_sft_d', 'score')
# Fates of ten problems: (first, second) right.
FATES = [(1, 1)] * 5 + [(0, 1)] * 3 + [(1, 0)] + [(0, 0)]
UPDATES = 20


def record(first, second):
  texts = ['1234' if first else '1034', '1234' if second else '1834']
  return {
    'attempts': texts,
    'answers': texts,
    'outcomes': ['right' if r else 'wrong' for r in (first, second)],
    'truncated': [False, False],
  }


def steps(changes=0.2, phases=('stage1', 'stage2')):
  each = UPDATES // len(phases)
  return [
    {
      'stage': phase,
      'step': n + 1,
      'accuracy_t1': 0.4,
      'accuracy_t2': 0.6,
      'answer_change_rate': changes,
      'sampled_attempts': 240,
      'sampled_tokens': 1200,
    }
    for phase in phases
    for n in range(each)
  ]


def cell(records=None, made=(), **more):
  """Returns a cell of FATES with further values."""
  found = comparison.read_cell(records or [record(*f) for f in FATES], made)
  found.values.update({k: np.asarray(v, float) for k, v in more.items()})
  return found


def sheet(name, **settings):
  table = TABLE.copy_and_resolve_references()
  table.update(settings)
  (found,) = [x for x in sheets.sheets(table, NAMES) if x.name == name]
  return found


@pytest.fixture
def drawn(monkeypatch):
  """Gives what is drawn, and renders nothing, which takes most of the time."""
  figures = {}

  def picture(name, caption, draw):
    with mpl.rc_context(style.LOOK):
      figures[name] = draw()
    return style.Picture(name, caption, b'', '<svg></svg>')

  monkeypatch.setattr(style, 'picture', picture)
  return figures


def spans(axes):
  """Returns the lengths of horizontal bars, row by row of the drawing."""
  return [bar.get_width() for bar in axes.patches]


def test_the_four_fates_of_a_method_fill_its_bar(drawn):
  made = sheets.draw(sheet('transitions'), {'score': [cell()]})
  (axes,) = drawn['transitions'].axes
  assert spans(axes) == pytest.approx([0.5, 0.3, 0.1, 0.1])
  assert [t.get_text() for t in axes.get_yticklabels()] == ['SCoRe']
  caption = made.picture.caption
  assert 'SCoRe fixes 30.0' in caption
  assert 'breaks 10.0' in caption
  assert 'which is +20.0' in caption
  assert 'One seed each' in caption
  assert 'Not there yet: Base model; STaR, D; Pair-SFT, D.' in caption


def test_seeds_are_averaged_and_their_number_is_said(drawn):
  other = cell([record(1, 1)] * 10)
  cells = {'base': [cell()], 'score': [cell(), other, other]}
  made = sheets.draw(sheet('transitions'), cells)
  (axes,) = drawn['transitions'].axes
  kept = [*spans(axes)][4]  # Behind the base's four.
  assert kept == pytest.approx((0.5 + 1 + 1) / 3)
  assert 'Means over 1 to 3 seeds' in made.picture.caption
  assert 'over problems and seeds' in made.picture.caption


@pytest.mark.parametrize(
  ('name', 'lacking'),
  [
    ('accuracy', 'SCoRe'),
    ('shift', 'Single-turn RL'),
    ('budget', 'Base model; SCoRe (--methods=base,score)'),
    ('attempts', 'SCoRe, three turns'),
  ],
)
def test_a_figure_without_a_run_is_a_sentence_on_what_it_needs(name, lacking):
  made = sheets.draw(sheet(name), {'rise': [cell()]})
  assert made.picture is None
  assert 'is not drawn: it needs finished runs of' in made.lacks
  assert lacking in made.lacks


def test_a_cell_that_was_not_asked_is_left_out_of_what_it_was_not_asked(drawn):
  asked = {f'attempts_accuracy_t{t}': [t / 10] for t in range(1, 6)}
  cells = {'base': [cell()], 'score': [cell(**asked), cell()]}
  made = sheets.draw(sheet('attempts'), cells)
  assert 'First, second and last attempt: SCoRe 10.0' in made.picture.caption
  assert '50.0' in made.picture.caption
  assert 'One seed each' in made.picture.caption
  assert 'Not there yet: Base model' in made.picture.caption
  (axes,) = drawn['attempts'].axes
  heights = axes.containers[0].lines[0].get_ydata()
  np.testing.assert_allclose(heights, [0.1, 0.2, 0.3, 0.4, 0.5])


def test_curves_are_means_over_seeds_phase_by_phase():
  first, second = steps(0.1), steps(0.3)
  found = history.curves(
    [cell(made=first), cell(made=second)], 'answer_change_rate'
  )
  assert [part.phase for part in found] == ['stage1', 'stage2']
  assert found[1].x.tolist() == list(range(11, 21))
  for part in found:
    np.testing.assert_allclose(part.mean, 0.2)
    reach = comparison.half_width(np.array([0.1, 0.3]))
    np.testing.assert_allclose(part.reach, reach)


def test_one_seed_has_no_band():
  (part, _) = history.curves([cell(made=steps())], 'accuracy_t1')
  assert not part.reach.any()


def test_updates_that_not_all_seeds_made_are_left_out():
  found = history.curves(
    [cell(made=steps()), cell(made=steps()[:14])], 'accuracy_t1'
  )
  assert [len(part.x) for part in found] == [10, 4]


def test_what_is_late_is_the_last_fifth():
  made = steps(0.5)
  for step in made[-4:]:  # Of twenty.
    step['answer_change_rate'] = 0.1
  found = history.late([cell(made=made)], 'answer_change_rate')
  assert found.mean == pytest.approx(0.1)


def test_accuracy_has_a_panel_per_method_with_boundaries_between_phases(drawn):
  cells = {
    'score': [cell(made=steps())],
    'multi_turn_sum': [cell(made=steps(phases=('training',)))],
  }
  made = sheets.draw(sheet('accuracy'), cells)
  panels = {axes.get_title(loc='left'): axes for axes in drawn['accuracy'].axes}
  boundaries = [
    line.get_xdata()[0]
    for line in panels['SCoRe'].lines
    if len(set(line.get_xdata())) == 1
  ]
  assert boundaries == [10.5]
  named = [text.get_text() for text in panels['SCoRe'].texts]
  assert [name.replace('\xa0', ' ') for name in named] == [
    'Stage I',
    'Stage II',
  ]
  assert not panels['Multi-turn RL (a): sum'].texts
  assert 'SCoRe 40.0\xa0% and 60.0\xa0%' in made.picture.caption
  assert 'there are no bands' in made.picture.caption


def test_answer_changes_have_a_line_and_a_number_per_method(drawn):
  cells = {
    'score': [cell(made=steps(0.3)), cell(made=steps(0.3))],
    'multi_turn_last': [cell(made=steps(0.01, ('training',)))],
  }
  made = sheets.draw(sheet('changes'), cells)
  assert 'SCoRe 30.0\xa0%; Multi-turn RL (b)' in made.picture.caption
  assert '(x2, y2) 1.0\xa0%' in made.picture.caption
  assert 'Means over 1 to 2 seeds; bands' in made.picture.caption
  (axes,) = drawn['changes'].axes
  labels = axes.get_legend_handles_labels()[1]
  assert labels == ['SCoRe', 'Multi-turn RL (b): (x2, y2)']


def test_a_histogram_sets_unchanged_texts_apart():
  same, others = drawings.histogram(np.array([0, 0, 0.25, 0.25, 0.26, 1.0]))
  assert same == pytest.approx(2 / 6)
  assert others[5] == pytest.approx(3 / 6)  # Around 0.25.
  assert others[20] == pytest.approx(1 / 6)
  assert others.sum() == pytest.approx(4 / 6)


def test_edits_have_a_panel_per_method_and_their_mean_is_said(drawn):
  made = sheets.draw(sheet('edits'), {'base': [cell()], 'score': [cell()]})
  titles = [axes.get_title(loc='left') for axes in drawn['edits'].axes]
  assert titles == ['Base model', 'SCoRe']
  # Texts of four digits: five unchanged, the others changed in one digit,
  # which is one insertion and one deletion of eight.
  assert 'SCoRe 0.125' in made.picture.caption
  assert 'Base model 0.125' in made.picture.caption


def test_shift_sets_own_beside_the_bases(drawn):
  fixed = {
    'fixed_first_fixes_wrong': [1, 1, 0, 0],
    'fixed_first_keeps_right': [1, 1, 1, 0],
  }
  made = sheets.draw(sheet('shift'), {'score': [cell(**fixed)]})
  left, right = drawn['shift'].axes
  # Own: 3 of 4 wrong ones fixed, 5 of 6 right ones kept.
  assert spans(left) == pytest.approx([0.75, 0.5])
  assert spans(right) == pytest.approx([5 / 6, 0.75])
  assert 'SCoRe 75.0\xa0% of its own and 50.0\xa0% of' in made.picture.caption


def sampled(gain):
  """Returns the values of budgets of 2 and 4 attempts on two problems."""
  found = {}
  for n in (2, 4):
    found[f'samples_tokens_{n}'] = [5 * n] * 2
    for choice in ('majority', 'best_of'):
      start = f'samples_{choice}_{n}'
      found[f'{start}_parallel'] = [0.5, 0.5]
      found[f'{start}_corrected'] = [0.5 + gain] * 2
      found[f'{start}_gain'] = [gain] * 2
  return found


def test_budgets_are_drawn_over_tokens_and_the_gain_is_said(drawn):
  cells = {'base': [cell(**sampled(-0.1))], 'score': [cell(**sampled(0.2))]}
  made = sheets.draw(sheet('budget'), cells)
  caption = made.picture.caption
  assert '2 test problems at temperature 0.7' in caption
  assert 'for the price of 4 attempts' in caption
  assert 'Base model −10.0 [−10.0, −10.0]; SCoRe +20.0' in caption
  majority, _ = drawn['budget'].axes
  lines = {
    found.get_label(): found.lines[0].get_xydata()
    for found in majority.containers
  }
  np.testing.assert_allclose(lines['SCoRe, corrected'], [[10, 0.7], [20, 0.7]])
  np.testing.assert_allclose(
    lines['Base model, side by side'], [[10, 0.5], [20, 0.5]]
  )


def everything():
  """Returns cells of all methods, three seeds each, that have all there is."""
  more = sampled(0.1) | {
    f'attempts_accuracy_t{t}': [0.5, 0.6] for t in range(1, 11)
  }
  more |= {
    'fixed_first_fixes_wrong': [0, 1],
    'fixed_first_keeps_right': [0, 1],
  }
  rng = np.random.default_rng(0)
  cells = {}
  for name in catalogue.METHODS:
    cells[name] = [
      cell(
        [record(*f) for f in rng.random((20, 2)) < 0.6],
        steps(rng.random()),
        **more,
      )
      for _ in range(3)
    ]
  return cells


def test_no_label_is_clipped_and_no_picture_is_empty():
  cells = everything()
  for one in sheets.sheets(TABLE, list(catalogue.METHODS)):
    made = sheets.draw(one, cells)
    assert made.lacks == ''
    assert 'Not there yet' not in made.picture.caption
    pixels = matplotlib.image.imread(io.BytesIO(made.picture.png))[..., :3]
    ink = pixels.min(axis=-1) < 0.9
    assert ink.mean() > 0.01
    for edge in (ink[0], ink[-1], ink[:, 0], ink[:, -1]):
      assert not edge.any(), one.name
    assert f'aria-describedby="{one.name}-caption"' in made.picture.svg


def test_the_same_cells_give_the_same_bytes():
  cells = everything()
  first, again = (sheets.draw(sheet('shift'), cells) for _ in '12')
  assert first == again


def test_no_two_methods_of_a_figure_look_alike():
  for setting in ('collapse', 'budget', 'attempts'):
    found = looks.of(TABLE[setting])
    assert len(set(found.values())) == len(found)
  found = looks.of(list(catalogue.METHODS)[:8])
  assert len(set(found.values())) == 8
