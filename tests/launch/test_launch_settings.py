"""What is refused is refused in one line that says what to do."""

import pathlib
import shlex
import subprocess
import sys

import pytest

from configs import models
from launch import settings, slices
from launch.__main__ import TARGETS
from launch.errors import LaunchError
from score_jax import chips

ROOT = pathlib.Path(__file__).parents[2]
MOUNTED = ('--', '--workdir=/mnt/b/r')


@pytest.mark.parametrize(
  ('arguments', 'text'),
  [
    ([], '--target must be one of local, tpu-vm, tpu-pod, gke, slurm,'),
    (['--target=slrum'], "got 'slrum' (did you mean slurm?)."),
    (
      ['--target=local', '--proceses=2'],
      '--proceses is not a setting (did you mean --processes?); what the job '
      'takes goes behind --.',
    ),
    (
      ['--target=local', '--config=configs/stage2.py'],
      '--config is not a setting; what the job takes goes behind --.',
    ),
    (
      ['--target=local', '--zone=us-west4-a'],
      '--zone is for --target=tpu-vm or tpu-pod, not for local; leave it out.',
    ),
    (
      ['--target=tpu-pod', '--detach'],
      '--detach is for --target=gke or slurm or skypilot, not for tpu-pod;',
    ),
    (['--target=local', '--processes=0'], 'must be at least 1; got 0.'),
    (['--target=local', '--pause=-1'], '--pause must be at least 0; got -1.0.'),
    (['--target=local', '--processes=two'], "invalid int value: 'two'; usage"),
    (
      ['--target=slurm', '--gpus=8', '--processes=2'],
      '--gpus=8 means one process for each GPU of a node; leave out',
    ),
    (['--target=local', '--name=My_Job'], "got 'My_Job'."),
    (['--target=local', '--python=a\nb'], 'cannot be printed'),
    (
      ['--target=gke', *MOUNTED],
      '--slice is missing; configs/models.py names one for each model',
    ),
    (
      ['--target=gke', '--slice=v5e:4x4'],
      '--workdir=(none) does not outlive the slice; give behind -- a folder '
      'under /mnt, as --workdir=/mnt/runs/one,',
    ),
    (
      ['--target=gke', '--slice=v5e:4x4', '--', '--workdir', 'runs/x'],
      '--workdir=runs/x does not outlive the slice',
    ),
    (
      ['--target=gke', '--slice=v5e:4x4', '--', '--workdir=gs://BUCKET/run'],
      '--workdir=gs://BUCKET/run does not outlive the slice',
    ),
    (
      [
        *('--target=gke', '--slice=v5e:2x4', '--', '--workdir=gs://BUCKET/run'),
        '--config.checkpoint.folder=gs://BUCKET/run',
      ],
      'of one host, any folder does with --config.checkpoint.folder=gs://BUCK',
    ),
    (
      ['--target=gke', '--slice=v5e:4x4', *MOUNTED],
      '--workdir=/mnt/b/r is on the disk of a pod, which goes with it; give '
      '--claim=NAME',
    ),
    (
      ['--target=local', '--', '--config=configs/stage3.py'],
      '--config=configs/stage3.py is no file of this folder (did you mean '
      'configs/stage',
    ),
    (
      ['--target=local', '--', '--config.checkpoint.folder=s3://b/x'],
      '--config.checkpoint.folder=s3://b/x is no bucket of Google Cloud',
    ),
    (  # Four hosts, which have to see one another's files.
      [
        *('--target=gke', '--slice=v5e:4x4', '--', '--workdir=runs/x'),
        '--config.checkpoint.folder=gs://BUCKET/run',
      ],
      '--workdir=runs/x does not outlive the slice',
    ),
  ],
)
def test_a_bad_setting_is_told_with_its_value_and_a_remedy(arguments, text):
  with pytest.raises(LaunchError) as error:
    settings.parse(arguments)
  assert text in str(error.value)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('arguments', 'text'),
  [
    (
      ['--target=tpu-vm', '--slice=v5e:4x4', '--zone=z'],
      '--slice=v5e:4x4 has 4 hosts; take --target=tpu-pod.',
    ),
    (['--target=tpu-vm', '--slice=v5e:2x4'], '--zone is missing, as --zone='),
    (
      ['--target=gke', '--slice=v5e:2x4', '--claim=c'],
      '--image is missing: a container',
    ),
    (
      ['--target=gke', '--slice=v5e:4x5', '--image=i', '--claim=c'],
      '--slice: v5e is rented as 1x1, 2x2, 2x4, 4x4, 4x8, 8x8, 8x16, 16x16; '
      "got 'v5e:4x5'.",
    ),
    (
      ['--target=skypilot', '--slice=v5:4x4'],
      '--slice must begin with one of v4, v5e, v5p, v6e and a colon, as '
      "v5e:4x4; got 'v5:4x4' (did you mean v5",
    ),
  ],
)
def test_what_a_target_cannot_use_is_refused(launches, arguments, text):
  code, said, errors = launches.run(*arguments, *MOUNTED)
  assert (code, said) == (2, '')
  assert text in errors
  assert errors.count('\n') == 1
  assert launches.calls() == []


def test_with_checkpoints_in_a_bucket_one_host_needs_no_mounted_folder():
  job = ('--workdir=runs/x', '--config.checkpoint.folder=gs://BUCKET/run')
  found = settings.parse(['--target=tpu-vm', '--slice=v5e:2x4', '--', *job])
  assert found.arguments == job


def test_what_stands_behind_the_dashes_is_the_jobs_alone():
  found = settings.parse(
    ['--target=local', '--', '--target=x', '--', '--dry-run']
  )
  assert found.arguments == ('--target=x', '--', '--dry-run')
  assert (found.target, found.dry_run) == ('local', False)


@pytest.mark.parametrize(
  ('arguments', 'found'),
  [
    (['--workdir=a'], 'a'),
    (['-workdir', 'b', '--x'], 'b'),
    (['--workdir=a', '--workdir=c=d'], 'c=d'),
    (['--workdirs=a', '--workdir'], ''),
  ],
)
def test_a_work_directory_is_found_as_absl_finds_it(arguments, found):
  assert settings.last(arguments, 'workdir') == found


def test_a_launch_from_another_folder_is_told_where_to_go(launches, tmp_path):
  ended = subprocess.run(
    [sys.executable, '-m', 'launch', '--target=local', '--dry-run'],
    cwd=tmp_path,
    env=launches.environment() | {'PYTHONPATH': str(launches.root)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert ended.returncode == 2
  assert (
    ended.stderr == f'launch: it is run from {launches.root}; go there first.\n'
  )


# From cloud.google.com/tpu/docs, by hand: chips, hosts, accelerator type.
PUBLISHED = {
  'v4:2x2x1': (4, 1, 'v4-8'),
  'v4:4x4x4': (64, 16, 'v4-128'),
  'v5e:1x1': (1, 1, 'v5litepod-1'),
  'v5e:2x4': (8, 1, 'v5litepod-8'),
  'v5e:4x4': (16, 4, 'v5litepod-16'),
  'v5e:16x16': (256, 64, 'v5litepod-256'),
  'v5p:2x2x2': (8, 2, 'v5p-16'),
  'v5p:8x16x16': (2048, 512, 'v5p-4096'),
  'v6e:2x2': (4, 1, 'v6e-4'),
  'v6e:8x8': (64, 16, 'v6e-64'),
}


@pytest.mark.parametrize('name', PUBLISHED)
def test_a_slice_has_the_chips_hosts_and_type_that_are_published(name):
  found = slices.get(name)
  assert (found.chips, found.hosts, found.accelerator) == PUBLISHED[name]


@pytest.mark.parametrize('name', slices.SLICES)
def test_a_slice_is_one_that_the_planner_knows_of_the_same_size(name):
  assert chips.parse(name).devices == slices.get(name).chips


def test_every_chip_of_the_planner_and_every_models_slice_can_be_rented():
  assert set(slices.KINDS) == set(chips.CHIPS)
  assert {m.slice for m in models.MODELS.values()} <= set(slices.SLICES)


def test_two_slices_never_have_one_type():
  types = [found.accelerator for found in slices.SLICES.values()]
  assert len(set(types)) == len(types)


def _examples():
  """Returns the arguments of each launch that the page shows."""
  text = (ROOT / 'docs' / 'launch.md').read_text().replace('\\\n', ' ')
  start = '    python -m launch --target='
  lines = [x for x in text.splitlines() if x.startswith(start)]
  return [shlex.split(x)[3:] for x in lines if 'TARGET' not in x]


@pytest.mark.parametrize('arguments', _examples(), ids=lambda a: a[0])
def test_an_example_of_the_page_can_be_planned(arguments):
  found = settings.parse(arguments)
  assert TARGETS[found.target].plan(found)


def test_the_page_has_an_example_of_every_target():
  shown = [arguments[0].partition('=')[2] for arguments in _examples()]
  assert [*dict.fromkeys(shown)] == [*settings.TARGETS]
