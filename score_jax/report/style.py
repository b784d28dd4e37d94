"""Colours, and how figures look: told apart without colour, calm in print.

The colours are those of Okabe and Ito, which stay distinct for colour-blind
readers; whatever a colour says is also said by a label, a mark or a hatch.
"""

from __future__ import annotations

import dataclasses
import html
import io
import re
from collections.abc import Callable

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

INK = '#1f2328'
QUIET = '#5d6570'
RULE = '#d6dadf'
BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY = (
  '#0072B2',
  '#E69F00',
  '#009E73',
  '#D55E00',
  '#CC79A7',
  '#56B4E9',
)
TURNS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION)
MARKERS = 'os^Dvp'
DASHES = ((0, ()), (0, (6, 1.2)), (0, (1.5, 0.8)))  # On and off, in widths.

# From the bottom of a stack: what is right in the end comes first.
TRANSITIONS = {
  'kept': ('right, stays right', '#A9CCE3', ''),
  'fixed': ('wrong, then right: fixed', GREEN, '///'),
  'broken': ('right, then wrong: broken', VERMILLION, 'xxx'),
  'still': ('wrong, stays wrong', '#D9DCE0', ''),
}

WIDTH = 6.4  # Inches.
LOOK = {
  'axes.axisbelow': True,
  'axes.edgecolor': QUIET,
  'axes.grid': True,
  'axes.grid.axis': 'y',
  'axes.labelcolor': INK,
  'axes.linewidth': 0.8,
  'axes.spines.left': False,
  'axes.spines.right': False,
  'axes.spines.top': False,
  'axes.titlelocation': 'left',
  'axes.titlesize': 10.0,
  'axes.titlepad': 5.0,
  'figure.constrained_layout.h_pad': 0.1,
  'figure.constrained_layout.use': True,
  'figure.constrained_layout.w_pad': 0.12,
  'figure.titlesize': 12.5,
  'figure.titleweight': 'bold',
  'font.family': 'DejaVu Sans',
  'font.size': 10.0,
  'grid.color': RULE,
  'grid.linewidth': 0.7,
  'hatch.color': 'white',
  'hatch.linewidth': 0.7,
  'legend.frameon': False,
  'legend.handlelength': 2.2,
  'lines.linewidth': 2.0,
  'svg.fonttype': 'path',  # Looks the same without our fonts.
  'svg.hashsalt': 'score_jax',  # The same figure gives the same bytes.
  'text.color': INK,
  'text.parse_math': False,  # A name with a dollar in it is a name.
  'xtick.color': INK,
  'ytick.color': INK,
  'ytick.left': False,
}


@dataclasses.dataclass(frozen=True)
class Picture:
  """A figure on disk and on the page."""

  name: str
  caption: str
  png: bytes
  svg: str  # To stand in HTML; its ids start with the name.


def turn_colour(turn: int) -> str:
  """Returns the colour of an attempt, counted from 1."""
  return TURNS[(turn - 1) % len(TURNS)]


def turn_dashes(turn: int) -> tuple[int, tuple[float, ...]]:
  """Returns the line style of an attempt, counted from 1."""
  return DASHES[(turn - 1) % len(DASHES)]


def turn_marker(turn: int) -> str:
  """Returns the mark of an attempt, counted from 1."""
  return MARKERS[(turn - 1) % len(MARKERS)]


def figure(height: float, title: str) -> Figure:
  """Returns an empty figure as wide as all others, `height` inches high."""
  drawn = Figure(figsize=(WIDTH, height), facecolor='white')
  drawn.suptitle(title, x=0.016, ha='left')
  return drawn


def legend_above(axes: Axes, columns: int, lift: float) -> None:
  """Puts the legend on top of the axes, `lift` points higher."""
  up = ScaledTranslation(0, (4 + lift) / 72, axes.figure.dpi_scale_trans)
  axes.legend(
    loc='lower left',
    bbox_to_anchor=(0.0, 1.0),
    bbox_transform=axes.transAxes + up,
    borderaxespad=0.0,
    borderpad=0.0,
    ncols=columns,
    columnspacing=1.6,
  )


def percent_axis(axes: Axes, top: float | None) -> None:
  """Makes the y axis one of fractions of 1, shown in per cent, from 0."""
  axes.yaxis.set_major_formatter(lambda y, _: f'{100 * y:.4g} %')
  axes.set_ylim(0, top)


def picture(name: str, caption: str, draw: Callable[[], Figure]) -> Picture:
  """Returns a figure drawn in the house's look, the same bytes every time."""
  with mpl.rc_context(LOOK):
    drawn = draw()
    drawn.draw_without_rendering()  # Lays it out, once for both formats.
    drawn.set_layout_engine('none')
    png, svg = io.BytesIO(), io.StringIO()
    nothing = dict.fromkeys(('Date', 'Creator', 'Format', 'Type'))
    drawn.savefig(svg, format='svg', metadata=nothing)
    drawn.savefig(png, format='png', dpi=200, metadata={'Software': None})
  title = html.escape(drawn.get_suptitle())
  inline = _inline(svg.getvalue(), name, title)
  return Picture(name, caption, png.getvalue(), inline)


def smooth(values: np.ndarray, window: int) -> np.ndarray:
  """Returns the centred moving mean, NaNs left out and ends cut short."""
  known = ~np.isnan(values)
  ones = np.ones(min(window, len(values)))
  total = np.convolve(np.where(known, values, 0.0), ones, mode='same')
  count = np.convolve(known, ones, mode='same')
  return np.where(count > 0.5, total / np.maximum(count, 1), np.nan)


def _inline(svg: str, name: str, title: str) -> str:
  """Returns the svg element, sized by its box, with ids of its own."""
  svg = svg[svg.index('<svg') :]
  svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r'\1', svg, count=1)
  svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r'\1', svg, count=1)
  svg = re.sub(r'<!--.*?-->\s*', '', svg, flags=re.DOTALL)
  svg = re.sub(r'( id="|url\(#|href="#)', rf'\g<1>{name}-', svg)
  described = f'aria-label="{title}" aria-describedby="{name}-caption"'
  return svg.replace('<svg', f'<svg role="img" {described}', 1)
