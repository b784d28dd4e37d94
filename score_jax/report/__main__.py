"""Rebuilds report.html and plots/ of a run from its files.

python -m score_jax.report WORKDIR
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import app, flags

from score_jax.report import command
from score_jax.report.build import build


def main(argv: Sequence[str]) -> None:
  """Writes the report of the run that the arguments name."""
  with command.refusals():
    flag = flags.FLAGS['workdir'].value
    [workdir] = command.workdirs(argv[1:], flag, most=1)
    print(build(workdir))


if __name__ == '__main__':
  command.define_workdir()
  app.run(main)
