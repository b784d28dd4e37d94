r"""One spelling for what LaTeX, Unicode and plain text can write in many ways.

What comes out is LaTeX without decoration: no `\left`, no thin spaces, one
command per meaning, braces wherever a command has an argument.
"""

from __future__ import annotations

import re
import unicodedata

_SIGNS = {
  '−': '-', '–': '-', '—': '-', '‐': '-', '‑': '-', '﹣': '-', '－': '-',
  '×': r'\times ', '·': r'\cdot ', '⋅': r'\cdot ', '∙': r'\cdot ',
  '÷': '/', '⁄': '/', '∕': '/', 'π': r'\pi ', '∞': r'\infty ',
  '∪': r'\cup ', '∩': r'\cap ', '≤': r'\le ', '≥': r'\ge ', '≠': r'\ne ',
  '∈': r'\in ', '±': r'\pm ', '∓': r'\mp ', '°': r'^\circ ', 'º': r'^\circ ',
  '≈': r'\approx ', '∅': r'\emptyset ', 'θ': r'\theta ', 'α': r'\alpha ',
  'β': r'\beta ', 'γ': r'\gamma ', 'λ': r'\lambda ', 'φ': r'\phi ',
  'ω': r'\omega ', 'σ': r'\sigma ', 'μ': r'\mu ', '′': "'", '’': "'",
  '⟨': r'\langle ', '⟩': r'\rangle ', '∠': r'\angle ', '％': '%',
  '½': r'\frac{1}{2}', '¼': r'\frac{1}{4}', '¾': r'\frac{3}{4}',
  '⅓': r'\frac{1}{3}', '⅔': r'\frac{2}{3}', '→': r'\to ', '∨': r'\lor ',
}  # fmt: skip
_RAISED = str.maketrans('⁰¹²³⁴⁵⁶⁷⁸⁹⁻ⁿ', '0123456789-n')
_LOWERED = str.maketrans('₀₁₂₃₄₅₆₇₈₉', '0123456789')
_RAISED_RUN = re.compile('[⁰¹²³⁴⁵⁶⁷⁸⁹⁻ⁿ]+')
_LOWERED_RUN = re.compile('[₀₁₂₃₄₅₆₇₈₉]+')
_ROOT = re.compile(r'√\s*(?:\(([^()]*)\)|(\d+|[A-Za-z]))')

_REWRITES = [
  (re.compile(pattern), new)
  for pattern, new in (
    # Separators of thousands before the thin space is gone.
    (r'(?<=\d),\s*\\!\s*(?=\d{3})', '{,}'),
    (r'(?<=\d)(?:(?<!\\)\\[,;: ]|~| )(?=\d{3}(?!\d))', '{,}'),
    (r'\\displaystyle(?![A-Za-z])|\\textstyle(?![A-Za-z])', ''),
    (r'\\(?:left|right)\s*\.', ''),
    (r'\\(?:left|right|[bB]igg?[lr]?|middle)(?![A-Za-z])', ''),
    (r'\\lim(?:its)(?![A-Za-z])|\\nolimits(?![A-Za-z])', ''),
    (r'(?<!\\)\\[!,;:> ]|~|\\q?quad(?![A-Za-z])', ' '),
    (r'\\[hv]space\*?\{[^{}]*\}|\\phantom\{[^{}]*\}', ' '),
    (r'\\[dtc]frac(?![A-Za-z])', r'\\frac'),
    (r'\\dbinom(?![A-Za-z])|\\tbinom(?![A-Za-z])', r'\\binom'),
    (r'\\leq(?:slant)?(?![A-Za-z])', r'\\le'),
    (r'\\geq(?:slant)?(?![A-Za-z])', r'\\ge'),
    (r'\\neq(?![A-Za-z])|!=|\\not\s*=', r'\\ne '),
    (r'<=|=<', r'\\le '),
    (r'>=|=>', r'\\ge '),
    (r'\\lt(?![A-Za-z])', '<'),
    (r'\\gt(?![A-Za-z])', '>'),
    (r'\\(?:v?arnothing|varnothing|empty)(?![A-Za-z])', r'\\emptyset'),
    (r'\\lbrace(?![A-Za-z])', r'\\{'),
    (r'\\rbrace(?![A-Za-z])', r'\\}'),
    (r'\\l?vert(?![A-Za-z])|\\rvert(?![A-Za-z])|\\mid(?![A-Za-z])', '|'),
    (r'\\(?:math(?:bf|it|normal|sf)|bm|boldsymbol)\s*\{\s*([A-Za-z])\s*\}', r'\1'),
    (r'\\(?:text[a-z]*|mbox|mathrm|mathsf|mathbf|mathit|mathnormal|bm|bold'
     r'symbol|operatorname\*?|rm|bf)\s*\{', r'\\text{'),
    # A quantity within words.
    (r'\\text\s*\{\s*([-+]?\d[\d.,/]*)\s+([A-Za-z][A-Za-z .]*)\}',
     r'\1\\text{ \2}'),
    # Behind a number these are units, but for digits of a larger base.
    (r'(?<![\d}\s/])\s*\\text\s*\{\s*\(?([A-Za-z])\)?\s*\}', r'\1'),
    (r'\\text\s*\{\s*(?![mgshLlNJWVK]\s*\}(?!\s*_))([A-Za-z])\s*\}', r'\1'),
    (r'(?<![\d}\s])\s*\\text\s*\{\s*(min|max)\s*\}', r'\\\1 '),
    (r'\\text\s*\{\s*(sin|cos|tan|cot|sec|csc|ln|log|exp|gcd|lcm|arcsin|arccos'
     r'|arctan|det)\s*\}', r'\\\1 '),
    (r'\\text\s*\{\s*a(sin|cos|tan)\s*\}', r'\\arc\1 '),
    (r'\\text\s*\{([-+\d.,/()\s]+)\}', r'\1'),
    (r'\\text\s*\{[\s,]*(and|or)[\s,]*\}', r' \1 '),
    (r'\\(?:lor|vee)(?![A-Za-z])', ' or '),
    (r'\\(?:land|wedge)(?![A-Za-z])', ' and '),
    (r'(?<=\d)\s*(?:\\text\s*\{\s*to\s*\}|(?<=\s)to(?=\s))\s*(?=\d)', ':'),
    (r'_\{?\\text\s*\{\s*(?:base\s*)?(\d+)\s*\}\}?', r'_{\1}'),
    (r'\^\s*\{\s*\\(?:circ|degree)\s*\}|\^\s*\\circ(?![A-Za-z])'
     r'|\\degree(?![A-Za-z])', r'^\\circ '),
    (r'\*\*', '^'),
    (r'\\times(?![A-Za-z])|\*', r'\\cdot '),
    (r'\\div(?![A-Za-z])', '/'),
    (r'(?<=\d)\s*\{\s*,\s*\}\s*(?=\d)', '_COMMA_'),
    (r'\{\s*,\s*\}', ','),
    (r'_COMMA_', ''),
    (r'\{([^{}]*)\\choose(?![A-Za-z])([^{}]*)\}', r'\\binom{\1}{\2}'),
    (r'\\log\s*_\s*(?:e|\{e\})(?![A-Za-z])', r'\\ln '),
    (r'\\(?:bar(?=\s*\{\d+\})|dot(?=\s*\{\d\}))', r'\\overline'),
    (r'(?<![A-Za-z\\])sqrt\s*(?:\(([^()]*)\)|(\d+))', r'\\sqrt{\1\2}'),
    (r'(?<![A-Za-z\\])pi(?![A-Za-z])', r'\\pi '),
    (r'(?<![A-Za-z\\])(?:infinity|oo)(?![A-Za-z])', r'\\infty '),
    # Not before a digit: x^{1}0 is no power of ten.
    (r'([_^])\s*\{\s*([A-Za-z0-9])\s*\}(?!\s*\d)', r'\1\2'),
    (r'([_^])\s+', r'\1'),
    (r'\s+', ' '),
  )
]  # fmt: skip
# Commands by how many arguments they take.
_COMMAND = re.compile(
  r'\\(?:(frac|binom)|sqrt|pmod|overline|vec|hat|widehat|tilde|dot)(?![A-Za-z])'
)
_OPTION = re.compile(r'\s*\[[^\[\]]*\]')
_ARGUMENT = re.compile(r'\s*(?:(\\[A-Za-z]+)|([^\s{}\\&]))')
_THOUSANDS = re.compile(r'(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])')
_ENDING = ' \t\n.,;:'


def tidy(latex: str) -> str:
  """Returns the same answer in the one spelling."""
  text = _RAISED_RUN.sub(
    lambda run: '^{' + run.group().translate(_RAISED) + '}', latex
  )
  text = _LOWERED_RUN.sub(
    lambda run: '_{' + run.group().translate(_LOWERED) + '}', text
  )
  text = _ROOT.sub(lambda root: rf'\sqrt{{{root[1] or root[2]}}}', text)
  text = ''.join(_SIGNS.get(sign, sign) for sign in text)
  text = unicodedata.normalize('NFKC', text)
  for pattern, new in _REWRITES:
    text = pattern.sub(new, text)
  return ended(_braced(text))


def _braced(text: str) -> str:
  """Returns the text with braces around all arguments of commands.

  From the last command on, so that an argument that is a command has its own.
  """
  for command in reversed(list(_COMMAND.finditer(text))):
    place = command.end()
    option = _OPTION.match(text, place)
    head = text[: command.end()]
    if option and command.group().endswith('sqrt'):
      head, place = head + option.group().strip(), option.end()
    for _ in range(2 if command[1] else 1):
      argument, place = _argument(text, place)
      head += argument
    text = head + text[place:]
  return text


def _argument(text: str, place: int) -> tuple[str, int]:
  """Returns the argument that begins somewhere, in braces, and its end."""
  rest = text[place:]
  inside = rest.lstrip()
  if inside.startswith('{'):
    end = closing(inside)
    return inside[:end], place + len(rest) - len(inside) + end
  found = _ARGUMENT.match(rest)
  if not found:
    return '', place
  end = found.end()
  while found[1] and rest[end : end + 1] == '{':  # With its own arguments.
    end += closing(rest[end:])
  return f'{{{rest[:end].strip()}}}', place + end


def closing(text: str) -> int:
  """Returns where the braces end that a text begins with."""
  level = 0
  for place, sign in enumerate(text):
    level += (sign == '{') - (sign == '}')
    if level == 0:
      return place + 1
  return len(text)


def ended(text: str) -> str:
  """Returns the text without the punctuation of its sentence."""
  text = re.sub(r'\\\\\s*$', '', text).strip()
  while text and text[-1] in _ENDING and not text.endswith(('p.m.', 'a.m.')):
    text = text[:-1].rstrip()
  return text.lstrip(_ENDING.replace('.', ''))


def join_thousands(text: str) -> str:
  """Returns the text with 1,234 written as 1234; for readings outside ()."""
  return _THOUSANDS.sub(lambda run: run.group().replace(',', ''), text)


def depth(text: str) -> int:
  """Returns how deep brackets are nested."""
  most = level = 0
  for sign in text:
    if sign in '([{':
      level += 1
      most = max(most, level)
    elif sign in ')]}':
      level -= 1
  return most


def without_outer_parentheses(text: str) -> str:
  """Returns the text without the pairs of () around all of it; linear."""
  text = text.strip()
  levels, level = [], 0
  for sign in text:
    level += (sign == '(') - (sign == ')')
    levels.append(level)
  if level or min(levels, default=0) < 0:
    return text
  start, end, around = 0, len(text), 0
  while end - start >= 2 and text[start] == '(' and text[end - 1] == ')':
    start, end, around = start + 1, end - 1, around + 1
  inner = min(levels[start:end], default=0)
  # The least level inside says how many pairs enclose all of it.
  extra = max(around - inner, 0)
  return text[start - extra : end + extra].strip()
