"""How do the parameters of the layers lie: stacked, apart, or in blocks?

They are trained and kept stacked, [L, ...] each. A program that runs layers one
by one takes them apart once, and on a CPU cuts them into blocks for its steps
of few rows. Such a step costs what reading the weights does, and a product
reads its kernel in tiles of some outputs, from the first input to the last: a
tile of [inputs, outputs] lies in as many places as there are inputs, one of
[blocks, inputs, BLOCK] in one (docs/performance.md, "In blocks").

Letters: L layers, R rows, I inputs, O outputs, C = O / BLOCK.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from score_jax.models.architecture import Execution

BLOCK = 64  # Outputs: the width that measures fastest on CPUs.
# Of each projection: the module that holds it, and its kernel's input axes.
PROJECTIONS = {
  'query': ('attention', 1),
  'key': ('attention', 1),
  'value': ('attention', 1),
  'output': ('attention', 2),
  'gate': ('mlp', 1),
  'up': ('mlp', 1),
  'down': ('mlp', 1),
}


def by_layer(execution: Execution, params: dict) -> dict:
  """Returns the parameters with each layer's apart, if layers run unrolled.

  For programs that make several passes: each would take them apart anew.
  """
  if not execution.unroll or 'layers' not in params:
    return params
  return {**params, 'layers': unstack(params['layers'])}


def unstack(layers: dict | tuple) -> tuple:
  """Returns the parameters of each layer, from stacked ones or as they are."""
  if isinstance(layers, tuple):
    return layers
  leaves, tree = jax.tree.flatten(layers)
  parts = [_parts(p) for p in leaves]
  return tuple(tree.unflatten(each) for each in zip(*parts, strict=True))


@jax.custom_vjp
def _parts(x: jax.Array) -> tuple[jax.Array, ...]:
  """Returns x[0], x[1], ...; their gradients are stacked.

  As jax derives it, each is put among zeros of the whole, and these are added.
  """
  return tuple(x[i] for i in range(x.shape[0]))


_parts.defvjp(lambda x: (_parts(x), None), lambda _, parts: (jnp.stack(parts),))


# ------------------------------------------------------------------- in blocks


def few(cores: int) -> int:
  """Returns up to how many rows blocks are faster than a kernel as it lies.

  Measured are 32 on one core and 8 on two, which the square goes through: all
  cores share the product with a kernel as it lies, and one of them alone reads
  the blocks (docs/performance.md, "In blocks").

  Args:
    cores: of the processor, that the program may use.
  """
  return 32 // cores**2


def in_blocks(execution: Execution, params: dict) -> dict:
  """Returns parameters whose kernels lie in blocks, 'blocks' in their places.

  What is not as wide as products, or has no whole number of blocks, stays, as
  do layers that are stacked. Where other passes read the kernels as they lie,
  both are in memory.

  Args:
    execution: says whether any step reads blocks.
    params: as `by_layer` gives them.
  """
  layers = params.get('layers')
  if not execution.few or not isinstance(layers, tuple):
    return params

  def cut(layer):
    layer = {module: dict(parts) for module, parts in layer.items()}
    for name, (module, inputs) in PROJECTIONS.items():
      layer[module][name] = _cut(execution, layer[module][name], inputs)
    return layer

  return {**params, 'layers': tuple(map(cut, layers))}


def _cut(execution: Execution, projection: dict, inputs: int) -> dict:
  """Returns the arrays of a projection with its kernel in blocks."""
  kernel = projection['kernel']
  outputs = math.prod(kernel.shape[inputs:])
  if kernel.dtype != jnp.dtype(execution.dtype) or outputs % BLOCK:
    return projection
  apart = kernel.reshape(-1, outputs // BLOCK, BLOCK)
  rest = {name: x for name, x in projection.items() if name != 'kernel'}
  return {**rest, 'blocks': jnp.moveaxis(apart, 1, 0)}


def product(x: jax.Array, blocks: jax.Array, dtype: jnp.dtype) -> jax.Array:
  """Returns [..., O], the product of x [..., I] with a kernel in blocks.

  Args:
    x: the input.
    blocks: [C, I, BLOCK] of its type.
    dtype: of the result.
  """
  rows = x.reshape(-1, x.shape[-1])
  each = jnp.broadcast_to(rows, (len(blocks), *rows.shape))
  out = jnp.matmul(each, blocks, preferred_element_type=dtype)
  return jnp.moveaxis(out, 0, 1).reshape(*x.shape[:-1], -1)
