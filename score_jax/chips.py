"""What can an accelerator do, on paper? TPU slices by their names.

Public figures per chip, from the system pages cloud.google.com/tpu/docs/v4,
/v5e, /v5p and /v6e: peak bfloat16 products, memory and its bandwidth, the
bandwidth of all links to other chips together, and the slices on offer.
"""

from __future__ import annotations

import dataclasses
import math
import re

from score_jax.config import ConfigError, nearest

GB = 10**9
GIB = 2**30
GRIDS = ('1x1', '2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16')
# Of less than a cube, which has 4 x 4 x 4 chips.
PARTS = ('2x2x1', '2x2x2', '2x2x4', '2x4x4')
CUBE = 4


@dataclasses.dataclass(frozen=True)
class Chip:
  """One chip, at its best."""

  flops: float  # bfloat16 operations a second.
  memory: float  # Bytes.
  bandwidth: float  # Bytes a second, to and from its memory.
  network: float  # Bytes a second, to and from other chips, all links.
  shapes: tuple[str, ...]  # Of its slices, but for those of whole cubes.
  cubes: int = 0  # The most of them in a slice.


CHIPS = {
  'v4': Chip(275e12, 32 * GIB, 1228 * GB, 300 * GB, PARTS, 64),
  'v5e': Chip(197e12, 16 * GIB, 819 * GB, 200 * GB, GRIDS),
  'v5p': Chip(459e12, 95 * GIB, 2765 * GB, 600 * GB, PARTS, 96),
  'v6e': Chip(918e12, 32 * GIB, 1640 * GB, 448 * GB, GRIDS),
}


@dataclasses.dataclass(frozen=True)
class Slice:
  """Chips that are rented together."""

  name: str  # As 'v5e:4x4'.
  chip: Chip
  devices: int


def parse(name: str) -> Slice:
  """Returns the slice of a name such as 'v5e:4x4' or 'v5p:2x2x2'.

  Raises:
    ConfigError: if there is no such chip, or no slice of it has that shape.
  """
  kind, _, shape = name.partition(':')
  if kind not in CHIPS:
    raise ConfigError(
      f'--slice must begin with one of {", ".join(CHIPS)} and a colon, as '
      f'v5e:4x4; got {name!r}{nearest(kind, CHIPS)}.'
    )
  chip = CHIPS[kind]
  if shape not in chip.shapes and not _is_of_cubes(shape, chip.cubes):
    cubes = (
      ', and multiples of 4 that do not fall, as 4x4x4 and 4x8x8, of at most '
      f'{chip.cubes * CUBE**3:,} chips'
    )
    raise ConfigError(
      f'--slice: {kind} is rented as {", ".join(chip.shapes)}'
      f'{cubes if chip.cubes else ""}; got {name!r}.'
    )
  return Slice(name, chip, math.prod(map(int, shape.split('x'))))


def _is_of_cubes(shape: str, most: int) -> bool:
  """Returns whether a shape as '4x4x8' is one of at most so many cubes."""
  if not re.fullmatch(r'[1-9]\d*(x[1-9]\d*){2}', shape):
    return False
  sizes = [int(n) for n in shape.split('x')]
  whole = not any(n % CUBE for n in sizes) and sizes == sorted(sizes)
  return whole and math.prod(sizes) <= most * CUBE**3
