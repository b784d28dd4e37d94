r"""Grades mathematics: is the attempt's final answer the oracle's?

`answers` finds the answer, `notation` spells it, `forms` takes it apart, and
`values` compares the expressions. What counts as equal is written down, with
examples, in docs/grading.md. Whatever is not understood is wrong: a right
answer that is refused costs one reward, a wrong one that is accepted teaches.
"""

from __future__ import annotations

import re

from score_jax.graders import (
  answers,
  forms,
  notation,
  parsing,
  rationals,
  reals,
  scalars,
  values,
)
from score_jax.graders.forms import (
  Braces,
  Form,
  Group,
  Matrix,
  Relation,
  Scalar,
  Several,
  Union,
)
from score_jax.problem import Outcome, Problem, Verdict

LONGEST = 1000  # Characters of an answer that is more than compared by letter.
DEEPEST = 25  # Brackets in brackets; parsers recurse.
MOST = 64  # Items of a list: each is compared with each.
SHOWN = 500  # Characters of an answer that the verdict keeps.
# What programs write where they have found nothing.
NOTHING = {'None', 'nan', 'NaN', 'NAN', 'null', 'NULL', 'N/A'}

_FLIPPED = {'<': '>', '>': '<', '<=': '>=', '>=': '<='}
_NAME = re.compile(
  r'(?:\\(?!pi|infty|frac|sqrt|text)[A-Za-z]+|[A-Za-z])(?:_(?:\w|\{[^{}]*\}))?'
  r"(?:'|\^\{?-1\}?(?=\())*(?:\([-A-Za-z\\, \d./]+\))?"
  r'|(?:m?\s*\\(?:angle|triangle|overline)\s*\{?\s*)?\|?[A-Z]{1,4}\|?\}?'
  r'|\|[a-z]\||\\frac\{[A-Z]{1,3}\}\{[A-Z]{1,3}\}'
  r'|[A-Z]{1,3}(?:_\{?\w+\}?)?\s*[:/]\s*[A-Z]{1,3}(?:_\{?\w+\}?)?'
  r'|\\text\{[^{}]*\}|[A-Za-z]{3,20}(?: [A-Za-z]{2,20}){0,3}'
)
_OPTION = re.compile(
  r'^(?:\\text\s*\{\s*)?(?:(?:[Oo]ption|[Cc]hoice)\s*)?\(?([A-Z])[).:]?\s*\}?$'
)
_NAMES = re.compile(r'\(\s*[A-Za-z]\s*(?:,\s*[A-Za-z]\s*)+\)')
_LETTER = re.compile(r'(?<![A-Za-z\\])[A-Za-z]')
_COMMAND = re.compile(r'\\(?:begin|end)\{\w+\}|\\[A-Za-z]+')
_BOUND = re.compile(r'\\(?:lim|sum|prod)\s*_\s*\{\s*([A-Za-z])')


def grade(problem: Problem, text: str) -> Verdict:
  """Returns the verdict on an attempt whose last words are its answer.

  Args:
    problem: its `answer` is LaTeX or plain text, with or without `$` or a box.
    text: the attempt.
  """
  answer = answers.final(text)
  if answer is None:
    return Verdict(Outcome.UNPARSED, '')
  right = same_answer(stated(problem.answer), answer)
  return Verdict(Outcome.RIGHT if right else Outcome.WRONG, answer[:SHOWN])


def equal(gold: str, text: str) -> bool:
  """Returns whether an attempt's final answer is the oracle's."""
  return grade(Problem('', '', gold, ''), text).outcome == Outcome.RIGHT


def stated(gold: str) -> str:
  """Returns the oracle's answer, out of its box or its solution if it has one."""
  if 'boxed' in gold or len(gold) > answers.LINE:
    return answers.final(gold) or ''
  return answers.unwrapped(gold)


def same_answer(gold: str, answer: str) -> bool:
  """Returns whether an answer is the oracle's; both without their sentences."""
  if not _has_substance(gold) or {gold.strip(), answer.strip()} & NOTHING:
    return False
  ours, theirs = _without_parentheses(gold), _without_parentheses(answer)
  if not (_is_readable(ours) and _is_readable(theirs)):
    return ours == theirs and len(ours) > 0
  return any(
    _same(one, other) or _same_reals(one, other)
    for one in _readings(ours)
    for other in _readings(theirs)
  )


def _same_reals(gold: Form, answer: Form) -> bool:
  """Returns whether both are one set of numbers, and one says that it is."""
  if reals.is_plain(gold) and reals.is_plain(answer):
    return False
  one, other = reals.read(gold), reals.read(answer)
  return bool(
    one
    and other
    and _same_name(one[0], other[0])
    and reals.same(one[1], other[1])
  )


def _has_substance(text: str) -> bool:
  return bool(re.search(r'[^\W_]|[∞∅]|\\\{\s*\\\}', text))


def _without_parentheses(text: str) -> str:
  text = _OPTION.sub(r'\1', text.strip())
  inner = notation.without_outer_parentheses(text)
  if inner == text.strip() or len(inner) > LONGEST:
    return inner
  several = len(forms.split(inner, (',', ';'))[0]) > 1
  return f'({inner})' if several else inner


def _is_readable(text: str) -> bool:
  return len(text) <= LONGEST and notation.depth(text) <= DEEPEST


def _readings(text: str) -> list[Form]:
  """Returns what it may be: in 1,234 the comma may separate either."""
  tidy = notation.tidy(text)
  return [forms.read(way) for way in {notation.join_thousands(tidy), tidy}]


def _same(gold: Form, answer: Form) -> bool:
  """Returns whether two forms are equal; the pairs that can be, case by case."""
  gold, answer = _spread(gold), _spread(answer)
  if isinstance(gold, Relation) or isinstance(answer, Relation):
    return _same_relation(gold, answer)
  match gold, answer:
    case Scalar(), Scalar():
      return scalars.same(gold.text, answer.text)
    case Several(), Several():
      return _same_list(gold.items, answer.items)
    case Braces(), Braces():
      return _same_set(gold.items, answer.items)
    case (Several(), Braces()) | (Braces(), Several()):
      return _same_set(gold.items, answer.items)
    case (Several(), Group()) | (Group(), Several()):
      return _is_tuple(gold, answer) and _in_order(
        _by_name(gold.items), _by_name(answer.items)
      )
    case Group(), Group():
      brackets = (gold.opening, gold.closing)
      return brackets == (answer.opening, answer.closing) and _in_order(
        gold.items, answer.items
      )
    case Union(), Union():
      return _same_set(gold.items, answer.items)
    case (Union(), Several()) | (Several(), Union()):
      return _same_set(_joined(gold), _joined(answer))
    case Matrix(), Matrix():
      return len(gold.rows) == len(answer.rows) and all(
        map(_in_order, gold.rows, answer.rows)
      )
    case (Scalar(), Braces()) | (Braces(), Scalar()):
      return _same_set(_listed(gold), _listed(answer))
    case (Matrix(), Scalar()) | (Scalar(), Matrix()):
      return _same_computed_matrix(gold, answer)
  return False


def _listed(form: Form) -> tuple:
  return form.items if isinstance(form, Braces) else (form,)


def _is_tuple(gold: Form, answer: Form) -> bool:
  """Whether the brackets are those of a tuple, which may be left out."""
  return forms.is_tuple(gold if isinstance(gold, Group) else answer)


def _in_order(gold: tuple, answer: tuple) -> bool:
  return len(gold) == len(answer) and all(map(_same, gold, answer))


def _same_list(gold: tuple, answer: tuple) -> bool:
  """Compares in any order, but for values whose names are left out."""
  if all(isinstance(item, Group) for item in (*gold, *answer)):
    return _same_set(gold, answer)  # Points: one listed twice is still one.
  if len(gold) != len(answer) or len(gold) > MOST:
    return False
  names = [{_name(item) for item in items} for items in (gold, answer)]
  if any(
    len(one - {''}) > 1 and other == {''} for one, other in (names, names[::-1])
  ):
    return _in_order(_by_name(gold), _by_name(answer))
  left = list(answer)
  for item in gold:
    found = next(
      (i for i, other in enumerate(left) if _same(item, other)), None
    )
    if found is None:
      return False
    left.pop(found)
  return True


def _same_set(gold: tuple, answer: tuple) -> bool:
  if max(len(gold), len(answer)) > MOST:
    return False
  return all(any(_same(a, b) for b in answer) for a in gold) and all(
    any(_same(a, b) for a in gold) for b in answer
  )


def _joined(form: Form) -> tuple:
  """Returns the sets of a union, or of inequalities with 'or' between them."""
  if isinstance(form, Union):
    return form.items
  sets = [_interval(item) for item in form.items]
  if form.word != 'or' or None in sets or len({name for name, _ in sets}) > 1:
    return ()
  return tuple(group for _, group in sets)


# Relations.


def _same_relation(gold: Form, answer: Form) -> bool:
  gold, answer = _exact_part(gold), _exact_part(answer)
  if isinstance(gold, Relation) and isinstance(answer, Relation):
    return _same_relations(gold, answer)
  if not isinstance(gold, Relation) and not isinstance(answer, Relation):
    return _same(gold, answer)
  relation, other = (
    (gold, answer) if isinstance(gold, Relation) else (answer, gold)
  )
  named = _assigned(relation) or _interval(relation)
  if named is None:
    return False
  value = named[1]
  return _same(value, other) if relation is gold else _same(other, value)


def _same_relations(gold: Relation, answer: Relation) -> bool:
  sides = [tuple(map(forms.read, form.sides)) for form in (gold, answer)]
  if gold.signs == answer.signs and _in_order(*sides):
    return True
  flipped = tuple(_FLIPPED.get(sign, sign) for sign in reversed(answer.signs))
  if gold.signs == flipped and _in_order(sides[0], sides[1][::-1]):
    return True
  one, other = (_assigned(form) or _interval(form) for form in (gold, answer))
  if one and other and _same_name(one[0], other[0]):
    return _same(one[1], other[1])
  return _is_multiple(gold, answer)


def _exact_part(form: Form) -> Form:
  """Returns what stands before an approximation, unless that is a name."""
  if not isinstance(form, Relation) or '~' not in form.signs:
    return form
  count = form.signs.index('~') + 1
  if count == 1:
    if _is_name(form.sides[0]):
      signs = tuple('=' if sign == '~' else sign for sign in form.signs)
      return Relation(form.sides, signs)
    return forms.read(form.sides[0])
  return Relation(form.sides[:count], form.signs[: count - 1])


def _by_name(items: tuple) -> tuple:
  """Returns values in the order of their names, if those are as x, y, z are.

  Values without names are meant in that order; of names such as m and b, in
  the order in which they stand.
  """
  names = [_name(item) for item in items]
  letters = ''.join(sorted(names))
  if len(letters) == len(items) and letters in 'abcdefghijklmnopqrstuvwxyz':
    return tuple(sorted(items, key=_name))
  return items


def _name(form: Form) -> str:
  named = _assigned(form) if isinstance(form, Relation) else None
  return scalars.squeezed(named[0]) if named else ''


def _same_name(one: str, other: str) -> bool:
  return (
    not one or not other or scalars.squeezed(one) == scalars.squeezed(other)
  )


def _spread(form: Form) -> Form:
  """Returns x = 1, y = 2 for (x,y) = (1,2), and other forms as they are."""
  if not isinstance(form, Relation) or form.signs != ('=',):
    return form
  names, values_ = form.sides
  if not (_NAMES.fullmatch(names) and forms.is_tuple(forms.read(values_))):
    return form
  pair = [forms.split(side.strip()[1:-1], (',', ';'))[0] for side in form.sides]
  if len(pair[0]) != len(pair[1]):
    return form
  return Several(
    tuple(
      Relation((name.strip(), value.strip()), ('=',))
      for name, value in zip(*pair, strict=True)
    ),
    ',',
  )


def _is_name(text: str) -> bool:
  return bool(_NAME.fullmatch(text) or _NAMES.fullmatch(text))


def _assigned(form: Form) -> tuple[str, Form] | None:
  """Returns (name, value) of x = 5, x \\in S or a sum worked out, or None."""
  if not isinstance(form, Relation):
    return None
  first, last = form.sides[0], form.sides[-1]
  if form.signs == ('in',) and _is_name(first):
    return first, forms.read(last)
  if set(form.signs) != {'='}:
    return None
  if _is_name(first):
    return first, forms.read(last)
  return ('', forms.read(last)) if _is_worked_out(form.sides) else None


def _is_worked_out(sides: tuple[str, ...]) -> bool:
  """Whether an equation is between values, and none is known to be false."""
  for side in sides[:-1]:
    bound = set(_BOUND.findall(side)) | {'e', 'i', 'd'}
    if set(_LETTER.findall(_COMMAND.sub(' ', side))) - bound:
      return False
    try:
      if not values.same(side, sides[-1]):
        return False
    except parsing.Undecided:
      continue  # 17 \bmod 5 = 2: what it is on the left cannot be computed.
  return True


def _interval(form: Form) -> tuple[str, Form] | None:
  """Returns (name, interval) of 1 < x \\le 2, or None."""
  if not isinstance(form, Relation) or not set(form.signs) <= set(_FLIPPED):
    return None
  sides, signs = form.sides, form.signs
  if signs[0] in ('>', '>='):
    sides, signs = sides[::-1], tuple(_FLIPPED[sign] for sign in signs[::-1])
  if not set(signs) <= {'<', '<='} or len(sides) > 3:
    return None
  if len(sides) == 2:
    if _is_name(sides[0]):
      sides, signs = (r'-\infty', *sides), ('<', *signs)
    else:
      sides, signs = (*sides, r'\infty'), (*signs, '<')
  low, name, high = sides
  ends = rationals.number(low), rationals.number(high)
  if not _is_name(name) or (None not in ends and ends[0] >= ends[1]):
    return None
  opening = '(' if signs[0] == '<' else '['
  closing = ')' if signs[1] == '<' else ']'
  return name, Group(opening, closing, (forms.read(low), forms.read(high)))


def _is_multiple(gold: Relation, answer: Relation) -> bool:
  """Whether two relations differ by a factor, as 2x = 4y and x = 2y do."""
  if len(gold.signs) != 1 or len(answer.signs) != 1:
    return False
  try:
    differences = [
      tuple(parsing.expression(side) for side in form.sides)
      for form in (gold, answer)
    ]
    ratio = values.ratio(*differences)
  except parsing.Undecided:
    return False
  if ratio is None:
    return False
  sign = answer.signs[0] if ratio > 0 else _FLIPPED.get(answer.signs[0])
  return gold.signs[0] == (sign or answer.signs[0])


def _same_computed_matrix(gold: Form, answer: Form) -> bool:
  """Compares a matrix with a sum or product of matrices."""
  matrix, scalar = (
    (gold, answer) if isinstance(gold, Matrix) else (answer, gold)
  )
  try:
    rows = values.matrix(scalar.text)
  except parsing.Undecided:
    return False
  if [len(row) for row in rows] != [len(row) for row in matrix.rows]:
    return False
  return all(
    isinstance(form, Scalar) and values.same_as(form.text, value)
    for row, line in zip(matrix.rows, rows, strict=True)
    for form, value in zip(row, line, strict=True)
  )
