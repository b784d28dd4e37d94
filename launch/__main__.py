"""Settings in, a job on its target out.

python -m launch --target=TARGET [SETTING ...] [--dry-run] -- ARGUMENTS
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence

from launch import gke, local, skypilot, slurm, tpu
from launch.errors import LaunchError, Stopped
from launch.settings import parse, ROOT

TARGETS = {
  'local': local,
  'tpu-vm': tpu,
  'tpu-pod': tpu,
  'gke': gke,
  'slurm': slurm,
  'skypilot': skypilot,
}
REFUSED = 2


def main(argv: Sequence[str]) -> int:
  """Returns the exit code of a launch."""
  try:
    settings = parse(argv)
    if pathlib.Path.cwd() != ROOT:
      raise LaunchError(f'it is run from {ROOT}; go there first.')
    target = TARGETS[settings.target]
    steps = target.plan(settings)
    if settings.dry_run:
      print('\n\n'.join(map(str, steps)))
      return 0
    return target.run(settings)
  except LaunchError as error:
    print(f'launch: {error}', file=sys.stderr)
    return REFUSED
  except Stopped as stopped:
    return stopped.code


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
