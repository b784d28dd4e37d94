"""What every phase of training shares: its batches, its state, its counts."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from score_jax import (
  checkpoint,
  claims,
  data,
  evaluation,
  learner,
  processes,
  programs,
  rollout,
  sharding,
  shards,
  streams,
)
from score_jax.config import samples_per_problem
from score_jax.job import Job
from score_jax.journal import say
from score_jax.methods import catalogue
from score_jax.methods.plan import Phase
from score_jax.places import Place
from score_jax.sampler import FirstAttempts, Prompts
from score_jax.timing import Times
from score_jax.trajectory import Trajectory


class TrainingError(RuntimeError):
  """Training that must not go on; the text says why and what to do."""


def folder(job: Job, name: str) -> Place:
  """Returns where the checkpoints of a stage are."""
  return claims.checkpoints(job.config, job.workdir) / name


def best_first(where: Place) -> list[int]:
  """Returns the steps in a folder from the best; one process looks for all."""
  return processes.decide(lambda: checkpoint.best_first(where))


def best_params(job: Job, name: str) -> tuple[Any, int]:
  """Returns what was trained, and the step, of a stage's best checkpoint."""
  where = folder(job, name)
  params, meta = checkpoint.restore_params(
    where, best_first(where), job.policy_like(), say
  )
  check_reference(job, where, meta)
  return params, meta['step']


def check_reference(job: Job, where: Any, meta: Mapping[str, Any]) -> None:
  """Refuses work on another base model than the job's.

  Args:
    job: what all stages share.
    where: the work is, for people.
    meta: what it says of itself; its `reference` is the hash of its base.

  Raises:
    TrainingError: if it is another.
  """
  if meta['reference'] != job.base_hash:
    raise TrainingError(
      f'{where} belongs to another base model ({meta["reference"]}) than '
      f'model.path gives ({job.base_hash}); set model.path back, or give '
      'another --workdir.'
    )


def offset(job: Job, phase: Phase) -> int:
  """Returns the steps of all phases before this one.

  Phases follow each other in one order of problems and draws.
  """
  phases = catalogue.get(job.config).phases
  names = [p.name for p in phases]
  return sum(p.steps for p in phases[: names.index(phase.name)])


def batch_problems(job: Job) -> int:
  """Returns the problems of a batch."""
  return job.config.train.trajectories // samples_per_problem(job.config)


def new_state(
  job: Job,
  optimizer: optax.GradientTransformation,
  params: Any,
  averages: int = 0,
) -> learner.TrainState:
  """Returns the state before the first update; params are copied.

  Args:
    job: what all phases share.
    optimizer: of the phase.
    params: what the phase starts from; masters are kept as precise as these.
    averages: see `learner.init_state`.
  """

  def make(params):
    params = jax.tree.map(jnp.copy, params)  # Else a state may be its start.
    state = learner.init_state(
      params, optimizer, job.config.method.beta2, averages
    )
    return dataclasses.replace(state, params=as_trained(job, params))

  shapes = jax.eval_shape(make, params)
  places = programs.state_places(
    job.mesh, optimizer, shapes, job.param_shardings
  )
  return jax.jit(make, out_shardings=places)(params)


def as_trained(job: Job, params: Any) -> Any:
  """Returns parameters in the type that is trained, rounded if need be."""
  return jax.tree.map(
    lambda x, like: x.astype(like.dtype), params, job.policy_like()
  )


def masters_like(job: Job) -> Any:
  """Returns shapes and layout of the masters in a state; None without them."""
  model = job.config.model
  if model.param_dtype == 'float32' or not model.master_weights:
    return None
  master = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32, sharding=x.sharding),
    job.policy_like(),
  )
  return {'opt_state': {'master': master}}


def abstract_state(
  job: Job, optimizer: optax.GradientTransformation, averages: int = 0
) -> learner.TrainState:
  """Returns shapes and layout of the state, to restore it."""
  like = job.policy_like()
  return programs.abstract_state(job.mesh, optimizer, like, averages)


def batch(job: Job, number: int) -> tuple[np.ndarray, data.Problems]:
  """Returns the problems of a batch, and which these are, int64[N].

  Args:
    job: what all phases share.
    number: of the batch, from 0 and over all phases.
  """
  size = batch_problems(job)
  index = job.train.batch(job.config.seed, number, size)
  return index, job.train.take(index)


def start_sampling(
  job: Job, params: Any, number: int, offline: float, times: Times
) -> rollout.Sampled:
  """Returns the trajectories of a batch, which the devices begin to make.

  Args:
    job: what all phases share.
    params: of what is trained, which samples.
    number: of the batch, from 0 and over all phases.
    offline: share of its problems whose first attempts are the base's.
    times: of the step.
  """
  with times.span('data'):
    index, problems = batch(job, number)
  key = jax.random.fold_in(job.root_key(), number)
  base = functools.cache(lambda: job.prepared(job.base_on_devices()))
  given = round(offline * len(problems))

  def of_part(places: np.ndarray) -> Trajectory:
    part = problems.take(places)
    return job.training_sampler(
      ready,
      rollout.put_prompts(job.mesh, part, places),
      job.instructions,
      key,
      _first(job, part, index[places], places < given, base),
    )

  with times.span('sample'):
    ready = job.prepared(job.bound(params))
    return rollout.start_sampling(
      of_part, problems, job.config.sampling.parts, times
    )


def start_grading(
  job: Job, sampled: rollout.Sampled, times: Times
) -> Callable[[], rollout.Rollout]:
  """Has a batch graded; returns what waits for it, and gives the rollout."""
  return rollout.read_parts(sampled, job.grader, job.tokenizer, times)


def abstract_trajectory(job: Job) -> Trajectory:
  """Returns shapes and layout of the trajectories of a batch."""
  _, problems = batch(job, 0)
  prompts = rollout.put_prompts(job.mesh, problems, np.arange(len(problems)))

  def sample(params):
    key = job.root_key()
    return job.training_sampler(
      job.prepared(job.bound(params)), prompts, job.instructions, key
    )

  def placed(x):
    place = sharding.of_rows(job.mesh, x.shape)
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)

  return jax.tree.map(placed, jax.eval_shape(sample, job.policy_like()))


def _first(
  job: Job,
  problems: data.Problems,
  index: np.ndarray,
  given: np.ndarray,
  base: Callable[[], Any],
) -> FirstAttempts | None:
  """Returns the first attempts that are not sampled now, or None.

  They are the task's own where it fixes them, else the base's where given.
  """
  if problems.first is not None or not given.any():
    return rollout.given_attempts(
      job.mesh, problems, job.config.sampling.first_attempts
    )
  return rollout.first_attempts(
    job.mesh,
    job.first_attempt_sampler,
    base(),
    rollout.put_prompts(job.mesh, problems, index),
    jax.random.fold_in(job.root_key(), streams.OFFLINE),
    given,
  )


def rewards(job: Job, graded: rollout.Rollout) -> np.ndarray:
  """Returns float32[B, T], r(y_t) under the job's settings."""
  method = job.config.method
  return graded.rewards(method.reward, method.truncated == 'wrong')


def greedy_rewards(
  job: Job, params: Any, graded: rollout.Rollout
) -> tuple[np.ndarray, dict[str, int]]:
  """Returns float32[B, T], r of the greedy attempt on each turn's context.

  A context is all that the row holds before the attempt. Before the first one
  all rows of a problem hold the same, so one attempt serves them.

  Returns:
    the rewards, and what was sampled for them, as `sampled` counts it.
  """
  tokens, span = shards.fetch(
    (graded.trajectory.tokens, graded.trajectory.span)
  )
  each = samples_per_problem(job.config)
  key = jax.random.fold_in(job.root_key(), streams.GREEDY)
  columns, total = [], dict.fromkeys(SAMPLED, 0)
  ready = job.prepared(job.bound(params))
  for turn, sampler in enumerate(job.greedy_samplers):
    every = 1 if turn else each
    rows = np.arange(0, len(tokens), every)
    problems = data.Problems(
      tuple(graded.problems[row] for row in rows),
      tokens[rows],
      span[rows, turn, 0],
    )
    trajectory = sampler(ready, _contexts(job, problems), (), key)
    read = rollout.start_reading(
      trajectory, problems, job.grader, job.tokenizer
    )()
    columns.append(np.repeat(rewards(job, read)[:, 0], every))
    total = {k: total[k] + x for k, x in sampled(read, 1).items()}
  return np.stack(columns, axis=1), total


def _contexts(job: Job, problems: data.Problems) -> Prompts:
  return rollout.put_prompts(job.mesh, problems, np.arange(len(problems)))


def counts(graded: rollout.Rollout) -> dict[str, float | None]:
  """Returns the means of what evaluation counts; None where nothing counts."""
  values = evaluation.problem_values(graded.attempts())
  return {
    name: float(np.nanmean(x)) if not np.isnan(x).all() else None
    for name, x in values.items()
  }


def seen(job: Job, graded: rollout.Rollout) -> dict[str, float | None]:
  """Returns what graded trajectories say of the model, in a step's record.

  `reward` is the sum of the turns' mean rewards.
  """
  reward = float(rewards(job, graded).mean(axis=0).sum())
  return counts(graded) | graded.rates() | {'reward': reward}


SAMPLED = ('sampled_attempts', 'sampled_tokens')


def sampled(graded: rollout.Rollout, second_attempts: int) -> dict[str, int]:
  """Returns how many attempts were sampled, and of how many tokens.

  First attempts that the task gives are not.

  Args:
    graded: trajectories.
    second_attempts: adjacent ones that share a first attempt, which counts once.
  """
  span, turn = shards.fetch((graded.trajectory.span, graded.trajectory.turn))
  tokens = span[..., 1] - span[..., 0]
  # A greedy attempt at such a problem (ReMax) is sampled nevertheless.
  own = np.array([not problem.attempt for problem in graded.problems])
  own |= (turn == 1).any(axis=1)
  first = tokens[:, 0][own][::second_attempts]
  later = tokens[:, 1:]
  return {
    'sampled_attempts': first.size + later.size,
    'sampled_tokens': int(first.sum() + later.sum()),
  }
