"""What a run writes down as it goes, and the line that people watch."""

from __future__ import annotations

import contextlib
import pathlib
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

import tqdm

from score_jax import files, processes

METRICS, SAMPLES = 'metrics.jsonl', 'samples.jsonl'


def say(text: str) -> None:
  """Prints a line for people; a progress bar on the screen stays below it.

  Of several processes the first one prints.
  """
  if not processes.is_first():
    return
  tqdm.tqdm.write(text, file=sys.stdout)
  sys.stdout.flush()


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
    self._workdir = workdir
    self._steps = steps
    done = len(history)
    _rewrite(workdir / METRICS, stage, history)
    kept = [
      row
      for row in _rows(workdir / SAMPLES)
      if row['stage'] == stage and row['step'] <= done
    ]
    _rewrite(workdir / SAMPLES, stage, kept)
    self._board = _board(workdir, stage, done) if tensorboard else None
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
    files.append_jsonl(self._workdir / METRICS, row)
    if self._board:
      for name, value in metrics.items():
        if value is not None:
          self._board.add_scalar(name, value, number)
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
      files.append_jsonl(self._workdir / SAMPLES, head | row)

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


def _rows(path: pathlib.Path) -> list[dict[str, Any]]:
  return files.read_jsonl(path)[0] if path.exists() else []


def _rewrite(
  path: pathlib.Path, stage: str, rows: list[dict[str, Any]]
) -> None:
  """Replaces the rows of one stage and of those that follow it."""
  others = [row for row in _rows(path) if row['stage'] < stage]
  files.write_jsonl(path, others + rows)


def _board(workdir: pathlib.Path, stage: str, done: int):
  import tensorboardX  # Two seconds that those who switch it off never pay.

  return tensorboardX.SummaryWriter(
    str(workdir / 'tensorboard' / stage), purge_step=done + 1
  )
