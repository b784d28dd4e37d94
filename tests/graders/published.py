"""The published problems whose references our graders have to accept."""

import gzip
import json
import os
import pathlib

from score_jax.graders.code import Tests

ROOT = pathlib.Path(__file__).parents[2]
FOLDERS = ('SCORE_DATA_DIR', ROOT.parent / 'shared' / 'data')
# Broken as published: its own test; a reference of more than a minute.
BROKEN = ('humaneval_plus HumanEval/32', 'mbpp_plus 599')


def folder() -> pathlib.Path | None:
  """Returns where the data is, or None."""
  for one in (os.environ.get(FOLDERS[0]), FOLDERS[1]):
    if one and pathlib.Path(one).is_dir():
      return pathlib.Path(one)
  return None


def read(path: pathlib.Path) -> list[dict]:
  opened = gzip.open(path, 'rt') if path.suffix == '.gz' else path.open()
  with opened as lines:
    return [json.loads(line) for line in lines]


def human_eval(row: dict) -> tuple[str, Tests]:
  entry = row['entry_point']
  test = f'{row["test"]}\ncheck({entry})\n'
  tests = Tests(row['prompt'], '', (test,), entry)
  return row['prompt'] + row['canonical_solution'], tests


def mbpp(row: dict) -> tuple[str, Tests]:
  asserts = (*row['test_list'], *row['challenge_test_list'])
  return row['code'], Tests('', row['test_setup_code'], asserts, _entry(row))


def mbpp_plus(row: dict) -> tuple[str, Tests]:
  return row['code'], Tests('', '', (row['test'],), _entry(row))


def _entry(row: dict) -> str:
  """Returns the one name that all tests call and the reference defines."""
  import ast

  made = [
    node.name
    for node in ast.parse(row['code']).body
    if isinstance(node, (ast.FunctionDef, ast.ClassDef))
  ]
  used = [
    {n.id for n in ast.walk(ast.parse(test)) if isinstance(n, ast.Name)}
    for test in row['test_list']
  ]
  both = [name for name in made if all(name in names for names in used)]
  return both[-1] if both else ''


SETS = {
  'humaneval': ('HumanEval.jsonl.gz', human_eval, 'task_id'),
  'humaneval_plus': ('HumanEvalPlus-OriginFmt.jsonl.gz', human_eval, 'task_id'),
  'mbpp': ('mbpp.jsonl', mbpp, 'task_id'),
  'mbpp_plus': ('MbppPlus-OriginFmt.jsonl.gz', mbpp_plus, 'task_id'),
}


def problems(name: str) -> dict[str, tuple[str, Tests]]:
  """Returns {id: (reference, tests)} of a published set."""
  file, convert, key = SETS[name]
  rows = read(folder() / name / file)
  return {f'{name} {row[key]}': convert(row) for row in rows}
