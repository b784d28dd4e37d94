"""What does a device's memory hold? Settings that are left open follow from it.

`sampling.layout` and `model.remat` may be 'auto', `sampling.parts` and
`train.accumulation` 0.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

from jax.sharding import AbstractMesh, Mesh

from score_jax import checks, chips, estimate, programs
from score_jax import config as config_lib
from score_jax.config import AUTO, ConfigError, REMAT
from score_jax.estimate import Efficiency, Moment
from score_jax.programs import Setup
from score_jax.sizes import Sizes

ROOM = 0.9  # Of the memory, that a prediction may take: it errs by 15 %.
# Which of two ways is faster is judged as on this chip: the order hardly
# depends on it.
CHIP = chips.CHIPS['v5p']


def decided(setup: Setup, memory: float | None) -> Setup:
  """Returns what is planned, with nothing left open.

  The batch is sampled in as few parts as fit. Of the ways to make the update
  that fit, it is the fastest by the estimate; if none does, the smallest.

  Args:
    setup: what is planned.
    memory: bytes of a device; None where nothing is known of it, and all is
      taken to fit.
  """
  asked = setup.config
  closed = with_settings(
    setup,
    {
      'sampling.parts': asked.sampling.parts or 1,
      'train.accumulation': asked.train.accumulation or 1,
      'model.remat': _remats(asked)[0],
    },
  )
  if not asked.sampling.parts and memory is not None:
    closed = _sampled_in_parts(closed, memory)
  chosen = layout(closed, memory)
  closed = with_settings(closed, {'sampling.layout': chosen})
  is_open = not asked.train.accumulation or asked.model.remat == AUTO
  if is_open and memory is not None:
    return _fastest_update(closed, asked, memory)
  return closed


def layout(setup: Setup, memory: float | None) -> str:
  """Returns where the weights lie while they sample, 'auto' decided.

  Whole over fsdp if that fits, for then no token waits for another device;
  else split over it. Without fsdp they lie as they are trained.

  Args:
    setup: what is planned.
    memory: bytes of a device; None where nothing is known of it.
  """
  chosen = setup.config.sampling.layout
  if chosen != AUTO:
    return chosen
  if not Sizes(setup).gathers:
    return 'train'
  gathered = with_settings(setup, {'sampling.layout': 'gathered'})
  if memory is None or peak(gathered, sampler_alone=True) <= ROOM * memory:
    return 'gathered'
  return 'tensor'


def _sampled_in_parts(setup: Setup, memory: float) -> Setup:
  """Returns it with as few parts of a batch as fit, or with as many as go."""
  own = setup
  for parts in divisors(setup):
    change = {'sampling.parts': parts}
    own = changed(setup, change, setup.mesh) or own
    chosen = layout(own, memory)
    laid = with_settings(own, {'sampling.layout': chosen})
    if peak(laid, sampler_alone=True) <= ROOM * memory:
      break
  return own


def _fastest_update(setup: Setup, asked: Any, memory: float) -> Setup:
  """Returns it with the parts and the remat that are fastest and fit."""
  fits, least = [], []
  for remat in _remats(asked):
    for change in _update_changes(setup, asked, remat):
      own = changed(setup, change, setup.mesh)
      if own is None:
        continue
      needed = estimate.peak(estimate.update_moments(own)).total
      least.append((needed, own))
      if needed <= ROOM * memory:
        fits.append((_update_seconds(own), own))
        break  # More parts take longer.
  return min(fits or least, key=lambda found: found[0])[1]


def _update_changes(setup: Setup, asked: Any, remat: str) -> Iterator[dict]:
  given = asked.train.accumulation
  for parts in [given] if given else divisors(setup):
    yield {'train.accumulation': parts, 'model.remat': remat}


def _remats(config: Any) -> tuple[str, ...]:
  chosen = config.model.remat
  return REMAT if chosen == AUTO else (chosen,)


def _update_seconds(setup: Setup) -> float:
  costs = estimate.update_cost(setup).values()
  return sum(max(c.seconds(CHIP, Efficiency()).values()) for c in costs)


def divisors(setup: Setup) -> list[int]:
  """Returns into how many parts of whole groups a batch can be cut, rising."""
  each = config_lib.samples_per_problem(setup.config)
  problems = setup.config.train.trajectories // each
  return [n for n in range(1, problems + 1) if problems % n == 0]


def changed(
  setup: Setup, changes: Mapping[str, Any], mesh: Mesh | AbstractMesh
) -> Setup | None:
  """Returns it with some settings changed; None where they are refused."""
  own = with_settings(setup, changes, mesh)
  try:
    checks.check(own.config, math.prod(dict(mesh.shape).values()))
  except ConfigError:
    return None
  return own


def with_settings(
  setup: Setup,
  changes: Mapping[str, Any],
  mesh: Mesh | AbstractMesh | None = None,
) -> Setup:
  """Returns what is planned with some settings changed, unchecked.

  Args:
    setup: what is planned.
    changes: by their names, parts joined by dots.
    mesh: that it lies on; None = the same.
  """
  config = setup.config.copy_and_resolve_references()
  with config.unlocked():
    config.update_from_flattened_dict(dict(changes))
  mesh = setup.mesh if mesh is None else mesh
  made = programs.setup(config, setup.model.config, mesh, setup.instruction)
  return dataclasses.replace(made, attempt=setup.attempt)


def peak(setup: Setup, sampler_alone: bool = False) -> float:
  """Returns the bytes of the busiest moment of a step."""
  return busiest(setup, sampler_alone).total


def busiest(setup: Setup, sampler_alone: bool = False) -> Moment:
  """Returns the moment of a step that needs the most memory."""
  idle = waiting(setup)
  moments = [
    _beside(m, idle - m.parts['parameters'])
    for m in estimate.prepare_moments(setup)
  ]
  moments += [_beside(m, idle) for m in estimate.sampling_moments(setup)]
  if not sampler_alone:
    moments += estimate.update_moments(setup)
  return estimate.peak(moments)


def _beside(moment: Moment, idle: float) -> Moment:
  return dataclasses.replace(moment, parts=moment.parts | {'waiting': idle})


def waiting(setup: Setup) -> float:
  """Returns the bytes that stay on a device while it samples, unused."""
  state, *_ = programs.update_program(setup).arguments
  reference = setup.waiting_reference
  if setup.decoding.copies:  # None of them samples.
    return programs.device_bytes((state, reference))
  used = programs.device_bytes(programs.sample_program(setup).kept)
  return programs.device_bytes((state, reference)) - used
