"""A run of several processes under faults, for as long as one likes.

    python -m tests.soak --minutes=60 --seed=0 --processes=2

An unbroken run comes first. Then runs of the same settings follow each other,
each under faults until it has ended, and is compared with the unbroken one:
parameters, metrics, samples and evaluations to the bit. Which fault comes when
is a function of the seed. The exit code is 0 if nothing differs, no process
hangs and none is left behind.

A full disk for all processes needs root, who can mount a small one.
"""

import argparse
import contextlib
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from .harm import small_disk
from .rounds import Soak


def main() -> int:
  """Returns the exit code."""
  parser = argparse.ArgumentParser(
    prog='python -m tests.soak',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--minutes', type=float, default=60.0, help='of faults')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--processes', type=int, default=2)
  parser.add_argument('--devices', type=int, default=2, help='of each process')
  parser.add_argument(
    '--folder', type=pathlib.Path, help='kept; must not exist'
  )
  asked = parser.parse_args()
  for name in ('minutes', 'processes', 'devices'):
    if not vars(asked)[name] > 0:
      parser.error(f'--{name} must be above 0; got {vars(asked)[name]}.')
  with contextlib.ExitStack() as opened:
    folder = asked.folder or pathlib.Path(
      opened.enter_context(tempfile.TemporaryDirectory(prefix='soak-'))
    )
    can_fill = opened.enter_context(small_disk(folder / 'disk'))
    soak = Soak(folder, asked.seed, asked.processes, asked.devices, can_fill)
    wrong = soak.run(asked.minutes)
    print(soak.table(), flush=True)
  for text in wrong:
    print(f'WRONG  {text}', flush=True)
  return 1 if wrong else 0


if __name__ == '__main__':
  sys.exit(main())
