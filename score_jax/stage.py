"""One stage of reinforcement learning, and one step of it.

    step k         sample k ──► grade k ──► update k
    overlapping    sample k + 1 ───────► update k ──► sample k + 2 ──► ...
                   ... grade k ────────►│grade k + 1 ────────────────►│...

An overlapping step hands the devices the next batch before it waits for the
verdicts on this one, and gives the graders that batch before it waits for the
update, so that both have work meanwhile. What is sampled is then one step older
than what learns from it, which `correction` weighs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from score_jax import (
  inspection,
  learner,
  phase,
  processes,
  programs,
  rollout,
  sharding,
  shards,
)
from score_jax.job import Job
from score_jax.journal import Journal, say
from score_jax.methods.plan import StagePlan
from score_jax.phase import TrainingError
from score_jax.programs import adapter
from score_jax.timing import Times

# Spans in which tokens are made and learned from.
WORK = ('data', 'sample', 'grade', 'update')


class Stage:
  """One stage under way: its programs, its state, and one step of it."""

  def __init__(self, job: Job, plan: StagePlan):
    self.job, self.plan = job, plan
    self.problems = phase.batch_problems(job)
    self.offset = phase.offset(job, plan)
    self.optimizer = programs.optimizer(job.config, plan.steps)
    averaged = plan.baseline == 'moving_average'
    self.averages = len(plan.stage.reward) if averaged else 0
    learning = programs.learning(
      job.config, plan.stage, plan.baseline, self.offset
    )
    self.update = learner.make_update(job.model, self.optimizer, learning)
    self.reference, self.near = _reference(job, plan)
    # What is sampled of the step that comes next, where steps overlap.
    self._ahead: rollout.Sampled | None = None
    # Waits for the verdicts on it, once the graders have it.
    self._graded: Callable[[], rollout.Rollout] | None = None

  def init(self, params: Any) -> learner.TrainState:
    """Returns the state before the first update; params are copied."""
    return phase.new_state(self.job, self.optimizer, params, self.averages)

  def abstract(self) -> Any:
    """Returns shapes and layout of what `saved` gives, to restore it."""
    state = phase.abstract_state(self.job, self.optimizer, self.averages)
    if not self.job.config.train.overlap:
      return state
    return _with(state, phase.abstract_trajectory(self.job))

  def saved(self, state: learner.TrainState) -> Any:
    """Returns what has to be saved for a resumed run to go on as this one.

    That is the state, and what was sampled ahead: its parameters are gone.
    """
    return state if self._ahead is None else _with(state, *self._ahead.parts)

  def restored(self, found: Any, step: int) -> learner.TrainState:
    """Returns the state of what `saved` gave, before the update of `step`."""
    if not self.job.config.train.overlap:
      return found
    leaves = dict(found)
    _, problems = phase.batch(self.job, self.offset + step)
    self._ahead = rollout.Sampled(problems, (leaves.pop('ahead'),))
    return learner.TrainState(**leaves)

  def rollout(self, params: Any, step: int, times: Times) -> rollout.Rollout:
    """Returns the graded trajectories of step `step`, from 0."""
    sampled = self._ahead or self._start(params, step, times)
    graded, self._ahead, self._graded = self._graded, None, None
    last = step + 1 == self.plan.steps
    if self.job.config.train.overlap and not last:
      self._ahead = self._start(params, step + 1, times).whole()
    return (graded or phase.start_grading(self.job, sampled, times))()

  def _start(self, params: Any, step: int, times: Times) -> rollout.Sampled:
    number = self.offset + step
    return phase.start_sampling(
      self.job, params, number, self.plan.offline, times
    )

  def greedy(
    self, params: Any, graded: rollout.Rollout, times: Times
  ) -> tuple[jax.Array | None, dict[str, int]]:
    """Returns what greedy attempts earn where the baseline asks for them."""
    if self.plan.baseline != 'remax':
      return None, dict.fromkeys(phase.SAMPLED, 0)
    with times.span('sample'), times.working():
      reward, sampled = phase.greedy_rewards(self.job, params, graded)
    return sharding.put_rows(self.job.mesh, reward), sampled

  def score(self, history: list[dict[str, Any]]) -> float:
    """Returns the newest checkpoint's figure of merit: the latest mean reward.

    Between saves, so that one lucky batch does not make a checkpoint the best.
    """
    every = self.job.config.checkpoint.every
    return float(np.mean([row['reward'] for row in history[-every:]]))

  def step(
    self, state: learner.TrainState, step: int, journal: Journal, times: Times
  ) -> tuple[learner.TrainState, dict[str, Any]]:
    """Returns the state after one more update, and its metrics."""
    job, where = self.job, f'{self.plan.name} step {step + 1}'
    processes.enter('sampling', where)
    graded = self.rollout(state.params, step, times)
    with times.span('grade'):
      reward = phase.rewards(job, graded)
      record = phase.counts(graded) | graded.rates()
    greedy, more = self.greedy(state.params, graded, times)
    processes.enter('updating', where)
    with times.span('update'):
      paid = sharding.put_rows(job.mesh, reward)
      batch = learner.Batch(graded.trajectory, paid, greedy)
      state, metrics = times.queue(
        lambda: self.update(state, self.reference, batch, self.near),
        result=lambda made: made[1],
      )
      if self._ahead:
        self._graded = phase.start_grading(job, self._ahead, times)
        processes.enter('updating')
      of_rows = {name: metrics.pop(name) for name in learner.ROWS}
      metrics = _flat(shards.fetch(metrics))
    with times.span('log'):
      weights = np.asarray(self.plan.stage.reward)
      record |= metrics
      shared = job.config.sampling.second_attempts
      counts = phase.sampled(graded, shared)
      record |= {k: x + more[k] for k, x in counts.items()}
      record['reward'] = float((reward.mean(axis=0) * weights).sum())
      tokens = [metrics[f'tokens_t{t + 1}'] for t in range(len(weights))]
      tokens = (tokens[0] / shared + sum(tokens[1:])) * len(reward)
      record['tokens_per_second'] = tokens / times.spent(*WORK)
      every = job.config.log.samples_every
      if every and step % every == 0:
        journal.samples([*_samples(job, graded, reward, of_rows)])
      if record['skipped']:
        _keep_batch(self, step, graded, reward, of_rows)
    _check_limits(self, record, graded)
    return state, record


def _with(state: learner.TrainState, ahead: Any) -> dict[str, Any]:
  """Returns a state with what was sampled ahead, under the names it has alone."""
  return vars(state) | {'ahead': ahead}


def _reference(job: Job, plan: StagePlan) -> tuple[Any, Any]:
  """Returns the reference's parameters, and its own adapter or None."""
  if not plan.near:
    return job.base, None
  trained, _ = phase.best_params(job, plan.near)
  if adapter(job.config) is not None:
    return job.base, trained
  # In the base's types and places, which may be the host's memory.
  return jax.tree.map(
    lambda x, like: jax.device_put(x.astype(like.dtype), like.sharding),
    trained,
    job.base,
  ), None


def _keep_batch(
  stage: Stage,
  step: int,
  graded: rollout.Rollout,
  reward: np.ndarray,
  of_rows: dict[str, jax.Array],
) -> None:
  """Keeps a batch whose update was not finite, and was skipped."""
  texts = (
    graded.record(row) | {'reward': earned.tolist()}
    for row, earned in enumerate(reward)
  )
  arrays = vars(graded.trajectory) | of_rows | {'reward': reward}
  name = f'{stage.plan.name}-{step + 1:06}'
  say(f'{name}: the update was not finite, and is skipped')
  inspection.keep(stage.job.workdir, name, arrays, texts)


def _samples(
  job: Job,
  graded: rollout.Rollout,
  reward: np.ndarray,
  of_rows: dict[str, jax.Array],
) -> Iterator[dict[str, Any]]:
  """Gives a few rows of a batch, spread over it, for people to read."""
  # On the host before they are cut: on the devices that would be compiled.
  of_rows = shards.fetch(of_rows)
  trajectory = shards.fetch(graded.trajectory)
  graded = dataclasses.replace(graded, trajectory=trajectory)
  rows = np.linspace(0, len(reward), job.config.log.samples, endpoint=False)
  for row in rows.astype(int):
    advantage, credit, kl = (of_rows[name][row] for name in learner.ROWS)
    yield (
      graded.record(row)
      | {'reward': reward[row].tolist(), 'paid': credit.tolist()}
      | {'advantage': advantage.tolist()}
      | graded.tokens(row, kl, job.tokenizer)
    )


def _flat(metrics: dict[str, Any]) -> dict[str, Any]:
  """Returns scalars by name; a number per turn becomes name_t1, name_t2, ..."""
  flat = {}
  for name, value in metrics.items():
    if np.ndim(value):
      flat |= {f'{name}_t{t}': float(x) for t, x in enumerate(value, start=1)}
    else:
      flat[name] = float(value)
  return flat


def _check_limits(stage, record, graded) -> None:
  """Raises TrainingError where a limit is passed."""
  limits, name = stage.job.config.limits, stage.plan.name
  if record['skipped'] >= limits.nonfinite_updates:
    raise TrainingError(
      f'{name}: {record["skipped"]:.0f} updates in a row were not finite '
      f'(limits.nonfinite_updates={limits.nonfinite_updates}); their batches '
      f'are in {stage.job.workdir / inspection.FOLDER}. Lower '
      'optimizer.learning_rate, or go back to an earlier checkpoint.'
    )
  check_gap(stage, record['logp_gap_mean'])
  if graded.failure_share() > limits.grader_failures:
    raise TrainingError(
      f'{name}: the grader failed on {graded.failure_share():.0%} of the '
      f'attempts (limits.grader_failures={limits.grader_failures:g}); mend it '
      'before its zeros teach the model anything.'
      f'{_complaint(stage.job)}'
    )


def check_gap(stage: Stage, gap: float) -> None:
  """Raises TrainingError where the scored policy is not the one that sampled."""
  limits, name = stage.job.config.limits, stage.plan.name
  said = f'{name}: sampling and scoring disagree by {gap:.2g} nats per token '
  chosen = stage.job.config.method.correction
  if chosen == 'none' and gap > limits.logp_gap:
    raise TrainingError(
      f'{said}(limits.logp_gap={limits.logp_gap:g}); the update would train '
      f'another policy than the one that sampled. {_wider(stage.job.config)}, '
      "weigh what is sampled with method.correction='truncated', or raise the "
      'limit if the gap is that of rounding.'
    )
  if chosen != 'none' and gap > limits.corrected_gap:
    raise TrainingError(
      f'{said}(limits.corrected_gap={limits.corrected_gap:g}). With '
      f'method.correction={chosen} some gap is expected, and weighed; one this '
      'large leaves little that weights can mend. Lower '
      'optimizer.learning_rate, set train.overlap=False, or raise the limit if '
      'weight_ess in metrics.jsonl stays near 1.'
    )


def _wider(config: ConfigDict) -> str:
  """Returns which setting brings sampling and scoring closer."""
  for name in ('weights', 'cache'):
    if config.sampling[name] not in ('same', config.model.dtype):
      return f"Use sampling.{name}='same'"
  return 'Use model.dtype=float32'


def _complaint(job: Job) -> str:
  """Returns what a grader raised, or ''."""
  of_all = processes.share(job.grader.complaints)
  first = [text for complaints in of_all for text in complaints][:1]
  return ''.join(f' The first error: {x}' for x in first)
