"""Who is alive, and what is it doing? A sign of life per process, in files.

    <folder>/<n>.json   what process n does, and how it ended; see `Sign`
    <folder>/<n>.lock   locked by process n for as long as it lives

A thread of each process writes its own file and reads the others'. Beside each
process stands a witness, this file run as a program, which says so when the
process is gone without a word: what kills it kills its threads as well.

Standard library only: the witness should cost nothing.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import faulthandler
import fcntl
import json
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

KNOWN = 3  # Times that a phase has to have been seen, to know its usual time.
UNKNOWN_SECONDS = 60.0  # Taken for the usual time until then.
GOODBYE = b'goodbye'


@dataclasses.dataclass(frozen=True)
class Sign:
  """What one process says of itself."""

  run: str  # Of this start of the job; others are of earlier ones.
  process: int
  host: str
  phase: str  # As 'grading, stage1 step 12'.
  beat: int  # Grows while the process lives.
  code: int | None = None  # That it ends with; None: it goes on.
  words: str = ''  # Why it ends.


@dataclasses.dataclass(frozen=True)
class Limits:
  """Of a watch."""

  silent_seconds: float  # Without a new beat a process is lost.
  stalled_times: float  # A phase takes so many times its usual time,
  stalled_seconds: float  # and at least so long: it is told.


@dataclasses.dataclass(frozen=True)
class Loss:
  """Why the others cannot go on: a process that failed, or is lost."""

  process: int
  words: str  # A sentence.
  code: int | None  # That it ended with; None: it is lost.


def write(folder: pathlib.Path, sign: Sign) -> None:
  """Replaces a process's file; readers see the old one or the new one."""
  temporary = folder / f'{sign.process}.tmp'
  temporary.write_text(json.dumps(dataclasses.asdict(sign)))
  os.replace(temporary, folder / f'{sign.process}.json')


def read(folder: pathlib.Path, run: str, process: int) -> Sign | None:
  """Returns what a process says; None where it has said nothing yet."""
  try:
    sign = Sign(**json.loads((folder / f'{process}.json').read_text()))
  except (OSError, ValueError, TypeError):
    return None
  return sign if sign.run == run else None


def is_gone(folder: pathlib.Path, sign: Sign) -> bool:
  """Returns whether a process of this host does not live any more.

  The kernel unlocks what a process locked, however it ended.
  """
  if sign.host != socket.gethostname():
    return False  # Locks need not reach across hosts.
  try:
    with open(folder / f'{sign.process}.lock') as file:
      fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
  except OSError:
    return False
  return True


class Watch:
  """The signs of life of one process, and its eye on those of the others."""

  def __init__(
    self,
    folder: pathlib.Path,
    run: str,
    process: int,
    processes: int,
    limits: Limits,
    stopped_code: int,
    on_loss: Callable[[Loss], None],
  ):
    """Takes what a watch needs; `start` starts it.

    Args:
      folder: of the files, the same for all processes.
      run: the same for all processes, and for no other start of the job.
      process: its number, from 0.
      processes: how many there are.
      limits: when something is wrong.
      stopped_code: with it, or with 0, a process ends that did not fail.
      on_loss: called once, in the watch's thread, if another process failed or
        is lost.
    """
    self._folder, self._on_loss, self.limits = folder, on_loss, limits
    self._fine = (0, stopped_code)
    self._others = [n for n in range(processes) if n != process]
    self._sign = Sign(run, process, socket.gethostname(), 'starting', 0)
    self._kind, self._since = 'starting', time.monotonic()
    self._where = ''
    self._told = 0.0  # Seconds of the phase when it was last told.
    self._usual: dict[str, collections.deque[float]] = {}
    self._heard: dict[int, tuple[int, float]] = {}  # Beat, and when it was new.
    self._lock = threading.RLock()
    self._stopped = threading.Event()
    self._tick = min(1.0, limits.silent_seconds / 10)

  def start(self) -> None:
    """Begins to give signs of life, and to look for those of the others."""
    self._folder.mkdir(parents=True, exist_ok=True)
    process = self._sign.process
    self._held = open(self._folder / f'{process}.lock', 'w')  # noqa: SIM115
    fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    write(self._folder, self._sign)
    self._heard = {n: (-1, time.monotonic()) for n in self._others}
    self._witness = _start_witness(self._folder, self._sign)
    threading.Thread(target=self._live, daemon=True, name='watch').start()

  def enter(self, kind: str, where: str | None = None) -> None:
    """Notes that a phase begins; the one before it has ended.

    Args:
      kind: of the phase, as 'grading'; its usual time is that of its kind.
      where: as 'stage1 step 12'; None: where it was before.
    """
    now = time.monotonic()
    with self._lock:
      known = self._usual.setdefault(self._kind, collections.deque(maxlen=50))
      known.append(now - self._since)
      self._kind, self._since, self._told = kind, now, 0.0
      self._where = self._where if where is None else where
      phase = f'{kind}, {self._where}' if self._where else kind
      self._sign = dataclasses.replace(self._sign, phase=phase)

  @property
  def phase(self) -> str:
    """Returns what the process does now."""
    return self._sign.phase

  def end(self, code: int, words: str) -> None:
    """Says how the process ends; it gives no sign of life after that."""
    self._stopped.set()
    with self._lock:
      self._sign = dataclasses.replace(self._sign, code=code, words=words)
      with contextlib.suppress(OSError):
        write(self._folder, self._sign)
    with contextlib.suppress(OSError):
      self._witness.stdin.write(GOODBYE)
      self._witness.stdin.close()

  def loss(self) -> Loss | None:
    """Returns which of the others failed or is lost, if one is."""
    found = []
    for process, sign in self._signs():
      if sign is not None and sign.code is not None:
        if sign.code not in self._fine:
          words = f'process {process} failed while {sign.phase}: {sign.words}'
          return Loss(process, words, sign.code)
      elif sign is not None and is_gone(self._folder, sign):
        # Read anew: it may have said how it ends just before it was gone.
        last = read(self._folder, sign.run, process)
        if last is None or last.code is None:
          words = f'process {process} was lost while {sign.phase}'
          found.append(Loss(process, words, None))
      elif silent := self._silent(process, sign):
        phase = sign.phase if sign else 'starting'
        words = (
          f'process {process} was lost while {phase}: no sign of life for '
          f'{silent:.0f} s'
        )
        found.append(Loss(process, words, None))
    return found[0] if found else None

  def ended(self) -> bool:
    """Returns whether all others have ended, one way or another."""
    return all(
      sign is None or sign.code is not None or is_gone(self._folder, sign)
      for _, sign in self._signs()
    )

  def _signs(self) -> Iterator[tuple[int, Sign | None]]:
    for process in self._others:
      yield process, read(self._folder, self._sign.run, process)

  def _silent(self, process: int, sign: Sign | None) -> float:
    """Returns the seconds without a new beat, or 0 if they are too few."""
    now, beat = time.monotonic(), sign.beat if sign else -1
    with self._lock:
      before, moment = self._heard[process]
      if beat != before:
        self._heard[process] = (beat, now)
        return 0.0
    silent = now - moment
    return silent if silent > self.limits.silent_seconds else 0.0

  def _live(self) -> None:
    """Gives signs of life until the process ends; the thread's whole life."""
    while not self._stopped.wait(self._tick):
      with self._lock:
        if self._stopped.is_set():
          return
        beat = self._sign.beat + 1
        self._sign = dataclasses.replace(self._sign, beat=beat)
        # A full disk is for those to tell who write what matters.
        with contextlib.suppress(OSError):
          write(self._folder, self._sign)
      self._tell_stall()
      if loss := self.loss():
        self._on_loss(loss)
        return

  def _tell_stall(self) -> None:
    with self._lock:
      known = self._usual.get(self._kind, ())
      usual = UNKNOWN_SECONDS
      if len(known) >= KNOWN:
        usual = statistics.median(known)
      seconds, kind = time.monotonic() - self._since, self._sign.phase
      limits = self.limits
      least = max(limits.stalled_times * usual, limits.stalled_seconds)
      if seconds < max(least, 2 * self._told):
        return
      self._told = seconds
    _say(
      f'process {self._sign.process} has been {kind} for {seconds:.0f} s, which '
      f'usually takes {usual:.1f} s; where its threads are:'
    )
    faulthandler.dump_traceback(2)


def _say(text: str) -> None:
  """Writes a line for people; to the descriptor, for threads share buffers."""
  os.write(2, f'score_jax: {text}\n'.encode())


def _start_witness(folder: pathlib.Path, sign: Sign) -> subprocess.Popen:
  words = (str(folder), sign.run, str(sign.process))
  return subprocess.Popen(
    [sys.executable, '-I', __file__, *words],
    stdin=subprocess.PIPE,
    bufsize=0,
  )


def witness(folder: pathlib.Path, run: str, process: int) -> None:
  """Says so if a process is gone without a word; returns when it has ended.

  Args:
    folder: of the signs of life.
    run: this start of the job.
    process: whose end closes the standard input.
  """
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)  # They are for the process.
  said = b''
  while part := os.read(0, 1024):
    said += part
  if said:
    return
  time.sleep(0.1)  # So that those that are lost together are all seen to be.
  for path in sorted(folder.glob('*.json')):
    sign = read(folder, run, int(path.stem))
    if sign is None or sign.code is not None:
      continue
    if sign.process == process or is_gone(folder, sign):
      _say(f'process {sign.process} was lost while {sign.phase}')


if __name__ == '__main__':
  witness(pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
