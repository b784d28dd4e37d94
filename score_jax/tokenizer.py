"""Text to ids and back, and the constant ids between turns."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from score_jax.config import ConfigError


@dataclasses.dataclass(frozen=True)
class Tokenizer:
  """A family's own tokenizer, and the ids that the sampler needs of it."""

  library: Any  # transformers' tokenizer.
  end_tokens: tuple[int, ...]  # Any of them ends an attempt.
  close: int  # Closes an attempt that was cut off.
  pad: int

  def prompts(self, texts: Sequence[str]) -> list[list[int]]:
    """Returns the ids that each row starts with."""
    return self.library(list(texts))['input_ids'] if texts else []

  def between(self, text: str) -> list[int]:
    """Returns the constant ids of an instruction; no ids of a new text."""
    return self.library.encode(text, add_special_tokens=False)

  def attempts(self, rows: Iterable[Sequence[int]]) -> list[str]:
    """Returns each attempt's text, end tokens and the like left out."""
    return self.library.batch_decode(
      list(rows), skip_special_tokens=True, clean_up_tokenization_spaces=False
    )


def load(folder: str) -> Tokenizer:
  """Returns the tokenizer of a checkpoint folder.

  Raises:
    ConfigError: if the folder holds none that transformers can read, or one
      without an end token.
  """
  import transformers  # Seconds that the core never pays.

  try:
    library = transformers.AutoTokenizer.from_pretrained(
      folder, local_files_only=True
    )
  except (OSError, ValueError, KeyError) as error:
    raise ConfigError(
      f'model.path={folder!r} holds no tokenizer that transformers reads '
      f'({_first_line(error)}); copy tokenizer.json and tokenizer_config.json '
      'of the model there.'
    ) from error
  if library.eos_token_id is None:
    raise ConfigError(
      f'model.path={folder!r}: the tokenizer names no end token; set '
      '"eos_token" in its tokenizer_config.json.'
    )
  close = library.eos_token_id
  pad = close if library.pad_token_id is None else library.pad_token_id
  return Tokenizer(library, _end_tokens(folder, close), close, pad)


def _end_tokens(folder: str, close: int) -> tuple[int, ...]:
  """Returns the ids at which the family's generation stops."""
  path = pathlib.Path(folder) / 'generation_config.json'
  if not path.exists():
    return (close,)
  ids = json.loads(path.read_text()).get('eos_token_id', close)
  ids = [ids] if isinstance(ids, int) else ids
  return tuple(dict.fromkeys([close, *ids]))


def _first_line(error: Exception) -> str:
  return (str(error).strip() or type(error).__name__).splitlines()[0]


def save_word_tokenizer(folder: str, words: Sequence[str]) -> None:
  """Writes a tokenizer of digits, signs and whole words, as on the hub.

  Args:
    folder: where tokenizer.json and tokenizer_config.json go.
    words: the vocabulary behind the special tokens: digits and signs one by
      one, words with the blank before them.
  """
  import tokenizers
  import transformers

  special = ['<pad>', '<end>', '<unknown>']
  ids = {word: i for i, word in enumerate([*special, *words])}
  library = tokenizers.Tokenizer(
    tokenizers.models.WordLevel(ids, unk_token='<unknown>')
  )
  split = tokenizers.Regex(r'[0-9]| ?[A-Za-z]+|[^0-9A-Za-z]')
  library.pre_tokenizer = tokenizers.pre_tokenizers.Split(split, 'isolated')
  library.decoder = tokenizers.decoders.Fuse()
  transformers.PreTrainedTokenizerFast(
    tokenizer_object=library,
    pad_token='<pad>',
    eos_token='<end>',
    unk_token='<unknown>',
  ).save_pretrained(folder)
