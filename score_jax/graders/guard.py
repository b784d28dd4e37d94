"""Ends the pool's workers when the process that started them is gone.

A worker whose parent was killed may be in the middle of one operation that
lets no code of its own run, and may have started processes of its own. So a
second process watches, and does nothing else: it learns the workers' numbers
over a pipe from the parent, and when that pipe closes it kills them.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import select
import signal
import struct

RECORD = struct.Struct('<i')  # A worker's number; negative: forget it.
POLL_SECONDS = 1.0  # A copy of the pipe may outlive the parent in a fork of it.


def end(pid: int) -> None:
  """Kills a process, its group and its descendants.

  Args:
    pid: leader of its process group, not yet waited for by its parent: its
      number cannot be another's.
  """
  doomed = descendants(pid)
  with contextlib.suppress(ProcessLookupError):
    os.killpg(pid, signal.SIGKILL)
  for child in doomed:
    with contextlib.suppress(ProcessLookupError):
      os.kill(child, signal.SIGKILL)


def descendants(pid: int) -> list[int]:
  """Returns the numbers of all processes below one; [] where /proc is not."""
  found = []
  for path in pathlib.Path(f'/proc/{pid}/task').glob('*/children'):
    with contextlib.suppress(OSError):  # A thread that has ended meanwhile.
      found += [int(child) for child in path.read_text().split()]
  return found + [pid for child in found for pid in descendants(child)]


def main() -> None:
  """Follows the pipe at standard input until the parent is gone."""
  parent, workers = os.getppid(), set()
  for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)  # It ends when its parent does.
  while os.getppid() == parent:
    ready, _, _ = select.select([0], [], [], POLL_SECONDS)
    if not ready:
      continue
    record = os.read(0, RECORD.size)
    if not record:
      break
    (pid,) = RECORD.unpack(record)
    workers.add(pid) if pid > 0 else workers.discard(-pid)
  for pid in workers:
    end(pid)


if __name__ == '__main__':
  main()
