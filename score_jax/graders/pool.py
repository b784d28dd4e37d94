"""Processes that grade while the device samples, and may hang or crash.

A grader runs code that may loop forever on what a model wrote, so each answer
has a limit of wall-clock time, kept from outside: the process that exceeds it
is killed and another takes its place. One thread per process hands out the
answers. Nothing is forked: the parent has threads of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from score_jax.graders import guard, worker
from score_jax.graders.worker import GraderError
from score_jax.problem import Outcome, Problem, Verdict

__all__ = ['GraderError', 'Pending', 'Pool']

START_SECONDS = 120.0  # For a worker to import its grader, on a busy machine.
COMPLAINTS = 5  # Different ones that are kept; the first tell why.


@dataclasses.dataclass(frozen=True)
class Pending:
  """Answers that are being graded."""

  _verdicts: list[Verdict | None]
  _missing: list[None]  # One per verdict that is still to come.
  _done: threading.Event

  def result(self) -> list[Verdict]:
    """Returns the verdicts, in the order of the texts, once all are there."""
    self._done.wait()
    return list(self._verdicts)


@dataclasses.dataclass(frozen=True)
class _Job:
  """One text to grade, and where its verdict belongs."""

  problem: Problem
  text: str
  places: list[int]  # Of all equal texts.
  pending: Pending


@dataclasses.dataclass(frozen=True)
class _Worker:
  """A process that has imported the grader."""

  process: subprocess.Popen
  connection: socket.socket


class Pool:
  """Grades in processes; a context manager that ends them."""

  def __init__(
    self,
    grader: str,
    keywords: Mapping[str, Any],
    workers: int,
    seconds: float,
    memory_mb: int | None,
  ):
    """Starts the processes, all at once, and waits until they can grade.

    Args:
      grader: 'module:function', called with (problem, text) in a process; it
        returns a Verdict, or whether the text is right. Modules in the current
        directory are found.
      keywords: its further arguments, as JSON can write them.
      workers: how many processes; 0 = one per CPU core.
      seconds: of wall-clock time for one answer.
      memory_mb: address space of each process; None = without limit.

    Raises:
      GraderError: if there is no such grader, or if it cannot be imported.
    """
    self._grader = grader
    self._seconds = seconds
    self._hello = {
      'grader': grader,
      'keywords': dict(keywords),
      'memory_mb': memory_mb,
    }
    self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
    self._complaints: dict[str, None] = {}  # Used as a set that keeps order.
    self._lock = threading.Lock()
    self._closed = False
    self._running: set[_Worker] = set()
    self._guard = _start_module('guard', stdin=subprocess.PIPE, bufsize=0)
    refusals: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
    count = workers or os.cpu_count() or 1
    self._threads = [
      threading.Thread(target=self._serve, args=(refusals,), daemon=True)
      for _ in range(count)
    ]
    for thread in self._threads:
      thread.start()
    refused = [error for _ in self._threads if (error := refusals.get())]
    if refused:
      self.close()
      raise refused[0]

  def start(self, problems: Sequence[Problem], texts: Sequence[str]) -> Pending:
    """Starts to grade, and returns at once.

    Equal texts for the same problem are graded once. Whatever ends a process
    costs one answer: TIMEOUT where the time ran out, else ERROR.

    Args:
      problems: of each text; equal ids mean equal problems.
      texts: the attempts.

    Raises:
      RuntimeError: if the pool is closed.
    """
    if self._closed:
      raise RuntimeError('The pool of grading processes is closed.')
    places: dict[tuple[str, str], list[int]] = {}
    for place, pair in enumerate(zip(problems, texts, strict=True)):
      places.setdefault((pair[0].id, pair[1]), []).append(place)
    count = len(texts)
    pending = Pending([None] * count, [None] * count, threading.Event())
    if not count:
      pending._done.set()
    for (_, text), equal in places.items():
      self._jobs.put(_Job(problems[equal[0]], text, equal, pending))
    return pending

  def complaints(self) -> list[str]:
    """Returns why answers were ERROR: the first few different reasons."""
    with self._lock:
      return list(self._complaints)

  def close(self) -> None:
    """Ends all processes; answers that are not graded yet become ERROR."""
    with self._lock:
      self._closed = True
      for one in self._running:
        guard.end(one.process.pid)
    for _ in self._threads:
      self._jobs.put(None)
    for thread in self._threads:
      thread.join()
    self._guard.stdin.close()
    self._guard.wait()

  def __enter__(self) -> Pool:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def _serve(self, refusals: queue.SimpleQueue[Exception | None]) -> None:
    """Hands answers to one process, and replaces it; a thread's whole life."""
    try:
      current = self._start_worker()
    except Exception as error:  # It is raised where the pool is made.
      refusals.put(error)
      return
    refusals.put(None)
    while (job := self._jobs.get()) is not None:
      verdict, keep = Verdict(Outcome.ERROR, ''), False
      try:
        if not self._closed:
          current = current or self._start_worker()
          verdict, keep = self._grade(current, job)
      except Exception as error:  # A thread that ends would leave jobs waiting.
        self._complain(worker.describe(error))
      if current and not keep:
        self._end_worker(current)
        current = None
      self._deliver(job, verdict)
    if current:
      self._end_worker(current)

  def _grade(self, current: _Worker, job: _Job) -> tuple[Verdict, bool]:
    """Returns a verdict, and whether the process can go on."""
    request = {'problem': dataclasses.asdict(job.problem), 'text': job.text}
    try:
      current.connection.settimeout(self._seconds)
      worker.send(current.connection, request)
      reply = worker.receive(current.connection, self._seconds)
    except TimeoutError:
      return Verdict(Outcome.TIMEOUT, ''), False
    except (EOFError, ConnectionError):
      self._complain(f'the process {_how_it_ended(current.process)}')
      return Verdict(Outcome.ERROR, ''), False
    if 'verdict' in reply:
      outcome, answer, share = reply['verdict']
      return Verdict(Outcome(outcome), answer, share), True
    self._complain(reply['complaint'])
    return Verdict(Outcome.ERROR, ''), not reply['spent']

  def _deliver(self, job: _Job, verdict: Verdict) -> None:
    pending = job.pending
    with self._lock:
      for place in job.places:
        pending._verdicts[place] = verdict
        pending._missing.pop()
      if not pending._missing:
        pending._done.set()

  def _complain(self, why: str) -> None:
    with self._lock:
      if not self._closed and len(self._complaints) < COMPLAINTS:
        self._complaints[f'{self._grader}: {why}'] = None

  def _start_worker(self) -> _Worker:
    """Returns a process that is ready to grade.

    Raises:
      GraderError: if it does not become so.
    """
    ours, theirs = socket.socketpair()
    with theirs:
      process = _start_module(
        'worker', str(theirs.fileno()), pass_fds=[theirs.fileno()]
      )
    started = _Worker(process, ours)
    try:
      self._watch(started)
      ours.settimeout(START_SECONDS)
      worker.send(ours, self._hello)
      refusal = worker.receive(ours, START_SECONDS)['complaint']
      if refusal:
        raise GraderError(refusal)
    except TimeoutError:
      self._end_worker(started)
      raise GraderError(
        f'task.grader={self._grader!r} could not be imported in '
        f'{START_SECONDS:.0f} seconds.'
      ) from None
    except (EOFError, ConnectionError):
      how = _how_it_ended(process)
      self._end_worker(started)
      raise GraderError(
        f'task.grader={self._grader!r} cannot be imported: the process {how}.'
      ) from None
    except BaseException:
      self._end_worker(started)
      raise
    return started

  def _watch(self, started: _Worker) -> None:
    """Lets `close` and the guard know of a process."""
    with self._lock:
      if self._closed:
        raise RuntimeError('The pool of grading processes is closed.')
      self._running.add(started)
      self._tell_guard(started.process.pid)

  def _tell_guard(self, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # Somebody has killed it.
      self._guard.stdin.write(guard.RECORD.pack(number))

  def _end_worker(self, ended: _Worker) -> None:
    """Kills a process and whatever it started."""
    guard.end(ended.process.pid)
    with self._lock:
      self._running.discard(ended)
      self._tell_guard(-ended.process.pid)
    ended.process.wait()
    ended.connection.close()


def _start_module(
  name: str, *arguments: str, **streams: Any
) -> subprocess.Popen:
  """Starts a sibling of this file as a process with a session of its own."""
  # By its name, not its path: beside it lies a file called math.py.
  module = f'{__package__}.{name}'
  root = str(pathlib.Path(__file__).parents[2])
  paths = [os.environ.get('PYTHONPATH', ''), root]
  return subprocess.Popen(
    [sys.executable, '-m', module, *arguments],
    env=os.environ | {'PYTHONPATH': os.pathsep.join(filter(None, paths))},
    start_new_session=True,
    **streams,
  )


def _how_it_ended(process: subprocess.Popen) -> str:
  # It stays unreaped, so that its number is not given to another process.
  flags = os.WEXITED | os.WNOWAIT
  for _ in range(100):  # Its socket closes a moment before it ends.
    if os.waitid(os.P_PID, process.pid, flags | os.WNOHANG):
      break
    time.sleep(0.01)
  guard.end(process.pid)
  status = os.waitid(os.P_PID, process.pid, flags)
  if status.si_code == os.CLD_EXITED:
    return f'ended with status {status.si_status}'
  return f'was ended by signal {status.si_status}'
