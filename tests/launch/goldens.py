"""What a dry run prints, target by target.

After a change that is meant, look at what it does to the files:

    python tests/launch/goldens.py && git diff tests/launch/golden
"""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = pathlib.Path(__file__).parent / 'golden'

# A job whose words a shell, YAML or Kubernetes could take for something else.
HARD = (
  '--config.task.instruction=Don\'t: "$(HOME)" $X $$x$$ `a` # é\\n',
  '--config.x=',
)
JOB = ('--config=configs/stage2.py:gemma2_2b_math',)
LOCAL = (*JOB, '--workdir=runs/gemma')
KEPT = (*LOCAL, '--config.checkpoint.folder=gs://b/gemma')
MOUNTED = (*JOB, '--workdir=/mnt/bucket/gemma')
CASES = {
  'local': (
    *('--target=local', '--processes=2', '--devices=4', '--port=4321'),
    *('--python=python', '--', *LOCAL, *HARD),
  ),
  'local_single': ('--target=local', '--python=python', '--', *LOCAL),
  'tpu_vm': (
    *('--target=tpu-vm', '--slice=v5e:2x4', '--zone=us-west4-a'),
    *('--name=mine', '--keep', '--runtime=tpu-ubuntu2204-base'),
    *('--', *MOUNTED),
  ),
  'tpu_pod': (
    *('--target=tpu-pod', '--slice=v5e:4x4', '--zone=us-west4-a', '--spot'),
    *('--project=p', '--setup=make sandbox', '--', *MOUNTED, *HARD),
  ),
  'tpu_pod_queued': (
    *('--target=tpu-pod', '--slice=v5p:4x4x4', '--zone=us-east5-a'),
    *('--queued', '--retries=3', '--pause=60', '--', *MOUNTED),
  ),
  'gke': (
    *('--target=gke', '--slice=v6e:8x8', '--spot', '--grace=25'),
    *('--image=us-docker.pkg.dev/p/r/score:1', '--context=c', '--namespace=n'),
    *('--claim=shared', '--', *MOUNTED, *HARD),
  ),
  'gke_detached': (
    *('--target=gke', '--slice=v5e:2x4', '--detach', '--image=score'),
    *('--setup=echo "$(hostname)"', '--', *KEPT),
  ),
  'slurm': (
    *('--target=slurm', '--nodes=4', '--gpus=8', '--partition=long'),
    *('--account=a', '--time=2-00:00:00', '--grace=300', '--python=python'),
    *('--', *LOCAL, *HARD),
  ),
  'skypilot': (
    *('--target=skypilot', '--slice=v5e:4x4', '--spot', '--infra=gcp/us-west4'),
    *('--', *MOUNTED, *HARD),
  ),
}


def printed(name):
  """Returns what the dry run of a case prints."""
  left = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}
  return subprocess.run(
    [sys.executable, '-m', 'launch', '--dry-run', *CASES[name]],
    cwd=ROOT,
    env=left | {'PATH': '/nowhere'},
    capture_output=True,
    text=True,
    check=True,
  ).stdout


def golden(name):
  return FOLDER / f'{name}.sh'


if __name__ == '__main__':
  for case in CASES:
    golden(case).write_text(printed(case))
