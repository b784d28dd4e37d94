"""What does each tool of the cloud call a TPU slice?

Names are those of `score_jax/chips.py`, as v5e:4x4. Shapes, types, hosts and
runtimes are those of cloud.google.com/tpu/docs (v4, v5e, v5p, v6e, runtimes)
and cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus.
"""

from __future__ import annotations

import dataclasses
import math

from launch.errors import LaunchError, nearest


@dataclasses.dataclass(frozen=True)
class Kind:
  """One kind of chip."""

  accelerator: str  # Before the count in gcloud's accelerator type.
  counts: int  # What that type counts, per chip: cores where there are two.
  runtime: str  # Software of a TPU VM.
  label: str  # Of GKE's nodes, cloud.google.com/gke-tpu-accelerator.
  whole: int  # The most chips of one host: a slice of no more has one.
  shapes: tuple[str, ...]  # One for each type; other shapes have no type.


_GRIDS = ('1x1', '2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16')
_CUBES = (
  *('2x2x1', '2x2x2', '2x2x4', '2x4x4', '4x4x4', '4x4x8'),
  *('4x8x8', '8x8x8', '8x8x16', '8x16x16'),
)
KINDS = {
  'v4': Kind('v4', 2, 'tpu-ubuntu2204-base', 'tpu-v4-podslice', 4, _CUBES),
  'v5e': Kind(
    'v5litepod', 1, 'v2-alpha-tpuv5-lite', 'tpu-v5-lite-podslice', 8, _GRIDS
  ),
  'v5p': Kind('v5p', 2, 'v2-alpha-tpuv5', 'tpu-v5p-slice', 4, _CUBES),
  'v6e': Kind('v6e', 1, 'v2-alpha-tpuv6e', 'tpu-v6e-slice', 8, _GRIDS),
}
_PER_HOST = 4  # Of slices that have more than one host.


@dataclasses.dataclass(frozen=True)
class Slice:
  """Chips that are rented together."""

  name: str  # As v5e:4x4.
  shape: str  # As 4x4.
  kind: Kind

  @property
  def chips(self) -> int:
    """Returns how many chips it has."""
    return math.prod(int(n) for n in self.shape.split('x'))

  @property
  def hosts(self) -> int:
    """Returns how many machines they are on."""
    one = self.chips <= self.kind.whole
    return 1 if one else self.chips // _PER_HOST

  @property
  def accelerator(self) -> str:
    """Returns gcloud's accelerator type, as v5litepod-16."""
    return f'{self.kind.accelerator}-{self.chips * self.kind.counts}'

  def __str__(self) -> str:
    hosts = '1 host' if self.hosts == 1 else f'{self.hosts} hosts'
    return f'{self.name}, {self.chips} chips on {hosts}'


SLICES = {
  f'{name}:{shape}': Slice(f'{name}:{shape}', shape, kind)
  for name, kind in KINDS.items()
  for shape in kind.shapes
}


def get(name: str) -> Slice:
  """Returns the slice of a name such as v5e:4x4.

  Raises:
    LaunchError: if there is none of that name.
  """
  if name in SLICES:
    return SLICES[name]
  kind = name.partition(':')[0]
  if kind not in KINDS:
    raise LaunchError(
      f'--slice must begin with one of {", ".join(KINDS)} and a colon, as '
      f'v5e:4x4; got {name!r}{nearest(name, SLICES)}.'
    )
  raise LaunchError(
    f'--slice: {kind} is rented as {", ".join(KINDS[kind].shapes)}; got '
    f'{name!r}.'
  )
