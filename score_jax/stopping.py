"""Someone asks the program to end: by a signal, or the cloud by its notice."""

from __future__ import annotations

import dataclasses
import os
import signal

from score_jax import processes


class Interrupted(Exception):
  """The program was asked to end; what it had reached is saved."""


@dataclasses.dataclass
class Stop:
  """Whether someone asked the program to end."""

  asked: bool = False

  def listen(self) -> None:
    """Notes SIGTERM and Ctrl-C from now on; a second Ctrl-C ends it at once."""
    for number in (signal.SIGTERM, signal.SIGINT):
      signal.signal(number, self._note)

  def ask(self, why: str) -> None:
    """Has the program end as on SIGTERM; from any thread."""
    self._say(f'{why}: ')
    self.asked = True

  def _say(self, why: str = '') -> None:
    words = f'{why}stopping: the step under way is finished and saved first\n'
    # Not print: what it interrupts may be in the middle of one.
    os.write(2, words.encode())

  def _note(self, number, frame) -> None:
    del frame
    self.asked = True
    self._say()
    if number == signal.SIGINT:
      signal.signal(number, signal.SIG_DFL)

  def heard(self) -> bool:
    """Returns whether someone asked any of the processes; all ask at once."""
    asked = processes.agree(self.asked)
    if asked:  # Never set to False: a signal may have come meanwhile.
      self.asked = True
    return asked

  def check(self) -> None:
    """Raises Interrupted if someone asked; to be called by all processes."""
    if self.heard():
      raise Interrupted
