r"""What an expression is worth, at a few points if it has variables.

It is computed to 120 digits: two expressions that agree to 90 digits at fixed
points are equal. Nothing is simplified, so nothing hangs; a number too large to
compute is refused before it is computed.
"""

from __future__ import annotations

import functools
import random
from typing import Any

import mpmath
import sympy

from score_jax.graders.parsing import expression, Undecided

PRECISION = 120  # Decimal digits that are computed.
AGREEMENT = 90  # That must be equal.
POINTS = 4  # At which all variables are positive.
MIXED_POINTS = 3  # At which they have either sign.
_LARGEST_FACTORIAL = 1000
_LARGEST = 10**7  # Bits of a power's logarithm: 2^(10^7) is still computed.


def same(one: str, other: str) -> bool:
  """Returns whether two expressions are equal wherever both have a value.

  Raises:
    Undecided: if one cannot be computed.
  """
  first, second = expression(one), expression(other)
  return agree(lambda at: evaluate(first, at), lambda at: evaluate(second, at))


def same_as(text: str, value: Any) -> bool:
  """Returns whether an expression has the value of a sympy expression."""
  one = expression(text)
  return agree(lambda at: evaluate(one, at), lambda at: evaluate(value, at))


def constant(text: str) -> Any:
  """Returns the real number that an expression without variables is worth.

  Raises:
    Undecided: if it has variables, or is worth none.
  """
  found = expression(text)
  undefined = sympy.core.function.AppliedUndef
  if getattr(found, 'free_symbols', True) or found.atoms(undefined):
    raise Undecided(text)
  value = mpmath.mpc(evaluate(found, Point(0, signed=False)))
  if not mpmath.isfinite(value) or value.imag:
    raise Undecided(text)
  return value.real


def matrix(text: str) -> list[list[Any]]:
  """Returns the entries of a small sum or product of matrices.

  Raises:
    Undecided: if it is none.
  """
  if len(text) > 400 or r'\begin{' not in text or '^' in text:
    raise Undecided(text)
  found = expression(text)
  if not getattr(found, 'is_Matrix', False) or not hasattr(found, 'doit'):
    raise Undecided(text)
  found = found.doit()
  if not hasattr(found, 'tolist'):
    raise Undecided(text)
  return found.tolist()


def ratio(first: tuple[Any, Any], second: tuple[Any, Any]) -> Any:
  """Returns (a - b) / (c - d) where it is a real constant, or None.

  Raises:
    Undecided: if that cannot be computed.
  """

  def difference(sides, at):
    return evaluate(sides[0], at) - evaluate(sides[1], at)

  points = [Point(i, signed) for signed in (False, True) for i in range(3)]
  ratios = []
  with mpmath.workdps(PRECISION):
    for at in points:
      one, other = difference(first, at), difference(second, at)
      if not (_is_finite(one) and _is_finite(other)) or not one or not other:
        return None
      ratios.append(one / other)
    constant = all(close(ratios[0], one) for one in ratios)
    real = abs(mpmath.im(ratios[0])) < mpmath.mpf(10) ** -AGREEMENT
    return mpmath.re(ratios[0]) if constant and real else None


def agree(first, second) -> bool:
  """Returns whether two functions of a point are equal.

  Points at which all variables are positive decide, and others where both
  values are real: there the conventions for roots and logarithms agree.
  """
  positive = [Point(i, signed=False) for i in range(POINTS)]
  pairs = [(first(at), second(at)) for at in positive]
  pairs = [pair for pair in pairs if all(map(_is_finite, pair))]
  if len(pairs) < POINTS - 1:
    raise Undecided('Too few points at which both have a value.')
  if not all(close(*pair) for pair in pairs):
    return False
  mixed = [Point(i, signed=True) for i in range(MIXED_POINTS)]
  return all(_close_if_real(first, second, at) for at in mixed)


def _close_if_real(first, second, at: Point) -> bool:
  try:
    one, other = first(at), second(at)
  except Undecided:
    return True
  if not (_is_finite(one) and _is_finite(other)):
    return True
  if abs(one.imag) + abs(other.imag) > 10.0**-AGREEMENT:
    return True
  return close(one, other)


def _is_finite(value: Any) -> bool:

  return mpmath.isfinite(value)


def close(one: Any, other: Any) -> bool:
  """Returns whether two finite numbers are equal but for rounding."""

  scale = max(abs(one), abs(other))
  if scale < mpmath.mpf(10) ** (8 - PRECISION):
    return True  # Both are zero but for rounding.
  return abs(one - other) <= scale * mpmath.mpf(10) ** -AGREEMENT


class Point:
  """Values of all variables, the same ones each time."""

  def __init__(self, index: int, signed: bool):
    self._index, self.signed = index, signed

  def __call__(self, name: str) -> Any:
    draw = random.Random(f'{name} {self._index} {self.signed}')
    value = mpmath.mpf(draw.randrange(10**9, 3 * 10**9)) / 10**9
    return -value if self.signed and draw.random() < 0.7 else value


def evaluate(node: Any, at: Point) -> Any:
  """Returns an expression's value as a complex number of PRECISION digits.

  Raises:
    Undecided: for what is not known here, or would take too long.
  """

  with mpmath.workdps(PRECISION):
    try:
      return mpmath.mpmathify(_value(node, at))
    except (ZeroDivisionError, OverflowError, ValueError, TypeError) as error:
      if isinstance(error, Undecided):
        raise
      return mpmath.nan
    except (RecursionError, ArithmeticError) as error:
      raise Undecided(type(error).__name__) from error


def _value(node: Any, at: Point) -> Any:

  if node.is_Rational:
    return mpmath.mpf(int(node.p)) / int(node.q)
  if node.is_Float:
    return mpmath.mpf(str(node))
  if node.is_Symbol:
    return mpmath.mpc(0, 1) if node.name == 'i' else at(node.name)
  constant = {
    sympy.pi: mpmath.pi, sympy.E: mpmath.e, sympy.I: mpmath.mpc(0, 1)
  }.get(node)  # fmt: skip
  if constant is not None:
    return +constant
  if not node.args or not hasattr(node, 'func'):
    raise Undecided(str(type(node)))
  if isinstance(node, sympy.core.function.AppliedUndef):
    return at(str(node))
  values = [_value(argument, at) for argument in node.args]
  if at.signed and not _is_real_there(node, values):
    return mpmath.nan
  if node.is_Add:
    return mpmath.fsum(values)
  if node.is_Mul:
    return mpmath.fprod(values)
  if node.is_Pow:
    return _power(*values)
  function = _functions().get(type(node).__name__)
  if function is None:
    raise Undecided(type(node).__name__)
  return function(*values)


def _is_real_there(node: Any, values: list[Any]) -> bool:
  """Returns False for a root or a logarithm of a negative number.

  Which value it has is a convention, and identities such as that of the root
  of a product hold where there are none.
  """
  real = all(not mpmath.im(value) for value in values)
  if node.is_Pow and real:
    whole = mpmath.isint(values[1])
    return whole or mpmath.re(values[0]) >= 0
  if type(node).__name__ == 'log' and real:
    return mpmath.re(values[0]) > 0
  return True


def _power(base: Any, exponent: Any) -> Any:

  if not base:
    if mpmath.re(exponent) > 0:
      return mpmath.mpf(0)
    return mpmath.nan
  if abs(exponent) * (abs(mpmath.log(abs(base), 2)) + 1) > _LARGEST:
    raise Undecided('A power that is too large.')
  return mpmath.power(base, exponent)


def _exp(exponent: Any) -> Any:

  return _power(+mpmath.e, exponent)


def _log(value: Any, base: Any = None) -> Any:

  if not value:
    return mpmath.nan
  return mpmath.log(value) / (1 if base is None else mpmath.log(base))


def _factorial(value: Any) -> Any:
  """Returns it between whole numbers as well, where identities hold alike."""
  if abs(value) > _LARGEST_FACTORIAL:
    raise Undecided('A factorial that is too large.')
  return mpmath.gamma(value + 1)


def _binomial(above: Any, below: Any) -> Any:
  if max(abs(above), abs(below)) > _LARGEST_FACTORIAL:
    raise Undecided('A binomial coefficient that is too large.')
  return mpmath.binomial(above, below)


@functools.cache
def _functions() -> dict[str, Any]:

  names = 'sin cos tan cot sec csc asin acos atan sinh cosh tanh floor conj'
  known = {name: getattr(mpmath, name) for name in names.split()}
  return known | {
    'factorial': _factorial,
    'binomial': _binomial,
    'acot': mpmath.acot,
    'asec': mpmath.asec,
    'acsc': mpmath.acsc,
    'ceiling': mpmath.ceil,
    'conjugate': mpmath.conj,
    'Abs': abs,
    'exp': _exp,
    'log': _log,
    're': mpmath.re,
    'im': mpmath.im,
    'Max': lambda *values: max(values),
    'Min': lambda *values: min(values),
  }
