"""Do the saves of several processes succeed, or fail, together?

Orbax writes the parts of each process in a thread, and these threads meet at
barriers before a step gets its name. One whose disk is full does not come: the
others would wait for it until a time limit of 20 minutes, and then know less
than it. With what is here, a thread that fails says so to all and comes all the
same, so that all of them fail in the same save.
"""

from __future__ import annotations

import itertools
import sys

import jax
from jax._src import distributed
from orbax.checkpoint import path as ocp_path

# Where threads meet, by what Orbax calls it, in this order: their parts are
# written; the step has its name; what it replaces is deleted, and after that.
WRITTEN, NAMED = 'async_write_complete', 'async_commit_complete'
DELETED, DONE = 'set_value_start', 'set_value_end'
PLACES = (WRITTEN, NAMED, DELETED, DONE)

_numbers = itertools.count()


class SaveFailed(RuntimeError):
  """A save that another process could not make; the text says which and why."""


class Meeting:
  """Where the threads that save meet; Orbax calls it at each of its barriers.

  All processes make their meetings in one order.
  """

  def __init__(self):
    self._name = f'saves/{next(_numbers)}'
    self._save = 0
    self._passed: list[str] = []

  def begin(self) -> None:
    """Begins a save; to be called by all processes, in one order."""
    self._save += 1
    self._passed = []
    Temporary.fault = None

  def __call__(self, *, key: str, timeout_ms: int) -> None:
    """Returns when all processes are here.

    Raises:
      SaveFailed: if one of the others could not write its part.
    """
    place = next((x for x in PLACES if x in key), key)
    error = sys.exception()  # Threads that fail come here on their way out.
    if place == DELETED and error and not isinstance(error, SaveFailed):
      self._tell(error)
      behind = [x for x in (WRITTEN, NAMED) if x not in self._passed]
      for missed in behind[:1]:  # Where the others wait.
        self._meet(missed, timeout_ms)
    self._meet(place, timeout_ms)
    # Not at DELETED: DONE follows it without a word, on all of them.
    if error is None and place != DELETED and (fault := self._told()):
      raise SaveFailed(fault)

  def _meet(self, place: str, timeout_ms: int) -> None:
    self._passed.append(place)
    _client().wait_at_barrier(
      f'{self._name}/{self._save}/{place}/{self._passed.count(place)}',
      timeout_ms,
    )

  def _tell(self, error: BaseException) -> None:
    error = Temporary.fault or error  # What follows from it says less.
    line = str(error).partition('\n')[0]
    text = f'process {jax.process_index()}: {type(error).__name__}: {line}'
    _client().key_value_set(f'{self._faults()}/{jax.process_index()}', text)

  def _told(self) -> str:
    found = _client().key_value_dir_get(self._faults())
    return '; '.join(text for _, text in sorted(found))

  def _faults(self) -> str:
    return f'{self._name}/{self._save}/faults'


def _client():
  """Returns what talks to all processes; it needs no device, so threads may."""
  return distributed.global_state.client


class Temporary(ocp_path.atomicity.AtomicRenameTemporaryPath):
  """A folder that is being written, whose making fails in the thread.

  The first process makes it before the threads begin, while the others wait
  for it on their devices, where it cannot say that it failed.
  """

  fault: OSError | None = None  # Of the save under way, whichever folder's.

  async def create(self):
    """Returns the folder, made if that can be."""
    try:
      return await super().create()
    except OSError as error:
      Temporary.fault = error
      return self.get()

  async def finalize(self):
    """Gives the folder its name; raises what kept it from being made."""
    if self.fault:
      raise self.fault
    await super().finalize()
