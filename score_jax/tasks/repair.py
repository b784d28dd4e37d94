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

from absl import logging

from score_jax.config import ConfigError
from score_jax.graders import code, mutate, sandbox
from score_jax.problem import Problem
from score_jax.tasks import wording

EACH = 2  # Wrong programs of each problem, if so many are found
TRIED = 6  # among so many.
# What is timed out or too large is no program to repair, but none at all.
LIMITS = sandbox.Limits(seconds=5.0, memory_mb=1024)

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
    'mbpp_repair: looking for mistakes in %d programs; this takes a while, '
    'once.',
    count,
  )
  try:
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
      return {
        name: list(_repaired(part, pool.map(find, part)))
        for name, part in wanted.items()
      }
  except sandbox.SandboxError as error:
    raise ConfigError(
      f"task.name='mbpp_repair' runs programs to prepare its data: {error}"
    ) from error


def _repaired(
  problems: Sequence[Problem], found: Iterator[Sequence[str]]
) -> Iterator[Problem]:
  for problem, programs in zip(problems, found, strict=True):
    for number, program in enumerate(programs, start=1):
      yield dataclasses.replace(
        problem,
        id=f'{problem.id}/wrong-{number}',
        attempt=wording.program(program),
      )
