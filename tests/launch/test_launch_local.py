"""Processes of this machine start together, and end together."""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import time

import pytest

from launch import local as local_lib

SCRIPTS = {
  'told': """
import os
print(*(os.environ.get(f'SCORE_{n}') for n in
  ('COORDINATOR', 'PROCESSES', 'PROCESS', 'STOPPED_CODE')))
print(os.environ.get('JAX_PLATFORMS'), os.environ.get('XLA_FLAGS'))
""",
  # Process 1 dies of a signal; the other never ends, whoever asks.
  'dies': """
import os, signal, time
if os.environ['SCORE_PROCESS'] == '1':
  time.sleep(0.3)
  os.kill(os.getpid(), signal.SIGSEGV)
signal.signal(signal.SIGTERM, lambda *_: print('asked', flush=True))
while True:
  time.sleep(1)
""",
  # Process 0 is done; the other hangs, with a child of its own.
  'hangs': """
import os, signal, subprocess, time
if os.environ['SCORE_PROCESS'] == '1':
  child = subprocess.Popen(['sleep', '1000'])
  print('child', child.pid, flush=True)
  signal.signal(signal.SIGTERM, signal.SIG_IGN)
  time.sleep(1000)
time.sleep(0.5)
""",
  'saves': """
import os, signal, sys, time
def stop(number, frame):
  print('saving after', signal.Signals(number).name, flush=True)
  sys.exit(int(os.environ['SCORE_STOPPED_CODE']))
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
print('pid', os.getpid(), flush=True)
time.sleep(1000)
""",
  'notes': """
import os, pathlib, signal, sys, time
def stop(number, frame):
  print('saving', flush=True)
  pathlib.Path('saved' + os.environ['SCORE_PROCESS']).touch()
  sys.exit(75)
signal.signal(signal.SIGTERM, stop)
print('ready', flush=True)
time.sleep(1000)
""",
  'shows': r"""
import sys
print('one')
sys.stderr.write('bar 1\rbar 2\rbar 3\n')
sys.stdout.write('without an end')
""",
}


@pytest.fixture
def local(launches):
  """Returns a function that starts a script on two processes."""

  def start(script, *settings, behind=()):
    (launches.root / f'{script}.py').write_text(SCRIPTS[script])
    return launches.start(
      '--target=local',
      f'--module={script}',
      '--processes=2',
      *settings,
      '--',
      *behind,
    )

  return start


def _ended(process):
  """Returns exit code, lines and what the launcher said, of a launch."""
  said, errors = process.communicate(timeout=30)
  return process.returncode, sorted(said.splitlines()), errors


def test_each_process_is_told_where_they_meet_and_which_it_is(local):
  code, lines, _ = _ended(local('told', '--port=4321', '--devices=3'))
  devices = 'cpu --xla_force_host_platform_device_count=3'
  assert code == 0
  assert lines == [
    '[0] 127.0.0.1:4321 2 0 75',
    f'[0] {devices}',
    '[1] 127.0.0.1:4321 2 1 75',
    f'[1] {devices}',
  ]


def test_a_port_is_found_where_none_is_given(local):
  _, lines, _ = _ended(local('told'))
  ports = {re.match(r'\[.\] 127.0.0.1:(\d+) ', x)[1] for x in lines[::2]}
  assert len(ports) == 1
  assert int(*ports) > 0


def test_a_single_process_meets_nobody(launches):
  (launches.root / 'told.py').write_text(SCRIPTS['told'])
  code, said, _ = launches.run('--target=local', '--module=told', '--')
  assert (code, said) == (0, '[0] None None None 75\n[0] None None\n')


def test_lines_are_prefixed_and_a_bar_is_shown_as_it_ended(local):
  code, lines, errors = _ended(local('shows'))
  assert code == 0
  assert lines == sorted(
    f'[{i}] {text}' for i in (0, 1) for text in ('one', 'without an end')
  )
  assert sorted(errors.splitlines()) == ['[0] bar 3', '[1] bar 3']


def test_when_one_dies_the_others_are_told_and_then_killed(local):
  started = time.monotonic()
  code, lines, errors = _ended(local('dies', '--grace=1'))
  assert code == 128 + signal.SIGSEGV
  assert lines == ['[0] asked']
  assert 'process 1 ended with SIGSEGV (exit code 139); so do' in errors
  assert 'process 0 did not end within 1 s, and is killed' in errors
  assert 'starting again' not in errors
  assert time.monotonic() - started < 10


def test_a_process_that_hangs_behind_the_others_end_is_killed_with_its_children(
  local,
):
  code, lines, errors = _ended(local('hangs', '--grace=1', '--retries=0'))
  assert code == 128 + signal.SIGKILL
  assert 'process 1 did not end within 1 s, and is killed' in errors
  child = int(lines[0].removeprefix('[1] child '))
  with pytest.raises(ProcessLookupError):
    _wait_for_the_end_of(child)


def _wait_for_the_end_of(pid):
  """Raises ProcessLookupError once a process is gone, or a zombie."""
  for _ in range(100):
    os.kill(pid, 0)
    with contextlib.suppress(FileNotFoundError):
      state = pathlib.Path(f'/proc/{pid}/stat').read_text()
      state = state.rpartition(')')[2].split()[0]
      if state == 'Z':  # Dead; whoever should collect it is slow.
        raise ProcessLookupError
    time.sleep(0.05)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_passed_on_and_there_is_no_other_start(local, number):
  process = local('saves')
  pids = [process.stdout.readline() for _ in range(2)]
  assert all('pid' in line for line in pids)
  process.send_signal(number)
  code, lines, errors = _ended(process)
  assert code == 75
  assert lines == [f'[{i}] saving after {number.name}' for i in (0, 1)]
  assert 'starting again' not in errors


def test_a_terminal_that_is_closed_has_the_processes_save(local, launches):
  process = local('notes')
  assert all('ready' in process.stdout.readline() for _ in range(2))
  process.stdout.close()
  process.stderr.close()
  process.send_signal(signal.SIGHUP)
  process.wait(timeout=30)
  assert {p.name for p in launches.root.glob('saved*')} == {'saved0', 'saved1'}


def test_a_launcher_that_is_killed_leaves_no_process(local):
  process = local('saves')
  pids = [int(process.stdout.readline().split()[-1]) for _ in range(2)]
  process.kill()
  for pid in pids:
    with pytest.raises(ProcessLookupError):
      _wait_for_the_end_of(pid)
  process.communicate()


def test_a_stopped_job_is_started_again_until_it_is_done(launches, tmp_path):
  code, said, errors = launches.run(
    *('--target=local', '--module=tiny', '--pause=0.1'),
    *('--', f'--starts={tmp_path}/n', '--codes=75,137,0', '--x=a b'),
  )
  assert code == 0
  starts = [line for line in said.splitlines() if 'start' in line]
  assert [line[:11] for line in starts] == [f'[0] start {n}' for n in (1, 2, 3)]
  assert all("'--x=a b'" in line for line in starts)
  assert 'exit code 75: starting again in 0.1 s (20 starts left)' in errors
  assert 'exit code 137: starting again in 0.1 s (19 starts left)' in errors


@pytest.mark.parametrize(
  ('codes', 'retries', 'code', 'starts'),
  [('75,75,75,0', 2, 75, 3), ('75,1,0', 5, 1, 2), ('2', 5, 2, 1)],
)
def test_starts_are_limited_and_a_failure_is_final(
  launches, tmp_path, codes, retries, code, starts
):
  found, _, _ = launches.run(
    *('--target=local', '--module=tiny', '--pause=0', f'--retries={retries}'),
    *('--', f'--starts={tmp_path}/n', f'--codes={codes}'),
  )
  assert found == code
  assert len((tmp_path / 'n').read_text()) == starts


def test_of_processes_that_end_at_once_the_killed_one_is_the_cause():
  """The others fail because of it, and their own code would be final."""
  group = {
    index: subprocess.Popen(['bash', '-c', words])
    for index, words in enumerate(['exit 1', 'kill -KILL $$', 'exit 0'])
  }
  for process in group.values():
    process.wait()
  assert list(local_lib._ended(group).items()) == [(1, 137), (0, 1), (2, 0)]
