"""Programs to repair: each problem comes with a wrong first attempt.

The paper's set of this kind (MBPP-R) was never published. Here the wrong
programs are solutions with one mistake, each of which fails a test. They are
made once, when the data set is prepared, and stored.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import tqdm
from absl import logging

from score_jax.config import ConfigError
from score_jax.graders import code, mutate, sandbox
from score_jax.problem import Problem
from score_jax.tasks import wording

EACH = 2  # Wrong programs of each problem, if so many are found
TRIED = 6  # among so many.
LINES = 100  # Programs between two lines of progress.
# What is timed out or too large is no program to repair, but none at all. The
# slowest of the others takes a tenth of its second of processor time, so that
# neither a slow nor a busy machine finds others.
LIMITS = sandbox.Limits(seconds=60.0, memory_mb=1024, cpu_seconds=1.0)

# From a problem to wrong programs for it, the same at every call.
Mistakes = Callable[[Problem], Sequence[str]]


def mistakes(problem: Problem) -> list[str]:
  """Returns wrong programs, which load and end but fail one of the tests.

  Raises:
    SandboxError: if programs cannot be run here.
  """
  source = wording.source_of(problem.reference)
  tests = code.decode_tests(problem.answer)
  seed = zlib.crc32(problem.id.encode())
  found: list[str] = []
  for program in mutate.wrong_programs(source, seed, TRIED):
    found += mutate.failing([program], tests, LIMITS)
    if len(found) == EACH:
      break
  return found


def to_repair(
  splits: Mapping[str, Sequence[Problem]], find: Mistakes
) -> dict[str, list[Problem]]:
  """Returns the same splits, with a problem for each wrong program.

  A problem for which none is found is left out; so is the split of examples.

  Args:
    splits: problems whose references are programs.
    find: gives the wrong programs of a problem.

  Raises:
    ConfigError: if programs cannot be run here.
  """
  wanted = {name: part for name, part in splits.items() if name != 'prompt'}
  count = sum(map(len, wanted.values()))
  logging.warning(
    'mbpp_repair: making mistakes in %d programs and running their tests; this '
    'takes some minutes, once.',
    count,
  )
  try:
    with (
      concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
      # A bar on a terminal alone; elsewhere `_repaired` writes lines.
      tqdm.tqdm(
        total=count, desc='mbpp_repair', unit=' programs', disable=None
      ) as bar,
    ):
      return {
        name: list(_repaired(part, pool.map(find, part), bar))
        for name, part in wanted.items()
      }
  except sandbox.SandboxError as error:
    raise ConfigError(
      f"task.name='mbpp_repair' runs programs to prepare its data: {error}"
    ) from error


def _repaired(
  problems: Sequence[Problem], found: Iterator[Sequence[str]], bar: tqdm.tqdm
) -> Iterator[Problem]:
  for done, (problem, programs) in enumerate(
    zip(problems, found, strict=True), start=1
  ):
    bar.update()
    if bar.disable and done % LINES == 0:
      logging.warning('mbpp_repair: %d of %d programs.', done, len(problems))
    for number, program in enumerate(programs, start=1):
      yield dataclasses.replace(
        problem,
        id=f'{problem.id}/wrong-{number}',
        attempt=wording.program(program),
      )
