"""Runs a program and its tests, each shut in, and ends both.

    program's process <-- two pipes --> tests' process --> verdict, to here

The program decides what it answers, the tests decide what is right, and only
the tests' process can write the verdict. Both run under bubblewrap where it is
to be had; `sandbox.missing_protections` says what is not there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import marshal
import os
import pathlib
import selectors
import shutil
import signal
import subprocess
import tempfile
import time

from score_jax.graders import (
  calls,
  confine,
  guest,
  handles,
  kinds,
  peer,
  tester,
  wire,
)
from score_jax.graders.confine import Limits

START_SECONDS = 60.0  # For both processes to be there, on a busy machine.
_WATCH_SECONDS = 0.1  # Between looks at the memory of all processes.
_KEPT_OUTPUT = 1 << 16  # Bytes of what a program prints; the rest is dropped.
_OPTIONS = ('-s', '-S', '-P', '-B', '-X', 'utf8', '-c')
# Reads modules and arguments to the end of its input, so that it ends as well
# where whoever wrote them has ended.
_BOOT = """
import marshal, sys
with open(0, 'rb', closefd=False) as source:
  modules, start, arguments, more, folders = marshal.loads(source.read())
sys.path += folders
for name, code in modules:
  module = sys.modules[name] = type(sys)(name)
  if '.' in name:
    parent, _, last = name.rpartition('.')
    setattr(sys.modules[parent], last, module)
  exec(code, vars(module))
sys.modules[start].main(**arguments, **marshal.loads(more))
"""


class SandboxError(ValueError):
  """The sandbox could not do its work, which says nothing of the program."""


@dataclasses.dataclass(frozen=True)
class Report:
  """What came of a program and its tests."""

  finished: bool  # Whether the tests came to their end.
  passed: int  # Tests that raised nothing.
  timed_out: bool
  output: str  # The first of what the program printed.
  seconds: float  # From the program's start.
  peak_mb: float  # Resident, of all processes of the larger sandbox.
  folder: str  # The program's, as seen from outside while it ran.


@dataclasses.dataclass
class _Child:
  """A process that was started, and our ends of its pipes."""

  process: subprocess.Popen
  input: int
  payload: memoryview
  folder: str | None  # To be removed; None: it goes with the sandbox.


def run(
  program: str,
  before: bytes,
  tests: bytes,
  entry: str,
  limits: Limits,
  *,
  caged: bool,
) -> Report:
  """Returns what came of a program and its tests.

  Args:
    program: its source; any text.
    before: see `instrument.ready`.
    tests: the same.
    entry: the name under test, or ''.
    limits: of both processes.
    caged: whether to use bubblewrap.

  Raises:
    SandboxError: if the processes do not start, or `before` raises.
  """
  with contextlib.ExitStack() as stack:
    ask, answer, verdict, output = (_Pipe(stack) for _ in range(4))
    common = {'entry': entry, 'limits': limits.resources()}
    common |= {'uid': confine.throw_away_uid(caged)}
    common |= {'filtered': bool(confine.filter_calls(caged))}
    runs = {'source': ask.read, 'sink': answer.write, 'program': program}
    runs |= {'before': marshal.loads(before)}
    judges = {'source': answer.read, 'sink': ask.write}
    judges |= {'verdicts': verdict.write}
    children = []
    for start, own, more in ((guest, runs, b''), (tester, judges, tests)):
      if start is tester:
        common |= {'uid': confine.throw_away_uid(caged)}
      payload = _payload(start.__name__, common | own, more, caged)
      fds = [fd for fd in own.values() if type(fd) is int]
      children.append(_start(payload, fds, output.write, limits, caged))
      stack.callback(_end, children[-1])
    for pipe in (ask, answer):
      pipe.close()
    for pipe in (verdict, output):
      pipe.close_write()
    watch = _Watch(children, verdict.read, output.read, limits)
    watch.run()
    return watch.report()


class _Pipe:
  """A pipe whose ends are closed once, at the latest with the stack."""

  def __init__(self, stack):
    self.read, self.write = os.pipe()
    self.open = {self.read, self.write}
    stack.callback(self.close)

  def close_write(self):
    self.open.remove(self.write)
    os.close(self.write)

  def close(self):
    while self.open:
      os.close(self.open.pop())


@functools.cache
def _modules() -> tuple:
  """Returns (name, code) of all that runs inside, in the order of imports."""
  found = [('score_jax', compile('', 'score_jax', 'exec'))]
  found.append(('score_jax.graders', compile('', 'graders', 'exec')))
  for module in (kinds, wire, calls, peer, handles, guest, tester):
    path = pathlib.Path(module.__file__)
    code = compile(path.read_text(), path.name, 'exec', dont_inherit=True)
    found.append((module.__name__, code))
  return tuple(found)


def _payload(start: str, arguments: dict, more: bytes, caged: bool) -> bytes:
  other = {guest.__name__: tester, tester.__name__: guest}[start].__name__
  modules = [(name, code) for name, code in _modules() if name != other]
  more = more or marshal.dumps({})
  folders = confine.packages(caged)
  return marshal.dumps((modules, start, arguments, more, folders))


def _start(
  payload: bytes, fds: list[int], output: int, limits: Limits, caged: bool
) -> _Child:
  """Starts a process that waits for its payload."""
  folder = None if caged else tempfile.mkdtemp(prefix='score-program-')
  environment = dict(confine.ENVIRONMENT)
  if folder:
    environment |= {'HOME': folder, 'TMPDIR': folder}
  read, write = os.pipe()
  filter_ = _filled_pipe(confine.filter_calls(caged))
  try:
    process = subprocess.Popen(
      [*confine.command(limits, caged, filter_), *_OPTIONS, _BOOT],
      stdin=read,
      stdout=output,
      stderr=output,
      env=environment,
      cwd=folder or '/',
      pass_fds=[*fds, *([] if filter_ is None else [filter_])],
      start_new_session=True,
    )
  except OSError as error:
    os.close(write)
    raise SandboxError(f'the sandbox does not start: {error}') from error
  finally:
    os.close(read)
    if filter_ is not None:
      os.close(filter_)
  os.set_blocking(write, False)
  return _Child(process, write, memoryview(payload), folder)


def _filled_pipe(data: bytes) -> int | None:
  """Returns the end from which data is read, less than a pipe holds."""
  if not data:
    return None
  read, write = os.pipe()
  os.write(write, data)
  os.close(write)
  return read


def _end(child: _Child) -> None:
  """Kills a process and all that it started, and removes what it wrote."""
  # Bubblewrap's own child first: it is the first process of its namespace, and
  # the kernel ends the others with it.
  for pid in descendants(child.process.pid)[::-1]:
    with contextlib.suppress(ProcessLookupError):
      os.kill(pid, signal.SIGKILL)
  with contextlib.suppress(ProcessLookupError):
    os.killpg(child.process.pid, signal.SIGKILL)
  child.process.wait()
  if child.input >= 0:
    os.close(child.input)
  if child.folder:
    shutil.rmtree(child.folder, ignore_errors=True)


def descendants(pid: int) -> list[int]:
  """Returns the processes below one, nearest first."""
  found, todo = [], [pid]
  while todo:
    one = todo.pop(0)
    with contextlib.suppress(OSError):
      for task in os.listdir(f'/proc/{one}/task'):
        text = pathlib.Path(f'/proc/{one}/task/{task}/children').read_text()
        found += map(int, text.split())
        todo += map(int, text.split())
  return found


class _Watch:
  """Feeds, listens and looks at the clock until there is nothing to wait for."""

  def __init__(self, children, verdict, output, limits):
    self.children = children
    self.limits = limits
    self.verdict, self.output = verdict, output
    self.marks = b''
    self.text = b''
    self.printed = 0
    self.started = None
    self.begin = time.monotonic()
    self.measured = self.begin
    self.timed_out = False
    self.heavy = False
    self.peak = 0.0
    self.inside = 0  # The first process in the program's sandbox.
    self.selector = selectors.DefaultSelector()

  def run(self):
    """Returns when the tests have ended or the program must."""
    with self.selector as selector:
      for child in self.children:
        selector.register(child.input, selectors.EVENT_WRITE, child)
      for fd in (self.verdict, self.output):
        selector.register(fd, selectors.EVENT_READ)
      while not self.over():
        for key, _ in selector.select(_WATCH_SECONDS):
          self.move(key)
    self.measure()

  def over(self) -> bool:
    """Returns whether the program has ended or has spent what it may.

    Raises:
      SandboxError: if the sandbox does not start.
    """
    now = time.monotonic()
    if self.started is None:
      if now - self.begin > START_SECONDS:
        raise SandboxError(
          f'the sandbox did not start within {START_SECONDS:.0f} seconds'
        )
      return self.verdict not in self.selector.get_map()
    self.measure(now)
    self.timed_out |= now - self.started > self.limits.seconds
    flood = self.printed > self.limits.output_kb << 10
    ended = self.verdict not in self.selector.get_map()
    return self.timed_out or flood or self.heavy or ended

  def move(self, key):
    """Feeds, or reads, the pipe that is ready."""
    if key.data is not None:
      self.feed(key.data)
      return
    data = os.read(key.fd, 1 << 16)
    if not data:
      self.selector.unregister(key.fd)
    elif key.fd == self.verdict:
      self.marks += data
      if self.started is None:
        self.started = time.monotonic()
    else:
      self.printed += len(data)
      self.text += data[: _KEPT_OUTPUT - len(self.text)]

  def feed(self, child):
    try:
      sent = os.write(child.input, child.payload[: 1 << 16])
      child.payload = child.payload[sent:]
    except BlockingIOError:
      return
    except BrokenPipeError:
      child.payload = child.payload[:0]
    if not child.payload:
      self.selector.unregister(child.input)
      os.close(child.input)
      child.input = -1

  def measure(self, now: float = 0.0):
    """Notes what all processes of a sandbox have taken so far."""
    if now and now < self.measured + _WATCH_SECONDS:
      return
    self.measured = now
    for child in self.children:
      pids = [child.process.pid, *descendants(child.process.pid)]
      if child is self.children[0]:
        self.inside = pids[min(1, len(pids) - 1)]
        used = sum(map(_cpu_seconds, pids))
        self.timed_out |= used > self.limits.cpu_seconds
      resident = sum(map(_resident_mb, pids))
      self.peak = max(self.peak, resident)
      self.heavy |= resident > self.limits.memory_mb
      # The folder is bound in size, but an empty file has none.
      self.heavy |= _entries(pids) > self.limits.entries

  def report(self) -> Report:
    """Returns what came of it.

    Raises:
      SandboxError: if it did not start, or the tests' own code does not run.
    """
    text = self.text.decode(errors='replace')
    if self.started is None:
      raise SandboxError(f'the sandbox does not start: {text.strip()[-500:]}')
    if tester.BROKEN in self.marks:
      raise SandboxError('what runs before the tests raises an error itself')
    finished = self.marks.endswith(tester.DONE)
    folders = [child.folder for child in self.children]
    inside = f'/proc/{self.inside}/root/tmp'
    return Report(
      finished=finished,
      passed=self.marks.count(tester.PASSED),
      timed_out=self.timed_out and not finished,
      output=text,
      seconds=time.monotonic() - self.started,
      peak_mb=self.peak,
      folder=folders[0] or inside,
    )


def _entries(pids: list[int]) -> int:
  """Returns how many files and folders a sandbox has made in its memory."""
  if len(pids) < 2:  # Without bubblewrap, or where all has ended.
    return 0
  try:
    found = os.statvfs(f'/proc/{pids[1]}/root/tmp')
  except OSError:
    return 0
  return found.f_files - found.f_ffree


def _cpu_seconds(pid: int) -> float:
  try:
    text = pathlib.Path(f'/proc/{pid}/stat').read_text()
  except OSError:  # It has ended.
    return 0.0
  user, system = text.rpartition(')')[2].split()[11:13]
  return (int(user) + int(system)) / os.sysconf('SC_CLK_TCK')


def _resident_mb(pid: int) -> float:
  try:
    text = pathlib.Path(f'/proc/{pid}/statm').read_text()
  except OSError:  # It has ended.
    return 0.0
  return int(text.split()[1]) * os.sysconf('SC_PAGE_SIZE') / 2**20
