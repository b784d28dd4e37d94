"""A tokenizer's ids are those that its family's template gives a conversation."""

import dataclasses
import datetime
import functools
import json

import pytest
import tokenizers
import transformers
from hypothesis import given, settings, strategies
from tiny_tokenizers import (
  GEMMA,
  GEMMA2,
  Kind,
  KINDS,
  LLAMA,
  LLAMA3,
  LLAMA_FIXED_DAY,
  QWEN,
  QWEN3,
  QWEN25,
  REASONER,
  TURN,
  unigram,
  with_template,
  write,
)
from tokenizers import processors

from score_jax import checks, tokenizer
from score_jax import config as config_lib
from score_jax.chat import Chat, served
from score_jax.config import ConfigError
from score_jax.tasks import arithmetic

AUTO = Chat(mode='auto', system='', thinking=False)


@pytest.fixture(scope='module')
def folder_of(tmp_path_factory):
  """Returns a function from a kind to its folder, written once."""

  @functools.cache
  def folder(library, template, family, tokens):
    kind = next(k for k in (GEMMA, LLAMA, QWEN) if k.library == library)
    kind = with_template(kind, template)
    kind = dataclasses.replace(kind, family=family, tokens=dict(tokens))
    return write(tmp_path_factory.mktemp('folder'), kind)

  return lambda kind: folder(
    kind.library, kind.template, kind.family, tuple(kind.tokens.items())
  )


def row(words: tokenizer.Tokenizer, question: str, *attempts: list[int]):
  """Returns the ids before attempts 1, 2, ... as the sampler writes them."""
  rows = [words.prompts([question])[0]]
  for attempt in attempts:
    rows.append([*rows[-1], *attempt, *words.between(INSTRUCTION)])
  return rows


def encode(words: tokenizer.Tokenizer, text: str) -> list[int]:
  return words.library.encode(text, add_special_tokens=False)


def written(words: tokenizer.Tokenizer, *messages: str, **told) -> list[int]:
  """Returns the ids that the library itself gives to a conversation."""
  roles = ('user', 'assistant') * len(messages)
  turns = [
    {'role': role, 'content': text}
    for role, text in zip(roles, messages, strict=False)
  ]
  return words.library.apply_chat_template(
    turns, add_generation_prompt=True, return_dict=False, **told
  )


def without(ids: list[int], part: list[int]) -> list[int]:
  """Returns ids with all but the last occurrence of a part left out."""
  last = max(i for i in range(len(ids)) if ids[i : i + len(part)] == part)
  kept, i = [], 0
  while i < last:
    found = ids[i : i + len(part)] == part
    kept += [] if found else [ids[i]]
    i += len(part) if found else 1
  return kept + ids[last:]


QUESTION = 'What is 7 + 12?'
INSTRUCTION = '\nThere may be an error. If so, correct it:\n'
ATTEMPTS = (
  'The sum is 19.',
  '1. **Add**\n\n    7 + 12\n2. $\\boxed{19}$',
  '19',
)


@pytest.mark.parametrize('name', KINDS)
def test_a_row_grows_into_what_the_template_writes_of_the_conversation(
  name, folder_of
):
  words = tokenizer.load(folder_of(KINDS[name]), AUTO)
  sampled = [[*encode(words, text), words.close] for text in ATTEMPTS]
  rows = row(words, QUESTION, *sampled)
  day = {'date_string': '26 Jul 2024'}
  messages = [QUESTION]
  for before, after, text in zip(rows, rows[1:], ATTEMPTS, strict=False):
    assert before == written(words, *messages, **day)
    assert after[: len(before)] == before
    messages += [text, INSTRUCTION]
  assert rows[-1] == written(words, *messages, **day)


@pytest.mark.parametrize('name', KINDS)
def test_it_does_so_whatever_the_attempt_says(name, folder_of):
  words = tokenizer.load(folder_of(KINDS[name]), AUTO)
  between = words.between(INSTRUCTION)
  [prompt] = words.prompts([QUESTION])

  @settings(max_examples=40, deadline=None, database=None, derandomize=True)
  @given(strategies.text('aZé7 \n\t.,#*<>|/{}[]$\\_-+=', min_size=1))
  def holds(text):
    text = text.strip() or '7'
    sampled = [*encode(words, text), words.close]
    whole = written(
      words, QUESTION, text, INSTRUCTION, date_string='26 Jul 2024'
    )
    assert [*prompt, *sampled, *between] == whole

  holds()


@pytest.mark.parametrize('name', KINDS)
def test_prompts_are_the_librarys_own_one_by_one_or_many(name, folder_of):
  words = tokenizer.load(folder_of(KINDS[name]), AUTO)
  texts = [QUESTION, ' and 3?\n', 'Größe ≥ 数']
  day = {'date_string': '26 Jul 2024'}
  assert words.prompts(texts) == [written(words, t, **day) for t in texts]
  assert words.prompts([]) == []


@pytest.mark.parametrize('name', KINDS)
def test_the_templates_end_of_turn_ends_and_closes_an_attempt(name, folder_of):
  kind = KINDS[name]
  words = tokenizer.load(folder_of(kind), AUTO)
  token = words.library.convert_tokens_to_ids
  assert words.close == token(kind.close)
  assert {*words.end_tokens} == {
    *(token(end) for end in kind.ends),
    token(kind.tokens['eos_token']),
  }
  assert words.close not in words.between(INSTRUCTION)[:1]


def test_an_attempt_keeps_the_line_end_that_gemma_strips(folder_of):
  words = tokenizer.load(folder_of(GEMMA), AUTO)
  sampled = [*encode(words, '19 \n'), words.close]
  before, after = row(words, QUESTION, sampled)
  assert after[len(before) :][: len(sampled)] == sampled
  stripped = [*encode(words, '19'), words.close]
  _, template = row(words, QUESTION, stripped)
  assert template == written(words, QUESTION, '19 \n', INSTRUCTION)
  count = len(words.between(INSTRUCTION))
  assert after[-count:] == template[-count:]


def test_an_attempt_that_was_cut_off_goes_on_as_the_template_would(folder_of):
  words = tokenizer.load(folder_of(QWEN), AUTO)
  cut_off = encode(words, 'The sum')
  whole = [*words.prompts([QUESTION])[0], *cut_off, words.close]
  whole += words.between(INSTRUCTION)
  assert whole == written(words, QUESTION, 'The sum', INSTRUCTION)


class Clock(datetime.datetime):
  """A clock that stands still."""

  @classmethod
  def now(cls, tz=None):
    return cls(2031, 5, 4, tzinfo=tz)


def test_the_date_that_a_template_writes_is_the_same_every_day(
  folder_of, monkeypatch
):
  folder = folder_of(LLAMA)
  today = tokenizer.load(folder, AUTO)
  ids, raw = today.prompts([QUESTION]), written(today, QUESTION)
  between = today.between(INSTRUCTION)
  library = transformers.utils.chat_template_utils
  monkeypatch.setattr(library, 'datetime', Clock)
  later = tokenizer.load(folder, AUTO)
  assert written(later, QUESTION) != raw, 'the library reads the clock'
  assert later.prompts([QUESTION]) == ids
  assert today.prompts([QUESTION]) == ids
  assert later.between(INSTRUCTION) == between
  assert '26 Jul 2024' in later.library.decode(ids[0])
  [note] = later.notes
  assert "today's date" in note and '26 Jul 2024' in note


@pytest.mark.parametrize(
  'call', ["strftime_now(format='%Y-%m-%d')", 'strftime_now("%Y-%m-%d")']
)
def test_a_date_is_frozen_in_the_templates_own_format(call, folder_of):
  template = QWEN25.replace("'You are", "'").replace(
    "'<|im_start|>assistant\\n'", f"'<|im_start|>assistant\\n' + {call} + '\\n'"
  )
  # The date stands where attempts begin, and is not repeated before earlier
  # ones, so that it is also what stays in the context.
  words = tokenizer.load(folder_of(with_template(QWEN, template)), AUTO)
  [ids] = words.prompts([QUESTION])
  assert words.library.decode(ids).endswith('assistant\n2024-07-26\n')
  assert len(words.notes) == 2


@pytest.mark.parametrize('template', [LLAMA_FIXED_DAY, GEMMA2, QWEN25])
def test_where_nothing_is_frozen_nothing_is_said(template, folder_of):
  kind = {LLAMA_FIXED_DAY: LLAMA, GEMMA2: GEMMA, QWEN25: QWEN}[template]
  words = tokenizer.load(folder_of(with_template(kind, template)), AUTO)
  assert words.notes == ()


def test_a_template_that_drops_thoughts_is_refused_if_the_model_may_think(
  folder_of,
):
  folder = folder_of(with_template(QWEN, QWEN3))
  with pytest.raises(ConfigError) as error:
    tokenizer.load(folder, Chat('auto', '', thinking=True))
  text = str(error.value)
  assert folder in text and '<think>' in text and 'earlier ids' in text
  assert 'task.thinking=False' in text and '\n' not in text


def test_an_empty_thought_stays_before_the_attempt_it_was_written_for(
  folder_of,
):
  words = tokenizer.load(folder_of(with_template(QWEN, QWEN3)), AUTO)
  sampled = [[*encode(words, text), words.close] for text in ATTEMPTS]
  rows = row(words, QUESTION, *sampled)
  empty = encode(words, '<think>\n\n</think>\n\n')
  messages = [QUESTION]
  for before, text in zip(rows, ATTEMPTS, strict=False):
    assert before[-len(empty) :] == empty
    template = written(words, *messages, enable_thinking=False)
    assert without(before, empty) == template
    messages += [text, INSTRUCTION]
  [note] = words.notes
  assert repr('<think>\n\n</think>\n\n') in note


def test_thinking_makes_no_difference_to_a_template_that_knows_of_none(
  folder_of,
):
  folder = folder_of(GEMMA)
  one, other = (tokenizer.load(folder, Chat('on', '', t)) for t in (0, 1))
  assert one.prompts([QUESTION]) == other.prompts([QUESTION])
  assert one.between(INSTRUCTION) == other.between(INSTRUCTION)


def turns(text: str, start: str = '') -> str:
  """Returns a template that writes every message in some way."""
  return (
    f'{start}{{% for m in messages %}}{{{{ {text} }}}}{{% endfor %}}'
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
  )


REFUSED = {
  'thoughts are opened': (REASONER, 'opens a thought'),
  'turns are numbered from the last': (
    turns(f"'[' + (messages | length | string) + ']' + {TURN}"),
    'once a turn is appended',
  ),
  'turns are numbered': (
    turns(f"'[' + (loop.index | string) + ']' + {TURN}"),
    'once a turn is appended',
  ),
  'only the last turns are written': (
    '{% set messages = messages[-3:] %}' + turns(TURN),
    'once a turn is appended',
  ),
  'attempts are shortened': (
    turns(TURN.replace('m.content', 'm.content | truncate(30)')),
    'once a turn is appended',
  ),
  'attempts are escaped': (
    turns(TURN.replace('m.content', '(m.content | e | string)')),
    'once a turn is appended',
  ),
  'nothing ends an attempt': (
    turns("'\\n\\n' + m.role + ': ' + m.content"),
    'once a turn is appended',
  ),
  'a line end ends an attempt': (
    turns("'<|im_start|>' + m.role + '\\n' + m.content + '\\n'"),
    'no end token',
  ),
  'chance writes': (turns(TURN, '{{ range(99999) | random }}'), 'another text'),
  'lines grow into one another': (
    # The opening ends with a blank, which an attempt's first word takes up.
    turns(TURN.replace("'\\n' + m", "': ' + m")).replace(
      'assistant\\n', 'assistant: '
    ),
    'into one token',
  ),
  'it fails': (turns('m.content + 1'), 'fails'),
  'it is no template': ('{% for m in messages %}', 'fails'),
  'the user is left out': (
    turns("'<|im_start|>' + m.role + '\\n<|im_end|>\\n'"),
    "the user's message",
  ),
}


@pytest.mark.parametrize('name', REFUSED)
def test_a_template_is_refused_in_one_line_where(name, folder_of):
  template, reason = REFUSED[name]
  folder = folder_of(with_template(QWEN, template))
  with pytest.raises(ConfigError) as error:
    tokenizer.load(folder, AUTO)
  text = str(error.value)
  assert reason in text and folder in text and 'task.chat=off' in text
  assert '\n' not in text


def test_an_instruction_that_the_template_writes_anew_is_refused(folder_of):
  template = turns(TURN).replace(
    'm.role', "('tool' if 'now' in m.content and not loop.last else m.role)"
  )
  words = tokenizer.load(folder_of(with_template(QWEN, template)), AUTO)
  assert words.between('Try again.')
  with pytest.raises(ConfigError, match='once a turn is appended'):
    words.between('Try again, now.')


@pytest.mark.parametrize('name', ['gemma3', 'llama3', 'qwen2.5'])
def test_a_system_prompt_opens_every_row(name, folder_of):
  folder = folder_of(KINDS[name])
  words = tokenizer.load(folder, Chat('auto', 'Sum with care.', False))
  turns = [
    {'role': 'system', 'content': 'Sum with care.'},
    {'role': 'user', 'content': QUESTION},
  ]
  assert words.prompts([QUESTION])[0] == words.library.apply_chat_template(
    turns,
    add_generation_prompt=True,
    return_dict=False,
    date_string='26 Jul 2024',
  )
  plain = tokenizer.load(folder, AUTO)
  assert words.between(INSTRUCTION) == plain.between(INSTRUCTION)


@pytest.mark.parametrize(
  ('kind', 'chat'),
  [
    (GEMMA, Chat('auto', 'Sum with care.', False)),
    (
      with_template(
        QWEN, turns(TURN, "{% set messages = messages[-1:] %}{{ '' }}")
      ),
      Chat('auto', 'Sum with care.', False),
    ),
    (GEMMA, Chat('off', 'Sum with care.', False)),
    (with_template(GEMMA, None), Chat('auto', 'Sum with care.', False)),
  ],
  ids=['refused', 'ignored', 'off', 'base'],
)
def test_a_system_prompt_that_would_not_be_read_is_refused(
  kind, chat, folder_of
):
  with pytest.raises(ConfigError, match=r'set task\.system=') as error:
    tokenizer.load(folder_of(kind), chat)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('kind', [GEMMA, LLAMA, QWEN])
@pytest.mark.parametrize('template', [True, False])
def test_a_plain_prompt_is_its_text_behind_the_token_that_begins_texts(
  kind, template, folder_of
):
  kind = kind if template else with_template(kind, None)
  chat = Chat('off' if template else 'auto', '', False)
  words = tokenizer.load(folder_of(kind), chat)
  bos = words.library.bos_token_id
  start = [] if bos is None else [bos]
  assert words.prompts([QUESTION]) == [start + encode(words, QUESTION)]
  assert words.close == words.library.eos_token_id
  assert words.close == words.end_tokens[0]
  between = words.between(INSTRUCTION)
  assert between == encode(words, INSTRUCTION)
  assert words.library.decode(between) == INSTRUCTION


def test_a_plain_instruction_gets_no_blank_of_its_own(tmp_path):
  kind = Kind(
    unigram('<unk>', '<s>', '</s>'),
    None,
    '</s>',
    {'eos_token': '</s>', 'unk_token': '<unk>'},
    'PreTrainedTokenizerFast',
  )
  words = tokenizer.load(write(tmp_path, kind))
  [prompt] = words.prompts(['The sum of 12 and 7 is'])
  attempt = encode(words, '</s>The sum is 19')[1:]
  text = 'The sum of 12 and 7 is</s>The sum is 19</s>There may be'
  whole = [*prompt, words.close, *attempt, words.close]
  assert whole + words.between('There may be') == encode(words, text)


def test_a_chat_needs_a_template(folder_of):
  folder = folder_of(with_template(QWEN, None))
  with pytest.raises(ConfigError, match='has no chat template') as error:
    tokenizer.load(folder, Chat('on', '', False))
  assert 'task.chat=off' in str(error.value) and folder in str(error.value)


def test_an_end_token_in_every_prompt_is_refused(tmp_path):
  folder = write(tmp_path, with_template(QWEN, None))
  path = tmp_path / 'tokenizer.json'
  library = tokenizers.Tokenizer.from_file(str(path))
  end = '<|endoftext|>'
  library.post_processor = processors.TemplateProcessing(
    single=f'$A {end}', special_tokens=[(end, library.token_to_id(end))]
  )
  library.save(str(path))
  settings = tmp_path / 'tokenizer_config.json'
  text = settings.read_text()
  settings.write_text(text.replace(QWEN.family, 'PreTrainedTokenizerFast'))
  with pytest.raises(ConfigError, match='behind every prompt'):
    tokenizer.load(folder)


def test_a_tokenizer_without_an_end_token_serves_chats_only(tmp_path):
  kind = dataclasses.replace(LLAMA, tokens={}, ends=())
  kind = with_template(kind, LLAMA3.replace('{{- bos_token }}', ''))
  folder = write(tmp_path, kind)
  words = tokenizer.load(folder, AUTO)
  assert words.end_tokens == (words.close,) == (words.pad,)
  with pytest.raises(ConfigError, match='names no end token'):
    tokenizer.load(folder)


@pytest.mark.parametrize('ends', ['null', '7', '[7, 8]'])
def test_the_ends_of_generation_join_those_of_the_tokenizer(ends, tmp_path):
  folder = write(tmp_path, with_template(QWEN, None))
  path = tmp_path / 'generation_config.json'
  path.write_text(f'{{"eos_token_id": {ends}}}')
  more = json.loads(f'[{ends}]'.replace('[[', '[').replace(']]', ']'))
  words = tokenizer.load(folder)
  expected = [words.library.eos_token_id, *(i for i in more if i is not None)]
  assert [*words.end_tokens] == expected


def test_a_broken_generation_config_is_named(tmp_path):
  folder = write(tmp_path, QWEN)
  (tmp_path / 'generation_config.json').write_text('{"eos_token_id": ')
  with pytest.raises(ConfigError, match=r'generation_config\.json is no JSON'):
    tokenizer.load(folder)


POINTER = 'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n'
GATED = 'Access to model google/gemma-2-2b-it is restricted. You must log in.'


@pytest.mark.parametrize(
  ('kind', 'family'),
  [(GEMMA, 'gemma2'), (LLAMA, 'llama'), (QWEN, 'qwen2')],
  ids=['gemma', 'llama', 'qwen'],
)
@pytest.mark.parametrize('mode', ['on', 'off'])
@pytest.mark.parametrize(
  ('name', 'content', 'said'),
  [
    # transformers would give a tokenizer that knows no words.
    ('tokenizer.json', None, 'has no tokenizer.json (nor tokenizer.model nor'),
    ('tokenizer.json', POINTER, 'tokenizer.json is not JSON: it is a git-lfs'),
    ('tokenizer.json', GATED, 'tokenizer.json is not JSON: it is a message of'),
    ('tokenizer.json', '{"version": "1.0"', 'is not JSON; download it again'),
    ('tokenizer.json', '{"version": "1.0"}', 'no tokenizer that transformers'),
    ('tokenizer.json', '{"model": {"type": "?"}}', 'no tokenizer that transf'),
    (
      'tokenizer_config.json',
      '<!doctype html>',
      'is not JSON: it is a message',
    ),
  ],
)
def test_a_tokenizer_that_is_not_there_or_something_else_is_named(
  tmp_path, kind, family, mode, name, content, said
):
  folder = write(tmp_path, kind)
  (tmp_path / 'config.json').write_text(json.dumps({'model_type': family}))
  if content is None:
    (tmp_path / name).unlink()
  else:
    (tmp_path / name).write_text(content)
  with pytest.raises(ConfigError) as refused:
    tokenizer.load(folder, Chat(mode, '', False))
  text = str(refused.value)
  assert said in text and str(tmp_path) in text and '\n' not in text


@pytest.mark.parametrize('name', ['tokenizer.model', 'vocab.json'])
def test_a_pointer_to_a_vocabulary_is_named(tmp_path, name):
  folder = write(tmp_path, GEMMA)
  (tmp_path / 'tokenizer.json').unlink()
  (tmp_path / name).write_text(POINTER)
  with pytest.raises(ConfigError, match='is no vocabulary: it is a git-lfs'):
    tokenizer.load(folder, AUTO)


def test_an_attempts_text_leaves_out_the_token_that_ended_it(folder_of):
  words = tokenizer.load(folder_of(GEMMA), AUTO)
  text = 'The sum  is\n\n19 .'
  rows = [[*encode(words, text), end] for end in words.end_tokens]
  assert words.attempts([*rows, encode(words, text), []]) == [text] * 3 + ['']


def test_the_bundled_model_reads_plain_prompts_as_it_always_did():
  words = tokenizer.load(str(config_lib.BUNDLED), AUTO)
  # <pad> 0, <end> 1, then digits from 3; see tokenizer.json.
  assert words.prompts(['123+456=']) == [[4, 5, 6, 13, 7, 8, 9, 14]]
  assert words.between(arithmetic.INSTRUCTION) == [
    *(15, 27, 25, 21, 20, 23, 16, 19, 26, 17, 22, 24, 18, 15)
  ]
  assert (words.close, words.end_tokens, words.pad) == (1, (1,), 0)
  assert words.attempts([[8, 10, 12, 1]]) == ['579']
  assert words.template is None and words.notes == ()


def test_a_misspelt_way_to_chat_is_refused():
  config = config_lib.default()
  config.task.chat = 'no'
  with pytest.raises(ConfigError, match=r'task\.chat must be one of auto'):
    checks.check(config, 1)


SYSTEM = 'Sum with "care" – {{ x }}\nTwice \\ 🙂'


@pytest.mark.parametrize('system', ['', SYSTEM], ids=['plain', 'system'])
@pytest.mark.parametrize('name', [*KINDS, 'qwen3'])
def test_a_served_template_told_nothing_writes_what_was_trained_on(
  name, system, folder_of, monkeypatch
):
  if name == 'gemma2' and system:
    pytest.skip('its template takes no system prompt')
  kind = (KINDS | {'qwen3': with_template(QWEN, QWEN3)})[name]
  words = tokenizer.load(folder_of(kind), Chat('on', system, False))
  sampled = [[*encode(words, text), words.close] for text in ATTEMPTS]
  rows = row(words, QUESTION, *sampled)
  library = transformers.utils.chat_template_utils
  monkeypatch.setattr(library, 'datetime', Clock)
  template = served(words.template)
  messages = [QUESTION]
  for before, text in zip(rows, ATTEMPTS, strict=False):
    assert written(words, *messages, chat_template=template) == before
    messages += [text, INSTRUCTION]


def test_a_template_that_needs_nothing_is_served_as_it_is(folder_of):
  for kind in (GEMMA, with_template(LLAMA, LLAMA_FIXED_DAY), QWEN):
    words = tokenizer.load(folder_of(kind), AUTO)
    if 'strftime_now' not in kind.template:
      assert served(words.template) == kind.template


def test_what_a_conversation_says_goes_before_what_was_trained_on(folder_of):
  kind = with_template(QWEN, QWEN3)
  words = tokenizer.load(folder_of(kind), Chat('on', 'Sum.', False))
  turns = [
    {'role': 'system', 'content': 'Sing.'},
    {'role': 'user', 'content': QUESTION},
  ]
  text = words.library.apply_chat_template(
    turns, chat_template=served(words.template), tokenize=False
  )
  assert 'Sing.' in text and 'Sum.' not in text
