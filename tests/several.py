"""Small runs of the command by several processes, as the launcher starts them.

What they say goes to a file each: nothing reads it before they have ended.
"""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import runs as small
from compiling import QUICK

STOPPED = 75  # The exit code that is asked for.


def free_port() -> int:
  """Returns a port of this machine that nobody listens at now."""
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    return free.getsockname()[1]


def pair(script: str, arguments: Callable[[int], list]) -> None:
  """Runs a script as two processes of two devices, which both succeed.

  Args:
    script: in the folder of tests.
    arguments: of process i.
  """
  port = free_port()
  started = [
    subprocess.Popen(
      [sys.executable, f'tests/{script}', *map(str, arguments(i))],
      cwd=small.ROOT,
      env=os.environ
      | {
        'PYTHONPATH': str(small.ROOT),
        'XLA_FLAGS': '--xla_force_host_platform_device_count=2',
        'SCORE_COORDINATOR': f'127.0.0.1:{port}',
        'SCORE_PROCESSES': '2',
        'SCORE_PROCESS': str(i),
      },
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for i in (0, 1)
  ]
  try:
    for process in started:
      said, _ = process.communicate(timeout=200)
      assert process.returncode == 0, said
  finally:
    for process in started:
      process.kill()
      process.wait()


class Group:
  """Processes that run together."""

  def __init__(self, started: list[subprocess.Popen], logs: list[pathlib.Path]):
    self.processes, self._logs = started, logs

  def said(self, process: int) -> str:
    """Returns what a process has said so far, to people and of errors."""
    return self._logs[process].read_text()

  def codes(self, timeout: float = small.TIMEOUT) -> list[int]:
    """Returns the exit codes of all, which end within the seconds."""
    deadline = time.monotonic() + timeout
    for process in self.processes:
      process.wait(max(0.1, deadline - time.monotonic()))
    return [process.returncode for process in self.processes]

  def rows(self, workdir: pathlib.Path, count: int) -> None:
    """Returns when so many steps are recorded."""
    deadline, path = time.monotonic() + small.TIMEOUT, workdir / 'metrics.jsonl'
    while not path.exists() or path.read_bytes().count(b'\n') < count:
      assert all(p.poll() is None for p in self.processes), self.said(0)
      assert time.monotonic() < deadline, self.said(0)
      time.sleep(0.01)


@contextlib.contextmanager
def group(
  runs: small.Runs,
  workdir: pathlib.Path,
  processes: int,
  devices: int = 1,
  scripted: str = '',
  poisoned: str = '',
  **settings,
) -> Iterator[Group]:
  """Gives processes under way; those that are left at the end are killed.

  Args:
    runs: keeps what is compiled.
    workdir: of the run.
    processes: how many; one is started as if there were no others.
    devices: of each.
    scripted: what goes wrong; see faults/scripted.py.
    poisoned: steps whose rewards are no numbers; see soak/poisoned.py.
    settings: of the run; a setting's dots are written as __.
  """
  arguments = runs.arguments(workdir, **settings)
  program = ['-m', 'score_jax.main']
  environment = runs.environment() | {
    'SCORE_STOPPED_CODE': str(STOPPED),
    'PYTHONPATH': str(small.ROOT),
    'XLA_FLAGS': f'{QUICK} --xla_force_host_platform_device_count={devices}',
  }
  if scripted:
    program = [str(small.ROOT / 'tests' / 'faults' / 'scripted.py')]
    environment['SCRIPTED'] = scripted
  if poisoned:
    program = [str(small.ROOT / 'tests' / 'soak' / 'poisoned.py')]
    environment['POISONED'] = poisoned
  if processes > 1:
    environment |= {
      'SCORE_COORDINATOR': f'127.0.0.1:{free_port()}',
      'SCORE_PROCESSES': str(processes),
    }
  started, logs = [], []
  with contextlib.ExitStack() as opened:
    for i in range(processes):
      logs.append(workdir.with_name(f'{workdir.name}-{processes}-{i}.log'))
      log = opened.enter_context(open(logs[-1], 'w'))
      number = {'SCORE_PROCESS': str(i)} if processes > 1 else {}
      started.append(
        subprocess.Popen(
          [sys.executable, *program, *arguments],
          cwd=small.ROOT,
          env=environment | number,
          stdin=subprocess.DEVNULL,
          stdout=log,
          stderr=subprocess.STDOUT,
          start_new_session=True,
        )
      )
    try:
      yield Group(started, logs)
    finally:
      for process in started:
        with contextlib.suppress(ProcessLookupError):
          os.killpg(process.pid, signal.SIGKILL)
        process.wait()
