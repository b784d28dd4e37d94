"""Tokenizers and chat templates of each family's kind, built here.

The templates share the families' properties, not their words: what ends a
turn, what stands behind that, what is stripped, added or left out.
"""

import dataclasses
import functools
import json
import pathlib

import tokenizers
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

CORPUS = [
  'user assistant model system The sum of 12 and 7 is 19, so the answer is 19.',
  'def add(a, b):\n    return a + b\n\nprint(add(1, 2))\n',
  'There may be an error. If so, correct it. Think step by step!\n\n# Steps',
  'A Probe and a Probe',
] * 3
# Words, digits by threes, signs, and blanks with line ends of their own.
SPLIT = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
  r'| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
)

GEMMA2 = r"""{{ bos_token }}
{%- if messages[0].role == 'system' %}
  {{- raise_exception('no such role as system') }}
{%- endif %}
{%- for m in messages %}
  {%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}
    {{- raise_exception('roles must alternate') }}
  {%- endif %}
  {%- set who = 'model' if m.role == 'assistant' else m.role %}
  {{- '<start_of_turn>' + who + '\n' + m.content | trim + '<end_of_turn>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
  {{- '<start_of_turn>model\n' }}
{%- endif %}
"""
# The system prompt opens the first message of the user.
GEMMA3 = r"""{{ bos_token }}
{%- set ns = namespace(start='', rest=messages) %}
{%- if messages[0].role == 'system' %}
  {%- set ns.start = messages[0].content + '\n\n' %}
  {%- set ns.rest = messages[1:] %}
{%- endif %}
{%- for m in ns.rest %}
  {%- set who = 'model' if m.role == 'assistant' else m.role %}
  {{- '<start_of_turn>' + who + '\n' + (ns.start if loop.first else '') }}
  {{- m.content | trim + '<end_of_turn>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
  {{- '<start_of_turn>model\n' }}
{%- endif %}
"""
# A system message always, with the day in it; nothing behind an end of turn.
LLAMA3 = r"""{{- bos_token }}
{%- if not date_string is defined %}
  {%- if strftime_now is defined %}
    {%- set date_string = strftime_now("%d %b %Y") %}
  {%- else %}
    {%- set date_string = "26 Jul 2024" %}
  {%- endif %}
{%- endif %}
{%- if messages[0].role == 'system' %}
  {%- set system, rest = messages[0].content | trim, messages[1:] %}
{%- else %}
  {%- set system, rest = '', messages %}
{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\n\n' }}
{{- 'Known until: 2023\nThe day is: ' + date_string + '\n\n' }}
{{- system + '<|eot_id|>' }}
{%- for m in rest %}
  {{- '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' }}
  {{- m.content | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
  {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"""
LLAMA_FIXED_DAY = LLAMA3.replace('strftime_now is defined', 'false')
# A system prompt of its own where none is given.
QWEN25 = r"""{%- if messages[0].role != 'system' %}
  {{- '<|im_start|>system\nYou are an assistant.<|im_end|>\n' }}
{%- endif %}
{%- for m in messages %}
  {{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
  {{- '<|im_start|>assistant\n' }}
{%- endif %}
"""
# Thoughts of attempts before the user's last message are left out.
QWEN3 = r"""{%- set ns = namespace(last=0) %}
{%- for m in messages %}
  {%- if m.role == 'user' %}
    {%- set ns.last = loop.index0 %}
  {%- endif %}
{%- endfor %}
{%- for m in messages %}
  {%- set text = m.content %}
  {%- if m.role == 'assistant' and loop.index0 < ns.last %}
    {%- set text = m.content.split('</think>')[-1].lstrip('\n') %}
  {%- endif %}
  {{- '<|im_start|>' + m.role + '\n' + text + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
  {{- '<|im_start|>assistant\n' }}
  {%- if enable_thinking is defined and enable_thinking is false %}
    {{- '<think>\n\n</think>\n\n' }}
  {%- endif %}
{%- endif %}
"""
# Every attempt is opened with a thought.
REASONER = QWEN3.replace(
  'enable_thinking is defined and enable_thinking is false', 'true'
).replace(r'<think>\n\n</think>\n\n', r'<think>\n')
TURN = "'<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n'"


@functools.cache
def byte_level(*special: str) -> str:
  """Returns the JSON of a tokenizer of Llama's and Qwen's kind."""
  library = tokenizers.Tokenizer(models.BPE())
  library.pre_tokenizer = pre_tokenizers.Sequence(
    [
      pre_tokenizers.Split(tokenizers.Regex(SPLIT), 'isolated'),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  )
  library.decoder = decoders.ByteLevel()
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=420,
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  library.train_from_iterator(CORPUS, trainer)
  library.add_special_tokens(list(special))
  return library.to_str()


@functools.cache
def sentence_piece(*special: str) -> str:
  """Returns the JSON of a tokenizer of Gemma's kind: bytes for the unknown."""
  library = tokenizers.Tokenizer(models.BPE(unk_token='<unk>'))
  library.normalizer = normalizers.Replace(' ', '▁')
  trainer = tokenizers.trainers.BpeTrainer(vocab_size=300, show_progress=False)
  library.train_from_iterator(CORPUS, trainer)
  found = json.loads(library.to_str())['model']
  bytes_ = [f'<0x{i:02X}>' for i in range(256)]
  words = [*special, *bytes_, '\n\n', *found['vocab']]
  ids = {word: i for i, word in enumerate(dict.fromkeys(words))}
  merges = [('\n', '\n'), *(tuple(pair) for pair in found['merges'])]
  library = tokenizers.Tokenizer(
    models.BPE(
      ids, merges, byte_fallback=True, unk_token='<unk>', fuse_unk=True
    )
  )
  library.normalizer = normalizers.Replace(' ', '▁')
  library.pre_tokenizer = pre_tokenizers.Split(' ', 'merged_with_previous')
  library.decoder = decoders.Sequence(
    [decoders.Replace('▁', ' '), decoders.ByteFallback(), decoders.Fuse()]
  )
  library.add_special_tokens(list(special))
  return library.to_str()


@functools.cache
def unigram(*special: str) -> str:
  """Returns the JSON of a tokenizer that puts a blank before a text."""
  library = tokenizers.Tokenizer(models.Unigram())
  library.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme='first')
  library.decoder = decoders.Metaspace(prepend_scheme='first')
  trainer = tokenizers.trainers.UnigramTrainer(
    vocab_size=120,
    unk_token='<unk>',
    special_tokens=list(special),
    show_progress=False,
  )
  library.train_from_iterator(CORPUS, trainer)
  return library.to_str()


@dataclasses.dataclass(frozen=True)
class Kind:
  """What a folder of a family holds."""

  library: str  # JSON.
  template: str | None
  close: str  # Ends a turn.
  tokens: dict[str, str]  # As tokenizer_config.json names them.
  family: str  # The class that tokenizer_config.json names.
  ends: tuple[str, ...] = ()  # As generation_config.json lists them.


GEMMA = Kind(
  sentence_piece(
    *('<pad>', '<eos>', '<bos>', '<unk>', '<start_of_turn>', '<end_of_turn>')
  ),
  GEMMA2,
  '<end_of_turn>',
  {'bos_token': '<bos>', 'eos_token': '<eos>', 'pad_token': '<pad>'},
  'GemmaTokenizer',
  ('<eos>', '<end_of_turn>'),
)
LLAMA = Kind(
  byte_level(
    *('<|begin_of_text|>', '<|end_of_text|>', '<|start_header_id|>'),
    *('<|end_header_id|>', '<|eot_id|>', '<|eom_id|>'),
  ),
  LLAMA3,
  '<|eot_id|>',
  {'bos_token': '<|begin_of_text|>', 'eos_token': '<|eot_id|>'},
  'PreTrainedTokenizerFast',
  ('<|end_of_text|>', '<|eom_id|>', '<|eot_id|>'),
)
QWEN = Kind(
  byte_level('<|endoftext|>', '<|im_start|>', '<|im_end|>'),
  QWEN25,
  '<|im_end|>',
  {'eos_token': '<|endoftext|>', 'pad_token': '<|endoftext|>'},
  'Qwen2Tokenizer',
  ('<|im_end|>', '<|endoftext|>'),
)


def with_template(kind: Kind, template: str | None) -> Kind:
  return dataclasses.replace(kind, template=template)


KINDS = {
  'gemma2': GEMMA,
  'gemma3': with_template(GEMMA, GEMMA3),
  'llama3': LLAMA,
  'qwen2.5': QWEN,
}


def write(folder: pathlib.Path, kind: Kind) -> str:
  """Writes a folder as on the hub."""
  library = tokenizers.Tokenizer.from_str(kind.library)
  bos = kind.tokens.get('bos_token')
  if bos:
    library.post_processor = processors.TemplateProcessing(
      single=f'{bos} $A', special_tokens=[(bos, library.token_to_id(bos))]
    )
  fast = transformers.PreTrainedTokenizerFast(
    tokenizer_object=library, chat_template=kind.template, **kind.tokens
  )
  fast.save_pretrained(folder)
  path = folder / 'tokenizer_config.json'
  settings = json.loads(path.read_text())
  settings['tokenizer_class'] = kind.family
  path.write_text(json.dumps(settings))
  if kind.ends:
    ids = [library.token_to_id(end) for end in kind.ends]
    path = folder / 'generation_config.json'
    path.write_text(json.dumps({'eos_token_id': ids}))
  return str(folder)
