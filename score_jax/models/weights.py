"""A checkpoint folder to parameters, shard by shard.

It goes one tensor of one layer at a time, so that the host never holds more
than a few of them: a tensor's slices go to their devices, and are written into
the stacked parameter there. `served` goes the other way.
"""

from __future__ import annotations

import functools
import math
import os
import pathlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from jax.sharding import Sharding, SingleDeviceSharding

from score_jax import sharding
from score_jax.config import ConfigError
from score_jax.models import families, names, tensor_files
from score_jax.models.tensor_files import few, refuse, Stored
from score_jax.models.transformer import Transformer


def read_config(folder: str | os.PathLike) -> dict[str, Any]:
  """Returns the `config.json` of a checkpoint folder as on the hub.

  Warns of keys of which nothing is known.

  Raises:
    ConfigError: there is no such folder or file, or it describes a model that
      is not covered; one line with the remedy.
  """
  hf = _covered_config(pathlib.Path(folder))
  if unknown := families.unknown_keys(hf):
    warnings.warn(
      f'{folder}/config.json: nothing is known of {few(unknown)}; check that '
      'the model computes the same without.',
      stacklevel=2,
    )
  return hf


def check(folder: str | os.PathLike) -> None:
  """Refuses a folder that is no whole checkpoint; reads headers alone.

  Raises:
    ConfigError: as `read_config`, or as `load` of files that are missing, cut
      short or something else.
  """
  _covered_config(pathlib.Path(folder))
  tensor_files.stored_tensors(pathlib.Path(folder))


def _covered_config(folder: pathlib.Path) -> dict[str, Any]:
  if not folder.is_dir():
    refuse(
      f'{folder} is not a folder; download the checkpoint (hf download NAME '
      '--local-dir DIR) and give its folder.'
    )
  hf = tensor_files.read_json(folder / 'config.json')
  try:
    families.model_config(hf)
  except ConfigError as error:
    raise ConfigError(f'{folder}/{error}') from None
  return hf


def target(model: Transformer) -> Any:
  """Returns shape, dtype and layout of each parameter of a model.

  The layout is on the mesh of `model.execution`, or on one device.
  """
  boxed = jax.eval_shape(
    model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32)
  )['params']
  mesh, shapes = model.execution.mesh, nn.meta.unbox(boxed)
  if mesh is None:
    alone = SingleDeviceSharding(jax.local_devices()[0])
    places = jax.tree.map(lambda _: alone, shapes)
  else:
    places = sharding.of_params(mesh, boxed)
  return jax.tree.map(
    lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
    shapes,
    places,
  )


def stored_dtypes(folder: str | os.PathLike) -> Any:
  """Returns the dtype that a checkpoint folder stores each parameter in.

  Of a stacked one it is that of the first layer's.
  """
  folder = pathlib.Path(folder)
  hf = _covered_config(folder)
  stored = tensor_files.stored_tensors(folder)
  tensors = names.tensors(families.model_config(hf), names.layout(stored))
  first = {tensor.path: tensor.name.format(0) for tensor in tensors}
  _check_missing(folder, set(first.values()), stored)
  found = {}
  for path, name in first.items():
    _check_dtype(name, stored[name])
    found[path] = tensor_files.DTYPES[stored[name].dtype]
  return flax.traverse_util.unflatten_dict(found)


def load(
  folder: str | os.PathLike, target: Any, progress: bool = False
) -> dict[str, Any]:
  """Returns the parameters of a checkpoint, laid out on their devices.

  Every process reads the slices of its own devices and no other. The host
  holds one tensor of one layer at a time.

  Args:
    folder: with `config.json` and safetensors in one file or several.
    target: shape, dtype and layout of each parameter, from `target`.
    progress: whether a bar on stderr counts the bytes.

  Raises:
    ConfigError: a file or a tensor is missing, surplus, misshapen, cut short
      or no weights at all; one line that names it and the remedy.
  """
  folder = pathlib.Path(folder)
  hf = _covered_config(folder)
  config = families.model_config(hf)
  stored = tensor_files.stored_tensors(folder)
  tensors = names.tensors(config, names.layout(stored))
  aims = flax.traverse_util.flatten_dict(target)
  wanted = {t.path: stored_names(t, aims[t.path]) for t in tensors}
  _check_names(
    folder, hf, {n for each in wanted.values() for n in each}, stored
  )
  for tensor in tensors:
    shape = stored_shape(tensor, aims[tensor.path].shape)
    for name in wanted[tensor.path]:
      _check_tensor(name, stored[name], shape)
  if config.tied_embeddings:
    _check_tied(folder, stored)
  params = {}
  total = sum(stored[n].size for each in wanted.values() for n in each)
  with bar(f'loading {folder.name}', total, progress) as shown:
    for tensor in tensors:
      sources = [stored[name] for name in wanted[tensor.path]]
      params[tensor.path] = _load_one(tensor, sources, aims[tensor.path], shown)
  return flax.traverse_util.unflatten_dict(params)


def bar(what: str, size: int, progress: bool) -> tqdm.tqdm:
  """Returns a bar that counts bytes, shown or not."""
  return tqdm.tqdm(
    desc=what,
    total=size,
    unit='B',
    unit_scale=True,
    disable=not progress,
  )


def stored_names(tensor: names.Tensor, array: Any) -> list[str]:
  """Returns the names of the tensors that one parameter is made of."""
  if not tensor.is_stacked:
    return [tensor.name]
  return [tensor.name.format(i) for i in range(array.shape[0])]


def _split(tensor: names.Tensor, shape: Sequence[int]) -> list[list[int]]:
  """Returns for each axis of a stored tensor the sizes of ours within it."""
  own = shape[1:] if tensor.is_stacked else shape
  return [[own[axis] for axis in group] for group in tensor.axes]


def stored_shape(tensor: names.Tensor, shape: Sequence[int]) -> tuple[int, ...]:
  return tuple(math.prod(sizes) for sizes in _split(tensor, shape))


def _check_names(
  folder: pathlib.Path,
  hf: Mapping[str, Any],
  wanted: set[str],
  stored: Mapping[str, Stored],
) -> None:
  """Refuses a checkpoint whose tensors are not those that config.json says."""
  _check_missing(folder, wanted, stored)
  beside = {name for name in stored if names.is_beside(hf, name)}
  if surplus := stored.keys() - wanted - beside - {names.layout(stored).head}:
    refuse(
      f'{folder} has the tensors {few(surplus)}, which a model of its '
      'config.json has not; correct config.json, or use another checkpoint.'
    )


def _check_missing(
  folder: pathlib.Path, wanted: set[str], stored: Mapping[str, Stored]
) -> None:
  if missing := wanted - stored.keys():
    refuse(
      f'{folder} lacks the tensors {few(missing)}; download it again, or '
      'correct its config.json.'
    )


def _check_tensor(name: str, found: Stored, shape: tuple[int, ...]) -> None:
  if found.shape != shape:
    refuse(
      f'{found.file}: {name} has the shape {list(found.shape)}, where '
      f'config.json makes it {list(shape)}; the two are not of one model.'
    )
  _check_dtype(name, found)


def _check_dtype(name: str, found: Stored) -> None:
  if found.dtype not in tensor_files.DTYPES:
    refuse(
      f'{found.file}: {name} has the dtype {found.dtype}; use a checkpoint in '
      f'one of {", ".join(tensor_files.DTYPES)}, not a quantized one.'
    )


def _check_tied(folder: pathlib.Path, stored: Mapping[str, Stored]) -> None:
  """Refuses an output head that differs from the embedding it is tied to."""
  layout = names.layout(stored)
  if layout.head not in stored:
    return
  table = stored[f'{layout.body}embed_tokens.weight']
  head = stored[layout.head]
  if table.size == head.size and table.dtype == head.dtype:
    pairs = zip(table.chunks(), head.chunks(), strict=True)
    if all(np.array_equal(one, other) for one, other in pairs):
      return
  refuse(
    f'{folder}: {layout.head} differs from the embedding, though config.json '
    'ties them; set tie_word_embeddings to false there, or remove the head.'
  )


def _load_one(
  tensor: names.Tensor,
  sources: Sequence[Stored],
  aim: jax.ShapeDtypeStruct,
  bar: tqdm.tqdm,
) -> jax.Array:
  """Returns one parameter, its layers written one by one into their stack."""
  if not tensor.is_stacked:
    whole = _place(tensor, sources[0], aim, aim.shape)
    bar.update(sources[0].size)
    return whole
  zeros = functools.partial(jnp.zeros, aim.shape, aim.dtype)
  stack = jax.jit(zeros, out_shardings=aim.sharding)()
  write = _writer(aim.sharding)
  for i, source in enumerate(sources):
    layer = _place(tensor, source, aim, (1, *aim.shape[1:]))
    # Else the host runs ahead and holds every layer that is on its way.
    stack = jax.block_until_ready(write(stack, layer, i))
    bar.update(source.size)
  return stack


@functools.cache
def _writer(place: Sharding) -> Callable[..., jax.Array]:
  """Returns the jitted function that writes layer i into a stack in place."""

  def write(stack, layer, i):
    return jax.lax.dynamic_update_slice_in_dim(stack, layer, i, 0)

  return jax.jit(write, donate_argnums=0, out_shardings=place)


def _place(
  tensor: names.Tensor,
  source: Stored,
  aim: jax.ShapeDtypeStruct,
  shape: tuple[int, ...],
) -> jax.Array:
  """Returns one stored tensor, turned into our axes and on its devices."""
  order = [axis for group in tensor.axes for axis in group]
  split = [size for sizes in _split(tensor, shape) for size in sizes]
  turned = source.map().reshape(split).transpose(np.argsort(order))
  view = turned.reshape(shape)
  slices = {}  # Devices that hold the same slice share one copy on the host.

  def read(index):
    key = str(index)
    if key not in slices:
      slices[key] = np.array(view[index], aim.dtype)
    return slices[key]

  return jax.make_array_from_callback(shape, aim.sharding, read)
