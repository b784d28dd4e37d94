"""Which parameters are these? A hash of their bits, whatever their mesh."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def params_hash(params: Any) -> str:
  """Returns 32 hex digits that identify parameters, whatever their mesh.

  They depend on the name, shape, dtype and bits of every leaf. The bits are
  summed on the devices, a leaf at a time: no parameter is copied to the host,
  and none has to be addressable as a whole.
  """
  digest = hashlib.blake2b(digest_size=16)
  for name, leaf in named(params).items():
    # Awaited leaf by leaf: many collectives in flight can stall CPU clusters.
    sums = np.asarray(_checksums(leaf)).tolist()
    row = [name, str(leaf.dtype), list(leaf.shape), sums]
    digest.update(json.dumps(row).encode())
  return digest.hexdigest()


@jax.jit
def _checksums(leaf: jax.Array) -> jax.Array:
  """Returns uint32[2]: sums over a hash of each element's bits and position.

  Integer sums wrap around and have no order, so they are the same on every
  mesh. The bits are mixed, not weighted: weighted sums would not see the signs
  of two elements change, since 2^31 times any odd weight is 2^31.
  """
  unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}
  if leaf.dtype == jnp.bool_:
    leaf = leaf.astype(jnp.uint8)
  bits = jax.lax.bitcast_convert_type(leaf, unsigned[leaf.dtype.itemsize])
  position = jnp.zeros(bits.shape, jnp.uint32)
  for axis, size in enumerate(bits.shape):
    place = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
    position = position * jnp.uint32(size) + place
  bits = bits.astype(jnp.uint32)
  salts = (jnp.uint32(0x9E3779B9), jnp.uint32(0x7F4A7C15))
  return jnp.stack(
    [
      jnp.sum(_mix(bits ^ _mix(position ^ salt)), dtype=jnp.uint32)
      for salt in salts
    ]
  )


def _mix(x: jax.Array) -> jax.Array:
  """Returns a bijection of uint32: the finalizer of MurmurHash3."""
  x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
  x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
  return x ^ (x >> 16)


def named(tree: Any) -> dict[str, Any]:
  """Returns {'params/layers/0/kernel': leaf}, one entry per leaf of a tree.

  Names survive what Orbax does to structures (tuples to lists, dataclasses to
  dicts), and they are what an error can tell.
  """
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in leaves
  }
