r"""Where in an attempt its final answer stands.

The first of these that a text has is taken, and of several the last one:

1. `\boxed{...}` with balanced braces, unless "final answer" is said behind it.
   Boxes with nothing but "and", "or" or punctuation between them are one answer
   of several parts.
2. `#### ...` at the head of a line, as GSM8K writes it, or `<answer>...`.
3. "answer is ...", "answer: ..." to the end of the sentence.
4. A text of one line that is an answer and nothing else, or the last formula
   or number of the last line that has one.

Only the last TEXT characters are read, and every step is linear in them.
"""

from __future__ import annotations

import re

from score_jax.graders import notation

_BRACES = re.compile(r'\\(?:boxed|fbox)\s*\{|\\.|[{}]', re.DOTALL)
_OPEN_BOX = re.compile(r'\\(?:boxed|fbox)\s*\{')
_BARE_BOX = re.compile(r'\\(?:boxed|fbox)\s+([^\s{}$\\]{1,40}|\\[a-z]+\d{2})')
# What may stand between boxes that are one answer: connectives and the name of
# the next part.
_JOINT = re.compile(
  r'(?:\s|[,;$&]|\\\\|\\[\[\]()!,;:]|\\q?quad|\\(?:text|mbox)\{|\}|and|or'
  r'|[A-Za-z](?:_\{?\w{1,9}\}?)?\s*=)*'
)
_HASHES = re.compile(r'^[ \t*]*####[ \t]*(.+)$', re.MULTILINE)
_TAG = re.compile(r'<answer>([^<]*)</answer>', re.IGNORECASE)
_SAID = re.compile(
  r'\b(?:answers?|réponse)\b[ \t*]*'
  r'(?:(?:of|to) [^\n.:$]{1,60}?)?'
  r'(?:\b(?:is|are|est|(?:would|should|will|must) be)\b|:|=)[ \t*]*:?[ \t*]*\s*'
  r'(?:(?:therefore|thus|then|hence|simply|just|exactly|clearly)\b,?\s*)*',
  re.IGNORECASE,
)
_FINAL = re.compile(r'\bfinal answer\b', re.IGNORECASE)
_MATH = re.compile(
  r'\$\$(.+?)\$\$|(?<!\\)\$((?:[^$\\]|\\.)+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]',
  re.DOTALL,
)
_OPENERS = re.compile(r'\$|\\\(|\\\[')
_SENTENCE = re.compile(r'(?<![A-Za-z]\.[A-Za-z])[.。!?](?=\s|$)|\n')
_WORD = re.compile(r'(?<![\\A-Za-z{])[A-Za-zÀ-ÿ]{2,}')
_FOREIGN = re.compile(r'[^\W\d_A-Za-zÀ-ÿΑ-ω²³¹⁰-₉ⁿ¼-¾⅐-⅞]')
_NUMBER = re.compile(
  r'[-−]?\d*\\[dtc]?frac\{[^{}]+\}\{[^{}]+\}'
  r'|(?<![A-Za-z0-9_.,/\\^{(+*])[-−+]?[$€£]?(?:\d[\d,]*)?(?<!,)(?:\.\d+)?(?<=\d)'
  r'(?:\s?/\s?\d+)?(?:\s?\\?%)?(?![A-Za-z}])'
)
_CLAIM = re.compile(
  r'(?:.*\b(?:is|are|was|be|equals?)\b|.*=)\s*(.+)', re.DOTALL
)
_LEAD = re.compile(
  r'(?:(?:therefore|thus|hence|so|then|finally'
  r'|we (?:get|have|find|obtain|conclude)|this gives|it follows)'
  r'(?: that)?[,:]?\s+)+',
  re.I,
)
# A short sentence about its last word, which has to be an answer by itself.
_SHORT_CLAIM = re.compile(
  r'[A-Za-z]+\b(?:(?!\b(?:is|are|equals)\b)[^$=])*'
  r'\b(?:is|are|equals)\s+((?:(?!\b(?:is|are|equals)\b).)+)',
  re.DOTALL,
)
_REASON = re.compile(r',?\s+(?:because|since)\b', re.I)
_HEDGE = re.compile(
  r'\b(?:or|either|maybe|perhaps|possibly|not|neither|between|unless)\b', re.I
)
TEXT = 200_000  # Characters that are read at all, the last ones.
LINE = 200  # Characters that may be an answer and nothing else.
SAID = 2000  # Characters behind "answer is" that are looked at.
JOINT = 80  # Characters between two parts of one answer.
TAIL = 20_000  # Characters that are searched for rules 3 and 4.
WORDS = 5  # So many words without a formula may be an answer in words.


def final(text: str) -> str | None:
  """Returns the attempt's final answer as it is written, or None."""
  text = text[-TEXT:]
  if len(text) > TAIL and text.startswith('('):
    text = f'({notation.without_outer_parentheses(text)})'
  tail = text[-TAIL:]
  for rule in (_boxed, _marked, _said, _unmarked):
    found = rule(text if rule in (_boxed, _marked) else tail)
    if found is not None and found.strip():
      return found.strip()
  return None


def _boxed(text: str) -> str | None:
  boxes = _boxes(text)
  finals = list(_FINAL.finditer(text[-TAIL:]))
  if boxes and finals:
    place = max(len(text) - TAIL, 0) + finals[-1].start()
    if place >= boxes[-1][2]:
      return None  # A final answer is stated behind it.
  if not boxes:
    bare = _BARE_BOX.findall(text[-TAIL:])
    return bare[-1].rstrip('.,') if bare else None
  parts = [boxes[-1]]
  for box in reversed(boxes[:-1]):
    end = parts[-1][0]
    joint = text[box[2] : end]
    if len(joint) > JOINT or joint.isspace() or not _JOINT.fullmatch(joint):
      break
    parts.append(box)
  inner = [text[start + 1 : end - 1] for _, start, end in reversed(parts)]
  # A box inside the box is decoration.
  inner = [re.sub(r'\\(?:boxed|fbox)\s*(?=\{)', '', part) for part in inner]
  inner = [unwrapped(part) for part in inner]
  # The same box twice is one answer.
  return ', '.join(dict.fromkeys(part for part in inner if part)) or None


def _boxes(text: str) -> list[tuple[int, int, int]]:
  """Returns (start, brace, end) of the outermost boxes that are closed."""
  opened, boxes = [], []
  for token in _BRACES.finditer(text):
    word = token.group()
    if word.endswith('{') and word != '\\{':
      opened.append((token.start() if len(word) > 1 else -1, token.end() - 1))
    elif word == '}' and opened:
      start, brace = opened.pop()
      if start >= 0:
        while boxes and boxes[-1][0] > start:
          boxes.pop()
        boxes.append((start, brace, token.end()))
  return boxes


def _marked(text: str) -> str | None:
  found = _HASHES.findall(text) or _TAG.findall(text)
  return unwrapped(found[-1]) if found else None


def _said(text: str) -> str | None:
  said = list(_SAID.finditer(text))
  if not said:
    return None
  rest = text[said[-1].end() : said[-1].end() + SAID]
  sentence = _first_sentence(rest)
  reason = _REASON.search(sentence)
  if reason and reason.start():
    sentence = sentence[: reason.start()]
  if _is_prose(sentence) and not _HEDGE.search(sentence):
    return _claimed(sentence)
  return unwrapped(sentence)


def _claimed(sentence: str) -> str:
  """Returns what "the largest n is 34" says of n, else its only number."""
  claim = _CLAIM.fullmatch(sentence)
  if claim and not _is_prose(claim[1]):
    return unwrapped(claim[1])
  found = list(_NUMBER.finditer(_MATH.sub(_spaced, sentence)))
  return found[0].group() if len(found) == 1 else unwrapped(sentence)


def _spaced(match: re.Match) -> str:
  return f' {_inside(match)} '


def _first_sentence(text: str) -> str:
  """Returns the text up to the end of a sentence that is not in a formula."""
  place = 0
  while stop := _SENTENCE.search(text, place):
    formula = _MATH.search(text, place)
    if formula is None or stop.start() < formula.start():
      return text[: stop.start()]
    place = formula.end()
  return text


def _unmarked(text: str) -> str | None:
  if _OPEN_BOX.search(text):
    return None  # It broke off inside its answer.
  text = text.strip()
  core = notation.without_outer_parentheses(text)
  if len(core) <= LINE and '\n' not in core and not _is_prose(core):
    claim = _SHORT_CLAIM.fullmatch(_LEAD.sub('', core, count=1))
    return unwrapped(claim[1] if claim else _LEAD.sub('', text, count=1))
  formulas = list(_MATH.finditer(text))
  if formulas and not _NUMBER.search(text[formulas[-1].end() :]):
    return ', '.join(map(_inside, _side_by_side(text, formulas)))
  for line in reversed(text.replace('**', ' ').splitlines()):
    found = list(_NUMBER.finditer(line))
    if found:
      return found[-1].group()
  return None


def _side_by_side(text: str, formulas: list[re.Match]) -> list[re.Match]:
  """Returns the last formula, and those with nothing but "and" between them."""
  parts = [formulas[-1]]
  for formula in reversed(formulas[:-1]):
    joint = text[formula.end() : parts[-1].start()]
    if len(joint) > JOINT or not joint.strip() or not _JOINT.fullmatch(joint):
      break
    parts.append(formula)
  return parts[::-1]


def _is_prose(text: str) -> bool:
  if _FOREIGN.search(text):
    return True
  formula = bool(_OPENERS.search(text))
  plain = _MATH.sub(' ', text)
  words = [word for word in _WORD.findall(plain) if word not in ('and', 'or')]
  return len(words) > (2 if formula else WORDS) or (
    formula and bool(words) and not text.startswith(('$', '\\', '-'))
  )


def unwrapped(text: str) -> str:
  """Returns a short answer without emphasis and formula signs."""
  text = text.strip().replace(r'\"', '"').strip('*_"`').strip()
  text = _MATH.sub(_spaced, text).strip()
  if text.endswith('$') and not text.endswith(r'\$'):
    text = text[:-1]
  return text.strip().rstrip('.').rstrip('*').strip()


def _inside(match: re.Match) -> str:
  return next(group for group in match.groups() if group is not None)
