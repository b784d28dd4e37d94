"""What a plain number is worth: exactly, as a fraction."""

from __future__ import annotations

import re
from fractions import Fraction

_DIGITS = 1000  # More are no answer, and Python may refuse to read them.
_EXPONENT = 400  # Of ten, in a plain number.
_PLAIN = re.compile(r'([-+]?)\s*(\d*)(?:\.(\d*))?')
_REPEATING = re.compile(
  r'([-+]?)(\d*)\.(\d*)(?:\\overline\s*\{?(\d+)\}?|\((\d+)\))'
)
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
  text = text.strip()
  if text.startswith('(') and text.count('(') == 1:
    text = text.strip('()').strip()
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
  sign, whole, fixed, over, inside = match.groups()
  again = over or inside
  value = Fraction(int((whole + fixed) or 0), 10 ** len(fixed))
  value += Fraction(int(again), 10 ** len(fixed) * (10 ** len(again) - 1))
  return -value if sign == '-' else value
