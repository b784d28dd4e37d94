"""What grading MBPP's programs costs, through the processes that grade in a run.

    python -m tests.benchmarks.grading_cost --data=DIR [--programs=256]
      [--endless=0.04] [--workers=0]

DIR holds the published files. A batch is what a policy writes: half of it
references, the other half references with one mistake, and a share that never
ends. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import os
import tempfile
import time
import zlib

from absl import app, flags

from score_jax import grading, tasks
from score_jax.graders import code, mutate
from score_jax.problem import Problem
from score_jax.tasks import wording

_DATA = flags.DEFINE_string('data', '', 'Folder with the published files.')
_PROGRAMS = flags.DEFINE_integer('programs', 256, 'In a batch: two per row.')
_ENDLESS = flags.DEFINE_float('endless', 0.04, 'Share that never ends.')
_WORKERS = flags.DEFINE_integer('workers', 0, 'Processes; 0 = one per core.')

ENDLESS = 'while True: pass'


def mistaken(problem: Problem) -> str:
  """Returns a reference with one change, or as it is where none is found."""
  source = wording.source_of(problem.reference)
  seed = zlib.crc32(problem.id.encode())
  return next(iter(mutate.wrong_programs(source, seed, 1)), source)


def batch(problems: list[Problem], endless: int) -> list[str]:
  """Returns a text per problem: references and mistakes in turn."""
  texts = [
    wording.program(mistaken(problem)) if number % 2 else problem.reference
    for number, problem in enumerate(problems)
  ]
  for number in range(endless):
    texts[number * len(texts) // max(endless, 1)] = wording.program(ENDLESS)
  return texts


def main(argv: list[str]) -> None:
  """Grades a batch without and with programs that never end."""
  del argv
  with tempfile.TemporaryDirectory() as prepared:
    task = tasks.get(
      tasks.Settings('mbpp', manual_dir=_DATA.value, data_dir=prepared)
    )
    known = tasks.load_problems(task, 'train', 0)
  problems = [known[i % len(known)] for i in range(_PROGRAMS.value)]
  limits = grading.Limits(_WORKERS.value, 0.0, 0, allow_unprotected=False)
  workers = _WORKERS.value or os.cpu_count() or 1
  with grading.open_grader(task, limits) as grader:
    for share in (0.0, _ENDLESS.value):
      texts = batch(problems, round(share * len(problems)))
      start = time.monotonic()
      verdicts = grader.grade(problems, texts)
      seconds = time.monotonic() - start
      outcomes = [verdict.outcome.name.lower() for verdict in verdicts]
      counts = {name: outcomes.count(name) for name in sorted(set(outcomes))}
      late = counts.get('timeout', 0)
      computing = late * task.seconds * code.COMPUTING
      each = (seconds * workers - computing) / (len(texts) - late)
      print(
        f'{len(texts)} programs: {seconds:.1f} s with {workers} workers; '
        f'{each * 1000:.0f} ms of one for each that ends, '
        f'{task.seconds * code.COMPUTING:.0f} s for each other; {counts}'
      )


if __name__ == '__main__':
  app.run(main)
