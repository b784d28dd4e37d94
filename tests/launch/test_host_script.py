"""On a host a job outlives its connection, runs once, and saves when told."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import launching
import pytest

SCRIPT = launching.ROOT / 'launch' / 'host.sh'


@pytest.fixture
def host(tmp_path):
  """Returns a host: what starts its script."""
  code = tmp_path / 'score'
  (code / 'launch').mkdir(parents=True)
  (code / 'launch' / 'host.sh').write_text(SCRIPT.read_text())
  (code / 'tiny.py').write_text(launching.TINY)

  def start(*words):
    return subprocess.Popen(
      ['bash', SCRIPT, *words],
      env=os.environ | {'HOME': str(tmp_path)},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      start_new_session=True,
      text=True,
    )

  start.home = tmp_path
  yield start
  for path in tmp_path.glob('score.job.*.pid'):
    try:
      os.kill(int(path.read_text()), signal.SIGKILL)
    except ProcessLookupError:
      continue


def _job(host, codes, seconds=0.0, number=1):
  return host(
    *('run', 'score', str(number), 'SCORE_STOPPED_CODE=75'),
    *('PYTHONUNBUFFERED=1', sys.executable, '-m', 'tiny'),
    *(f'--starts={host.home}/n', f'--codes={codes}', f'--seconds={seconds}'),
  )


def _starts(host):
  path = pathlib.Path(host.home, 'n')
  return len(path.read_text()) if path.exists() else 0


def _await(claim):
  deadline = time.monotonic() + 20
  while not claim():
    assert time.monotonic() < deadline
    time.sleep(0.02)


@pytest.mark.parametrize('code', [0, 3, 75])
def test_a_job_shows_what_it_says_and_ends_with_its_exit_code(host, code):
  job = _job(host, code)
  said, _ = job.communicate(timeout=30)
  assert job.returncode == code
  assert 'start 1' in said


def test_a_job_whose_connection_broke_is_followed_and_not_started_again(host):
  first = _job(host, '4,9', seconds=3)
  _await(lambda: _starts(host) == 1)
  os.killpg(first.pid, signal.SIGHUP)  # What sshd does to it.
  first.communicate(timeout=10)
  again = _job(host, '4,9', seconds=3)
  again.communicate(timeout=30)
  assert again.returncode == 4
  assert _starts(host) == 1


def test_an_end_that_nobody_saw_is_told_when_asked_again(host):
  _job(host, '4,9').communicate(timeout=30)
  again = _job(host, '4,9')
  again.communicate(timeout=30)
  assert (again.returncode, _starts(host)) == (4, 1)


def test_the_next_job_is_another_start(host):
  _job(host, '75,0').communicate(timeout=30)
  following = _job(host, '75,0', number=2)
  following.communicate(timeout=30)
  assert (following.returncode, _starts(host)) == (0, 2)


def test_a_job_that_is_stopped_saves(host):
  job = _job(host, '0', seconds=60)
  _await(lambda: _starts(host) == 1)
  time.sleep(0.2)
  stop = host('stop', 'score', '20')
  stop.communicate(timeout=30)
  said, _ = job.communicate(timeout=30)
  assert (stop.returncode, job.returncode) == (0, 75)
  assert 'saving' in said


def test_a_job_that_does_not_stop_is_killed(host):
  job = host(
    'run', 'score', '1', 'bash', '-c', 'trap "" TERM; sleep 60 & wait; wait'
  )
  _await(lambda: (host.home / 'score.job.1.pid').exists())
  time.sleep(0.2)
  host('stop', 'score', '1').communicate(timeout=30)
  job.communicate(timeout=30)
  assert job.returncode == 137


def test_code_is_not_put_under_a_job_that_runs(host):
  job = _job(host, '0', seconds=60)
  _await(lambda: _starts(host) == 1)
  setup = host('setup', 'score')
  said, _ = setup.communicate(timeout=30)
  assert setup.returncode == 1
  assert 'a job is running here already; end it first' in said
  host('stop', 'score', '20').communicate(timeout=30)
  job.communicate(timeout=30)


def test_an_unknown_action_is_told_which_there_are(host):
  wrong = host('rm', '-rf', '/nowhere')
  said, _ = wrong.communicate(timeout=30)
  assert wrong.returncode == 2
  assert 'host.sh run NAME JOB WORD...' in said


def test_two_who_start_one_job_at_once_start_it_once(host):
  both = [_job(host, '0', seconds=1.0) for _ in range(2)]
  for one in both:
    said, _ = one.communicate(timeout=launching.TIMEOUT)
    assert one.returncode == 0, said
  assert _starts(host) == 1
