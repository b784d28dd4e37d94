"""Every method side by side: trained, evaluated, tabulated and drawn.

python -m score_jax.table [--workdir=runs/table] [--seeds=3]
  [--methods=score,star_d] [--config=configs/table.py]
  [--config.some.setting=value ...]
"""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Sequence

from score_jax import main as command  # First: it readies the environment.

# isort: split

from absl import app, flags, logging

from score_jax import checks, pages
from score_jax.config import ConfigError

DEFAULT = pathlib.Path(__file__).parents[1] / 'configs' / 'table.py'
_SEEDS = flags.DEFINE_integer('seeds', 3, 'Runs of every method.', 1)
_METHODS = flags.DEFINE_list(
  'methods', [], 'Rows of the table, with commas between; all if not given.'
)


def parse(argv: Sequence[str]) -> list[str]:
  """Returns the arguments behind the flags; see `main.parse`."""
  given = any(a.lstrip('-').split('=')[0] == 'config' for a in argv[1:])
  more = [] if given else [f'--config={DEFAULT}']
  return command.parse([argv[0], *more, *argv[1:]])


def main(argv: Sequence[str]) -> None:
  """Trains and tabulates what the flags name."""
  try:
    if len(argv) > 1:
      raise ConfigError(
        f'{argv[1]!r} is no flag; settings are --config.NAME=VALUE.'
      )
    sys.exit(_run())
  except ConfigError as error:
    print(f'score_jax: {error}', file=sys.stderr)
    sys.exit(2)


def _run() -> int:
  if os.environ.get('SCORE_COORDINATOR'):
    raise ConfigError(
      'score_jax.table is for one process; start it without '
      'SCORE_COORDINATOR (python -m launch --processes=1).'
    )
  logging.set_verbosity(logging.WARNING)
  import jax

  config = flags.FLAGS.config
  workdir = pathlib.Path(flags.FLAGS.workdir or 'runs/table').absolute()
  checks.check(config, jax.device_count(), jax.default_backend())
  if config.checkpoint.folder:
    raise ConfigError(
      f'checkpoint.folder={config.checkpoint.folder} is for one run, and a '
      'table has many; leave it out.'
    )
  from score_jax import notices, run
  from score_jax.journal import say
  from score_jax.laboratory import running
  from score_jax.methods import catalogue
  from score_jax.stopping import Interrupted, Stop

  names = _METHODS.value or list(catalogue.ROWS)
  for name in names:
    catalogue.check_name(name)
  stopped = run.stopped_code()
  stop = Stop()
  stop.listen()
  if config.limits.notices:
    notices.listen(stop.ask)
  try:
    with run.only_one(workdir):
      running.table(config, workdir, names, _SEEDS.value, stop)
  except Interrupted:
    say(f'stopped; the same command goes on from what is saved in {workdir}')
    return stopped
  return run.OK


if __name__ == '__main__':
  pages.ask()
  app.run(main, flags_parser=parse)
