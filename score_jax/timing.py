"""Where the time of a step goes, on the host and on the devices.

    host     data │ sample ... │ grade ... │ update ... │ log, save
    devices       ├─ sampler ──┤   idle    ├─ update ───┤   idle

Every second of the host is of one span, the innermost under way. The devices
are busy from when the host begins to hand them work until their results are
ready; a thread waits for these, so that work which the host does not await is
timed as well.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import jax

Made = TypeVar('Made')
Interval = tuple[float, float]  # Begin and end, of time.monotonic().


def idle_seconds(busy: Iterable[Interval], begin: float, end: float) -> float:
  """Returns the seconds between `begin` and `end` that no interval covers."""
  idle, covered = 0.0, begin
  for start, stop in sorted(busy):
    idle += max(0.0, min(start, end) - covered)
    covered = min(max(covered, stop), end)
  return idle + end - covered


class Times:
  """Seconds of one step after the other; together they are all there were."""

  def __init__(self):
    self._names: list[str] = []  # Of the spans under way, outermost first.
    self._seconds: dict[str, float] = collections.defaultdict(float)
    self._last = self._begin = time.monotonic()
    self._waiter = concurrent.futures.ThreadPoolExecutor(1, 'devices')
    self._busy: list[concurrent.futures.Future[Interval]] = []

  @contextlib.contextmanager
  def span(self, name: str) -> Iterator[None]:
    """Counts its block as `name`, but for the spans within; traces show it."""
    self._charge()
    self._names.append(name)
    try:
      with jax.profiler.TraceAnnotation(name):
        yield
    finally:
      self._charge()
      self._names.pop()

  def _charge(self) -> None:
    now = time.monotonic()
    if self._names:
      self._seconds[self._names[-1]] += now - self._last
    self._last = now

  def queue(
    self, work: Callable[[], Made], result: Callable[[Made], Any] = lambda x: x
  ) -> Made:
    """Returns what `work` does, which hands the devices something to compute.

    Compilation in `work` counts as theirs.

    Args:
      work: gives arrays, which may not be ready yet.
      result: which of them to await; none that is donated before `take`.
    """
    begin = time.monotonic()
    made = work()
    self._busy.append(self._waiter.submit(_awaited, begin, result(made)))
    return made

  @contextlib.contextmanager
  def working(self) -> Iterator[None]:
    """Counts the devices as busy during its block, whatever they do."""
    begin = time.monotonic()
    try:
      yield
    finally:
      self._busy.append(self._waiter.submit(_awaited, begin, ()))

  def spent(self, *names: str) -> float:
    """Returns the seconds that these spans took since the last `take`."""
    return sum(self._seconds.get(name, 0.0) for name in names)

  def take(self) -> dict[str, float]:
    """Returns the metrics of the step that ends now; the next one begins.

    `seconds` and `seconds_NAME` of each span, and `device_idle_share`: of
    these seconds, the share in which the devices had nothing to compute. All
    that was queued has to be ready, or is awaited.
    """
    busy = [found.result() for found in self._busy]
    self._charge()
    begin, self._begin = self._begin, self._last
    whole = self._last - begin
    found = {'seconds': whole}
    found |= {f'seconds_{name}': x for name, x in self._seconds.items()}
    idle = idle_seconds(busy, begin, self._last)
    found['device_idle_share'] = idle / whole if whole else 0.0
    self._seconds.clear()
    self._busy.clear()
    return found

  def close(self) -> None:
    """Ends the thread, which waits for nothing any more."""
    self._waiter.shutdown(wait=False, cancel_futures=True)


def _awaited(begin: float, made: Any) -> Interval:
  jax.block_until_ready(made)
  return begin, time.monotonic()
