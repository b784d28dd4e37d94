"""Figures of the evaluations, methods side by side.

Whiskers are the intervals of `comparison.figure`.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

from score_jax.laboratory import comparison, looks
from score_jax.laboratory.comparison import Cell
from score_jax.methods import catalogue
from score_jax.report import style, words

Cells = Mapping[str, Sequence[Cell]]

WHISKERS = {'ecolor': style.INK, 'elinewidth': 1.1, 'capsize': 2.5}
BINS = np.arange(22) / 20 - 1 / 40  # Edges around 0, 0.05, ..., 1.
SAME = -0.2  # Where the bar of unchanged texts stands, left of 0.
NAME_WIDTH = 28  # Characters of a line.
LEAST_NAMED = 0.08  # A share that its number fits into.
SIDES = {
  'own': ('behind its own first attempts', style.BLUE, ''),
  'fixed_first': ("behind the base model's", style.ORANGE, '///'),
}
RATES = {
  'fixes_wrong': 'wrong first attempts, fixed',
  'keeps_right': 'right first attempts, kept',
}
WAYS = {'parallel': ('side by side', 'o'), 'corrected': ('corrected', '^')}
CHOICES = {'majority': 'Majority vote', 'best_of': 'Best of all (an oracle)'}


def of(cells: Sequence[Cell], metric: str) -> comparison.Figure:
  """Returns a metric of one method over its seeds."""
  return comparison.figure([cell.values[metric] for cell in cells])


def transitions(cells: Cells, title: str) -> Figure:
  """Returns the four fates of a first answer, one bar per method."""
  figure = style.figure(1.7 + 0.36 * len(cells), title)
  axes = figure.subplots()
  for position, own in enumerate(cells.values()):
    _fates(axes, position, own)
  names = [textwrap.fill(_words(name), NAME_WIDTH) for name in cells]
  axes.set_yticks(range(len(cells)), names, fontsize=9, linespacing=0.95)
  axes.set_ylim(len(cells) - 0.5, -0.5)
  axes.set_xlim(0, 1)
  axes.xaxis.set_major_formatter(lambda x, _: f'{100 * x:.4g} %')
  axes.set_xlabel('share of all problems')
  axes.annotate(
    'Δ', (1.02, 1), (0, 3), xycoords='axes fraction', textcoords='offset points'
  )
  axes.grid(False)
  figure.legend(
    *axes.get_legend_handles_labels(), loc='outside lower left', ncols=2
  )
  return figure


def _fates(axes: Axes, position: int, cells: Sequence[Cell]) -> None:
  fixed, broken, first, end = (
    of(cells, metric)
    for metric in ('delta_i_to_c', 'delta_c_to_i', 'accuracy_t1', 'accuracy_t2')
  )
  kept, left = first.mean - broken.mean, 0.0
  shares = (kept, fixed.mean, broken.mean, 1 - first.mean - fixed.mean)
  for share, (label, colour, hatch) in zip(
    shares, style.TRANSITIONS.values(), strict=True
  ):
    axes.barh(
      position,
      share,
      0.74,
      left,
      color=colour,
      hatch=hatch,
      linewidth=0,
      label=label if position == 0 else '_',
    )
    if share >= LEAST_NAMED:
      _name_share(axes, share, left + share / 2, position)
    left += share
  reach = [[end.mean - end.low], [end.high - end.mean]]
  axes.errorbar(end.mean, position, xerr=reach, fmt='none', **WHISKERS)
  gain = words.percent(end.mean - first.mean, signed=True)
  axes.annotate(gain, (1.02, position), va='center', annotation_clip=False)


def _name_share(axes: Axes, share: float, x: float, y: float) -> None:
  axes.annotate(
    words.points(share),
    (x, y),
    ha='center',
    va='center',
    fontsize=8.5,
    bbox={'facecolor': 'white', 'edgecolor': 'none', 'alpha': 0.85, 'pad': 1.2},
  )


def edits(cells: Cells, title: str) -> Figure:
  """Returns how much of the text second attempts edit, a panel per method."""
  rows = -(-len(cells) // 2)
  figure = style.figure(1.0 + 1.9 * rows, title)
  columns = min(2, len(cells))
  grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
  for axes in grid.flat[len(cells) :]:
    axes.set_axis_off()
  for axes, (name, own) in zip(grid.flat, cells.items(), strict=False):
    _histogram(axes, own)
    axes.set_title(_words(name))
    ticks = np.linspace(0, 1, 3)
    axes.set_xticks([SAME, *ticks], ['same\ntext', *(f'{x:g}' for x in ticks)])
    axes.set_xlim(SAME - 0.22, 1.06)
    axes.tick_params(labelbottom=True)
    axes.yaxis.set_major_formatter(lambda y, _: f'{100 * y:.4g} %')
    axes.margins(y=0.2)
  figure.supxlabel('edit-distance ratio (1: nothing is left)', fontsize=10)
  figure.supylabel('share of problems', fontsize=10)
  return figure


def histogram(ratios: np.ndarray) -> tuple[float, np.ndarray]:
  """Returns the share of unchanged texts, and those of the others by BINS.

  Args:
    ratios: float64[N], edit-distance ratios.
  """
  counts, _ = np.histogram(ratios[ratios > 0], BINS)
  return float((ratios == 0).mean()), counts / len(ratios)


def _histogram(axes: Axes, cells: Sequence[Cell]) -> None:
  found = [histogram(c.values['mean_edit_distance_ratio']) for c in cells]
  width, middle = BINS[1] - BINS[0], (BINS[1:] + BINS[:-1]) / 2
  bars = np.array([[same, *others] for same, others in found])
  x = np.array([SAME, *middle])
  height = bars.mean(axis=0)
  reach = np.array([comparison.half_width(column) for column in bars.T])
  axes.bar(x[:1], height[:1], width, color=style.QUIET)
  axes.bar(x[1:], height[1:], 0.9 * width, color=style.turn_colour(2))
  some = reach > 0
  axes.errorbar(
    x[some],
    height[some],
    [np.minimum(reach, height)[some], reach[some]],
    fmt='none',
    **WHISKERS,
  )
  axes.annotate(
    words.percent(height[0]),
    (SAME, height[0] + reach[0]),
    (0, 3),
    textcoords='offset points',
    ha='center',
    fontsize=9,
  )


def shift(cells: Cells, title: str) -> Figure:
  """Returns how second attempts fare behind own and the base's first ones."""
  figure = style.figure(1.7 + 0.62 * len(cells), title)
  grid = figure.subplots(1, len(RATES), sharey=True)
  for axes, (rate, heading) in zip(grid, RATES.items(), strict=True):
    for order, (side, (label, colour, hatch)) in enumerate(SIDES.items()):
      metric = rate if side == 'own' else f'{side}_{rate}'
      bars = [of(own, metric) for own in cells.values()]
      y = np.arange(len(bars)) + 0.38 * (order - 0.5)
      axes.barh(
        y,
        [x.mean for x in bars],
        0.36,
        color=colour,
        hatch=hatch,
        linewidth=0,
        label=label,
      )
      _whiskers(axes, y, bars)
    axes.set_title(heading)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1], ['0 %', '50 %', '100 %'])
    axes.grid(False)
    axes.grid(True, axis='x')
  grid[0].set_yticks(range(len(cells)), [_words(name) for name in cells])
  grid[0].set_ylim(len(cells) - 0.5, -0.5)
  figure.legend(
    *grid[0].get_legend_handles_labels(), loc='outside lower left', ncols=2
  )
  return figure


def _whiskers(
  axes: Axes, y: np.ndarray, bars: Sequence[comparison.Figure]
) -> None:
  means = np.array([x.mean for x in bars])
  ends = np.array([(x.low, x.high) for x in bars]).T
  axes.errorbar(means, y, xerr=np.abs(ends - means), fmt='none', **WHISKERS)


def attempts(cells: Cells, title: str) -> Figure:
  """Returns the accuracy of many attempts in a row, a line per method."""
  figure = style.figure(4.0, title)
  axes = figure.subplots()
  for order, (name, look) in enumerate(looks.of(list(cells)).items()):
    turns = in_a_row(cells[name])
    found = [of(cells[name], f'attempts_accuracy_t{t}') for t in turns]
    # Set a little apart, so that no whisker hides another.
    x = np.array(turns) + 0.08 * (order - (len(cells) - 1) / 2)
    _line(axes, x, found, look, look.dashes, look.marker, _words(name))
  axes.set_xticks(turns)
  axes.set_xlabel('attempt')
  axes.set_ylabel('right answers')
  axes.yaxis.set_major_formatter(lambda y, _: f'{100 * y:.4g} %')
  style.legend_above(axes, 2, 0)
  return figure


def in_a_row(cells: Sequence[Cell]) -> list[int]:
  """Returns the attempts in a row that a method was asked for, from 1."""
  names = [n for n in cells[0].values if n.startswith('attempts_accuracy_t')]
  return list(range(1, len(names) + 1))


def budgets(cells: Sequence[Cell]) -> list[int]:
  """Returns the budgets, in attempts, at which a method was compared."""
  names = cells[0].values
  matches = (re.fullmatch(r'samples_majority_(\d+)_gain', x) for x in names)
  return sorted(int(match[1]) for match in matches if match)


def budget(cells: Cells, title: str) -> Figure:
  """Returns parallel against corrected samples at equal generated tokens."""
  figure = style.figure(4.2, title)
  grid = figure.subplots(1, len(CHOICES))
  for axes, (choice, heading) in zip(grid, CHOICES.items(), strict=True):
    for name, look in looks.of(list(cells)).items():
      own, counts = cells[name], budgets(cells[name])
      x = np.array([of(own, f'samples_tokens_{n}').mean for n in counts])
      for way, (label, marker) in WAYS.items():
        found = [of(own, f'samples_{choice}_{n}_{way}') for n in counts]
        dashes = looks.SOLID if way == 'corrected' else looks.SHORT
        full = f'{_words(name)}, {label}'
        _line(axes, x, found, look, dashes, marker, full)
    axes.set_title(heading)
    axes.set_xscale('log', base=2)
    axes.xaxis.set_major_locator(FixedLocator(x))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(lambda x, _: f'{x:,.0f}')
    axes.yaxis.set_major_formatter(lambda y, _: f'{100 * y:.4g} %')
    axes.set_xlabel('tokens generated per problem')
  grid[0].set_ylabel('problems solved')
  figure.legend(
    *grid[0].get_legend_handles_labels(), loc='outside lower left', ncols=2
  )
  return figure


def _line(
  axes: Axes,
  x: np.ndarray,
  found: Sequence[comparison.Figure],
  look: looks.Look,
  dashes: tuple,
  marker: str,
  label: str,
) -> None:
  means = np.array([f.mean for f in found])
  ends = np.array([(f.low, f.high) for f in found]).T
  axes.errorbar(
    x,
    means,
    np.abs(ends - means),
    color=look.colour,
    linestyle=dashes,
    marker=marker,
    markersize=5,
    elinewidth=1.0,
    capsize=2.5,
    label=label,
  )


def _words(name: str) -> str:
  return catalogue.METHODS[name][0]
