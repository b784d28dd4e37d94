r"""MATH, GSM8K and AIME as published: problems whose answer is one value."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping, Sequence

from score_jax.problem import Problem
from score_jax.tasks import published, rows
from score_jax.tasks.published import File, Layout, Source

Paths = Mapping[str, pathlib.Path]
FORM = r'The final answer is $\boxed{{answer}}$.'  # {answer} is filled in.
_BOX = re.compile(r'\\(?:boxed|fbox)(?![A-Za-z])\s*')
_CALCULATOR = re.compile(r'<<[^>]*>>')


def boxed(text: str) -> str | None:
  r"""Returns what stands in the last \boxed{} of a text; None: there is none.

  `\boxed 7` without braces holds what follows up to a blank or a dollar sign.
  """
  for found in reversed(list(_BOX.finditer(text))):
    rest = text[found.end() :]
    inside = _group(rest) if rest.startswith('{') else _word(rest)
    if inside is not None:
      return inside.strip()
  return None


def _word(text: str) -> str | None:
  found = re.match(r'[^\s$]+', text)
  return found.group() if found else None


def _group(text: str) -> str | None:
  """Returns what stands in the braces that a text begins with."""
  depth, place = 0, 0
  while place < len(text):
    character = text[place]
    depth += (character == '{') - (character == '}')
    if depth == 0:
      return text[1:place]
    place += 2 if character == '\\' else 1  # An escaped brace is no brace.
  return None


def _math_problem(name: str, row: rows.Row) -> Problem:
  """Returns a problem of MATH; its answer is '' where none can be found."""
  solution = row.text('solution')
  level = row.optional('level')
  return Problem(
    id=name,
    prompt=row.text('problem'),
    answer=row.optional('answer') or boxed(solution) or '',
    reference=solution,
    difficulty=f'Level {level}' if level.isdigit() else level,
  )


def _math_splits(
  train: Sequence[Problem], test: Sequence[Problem]
) -> published.Splits:
  """Returns the splits, in an order of their own: files go by subject."""
  train = [p for p in train if p.answer]  # Without one nothing can be graded.
  return published.hold_out(published.shuffled(train)) | {
    'test': published.shuffled(test)
  }


def _math_from_lists(paths: Paths) -> published.Splits:
  """Reads the two files of math_splits: whole problems, a line each."""
  train, test = (
    [_math_problem(row.text('unique_id'), row) for row in rows.read(paths[key])]
    for key in ('train', 'test')
  )
  return _math_splits(train, test)


def _math_from_folders(paths: Paths) -> published.Splits:
  """Reads MATH's own folders, a file per problem, and the list of test ids."""
  problems = {}
  for part in ('train', 'test'):
    root = paths[part]
    for path in sorted(root.glob('*/*.json')):
      name = f'{part}/{path.parent.name}/{path.name}'
      problems[name] = _math_problem(name, rows.read_object(path))
  by_text = {p.prompt.strip(): name for name, p in problems.items()}
  chosen = [_listed(row, problems, by_text) for row in rows.read(paths['list'])]
  test = set(chosen)
  return _math_splits(
    [p for name, p in problems.items() if name not in test],
    [problems[name] for name in dict.fromkeys(chosen)],
  )


def _listed(
  row: rows.Row, problems: Mapping[str, Problem], by_text: Mapping[str, str]
) -> str:
  """Returns the id that a line of the list names, by id or by the problem."""
  name = row.optional('unique_id')
  if not name:
    name = by_text.get(row.text('problem').strip(), '')
  if name not in problems:
    shown = name or row.text('problem')[:60]
    raise row.error(
      f'names {shown!r}, which is not in the folders of MATH',
      'copy all of train/ and test/ of MATH anew',
    )
  return name


_MATH_SPLITS = (
  'https://media.githubusercontent.com/media/openai/prm800k/main/prm800k/'
  'math_splits/{}.jsonl'
)


def _list_names(split: str) -> tuple[str, ...]:
  name = f'math_splits/{split}.jsonl'
  return name, f'prm800k/{name}', f'prm800k/prm800k/{name}', f'{split}.jsonl'


MATH = Source(
  name='math',
  folder='math',
  about='MATH (Hendrycks et al. 2021) in the split of Lightman et al. (2023).',
  layouts=(
    Layout(
      {
        split: File(_list_names(split), _MATH_SPLITS.format(split))
        for split in ('train', 'test')
      },
      _math_from_lists,
    ),
    Layout(
      {
        'train': File(('MATH/train', 'train')),
        'test': File(('MATH/test', 'test')),
        'list': File(_list_names('test')),
      },
      _math_from_folders,
    ),
  ),
  published={'train': 11_500, 'validation': 500, 'test': 500},
)


def _gsm8k_problem(name: str, row: rows.Row) -> Problem:
  solution, mark, answer = row.text('answer').rpartition('####')
  answer = answer.strip().replace(',', '')
  if not mark or not re.fullmatch(r'-?\d+(\.\d+)?', answer):
    raise row.error('has an answer that does not end in #### and a number')
  solution = _CALCULATOR.sub('', solution).strip()
  final = FORM.replace('{answer}', answer)
  return Problem(name, row.text('question'), answer, f'{solution}\n{final}')


def _gsm8k(paths: Paths) -> published.Splits:
  train, test = (
    [
      _gsm8k_problem(f'{split}-{row.line}', row)
      for row in rows.read(paths[split])
    ]
    for split in ('train', 'test')
  )
  return published.hold_out(train) | {'test': test}


_GSM8K = (
  'https://raw.githubusercontent.com/openai/grade-school-math/master/'
  'grade_school_math/data/{}.jsonl'
)
GSM8K = Source(
  name='gsm8k',
  folder='gsm8k',
  about='GSM8K (Cobbe et al. 2021).',
  layouts=(
    Layout(
      {
        split: File((f'{split}.jsonl',), _GSM8K.format(split))
        for split in ('train', 'test')
      },
      _gsm8k,
    ),
  ),
  published={'train': 6_973, 'validation': 500, 'test': 1_319},
)


def _aime(paths: Paths) -> published.Splits:
  """Reads any of the forms in which these problems are passed on."""
  problems = []
  for key, path in paths.items():
    for row in rows.read(path):
      name = row.optional('ID', 'id') or str(row.line)
      answer = row.text('answer', 'Answer')
      if not answer.strip().isdigit():
        raise row.error(f'has the answer {answer!r:.40}, no whole number')
      answer = str(int(answer))
      final = FORM.replace('{answer}', answer)
      worked = row.optional('solution', 'Solution').strip()
      problems.append(
        Problem(
          id=name if len(paths) == 1 else f'{key}-{name}',
          prompt=row.text('problem', 'Problem', 'question'),
          answer=answer,
          reference=f'{worked}\n{final}' if worked else final,
        )
      )
  return {'test': problems}


_HUB = 'https://huggingface.co/datasets/'
AIME24 = Source(
  name='aime24',
  folder='aime24',
  about='The American Invitational Mathematics Examination of 2024, I and II.',
  layouts=(
    Layout(
      {
        'all': File(
          (
            'aime_2024_problems.parquet',
            'aime_2024_problems.jsonl',
            'aime24.jsonl',
            'aime24.json',
          ),
          _HUB
          + 'Maxwell-Jia/AIME_2024/resolve/main/aime_2024_problems.parquet',
        )
      },
      _aime,
    ),
  ),
  published={'test': 30},
)
AIME25 = Source(
  name='aime25',
  folder='aime25',
  about='The American Invitational Mathematics Examination of 2025, I and II.',
  layouts=(
    Layout(
      {
        'all': File(
          ('aime25.jsonl', 'aime25.json', 'test.jsonl'),
          _HUB + 'math-ai/aime25/resolve/main/test.jsonl',
        )
      },
      _aime,
    ),
    Layout(
      {
        'I': File(('aime2025-I.jsonl',)),
        'II': File(('aime2025-II.jsonl',)),
      },
      _aime,
    ),
  ),
  published={'test': 30},
)
