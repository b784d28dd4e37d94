"""The loop: problems, samples, grades, update, record; and what is around it."""

from __future__ import annotations

import contextlib
import math
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from score_jax import (
  alarms,
  checkpoint,
  data,
  evaluation,
  files,
  inspection,
  learner,
  phase,
  processes,
  rollout,
  sharding,
  shards,
)
from score_jax.checkpoint import CheckpointError, Checkpoints
from score_jax.config import ConfigError
from score_jax.grading import Grader
from score_jax.imitation import ImitationRound
from score_jax.job import adapter, Interrupted, Job
from score_jax.journal import Journal, open_journal, say
from score_jax.methods.plan import Inference, Phase, StagePlan
from score_jax.objective import Groups
from score_jax.phase import TrainingError

# Which stream of random numbers a key belongs to.
EVALUATION = 1_000_000

VALIDATED = 'validation_accuracy_t1'  # In the metrics of a step that was.


def folder(job: Job, name: str) -> pathlib.Path:
  """Returns where the checkpoints of a stage are."""
  return job.workdir / 'checkpoints' / name


def is_finished(workdir: pathlib.Path, plan: Phase) -> bool:
  """Returns whether a stage's last checkpoint is there, to its last byte."""
  folder = workdir / 'checkpoints' / plan.name

  def reached() -> bool:
    newest = checkpoint.newest_step(folder)
    if newest is None or newest < plan.steps:
      return False
    return not checkpoint.is_damaged(folder, newest, read=['meta'])

  return processes.decide(reached)


def best_params(job: Job, name: str) -> tuple[Any, int]:
  """Returns what was trained, and the step, of a stage's best checkpoint."""
  where = folder(job, name)
  params, meta = checkpoint.restore_params(
    where, _best_first(where), job.policy_like(), say
  )
  return params, meta['step']


def start_params(job: Job, name: str) -> tuple[Any, int]:
  """Returns what the stage behind another starts from, and which step it was.

  These are the parameters of its best checkpoint, as float32 masters where it
  has any: rounded ones would lose the changes that masters are kept for.
  """
  like = phase.masters_like(job)
  if like is None:
    return best_params(job, name)
  where = folder(job, name)
  state, meta = checkpoint.restore_part(where, _best_first(where), like, say)
  return state['opt_state']['master'], meta['step']


def _best_first(where: pathlib.Path) -> list[int]:
  return processes.decide(lambda: checkpoint.best_first(where))


class _Stage:
  """One stage under way: its programs, its state, and one step of it."""

  def __init__(self, job: Job, plan: StagePlan):
    self.job, self.plan = job, plan
    s = job.config.sampling
    self.groups = Groups(s.first_attempts, s.second_attempts)
    self.problems = phase.batch_problems(job)
    self.offset = phase.offset(job, plan)
    self.optimizer = phase.make_optimizer(job, plan.steps)
    averaged = plan.baseline == 'moving_average'
    self.averages = len(plan.stage.reward) if averaged else 0
    learning = _learning(job.config, plan, self.groups, job.policy, self.offset)
    self.update = learner.make_update(job.model, self.optimizer, learning)
    self.reference, self.near = _reference(job, plan)

  def init(self, params: Any) -> learner.TrainState:
    """Returns the state before the first update; params are copied."""
    return phase.new_state(self.job, self.optimizer, params, self.averages)

  def abstract(self) -> learner.TrainState:
    """Returns shapes and layout of the state, to restore it."""
    return phase.abstract_state(self.job, self.optimizer, self.averages)

  def rollout(self, params: Any, step: int) -> rollout.Rollout:
    """Returns the graded trajectories of step `step`, from 0."""
    number = self.offset + step
    return phase.sample(self.job, params, number, self.plan.offline)

  def greedy(
    self, params: Any, graded: rollout.Rollout
  ) -> tuple[jax.Array | None, dict[str, int]]:
    """Returns what greedy attempts earn where the baseline asks for them."""
    if self.plan.baseline != 'remax':
      return None, dict.fromkeys(phase.SAMPLED, 0)
    reward, sampled = phase.greedy_rewards(self.job, params, graded)
    return sharding.put_rows(self.job.mesh, reward), sampled

  def score(self, history: list[dict[str, Any]]) -> float:
    """Returns the newest checkpoint's figure of merit: the latest mean reward.

    Between saves, so that one lucky batch does not make a checkpoint the best.
    """
    every = self.job.config.checkpoint.every
    return float(np.mean([row['reward'] for row in history[-every:]]))

  def step(
    self, state: learner.TrainState, step: int, journal: Journal
  ) -> tuple[learner.TrainState, dict[str, Any]]:
    """Returns the state after one more update, and its metrics."""
    return _step(self, state, step, journal)


def open_phase(
  job: Job, plan: Phase, start: Callable[[], Any]
) -> _Stage | ImitationRound:
  """Returns a phase with its programs, to be gone through step by step."""
  if isinstance(plan, StagePlan):
    return _Stage(job, plan)
  return ImitationRound(job, plan, start)


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
  # Without dropout neither is read, and stages that differ in nothing else
  # share what is compiled.
  drawn = bool(config.model.lora.rank and config.model.lora.dropout)
  turns = len(plan.stage.reward)
  return learner.Learning(
    stage=plan.stage,
    groups=groups,
    policy=policy,
    baseline=plan.baseline,
    mask_truncated=method.truncated == 'mask',
    accumulation=config.train.accumulation,
    logits_chunk=config.model.logits_chunk,
    attempt_tokens=tuple(config.sampling.max_tokens[:turns]),
    beta2_rate=adaptive.rate,
    beta2_fraction=adaptive.fraction,
    beta2_low=adaptive.low,
    beta2_high=adaptive.high,
    lora=adapter(config),
    seed=config.seed if drawn else 0,
    first_step=offset if drawn else 0,
  )


def train_stage(job: Job, plan: Phase, start: Callable[[], Any]) -> None:
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
  stage = open_phase(job, plan, start)
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
  config, base, blocked = stage.job.config, _base(stage.job), 0.0
  for step in range(len(journal.history), stage.plan.steps):
    started = time.monotonic()
    state, metrics = stage.step(state, step, journal)
    done = step + 1
    last = done == stage.plan.steps
    if _validates(stage, done):
      # Asked to end, it saves first; who goes on validates then.
      with contextlib.suppress(Interrupted):
        metrics |= _validate(stage.job, state.params)
    metrics['seconds'] = time.monotonic() - started
    # Which the save behind the step before held this one up for.
    metrics['seconds_save'], blocked = blocked, 0.0
    due = done % config.checkpoint.every == 0 or last
    if due:
      metrics['score'] = stage.score([*journal.history, metrics])
    journal.step(metrics)
    for text in alarms.newly_raised(journal.history, base):
      say(f'alarm     {stage.plan.name} {done}, {text}')
    asked = stage.job.stop.heard()
    if due or asked:
      started = time.monotonic()
      _save(stage, state, checkpoints, journal)
      blocked = time.monotonic() - started
    if asked and not last:
      checkpoints.wait()
      raise Interrupted
  checkpoints.wait()
  _say_blocked(journal)


def _say_blocked(journal: Journal) -> None:
  """Says what share of a stage's time its steps waited for saves."""
  blocked = sum(row.get('seconds_save', 0.0) for row in journal.history)
  seconds = sum(row['seconds'] for row in journal.history)
  if blocked:
    share = blocked / (seconds + blocked)
    say(f'{journal.stage}: saves held up its steps for {share:.1%} of the time')


def _base(job: Job) -> alarms.Base | None:
  """Returns how good the base is, if it was evaluated as validations are."""
  path = job.workdir / 'eval.json'
  known = processes.decide(lambda: read_results(path)).get('base')
  if known is None or job.validation is None or job.config.task.eval_name:
    return None
  count = len(job.validation)
  return alarms.Base(known['accuracy_t1'], known['n'], count)


def _validates(stage: _Stage, done: int) -> bool:
  """Returns whether a validation follows that many steps."""
  every = stage.job.config.eval.every
  return bool(every) and (done % every == 0 or done == stage.plan.steps)


def _step(
  stage: _Stage, state: learner.TrainState, step: int, journal: Journal
) -> tuple[learner.TrainState, dict[str, Any]]:
  """Returns the state after one more update, and its metrics."""
  job, clock = stage.job, phase.Clock()
  where = f'{stage.plan.name} step {step + 1}'
  processes.enter('sampling', where)
  graded = stage.rollout(state.params, step)
  seconds = {'seconds_sample': clock.lap()}
  reward = phase.rewards(job, graded)
  counted = phase.counts(graded) | graded.rates()
  seconds['seconds_grade'] = clock.lap()
  greedy, more = stage.greedy(state.params, graded)
  seconds['seconds_sample'] += clock.lap()
  processes.enter('updating', where)
  paid = sharding.put_rows(job.mesh, reward)
  batch = learner.Batch(graded.trajectory, paid, greedy)
  state, metrics = stage.update(state, stage.reference, batch, stage.near)
  of_rows = {name: metrics.pop(name) for name in learner.ROWS}
  metrics = _flat(shards.fetch(metrics))
  seconds['seconds_update'] = clock.lap()
  weights = np.asarray(stage.plan.stage.reward)
  sampled = {k: x + more[k] for k, x in phase.sampled(graded).items()}
  record = counted | metrics | seconds | sampled
  record['reward'] = float((reward.mean(axis=0) * weights).sum())
  tokens = np.sum([metrics[f'tokens_t{t + 1}'] for t in range(len(weights))])
  record['tokens_per_second'] = (
    float(tokens) * len(reward) / sum(seconds.values())
  )
  if step % max(1, job.config.log.samples_every) == 0:
    journal.samples([*_samples(job, graded, reward, of_rows)])
  if record['skipped']:
    _keep_batch(stage, step, graded, reward, of_rows)
  _check_limits(stage, record, graded)
  return state, record


def _keep_batch(
  stage: _Stage,
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
  rows = np.linspace(0, len(reward), job.config.log.samples, endpoint=False)
  for row in rows.astype(int):
    advantage, credit, kl = (
      shards.fetch(of_rows[name][row]) for name in learner.ROWS
    )
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
  gap = record['logp_gap_mean']
  if record['skipped'] >= limits.nonfinite_updates:
    raise TrainingError(
      f'{name}: {record["skipped"]:.0f} updates in a row were not finite '
      f'(limits.nonfinite_updates={limits.nonfinite_updates}); their batches '
      f'are in {stage.job.workdir / inspection.FOLDER}. Lower '
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
  of_all = processes.share(job.grader.complaints)
  first = [text for complaints in of_all for text in complaints][:1]
  return ''.join(f' The first error: {x}' for x in first)


def _save(stage, state, checkpoints, journal) -> None:
  """Saves state and metric history."""
  done = len(journal.history)
  processes.enter('saving', f'{stage.plan.name} step {done}')
  # Without a score it is saved because someone asked it to end: were it the
  # best one, the next stage would start from another step than that of the
  # unbroken run.
  score = journal.history[-1].get('score', math.nan)
  try:
    checkpoints.save(done, state, meta_of(stage, journal.history), score)
  except CheckpointError as error:
    if done == stage.plan.steps:
      raise
    say(f'{error} Training goes on; the next save tries again.')


def meta_of(
  stage: _Stage | ImitationRound, history: list[dict[str, Any]]
) -> dict[str, Any]:
  """Returns what a checkpoint holds beside the state."""
  done = len(history)
  return {
    'step': done,
    'stage': stage.plan.name,
    'seed': stage.job.config.seed,
    'data_position': (stage.offset + done) * stage.problems,
    'reference': stage.job.base_hash,
    'history': history,
  }


def evaluate(
  job: Job,
  params: Any,
  problems: data.Problems,
  grader: Grader,
  inference: Inference | None = None,
) -> tuple[evaluation.Attempts, list[dict[str, Any]]]:
  """Returns what all problems' attempts were, counted and to read.

  Args:
    job: what all evaluations share.
    params: of the model, as samplers take them.
    problems: at least one.
    grader: of their task.
    inference: what the model is asked; None: the job's attempts.
  """
  size = min(job.config.eval.batch, len(problems))
  key = jax.random.fold_in(job.root_key(), EVALUATION)
  sampler, instructions = job.asking(inference)
  reading, parts, rows = [], [], []
  for start in range(0, len(problems), size):
    job.stop.check()
    processes.enter('evaluating')
    number = np.arange(start, start + size)
    # The last batch is filled up, so that one program serves all of them.
    filled = problems.take(np.minimum(number, len(problems) - 1))
    prompts = rollout.put_prompts(job.mesh, filled, number)
    first = rollout.given_attempts(job.mesh, filled, samples=1)
    trajectory = sampler(params, prompts, instructions, key, first)
    reading.append(
      rollout.start_reading(trajectory, filled, grader, job.tokenizer)
    )
  for finish in reading:
    graded = finish()
    if inference is not None:
      graded = graded.of_turns(inference.graded)
    parts.append(vars(graded.attempts()))
    rows += [graded.record(row) for row in range(size)]
  count = len(problems)
  whole = jax.tree.map(lambda *x: np.concatenate(x)[:count], *parts)
  return evaluation.Attempts(**whole), rows[:count]


def _validate(job: Job, params: Any) -> dict[str, float | None]:
  attempts, _ = evaluate(job, job.bound(params), job.validation, job.grader)
  values = evaluation.problem_values(attempts)
  return {
    f'validation_{name}': None if np.isnan(x).all() else float(np.nanmean(x))
    for name, x in values.items()
  }


def read_results(path: pathlib.Path) -> dict[str, Any]:
  """Returns what a run's eval.json holds; nothing where there is none yet.

  Raises:
    ConfigError: if it is damaged.
  """
  try:
    return files.read_json(path) if path.exists() else {}
  except ValueError as error:
    raise ConfigError(
      f'{path} is damaged ({error}); delete it, and the same command evaluates '
      'anew.'
    ) from error


def evaluate_into(
  job: Job,
  name: str,
  params: Any,
  step: int,
  inference: Inference | None = None,
) -> dict:
  """Returns the test result of a checkpoint, from eval.json or put there."""
  path = job.workdir / 'eval.json'
  results = processes.decide(lambda: read_results(path))
  if name in results and results[name]['step'] == step:
    return results[name]
  processes.enter('evaluating', name)
  attempts, rows = evaluate(job, params, job.test, job.test_grader, inference)
  config = job.config

  def record() -> dict:
    summary = evaluation.summarize(attempts, config.eval.resamples, config.seed)
    where = job.workdir / 'evaluations'
    where.mkdir(exist_ok=True)
    files.write_jsonl(where / f'{name}.jsonl', rows)
    results[name] = summary | {'step': step}
    files.write_json(path, results)
    return results[name]

  return processes.decide(record)
