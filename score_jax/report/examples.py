"""What the model wrote, with its changes marked, as HTML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from score_jax.report import differences, words
from score_jax.report.differences import Piece
from score_jax.report.files import Row, Run, Sample
from score_jax.report.markup import escape

SHORT = 60  # Characters of an attempt that fits two cards to a line.
SAMPLES = 8  # Trajectories of training that are shown.

# (first attempt right, last attempt right): (heading, how many are shown).
FATES = {
  (False, True): ('Fixed: wrong at first, right in the end', 6),
  (True, True): ('Kept: right at first, right in the end', 4),
  (True, False): ('Broken: right at first, wrong in the end', 4),
  (False, False): ('Still wrong in the end', 4),
}


def fate(row: Row) -> tuple[bool, bool]:
  """Returns whether the first and the last attempt are right."""
  return row.outcomes[0] == 'right', row.outcomes[-1] == 'right'


def groups(run: Run) -> str:
  """Returns test problems by the fate of their answer, before and after."""
  latest = run.newest
  rows = run.rows[latest]
  before = {} if latest == 'base' else _by_id(run.rows.get('base', ()))
  parts = []
  for key, (heading, shown) in FATES.items():
    members = [row for row in rows if fate(row) == key]
    parts.append(
      f'<h3>{heading}</h3><p class="quiet">{len(members):,} of {len(rows):,} '
      f'problems {words.checkpoint_inside(latest, run.trains)}'
      + (f'; the first {shown} of them:' if len(members) > shown else '')
      + '</p>'
    )
    chosen = [
      {'base': before[row.id], latest: row}
      if row.id in before
      else {latest: row}
      for row in members[:shown]
    ]
    parts.append(_cards(chosen, run.trains))
  return ''.join(parts)


def flow(run: Run) -> str:
  """Returns one fixed answer as steps from left to right, '' without one."""
  rows = run.rows[run.newest] if run.rows else ()
  fixed = (row for row in rows if row.outcomes[:2] == ('wrong', 'right'))
  row = next((r for r in fixed if len(r.prompt + r.attempts[0]) < 400), None)
  if row is None:
    return ''
  asked = str(run.settings.get('task.instruction', '')) or (
    'Asks to look for an error and to correct it if there is one. The words '
    'are the same whether there is one or not.'
  )
  steps = [('Problem', _text(row.prompt), '')]
  for turn, text in enumerate(row.attempts[:2], start=1):
    if turn > 1:
      steps.append(('Instruction', escape(asked), ''))
    verdict = _verdict(row.outcomes[turn - 1])
    name = words.attempt(turn).capitalize()
    steps.append((name, _text(text), f'<span class="label">{verdict}</span>'))
  items = (f'<li><b>{name}</b>{text}{mark}</li>' for name, text, mark in steps)
  name = escape(words.checkpoint_inside(run.newest, run.trains))
  return (
    f'<h3>One problem of the test set, {name}</h3>'
    f'<ol class="flow">{"".join(items)}</ol>'
  )


def samples(run: Run) -> str:
  """Returns trajectories spread over the training, with what they earned."""
  count = len(run.samples)
  chosen = np.unique(np.linspace(0, count - 1, min(SAMPLES, count)).astype(int))
  return ''.join(
    f'<article class="card"><header>{_facts(sample.row)}</header>'
    f'<h4>{escape(words.stage(sample.stage))}, step {sample.step}</h4>'
    f'{_turns(sample.row, _credits(sample))}</article>'
    for sample in (run.samples[i] for i in chosen)
  )


def marked(attempts: Sequence[str]) -> list[str]:
  """Returns each attempt as HTML: what the next drops, what it has added."""
  return [
    ''.join(map(_mark, pieces)) for pieces in differences.pieces(attempts)
  ]


def _mark(piece: Piece) -> str:
  text = escape(piece.text)
  text = f'<del>{text}</del>' if piece.gone else text
  return f'<ins>{text}</ins>' if piece.new else text


def _by_id(rows: Iterable[Row]) -> dict[str, Row]:
  return {row.id: row for row in rows}


def _cards(problems: Sequence[Mapping[str, Row]], trains: bool) -> str:
  if not problems:
    return ''
  texts = [t for rows in problems for r in rows.values() for t in r.attempts]
  turns = max(len(r.attempts) for rows in problems for r in rows.values())
  short = max(map(len, texts)) <= SHORT and turns <= 2
  cards = ''.join(_card(rows, trains) for rows in problems)
  return f'<div class="cards{" short" if short else ""}">{cards}</div>'


def _card(rows: Mapping[str, Row], trains: bool) -> str:
  parts = [
    f'<h4>{escape(words.checkpoint(name, trains))}</h4>{_turns(row, None)}'
    for name, row in rows.items()
  ]
  facts = _facts(list(rows.values())[-1])
  return (
    f'<article class="card"><header>{facts}</header>{"".join(parts)}</article>'
  )


def _facts(row: Row) -> str:
  facts = {'Problem': row.prompt, 'Right answer': row.answer}
  if row.difficulty:
    facts['Difficulty'] = row.difficulty
  return ''.join(
    f'<div><span class="label">{name}</span>{_text(text)}</div>'
    for name, text in facts.items()
  )


def _turns(row: Row, notes: Sequence[str] | None) -> str:
  cells = []
  for index, text in enumerate(marked(row.attempts)):
    outcome = row.outcomes[index]
    cut = ', cut off' if row.truncated[index] else ''
    note = f'<span class="label">{notes[index]}</span>' if notes else ''
    cells.append(
      f'<div class="attempt {"right" if outcome == "right" else "wrong"}">'
      f'<header><span>{words.attempt(index + 1).capitalize()}</span>'
      f'<span class="verdict">{_verdict(outcome)}{cut}</span></header>'
      f'<pre>{text}</pre>{note}</div>'
    )
  return f'<div class="turns">{"".join(cells)}</div>'


def _credits(sample: Sample) -> list[str]:
  known = {
    'reward': sample.reward,
    'paid': sample.paid,
    'advantage': sample.advantage,
  }
  return [
    ', '.join(
      f'{name} {words.signed(numbers[turn])}'
      for name, numbers in known.items()
      if numbers
    )
    for turn in range(len(sample.reward))
  ]


def _verdict(outcome: str) -> str:
  sign, name = words.VERDICTS[outcome]
  return f'{sign}{words.SPACE}{name}'


def _text(text: str) -> str:
  return f'<pre>{escape(text)}</pre>'
