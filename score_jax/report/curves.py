"""Figures over the steps of training."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from score_jax.report import style, words
from score_jax.report.files import Run, Segment

CHECK = {
  'linestyle': 'none',
  'marker': 'o',
  'markersize': 5.5,
  'markeredgecolor': 'white',
  'markeredgewidth': 0.8,
  'clip_on': False,
  'in_layout': False,
  'zorder': 3,
}
PHASES = {
  'seconds_sample': ('writing attempts', style.BLUE, ''),
  'seconds_grade': ('checking answers', style.ORANGE, 'xxx'),
  'seconds_update': ('learning', style.GREEN, '///'),
}
PARTS_SMOOTHED = 15  # The moving mean spans this part of a segment.
LIFT = 16.0  # Points between axes and legend, for the names of the stages.
SHARES = ('Groups without a signal', 'Attempts cut off')
CLIPPED = 'Norm of the gradient, before clipping'
PANELS = 3  # Pairs of turns drawn; later ones are in the table of numbers.


def has(run: Run, name: str) -> bool:
  """Returns whether any step of training logged a metric."""
  return any(not np.isnan(part.series(name)).all() for part in run.segments)


def pairs(turns: int) -> range:
  """Returns the later turn of each pair of turns that is drawn."""
  return range(2, min(turns, PANELS + 1) + 1)


def accuracy(run: Run) -> Figure:
  """Returns the share of right attempts, per turn."""
  figure = style.figure(4.2, 'Right answers in training (sampled)')
  axes = figure.subplots()
  for turn in range(1, run.turns_trained + 1):
    _curve(axes, run, f'accuracy_t{turn}', turn, words.attempt(turn))
    _checks(axes, run, f'validation_accuracy_t{turn}', turn)
  _name_checks(axes, run, 'validation_accuracy_t1')
  _steps(axes, run)
  style.percent_axis(axes, 1)
  axes.set_ylabel('right answers')
  style.legend_above(axes, 3, LIFT)
  return figure


def transitions(run: Run) -> Figure:
  """Returns what became of each attempt in the next, stacked to 100 %."""
  turns = pairs(run.turns_trained)
  title = 'What the next attempt does to an answer (sampled)'
  figure = style.figure(1.2 + 2.8 * len(turns), title)
  grid = figure.subplots(len(turns), squeeze=False)[:, 0]
  for axes, turn in zip(grid, turns, strict=True):
    _stack(axes, run, turn)
    _steps(axes, run)
    style.percent_axis(axes, 1)
    many = f'attempt {turn - 1} to {turn}'
    axes.set_ylabel(many if len(turns) > 1 else 'share of answers')
  style.legend_above(grid[0], 2, LIFT)
  return figure


def changes(run: Run) -> Figure:
  """Returns how often an answer differs from the one before."""
  title = 'How often the next attempt changes the answer (sampled)'
  figure = style.figure(3.4, title)
  axes = figure.subplots()
  for turn in range(2, run.turns_trained + 1):
    name = f'answer_change_rate{words.suffix(turn)}'
    _curve(axes, run, name, turn, words.attempt(turn))
    _checks(axes, run, f'validation_{name}', turn)
  _name_checks(axes, run, 'validation_answer_change_rate')
  _steps(axes, run)
  style.percent_axis(axes, None)
  axes.set_ylabel('answers changed')
  style.legend_above(axes, 3, LIFT)
  return figure


def distance(run: Run) -> Figure:
  """Returns the KL to the untrained model, per turn."""
  title = 'How far the model has moved from where it began'
  figure = style.figure(3.4, title)
  axes = figure.subplots()
  for turn in range(1, run.turns_trained + 1):
    _curve(axes, run, f'kl_t{turn}', turn, words.attempt(turn))
  _steps(axes, run)
  axes.axhline(0, color=style.QUIET, linewidth=0.8)
  axes.set_ylabel('KL, nats per attempt')
  style.legend_above(axes, 3, LIFT)
  return figure


def health(run: Run) -> Figure:
  """Returns small panels of what shows early that a run goes wrong."""
  turns = range(1, run.turns_trained + 1)
  panels = {
    'Entropy, nats per token': [(f'entropy_t{t}', t) for t in turns],
    SHARES[0]: [(f'flat_groups_t{t}', t) for t in turns],
    SHARES[1]: [(f'truncated_t{t}', t) for t in turns],
    CLIPPED: [('grad_norm', None)],
    'Sampling and scoring apart, nats per token': [('logp_gap_mean', None)],
  }
  if _moves(run, 'beta2'):
    panels['Weight that holds attempt 1, β2'] = [('beta2', None)]
  rows = -(-len(panels) // 2)
  figure = style.figure(1.2 + 1.9 * rows, 'Is the training healthy?')
  grid = figure.subplots(rows, 2).ravel()
  for axes in grid[len(panels) :]:
    axes.set_axis_off()
  for axes, (title, names) in zip(grid, panels.items(), strict=False):
    axes.set_title(title, fontsize=9.5)
    for name, turn in names:
      _curve(axes, run, name, turn, words.attempt(turn) if turn else '_')
    if title == CLIPPED:
      _clip_line(axes, run)
    _small(axes, run, title in SHARES)
  handles, labels = grid[0].get_legend_handles_labels()
  figure.legend(
    handles, labels, loc='outside upper right', ncols=len(labels) or 1
  )
  figure.supxlabel('training steps', fontsize=10.0)
  return figure


def seconds(run: Run) -> Figure:
  """Returns where the time of a step goes, one bar per stage."""
  stages = list(dict.fromkeys(part.stage for part in run.segments))
  title = 'Where the time of a training step goes'
  figure = style.figure(1.8 + 0.45 * len(stages), title)
  axes = figure.subplots()
  for position, stage in enumerate(stages):
    _phases(axes, position, run, stage)
  axes.set_yticks(range(len(stages)), [words.stage(s) for s in stages])
  axes.invert_yaxis()
  axes.grid(False)
  axes.grid(True, axis='x')
  axes.set_xlabel('seconds per step (median)')
  style.legend_above(axes, 2, 0)
  return figure


def speed(run: Run) -> str:
  """Returns the tokens per second as the end of a caption, '' if unknown."""
  series = [part.series('tokens_per_second') for part in run.segments]
  rates = np.concatenate([np.zeros(0), *series])
  if np.isnan(rates).all():
    return ''
  return f' In all, {np.nanmedian(rates):,.0f} tokens per second.'


def _moves(run: Run, name: str) -> bool:
  """Returns whether a metric has taken two values."""
  series = [part.series(name) for part in run.segments]
  known = np.concatenate([np.zeros(0), *series])
  return len(np.unique(known[~np.isnan(known)])) > 1


def _clip_line(axes: Axes, run: Run) -> None:
  """Draws the norm to which a larger gradient is cut."""
  limit = run.settings.get('optimizer.clip_norm', 0)
  if not axes.lines or not isinstance(limit, int | float) or limit <= 0:
    return
  axes.axhline(limit, color=style.VERMILLION, linewidth=1.2, dashes=(2, 1.5))
  axes.annotate(
    f'clipped to {limit:g}',
    (0.99, limit),
    (0, 2),
    xycoords=('axes fraction', 'data'),
    textcoords='offset points',
    ha='right',
    fontsize=8.5,
    color=style.VERMILLION,
  )


def _small(axes: Axes, run: Run, shares: bool) -> None:
  if not axes.lines:
    axes.set_axis_off()
    return
  axes.set_ylim(
    min(0, axes.dataLim.y0), max(axes.dataLim.y1, axes.dataLim.y0 + 1e-9) * 1.08
  )
  axes.tick_params(labelsize=8.5)
  _boundaries(axes, run)
  axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
  axes.yaxis.set_major_locator(MaxNLocator(4))
  scale, unit = (100, ' %') if shares else (1, '')
  axes.yaxis.set_major_formatter(lambda y, _: f'{scale * y + 0.0:.3g}{unit}')


def _curve(
  axes: Axes, run: Run, name: str, turn: int | None, label: str
) -> None:
  """Draws a metric of one turn, or of none."""
  colour = style.turn_colour(turn) if turn else style.QUIET
  for part in run.segments:
    values = part.series(name)
    if np.isnan(values).all():
      continue
    axes.plot(part.x, values, color=colour, alpha=0.22, linewidth=0.8)
    axes.plot(
      part.x,
      _smoothed(part, name),
      color=colour,
      linestyle=style.turn_dashes(turn or 1),
      label=label,
    )
    label = '_'  # Named once, however many segments there are.


def _checks(axes: Axes, run: Run, name: str, turn: int) -> None:
  colour = style.turn_colour(turn)
  for part in run.segments:
    axes.plot(part.x, part.series(name), color=colour, **CHECK)


def _name_checks(axes: Axes, run: Run, name: str) -> None:
  if has(run, name):
    axes.plot([], [], color=style.QUIET, label=_checked(run), **CHECK)


def _checked(run: Run) -> str:
  """Returns the name of the checks during training."""
  heat = run.settings.get('eval.temperature', 0)
  return f'held-out, temperature {heat}' if heat else 'held-out (greedy)'


def _stack(axes: Axes, run: Run, turn: int) -> None:
  fates = style.TRANSITIONS.values()
  for part in run.segments:
    end = words.suffix(turn)
    fixed = _smoothed(part, f'delta_i_to_c{end}')
    broken = _smoothed(part, f'delta_c_to_i{end}')
    kept = _smoothed(part, f'accuracy_t{turn - 1}') - broken
    still = 1 - kept - fixed - broken
    areas = axes.stackplot(
      part.x,
      kept,
      fixed,
      broken,
      still,
      colors=[colour for _, colour, _ in fates],
      linewidth=0,
    )
    for area, (label, _, hatch) in zip(areas, fates, strict=True):
      area.set_hatch(hatch)
      area.set_label(label if part is run.segments[0] else '_')


def _smoothed(part: Segment, name: str) -> np.ndarray:
  return style.smooth(part.series(name), _window(part))


def _window(part: Segment) -> int:
  return max(1, len(part.steps) // PARTS_SMOOTHED)


def is_smoothed(part: Segment) -> bool:
  """Returns whether its moving mean is another line than its steps."""
  return _window(part) > 1


def _phases(axes: Axes, position: int, run: Run, stage: str) -> None:
  def median(name: str) -> float:
    series = [p.series(name) for p in run.segments if p.stage == stage]
    known = np.concatenate(series)
    known = known[~np.isnan(known)]
    return float(np.median(known)) if len(known) else 0.0

  left, phases = 0.0, dict(PHASES)
  spans = {name: median(name) for name in phases}
  rest = max(0.0, median('seconds') - sum(spans.values()))
  spans['rest'], phases['rest'] = rest, ('the rest', '#D9DCE0', '')
  for name, span in spans.items():
    label, colour, hatch = phases[name]
    axes.barh(
      position,
      span,
      0.7,
      left,
      color=colour,
      hatch=hatch,
      linewidth=0,
      label=label if position == 0 else '_',
    )
    left += span


def _boundaries(axes: Axes, run: Run) -> None:
  for part in run.segments[1:]:
    axes.axvline(
      part.start + 0.5, color=style.INK, linewidth=0.9, dashes=(4, 3)
    )
  axes.set_xlim(1, max(2, run.segments[-1].x[-1]))


def _steps(axes: Axes, run: Run) -> None:
  """Marks the stages along the x axis of training steps."""
  _boundaries(axes, run)
  axes.xaxis.set_major_locator(
    MaxNLocator(8, integer=True, steps=[1, 2, 5, 10])
  )
  axes.set_xlabel('training steps')
  for part in run.segments:
    axes.annotate(
      words.stage(part.stage),
      ((part.x[0] + part.x[-1]) / 2, 1.0),
      (0, 4),
      xycoords=('data', 'axes fraction'),
      textcoords='offset points',
      ha='center',
      fontsize=9.5,
      color=style.QUIET,
    )
