"""Which command line shuts a process in, and what it still finds there."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import os
import pathlib
import resource
import secrets
import shutil
import sys

from score_jax.graders import calls

# Beside these, /proc and an empty /tmp: the interpreter and numpy.
_SYSTEM = ('/lib', '/lib64', '/lib32', '/libx32', '/bin', '/sbin')
_PREFIX, _PACKAGES = '/python', '/packages'
_FREE_UIDS = range(10**9, 2 * 10**9)  # Nobody's: each program gets one of them.
ENVIRONMENT = {
  'PATH': '/usr/bin:/bin',
  'HOME': '/tmp',
  'TMPDIR': '/tmp',
  'LANG': 'C.UTF-8',
  'PYTHONHASHSEED': '0',  # The same program gives the same verdict.
  # Each reserves memory for itself, beyond the limit for nothing.
  'OPENBLAS_NUM_THREADS': '1',
  'OMP_NUM_THREADS': '1',
  'MALLOC_ARENA_MAX': '1',
}


@dataclasses.dataclass(frozen=True)
class Limits:
  """Of one program and its tests."""

  seconds: float  # Of the clock, from the program's start to the last test.
  memory_mb: int  # Of each process, and of all processes of one sandbox.
  processes: int = 32  # And threads.
  disk_mb: int = 64  # Of the temporary folder; it counts as memory, too.
  files: int = 128  # Open at once.
  entries: int = 50_000  # Files and folders in the temporary folder.
  # Of processor time of the program, which a busy machine does not stretch.
  cpu_seconds: float = float('inf')
  output_kb: int = 8192  # A program that prints more is ended.

  def resources(self) -> dict[str, int]:
    """Returns {name in `resource`: limit}, none above what holds already."""
    seconds = int(self.seconds) + 2  # The clock comes first but with threads.
    wanted = {
      'RLIMIT_CPU': seconds,
      'RLIMIT_AS': self.memory_mb << 20,
      'RLIMIT_NPROC': self.processes,
      'RLIMIT_FSIZE': self.disk_mb << 20,
      'RLIMIT_NOFILE': self.files,
      'RLIMIT_CORE': 0,
      'RLIMIT_MSGQUEUE': 0,
    }
    return {name: _lower(name, value) for name, value in wanted.items()}


def _lower(name: str, value: int) -> int:
  _, hard = resource.getrlimit(getattr(resource, name))
  return value if hard == resource.RLIM_INFINITY else min(value, hard)


def is_root() -> bool:
  """Returns whether this process may do all that the system can."""
  return os.geteuid() == 0


def bubblewrap() -> str | None:
  """Returns the path of bubblewrap, or None without it."""
  found = shutil.which('bwrap')
  # An ordinary user's sandbox needs `unshare` as well, see `command`.
  return found if is_root() or shutil.which('unshare') else None


def throw_away_uid(caged: bool) -> int | None:
  """Returns a user that nothing else runs as; None where there can be none."""
  if not (caged and is_root()):
    return None
  return _FREE_UIDS.start + secrets.randbelow(len(_FREE_UIDS))


def filter_calls(caged: bool) -> bytes:
  """Returns the filter of system calls that bubblewrap is to set, see `calls`.

  Nothing where the process sets its own: without bubblewrap, and where a
  namespace has yet to be made inside it.
  """
  name = calls.machine()
  return calls.program(name) if caged and is_root() and name else b''


def command(limits: Limits, caged: bool, filter_: int | None) -> list[str]:
  """Returns the start of a command line, up to the interpreter's options.

  Namespaces of their own mean: no network, no other processes, no file but
  what is bound here. With bubblewrap's parent ends all that runs inside.

  Args:
    limits: of the process.
    caged: whether to use bubblewrap.
    filter_: file descriptor from which it reads `filter_calls`; None: of none.
  """
  if not caged:
    return [sys.executable]
  line = [
    bubblewrap() or '',
    '--die-with-parent',
    '--new-session',
    '--clearenv',
  ]
  line += ['--unshare-pid', '--unshare-net', '--unshare-ipc', '--unshare-uts']
  line += ['--unshare-cgroup-try', '--hostname', 'sandbox']
  for name, value in ENVIRONMENT.items():
    line += ['--setenv', name, value]
  line += _files()
  size = str(limits.disk_mb << 20)
  line += ['--proc', '/proc', '--dev', '/dev']
  for folder in ('/tmp', '/dev/shm'):
    line += ['--size', size, '--perms', '1777', '--tmpfs', folder]
  line += ['--remount-ro', '/dev', '--remount-ro', '/', '--chdir', '/tmp']
  if filter_ is not None:
    line += ['--seccomp', str(filter_)]
  if is_root():
    # To become another user, which gives up these two as well.
    line += ['--cap-drop', 'ALL', '--cap-add', 'CAP_SETUID']
    return [*line, '--cap-add', 'CAP_SETGID', '--', _interpreter()]
  # A user namespace within bubblewrap's: or the program, being the same user
  # as bubblewrap's own process in there, could trace and change it.
  nested = ['unshare', '--user', '--map-current-user']
  return [*line, '--unshare-user', '--', *nested, _interpreter()]


def _prefix() -> pathlib.Path:
  return pathlib.Path(sys.base_prefix).resolve()


def _interpreter() -> str:
  # Not sys.executable, which an environment may have as a copy of its own.
  path = pathlib.Path(os.path.realpath(sys._base_executable))
  if path.is_relative_to('/usr'):
    return str(path)
  return f'{_PREFIX}/{path.relative_to(_prefix())}'


@functools.cache
def _files() -> list[str]:
  line = ['--ro-bind', '/usr', '/usr']
  for folder in _SYSTEM:
    if os.path.islink(folder):
      line += ['--symlink', os.readlink(folder), folder]
    elif os.path.isdir(folder):
      line += ['--ro-bind', folder, folder]
  line += ['--ro-bind-try', '/etc/ld.so.cache', '/etc/ld.so.cache']
  if not _prefix().is_relative_to('/usr'):
    line += ['--ro-bind', str(_prefix()), _PREFIX]
  line += ['--perms', '0755', '--dir', _PACKAGES]
  for folder in _numpy():
    line += ['--ro-bind', str(folder), f'{_PACKAGES}/{folder.name}']
  return line


@functools.cache
def _numpy() -> list[pathlib.Path]:
  """Returns the folders of numpy: tests compare arrays, programs use them."""
  found = importlib.util.find_spec('numpy')
  if found is None or found.origin is None:
    return []
  home = pathlib.Path(found.origin).parent
  folders = [home, home.with_name('numpy.libs')]
  return [folder for folder in folders if folder.is_dir()]


def packages(caged: bool) -> list[str]:
  """Returns where the interpreter inside finds numpy."""
  if caged:
    return [_PACKAGES] if _numpy() else []
  return [str(folder.parent) for folder in _numpy()[:1]]
