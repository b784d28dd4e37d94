"""One repeat at a time: a library's process, and the pipes to it.

A line asks for a repeat, a line of JSON answers. What libraries print goes to
the process's log.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from typing import Any, IO

import numpy as np

from tests.benchmarks.speed.workload import Job, read_job

CANARY = 768  # Rows and columns of the square product.
LIMIT = 600.0  # Seconds that one answer may take.


@dataclasses.dataclass(frozen=True)
class Work:
  """What a library makes of a job."""

  check: dict[str, Any]  # What must equal that of the others; lists.
  cold: int  # Repeats to throw away, in which programs are compiled.
  repeat: Callable[[], Any]  # Returns when all is computed.


# ------------------------------------------------------- the library's process


@dataclasses.dataclass(frozen=True)
class Link:
  """The library's end of the pipes."""

  requests: IO[str]
  answers: IO[str]

  def wait(self) -> None:
    """Returns when a repeat is wanted; ends the process when none is."""
    if not self.requests.readline():
      # Not sys.exit: a training loop that calls this might catch it.
      os._exit(0)

  def answer(self, **values: Any) -> None:
    self.answers.write(json.dumps(values) + '\n')
    self.answers.flush()


def open_link() -> Link:
  """Returns the pipes; what is printed from now on goes to the log."""
  answers = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)
  return Link(sys.stdin, answers)


def canary() -> float:
  """Returns operations a second of one core, of a square float32 product."""
  square = np.random.default_rng(0).standard_normal((CANARY, CANARY))
  square = square.astype(np.float32)
  out, seconds = square @ square, []
  for _ in range(5):
    start = time.thread_time()
    np.matmul(square, square, out=out)
    seconds.append(time.thread_time() - start)
  return 2 * CANARY**3 / statistics.median(seconds)


def _settle(limit: float = 1.0) -> None:
  """Waits for threads that go on behind the result, as when memory is freed."""
  end = time.perf_counter() + limit
  while time.perf_counter() < end:
    before = time.process_time()
    time.sleep(0.02)
    if time.process_time() - before < 0.002:
      return


def peak_bytes() -> int:
  """Returns the most memory that this process has held."""
  with open('/proc/self/status', encoding='ascii') as status:
    lines = dict(line.split(':', 1) for line in status)
  return int(lines['VmHWM'].split()[0]) * 1024


def laps(link: Link) -> Iterator[None]:
  """Measures what happens between one `next` and the following.

  The first waits for a request; each later one answers and waits again.
  """
  while True:
    link.wait()
    before = canary()
    cpu, wall = time.process_time(), time.perf_counter()
    yield
    wall = time.perf_counter() - wall
    _settle()
    cpu = time.process_time() - cpu
    rate = (before + canary()) / 2
    link.answer(cpu=cpu, wall=wall, canary=rate, peak=peak_bytes())


def serve(make: Callable[[Job], Work], packages: tuple[str, ...]) -> None:
  """Computes the job of the command line whenever it is asked to."""
  link = open_link()
  work = make(read_job(sys.argv[1]))
  mark = marker(link, work.check, work.cold, packages)
  while True:
    mark()
    work.repeat()


def marker(
  link: Link, check: dict[str, Any], cold: int, packages: tuple[str, ...]
) -> Callable[[], None]:
  """Returns what is called between any two repeats, and before the first.

  A training loop of another library calls it wherever it can.

  Args:
    link: pipes.
    check: of `Work`.
    cold: of `Work`.
    packages: whose versions are told.
  """
  lap = laps(link)
  versions = {name: metadata.version(name) for name in packages}
  link.answer(check=check, cold=cold, versions=versions)
  return lambda: next(lap)


# ------------------------------------------------------ the benchmark's process


@dataclasses.dataclass(frozen=True)
class Asked:
  """A library's process, as it is seen from the benchmark."""

  process: subprocess.Popen
  log: IO[bytes]

  def ask(self) -> dict[str, Any]:
    """Returns what one repeat cost."""
    # One that has ended does not read; why, is said where it is heard.
    with contextlib.suppress(BrokenPipeError):
      self.process.stdin.write(b'repeat\n')
    return self.hear()

  def hear(self) -> dict[str, Any]:
    """Returns the next answer.

    Raises:
      RuntimeError: the process ended, or takes too long; with the end of what
        it printed.
    """
    ready, _, _ = select.select([self.process.stdout], [], [], LIMIT)
    line = self.process.stdout.readline() if ready else b''
    if line:
      return json.loads(line)
    self.log.seek(0)
    said = self.log.read().decode(errors='replace').strip().splitlines()
    why = said[-1] if said else 'nothing was printed'
    raise RuntimeError(why if ready else f'no answer in {LIMIT:.0f} s; {why}')

  def close(self) -> None:
    """Ends the process, whatever it does."""
    self.process.kill()
    self.process.wait()
    self.process.stdin.close()
    self.process.stdout.close()
    self.log.close()


def start(
  python: str, module: str, job: Job, more: Mapping[str, str] | None = None
) -> Asked:
  """Starts the process that computes a job with as many threads as cores.

  Args:
    python: that has what the module needs.
    module: what answers.
    job: what it is asked.
    more: variables of its environment, beside those that all have.
  """
  threads = str(job.cores)
  settings = {
    # The canary is one core's.
    'OPENBLAS_NUM_THREADS': '1',
    'OMP_NUM_THREADS': threads,
    'MKL_NUM_THREADS': threads,
    'JAX_PLATFORMS': 'cpu',
    'HF_HUB_OFFLINE': '1',
    'TOKENIZERS_PARALLELISM': 'false',
  }
  log = tempfile.TemporaryFile()  # noqa: SIM115
  process = subprocess.Popen(
    [python, '-m', module, job.text()],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=log,
    bufsize=0,
    env={**os.environ, **settings, **(more or {})},
  )
  return Asked(process, log)
