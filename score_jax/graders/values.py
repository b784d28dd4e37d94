r"""What a number or an expression is worth: exactly, or at a few points.

Plain numbers are fractions and compared exactly. Everything else is read by
the LaTeX parser of Math-Verify and computed to 120 digits, at fixed points
where it has variables: two expressions that agree there to 90 digits are
equal. Nothing is simplified, so nothing hangs; a number too large to compute
is refused before it is computed.
"""

from __future__ import annotations

import functools
import math
import random
import re
from fractions import Fraction
from typing import Any

import mpmath
import sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy

_DIGITS = 1000  # More are no answer, and Python may refuse to read them.
_EXPONENT = 400  # Of ten, in a plain number.
_PLAIN = re.compile(r'([-+]?)\s*(\d*)(?:\.(\d*))?')
_REPEATING = re.compile(r'([-+]?)(\d*)\.(\d*)\\overline\s*\{?(\d+)\}?')
_SCIENTIFIC = re.compile(
  r'([-+]?[\d.]+)\s*(?:\\cdot\s*|[xX]\s*)10\s*\^\s*\{?\s*([-+]?\d+)\s*\}?'
  r'|([-+]?[\d.]+)[eE]([-+]?\d+)'
)
_POWER_OF_TEN = re.compile(r'()10\s*\^\s*\{?\s*([-+]?\d+)\s*\}?')
_RATIO = re.compile(r'(.+?)\s*/\s*(.+)')
_FRACTION = re.compile(
  r'([-+]?)\s*(\d*)\s*\\frac\s*\{\s*([-+]?[\d.]+)\s*\}\s*\{\s*([-+]?[\d.]+)\s*\}'
)
_MIXED = re.compile(r'([-+]?)\s*(\d+)\s+(\d+)/(\d+)')


def number(text: str) -> Fraction | None:
  """Returns the exact value of a plain number, or None if it is not one.

  Args:
    text: tidy. 5, -0.5, .5, 3/4, \\frac{3}{4}, 2\\frac{1}{2}, 2 1/2,
      1.2\\cdot10^{5}, 1e5 and 0.\\overline{3} are plain numbers.
  """
  text = text.strip().strip('()').strip() if text.count('(') == 1 else text
  if len(text) > _DIGITS or not any(sign.isdigit() for sign in text):
    return None
  for read in (_decimal, _fraction, _ratio, _scientific, _repeating):
    value = read(text)
    if value is not None:
      return value
  return None


def _decimal(text: str) -> Fraction | None:
  match = _PLAIN.fullmatch(text.strip())
  if not match or not (match[2] or match[3]):
    return None
  after = match[3] or ''
  value = Fraction(int((match[2] or '') + after), 10 ** len(after))
  return -value if match[1] == '-' else value


def _fraction(text: str) -> Fraction | None:
  match = _FRACTION.fullmatch(text) or _MIXED.fullmatch(text)
  if not match:
    return None
  above, below = _decimal(match[3]), _decimal(match[4])
  if above is None or not below:
    return None
  value = above / below
  if match[2]:
    if not 0 < value < 1:
      return None  # 3\frac{9}{2} may be meant as a product.
    value += int(match[2])
  return -value if match[1] == '-' else value


def _ratio(text: str) -> Fraction | None:
  match = _RATIO.fullmatch(text)
  if not match:
    return None
  above, below = (_decimal(part.strip().strip('()')) for part in match.groups())
  return above / below if above is not None and below else None


def _scientific(text: str) -> Fraction | None:
  if match := _POWER_OF_TEN.fullmatch(text):
    digits, exponent = '1', match[2]
  elif match := _SCIENTIFIC.fullmatch(text):
    digits, exponent = match[1] or match[3], match[2] or match[4]
  else:
    return None
  value = _decimal(digits)
  if value is None or len(exponent) > 6 or abs(int(exponent)) > _EXPONENT:
    return None
  return value * Fraction(10) ** int(exponent)


def _repeating(text: str) -> Fraction | None:
  match = _REPEATING.fullmatch(text)
  if not match:
    return None
  sign, whole, fixed, again = match.groups()
  value = Fraction(int((whole + fixed) or 0), 10 ** len(fixed))
  value += Fraction(int(again), 10 ** len(fixed) * (10 ** len(again) - 1))
  return -value if sign == '-' else value


PRECISION = 120  # Decimal digits that are computed.
AGREEMENT = 90  # That must be equal.
POINTS = 4  # At which all variables are positive.
MIXED_POINTS = 3  # At which they have either sign.
_LARGEST = 10**7  # Bits of a power's logarithm: 2^(10^7) is still computed.

# Each may stand for a very long computation or a very large number.
_LEFT_STANDING = re.compile(
  r'\\(?:sum|prod|lim|int|iint|oint|binom|choose)(?![A-Za-z])|!|\\dots|\\ldots'
  r'|\\cdots|\\pmod|\\mod|\\bmod'
)
_BINOMIAL = re.compile(r'\\binom\s*\{(\d{1,3})\}\s*\{(\d{1,3})\}')
_FACTORIAL = re.compile(r'(?<![\d.)}])(\d{1,3})!(?!!)')
_DEGREES = re.compile(r'(\d+(?:\.\d+)?)\s*\^\s*\\circ')
_BASE_OF_LOG = re.compile(r'\\log\s*_\s*(\d)(?!\d)\s*')
# Read as something else than what it says.
_MISREAD = re.compile(
  r'\d\s+\d|\d\s+\.\d|\\text|__|\d[eE][-+]?\d|["\'’]|\.\s*[A-Za-z]'
)


_CONVERSION = ConversionConfig(lowercase_symbols=False)


class Undecided(ValueError):
  """An expression that cannot be computed."""


@functools.lru_cache(maxsize=64)
def expression(text: str) -> Any:
  """Returns the sympy expression that tidy LaTeX stands for.

  Raises:
    Undecided: if it cannot be read, or should not be.
  """

  text = _BINOMIAL.sub(
    lambda found: f'({math.comb(int(found[1]), int(found[2]))})', text
  )
  text = _FACTORIAL.sub(
    lambda found: (
      f'({math.factorial(min(int(found[1]), 200))})'
      if int(found[1]) <= 200
      else found[0]
    ),
    text,
  )
  text = _DEGREES.sub(r'(\\frac{\1\\pi }{180})', text)
  text = _BASE_OF_LOG.sub(r'\\log_{\1} ', text)
  if _LEFT_STANDING.search(text) or _MISREAD.search(text):
    raise Undecided(text)
  try:
    return latex2sympy(
      text, normalization_config=None, conversion_config=_CONVERSION
    )
  except Exception as error:  # Whatever the parser raises on what is no LaTeX.
    raise Undecided(text) from error


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
    constant = all(_close(ratios[0], one) for one in ratios)
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
  if not all(_close(*pair) for pair in pairs):
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
  return _close(one, other)


def _is_finite(value: Any) -> bool:

  return mpmath.isfinite(value)


def _close(one: Any, other: Any) -> bool:

  scale = max(abs(one), abs(other))
  if scale < mpmath.mpf(10) ** (8 - PRECISION):
    return True  # Both are zero but for rounding.
  return abs(one - other) <= scale * mpmath.mpf(10) ** -AGREEMENT


class Point:
  """Values of all variables, the same ones each time."""

  def __init__(self, index: int, signed: bool):
    self._index, self._signed = index, signed

  def __call__(self, name: str) -> Any:
    import mpmath

    draw = random.Random(f'{name} {self._index} {self._signed}')
    value = mpmath.mpf(draw.randrange(10**9, 3 * 10**9)) / 10**9
    return -value if self._signed and draw.random() < 0.7 else value


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


@functools.cache
def _functions() -> dict[str, Any]:

  names = 'sin cos tan cot sec csc asin acos atan sinh cosh tanh floor conj'
  known = {name: getattr(mpmath, name) for name in names.split()}
  return known | {
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
