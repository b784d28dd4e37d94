"""A Slurm job is submitted, watched, submitted again where Slurm does not.

States and texts are those that Slurm 22.05 gave to the same calls.
"""

import signal
import subprocess
import time

import launching
import pytest

SETTINGS = (
  *('--target=slurm', '--nodes=2', '--poll=0.05', '--pause=0.05'),
  *('--grace=5', '--python=python', '--', '--workdir=runs/x'),
)
UNKNOWN = {
  'code': 1,
  'err': 'slurm_load_jobs error: Invalid job id specified\n',
}
OFFLINE = {
  'code': 1,
  'err': 'slurm_load_jobs error: Unable to contact slurm controller (connect '
  'failure)\n',
}
REFUSED = {
  'code': 1,
  'err': 'sbatch: error: invalid partition specified: long\nsbatch: error: '
  'Batch job submission failed: Invalid partition name specified\n',
}


def _state(word, code='0:0', restarts=0, job=7):
  return {
    'out': f'JobId={job} JobName=score UserId=root(0) JobState={word} '
    f'Reason=None Requeue=1 Restarts={restarts} BatchFlag=1 ExitCode={code} '
    'RunTime=00:00:06\n'
  }


@pytest.fixture
def slurm(launches):
  """Returns a function: what Slurm answers, and the launch's outcome."""

  def run(states, submit=({'out': '7\n'},), settings=()):
    _answer(launches, states, submit)
    code, said, errors = launches.run(*settings, *SETTINGS)
    return code, _verbs(launches), said + errors

  return run


def _answer(launches, states, submit=({'out': '7\n'},)):
  launches.answer('sbatch', ['', submit])
  launches.answer('scontrol', ['show', states], ['update', [{}]])
  launches.answer('scancel', ['', [{}]])


def _verbs(launches):
  words = {'sbatch': 0, 'scontrol': 1, 'scancel': 0}
  return [call[words[call[0]]] for call in launches.calls()]


def test_a_job_is_submitted_and_watched_to_its_end(slurm, launches):
  code, verbs, said = slurm(
    [_state('PENDING'), _state('RUNNING'), _state('COMPLETED')]
  )
  assert code == 0
  assert verbs == ['sbatch', 'show', 'show', 'show']
  assert 'job 7: RUNNING' in said
  assert launches.calls()[0] == [
    *('sbatch', '--parsable', '--job-name=score', '--nodes=2'),
    *('--ntasks-per-node=1', '--requeue', '--open-mode=append'),
    *('--output=runs/launch/score-%j.log', '--signal=TERM@5'),
    *('launch/slurm.sh', '20', '5', 'env', 'SCORE_STOPPED_CODE=75'),
    *('PYTHONUNBUFFERED=1', 'SCORE_COORDINATOR=auto'),
    *('python', '-m', 'score_jax.main', '--workdir=runs/x'),
  ]


def test_what_the_job_says_is_shown_once(slurm, launches):
  log = launches.root / 'runs' / 'launch' / 'score-7.log'
  log.parent.mkdir(parents=True)
  log.write_text('step 1\nstep 2\n')
  _, _, said = slurm([_state('RUNNING')] * 3 + [_state('COMPLETED')])
  assert said.count('step 1\nstep 2\n') == 1


def test_a_job_that_slurm_queues_again_is_watched_on(slurm):
  states = ['RUNNING', 'COMPLETING', 'PENDING', 'RUNNING', 'COMPLETED']
  code, verbs, _ = slurm(
    [_state(s, restarts=i // 3) for i, s in enumerate(states)]
  )
  assert code == 0
  assert verbs == ['sbatch', *['show'] * 5]


@pytest.mark.parametrize('end', ['PREEMPTED', 'NODE_FAIL', 'TIMEOUT'])
def test_a_job_that_slurm_ended_for_good_is_submitted_again(slurm, end):
  code, verbs, said = slurm(
    [_state('RUNNING'), _state(end, '0:15'), _state('COMPLETED', job=8)],
    submit=[{'out': '7\n'}, {'out': '8;cluster\n'}],
  )
  assert code == 0
  assert verbs == ['sbatch', 'show', 'show', 'sbatch', 'show']
  assert 'job 8; its output: runs/launch/score-8.log' in said


def test_a_site_that_queues_nothing_again_has_it_submitted_again(slurm):
  code, verbs, _ = slurm([_state('FAILED', '75:0'), _state('COMPLETED')])
  assert code == 0
  assert verbs == ['sbatch', 'show', 'sbatch', 'show']


def test_a_job_that_used_up_its_starts_is_not_submitted_again(slurm):
  code, verbs, said = slurm([_state('FAILED', '75:0', restarts=20)])
  assert code == 1
  assert verbs == ['sbatch', 'show']
  assert 'exit code 75, after 20 starts more' in said


@pytest.mark.parametrize(
  ('state', 'code'),
  [
    (_state('FAILED', '3:0'), 3),
    (_state('FAILED', '0:11'), 139),
    (_state('CANCELLED', '0:15'), 1),
    (_state('OUT_OF_MEMORY', '0:125'), 253),
  ],
)
def test_a_failure_is_final_and_its_code_is_passed_on(slurm, state, code):
  found, verbs, _ = slurm([state])
  assert found == code
  assert verbs == ['sbatch', 'show']


def test_a_job_that_is_refused_is_not_submitted_again(slurm):
  code, verbs, said = slurm([], submit=[REFUSED])
  assert code == 1
  assert verbs == ['sbatch']
  assert 'Invalid partition name specified' in said


def test_a_controller_that_does_not_answer_is_asked_until_it_does(slurm):
  code, verbs, said = slurm([OFFLINE, OFFLINE, _state('COMPLETED')])
  assert code == 0
  assert verbs == ['sbatch', 'show', 'show', 'show']
  assert said.count('Unable to contact') == 1


def test_a_job_that_is_not_known_any_more_ends_the_watch(slurm):
  code, _, said = slurm([_state('RUNNING'), UNKNOWN])
  assert code == 1
  assert 'runs/launch/score-7.log says how it went' in said


def test_a_detached_job_is_left_alone(slurm):
  code, verbs, said = slurm([], settings=['--detach'])
  assert (code, verbs) == (0, ['sbatch'])
  assert 'kept; to end it: scancel 7' in said


def _stopped(launches, states, calls):
  """Returns exit code and calls of a launch that is told to stop."""
  _answer(launches, states)
  process = launches.start(*SETTINGS)
  deadline = time.monotonic() + 20
  while len(launches.calls()) < calls:
    assert time.monotonic() < deadline
    time.sleep(0.02)
  process.send_signal(signal.SIGTERM)
  process.communicate(timeout=30)
  return process.returncode, launches.calls()


def test_when_told_to_stop_the_job_saves_and_is_cancelled(launches):
  states = [_state('RUNNING')] * 8 + [_state('FAILED', '75:0')]
  code, calls = _stopped(launches, states, 3)
  assert code == 143
  after = calls[[c[1] for c in calls].index('update') :]
  assert after[:2] == [
    ['scontrol', 'update', 'JobId=7', 'Requeue=0'],
    ['scancel', '--signal=TERM', '7'],
  ]
  assert {call[1] for call in after[2:-1]} == {'show'}
  assert after[-1] == ['scancel', '7']


def test_told_to_stop_while_it_submits_it_cancels_what_it_submitted(launches):
  launches.answer('sbatch', ['', [{'wait': 1, 'out': '7\n'}]])
  launches.answer('scontrol', ['show', [_state('PENDING')]], ['update', [{}]])
  launches.answer('scancel', ['', [{}]])
  process = launches.start(*SETTINGS)
  while not launches.calls():
    time.sleep(0.02)
  process.send_signal(signal.SIGINT)
  _, errors = process.communicate(timeout=30)
  assert process.returncode == 130
  assert 'the job is being submitted; it stops behind that' in errors
  assert launches.calls()[-1] == ['scancel', '7']


@pytest.mark.parametrize(
  ('code', 'restarts', 'queued'),
  [
    *((75, None, True), (75, '2', True), (75, '3', False)),
    *((137, '1', True), (0, None, False), (3, None, False)),
  ],
)
def test_the_batch_script_queues_a_lost_job_again_and_no_other(
  launches, code, restarts, queued
):
  launches.answer('srun', ['', [{'code': code}]])
  launches.answer('scontrol', ['', [{}]])
  environment = launches.environment() | {'SLURM_JOB_ID': '7'}
  if restarts:
    environment['SLURM_RESTART_COUNT'] = restarts
  script = launching.ROOT / 'launch' / 'slurm.sh'
  ended = subprocess.run(
    ['bash', script, '3', '60', 'python', '--x=a b'],
    env=environment,
    check=False,
  )
  assert ended.returncode == code
  first, *rest = launches.calls()
  assert first == [
    *('srun', '--kill-on-bad-exit=0', '--wait=60', 'python', '--x=a b')
  ]
  assert rest == ([['scontrol', 'requeue', '7']] if queued else [])
