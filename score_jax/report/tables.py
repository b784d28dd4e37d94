"""The numbers of a run as HTML tables."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from score_jax import config as config_lib
from score_jax import evaluation
from score_jax.report import files, words
from score_jax.report.files import Row, Run
from score_jax.report.markup import escape, row, table

MAIN = ('accuracy_t1', 'accuracy_t2', 'delta')


def numbers(run: Run) -> str:
  """Returns every metric of every checkpoint, and its change by training."""
  changes = _changes(run)
  head = ['In per cent']
  head += [_heading(*pair, run.trains) for pair in run.summaries.items()]
  compared = 'base' in run.summaries and run.trained is not None
  head += ['Change by training'] * compared
  lines = []
  for metric in words.metrics(run.turns):
    cells = [_cell(s, metric) for s in run.summaries.values()]
    if all(cell == words.UNKNOWN for cell in cells):
      continue
    if compared:
      cells.append(_change(changes.get(metric.name), metric, run))
    name = metric.label + (
      f' <small>{metric.symbol}</small>' * bool(metric.symbol)
    )
    lines.append(row(name, cells, metric.name in MAIN))
  return table('All numbers with their intervals', head, lines)


def basis(run: Run) -> str:
  """Returns what the table of numbers rests on."""
  sizes = {files.value(summary, 'n') for summary in run.summaries.values()}
  known = sorted(n for n in sizes if not math.isnan(n))
  return (
    f'<p class="quiet">{" or ".join(f"{n:,.0f}" for n in known)} test '
    f'problems, answered {manner(run)}. Below each number: its 95 % interval by '
    'bootstrap over problems; for changes, paired problem by problem. An '
    'interval without width says only that nothing else was seen. A trained '
    'stage stands here as its best checkpoint by training reward, of the step '
    'given.</p>'
  )


def verdict(run: Run) -> str:
  """Returns what chance alone makes of the change, '' without both ends."""
  pair = matched(run)
  if pair is None:
    return ''
  before, after = (right_of(rows)[:, -1] for rows in pair)
  won, lost = int((~before & after).sum()), int((before & ~after).sum())
  p = words.probability(evaluation.mcnemar(before, after))
  return (
    f'<p>On the same {len(before):,} problems, training has turned '
    f'{won:,} final answers from wrong to right and {lost:,} from right to '
    'wrong. If training made no difference, the probability of a gap as wide '
    f'would be {escape(p)} (exact McNemar test).</p>'
  )


def smaller_gain(run: Run) -> str:
  """Returns why a stage gains less by looking again and is right more often.

  '' where no stage does so against the one before it.
  """
  trained = [name for name in run.checkpoints if name != 'base']
  for before, after in itertools.pairwise(trained):
    old, new = run.summaries[before], run.summaries[after]
    first, second, gain = (
      files.value(new, name) - files.value(old, name) for name in MAIN
    )
    if gain < 0 < first and second >= 0:
      return (
        f'<p>{escape(words.checkpoint(after))}, Δ is smaller than '
        f'{escape(words.checkpoint_inside(before))}, and yet more is right in '
        'the end: the stage has raised first attempts by '
        f'{words.points(first)} points, so that fewer are left to correct, '
        f'and second attempts by {words.points(second)}.</p>'
      )
  return ''


def shares(run: Run, field: str, heading: str) -> str:
  """Returns the accuracy by a label of the problems, '' where all have one.

  Args:
    run: whose test problems are counted.
    field: of `Row`, which holds the label.
    heading: of the table.
  """
  names = list(run.rows)
  of = operator.attrgetter(field)
  labels = {of(r) for rows in run.rows.values() for r in rows}
  if len(labels) < 2:
    return ''
  turns = range(1, run.turns + 1)
  head = [field.capitalize(), 'Problems'] + [
    f'{escape(words.checkpoint(name, run.trains))}, attempt {turn}'
    for name in names
    for turn in turns
  ]
  lines = []
  for label in sorted(labels):
    groups = [[r for r in run.rows[n] if of(r) == label] for n in names]
    cells = [f'{max(map(len, groups)):,}']
    cells += [_share(group, turn) for group in groups for turn in turns]
    lines.append(row(escape(label) or words.UNKNOWN, cells))
  return f'<h3>{heading}</h3>' + table(heading, head, lines)


def verdicts(run: Run) -> str:
  """Returns how training's attempts were judged, '' where it was not logged.

  It is the mean of the last steps of each stage.
  """
  stages = list(dict.fromkeys(part.stage for part in run.segments))
  lines = []
  for turn in range(1, run.turns_trained + 1):
    names = {
      f'outcome_{outcome}_t{turn}': name
      for outcome, (_, name) in words.VERDICTS.items()
    } | {f'tests_passed_t{turn}': 'share of tests passed'}
    for metric, name in names.items():
      cells = [words.percent(_late_mean(run, s, metric)) for s in stages]
      if set(cells) - {words.UNKNOWN}:
        label = f'{words.attempt(turn).capitalize()}: {name}'
        lines.append(row(label, cells))
  if not lines:
    return ''
  heading = 'How the attempts of training were judged'
  head = ['Sampled', *(escape(words.stage(stage)) for stage in stages)]
  return (
    f'<h3>{heading}</h3><p class="quiet">Means over the last fifth of the steps '
    f'of each stage.</p>{table(heading, head, lines)}'
  )


def _late_mean(run: Run, stage: str, metric: str) -> float:
  series = [part.series(metric) for part in run.segments if part.stage == stage]
  values = np.concatenate(series)
  late = values[-max(1, len(values) // 5) :]
  known = late[~np.isnan(late)]
  return float(known.mean()) if len(known) else math.nan


def settings(run: Run) -> str:
  """Returns every setting of the run; those that differ from default first."""
  usual = config_lib.flatten(config_lib.default())
  changed = [
    name
    for name in sorted(run.settings)
    if name in usual and _plain(run.settings[name]) != _plain(usual[name])
  ]
  others = [name for name in sorted(run.settings) if name not in changed]
  lines = [_setting(name, run.settings[name], usual[name]) for name in changed]
  parts = [('Set for this run', lines)] if lines else []
  lines = [_setting(name, run.settings[name], None) for name in others]
  parts.append(('As by default', lines))
  return ''.join(
    f'<h3>{heading}</h3><div class="settings">{"".join(lines)}</div>'
    for heading, lines in parts
  )


def _plain(value: Any) -> Any:
  return list(value) if isinstance(value, tuple) else value


def _setting(name: str, value: Any, usual: Any) -> str:
  default = ''
  if usual is not None:
    shown = escape(str(_plain(usual))) or 'empty'
    default = f' <small>(default: {shown})</small>'
  return (
    f'<div><code>{escape(name)}</code> = <code>{escape(str(value))}</code>'
    f'{default}</div>'
  )


def manner(run: Run) -> str:
  """Returns how the evaluations were answered, as HTML."""
  heat = run.settings.get('eval.temperature', 0)
  return f'at temperature {escape(str(heat))}' if heat else 'greedily'


def matched(run: Run) -> tuple[list[Row], list[Row]] | None:
  """Returns the problems of both the base and the newest checkpoint.

  Both lists are in the same order; None where one checkpoint is missing.
  """
  if 'base' not in run.rows or run.trained not in run.rows:
    return None
  before = {r.id: r for r in run.rows['base']}
  after = [r for r in run.rows[run.trained] if r.id in before]
  return ([before[r.id] for r in after], after) if after else None


def right_of(rows: Sequence[Row]) -> np.ndarray:
  """Returns bool[N, T]."""
  return np.array([[o == 'right' for o in r.outcomes] for r in rows])


def _changes(run: Run) -> dict[str, evaluation.Difference]:
  """Returns {metric: its change} for what the rows of both ends decide."""
  pair = matched(run)
  if pair is None or min(len(rows[0].attempts) for rows in pair) < 2:
    return {}
  before, after = (evaluation.outcome_values(right_of(rows)) for rows in pair)
  settings = config_lib.flatten(config_lib.default()) | run.settings
  resamples, seed = int(settings['eval.resamples']), int(settings['seed'])
  return {
    name: evaluation.paired_difference(
      before[name], after[name], resamples, seed
    )
    for name in before.keys() & after.keys()
    if not (np.isnan(before[name]).all() or np.isnan(after[name]).all())
  }


def _change(
  change: evaluation.Difference | None, metric: words.Metric, run: Run
) -> str:
  if change:
    return _number(change.value, (change.low, change.high), True)
  before, after = (
    files.value(run.summaries[name], metric.name)
    for name in ('base', run.trained)
  )
  return words.percent(after - before, signed=True)


def _cell(summary: dict, metric: words.Metric) -> str:
  value = files.value(summary, metric.name)
  return _number(value, files.bounds(summary, metric.name), metric.signed)


def _number(value: float, ends: tuple[float, float], signed: bool) -> str:
  text = words.points(value, signed)
  interval = words.between(*ends, signed)
  return text + (f'<small>{interval}</small>' if interval else '')


def _heading(checkpoint: str, summary: dict, trains: bool) -> str:
  step = files.value(summary, 'step')
  used = (
    '' if math.isnan(step) or not step else f'<small>step {step:.0f}</small>'
  )
  return escape(words.checkpoint(checkpoint, trains)) + used


def _share(rows: Sequence[Row], turn: int) -> str:
  rows = [r for r in rows if len(r.outcomes) >= turn]
  if not rows:
    return words.UNKNOWN
  return words.percent(
    sum(r.outcomes[turn - 1] == 'right' for r in rows) / len(rows)
  )
