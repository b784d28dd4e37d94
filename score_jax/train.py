"""The loop: problems, samples, grades, update, record; and what is around it."""

from __future__ import annotations

import contextlib
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from score_jax import (
  alarms,
  checkpoint,
  compilation,
  data,
  evaluation,
  files,
  journal,
  learner,
  phase,
  processes,
  profiling,
  rollout,
  sharding,
  streams,
)
from score_jax.checkpoint import CheckpointError, Checkpoints
from score_jax.config import ConfigError
from score_jax.grading import Grader
from score_jax.imitation import ImitationRound
from score_jax.job import Job
from score_jax.journal import Journal, open_journal, say, Silent
from score_jax.methods.plan import Inference, Phase, StagePlan
from score_jax.places import Place
from score_jax.sampler import Sample
from score_jax.stage import Stage
from score_jax.stopping import Interrupted
from score_jax.timing import Times

VALIDATED = 'validation_accuracy_t1'  # In the metrics of a step that was.


def is_finished(where: Place, plan: Phase) -> bool:
  """Returns whether a stage's last checkpoint is there, to its last byte.

  Args:
    where: the folder of all checkpoints, in which each stage has one.
    plan: of the stage.
  """
  folder = where / plan.name

  def reached() -> bool:
    newest = checkpoint.newest_step(folder)
    if newest is None or newest < plan.steps:
      return False
    return not checkpoint.is_damaged(folder, newest, read=['meta'])

  return processes.decide(reached)


def start_params(job: Job, name: str) -> tuple[Any, int]:
  """Returns what the stage behind another starts from, and which step it was.

  These are the parameters of its best checkpoint, as float32 masters where it
  has any: rounded ones would lose the changes that masters are kept for.
  """
  like = phase.masters_like(job)
  if like is None:
    return phase.best_params(job, name)
  where = phase.folder(job, name)
  state, meta = checkpoint.restore_part(
    where, phase.best_first(where), like, say
  )
  phase.check_reference(job, where, meta)
  return state['opt_state']['master'], meta['step']


def open_phase(
  job: Job, plan: Phase, start: Callable[[], Any]
) -> Stage | ImitationRound:
  """Returns a phase with its programs, to be gone through step by step."""
  if isinstance(plan, StagePlan):
    return Stage(job, plan)
  return ImitationRound(job, plan, start)


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
  opened = checkpoint.open_checkpoints(phase.folder(job, plan.name), keep, say)
  with contextlib.closing(opened) as checkpoints:
    state, history = _resume(stage, checkpoints, start)
    log = job.config.log
    with open_journal(
      job.workdir, plan.name, plan.steps, history, log.tensorboard, log.progress
    ) as journal:
      _loop(stage, state, checkpoints, journal)


def _resume(stage: Stage, checkpoints: Checkpoints, start: Callable):
  """Returns state and metric history, restored or new."""
  job, plan = stage.job, stage.plan
  found = checkpoints.restore(stage.abstract())
  if found is None:
    return stage.init(start()), []
  saved, meta = found
  phase.check_reference(job, checkpoints.folder, meta)
  say(f'{plan.name}: going on from step {meta["step"]} of {plan.steps}')
  history, state = meta['history'], stage.restored(saved, meta['step'])
  if _validates(job, plan, len(history)) and VALIDATED not in history[-1]:
    history[-1] |= _validate(job, state.params)
  return state, history


def validate_end(job: Job, plan: Phase) -> None:
  """Adds the last validation of a finished stage, if a stop broke it off."""
  if not _validates(job, plan, plan.steps):
    return

  def is_missing() -> bool:
    last = journal.last(job.workdir, plan.name)
    return bool(last) and VALIDATED not in last

  if not processes.decide(is_missing):
    return
  where = phase.folder(job, plan.name)
  params, _ = checkpoint.restore_params(
    where, [plan.steps], job.policy_like(), say
  )
  found = _validate(job, params)
  processes.decide(lambda: journal.amend(job.workdir, plan.name, found))


def _loop(
  stage: Stage | ImitationRound,
  state: learner.TrainState,
  checkpoints: Checkpoints,
  journal: Journal | Silent,
) -> None:
  config, base = stage.job.config, _base(stage.job)
  name, steps = stage.plan.name, stage.plan.steps
  first = len(journal.history)
  if config.eval.every and first < steps:
    _compile_validation(stage.job, state.params)
  with _measured(stage, first) as (times, compiled, profile):
    for step in range(first, steps):
      done = step + 1
      last = done == steps
      with profile.step(done):
        state, metrics = stage.step(state, step, journal, times)
        if _validates(stage.job, stage.plan, done):
          # Asked to end, it saves first; who goes on validates then.
          with (
            contextlib.suppress(Interrupted),
            times.span('validate'),
            times.working(),
          ):
            metrics |= _validate(stage.job, state.params)
      if step > first and (late := compiled.new()):
        say(
          f'warning   {name} {done} compiled {compilation.words(late)}; steps '
          'behind the first should not'
        )
      due = done % config.checkpoint.every == 0 or last
      if due:
        metrics['score'] = stage.score([*journal.history, metrics])
      with times.span('log'):
        journal.step(metrics | times.take() | compiled.take())
        for text in alarms.newly_raised(journal.history, base):
          say(f'alarm     {name} {done}, {text}')
      asked = stage.job.stop.heard()
      if due or asked:
        with times.span('save'):
          _save(stage, state, checkpoints, journal)
      if asked and not last:
        _waited(checkpoints)
        raise Interrupted
  checkpoints.wait()
  _say_held_up(journal)


def _say_held_up(journal: Journal | Silent) -> None:
  """Says what share of a stage's time its steps waited for saves."""
  saving = sum(row.get('seconds_save', 0.0) for row in journal.history)
  seconds = sum(row['seconds'] for row in journal.history)
  if saving:
    say(
      f'{journal.stage}: saves held up its steps for {saving / seconds:.1%} of '
      'the time'
    )


@contextlib.contextmanager
def _measured(
  stage: Stage | ImitationRound, made: int
) -> Iterator[tuple[Times, compilation.Counter, profiling.Profile]]:
  """Gives what measures the steps of a stage, so many of which are made."""
  name, steps = stage.plan.name, stage.plan.steps
  c, folder = stage.job.config.profile, stage.job.workdir / 'profile' / name
  # All processes do the same, so one of them is looked at.
  first = c.first_step if processes.is_first() else 0
  if first and made < steps and not made < first <= steps:
    say(
      f'warning   profile.first_step={first} is none of the steps {made + 1} to '
      f'{steps} that {name} has to make, so nothing of it is traced'
    )
  with (
    contextlib.closing(Times()) as times,
    contextlib.closing(
      profiling.Profile(folder, first, c.steps, say)
    ) as profile,
  ):
    yield times, compilation.Counter(), profile


def _base(job: Job) -> alarms.Base | None:
  """Returns how good the base is, if it was evaluated as validations are."""
  path = job.workdir / 'eval.json'
  known = processes.decide(lambda: read_results(path)).get('base')
  if known is None or job.validation is None or job.config.task.eval_name:
    return None
  count = len(job.validation)
  return alarms.Base(known['accuracy_t1'], known['n'], count)


def _validates(job: Job, plan: Phase, done: int) -> bool:
  """Returns whether a validation follows that many steps of a stage."""
  every = job.config.eval.every
  return bool(every) and (done % every == 0 or done == plan.steps)


def _save(stage, state, checkpoints, journal) -> None:
  """Saves state and metric history."""
  done = len(journal.history)
  processes.enter('saving', f'{stage.plan.name} step {done}')
  # Without a score it is saved because someone asked it to end: were it the
  # best one, the next stage would start from another step than that of the
  # unbroken run.
  score = journal.history[-1].get('score', math.nan)
  meta = meta_of(stage, journal.history)
  keep_records(stage.job)  # First, so that no step is there without them.
  _waited(checkpoints)
  try:
    checkpoints.save(done, stage.saved(state), meta, score)
  except CheckpointError as error:
    if done == stage.plan.steps:
      raise
    say(f'{error} Training goes on; the next save tries again.')


def _waited(checkpoints: Checkpoints) -> None:
  """Returns when the last save is on disk, or has failed, which is said."""
  try:
    checkpoints.wait()
  except CheckpointError as error:
    say(str(error))


def meta_of(
  stage: Stage | ImitationRound, history: list[dict[str, Any]]
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


def keep_records(job: Job) -> None:
  """Copies what a lost work directory is made good from, where that is kept.

  Raises:
    TakenOver: if another job goes on with the checkpoints.
  """
  if job.spare and (trouble := processes.decide(job.spare.keep)):
    say(trouble)


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
    params: of the model, an adapter bound to them if there is one.
    problems: at least one.
    grader: of their task.
    inference: what the model is asked; None: the job's attempts.
  """
  size = _batch(job, problems)
  ready = job.prepared(params)
  reading, parts, rows = [], [], []
  for start in range(0, len(problems), size):
    job.stop.check()
    processes.enter('evaluating')
    number = np.arange(start, start + size)
    filled, sampler, inputs = _asked(job, ready, problems, number, inference)
    trajectory = sampler(*inputs)
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


def _batch(job: Job, problems: data.Problems) -> int:
  """Returns how many problems are sampled at once in an evaluation."""
  size = min(job.config.eval.batch, len(problems))
  return sharding.filled(sharding.row_shards(job.mesh), size)


def _asked(
  job: Job,
  params: Any,
  problems: data.Problems,
  number: np.ndarray,
  inference: Inference | None = None,
) -> tuple[data.Problems, Sample, tuple]:
  """Returns a batch of an evaluation, its sampler, and what that is called with.

  Args:
    job: what all evaluations share.
    params: of the model, prepared for sampling.
    problems: of the whole evaluation.
    number: int64[n], the batch's places among them; the last batch is filled
      up, so that one program serves all of them.
    inference: what the model is asked; None: the job's attempts.
  """
  key = jax.random.fold_in(job.root_key(), streams.EVALUATION)
  sampler, instructions = job.asking(inference)
  filled = problems.take(np.minimum(number, len(problems) - 1))
  prompts = rollout.put_prompts(job.mesh, filled, number)
  first = rollout.given_attempts(job.mesh, filled, samples=1)
  return filled, sampler, (params, prompts, instructions, key, first)


def _compile_validation(job: Job, params: Any) -> None:
  """Compiles what validations call, so that no later step has to."""
  size = _batch(job, job.validation)
  _, sampler, inputs = _asked(
    job, job.prepared(job.bound(params)), job.validation, np.arange(size)
  )
  sampler.lower(*inputs).compile()


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
    # An older version did not say.
    phase.check_reference(
      job, path, {'reference': job.base_hash} | results[name]
    )
    return results[name]
  processes.enter('evaluating', name)
  attempts, rows = evaluate(job, params, job.test, job.test_grader, inference)
  config = job.config

  def record() -> dict:
    summary = evaluation.summarize(attempts, config.eval.resamples, config.seed)
    where = job.workdir / 'evaluations'
    where.mkdir(exist_ok=True)
    files.write_jsonl(where / f'{name}.jsonl', rows)
    results[name] = summary | {'step': step, 'reference': job.base_hash}
    files.write_json(path, results)
    return results[name]

  result = processes.decide(record)
  keep_records(job)
  return result
