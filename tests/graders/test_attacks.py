"""Programs of many kinds get the verdict that they deserve, and leave nothing."""

import json
import os
import pathlib
import subprocess
import sys
import time

import attacks
import odd
import pytest

from score_jax.graders import calls, code, sandbox, supervise

needs_bubblewrap = pytest.mark.skipif(
  not sandbox.caged(), reason='bubblewrap is not installed, or cannot start'
)


def judged(source, tests, seconds=20.0, memory_mb=512):
  """Returns whether all tests passed, and the report."""
  asked = code.decode_tests(code.encode_tests(tests=tests))
  limits = sandbox.Limits(seconds=seconds, memory_mb=memory_mb)
  report = code.judge(source, asked, limits)
  return code.passes(report, asked), report


def plain(programs):
  """Returns the verdicts of plain Python, by name."""
  path = pathlib.Path(__file__).with_name('plain.py')
  done = subprocess.run(
    [sys.executable, path],
    input=json.dumps([pair[:2] for pair in programs.values()]),
    capture_output=True,
    text=True,
    check=True,
  )
  return dict(zip(programs, json.loads(done.stdout), strict=True))


def ours(programs):
  return {name: judged(*pair)[0] for name, pair in programs.items()}


def test_what_shares_more_than_data_with_its_tests_is_judged_as_by_python():
  assert ours(odd.TOGETHER) == plain(odd.TOGETHER)


@pytest.mark.long
def test_every_other_odd_program_is_judged_as_by_python():
  assert ours(odd.ALONE) == plain(odd.ALONE)


@pytest.mark.parametrize('name', attacks.LIES)
def test_no_value_is_believed_what_it_says_of_itself(name):
  passed, report = judged(*attacks.LIES[name])
  assert (passed, report.passed) == (False, 0)
  assert report.finished


@pytest.mark.parametrize('name', attacks.FORGERIES)
def test_no_message_or_trick_makes_a_verdict(name):
  passed, report = judged(*attacks.FORGERIES[name], seconds=3.0)
  assert not passed
  assert report.seconds < 10


@pytest.mark.long
@pytest.mark.parametrize('name', attacks.SOURCES)
def test_a_source_that_hurts_its_reader_is_wrong(name):
  passed, report = judged(*attacks.SOURCES[name], seconds=3.0)
  assert not passed
  assert report.seconds < 10


QUICK = (
  'memory in files without a name',
  'memory shared and let go',
  'files without number',
  'errors without an end',
)


@needs_bubblewrap
@pytest.mark.parametrize(
  'name',
  [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.long)
    for name in attacks.HOGS
  ],
)
def test_a_hog_is_ended_and_leaves_nothing(name):
  source = attacks.HOGS[name] + '\nadd = lambda a, b: 0\n'
  shared = pathlib.Path('/proc/sysvipc/shm').read_text()
  before = supervise.descendants(os.getpid())  # Other tests may leave servers.
  start = time.monotonic()
  passed, report = judged(source, attacks.SUM, seconds=1.5, memory_mb=300)
  assert not passed
  assert time.monotonic() - start < 10
  assert report.peak_mb < 1200  # Seen a tenth of a second too late at most.
  assert supervise.descendants(os.getpid()) == before
  assert pathlib.Path('/proc/sysvipc/shm').read_text() == shared


@needs_bubblewrap
@pytest.mark.parametrize('name', attacks.ESCAPES)
def test_an_escape_fails_and_the_program_goes_on(name):
  source = attacks.ESCAPES[name] + '\nadd = lambda a, b: a + b\n'
  passed, report = judged(source, attacks.SUM)
  assert (passed, report.output) == (True, '')


def test_of_many_files_few_are_allowed():
  source = 'for i in range(2000): open(str(i), "w").close()\nadd = int\n'
  passed, _ = judged(source, ('assert add("5") == 5',))
  assert passed


@pytest.mark.parametrize('machine', ['x86_64', 'aarch64'])
def test_the_filter_of_calls_refuses_what_it_should_and_nothing_else(machine):
  """By running its instructions, as the kernel does."""
  code_, clone, clone3, socket = calls._MACHINES[machine]
  column = list(calls._MACHINES).index(machine)
  run = Filter(calls.program(machine), code_)
  forbidden = {numbers[column] for numbers in calls.FORBIDDEN.values()}
  for number in set(range(470)) - {clone, clone3, socket}:
    expected = 'EPERM' if number in forbidden else 'allow'
    assert run(number) == expected, number
  assert run(clone, 0x11) == run(clone, 0x3D0F00) == 'allow'
  assert run(clone, 0x10000011) == 'EPERM'
  assert run(clone3) == 'ENOSYS'
  for family in range(46):
    expected = 'allow' if family in (1, 2, 10, 16) else 'EPERM'
    assert run(socket, family) == expected
  assert run(0, machine=0x40000003) == 'EPERM'  # A call as of 32 bits.
  assert run(0x40000000 + 41, 1) == 'EPERM'


class Filter:
  """Classic BPF, as far as the filter uses it."""

  def __init__(self, data, machine):
    self.lines = [
      (int.from_bytes(data[i : i + 2], 'little'), data[i + 2], data[i + 3],
       int.from_bytes(data[i + 4 : i + 8], 'little'))
      for i in range(0, len(data), 8)
    ]  # fmt: skip
    self.machine = machine

  def __call__(self, number, argument=0, machine=None):
    memory = {0: number, 4: machine or self.machine, 16: argument}
    place = loaded = 0
    while True:
      instruction, yes, no, operand = self.lines[place]
      place += 1
      if instruction == 0x20:
        loaded = memory[operand]
      elif instruction == 0x06:
        names = {0x7FFF0000: 'allow', 0x50001: 'EPERM', 0x50026: 'ENOSYS'}
        return names[operand]
      else:
        holds = {
          0x15: loaded == operand,
          0x35: loaded >= operand,
          0x45: loaded & operand,
        }[instruction]
        place += yes if holds else no
