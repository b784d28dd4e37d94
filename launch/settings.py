"""What can be set: each flag once, with its default and its targets."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Any

from launch import slices
from launch.errors import LaunchError, nearest

ROOT = pathlib.Path(__file__).parents[1]
TPU = ('tpu-vm', 'tpu-pod')
CLOUD = (*TPU, 'gke', 'skypilot')  # Whose disks go with the machines.
SERVED = ('gke', 'slurm', 'skypilot')  # By a server that outlives the launcher.
TARGETS = ('local', *TPU, 'gke', 'slurm', 'skypilot')
USAGE = (
  'python -m launch --target=TARGET [SETTING ...] [--dry-run] -- ARGUMENTS of '
  'score_jax.main'
)


def _python() -> str:
  own = ROOT / '.venv' / 'bin' / 'python'
  return str(own) if own.exists() else sys.executable


def _set(default: Any, help: str, *targets: str) -> Any:
  """Returns a field: its default, what it is, and whose it is ((): all)."""
  return dataclasses.field(
    default=default, metadata={'help': help, 'targets': targets}
  )


@dataclasses.dataclass(frozen=True)
class Settings:
  """What a launch is told. A text of '' is not given."""

  target: str = _set('', f'One of {", ".join(TARGETS)}.')
  name: str = _set('score', 'Of all that is created; a-z, 0-9 and -.')
  module: str = _set('score_jax.main', 'What python -m runs.')
  dry_run: bool = _set(False, 'Print what would be run; run nothing.')
  keep: bool = _set(False, 'Delete nothing at the end.')
  retries: int = _set(
    20, 'Starts after the first, if it is lost; SkyPilot has no limit.'
  )
  pause: float = _set(30.0, 'Seconds before each of them.')
  poll: float = _set(15.0, 'Seconds between two looks at the state.')
  grace: int = _set(60, 'Seconds that a process has to save and end.')
  detach: bool = _set(False, 'Return once the job is submitted.', *SERVED)
  python: str = _set(_python(), 'The interpreter.', 'local', 'slurm')
  processes: int = _set(
    1, 'Processes on this machine, or on each node.', 'local', 'slurm'
  )
  devices: int = _set(
    0, 'CPU devices that each process is given; 0: those it finds.', 'local'
  )
  port: int = _set(0, 'Where processes meet; 0: one that is free.', 'local')
  slice: str = _set('', 'A TPU slice, as v5e:4x4.', *CLOUD)
  spot: bool = _set(False, 'Cheaper chips that may be taken away.', *CLOUD)
  setup: str = _set(
    '', 'A shell command that each host runs before the job.', *CLOUD
  )
  zone: str = _set('', 'As us-west4-a.', *TPU)
  project: str = _set('', 'If it is not the one that gcloud is set to.', *TPU)
  queued: bool = _set(False, 'Wait in the queue for chips.', *TPU)
  runtime: str = _set(
    '', "Software of the TPU VM; '': what its chips need.", *TPU, 'skypilot'
  )
  image: str = _set('', 'A container image that launch/Dockerfile made.', 'gke')
  context: str = _set('', 'Of kubectl, if it is not the current one.', 'gke')
  namespace: str = _set('default', 'Where the JobSet is created.', 'gke')
  claim: str = _set(
    '',
    'A PersistentVolumeClaim that all hosts may write; it is mounted where the '
    'work directory lies: at /mnt/runs for --workdir=/mnt/runs/one.',
    'gke',
  )
  nodes: int = _set(1, 'Machines.', 'slurm')
  gpus: int = _set(0, 'GPUs of each node; one process each.', 'slurm')
  partition: str = _set('', "As sbatch has it; '': its default.", 'slurm')
  account: str = _set('', "As sbatch has it; '': its default.", 'slurm')
  time: str = _set('', "As sbatch has it; '': its default.", 'slurm')
  infra: str = _set('gcp', 'Where, as gcp/us-west4.', 'skypilot')
  arguments: tuple[str, ...] = ()  # Of the module.


FIELDS = {f.name: f for f in dataclasses.fields(Settings) if f.metadata}


def flag(name: str) -> str:
  """Returns how a setting is written on the command line."""
  return '--' + name.replace('_', '-')


class _Parser(argparse.ArgumentParser):
  def error(self, message: str) -> None:
    raise LaunchError(f'{message}; usage: {USAGE}.')


def _help(field: dataclasses.Field) -> str:
  parts = [field.metadata['help']]
  if field.default not in ('', False):
    parts.append(f'Default: {field.default}.')
  if field.metadata['targets']:
    parts.append(f'[{", ".join(field.metadata["targets"])}]')
  return ' '.join(parts).replace('%', '%%')


def _parser() -> argparse.ArgumentParser:
  parser = _Parser(
    prog='python -m launch',
    usage=USAGE,
    allow_abbrev=False,
    argument_default=argparse.SUPPRESS,
  )
  for name, field in FIELDS.items():
    words = _help(field)
    if isinstance(field.default, bool):
      parser.add_argument(flag(name), action='store_true', help=words)
    else:
      kind, shown = type(field.default), field.type.upper()
      parser.add_argument(flag(name), type=kind, metavar=shown, help=words)
  return parser


def parse(argv: Sequence[str]) -> Settings:
  """Returns the settings of a command line.

  Raises:
    LaunchError: if one of them is unknown, of another target, or not fit.
  """
  own, arguments = [*argv], []
  if '--' in own:
    at = own.index('--')
    own, arguments = own[:at], own[at + 1 :]
  given, rest = _parser().parse_known_args(own)
  if rest:
    raise LaunchError(_unknown(rest[0]))
  settings = Settings(**vars(given), arguments=tuple(arguments))
  _check_target(settings, vars(given))
  _check_values(settings)
  return settings


def _unknown(argument: str) -> str:
  name = argument.partition('=')[0]
  jobs = name.startswith(('--config', '--workdir'))
  hint = '' if jobs else nearest(name, map(flag, FIELDS))
  return f'{name} is not a setting{hint}; what the job takes goes behind --.'


def _check_target(settings: Settings, given: dict[str, Any]) -> None:
  """Refuses what is no target, or is not the target's."""
  target = settings.target
  if target not in TARGETS:
    raise LaunchError(
      f'--target must be one of {", ".join(TARGETS)}; got {target!r}'
      f'{nearest(target, TARGETS)}.'
    )
  for name in given:
    whose = FIELDS[name].metadata['targets']
    if whose and target not in whose:
      raise LaunchError(
        f'{flag(name)} is for --target={" or ".join(whose)}, not for {target}; '
        'leave it out.'
      )


def _check_values(settings: Settings) -> None:
  """Refuses what no target can use."""
  if not re.fullmatch('[a-z]([-a-z0-9]{0,28}[a-z0-9])?', settings.name):
    raise LaunchError(
      '--name must be at most 30 of a-z, 0-9 and -, a letter first and no - at '
      f'the end; got {settings.name!r}.'
    )
  for name, least in {
    **dict.fromkeys(('retries', 'pause', 'poll', 'devices', 'gpus'), 0),
    **dict.fromkeys(('grace', 'processes', 'nodes'), 1),
  }.items():
    value = vars(settings)[name]
    if value < least:
      raise LaunchError(f'{flag(name)} must be at least {least}; got {value}.')
  if settings.gpus and settings.processes > 1:
    raise LaunchError(
      f'--gpus={settings.gpus} means one process for each GPU of a node; leave '
      f'out --processes={settings.processes}.'
    )
  for text in vars(settings).values():
    if isinstance(text, str) and not text.isprintable():
      raise LaunchError(f'{text!r} has characters that cannot be printed.')
  if settings.module == 'score_jax.main':
    _check_job(settings)
  if settings.target in CLOUD:
    _check_cloud(settings)


def _check_job(settings: Settings) -> None:
  """Refuses what the job would refuse on machines that are paid for."""
  recipe = last(settings.arguments, 'config').partition(':')[0]
  if recipe and not (ROOT / recipe).is_file():
    known = [f'configs/{x.name}' for x in (ROOT / 'configs').glob('*.py')]
    raise LaunchError(
      f'--config={recipe} is no file of this folder{nearest(recipe, known)}.'
    )
  bucket = last(settings.arguments, CHECKPOINTS)
  if '://' in bucket and not bucket.startswith('gs://'):
    raise LaunchError(
      f'--{CHECKPOINTS}={bucket} is no bucket of Google Cloud Storage; give '
      'gs://BUCKET/FOLDER, or a folder.'
    )


def _check_cloud(settings: Settings) -> None:
  """Refuses a slice that is not there, and results that would go with it."""
  if not settings.slice:
    raise LaunchError(
      '--slice is missing; configs/models.py names one for each model, as '
      '--slice=v5e:4x4.'
    )
  where = last(settings.arguments, 'workdir')
  if where.startswith('/mnt/'):
    if settings.target == 'gke' and not settings.claim:
      raise LaunchError(
        f'--workdir={where} is on the disk of a pod, which goes with it; give '
        '--claim=NAME, a PersistentVolumeClaim that all hosts may write '
        '(ReadWriteMany), which is mounted there.'
      )
    return
  wanted = slices.SLICES.get(settings.slice)
  kept = last(settings.arguments, CHECKPOINTS).startswith('gs://')
  if kept and wanted and wanted.hosts == 1 and '://' not in where:
    return
  raise LaunchError(
    f'--workdir={where or "(none)"} does not outlive the slice; give behind -- '
    'a folder under /mnt, as --workdir=/mnt/runs/one, where --setup mounts '
    'what stays and all hosts see; of one host, any folder does with '
    f'--{CHECKPOINTS}=gs://BUCKET/FOLDER.'
  )


CHECKPOINTS = 'config.checkpoint.folder'  # What makes up for a lost --workdir.


def last(arguments: Sequence[str], flag: str) -> str:
  """Returns the value that a flag of a job has; '' if it is not given."""
  found = ''
  for argument, after in itertools.pairwise([*arguments, '']):
    name, equals, value = argument.partition('=')
    if name in (f'--{flag}', f'-{flag}'):
      found = value if equals else after
  return found
