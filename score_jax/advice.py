"""What would fit, and what looks wrong? Read from a config, nothing run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator

from ml_collections import ConfigDict

from score_jax import config as config_lib
from score_jax import estimate, fitting, programs, sharding
from score_jax.chips import Slice
from score_jax.config import REMAT
from score_jax.decoding import LAYOUTS
from score_jax.estimate import Efficiency
from score_jax.fitting import ROOM
from score_jax.models.architecture import ModelConfig
from score_jax.programs import Setup
from score_jax.sizes import Sizes

# Table 5 of arXiv:2409.12917.
_COMMON = {
  'method.alpha': 10.0,
  'method.beta1': 0.01,
  'method.gamma': 0.0,
  'sampling.temperature': 1.0,
  'optimizer.name': 'adam',
  'turns': 2,
}
PAPER = {
  'math': _COMMON
  | {
    'method.beta2': 0.1,
    'optimizer.learning_rate': 5e-6,
    'train.trajectories': 512,
  },
  'mbpp': _COMMON
  | {
    'method.beta2': 0.25,
    'optimizer.learning_rate': 1e-5,
    'train.trajectories': 128,
  },
}
STEPS = {'math': 3000, 'mbpp': 1500}
TOKENS = 256  # An attempt that reasons in words rarely fits into less.
HALVES = (0.5, 0.25, 0.12)  # Of the rows, that go on alone.
ENDED = 0.8  # Of the bytes that drawing moves; fewer are worth a setting.
BLOCKS = 16  # More blocks of logits than that reread the table too often.


def warnings(setup: Setup, peak: float, memory: float | None) -> list[str]:
  """Returns what looks wrong, each with its remedy.

  Args:
    setup: what is planned.
    peak: bytes that a device needs.
    memory: bytes that it has; None where no slice is named.
  """
  config = setup.config
  return [
    *_memory(peak, memory),
    *_paper(config),
    *_groups(config),
    *_lengths(config),
    *_layout(setup, memory),
    *_decoding(setup, memory),
    *_ended(setup, memory),
  ]


def _memory(peak: float, memory: float | None) -> Iterator[str]:
  if memory is not None and peak > ROOM * memory:
    yield (
      f'the busiest moment takes {peak / memory:.0%} of a device; above '
      f'{ROOM:.0%} it may not fit: take what "What fits" lists, or a larger slice'
    )


def _paper(config: ConfigDict) -> Iterator[str]:
  flat, task = config_lib.flatten(config), config.task.name
  for name, value in PAPER.get(task, _COMMON).items():
    if flat[name] != value:
      yield f'{name}={flat[name]!r}; the paper has {value!r}: set it back'
  steps = config.train.stage1_steps + config.train.stage2_steps
  if task in STEPS and steps != STEPS[task]:
    yield (
      f'train.stage1_steps + train.stage2_steps = {steps:,}; the paper has '
      f'{STEPS[task]:,} in all: set them to {STEPS[task] // 2:,} each'
    )


def _groups(config: ConfigDict) -> Iterator[str]:
  each = config.sampling.first_attempts
  problems = config.train.trajectories // config_lib.samples_per_problem(config)
  if each < 4:
    yield (
      f'sampling.first_attempts={each}: a baseline of {each - 1} sibling(s) is '
      'noisy; set it to 4 or more'
    )
  if problems < 8:
    yield (
      f'{problems} problems in a batch: an update sees little of the task; '
      'raise train.trajectories or lower sampling.first_attempts'
    )


def _lengths(config: ConfigDict) -> Iterator[str]:
  lengths = tuple(config.sampling.max_tokens)
  if config.task.name in STEPS and min(lengths) < TOKENS:
    yield (
      f'sampling.max_tokens={lengths}: many answers will be cut off; set it to '
      f'{TOKENS} or more for each turn'
    )
  if len(set(lengths)) > 1 and min(lengths) == lengths[-1]:
    yield (
      f'sampling.max_tokens={lengths}: the last attempt has the least room; '
      'give it as much as the first'
    )


def _layout(setup: Setup, memory: float | None) -> Iterator[str]:
  sizes, model = Sizes(setup), setup.model.config
  tensor = sizes.mesh['tensor']
  for name in ('heads', 'kv_heads', 'mlp', 'vocab_size'):
    size = _size(model, name)
    if size % tensor:
      yield (
        f'mesh.tensor={tensor} does not divide {name}={size}, which is kept '
        'whole on every device; take a divisor'
      )
  blocks = math.ceil(sizes.scored / sizes.block)
  rows = setup.config.train.trajectories // setup.config.train.accumulation
  many = sizes.gathers and blocks > BLOCKS
  if many and (chunk := _chunk(setup, rows, memory)):
    yield (
      f'model.logits_chunk={setup.config.model.logits_chunk} is {sizes.block} '
      f'columns of {rows} rows: the vocabulary is gathered anew for each of '
      f'{blocks} blocks; set it to {chunk:,}'
    )
  if setup.config.model.unroll and model.layers > 16:
    yield (
      f'model.unroll=True with {model.layers} layers compiles for many '
      'minutes; set it to False'
    )


def _chunk(setup: Setup, rows: int, memory: float | None) -> int | None:
  """Returns the tokens of a block that make few of them and fit, or None.

  Args:
    setup: what is planned.
    rows: of a part of the update.
    memory: bytes of a device; None where no slice is named.
  """
  scored = Sizes(setup).scored
  for blocks in (BLOCKS // 2, BLOCKS):
    chunk = rows * math.ceil(scored / blocks)
    own = fitting.with_settings(setup, {'model.logits_chunk': chunk})
    if memory is None or fitting.peak(own) <= ROOM * memory:
      return chunk
  return None


def _decoding(setup: Setup, memory: float | None) -> Iterator[str]:
  sizes = Sizes(setup)
  if sizes.gathers and setup.decoding.layout == 'train':
    better = fitting.with_settings(setup, {'sampling.layout': 'auto'})
    yield (
      'sampling.layout=train: every token gathers all weights over mesh.fsdp='
      f'{sizes.mesh["fsdp"]}; set it to {fitting.layout(better, memory)}'
    )


def _ended(setup: Setup, memory: float | None) -> Iterator[str]:
  sizes = Sizes(setup)
  if not setup.attempt or sizes.is_refilled or len(sizes.decoded) > 1:
    return
  better = fitting.with_settings(setup, {'sampling.compact': HALVES})
  if memory is not None and fitting.peak(better) > ROOM * memory:
    return
  now, then = (
    estimate.sampling_cost(x)['attempts'].memory for x in (setup, better)
  )
  if then < ENDED * now:
    yield (
      f'attempts of {setup.attempt:g} tokens on average: rows that have ended '
      'are read until the last one has; set sampling.compact='
      f'"{HALVES}", which moves {1 - then / now:.0%} fewer bytes while tokens '
      'are drawn'
    )


def _size(model: ModelConfig, name: str) -> int:
  """Returns one of the sizes that the tensor axis splits."""
  return dataclasses.asdict(model)[name]


@dataclasses.dataclass(frozen=True)
class Proposal:
  """Settings that fit, and what they are thought to take."""

  mesh: tuple[int, int, int]
  remat: str
  accumulation: int
  layout: str  # Of the weights while they sample.
  parts: int  # Of a batch when it is sampled.
  peak: float  # Bytes of a device.
  seconds: float  # Of a step.

  def settings(self) -> str:
    """Returns them as the command line has them."""
    names = ('data', 'fsdp', 'tensor')
    mesh = ' '.join(
      f'mesh.{n}={size}' for n, size in zip(names, self.mesh, strict=True)
    )
    return (
      f'{mesh} model.remat={self.remat} '
      f'train.accumulation={self.accumulation} '
      f'sampling.layout={self.layout} sampling.parts={self.parts}'
    )


def proposals(
  setup: Setup, target: Slice, efficiency: Efficiency, devices: int
) -> list[Proposal]:
  """Returns the settings that fit a slice, the fastest first.

  Args:
    setup: whose model, task and method are kept.
    target: the slice.
    efficiency: for the seconds.
    devices: of the slice.
  """
  room = ROOM * target.chip.memory
  found = []
  for mesh in _meshes(setup, devices):
    # Each half of a step has settings of its own: the best of both go together.
    sampled = [
      _first_fit(setup, mesh, room, _sampler_changes(setup, name))
      for name in LAYOUTS
      if mesh[1] > 1 or name == 'train'
    ]
    sampled = [fit.config.sampling for fit in sampled if fit is not None]
    for remat in REMAT if sampled else ():
      changes = _update_changes(setup, remat, sampled[0])
      fit = _first_fit(setup, mesh, room, changes)
      if fit is not None:
        found += [
          _proposal(_sampling_as(fit, s), mesh, target, efficiency)
          for s in sampled
        ]
  return sorted(found, key=lambda p: p.seconds)


def _sampling_as(setup: Setup, sampling: ConfigDict) -> Setup:
  return fitting.with_settings(
    setup,
    {'sampling.layout': sampling.layout, 'sampling.parts': sampling.parts},
  )


def _meshes(setup: Setup, devices: int) -> Iterator[tuple[int, int, int]]:
  heads = setup.model.config.kv_heads
  for tensor in (1, 2, 4, 8):
    if devices % tensor == 0 and heads % tensor == 0:
      yield 1, devices // tensor, tensor


def _sampler_changes(setup: Setup, name: str) -> Iterator[dict]:
  for parts in fitting.divisors(setup):
    yield {'sampling.parts': parts, 'sampling.layout': name}


def _update_changes(
  setup: Setup, remat: str, sampling: ConfigDict
) -> Iterator[dict]:
  for accumulation in fitting.divisors(setup):
    yield {
      'sampling.parts': sampling.parts,
      'sampling.layout': sampling.layout,
      'train.accumulation': accumulation,
      'model.remat': remat,
    }


def _first_fit(
  setup: Setup,
  mesh: tuple[int, int, int],
  room: float,
  changes: Iterable[dict],
) -> Setup | None:
  """Returns the first of some changes that is allowed and fits, or None."""
  sizes = dict(zip(sharding.MESH_AXES, mesh, strict=True))
  laid = {f'mesh.{axis}': size for axis, size in sizes.items()}
  for change in changes:
    own = fitting.changed(setup, change | laid, programs.abstract_mesh(mesh))
    alone = 'train.accumulation' not in change
    if own is not None and fitting.peak(own, alone) <= room:
      return own
  return None


def _proposal(setup, mesh, target, efficiency) -> Proposal:
  return Proposal(
    mesh,
    setup.config.model.remat,
    setup.config.train.accumulation,
    setup.config.sampling.layout,
    setup.config.sampling.parts,
    fitting.peak(setup),
    estimate.step_seconds(setup, target.chip, efficiency),
  )
