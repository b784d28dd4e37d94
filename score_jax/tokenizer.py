"""Text to ids and back, and the constant ids between turns."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from score_jax.chat import (
  Chat,
  cut,
  first_line,
  PLAIN,
  QUESTIONS,
  stop_clock,
  Template,
)
from score_jax.config import ConfigError
from score_jax.models import tensor_files

# Any of these is a whole vocabulary. Without one transformers gives a tokenizer
# that knows no words, and says nothing.
VOCABULARIES = ('tokenizer.json', 'tokenizer.model', 'vocab.json')
_DESCRIBED = ('tokenizer.json', 'tokenizer_config.json')


@dataclasses.dataclass(frozen=True)
class Tokenizer:
  """A family's own tokenizer, and the ids that the sampler needs of it."""

  library: Any  # transformers' tokenizer.
  end_tokens: tuple[int, ...]  # Any of them ends an attempt.
  close: int  # Closes an attempt that was cut off.
  pad: int
  template: Template | None = None  # None: plain prompts.
  notes: tuple[str, ...] = ()  # What was frozen, for people to read.

  def prompts(self, texts: Sequence[str]) -> list[list[int]]:
    """Returns the ids that each row starts with."""
    if not texts:
      return []
    if self.template is None:
      return self.library(list(texts))['input_ids']
    openings = [self.template.text(text) for text in texts]
    return self.library(openings, add_special_tokens=False)['input_ids']

  def between(self, text: str) -> list[int]:
    """Returns the constant ids from an attempt's end token to the next attempt.

    Args:
      text: the instruction. In a chat it is a message of the user.

    Raises:
      ConfigError: if with this instruction the template changes earlier turns.
    """
    if self.template is not None:
      return list(cut(self.template, text).between)
    # Encoded behind the end token, as it will stand: some tokenizers put a
    # blank before what stands alone.
    end = self.library.convert_ids_to_tokens(self.close)
    ids = self.library.encode(end + text, add_special_tokens=False)
    if ids[:1] == [self.close]:
      return ids[1:]
    return self.library.encode(text, add_special_tokens=False)

  def written(self, text: str) -> list[int]:
    """Returns an attempt's ids as if it had been sampled, its end included."""
    # Encoded behind the end token, as in `between`.
    end = self.library.convert_ids_to_tokens(self.close)
    ids = self.library.encode(end + text, add_special_tokens=False)
    if ids[:1] != [self.close]:
      ids = [-1, *self.library.encode(text, add_special_tokens=False)]
    return [*ids[1:], self.close]

  def attempts(self, rows: Iterable[Sequence[int]]) -> list[str]:
    """Returns each attempt's text, end tokens and the like left out."""
    rows = [list(row) for row in rows]
    ended = [bool(row) and row[-1] in self.end_tokens for row in rows]
    return self.library.batch_decode(
      [row[: len(row) - end] for row, end in zip(rows, ended, strict=True)],
      skip_special_tokens=True,
      clean_up_tokenization_spaces=False,
    )

  def pieces(self, ids: Iterable[int]) -> list[str]:
    """Returns the text of each token alone, special ones by their name."""
    return self.library.batch_decode(
      [[int(i)] for i in ids],
      skip_special_tokens=False,
      clean_up_tokenization_spaces=False,
    )


def load(folder: str, chat: Chat = PLAIN) -> Tokenizer:
  """Returns the tokenizer of a checkpoint folder.

  Raises:
    ConfigError: if the folder holds none that transformers can read, or one
      without an end token; if its chat template is asked for and missing, or
      does not leave earlier turns as they are.
  """
  import transformers  # Seconds that the core never pays.

  _check_files(pathlib.Path(folder))
  try:
    library = transformers.AutoTokenizer.from_pretrained(
      folder, local_files_only=True
    )
  except Exception as error:  # The library's Rust raises no narrower kind.
    raise ConfigError(
      f'model.path={folder!r} holds no tokenizer that transformers reads '
      f'({first_line(error)}); copy tokenizer.json and tokenizer_config.json '
      'of the model there.'
    ) from error
  template = _template(library, folder, chat)
  if template is None:
    return _plain(library, folder)
  template, notes = stop_clock(template)
  pieces = cut(template, QUESTIONS[0])
  if pieces.dropped:
    notes += (
      f'the chat template writes {pieces.dropped!r} before a new attempt and '
      'leaves it out before earlier ones; here it stays, as the model read it',
    )
  close = pieces.close
  ends, pad = _ends(library, folder, close), _pad(library, close)
  return Tokenizer(library, ends, close, pad, template, notes)


def _check_files(folder: pathlib.Path) -> None:
  """Refuses a folder without a vocabulary, or with something in its place."""
  found = [name for name in VOCABULARIES if (folder / name).is_file()]
  if not found:
    raise ConfigError(
      f'{folder} has no {VOCABULARIES[0]} (nor {" nor ".join(VOCABULARIES[1:])}'
      '); download the files of its tokenizer too.'
    )
  for name in _DESCRIBED:
    if (folder / name).is_file():
      tensor_files.read_json(folder / name)
  if _DESCRIBED[0] in found:
    return
  file = folder / found[0]
  if remedy := tensor_files.placeholder(file):
    raise ConfigError(f'{file} is no vocabulary{remedy}')


def _plain(library: Any, folder: str) -> Tokenizer:
  """Returns a tokenizer of prompts as they are written."""
  close = library.eos_token_id
  if close is None:
    raise ConfigError(
      f'model.path={folder!r}: the tokenizer names no end token; set '
      '"eos_token" in its tokenizer_config.json.'
    )
  ends = _ends(library, folder, close)
  if {*library('1')['input_ids'][-1:]} & {*ends}:
    raise ConfigError(
      f'model.path={folder!r}: the tokenizer puts its end token behind every '
      'prompt; set "add_eos_token" to false in its tokenizer_config.json.'
    )
  return Tokenizer(library, ends, close, _pad(library, close))


def _pad(library: Any, close: int) -> int:
  known = (library.pad_token_id, library.eos_token_id, close)
  return next(i for i in known if i is not None)


def _ends(library: Any, folder: str, close: int) -> tuple[int, ...]:
  """Returns the ids at which the family's generation stops."""
  ids = [close, library.eos_token_id]
  path = pathlib.Path(folder) / 'generation_config.json'
  if path.exists():
    try:
      more = json.loads(path.read_text()).get('eos_token_id')
    except ValueError as error:
      raise ConfigError(
        f'{path} is no JSON ({first_line(error)}); copy the file anew.'
      ) from error
    ids += more if isinstance(more, list) else [more]
  return tuple(dict.fromkeys(i for i in ids if i is not None))


def _template(library: Any, folder: str, chat: Chat) -> Template | None:
  """Returns the chat template that the settings ask for; None: plain prompts."""
  named = library.chat_template is not None
  if chat.mode == 'on' and not named:
    raise ConfigError(
      f'task.chat=on, but model.path={folder!r} has no chat template; copy '
      'chat_template.jinja of the model there, or set task.chat=off.'
    )
  if chat.mode != 'off' and named:
    try:
      return Template(library, library.get_chat_template(), chat, folder)
    except ValueError as error:  # Several, and none of them is the default.
      raise ConfigError(
        f'model.path={folder!r}: {first_line(error)}; name one "default", or '
        'set task.chat=off.'
      ) from error
  if chat.system:
    why = 'task.chat=off' if named else f'model.path={folder!r} has none'
    raise ConfigError(
      f"task.system needs a chat template, and {why}; set task.system=''."
    )
  return None


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
