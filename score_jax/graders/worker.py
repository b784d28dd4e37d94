"""The process that grades: one answer after another, over a socket.

Started by `pool.Pool` as `python -m score_jax.graders.worker FD`. It imports
no more than the grader does. A message is its length in four bytes, then JSON.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import os
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from score_jax.problem import Outcome, Problem, Verdict

LENGTH = struct.Struct('<I')
CHUNK = 1 << 20  # Bytes asked for at once.

Grade = Callable[[Problem, str], Any]


class GraderError(ValueError):
  """A grader that cannot be had; the text names it and the remedy."""


def send(connection: socket.socket, message: Any) -> None:
  """Sends what JSON can write; in ASCII, so that no text is beyond it."""
  data = json.dumps(message).encode()
  connection.sendall(LENGTH.pack(len(data)) + data)


def receive(connection: socket.socket, seconds: float | None = None) -> Any:
  """Returns the next message.

  Args:
    connection: to the other side.
    seconds: until the whole message must be there; None = whenever.

  Raises:
    TimeoutError: if it is not.
    EOFError: if the other side has ended.
  """
  deadline = None if seconds is None else time.monotonic() + seconds
  (length,) = LENGTH.unpack(_exactly(connection, LENGTH.size, deadline))
  return json.loads(_exactly(connection, length, deadline))


def _exactly(
  connection: socket.socket, length: int, deadline: float | None
) -> bytes:
  data = bytearray()
  while len(data) < length:
    if deadline is not None:
      # Zero would mean "do not wait", which is another error.
      connection.settimeout(max(deadline - time.monotonic(), 1e-3))
    part = connection.recv(min(length - len(data), CHUNK))
    if not part:
      raise EOFError('The other side has ended.')
    data += part
  return bytes(data)


def load(grader: str, keywords: Mapping[str, Any]) -> Grade:
  """Returns the function `(problem, text)` behind 'module:function'.

  Args:
    grader: its module is looked for in the current directory as well.
    keywords: its further arguments.

  Raises:
    GraderError: if there is none, or if it does not take these arguments.
  """
  module, _, name = grader.partition(':')
  if not module or not name.isidentifier():
    raise GraderError(f"task.grader must be 'module:function'; got {grader!r}.")
  function = _function(_module(module, grader), name, grader)
  grade = functools.partial(function, **keywords)
  try:
    inspect.signature(grade).bind('problem', 'text')
  except (TypeError, ValueError) as error:
    raise GraderError(
      f'task.grader={grader!r} must take (problem, text'
      f'{"".join(f", {key}=" for key in keywords)}): {error}.'
    ) from None
  return grade


def _module(module: str, grader: str) -> Any:
  try:
    return importlib.import_module(module)
  except ModuleNotFoundError as error:
    if not (module + '.').startswith(f'{error.name}.'):
      raise GraderError(
        f'task.grader={grader!r} needs a module that is not there: {error}.'
      ) from None
    raise GraderError(
      f'task.grader={grader!r}: there is no module {error.name!r}, here in '
      f'{os.getcwd()} or installed{_nearest_module(error.name)}.'
    ) from None
  except BaseException as error:  # Whatever a module does, a reply is due.
    raise GraderError(
      f'task.grader={grader!r} cannot be imported: {describe(error)}.'
    ) from None


def _function(module: Any, name: str, grader: str) -> Callable[..., Any]:
  found = vars(module)
  if not callable(found.get(name)):
    known = [key for key, value in found.items() if inspect.isroutine(value)]
    raise GraderError(
      f'task.grader={grader!r}: {module.__name__} has no function {name!r}'
      f'{_nearest(name, known)}.'
    )
  return found[name]


def _nearest_module(name: str) -> str:
  import pkgutil

  above, _, last = name.rpartition('.')
  folders = importlib.import_module(above).__path__ if above else [os.getcwd()]
  return _nearest(
    last, [module.name for module in pkgutil.iter_modules(folders)]
  )


def _nearest(name: str, known: list[str]) -> str:
  import difflib  # Here alone: `config.nearest` would bring its libraries.

  close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
  return f' (did you mean {close[0]}?)' if close else ''


def describe(error: BaseException) -> str:
  """Returns what was raised and where, in one line."""
  what = ' '.join(traceback.format_exception_only(error)[-1].split())
  frames = traceback.extract_tb(error.__traceback__)[-1:]
  where = [f' ({os.path.basename(f.filename)}:{f.lineno})' for f in frames]
  return what[:500] + ''.join(where)


def answer(grade: Grade, request: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the reply to one request.

  Args:
    grade: the grader.
    request: 'problem', a Problem's fields, and 'text'.

  Returns:
    {'verdict': a Verdict's values}, or {'complaint': why there is none,
    'spent': whether the process should be replaced}.
  """
  text = request['text']
  try:
    result = grade(Problem(**request['problem']), text)
  except BaseException as error:  # SystemExit must not end the worker, too.
    spent = isinstance(error, MemoryError)  # It may hold on to what it has.
    return {'complaint': describe(error), 'spent': spent}
  if isinstance(result, bool):
    result = Verdict(Outcome.RIGHT if result else Outcome.WRONG, text.strip())
  if not _is_verdict(result):
    name = type(result).__name__
    complaint = f'must return a Verdict or a bool; it returned a {name}'
    return {'complaint': complaint, 'spent': False}
  return {'verdict': (result.outcome, result.answer, result.share)}


def _is_verdict(result: Any) -> bool:
  return (
    isinstance(result, Verdict)
    and isinstance(result.outcome, Outcome)
    and isinstance(result.answer, str)
    and isinstance(result.share, float | int | None)
  )


def _silence() -> None:
  """Sends what a grader prints nowhere; nothing reads it."""
  nowhere = os.open(os.devnull, os.O_RDWR)
  for descriptor in (0, 1, 2):
    os.dup2(nowhere, descriptor)


def _limit_memory(megabytes: int) -> None:
  import resource

  size, (_, most) = megabytes * 2**20, resource.getrlimit(resource.RLIMIT_AS)
  if most != resource.RLIM_INFINITY:
    size = min(size, most)  # A limit from outside may only be lowered.
  resource.setrlimit(resource.RLIMIT_AS, (size, size))


def main(descriptor: int) -> None:
  """Grades what comes until the other side is gone."""
  os.set_inheritable(descriptor, False)
  connection = socket.socket(fileno=descriptor)
  _silence()
  try:
    hello = receive(connection)
    if hello['memory_mb'] is not None:
      _limit_memory(hello['memory_mb'])
    grade = load(hello['grader'], hello['keywords'])
    send(connection, {'complaint': None})
    while True:
      send(connection, answer(grade, receive(connection)))
  except GraderError as error:
    send(connection, {'complaint': str(error)})
  except (EOFError, ConnectionError):
    os.killpg(0, signal.SIGKILL)  # With whatever the grader has started.


if __name__ == '__main__':
  if os.getcwd() not in sys.path:
    sys.path.insert(0, os.getcwd())
  main(int(sys.argv[1]))
