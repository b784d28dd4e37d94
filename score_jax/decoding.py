"""How do trained weights lie while they sample? Copied once per rollout.

The update wants parameters as precise as they are trained, split over fsdp.
A token wants them as narrow as can be, and not to gather them anew. So a
rollout begins with a copy for it: narrower numbers, laid out by other rules,
which is dropped when the rollout is done.

    layout    parameters                      what moves for each token
    train     split over fsdp, as trained     all of them, gathered
    gathered  whole over fsdp                 nothing over fsdp
    tensor    split along what products give  rows, to them and back
              or sum up, over fsdp too
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import NamedSharding

from score_jax import sharding
from score_jax.models import narrow
from score_jax.models.stack import PROJECTIONS
from score_jax.models.transformer import Transformer

LAYOUTS = {
  'train': sharding.AXES,
  'gathered': sharding.GATHERED,
  'tensor': sharding.SPLIT,
}
SAME = 'same'  # As products read it: no number changes.
_TABLES = (('embedding',), ('head',))
_MATRICES = ('kernel', 'lora_a', 'lora_b')


@dataclasses.dataclass(frozen=True)
class Decoding:
  """How the model is kept while it samples."""

  weights: str = SAME  # SAME, 'bfloat16' or 'int8': its matrices.
  cache: str = SAME  # The same of its keys and values.
  layout: str = 'train'  # Of LAYOUTS.

  @property
  def copies(self) -> bool:
    """Returns whether it samples from a copy of the parameters."""
    return self.weights != SAME or self.layout != 'train'


def decoder(model: Transformer, decoding: Decoding) -> Transformer:
  """Returns the model as it runs on `make_prepare`'s parameters.

  Args:
    model: as it is trained.
    decoding: how it is kept.
  """
  execution = dataclasses.replace(
    model.execution,
    cache_dtype='' if decoding.cache == SAME else decoding.cache,
    rows_travel=decoding.layout == 'tensor',
  )
  return model.clone(execution=execution)


@functools.cache  # So that every rollout calls one compiled program.
def make_prepare(
  model: Transformer, decoding: Decoding
) -> Callable[[Any], Any]:
  """Returns a function from parameters, as samplers take them, to the copy.

  Parameters may have an adapter bound to them: what it adapts is rounded, and
  the adapter, whose changes would be lost in that, stays beside it.

  Args:
    model: as it is trained, on a mesh or not.
    decoding: how it is kept; with nothing to copy, parameters are returned as
      they are.
  """
  if not decoding.copies:
    return lambda params: params
  return jax.jit(functools.partial(_prepare, model, decoding))


def like(model: Transformer, decoding: Decoding, params: Any) -> Any:
  """Returns shapes, dtypes and layouts of what `make_prepare`'s gives.

  Args:
    model: on a mesh, whose devices need not be there.
    decoding: how it is kept.
    params: shapes, dtypes and layouts of what is copied.
  """
  if not decoding.copies:
    return params
  mesh, table = model.execution.mesh, LAYOUTS[decoding.layout]
  shapes = jax.eval_shape(functools.partial(_prepare, model, decoding), params)
  names = _names(model)

  def place(path, x):
    spec = sharding.partition(mesh, _axes(names, path), x.shape, table)
    place = NamedSharding(mesh, spec)
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)

  flat = flatten_dict(shapes)
  return unflatten_dict({path: place(path, x) for path, x in flat.items()})


def _prepare(model: Transformer, decoding: Decoding, params: Any) -> Any:
  mesh, names = model.execution.mesh, _names(model)
  dtype, table = model.execution.dtype, LAYOUTS[decoding.layout]

  def lay(path, x, table):
    # One layer's array lacks the first of its axes.
    axes = _axes(names, path)[-x.ndim :]
    return _laid_out(mesh, axes, x, table)

  def copied(above, tree):
    made = {}
    for path, x in flatten_dict(tree).items():
      for own, leaf in _narrowed(decoding, dtype, (*above, *path), x):
        # Narrowed where it lies, so that what travels is narrow.
        leaf = lay(own, lay(own, leaf, sharding.AXES), table)
        made[own[len(above) :]] = leaf
    return unflatten_dict(made)

  rest = {name: x for name, x in params.items() if name != 'layers'}
  # One layer after the other: gathered all at once, they would be held twice.
  layers = jax.lax.map(lambda one: copied(('layers',), one), params['layers'])
  layers = jax.tree.map_with_path(
    lambda path, x: lay(('layers', *(key.key for key in path)), x, table),
    layers,
  )
  return copied((), rest) | {'layers': layers}


def _narrowed(decoding, dtype, path, x):
  """Yields the leaves, each with its path, that one parameter becomes."""
  *module, name = path
  if path not in _TABLES and name not in _MATRICES:
    yield path, x
    return
  if decoding.weights == 'int8' and not name.startswith('lora'):
    inputs = (1,)  # Of a table: the width, which logits sum over.
    if path not in _TABLES:
      inputs = tuple(range(PROJECTIONS[module[-1]][1]))
    x, scale = narrow.quantize(x, inputs)
    yield (*module, f'{name}_scale'), scale
  elif decoding.weights == 'bfloat16':
    x = _at_most(x, 'bfloat16')
  else:
    x = _at_most(x, dtype)  # As products read it.
  yield path, x


def _at_most(x: jax.Array, dtype: str) -> jax.Array:
  """Returns x in a type, unless its own is narrower."""
  wider = x.dtype.itemsize > jnp.dtype(dtype).itemsize
  return x.astype(dtype) if wider else x


def _laid_out(mesh, axes, x, table) -> jax.Array:
  if mesh is None:
    return x
  spec = sharding.partition(mesh, axes, x.shape, table)
  return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))


@functools.lru_cache
def _names(model: Transformer) -> dict[tuple[str, ...], tuple]:
  """Returns the axis names of each parameter of a model, by its path."""
  # Names are the same with layers scanned, which are traced as one, and with
  # plain attention, which asks for no platform.
  execution = dataclasses.replace(
    model.execution, unroll=False, attention='plain'
  )
  init = model.clone(execution=execution).init
  tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
  boxed = jax.eval_shape(init, jax.random.key(0), tokens)['params']
  return {path: box.names for path, box in flatten_dict(boxed).items()}


def _axes(names, path) -> tuple[str | None, ...]:
  """Returns the axis names of a parameter, an adapter's part, or a scale."""
  if path in names:
    return names[path]
  *module, name = path
  if (table := (name.removesuffix('_scale'),)) in _TABLES:
    return names[table][:1]
  kernel = names[*module, 'kernel']
  outputs = 1 + PROJECTIONS[module[-1]][1]
  return {
    'kernel_scale': ('layers', *kernel[outputs:]),
    'lora_a': (*kernel[:outputs], None),
    'lora_b': ('layers', None, *kernel[outputs:]),
  }[name]
