"""A TPU VM, or all workers of a TPU pod slice, by gcloud."""

from __future__ import annotations

import dataclasses
import shlex
import time

from launch import retry, shell, slices
from launch.errors import LaunchError, Stopped
from launch.settings import Settings
from launch.shell import Command, command, say, Step

TOOLS = {'gcloud': 'cloud.google.com/sdk', 'git': 'git-scm.com'}
FOLDER = 'runs/launch'  # Of the files that a launch writes here.
FAILED, BROKEN = 1, 255  # 255: ssh itself failed.
GONE = 'NOT_FOUND'
# What gcloud says when there are no chips now, or the service is busy.
BUSY = (
  *('no more capacity', 'Insufficient', 'RESOURCE_EXHAUSTED'),
  *('"code": 8', 'UNAVAILABLE', 'INTERNAL', 'ABORTED', 'DEADLINE_EXCEEDED'),
)


def plan(settings: Settings) -> list[Step]:
  """Returns what is run.

  Raises:
    LaunchError: if the slice is not one of the target's.
  """
  wanted = slices.get(settings.slice)
  if settings.target == 'tpu-vm' and wanted.hosts > 1:
    raise LaunchError(
      f'--slice={settings.slice} has {wanted.hosts} hosts; take '
      '--target=tpu-pod.'
    )
  again = f'{settings.retries} times at most, {settings.pause:g} s apart'
  steps = [
    Step('the code as committed; changes are listed, not sent', pack(settings)),
    Step(f'create {wanted}', (create(settings),)),
  ]
  if settings.queued:
    steps.append(Step('until it is ACTIVE', (queue_state(settings),)))
  steps += [
    Step('the code and its packages, on every host', send(settings)),
    Step('the job, on every host', (start(settings, 1),)),
    Step(
      'when that ends with an error: is the slice READY?', (state(settings),)
    ),
    Step(
      f'if it is not: delete it, and go on from "create" ({again})',
      (delete(settings),),
    ),
    Step('when the launcher is told to stop', (stop(settings),)),
  ]
  if not settings.keep:
    steps.append(Step('at the end, whatever happened', (delete(settings),)))
  return steps


def _gcloud(settings: Settings, *words: str) -> Command:
  project = settings.project and f'--project={settings.project}'
  at = (f'--zone={settings.zone}', project, '--quiet')
  if not settings.zone:
    raise LaunchError('--zone is missing, as --zone=us-west4-a.')
  return command('gcloud', 'compute', 'tpus', *words, *filter(None, at))


def _archive(settings: Settings) -> str:
  return f'{FOLDER}/{settings.name}.tar.gz'


def pack(settings: Settings) -> tuple[Command, ...]:
  """Returns what packs the code."""
  pack = ('git', 'archive', '--format=tar.gz')
  return (
    command('mkdir', '-p', FOLDER),
    command('git', 'status', '--short', '--untracked-files=no'),
    command(*pack, f'--output={_archive(settings)}', 'HEAD'),
  )


def create(settings: Settings) -> Command:
  """Returns what creates the slice, or asks for it in the queue."""
  wanted = slices.get(settings.slice)
  runtime = settings.runtime or wanted.kind.runtime
  spot = ('--spot',) if settings.spot else ()
  kind = f'--accelerator-type={wanted.accelerator}'
  if not settings.queued:
    what = ('tpu-vm', 'create', settings.name, kind, f'--version={runtime}')
    return _gcloud(settings, *what, *spot)
  return _gcloud(
    settings,
    *('queued-resources', 'create', settings.name),
    *(f'--node-id={settings.name}', kind, f'--runtime-version={runtime}'),
    *spot,
  )


def queue_state(settings: Settings) -> Command:
  """Returns what says how the request in the queue stands."""
  what = ('queued-resources', 'describe', settings.name)
  return _gcloud(settings, *what, '--format=value(state.state)')


def send(settings: Settings) -> tuple[Command, ...]:
  """Returns what brings the code to all hosts, and readies it there."""
  name, archive = settings.name, _archive(settings)
  unpack = f'mkdir -p {name} && tar -xzf {name}.tar.gz -C {name}'
  words = ['bash', f'{name}/launch/host.sh', 'setup', name]
  setup = shlex.join([*words, *filter(None, [settings.setup])])
  return (
    _gcloud(settings, 'tpu-vm', 'scp', archive, f'{name}:', '--worker=all'),
    _ssh(settings, f'{unpack} && {setup}'),
  )


def _ssh(settings: Settings, words: str) -> Command:
  # A host that was taken away says nothing: ssh has to ask.
  alive = ('ServerAliveInterval=30', 'ServerAliveCountMax=6')
  return _gcloud(
    settings,
    *('tpu-vm', 'ssh', settings.name, '--worker=all'),
    *(f'--ssh-flag=-o{option}' for option in alive),
    f'--command={words}',
  )


def _host(settings: Settings, action: str, *words: str) -> str:
  script = f'{settings.name}/launch/host.sh'
  return shlex.join(['bash', script, action, settings.name, *words])


def start(settings: Settings, job: int) -> Command:
  """Returns what runs a job, or follows it where it runs already."""
  many = slices.get(settings.slice).hosts > 1
  variables = (*retry.ENVIRONMENT, *((retry.TOGETHER,) if many else ()))
  words = ('.venv/bin/python', '-m', settings.module, *settings.arguments)
  return _ssh(settings, _host(settings, 'run', str(job), *variables, *words))


def stop(settings: Settings) -> Command:
  """Returns what has the job save and end."""
  return _ssh(settings, _host(settings, 'stop', str(settings.grace)))


def state(settings: Settings) -> Command:
  """Returns what says how the slice stands."""
  what = ('tpu-vm', 'describe', settings.name, '--format=value(state)')
  return _gcloud(settings, *what)


def delete(settings: Settings) -> Command:
  """Returns what deletes the slice, and the request for it."""
  if settings.queued:
    what = ('queued-resources', 'delete', settings.name, '--force')
    return _gcloud(settings, *what)
  return _gcloud(settings, 'tpu-vm', 'delete', settings.name)


@dataclasses.dataclass
class Lease:
  """What there is of the slice."""

  created: bool = False  # Something may be there that has to be deleted.
  ready: bool = False  # The code is there; the next job can start.
  job: int = 1  # Number of the job that runs, or is started next.


def run(settings: Settings) -> int:
  """Returns the exit code of the job.

  Raises:
    LaunchError: if a tool is missing, or something of that name is there.
  """
  shell.need(settings.target, TOOLS)
  lease = Lease()

  def body() -> int:
    """Returns the exit code of the job."""
    for words in pack(settings):
      if shell.run(words).code:
        return FAILED
    if settings.keep:
      lease.created = _is_there(settings)
    try:
      return retry.until_done(settings, lambda: _attempt(settings, lease))
    except Stopped:
      if lease.ready:
        say('stopping: the job saves first')
        shell.look(stop(settings), settings.grace + shell.LATEST)
      raise

  def clean_up() -> bool:
    if not lease.created:
      return True
    if settings.keep:
      say(f'kept, and it costs money; to delete it:\n{delete(settings)}')
      return True
    return _delete(settings, lease)

  return shell.guarded(body, clean_up)


def _is_there(settings: Settings) -> bool:
  """Returns whether a slice that was kept can be used."""
  found = shell.look(state(settings))
  if found.code and GONE in found.text:
    return False
  if found.code or found.text.strip() != 'READY':
    raise LaunchError(
      f'--name={settings.name} cannot be used ({found.text.strip()}); delete '
      f'it, or give another name:\n{delete(settings)}'
    )
  return True


def _delete(settings: Settings, lease: Lease) -> bool:
  say(f'deleting {settings.name}')
  lease.created = not shell.delete(delete(settings), (GONE,))
  lease.ready = False
  return not lease.created


def _attempt(settings: Settings, lease: Lease) -> int:
  """Returns the exit code of one start, made anew if the slice was lost."""
  if not lease.created and (code := _create(settings, lease)):
    return code
  code = 0
  if not lease.ready:
    for words in send(settings):
      code = code or shell.run(words).code
    lease.ready = code == 0
  if lease.ready:
    code = shell.run(start(settings, lease.job)).code
  return _judged(settings, lease, code) if code else 0


def _create(settings: Settings, lease: Lease) -> int:
  """Returns 0 once the slice is there, or an exit code."""
  lease.created = True  # From now on there may be something.
  made = shell.run(create(settings))
  if made.code == 0:
    return _wait_in_queue(settings, lease) if settings.queued else 0
  if 'ALREADY_EXISTS' in made.text or 'already exists' in made.text:
    lease.created = False  # It is somebody else's.
    raise LaunchError(
      f'--name={settings.name} is there already; give another, use it with '
      f'--keep, or delete it:\n{delete(settings)}'
    )
  _delete(settings, lease)
  if 'Quota' in made.text or 'quota' in made.text:
    say('that is more than the quota; ask for more, or for another --slice')
    return FAILED
  return retry.STOPPED if any(b in made.text for b in BUSY) else FAILED


def _wait_in_queue(settings: Settings, lease: Lease) -> int:
  """Returns 0 once a request in the queue was met, or an exit code."""
  said = ''
  while True:
    found = shell.look(queue_state(settings)).text.strip()
    if found != said:
      say(f'in the queue: {found}')
    said = found
    if found == 'ACTIVE':
      return 0
    if found in ('FAILED', 'SUSPENDING', 'SUSPENDED') or GONE in found:
      _delete(settings, lease)
      return retry.STOPPED
    time.sleep(settings.poll)


def _judged(settings: Settings, lease: Lease, code: int) -> int:
  """Returns the exit code that tells whether another start makes sense."""
  found = shell.look(state(settings))
  text = found.text.strip()
  if found.code and GONE not in text:
    say(f'how the slice stands is not known: {text}')
    return retry.STOPPED  # The job may run; the next start follows it.
  if text == 'READY':
    if code == BROKEN:
      say('the connection broke; what runs there runs on')
      return retry.STOPPED
    lease.job += 1
    return code
  say(f'the slice was taken away ({text})')
  _delete(settings, lease)
  lease.job += 1
  return retry.STOPPED
