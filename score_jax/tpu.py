"""What does the compiler say? Real programs compiled for TPUs that are not here.

The `libtpu` wheel holds the compiler and the plan of every slice; no TPU is
needed. It proves memory, collectives and that a program compiles at all, and
says nothing of speed or numbers.
"""

from __future__ import annotations

import collections
import dataclasses
import importlib.util
import itertools
import math
import os
import re
import time
from collections.abc import Iterable, Sequence
from typing import Any

import jax
from jax.experimental import mesh_utils, topologies
from jax.sharding import AxisType, Mesh

from score_jax import sharding
from score_jax.config import ConfigError
from score_jax.programs import Program

# Else the library asks a metadata server that is not there, and a second
# process is refused.
_ENVIRONMENT = {
  'TPU_SKIP_MDS_QUERY': '1',
  'TPU_WORKER_HOSTNAMES': 'localhost',
  'TPU_ACCELERATOR_TYPE': 'v5litepod-4',
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
}
_WIDTH = {'pred': 1, 's8': 1, 'u8': 1, 's16': 2, 'u16': 2, 'bf16': 2, 'f16': 2}
NO_WAY = -1  # What stands in no switch.
KINDS = (
  'all-gather',
  'all-reduce',
  'reduce-scatter',
  'all-to-all',
  'collective-permute',
)


def is_installed() -> bool:
  """Returns whether the compiler is there."""
  return importlib.util.find_spec('libtpu') is not None


def devices(name: str) -> Sequence[jax.Device]:
  """Returns the devices of a slice, such as 'v5e:4x4'.

  Raises:
    ConfigError: if the compiler is not installed, or knows no such slice.
  """
  if not is_installed():
    raise ConfigError(
      f'--slice={name}: the compiler is not installed; pip install '
      '"libtpu==0.0.42.*", or give --nocompile.'
    )
  for key, value in _ENVIRONMENT.items():
    os.environ.setdefault(key, value)
  single = name.partition(':')[2] in ('1x1', '1x1x1')
  more = {'chips_per_host_bounds': (1, 1, 1)} if single else {}
  try:
    return topologies.get_topology_desc(
      platform='tpu', topology_name=name, **more
    ).devices
  except Exception as error:  # Of the plugin's own kinds.
    text = str(error).strip().splitlines() or [type(error).__name__]
    raise ConfigError(f'--slice={name}: {text[0]}') from error


def mesh(shape: tuple[int, int, int], found: Sequence[jax.Device]) -> Mesh:
  """Returns a mesh of sizes (data, fsdp, tensor) over a slice's devices."""
  grid = mesh_utils.create_device_mesh(
    shape, devices=found, allow_split_physical_axes=True
  )
  return Mesh(grid, sharding.MESH_AXES, axis_types=(AxisType.Auto,) * 3)


@dataclasses.dataclass(frozen=True)
class Collective:
  """Instructions of one kind in one compiled program."""

  kind: str  # One of KINDS.
  count: int  # In the program's text.
  runs: float  # Times that they run, loops counted.
  total: float  # Bytes of all their results on one device.


@dataclasses.dataclass(frozen=True)
class Compiled:
  """What the compiler says of a program, per device; bytes."""

  peak: int  # The most memory that is in use at once.
  arguments: int
  outputs: int  # Less those that take an argument's place.
  code: int
  seconds: float  # That it took to compile, here.
  collectives: tuple[Collective, ...]


class TooLarge(RuntimeError):
  """The compiler refused a program; the text says by how much."""


def compile_program(program: Program, loops: Loops) -> Compiled:
  """Returns what the compiler says.

  Raises:
    TooLarge: if the program does not fit into the device's memory.
  """
  started = time.monotonic()
  lowered = program.function.lower(*program.arguments)
  try:
    compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    found = re.search(r'Used \S+ of \S+ hbm', str(error))
    raise TooLarge(found[0] if found else 'out of memory') from error
  memory = compiled.memory_analysis()
  return Compiled(
    peak=memory.peak_memory_in_bytes,
    arguments=memory.argument_size_in_bytes,
    outputs=memory.output_size_in_bytes - memory.alias_size_in_bytes,
    code=memory.generated_code_size_in_bytes,
    seconds=time.monotonic() - started,
    collectives=collectives(compiled.as_text(), loops),
  )


@dataclasses.dataclass(frozen=True)
class Loops:
  """How often the loops of a program run, which its text does not say."""

  layers: int  # The scan over layers.
  others: tuple[int, ...]  # Loops that are not in it, outermost first.
  ring: int  # Devices that pass parts of a product around.


def collectives(text: str, loops: Loops) -> tuple[Collective, ...]:
  """Returns the collectives of a compiled program's text, by kind.

  An instruction is where its `op_name` says; one that is cut into pieces that
  run beside other work keeps its channel, and counts once.
  """
  found = {
    (place, channel): (kind, size, path)
    for place, channel, kind, size, path in _instructions(text)
  }
  # Of the ways to read a part (`parts`), the widest, as all else is counted.
  ways = {key: _way(path) for key, (_, _, path) in found.items()}
  widest = max(ways.values(), default=0)
  found = {k: v for k, v in found.items() if ways[k] in (NO_WAY, widest)}
  rings = collections.Counter(
    place for (place, _), (kind, *_) in found.items() if _in_ring(place, kind)
  )
  seen, sums = set(), collections.defaultdict(lambda: [0, 0.0, 0.0])
  for (place, channel), (kind, size, path) in found.items():
    if channel in seen:
      continue
    seen.add(channel)
    runs = float(_runs(path, loops))
    if _in_ring(place, kind):
      runs *= (loops.ring - 1) / rings[place]
    for i, amount in enumerate((1, runs, runs * size)):
      sums[kind][i] += amount
  return tuple(Collective(kind, *sums[kind]) for kind in KINDS if kind in sums)


def _way(path: str) -> int:
  """Returns which way of a switch an instruction is part of."""
  way = re.search(r'/branch_(\d+)_fun/', path)
  return int(way[1]) if way else NO_WAY


def _in_ring(place: str, kind: str) -> bool:
  return kind == 'collective-permute' and 'windowed_dot_general_body' in place


_INSTRUCTION = re.compile(
  rf'\s+(?:ROOT )?%(\S+) = (.+?) ({"|".join(KINDS)})(?:-start)?\('
)
# A sum of which each device keeps its part: an all-reduce and a slice, fused.
_SCATTER = '%all-reduce-scatter'


def _instructions(text: str) -> Iterable[tuple[str, str, str, int, str]]:
  """Yields computation, channel, kind, bytes of the result and op_name."""
  place, fused = '', _fused_scatters(text)
  for line in text.splitlines():
    if line.startswith(('%', 'ENTRY')):
      place = line.split(' ', 1)[0]
    if not (match := _INSTRUCTION.match(line)):
      continue
    channel = re.search(r'channel_id=(\d+)', line)
    kind, result = match[3], _result_bytes(match[2], match[3], line)
    path = _path(line)
    if place in fused:
      kind = 'reduce-scatter'
      result, path = fused[place]
    yield place, channel[1] if channel else match[1], kind, result, path


def _path(line: str) -> str:
  found = re.search(r'op_name="([^"]*)"', line)
  return found[1] if found else ''


def _fused_scatters(text: str) -> dict[str, tuple[int, str]]:
  """Returns bytes of the result and op_name of each, from where it is called."""
  found = {}
  pattern = re.compile(rf' = (\S+) fusion\(.* calls=({_SCATTER}[^\s,]*)')
  for line in text.splitlines():
    if match := pattern.search(line):
      found[match[2]] = _result_bytes(match[1], 'fusion', line), _path(line)
  return found


def _result_bytes(shape: str, kind: str, line: str) -> int:
  """Returns the bytes of an instruction's result."""
  arrays = re.findall(r'(\w+)\[([\d,]*)\]', shape)
  if f'{kind}-start(' in line:  # Its result is a pair: what came, what goes.
    arrays = [a for a in arrays if a[1]]
    arrays = arrays[len(arrays) // 2 :] if kind != 'all-reduce' else arrays
  return sum(
    math.prod(int(n) for n in dims.split(',') if n) * _WIDTH.get(dtype, 4)
    for dtype, dims in arrays
  )


def _runs(path: str, loops: Loops) -> int:
  """Returns how often an instruction runs, by the loops it stands in."""
  count, outer = 1, 0
  for before, part in itertools.pairwise(['', *path.split('/')]):
    if part != 'while':
      continue
    if before.endswith('_run_layers'):
      count *= loops.layers
    elif outer < len(loops.others):
      count *= loops.others[outer]
      outer += 1
  return count


def as_record(compiled: Compiled) -> dict[str, Any]:
  """Returns it as JSON has it."""
  return dataclasses.asdict(compiled)
