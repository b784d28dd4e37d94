"""SkyPilot: a managed job, by sky.

The fields are those of docs.skypilot.co/en/latest/reference/yaml-spec.html.
SkyPilot starts the job again by itself, without a limit, and deletes the slice;
the launcher watches and cancels.
"""

from __future__ import annotations

import re
import shlex
import time

from launch import manifest, retry, shell, slices
from launch.gke import variables
from launch.settings import Settings
from launch.shell import Command, command, File, say, Step
from launch.tpu import FOLDER

TOOLS = {'sky': 'docs.skypilot.co; pip install "skypilot[gcp]"'}
FAILED = 1
# What `sky jobs logs` exits with: done; failed, not found, cancelled.
DONE, ENDED = 0, (100, 102, 103)
_COLOURS = re.compile(r'\x1b\[[0-9;]*m')


def plan(settings: Settings) -> list[Step]:
  """Returns what is run; ID stands for the number that sky gives."""
  title = 'submit; SkyPilot starts it again itself, whatever --retries is'
  steps = [Step(title, (task(settings), submit(settings)))]
  if settings.detach:
    return steps
  steps.append(Step('until it ends', (logs('ID'),)))
  if not settings.keep:
    steps.append(Step('when the launcher is told to stop', (cancel('ID'),)))
  return steps


def task(settings: Settings) -> File:
  """Returns the file that describes the job."""
  wanted = slices.get(settings.slice)
  setup = 'bash launch/host.sh packages'
  if settings.setup:
    setup = f'{setup} && {settings.setup}'
  words = ('.venv/bin/python', '-m', settings.module, *settings.arguments)
  document = {
    'name': settings.name,
    'workdir': '.',
    'resources': {
      'infra': settings.infra,
      'accelerators': f'tpu-{wanted.accelerator}',
      'accelerator_args': {
        'runtime_version': settings.runtime or wanted.kind.runtime
      },
      'use_spot': settings.spot,
      'job_recovery': {
        'max_restarts_on_errors': 0,
        'recover_on_exit_codes': [*retry.LOST],
      },
    },
    'envs': dict(v.split('=', 1) for v in variables(wanted)),
    'setup': setup,
    'run': f'exec {shlex.join(words)}',
  }
  return File(f'{FOLDER}/{settings.name}.yaml', manifest.dump(document))


def submit(settings: Settings) -> Command:
  """Returns what submits the task."""
  path = task(settings).path
  what = ('sky', 'jobs', 'launch', '--yes', '--detach-run')
  return command(*what, f'--name={settings.name}', path)


def logs(job: str) -> Command:
  """Returns what shows the job's output until it ends."""
  return command('sky', 'jobs', 'logs', '--follow', job)


def cancel(job: str) -> Command:
  """Returns what ends the job."""
  return command('sky', 'jobs', 'cancel', '--yes', job)


def run(settings: Settings) -> int:
  """Returns the exit code of the job.

  Raises:
    LaunchError: if a tool is missing.
  """
  shell.need(settings.target, TOOLS)
  job = ''

  def body() -> int:
    """Returns the exit code of the job."""
    nonlocal job
    task(settings).write()
    with shell.held('the job is being submitted'):
      made = shell.run(submit(settings))
      found = re.search(r'Job ID: (\d+)', _COLOURS.sub('', made.text))
      job = found[1] if found and not made.code else ''
    if not job:
      say('not submitted, or without a number; `sky jobs queue` tells')
      return made.code or FAILED
    if settings.detach:
      return 0
    code = _watch(settings, job)
    job = ''
    return code

  def clean_up() -> bool:
    if not job:
      return True
    if settings.keep or settings.detach:
      say(f'kept; to follow it: {logs(job)}; to end it: {cancel(job)}')
      return True
    say(f'cancelling job {job}')
    return shell.delete(cancel(job), ())

  return shell.guarded(body, clean_up)


def _watch(settings: Settings, job: str) -> int:
  """Returns the exit code of a job, once it has one."""
  while True:
    code = shell.run(logs(job)).code
    if code == DONE:
      return 0
    if code in ENDED:
      return FAILED
    say(f'job {job} goes on; its log is followed again')
    time.sleep(settings.poll)
