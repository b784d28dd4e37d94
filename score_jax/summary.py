"""What a job is about to do, in plain words, before it does it."""

from __future__ import annotations

from typing import Any

import jax
from ml_collections import ConfigDict

from score_jax import base_model, decoding, fitting, programs
from score_jax import config as config_lib
from score_jax.job import Job
from score_jax.methods.plan import Phase, StagePlan


def describe(job: Job, plans: list[Phase]) -> str:
  """Returns in plain words what a job is about to do."""
  config = job.config
  setup = _setup(job)
  lines = [
    f'model     {job.model.config.layers} layers of width '
    f'{job.model.config.width}, {_count(job.base):,} parameters, '
    f'{config.model.dtype} ({base_model.model_folder(config)})',
  ]
  if plans:
    lines.append(f'trained   {_trained(job)}')
  lines.append(f'task      {_problems(job)}')
  if plans:
    lines += _steps(config, programs.columns(config, setup.instruction))
  lines += [f'prompts   {note}' for note in job.tokenizer.notes]
  for plan in plans:
    kl = f'; {_kl(config, plan)}' if isinstance(plan, StagePlan) else ''
    lines.append(f'{plan.name:9} {plan.steps} steps: {plan.words}{kl}')
  sizes = ' x '.join(f'{k} {v}' for k, v in job.mesh.shape.items())
  lines.append(
    f'mesh      {sizes} on {jax.device_count()} '
    f'{jax.devices()[0].platform} devices'
  )
  if job.decoding != decoding.Decoding():
    kept = job.decoding
    lines.append(
      f'sampling  weights {kept.weights}, cache {kept.cache}, layout '
      f'{kept.layout}'
    )
  if plans:
    lines.append(f'memory    {_memory(setup)}')
  return '\n'.join(lines)


def _steps(config: ConfigDict, longest: int) -> list[str]:
  """Returns what a step of training samples and reads.

  Args:
    config: of the job.
    longest: tokens of the longest row.
  """
  s, rows = config.sampling, config.train.trajectories
  attempts, tokens = programs.sampled_at_most(config)
  each = config_lib.samples_per_problem(config)
  second = ''
  if s.second_attempts > 1:
    second = f' ({s.first_attempts} first x {s.second_attempts} second)'
  lines = [
    f'a step    {rows // each} prompts x K={each}{second} x {config.turns} '
    f'turns = {rows} trajectories, {attempts} attempts, at most '
    f'{tokens:,} sampled of {rows * longest:,} tokens',
  ]
  parts = s.parts, config.train.accumulation
  if parts != (1, 1) or config.model.remat != 'none':
    lines.append(
      f'in parts  sampled in {parts[0]}, learned from in {parts[1]}; remat '
      f'{config.model.remat}'
    )
  return lines


def _problems(job: Job) -> str:
  """Returns how many problems of which task there are."""
  tested = f'{len(job.test):,} of {job.test_task.name} to test'
  if job.train is None:
    return tested
  dropped = ''
  if job.train.dropped:
    dropped = (
      f' ({job.train.dropped:,} more are over sampling.max_prompt_tokens='
      f'{job.config.sampling.max_prompt_tokens})'
    )
  return (
    f'{job.task.name}: {len(job.train):,} problems to train on{dropped}, '
    f'{tested}; graded by {job.task.grader}'
  )


def _kl(config: ConfigDict, plan: StagePlan) -> str:
  weights = [
    f'{config.method.beta2 if held else plan.stage.beta1:g}'
    for held in plan.stage.held
  ]
  return f'KL weights {" and ".join(weights)}'


def _count(params: Any) -> int:
  return sum(x.size for x in jax.tree.leaves(params))


def _trained(job: Job) -> str:
  """Returns how many parameters are trained, and which."""
  count, chosen = _count(job.policy_like()), programs.adapter(job.config)
  if chosen is None:
    return f'all {count:,} parameters'
  return (
    f'{count:,} parameters of an adapter of rank {chosen.rank} (alpha '
    f'{chosen.alpha:g}) on {", ".join(chosen.targets)}'
  )


def _setup(job: Job) -> programs.Setup:
  """Returns what is planned for this job."""
  instruction = max(map(len, job.instructions), default=0)
  return programs.setup(job.config, job.model.config, job.mesh, instruction)


SHOWN = 6  # Parts of the memory that have a name of their own in one line.


def _memory(setup: programs.Setup) -> str:
  """Returns what the busiest moment of a step needs, as `--plan` has it."""
  busiest = fitting.busiest(setup)
  parts = sorted(busiest.parts.items(), key=lambda part: -part[1])
  words = [f'{name} {_bytes(n)}' for name, n in parts[:SHOWN] if n]
  if rest := sum(n for _, n in parts[SHOWN:]):
    words.append(f'others {_bytes(rest)}')
  return (
    f'about {_bytes(busiest.total)} of a device at most, in the '
    f'{busiest.program} ({busiest.name}): {", ".join(words)}'
  )


def checkpoint_bytes(job: Job) -> int:
  """Returns those of one checkpoint, before it is compressed."""
  state, *_ = programs.update_program(_setup(job)).arguments
  return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))


def _bytes(count: float) -> str:
  for unit in ('B', 'kB', 'MB', 'GB'):
    if count < 1000:
      return f'{count:.3g} {unit}'
    count /= 1000
  return f'{count:.3g} TB'
