"""All trajectories of a run, or of two side by side, as one HTML file.

python -m score_jax.viewer WORKDIR [WORKDIR2] [--out=FILE]
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import app, flags

from score_jax.report import command
from score_jax.viewer.build import build


def main(argv: Sequence[str]) -> None:
  """Writes the viewer of the runs that the arguments name."""
  given = flags.FLAGS
  with command.refusals():
    workdirs = command.workdirs(argv[1:], given['workdir'].value, most=2)
    print(build(workdirs, given['out'].value))


if __name__ == '__main__':
  command.define_workdir()
  flags.DEFINE_string('out', None, 'File to write; WORKDIR/viewer.html.')
  app.run(main)
