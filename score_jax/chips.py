"""What can an accelerator do, on paper? TPU slices by their names.

Public figures per chip, from the system pages cloud.google.com/tpu/docs/v4,
/v5e, /v5p and /v6e: peak bfloat16 products, memory and its bandwidth, and the
bandwidth of all links to other chips together.
"""

from __future__ import annotations

import dataclasses
import math
import re

from score_jax.config import ConfigError, nearest

GB = 10**9
GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
  """One chip, at its best."""

  flops: float  # bfloat16 operations a second.
  memory: float  # Bytes.
  bandwidth: float  # Bytes a second, to and from its memory.
  network: float  # Bytes a second, to and from other chips, all links.
  dimensions: int  # Of the network: 2 = a grid, 3 = a cube.


CHIPS = {
  'v4': Chip(275e12, 32 * GIB, 1228 * GB, 300 * GB, 3),
  'v5e': Chip(197e12, 16 * GIB, 819 * GB, 200 * GB, 2),
  'v5p': Chip(459e12, 95 * GIB, 2765 * GB, 600 * GB, 3),
  'v6e': Chip(918e12, 32 * GIB, 1640 * GB, 448 * GB, 2),
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
    ConfigError: if there is no such chip, or its slices have another shape.
  """
  found = re.fullmatch(r'(\w+):(\d+(?:x\d+)*)', name)
  kind = found[1] if found else name.partition(':')[0]
  if kind not in CHIPS:
    raise ConfigError(
      f'--slice must begin with one of {", ".join(CHIPS)} and a colon, as '
      f'v5e:4x4; got {name!r}{nearest(kind, CHIPS)}.'
    )
  chip = CHIPS[kind]
  shape = [int(n) for n in found[2].split('x')] if found else []
  if len(shape) != chip.dimensions or 0 in shape:
    example = 'x'.join('2' * chip.dimensions)
    raise ConfigError(
      f'--slice: slices of {kind} have {chip.dimensions} sizes, as '
      f'{kind}:{example}; got {name!r}.'
    )
  return Slice(name, chip, math.prod(shape))
