"""Methods side by side: what their evaluations say, as tables to print.

Every figure is the mean over seeds. Its interval is that of Student's t over
the seeds where there are several, else a bootstrap over the problems. A
method is held against another on the same problems: each problem's outcomes
are averaged over the seeds before the problems are resampled, and McNemar's
test, which knows no seeds, is done for each seed and its largest p is told.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.stats

from score_jax import evaluation

# Heading, metric of `evaluation.problem_values`; all in percent.
COLUMNS = {
  'Acc@t1': 'accuracy_t1',
  'Acc@t2': 'accuracy_t2',
  'Δ': 'delta',
  'Δ i→c': 'delta_i_to_c',
  'Δ c→i': 'delta_c_to_i',
  'keeps right': 'keeps_right',
  'fixes wrong': 'fixes_wrong',
  'changes': 'answer_change_rate',
  'copies': 'exact_copy_rate',
}
RESAMPLES, SEED = 2000, 0


@dataclasses.dataclass(frozen=True)
class Cell:
  """One method trained with one seed, evaluated."""

  values: dict[str, np.ndarray]  # {metric: float64[N]}, NaN: does not apply.
  right: np.ndarray  # bool[N, T].
  attempts: int  # Sampled in training.
  tokens: int  # Of these attempts.
  updates: int


@dataclasses.dataclass(frozen=True)
class Figure:
  """A mean with its 95 % interval; NaN where nothing applies."""

  mean: float
  low: float
  high: float


@dataclasses.dataclass(frozen=True)
class Against:
  """How a method differs from the one that all are held against."""

  accuracy: evaluation.Difference  # Of Acc@t2.
  delta: evaluation.Difference
  p: float  # McNemar's, of second attempts; the largest over the seeds.


@dataclasses.dataclass(frozen=True)
class Line:
  """One row of the table."""

  name: str
  words: str
  seeds: int
  figures: dict[str, Figure]  # By metric.
  attempts: float  # Sampled in training, mean over seeds; 0 = not trained.
  tokens: float
  updates: float
  against: Against | None  # None: it is the one held against, or there is none.


def read_cell(
  rows: Sequence[dict[str, Any]], steps: Sequence[dict[str, Any]]
) -> Cell:
  """Returns a cell from its records.

  Args:
    rows: of its evaluation, one per problem.
    steps: of its training, one per update.
  """
  right = np.array([[o == 'right' for o in row['outcomes']] for row in rows])
  attempts = evaluation.compare(
    [row['attempts'] for row in rows],
    [row['answers'] for row in rows],
    right,
    np.array([row['truncated'] for row in rows]),
  )
  return Cell(
    evaluation.problem_values(attempts),
    right,
    sum(step['sampled_attempts'] for step in steps),
    sum(step['sampled_tokens'] for step in steps),
    len(steps),
  )


def figure(values: Sequence[np.ndarray]) -> Figure:
  """Returns the mean of a metric over seeds, with its interval.

  Args:
    values: float64[N] per seed, of the same problems.
  """
  means = np.array([_mean(v) for v in values])
  mean = float(means.mean())
  if np.isnan(mean):
    return Figure(mean, mean, mean)
  if len(means) == 1:
    draws = evaluation.bootstrap(values[0][:, None], RESAMPLES, SEED)
    return Figure(mean, *evaluation.interval(draws))
  reach = scipy.stats.t.ppf(0.5 + evaluation.LEVEL / 2, len(means) - 1)
  half = float(reach * means.std(ddof=1) / np.sqrt(len(means)))
  return Figure(mean, mean - half, mean + half)


def _mean(values: np.ndarray) -> float:
  known = values[~np.isnan(values)]
  return float(known.mean()) if len(known) else float('nan')


def against(cells: Sequence[Cell], others: Sequence[Cell]) -> Against:
  """Returns how methods differ, cells less others, seed by seed in order.

  Where one has fewer seeds than the other, those it has are compared.
  """
  count = min(len(cells), len(others))
  pairs = list(zip(cells[:count], others[:count], strict=True))

  def difference(metric: str) -> evaluation.Difference:
    before, after = (
      np.mean([cell.values[metric] for cell in side], axis=0)
      for side in (others[:count], cells[:count])
    )
    return evaluation.paired_difference(before, after, RESAMPLES, SEED)

  return Against(
    difference('accuracy_t2'),
    difference('delta'),
    max(evaluation.mcnemar(b.right[:, 1], a.right[:, 1]) for a, b in pairs),
  )


def line(
  name: str,
  words: str,
  cells: Sequence[Cell],
  others: Sequence[Cell],
) -> Line:
  """Returns a method's row.

  Args:
    name: of the method.
    words: the same, for people.
    cells: one per seed, in order.
    others: of the method that all are held against; empty = none.
  """
  metrics = [m for m in cells[0].values if not m.startswith('truncated')]
  return Line(
    name=name,
    words=words,
    seeds=len(cells),
    figures={m: figure([cell.values[m] for cell in cells]) for m in metrics},
    attempts=float(np.mean([cell.attempts for cell in cells])),
    tokens=float(np.mean([cell.tokens for cell in cells])),
    updates=float(np.mean([cell.updates for cell in cells])),
    against=against(cells, others) if others and cells is not others else None,
  )


def spread(lines: Sequence[Line]) -> float:
  """Returns how far apart the attempts sampled in training are, as a share.

  The largest over the smallest of all methods that are trained, less 1.
  """
  trained = [x.attempts for x in lines if x.attempts]
  return max(trained) / min(trained) - 1 if trained else 0.0


def markdown(lines: Sequence[Line], problems: int) -> str:
  """Returns the table as Markdown, in percent.

  Args:
    lines: in the order to print.
    problems: of the test, for the words below.
  """
  heads = ['', *COLUMNS, 'Acc@t2 vs SCoRe', 'Δ vs SCoRe', 'McNemar p']
  heads += ['attempts', 'updates']
  rows = [_cells(x, _percent, '–') for x in lines]
  text = [heads, ['---'] + ['---:'] * (len(heads) - 1), *rows]
  body = '\n'.join('| ' + ' | '.join(row) + ' |' for row in text)
  return f'{body}\n\n{_words(lines, problems)}\n'


def _words(lines: Sequence[Line], problems: int) -> str:
  """Returns what the figures are."""
  seeds = sorted({x.seeds for x in lines})
  counted = '–'.join(str(n) for n in (seeds[0], seeds[-1])[: len(seeds)])
  return (
    f'Percent of {problems} test problems, means over {counted} seeds with '
    '95 % intervals (Student’s t over seeds; over problems where there is one '
    'seed). Against SCoRe: paired bootstrap over problems, and the largest of '
    'the seeds’ exact McNemar p-values of second attempts. Attempts and '
    'updates are those of training, per seed; the trained rows sample within '
    f'{spread(lines):.1%} of each other.'
  )


def latex(lines: Sequence[Line], problems: int) -> str:
  """Returns the table as LaTeX, for the package booktabs; see `markdown`."""
  heads = ['', 'Acc@t1', 'Acc@t2', '$\\Delta$', '$\\Delta^{i \\to c}$']
  heads += ['$\\Delta^{c \\to i}$', 'keeps right', 'fixes wrong', 'changes']
  heads += ['copies', 'Acc@t2 vs SCoRe', '$\\Delta$ vs SCoRe', 'McNemar $p$']
  heads += ['attempts', 'updates']
  rows = [_cells(x, _tex_percent, '--') for x in lines]
  body = ' \\\\\n'.join(' & '.join(row) for row in rows)
  note = _words(lines, problems).replace('%', '\\%').replace('’', "'")
  note = note.replace('–', '--')
  return (
    f'% {_words(lines, problems)}\n'
    f'\\begin{{tabular}}{{l{"r" * (len(heads) - 1)}}}\n\\toprule\n'
    f'{" & ".join(heads)} \\\\\n\\midrule\n{body} \\\\\n\\bottomrule\n'
    f'\\end{{tabular}}\n\\par\\smallskip {note}\n'
  )


def _cells(row: Line, percent, nothing: str) -> list[str]:
  """Returns the texts of a row, each figure with its interval."""
  found = [row.words]
  for metric in COLUMNS.values():
    x = row.figures[metric]
    found.append(nothing if np.isnan(x.mean) else percent(x))
  if row.against is None:
    found += [nothing] * 3
  else:
    compared = (row.against.accuracy, row.against.delta)
    found += [percent(Figure(d.value, d.low, d.high)) for d in compared]
    found.append(f'{row.against.p:.2g}')
  if not row.updates:
    return [*found, nothing, nothing]
  return [*found, f'{row.attempts:,.0f}', f'{row.updates:,.0f}']


def _percent(x: Figure) -> str:
  mean, low, high = (round(100 * v, 1) + 0.0 for v in (x.mean, x.low, x.high))
  return f'{mean:.1f} [{low:.1f}, {high:.1f}]'


def _tex_percent(x: Figure) -> str:
  mean, low, high = (round(100 * v, 1) + 0.0 for v in (x.mean, x.low, x.high))
  return f'${mean:.1f}$ {{\\scriptsize $[{low:.1f}, {high:.1f}]$}}'


def comma_separated(lines: Sequence[Line]) -> str:
  """Returns every figure as CSV, in fractions of 1, a row per method."""
  metrics = list(dict.fromkeys(m for x in lines for m in x.figures))
  ends = ('', '_low', '_high')
  compared = ('accuracy_t2_vs_score', 'delta_vs_score')
  heads = ['name', 'words', 'seeds', 'attempts', 'tokens', 'updates']
  heads += [m + end for m in (*metrics, *compared) for end in ends]
  out = io.StringIO()
  writer = csv.writer(out, lineterminator='\n')
  writer.writerow([*heads, 'mcnemar_p'])
  for x in lines:
    row = [x.name, x.words, x.seeds, x.attempts, x.tokens, x.updates]
    for metric in metrics:
      f = x.figures.get(metric)
      row += [''] * 3 if f is None else [f.mean, f.low, f.high]
    if x.against is None:
      row += [''] * 7
    else:
      for d in (x.against.accuracy, x.against.delta):
        row += [d.value, d.low, d.high]
      row.append(x.against.p)
    writer.writerow(row)
  return out.getvalue()
