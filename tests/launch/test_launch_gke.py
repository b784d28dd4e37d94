"""A JobSet is created, watched through its restarts, and deleted."""

import json
import signal
import time

import pytest

SETTINGS = (
  *('--target=gke', '--slice=v5e:4x4', '--image=score', '--poll=0.05'),
  *('--namespace=n', '--claim=c', '--', '--workdir=/mnt/bucket/run'),
)
EXISTS = {
  'code': 1,
  'err': 'Error from server (AlreadyExists): error when creating '
  '"runs/launch/score.yaml": jobsets.jobset.x-k8s.io "score" already exists\n',
}
NO_JOBSET = {
  'code': 1,
  'err': 'error: resource mapping not found for name: "score" namespace: "n" '
  'from "runs/launch/score.yaml": no matches for kind "JobSet" in version '
  '"jobset.x-k8s.io/v1alpha2"\nensure CRDs are installed first\n',
}
FORBIDDEN = {
  'code': 1,
  'err': 'Error from server (Forbidden): error when creating '
  '"runs/launch/score.yaml": jobsets.jobset.x-k8s.io "score" is forbidden: '
  'exceeded quota: tpus, requested: google.com/tpu=16, used: 0, limited: 8\n',
}
NOT_FOUND = {
  'code': 1,
  'err': 'Error from server (NotFound): jobsets.jobset.x-k8s.io "score" not '
  'found\n',
}
OFFLINE = {
  'code': 1,
  'err': 'Unable to connect to the server: dial tcp 10.0.0.1:443: i/o timeout\n',
}


def _state(ready=0, restarts=0, end='', message=''):
  """Returns what kubectl says of a JobSet."""
  conditions = [{'type': end, 'status': 'True', 'message': message}]
  status = {
    'conditions': conditions if end else [],
    'restarts': restarts,
    'replicatedJobsStatus': [{'name': 'slice', 'ready': ready, 'active': 1}],
  }
  return {'out': json.dumps({'kind': 'JobSet', 'status': status})}


@pytest.fixture
def gke(launches):
  """Returns a function: what kubectl answers, and the launch's outcome."""

  def run(*more, **answers):
    _answer(launches, **answers)
    code, said, errors = launches.run(*more, *SETTINGS)
    return code, [call[1] for call in launches.calls()], said + errors

  return run


def _answer(launches, states, create=(), delete=()):
  launches.answer(
    'kubectl',
    ['create', create or [{'out': 'jobset.jobset.x-k8s.io/score created\n'}]],
    ['get jobset', states],
    ['logs', [{'out': '[pod/score-slice-0-0-x/score] step 1\n'}]],
    ['delete', delete or [{}]],
  )


def test_a_job_set_is_created_shown_and_deleted(gke, launches):
  states = [
    {'out': '{"kind": "JobSet"}'},
    _state(ready=1),
    _state(end='Completed'),
  ]
  code, verbs, said = gke(states=states)
  assert code == 0
  # What shows the logs runs beside the looks, and may come late.
  assert sorted(verbs[1:-1]) == ['get', 'get', 'get', 'logs']
  assert (verbs[0], verbs[-1]) == ('create', 'delete')
  assert 'step 1' in said
  create, *_, delete = launches.calls()
  assert create[2:] == ['--filename=runs/launch/score.yaml', '--namespace=n']
  assert delete[2:] == [
    'jobset',
    'score',
    '--ignore-not-found',
    '--namespace=n',
  ]


def test_restarts_are_told_and_each_start_is_shown_once(gke):
  states = [
    *(_state(ready=1), _state(ready=1)),
    *(_state(restarts=1), _state(ready=1, restarts=1)),
    _state(end='Completed', restarts=1),
  ]
  code, _, said = gke(states=states)
  assert code == 0
  assert 'the JobSet runs, started again 0 times' in said
  assert 'the JobSet waits for its hosts, started again 1 times' in said
  assert 'the JobSet runs, started again 1 times' in said


def test_logs_that_broke_off_go_on_without_what_was_shown(gke, launches):
  states = [_state(ready=1)] * 20 + [_state(end='Completed')]
  gke(states=states)
  begins = [call[4] for call in launches.calls() if call[1] == 'logs']
  assert begins[0] == '--tail=-1'
  assert len(begins) > 1
  assert {*begins[1:]} == {'--since=0s'}


def test_a_job_set_that_failed_says_why(gke):
  message = 'jobset failed due to one or more job failures: FailJobSet'
  code, verbs, said = gke(states=[_state(end='Failed', message=message)])
  assert code == 1
  assert verbs == ['create', 'get', 'logs', 'delete']
  assert f'Failed: {message}' in said


def test_a_cluster_that_does_not_answer_is_asked_until_it_does(gke):
  states = [OFFLINE, OFFLINE, _state(end='Completed')]
  code, verbs, said = gke(states=states)
  assert code == 0
  assert verbs == ['create', 'get', 'get', 'get', 'logs', 'delete']
  assert said.count('Unable to connect') == 1


def test_a_job_set_that_somebody_deleted_ends_the_watch(gke):
  code, verbs, said = gke(states=[_state(), NOT_FOUND])
  assert code == 1
  assert verbs == ['create', 'get', 'get', 'delete']
  assert 'is not there any more' in said


def test_a_job_set_of_that_name_that_is_there_is_left_alone(gke):
  code, verbs, said = gke(states=[_state()], create=[EXISTS])
  assert code == 2
  assert verbs == ['create']
  assert '--name=score is there already; give another' in said


@pytest.mark.parametrize(
  ('refusal', 'word'), [(FORBIDDEN, 'exceeded quota'), (NO_JOBSET, 'CRDs')]
)
def test_what_the_cluster_refuses_is_shown_and_not_tried_again(
  gke, refusal, word
):
  gone = {'code': 1, 'err': "error: the server doesn't have a resource type\n"}
  code, verbs, said = gke(states=[_state()], create=[refusal], delete=[gone])
  assert code == 1
  assert verbs == ['create', 'delete']
  assert word in said
  assert 'NOT DELETED' not in said


def test_a_detached_job_set_is_left_there_with_what_deletes_it(gke):
  code, verbs, said = gke('--detach', states=[])
  assert code == 0
  assert verbs == ['create']
  assert 'kubectl delete jobset score --ignore-not-found' in said


def test_ctrl_c_deletes_the_job_set(launches):
  _answer(launches, states=[_state(ready=1)])
  process = launches.start(*SETTINGS)
  deadline = time.monotonic() + 20
  while len(launches.calls()) < 4:
    assert time.monotonic() < deadline
    time.sleep(0.02)
  process.send_signal(signal.SIGINT)
  process.communicate(timeout=30)
  assert process.returncode == 130
  verbs = [call[1] for call in launches.calls()]
  assert verbs[0] == 'create'
  assert verbs[-1] == 'delete'
  assert verbs.count('delete') == 1
