"""Plain words for what the files call by short names."""

from __future__ import annotations

import dataclasses
import math
import re

ORDINALS = [
  'zeroth',
  'first',
  'second',
  'third',
  'fourth',
  'fifth',
  'sixth',
  'seventh',
  'eighth',
  'ninth',
  'tenth',
]
ROMAN = {'1': 'I', '2': 'II', '3': 'III'}
UNKNOWN = '–'
SPACE = '\u00a0'  # Keeps a number and its unit on one line.

VERDICTS = {
  'right': ('✓', 'right'),
  'wrong': ('✗', 'wrong'),
  'unparsed': ('?', 'no answer found'),
  'timeout': ('?', 'checker ran out of time'),
  'error': ('?', 'checker failed'),
}


@dataclasses.dataclass(frozen=True)
class Metric:
  """A row of the table of numbers."""

  name: str  # In a summary.
  label: str
  symbol: str  # In the paper, or ''.
  signed: bool = False


def ordinal(turn: int) -> str:
  """Returns 'first' for 1, 'second' for 2, '11th' for 11."""
  return ORDINALS[turn] if turn < len(ORDINALS) else f'{turn}th'


def attempt(turn: int) -> str:
  """Returns 'first attempt' for 1."""
  return f'{ordinal(turn)} attempt'


def suffix(turn: int) -> str:
  """Returns what marks turn 3 and later in the name of a metric."""
  return '' if turn == 2 else f'_t{turn}'


def stage(name: str) -> str:
  """Returns 'Stage I(b)' for 'stage1b'; an unknown name stays itself.

  A round that holds stages stands before them, 'Round 2, Stage I', and rounds
  within a stage behind it, 'Stage II, round 2'. 'training' is all there is of
  a method in one piece.
  """
  if name == 'training' or _round(name):
    return (_round(name) or name).capitalize()
  match = re.fullmatch(r'(round\d+)?stage([123])([a-z]?)(round\d+)?', name)
  if not match:
    return name
  part = f'({match[3]})' if match[3] else ''
  whole = f'Stage{SPACE}{ROMAN[match[2]]}{part}'
  before, after = _round(match[1] or ''), _round(match[4] or '')
  return (
    f'{before.capitalize()}, ' * bool(before)
    + whole
    + (f', {after}' * bool(after))
  )


def _round(name: str) -> str:
  """Returns 'round 2' for 'round2', '' for what is no round."""
  match = re.fullmatch(r'round(\d+)', name)
  return f'round{SPACE}{match[1]}' if match else ''


def checkpoint(name: str, trains: bool = True) -> str:
  """Returns 'Before training' for 'base', 'After Stage I' for 'stage1'.

  Args:
    name: of the checkpoint, or of what the last one was asked beside.
    trains: whether the job does; else its base is all that it looks at.
  """
  if name == 'base':
    return 'Before training' if trains else 'As evaluated'
  if name == 'training':
    return 'After training'
  if match := re.fullmatch(r'attempts(\d+)', name):
    return f'Asked {match[1]} times'
  return f'After {stage(name)}' if stage(name) != name else name


def checkpoint_inside(name: str, trains: bool = True) -> str:
  """Returns `checkpoint` as it stands inside a sentence."""
  label = checkpoint(name, trains)
  return label if label == name else label[0].lower() + label[1:]


def percent(fraction: float, signed: bool = False) -> str:
  """Returns '58.1 %' for 0.581; with a sign, '+58.1' in percentage points."""
  if math.isnan(fraction):
    return UNKNOWN
  # Two routes to one number must not differ in print for their last bit, nor
  # for numpy, which rounds halves by another rule.
  rounded = round(round(100 * float(fraction), 9), 1) + 0.0
  if signed:
    return f'{rounded:+.1f}'.replace('-', '−')
  return f'{rounded:.1f}{SPACE}%'


def points(fraction: float, signed: bool = False) -> str:
  """Returns '58.1' for 0.581: `percent` without its unit, for tables."""
  return percent(fraction, signed).removesuffix(f'{SPACE}%')


def between(low: float, high: float, signed: bool = False) -> str:
  """Returns '55.9 to 60.2' for an interval of fractions, '' without one."""
  if math.isnan(low) or math.isnan(high):
    return ''
  ends = (points(x, signed) for x in (low, high))
  return f'{SPACE}to{SPACE}'.join(ends)


def signed(x: float) -> str:
  """Returns '+0.25' or '−0.25', and '0.00' for whatever rounds to nothing."""
  rounded = round(x, 2) + 0.0
  text = f'{rounded:+.2f}' if rounded else '0.00'
  return text.replace('-', '−')


def probability(p: float) -> str:
  """Returns '0.012', or 'below 0.0001' where p is too small to say more."""
  return 'below 0.0001' if p < 1e-4 else f'{p:.2g}'


def metrics(turns: int) -> list[Metric]:
  """Returns the rows of the table of numbers, in reading order."""
  rows = [
    Metric(f'accuracy_t{t}', f'{attempt(t).capitalize()} right', f'Acc@t{t}')
    for t in range(1, turns + 1)
  ]
  for turn in range(2, turns + 1):
    rows += _pair_metrics(turn)
  rows += [
    Metric(f'truncated_t{t}', f'{attempt(t).capitalize()} cut off', '')
    for t in range(1, turns + 1)
  ]
  return rows


def _pair_metrics(turn: int) -> list[Metric]:
  now, before, end = ordinal(turn), ordinal(turn - 1), suffix(turn)
  step = '' if turn == 2 else f', attempt {turn - 1} to {turn}'
  return [
    Metric(f'delta{end}', f'Gained by the {now} attempt', f'Δ{step}', True),
    Metric(
      f'delta_i_to_c{end}',
      f'Fixed: {before} attempt wrong, {now} right',
      f'Δ(i→c){step}',
    ),
    Metric(
      f'delta_c_to_i{end}',
      f'Broken: {before} attempt right, {now} wrong',
      f'Δ(c→i){step}',
    ),
    Metric(f'fixes_wrong{end}', f'Of wrong {before} attempts, fixed', ''),
    Metric(f'keeps_right{end}', f'Of right {before} attempts, kept right', ''),
    Metric(
      f'answer_change_rate{end}', f'{now.capitalize()} answer differs', ''
    ),
    Metric(
      f'exact_copy_rate{end}',
      f'{now.capitalize()} attempt repeats the {before} word for word',
      '',
    ),
    Metric(
      f'mean_edit_distance_ratio{end}',
      f'How much of the text the {now} attempt edits',
      'edit-distance ratio',
    ),
  ]
