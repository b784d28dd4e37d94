r"""What is written beside a number: a unit, a percent sign, a currency.

A unit may be left out, but not be another one, and nothing is converted.
"""

from __future__ import annotations

import re

_CURRENCY = re.compile(
  r'([-+]?)\s*(\\\$|\$|€|£|USD(?![A-Za-z]))\s*(?=[\d.\\(])'
)
_CURRENCY_BEHIND = re.compile(r'(?<=[\d}])\s*(\\\$|\$|€|£)$')
_PERCENT = re.compile(r'\s*\\?%$')
_DEGREES = re.compile(r'\s*\^\s*\\circ\s*(?:\\text\{\s*)?([CF]?)\s*\}?$')
_POWER = re.compile(r'\s*\^\s*\{?([23])\}?$')
_TEXT = re.compile(r'\s*\\text\{([^{}]*)\}$')
_RATE = re.compile(
  r'\s*\\frac\{\s*\\text\{([^{}]*)\}\s*\}\{\s*\\text\{([^{}]*)\}\s*\}$'
  r'|\s*\\text\{([^{}]*)\}\s*/\s*\\text\{([^{}]*)\}$'
)
_SHORT = re.compile(r'(?<=[\d)}])\s*([A-Za-z]+)$')
_WORDS = re.compile(
  r'(?<=[\d}).])\s*((?<=\s)[A-Za-z][A-Za-z./]+(?: [A-Za-z./]+)*)$'
)
_CURRENCIES = {r'\$': 'dollar', '$': 'dollar', 'USD': 'dollar', '€': 'euro'}
_ATTACHED = re.compile(
  r'(?:(?<=[\d}])|(?<=\\pi )|(?<=\\pi))\s*'
  r'((?:[cmk]m|km/h|mph|kg|m[gLl]|ft|inch|percent|pct|degrees?)'
  r'(?:/[a-z]+)?)$'
)
# None of them is part of a unit; with one, it is a sentence.
_SENTENCE = {
  'is', 'are', 'was', 'not', 'no', 'or', 'and', 'but', 'wrong', 'maybe', 'if',
  'than', 'to', 'plus', 'minus', 'times', 'right', 'correct', 'incorrect',
  'unless', 'otherwise', 'except', 'more', 'less', 'between', 'almost',
}  # fmt: skip
_FUNCTIONS = {'sin', 'cos', 'tan', 'cot', 'sec', 'csc', 'log', 'ln', 'mod'}
_NAMES = {
  'centimeter': 'cm', 'centimetre': 'cm', 'millimeter': 'mm', 'meter': 'm',
  'metre': 'm', 'kilometer': 'km', 'kilometre': 'km', 'foot': 'ft',
  'feet': 'ft', 'inche': 'in', 'inch': 'in', 'yard': 'yd', 'mile': 'mi',
  'gram': 'g', 'kilogram': 'kg', 'pound': 'lb', 'ounce': 'oz', 'liter': 'l',
  'litre': 'l', 'milliliter': 'ml', 'second': 's', 'sec': 's', 'minute': 'min',
  'hour': 'h', 'hr': 'h', 'degree': 'deg', 'percent': '%', 'pct': '%',
  'percentage': '%', 'buck': 'dollar', 'mph': 'mi/h', 'kph': 'km/h',
}  # fmt: skip
WORDS = 4  # In a unit, at most.


def split(text: str) -> tuple[str, str]:
  """Returns a tidy answer without its unit, and the unit in one spelling."""
  text = _RATE.sub(
    lambda rate: rf'\text{{{rate[1] or rate[3]}/{rate[2] or rate[4]}}}', text
  )
  money = _CURRENCY.match(text)
  if money:
    unit = _CURRENCIES.get(money[2], money[2])
    rest, word = split(money[1] + text[money.end() :])
    return rest, word if word in ('cent', '%') else unit
  behind = _CURRENCY_BEHIND.search(text)
  if behind:
    return text[: behind.start()], _CURRENCIES.get(behind[1], behind[1])
  for pattern, unit in ((_PERCENT, '%'), (_DEGREES, 'deg')):
    found = pattern.search(text)
    if found and found.start():
      scale = found[1] if pattern is _DEGREES else ''
      return text[: found.start()].strip(), unit + scale
  power = _POWER.search(text)
  body = text[: power.start()] if power else text
  patterns = (_TEXT, _ATTACHED, _WORDS)
  for pattern in patterns:
    found = pattern.search(body)
    core = body[: found.start()].strip() if found else ''
    if core and _is_unit(found[1]) and _is_quantity(core):
      return core, _spelled(found[1], power[1] if power else '')
  return text, ''


def split_short(text: str, unit: str) -> tuple[str, str]:
  """Returns as `split` does where only another answer tells a unit from a name.

  Args:
    text: as 10 m, which may be ten times m.
    unit: of the other answer.
  """
  found = _SHORT.search(text)
  if found and _spelled(found[1], '') == unit:
    return text[: found.start()].strip(), unit
  return text, ''


def _is_unit(text: str) -> bool:
  words = re.findall('[A-Za-z]+', text.lower())
  return (
    0 < len(words) <= WORDS
    and (words == ['times'] or not _SENTENCE & set(words))
    and words[0] not in _FUNCTIONS
    and not re.search(r'\d', text)
  )


def _is_quantity(core: str) -> bool:
  """Whether a number or a formula stands there, with nothing left open."""
  return bool(
    re.search(r'\d|\\[a-z]|^[A-Za-z]$', core)
    and r'\text' not in core
    and core[-1] not in r'+-*/=<>\^_,('
    and core.count('{') == core.count('}')
  )


def _spelled(text: str, power: str) -> str:
  words = re.findall('[a-z%]+|/', text.lower().replace('.', ''))
  spelled = []
  for word in words:
    if word in ('square', 'sq', 'squared', 'cubic', 'cu', 'cubed'):
      power = '2' if word.startswith('s') else '3'
    elif word == 'per':
      spelled.append('/')
    elif word not in ('unit', 'units'):
      spelled.append(_NAMES.get(word) or _singular(word))
  unit = ''.join(spelled)
  return unit + power if unit else ''


def _singular(word: str) -> str:
  one = word[:-1] if word.endswith('s') and len(word) > 2 else word
  return _NAMES.get(one, one)
