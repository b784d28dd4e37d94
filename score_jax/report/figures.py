"""Figures of the evaluations, and the list of all figures of a report."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from score_jax import evaluation
from score_jax.report import curves, files, style, words
from score_jax.report.files import Row, Run
from score_jax.report.style import Picture

BARS = 3  # Turns that fit as bars side by side; more are drawn as lines.
BINS = 20
CAPTIONS = {
  'accuracy': 'Test problems. Whiskers: 95 % intervals by bootstrap over '
  'problems.',
  'transitions': 'Test problems. Blue and green together are the answers that '
  'are right in the end; grey and red are wrong in the end.',
  'training_accuracy': 'Training samples its attempts, so it is right less '
  'often than the checks on held-out problems (dots), which take the most '
  'probable token.',
  'training_transitions': 'The four shares add up to 100 %. Fixing must grow '
  'without breaking.',
  'training_changes': 'A model that stops changing its answers has stopped '
  'correcting itself, even while its accuracy rises: this is how training that '
  'pays for both attempts alike collapses.',
  'training_kl': 'KL divergence from the untrained model. Stage I is to move '
  'later attempts and to hold the first one near zero.',
  'edits': 'Characters inserted and deleted, divided by the characters of both '
  'texts.',
  'health': 'Worth a look when they move: an entropy that falls to nothing, '
  'groups whose samples all earn the same, attempts cut off at the length '
  'limit, or a gap between the probabilities of sampling and of scoring. A '
  'gradient above the dashed line is shortened to it.',
  'seconds': 'Medians over the steps of each stage.',
}
SAME = -0.2  # Where the bar of unchanged texts stands, left of 0.


def pictures(run: Run) -> dict[str, Picture]:
  """Returns {name: figure} for all that the run has the numbers for."""
  has = functools.partial(curves.has, run)
  drawings = {
    'accuracy': (bool(run.summaries), accuracy),
    'transitions': (bool(run.summaries), transitions),
    'training_accuracy': (has('accuracy_t1'), curves.accuracy),
    'training_transitions': (has('delta_i_to_c'), curves.transitions),
    'training_changes': (has('answer_change_rate'), curves.changes),
    'training_kl': (has('kl_t1'), curves.distance),
    'edits': (_twice(run), edits),
    'health': (bool(run.segments), curves.health),
    'seconds': (has('seconds'), curves.seconds),
  }
  return {
    name: style.picture(
      name,
      CAPTIONS[name] + _measured(name, run),
      functools.partial(draw, run),
    )
    for name, (there, draw) in drawings.items()
    if there
  }


def accuracy(run: Run) -> Figure:
  """Returns how many attempts are right, before and after each stage."""
  figure = style.figure(4.4, 'How many answers are right')
  axes = figure.subplots()
  if run.turns <= BARS:
    _bars(axes, run)
    style.legend_above(axes, BARS, 0)
  else:
    _lines(axes, run)
    style.legend_above(axes, len(run.summaries), 0)
  style.percent_axis(axes, 1)
  axes.set_ylabel('right answers')
  return figure


def transitions(run: Run) -> Figure:
  """Returns the four fates of an answer, one bar per checkpoint and pair."""
  bars = [
    (name, turn)
    for turn in curves.pairs(run.turns)
    for name, summary in run.summaries.items()
    if not np.isnan(files.value(summary, f'accuracy_t{turn}'))
  ]
  title = 'What the next attempt does to an answer'
  figure = style.figure(1.6 + 0.55 * len(bars), title)
  axes = figure.subplots()
  for position, (name, turn) in enumerate(bars):
    _fates(axes, position, run.summaries[name], turn)
  labels = [
    words.checkpoint(n, run.trains)
    + (f'\nattempt {t - 1} to {t}' if run.turns > 2 else '')
    for n, t in bars
  ]
  axes.set_yticks(range(len(bars)), labels)
  axes.invert_yaxis()
  axes.set_xlim(0, 1)
  axes.xaxis.set_major_formatter(lambda x, _: f'{100 * x:.4g} %')
  axes.set_xlabel('share of all problems')
  axes.grid(False)
  style.legend_above(axes, 2, 0)
  return figure


def edits(run: Run) -> Figure:
  """Returns how much of the text the next attempt edits, as histograms."""
  names, turns = _before_and_after(run), curves.pairs(run.turns)
  title = 'How much of the text the next attempt edits'
  figure = style.figure(1.1 + 1.8 * len(names), title)
  grid = figure.subplots(
    len(names), len(turns), squeeze=False, sharex=True, sharey=True
  )
  for line, name in zip(grid, names, strict=True):
    for axes, turn in zip(line, turns, strict=True):
      _histogram(axes, run.rows[name], turn, style.turn_colour(turn))
      pair = f', attempt {turn - 1} to {turn}' if len(turns) > 1 else ''
      axes.set_title(words.checkpoint(name, run.trains) + pair)
  for axes in grid[-1]:
    ticks = np.linspace(0, 1, 3)
    axes.set_xticks([SAME, *ticks], ['same\ntext', *(f'{x:g}' for x in ticks)])
    axes.set_xlim(SAME - 0.1, 1.03)
  figure.supxlabel('edit-distance ratio (1: nothing is left)', fontsize=10)
  figure.supylabel('share of problems', fontsize=10)
  return figure


def edit_ratios(
  rows: tuple[Row, ...],
  turn: int,
  ratio: Callable[[str, str], float] = evaluation.edit_distance_ratio,
) -> np.ndarray:
  """Returns float64[N], how much of each text a turn edits."""
  texts = [row.attempts[turn - 2 : turn] for row in rows]
  return np.array([ratio(*pair) for pair in texts if len(pair) == 2])


def _before_and_after(run: Run) -> list[str]:
  names = list(run.rows)
  return names if len(names) < 3 else [names[0], run.newest]


def _bars(axes: Axes, run: Run) -> None:
  width = 0.8 / run.turns
  size = min(10, 84 / (run.turns * len(run.summaries)))  # As wide as a bar.
  for turn in range(1, run.turns + 1):
    name = f'accuracy_t{turn}'
    middle = np.arange(len(run.summaries)) + (turn - 0.5) * width - 0.4
    heights, errors = _with_errors(run, name)
    axes.bar(
      middle,
      heights,
      width * 0.94,
      color=style.turn_colour(turn),
      label=words.attempt(turn),
    )
    axes.errorbar(middle, heights, errors, fmt='none', **_whiskers())
    for x, height, error in zip(middle, heights, errors[1], strict=True):
      if not np.isnan(height):
        axes.annotate(
          words.percent(height),
          (x, height + np.nan_to_num(error)),
          (0, 3),
          textcoords='offset points',
          ha='center',
          fontsize=size,
        )
  axes.set_xticks(
    range(len(run.summaries)),
    [
      f'{words.checkpoint(name, run.trains)}\n{_gain(summary, run.turns)}'
      for name, summary in run.summaries.items()
    ],
  )
  axes.tick_params(axis='x', length=0)


def _gain(summary: dict, turns: int) -> str:
  values = [files.value(summary, f'accuracy_t{t + 1}') for t in range(turns)]
  known = [x for x in values[1:] if not np.isnan(x)]
  if not known or np.isnan(values[0]):
    return ''
  # Some are asked for more attempts than others.
  return f'Δ {words.percent(known[-1] - values[0], signed=True)} points'


def _lines(axes: Axes, run: Run) -> None:
  turns = np.arange(1, run.turns + 1)
  for order, (name, summary) in enumerate(run.summaries.items()):
    names = [f'accuracy_t{t}' for t in turns]
    heights = np.array([files.value(summary, n) for n in names])
    ends = np.array([files.bounds(summary, n) for n in names]).T
    axes.errorbar(
      turns + 0.06 * (order - 1),
      heights,
      np.abs(ends - heights),
      color=style.turn_colour(order + 1),
      marker=style.turn_marker(order + 1),
      linestyle=style.turn_dashes(order + 1),
      capsize=2.5,
      label=words.checkpoint(name, run.trains),
    )
  axes.set_xticks(turns)
  axes.set_xlabel('attempt')


def _with_errors(run: Run, name: str) -> tuple[np.ndarray, np.ndarray]:
  """Returns a metric of every checkpoint, and how far its interval reaches."""
  values = np.array([files.value(s, name) for s in run.summaries.values()])
  ends = np.array([files.bounds(s, name) for s in run.summaries.values()])
  return values, np.abs(ends.T - values)


def _whiskers() -> dict[str, float | str]:
  return {'ecolor': style.INK, 'elinewidth': 1.2, 'capsize': 3}


def _fates(axes: Axes, position: int, summary: dict, turn: int) -> None:
  end = words.suffix(turn)
  fixed = files.value(summary, f'delta_i_to_c{end}')
  broken = files.value(summary, f'delta_c_to_i{end}')
  kept = files.value(summary, f'accuracy_t{turn - 1}') - broken
  shares = (kept, fixed, broken, 1 - kept - fixed - broken)
  if np.isnan(sum(shares)):
    return
  left = 0.0
  for share, (label, colour, hatch) in zip(
    shares, style.TRANSITIONS.values(), strict=True
  ):
    axes.barh(
      position,
      share,
      0.72,
      left,
      color=colour,
      hatch=hatch,
      linewidth=0,
      label=label if position == 0 else '_',
    )
    if share >= 0.06:
      axes.annotate(
        words.percent(share),
        (left + share / 2, position),
        ha='center',
        va='center',
        bbox={
          'facecolor': 'white',
          'edgecolor': 'none',
          'alpha': 0.85,
          'pad': 2,
        },
      )
    left += share


def _histogram(
  axes: Axes, rows: tuple[Row, ...], turn: int, colour: str
) -> None:
  ratios = edit_ratios(rows, turn)
  if not len(ratios):
    return
  counts, edges = np.histogram(ratios[ratios > 0], BINS, (0, 1))
  same, width = float((ratios == 0).mean()), 0.9 / BINS
  axes.bar(edges[:-1], counts / len(ratios), width, align='edge', color=colour)
  axes.bar(SAME, same, width, color=style.QUIET)
  axes.annotate(
    words.percent(same),
    (SAME, same),
    (0, 3),
    textcoords='offset points',
    ha='center',
    fontsize=9,
  )
  axes.yaxis.set_major_formatter(lambda y, _: f'{100 * y:.4g} %')
  axes.margins(y=0.2)


def _twice(run: Run) -> bool:
  """Returns whether every checkpoint has attempts to compare."""
  turns = [len(rows[0].attempts) for rows in run.rows.values()]
  return min(turns, default=0) > 1


def _measured(name: str, run: Run) -> str:
  """Returns what ends a caption for this run's numbers, or ''."""
  if name == 'edits':
    return _mean_edits(run)
  if name == 'accuracy' and run.turns <= BARS:
    return ' Below each group: what looking again has gained, Δ.'
  if name == 'training_accuracy' and any(map(curves.is_smoothed, run.segments)):
    return ' Thin: each step. Thick: its moving average.'
  return curves.speed(run) if name == 'seconds' else ''


def _mean_edits(run: Run) -> str:
  means = []
  for name in _before_and_after(run):
    two = (evaluation.edit_distance_ratio, evaluation.levenshtein_ratio)
    edit, levenshtein = (edit_ratios(run.rows[name], 2, r).mean() for r in two)
    means.append(
      f'{edit:.2f} {words.checkpoint_inside(name, run.trains)} '
      f'({levenshtein:.2f} with the Levenshtein distance)'
    )
  return f' The mean of the second attempt is {", ".join(means)}.'
