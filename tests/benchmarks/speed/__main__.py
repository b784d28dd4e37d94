"""One command, one table: our speed, the machine's, and other libraries'.

    python -m tests.benchmarks.speed [--sizes=tiny,small]
      [--work=sample,update,iterate] [--rounds=3] [--cores=1]
      [--memory=own|alike|plain] [--peers=transformers,torch,trl,tunix]
      [--trl_python=VENV/bin/python] [--tunix_python=VENV/bin/python]
      [--out=FILE.json]

Each library runs in a process of its own, on the same cores, and is asked for
one repeat at a time, in turn, so that what else the machine does meets all of
them alike. Before that, all must have computed the same: the likeliest tokens
of both turns, and the log-probabilities that the update starts from. What is
not installed, or differs, is left out, and the reason is printed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from absl import app, flags

from score_jax import pages
from tests.benchmarks.speed import contest, machine, table, workload

_SIZES = flags.DEFINE_list('sizes', ['tiny', 'small'], 'Of the model.')
_WORK = flags.DEFINE_list('work', list(workload.WORKS), 'What is measured.')
_ROUNDS = flags.DEFINE_integer('rounds', 3, 'Repeats of each.', lower_bound=1)
_CORES = flags.DEFINE_integer('cores', 1, 'Pinned to so many.', lower_bound=1)
_PEERS = flags.DEFINE_list(
  'peers', ['transformers', 'torch', 'trl', 'tunix'], 'To compare with.'
)
_TRL = flags.DEFINE_string('trl_python', sys.executable, 'Python with TRL.')
_TUNIX = flags.DEFINE_string(
  'tunix_python', sys.executable, 'Python with tunix.'
)
_MEMORY = flags.DEFINE_enum(
  'memory',
  'own',
  ['own', 'alike', 'plain'],
  'Each as its users start it: ours as score_jax.main starts itself, in huge '
  'pages that are kept, the others as Python starts. Or all as ours, or all as '
  'the others.',
)
_OUT = flags.DEFINE_string('out', '', 'All numbers, as JSON.')


def jobs(folder: str) -> list[workload.Job]:
  """Returns all that is to be done, with the checkpoints in a folder."""
  return [
    workload.Job(
      work,
      '',
      workload.SIZES[name],
      workload.shape_of(work, name),
      str(pathlib.Path(folder, name)),
      _CORES.value,
    )
    for name in _SIZES.value
    for work in _WORK.value
    # The others take minutes at it, and it is made of the two before it.
    if (work, name) != ('iterate', 'small')
  ]


def measure(
  chosen: list[contest.Entrant], folder: str
) -> Iterator[contest.Report]:
  """Gives all that is known after each contest; Ctrl-C ends them."""
  whole = contest.Report([], {}, {})
  try:
    for job in jobs(folder):
      if not pathlib.Path(job.folder).exists():
        contest.write_checkpoint(job)
      mine = [
        x for x in chosen if job.work in x.work and job.size.name in x.sizes
      ]
      report = contest.hold(mine, job, _ROUNDS.value)
      whole.rows.extend(report.rows)
      whole.left_out.update(report.left_out)
      whole.versions.update(report.versions)
      yield whole
  except KeyboardInterrupt:
    contest.say('interrupted: what follows was measured before')


def memory_of(entrant: contest.Entrant) -> str:
  """Returns the GLIBC_TUNABLES that an entrant is started with."""
  usual = os.environ.get(pages.VARIABLE, '')
  asks = {'own': not entrant.peer, 'alike': True, 'plain': False}
  if not asks[_MEMORY.value]:
    return usual
  return pages.settings().get(pages.VARIABLE, usual)


def main(argv: list[str]) -> None:
  """Measures, and prints the table."""
  if len(argv) > 1:
    raise app.UsageError(f'not understood: {argv[1:]}')
  names = {entrant.peer for entrant in contest.ENTRANTS if entrant.peer}
  for flag, known in (
    (_SIZES, workload.SIZES),
    (_WORK, workload.WORKS),
    (_PEERS, names),
  ):
    if unknown := set(flag.value) - set(known):
      raise app.UsageError(
        f'--{flag.name} takes {sorted(known)}; got {sorted(unknown)}.'
      )
  chosen, left_out = contest.entrants(
    _PEERS.value, {'trl': _TRL.value, 'tunix': _TUNIX.value}
  )
  chosen = [dataclasses.replace(x, memory=memory_of(x)) for x in chosen]
  cores = machine.pin(_CORES.value)
  moved = machine.bandwidth(len(cores))
  shown = ''
  with tempfile.TemporaryDirectory() as folder:
    for report in measure(chosen, folder):
      report.left_out.update(left_out)
      report = contest.bounded(report, len(cores), moved)
      about = describe(report, cores, moved)
      if _OUT.value:
        known = {'machine': about, **dataclasses.asdict(report)}
        text = json.dumps(known, indent=1) + '\n'
        pathlib.Path(_OUT.value).write_text(text)
      shown = page(report, about)
  print(shown or 'Nothing was measured.')


def describe(
  report: contest.Report, cores: list[int], moved: float
) -> dict[str, Any]:
  """Returns what the machine is, and was during the repeats.

  Args:
    report: of the repeats.
    cores: that all was pinned to.
    moved: bytes a second, of all of them together.
  """
  rates = [rate for row in report.rows for rate in row.canary]
  return {
    'processor': machine.processor(),
    'cores': os.cpu_count(),
    'pinned_to': cores,
    'memory': _MEMORY.value,
    'product_flops': float(np.median(rates)),
    'product_flops_range': [min(rates), max(rates)],
    'moved_bytes_per_s': moved,
    'python': platform.python_version(),
    'when': time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime()),
  }


def page(report: contest.Report, about: dict[str, Any]) -> str:
  """Returns the machine, the table and what it says, in Markdown."""
  cores = len(about['pinned_to'])
  low, high = about['product_flops_range']
  lines = [
    f'{about["processor"]}, {cores} of {about["cores"]} cores, float32, '
    f'{about["when"]}. Square products of one core '
    f'{about["product_flops"] / 1e9:.0f} GFLOP/s ({low / 1e9:.0f}–'
    f'{high / 1e9:.0f}), memory {about["moved_bytes_per_s"] / 1e9:.1f} GB/s. '
    f'{_ROUNDS.value} rounds; median (range).',
    '',
    table.markdown(report.rows, cores),
    '',
    *(f'- {line}' for line in table.verdicts(report.rows, cores)),
    *(f'- Left out: {who}: {why}.' for who, why in report.left_out.items()),
    '- ' + ', '.join(f'{k} {v}' for k, v in sorted(report.versions.items())),
  ]
  return '\n'.join(lines)


if __name__ == '__main__':
  # Also where a shell started it in the background, with the signal ignored.
  signal.signal(signal.SIGINT, signal.default_int_handler)
  app.run(main)
