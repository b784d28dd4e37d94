r"""Which set of real numbers an answer is, however it is written.

    (-\infty,-1) \cup (1,\infty)    |x| > 1    x < -1 \text{ or } x > 1
    \{x \mid x \ne 0\}    \mathbb{R} \setminus \{0\}    x \ne 0

A set is a list of pieces in ascending order, none of which touches the next.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import mpmath

from score_jax.graders import forms, values
from score_jax.graders.forms import (
  Braces,
  Form,
  Group,
  Relation,
  Scalar,
  Several,
  Union,
)
from score_jax.graders.parsing import Undecided

_ALL = re.compile(
  r'\\mathbb\s*\{?R\}?|\\R'
  r'|(?:\\text\s*\{)?\s*(?:the set of )?(?:all )?real(?: number| value)?s?'
  r'(?: of [a-z])?\s*\}?',
  re.IGNORECASE,
)
_BUILT = re.compile(
  r'\\\{\s*([A-Za-z])\s*(?:\\in\s*\\mathbb\s*\{?R\}?\s*)?(?:[|:])\s*(.+)\\\}'
)
_ABSOLUTE = re.compile(r'\|\s*([A-Za-z])\s*(?:([-+])([^|]+))?\|')
_NAME = re.compile(r'[A-Za-z](?:_\w)?')
MOST = 64  # Parts of a set: each end is computed.
_FLIPPED = {'<': '>', '>': '<', '<=': '>=', '>=': '<='}


class Piece(NamedTuple):
  """An interval; of a single number both ends are that number."""

  low: Any
  has_low: bool
  high: Any
  has_high: bool


Set = tuple[Piece, ...]
WHOLE: Set = (Piece(mpmath.mpf('-inf'), False, mpmath.mpf('inf'), False),)


class _NoSet(ValueError):
  """What is no set of real numbers that can be told."""


def read(form: Form) -> tuple[str, Set] | None:
  """Returns (name, set) of an answer, or None if it is no such set.

  The name is that of a variable in it, '' if there is none.
  """
  try:
    with mpmath.workdps(values.PRECISION):
      return _read(form)
  except (_NoSet, Undecided):
    return None


def is_plain(form: Form) -> bool:
  """Returns whether it may as well be something else, as (1,2) or 5."""
  if isinstance(form, Scalar):
    return not (_ALL.fullmatch(form.text) or _BUILT.fullmatch(form.text)) and (
      len(forms.split(form.text, (r'\setminus', r'\cap'))[0]) < 2
    )
  if isinstance(form, Several):
    return not any(isinstance(item, Relation) for item in form.items)
  return not isinstance(form, (Relation, Union))


def same(one: Set, other: Set) -> bool:
  """Returns whether two sets are equal, their ends to `values.AGREEMENT`."""
  with mpmath.workdps(values.PRECISION):
    return len(one) == len(other) and all(
      a.has_low == b.has_low
      and a.has_high == b.has_high
      and _equal(a.low, b.low)
      and _equal(a.high, b.high)
      for a, b in zip(one, other, strict=True)
    )


def _read(form: Form) -> tuple[str, Set]:
  if isinstance(form, (Braces, Union, Several)) and len(form.items) > MOST:
    raise _NoSet(form)
  match form:
    case Scalar():
      return _of_text(form.text)
    case Relation():
      return _of_relation(form)
    case Group():
      return '', _of_brackets(form)
    case Braces():
      return '', _joined([_point(item) for item in form.items])
    case Union():
      parts = [_read(item) for item in form.items]
      return _one_name(parts), _joined([found for _, found in parts])
    case Several():
      return _of_several(form)
  raise _NoSet(form)


def _of_text(text: str) -> tuple[str, Set]:
  if _ALL.fullmatch(text):
    return '', WHOLE
  built = _BUILT.fullmatch(text)
  if built:
    name, found = _read(forms.read(built[2]))
    if name not in ('', built[1]):
      raise _NoSet(text)
    return '', found
  for sign in (r'\setminus', r'\cap'):
    parts, signs = forms.split(text, (sign,))
    if signs:
      first, *others = [_read(forms.read(part)) for part in parts]
      found = first[1]
      for _, other in others:
        other = _outside(other) if sign == r'\setminus' else other
        found = _common(found, other)
      return _one_name([first, *others]), found
  raise _NoSet(text)


def _of_relation(form: Relation) -> tuple[str, Set]:
  sides, signs = form.sides, form.signs
  if signs == ('in',):
    _, found = _read(forms.read(sides[1]))
    return _name(sides[0]), found
  if len(signs) == 1:
    return _of_sign(sides[0], signs[0], sides[1])
  if len(signs) == 2 and set(signs) <= set(_FLIPPED):
    parts = [
      _of_sign(sides[1], _FLIPPED[signs[0]], sides[0]),
      _of_sign(sides[1], signs[1], sides[2]),
    ]
    return _one_name(parts), _common(parts[0][1], parts[1][1])
  raise _NoSet(form)


def _of_sign(left: str, sign: str, right: str) -> tuple[str, Set]:
  """Returns (name, set) of the numbers that stand in one relation."""
  absolute = _ABSOLUTE.fullmatch(left.strip())
  if absolute is None and not _NAME.fullmatch(left.strip()):
    if sign not in (*_FLIPPED, '=', '!=') or not _is_variable(right):
      raise _NoSet(left)
    return _of_sign(right, _FLIPPED.get(sign, sign), left)
  if absolute is None and sign == '!=':
    return left.strip(), _outside(_points(right))
  bound = _number(right)
  if absolute is None:
    return left.strip(), _beside(bound, sign)
  shift = _number(absolute[3]) if absolute[3] else mpmath.mpf(0)
  middle = shift if absolute[2] == '-' else -shift
  return absolute[1], _around(middle, sign, bound)


def _is_variable(text: str) -> bool:
  text = text.strip()
  return bool(_NAME.fullmatch(text) or _ABSOLUTE.fullmatch(text))


def _beside(bound: Any, sign: str) -> Set:
  low, high = mpmath.mpf('-inf'), mpmath.mpf('inf')
  here = Piece(bound, True, bound, True)
  if mpmath.isinf(bound):
    raise _NoSet('a relation with infinity')
  pieces = {
    '<': (Piece(low, False, bound, False),),
    '<=': (Piece(low, False, bound, True),),
    '>': (Piece(bound, False, high, False),),
    '>=': (Piece(bound, True, high, False),),
    '=': (here,),
  }
  if sign not in pieces:
    raise _NoSet(sign)
  return pieces[sign]


def _around(middle: Any, sign: str, radius: Any) -> Set:
  """Returns the numbers whose distance from one stands in a relation."""
  if mpmath.isinf(radius) or radius < 0 or sign not in _FLIPPED:
    raise _NoSet(sign)
  inside = Piece(middle - radius, False, middle + radius, False)
  closed = Piece(middle - radius, True, middle + radius, True)
  return {
    '<': _joined([(inside,)]) if radius else (),
    '<=': (closed,),
    '>': _outside((closed,)),
    '>=': _outside((inside,)) if radius else WHOLE,
  }[sign]


def _of_brackets(form: Group) -> Set:
  if len(form.items) != 2 or {form.opening, form.closing} - set('()[]'):
    raise _NoSet(form)
  low, high = (_number(_text(item)) for item in form.items)
  has_low, has_high = form.opening == '[', form.closing == ']'
  if not low < high or (mpmath.isinf(low) and has_low):
    raise _NoSet(form)
  if mpmath.isinf(high) and has_high:
    raise _NoSet(form)
  return (Piece(low, has_low, high, has_high),)


def _of_several(form: Several) -> tuple[str, Set]:
  """Returns the set of x < -1 or x > 1, or of x > 1 and x < 3.

  A comma between them may mean either: what has no number in common can only
  be meant as the one or the other. Behind x \\ne 1, 2 stand further numbers.
  """
  first, *others = form.items
  excludes = isinstance(first, Relation) and first.signs == ('!=',)
  if excludes and all(isinstance(item, Scalar) for item in others):
    name, found = _read(first)
    out = _joined([_point(item) for item in others])
    return name, _common(found, _outside(out))
  groups = form.word == 'or' and all(isinstance(i, Group) for i in form.items)
  if not (groups or all(isinstance(item, Relation) for item in form.items)):
    raise _NoSet(form)
  parts = [_read(item) for item in form.items]
  name, found = _one_name(parts), parts[0][1]
  for _, other in parts[1:]:
    found = _common(found, other)
  both = _joined([part for _, part in parts])
  if form.word == 'or' or (form.word == ',' and not found):
    return name, both
  return name, found


def _one_name(parts: list[tuple[str, Set]]) -> str:
  names = {name for name, _ in parts if name}
  if len(names) > 1:
    raise _NoSet(names)
  return names.pop() if names else ''


def _name(text: str) -> str:
  if not _NAME.fullmatch(text.strip()):
    raise _NoSet(text)
  return text.strip()


def _text(form: Form) -> str:
  if not isinstance(form, Scalar):
    raise _NoSet(form)
  return form.text


def _points(text: str) -> Set:
  """Returns the numbers of \\pm 2, or the only one of an expression."""
  form = forms.read(text)
  items = form.items if isinstance(form, Several) else (form,)
  return _joined([_point(item) for item in items])


def _point(form: Form) -> Set:
  number = _number(_text(form))
  if mpmath.isinf(number):
    raise _NoSet(form)
  return (Piece(number, True, number, True),)


def _number(text: str) -> Any:
  """Returns the value of an expression without variables, or an infinity."""
  text = text.strip()
  infinite = re.fullmatch(r'([-+]?)\s*\\infty', text)
  if infinite:
    return mpmath.mpf('-inf' if infinite[1] == '-' else 'inf')
  return values.constant(text)


def _equal(one: Any, other: Any) -> bool:
  if mpmath.isinf(one) or mpmath.isinf(other):
    return one == other
  return values.close(one, other)


def _joined(sets: list[Set]) -> Set:
  """Returns the union of sets, in order and without overlaps."""
  pieces = sorted(
    (piece for found in sets for piece in found),
    key=lambda piece: (piece.low, not piece.has_low),
  )
  found: list[Piece] = []
  for piece in pieces:
    last = found[-1] if found else None
    if last is None or not _touches(last, piece):
      found.append(piece)
    elif (piece.high, piece.has_high) > (last.high, last.has_high):
      found[-1] = last._replace(high=piece.high, has_high=piece.has_high)
  return tuple(found)


def _touches(left: Piece, right: Piece) -> bool:
  if _equal(left.high, right.low):
    return left.has_high or right.has_low
  return right.low < left.high


def _outside(part: Set) -> Set:
  """Returns the numbers of the whole line that are not in a set."""
  found, low, has_low = [], WHOLE[0].low, False
  for piece in part:
    if low < piece.low or (has_low and piece.has_low is False):
      found.append(Piece(low, has_low, piece.low, not piece.has_low))
    low, has_low = piece.high, not piece.has_high
  if low < WHOLE[0].high:
    found.append(Piece(low, has_low, WHOLE[0].high, False))
  return tuple(found)


def _common(one: Set, other: Set) -> Set:
  """Returns the intersection, by the complements."""
  outside = _joined([_outside(one), _outside(other)])
  return _outside(outside)
