"""What an attempt changed, marked in the texts of both attempts."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import re
from collections.abc import Sequence

from score_jax import evaluation

# A word keeps the blanks behind it, and a sign its repetitions: alone they would
# match everywhere. A line's end stays by itself, for programs change by lines.
WORD = re.compile(
  r'\n|[^\S\n]+|(?:\d+|[^\W\d]+|(?P<sign>[^\w\s])(?P=sign)*)[^\S\n]*'
)
SHORT = 64  # Characters of a word that is still compared letter by letter.


@dataclasses.dataclass(frozen=True)
class Piece:
  """A run of one attempt's text with one fate."""

  text: str
  new: bool  # The attempt before does not have it.
  gone: bool  # The attempt after does not have it.


def pieces(attempts: Sequence[str]) -> list[list[Piece]]:
  """Returns each attempt as pieces that join to its text.

  Args:
    attempts: of one problem, in order.
  """
  new = [[False] * len(text) for text in attempts]
  gone = [[False] * len(text) for text in attempts]
  for turn in range(1, len(attempts)):
    gone[turn - 1], new[turn] = changes(attempts[turn - 1], attempts[turn])
  return [
    [
      Piece(''.join(char for char, *_ in run), *fate)
      for fate, run in itertools.groupby(
        zip(text, *marks, strict=True), key=lambda mark: mark[1:]
      )
    ]
    for text, *marks in zip(attempts, new, gone, strict=True)
  ]


def changes(before: str, after: str) -> tuple[list[bool], list[bool]]:
  """Returns whether each character of `before` goes, and of `after` is new.

  Compared word by word, or character by character where both are one short
  word, such as a number.
  """
  split = list if _is_short_word(before) and _is_short_word(after) else _words
  units = split(before), split(after)
  # First the ends: in 633 and 643 it is the digit in the middle that differs.
  start, end = evaluation.shared_ends(*units)
  gone, new = (_inner(len(unit), start, end) for unit in units)
  middle = (unit[start : len(unit) - end] for unit in units)
  matcher = difflib.SequenceMatcher(None, *middle, autojunk=False)
  for i, j, size in matcher.get_matching_blocks():
    gone[start + i : start + i + size] = [False] * size
    new[start + j : start + j + size] = [False] * size
  return _per_character(units[0], gone), _per_character(units[1], new)


def _inner(length: int, start: int, end: int) -> list[bool]:
  return [start <= i < length - end for i in range(length)]


def _is_short_word(text: str) -> bool:
  return len(text) <= SHORT and not re.search(r'\s', text.strip())


def _words(text: str) -> list[str]:
  return [match.group() for match in WORD.finditer(text)]


def _per_character(units: Sequence[str], marks: Sequence[bool]) -> list[bool]:
  return [m for unit, m in zip(units, marks, strict=True) for _ in unit]
