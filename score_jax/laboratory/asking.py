"""What final models are asked beside the table's own evaluation.

    attempts<n>  n attempts in a row, evaluated as all attempts are
    fixed        second attempts behind the first ones of the base model, drawn
                 as evaluations draw
    samples      many trajectories per problem, drawn at table.temperature

The last two are kept in <cell>/asked/<question>.npz, written whole or not at
all, with the settings that they were drawn under; under other settings they
are drawn anew. The first is an evaluation of the run, like that of a stage.

Letters: N problems, K samples of a problem.
"""

from __future__ import annotations

import json
import pathlib
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from score_jax import data, files, rollout, streams, train
from score_jax.budget import Samples
from score_jax.config import ConfigError
from score_jax.job import Job
from score_jax.laboratory.cells import Plan
from score_jax.methods import catalogue, prompting
from score_jax.policy import Policy
from score_jax.sampler import FirstAttempts, make_sampler, Prompts, Sample

FIXED, SAMPLES = 'fixed', 'samples'


def check(config: ConfigDict) -> None:
  """Refuses lists of methods that cannot be asked what they are listed for.

  Raises:
    ConfigError: if there is no such method, or it attempts in another way
      than by the task's instruction.
  """
  table = config.table
  listed = ('curves', 'collapse', 'edits', 'shift', 'budget', 'attempts')
  for setting in listed:
    for name in table[setting]:
      catalogue.check_name(name)
  for setting in ('shift', 'budget', 'attempts'):
    for name in table[setting]:
      inference = catalogue.METHODS[name][2](config)
      if inference != prompting.attempts(config):
        raise ConfigError(
          f'table.{setting} names {name}, which asks other things between its '
          'attempts; name the model that it asks, base.'
        )


def missing(plan: Plan) -> list[str]:
  """Returns what a finished cell has still to be asked."""
  results = plan.results()
  found = []
  for question in _wanted(plan):
    if question.startswith('attempts'):
      there = question in results
    else:
      there = _read(plan, question) is not None
    found += [question] * (not there)
  return found


def ask(plan: Plan, job: Job, params: Any, step: int) -> None:
  """Asks a cell's final model what it is still to be asked, and keeps it.

  Args:
    plan: of the cell, finished.
    job: of the cell.
    params: of its final model, as samplers take them.
    step: of the checkpoint that they are of.
  """
  for question in missing(plan):
    job.stop.check()
    if question.startswith('attempts'):
      inference = prompting.repeated(plan.given.table.turns)
      train.evaluate_into(job, question, params, step, inference)
      continue
    of = {FIXED: behind_the_bases, SAMPLES: drawn}[question]
    _write(plan, question, of(job, params))


def attempts_name(config: ConfigDict) -> str:
  """Returns the name of the evaluation of many attempts in a row."""
  return f'attempts{config.table.turns}'


def fixed(plan: Plan) -> Samples | None:
  """Returns second attempts behind the base's first ones; None = not there."""
  return _read(plan, FIXED) if FIXED in _wanted(plan) else None


def samples(plan: Plan) -> Samples | None:
  """Returns the trajectories that were drawn; None where they are not there."""
  return _read(plan, SAMPLES) if SAMPLES in _wanted(plan) else None


def _wanted(plan: Plan) -> list[str]:
  """Returns the questions that a cell is to be asked."""
  table, found = plan.given.table, []
  if plan.name in table.attempts:
    found.append(attempts_name(plan.given))
  # The base's own first attempts are the base's.
  if plan.name in table.shift and plan.final != 'base':
    found.append(FIXED)
  if plan.name in table.budget:
    found.append(SAMPLES)
  return found


def behind_the_bases(job: Job, params: Any) -> Samples:
  """Returns attempts at the test problems whose first ones are the base's.

  What is asked is what the table's evaluation asks; so are the draws, where
  attempts are drawn, and the base behind its own attempts does again what it
  did there.

  Args:
    job: of the model.
    params: of the model, an adapter bound to them if there is one.
  """
  policy = Policy(job.config.eval.temperature)
  sample_first = make_sampler(job.decoder, job.sampling(1, 1, 1, policy))
  key = jax.random.fold_in(job.root_key(), streams.EVALUATION)
  base = job.prepared(job.base_on_devices())

  def first(problems: data.Problems, prompts: Prompts) -> FirstAttempts:
    everyone = np.ones(len(problems), bool)
    return rollout.first_attempts(
      job.mesh, sample_first, base, prompts, key, everyone
    )

  sampler = job.evaluation_sampler
  return _graded(job, params, job.test, sampler, 1, key, first)


def drawn(job: Job, params: Any) -> Samples:
  """Returns table.samples trajectories of each of the first test problems."""
  table = job.config.table
  count = min(table.problems, len(job.test))
  policy = Policy(table.temperature)
  turns = job.config.turns
  sampling = job.sampling(turns, table.samples, 1, policy)
  key = jax.random.fold_in(job.root_key(), streams.SAMPLES)
  return _graded(
    job,
    params,
    job.test.take(np.arange(count)),
    make_sampler(job.decoder, sampling),
    table.samples,
    key,
  )


def _graded(
  job: Job,
  params: Any,
  problems: data.Problems,
  sampler: Sample,
  samples: int,
  key: jax.Array,
  first: Callable[[data.Problems, Prompts], FirstAttempts] | None = None,
) -> Samples:
  """Returns what a sampler writes on all problems, graded.

  Args:
    job: of the model.
    params: of the model, an adapter bound to them if there is one.
    problems: N of them.
    sampler: of K trajectories per problem.
    samples: K.
    key: of the draws.
    first: gives the first attempts; None: they are sampled too. A task that
      fixes first attempts has these in any case.
  """
  shards = job.mesh.shape['data'] * job.mesh.shape['fsdp']
  # As many rows at once as evaluations have, in problems the mesh divides.
  each = max(1, job.config.eval.batch // samples // shards) * shards
  size = min(each, -(-len(problems) // shards) * shards)
  ready, reading = job.prepared(params), []
  for start in range(0, len(problems), size):
    job.stop.check()
    number = np.arange(start, start + size)
    # The last batch is filled up, so that one program serves all of them.
    filled = problems.take(np.minimum(number, len(problems) - 1))
    prompts = rollout.put_prompts(job.mesh, filled, number)
    given = rollout.given_attempts(job.mesh, filled, samples)
    if given is None and first is not None:
      given = first(filled, prompts)
    trajectory = sampler(ready, prompts, job.instructions, key, given)
    reading.append(
      rollout.start_reading(trajectory, filled, job.test_grader, job.tokenizer)
    )
  return _join([finish() for finish in reading], samples, len(problems))


def _join(parts: Sequence[rollout.Rollout], each: int, count: int) -> Samples:
  """Returns the rows of all parts by problem, those that fill up left out."""
  answers, right, tokens = [], [], []
  for part in parts:
    span = jax.device_get(part.trajectory.span)
    turns = span.shape[1]
    tokens.append((span[..., 1] - span[..., 0]).reshape(-1, each, turns))
    right.append(part.right().reshape(-1, each, turns))
    said = [[v.answer for v in row] for row in part.verdicts]
    answers += [said[i : i + each] for i in range(0, len(said), each)]
  return Samples(
    answers[:count],
    np.concatenate(right)[:count],
    np.concatenate(tokens)[:count],
  )


def _about(plan: Plan, question: str) -> dict[str, Any]:
  """Returns what a file of answers depends on, beside the run itself."""
  table, result = plan.given.table, plan.results().get(plan.final, {})
  about = {'step': result.get('step'), 'problems': plan.given.eval.problems}
  if question == SAMPLES:
    about |= {
      'samples': table.samples,
      'temperature': table.temperature,
      'problems': min(table.problems, about['problems']),
    }
  return about


def _path(plan: Plan, question: str) -> pathlib.Path:
  return plan.workdir / 'asked' / f'{question}.npz'


def _write(plan: Plan, question: str, found: Samples) -> None:
  """Writes graded attempts; answers become numbers, told apart per problem."""
  codes = np.full(found.right.shape, -1, np.int16)
  for n, row in enumerate(found.answers):
    known: dict[Any, int] = {}
    for k, turns in enumerate(row):
      for t, answer in enumerate(turns):
        if answer not in ('', None):
          codes[n, k, t] = known.setdefault(answer, len(known))
  path = _path(plan, question)
  path.parent.mkdir(exist_ok=True)
  files.write_arrays(
    path,
    answers=codes,
    right=found.right,
    tokens=found.tokens.astype(np.int32),
    about=np.array(json.dumps(_about(plan, question))),
  )


def _read(plan: Plan, question: str) -> Samples | None:
  """Returns what `_write` wrote; None where it is gone, damaged or outdated."""
  try:
    with np.load(_path(plan, question)) as kept:
      if json.loads(str(kept['about'])) != _about(plan, question):
        return None
      answers = [
        [['' if a < 0 else int(a) for a in turns] for turns in row]
        for row in kept['answers']
      ]
      return Samples(answers, kept['right'], kept['tokens'])
  except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
    return None
