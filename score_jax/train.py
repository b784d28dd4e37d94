"""The loop: problems, samples, grades, update, record; and what is around it."""

from __future__ import annotations

import contextlib
import functools
import math
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_jax import (
  checkpoint,
  data,
  evaluation,
  files,
  learner,
  rollout,
  sharding,
)
from score_jax.checkpoint import CheckpointError, Checkpoints
from score_jax.grading import Grader
from score_jax.job import adapter, Interrupted, Job
from score_jax.journal import Journal, open_journal, say
from score_jax.methods.score import StagePlan, stages
from score_jax.objective import Groups
from score_jax.sampler import FirstAttempts
from score_jax.trajectory import Trajectory

# Which stream of random numbers a key belongs to.
EVALUATION, OFFLINE = 1_000_000, 1_000_001

VALIDATED = 'validation_accuracy_t1'  # In the metrics of a step that was.


class TrainingError(RuntimeError):
  """Training that must not go on; the text says why and what to do."""


def folder(job: Job, name: str) -> pathlib.Path:
  """Returns where the checkpoints of a stage are."""
  return job.workdir / 'checkpoints' / name


def is_finished(workdir: pathlib.Path, plan: StagePlan) -> bool:
  """Returns whether a stage's last checkpoint is there."""
  newest = checkpoint.newest_step(workdir / 'checkpoints' / plan.name)
  return newest is not None and newest >= plan.steps


def best_params(job: Job, name: str) -> tuple[Any, int]:
  """Returns what was trained, and the step, of a stage's best checkpoint."""
  where = folder(job, name)
  params, meta = checkpoint.restore_params(
    where, checkpoint.best_first(where), job.policy_like(), say
  )
  return params, meta['step']


class _Stage:
  """One stage under way: its programs, its state, and one step of it."""

  def __init__(self, job: Job, plan: StagePlan):
    self.job, self.plan = job, plan
    config = job.config
    s = config.sampling
    self.groups = Groups(s.first_attempts, s.second_attempts)
    each = s.first_attempts * s.second_attempts
    self.problems = config.train.trajectories // each
    # Stages follow each other in one order of problems and draws.
    names = [p.name for p in stages(config)]
    before = stages(config)[: names.index(plan.name)]
    self.offset = sum(p.steps for p in before)
    self.optimizer = learner.make_optimizer(
      **config.optimizer, steps=plan.steps
    )
    if config.model.param_dtype != 'float32':
      master = config.model.master_weights
      self.optimizer = learner.widen(self.optimizer, master)
    learning = _learning(config, plan, self.groups, job.policy, self.offset)
    self.update = learner.make_update(job.model, self.optimizer, learning)
    self.reference, self.near = _reference(job, plan)

  def init(self, params: Any) -> learner.TrainState:
    """Returns the state before the first update; params are copied."""
    params = jax.tree.map(
      lambda x, like: jnp.array(x, like.dtype, copy=True),
      params,
      self.job.policy_like(),
    )
    make = functools.partial(
      learner.init_state,
      optimizer=self.optimizer,
      beta2=self.job.config.method.beta2,
    )
    places = self._places(jax.eval_shape(make, params))
    return jax.jit(make, out_shardings=places)(params)

  def abstract(self) -> learner.TrainState:
    """Returns shapes and layout of the state, to restore it."""
    make = functools.partial(
      learner.init_state, optimizer=self.optimizer, beta2=0.0
    )
    shapes = jax.eval_shape(make, self.job.policy_like())
    return jax.tree.map(
      lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
      shapes,
      self._places(shapes),
    )

  def _places(self, shapes: learner.TrainState) -> learner.TrainState:
    mesh, params = self.job.mesh, self.job.param_shardings
    whole = sharding.replicated(mesh)
    return learner.TrainState(
      step=whole,
      params=params,
      opt_state=sharding.of_optimizer(
        mesh, self.optimizer, shapes.opt_state, params
      ),
      beta2=whole,
      skipped=whole,
    )

  def rollout(self, params: Any, step: int) -> rollout.Rollout:
    """Returns the graded trajectories of step `step`, from 0."""
    job, number = self.job, self.offset + step
    index = data.batch_indices(
      len(job.train), job.config.seed, number, self.problems
    )
    problems = job.train.take(index)
    key = jax.random.fold_in(job.root_key(), number)
    bound = job.bound(params)

    def sample(places: np.ndarray) -> Trajectory:
      part = problems.take(places)
      return job.training_sampler(
        bound,
        rollout.put_prompts(job.mesh, part, places),
        job.instructions,
        key,
        self._first(part, index[places], places),
      )

    return rollout.sample_and_read(
      sample, problems, job.config.sampling.parts, job.grader, job.tokenizer
    )

  def _first(
    self, problems: data.Problems, index: np.ndarray, places: np.ndarray
  ) -> FirstAttempts | None:
    """Returns the first attempts that are not sampled now, or None.

    They are the task's own where it fixes them, else the base's for a share of
    the batch.
    """
    job = self.job
    count = round(job.config.method.offline_fraction * self.problems)
    if problems.first is not None or not count:
      return rollout.given_attempts(
        job.mesh, problems, job.config.sampling.first_attempts
      )
    return rollout.first_attempts(
      job.mesh,
      job.first_attempt_sampler,
      job.base_on_devices(),
      rollout.put_prompts(job.mesh, problems, index),
      jax.random.fold_in(job.root_key(), OFFLINE),
      places < count,
    )


def _reference(job: Job, plan: StagePlan) -> tuple[Any, Any]:
  """Returns the reference's parameters, and its own adapter or None."""
  if not plan.near:
    return job.base, None
  trained, _ = best_params(job, plan.near)
  if adapter(job.config) is not None:
    return job.base, trained
  # In the base's types and places, which may be the host's memory.
  return jax.tree.map(
    lambda x, like: jax.device_put(x.astype(like.dtype), like.sharding),
    trained,
    job.base,
  ), None


def _learning(config, plan, groups, policy, offset) -> learner.Learning:
  method, adaptive = config.method, config.method.adaptive_beta2
  return learner.Learning(
    stage=plan.stage,
    groups=groups,
    policy=policy,
    baseline=method.baseline,
    mask_truncated=method.truncated == 'mask',
    accumulation=config.train.accumulation,
    logits_chunk=config.model.logits_chunk,
    beta2_rate=adaptive.rate,
    beta2_fraction=adaptive.fraction,
    beta2_low=adaptive.low,
    beta2_high=adaptive.high,
    lora=adapter(config),
    seed=config.seed,
    first_step=offset,
  )


def train_stage(job: Job, plan: StagePlan, start: Callable[[], Any]) -> None:
  """Trains a stage to its last checkpoint, from its newest one or `start`.

  Args:
    job: what all stages share.
    plan: of the stage.
    start: returns the parameters that it starts from, and is called if it has
      no checkpoint; nobody else may hold them, or they would stay in memory.

  Raises:
    Interrupted: on SIGTERM, when the state is saved.
    TrainingError: if going on would waste what was trained.
  """
  stage = _Stage(job, plan)
  keep = job.config.checkpoint.keep
  opened = checkpoint.open_checkpoints(folder(job, plan.name), keep, say)
  with contextlib.closing(opened) as checkpoints:
    state, history = _resume(stage, checkpoints, start)
    log = job.config.log
    with open_journal(
      job.workdir, plan.name, plan.steps, history, log.tensorboard, log.progress
    ) as journal:
      _loop(stage, state, checkpoints, journal)


def _resume(stage: _Stage, checkpoints: Checkpoints, start: Callable):
  """Returns state and metric history, restored or new."""
  job, plan = stage.job, stage.plan
  found = checkpoints.restore(stage.abstract())
  if found is None:
    return stage.init(start()), []
  state, meta = found
  if meta['reference'] != job.base_hash:
    raise TrainingError(
      f'{checkpoints.folder} was trained against another base model '
      f'({meta["reference"]}) than model.path gives ({job.base_hash}); set '
      'model.path back, or give another --workdir.'
    )
  say(f'{plan.name}: going on from step {meta["step"]} of {plan.steps}')
  history = meta['history']
  if _validates(stage, len(history)) and VALIDATED not in history[-1]:
    history[-1] |= _validate(job, state.params)
  return state, history


def _loop(
  stage: _Stage,
  state: learner.TrainState,
  checkpoints: Checkpoints,
  journal: Journal,
) -> None:
  config = stage.job.config
  for step in range(len(journal.history), stage.plan.steps):
    started = time.monotonic()
    state, metrics = _step(stage, state, step, journal)
    done = step + 1
    last = done == stage.plan.steps
    if _validates(stage, done):
      # Asked to end, it saves first; who goes on validates then.
      with contextlib.suppress(Interrupted):
        metrics |= _validate(stage.job, state.params)
    metrics['seconds'] = time.monotonic() - started
    journal.step(metrics)
    if done % config.checkpoint.every == 0 or last or stage.job.stop.asked:
      _save(stage, state, checkpoints, journal)
    if stage.job.stop.asked and not last:
      checkpoints.wait()
      raise Interrupted
  checkpoints.wait()


def _validates(stage: _Stage, done: int) -> bool:
  """Returns whether a validation follows that many steps."""
  every = stage.job.config.eval.every
  return bool(every) and (done % every == 0 or done == stage.plan.steps)


def _step(
  stage: _Stage, state: learner.TrainState, step: int, journal: Journal
) -> tuple[learner.TrainState, dict[str, Any]]:
  """Returns the state after one more update, and its metrics."""
  job, clock = stage.job, _Clock()
  graded = stage.rollout(state.params, step)
  seconds = {'seconds_sample': clock.lap()}
  reward = graded.rewards(
    job.config.method.reward, job.config.method.truncated == 'wrong'
  )
  counted = _counts(graded) | graded.rates()
  seconds['seconds_grade'] = clock.lap()
  batch = learner.Batch(graded.trajectory, sharding.put_rows(job.mesh, reward))
  state, metrics = stage.update(state, stage.reference, batch, stage.near)
  of_rows = {name: metrics.pop(name) for name in learner.ROWS}
  metrics = _flat(jax.device_get(metrics))
  seconds['seconds_update'] = clock.lap()
  weights = np.asarray(stage.plan.stage.reward)
  record = counted | metrics | seconds
  record['reward'] = float((reward.mean(axis=0) * weights).sum())
  tokens = np.sum([metrics[f'tokens_t{t + 1}'] for t in range(len(weights))])
  record['tokens_per_second'] = (
    float(tokens) * len(reward) / sum(seconds.values())
  )
  if step % max(1, job.config.log.samples_every) == 0:
    journal.samples(_samples(job, graded, reward, of_rows))
  _check_limits(stage, record, graded)
  return state, record


def _samples(
  job: Job,
  graded: rollout.Rollout,
  reward: np.ndarray,
  of_rows: dict[str, jax.Array],
) -> Iterator[dict[str, Any]]:
  """Gives a few rows of a batch, spread over it, for people to read."""
  rows = np.linspace(0, len(reward), job.config.log.samples, endpoint=False)
  for row in rows.astype(int):
    advantage, kl = (
      jax.device_get(of_rows[name][row]) for name in ('advantage', 'token_kl')
    )
    yield (
      graded.record(row)
      | {'reward': reward[row].tolist(), 'advantage': advantage.tolist()}
      | graded.tokens(row, kl, job.tokenizer)
    )


class _Clock:
  """Gives the seconds since it was last asked."""

  def __init__(self):
    self._last = time.monotonic()

  def lap(self) -> float:
    now = time.monotonic()
    seconds, self._last = now - self._last, now
    return seconds


def _flat(metrics: dict[str, Any]) -> dict[str, Any]:
  """Returns scalars by name; a number per turn becomes name_t1, name_t2, ..."""
  flat = {}
  for name, value in metrics.items():
    if np.ndim(value):
      flat |= {f'{name}_t{t}': float(x) for t, x in enumerate(value, start=1)}
    else:
      flat[name] = float(value)
  return flat


def _counts(graded: rollout.Rollout) -> dict[str, float | None]:
  """Returns the means of what evaluation counts; None where nothing counts."""
  values = evaluation.problem_values(graded.attempts())
  return {
    name: float(np.nanmean(x)) if not np.isnan(x).all() else None
    for name, x in values.items()
  }


def _check_limits(stage, record, graded) -> None:
  """Raises TrainingError where a limit is passed."""
  limits, name = stage.job.config.limits, stage.plan.name
  gap = record['logp_gap_mean']
  if record['skipped'] >= limits.nonfinite_updates:
    raise TrainingError(
      f'{name}: {record["skipped"]:.0f} updates in a row were not finite '
      f'(limits.nonfinite_updates={limits.nonfinite_updates}); lower '
      'optimizer.learning_rate, or go back to an earlier checkpoint.'
    )
  if gap > limits.logp_gap:
    raise TrainingError(
      f'{name}: sampling and scoring disagree by {gap:.2g} nats per token '
      f'(limits.logp_gap={limits.logp_gap:g}); the update would train another '
      'policy than the one that sampled. Use model.dtype=float32, or raise the '
      'limit if the gap is that of rounding.'
    )
  if graded.failure_share() > limits.grader_failures:
    raise TrainingError(
      f'{name}: the grader failed on {graded.failure_share():.0%} of the '
      f'attempts (limits.grader_failures={limits.grader_failures:g}); mend it '
      'before its zeros teach the model anything.'
      f'{_complaint(stage.job)}'
    )


def _complaint(job: Job) -> str:
  """Returns what a grader raised, or ''."""
  return ''.join(f' The first error: {x}' for x in job.grader.complaints()[:1])


def _save(stage, state, checkpoints, journal) -> None:
  """Saves state and metric history; the score is the latest mean reward."""
  done = len(journal.history)
  # Between saves, so that one lucky batch does not make a checkpoint the best.
  every = stage.job.config.checkpoint.every
  score = float(np.mean([row['reward'] for row in journal.history[-every:]]))
  if done % every and done != stage.plan.steps:
    # Saved because someone asked it to end: were it the best one, the next
    # stage would start from another step than that of the unbroken run.
    score = math.nan
  problems = (stage.offset + done) * stage.problems
  meta = {
    'step': done,
    'stage': stage.plan.name,
    'seed': stage.job.config.seed,
    'data_position': problems,
    'reference': stage.job.base_hash,
    'history': journal.history,
  }
  try:
    checkpoints.save(done, state, meta, score)
  except CheckpointError as error:
    if done == stage.plan.steps:
      raise
    say(f'{error} Training goes on; the next save tries again.')


def evaluate(
  job: Job, params: Any, problems: data.Problems, grader: Grader
) -> tuple[evaluation.Attempts, list[dict[str, Any]]]:
  """Returns what all problems' attempts were, counted and to read."""
  size = min(job.config.eval.batch, len(problems))
  key = jax.random.fold_in(job.root_key(), EVALUATION)
  reading, parts, rows = [], [], []
  for start in range(0, len(problems), size):
    job.stop.check()
    number = np.arange(start, start + size)
    # The last batch is filled up, so that one program serves all of them.
    filled = problems.take(np.minimum(number, len(problems) - 1))
    prompts = rollout.put_prompts(job.mesh, filled, number)
    first = rollout.given_attempts(job.mesh, filled, samples=1)
    trajectory = job.evaluation_sampler(
      params, prompts, job.instructions, key, first
    )
    reading.append(
      rollout.start_reading(trajectory, filled, grader, job.tokenizer)
    )
  for finish in reading:
    graded = finish()
    parts.append(vars(graded.attempts()))
    rows += [graded.record(row) for row in range(size)]
  count = len(problems)
  whole = jax.tree.map(lambda *x: np.concatenate(x)[:count], *parts)
  return evaluation.Attempts(**whole), rows[:count]


def _validate(job: Job, params: Any) -> dict[str, float | None]:
  attempts, _ = evaluate(
    job, job.bound(params), job.validation, job.grader
  )
  values = evaluation.problem_values(attempts)
  return {
    f'validation_{name}': None if np.isnan(x).all() else float(np.nanmean(x))
    for name, x in values.items()
  }


def evaluate_into(job: Job, name: str, params: Any, step: int) -> dict:
  """Returns the test result of a checkpoint, from eval.json or put there."""
  path = job.workdir / 'eval.json'
  results = files.read_json(path) if path.exists() else {}
  if name in results and results[name]['step'] == step:
    return results[name]
  attempts, rows = evaluate(job, params, job.test, job.test_grader)
  config = job.config
  summary = evaluation.summarize(attempts, config.eval.resamples, config.seed)
  where = job.workdir / 'evaluations'
  where.mkdir(exist_ok=True)
  files.write_jsonl(where / f'{name}.jsonl', rows)
  results[name] = summary | {'step': step}
  files.write_json(path, results)
  return results[name]
