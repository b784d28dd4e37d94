"""A TPU slice is created, lost, created again, and never left behind.

What gcloud says was taken from the tool: the texts of its exceptions, and what
users quote of the service's answers.
"""

import re
import shlex
import signal
import sys
import time

import pytest

SETTINGS = (
  *('--target=tpu-pod', '--slice=v5e:4x4', '--zone=us-west4-a', '--spot'),
  *('--pause=0.05', '--poll=0.05', '--module=tiny'),
)
JOB = ('--', '--workdir=/mnt/bucket/run', '--codes=0')
WHERE = 'projects/p/locations/us-west4-a/nodes/score'
NOT_FOUND = {
  'code': 1,
  'err': 'ERROR: (gcloud.compute.tpus.tpu-vm.describe) NOT_FOUND: Resource '
  f"'{WHERE}' was not found\n",
}
EXISTS = {
  'code': 1,
  'err': 'ERROR: (gcloud.compute.tpus.tpu-vm.create) ALREADY_EXISTS: Resource '
  f"'{WHERE}' already exists\n",
}
QUOTA = {
  'code': 1,
  'err': 'ERROR: (gcloud.compute.tpus.tpu-vm.create) RESOURCE_EXHAUSTED: Quota '
  "limit 'TPUV5sPreemptibleLitepodPerProjectPerZoneForTPUAPI' has been "
  'exceeded. Limit: 8 in zone us-west4-a.\n',
}
FULL = {
  'code': 1,
  'err': 'ERROR: (gcloud.compute.tpus.tpu-vm.create) {"code": 8, "message": '
  '"There is no more capacity in the zone \\"us-west4-a\\"; you can try in '
  'another zone where Cloud TPU Nodes are offered"}\n',
}
UNREACHABLE = {
  'code': 255,
  'err': 'ERROR: (gcloud.compute.tpus.tpu-vm.ssh) [/usr/bin/ssh] exited with '
  'return code [255].\n',
}
OFFLINE = {
  'code': 1,
  'err': 'ERROR: gcloud crashed (ServerNotFoundError): Unable to find the '
  'server at tpu.googleapis.com\n',
}
READY, PREEMPTED = {'out': 'READY\n'}, {'out': 'PREEMPTED\n'}
CREATED = ['create', 'scp', 'setup']


@pytest.fixture
def tpu(launches):
  """Returns a function: what gcloud answers, and the launch's outcome."""

  def run(*settings, job=JOB, **answers):
    _answer(launches, **answers)
    code, said, errors = launches.run(*SETTINGS, *settings, *job)
    return code, [_verb(call) for call in launches.calls()], said + errors

  return run


def _answer(launches, create=(), runs=(), state=(), delete=(), queue=()):
  """Makes gcloud answer in turn; what is not given succeeds."""
  launches.answer(
    'gcloud',
    ['queued-resources describe', queue or [{'out': 'ACTIVE\n'}]],
    ['create', create or [{}]],
    ['describe', state or [READY]],
    ['delete', delete or [{}]],
    ['scp', [{}]],
    ['ssh', [{}, *runs] if runs else [{}]],  # The first one is the set-up.
  )


def _verb(call):
  """Returns what a call of gcloud does, in a word or two."""
  for word in ('create', 'describe', 'delete', 'scp'):
    if word in call:
      return f'queue {word}' if 'queued-resources' in call else word
  command = next(a for a in call if a.startswith('--command='))
  action, _, rest = re.search(r'host.sh (\w+) score( (\d+))?', command).groups()
  return f'{action} {rest}' if action == 'run' else action


def test_a_slice_is_created_used_and_deleted(tpu, launches):
  code, verbs, _ = tpu()
  assert code == 0
  assert verbs == [*CREATED, 'run 1', 'delete']
  create, *_, delete = launches.calls()
  assert create == [
    *('gcloud', 'compute', 'tpus', 'tpu-vm', 'create', 'score'),
    *('--accelerator-type=v5litepod-16', '--version=v2-alpha-tpuv5-lite'),
    *('--spot', '--zone=us-west4-a', '--quiet'),
  ]
  assert delete == [
    *('gcloud', 'compute', 'tpus', 'tpu-vm', 'delete', 'score'),
    *('--zone=us-west4-a', '--quiet'),
  ]


@pytest.mark.parametrize(
  'state', [PREEMPTED, NOT_FOUND, {'out': 'TERMINATED\n'}], ids=str
)
@pytest.mark.parametrize('ended', [UNREACHABLE, {'code': 75}, {'code': 1}])
def test_a_slice_that_was_taken_away_is_made_anew(tpu, state, ended):
  """However the job ended with it: a lost host fails the others as it likes."""
  code, verbs, said = tpu(
    runs=[ended, {}, {}], state=[state], delete=[NOT_FOUND, {}]
  )
  assert code == 0
  lost = ['run 1', 'describe', 'delete']
  assert verbs == [*CREATED, *lost, *CREATED, 'run 2', 'delete']
  assert 'the slice was taken away' in said


def test_a_job_that_was_stopped_goes_on_on_the_slice_that_is_there(tpu):
  code, verbs, _ = tpu(runs=[{'code': 75}, {}])
  assert code == 0
  assert verbs == [*CREATED, 'run 1', 'describe', 'run 2', 'delete']


def test_a_connection_that_broke_is_made_again_to_the_same_job(tpu):
  code, verbs, said = tpu(runs=[UNREACHABLE, {}])
  assert code == 0
  assert verbs == [*CREATED, 'run 1', 'describe', 'run 1', 'delete']
  assert 'the connection broke' in said


def test_while_nothing_is_known_of_the_slice_it_is_not_deleted(tpu):
  code, verbs, said = tpu(runs=[UNREACHABLE, UNREACHABLE, {}], state=[OFFLINE])
  assert code == 0
  asked = ['run 1', 'describe']
  assert verbs == [*CREATED, *asked, *asked, 'run 1', 'delete']
  assert 'Unable to find the server' in said


def test_a_job_that_failed_is_not_started_again(tpu):
  code, verbs, _ = tpu(runs=[{'code': 3}])
  assert code == 3
  assert verbs == [*CREATED, 'run 1', 'describe', 'delete']


def test_starts_are_limited(tpu):
  code, verbs, _ = tpu('--retries=2', runs=[{'code': 75}])
  assert code == 75
  runs = [v for i in (1, 2, 3) for v in (f'run {i}', 'describe')]
  assert verbs == [*CREATED, *runs, 'delete']


def test_a_zone_without_chips_is_asked_again(tpu):
  code, verbs, _ = tpu(create=[FULL, FULL, {}], delete=[NOT_FOUND])
  assert code == 0
  tried = ['create', 'delete']
  assert verbs == [*tried, *tried, *CREATED, 'run 1', 'delete']


def test_a_quota_that_is_too_small_is_not_asked_again(tpu):
  code, verbs, said = tpu(create=[QUOTA], delete=[NOT_FOUND])
  assert code == 1
  assert verbs == ['create', 'delete']
  assert 'more than the quota' in said


def test_a_slice_of_that_name_that_is_there_is_left_alone(tpu):
  code, verbs, said = tpu(create=[EXISTS])
  assert code == 2
  assert verbs == ['create']
  assert '--name=score is there already; give another' in said


def test_a_slice_that_cannot_be_deleted_is_named_with_its_command(tpu):
  code, verbs, said = tpu(delete=[OFFLINE])
  assert code == 1
  assert verbs == [*CREATED, 'run 1', *['delete'] * 3]
  assert 'NOT DELETED' in said
  command = 'gcloud compute tpus tpu-vm delete score --zone=us-west4-a --quiet'
  assert said.rstrip().endswith(command)


def test_a_kept_slice_is_left_there_and_used_again(tpu, launches):
  code, verbs, said = tpu('--keep', state=[NOT_FOUND, READY])
  assert code == 0
  assert verbs == ['describe', *CREATED, 'run 1']
  assert 'it costs money' in said
  code, verbs, _ = tpu('--keep')
  assert code == 0
  assert verbs[5:] == ['describe', 'scp', 'setup', 'run 1']


def test_a_kept_slice_that_was_taken_away_is_not_used(tpu):
  code, verbs, said = tpu('--keep', state=[PREEMPTED])
  assert code == 2
  assert verbs == ['describe']
  assert 'cannot be used (PREEMPTED); delete it' in said


def test_chips_are_waited_for_in_the_queue(tpu):
  waiting = {'out': 'WAITING_FOR_RESOURCES\n'}
  code, verbs, said = tpu(
    '--queued', queue=[waiting, waiting, {'out': 'ACTIVE'}]
  )
  assert code == 0
  asked = ['queue describe'] * 3
  queued = ['queue create', *asked, 'scp', 'setup', 'run 1', 'queue delete']
  assert verbs == queued
  assert said.count('in the queue: WAITING_FOR_RESOURCES') == 1


def test_a_request_that_failed_in_the_queue_is_made_again(tpu):
  code, verbs, _ = tpu(
    '--queued', queue=[{'out': 'FAILED\n'}, {'out': 'ACTIVE'}]
  )
  assert code == 0
  failed = ['queue create', 'queue describe', 'queue delete']
  again = ['queue create', 'queue describe', 'scp', 'setup', 'run 1']
  assert verbs == [*failed, *again, 'queue delete']


def _await(launches, verb):
  """Returns once a stand-in was called for something."""
  deadline = time.monotonic() + 20
  while verb not in [_verb(call) for call in launches.calls()]:
    assert time.monotonic() < deadline
    time.sleep(0.02)


@pytest.mark.parametrize(
  ('number', 'code'), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_ctrl_c_has_the_job_save_and_the_slice_deleted(launches, number, code):
  _answer(launches, runs=[{'wait': 100}, {}], delete=[{'wait': 0.5}])
  process = launches.start(*SETTINGS, *JOB)
  _await(launches, 'run 1')
  process.send_signal(number)
  _await(launches, 'delete')
  process.send_signal(number)  # Impatience leaves nothing behind either.
  process.communicate(timeout=30)
  assert process.returncode == code
  verbs = [_verb(call) for call in launches.calls()]
  assert verbs == [*CREATED, 'run 1', 'stop', 'delete']


def test_a_terminal_that_is_closed_leaves_nothing_behind(launches):
  _answer(launches, runs=[{'wait': 100}, {}])
  process = launches.start(*SETTINGS, *JOB)
  _await(launches, 'run 1')
  process.stdout.close()
  process.stderr.close()
  process.send_signal(signal.SIGHUP)
  process.wait(timeout=30)
  verbs = [_verb(call) for call in launches.calls()]
  assert verbs == [*CREATED, 'run 1', 'stop', 'delete']


def test_ctrl_c_while_it_is_being_created_deletes_what_there_may_be(launches):
  _answer(launches, create=[{'wait': 100}])
  process = launches.start(*SETTINGS, *JOB)
  _await(launches, 'create')
  process.send_signal(signal.SIGINT)
  process.communicate(timeout=30)
  assert process.returncode == 130
  assert [_verb(c) for c in launches.calls()] == ['create', 'delete']


def test_a_missing_tool_is_said_before_anything_is_created(launches):
  launches.answer('git', ['', [{}]])
  environment = launches.environment() | {'PATH': str(launches.tools)}
  process = launches.start(*SETTINGS, *JOB, environment=environment)
  said, errors = process.communicate(timeout=30)
  assert (process.returncode, said) == (2, '')
  assert errors == (
    'launch: --target=tpu-pod needs gcloud, which is not on PATH; install it '
    '(cloud.google.com/sdk).\n'
  )
  assert launches.calls() == []


UV = """#!/bin/bash
echo "$@" >> "$(dirname "$0")/uv.txt"
if [ "$1" = venv ]; then mkdir -p .venv/bin && ln -s {python} .venv/bin/python; fi
"""


def test_the_real_script_of_a_host_runs_job_after_job(launches, tmp_path):
  """gcloud's stand-in does on a folder what it would do on a host."""
  uv = launches.tools / 'uv'
  uv.write_text(UV.format(python=shlex.quote(sys.executable)))
  uv.chmod(0o755)
  launches.answer(
    'gcloud',
    ['describe', [PREEMPTED]],
    ['scp', [{'host': True}]],
    ['ssh', [{'host': True}]],
    ['', [{}]],
  )
  job = ('--workdir=/mnt/b/r', f'--starts={tmp_path}/n', '--codes=75,0')
  code, said, errors = launches.run(
    *SETTINGS, '--setup=echo "ready $PWD"', '--', *job, "--x=it's $HOME"
  )
  assert code == 0, said + errors
  home = launches.tools / 'host'
  assert said.count(f'ready {home}/score') == 2
  starts = re.findall(r'^\[\S+\] start (\d) .* auto$', said, re.M)
  assert starts == ['1', '2']
  assert said.count('''"--x=it's $HOME"''') == 2  # As given, on each start.
  verbs = [_verb(call) for call in launches.calls()]
  lost = ['run 1', 'describe', 'delete']
  assert verbs == [*CREATED, *lost, *CREATED, 'run 2', 'delete']
  assert 'pip install --quiet jax[tpu]==0.10.2' in (
    (launches.tools / 'uv.txt').read_text()
  )
