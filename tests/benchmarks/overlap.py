"""What overlapping steps gain, with a grader that is instant and one that waits.

    python -m tests.benchmarks.overlap [--steps=12] [--rounds=2]
      [--wait_ms=2] [--trajectories=512]

Stage I of the bundled task, with train.overlap off and on in turn, each run a
process of its own. The table has the median over all steps but the first two
and the last, and the lowest and highest. The grader that waits sleeps for each
answer, in one process beside the run: it takes time and no processor.
"""

from __future__ import annotations

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from absl import app, flags

from score_jax.problem import Problem, Verdict
from score_jax.tasks import arithmetic

_STEPS = flags.DEFINE_integer('steps', 12, 'Of a run.')
_ROUNDS = flags.DEFINE_integer('rounds', 2, 'Runs of each kind.')
_WAIT = flags.DEFINE_float('wait_ms', 2.0, 'Of the grader, for each answer.')
_ROWS = flags.DEFINE_integer('trajectories', 512, 'Of a step.')

MILLISECONDS = 'SCORE_BENCHMARK_WAIT_MS'
SHOWN = (
  'seconds',
  'seconds_sample',
  'seconds_grade',
  'seconds_update',
  'device_idle_share',
)


def patient(problem: Problem, text: str) -> Verdict:
  """Grades as the bundled task does, after a while."""
  time.sleep(float(os.environ[MILLISECONDS]) / 1000)
  return arithmetic.grade(problem, text)


def run(workdir: pathlib.Path, overlap: bool, wait: bool) -> list[dict]:
  """Returns the metrics of the steps that count."""
  settings = {
    'train.stage1_steps': _STEPS.value,
    'train.trajectories': _ROWS.value,
    'train.overlap': overlap,
    'method.correction': 'truncated',
    'eval.every': 0,
    'eval.problems': 50,
    'checkpoint.every': _STEPS.value,
    'log.report': False,
    'log.tensorboard': False,
    'log.samples_every': _STEPS.value,
  }
  if wait:
    grader = 'tests.benchmarks.overlap:patient'
    settings |= {'task.grader': grader, 'grading.workers': 1}
  subprocess.run(
    [
      *(sys.executable, '-m', 'score_jax.main'),
      *('--config=configs/stage1.py', f'--workdir={workdir}'),
      *(f'--config.{name}={value}' for name, value in settings.items()),
    ],
    env=os.environ | {MILLISECONDS: str(_WAIT.value)},
    stdout=subprocess.DEVNULL,
    check=True,
  )
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines][2:-1]


def _cell(rows: list[dict], name: str) -> str:
  values = [row[name] for row in rows]
  middle = statistics.median(values)
  return f'{middle:.2f} ({min(values):.2f}–{max(values):.2f})'


def main(argv: list[str]) -> None:
  """Prints the table."""
  del argv
  found: dict[tuple[bool, bool], list[dict]] = {}
  with tempfile.TemporaryDirectory() as folder:
    for i in range(_ROUNDS.value):
      for kind in ((False, False), (False, True), (True, False), (True, True)):
        wait, overlap = kind
        workdir = pathlib.Path(folder, f'{i}{wait}{overlap}')
        found.setdefault(kind, []).extend(run(workdir, overlap, wait))
  print('| grader | overlap | ' + ' | '.join(SHOWN) + ' |')
  print('| --- | --- |' + ' ---: |' * len(SHOWN))
  for (wait, overlap), rows in found.items():
    grader = f'{_WAIT.value:g} ms an answer' if wait else 'instant'
    cells = [_cell(rows, name) for name in SHOWN]
    print(f'| {grader} | {"on" if overlap else "off"} | {" | ".join(cells)} |')


if __name__ == '__main__':
  app.run(main)
