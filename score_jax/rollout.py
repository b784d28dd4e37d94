"""Sampled, read and graded: where arrays become text and text a reward.

Letters: N problems, B rows, T turns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from score_jax import evaluation, sharding, tasks
from score_jax.data import Problems
from score_jax.problem import Outcome, Problem, Verdict
from score_jax.sampler import FirstAttempts, Prompts, Sample
from score_jax.tasks import Task
from score_jax.tokenizer import Tokenizer
from score_jax.trajectory import Trajectory


@dataclasses.dataclass(frozen=True)
class Rollout:
  """Trajectories of a batch with what the grader said of them."""

  problems: tuple[Problem, ...]  # Of each row.
  trajectory: Trajectory  # On the devices.
  texts: list[list[str]]  # [B][T].
  verdicts: list[list[Verdict]]  # [B][T].
  truncated: np.ndarray  # bool[B, T].

  def right(self) -> np.ndarray:
    """Returns bool[B, T]."""
    return self._outcomes() == Outcome.RIGHT

  def failure_share(self) -> float:
    """Returns the share of verdicts that say nothing of the attempt."""
    failed = np.isin(self._outcomes(), (Outcome.TIMEOUT, Outcome.ERROR))
    return float(failed.mean())

  def _outcomes(self) -> np.ndarray:
    return np.array([[v.outcome for v in row] for row in self.verdicts])

  def rewards(
    self, of_outcome: Mapping[str, float], truncated_is_wrong: bool
  ) -> np.ndarray:
    """Returns float32[B, T], r(y_t).

    Args:
      of_outcome: reward of each outcome but right, by its name in lower case.
      truncated_is_wrong: whether an attempt that was cut off earns what a
        wrong one does, even if an answer was found in it.
    """
    table = np.array(
      [of_outcome.get(o.name.lower(), 1.0) for o in Outcome], np.float32
    )
    reward = table[self._outcomes()]
    if truncated_is_wrong:
      reward = np.where(self.truncated, table[Outcome.WRONG], reward)
    return reward

  def attempts(self) -> evaluation.Attempts:
    """Returns what evaluation counts."""
    answers = [[v.answer for v in row] for row in self.verdicts]
    return evaluation.compare(self.texts, answers, self.right(), self.truncated)

  def record(self, row: int) -> dict[str, Any]:
    """Returns one row for people to read."""
    problem = self.problems[row]
    return {
      'id': problem.id,
      'prompt': problem.prompt,
      'answer': problem.answer,
      'difficulty': problem.difficulty,
      'attempts': self.texts[row],
      'answers': [v.answer for v in self.verdicts[row]],
      'outcomes': [v.outcome.name.lower() for v in self.verdicts[row]],
      'truncated': self.truncated[row].tolist(),
    }


def put_prompts(
  mesh: jax.sharding.Mesh, problems: Problems, number: np.ndarray
) -> Prompts:
  """Returns problems on the mesh; `number` int32[N] fixes their draws."""
  arrays = (problems.tokens, problems.length, number.astype(np.int32))
  return Prompts(*(sharding.put_rows(mesh, x) for x in arrays))


def read(
  trajectory: Trajectory, problems: Problems, task: Task, tokenizer: Tokenizer
) -> Rollout:
  """Returns the trajectories of N problems, decoded and graded."""
  tokens, span, truncated = jax.device_get(
    (trajectory.tokens, trajectory.span, trajectory.truncated)
  )
  rows, turns = truncated.shape
  flat = tokenizer.attempts(
    tokens[row, slice(*span[row, turn])]
    for row in range(rows)
    for turn in range(turns)
  )
  each = rows // len(problems)
  of_row = tuple(p for p in problems.problems for _ in range(each))
  of_attempt = [p for p in of_row for _ in range(turns)]
  verdicts = tasks.grade(task, of_attempt, flat)
  return Rollout(
    of_row,
    trajectory,
    _in_rows(flat, turns),
    _in_rows(verdicts, turns),
    truncated,
  )


def _in_rows(flat: list, turns: int) -> list[list]:
  return [flat[i : i + turns] for i in range(0, len(flat), turns)]


def first_attempts(
  mesh: jax.sharding.Mesh,
  sample_base: Sample,
  base_params: Any,
  prompts: Prompts,
  key: jax.Array,
  given: np.ndarray,
) -> FirstAttempts:
  """Returns the base model's first attempts, fixed by key and problem.

  They are sampled anew whenever they are wanted: the same key and number give
  the same attempt, so nothing has to be stored.

  Args:
    mesh: of all arrays.
    sample_base: samples one turn, F first attempts per problem.
    base_params: of the frozen base model.
    prompts: of N problems.
    key: the same for the whole run.
    given: bool[N], problems whose first attempts are the base's.
  """
  trajectory = sample_base(base_params, prompts, (), key)
  tokens, span = jax.device_get((trajectory.tokens, trajectory.span))
  width = tokens.shape[1] - prompts.tokens.shape[1]
  columns = span[:, 0, :1] + np.arange(width)[None]
  columns = np.minimum(columns, tokens.shape[1] - 1)
  tokens = np.take_along_axis(tokens, columns, axis=1)
  given = np.repeat(given, tokens.shape[0] // len(given))
  return FirstAttempts(
    sharding.put_rows(mesh, tokens), sharding.put_rows(mesh, given)
  )
