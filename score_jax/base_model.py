"""Which model does a run start from, and can it read what is asked?"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from score_jax import config as config_lib
from score_jax import data, processes, programs, sharding, tokenizer
from score_jax.config import ConfigError
from score_jax.models import families, lora, transformer, weights


def model_folder(config: ConfigDict) -> str:
  """Returns the folder of the base model.

  Raises:
    ConfigError: if it is not there, or not given where a preset needs one.
  """
  hub = config.model.hub
  if hub and not config.model.path:
    raise ConfigError(
      f"model.path='' is the bundled model, and preset {config.preset} is for "
      f'{hub}; download it (hf download {hub} --local-dir DIR) and set '
      '--config.model.path=DIR.'
    )
  path = config.model.path or str(config_lib.BUNDLED)
  if not pathlib.Path(path).is_dir():
    bundled = '' if hub else ', or leave it out for the bundled model'
    raise ConfigError(
      f'model.path={path!r} is not a folder; set it to that of a checkpoint as '
      f'on the Hugging Face hub (hf download {hub or "NAME"} --local-dir DIR)'
      f'{bundled}.'
    )
  return path


def make_model(
  config: ConfigDict, folder: str, mesh: jax.sharding.Mesh
) -> transformer.Transformer:
  """Returns the decoder that a checkpoint folder describes.

  Raises:
    ConfigError: if model.attention cannot do this model's.
  """
  architecture = families.model_config(weights.read_config(folder))
  return programs.decoder(config, architecture, mesh)


def load(
  config: ConfigDict, folder: str, model: transformer.Transformer
) -> Any:
  """Returns the reference's parameters, on the devices of the model's mesh."""
  dtype = config.model.reference_dtype
  target = lora.target(weights.target(model), None, dtype)
  bar = config.log.progress and sys.stderr.isatty() and processes.is_first()
  return weights.load(folder, target, bar)


def layers_on_host(base: Any) -> Any:
  """Returns parameters whose layers lie in the memory of the devices' hosts.

  The embedding stays: it is read for every block of logits.
  """
  try:
    places = jax.tree.map(
      lambda x: sharding.on_host(x.sharding), base['layers']
    )
  except ValueError as error:
    raise ConfigError(
      f'model.reference_on_host=True cannot be had: {error} Set it to False.'
    ) from error
  return {**base, 'layers': jax.device_put(base['layers'], places)}


def check_length(
  config: ConfigDict, attempts: Sequence[int], between: Sequence[int]
) -> None:
  """Refuses rows that may grow past the positions that a model was made for.

  Args:
    config: settings.
    attempts: the most tokens of each.
    between: tokens of each instruction between them.
  """
  folder = model_folder(config)
  most = families.positions(weights.read_config(folder))
  prompt = config.sampling.max_prompt_tokens
  # And what closes an attempt that was cut off.
  whole = prompt + sum(attempts) + sum(between) + len(between)
  if whole > most:
    raise ConfigError(
      f'sampling.max_prompt_tokens={prompt}, sampling.max_tokens='
      f'{tuple(config.sampling.max_tokens)} and instructions of '
      f'{max(between, default=0)} tokens make rows of {whole} with '
      f'{len(attempts)} answers (turns={config.turns}, eval.attempts='
      f'{config.eval.attempts}, table.turns={config.table.turns}), and the '
      f'model has max_position_embeddings={most} ({folder}/config.json); '
      'lower one of them.'
    )


def check_ids(
  folder: str,
  size: int,
  words: tokenizer.Tokenizer,
  between: Sequence[int],
  splits: dict[str, data.Problems | None],
) -> None:
  """Refuses ids that the model has no embedding for.

  A vocabulary may have more of them than the embedding (Gemma 3 1B's has one,
  for images), as long as nobody writes them.
  """
  highest = max(words.close, words.pad, *between)
  for problems in splits.values():
    if problems is None:
      continue
    highest = max(highest, int(problems.tokens.max()))
    if problems.first is not None:
      highest = max(highest, int(problems.first.max()))
  if highest >= size:
    name = words.library.convert_ids_to_tokens(highest)
    raise ConfigError(
      f'model.path={folder!r}: its tokenizer writes the id {highest} ({name!r}),'
      f' and its config.json has vocab_size={size}; the two are not of one '
      'model.'
    )
