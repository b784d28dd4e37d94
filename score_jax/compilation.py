"""What is compiled, how long that takes, and where it is kept.

Programs are compiled when they are first called, and again for every other
shape. That costs seconds to minutes each, so steps behind the first should not;
JAX tells of each, and whether it was read from disk instead.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import os
import pathlib
import tempfile
import warnings

import jax

from score_jax.config import ConfigError
from score_jax.places import SCHEME

COMPILED = '/jax/core/compile/backend_compile_duration'
FROM_DISK = '/jax/compilation_cache/cache_hits'
AUTO = 'auto'


@dataclasses.dataclass(frozen=True)
class Program:
  """One program that was not in memory when it was called."""

  name: str
  seconds: float  # Of the compiler, or of reading it from disk.


@dataclasses.dataclass
class Record:
  """What this process has compiled, in that order."""

  programs: list[Program] = dataclasses.field(default_factory=list)
  from_disk: int = 0  # Of the programs, those that were read.


@functools.cache  # JAX has one list of listeners, and so do we.
def record() -> Record:
  """Returns the record of this process; it begins with the first call."""
  found = Record()

  def on_duration(event: str, seconds: float, **about: str | int) -> None:
    if event == COMPILED:
      name = str(about.get('fun_name', 'a program'))
      found.programs.append(Program(name, seconds))

  def on_event(event: str, **about: str | int) -> None:
    del about
    found.from_disk += event == FROM_DISK

  jax.monitoring.register_event_duration_secs_listener(on_duration)
  jax.monitoring.register_event_listener(on_event)
  return found


class Counter:
  """Counts what is compiled from one `take` to the next."""

  def __init__(self):
    self._skip()

  def _skip(self) -> None:
    seen = record()
    self._programs, self._from_disk = len(seen.programs), seen.from_disk

  def new(self) -> list[Program]:
    """Returns the programs since the last `take`."""
    return record().programs[self._programs :]

  def take(self) -> dict[str, float]:
    """Returns the metrics of the step that ends now; the next one begins.

    `compilations`, the programs that were not in memory, `compilations_read`,
    those of them that were read from disk, and `seconds_compile` for both.
    """
    programs = self.new()
    read = record().from_disk - self._from_disk
    self._skip()
    return {
      'compilations': len(programs),
      'compilations_read': read,
      'seconds_compile': sum(program.seconds for program in programs),
    }


def words(programs: list[Program]) -> str:
  """Returns names and seconds, the most expensive programs first."""
  most = sorted(programs, key=lambda program: -program.seconds)
  names = collections.Counter(program.name for program in most)
  listed = [
    name if count == 1 else f'{name} ({count} times)'
    for name, count in list(names.items())[:3]
  ]
  more = f' and {len(names) - 3} more' if len(names) > 3 else ''
  seconds = sum(program.seconds for program in programs)
  return f'{", ".join(listed)}{more} in {seconds:.1f} s'


def keep(folder: str, least_seconds: float) -> str | None:
  """Has programs kept on disk and read from there; returns where, or None.

  What the environment says (JAX_COMPILATION_CACHE_DIR and its like) stays.
  JAX's key is the program, its compiler's version and flags, and the devices,
  so one folder may serve many jobs at once.

  Args:
    folder: on a disk, or gs://BUCKET/FOLDER; 'auto' = score_jax/compiled in the
      user's folder for caches, if it can be written to; '' = nowhere.
    least_seconds: programs that compile faster are not kept.

  Raises:
    ConfigError: if a folder that was named cannot be written to.
  """
  # What model.products=onednn compiles cannot be kept; jax warns each time.
  warnings.filterwarnings('ignore', message='.*onednn-fusion')
  given = jax.config.jax_compilation_cache_dir
  if given or not folder:
    return given or None
  if folder.startswith(SCHEME):
    where = folder
  elif folder == AUTO:
    where = str(_users() / 'score_jax' / 'compiled')
    if _trouble(where):
      return None
  else:
    where = str(pathlib.Path(folder).expanduser().absolute())
    if trouble := _trouble(where):
      raise ConfigError(
        f'compilation.folder={folder} cannot be written to ({trouble}); set it '
        "to a folder that can, or to '' to keep no compiled programs."
      )
  jax.config.update('jax_compilation_cache_dir', where)
  jax.config.update('jax_persistent_cache_min_compile_time_secs', least_seconds)
  return where


def _trouble(folder: str) -> str | None:
  """Returns why a folder cannot be written to, None where it can."""
  try:
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
      return None
  except OSError as error:
    return error.strerror


def _users() -> pathlib.Path:
  """Returns the user's folder for what can be made again."""
  set_by_user = os.environ.get('XDG_CACHE_HOME', '')
  return pathlib.Path(set_by_user or pathlib.Path.home() / '.cache')
