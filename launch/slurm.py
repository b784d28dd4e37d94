"""Slurm, by sbatch; nodes that share this folder."""

from __future__ import annotations

import pathlib
import re
import sys
import time

from launch import retry, shell
from launch.settings import Settings
from launch.shell import Command, command, say, Step
from launch.tpu import FOLDER

TOOLS = dict.fromkeys(('sbatch', 'scontrol', 'scancel'), 'slurm.schedmd.com')
FAILED = 1
SCRIPT = 'launch/slurm.sh'
DONE = 'COMPLETED'
# Ends that Slurm caused, of a job that it did not queue again.
TAKEN = ('PREEMPTED', 'NODE_FAIL', 'BOOT_FAIL', 'TIMEOUT')
ENDED = (DONE, *TAKEN, 'FAILED', 'CANCELLED', 'DEADLINE', 'OUT_OF_MEMORY')


def plan(settings: Settings) -> list[Step]:
  """Returns what is run; ID stands for the number that sbatch gives."""
  steps = [Step('submit', (command('mkdir', '-p', FOLDER), submit(settings)))]
  if settings.detach:
    return steps
  steps.append(Step('until it ends', (state('ID'),)))
  if not settings.keep:
    ends = (*stop('ID'), state('ID'), cancel('ID'))
    steps.append(Step('when the launcher is told to stop: save, and end', ends))
  return steps


def submit(settings: Settings) -> Command:
  """Returns what submits the job."""
  tasks = settings.gpus or settings.processes
  name = settings.name
  several = settings.nodes * tasks > 1
  return command(
    *('sbatch', '--parsable', f'--job-name={name}'),
    *(f'--nodes={settings.nodes}', f'--ntasks-per-node={tasks}'),
    settings.gpus and f'--gpus-per-node={settings.gpus}',
    settings.partition and f'--partition={settings.partition}',
    settings.account and f'--account={settings.account}',
    settings.time and f'--time={settings.time}',
    *('--requeue', '--open-mode=append', f'--output={FOLDER}/{name}-%j.log'),
    f'--signal=TERM@{settings.grace}',  # To the processes, before time is up.
    *(SCRIPT, str(settings.retries), str(settings.grace)),
    *('env', *retry.ENVIRONMENT, several and retry.TOGETHER),
    *(settings.python, '-m', settings.module, *settings.arguments),
  )


def state(job: str) -> Command:
  """Returns what says how the job stands."""
  return command('scontrol', 'show', 'job', '--oneliner', job)


def stop(job: str) -> tuple[Command, ...]:
  """Returns what has the processes save and end, and the job with them.

  A plain scancel tells srun as well, which kills the processes at once.
  """
  return (
    command('scontrol', 'update', f'JobId={job}', 'Requeue=0'),
    command('scancel', '--signal=TERM', job),
  )


def cancel(job: str) -> Command:
  """Returns what ends the job in whatever state it is."""
  return command('scancel', job)


def run(settings: Settings) -> int:
  """Returns the exit code of the job.

  Raises:
    LaunchError: if a tool is missing.
  """
  shell.need(settings.target, TOOLS)
  pathlib.Path(FOLDER).mkdir(parents=True, exist_ok=True)
  job = ''

  def start() -> int:
    """Returns the exit code of one job, submitted and watched."""
    nonlocal job
    with shell.held('the job is being submitted'):
      made = shell.look(submit(settings))
      found = re.match(r'\d+', made.text)
      job = found[0] if found and not made.code else ''
    if not job:
      say(f'not submitted: {made.text.strip()}')
      return FAILED
    say(f'job {job}; its output: {FOLDER}/{settings.name}-{job}.log')
    if settings.detach:
      return 0
    code = _watch(settings, job)
    job = ''
    return code

  def clean_up() -> bool:
    if not job:
      return True
    if settings.keep or settings.detach:
      say(f'kept; to end it: {cancel(job)}')
      return True
    _stop(settings, job)
    say(f'cancelling job {job}')
    return shell.delete(cancel(job), ('Invalid job id',))

  return shell.guarded(lambda: retry.until_done(settings, start), clean_up)


def _stop(settings: Settings, job: str) -> None:
  """Has a job save, and waits for that."""
  say('stopping: the job saves first')
  for words in stop(job):
    if shell.look(words).code:
      return  # It does not run.
  moment = time.monotonic() + settings.grace
  while time.monotonic() < moment and _fields(job).get('JobState') == 'RUNNING':
    time.sleep(min(1, settings.poll))


def _fields(job: str) -> dict[str, str]:
  """Returns what Slurm knows of a job; {} if it does not answer."""
  found = shell.look(state(job))
  return dict(re.findall(r'(\w+)=(\S*)', found.text)) if not found.code else {}


def _watch(settings: Settings, job: str) -> int:
  """Returns the exit code of a job, once it has one."""
  log = pathlib.Path(f'{FOLDER}/{settings.name}-{job}.log')
  said, seen = '', 0
  while True:
    found = shell.look(state(job))
    seen = _show(log, seen)
    if found.code and 'Invalid job id' in found.text:
      say(f'job {job} is not known any more; {log} says how it went')
      return FAILED
    fields = dict(re.findall(r'(\w+)=(\S*)', found.text))
    now = fields.get('JobState', found.text.strip())
    if now != said:
      say(f'job {job}: {now}')
      said = now
    if now in ENDED and not found.code:
      return _code(settings, fields)
    time.sleep(settings.poll)


def _code(settings: Settings, fields: dict[str, str]) -> int:
  """Returns the exit code of a job that has ended, of scontrol's fields."""
  if fields['JobState'] == DONE:
    return 0
  if fields['JobState'] in TAKEN:
    say('Slurm ended the job and did not queue it again')
    return retry.STOPPED
  if fields['JobState'] == 'CANCELLED':
    say('somebody cancelled the job')
    return FAILED
  code, number = map(int, fields['ExitCode'].split(':'))
  code = 128 + number if number else code or FAILED
  if code in retry.LOST and int(fields['Restarts']) >= settings.retries:
    say(f'exit code {code}, after {fields["Restarts"]} starts more')
    return FAILED
  return code


def _show(log: pathlib.Path, seen: int) -> int:
  """Prints what a log says behind its first `seen` bytes; returns its length."""
  if not log.exists():
    return seen
  with log.open('rb') as file:
    file.seek(seen)
    new = file.read()
  sys.stdout.buffer.write(new)
  sys.stdout.flush()
  return seen + len(new)
