"""Commands and files: shown to the letter, or run and written.

What `--dry-run` shows and what is run are the same objects.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator

from launch.errors import LaunchError, Stopped

TAIL = 50  # Lines of a command that are kept, to be looked into.
END_WITHIN = 20.0  # Seconds that a tool has to end when it is told to.
LATEST = 600.0  # Seconds that a question may take.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclasses.dataclass(frozen=True)
class Command:
  """A program and its arguments."""

  words: tuple[str, ...]

  def __str__(self) -> str:
    """Returns it as a shell reads it, one flag a line where it is long."""
    words = [_quote(word) for word in self.words]
    if len(' '.join(words)) <= 80:
      return ' '.join(words)
    lines = [words[0]]
    for before, word in itertools.pairwise(words):
      if word.startswith('-') or re.match('--[^=]+=', before):
        lines.append(word)
      else:
        lines[-1] += f' {word}'
    return ' \\\n  '.join(lines)


@dataclasses.dataclass(frozen=True)
class File:
  """A file with its text."""

  path: str
  text: str

  def __str__(self) -> str:
    folder = pathlib.Path(self.path).parent
    return f"mkdir -p {folder}\ncat > {self.path} << 'END'\n{self.text}END"

  def write(self) -> None:
    """Writes it, with the folders above it."""
    path = pathlib.Path(self.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(self.text)


@dataclasses.dataclass(frozen=True)
class Step:
  """What is run in a row, under a heading; all at once if `together`."""

  title: str
  commands: tuple[Command | File, ...]
  together: bool = False

  def __str__(self) -> str:
    end = ' &' if self.together else ''
    lines = [f'{command}{end}' for command in self.commands]
    return '\n'.join([f'# {self.title}', *lines, *['wait'] * self.together])


def _quote(word: str) -> str:
  """Returns a word as a shell reads it, with --name= left readable."""
  name, value = re.fullmatch('(--[-a-z]+=)?(.*)', word, re.DOTALL).groups('')
  return name + (shlex.quote(value) if value or not name else '')


def command(*words: str | bool | None) -> Command:
  """Returns a command; words that are false or empty are left out."""
  return Command(tuple(word for word in words if word))


def say(text: str) -> None:
  """Tells who launched it what goes on."""
  # Of a terminal that was closed: what is rented is deleted all the same.
  with contextlib.suppress(OSError):
    print(f'launch: {text}', file=sys.stderr, flush=True)


def need(target: str, tools: dict[str, str]) -> None:
  """Refuses a target whose tools are not there.

  Args:
    target: of the settings.
    tools: program to where it is got from.
  """
  for tool, source in tools.items():
    if shutil.which(tool) is None:
      raise LaunchError(
        f'--target={target} needs {tool}, which is not on PATH; '
        f'install it ({source}).'
      )


def guarded(body: Callable[[], int], clean_up: Callable[[], bool]) -> int:
  """Returns the exit code of `body`, behind which what it made is deleted.

  The first SIGINT, SIGTERM or SIGHUP raises Stopped in the body. Nothing
  interrupts the clean-up: what it leaves costs money.

  Args:
    body: gives an exit code.
    clean_up: gives whether nothing is left.
  """

  def stop(number, frame):
    del frame
    _ignore()
    raise Stopped(number)

  before = {number: signal.signal(number, stop) for number in SIGNALS}
  code = 1
  try:
    try:
      code = body()
    finally:
      _ignore()
  finally:  # Reached as well when a signal comes between the two.
    code = code if clean_up() else code or 1
    for number, handler in before.items():
      signal.signal(number, handler)
  return code


@contextlib.contextmanager
def held(why: str) -> Iterator[None]:
  """Puts a signal off to the end of the block, inside of `guarded`.

  What is submitted can be cancelled only once its number is known.
  """
  came: list[int] = []

  def note(number, frame):
    del frame
    say(f'{why}; it stops behind that')
    came.append(number)

  before = {number: signal.signal(number, note) for number in SIGNALS}
  try:
    yield
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
  for number in came[:1]:
    before[number](number, None)


def _ignore() -> None:
  for number in SIGNALS:  # Not SIG_IGN, which programs would inherit.
    signal.signal(number, lambda *_: None)


@dataclasses.dataclass(frozen=True)
class Result:
  """How a command ended."""

  code: int  # 128 + N where signal N ended it.
  text: str  # The last lines of all that it said.


def run(command: Command) -> Result:
  """Runs a command to its end, and shows what it says.

  It is in a session of its own: Ctrl-C is the launcher's to pass on.
  """
  lines = deque(maxlen=TAIL)
  with _started(command, subprocess.STDOUT) as process:
    for line in process.stdout:
      sys.stdout.write(line)
      sys.stdout.flush()
      lines.append(line)
    process.wait()
  return Result(_code(process), ''.join(lines))


def look(command: Command, within: float = LATEST) -> Result:
  """Returns what a command says; what it says of errors, if it fails."""
  with _started(command, subprocess.PIPE) as process:
    try:
      said, errors = process.communicate(timeout=within)
    except subprocess.TimeoutExpired:
      return Result(124, f'{command.words[0]} did not answer.')
  return Result(_code(process), said if process.returncode == 0 else errors)


@contextlib.contextmanager
def _started(command: Command, errors: int) -> Iterator[subprocess.Popen]:
  """Runs a command; whatever happens meanwhile, it has ended afterwards."""
  with subprocess.Popen(
    command.words,
    stdin=subprocess.DEVNULL,
    stdout=subprocess.PIPE,
    stderr=errors,
    start_new_session=True,
    text=True,
    errors='replace',
  ) as process:
    try:
      yield process
    finally:
      end(process, END_WITHIN)


def begin(command: Command) -> subprocess.Popen:
  """Returns a command under way, which shows what it says by itself."""
  return subprocess.Popen(
    command.words, stdin=subprocess.DEVNULL, start_new_session=True
  )


def delete(command: Command, gone: tuple[str, ...], attempts: int = 3) -> bool:
  """Returns whether a command deleted something; tries again, and says so.

  Args:
    command: deletes it.
    gone: what the command says of something that is not there.
    attempts: how often it is tried.
  """
  for _ in range(attempts):
    result = look(command)
    if result.code == 0 or any(words in result.text for words in gone):
      return True
    say(f'not deleted: {result.text.strip()}')
  say(f'NOT DELETED, and it may cost money; delete it yourself:\n{command}')
  return False


def end(process: subprocess.Popen, within: float) -> None:
  """Ends a process and all it started, if it runs: asks, waits, insists."""
  if process.poll() is not None:
    return
  for number, wait in ((signal.SIGTERM, within), (signal.SIGKILL, None)):
    with contextlib.suppress(ProcessLookupError):
      os.killpg(process.pid, number)
    with contextlib.suppress(subprocess.TimeoutExpired):
      process.wait(wait)
      return


def _code(process: subprocess.Popen) -> int:
  code = process.returncode
  return code if code >= 0 else 128 - code
