"""What each task asks, in two sentences for readers of its report."""

from __future__ import annotations

import re

ABOUT = {
  'arithmetic': 'Each problem is a sum of two three-digit numbers, to be '
  'written with four digits from the left: 473+289= is answered 0762, and a '
  'leading zero does no harm. The first digits depend on carries out of digits '
  'that are not written yet; with the whole sum on the page, each carry can be '
  'read off, so that a second look has something to find.',
  'math': 'Each problem is a question of competition mathematics, from algebra '
  'to geometry, in five levels of difficulty. The model explains its solution '
  'and ends with a boxed answer; the answer alone is checked, whichever of its '
  'equal forms it takes.',
  'gsm8k': 'Each problem is a story of school arithmetic that takes a few '
  'steps. The model explains its solution and ends with a number; the number '
  'alone is checked.',
  'aime': 'Each problem is of the American Invitational Mathematics '
  'Examination. Its answer is a whole number from 0 to 999, which alone is '
  'checked.',
  'mbpp': 'Each problem describes a short Python program. What the model '
  'writes is run, and is right if it passes all tests of the problem.',
  'humaneval': 'Each problem is the head of a Python function with a '
  'description of what it does. What the model writes is run, and is right if '
  'it passes all tests of the problem.',
}


def about(task: str) -> str:
  """Returns what a task asks, '' for a task of the user's own.

  Args:
    task: its name, as 'mbpp_plus', or that of a mixture, as 'math=2,gsm8k=1'.
  """
  parts = re.split(r'[^a-z0-9]+', task)
  known = [
    name for name in ABOUT if any(part.startswith(name) for part in parts)
  ]
  return ' '.join(ABOUT[name] for name in known)
