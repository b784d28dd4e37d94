"""A trace of a few steps, for people to look into."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Iterator

import jax

STEP = 'train'  # How viewers find the steps.


class Profile:
  """Traces some of the steps that it is told of."""

  def __init__(
    self,
    folder: pathlib.Path,
    first: int,
    steps: int,
    report: Callable[[str], None],
  ):
    """Traces nothing yet.

    Args:
      folder: of the trace.
      first: step to trace, from 1; 0 = none.
      steps: to trace.
      report: called with one line on where the trace is.
    """
    self._folder, self._report = folder, report
    self._wanted = range(first, first + steps) if first else range(0)
    self._open = False

  @contextlib.contextmanager
  def step(self, number: int) -> Iterator[None]:
    """Traces its block if step `number` is wanted."""
    if number in self._wanted and not self._open:
      self._start()
    with jax.profiler.StepTraceAnnotation(STEP, step_num=number):
      yield
    if number + 1 not in self._wanted:
      self.close()

  def _start(self) -> None:
    options = jax.profiler.ProfileOptions()
    # Every call of a Python function would hide what matters.
    options.python_tracer_level = 0
    jax.profiler.start_trace(str(self._folder), profiler_options=options)
    self._open = True

  def close(self) -> None:
    """Writes the trace, if there is one under way."""
    if not self._open:
      return
    self._open = False
    jax.profiler.stop_trace()
    self._report(
      f'trace     {self._folder}: tensorboard --logdir={self._folder} with '
      'xprof installed, or its *.trace.json.gz in ui.perfetto.dev'
    )
