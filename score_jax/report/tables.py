"""The numbers of a run as HTML tables."""

from __future__ import annotations

import math
from collections.abc import Sequence

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
  head = ['In per cent', *map(_heading, run.summaries)]
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
    'problems. Below each number: its 95 % interval, from a bootstrap over the '
    'problems; for changes, paired problem by problem. An interval without '
    'width says only that nothing else was seen.</p>'
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


def difficulties(run: Run) -> str:
  """Returns the accuracy by difficulty, '' where the data has no such label."""
  names = list(run.rows)
  labels = {r.difficulty for rows in run.rows.values() for r in rows}
  if len(labels) < 2:
    return ''
  turns = range(1, run.turns + 1)
  head = ['Difficulty', 'Problems'] + [
    f'{escape(words.checkpoint(name))}, attempt {turn}'
    for name in names
    for turn in turns
  ]
  lines = []
  for label in sorted(labels):
    groups = [[r for r in run.rows[n] if r.difficulty == label] for n in names]
    cells = [f'{max(map(len, groups)):,}']
    cells += [_share(group, turn) for group in groups for turn in turns]
    lines.append(row(escape(label) or words.UNKNOWN, cells))
  return '<h3>Right answers by difficulty</h3>' + table(
    'Right answers by difficulty', head, lines
  )


def settings(run: Run) -> str:
  """Returns every setting of the run."""
  lines = (
    f'<div><code>{escape(name)}</code> = <code>{escape(str(value))}</code></div>'
    for name, value in sorted(run.settings.items())
  )
  return f'<div class="settings">{"".join(lines)}</div>'


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
  text = words.percent(value, signed).removesuffix(f'{words.SPACE}%')
  interval = words.between(*ends, signed)
  return text + (f'<small>{interval}</small>' if interval else '')


def _heading(checkpoint: str) -> str:
  return escape(words.checkpoint(checkpoint))


def _share(rows: Sequence[Row], turn: int) -> str:
  rows = [r for r in rows if len(r.outcomes) >= turn]
  if not rows:
    return words.UNKNOWN
  return words.percent(
    sum(r.outcomes[turn - 1] == 'right' for r in rows) / len(rows)
  )
