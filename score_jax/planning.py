"""From a config to everything that is known of a run before it."""

from __future__ import annotations

import dataclasses
import math
import sys
from typing import Any

from ml_collections import ConfigDict

from score_jax import advice, checks, chips, estimate, fitting, programs, tpu
from score_jax import config as config_lib
from score_jax.advice import Proposal
from score_jax.chips import Chip, Slice
from score_jax.estimate import Cost, Efficiency, Moment
from score_jax.methods import catalogue
from score_jax.models import families, public, weights
from score_jax.models.architecture import ModelConfig
from score_jax.programs import Setup
from score_jax.sizes import Sizes

UNPLANNED = ('pretrain', 'evaluate')


def architecture(config: ConfigDict, model: str) -> tuple[str, ModelConfig]:
  """Returns the model's name and its numbers, from no weights.

  They are those of `model`, else of the folder that the config names, else of
  the public model that the preset's name begins with, else of the bundled one.

  Args:
    config: settings.
    model: a name of `models.public`, or ''.

  Raises:
    ConfigError: if none is known.
  """
  if model:
    return model, families.model_config(public.get(model))
  path = config.model.path
  if path:
    return path, families.model_config(weights.read_config(path))
  found = public.of_preset(config.preset)
  if found is not None:
    return config.preset, families.model_config(found)
  name = 'the bundled model'
  return name, families.model_config(weights.read_config(config_lib.BUNDLED))


@dataclasses.dataclass(frozen=True)
class Times:
  """Seconds."""

  bound: float  # Of a step, at the chip's best.
  step: float  # Of a step, as estimated, without its graders.
  grading: float  # That a step waits for them.
  evaluations: float  # Sampling in all evaluations of the run.


@dataclasses.dataclass(frozen=True)
class Plan:
  """All that is known of a run before it."""

  model: str
  setup: Setup
  target: Slice | None
  moments: list[Moment]
  waiting: float  # Bytes that stay while the sampler runs, unused by it.
  compiled: dict[str, Any]  # By program: tpu.Compiled, or why there is none.
  costs: dict[str, Cost]
  times: Times | None  # None where no slice is named.
  proposals: list[Proposal]
  warnings: list[str]

  @property
  def steps(self) -> int:
    """Returns the updates of all phases that the job sees finished."""
    return sum(x.steps for x in catalogue.chain(self.setup.config))


def make(
  config: ConfigDict,
  model: str,
  name: str,
  compile_it: bool,
  instruction: int,
  efficiency: Efficiency,
  grading: float = 0.0,
  attempt: float = 0.0,
) -> Plan:
  """Returns the plan of a run.

  Args:
    config: settings.
    model: of `architecture`.
    name: of a slice, or ''.
    compile_it: whether to compile for the slice.
    instruction: tokens between two attempts.
    efficiency: estimate.Efficiency.
    grading: seconds that a step waits for its graders.
    attempt: tokens of an attempt, the mean; 0 = every one at its longest.

  Raises:
    ConfigError: if the settings cannot run, or something is not known.
  """
  _check_job(config)
  target = chips.parse(name) if name else None
  found = tpu.devices(name) if target and compile_it else None
  count = _devices(config, target, found)
  config = _checked(config, count, 'tpu' if target else '')
  _check_attempt(config, attempt)
  shape = config_lib.mesh_shape(config, count)
  called, numbers = architecture(config, model)
  memory = target.chip.memory * target.devices / count if target else None

  def made(mesh) -> Setup:
    # Decided as a run does it, which does not know how long attempts will be.
    setup = programs.setup(config, numbers, mesh, instruction)
    decided = fitting.decided(setup, memory)
    return dataclasses.replace(decided, attempt=attempt)

  setup = made(programs.abstract_mesh(shape))
  return Plan(
    model=called,
    setup=setup,
    target=target,
    moments=_moments(setup),
    waiting=fitting.waiting(setup),
    compiled=_compile(made(tpu.mesh(shape, found))) if found else {},
    costs=estimate.step_cost(setup),
    times=_times(setup, target, efficiency, grading),
    proposals=advice.proposals(setup, target, efficiency, count)
    if target
    else [],
    warnings=advice.warnings(setup, fitting.peak(setup), memory),
  )


def _check_job(config: ConfigDict) -> None:
  """Refuses a job that has no steps to plan."""
  config_lib.refuse(
    config.job in UNPLANNED,
    f'job={config.job} is not planned, which trains nothing by sampling; plan '
    '--config=configs/score.py.',
  )


def _checked(config: ConfigDict, devices: int, platform: str) -> ConfigDict:
  """Returns settings as the method runs beside others, if both can run."""
  checks.check(config, devices, platform)
  config = catalogue.on_equal_terms(config)
  checks.check(config, devices, platform)
  return config


def _check_attempt(config: ConfigDict, attempt: float) -> None:
  """Refuses a mean that attempts cannot have."""
  longest = max(config.sampling.max_tokens)
  config_lib.refuse(
    attempt != 0 and not 1 <= attempt <= longest,
    f'--attempt_tokens={attempt:g}: the mean is between 1 and the longest, '
    f'sampling.max_tokens={tuple(config.sampling.max_tokens)}; 0 takes every '
    'attempt at its longest.',
  )


def _moments(setup: Setup) -> list[Moment]:
  """Returns the moments of all programs at which memory may peak."""
  return [
    *estimate.prepare_moments(setup),
    *estimate.sampling_moments(setup),
    *estimate.update_moments(setup),
  ]


def _times(
  setup: Setup, target: Slice | None, efficiency: Efficiency, grading: float
) -> Times | None:
  if target is None:
    return None
  return Times(
    bound=estimate.step_seconds(setup, target.chip, estimate.FULL),
    step=estimate.step_seconds(setup, target.chip, efficiency),
    grading=grading,
    evaluations=_evaluations(setup, target.chip, efficiency),
  )


def _devices(config: ConfigDict, target: Slice | None, found: Any) -> int:
  """Returns how many devices the mesh has to cover."""
  if found is not None:
    return len(found)
  if target is not None:
    return target.devices
  mesh = config.mesh
  return math.prod(s for s in (mesh.data, mesh.fsdp, mesh.tensor) if s > 0)


def _compile(setup: Setup) -> dict[str, Any]:
  """Returns what the compiler says of all programs."""
  sizes, config = Sizes(setup), setup.config
  layers, ring = setup.model.config.layers, sizes.mesh['fsdp']
  parts = config.train.accumulation
  outer = (parts,) if parts > 1 else ()
  blocks = math.ceil(sizes.scored / sizes.block)
  # A loop for each piece of an attempt; their mean, as all count alike.
  attempt = round(sum(config.sampling.max_tokens) / len(sizes.pieces))
  # Where rows are decoded some at a time, the last of them have a loop that
  # stands alone, and those before one that stands in the loop of exchanges.
  waves = math.ceil(sizes.sampled / sizes.decoded[0]) - 1
  made = {
    'sampler': (
      programs.sample_program,
      (attempt, waves) if waves else (attempt,),
    ),
    'update': (programs.update_program, (*outer, blocks)),
  }
  if setup.decoding.copies:
    made = {'weights': (programs.prepare_program, (layers,))} | made
  found = {}
  for name, (program, others) in made.items():
    print(f'compiling the {name} ...', file=sys.stderr, flush=True)
    loops = tpu.Loops(layers, others, ring)
    try:
      found[name] = tpu.compile_program(program(setup), loops)
    except tpu.TooLarge as error:
      found[name] = str(error)
  return found


def _evaluations(setup: Setup, chip: Chip, efficiency: Efficiency) -> float:
  """Returns the seconds of sampling in all evaluations of a run."""
  config, phases = setup.config, catalogue.chain(setup.config)
  steps = sum(x.steps for x in phases)
  tested = (1 + len(phases)) * config.eval.problems
  looks = steps // config.eval.every if config.eval.every else 0
  problems = tested + looks * config.eval.validation_problems
  return problems * estimate.evaluation_seconds(setup, chip, efficiency)
