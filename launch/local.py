"""This machine: any number of processes that start and end together."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import math
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO

from launch import retry
from launch.settings import Settings
from launch.shell import Command, command, need, say, SIGNALS, Step

_PR_SET_PDEATHSIG = 1  # Of linux/prctl.h.
Group = dict[int, subprocess.Popen]  # Processes that run together.


def plan(settings: Settings) -> list[Step]:
  """Returns what is run."""
  number = settings.processes
  title = '1 process' if number == 1 else f'{number} processes'
  return [Step(title, commands(settings), together=True)]


def commands(settings: Settings) -> tuple[Command, ...]:
  """Returns the command of each process."""
  number, variables = settings.processes, [*retry.ENVIRONMENT]
  if settings.devices:
    forced = f'--xla_force_host_platform_device_count={settings.devices}'
    flags = f'{os.environ.get("XLA_FLAGS", "")} {forced}'.strip()
    variables += ['JAX_PLATFORMS=cpu', f'XLA_FLAGS={flags}']
  if number > 1:
    port = settings.port or _free_port()
    variables += [
      f'SCORE_COORDINATOR=127.0.0.1:{port}',
      f'SCORE_PROCESSES={number}',
    ]
  job = (settings.python, '-m', settings.module, *settings.arguments)
  return tuple(
    command('env', *variables, number > 1 and f'SCORE_PROCESS={i}', *job)
    for i in range(number)
  )


def _free_port() -> int:
  with socket.socket() as found:
    found.bind(('127.0.0.1', 0))
    return found.getsockname()[1]


def run(settings: Settings) -> int:
  """Returns the exit code of the job; signals are passed on to it.

  Raises:
    LaunchError: if there is no such interpreter.
  """
  need(settings.target, {settings.python: 'or give another --python'})
  heard: list[int] = []

  def note(number, frame):
    del frame
    # A terminal that was closed is a reason to save, not to die of.
    heard.append(signal.SIGTERM if number == signal.SIGHUP else number)

  before = {number: signal.signal(number, note) for number in SIGNALS}
  try:
    return retry.until_done(
      settings,
      lambda: _attempt(commands(settings), settings.grace, heard),
      asked=lambda: bool(heard),
    )
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def _attempt(wanted: tuple[Command, ...], grace: int, heard: list[int]) -> int:
  """Returns the exit code of processes that run together.

  Once one has ended, the others have `grace` seconds to end as well. If it
  failed they are told to, for what they wait for together never comes.

  Args:
    wanted: the command of each.
    grace: seconds.
    heard: numbers of the signals that came; more of them come meanwhile.
  """
  codes: dict[int, int] = {}  # Of those that ended, first to last.
  passed, deadline = 0, math.inf
  with _started(wanted) as (group, forward):
    while running := {i: p for i, p in group.items() if i not in codes}:
      forward(retry.TICK)
      told, passed = heard[passed:], len(heard)
      ended = _ended(running)
      codes |= ended
      for index, code in ended.items():
        if code not in (0, retry.STOPPED):
          say(f'process {index} ended with {_words(code)}; so do the others')
          told.append(signal.SIGTERM)
      for number in told:
        _tell(running, number)
      if told or ended:
        deadline = min(deadline, time.monotonic() + grace)
      if time.monotonic() > deadline:
        names = ', '.join(str(i) for i in running if i not in codes)
        if names:
          say(f'process {names} did not end within {grace} s, and is killed')
        _kill(running)
        deadline = math.inf
  return _of_all(codes)


def _ended(running: Group) -> dict[int, int]:
  """Returns exit codes of processes that have ended, as a shell has them.

  Of those that end at once, one that a signal ended comes first: it took the
  others with it.
  """
  codes = {i: p.poll() for i, p in running.items()}
  codes = {i: c for i, c in codes.items() if c is not None}
  codes = {i: c if c >= 0 else 128 - c for i, c in codes.items()}
  return dict(sorted(codes.items(), key=lambda item: -item[1]))


def _words(code: int) -> str:
  """Returns an exit code in words."""
  with contextlib.suppress(ValueError):
    return f'{signal.Signals(code - 128).name} (exit code {code})'
  return f'exit code {code}'


def _of_all(codes: dict[int, int]) -> int:
  """Returns the exit code of all: of the first that failed, if one did."""
  failed = [c for c in codes.values() if c not in (0, retry.STOPPED)]
  return failed[0] if failed else max(codes.values())


def _tell(group: Group, number: int) -> None:
  for process in group.values():
    process.send_signal(number)  # To nobody, if it has ended.


def _kill(group: Group) -> None:
  """Kills processes and what they started."""
  for process in group.values():
    with contextlib.suppress(ProcessLookupError):
      os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def _started(
  wanted: Iterable[Command],
) -> Iterator[tuple[Group, Callable[[float], bool]]]:
  """Gives processes, and what passes their output on; none is left behind."""
  group: Group = {}
  with selectors.DefaultSelector() as selector:
    try:
      for index, words in enumerate(wanted):
        group[index] = process = _start(words)
        for source, sink in (
          (process.stdout, sys.stdout),
          (process.stderr, sys.stderr),
        ):
          os.set_blocking(source.fileno(), False)
          pipe = Pipe(f'[{index}] '.encode(), sink)
          selector.register(source, selectors.EVENT_READ, pipe)
      forward = functools.partial(_forward, selector)
      yield group, forward
    finally:
      _kill(group)
      for process in group.values():
        process.wait()
    while forward(0):
      pass
    for key in selector.get_map().values():
      key.data.close()
  for process in group.values():
    process.stdout.close()
    process.stderr.close()


def _start(wanted: Command) -> subprocess.Popen:
  return subprocess.Popen(
    wanted.words,
    stdin=subprocess.DEVNULL,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    start_new_session=True,  # Ctrl-C is the launcher's to pass on.
    preexec_fn=_end_with_launcher if sys.platform == 'linux' else None,
  )


def _end_with_launcher() -> None:
  """Has the kernel tell this process to end when the launcher is killed."""
  ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclasses.dataclass
class Pipe:
  """Where the output of one process goes."""

  prefix: bytes
  sink: TextIO
  begun: bytes = b''  # A line without an end yet.

  def write(self, data: bytes) -> None:
    """Passes lines on; of what overwrites itself, what is seen at the end."""
    *lines, rest = (self.begun + data).split(b'\n')
    seen = [line.rstrip(b'\r').rpartition(b'\r')[2] for line in lines]
    # What shows it may be closed; the job goes on, to save.
    with contextlib.suppress(OSError):
      self.sink.buffer.write(b''.join(self.prefix + s + b'\n' for s in seen))
      self.sink.flush()
    self.begun = rest[rest.rstrip(b'\r').rfind(b'\r') + 1 :]

  def close(self) -> None:
    """Ends the line that was begun."""
    if self.begun:
      self.write(b'\n')


def _forward(selector: selectors.BaseSelector, wait: float) -> bool:
  """Passes output on that comes within `wait` seconds; returns if any came."""
  came = False
  for key, _ in selector.select(wait):
    if data := os.read(key.fd, 1 << 16):
      key.data.write(data)
      came = True
    else:
      key.data.close()
      selector.unregister(key.fileobj)
  return came
