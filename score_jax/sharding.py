"""The mesh, and where every array lives on it: one table of axis names.

Arrays name their axes ('batch', 'embed', 'heads', ...); `AXES` says which
axes of the mesh split them. A dimension that its mesh axes do not divide is
kept whole, so that a model with 2 key heads runs on 8 tensor shards.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
from jax.sharding import (
  AxisType,
  Mesh,
  NamedSharding,
  PartitionSpec,
  Sharding,
)

MESH_AXES = ('data', 'fsdp', 'tensor')
HOST = 'pinned_host'  # Memory of a host that its devices read by themselves.

AXES: dict[str, tuple[str, ...]] = {
  # Arrays that come with the data.
  'batch': ('data', 'fsdp'),
  'length': (),
  'act_embed': (),
  'act_heads': ('tensor',),
  'act_mlp': ('tensor',),
  'act_vocab': ('tensor',),
  # The same where rows come to parameters that stay where they are (SPLIT).
  'all_rows': ('data',),
  'act_mlp_part': ('fsdp', 'tensor'),
  'act_vocab_part': ('fsdp', 'tensor'),
  'head_dim_part': ('fsdp',),
  # Parameters.
  'vocab': ('tensor',),
  'embed': ('fsdp',),
  'heads': ('tensor',),
  'kv_heads': ('tensor',),
  'mlp': ('tensor',),
  'head_dim': (),
  'norm': (),
  'layers': (),
}
# Parameters that decode lie by other rules: gathered over fsdp once, so that
# no token gathers them;
GATHERED = AXES | {'embed': ()}
# or split over fsdp along what a product gives or sums up, so that rows, which
# are less than weights, travel to them.
SPLIT = GATHERED | {
  'vocab': ('fsdp', 'tensor'),
  'mlp': ('fsdp', 'tensor'),
  'head_dim': ('fsdp',),
}


def make_mesh(
  shape: tuple[int, int, int], devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """Returns a mesh of the sizes (data, fsdp, tensor) over all devices."""
  devices = jax.devices() if devices is None else devices
  return jax.make_mesh(
    shape, MESH_AXES, axis_types=(AxisType.Auto,) * 3, devices=devices
  )


def partition(
  mesh: Mesh,
  axes: Sequence[str | None],
  shape: Sequence[int],
  table: Mapping[str, tuple[str, ...]] = AXES,
) -> PartitionSpec:
  """Returns which mesh axes split each dimension of an array.

  Args:
    mesh: with the axes of MESH_AXES.
    axes: a name of AXES per dimension; None is kept whole.
    shape: of the array.
    table: the rules.
  """
  parts = []
  for name, size in zip(axes, shape, strict=True):
    over = () if name is None else table[name]
    divides = size % math.prod(mesh.shape[axis] for axis in over) == 0
    parts.append(over if over and divides else None)
  return PartitionSpec(*parts)


def row_shards(mesh: Mesh | None) -> int:
  """Returns how many parts rows are split into; no mesh, one part."""
  if mesh is None:
    return 1
  return math.prod(mesh.shape[axis] for axis in AXES['batch'])


def filled(shards: int, rows: int) -> int:
  """Returns the least number of rows, not below this one, that parts divide.

  Rows that do not divide are read whole by every device.
  """
  return -(-rows // shards) * shards


def constrain(mesh: Mesh | None, x: jax.Array, *axes: str | None) -> jax.Array:
  """Returns x, laid out on the mesh by its axis names; no mesh, no layout."""
  if mesh is None:
    return x
  spec = partition(mesh, axes, x.shape)
  return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the layout that keeps a whole copy on every device."""
  return NamedSharding(mesh, PartitionSpec())


def of_params(mesh: Mesh, boxed: Any) -> Any:
  """Returns the layout of each parameter.

  Args:
    mesh: with the axes of MESH_AXES.
    boxed: parameters, or their shapes, still in the boxes in which the
      modules name their axes.
  """

  def place(box):
    names, value = box.names, box.value
    return NamedSharding(mesh, partition(mesh, names, value.shape))

  return jax.tree.map(
    place, boxed, is_leaf=lambda x: isinstance(x, nn.meta.AxisMetadata)
  )


def of_optimizer(
  mesh: Mesh,
  optimizer: optax.GradientTransformation,
  opt_state: Any,
  params: Any,
) -> Any:
  """Returns the layout of optimizer state: moments lie where their params do.

  Args:
    mesh: with the axes of MESH_AXES.
    optimizer: whose state it is.
    opt_state: the state, or its shapes.
    params: the layout of the parameters.
  """
  return optax.tree_utils.tree_map_params(
    optimizer,
    lambda _, place: place,
    opt_state,
    params,
    transform_non_params=lambda _: replicated(mesh),
  )


def on_host(place: Sharding) -> Sharding:
  """Returns a layout with the same pieces, in memory of the devices' hosts.

  Raises:
    ValueError: if the platform has none that devices read from.
  """
  device = min(place.device_set, key=lambda d: d.id)
  kinds = [memory.kind for memory in device.addressable_memories()]
  if HOST not in kinds:
    raise ValueError(
      f'{device.platform} devices have no memory {HOST!r}; they have '
      f'{", ".join(kinds)}.'
    )
  return place.with_memory_kind(HOST)


def fetch(tree: Any) -> Any:
  """Returns arrays that lie in host memory on their devices; inside `jit`.

  What is on its devices already is left alone.
  """

  def one(x):
    if jax.typeof(x).memory_space == jax.memory.Space.Host:
      return jax.device_put(x, jax.memory.Space.Device)
    return x

  return jax.tree.map(one, tree)


def of_rows(mesh: Mesh, shape: Sequence[int]) -> NamedSharding:
  """Returns the layout of an array whose first dimension is split as rows."""
  axes = ('batch',) + (None,) * (len(shape) - 1)
  return NamedSharding(mesh, partition(mesh, axes, shape))


def put_rows(mesh: Mesh, x: np.ndarray) -> jax.Array:
  """Returns a host array on the mesh, its first dimension split as 'batch'.

  Every process passes the same whole array and keeps its own rows.
  """
  x = np.asarray(x)
  return _put(x, of_rows(mesh, x.shape))


def put_whole(mesh: Mesh, x: np.ndarray) -> jax.Array:
  """Returns a host array with a whole copy on every device of the mesh.

  Every process passes the same array.
  """
  return _put(np.asarray(x), replicated(mesh))


def _put(x: np.ndarray, place: Sharding) -> jax.Array:
  return jax.make_array_from_callback(x.shape, place, lambda i: x[i])
