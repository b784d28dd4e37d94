"""How do the parameters of the layers lie: stacked, apart, in blocks, turned?

They are trained and kept stacked, [L, ...] each. A program that runs layers one
by one takes them apart once, and on a CPU lays their kernels out anew for its
steps of few rows. Such a step costs what reading the weights does, and a product
reads its kernel in tiles of some outputs, from the first input to the last: a
tile of [inputs, outputs] lies in as many places as there are inputs, one of
[blocks, inputs, BLOCK] in one. Turned, a kernel is [outputs, inputs] and the
left factor, of which each output's inputs lie in one place
(docs/performance.md, "Kernels in blocks, and turned").

Letters: L layers, I inputs, O outputs, C = O / BLOCK.
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


# --------------------------------------------------------- for steps of few rows


def limits(cores: int) -> dict[str, int]:
  """Returns `few` and `some` of Execution, as they are fastest on a CPU.

  Turned kernels are the fastest form up to 128 rows, or as fast as another, but
  for one row and two: there it is blocks, on up to two cores, as one core alone
  reads them. More cores were not measured (docs/performance.md, "Kernels in
  blocks, and turned").

  Args:
    cores: of the processor, that the program may use.
  """
  return {'few': 2 if cores <= 2 else 0, 'some': 128}


def form_of(execution: Execution, rows: int) -> str:
  """Returns how a step of so many rows reads kernels.

  Returns:
    'blocks' or 'turned', as `laid_out` makes them, or 'kernel': as they lie.
  """
  if rows <= execution.few:
    return 'blocks'
  return 'turned' if rows <= execution.some else 'kernel'


def forms(execution: Execution) -> set[str]:
  """Returns the forms that steps read, of whatever number of rows."""
  most = max(execution.few, execution.some)
  return {form_of(execution, rows) for rows in range(1, most + 2)}


def laid_out(execution: Execution, params: dict, form: str) -> dict:
  """Returns parameters whose kernels lie in blocks, or turned.

  They are named as the form, in their places. What is not as wide as products,
  or has no whole number of blocks, stays, as do layers that are stacked. Where
  other passes read the kernels as they lie, both are in memory.

  Args:
    execution: says whether layers run one by one.
    params: as `by_layer` gives them.
    form: as `form_of` gives it.
  """
  layers = params.get('layers')
  if form == 'kernel' or not isinstance(layers, tuple):
    return params

  def lay_out(layer):
    layer = {module: dict(parts) for module, parts in layer.items()}
    for name, (module, inputs) in PROJECTIONS.items():
      layer[module][name] = _laid_out(
        execution, layer[module][name], inputs, form
      )
    return layer

  return {**params, 'layers': tuple(map(lay_out, layers))}


def _laid_out(
  execution: Execution, projection: dict, inputs: int, form: str
) -> dict:
  """Returns the arrays of a projection with its kernel in another form."""
  kernel = projection['kernel']
  outputs = math.prod(kernel.shape[inputs:])
  is_cut = form == 'blocks'
  if kernel.dtype != jnp.dtype(execution.dtype) or (is_cut and outputs % BLOCK):
    return projection
  rest = {name: x for name, x in projection.items() if name != 'kernel'}
  if not is_cut:
    return {**rest, 'turned': kernel.reshape(-1, outputs).T}
  apart = kernel.reshape(-1, outputs // BLOCK, BLOCK)
  return {**rest, 'blocks': jnp.moveaxis(apart, 1, 0)}


def product(x: jax.Array, kernel: jax.Array, dtype: jnp.dtype) -> jax.Array:
  """Returns [..., O], the product of x [..., I] with a kernel in such a form.

  Args:
    x: the input.
    kernel: in blocks, [C, I, BLOCK], or turned, [O, I], of its type.
    dtype: of the result.
  """
  rows = x.reshape(-1, x.shape[-1])
  if kernel.ndim == 2:
    # Barriers keep what lies between two products turned. Else XLA turns kernels
    # back, and number by number what comes in, with all that made it.
    columns = jax.lax.optimization_barrier(rows.T)
    out = jnp.matmul(kernel, columns, preferred_element_type=dtype)
    out = jax.lax.optimization_barrier(out).T
  else:
    each = jnp.broadcast_to(rows, (len(kernel), *rows.shape))
    out = jnp.matmul(each, kernel, preferred_element_type=dtype)
    out = jnp.moveaxis(out, 0, 1)
  return out.reshape(*x.shape[:-1], -1)
