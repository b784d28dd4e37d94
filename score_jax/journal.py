"""What a run writes down as it goes, and the line that people watch."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import pathlib
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import tqdm

from score_jax import files, processes

METRICS, SAMPLES = 'metrics.jsonl', 'samples.jsonl'


def order(stage: str) -> list[str | int]:
  """Returns what stages are sorted by: round2 comes before round10."""
  parts = re.split('([0-9]+)', stage)
  return [int(x) if x.isdigit() else x for x in parts]


def say(text: str) -> None:
  """Prints a line for people; a progress bar on the screen stays below it.

  Of several processes the first one prints.
  """
  if not processes.is_first():
    return
  try:
    tqdm.tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()
  except OSError as error:
    # Output may go to a file of the same full disk; nobody can be told then.
    if error.errno not in NO_ROOM:
      raise


# What the system says where there is no room for what is written.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Backlog:
  """Rows for a file, kept until they can be written."""

  def __init__(self, name: str, write: Callable[[dict[str, Any]], None]):
    """Takes what the file is called and what writes a row, or raises OSError."""
    self._name, self._write = name, write
    self._rows: list[dict[str, Any]] = []
    self._told = False

  def add(self, row: dict[str, Any]) -> None:
    """Writes the rows that are kept and one more."""
    self._rows.append(row)
    self.catch_up()

  def catch_up(self) -> None:
    """Writes the rows that are kept; says so where it cannot."""
    try:
      while self._rows:
        self._write(self._rows[0])
        del self._rows[0]
    except OSError as error:
      if not self._told:
        say(
          f'{self._name} cannot be written ({error.strerror}); training goes '
          'on, and every step tries again.'
        )
      self._told = True
    else:
      if self._told:
        say(f'{self._name} is written again, and nothing is missing')
      self._told = False


class Journal:
  """The records of one stage: metrics, samples, TensorBoard, progress."""

  def __init__(
    self,
    workdir: pathlib.Path,
    stage: str,
    steps: int,
    history: list[dict[str, Any]],
    tensorboard: bool,
    progress: bool,
  ):
    """Takes the files of a work directory back to where the stage stands.

    Args:
      workdir: where the files are.
      stage: its name in every row.
      steps: of the whole stage.
      history: metrics of the steps that were made; later rows are dropped.
      tensorboard: whether to write TensorBoard files as well.
      progress: whether to show a bar or lines.
    """
    self.history = list(history)
    self.stage = stage
    self._steps = steps
    done = len(history)
    _rewrite(workdir / METRICS, stage, history)
    kept = [
      row
      for row in _rows(workdir / SAMPLES)
      if row['stage'] == stage and row['step'] <= done
    ]
    _rewrite(workdir / SAMPLES, stage, kept)
    self._metrics, self._samples = (
      Backlog(name, functools.partial(files.append_jsonl, workdir / name))
      for name in (METRICS, SAMPLES)
    )
    self._board = self._curves = None
    if tensorboard:
      self._board = _Board(workdir / 'tensorboard' / stage)
      self._curves = Backlog('tensorboard/', self._board.write)
    bar = progress and sys.stderr.isatty()
    self._lines = progress and not bar
    self._bar = tqdm.tqdm(
      total=steps, initial=done, desc=stage, disable=not bar, unit='step'
    )
    self._start, self._started_at = time.monotonic(), done
    self._compiled = False

  def step(self, metrics: dict[str, Any]) -> None:
    """Records the metrics of one more step."""
    number = len(self.history) + 1
    row = {'stage': self.stage, 'step': number} | metrics
    self.history.append(row)
    self._metrics.add(row)
    self._samples.catch_up()
    if self._curves:
      self._curves.add(row)
    if not self._compiled:
      # The first step compiles, so it says nothing of the others.
      self._start, self._started_at = time.monotonic(), number
      self._compiled = True
    self._bar.set_postfix_str(figures(row), refresh=False)
    self._bar.update()
    if self._lines and (number % 10 == 0 or number in (1, self._steps)):
      say(
        f'{self.stage} {number}/{self._steps}  {figures(row)}  {self._left()}'
      )

  def samples(self, rows: Iterable[dict[str, Any]]) -> None:
    """Records trajectories of the step that comes next."""
    head = {'stage': self.stage, 'step': len(self.history) + 1}
    for row in rows:
      self._samples.add(head | row)

  def _left(self) -> str:
    done = len(self.history) - self._started_at
    if not done:
      return 'compiled'
    pace = (time.monotonic() - self._start) / done
    seconds = round(pace * (self._steps - len(self.history)))
    return f'{seconds // 60}:{seconds % 60:02d} left'

  def close(self) -> None:
    """Ends bar and files."""
    self._bar.close()
    if self._board:
      self._board.close()


class Silent:
  """The history of one stage, for processes that write nothing down."""

  def __init__(self, stage: str, history: list[dict[str, Any]]):
    self.history, self.stage = list(history), stage

  def step(self, metrics: dict[str, Any]) -> None:
    """Adds the metrics of one more step to the history."""
    head = {'stage': self.stage, 'step': len(self.history) + 1}
    self.history.append(head | metrics)

  def samples(self, rows: Iterable[dict[str, Any]]) -> None:
    """Does nothing."""

  def close(self) -> None:
    """Does nothing."""


@contextlib.contextmanager
def open_journal(
  workdir: pathlib.Path,
  stage: str,
  steps: int,
  history: list[dict[str, Any]],
  *shown: bool,
) -> Iterator[Journal | Silent]:
  """Gives a Journal that is closed behind its block; see its arguments.

  Of several processes the first one has it, and the others keep the history.
  """
  if processes.is_first():
    journal = Journal(workdir, stage, steps, history, *shown)
  else:
    journal = Silent(stage, history)
  try:
    yield journal
  finally:
    journal.close()


def figures(row: dict[str, Any]) -> str:
  """Returns the figures that matter of one step, as one reads them."""
  parts = []
  turn = 1
  while f'accuracy_t{turn}' in row:
    parts.append(f'Acc@t{turn} {100 * row[f"accuracy_t{turn}"]:5.1f}')
    turn += 1
  parts.append(f'Δ {100 * row["delta"]:+5.1f}')
  if 'kl_t1' in row:  # Supervised rounds measure none.
    # A zero added, so that none is printed as less than nothing.
    kl = (f'{round(row[f"kl_t{t}"], 3) + 0.0:.3f}' for t in range(1, turn))
    parts.append('KL ' + '/'.join(kl))
  cut = max(row[f'truncated_t{t}'] for t in range(1, turn))
  if cut > 0:
    parts.append(f'cut off {100 * cut:.1f}%')
  failed = max(
    row[f'outcome_timeout_t{t}'] + row[f'outcome_error_t{t}']
    for t in range(1, turn)
  )
  if failed > 0:
    parts.append(f'grader failed {100 * failed:.1f}%')
  parts.append(f'{row["tokens_per_second"] / 1000:.1f}k tokens/s')
  return '  '.join(parts)


def last(workdir: pathlib.Path, stage: str) -> dict[str, Any] | None:
  """Returns the metrics of a stage's last step, or None if there are none."""
  rows = [row for row in _rows(workdir / METRICS) if row['stage'] == stage]
  return rows[-1] if rows else None


def amend(workdir: pathlib.Path, stage: str, more: dict[str, Any]) -> None:
  """Adds to the metrics of a stage's last step, which there is."""
  rows = _rows(workdir / METRICS)
  (last, *_) = [row for row in rows[::-1] if row['stage'] == stage]
  last |= more
  files.write_jsonl(workdir / METRICS, rows)


def _rows(path: pathlib.Path) -> list[dict[str, Any]]:
  return files.read_jsonl(path)[0] if path.exists() else []


def _rewrite(
  path: pathlib.Path, stage: str, rows: list[dict[str, Any]]
) -> None:
  """Replaces the rows of one stage and of those that follow it."""
  own = order(stage)
  others = [row for row in _rows(path) if order(row['stage']) < own]
  files.write_jsonl(path, others + rows)


class _Board:
  """The TensorBoard files of a stage.

  Written by hand: the library's own writer has a thread, which a full disk
  ends, and training would wait for it for ever.
  """

  def __init__(self, folder: pathlib.Path):
    """Takes the folder; a file is begun with the first row."""
    self._folder, self._events = folder, None
    self._path, self._whole = folder, 0  # Of the file, and its whole bytes.

  def write(self, row: dict[str, Any]) -> None:
    """Adds the numbers of a step.

    Raises:
      OSError: if they cannot be written.
    """
    # Two seconds that those who switch it off never pay.
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

    numbers = {k: x for k, x in row.items() if k not in ('stage', 'step')}
    values = [
      Summary.Value(tag=name, simple_value=value)
      for name, value in numbers.items()
      if value is not None
    ]
    event = Event(step=row['step'], wall_time=time.time())
    event.summary.CopyFrom(Summary(value=values))
    try:
      if not self._events:
        self._open(row['step'])
      self._events.write_event(event)
      self._events.flush()
    except OSError:
      self._break_off()
      raise
    self._whole = self._path.stat().st_size

  def _open(self, step: int) -> None:
    """Begins a file that hides what others hold of this step and later ones."""
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    self._folder.mkdir(parents=True, exist_ok=True)
    # Two files may begin in one second, after which they are named.
    suffix = f'.{time.monotonic_ns()}'
    self._events = EventsWriter(str(self._folder / 'events'), suffix)
    (self._path,), self._whole = self._folder.glob(f'*{suffix}'), 0
    start = SessionLog(status=SessionLog.START)
    self._events.write_event(Event(step=step, file_version='brain.Event:2'))
    self._events.write_event(Event(step=step, session_log=start))

  def _break_off(self) -> None:
    """Ends a file where its last whole row does; the next begins another."""
    self.close()
    with contextlib.suppress(OSError):
      if self._path != self._folder:
        os.truncate(self._path, self._whole)
        if not self._whole:
          self._path.unlink()

  def close(self) -> None:
    """Ends the file."""
    events, self._events = self._events, None
    with contextlib.suppress(OSError):  # What it has left has been told.
      if events:
        events.close()
