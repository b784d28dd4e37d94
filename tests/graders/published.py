"""The published problems whose references our graders have to accept."""

import ast
import gzip
import json
import os
import pathlib

from score_jax.graders.code import Tests
from score_jax.graders.instrument import defined, parsed

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
  data = path.read_bytes()
  text = gzip.decompress(data) if path.suffix == '.gz' else data
  return [json.loads(line) for line in text.splitlines()]


def human_eval(row: dict) -> tuple[str, Tests]:
  entry = row['entry_point']
  test = f'{row["test"]}\ncheck({entry})\n'
  tests = Tests(row['prompt'], '', (test,), entry)
  return row['prompt'] + row['canonical_solution'], tests


def mbpp(row: dict) -> tuple[str, Tests]:
  asserts = (*row['test_list'], *row['challenge_test_list'])
  return row['code'], Tests('', row['test_setup_code'], asserts, _entry(row))


def mbpp_plus(row: dict) -> tuple[str, Tests]:
  # MBPP's own tests, too: the longer ones of 737, 787 and 794 assert nothing.
  tests = (*row['test_list'], row['test'])
  imports = '\n'.join(row['test_imports'])
  return row['code'], Tests('', imports, tests, _entry(row))


def _entry(row: dict) -> str:
  """Returns the last name that the reference defines and all tests use."""
  used = [
    {n.id for n in ast.walk(parsed(test)) if isinstance(n, ast.Name)}
    for test in row['test_list']
  ]
  made = [n for n in defined(row['code']) if all(n in names for names in used)]
  return made[-1] if made else ''


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
