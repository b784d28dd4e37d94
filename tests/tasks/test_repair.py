"""Programs to repair: wrong by their tests, the same every time."""

import dataclasses

import pytest

from score_jax.config import ConfigError
from score_jax.graders import sandbox
from score_jax.problem import Problem
from score_jax.tasks import programs, published, repair, wording


@pytest.fixture(scope='module')
def mbpp(ours):
  return published.read(programs.MBPP, *published.find(programs.MBPP, ours))[0]


def _exec(problem, response):
  """Returns whether a program passes; ours are harmless, and so is a slip."""
  tests = repair.code.decode_tests(problem.answer)
  names = {}
  exec(wording.source_of(response), names)
  try:
    for text in (tests.setup, *tests.tests):
      exec(text, names)
  except Exception:
    return False
  return True


def test_every_attempt_is_wrong_and_every_reference_is_right(mbpp):
  for problem in mbpp['train']:
    found = repair.mistakes(problem)
    assert len(found) <= repair.EACH
    assert len(set(found)) == len(found)
    assert _exec(problem, problem.reference)
    for program in found:
      assert not _exec(problem, wording.program(program))
    assert repair.mistakes(problem) == found
  assert any(repair.mistakes(problem) for problem in mbpp['train'])


def test_each_wrong_program_makes_a_problem_of_its_own(mbpp):
  found = repair.to_repair(
    mbpp, lambda p: ['x', 'y'] if p.id.endswith('1') else []
  )
  # Of train only 601, of test only 11, of validation only 511 end in 1.
  assert {split: [p.id for p in part] for split, part in found.items()} == {
    'test': ['Mbpp/11/wrong-1', 'Mbpp/11/wrong-2'],
    'validation': ['Mbpp/511/wrong-1', 'Mbpp/511/wrong-2'],
    'train': ['Mbpp/601/wrong-1', 'Mbpp/601/wrong-2'],
  }
  first, second = found['train']
  assert (first.attempt, second.attempt) == (
    '```python\nx\n```',
    '```python\ny\n```',
  )
  assert (
    dataclasses.replace(first, id='Mbpp/601', attempt='') == (mbpp['train'][0])
  )


def test_where_programs_cannot_be_run_the_data_cannot_be_prepared():
  def find(problem):
    raise sandbox.SandboxError('nothing works')

  problem = Problem('a', '', '', '')
  with pytest.raises(ConfigError, match='to prepare its data: nothing works'):
    repair.to_repair({'train': [problem]}, find)
