"""Tasks: a source of problems, an instruction between attempts, a grader.

A task is text only; no model's vocabulary is known here. Its problems come
from a seqio Task of the same name, so that sources, splits and mixtures are
seqio's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from score_jax.config import ConfigError, nearest
from score_jax.problem import Outcome, Problem, Verdict
from score_jax.tasks import arithmetic


@dataclasses.dataclass(frozen=True)
class Task:
  """What a task knows beside its problems."""

  name: str  # Of the seqio Task.
  instruction: str  # Between attempts; does not say whether one was right.
  grade: Callable[[Problem, str], Verdict]
  register: Callable[[], None]  # Adds the seqio Task to seqio's registry.


TASKS = {
  'arithmetic': Task(
    'arithmetic', arithmetic.INSTRUCTION, arithmetic.grade, arithmetic.register
  ),
}


def get(name: str) -> Task:
  """Returns a task by its name.

  Raises:
    ConfigError: if there is none of that name.
  """
  if name not in TASKS:
    raise ConfigError(
      f'task.name must be one of {", ".join(TASKS)}; got '
      f'{name!r}{nearest(name, TASKS)}.'
    )
  return TASKS[name]


def load_problems(task: Task, split: str, count: int) -> list[Problem]:
  """Returns the first `count` problems of a split; 0 = all.

  Args:
    task: whose seqio Task is read, in its own order.
    split: 'train', 'validation' or 'test'.
    count: at most so many problems.
  """
  import seqio  # TensorFlow comes with it: seconds that the core never pays.

  if task.name not in seqio.TaskRegistry.names():
    task.register()
  data = seqio.get_mixture_or_task(task.name).get_dataset(
    sequence_length=None, split=split, shuffle=False
  )
  data = data.take(count) if count else data
  problems = []
  for batch in data.batch(4096).as_numpy_iterator():
    columns = (batch[f.name] for f in dataclasses.fields(Problem))
    problems += [
      Problem(*(text.decode() for text in row))
      for row in zip(*columns, strict=True)
    ]
  return problems


def grade(
  task: Task, problems: Sequence[Problem], texts: Sequence[str]
) -> list[Verdict]:
  """Returns a verdict per attempt; a grader that fails says ERROR."""

  def one(problem, text):
    try:
      return task.grade(problem, text)
    except Exception:  # A grader's fault must cost one answer, not the run.
      return Verdict(Outcome.ERROR, '')

  return [one(*pair) for pair in zip(problems, texts, strict=True)]


def check_grader(task: Task, problems: Sequence[Problem]) -> None:
  """Refuses a task whose grader does not accept its own references.

  Raises:
    ConfigError: with the first problem that failed.
  """
  texts = [problem.reference for problem in problems]
  for problem, verdict in zip(
    problems, grade(task, problems, texts), strict=True
  ):
    if verdict.outcome != Outcome.RIGHT:
      raise ConfigError(
        f'task.name={task.name!r}: its grader calls the reference answer of '
        f'problem {problem.id} {verdict.outcome.name.lower()}; mend the data or '
        'the grader.'
      )
