"""What holds a program in, as found by trying it out; and `run`, which does.

See `supervise` for how a program is run and `confine` for what it finds.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import tempfile
from collections.abc import Iterator

from score_jax.graders import confine, instrument
from score_jax.graders.confine import Limits
from score_jax.graders.supervise import run, SandboxError

# Prints what a program can do where it runs, in the order of `PROTECTIONS`.
_PROBE = """
import json, os, resource, socket
port, secret, limits, names = json.loads({facts!r})
def fails(action, *arguments):
  try:
    action(*arguments)
  except OSError:
    return True
  return False
status = open('/proc/self/status').read()
homes = ('/', '/usr', '/etc', '/var', '/home', '/proc/sys/kernel')
keeper = os.getppid()
print(json.dumps([
  fails(socket.create_connection, ('127.0.0.1', port), 1),
  not os.path.exists(secret)
    and not any(os.access(home, os.W_OK) for home in homes),
  sum(name.isdigit() for name in os.listdir('/proc')) < 5,
  fails(open, f'/proc/{{keeper}}/mem', 'rb'),
  0 not in (os.getuid(), os.geteuid()) and 'CapEff:\\t0000000000000000' in status
    and 'NoNewPrivs:\\t1' in status,
  all(resource.getrlimit(getattr(resource, name)) == (high, high)
      for name, high in limits.items()),
  set(os.environ) <= set(names),
  fails(os.memfd_create, 'x'),
]))
"""
# Why each matters; the order is that of the probe.
PROTECTIONS = {
  'no network': 'a program can connect to other machines',
  'read-only files': 'a program can read and change files of this machine',
  'own processes': 'a program can see this machine’s processes, and what it '
  'starts can outlive it',
  'a keeper out of reach': 'a program can change the process that runs it',
  'unprivileged user': 'a program runs as root, whom limits on processes do '
  'not bind, or can become root',
  'limits': 'a program can use all memory and processor time',
  'clean environment': 'a program can read the variables of this process',
  'filtered system calls': 'a program can use memory that no limit counts, and '
  'sockets and file systems of its own',
}
_PROBED = Limits(seconds=30.0, memory_mb=256)


@functools.cache
def caged() -> bool:
  """Returns whether bubblewrap is there and starts."""
  return confine.bubblewrap() is not None and not _complaint()


@functools.cache
def _complaint() -> str:
  """Returns why bubblewrap does not start a process, or ''."""
  try:
    _probe(True)
  except SandboxError as error:
    return str(error)
  return ''


@functools.cache
def missing_protections() -> dict[str, str]:
  """Returns {what does not hold here: why that matters}, by trying it out."""
  held = _probe(caged())
  return {
    name: why
    for (name, why), good in zip(PROTECTIONS.items(), held, strict=True)
    if not good
  }


def check_protections(allow_unprotected: bool) -> None:
  """Refuses to run programs that this machine is not protected from.

  Args:
    allow_unprotected: the setting `grading.allow_unprotected`; True runs them
      all the same, in a process group of their own and under limits.

  Raises:
    SandboxError: with what is missing.
  """
  missing = missing_protections()
  if allow_unprotected or not missing:
    return
  what = '; '.join(f'{name} ({why})' for name, why in missing.items())
  hint = _complaint() if confine.bubblewrap() else 'bwrap or unshare is missing'
  raise SandboxError(
    f'grading.allow_unprotected=False, but programs cannot be shut in: missing '
    f'are {what}. Install bubblewrap'
    f'{f" ({hint})" if hint else ""}, or set grading.allow_unprotected=True on '
    'a machine that holds nothing of value.'
  )


def _probe(in_cage: bool) -> list[bool]:
  """Returns which of `PROTECTIONS` hold, as found by a program inside."""
  with _bait() as (port, secret):
    resources = _PROBED.resources()
    facts = json.dumps(
      [port, secret, resources, [*confine.ENVIRONMENT, 'LC_CTYPE', 'PWD']]
    )
    program = _PROBE.format(facts=facts)
    before, tests = instrument.ready('', '', ('0',), '')
    report = run(program, before, tests, '', _PROBED, caged=in_cage)
  lines = report.output.splitlines()
  if not (report.passed and lines):
    raise SandboxError(
      f'the probe of the sandbox failed: {report.output[-500:]}'
    )
  return json.loads(lines[0])


@contextlib.contextmanager
def _bait() -> Iterator[tuple[int, str]]:
  """Gives a port that listens and a file, for a program not to find."""
  with socket.socket() as listener, tempfile.NamedTemporaryFile() as file:
    os.chmod(file.name, 0o666)
    listener.bind(('127.0.0.1', 0))
    listener.listen()
    yield listener.getsockname()[1], file.name
