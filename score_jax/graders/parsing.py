r"""Which expression tidy LaTeX stands for.

It is read by the parser of Math-Verify. What that would misread is written out
first, or refused: what is not understood is wrong.
"""

from __future__ import annotations

import functools
import math
import re
from typing import Any

from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy

from score_jax.graders import notation

# Each may stand for a very long computation or a very large number.
_LEFT_STANDING = re.compile(
  r'\\(?:sum|prod|lim|int|iint|oint|choose)(?![A-Za-z])|!!|\\dots|\\ldots'
  r'|\\cdots|\\pmod|\\mod|\\bmod'
)
_BINOMIAL = re.compile(r'\\binom\s*\{(\d{1,3})\}\s*\{(\d{1,3})\}')
_FACTORIAL = re.compile(r'(?<![\d.)}])(\d{1,3})!(?!!)')
_DEGREES = re.compile(r'(\d+(?:\.\d+)?)\s*\^\s*\\circ')
_BASE_OF_LOG = re.compile(r'\\log\s*_\s*(\d)(?!\d)\s*')
# The parser adds what stands side by side, as in a mixed number.
_FACTORS = re.compile(
  r'(?<=\))\s*(?=\(|\d|\\frac)|(?<![\w^.\\}])(\d+(?:\.\d+)?)\s*(?=\()'
)
_MIXED_WITHIN = re.compile(
  r'(?<![\w^.\\}])(\d+)\s*\\frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}'
)
_FUNCTION = re.compile(
  r'\\(?:(?:arc)?(?:sin|cos|tan)h?|cot|sec|csc|ln|log|exp)(?![A-Za-z])'
  r'(?:\s*[_^]\s*(?:\{[^{}]*\}|\w))*\s*'
)
# What ends the argument of a function that has no brackets around it.
_END = re.compile(
  r'\\(?:cdot|pm|mp|sin|cos|tan|cot|sec|csc|arc|ln|log|exp|begin|end|,)'
)
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
  text = _with_brackets(text)
  text = _MIXED_WITHIN.sub(_sum_of_mixed, text)
  text = _FACTORS.sub(lambda found: f'{found[1] or ""}\\cdot ', text)
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


def _with_brackets(text: str) -> str:
  """Returns the text with brackets around the arguments of functions.

  The parser would read \\sin x \\cdot 2 as the sine of a product.

  Raises:
    Undecided: for \\sin x / 2, which may mean either.
  """
  for function in reversed(list(_FUNCTION.finditer(text))):
    start = function.end()
    end = _end_of_argument(text, start)
    inside = text[start:end].strip()
    if inside.startswith('{'):  # Braces that do not show end it all the same.
      end = start + text[start:].index('{') + notation.closing(inside)
      inside = text[start:end].strip()
    if not inside or inside.startswith('('):
      continue
    rest = text[end:]
    if rest.startswith('/') and not _FUNCTION.match(rest[1:].lstrip()):
      raise Undecided(text)
    head = text[: function.start()] + function.group().strip()
    text = f'{head}({inside}){rest}'
  return text


def _end_of_argument(text: str, place: int) -> int:
  """Returns where what stands side by side from a place on ends."""
  level, start = 0, place
  while place < len(text):
    sign = text[place]
    if level == 0 and (
      sign in ')}],;=<>&/'
      or (sign in '+-' and place > start)
      or (sign == '\\' and _END.match(text, place))
    ):
      return place
    level += (sign in '({[') - (sign in ')}]')
    place += 1
  return place


def _sum_of_mixed(found: re.Match) -> str:
  """Returns 2\\frac{1}{2} as the sum that it is.

  Raises:
    Undecided: if the fraction is 1 or more, for that may be a product.
  """
  whole, above, below = found.groups()
  if int(above) >= int(below):
    raise Undecided(found.group())
  return rf'({whole}+\frac{{{above}}}{{{below}}})'
