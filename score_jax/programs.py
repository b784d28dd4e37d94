"""From settings alone: the sampler, the update, and what they are called with.

Nothing is loaded: every argument is a shape with a dtype and a layout, on a
mesh of devices that need not be there. `estimate` counts these bytes and
`tpu` compiles these programs.

Letters: L columns.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from ml_collections import ConfigDict

from score_jax import config as config_lib
from score_jax import (
  correction,
  decoding,
  learner,
  objective,
  optimizers,
  sampler,
  sharding,
)
from score_jax.models import kernels, lora, stack, transformer, weights
from score_jax.models.architecture import Execution, ModelConfig
from score_jax.policy import Policy
from score_jax.trajectory import Trajectory

END, CLOSE, PAD = 1, 1, 0  # Any ids: no shape follows from them.


@dataclasses.dataclass(frozen=True)
class Program:
  """A jitted function, and shapes of all that it is called with."""

  function: Callable
  arguments: tuple
  kept: Any  # Of the arguments, what stays on the devices between calls.


@dataclasses.dataclass(frozen=True)
class Setup:
  """What both programs are made from, and what a plan is told beside."""

  config: ConfigDict
  model: transformer.Transformer
  instruction: int  # Tokens between two attempts.
  attempt: float = 0.0  # Tokens of an attempt, the mean; 0 = the longest.

  @property
  def mesh(self) -> Mesh | AbstractMesh:
    """Returns the mesh that all arguments lie on."""
    return self.model.execution.mesh

  @property
  def decoding(self) -> decoding.Decoding:
    """Returns how the model is kept while it samples."""
    return decoding_of(self.config)

  @property
  def base(self) -> Any:
    """Returns shapes and layout of the model's parameters."""
    c, execution = self.model.config, self.model.execution
    return _base(c, execution.param_dtype, execution.mesh)

  @property
  def reference(self) -> Any:
    """Returns shapes and layout of the frozen reference."""
    dtype = self.config.model.reference_dtype
    return lora.target(self.base, None, dtype)

  @property
  def waiting_reference(self) -> Any:
    """Returns of the reference what stays on the devices."""
    if not self.config.model.reference_on_host:
      return self.reference
    return {k: x for k, x in self.reference.items() if k != 'layers'}

  @property
  def trained(self) -> Any:
    """Returns shapes and layout of the policy, or of its adapter."""
    dtype = self.config.model.param_dtype
    return lora.target(self.base, adapter(self.config), dtype)


@functools.lru_cache
def _base(architecture, dtype, mesh) -> Any:
  # Scanned: the parameters are the same, and many layers are traced as one.
  execution = Execution(param_dtype=dtype, mesh=mesh, unroll=False)
  return weights.target(transformer.Transformer(architecture, execution))


def decoding_of(config: ConfigDict) -> decoding.Decoding:
  """Returns how the model is kept while it samples."""
  s = config.sampling
  return decoding.Decoding(s.weights, s.cache, s.layout)


def adapter(config: ConfigDict) -> lora.Lora | None:
  """Returns the adapter that is trained, or None where all parameters are."""
  c = config.model.lora
  if not c.rank:
    return None
  return lora.Lora(c.rank, c.alpha, tuple(c.targets), c.dropout)


def policy(config: ConfigDict) -> Policy:
  """Returns how logits become the distribution that is trained."""
  s = config.sampling
  return Policy(s.temperature, s.top_k, s.top_p)


def optimizer(config: ConfigDict, steps: int) -> optax.GradientTransformation:
  """Returns the optimizer of a phase of `steps` updates."""
  rule = optimizers.make_optimizer(**config.optimizer, steps=steps)
  if config.model.param_dtype == 'float32':
    return rule
  return optimizers.widen(rule, config.model.master_weights)


def learning(
  config: ConfigDict,
  stage: objective.Stage,
  baseline: str,
  first_step: int = 0,
) -> learner.Learning:
  """Returns what the update of a stage is compiled from.

  Args:
    config: settings.
    stage: what it maximizes.
    baseline: of its advantages.
    first_step: the steps of all stages before it.
  """
  method, s = config.method, config.sampling
  adaptive, lora_config = method.adaptive_beta2, adapter(config)
  # Without dropout neither is read, and stages that differ in nothing else
  # share what is compiled.
  drawn = lora_config is not None and bool(lora_config.dropout)
  return learner.Learning(
    stage=stage,
    groups=objective.Groups(s.first_attempts, s.second_attempts),
    policy=policy(config),
    baseline=baseline,
    mask_truncated=method.truncated == 'mask',
    accumulation=config.train.accumulation,
    logits_chunk=config.model.logits_chunk,
    attempt_tokens=tuple(s.max_tokens[: len(stage.reward)]),
    prompt_tokens=s.max_prompt_tokens,
    widths=tuple(config.train.widths),
    beta2_rate=adaptive.rate,
    beta2_fraction=adaptive.fraction,
    beta2_low=adaptive.low,
    beta2_high=adaptive.high,
    lora=lora_config,
    seed=config.seed if drawn else 0,
    first_step=first_step if drawn else 0,
    correction=correction.named(
      method.correction, method.correction_level, method.correction_cap
    ),
  )


def check_attention(config: ConfigDict, architecture: ModelConfig) -> None:
  """Refuses a kernel that cannot do a model's attention.

  Raises:
    ConfigError: one line with the setting, its value and the remedy.
  """
  kind = config.model.attention
  if why := kernels.refusal(kind, architecture):
    raise config_lib.ConfigError(
      f'model.attention={kind} {why}; set model.attention=plain.'
    )


def abstract_state(
  mesh: Mesh | AbstractMesh,
  rule: optax.GradientTransformation,
  like: Any,
  averages: int = 0,
) -> learner.TrainState:
  """Returns shapes and layout of a train state.

  Args:
    mesh: that it lies on.
    rule: the optimizer.
    like: shapes and layout of what is trained.
    averages: see `learner.init_state`.
  """
  make = functools.partial(
    learner.init_state, optimizer=rule, beta2=0.0, averages=averages
  )
  shapes = jax.eval_shape(make, like)
  params = jax.tree.map(lambda x: x.sharding, like)
  return jax.tree.map(
    lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
    shapes,
    state_places(mesh, rule, shapes, params),
  )


def state_places(
  mesh: Mesh | AbstractMesh,
  rule: optax.GradientTransformation,
  shapes: learner.TrainState,
  params: Any,
) -> learner.TrainState:
  """Returns the layout of a train state, given that of what is trained."""
  whole = sharding.replicated(mesh)
  return dataclasses.replace(
    jax.tree.map(lambda _: whole, shapes),
    params=params,
    opt_state=sharding.of_optimizer(mesh, rule, shapes.opt_state, params),
  )


def abstract_mesh(shape: tuple[int, int, int]) -> AbstractMesh:
  """Returns a mesh of sizes (data, fsdp, tensor) without any devices."""
  return AbstractMesh(shape, sharding.MESH_AXES, (AxisType.Auto,) * 3)


def setup(
  config: ConfigDict,
  architecture: ModelConfig,
  mesh: Mesh | AbstractMesh,
  instruction: int,
) -> Setup:
  """Returns what both programs are made from.

  Args:
    config: checked settings.
    architecture: of the model.
    mesh: with the axes of `sharding.MESH_AXES`.
    instruction: tokens between two attempts.

  Raises:
    ConfigError: if model.attention cannot do this model's.
  """
  model = decoder(config, architecture, mesh, config.model.param_dtype)
  return Setup(config, model, instruction)


def decoder(
  config: ConfigDict,
  architecture: ModelConfig,
  mesh: Mesh | AbstractMesh,
  param_dtype: str = 'float32',
) -> transformer.Transformer:
  """Returns the decoder of a model as the settings run it.

  Raises:
    ConfigError: if model.attention cannot do this model's.
  """
  check_attention(config, architecture)
  c = config.model
  execution = Execution(
    dtype=c.dtype,
    residual_dtype=c.residual_dtype,
    param_dtype=param_dtype,
    remat=c.remat,
    unroll=c.unroll,
    mesh=mesh,
    attention=c.attention,
    products=_products(mesh, c.products),
    **few_rows(mesh, c.dtype),
  )
  return transformer.Transformer(architecture, execution)


def few_rows(mesh: Mesh | AbstractMesh, dtype: str) -> dict[str, int]:
  """Returns what of Execution says how steps of few rows read kernels.

  Args:
    mesh: that the model lies on.
    dtype: of what its products read.
  """
  is_one_cpu = (
    isinstance(mesh, Mesh)
    and mesh.size == 1
    and mesh.devices.item().platform == 'cpu'
  )
  return stack.limits(_cores()) if is_one_cpu and dtype == 'float32' else {}


def _products(mesh: Mesh | AbstractMesh, wanted: str) -> str:
  """Returns `Execution.products`; what is for CPUs alone, nowhere else.

  A plan may be for other devices than those that the settings are for.

  Raises:
    ConfigError: if its products might never end here.
  """
  is_cpu = isinstance(mesh, Mesh) and mesh.devices.flat[0].platform == 'cpu'
  if not is_cpu:
    return 'xla'
  config_lib.refuse(
    wanted == 'onednn' and not onednn_ends(),
    'model.products=onednn may wait for itself for ever on several cores without '
    'AVX-512, as here; set model.products=xla.',
  )
  return wanted


def onednn_ends() -> bool:
  """Returns whether oneDNN's products are sure to end on this processor.

  Without AVX-512 a thread that computes some products of a batch waits for the
  others to share one of its own; two that do so wait for ever.
  """
  if _cores() == 1:
    return True
  try:
    return 'avx512f' in pathlib.Path('/proc/cpuinfo').read_text()
  except OSError:
    return False


def _cores() -> int:
  if hasattr(os, 'sched_getaffinity'):  # Linux alone.
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def device_bytes(tree: Any) -> int:
  """Returns the bytes that arrays of these shapes and layouts take a device."""

  def one(x):
    return math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize

  return sum(map(one, jax.tree.leaves(tree)))


def sampled_at_most(config: ConfigDict) -> tuple[int, int]:
  """Returns how many attempts a batch samples, and of how many tokens at most.

  A first attempt that several second ones share is sampled once.
  """
  rows = config.train.trajectories
  first, *later = config.sampling.max_tokens
  firsts = rows // config.sampling.second_attempts
  return firsts + rows * len(later), firsts * first + rows * sum(later)


def columns(config: ConfigDict, instruction: int) -> int:
  """Returns L: prompt, all attempts, and an instruction and a close between."""
  s = config.sampling
  between = (config.turns - 1) * (instruction + 1)
  return s.max_prompt_tokens + sum(s.max_tokens) + between


def sample_program(setup: Setup) -> Program:
  """Returns the sampler of training batches, and its arguments' shapes."""
  config, s = setup.config, setup.config.sampling
  sampling = sampler.Sampling(
    first_attempts=s.first_attempts,
    second_attempts=s.second_attempts,
    max_tokens=tuple(s.max_tokens),
    policy=policy(config),
    end_tokens=(END,),
    close=CLOSE,
    pad=PAD,
    grow=s.grow,
    refill=s.refill,
    compact=tuple(s.compact),
  )
  each = config_lib.samples_per_problem(config)
  problems = config.train.trajectories // each // s.parts
  prompts = sampler.Prompts(
    tokens=_rows(setup.mesh, (problems, s.max_prompt_tokens), jnp.int32),
    length=_rows(setup.mesh, (problems,), jnp.int32),
    number=_rows(setup.mesh, (problems,), jnp.int32),
  )
  between = _whole(setup.mesh, (setup.instruction,), jnp.int32)
  key = jax.eval_shape(lambda: jax.random.key(0))
  model, like = setup.model, setup.decoding
  params = decoding.like(model, like, _bound(setup))
  return Program(
    sampler.make_sampler(decoding.decoder(model, like), sampling),
    (
      params,
      prompts,
      (between,) * (config.turns - 1),
      _whole(setup.mesh, key.shape, key.dtype),
    ),
    params,
  )


def _bound(setup: Setup) -> Any:
  """Returns shapes and layout of the policy, as lora.bind has it."""
  if adapter(setup.config) is None:
    return setup.trained
  # The base with the adapter's leaves beside its own.
  both = flatten_dict(setup.reference) | flatten_dict(setup.trained)
  return unflatten_dict(both)


def prepare_program(setup: Setup) -> Program:
  """Returns what copies the weights to sample from; there has to be a copy."""
  params = _bound(setup)
  prepare = decoding.make_prepare(setup.model, setup.decoding)
  return Program(prepare, (params,), params)


def update_program(setup: Setup) -> Program:
  """Returns stage II's update, and its arguments' shapes; stage I's costs alike."""
  config, mesh, method = setup.config, setup.mesh, setup.config.method
  rule = optimizer(config, config.train.stage2_steps)
  stage = objective.stage_two(
    config.turns,
    method.alpha,
    method.beta1,
    method.gamma,
    method.kl_estimator,
  )
  learned = learning(config, stage, method.baseline)
  update = learner.make_update(setup.model, rule, learned)
  state = abstract_state(mesh, rule, setup.trained)
  rows, turns = config.train.trajectories, config.turns
  length = columns(config, setup.instruction)
  trajectory = Trajectory(
    tokens=_rows(mesh, (rows, length), jnp.int32),
    turn=_rows(mesh, (rows, length), jnp.int32),
    logp=_rows(mesh, (rows, length), jnp.float32),
    length=_rows(mesh, (rows,), jnp.int32),
    span=_rows(mesh, (rows, turns, 2), jnp.int32),
    truncated=_rows(mesh, (rows, turns), jnp.bool_),
  )
  batch = learner.Batch(trajectory, _rows(mesh, (rows, turns), jnp.float32))
  reference = setup.reference
  return Program(update, (state, reference, batch), (state, reference))


def _rows(mesh, shape, dtype) -> jax.ShapeDtypeStruct:
  """Returns the shape of an array whose first dimension is split as rows."""
  axes = ('batch',) + (None,) * (len(shape) - 1)
  spec = sharding.partition(mesh, axes, shape)
  return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))


def _whole(mesh, shape, dtype) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding.replicated(mesh))
