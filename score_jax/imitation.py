"""A round of supervised training: collect, build, imitate.

    batches of the model before the round ──► traces ──► rows ──► updates

A round samples as many batches as it makes updates, as reinforcement learning
does. Most are sampled before its first update, and are what it learns from.
The others are looks: at each checkpoint, training problems of the model as it
is then, whose reward decides which checkpoint is the best.
"""

from __future__ import annotations

import contextlib
import pathlib
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from score_jax import (
  data,
  files,
  inspection,
  learner,
  likelihood,
  phase,
  processes,
  programs,
  rollout,
  sharding,
  shards,
)
from score_jax.job import Job
from score_jax.journal import Journal, say
from score_jax.methods.plan import Round
from score_jax.methods.traces import Collected, pack, Trace
from score_jax.phase import TrainingError
from score_jax.programs import adapter
from score_jax.timing import Times

LOOKING = 0.25  # Share of the batches that looks take; each has one at least.
FEW = 500  # References whose loss under the model is measured, at most.
# What the record of a step has beside what the latest look saw.
OWN = ('stage', 'step', 'loss', 'grad_norm', 'score', *phase.SAMPLED)
OWN_KINDS = (
  'seconds',
  'tokens_per_second',
  'device_idle',
  'compilations',
  'validation_',
)


class ImitationRound:
  """One round under way: its rows, its program, its state, one step of it."""

  def __init__(self, job: Job, plan: Round, start: Callable[[], Any]):
    """Prepares a round; `start` returns the parameters that it starts from."""
    self.job, self.plan, self._start = job, plan, start
    self.offset = phase.offset(job, plan)
    self.problems = phase.batch_problems(job)
    self.optimizer = programs.optimizer(job.config, plan.steps)
    lora, chunk = adapter(job.config), job.config.model.logits_chunk
    self._reference = None if lora is None else job.base
    self._update = likelihood.make_imitation(
      job.model, self.optimizer, chunk, lora, job.config.train.accumulation
    )
    self._likelihood = likelihood.make_likelihood(job.model, chunk, lora)
    every = job.config.checkpoint.every
    self._looks = sorted({*range(every, plan.steps + 1, every), plan.steps})
    self._rows: tuple[np.ndarray, np.ndarray] | None = None
    self._first: dict[str, Any] = {}  # What the collection says of step 1.

  def init(self, params: Any) -> learner.TrainState:
    """Returns the state before the first update, the traces collected."""
    self._rows = self._collect(params)
    return phase.new_state(self.job, self.optimizer, params)

  def abstract(self) -> learner.TrainState:
    """Returns shapes and layout of the state, to restore it."""
    return phase.abstract_state(self.job, self.optimizer)

  def saved(self, state: learner.TrainState) -> learner.TrainState:
    """Returns what has to be saved for a resumed run to go on as this one."""
    return state

  def restored(
    self, found: learner.TrainState, step: int
  ) -> learner.TrainState:
    """Returns the state of what `saved` gave."""
    del step
    return found

  def score(self, history: list[dict[str, Any]]) -> float:
    """Returns the newest checkpoint's figure of merit, that of its look."""
    return history[-1]['reward']

  def step(
    self, state: learner.TrainState, step: int, journal: Journal, times: Times
  ) -> tuple[learner.TrainState, dict[str, Any]]:
    """Returns the state after one more update, and its metrics."""
    processes.enter('updating', f'{self.plan.name} step {step + 1}')
    with times.span('data'):
      examples = self._batch(step)
    with times.span('update'):
      state, metrics = times.queue(
        lambda: self._update(state, examples, self._reference),
        result=lambda made: made[1],
      )
      metrics = {name: float(x) for name, x in metrics.items()}
    self._check_finite(step, examples, metrics)
    before = self._first if not step else journal.history[-1]
    seen = {k: x for k, x in before.items() if _is_seen(k)}
    sampled = {k: 0 if step else self._first[k] for k in phase.SAMPLED}
    if step + 1 in self._looks:
      seen, looked = self._look(state.params, step, journal, times)
      sampled = {k: sampled[k] + looked[k] for k in sampled}
    # The first step counts what was collected before the clock ran.
    seconds = times.spent('data', 'update', 'sample', 'grade')
    speed = sampled['sampled_tokens'] / seconds if step else 0.0
    sampled['tokens_per_second'] = speed
    return state, seen | sampled | metrics

  def _check_finite(
    self, step: int, batch: likelihood.Examples, metrics: dict[str, float]
  ) -> None:
    """Raises TrainingError where an update was not finite."""
    if np.isfinite([metrics['loss'], metrics['grad_norm']]).all():
      return
    name, workdir = f'{self.plan.name}-{step + 1:06}', self.job.workdir
    inspection.keep(workdir, name, vars(batch))
    raise TrainingError(
      f'{self.plan.name}: an update was not finite; its batch is in '
      f'{workdir / inspection.FOLDER}. Lower optimizer.learning_rate, or set '
      'optimizer.clip_norm.'
    )

  def _look(
    self, params: Any, step: int, journal: Journal, times: Times
  ) -> tuple[dict[str, Any], dict[str, int]]:
    """Returns what a look sees, and what was sampled for it."""
    job, each = self.job, self._look_batches()
    first = self._batches() + each * self._looks.index(step + 1)
    seen, total = [], dict.fromkeys(phase.SAMPLED, 0)
    for number in range(first, first + each):
      processes.enter('sampling')
      graded = self._sample(params, number, times)
      seen.append(phase.seen(job, graded))
      counts = phase.sampled(graded, job.config.sampling.second_attempts)
      total = {k: total[k] + x for k, x in counts.items()}
    journal.samples(_few(job, graded))
    return {name: _mean([one[name] for one in seen]) for name in seen[0]}, total

  def _sample(self, params: Any, batch: int, times: Times) -> rollout.Rollout:
    number = self.offset + batch
    sampled = phase.start_sampling(self.job, params, number, 0.0, times)
    return phase.start_grading(self.job, sampled, times)()

  def _look_batches(self) -> int:
    """Returns the batches of one look."""
    return max(1, int(LOOKING * self.plan.steps / len(self._looks)))

  def _batches(self) -> int:
    """Returns how many batches are collected: those that no look takes."""
    looking = self._look_batches() * len(self._looks)
    return max(1, self.plan.steps - looking)

  def _batch(self, step: int) -> likelihood.Examples:
    """Returns the rows of an update, in epochs of all rows of the round."""
    if self._rows is None:
      self._rows = self._read()
      if processes.agree(self._rows is None):
        self._rows = self._collect(self._start())
    tokens, weight = self._rows
    config, whole = self.job.config, [data.Part(len(tokens), 1)]
    index = data.mixed_indices(
      whole, config.seed, step, config.train.trajectories
    )
    return self._put(tokens[index], weight[index])

  def _collect(self, params: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows of the round, and keeps them for who resumes it."""
    job, plan = self.job, self.plan
    params = phase.as_trained(job, params)  # It may start from masters.
    found = self._traces(params)
    between = tuple(int(i) for i in job.instructions[0])
    collected = Collected(found, between, self._gold_nats(params))
    rng = np.random.default_rng([job.config.seed, self.offset])
    rows = plan.build(collected, rng)
    say(f'{plan.name}: {len(rows)} rows to imitate, of {len(found)} traces')
    if not rows:
      raise TrainingError(
        f'{plan.name}: method.name={job.config.method.name} found none of '
        f'{len(found)} traces fit to imitate; give it easier problems, or more '
        'of them (train.trajectories).'
      )
    packed = pack(rows, _columns(job), job.tokenizer.pad)
    processes.decide(lambda: _keep(self._path(), *packed))
    return packed

  def _traces(self, params: Any) -> list[Trace]:
    """Returns what the model writes before the round, and counts it."""
    found: list[Trace] = []
    total = dict.fromkeys(phase.SAMPLED, 0)
    with contextlib.closing(Times()) as times:
      for batch in range(self._batches()):
        self.job.stop.check()
        processes.enter('sampling', f'{self.plan.name} batch {batch + 1}')
        graded = self._sample(params, batch, times)
        found += traces_of(self.job, graded)
        self._first = phase.seen(self.job, graded)
        shared = self.job.config.sampling.second_attempts
        counts = phase.sampled(graded, shared)
        total = {k: total[k] + x for k, x in counts.items()}
    self._first |= total
    return found

  def _path(self) -> pathlib.Path:
    return self.job.workdir / 'traces' / f'{self.plan.name}.npz'

  def _read(self) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns the rows that were kept; None where they are gone or damaged."""
    try:
      with np.load(self._path()) as kept:
        return kept['tokens'], kept['weight']
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
      say(f'{self._path()} cannot be read; its traces are collected again')
      return None

  def _put(self, tokens: np.ndarray, weight: np.ndarray) -> likelihood.Examples:
    mesh = self.job.mesh
    return likelihood.Examples(
      sharding.put_rows(mesh, tokens), sharding.put_rows(mesh, weight)
    )

  def _gold_nats(self, params: Any) -> float:
    """Returns -log p per token of references that are not trained on."""
    job = self.job
    held = job.validation or job.train
    # As many rows as an update has, which the mesh divides.
    rows = job.config.train.trajectories
    few = held.take(np.arange(rows) % min(FEW, len(held)))
    gold = [
      [(few.tokens[i, :n], 0.0), (_gold(job, problem), 1.0)]
      for i, (n, problem) in enumerate(
        zip(few.length, few.problems, strict=True)
      )
    ]
    packed = pack(gold, _columns(job), job.tokenizer.pad)
    nats = weight = 0.0
    for part in np.split(np.arange(rows), job.config.train.accumulation):
      examples = self._put(*(x[part] for x in packed))
      logp = self._likelihood(params, examples, self._reference)
      nats -= float(logp.sum())
      weight += float(examples.weight.sum())
    return nats / weight


def traces_of(job: Job, graded: rollout.Rollout) -> list[Trace]:
  """Returns the rows of a batch as supervised methods read them."""
  tokens, logp, span = shards.fetch(
    (graded.trajectory.tokens, graded.trajectory.logp, graded.trajectory.span)
  )
  # What was cut off is no answer to imitate, whatever was found in it.
  right = graded.right() & ~graded.truncated
  found = []
  for row, problem in enumerate(graded.problems):
    turns = [slice(*span[row, turn]) for turn in (0, 1)]
    # As the next turn saw them: closed where they were cut off.
    attempts = [
      (*tokens[row, turn].tolist(), *[job.tokenizer.close] * int(cut))
      for turn, cut in zip(turns, graded.truncated[row], strict=True)
    ]
    nats = [-logp[row, turn].mean() for turn in turns]
    found.append(
      Trace(
        problem=problem.id,
        prompt=tuple(tokens[row, : span[row, 0, 0]].tolist()),
        attempts=tuple(attempts),
        right=tuple(right[row].tolist()),
        nats=tuple(float(x) for x in nats),
        gold=_gold(job, problem),
      )
    )
  return found


def _gold(job: Job, problem: Any) -> tuple[int, ...]:
  return tuple(job.tokenizer.written(problem.reference))


def _columns(job: Job) -> int:
  """Returns the columns that every row of a round fits in.

  A reference may be longer than an attempt may: it then fills the turn of the
  problems that are longest.
  """
  s = job.config.sampling
  gold = max(len(_gold(job, p)) for p in job.train.problems)
  # An attempt that was cut off is closed by one token more than its limit.
  turns = sum(max(limit + 1, gold) for limit in s.max_tokens)
  return s.max_prompt_tokens + turns + sum(len(i) for i in job.instructions)


def _few(job: Job, graded: rollout.Rollout) -> Iterator[dict[str, Any]]:
  """Gives a few rows of a look, spread over it, for people to read."""
  count = job.config.log.samples
  rows = np.linspace(0, len(graded.problems), count, endpoint=False)
  reward = phase.rewards(job, graded)
  for row in rows.astype(int):
    yield graded.record(row) | {'reward': reward[row].tolist()}


def _mean(values: list[float | None]) -> float | None:
  """Returns the mean of a figure over batches; None where none has it."""
  known = [x for x in values if x is not None]
  return sum(known) / len(known) if known else None


def _is_seen(name: str) -> bool:
  """Returns whether a figure of a step is what the latest look saw."""
  return name not in OWN and not name.startswith(OWN_KINDS)


def _keep(path: pathlib.Path, tokens: np.ndarray, weight: np.ndarray) -> None:
  """Writes the rows of a round, whole or not at all."""
  path.parent.mkdir(exist_ok=True)
  files.write_arrays(path, tokens=tokens, weight=weight)
