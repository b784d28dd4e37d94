"""Parameters to a folder that other libraries load, shard by shard.

One layer is cut from a stacked parameter, gathered, and appended to its file,
so that the host never holds more than a few of them. `weights` goes the other
way.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.traverse_util
import jax
import numpy as np
from jax.sharding import Sharding

from score_jax import files, sharding
from score_jax.models import families, names, tensor_files, weights
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
  with weights.bar(f'exporting {folder.name}', total, progress) as bar:
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
  aims = flax.traverse_util.flatten_dict(weights.target(model))
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
  shape = weights.stored_shape(tensor, param.shape)
  size = math.prod(shape) * param.dtype.itemsize
  code = tensor_files.CODES[param.dtype]
  return [
    Outgoing(
      name, size, code, shape, functools.partial(_fetch, tensor, param, i)
    )
    for i, name in enumerate(weights.stored_names(tensor, param))
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
