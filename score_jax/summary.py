"""What a job is about to do, in plain words, before it does it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from score_jax import config as config_lib
from score_jax import decoding, programs
from score_jax import job as job_lib
from score_jax.methods.plan import Phase, StagePlan


def describe(job: job_lib.Job, plans: list[Phase]) -> str:
  """Returns in plain words what a job is about to do."""
  config, s = job.config, job.config.sampling
  each = config_lib.samples_per_problem(config)
  rows = config.train.trajectories
  problems = rows // each
  between = sum(len(i) for i in job.instructions)
  longest = s.max_prompt_tokens + sum(s.max_tokens) + between
  second = ''
  if s.second_attempts > 1:
    second = f' ({s.first_attempts} first x {s.second_attempts} second)'
  lines = [
    f'model     {job.model.config.layers} layers of width '
    f'{job.model.config.width}, {_count(job.base):,} parameters, '
    f'{config.model.dtype} ({job_lib.model_folder(config)})',
    f'trained   {_trained(job)}',
    f'task      {_problems(job)}',
    f'a step    {problems} prompts x K={each}{second} x {config.turns} turns '
    f'= {rows} trajectories, {rows * config.turns} attempts, at most '
    f'{rows * sum(s.max_tokens):,} sampled of {rows * longest:,} tokens',
  ]
  parts = s.parts, config.train.accumulation
  if parts != (1, 1) or config.model.remat != 'none':
    lines.append(
      f'in parts  sampled in {parts[0]}, learned from in {parts[1]}; remat '
      f'{config.model.remat}'
    )
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
  lines.append(f'memory    {_memory(job, rows, longest)}')
  return '\n'.join(lines)


def _problems(job: job_lib.Job) -> str:
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


def _trained(job: job_lib.Job) -> str:
  """Returns how many parameters are trained, and which."""
  count, chosen = _count(job.policy_like()), programs.adapter(job.config)
  if chosen is None:
    return f'all {count:,} parameters'
  return (
    f'{count:,} parameters of an adapter of rank {chosen.rank} (alpha '
    f'{chosen.alpha:g}) on {", ".join(chosen.targets)}'
  )


def _memory(job: job_lib.Job, rows: int, longest: int) -> str:
  """Returns bytes by part, over all devices; what XLA adds is not in it."""
  c, model = job.model.config, job.config.model
  size = {
    name: jnp.dtype(model[name]).itemsize for name in model if 'dtype' in name
  }
  trained, adapted = (
    _count(job.policy_like()),
    programs.adapter(job.config) is not None,
  )
  cache = 2 * c.layers * rows * longest * c.kv_heads * c.head_dim
  logits = min(model.logits_chunk, rows * longest) * c.vocab_size * 4
  where = (
    'reference (layers on host)' if model.reference_on_host else 'reference'
  )
  parts = {
    'adapter' if adapted else 'policy': trained * size['param_dtype'],
    where: _count(job.base) * size['reference_dtype'],
    'optimizer': _optimizer_bytes(job),
    'gradient': trained * 4,
    'cache': cache * size['dtype'],
    'logits': logits,
  }
  return ', '.join(f'{name} {_bytes(n)}' for name, n in parts.items())


def _optimizer_bytes(job: job_lib.Job) -> int:
  """Returns those of the moments and the masters."""
  model = job.config.model
  moments = {'adam': 2, 'adamw': 2, 'sgd': 0}[job.config.optimizer.name]
  master = model.param_dtype != 'float32' and model.master_weights
  return _count(job.policy_like()) * (moments + master) * 4


def checkpoint_bytes(job: job_lib.Job) -> int:
  """Returns those of one checkpoint, before it is compressed."""
  each = jnp.dtype(job.config.model.param_dtype).itemsize
  return _count(job.policy_like()) * each + _optimizer_bytes(job)


def _bytes(count: float) -> str:
  for unit in ('B', 'kB', 'MB', 'GB'):
    if count < 1000:
      return f'{count:.3g} {unit}'
    count /= 1000
  return f'{count:.3g} TB'
