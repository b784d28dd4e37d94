"""Sampled, read and graded: where arrays become text and text a reward.

Letters: N problems, B rows, T turns.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_jax import evaluation, processes, sharding, shards
from score_jax.data import Problems
from score_jax.grading import Grader
from score_jax.problem import Outcome, Problem, Verdict
from score_jax.sampler import FirstAttempts, Prompts, Sample
from score_jax.timing import Times
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

  def rates(self) -> dict[str, float]:
    """Returns the share of each outcome per turn, as `outcome_right_t1`.

    Where problems have tests, `tests_passed_t1` is the mean share of them that
    an attempt passed, over the attempts whose tests ran.
    """
    found = {}
    for turn, column in enumerate(self._outcomes().T, start=1):
      for outcome in Outcome:
        name = f'outcome_{outcome.name.lower()}_t{turn}'
        found[name] = float((column == outcome).mean())
      shares = [row[turn - 1].share for row in self.verdicts]
      shares = [share for share in shares if share is not None]
      if shares:
        found[f'tests_passed_t{turn}'] = float(np.mean(shares))
    return found

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

  def of_turns(self, turns: Sequence[int]) -> Rollout:
    """Returns the rollout with the attempts of these turns alone, from 1."""
    kept = [turn - 1 for turn in turns]
    return dataclasses.replace(
      self,
      texts=[[row[t] for t in kept] for row in self.texts],
      verdicts=[[row[t] for t in kept] for row in self.verdicts],
      truncated=self.truncated[:, kept],
    )

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

  def tokens(
    self, row: int, kl: np.ndarray, tokenizer: Tokenizer
  ) -> dict[str, list]:
    """Returns what stands behind a row's prompt, one entry per token.

    Args:
      row: of the trajectory.
      kl: float[L], each token's share of the KL to the reference.
      tokenizer: of the model.
    """
    t = self.trajectory
    ids, turn, logp, length, span = shards.fetch(
      (t.tokens[row], t.turn[row], t.logp[row], t.length[row], t.span[row])
    )
    here = slice(span[0, 0], length)
    return {
      'tokens': tokenizer.pieces(ids[here]),
      'turn': turn[here].tolist(),
      'logp': np.round(logp[here], 4).tolist(),
      'kl': np.round(kl[here], 4).tolist(),
    }


def put_prompts(
  mesh: jax.sharding.Mesh, problems: Problems, number: np.ndarray
) -> Prompts:
  """Returns problems on the mesh; `number` int32[N] fixes their draws."""
  arrays = (problems.tokens, problems.length, number.astype(np.int32))
  return Prompts(*(sharding.put_rows(mesh, x) for x in arrays))


@dataclasses.dataclass(frozen=True)
class Sampled:
  """Trajectories of a batch that the devices have made, or are making."""

  problems: Problems  # N of them.
  parts: tuple[Trajectory, ...]  # Of as many problems each, in their order.

  def whole(self) -> Sampled:
    """Returns the same in one part."""
    if len(self.parts) == 1:
      return self
    return Sampled(self.problems, (shards.settled(_concatenate(self.parts)),))


def start_sampling(
  sample: Callable[[np.ndarray], Trajectory],
  problems: Problems,
  parts: int,
  times: Times,
) -> Sampled:
  """Returns trajectories, all of whose parts the devices were given at once.

  Args:
    sample: gives the trajectories of the problems of these places, int64[n].
    problems: N of them.
    parts: divides N, so that one program serves all parts.
    times: of the step.
  """
  places = np.split(np.arange(len(problems)), parts)
  return Sampled(
    problems,
    tuple(
      times.queue(lambda place=place: shards.settled(sample(place)))
      for place in places
    ),
  )


def read_parts(
  sampled: Sampled, grader: Grader, tokenizer: Tokenizer, times: Times
) -> Callable[[], Rollout]:
  """Has trajectories graded, each part while the next is sampled.

  The host reads each part as it is done and hands it to the grader, which
  works on it in other processes.

  Args:
    sampled: by the devices, or being sampled.
    grader: of the task.
    tokenizer: of the model.
    times: of the step.

  Returns:
    what waits for the verdicts, and returns the rollout.
  """
  places = np.split(np.arange(len(sampled.problems)), len(sampled.parts))
  reading = []
  for trajectory, place in zip(sampled.parts, places, strict=True):
    with times.span('sample'):
      jax.block_until_ready(trajectory)
    with times.span('grade'):
      problems = sampled.problems.take(place)
      reading.append(start_reading(trajectory, problems, grader, tokenizer))

  def finish() -> Rollout:
    with times.span('grade'):
      done = [finish() for finish in reading]
      return done[0] if len(done) == 1 else _join(done)

  return finish


def start_reading(
  trajectory: Trajectory,
  problems: Problems,
  grader: Grader,
  tokenizer: Tokenizer,
) -> Callable[[], Rollout]:
  """Decodes the trajectories of N problems, and has them graded.

  Each process does so with its own rows, and learns of the others'.

  Returns:
    what waits for the verdicts, and returns the rollout.
  """
  each = len(trajectory.tokens) // len(problems)
  of_row = tuple(p for p in problems.problems for _ in range(each))
  mine = shards.own_rows(trajectory.tokens)
  read = shards.read_rows(
    (trajectory.tokens, trajectory.span, trajectory.truncated), mine
  )
  processes.enter('grading')
  here = [of_row[row] for row in mine]
  graded = processes.later(
    lambda: _start_grading(*read, here, grader, tokenizer)
  )

  def finish() -> Rollout:
    processes.enter('grading')
    parts = processes.share(lambda: (mine, *graded()(), read[-1]))
    numbers, texts, verdicts, truncated = zip(*parts, strict=True)
    order = np.argsort(np.concatenate(numbers))
    texts, verdicts = _in_order(texts, order), _in_order(verdicts, order)
    truncated = np.concatenate(truncated)[order]
    return Rollout(of_row, trajectory, texts, verdicts, truncated)

  return finish


def _start_grading(
  tokens: np.ndarray,
  span: np.ndarray,
  truncated: np.ndarray,
  problems: Sequence[Problem],
  grader: Grader,
  tokenizer: Tokenizer,
) -> Callable[[], tuple[list[list[str]], list[list[Verdict]]]]:
  """Returns what waits for the verdicts on rows; it gives texts and verdicts.

  Args:
    tokens: int32[B, L].
    span: int32[B, T, 2].
    truncated: bool[B, T].
    problems: of each row.
    grader: of the task.
    tokenizer: of the model.
  """
  rows, turns = truncated.shape
  flat = tokenizer.attempts(
    tokens[row, slice(*span[row, turn])]
    for row in range(rows)
    for turn in range(turns)
  )
  verdicts = grader.start([p for p in problems for _ in range(turns)], flat)
  return lambda: (_in_rows(flat, turns), _in_rows(verdicts(), turns))


def _in_order(parts: Sequence[list], order: np.ndarray) -> list:
  """Returns the entries of all parts in another order."""
  together = [entry for part in parts for entry in part]
  return [together[place] for place in order]


def _join(parts: Sequence[Rollout]) -> Rollout:
  """Returns the rows of all parts, in their order."""

  def rows(field: str) -> list:
    return [row for part in parts for row in getattr(part, field)]

  return Rollout(
    tuple(rows('problems')),
    _concatenate([part.trajectory for part in parts]),
    rows('texts'),
    rows('verdicts'),
    np.concatenate([part.truncated for part in parts]),
  )


def _concatenate(parts: Sequence[Trajectory]) -> Trajectory:
  """Returns the rows of all parts, spread over the mesh as those of one are."""
  return jax.tree.map(lambda *x: _joined(_place(x[0]))(*x), *parts)


def _place(x: jax.Array) -> jax.sharding.Sharding:
  """Returns the layout of rows like those of x, under the name it always has.

  Where axes of a mesh have size 1 one layout has many names, of which compiled
  programs return any; each would be compiled.
  """
  if not isinstance(x.sharding, jax.sharding.NamedSharding):
    return x.sharding
  return sharding.of_rows(x.sharding.mesh, x.shape)


@functools.cache
def _joined(place: jax.sharding.Sharding) -> Callable[..., jax.Array]:
  """Returns the jitted concatenation of arrays, laid out as given."""
  return jax.jit(lambda *x: jnp.concatenate(x), out_shardings=place)


def _in_rows(flat: list, turns: int) -> list[list]:
  return [flat[i : i + turns] for i in range(0, len(flat), turns)]


def given_attempts(
  mesh: jax.sharding.Mesh, problems: Problems, samples: int
) -> FirstAttempts | None:
  """Returns the fixed first attempts of problems; None where none has one.

  Args:
    mesh: of all arrays.
    problems: N of them.
    samples: first attempts per problem; all of a problem's are the fixed one.
  """
  if problems.first is None:
    return None
  given = np.array([bool(p.attempt) for p in problems.problems])
  return FirstAttempts(
    sharding.put_rows(mesh, np.repeat(problems.first, samples, axis=0)),
    sharding.put_rows(mesh, np.repeat(given, samples)),
  )


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
  tokens, span = shards.fetch((trajectory.tokens, trajectory.span))
  width = tokens.shape[1] - prompts.tokens.shape[1]
  columns = span[:, 0, :1] + np.arange(width)[None]
  columns = np.minimum(columns, tokens.shape[1] - 1)
  tokens = np.take_along_axis(tokens, columns, axis=1)
  given = np.repeat(given, tokens.shape[0] // len(given))
  return FirstAttempts(
    sharding.put_rows(mesh, tokens), sharding.put_rows(mesh, given)
  )
