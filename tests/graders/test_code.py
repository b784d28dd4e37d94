"""A right program passes, and no other, whatever it tries."""

import functools
import json
import os
import random
import time

import hostile
import published
import pytest

from score_jax.graders import code, instrument, mutate, sandbox, supervise
from score_jax.problem import Outcome, Problem
from score_jax.tasks import catalogue

SECONDS = 20.0  # For what ends by itself, on a busy machine.
SETTINGS = {'memory_mb': 512, 'allow_unprotected': True}
needs_data = pytest.mark.skipif(
  published.folder() is None,
  reason='neither $SCORE_DATA_DIR nor ../shared/data is there',
)


def grade(text, tests, seconds=SECONDS, **more):
  answer = code.encode_tests(tests=tests, **more)
  problem = Problem('p', 'prompt', answer, 'reference')
  return code.grade(problem, text, seconds=seconds, **SETTINGS)


@pytest.mark.parametrize('name', hostile.HONEST)
def test_an_honest_program_passes(name):
  source, tests = hostile.HONEST[name]
  entry = 'sum' if 'sum(2' in tests[0] else ''
  assert grade(source, tests, entry=entry).outcome == Outcome.RIGHT


@pytest.mark.parametrize('name', hostile.WRONG)
def test_no_test_is_passed_by_a_trick(name):
  source, tests = hostile.WRONG[name]
  verdict = grade(source, tests, seconds=3.0)
  assert verdict.outcome != Outcome.RIGHT
  assert verdict.share < 1


@pytest.mark.parametrize('name', hostile.HOGS)
def test_a_program_that_does_not_end_is_ended(name):
  start = time.monotonic()
  source = hostile.HOGS[name] + 'add = lambda a, b: 0\n'
  verdict = grade(source, hostile.SUM, seconds=1.0)
  assert verdict.outcome in (Outcome.TIMEOUT, Outcome.WRONG)
  assert time.monotonic() - start < 15


def test_the_share_is_that_of_the_tests_passed():
  source = 'def add(a, b):\n  return 5\n'
  tests = [
    'assert add(2, 3) == 5',
    'assert add(1, 1) == 2',
    'assert add(4, 1) == 5',
  ]
  verdict = grade(source, tests)
  assert (verdict.outcome, verdict.share) == (Outcome.WRONG, 2 / 3)
  assert verdict.answer == source.strip()


def test_a_time_out_is_told_from_a_wrong_answer():
  slow = 'def add(a, b):\n  while a > 5: pass\n  return a + b\n'
  verdict = grade(slow, hostile.SUM, seconds=1.0)
  assert (verdict.outcome, verdict.share) == (Outcome.TIMEOUT, 1 / 2)


def test_a_program_may_compute_for_half_of_its_time(monkeypatch):
  seen = []

  def run(program, before, tests, entry, limits, *, caged):
    seen.append(limits)
    return supervise.run(program, before, tests, entry, limits, caged=caged)

  monkeypatch.setattr(sandbox, 'run', run)
  assert grade('add = max', hostile.SUM, seconds=8.0).outcome == Outcome.WRONG
  assert (seen[0].seconds, seen[0].cpu_seconds) == (8.0, 4.0)


def test_a_text_without_a_program_is_unparsed():
  assert grade(' \n', hostile.SUM).outcome == Outcome.UNPARSED
  assert grade('```python\n\n```', hostile.SUM).outcome == Outcome.UNPARSED


def test_helpers_of_the_prompt_are_there_for_both_and_are_the_tests_own():
  """As HumanEval/32: its test calls `poly`, which the prompt defines."""
  before = (
    'from typing import List\ndef poly(xs: List, x):\n  return xs[0] + x\n'
    'def root(xs):\n  """Finds a root."""\n'
  )
  tests = ['def check(f):\n  assert poly([3], f([3])) == 0\ncheck(root)']
  right = 'def root(xs: List):\n  return -poly(xs, 0)\n'
  wrong = 'def poly(xs, x):\n  return 0\ndef root(xs):\n  return 1\n'
  of = functools.partial(grade, tests=tests, before=before, entry='root')
  assert of(right).outcome == Outcome.RIGHT
  assert of(wrong).outcome == Outcome.WRONG
  assert of('def other(xs):\n  return -xs[0]\n').outcome == Outcome.WRONG


def test_setup_uses_classes_of_the_program():
  """As MBPP 367 and 927."""
  source = """
class Node:
  def __init__(self, value):
    self.value = value
    self.left = None
def depth(node):
  return 1 + depth(node.left) if node else 0
"""
  setup = 'root = Node(1)\nroot.left = Node(2)\nroot.left.left = Node(3)'
  verdict = grade(source, ['assert depth(root) == 3'], setup=setup)
  assert verdict.outcome == Outcome.RIGHT


def test_a_problem_without_tests_is_refused():
  with pytest.raises(ValueError, match='at least one test'):
    code.encode_tests(tests=[])


def test_tests_survive_encoding():
  fields = {'before': 'b', 'setup': 's', 'tests': ['1', '2'], 'entry': 'e'}
  encoded = code.encode_tests(**fields)
  assert json.loads(encoded) == fields
  assert code.decode_tests(encoded) == code.Tests('b', 's', ('1', '2'), 'e')


CODE = 'def f():\n  return 1'
TEXTS = {
  'bare': (CODE, CODE),
  'fenced': (f'Here:\n```python\n{CODE}\n```\nDone.', CODE),
  'of two, the last': (f'```\nx\n```\nBetter:\n```py\n{CODE}\n```', CODE),
  'a blank last one does not count': (f'```\n{CODE}\n```\n```\n\n```', CODE),
  'cut off': (f'Sure.\n```python\n{CODE}', CODE),
  'a cut-off one does not count': (f'```\n{CODE}\n```\n```python\nx =', CODE),
  'begun within a fence': (f'{CODE}\n```\nThis returns 1.', CODE),
  'begun within, others follow': (f'{CODE}\n```\nUse:\n```\nf()\n```', CODE),
  'tildes': (f'~~~\n{CODE}\n~~~', CODE),
  'longer fences': (f'````\n{CODE}\n```\n````', f'{CODE}\n```'),
  'indented': (
    '1. Do:\n   ```python\n   a = 1\n   b = 2\n   ```',
    'a = 1\nb = 2',
  ),
  'returns of a typewriter': ('```python\r\na = 1\r\n```\r\n', 'a = 1'),
  'ticks within a line': (f'```f``` is:\n```\n{CODE}\n```', CODE),
  'prose': ('I cannot do it.', 'I cannot do it.'),
  'nothing': ('', ''),
}


@pytest.mark.parametrize('name', TEXTS)
def test_the_program_is_found_in_a_text(name):
  text, program = TEXTS[name]
  assert code.program_of(text) == program


@pytest.mark.parametrize(
  'piece',
  ['```\n', '```python\n', '``` ', '`', ' ', '\t`', '~~~\n``` x\n', '\n', '\0'],
)
def test_finding_a_program_takes_linear_time(piece):
  """10 MB in a second or two; what is quadratic would take hours."""
  start = time.monotonic()
  code.program_of(piece * (10_000_000 // len(piece)))
  assert time.monotonic() - start < 20


@pytest.mark.parametrize(
  'text', ['\0', '\ud800', '```\n\0\n```', '\ufeff1 +', '(' * 9999]
)
def test_odd_texts_are_wrong_and_no_error(text):
  assert grade(text, hostile.SUM).outcome == Outcome.WRONG


SOURCE = """
def largest(xs, low=0):
  best = low
  for x in xs:
    if x > best and x % 2 == 0:
      best = max(best, x)
  return best
"""
LARGEST = code.Tests('', '', ('assert largest([2, 8, 5, 9]) == 8',), 'largest')


def test_wrong_programs_are_other_programs_and_always_the_same():
  programs = mutate.wrong_programs(SOURCE, 1, 12)
  assert len(set(programs)) == 12
  assert programs == mutate.wrong_programs(SOURCE, 1, 12)
  assert programs != mutate.wrong_programs(SOURCE, 2, 12)
  for program in programs:
    compile(program, 'program', 'exec')


def test_only_programs_that_run_and_fail_a_test_are_kept():
  runs = 'def largest(xs):\n  return 0\n'
  others = [SOURCE, 'def largest(xs', '1 / 0', runs, 'while True: pass']
  limits = sandbox.Limits(seconds=1.0, memory_mb=512)
  assert mutate.failing(others, LARGEST, limits) == [runs]


def test_mutations_of_a_short_program_run_and_fail():
  programs = mutate.wrong_programs(SOURCE, 0, 6)
  limits = sandbox.Limits(seconds=2.0, memory_mb=512)
  assert len(mutate.failing(programs, LARGEST, limits)) >= 3


def judged(name, chosen):
  tests, recipe = chosen[1], catalogue.RECIPES[name.split()[0]]
  # At least a minute, for a busy machine.
  limits = sandbox.Limits(max(60.0, recipe.seconds), recipe.memory_mb)
  return code.passes(code.judge(chosen[0], tests, limits), tests), name


def nothing(chosen):
  """Returns functions of the same names that give None."""
  names = {chosen[1].entry, *instrument.defined(chosen[0])} - {''}
  return '\n'.join(f'def {n}(*a, **k):\n  return None' for n in names)


@needs_data
@pytest.mark.parametrize('name', published.SETS)
def test_a_sample_of_published_references_passes_and_none_fails(name):
  problems = published.problems(name)
  for one in random.Random(0).sample(sorted(problems), 8):
    if one in published.BROKEN:
      continue
    source, tests = problems[one]
    assert judged(one, (source, tests)) == (True, one)
    assert judged(one, (nothing((source, tests)), tests)) == (False, one)


@needs_data
@pytest.mark.slow
@pytest.mark.skipif(
  not os.environ.get('SCORE_ALL_PROGRAMS'),
  reason='runs 3,358 programs, a quarter of an hour; SCORE_ALL_PROGRAMS=1 does',
)
@pytest.mark.parametrize('name', published.SETS)
def test_all_published_references_pass_and_no_none_does(name):
  for one, chosen in published.problems(name).items():
    if one not in published.BROKEN:
      assert judged(one, chosen) == (True, one)
      assert judged(one, (nothing(chosen), chosen[1])) == (False, one)
