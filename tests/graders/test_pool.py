"""Whatever a grader does costs one answer, and leaves no process behind."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from score_jax.graders.pool import GraderError, Pool
from score_jax.problem import Outcome, Problem, Verdict

SECONDS = 2.0
# A grader that does what the text says.
GRADER = """
import ctypes, os, subprocess, sys, time
from score_jax.problem import Outcome, Verdict

def grade(problem, text, name='', expected='x'):
  if text == 'hang':
    time.sleep(600)
  if text == 'hang in one operation':
    7 ** 10 ** 9
  if text == 'hang with children':
    for session in (False, True):
      subprocess.Popen(['sleep', name], start_new_session=session)
    time.sleep(600)
  if text == 'exit':
    os._exit(3)
  if text == 'SystemExit':
    sys.exit('gone')
  if text == 'segfault':
    ctypes.string_at(0)
  if text == 'eat memory':
    everything = bytearray(1 << 32)
  if text == 'print':
    print('{"verdict": [1, "", null]}', flush=True)
    os.write(1, b'noise')
    os.write(2, b'noise')
    assert not sys.stdin.read()
  while text == 'print forever':
    print('noise' * 1000)
  if text == 'raise':
    raise ArithmeticError('two and two')
  if text.startswith('raise '):
    raise ArithmeticError(text)
  if text == 'junk':
    return 'yes'
  if text == 'false verdict':
    return Verdict('right', text)
  if text == 'count':
    open(name, 'a').write('called.')
  if text == 'slow':
    time.sleep(0.2)
  if text == 'bool':
    return True
  if text == 'share':
    return Verdict(Outcome.WRONG, text, 0.25)
  right = problem.answer == text
  return Verdict(Outcome.RIGHT if right else Outcome.WRONG, text)
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """The current directory, with a user's grader in it."""
  path = tmp_path_factory.mktemp('folder')
  (path / 'mine.py').write_text(GRADER)
  (path / 'raises.py').write_text('1 / 0')
  (path / 'needs.py').write_text('import no_such_library')
  before = os.getcwd()
  os.chdir(path)
  yield path
  os.chdir(before)


@pytest.fixture(scope='module')
def name(folder):
  """A number of seconds, by which sleeping processes are known as ours."""
  return str(100_000 + os.getpid()) + '.25'


@pytest.fixture(scope='module')
def pool(folder, name):
  with Pool('mine:grade', {'name': name}, 2, SECONDS, 1024) as shared:
    yield shared


def problem(number, answer='x'):
  return Problem(str(number), '', answer, '')


def grade(pool, *texts):
  problems = [problem(number) for number in range(len(texts))]
  return pool.start(problems, texts).result()


def outcomes(pool, *texts):
  return [verdict.outcome for verdict in grade(pool, *texts)]


def alive(*words):
  """Returns the command lines of all processes that hold these words."""
  found = []
  for path in pathlib.Path('/proc').glob('[0-9]*/cmdline'):
    try:
      line = path.read_bytes().decode().split('\0')
    except OSError:
      continue
    if set(words) <= set(line):
      found.append(line)
  return found


def wait_until(claim):
  deadline = time.monotonic() + 10
  while not claim():
    assert time.monotonic() < deadline
    time.sleep(0.02)


def test_verdicts_come_in_the_order_of_the_texts(pool):
  texts = [str(i % 7) for i in range(500)]
  texts[::50] = ['slow'] * 10  # The answers behind these come before them.
  problems = [problem(i, str(i % 3)) for i in range(500)]
  verdicts = pool.start(problems, texts).result()
  assert [verdict.answer for verdict in verdicts] == texts
  expected = [p.answer == t for p, t in zip(problems, texts, strict=True)]
  assert [v.outcome == Outcome.RIGHT for v in verdicts] == expected


def test_start_returns_before_the_answers_are_graded(pool):
  before = time.monotonic()
  first = pool.start([problem(i) for i in range(4)], ['slow'] * 4)
  second = pool.start([problem(0)], ['x'])
  assert time.monotonic() - before < 0.2
  assert second.result() == [Verdict(Outcome.RIGHT, 'x')]
  assert [v.answer for v in first.result()] == ['slow'] * 4


def test_two_processes_grade_at_the_same_time(pool):
  before = time.monotonic()
  grade(pool, *['slow'] * 8)
  assert time.monotonic() - before < 8 * 0.2 * 0.75


def test_nothing_to_grade_gives_no_verdicts(pool):
  assert pool.start([], []).result() == []


def test_as_many_problems_as_texts_are_needed(pool):
  with pytest.raises(ValueError, match='longer'):
    pool.start([problem(0)], ['x', 'x'])


def test_equal_texts_for_a_problem_are_graded_once(folder):
  with Pool('mine:grade', {'name': 'calls'}, 2, SECONDS, None) as pool:
    problems = [problem(i % 3) for i in range(12)]
    verdicts = pool.start(problems, ['count'] * 12).result()
  assert verdicts == [Verdict(Outcome.WRONG, 'count')] * 12
  assert (folder / 'calls').read_text() == 'called.' * 3


@pytest.mark.parametrize('text', ['\0', 'é𝒳', '\ud800', 'y' * 10**7])
def test_any_text_comes_back_as_it_went(pool, text):
  assert grade(pool, text) == [Verdict(Outcome.WRONG, text)]


def test_a_share_of_tests_passed_comes_back(pool):
  assert grade(pool, 'share') == [Verdict(Outcome.WRONG, 'share', 0.25)]


def test_true_stands_for_right_with_the_text_as_answer(pool):
  assert grade(pool, 'bool') == [Verdict(Outcome.RIGHT, 'bool')]


@pytest.mark.parametrize(
  'text', ['hang', 'hang in one operation', 'print forever']
)
def test_what_takes_too_long_is_ended_and_replaced(pool, text):
  before = time.monotonic()
  assert grade(pool, text) == [Verdict(Outcome.TIMEOUT, '')]
  assert SECONDS <= time.monotonic() - before < SECONDS + 2
  assert outcomes(pool, 'x', 'x', 'x') == [Outcome.RIGHT] * 3


def test_what_hangs_is_ended_with_all_that_it_started(pool, name):
  pending = pool.start([problem(0)], ['hang with children'])
  wait_until(lambda: len(alive('sleep', name)) == 2)
  assert pending.result() == [Verdict(Outcome.TIMEOUT, '')]
  wait_until(lambda: not alive('sleep', name))


FAULTS = {
  'exit': 'status 3',
  'SystemExit': 'SystemExit: gone (mine.py:',
  'segfault': f'signal {signal.SIGSEGV:d}',
  'eat memory': 'MemoryError',
  'raise': 'ArithmeticError: two and two (mine.py:',
  'junk': 'returned a str',
  'false verdict': 'must return a Verdict',
}


@pytest.mark.parametrize('text', FAULTS)
def test_what_fails_costs_one_answer_and_tells_why(folder, text):
  with Pool('mine:grade', {}, 1, SECONDS, 1024) as pool:
    right, failed, after = grade(pool, 'x', text, 'x')
    assert failed == Verdict(Outcome.ERROR, '')
    assert right == after == Verdict(Outcome.RIGHT, 'x')
    (complaint,) = pool.complaints()
  assert complaint.startswith('mine:grade: ')
  assert FAULTS[text] in complaint


def test_what_a_grader_prints_or_reads_changes_nothing(pool):
  assert outcomes(pool, 'print', 'x') == [Outcome.WRONG, Outcome.RIGHT]


def test_different_complaints_are_kept_and_only_a_few(folder):
  with Pool('mine:grade', {}, 1, SECONDS, None) as pool:
    assert pool.complaints() == []
    grade(pool, 'raise', 'raise', *(f'raise {i}' for i in range(20)))
    complaints = pool.complaints()
  assert len(complaints) == len(set(complaints)) == 5
  assert 'raise 3' in complaints[-1]


REFUSED = {
  'mine': "must be 'module:function'",
  'mine:': "must be 'module:function'",
  'mine:grad': "no function 'grad' (did you mean grade?)",
  'mine:FAULT': "no function 'FAULT'",
  'mime:grade': "no module 'mime'.*(did you mean mine?)",
  'score_jax.graders.exakt:whole_number': '(did you mean exact?)',
  'needs:grade': "not there: No module named 'no_such_library'",
  'raises:grade': 'ZeroDivisionError: division by zero (raises.py:1)',
}


@pytest.mark.parametrize('grader', REFUSED)
def test_a_grader_that_is_not_there_is_refused(folder, grader):
  with pytest.raises(GraderError) as refused:
    Pool(grader, {}, 1, SECONDS, None)
  assert f'{grader!r}' in str(refused.value)
  for part in REFUSED[grader].split('.*'):
    assert part in str(refused.value)


def test_a_keyword_that_the_grader_does_not_take_is_refused(folder):
  with pytest.raises(GraderError, match='secnods'):
    Pool('mine:grade', {'secnods': 1}, 1, SECONDS, None)


def test_a_closed_pool_leaves_no_process_and_no_one_waiting(folder, name):
  mark = name + '5'
  pool = Pool('mine:grade', {'name': mark}, 2, 60.0, None)
  pending = pool.start(
    [problem(i) for i in range(9)], ['hang with children'] * 9
  )
  wait_until(lambda: len(alive('sleep', mark)) == 4)
  before = time.monotonic()
  pool.close()
  assert pending.result() == [Verdict(Outcome.ERROR, '')] * 9
  assert time.monotonic() - before < 2
  wait_until(lambda: not alive('sleep', mark))
  with pytest.raises(RuntimeError, match='closed'):
    pool.start([], [])


PARENT = """
import time
from score_jax.graders.pool import Pool
from score_jax.problem import Problem
problems = [Problem(str(i), '', '', '') for i in range(3)]
texts = ['hang with children', 'hang in one operation', 'x']
with Pool('mine:grade', {{'name': '{mark}'}}, 3, 600.0, None) as pool:
  pending = pool.start(problems, texts)
  time.sleep(600)
"""


@pytest.mark.parametrize('how', [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_parent_leaves_no_process(folder, name, how):
  mark = f'{name}{how:d}'
  environment = os.environ | {
    'PYTHONPATH': str(pathlib.Path(__file__).parents[2]),
    'SCORE_TEST_MARK': mark,  # Whoever was started below has it, too.
  }
  parent = subprocess.Popen(
    [sys.executable, '-c', PARENT.format(mark=mark)], env=environment
  )
  wait_until(lambda: len(alive('sleep', mark)) == 2)
  # Two sleepers, three workers, the guard and the parent.
  wait_until(lambda: len(with_mark(mark)) == 7)
  parent.send_signal(how)
  parent.wait()
  wait_until(lambda: not with_mark(mark))


def with_mark(mark):
  found = []
  for path in pathlib.Path('/proc').glob('[0-9]*/environ'):
    try:
      if f'SCORE_TEST_MARK={mark}' in path.read_bytes().decode().split('\0'):
        found.append(path)
    except OSError:
      continue
  return found


def test_a_worker_loads_neither_jax_nor_settings():
  code = 'import score_jax.graders.worker, sys; import json; print(json.dumps([*sys.modules]))'
  loaded = subprocess.run(
    [sys.executable, '-c', code],
    cwd=pathlib.Path(__file__).parents[2],
    capture_output=True,
    text=True,
    check=True,
  )
  assert '"score_jax.problem"' in loaded.stdout
  assert not {'jax', 'numpy', 'ml_collections'} & set(json.loads(loaded.stdout))
