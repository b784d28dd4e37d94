"""Each figure shows what its caption says, and can be read."""

import dataclasses
import io
import itertools

import matplotlib as mpl
import matplotlib.image
import pytest
from reported import (
  FIGURES,
  Page,
  step,
  write_lines,
  write_run,
)

from score_jax.report import (
  curves,
  figures,
  files,
  style,
)
from score_jax.report.build import build


def test_every_figure_is_a_picture_of_its_own_and_stands_on_the_page(built):
  plots = built.parent / 'plots'
  assert {p.name for p in plots.iterdir()} == {f'{n}.png' for n in FIGURES}
  for path in plots.iterdir():
    image = matplotlib.image.imread(io.BytesIO(path.read_bytes()), 'png')
    assert image.shape[1] == 1280
    assert 0.005 < (image[..., :3].min(-1) < 0.9).mean() < 0.9
  assert Page(built.read_text()).tags['svg'] == len(FIGURES)


def test_only_pairs_of_attempts_that_were_made_have_a_bar(asked):
  (axes,) = figures.transitions(files.read(asked)).axes
  labels = [label.get_text() for label in axes.get_yticklabels()]
  assert len(labels) == 4 + 1  # Of attempt 3 one alone knows.
  assert labels[3:] == [
    'Asked 3 times\nattempt 1 to 2',
    'Asked 3 times\nattempt 2 to 3',
  ]


def test_a_caption_speaks_of_what_is_drawn(asked):
  run = files.read(asked)
  made = figures.pictures(run)
  assert 'Below each group' in made['accuracy'].caption
  assert 'Thick' not in made['training_accuracy'].caption  # Too few steps.
  longer = [
    dataclasses.replace(part, steps=part.steps * curves.PARTS_SMOOTHED * 2)
    for part in run.segments
  ]
  made = figures.pictures(dataclasses.replace(run, segments=tuple(longer)))
  assert 'Thick: its moving average.' in made['training_accuracy'].caption


def test_numbers_on_bars_do_not_run_into_each_other(asked):
  with mpl.rc_context(style.LOOK):  # As `style.picture` draws it.
    drawn = figures.accuracy(files.read(asked))
    drawn.draw_without_rendering()
  (axes,) = drawn.axes
  boxes = [text.get_window_extent() for text in axes.texts]
  assert len(boxes) == 3 * 2 + 3
  for one, other in itertools.combinations(boxes, 2):
    assert not one.overlaps(other)
  labels = [label.get_text() for label in axes.get_xticklabels()]
  assert all('points' in label for label in labels)


@pytest.mark.usefixtures('unsaved')
def test_ten_turns_are_drawn(tmp_path):
  text = build(write_run(tmp_path, turns=10)).read_text()
  assert 'Training raised tenth attempts from' in text
  assert {p.stem for p in (tmp_path / 'plots').iterdir()} == FIGURES


@pytest.mark.parametrize(
  ('values', 'panels'), [([0.1, 0.1], 5), ([0.1, 0.2], 6)]
)
def test_a_weight_that_never_moves_has_no_panel(run, values, panels):
  steps = [
    step('stage1', n, 2) | {'beta2': value, 'logp_gap_mean': 0.1}
    for n, value in enumerate(values, start=1)
  ]
  write_lines(run / 'metrics.jsonl', steps)
  figure = curves.health(files.read(run))
  assert len([axes for axes in figure.axes if axes.lines]) == panels
