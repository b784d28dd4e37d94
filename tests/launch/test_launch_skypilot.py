"""A managed job is submitted, followed to its end, and cancelled on Ctrl-C.

Exit codes are those of SkyPilot's exceptions.JobExitCode.
"""

import signal
import time

import pytest

SETTINGS = (
  *('--target=skypilot', '--slice=v5e:4x4', '--poll=0.05'),
  *('--', '--workdir=/mnt/bucket/run'),
)
# Colours and all.
SUBMITTED = {
  'out': 'Job submitted, ID: \x1b[1m7\x1b[0m\n\nManaged Job ID: \x1b[1m7\x1b[0m\n'
}
NO_QUOTA = {
  'code': 1,
  'err': 'sky.exceptions.ResourcesUnavailableError: Failed to provision the '
  'jobs controller: Quota exceeded\n',
}


@pytest.fixture
def sky(launches):
  """Returns a function: what sky answers, and the launch's outcome."""

  def run(submit, logs=(), settings=()):
    _answer(launches, submit, logs)
    code, said, errors = launches.run(*settings, *SETTINGS)
    return code, [call[2:] for call in launches.calls()], said + errors

  return run


def _answer(launches, submit, logs):
  launches.answer(
    'sky',
    ['jobs launch', [submit]],
    ['jobs logs', logs or [{}]],
    ['jobs cancel', [{}]],
  )


SUBMIT = [
  *('launch', '--yes', '--detach-run', '--name=score'),
  'runs/launch/score.yaml',
]
FOLLOW = ['logs', '--follow', '7']


def test_a_job_is_submitted_and_followed_to_its_end(sky, launches):
  code, calls, said = sky(SUBMITTED, [{'out': 'step 1\n'}])
  assert (code, calls) == (0, [SUBMIT, FOLLOW])
  assert 'step 1' in said
  task = (launches.root / 'runs' / 'launch' / 'score.yaml').read_text()
  assert 'accelerators: "tpu-v5litepod-16"' in task


@pytest.mark.parametrize('end', [100, 102, 103])
def test_a_job_that_failed_is_told_from_one_that_is_done(sky, end):
  code, calls, _ = sky(SUBMITTED, [{'code': end}])
  assert (code, calls) == (1, [SUBMIT, FOLLOW])


def test_a_log_that_broke_off_is_followed_again(sky):
  code, calls, _ = sky(SUBMITTED, [{'code': 101}, {'code': 1}, {}])
  assert (code, calls) == (0, [SUBMIT, FOLLOW, FOLLOW, FOLLOW])


def test_a_job_that_is_refused_is_not_submitted_again(sky):
  code, calls, said = sky(NO_QUOTA)
  assert (code, calls) == (1, [SUBMIT])
  assert 'Quota exceeded' in said


def test_a_detached_job_is_left_alone(sky):
  code, calls, said = sky(SUBMITTED, settings=['--detach'])
  assert (code, calls) == (0, [SUBMIT])
  assert 'sky jobs cancel --yes 7' in said


def test_ctrl_c_cancels_the_job(launches):
  _answer(launches, SUBMITTED, [{'wait': 100}])
  process = launches.start(*SETTINGS)
  deadline = time.monotonic() + 20
  while len(launches.calls()) < 2:
    assert time.monotonic() < deadline
    time.sleep(0.02)
  process.send_signal(signal.SIGINT)
  process.communicate(timeout=30)
  assert process.returncode == 130
  calls = [call[2:] for call in launches.calls()]
  assert calls == [SUBMIT, FOLLOW, ['cancel', '--yes', '7']]
