"""A checkpoint folder to parameters and back, shard by shard.

Both ways go one tensor of one layer at a time, so that the host never holds
more than a few of them: on import a tensor's slices go to their devices and
are written into the stacked parameter there; on export one layer is cut from
it, gathered, and appended to its file.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import pathlib
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from jax.sharding import Sharding, SingleDeviceSharding

from score_jax import files, sharding
from score_jax.config import ConfigError
from score_jax.models import families, names, tensor_files
from score_jax.models.architecture import Execution, ModelConfig
from score_jax.models.lora import Lora
from score_jax.models.tensor_files import few, Outgoing, refuse, Stored
from score_jax.models.transformer import Transformer

FILE_BYTES = 5_000_000_000  # The most that a file of weights holds.
_COPIED = (  # What a served folder holds beside its weights.
  'generation_config.json',
  'tokenizer.json',
  'tokenizer.model',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'vocab.json',
  'merges.txt',
  'chat_template.jinja',
  'chat_template.json',
  'preprocessor_config.json',
  'processor_config.json',
)


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
  wanted = {t.path: _each(t, aims[t.path]) for t in tensors}
  _check_names(
    folder, hf, {n for each in wanted.values() for n in each}, stored
  )
  for tensor in tensors:
    shape = _stored_shape(tensor, aims[tensor.path].shape)
    for name in wanted[tensor.path]:
      _check_tensor(name, stored[name], shape)
  if config.tied_embeddings:
    _check_tied(folder, stored)
  params = {}
  total = sum(stored[n].size for each in wanted.values() for n in each)
  with _bar(f'loading {folder.name}', total, progress) as bar:
    for tensor in tensors:
      sources = [stored[name] for name in wanted[tensor.path]]
      params[tensor.path] = _load_one(tensor, sources, aims[tensor.path], bar)
  return flax.traverse_util.unflatten_dict(params)


def _bar(what: str, size: int, progress: bool) -> tqdm.tqdm:
  return tqdm.tqdm(
    desc=what,
    total=size,
    unit='B',
    unit_scale=True,
    disable=not progress,
  )


def _each(tensor: names.Tensor, array: Any) -> list[str]:
  """Returns the names of the tensors that one parameter is made of."""
  if not tensor.is_stacked:
    return [tensor.name]
  return [tensor.name.format(i) for i in range(array.shape[0])]


def _split(tensor: names.Tensor, shape: Sequence[int]) -> list[list[int]]:
  """Returns for each axis of a stored tensor the sizes of ours within it."""
  own = shape[1:] if tensor.is_stacked else shape
  return [[own[axis] for axis in group] for group in tensor.axes]


def _stored_shape(
  tensor: names.Tensor, shape: Sequence[int]
) -> tuple[int, ...]:
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


def save(
  folder: str | os.PathLike,
  params: Mapping[str, Any],
  hf: Mapping[str, Any],
  source: str | os.PathLike | None = None,
  file_bytes: int = FILE_BYTES,
  progress: bool = False,
  chat_template: str = '',
) -> None:
  """Writes a checkpoint folder that transformers and vLLM load.

  The weights keep the dtypes of the parameters. Every process has to call it;
  the first one writes. The folder appears whole or not at all.

  Args:
    folder: where; it may not hold anything yet.
    params: of a model of `hf`.
    hf: the `config.json` to write; its dtype becomes that of the embedding.
    source: the folder the model was loaded from, whose tokenizer and
      generation settings are copied, and whose tensors beside the decoder
      (the vision part of a Gemma 3) are taken over.
    file_bytes: the most that one file of weights holds, unless a single
      tensor is larger.
    progress: whether a bar on stderr counts the bytes.
    chat_template: to put in the place of the source's; '' = that one.

  Raises:
    ConfigError: the folder is in use, or the parameters do not fit `hf`.
  """
  folder = pathlib.Path(folder).absolute()
  refuse_in_use(folder)
  stored = {}
  if source is not None:
    stored = tensor_files.stored_tensors(pathlib.Path(source))
  outgoing = _outgoing(params, hf, stored)
  total = sum(each.size for each in outgoing)
  groups = tensor_files.groups(outgoing, file_bytes)
  if jax.process_index() > 0:
    _take_part(groups)
    return
  temporary = _temporary(folder)
  with _bar(f'exporting {folder.name}', total, progress) as bar:
    tensor_files.write(temporary, groups, bar.update)
  files.write_json(
    temporary / 'config.json', _with_dtype(hf, params['embedding'].dtype)
  )
  if source is not None:
    _copy(pathlib.Path(source), temporary)
  if chat_template:
    _write_template(temporary, chat_template)
  os.replace(temporary, folder)


def save_adapter(
  folder: str | os.PathLike,
  adapter: Mapping[str, Any],
  lora: Lora,
  hf: Mapping[str, Any],
  source: str | os.PathLike,
  chat_template: str = '',
) -> None:
  """Writes an adapter folder, which PEFT and vLLM load beside the base model.

  Every process has to call it; the first one writes. The folder appears whole
  or not at all.

  Args:
    folder: where; it may not hold anything yet.
    adapter: A and B of each projection.
    lora: of the adapter.
    hf: the base model's `config.json`.
    source: the base model's folder, by which the adapter names it.
    chat_template: to serve it with; '' = the base model's.

  Raises:
    ConfigError: the folder is in use.
  """
  folder = pathlib.Path(folder).absolute()
  refuse_in_use(folder)
  config = families.model_config(hf)
  flat = flax.traverse_util.flatten_dict(adapter)
  outgoing = [
    each
    for tensor in names.adapter_tensors(config, hf)
    if tensor.path in flat
    for each in _of_param(tensor, flat[tensor.path])
  ]
  if jax.process_index() > 0:
    _take_part([outgoing])
    return
  temporary = _temporary(folder)
  tensor_files.write_file(
    temporary / tensor_files.ADAPTER, outgoing, lambda _: None
  )
  described = {
    'peft_type': 'LORA',
    'task_type': 'CAUSAL_LM',
    'base_model_name_or_path': str(source),
    'inference_mode': True,
    'r': lora.rank,
    'lora_alpha': lora.alpha,
    'lora_dropout': lora.dropout,
    'target_modules': names.adapter_modules(config, hf, lora.targets),
    'bias': 'none',
    'fan_in_fan_out': False,
    'modules_to_save': None,
  }
  files.write_json(temporary / 'adapter_config.json', described)
  if chat_template:
    _write_template(temporary, chat_template)
  os.replace(temporary, folder)


def refuse_in_use(folder: pathlib.Path) -> None:
  """Refuses a folder to export to that holds something, or is a file."""
  if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
    refuse(f'{folder} is in use; export to a folder that is not there yet.')


def _temporary(folder: pathlib.Path) -> pathlib.Path:
  """Returns a new folder beside another, to take its name when it is whole."""
  temporary = folder.with_name(folder.name + '.tmp')
  shutil.rmtree(temporary, ignore_errors=True)
  temporary.mkdir(parents=True)
  return temporary


def _take_part(groups: Sequence[Sequence[Outgoing]]) -> None:
  """Joins in gathering every tensor, in the order of the process that writes."""
  for group in groups:
    for each in group:
      for _ in each.chunks():
        pass


def _with_dtype(hf: Mapping[str, Any], dtype: np.dtype) -> dict[str, Any]:
  """Returns a config.json that says in which dtype its weights are."""
  key = 'dtype' if 'dtype' in hf else 'torch_dtype'
  text = hf.get('text_config', {})
  inner = {'text_config': {**text, key: dtype.name}} if key in text else {}
  return {**hf, key: dtype.name, **inner}


def _copy(source: pathlib.Path, folder: pathlib.Path) -> None:
  for name in _COPIED:
    if (source / name).is_file():
      shutil.copyfile(source / name, folder / name)


def _write_template(folder: pathlib.Path, chat_template: str) -> None:
  """Writes a chat template, and removes others that some would read instead."""
  (folder / 'chat_template.jinja').write_text(chat_template)
  (folder / 'chat_template.json').unlink(missing_ok=True)
  settings = folder / 'tokenizer_config.json'
  if settings.exists():
    known = files.read_json(settings)
    known.pop('chat_template', None)
    files.write_json(settings, known)


def _outgoing(
  params: Mapping[str, Any],
  hf: Mapping[str, Any],
  stored: Mapping[str, Stored],
) -> list[Outgoing]:
  """Returns all tensors of an export, under the names the source gave them."""
  if hf['model_type'] == 'gemma3' and not stored:
    refuse(
      'config.json: model_type=gemma3 has a vision part, which is copied from '
      'the source folder; give that, or export its text_config alone.'
    )
  config = families.model_config(hf)
  flat = flax.traverse_util.flatten_dict(params)
  _check_params(config, flat)
  layout = names.layout(stored)
  tensors = [*names.tensors(config, layout)]
  if config.tied_embeddings and layout.head in stored:
    tensors.append(dataclasses.replace(tensors[0], name=layout.head))
  beside = [
    Outgoing(name, each.size, each.dtype, each.shape, each.chunks)
    for name, each in stored.items()
    if names.is_beside(hf, name)
  ]
  return [o for t in tensors for o in _of_param(t, flat[t.path])] + beside


def _check_params(
  config: ModelConfig, flat: Mapping[tuple[str, ...], jax.Array]
) -> None:
  """Refuses parameters that are not those of the architecture."""
  model = Transformer(config, Execution())
  aims = flax.traverse_util.flatten_dict(target(model))
  if odd := flat.keys() ^ aims.keys():
    odd = few('/'.join(path) for path in odd)
    refuse(f'config.json does not fit the parameters: {odd} are in one only.')
  for path, aim in aims.items():
    if flat[path].shape != aim.shape:
      refuse(
        f'{"/".join(path)} has the shape {list(flat[path].shape)}, where '
        f'config.json makes it {list(aim.shape)}; export with the config.json '
        'that the model was made from.'
      )


def _of_param(tensor: names.Tensor, param: jax.Array) -> list[Outgoing]:
  """Returns the tensors that one of our parameters is written as."""
  shape = _stored_shape(tensor, param.shape)
  size = math.prod(shape) * param.dtype.itemsize
  code = tensor_files.CODES[param.dtype]
  return [
    Outgoing(
      name, size, code, shape, functools.partial(_fetch, tensor, param, i)
    )
    for i, name in enumerate(_each(tensor, param))
  ]


def _fetch(
  tensor: names.Tensor, param: jax.Array, i: int
) -> Iterator[np.ndarray]:
  """Yields the bytes of layer i, or of all that is not stacked."""
  place = param.sharding
  if not param.is_fully_addressable:  # The process that writes lacks some.
    place = sharding.replicated(place.mesh)
  count = 1 if tensor.is_stacked else param.shape[0]
  piece = _reader(place, count)(param, i)
  if param.is_fully_addressable:
    whole = np.asarray(piece)
  else:
    whole = np.asarray(piece.addressable_data(0))
  order = [axis for group in tensor.axes for axis in group]
  if tensor.is_stacked:
    whole = whole[0]
  yield np.ascontiguousarray(whole.transpose(order)).view(np.uint8)


@functools.cache
def _reader(place: Sharding, count: int) -> Callable[..., jax.Array]:
  """Returns the jitted function that copies `count` rows from the i-th on."""

  def read(param, i):
    return jax.lax.dynamic_slice_in_dim(param, i, count, 0)

  return jax.jit(read, out_shardings=place)
