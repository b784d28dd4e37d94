"""Several processes that run one job: who they are, and what they agree on.

All of them run the same program on the same mesh. What depends on one of them
alone (a file, a signal, an answer that it graded) goes through here, so that
all take the same way: `connect`, `agree`, `share`, `decide` and `run` are to be
called by all of them, in one order. Of one process it costs nothing.

jax 0.10 on CPUs stalls where many programs that exchange something are in
flight, so what is exchanged here is awaited.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import pathlib
import pickle
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from score_jax import watch
from score_jax.config import ConfigError

Value = TypeVar('Value')

REFUSED, FAILED = 2, 1  # Exit codes.
FOLDER = 'processes'  # Of a work directory, while several work on it.
LEAST_BYTES = 4096  # Exchanged at once; more of them in powers of two.
# For processes that learn of a failure by themselves, before they are ended.
GRACE_SECONDS = 15.0

_watch: watch.Watch | None = None  # Of this process, once it has begun.
_ending = threading.Lock()  # Held by the thread that ends this process.


class Elsewhere(RuntimeError):
  """What another process raised; the text says which, where and what."""

  def __init__(self, text: str, code: int):
    super().__init__(text)
    self.code = code


def connect(environ: Mapping[str, str], heartbeat_seconds: float) -> None:
  """Makes this process one of several, if the environment says so.

  It reads SCORE_COORDINATOR, 'auto' where JAX knows the cluster and HOST:PORT
  elsewhere, with SCORE_PROCESSES and SCORE_PROCESS, how many there are and
  which one this is. To be called before anything asks for devices.

  Args:
    environ: the environment.
    heartbeat_seconds: without a sign of life a process is lost.

  Raises:
    ConfigError: if the variables do not name a process.
  """
  where = environ.get('SCORE_COORDINATOR', '')
  if not where:
    return
  # Where one process is lost JAX aborts the others, from a thread of its own
  # while theirs run on. To show the stacks of those would be a race, which ends
  # in a segmentation fault now and then, as if it were the job's own fault.
  faulthandler.enable(all_threads=False)
  # Its handler of SIGTERM would stand beside the one that saves.
  jax.config.update('jax_enable_preemption_service', False)
  # Later than the watch, whose words are better: JAX aborts.
  jax_timeout = 2 * max(1, round(heartbeat_seconds))
  try:
    if where == 'auto':
      jax.distributed.initialize(heartbeat_timeout_seconds=jax_timeout)
    else:
      jax.distributed.initialize(
        where,
        _number(environ, 'SCORE_PROCESSES'),
        _number(environ, 'SCORE_PROCESS'),
        heartbeat_timeout_seconds=jax_timeout,
      )
  # No cluster that JAX knows, a bad number, or an address without a port.
  except (ValueError, IndexError) as error:
    raise ConfigError(
      f'SCORE_COORDINATOR={where} does not start one of several processes: '
      f'{error} Without the variable there is one.'
    ) from error


def _number(environ: Mapping[str, str], name: str) -> int:
  text = environ.get(name, '')
  if not text.isdecimal():
    raise ValueError(f'{name} must be a whole number; got {text!r}.')
  return int(text)


def several() -> bool:
  """Returns whether there is more than one process."""
  return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
  """Returns whether this is the process that writes and prints for all."""
  # Not asked of JAX where it would wake the devices: some that print have none.
  return not jax.distributed.is_initialized() or jax.process_index() == 0


def enter(kind: str, where: str | None = None) -> None:
  """Notes what this process does from now on, for the others to know.

  Args:
    kind: as 'grading'.
    where: as 'stage1 step 12'; None: where it was before.
  """
  if _watch:
    _watch.enter(kind, where)


def phase() -> str:
  """Returns what this process does now, as it told the others."""
  return _watch.phase if _watch else 'starting'


def agree(flag: bool) -> bool:
  """Returns whether the flag is up on any process."""
  if not several():
    return flag
  return bool(multihost_utils.process_allgather(np.array([flag])).any())


def share(work: Callable[[], Value]) -> list[Value]:
  """Returns what `work` gives on each process, in their order.

  Raises:
    Elsewhere: if it raised on another process, after all are done; on that
      one its own error is raised, so that no process goes on alone.
  """
  if not several():
    return [work()]
  try:
    mine, error = ('value', work()), None
  except Exception as raised:
    mine, error = ('error', _described(raised)), raised
  found = [pickle.loads(x) for x in _gathered(pickle.dumps(mine))]
  if error:
    raise error
  for kind, value in found:
    if kind == 'error':
      raise Elsewhere(*value)
  return [value for _, value in found]


def decide(work: Callable[[], Value]) -> Value:
  """Returns what `work` gives on the first process, where alone it is done.

  Raises:
    Elsewhere: if it raised there; on that process its own error is raised.
  """
  return share(lambda: work() if is_first() else None)[0]


def differing(
  own: Mapping[str, Value],
) -> tuple[int, str, Value | None, Value | None] | None:
  """Returns the first entry that is not the same on all processes.

  That is the process that differs from the first one, the entry's name, and its
  value on both, None where it is not there; None if there is no such entry.
  """
  first, *others = share(lambda: dict(own))
  for process, other in enumerate(others, start=1):
    for name in sorted(first.keys() | other.keys()):
      if first.get(name) != other.get(name):
        return process, name, first.get(name), other.get(name)
  return None


def later(work: Callable[[], Value]) -> Callable[[], Value]:
  """Returns what gives the value of `work`, done now, or raises its error.

  So that an error on one process waits for the next `share`.
  """
  try:
    value = work()
  except Exception as error:
    raised = error

    def fail() -> Value:
      raise raised

    return fail
  return lambda: value


def _described(error: Exception) -> tuple[str, int]:
  """Returns what an `Elsewhere` of this error is made of."""
  code = REFUSED if isinstance(error, ConfigError) else FAILED
  where = f'process {jax.process_index()} failed while {phase()}'
  return f'{where}: {_line(error)}', code


def _line(error: BaseException) -> str:
  text = ' '.join(str(error).split())
  if isinstance(error, ConfigError):
    return text
  return f'{type(error).__name__}: {text}'


def _gathered(data: bytes) -> list[bytes]:
  """Returns the bytes of each process, in their order."""
  sizes = multihost_utils.process_allgather(np.array([len(data)], np.int32))
  sizes = sizes[:, 0].tolist()
  width = LEAST_BYTES
  while width < max(sizes):  # Few widths, for each is compiled.
    width *= 2
  padded = np.zeros(width, np.uint8)
  padded[: len(data)] = np.frombuffer(data, np.uint8)
  rows = multihost_utils.process_allgather(padded)
  return [row[:size].tobytes() for row, size in zip(rows, sizes, strict=True)]


def run(
  work: Callable[[], int],
  workdir: pathlib.Path,
  limits: watch.Limits,
  stopped_code: int,
) -> int:
  """Returns the exit code of `work`, which all processes do together.

  Where one fails or is lost, the others say so and end: with its exit code if
  it failed, and if it is lost with that of a job that can go on. Then this
  does not return.

  Args:
    work: returns an exit code.
    workdir: where all of them can write.
    limits: when a process is lost, or hangs.
    stopped_code: of a job that was stopped and can go on.

  Raises:
    ConfigError: on all of them, if they do not share `workdir`.
  """
  global _watch
  if not several():
    return work()
  lost_code = stopped_code or FAILED
  # Files of an earlier start must not be taken for those of this one.
  name = decide(lambda: f'{time.time_ns():x}')
  _check_folder(workdir, name)
  _watch = watch.Watch(
    workdir / FOLDER,
    name,
    jax.process_index(),
    jax.process_count(),
    limits,
    stopped_code,
    on_loss=lambda loss: _end_behind(loss, lost_code),
  )
  try:
    _watch.start()
    code, words = work(), _words
  except BaseException as error:
    _end(*_blamed(error, lost_code))
  if code not in (0, stopped_code):
    _end(code, '', words)
  _watch.end(code, words)
  return code


def _check_folder(workdir: pathlib.Path, name: str) -> None:
  """Refuses a work directory that is another one on another process's host."""
  path = workdir / FOLDER / 'start'

  def write() -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(name)

  decide(write)
  seen = share(lambda: _is_seen(path, name))
  if not all(seen):
    raise ConfigError(
      f'--workdir={workdir} must be one folder for all processes, and process '
      f'{seen.index(False)} does not see what process 0 writes there; give one '
      'on a file system that all hosts share.'
    )


def _is_seen(path: pathlib.Path, text: str) -> bool:
  """Returns whether a file shows its text; network folders take their time."""
  deadline = time.monotonic() + GRACE_SECONDS
  while time.monotonic() < deadline:
    with contextlib.suppress(OSError):
      if path.read_text() == text:
        return True
    time.sleep(0.1)
  return False


_words = ''  # Why this process is about to end, where it says so itself.


def note(words: str) -> None:
  """Notes why this process is about to end with a failure."""
  global _words
  _words = words


def _blamed(error: BaseException, lost_code: int) -> tuple[int, str, str]:
  """Returns what `_end` is called with, of an error that ends a process."""
  if isinstance(error, Elsewhere):
    text = f'{error}; process {jax.process_index()} ends as well'
    return error.code, text, str(error)
  if isinstance(error, ConfigError):
    return REFUSED, str(error), str(error)
  if _is_of_exchange(error) and (loss := _awaited_loss()):
    return loss.code or lost_code, _sentence(loss), loss.words
  return FAILED, ''.join(traceback.format_exception(error)), _line(error)


def _is_of_exchange(error: BaseException) -> bool:
  """Returns whether an error may come of another process's end."""
  return isinstance(error, jax.errors.JaxRuntimeError) or 'Gloo' in str(error)


def _awaited_loss() -> watch.Loss | None:
  """Returns which other process failed or is lost, once that is known."""
  deadline = time.monotonic() + _watch.limits.silent_seconds + GRACE_SECONDS
  while time.monotonic() < deadline:
    if loss := _watch.loss():
      return loss
    time.sleep(0.1)
  return None


def _end_behind(loss: watch.Loss, lost_code: int) -> None:
  """Ends this process behind another; called in the thread of the watch."""
  # One that hears of it by itself, in the same step, says and saves more.
  deadline = time.monotonic() + GRACE_SECONDS
  while loss.code is not None and time.monotonic() < deadline:
    time.sleep(0.1)
  _end(loss.code or lost_code, _sentence(loss), loss.words)


def _sentence(loss: watch.Loss) -> str:
  return f'{loss.words}; process {jax.process_index()} ends as well'


def _end(code: int, text: str, words: str) -> None:
  """Ends this process without waiting for others at JAX's barrier.

  The first one goes last: with it goes what JAX keeps the others alive by, and
  it aborts those that are still there, whatever they were about to say.

  Args:
    code: to end with.
    text: to say, if any.
    words: why, for the others.
  """
  _ending.acquire()  # Never released: the other thread that comes here waits.
  if text:
    os.write(2, f'score_jax: {text}\n'.encode())
  _watch.end(code, words)
  deadline = time.monotonic() + 2 * GRACE_SECONDS  # They have GRACE_SECONDS.
  while is_first() and not _watch.ended() and time.monotonic() < deadline:
    time.sleep(0.1)
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)
