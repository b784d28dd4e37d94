"""Processes of one run, whose output goes on when their disk is full."""

import contextlib
import os
import pathlib
import resource
import signal
import subprocess
import sys
import threading
import time
import uuid

import runs as small
import several

MARK = 'SCORE_SOAK'  # In the environment of all that a group starts.
LEAST_BYTES = 2000  # A file may have where there is no room for one process.


class Group:
  """Processes that run together, until `end`."""

  def __init__(
    self,
    command: list[str],
    environment: dict[str, str],
    processes: int,
    log: pathlib.Path,
  ):
    """Starts them; what they say goes to files whose names begin as `log`."""
    self.mark = uuid.uuid4().hex
    self.started_at = time.monotonic()
    self._paths = [log.with_name(f'{log.name}-{i}') for i in range(processes)]
    port = several.free_port()
    together = {
      MARK: self.mark,
      'SCORE_STOPPED_CODE': str(several.STOPPED),
      'SCORE_COORDINATOR': f'127.0.0.1:{port}',
      'SCORE_PROCESSES': str(processes),
    }
    self.processes = [
      subprocess.Popen(
        [sys.executable, *command],
        cwd=small.ROOT,
        env=environment | together | {'SCORE_PROCESS': str(i)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
      )
      for i in range(processes)
    ]
    self._readers = [
      threading.Thread(target=_copy, args=(p.stdout, path), daemon=True)
      for p, path in zip(self.processes, self._paths, strict=True)
    ]
    for reader in self._readers:
      reader.start()

  def alive(self) -> bool:
    """Returns whether all of them run."""
    return all(p.poll() is None for p in self.processes)

  def said(self) -> str:
    """Returns what all of them have said."""
    return '\n'.join(x.read_text() for x in self._paths if x.exists())

  def narrow(self, process: int, narrow: bool) -> None:
    """Lets the files of a process grow no more, or grow again."""
    least = LEAST_BYTES if narrow else resource.RLIM_INFINITY
    with contextlib.suppress(ProcessLookupError):  # It may have ended.
      pid = self.processes[process].pid
      _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
      resource.prlimit(pid, resource.RLIMIT_FSIZE, (least, hard))

  def codes(self, timeout: float) -> list[int]:
    """Returns their exit codes.

    Raises:
      subprocess.TimeoutExpired: if they have not ended within the seconds.
    """
    deadline = time.monotonic() + timeout
    for process in self.processes:
      process.wait(max(0.1, deadline - time.monotonic()))
    return [p.returncode for p in self.processes]

  def left(self, seconds: float) -> list[int]:
    """Returns which of all that was started still live after some seconds."""
    deadline = time.monotonic() + seconds
    while (found := self._living()) and time.monotonic() < deadline:
      time.sleep(0.2)
    return found

  def _living(self) -> list[int]:
    mark, found = f'{MARK}={self.mark}'.encode(), []
    for path in pathlib.Path('/proc').glob('[0-9]*/environ'):
      with contextlib.suppress(OSError):
        if mark in path.read_bytes():
          found.append(int(path.parent.name))
    return found

  def end(self) -> None:
    """Kills what is left of them."""
    for pid in self._living():
      with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    for process, reader in zip(self.processes, self._readers, strict=True):
      process.wait()
      reader.join(10)


def _copy(stream, path: pathlib.Path) -> None:
  with open(path, 'wb', buffering=0) as file:
    while part := stream.read1(1 << 16):
      file.write(part)
