"""Which settings cannot run together? Each refusal names the remedy."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable

from ml_collections import ConfigDict

from score_jax.config import (
  AUTO,
  BASELINES,
  CHAT,
  CORRECTION_LEVELS,
  CORRECTIONS,
  DTYPES,
  flatten,
  JOBS,
  KEPT,
  KERNELS,
  KL_ESTIMATORS,
  LAYOUTS,
  LONG_PROMPTS,
  mesh_shape,
  nearest,
  PRODUCTS,
  PROJECTIONS,
  refuse,
  REMAT,
  samples_per_problem,
  TRUNCATED,
)

KL_REFUSED = {
  'k1_loss': 'the gradient of k1 as a loss is zero in expectation',
  'k3_loss': 'the gradient of k3 as a loss alone is that of KL(ref || policy)',
}
# Below that, limits.logp_gap stops runs whose weights or cache are rounded so
# (docs/plan.md has the gaps that were measured).
ROUNDED_GAP = {'same': 0.0, 'bfloat16': 0.01, 'int8': 0.05}


def _one_of(name: str, value: str, allowed: Iterable[str]) -> None:
  allowed = tuple(allowed)
  refuse(
    value not in allowed,
    f'{name} must be one of {", ".join(allowed)}; '
    f'got {value!r}{nearest(str(value), allowed)}.',
  )


def _at_least(config: ConfigDict, low: float, *names: str) -> None:
  flat = flatten(config)
  for name in names:
    refuse(
      not flat[name] >= low, f'{name} must be at least {low}; got {flat[name]}.'
    )


def _share(config: ConfigDict, *names: str) -> None:
  flat = flatten(config)
  for name in names:
    refuse(
      not 0 <= flat[name] <= 1,
      f'{name} must be between 0 and 1; got {flat[name]}.',
    )


def check(config: ConfigDict, devices: int, platform: str = '') -> None:
  """Refuses settings that cannot run together.

  Args:
    config: all settings.
    devices: how many the job has.
    platform: of them, 'cpu', 'gpu' or 'tpu'; '' = nobody knows yet.

  Raises:
    ConfigError: one line with the setting, its value and the remedy.
  """
  _check_numbers(config)
  _one_of('job', config.job, JOBS)
  _check_dtypes(config)
  _one_of('model.remat', config.model.remat, (*REMAT, AUTO))
  _check_attention(config.model, platform)
  _check_products(config.model, platform)
  _check_lora(config)
  _one_of('task.chat', config.task.chat, CHAT)
  _one_of('task.long_prompts', config.task.long_prompts, LONG_PROMPTS)
  _one_of('optimizer.name', config.optimizer.name, ('adam', 'adamw', 'sgd'))
  _one_of(
    'optimizer.schedule',
    config.optimizer.schedule,
    ('constant', 'linear', 'cosine'),
  )
  _check_pretrain(config)
  _check_method(config)
  _check_sampling(config)
  _check_batch(config, mesh_shape(config, devices))
  for name, value in flatten(config).items():
    refuse(
      isinstance(value, float) and not math.isfinite(value),
      f'{name} must be a finite number; got {value}.',
    )


def _check_numbers(config: ConfigDict) -> None:
  _at_least(config, 0, 'method.beta1', 'method.beta2', 'method.alpha')
  _at_least(config, 0, 'method.adaptive_beta2.rate', 'optimizer.clip_norm')
  _at_least(config, 0, 'optimizer.warmup_steps', 'optimizer.learning_rate')
  _at_least(config, 0, 'optimizer.weight_decay', 'eval.temperature', 'seed')
  _at_least(config, 0, 'eval.every', 'log.samples_every', 'limits.logp_gap')
  _at_least(config, 0, 'log.samples', 'task.train_problems')
  eps = config.optimizer.eps
  refuse(not eps > 0, f'optimizer.eps must be above 0; got {eps}.')
  refuse(config.seed >= 2**32, f'seed must be below 2**32; got {config.seed}.')
  _at_least(config, 1, 'turns', 'train.trajectories')
  _at_least(config, 1, 'train.stage1_steps', 'train.stage2_steps')
  _at_least(config, 1, 'checkpoint.every', 'checkpoint.keep')
  where = config.checkpoint.folder
  refuse(
    '://' in where and not re.fullmatch('gs://[^/]+/[^/].*', where),
    "checkpoint.folder must be '', a folder or gs://BUCKET/FOLDER; got "
    f'{where!r}.',
  )
  _at_least(config, 1, 'eval.problems', 'eval.batch', 'eval.resamples')
  _at_least(config, 1, 'eval.validation_problems', 'model.logits_chunk')
  _at_least(config, 1, 'sampling.first_attempts', 'sampling.second_attempts')
  _at_least(config, 1, 'sampling.max_prompt_tokens', 'limits.nonfinite_updates')
  _at_least(config, 0, 'train.accumulation', 'sampling.parts')
  _at_least(config, 0, 'sampling.grow', 'sampling.refill')
  _at_least(config, 0, 'grading.workers')
  refuse(
    config.eval.attempts != 0 and config.eval.attempts < 2,
    'eval.attempts must be 0, for none, or at least 2; got '
    f'{config.eval.attempts}.',
  )
  _at_least(config, 2, 'table.turns', 'table.samples')
  _at_least(config, 1, 'table.problems')
  _at_least(config, 0.01, 'table.temperature')
  for name, least in (('seconds', 0.1), ('memory_mb', 64)):
    _at_least(config, least if config.grading[name] else 0, f'grading.{name}')
  _share(config, 'method.gamma', 'method.offline_fraction')
  _share(config, 'method.multi_turn_gamma', 'method.first_weight')
  _share(config, 'method.importance_share', 'method.retry_share')
  _at_least(config, 1, 'method.rounds')
  _at_least(config, 0.01, 'method.reward_temperature')
  _share(config, 'limits.grader_failures')
  _at_least(config, 1, 'limits.silent_seconds', 'limits.stalled_seconds')
  _at_least(config, 1, 'limits.stalled_times', 'profile.steps')
  _at_least(config, 0, 'limits.corrected_gap', 'profile.first_step')
  _at_least(config, 0, 'compilation.least_seconds')
  for name in ('b1', 'b2'):
    refuse(
      not 0 <= config.optimizer[name] < 1,
      f'optimizer.{name} must be at least 0 and below 1; got '
      f'{config.optimizer[name]}.',
    )
  _share(config, 'method.adaptive_beta2.fraction')


def _check_dtypes(config: ConfigDict) -> None:
  model = config.model
  for name in ('dtype', 'residual_dtype', 'param_dtype', 'reference_dtype'):
    _one_of(f'model.{name}', model[name], DTYPES)
  refuse(
    model.dtype == 'float32' and model.residual_dtype != 'float32',
    f'model.residual_dtype={model.residual_dtype} is narrower than '
    'model.dtype=float32; set it to float32, or both to bfloat16.',
  )


def _check_attention(model: ConfigDict, platform: str) -> None:
  kind = model.attention
  _one_of('model.attention', kind, ('plain', *KERNELS))
  if kind == 'plain':
    return
  there = [name for name, where in KERNELS.items() if where == platform]
  remedy = ' or '.join(f'model.attention={name}' for name in (*there, 'plain'))
  refuse(
    platform not in ('', KERNELS[kind]),
    f'model.attention={kind} is a kernel for platform {KERNELS[kind]}, and '
    f'these devices are of platform {platform}; set {remedy}.',
  )
  refuse(
    kind == 'cudnn' and model.dtype != 'bfloat16',
    f'model.attention=cudnn multiplies bfloat16, and model.dtype={model.dtype};'
    ' set model.dtype=bfloat16, or model.attention=plain.',
  )


def _check_products(model: ConfigDict, platform: str) -> None:
  kind = model.products
  _one_of('model.products', kind, PRODUCTS)
  refuse(
    kind == 'onednn' and platform not in ('', 'cpu'),
    'model.products=onednn is a library for CPUs, and these devices are of '
    f'platform {platform}; set model.products=xla.',
  )


def _check_lora(config: ConfigDict) -> None:
  lora = config.model.lora
  _at_least(config, 0, 'model.lora.rank')
  if not lora.rank:
    return
  refuse(
    not lora.alpha > 0,
    f'model.lora.alpha must be above 0; got {lora.alpha}; 2 x model.lora.rank '
    'is usual.',
  )
  refuse(
    not 0 <= lora.dropout < 1,
    f'model.lora.dropout must be at least 0 and below 1; got {lora.dropout}.',
  )
  refuse(
    not lora.targets,
    f'model.lora.targets is empty; name some of {", ".join(PROJECTIONS)}, or '
    'set model.lora.rank=0.',
  )
  for name in lora.targets:
    # Theirs end in _proj and begin as ours do.
    alike = [
      p for p in PROJECTIONS if name.endswith('_proj') and p[0] == name[0]
    ]
    hint = (
      f' (did you mean {alike[0]}?)' if alike else nearest(name, PROJECTIONS)
    )
    refuse(
      name not in PROJECTIONS,
      f'model.lora.targets must be of {", ".join(PROJECTIONS)}; got {name!r}'
      f'{hint}.',
    )
  refuse(
    len(set(lora.targets)) < len(lora.targets),
    f'model.lora.targets names one twice; got {tuple(lora.targets)}.',
  )
  refuse(
    config.model.reference_on_host,
    f'model.reference_on_host=True does not go with model.lora.rank={lora.rank}'
    ': the reference is the frozen part of the policy as well, which every '
    'token reads; set it to False.',
  )


def _check_pretrain(config: ConfigDict) -> None:
  _share(config, 'pretrain.repair_share', 'pretrain.first_accuracy')
  _at_least(config, 1, 'pretrain.layers', 'pretrain.heads', 'pretrain.mlp')
  _at_least(config, 1, 'pretrain.first_steps', 'pretrain.second_steps')
  _at_least(config, 1, 'pretrain.trajectories', 'pretrain.check_every')
  _at_least(config, 0, 'pretrain.learning_rate')
  width, heads = config.pretrain.width, config.pretrain.heads
  refuse(
    width < 1 or width % (2 * heads) != 0,
    'pretrain.width must be a multiple of 2 x pretrain.heads, for heads of an '
    f'even width; got {width} and {heads}.',
  )


def _check_method(config: ConfigDict) -> None:
  method = config.method
  name = method.kl_estimator
  refuse(
    name in KL_REFUSED,
    f'method.kl_estimator={name!r} is refused: {KL_REFUSED.get(name)}; use '
    f'one of {", ".join(KL_ESTIMATORS)}, whose gradient is that of the KL.',
  )
  _one_of('method.kl_estimator', name, KL_ESTIMATORS)
  _one_of('method.baseline', method.baseline, BASELINES)
  _one_of('method.truncated', method.truncated, TRUNCATED)
  _check_correction(config)
  low, high = method.adaptive_beta2.low, method.adaptive_beta2.high
  refuse(
    method.adaptive_beta2.rate > 0 and not 0 < low <= method.beta2 <= high,
    'method.beta2 must lie between method.adaptive_beta2.low and .high, both '
    f'above 0; got {low} <= {method.beta2} <= {high}.',
  )
  refuse(
    config.turns < 2 and config.job != 'pretrain',
    f'turns must be at least 2 for self-correction; got {config.turns}.',
  )


def _check_correction(config: ConfigDict) -> None:
  method, sampling = config.method, config.sampling
  _one_of('method.correction', method.correction, CORRECTIONS)
  _one_of('method.correction_level', method.correction_level, CORRECTION_LEVELS)
  refuse(
    method.correction_cap != 0 and not method.correction_cap >= 1,
    'method.correction_cap must be at least 1, or 0 for no limit; got '
    f'{method.correction_cap}.',
  )
  refuse(
    method.correction == 'masked' and not method.correction_cap,
    'method.correction=masked leaves out what is above method.correction_cap, '
    'and 0 is no limit; set it to 2, or method.correction=truncated.',
  )
  if not config.train.overlap:
    return
  refuse(
    method.correction == 'none',
    'train.overlap=True learns from attempts of the parameters before the last '
    'update, and method.correction=none takes them for the newest ones; set '
    'method.correction=truncated, or train.overlap=False.',
  )
  refuse(
    sampling.top_k > 0 or sampling.top_p < 1,
    f'sampling.top_k={sampling.top_k}, sampling.top_p={sampling.top_p} do not '
    'go with train.overlap=True: what was sampled may be cut off a step later, '
    'where it has no log-probability; set top_k=0 and top_p=1.0.',
  )


def _check_sampling(config: ConfigDict) -> None:
  sampling = config.sampling
  refuse(
    len(sampling.max_tokens) != config.turns,
    f'sampling.max_tokens needs one length for each of turns={config.turns}; '
    f'got {tuple(sampling.max_tokens)}; write --config.sampling.max_tokens='
    f'"{(8,) * config.turns}".',
  )
  refuse(
    not all(type(n) is int and n >= 2 for n in sampling.max_tokens),
    'sampling.max_tokens must be whole numbers of at least 2, a token and the '
    f'end; got {tuple(sampling.max_tokens)}.',
  )
  refuse(
    not sampling.temperature > 0,
    'sampling.temperature must be above 0 in training, where attempts are '
    f'drawn; got {sampling.temperature}; eval.temperature=0 evaluates greedily.',
  )
  refuse(
    sampling.top_k < 0 or not 0 < sampling.top_p <= 1,
    'sampling.top_k must be at least 0 and sampling.top_p in (0, 1]; got '
    f'{sampling.top_k} and {sampling.top_p}.',
  )
  _check_decoding(config)
  _check_cut(config)
  shares = tuple(sampling.compact)
  refuse(
    not all(0 < share <= 1 for share in shares)
    or any(a <= b for a, b in itertools.pairwise(shares)),
    'sampling.compact must be falling shares of the rows, at most 1; got '
    f'{shares}; write --config.sampling.compact="(0.5, 0.25)", or "(1.0,)" for '
    'none.',
  )
  refuse(
    sampling.refill > 0 and sampling.grow > 0,
    f'sampling.refill={sampling.refill} decodes rows at different columns, so '
    f'that their caches cannot grow together; set sampling.grow=0, not '
    f'{sampling.grow}.',
  )
  baseline = config.method.baseline
  refuse(
    baseline in ('leave_one_out', 'group') and sampling.first_attempts < 2,
    f'method.baseline={baseline} needs sampling.first_attempts of at least '
    f'2; got {sampling.first_attempts}.',
  )


def _check_cut(config: ConfigDict) -> None:
  sampling = config.sampling
  if not sampling.top_k and sampling.top_p == 1:
    return
  refuse(
    not sampling.score_truncated,
    f'sampling.top_k={sampling.top_k}, sampling.top_p={sampling.top_p} train '
    'another distribution than the whole one, for the update scores what is '
    'sampled from; set top_k=0 and top_p=1.0, or, where that is meant, '
    'sampling.score_truncated=True.',
  )
  narrow = [
    f'{name}={kind}'
    for name, kind in (
      ('model.dtype', config.model.dtype),
      ('sampling.weights', sampling.weights),
      ('sampling.cache', sampling.cache),
    )
    if kind not in ('float32', 'same')
  ]
  refuse(
    bool(narrow),
    f'sampling.top_k={sampling.top_k}, sampling.top_p={sampling.top_p} do not '
    f'go with {", ".join(narrow)}: rounded, a token is sampled that the update '
    'finds cut off, where it has no log-probability; set top_k=0 and '
    'top_p=1.0, or model.dtype=float32 with weights and cache as they are '
    "('same').",
  )


def _check_decoding(config: ConfigDict) -> None:
  sampling, corrected = config.sampling, config.method.correction != 'none'
  which = 'corrected_gap' if corrected else 'logp_gap'
  limit = config.limits[which]
  _one_of('sampling.weights', sampling.weights, KEPT)
  _one_of('sampling.cache', sampling.cache, KEPT)
  _one_of('sampling.layout', sampling.layout, LAYOUTS)
  for name in ('weights', 'cache'):
    refuse(
      sampling[name] != config.model.dtype
      and limit < ROUNDED_GAP[sampling[name]],
      f'sampling.{name}={sampling[name]!r} rounds what samples, and '
      f'limits.{which}={limit:g} would stop the run for it; set '
      f"limits.{which}=0.1, or sampling.{name}='same'.",
    )


def _check_batch(config: ConfigDict, mesh: tuple[int, int, int]) -> None:
  rows, each = config.train.trajectories, samples_per_problem(config)
  refuse(
    rows % each != 0,
    f'train.trajectories={rows} is not a whole number of groups of '
    f'K={each} (sampling.first_attempts x sampling.second_attempts); set it '
    f'to {max(each, rows // each * each)}.',
  )
  shares = tuple(config.train.widths)
  refuse(
    not all(0 < share <= 1 for share in shares)
    or any(a >= b for a, b in itertools.pairwise(shares)),
    'train.widths must be rising shares of a row, at most 1; got '
    f'{shares}; write --config.train.widths="(0.5, 0.75)", or "(1.0,)" for '
    'whole rows.',
  )
  parts = config.train.accumulation or 1
  refuse(
    (rows // each) % parts != 0,
    f'train.accumulation={parts} does not divide the {rows // each} problems '
    'of a batch (train.trajectories / K), and a group is never split; set it '
    'to one of their divisors, or to 0, which chooses one.',
  )
  pieces = config.sampling.parts or 1
  refuse(
    (rows // each) % pieces != 0,
    f'sampling.parts={pieces} does not divide the {rows // each} problems of a '
    'batch (train.trajectories / K); set it to one of their divisors.',
  )
  shards = mesh[0] * mesh[1]
  refuse(
    (rows // parts) % shards != 0,
    f'train.trajectories={rows} over train.accumulation={parts} parts gives '
    f'{rows // parts} rows, which mesh.data x mesh.fsdp = {shards} does not '
    'divide; change one of them.',
  )
  refuse(
    (rows // pieces) % shards != 0,
    f'train.trajectories={rows} over sampling.parts={pieces} gives '
    f'{rows // pieces} rows, which mesh.data x mesh.fsdp = {shards} does not '
    'divide; change one of them.',
  )
  refill, compact = config.sampling.refill, tuple(config.sampling.compact)
  problems = rows // each // pieces
  refuse(
    (refill > 0 or min(compact, default=1) < 1) and problems % shards != 0,
    f'sampling.refill={refill} and sampling.compact={compact} need problems '
    f'that mesh.data x mesh.fsdp = {shards} divides, as each device chooses '
    f'among rows of its own; there are {problems}, train.trajectories / K / '
    'sampling.parts. Change one of these, or set refill=0 and compact=(1.0,).',
  )
