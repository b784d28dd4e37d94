"""What goes wrong, in words for who has to put it right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LaunchError(Exception):
  """A setting or a tool is not as it has to be; nothing was created."""


class Stopped(BaseException):
  """Someone asked the launcher to end; BaseException, as is Ctrl-C."""

  def __init__(self, number: int):
    super().__init__(number)
    self.code = 128 + number  # As a shell has it.


def nearest(name: str, known: Iterable[str]) -> str:
  """Returns ' (did you mean X?)' for a misspelt name, or ''."""
  close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
  return f' (did you mean {close[0]}?)' if close else ''
