r"""Whether two answers without brackets or relations are equal.

Numbers are compared exactly, words by letter, and expressions by value.
"""

from __future__ import annotations

import re
import zlib

from score_jax.graders import rationals, units, values
from score_jax.graders.parsing import Undecided

_BASED = re.compile(r'\(?([0-9A-Z]+)\)?_\{?\(?(\d+|\\text\{[a-z]+\})\)?\}?')
# As bases are written out; what stands at 0 and 1 is none.
_BASES = (
  'zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight',
  'nine', 'ten', 'eleven', 'twelve', 'thirteen', 'fourteen', 'fifteen',
  'sixteen',
)  # fmt: skip
_CLOCK = re.compile(
  r'(?:\\text\{)?\s*(\d{1,2}):(\d{2})\s*(?:\\text\{)?\s*([ap]?)\.?m?\.?\s*\}?',
  re.IGNORECASE,
)
_RATIO = re.compile(r'([^:]+):([^:]+)')
_WORD = re.compile(r'(?<![A-Za-z\\])[A-Za-z]{4,}|\\text(?![A-Za-z])')
_LETTERS = re.compile(r'[A-Za-z]{3,}')
# But between two letters or two digits they separate words and numbers.
_BLANKS = re.compile(
  r'(?<![A-Za-z\d])\s+|\s+(?![A-Za-z\d])'
  r'|(?<=\d)\s+(?=[A-Za-z])|(?<=[A-Za-z])\s+(?=\d)'
)
_ANGLE = re.compile(r'\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])')
_OPERATOR = re.compile(
  r'\\(?:sum|int|lim)(?:_(?:\{(?:[^{}]|\{[^{}]*\})*\}|\w))?'
  r'(?:\^(?:\{(?:[^{}]|\{[^{}]*\})*\}|\w|\\infty))?'
)


def same(gold: str, answer: str) -> bool:
  """Returns whether two tidy answers are equal, each with or without a unit."""
  if not gold or not answer:
    return False
  if squeezed(gold) == squeezed(answer):
    return True
  for special in (_BASED, _CLOCK, _RATIO):
    pair = special.fullmatch(gold), special.fullmatch(answer)
    if all(pair):
      return _same_parts(special, *pair)
    if any(pair) and special is not _RATIO:
      return False
  (ours, unit), (theirs, other_unit) = units.split(gold), units.split(answer)
  if unit and not other_unit:
    theirs, other_unit = units.split_short(theirs, unit)
  elif other_unit and not unit:
    ours, unit = units.split_short(ours, other_unit)
  if unit and other_unit and unit != other_unit:
    return False
  if _ANGLE.search(ours) or _ANGLE.search(theirs):
    # A degree sign may be left out.
    return squeezed(ours) == squeezed(theirs) or _same_expression(gold, answer)
  one, other = rationals.number(ours), rationals.number(theirs)
  if one is not None and other is not None:
    return one == other or _is_share(one, unit, other, other_unit)
  if _is_wordy(ours) or _is_wordy(theirs):
    return _words(ours) == _words(theirs) != ''
  return _same_expression(ours, theirs)


def _is_share(one, unit: str, other, other_unit: str) -> bool:
  """Whether one number is a percentage, and the other the same as a share."""
  if {unit, other_unit} != {'%', ''}:
    return False
  return one == 100 * other if unit else 100 * one == other


def _same_parts(special: re.Pattern, gold: re.Match, answer: re.Match) -> bool:
  if special is not _RATIO:
    return _plain_parts(gold) == _plain_parts(answer)
  numbers = [
    rationals.number(part) for part in (*gold.groups(), *answer.groups())
  ]
  if None in numbers or 0 in numbers:
    return False
  return numbers[0] * numbers[3] == numbers[1] * numbers[2]


def _plain_parts(match: re.Match) -> list[str]:
  """Returns digits without zeros before them, and a base in digits."""
  parts = [re.sub(r'\\text\{(\w+)\}', r'\1', p).lower() for p in match.groups()]
  parts = [str(_BASES.index(p)) if p in _BASES else p for p in parts]
  return [part.lstrip('0') for part in parts]


def _is_wordy(text: str) -> bool:
  return bool(_WORD.search(text) or _LETTERS.fullmatch(text))


def _words(text: str) -> str:
  """Returns words in small letters, without what does not sound."""
  text = re.sub(r'\\text(?![A-Za-z])|[{}\\$"]', ' ', text)
  text = re.sub(r"(?<!\d)\.|\.(?!\d)|[()!?']", '', text).lower()
  text = re.sub(r'^(?:the|a|an) ', '', ' '.join(text.split()))
  return re.sub(r'\s*([,:/-])\s*', r'\1', text)


def squeezed(text: str) -> str:
  """Returns the text without the blanks that LaTeX does not show."""
  return _BLANKS.sub('', text.strip().lstrip('+'))


def _same_expression(gold: str, answer: str) -> bool:
  gold, answer = _opaque(gold), _opaque(answer)
  try:
    return values.same(gold, answer)
  except Undecided:
    return False


def _opaque(text: str) -> str:
  """Returns the text with a symbol for each sum, integral and limit.

  They are linear, so what is equal for any such symbol is equal for them; none
  is computed, for that may take forever, and an answer is a value.
  """

  def symbol(found: re.Match) -> str:
    spelled = re.sub(r'\{(\w)\}', r'\1', squeezed(found[0]))
    return f'Q_{{{zlib.crc32(spelled.encode())}}} '

  return _OPERATOR.sub(symbol, text)
