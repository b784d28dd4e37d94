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
    (r'(?<=\d)(?:(?<!\\)\\[, ]|~| )(?=\d{3}(?!\d))', '{,}'),
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
    (r'\\(?:text[a-z]*|mbox|mathrm|mathsf|mathbf|mathit|mathnormal|bm|bold'
     r'symbol|operatorname\*?|rm|bf)\s*\{', r'\\text{'),
    (r'\\text\s*\{\s*\(?([A-Za-z])\)?\s*\}', r'\1'),
    (r'\\text\s*\{\s*(sin|cos|tan|cot|sec|csc|ln|log|exp|gcd|lcm|arcsin|arccos'
     r'|arctan|min|max|det)\s*\}', r'\\\1 '),
    (r'\\text\s*\{([-+\d.,/()\s]+)\}', r'\1'),
    (r'\\text\s*\{[\s,]*(and|or)[\s,]*\}', r' \1 '),
    (r'\\(?:lor|vee)(?![A-Za-z])', ' or '),
    (r'\^\s*\{\s*\\(?:circ|degree)\s*\}|\^\s*\\circ(?![A-Za-z])'
     r'|\\degree(?![A-Za-z])', r'^\\circ '),
    (r'\\times(?![A-Za-z])|\*(?!\*)', r'\\cdot '),
    (r'\*\*', '^'),
    (r'\\div(?![A-Za-z])', '/'),
    (r'(?<=\d)\s*\{\s*,\s*\}\s*(?=\d)', '_COMMA_'),
    (r'\{\s*,\s*\}', ','),
    (r'_COMMA_', ''),
    (r'\\frac\s*(\d)\s*(\d)', r'\\frac{\1}{\2}'),
    (r'\\frac\s*(\d)\s*\{', r'\\frac{\1}{'),
    (r'\\frac\s*(\{[^{}]*\})\s*(\d|[A-Za-z])', r'\\frac\1{\2}'),
    (r'\\frac\s+\{', r'\\frac{'),
    (r'(\\frac\{[^{}]*\})\s+\{', r'\1{'),
    (r'\\sqrt\s*(\d|[A-Za-z])', r'\\sqrt{\1}'),
    (r'\\sqrt\s+([\[{])', r'\\sqrt\1'),
    (r'(?<![A-Za-z\\])sqrt\s*\(([^()]*)\)', r'\\sqrt{\1}'),
    (r'(?<![A-Za-z\\])pi(?![A-Za-z])', r'\\pi '),
    (r'(?<![A-Za-z\\])(?:infinity|oo)(?![A-Za-z])', r'\\infty '),
    (r'_\s*\{\s*([A-Za-z0-9])\s*\}', r'_\1'),
    (r'\^\s*\{\s*([A-Za-z0-9])\s*\}', r'^\1'),
    (r'([_^])\s+', r'\1'),
    (r'\s+', ' '),
  )
]  # fmt: skip
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
  return ended(text)


def ended(text: str) -> str:
  """Returns the text without the punctuation of its sentence."""
  text = text.strip()
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
