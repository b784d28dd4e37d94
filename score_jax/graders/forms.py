r"""What kind of thing an answer is: a number, a set, an interval, a relation.

`read` takes an answer apart to the expressions it is made of, and looks at
none of them. Brackets and separators decide: (1,2), [1,2), \{1,2\} and 1,2
are four different things.
"""

from __future__ import annotations

import dataclasses
import re

from score_jax.graders import notation

OPEN, CLOSE = '([{', ')]}'
_TOKEN = re.compile(
  r'\\begin\{\w+\*?\}|\\end\{\w+\*?\}|\\[A-Za-z]+|\\.|.', re.S
)
_AND_OR = re.compile(r'(?<![A-Za-z\\])(and|or)(?![A-Za-z])', re.I)
_MATRIX = re.compile(
  r'\[?\s*\\begin\{(?P<name>[pbB]?matrix|array|smallmatrix)\}'
  r'(?:\{[clr| ]*\})?(?P<body>.*)\\end\{(?P=name)\}\s*\]?',
  re.S,
)
_WORDS = re.compile(r'\\text\{([^{}]*)\}')
_LISTED = re.compile(r',| and | or ')
_POINT = re.compile(r'[A-Z]\s*(?=\(.*,.*\)$)')  # P(3,4).
RELATIONS = {
  '=': '=',
  '<': '<',
  '>': '>',
  r'\le': '<=',
  r'\ge': '>=',
  r'\ne': '!=',
  r'\in': 'in',
  r'\approx': '~',
  r'\equiv': '==',
}


@dataclasses.dataclass(frozen=True)
class Scalar:
  """An expression, a number or words."""

  text: str


@dataclasses.dataclass(frozen=True)
class Several:
  """Answers side by side, in any order unless they are named."""

  items: tuple
  word: str  # What separates them: ',', 'and' or 'or'.


@dataclasses.dataclass(frozen=True)
class Braces:
  """A set that is listed."""

  items: tuple


@dataclasses.dataclass(frozen=True)
class Group:
  """A tuple or an interval, which are written alike."""

  opening: str
  closing: str
  items: tuple


@dataclasses.dataclass(frozen=True)
class Union:
  """Sets joined by cups."""

  items: tuple


@dataclasses.dataclass(frozen=True)
class Matrix:
  """Rows of entries."""

  rows: tuple


@dataclasses.dataclass(frozen=True)
class Relation:
  """Sides and the signs between them; one sign less than sides."""

  sides: tuple[str, ...]
  signs: tuple[str, ...]


def is_tuple(form: Form) -> bool:
  """Returns whether its brackets are those of a tuple."""
  return isinstance(form, Group) and form.opening + form.closing == '()'


Form = Scalar | Several | Braces | Group | Union | Matrix | Relation


def split(
  text: str, separators: tuple[str, ...]
) -> tuple[list[str], list[str]]:
  """Returns the parts between separators outside brackets, and those.

  Args:
    text: tidy.
    separators: single signs, commands, or the words 'and' and 'or'.
  """
  parts, found, start, level, bars = [], [], 0, 0, 0
  words = {match.start(): match for match in _AND_OR.finditer(text)}
  skip = 0
  for token in _TOKEN.finditer(text):
    sign = token.group()
    if token.start() < skip:
      continue
    if sign in OPEN or sign == r'\{' or sign.startswith(r'\begin{'):
      level += 1
    elif sign in CLOSE or sign == r'\}' or sign.startswith(r'\end{'):
      level -= 1
    elif sign == '|' and sign not in separators:
      bars += 1
    word = words.get(token.start())
    name = word.group().lower() if word else sign
    if level == 0 and bars % 2 == 0 and name in separators:
      parts.append(text[start : token.start()])
      found.append(name)
      start = skip = word.end() if word else token.end()
  return [*parts, text[start:]], found


def read(text: str) -> Form:
  """Returns the form of a tidy answer."""
  text = notation.ended(text)
  parts, words = split(text, (',', ';', 'and', 'or'))
  parts = [part for part in parts if part.strip()]
  if len(parts) > 1:
    items = [item for part in parts for item in _items(read(part))]
    word = 'or' if 'or' in words else 'and' if set(words) == {'and'} else ','
    return Several(tuple(items), word)
  text = parts[0].strip() if parts else text
  words = _WORDS.fullmatch(text)
  if words and _LISTED.search(words[1]):
    return read(words[1])
  if text == r'\emptyset':
    return Braces(())
  for kind in (_relation, _union, _matrix, _point, _enclosed, _plus_minus):
    form = kind(text)
    if form is not None:
      return form
  return Scalar(text)


def _items(form: Form) -> tuple:
  return form.items if isinstance(form, Several) else (form,)


def _relation(text: str) -> Relation | None:
  sides, signs = split(text, tuple(RELATIONS))
  if not signs:
    return None
  sides = tuple(side.strip() for side in sides)
  return Relation(sides, tuple(RELATIONS[sign] for sign in signs))


def _union(text: str) -> Union | None:
  parts, signs = split(text, (r'\cup',))
  return Union(tuple(read(part) for part in parts)) if signs else None


def _matrix(text: str) -> Matrix | None:
  inner = notation.without_outer_parentheses(text)
  match = _MATRIX.fullmatch(inner)
  if not match or r'\begin' in match['body']:
    return None
  rows = re.split(r'\\\\(?:\s*\[[^\]]*\])?|\\cr(?![A-Za-z])', match['body'])
  rows = [row.replace(r'\hline', '').strip() for row in rows]
  cells = [split(row, ('&',))[0] for row in rows if row]
  return Matrix(tuple(tuple(read(cell) for cell in row) for row in cells))


def _point(text: str) -> Form | None:
  label = _POINT.match(text)
  return _enclosed(text[label.end() :]) if label else None


def _enclosed(text: str) -> Form | None:
  """Returns the form of what one pair of brackets is around, or None."""
  pair = _brackets(text)
  if pair is None:
    return None
  opening, closing = pair
  inner = text[len(opening) : len(text) - len(closing)].strip()
  if opening == '{':  # A group of TeX, which does not show.
    return read(inner) if inner else None
  if opening == r'\{':
    if split(inner, ('|', ':', r'\mid'))[1]:
      return None  # A set by its property.
    form = read(inner) if inner else Several((), ',')
    return Braces(_items(form))
  parts = split(inner, (',', ';'))[0]
  if len(parts) > 1:
    return Group(opening, closing, tuple(read(part) for part in parts))
  return read(inner) if (opening, closing) == ('(', ')') and inner else None


def _brackets(text: str) -> tuple[str, str] | None:
  """Returns the first and the last bracket, if they are a pair."""
  level = 0
  tokens = list(_TOKEN.finditer(text))
  if len(tokens) < 2:
    return None
  first, last = tokens[0].group(), tokens[-1].group()
  if first not in ('(', '[', '{', r'\{') or last not in (')', ']', '}', r'\}'):
    return None
  if (first in ('{', r'\{')) != (last in ('}', r'\}')):
    return None
  for token in tokens:
    sign = token.group()
    level += sign in ('(', '[', '{', r'\{')
    level -= sign in (')', ']', '}', r'\}')
    if level == 0:
      return (first, last) if token.end() == len(text) else None
  return None


def _plus_minus(text: str) -> Several | None:
  if not re.search(r'\\(?:pm|mp)(?![A-Za-z])', text):
    return None
  both = []
  for plus, minus in (('+', '-'), ('-', '+')):
    one = re.sub(r'\\pm(?![A-Za-z])', plus, text)
    both.append(re.sub(r'\\mp(?![A-Za-z])', minus, one).strip().lstrip('+'))
  return Several(tuple(read(one) for one in both), 'or')
