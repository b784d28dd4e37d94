"""MBPP, HumanEval and their extensions as published: programs with tests."""

from __future__ import annotations

import ast
import builtins
import pathlib
import warnings
from collections.abc import Mapping, Sequence

from score_jax.graders import code
from score_jax.problem import Problem
from score_jax.tasks import published, repair, rows, wording
from score_jax.tasks.published import File, Layout, Source

Paths = Mapping[str, pathlib.Path]
# By MBPP's task_id, the last one of each included.
SPLITS = {
  'prompt': range(1, 11),
  'test': range(11, 511),
  'validation': range(511, 601),
  'train': range(601, 975),
}
STATED_TESTS = 3  # Of each problem, in the prompt; all of them grade.


def entry_point(source: str, tests: Sequence[str]) -> str:
  """Returns which name of a program its tests call; '' if none.

  One that is Python's own name comes first: it alone would be misread.
  """
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # Old programs hold escapes as '\\d'.
    program, *calls = [ast.parse(text) for text in (source, *tests)]
  defined = {
    node.name
    for node in program.body
    if isinstance(node, ast.FunctionDef | ast.ClassDef)
  }
  called = [
    node.func.id
    for call in calls
    for node in ast.walk(call)
    if isinstance(node, ast.Call)
    and isinstance(node.func, ast.Name)
    and node.func.id in defined
  ]
  own = [name for name in called if hasattr(builtins, name)]
  return next(iter(own + called), '')


def _mbpp_problem(row: rows.Row) -> Problem:
  """Returns a problem of any of the three: the second has `prompt` for `text`.

  All published tests grade: the challenge tests of MBPP, and the long script of
  MBPP+ behind the tests that it grew from, for some scripts assert nothing.
  """
  source, tests = _lines(row.text('code')), row.texts('test_list')
  stated = [_lines(test) for test in tests[:STATED_TESTS]]
  script = row.optional('test')
  harder = row.texts('challenge_test_list') if 'text' in row.fields else []
  imports = [] if 'text' in row.fields else row.texts('test_imports')
  return Problem(
    id=f'Mbpp/{row.number("task_id")}',
    prompt='\n'.join([_lines(row.text('text', 'prompt')), 'Tests:', *stated]),
    answer=code.encode_tests(
      before='\n'.join(imports),
      setup='\n'.join([*imports, _lines(row.optional('test_setup_code'))]),
      tests=[*tests, *harder, *([script] if script else [])],
      entry=_entry(row, source, tests),
    ),
    reference=wording.program(source),
  )


def _entry(row: rows.Row, source: str, tests: Sequence[str]) -> str:
  try:
    return entry_point(source, tests)
  except (SyntaxError, ValueError) as error:
    raise row.error(f'holds no Python ({error})') from None


def _lines(text: str) -> str:
  return text.replace('\r\n', '\n')


def _mbpp(paths: Paths) -> published.Splits:
  problems: dict[str, list[Problem]] = {split: [] for split in SPLITS}
  for row in rows.read(paths['all']):
    number = row.number('task_id')
    split = next((s for s, ids in SPLITS.items() if number in ids), None)
    if split is None:
      raise row.error(f'has the task_id {number}; MBPP has 1 to 974')
    problems[split].append(_mbpp_problem(row))
  return problems


_GOOGLE = (
  'https://raw.githubusercontent.com/google-research/google-research/master/'
  'mbpp/'
)
MBPP = Source(
  name='mbpp',
  folder='mbpp',
  about='Mostly Basic Python Problems (Austin et al. 2021), official splits.',
  layouts=(
    Layout({'all': File(('mbpp.jsonl',), _GOOGLE + 'mbpp.jsonl')}, _mbpp),
  ),
  published={'prompt': 10, 'test': 500, 'validation': 90, 'train': 374},
)
MBPP_SANITIZED = Source(
  name='mbpp_sanitized',
  folder='mbpp',
  about='The part of MBPP that was verified by hand, in the same splits.',
  layouts=(
    Layout(
      {'all': File(('sanitized-mbpp.json',), _GOOGLE + 'sanitized-mbpp.json')},
      _mbpp,
    ),
  ),
  published={'prompt': 7, 'test': 257, 'validation': 43, 'train': 120},
)
_EVALPLUS = 'https://github.com/evalplus/{}_release/releases/download/{}/{}'
MBPP_PLUS = Source(
  name='mbpp_plus',
  folder='mbpp_plus',
  about='MBPP+ (Liu et al. 2023), split by the task ids of MBPP.',
  layouts=(
    Layout(
      {
        'all': File(
          ('MbppPlus-OriginFmt.jsonl.gz', 'MbppPlus-OriginFmt.jsonl'),
          _EVALPLUS.format('mbppplus', 'v0.2.0', 'MbppPlus-OriginFmt.jsonl.gz'),
        )
      },
      _mbpp,
    ),
  ),
  published={'prompt': 7, 'test': 224, 'validation': 38, 'train': 108},
  left_out={
    'Mbpp/599': 'its published tests run its own solution for over a minute'
  },
)


def _humaneval_problem(row: rows.Row) -> Problem:
  head, entry = row.text('prompt'), row.text('entry_point')
  return Problem(
    id=row.text('task_id'),
    prompt=head,
    answer=code.encode_tests(
      before=head, tests=[f'{row.text("test")}\ncheck({entry})'], entry=entry
    ),
    reference=wording.program(head + row.text('canonical_solution')),
  )


def _humaneval(paths: Paths) -> published.Splits:
  return {'test': [_humaneval_problem(row) for row in rows.read(paths['all'])]}


HUMANEVAL = Source(
  name='humaneval',
  folder='humaneval',
  about='HumanEval (Chen et al. 2021).',
  layouts=(
    Layout(
      {
        'all': File(
          ('HumanEval.jsonl.gz', 'HumanEval.jsonl'),
          'https://github.com/openai/human-eval/raw/master/data/'
          'HumanEval.jsonl.gz',
        )
      },
      _humaneval,
    ),
  ),
  published={'test': 164},
)
HUMANEVAL_PLUS = Source(
  name='humaneval_plus',
  folder='humaneval_plus',
  about='HumanEval+ (Liu et al. 2023).',
  layouts=(
    Layout(
      {
        'all': File(
          ('HumanEvalPlus-OriginFmt.jsonl.gz', 'HumanEvalPlus-OriginFmt.jsonl'),
          _EVALPLUS.format(
            'humanevalplus', 'v0.1.10', 'HumanEvalPlus-OriginFmt.jsonl.gz'
          ),
        )
      },
      _humaneval,
    ),
  ),
  published={'test': 163},
  left_out={
    'HumanEval/32': 'its published test gives its helper a wrong number of values'
  },
)


MBPP_REPAIR = Source(
  name='mbpp_repair',
  folder='mbpp',
  about='Programs to repair: solutions of MBPP with one mistake of our making.',
  layouts=(
    Layout(
      MBPP.layouts[0].files,
      lambda paths: repair.to_repair(_mbpp(paths), repair.mistakes),
    ),
  ),
  # How many there are depends on which mistakes its tests find.
  published={},
)
