"""Who grades, and in which process: attempts in, verdicts out, later.

A grader is `module:function`. One that cannot hang or crash runs here; the
others run in a pool of processes, while the device goes on sampling.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
from collections.abc import Callable, Iterator, Sequence

from score_jax.config import ConfigError
from score_jax.graders import code, pool, sandbox
from score_jax.problem import Outcome, Problem, Verdict
from score_jax.tasks import Task

CODE = f'{code.__name__}:grade'
# What a worker may take beyond the time that it gives a program itself.
SLACK_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class Limits:
  """Of grading; see the settings of the same names."""

  workers: int
  seconds: float  # 0 = what the task needs.
  memory_mb: int  # 0 = what the task needs.
  allow_unprotected: bool

  def of(self, task: Task) -> Limits:
    """Returns the limits with those of a task where none are set."""
    return dataclasses.replace(
      self,
      seconds=self.seconds or task.seconds,
      memory_mb=self.memory_mb or task.memory_mb,
    )


# Takes problems and as many texts, and returns what gives the verdicts.
Start = Callable[[Sequence[Problem], Sequence[str]], Callable[[], list]]


@dataclasses.dataclass(frozen=True)
class Grader:
  """Grades attempts; `start` returns at once and what it returns waits."""

  start: Start
  complaints: Callable[[], list[str]]  # What graders raised, for people.

  def grade(
    self, problems: Sequence[Problem], texts: Sequence[str]
  ) -> list[Verdict]:
    """Returns a verdict per attempt; a grader that fails says ERROR."""
    return self.start(problems, texts)()


@contextlib.contextmanager
def open_grader(task: Task, limits: Limits) -> Iterator[Grader]:
  """Gives a task's grader; its processes end with the block.

  Raises:
    ConfigError: if there is no such grader, or if it would run programs and
      something that protects this machine from them is missing.
  """
  if not task.isolated:
    yield in_process(task.grader)
    return
  limits = limits.of(task)
  keywords, seconds, memory = {}, limits.seconds, limits.memory_mb
  if task.grader == CODE:
    keywords = {
      'seconds': limits.seconds,
      'memory_mb': limits.memory_mb,
      'allow_unprotected': limits.allow_unprotected,
    }
    seconds, memory = limits.seconds + SLACK_SECONDS, None
    _check_protections(limits.allow_unprotected)
  try:
    workers = pool.Pool(task.grader, keywords, limits.workers, seconds, memory)
  except pool.GraderError as error:
    raise ConfigError(str(error)) from error
  with workers:
    yield Grader(
      lambda problems, texts: workers.start(problems, texts).result,
      workers.complaints,
    )


def in_process(grader: str) -> Grader:
  """Returns a grader that runs here, for those that cannot hang or crash."""
  module, function = grader.split(':')
  grade = getattr(importlib.import_module(module), function)
  complaints: list[str] = []

  def one(problem: Problem, text: str) -> Verdict:
    try:
      return grade(problem, text)
    except Exception as error:  # It must cost one answer, not the run.
      complaints.append(f'{grader}: {type(error).__name__}: {error}')
      return Verdict(Outcome.ERROR, '')

  def start(problems, texts):
    verdicts = [one(*pair) for pair in zip(problems, texts, strict=True)]
    return lambda: verdicts

  return Grader(start, lambda: complaints[:3])


def check_references(
  task: Task, grader: Grader, problems: Sequence[Problem]
) -> None:
  """Refuses a task whose grader does not accept its own references.

  Raises:
    ConfigError: with the first problem that failed.
  """
  texts = [problem.reference for problem in problems]
  verdicts = grader.grade(problems, texts)
  bad = [
    (problem.id, verdict.outcome.name.lower())
    for problem, verdict in zip(problems, verdicts, strict=True)
    if verdict.outcome != Outcome.RIGHT
  ]
  if not bad:
    return
  why = ''.join(f' {text}' for text in grader.complaints()[:1])
  if bad[0][1] == 'timeout':
    why = ' A slow machine, or slow tests, need more grading.seconds.'
  raise ConfigError(
    f'task.name={task.name!r}: its grader {task.grader} calls the reference '
    f'answer of problem {bad[0][0]} {bad[0][1]}, one of {len(bad)} in '
    f'{len(problems)} that it does not accept; mend the data or the grader.'
    f'{why}'
  )


def _check_protections(allowed: bool) -> None:
  try:
    sandbox.check_protections(allowed)
  except sandbox.SandboxError as error:
    raise ConfigError(str(error)) from error
