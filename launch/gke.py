"""Google Kubernetes Engine: a JobSet, by kubectl.

The fields are those of jobset.sigs.k8s.io (v1alpha2) and of a Job with a
podFailurePolicy (kubernetes.io/docs/tasks/job/pod-failure-policy). JobSet starts
the job again by itself; the launcher watches and deletes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import time
from typing import Any

from launch import manifest, retry, shell, slices
from launch.errors import LaunchError
from launch.settings import last, Settings
from launch.shell import Command, command, File, say, Step
from launch.tpu import FOLDER

TOOLS = {'kubectl': 'kubernetes.io/docs/tasks/tools'}
FAILED = 1
KEPT = 86_400  # Seconds that a detached JobSet is there after its end.
GONE = ('NotFound', "doesn't have a resource type")
PORT = 8471  # Where the chips' libraries of all hosts meet.


def plan(settings: Settings) -> list[Step]:
  """Returns what is run.

  Raises:
    LaunchError: if the slice or the image is missing.
  """
  if not settings.image:
    raise LaunchError(
      '--image is missing: a container image with this code, which '
      'launch/Dockerfile makes.'
    )
  wanted = slices.get(settings.slice)
  steps = [
    Step(
      f'create the JobSet, for {wanted}', (job_set(settings), create(settings))
    )
  ]
  if settings.detach:
    return steps
  steps += [
    Step('what its processes say', (logs(settings),)),
    Step('until it is Completed or Failed', (state(settings),)),
  ]
  if not settings.keep:
    steps.append(Step('at the end, whatever happened', (delete(settings),)))
  return steps


def job_set(settings: Settings) -> File:
  """Returns the manifest."""
  wanted = slices.get(settings.slice)
  job = {
    'completions': wanted.hosts,
    'parallelism': wanted.hosts,
    'completionMode': 'Indexed',
    'backoffLimit': 0,
    'podFailurePolicy': {'rules': _pod_rules()},
    'template': {'spec': _pod(settings, wanted)},
  }
  finished = {'ttlSecondsAfterFinished': KEPT} if settings.detach else {}
  document = {
    'apiVersion': 'jobset.x-k8s.io/v1alpha2',
    'kind': 'JobSet',
    'metadata': {
      'name': settings.name,
      'namespace': settings.namespace,
      # All hosts in one node pool: that is one slice.
      'annotations': {
        'alpha.jobset.sigs.k8s.io/exclusive-topology': (
          'cloud.google.com/gke-nodepool'
        ),
      },
    },
    'spec': {
      **finished,
      'failurePolicy': {
        'maxRestarts': settings.retries,
        'rules': [
          {
            'name': 'OwnFault',
            'action': 'FailJobSet',
            'onJobFailureReasons': ['PodFailurePolicy'],
          },
        ],
      },
      'replicatedJobs': [
        {'name': 'slice', 'replicas': 1, 'template': {'spec': job}}
      ],
    },
  }
  return File(f'{FOLDER}/{settings.name}.yaml', manifest.dump(document))


def _pod_rules() -> list[dict[str, Any]]:
  """Returns which ends of a pod are the job's own fault: those fail it."""
  disrupted = [{'type': 'DisruptionTarget', 'status': 'True'}]
  return [
    {'action': 'Count', 'onPodConditions': disrupted},
    {
      'action': 'FailJob',
      'onExitCodes': {
        'containerName': 'score',
        'operator': 'NotIn',
        'values': [*retry.LOST],
      },
    },
  ]


def _pod(settings: Settings, wanted: slices.Slice) -> dict[str, Any]:
  selector = {
    'cloud.google.com/gke-tpu-accelerator': wanted.kind.label,
    'cloud.google.com/gke-tpu-topology': wanted.shape,
  }
  tolerated = ['google.com/tpu']
  if settings.spot:
    selector['cloud.google.com/gke-spot'] = 'true'
    tolerated.append('cloud.google.com/gke-spot')
  return {
    'restartPolicy': 'Never',
    'terminationGracePeriodSeconds': settings.grace,
    'nodeSelector': selector,
    'tolerations': [
      {'key': key, 'operator': 'Exists', 'effect': 'NoSchedule'}
      for key in tolerated
    ],
    **_volumes(settings),
    'containers': [
      {
        'name': 'score',
        'image': settings.image,
        'command': _container(settings),
        'env': [
          dict(zip(('name', 'value'), variable.split('=', 1), strict=True))
          for variable in variables(wanted)
        ],
        'ports': [{'containerPort': PORT}],
        **_mounts(settings),
        'resources': {
          'limits': {'google.com/tpu': wanted.chips // wanted.hosts}
        },
      }
    ],
  }


def _volumes(settings: Settings) -> dict[str, Any]:
  """Returns of a pod where the work directory is kept, if that is somewhere."""
  if not settings.claim:
    return {}
  source = {'persistentVolumeClaim': {'claimName': settings.claim}}
  return {'volumes': [{'name': 'runs', **source}]}


def _mounts(settings: Settings) -> dict[str, Any]:
  """Returns of a container where it sees that."""
  if not settings.claim:
    return {}
  where = last(settings.arguments, 'workdir')
  path = '/'.join(where.split('/')[:3])  # /mnt/runs of /mnt/runs/one.
  return {'volumeMounts': [{'name': 'runs', 'mountPath': path}]}


def variables(wanted: slices.Slice) -> tuple[str, ...]:
  """Returns the environment of the job on each host, as NAME=VALUE."""
  many = (retry.TOGETHER,) if wanted.hosts > 1 else ()
  return (*retry.ENVIRONMENT, *many)


def _container(settings: Settings) -> list[str]:
  """Returns the command of a container, in which no $ has a meaning."""
  words = ['python', '-m', settings.module, *settings.arguments]
  if settings.setup:
    words = ['bash', '-c', f'{settings.setup} && exec "$@"', 'bash', *words]
  return [word.replace('$', '$$') for word in words]


def _kubectl(settings: Settings, *words: str) -> Command:
  context = settings.context and f'--context={settings.context}'
  return command(
    'kubectl', *words, f'--namespace={settings.namespace}', context
  )


def create(settings: Settings) -> Command:
  """Returns what creates the JobSet; unlike `apply`, never over another."""
  path = job_set(settings).path
  return _kubectl(settings, 'create', f'--filename={path}')


def state(settings: Settings) -> Command:
  """Returns what says how the JobSet stands."""
  return _kubectl(settings, 'get', 'jobset', settings.name, '--output=json')


def logs(settings: Settings, begin: str = '--tail=-1') -> Command:
  """Returns what shows all pods' output, from where `begin` says."""
  hosts = slices.get(settings.slice).hosts
  return _kubectl(
    settings,
    *('logs', '--follow', '--prefix', begin),
    f'--max-log-requests={hosts}',
    f'--selector=jobset.sigs.k8s.io/jobset-name={settings.name}',
  )


def delete(settings: Settings) -> Command:
  """Returns what deletes the JobSet; its pods are told to save first."""
  return _kubectl(
    settings, 'delete', 'jobset', settings.name, '--ignore-not-found'
  )


def run(settings: Settings) -> int:
  """Returns the exit code of the job.

  Raises:
    LaunchError: if a tool is missing, or something of that name is there.
  """
  shell.need(settings.target, TOOLS)
  created = False

  def body() -> int:
    """Returns the exit code of the job."""
    nonlocal created
    job_set(settings).write()
    created = True  # From now on there may be something.
    made = shell.run(create(settings))
    if 'AlreadyExists' in made.text:
      created = False  # It is somebody else's.
      raise LaunchError(
        f'--name={settings.name} is there already; give another, or delete '
        f'it:\n{delete(settings)}'
      )
    if made.code or settings.detach:
      return made.code
    return _watch(settings)

  def clean_up() -> bool:
    if not created:
      return True
    if settings.keep or settings.detach:
      say(f'kept; to follow it:\n{logs(settings)}')
      say(f'and to delete it:\n{delete(settings)}')
      return True
    say(f'deleting {settings.name}')
    return shell.delete(delete(settings), GONE)

  return shell.guarded(body, clean_up)


def _watch(settings: Settings) -> int:
  """Returns the exit code of a JobSet, once it has one.

  A cluster that does not answer is asked until it does.
  """
  said = ''
  with contextlib.closing(Logs(settings)) as shown:
    while True:
      found = shell.look(state(settings))
      if found.code and any(words in found.text for words in GONE):
        say(f'the JobSet is not there any more: {found.text.strip()}')
        return FAILED
      status = {} if found.code else json.loads(found.text).get('status', {})
      end, word = _end(status), found.text.strip()
      if not found.code:
        word = _words(status)
      if word != said:
        say(word)
        said = word
      if end or _is_ready(status):
        shown.follow(status.get('restarts', 0), bool(end))
      if end:
        shown.finish()
        return 0 if end['type'] == 'Completed' else FAILED
      time.sleep(settings.poll)


@dataclasses.dataclass
class Logs:
  """Shows what the processes of each start of a JobSet say."""

  settings: Settings
  start: int = -1  # Whose logs were shown last.
  process: subprocess.Popen | None = None  # That shows them.

  def follow(self, start: int, ended: bool) -> None:
    """Begins with those of a start, or goes on where that broke off."""
    if self.process and self.process.poll() is None:
      return
    if start != self.start:
      begin = '--tail=-1'
    elif not ended:
      begin = f'--since={self.settings.poll:.0f}s'
    else:
      return
    self.start = start
    self.process = shell.begin(logs(self.settings, begin))

  def finish(self) -> None:
    """Waits for the last lines."""
    with contextlib.suppress(subprocess.TimeoutExpired):
      self.process.wait(shell.END_WITHIN)

  def close(self) -> None:
    if self.process:
      shell.end(self.process, shell.END_WITHIN)


def _end(status: dict[str, Any]) -> dict[str, Any] | None:
  """Returns the condition that says how a JobSet ended, or None."""
  for condition in status.get('conditions', []):
    ended = condition['type'] in ('Completed', 'Failed')
    if ended and condition['status'] == 'True':
      return condition
  return None


def _is_ready(status: dict[str, Any]) -> bool:
  return any(job['ready'] for job in status.get('replicatedJobsStatus', []))


def _words(status: dict[str, Any]) -> str:
  """Returns how a JobSet stands."""
  if end := _end(status):
    return f'{end["type"]}: {end.get("message", "")}'
  now = 'runs' if _is_ready(status) else 'waits for its hosts'
  starts = status.get('restarts', 0)
  return f'the JobSet {now}, started again {starts} times'
