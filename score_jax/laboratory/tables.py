"""The numbers as tables: Markdown, HTML, LaTeX and CSV."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections.abc import Iterable, Sequence

import numpy as np

from score_jax.laboratory.comparison import Figure, Line, spread
from score_jax.report import markup, words

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
  'edits': 'mean_edit_distance_ratio',
}
NOTHING = '–'

Entry = Figure | str | None  # None: there is no such number.


@dataclasses.dataclass(frozen=True)
class Grid:
  """A table, before it has a form."""

  title: str  # '' for the first one, which needs none.
  heads: Sequence[str]
  rows: Sequence[Sequence[Entry]]  # Each starts with the method.
  words: str  # What the numbers are.


def grids(lines: Sequence[Line], problems: int) -> list[Grid]:
  """Returns all tables that there are numbers for, the main one first.

  Args:
    lines: of the methods, in the order to print.
    problems: of the test, for the words below.
  """
  found = [_main(lines, problems), _turns(lines), _in_a_row(lines)]
  found += [_shift(lines), _several(lines), _budgets(lines)]
  found += _difficulties(lines)
  return [grid for grid in found if grid.rows]


def _main(lines: Sequence[Line], problems: int) -> Grid:
  heads = ['', *COLUMNS, 'Acc@t2 vs SCoRe', 'Δ vs SCoRe', 'McNemar p']
  heads += ['attempts', 'updates']
  rows = [_row(line) for line in lines]
  return Grid('', heads, rows, _words(lines, problems))


def _row(line: Line) -> list[Entry]:
  found: list[Entry] = [line.words]
  found += [line.figures[metric] for metric in COLUMNS.values()]
  if line.against is None:
    found += [None] * 3
  else:
    found += [line.against.accuracy, line.against.delta]
    found.append(f'{line.against.p:.2g}')
  if not line.updates:
    return [*found, None, None]
  return [*found, f'{line.attempts:,.0f}', f'{line.updates:,.0f}']


def _words(lines: Sequence[Line], problems: int) -> str:
  """Returns what the numbers are."""
  seeds = sorted({x.seeds for x in lines})
  counted = ' to '.join(str(n) for n in (seeds[0], seeds[-1])[: len(seeds)])
  many = 'seed' if seeds == [1] else 'seeds'
  return (
    f'Percent of {problems} test problems, means over {counted} {many}, with '
    '95 % intervals over problems and, where there are several, seeds '
    '(bootstrap and Student’s t, their squares added). keeps right, fixes '
    'wrong: of right and of wrong first attempts. changes: another answer; '
    'copies: the same text; edits: the edit-distance ratio, times 100. Against '
    'SCoRe: paired, with intervals of the same kind, and the largest of the '
    'seeds’ exact McNemar p-values of second attempts. Attempts and updates '
    f'are those of training, per seed; the trained rows sample within '
    f'{spread(lines):.1%} of each other.'
  )


def _pick(
  lines: Sequence[Line], columns: dict[str, str], title: str, words: str
) -> Grid:
  """Returns the table of some metrics, of the methods that have any of them."""
  there = {
    k: m for k, m in columns.items() if any(m in x.figures for x in lines)
  }
  rows = [
    [line.words, *(line.figures.get(metric) for metric in there.values())]
    for line in lines
    if any(metric in line.figures for metric in there.values())
  ]
  return Grid(title, ['', *there], rows, words)


def _turns(lines: Sequence[Line]) -> Grid:
  """Returns the accuracy of every turn, of methods that train more than two."""
  more = [x for x in lines if 'accuracy_t3' in x.figures]
  return _pick(
    more,
    {f'Acc@t{t}': f'accuracy_t{t}' for t in range(1, 11)},
    'More than two attempts in training',
    'Percent of the same test problems.',
  )


def _in_a_row(lines: Sequence[Line]) -> Grid:
  names = {name for line in lines for name in line.figures}
  turns = sum(name.startswith('attempts_accuracy_t') for name in names)
  return _pick(
    lines,
    {f'Acc@t{t}': f'attempts_accuracy_t{t}' for t in range(1, turns + 1)},
    'Attempts in a row',
    'Percent of the same test problems; training had two attempts.',
  )


def _shift(lines: Sequence[Line]) -> Grid:
  asked = [x for x in lines if 'fixed_first_fixes_wrong' in x.figures]
  return _pick(
    asked,
    {
      'fixes its own': 'fixes_wrong',
      "fixes the base's": 'fixed_first_fixes_wrong',
      'keeps its own': 'keeps_right',
      "keeps the base's": 'fixed_first_keeps_right',
      'Acc@t2, own': 'accuracy_t2',
      "Acc@t2, the base's": 'fixed_first_accuracy_t2',
    },
    'Second attempts behind the base model’s first attempts',
    'Percent of wrong, of right, and of all first attempts: those of the '
    'method itself, and those that the base model wrote.',
  )


def _several(lines: Sequence[Line]) -> Grid:
  """Returns avg@k and pass@k, a row per method and turn."""
  names = [name for line in lines for name in line.figures]
  kinds = _matches(r'samples_(avg|pass)_at_(\d+)_t(\d+)', names)
  heads = list(dict.fromkeys((m[1], int(m[2])) for m in kinds))
  turns = sorted({int(m[3]) for m in kinds})
  rows = []
  for line in lines:
    for turn in turns:
      found = [
        line.figures.get(f'samples_{kind}_at_{k}_t{turn}') for kind, k in heads
      ]
      if any(found):
        rows.append([f'{line.words}, attempt {turn}', *found])
  words = 'Percent of the first test problems, sampled.'
  texts = [f'{kind}@{k}' for kind, k in heads]
  return Grid('Several samples', ['', *texts], rows, words)


BUDGET_COLUMNS = {
  f'{heading}, {way}': (choice, end)
  for heading, choice in (('majority', 'majority'), ('best', 'best_of'))
  for way, end in (
    ('side by side', 'parallel'),
    ('corrected', 'corrected'),
    ('gain', 'gain'),
  )
}


def _budgets(lines: Sequence[Line]) -> Grid:
  """Returns what equal tokens buy, a row per method and budget."""
  rows = []
  for line in lines:
    budgets = _matches(r'samples_majority_(\d+)_gain', line.figures)
    for n in sorted(int(m[1]) for m in budgets):
      found = [
        line.figures.get(f'samples_{choice}_{n}_{end}')
        for choice, end in BUDGET_COLUMNS.values()
      ]
      tokens = f'{line.figures[f"samples_tokens_{n}"].mean:,.1f}'
      rows.append([line.words, str(n), tokens, *found])
  heads = ['', 'attempts', 'tokens', *BUDGET_COLUMNS]
  return Grid(
    'Attempts side by side, and corrected ones',
    heads,
    rows,
    'Percent of the first test problems, sampled: what a majority vote and an '
    'oracle (best) choose among first attempts, or among the last of so many '
    'attempts made in corrected trajectories, for the same generated tokens '
    'per problem. The gain is paired.',
  )


def _matches(pattern: str, names: Iterable[str]) -> list[re.Match]:
  return [m for m in (re.fullmatch(pattern, name) for name in names) if m]


def _difficulties(lines: Sequence[Line]) -> list[Grid]:
  names = {name for line in lines for name in line.figures}
  labels = sorted(m[1] for m in _matches(r'delta \[(.*)\]', names))
  if len(labels) < 2:
    return []
  columns = {
    f'{heading}, {label}': f'{metric} [{label}]'
    for label in labels
    for heading, metric in list(COLUMNS.items())[:3]
  }
  words = 'Percent of the problems of each difficulty.'
  return [_pick(lines, columns, 'By difficulty', words)]


def markdown(grid: Grid) -> str:
  """Returns a table as Markdown, in percent."""
  rows = [[_text(entry) for entry in row] for row in grid.rows]
  text = [grid.heads, ['---'] + ['---:'] * (len(grid.heads) - 1), *rows]
  body = '\n'.join('| ' + ' | '.join(row) + ' |' for row in text)
  title = f'## {grid.title}\n\n' * bool(grid.title)
  return f'{title}{body}\n\n{grid.words}\n'


def hypertext(grid: Grid) -> str:
  """Returns a table as HTML, in percent."""
  rows = [
    markup.row(markup.escape(row[0]), [_small(entry) for entry in row[1:]])
    for row in grid.rows
  ]
  name = grid.title or 'All methods'
  title = f'<h2>{markup.escape(grid.title)}</h2>' * bool(grid.title)
  heads = [markup.escape(head) for head in grid.heads]
  words = f'<p class="quiet">{markup.escape(grid.words)}</p>'
  return title + markup.table(name, heads, rows) + words


def _small(entry: Entry) -> str:
  """Returns a number as HTML, with its interval below it."""
  if not isinstance(entry, Figure) or np.isnan(entry.mean):
    return markup.escape(_text(entry))
  mean, low, high = _percents(entry)
  return f'{mean}<small>{low} to {high}</small>'


def _text(entry: Entry) -> str:
  if entry is None or (isinstance(entry, Figure) and np.isnan(entry.mean)):
    return NOTHING
  if isinstance(entry, str):
    return entry
  mean, low, high = _percents(entry)
  return f'{mean} [{low}, {high}]'


def _percents(x: Figure) -> list[str]:
  """Returns mean, low and high, rounded as figures and pages round them."""
  return [words.points(v) for v in (x.mean, x.low, x.high)]


def latex(grid: Grid) -> str:
  """Returns a table as LaTeX, for the package booktabs."""
  heads = [_tex(head) for head in grid.heads]
  rows = [[_tex_entry(entry) for entry in row] for row in grid.rows]
  body = ' \\\\\n'.join(' & '.join(row) for row in rows)
  return (
    f'\\begin{{tabular}}{{l{"r" * (len(heads) - 1)}}}\n\\toprule\n'
    f'{" & ".join(heads)} \\\\\n\\midrule\n{body} \\\\\n\\bottomrule\n'
    f'\\end{{tabular}}\n\\par\\smallskip {_tex(grid.words)}\n'
  )


TEX = {
  '%': '\\%',
  '’': "'",
  '–': '--',
  'Δ': '$\\Delta$',
  'i→c': '$i \\to c$',
  'c→i': '$c \\to i$',
  'McNemar p': 'McNemar $p$',
}


def _tex(text: str) -> str:
  for plain, written in TEX.items():
    text = text.replace(plain, written)
  return text


def _tex_entry(entry: Entry) -> str:
  if not isinstance(entry, Figure) or np.isnan(entry.mean):
    return _tex(_text(entry))
  mean, low, high = _percents(entry)
  return f'${mean}$ {{\\scriptsize $[{low}, {high}]$}}'


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
        row += [d.mean, d.low, d.high]
      row.append(x.against.p)
    writer.writerow(row)
  return out.getvalue()
