"""An adapter over any of the models: low-rank changes of its projections.

A projection with the kernel W adds scale * B A x to W x (arXiv:2106.09685).
The policy is the frozen base with the adapter bound to it; the reference is
the base alone, the same arrays. B starts at zero, so both start alike.

Letters: L layers, R rank; a kernel is [L, *inputs, *outputs].
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from score_jax.models.stack import PROJECTIONS

_A, _B = 'lora_a', 'lora_b'  # As `layers.Projection` looks for them.


@dataclasses.dataclass(frozen=True)
class Lora:
  """Which projections are adapted, and how."""

  rank: int  # R.
  alpha: float  # The adapter's part weighs alpha / R.
  targets: tuple[str, ...]  # Of PROJECTIONS.
  dropout: float  # Share of A's inputs left out, in the gradient alone.

  @property
  def scale(self) -> float:
    """Returns the weight of the adapter's part."""
    return self.alpha / self.rank


def target(base: Any, lora: Lora | None, dtype: str) -> Any:
  """Returns shape, dtype and layout of what is trained.

  A is [L, *inputs, R] and B is [L, R, *outputs]; an axis of theirs lies as the
  kernel's does, and R is kept whole.

  Args:
    base: shapes and layouts of the model's parameters, or the parameters.
    lora: None where all of them are trained, which `base` is then returned for.
    dtype: of what is trained.
  """
  if lora is None:
    return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, dtype, sharding=x.sharding), base
    )
  leaves = {}
  for name in lora.targets:
    module, inputs = PROJECTIONS[name]
    path = ('layers', module, name)
    kernel = base['layers'][module][name]['kernel']
    axes = tuple(range(kernel.ndim))
    for leaf, kept in (
      (_A, (*axes[: inputs + 1], None)),
      (_B, (0, None, *axes[inputs + 1 :])),
    ):
      leaves[*path, leaf] = jax.ShapeDtypeStruct(
        [lora.rank if axis is None else kernel.shape[axis] for axis in kept],
        dtype,
        sharding=_along(kernel.sharding, kernel.ndim, kept),
      )
  return unflatten_dict(leaves)


def _along(
  place: Sharding | None, rank: int, kept: tuple[int | None, ...]
) -> Sharding | None:
  """Returns the layout of an array made of some axes of another, and new ones.

  Args:
    place: of the other.
    rank: of the other.
    kept: for each axis, which of the other's it is; None is new.
  """
  if not isinstance(place, NamedSharding):
    return place
  spec = (*place.spec, *(None,) * (rank - len(place.spec)))
  parts = (None if axis is None else spec[axis] for axis in kept)
  return NamedSharding(place.mesh, PartitionSpec(*parts))


def init(key: jax.Array, like: Any) -> Any:
  """Returns the adapter to start from: A as PEFT draws it, B zero.

  A is uniform between -b and b, b = 1 / sqrt(size of the inputs).

  Args:
    key: a random key; the draws do not depend on the mesh.
    like: of `target`.
  """

  def make(key):
    leaves = {}
    for i, (path, leaf) in enumerate(sorted(flatten_dict(like).items())):
      if path[-1] == _B:
        leaves[path] = jnp.zeros(leaf.shape, leaf.dtype)
        continue
      bound = math.prod(leaf.shape[1:-1]) ** -0.5
      own = jax.random.fold_in(key, i)
      draws = jax.random.uniform(own, leaf.shape, minval=-bound, maxval=bound)
      leaves[path] = draws.astype(leaf.dtype)
    return unflatten_dict(leaves)

  places = jax.tree.map(lambda x: x.sharding, like)
  return jax.jit(make, out_shardings=places)(key)


def bind(base: Any, params: Any, lora: Lora | None) -> Any:
  """Returns the parameters of the policy, for the model to run with.

  Args:
    base: of the frozen model; its arrays are used, not copied.
    params: what is trained: the adapter, or all of the policy.
    lora: None where all is trained, and `params` are returned as they are.
  """
  if lora is None:
    return params
  scaled = {
    path: x * lora.scale if path[-1] == _B else x
    for path, x in flatten_dict(params).items()
  }
  return unflatten_dict({**flatten_dict(base), **scaled})


def merge(base: Any, params: Any, lora: Lora, dtype: Any) -> Any:
  """Returns parameters without an adapter that compute what a policy does.

  The sum is made in float32, then rounded, as the other parameters are. In
  bfloat16 that loses most of a small adapter, so this is for export; what
  samples is bound, for it has to be what the update scores.

  Args:
    base: of the frozen model.
    params: the adapter.
    lora: of the adapter.
    dtype: of what is returned: one for all of it, or a tree of them.
  """
  dtypes = flatten_dict(jax.tree.broadcast(dtype, base))

  def make(base, params):
    flat, changes = flatten_dict(base), flatten_dict(params)
    for name in lora.targets:
      path = ('layers', PROJECTIONS[name][0], name)
      a, b = (changes[*path, leaf].astype(jnp.float32) for leaf in (_A, _B))
      change = jax.vmap(lambda a, b: jnp.tensordot(a, b, axes=1))(a, b)
      kernel = flat[*path, 'kernel'].astype(jnp.float32)
      flat[*path, 'kernel'] = kernel + lora.scale * change
    return unflatten_dict({k: x.astype(dtypes[k]) for k, x in flat.items()})

  places = jax.tree.map(lambda x: x.sharding, base)
  return jax.jit(make, out_shardings=places)(base, params)
