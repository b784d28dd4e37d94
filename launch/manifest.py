"""Plain data as YAML, every text quoted."""

from __future__ import annotations

import re
from typing import Any

# What YAML 1.1 takes for another kind of value.
_WORDS = ('true', 'false', 'null', 'yes', 'no', 'on', 'off', 'y', 'n')


def dump(value: Any) -> str:
  """Returns a mapping as a YAML document.

  Args:
    value: of dicts, lists, texts, whole numbers and bools; none of them empty.
  """
  return '\n'.join(_lines(value)) + '\n'


def _lines(value: Any) -> list[str]:
  """Returns the lines of a value that does not stand behind its key."""
  if isinstance(value, dict):
    found = []
    for key, item in value.items():
      below = _lines(item)
      if isinstance(item, dict | list):
        found += [f'{_text(key)}:', *(f'  {line}' for line in below)]
      else:
        found.append(f'{_text(key)}: {below[0]}')
    return found
  if isinstance(value, list):
    found = []
    for item in value:
      first, *rest = _lines(item)
      found += [f'- {first}', *(f'  {line}' for line in rest)]
    return found
  if isinstance(value, bool):
    return ['true' if value else 'false']
  return [str(value) if isinstance(value, int) else _quoted(value)]


def _text(key: str) -> str:
  """Returns a key, bare where it can be taken for nothing but a text."""
  bare = re.fullmatch('[A-Za-z][A-Za-z._/-]*', key)
  return key if bare and key.lower() not in _WORDS else _quoted(key)


def _quoted(text: str) -> str:
  """Returns a text in double quotes; what is not plain ASCII is escaped."""
  return f'"{"".join(map(_escaped, text))}"'


def _escaped(character: str) -> str:
  if character in '"\\':
    return f'\\{character}'
  plain = ' ' <= character <= '~'
  return character if plain else f'\\U{ord(character):08x}'
