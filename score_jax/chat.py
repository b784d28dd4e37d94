"""Chat templates, rendered and cut once: what stands around attempts.

A chat template turns a conversation into text. It is rendered with probes in
the place of attempts, and cut where they stand:

    opening | attempt | close | between | attempt | close | between | ...

Of these, `opening` is a prompt's, attempts are sampled, and the rest is
constant, cut once. So a row only grows, and no attempt is encoded again.

Where the text of a conversation could differ from its ids:

- An attempt that ended with another end token than the template's (<eos> for
  <end_of_turn>, say) keeps it: it was sampled, and the update scores it. It
  ends the message; `close` does not follow, which closes only what was cut off.
- A template may strip an attempt (Gemma's and Llama's do). The ids keep what
  was sampled, blanks and line ends around it included.
- An empty thought that the template puts before a new attempt, and leaves out
  before earlier ones (Qwen 3's, told not to think), stays in the context, as
  the model read it when it wrote the attempt; a note says so.

What is exported writes the same: `served` is the template that does.
"""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import json
import re
from typing import Any

from score_jax.config import ConfigError

# What the clock says to a template: the date that Llama 3.1's has built in.
DAY = datetime.date(2024, 7, 26)
_OTHER_DAY = datetime.date(1999, 12, 31)
QUESTIONS = ('What is 7 + 5?', '  Outer blanks \n', '**Add**\n\n1. 7\n2. 5')
_MARK = 'Probe 4711 says 12.'
_ATTEMPTS = (
  _MARK,
  '12',
  '# Steps\n\n1. **Add** `7`\n2. $7 + 5$\n\n\n$\\boxed{12}$',
  'def add(a, b):\n    return a + b  # 12\n\nprint(add(7, 5))',
  '{{ x }} {% if y %} <b>&amp;</b> [INST] <|x|> </answer>',
  'Größer als 3 – 数 ≥ 12 🙂',
  '  12',
  '12 \n',
  '\n\n 12\n\n',
)
_THOUGHT = '<think>\n7, then 5 more.\n</think>\n\n12'


@dataclasses.dataclass(frozen=True)
class Chat:
  """How a conversation is put to the model."""

  mode: str  # 'auto': by the chat template where there is one; 'on', 'off'.
  system: str  # The system prompt; '' = what the template says of itself.
  thinking: bool  # Whether the template is left to its default of thinking.


PLAIN = Chat(mode='off', system='', thinking=False)


@dataclasses.dataclass(frozen=True)
class Template:
  """A chat template; its text depends on the conversation alone."""

  library: Any  # transformers' tokenizer.
  source: str  # Jinja.
  chat: Chat
  folder: str  # For messages.

  def text(self, *messages: str, opened: bool = True) -> str:
    """Returns a conversation up to where the next attempt begins.

    Args:
      *messages: by turns of the user and of the model; the user's is last.
      opened: whether the model's message is begun.
    """
    import jinja2

    turns = [
      {'role': role, 'content': text}
      for role, text in zip(
        itertools.cycle(('user', 'assistant')), messages, strict=False
      )
    ]
    if self.chat.system:
      turns.insert(0, {'role': 'system', 'content': self.chat.system})
    # Without thinking the template is told so; most take no notice of it.
    told = {} if self.chat.thinking else {'enable_thinking': False}
    try:
      return self.library.apply_chat_template(
        turns,
        chat_template=self.source,
        tokenize=False,
        add_generation_prompt=opened,
        **told,
      )
    except (jinja2.TemplateError, ValueError, TypeError, LookupError) as error:
      remedy = 'set task.chat=off for plain prompts'
      if self.chat.system:
        remedy = "set task.system='', if it takes no system prompt"
      raise self.error(f'fails ({first_line(error)})', remedy) from error

  def ids(self, text: str) -> list[int]:
    """Returns a text's ids; what stands for special tokens becomes them."""
    return self.library.encode(text, add_special_tokens=False)

  def error(
    self, reason: str, remedy: str = 'set task.chat=off for plain prompts'
  ) -> ConfigError:
    """Returns the error to raise; `reason` goes on from 'chat template'."""
    return ConfigError(
      f'model.path={self.folder!r}: its chat template {reason}; {remedy}.'
    )


@dataclasses.dataclass(frozen=True)
class Cut:
  """What a template writes around attempts, instruction included."""

  tail: str  # Behind an attempt, up to the next one.
  dropped: str  # Ends an opening, but is left out once another turn follows.
  close: int  # The first id of the tail, which ends the model's message.
  between: tuple[int, ...]  # The other ids of the tail.


def stop_clock(template: Template) -> tuple[Template, tuple[str, ...]]:
  """Returns the template with the clock stopped, and a note if it read it.

  Raises:
    ConfigError: if its text changes from one rendering to the next even so.
  """
  notes = ()
  if 'strftime_now' in template.source:
    other = _on_day(template, _OTHER_DAY).text(_MARK)
    template = _on_day(template, DAY)
    if template.text(_MARK) != other:
      notes = (
        "the chat template writes today's date into the prompt; here every day "
        f'is {DAY:%d %b %Y}',
      )
  text = template.text(_MARK)
  if any(template.text(_MARK) != text for _ in range(8)):
    raise template.error('writes another text at every rendering')
  if text.count(_MARK) != 1:
    raise template.error("does not write the user's message once, as it is")
  if template.chat.system.strip() not in text:
    raise template.error('leaves out the system prompt', "set task.system=''")
  return template, notes


def _on_day(template: Template, day: datetime.date) -> Template:
  """Returns the template with a macro in the place of the clock."""
  source = template.source
  # Keyword or not, the format is the first text in the brackets.
  read = re.findall(r"""strftime_now\([^'")]*(['"])(.*?)\1""", source)
  days = {form: day.strftime(form) for _, form in read}
  macro = (
    '{%- macro strftime_now(format) -%}'
    f'{{{{ {json.dumps(days)}.get(format, {json.dumps(str(day))}) }}}}'
    '{%- endmacro %}\n'
  )
  return dataclasses.replace(template, source=macro + source)


def served(template: Template) -> str:
  """Returns Jinja that writes by itself what was trained on.

  Who serves the model then need not say that the clock stands still, which
  system prompt there was, that the model was told not to think, and that an
  empty thought stays before earlier attempts. What the conversation itself
  says still goes first.

  Args:
    template: with its clock stopped.
  """
  start, source = '', template.source
  if 'enable_thinking' in source and not template.chat.thinking:
    start += (
      '{%- if enable_thinking is not defined %}'
      '{%- set enable_thinking = false %}{%- endif %}\n'
    )
  if template.chat.system:
    message = (
      f"{{'role': 'system', 'content': {_literal(template.chat.system)}}}"
    )
    start += (
      "{%- if not messages or messages[0]['role'] != 'system' %}"
      f'{{%- set messages = [{message}] + messages %}}{{%- endif %}}\n'
    )
  return start + _with_dropped(template, source)


def _literal(text: str) -> str:
  """Returns a text as Jinja writes it."""
  return json.dumps(text, ensure_ascii=False)


def _with_dropped(template: Template, source: str) -> str:
  """Returns Jinja that keeps what it wrote before earlier attempts, too."""
  question = QUESTIONS[0]
  dropped = cut(template, question).dropped
  if not dropped:
    return source
  opening = template.text(question).removesuffix(dropped)
  begins = opening.removeprefix(template.text(question, opened=False))
  short, whole = _literal(begins), _literal(begins + dropped)
  return (
    # As Jinja itself does, one line end behind the last line is left out.
    f'{{%- set written %}}{source.removesuffix(chr(10))}{{% endset %}}'
    f'{{{{- written | replace({whole}, {short}) | replace({short}, {whole}) }}}}'
  )


def cut(template: Template, instruction: str) -> Cut:
  """Returns what a template writes around attempts, checked with probes.

  Raises:
    ConfigError: if it does not end an attempt with a token of its own, or if
      appending a turn changes the text or the ids of earlier ones.
  """
  question = QUESTIONS[0]
  opening = template.text(question)
  whole = template.text(question, _MARK, instruction)
  head, found, tail = whole.partition(_MARK)
  if not found or not opening.startswith(head):
    raise _unstable(template, opening, whole)
  dropped = opening.removeprefix(head)
  if '<think>' in dropped and '</think>' not in dropped:
    raise template.error(
      f'opens a thought before every attempt ({dropped!r}) and leaves it out of '
      'earlier turns'
    )
  close, *between = template.ids(tail) or [-1]
  end = template.library.added_tokens_decoder.get(close)
  if end is None or not tail.startswith(str(end)):
    raise template.error(
      f'puts no end token behind an attempt (but {tail[:20]!r})'
    )
  pieces = Cut(tail, dropped, close, tuple(between))
  for question, attempt in zip(
    itertools.cycle(QUESTIONS), _ATTEMPTS, strict=False
  ):
    _check_text(template, pieces, question, attempt, instruction)
    if attempt == attempt.strip():
      _check_ids(template, pieces, question, attempt)
  _check_thought(template, pieces, instruction)
  return pieces


def _check_text(template, pieces, question, attempt, instruction) -> None:
  """Refuses a template that writes earlier turns anew, or attempts otherwise.

  What the opening drops is dropped here as well. Around an attempt, blanks and
  line ends may be gone: a template that strips is none that changes ids.
  """
  head = template.text(question).removesuffix(pieces.dropped)
  seam = pieces.tail.removesuffix(pieces.dropped)
  turns, expected = [question], head
  for _ in range(2):
    turns += [attempt, instruction]
    text = template.text(*turns)
    before, behind = expected, pieces.tail
    inside = text[len(before) : len(text) - len(behind)]
    same = inside.strip() == attempt.strip()
    if attempt == attempt.strip():
      same = inside == attempt
    if not same or text != before + inside + behind:
      raise _unstable(template, before + attempt + behind, text)
    expected = before + inside + seam


def _check_ids(template, pieces, question, attempt) -> None:
  """Refuses a template whose ids at a seam depend on what stands there."""
  text = template.text(question)
  ids, tail = template.ids(text), [pieces.close, *pieces.between]
  for _ in range(2):
    text += attempt + pieces.tail
    longer = template.ids(text)
    kept, rest = longer[: len(ids)], longer[len(ids) :]
    if kept != ids or rest[-len(tail) :] != tail:
      raise template.error(
        'joins ends of turns and attempts into one token, so appending a turn '
        'changes earlier ids'
      )
    ids = longer


def _check_thought(template, pieces, instruction) -> None:
  """Refuses a template that drops thoughts of a model that is left to think."""
  if '</think>' in pieces.dropped:
    return  # An empty thought is written for the model: it has none of its own.
  text = template.text(QUESTIONS[0], _THOUGHT, instruction)
  if _THOUGHT not in text:
    remedy = 'set task.thinking=False or task.chat=off'
    raise template.error(
      'drops what earlier attempts thought (<think> ... </think>), so '
      'appending a turn changes earlier ids',
      remedy if template.chat.thinking else 'set task.chat=off',
    )


def _unstable(template: Template, expected: str, text: str) -> ConfigError:
  """Returns the error of two texts that should begin alike."""
  pairs = enumerate(zip(expected, text, strict=False))
  at = next((i for i, (a, b) in pairs if a != b), min(len(expected), len(text)))
  here = slice(max(at - 10, 0), at + 20)
  return template.error(
    f'writes earlier turns otherwise ({text[here]!r} for {expected[here]!r}) '
    'once a turn is appended, so their ids would change'
  )


def first_line(error: Exception) -> str:
  """Returns the first line of what an error says."""
  return (str(error).strip() or type(error).__name__).splitlines()[0]
