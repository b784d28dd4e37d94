"""Attempts are graded here or in other processes, and nothing is lost."""

import dataclasses
import os
import time

import pytest

from score_jax import grading
from score_jax.config import ConfigError
from score_jax.graders import sandbox
from score_jax.problem import Outcome, Problem, Verdict

PROBLEMS = [Problem(f'p{i}', '', str(i), str(i)) for i in range(4)]
LIMITS = grading.Limits(
  workers=2, seconds=1.0, memory_mb=512, allow_unprotected=False
)
THIS = 'test_grading'  # Its folder is on the path of pytest's processes.


@dataclasses.dataclass(frozen=True)
class Task:
  """What a grader has to know of a task."""

  grader: str
  isolated: bool
  name: str = 'numbers'
  seconds: float = 9.0
  memory_mb: int = 256


def same(problem, text):
  """The grader of these tests."""
  if text == 'hang':
    time.sleep(60)
  if text == 'raise':
    raise KeyError('no such luck')
  right = text == problem.answer
  return Verdict(Outcome.RIGHT if right else Outcome.WRONG, text)


@pytest.fixture(autouse=True)
def findable(monkeypatch):
  """Lets the processes that grade import this file."""
  here = os.path.dirname(__file__)
  monkeypatch.setenv(
    'PYTHONPATH', os.pathsep.join([here, os.environ.get('PYTHONPATH', '')])
  )


TEXTS = ['0', 'raise', '3', '3']
EXPECTED = [
  Verdict(Outcome.RIGHT, '0'),
  Verdict(Outcome.ERROR, ''),
  Verdict(Outcome.WRONG, '3'),
  Verdict(Outcome.RIGHT, '3'),
]


@pytest.mark.parametrize('isolated', [False, True])
def test_verdicts_come_in_order_and_a_fault_costs_one_answer(isolated):
  task = Task(f'{THIS}:same', isolated)
  with grading.open_grader(task, LIMITS) as grader:
    assert grader.grade(PROBLEMS, TEXTS) == EXPECTED
    assert 'no such luck' in grader.complaints()[0]


def test_what_is_started_is_graded_while_the_caller_goes_on():
  task = Task(f'{THIS}:same', isolated=True)
  with grading.open_grader(task, LIMITS) as grader:
    started = time.monotonic()
    hanging = grader.start(PROBLEMS[:1], ['hang'])
    later = grader.start(PROBLEMS, TEXTS)
    assert time.monotonic() - started < LIMITS.seconds / 2
    assert later() == EXPECTED
    assert hanging() == [Verdict(Outcome.TIMEOUT, '')]


@pytest.mark.parametrize(
  ('grader', 'message'),
  [('nowhere:grade', 'nowhere'), (f'{THIS}:sane', 'did you mean same')],
)
def test_a_grader_that_is_not_there_is_refused_by_name(grader, message):
  with (
    pytest.raises(ConfigError, match=message),
    grading.open_grader(Task(grader, isolated=True), LIMITS),
  ):
    pass


def test_a_task_whose_references_fail_is_refused_with_the_first_of_them():
  task = Task(f'{THIS}:same', isolated=False)
  with grading.open_grader(task, LIMITS) as grader:
    grading.check_references(task, grader, PROBLEMS)
    bad = [dataclasses.replace(p, reference='1') for p in PROBLEMS]
    with pytest.raises(ConfigError, match='problem p0 wrong, one of 3 in 4'):
      grading.check_references(task, grader, bad)
    bad = [dataclasses.replace(p, reference='raise') for p in PROBLEMS]
    with pytest.raises(ConfigError, match=r'p0 error.*no such luck'):
      grading.check_references(task, grader, bad)


def test_a_reference_that_runs_out_of_time_is_told_from_one_that_fails():
  task = Task(f'{THIS}:same', isolated=True)
  slow = [dataclasses.replace(PROBLEMS[0], reference='hang')]
  with (
    grading.open_grader(task, LIMITS) as grader,
    pytest.raises(ConfigError, match=r'p0 timeout.*more grading\.seconds'),
  ):
    grading.check_references(task, grader, slow)


def test_a_task_says_what_it_needs_where_no_limit_is_set():
  task = Task(f'{THIS}:same', isolated=True)
  unset = dataclasses.replace(LIMITS, seconds=0.0, memory_mb=0)
  assert (unset.of(task).seconds, unset.of(task).memory_mb) == (9.0, 256)
  assert LIMITS.of(task) == LIMITS
  with grading.open_grader(task, unset) as grader:
    assert grader.grade(PROBLEMS, TEXTS) == EXPECTED


def test_programs_are_not_run_where_a_protection_is_missing(monkeypatch):
  def refuse(allowed):
    if not allowed:
      raise sandbox.SandboxError('no network namespace')

  monkeypatch.setattr(sandbox, 'check_protections', refuse)
  task = Task(grading.CODE, isolated=True)
  with (
    pytest.raises(ConfigError, match='no network namespace'),
    grading.open_grader(task, LIMITS),
  ):
    pass
  allowed = dataclasses.replace(LIMITS, allow_unprotected=True)
  with grading.open_grader(task, allowed):
    pass
