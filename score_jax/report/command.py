"""Which runs a command is about, and how it refuses them.

The flags are defined when a command starts and not when it is imported, so
that commands with a flag of the same name can be imported together.
"""

from __future__ import annotations

import contextlib
import pathlib
import sys
from collections.abc import Iterator, Sequence

from absl import flags

from score_jax.config import ConfigError


def define_workdir() -> None:
  """Adds --workdir, which may also stand without its name."""
  flags.DEFINE_string('workdir', None, 'Of the run; or as first argument.')


def workdirs(
  arguments: Sequence[str], flag: str | None, most: int
) -> list[pathlib.Path]:
  """Returns the work directories that a command line names.

  Args:
    arguments: those without a flag.
    flag: the value of --workdir, or None; it comes first.
    most: how many may be named.

  Raises:
    ConfigError: if none is named, or more than `most`, or one holds no run.
  """
  named = [flag] * bool(flag) + list(arguments)
  if not 1 <= len(named) <= most:
    wanted = 'one work directory' if most == 1 else f'1 to {most} directories'
    raise ConfigError(
      f'{wanted} must be named, as --workdir=runs/demo or runs/demo alone; got '
      f'{" ".join(named) or "none"}.'
    )
  for name in named:
    if not (pathlib.Path(name) / 'config.json').is_file():
      raise ConfigError(
        f'--workdir={name} holds no run (no config.json); name a directory that '
        'a run has written.'
      )
  return [pathlib.Path(name) for name in named]


@contextlib.contextmanager
def refusals() -> Iterator[None]:
  """Ends the program with one line where something cannot be read or written."""
  try:
    yield
  except (ConfigError, OSError) as error:
    print(f'score_jax: {error}', file=sys.stderr)
    sys.exit(2)
