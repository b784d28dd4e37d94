"""Which figures there are, what they need, and what is said below them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

from matplotlib.figure import Figure
from ml_collections import ConfigDict

from score_jax.laboratory import drawings, history
from score_jax.laboratory.comparison import Cell
from score_jax.laboratory.comparison import Figure as Number
from score_jax.methods import catalogue
from score_jax.report import style, words
from score_jax.report.style import Picture

Cells = Mapping[str, Sequence[Cell]]
AGAINST = 'score'  # The method that all are held against.


@dataclasses.dataclass(frozen=True)
class Sheet:
  """A figure, before anything is drawn."""

  name: str  # Of its files.
  title: str
  methods: Sequence[str]  # In the order to draw.
  has: Callable[[Cell], bool]  # Whether a cell has what the figure shows.
  draw: Callable[[Cells, str], Figure]  # Of cells and the title.
  caption: Callable[[Cells], str]
  marks: str  # What shows the intervals.
  over_problems: bool  # Whether these stand for other problems as well.


@dataclasses.dataclass(frozen=True)
class Drawn:
  """A figure, or a sentence on why there is none."""

  name: str  # Of its files.
  title: str
  picture: Picture | None
  lacks: str  # '' where there is a picture.


def sheets(table: ConfigDict, names: Sequence[str]) -> list[Sheet]:
  """Returns all figures in the order of a page.

  Args:
    table: the settings of that name.
    names: of the methods in the table.
  """
  return [
    Sheet(
      'transitions',
      'What second attempts do to an answer',
      names,
      lambda cell: True,
      drawings.transitions,
      _transitions,
      'whiskers on what is right in the end',
      True,
    ),
    *_of_training(table),
    Sheet(
      'edits',
      'How much of the text second attempts edit',
      table.edits,
      lambda cell: True,
      drawings.edits,
      _edits,
      'whiskers',
      False,
    ),
    *_of_more(table),
  ]


def _of_training(table: ConfigDict) -> list[Sheet]:
  """Returns the figures over updates."""
  return [
    Sheet(
      'accuracy',
      'Right answers in training (sampled)',
      table.curves,
      _trained,
      history.accuracy,
      _accuracy,
      'bands',
      False,
    ),
    Sheet(
      'changes',
      'How often second attempts change the answer (sampled)',
      table.collapse,
      _trained,
      history.changes,
      _changes,
      'bands',
      False,
    ),
  ]


def _of_more(table: ConfigDict) -> list[Sheet]:
  """Returns the figures of what final models are asked beside."""
  return [
    Sheet(
      'shift',
      'Correcting oneself, and correcting the base model',
      table.shift,
      lambda cell: 'fixed_first_fixes_wrong' in cell.values,
      drawings.shift,
      _shift,
      'whiskers',
      True,
    ),
    Sheet(
      'budget',
      'More attempts, or corrected ones, for the same tokens',
      table.budget,
      lambda cell: bool(drawings.budgets([cell])),
      drawings.budget,
      functools.partial(_budget, table),
      'whiskers',
      True,
    ),
    Sheet(
      'attempts',
      'Attempts in a row',
      table.attempts,
      lambda cell: bool(drawings.in_a_row([cell])),
      drawings.attempts,
      _attempts,
      'whiskers',
      True,
    ),
  ]


def draw(sheet: Sheet, cells: Cells) -> Drawn:
  """Returns a figure of the methods that have what it shows.

  Args:
    sheet: what to draw.
    cells: the finished ones of each method.
  """
  have = {
    name: [cell for cell in cells.get(name, ()) if sheet.has(cell)]
    for name in sheet.methods
  }
  there = {name: own for name, own in have.items() if own}
  absent = [name for name in sheet.methods if name not in there]
  if not there:
    return Drawn(sheet.name, sheet.title, None, _lacks(sheet.title, absent))
  caption = f'{sheet.caption(there)} {_seeds(there, sheet)}'
  if absent:
    caption += f' Not there yet: {_listed(absent)}.'
  drawing = functools.partial(sheet.draw, there, sheet.title)
  picture = style.picture(sheet.name, caption, drawing)
  return Drawn(sheet.name, sheet.title, picture, '')


def _lacks(title: str, absent: Sequence[str]) -> str:
  return (
    f'“{title}” is not drawn: it needs finished runs of {_listed(absent)} '
    f'(--methods={",".join(absent)}).'
  )


def _trained(cell: Cell) -> bool:
  return bool(cell.steps)


def _seeds(cells: Cells, sheet: Sheet) -> str:
  """Returns what the figure averages, and over how much."""
  counts = sorted({len(own) for own in cells.values()})
  over = 'problems' if sheet.over_problems else ''
  if counts[-1] == 1:
    if not over:
      return f'One seed each, so there are no {sheet.marks}.'
    return f'One seed each; {sheet.marks}: 95 % intervals over {over}.'
  low, high = counts[0], counts[-1]
  many = f'{low}{f" to {high}" * (high > low)} seeds'
  over = 'problems and seeds' if over else 'seeds (Student’s t)'
  return f'Means over {many}; {sheet.marks}: 95 % intervals over {over}.'


def _listed(names: Sequence[str]) -> str:
  return '; '.join(catalogue.METHODS[name][0] for name in names)


def _each(cells: Cells, say: Callable[[Sequence[Cell]], str]) -> str:
  """Returns what is said of each method, in a row."""
  return '; '.join(
    f'{catalogue.METHODS[name][0]} {say(own)}' for name, own in cells.items()
  )


def _number(x: Number) -> str:
  """Returns '57.1 %', with its interval where it has a width."""
  text = words.percent(x.mean)
  if x.low < x.high:
    text += f' [{words.points(x.low)}, {words.points(x.high)}]'
  return text


def _signed(x: Number) -> str:
  ends = (words.points(end, signed=True) for end in (x.low, x.high))
  return f'{words.percent(x.mean, signed=True)} [{", ".join(ends)}]'


def _transitions(cells: Cells) -> str:
  told = {k: v for k, v in cells.items() if k == AGAINST} or cells
  name, own = list(told.items())[-1]
  fixed, broken, gain = (
    drawings.of(own, metric)
    for metric in ('delta_i_to_c', 'delta_c_to_i', 'delta')
  )
  return (
    'Test problems. Blue and green together are right in the end, grey and red '
    f'are wrong. {catalogue.METHODS[name][0]} fixes {_number(fixed)} and '
    f'breaks {_number(broken)} of all answers, which is {_signed(gain)} points.'
  )


def _accuracy(cells: Cells) -> str:
  ends = _each(
    cells,
    lambda own: ' and '.join(
      words.percent(history.late(own, f'accuracy_t{t}').mean)
      for t in range(1, own[0].right.shape[1] + 1)
    ),
  )
  return (
    'Training samples its attempts, so it is right less often than greedy '
    'tests are. Moving averages; dashed lines end a phase. Rounds of imitation '
    'are measured at their checkpoints. The last fifth of the updates: first '
    f'and later attempts of {ends}.'
  )


def _changes(cells: Cells) -> str:
  ends = _each(
    cells, lambda own: _number(history.late(own, 'answer_change_rate'))
  )
  return (
    'A model that stops changing its answers has stopped correcting itself: so '
    'plain multi-turn RL collapses in the paper. Moving averages. The last '
    f'fifth of the updates: {ends}.'
  )


def _edits(cells: Cells) -> str:
  means = _each(
    cells,
    lambda own: f'{drawings.of(own, "mean_edit_distance_ratio").mean:.3f}',
  )
  return (
    'Characters inserted and deleted from the first attempt to the second, '
    'divided by the characters of both; grey: nothing is. Means: '
    f'{means}.'
  )


def _shift(cells: Cells) -> str:
  rates = _each(
    cells,
    lambda own: (
      f'{words.percent(drawings.of(own, "fixes_wrong").mean)} of its own and '
      f'{words.percent(drawings.of(own, "fixed_first_fixes_wrong").mean)} of '
      "the base's"
    ),
  )
  return (
    'The same test problems, attempted behind first attempts of its own, or '
    'behind those that the base model wrote. What was learned from other '
    'first attempts than one makes shows as a gap. Wrong ones fixed: '
    f'{rates}.'
  )


def _budget(table: ConfigDict, cells: Cells) -> str:
  most = max(drawings.budgets(own)[-1] for own in cells.values())

  def at_most(choice: str) -> str:
    metric = f'samples_{choice}_{most}_gain'
    return _each(
      {k: v for k, v in cells.items() if metric in v[0].values},
      lambda own: _signed(drawings.of(own, metric)),
    )

  count = len(next(iter(cells.values()))[0].values[f'samples_tokens_{most}'])
  return (
    f'{count} test problems at temperature {table.temperature:g}; 2 K attempts '
    'side by side against K that are corrected, for the same generated tokens. '
    f'What correction gains for the price of {most} attempts, in points: by '
    f'majority vote, {at_most("majority")}; by the best of all, '
    f'{at_most("best_of")}.'
  )


def _attempts(cells: Cells) -> str:
  def ends(own: Sequence[Cell]) -> str:
    turns = drawings.in_a_row(own)
    first, second, last = (
      words.percent(drawings.of(own, f'attempts_accuracy_t{t}').mean)
      for t in (turns[0], turns[1], turns[-1])
    )
    return f'{first}, {second}, {last}'

  return (
    'Test problems, answered greedily; each attempt reads all before it, and '
    'the more there are, the further the rows are beyond those of training. '
    'First, second and last attempt: '
    f'{_each(cells, ends)}.'
  )
