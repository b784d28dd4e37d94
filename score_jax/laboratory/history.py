"""Figures over the updates of training, methods side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from score_jax.laboratory import comparison, looks
from score_jax.laboratory.comparison import Cell
from score_jax.methods import catalogue
from score_jax.report import files, style, words

Cells = Mapping[str, Sequence[Cell]]

PARTS_SMOOTHED = 10  # The moving mean spans this part of all updates.
LATE = 0.2  # Of the updates, the last ones, that captions speak of.


@dataclasses.dataclass(frozen=True)
class Curve:
  """A metric over the updates of one phase: mean of the seeds, and its reach."""

  phase: str
  x: np.ndarray  # int[n], updates made, counted over all phases.
  mean: np.ndarray  # float64[n].
  reach: np.ndarray  # float64[n]: Student's t over seeds; 0 where one is alone.


def curves(cells: Sequence[Cell], metric: str) -> list[Curve]:
  """Returns a metric over training, smoothed, phase by phase.

  Updates that not all seeds have made are left out.

  Args:
    cells: of one method, one per seed.
    metric: of the records of steps.
  """
  runs = [files.segments(cell.steps) for cell in cells]
  total = max(len(cell.steps) for cell in cells)
  window = max(1, total // PARTS_SMOOTHED)
  found = []
  for parts in zip(*runs, strict=False):
    length = min(len(part.steps) for part in parts)
    series = np.stack(
      [style.smooth(part.series(metric)[:length], window) for part in parts]
    )
    reach = np.array([comparison.half_width(x) for x in series.T])
    found.append(
      Curve(parts[0].stage, parts[0].x[:length], series.mean(axis=0), reach)
    )
  return found


def late(cells: Sequence[Cell], metric: str) -> comparison.Figure:
  """Returns a metric's mean over the last updates, Student's t over seeds."""
  means = []
  for cell in cells:
    values = [step.get(metric) for step in cell.steps]
    last = values[-max(1, round(LATE * len(values))) :]
    means.append(np.mean([np.nan if x is None else x for x in last]))
  mean, reach = float(np.mean(means)), comparison.half_width(np.array(means))
  return comparison.Figure(mean, mean - reach, mean + reach)


def accuracy(cells: Cells, title: str) -> Figure:
  """Returns the share of right attempts per turn, a panel per method."""
  rows = -(-len(cells) // 2)
  figure = style.figure(1.3 + 2.2 * rows, title)
  columns = min(2, len(cells))
  grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
  for axes in grid.flat[len(cells) :]:
    axes.set_axis_off()
  for axes, (name, own) in zip(grid.flat, cells.items(), strict=False):
    for turn in range(1, _turns(own) + 1):
      look = looks.Look(style.turn_colour(turn), '', style.turn_dashes(turn))
      _draw(axes, curves(own, f'accuracy_t{turn}'), look, words.attempt(turn))
    axes.set_title(catalogue.METHODS[name][0], pad=16)
    _phases(axes, curves(own, 'accuracy_t1'))
    style.percent_axis(axes, 1)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
  for axes in grid.flat[: len(cells)]:
    axes.tick_params(labelbottom=True)
    axes.set_xlabel('updates')
  for axes in grid[:, 0]:
    axes.set_ylabel('right answers')
  figure.legend(
    *grid.flat[0].get_legend_handles_labels(),
    loc='outside lower left',
    ncols=3,
  )
  return figure


def changes(cells: Cells, title: str) -> Figure:
  """Returns how often second attempts change the answer, a line per method."""
  figure = style.figure(4.0, title)
  axes = figure.subplots()
  for name, look in looks.of(list(cells)).items():
    label = catalogue.METHODS[name][0]
    _draw(axes, curves(cells[name], 'answer_change_rate'), look, label)
  style.percent_axis(axes, None)
  axes.set_xlim(1, max(len(c.steps) for own in cells.values() for c in own))
  axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
  axes.set_xlabel('updates')
  axes.set_ylabel('answers changed')
  style.legend_above(axes, 2, 0)
  return figure


def _turns(cells: Sequence[Cell]) -> int:
  return min(cell.right.shape[1] for cell in cells)


def _draw(
  axes: Axes, parts: Sequence[Curve], look: looks.Look, label: str
) -> None:
  """Draws the phases of a share, with its band, and a mark at the end."""
  for part in parts:
    axes.plot(
      part.x, part.mean, color=look.colour, linestyle=look.dashes, label=label
    )
    axes.fill_between(
      part.x,
      np.clip(part.mean - part.reach, 0, 1),
      np.clip(part.mean + part.reach, 0, 1),
      color=look.colour,
      alpha=0.18,
      linewidth=0,
    )
    label = '_'  # Named once, however many phases there are.
  if look.marker and parts:
    axes.plot(
      parts[-1].x[-1],
      parts[-1].mean[-1],
      look.marker,
      color=look.colour,
      clip_on=False,
    )


def _phases(axes: Axes, parts: Sequence[Curve]) -> None:
  """Marks where phases end, and names them where there are several."""
  for part in parts[1:]:
    axes.axvline(part.x[0] - 0.5, color=style.INK, linewidth=0.9, dashes=(4, 3))
  axes.set_xlim(1, max(2, parts[-1].x[-1]))
  for part in parts if len(parts) > 1 else ():
    axes.annotate(
      words.stage(part.phase),
      ((part.x[0] + part.x[-1]) / 2, 1.0),
      (0, 3),
      xycoords=('data', 'axes fraction'),
      textcoords='offset points',
      ha='center',
      fontsize=8.5,
      color=style.QUIET,
    )
