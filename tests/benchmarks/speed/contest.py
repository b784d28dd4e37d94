"""Who takes part, and one repeat of each in turn.

A contest is one kind of work at one size.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from score_jax import pages
from tests.benchmarks.speed import link, table, workload

PACKAGE = 'tests.benchmarks.speed'
GAP = 1e-3  # Nats that log-probabilities may differ by.


@dataclasses.dataclass(frozen=True)
class Entrant:
  """One way of doing some of the work."""

  who: str
  peer: str  # Its name in --peers; '' = ours.
  module: str  # Of this package.
  needs: str  # The package that must be there.
  work: tuple[str, ...]
  variant: str = ''
  sizes: tuple[str, ...] = ('tiny', 'small')
  python: str = sys.executable  # That has what it needs.
  memory: str = ''  # GLIBC_TUNABLES that it is started with.

  @property
  def is_ours(self) -> bool:
    """Whether all others are held against it, so that nothing goes without it."""
    return not self.peer and not self.variant


_LEARNS = ('update', 'iterate')
ENTRANTS = (
  Entrant(table.OURS, '', 'ours', 'jax', workload.WORKS),
  Entrant(f'{table.OURS}, oneDNN', '', 'ours', 'jax', _LEARNS, 'onednn'),
  Entrant(
    'transformers, cache kept',
    'transformers',
    'hugging',
    'transformers',
    ('sample',),
    'cache kept',
  ),
  Entrant(
    'transformers, two calls',
    'transformers',
    'hugging',
    'transformers',
    ('sample',),
    'two calls',
    ('tiny',),
  ),
  Entrant('plain torch', 'torch', 'hugging', 'torch', _LEARNS),
  Entrant('TRL', 'trl', 'trl_peer', 'trl', _LEARNS),
  Entrant('tunix', 'tunix', 'tunix_peer', 'tunix', _LEARNS),
  Entrant(
    'tunix, cache fitted',
    'tunix',
    'tunix_peer',
    'tunix',
    ('sample',),
    'cache fitted',
  ),
  Entrant(
    'tunix, cache 1,024',
    'tunix',
    'tunix_peer',
    'tunix',
    ('sample',),
    'usual cache',
    ('tiny',),
  ),
)


@dataclasses.dataclass(frozen=True)
class Report:
  """What a run found."""

  rows: list[table.Row]
  left_out: dict[str, str]  # Who, at what, and why.
  versions: dict[str, str]


def missing(python: str, package: str) -> str:
  """Returns why a Python cannot import a package; '' if it can."""
  look = (
    f'import importlib.util as u, sys; sys.exit(not u.find_spec({package!r}))'
  )
  try:
    done = subprocess.run([python, '-c', look], capture_output=True)
  except OSError as error:
    return f'{python} does not run: {error.strerror}'
  return f'{package} is not installed in {python}' if done.returncode else ''


def entrants(
  peers: Sequence[str], pythons: Mapping[str, str]
) -> tuple[list[Entrant], dict[str, str]]:
  """Returns ours and those peers that are there; and why others are not.

  Args:
    peers: names of those wanted.
    pythons: of the peers that have their own; the others are in this one.
  """
  found, left_out = [], {}
  for entrant in ENTRANTS:
    if entrant.peer and entrant.peer not in peers:
      continue
    python = pythons.get(entrant.peer, sys.executable)
    if why := missing(python, entrant.needs):
      left_out[entrant.who] = why
    else:
      found.append(dataclasses.replace(entrant, python=python))
  return found, left_out


def difference(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
  """Returns what two checks do not agree on; '' if they compute the same."""
  if ours.keys() != theirs.keys():
    return f'it shows {sorted(theirs)} where ours shows {sorted(ours)}'
  for name in ours:
    one, other = np.asarray(ours[name]), np.asarray(theirs[name])
    if one.shape != other.shape:
      return f'{name}: {other.shape} where ours are {one.shape}'
    if name == 'tokens' and (apart := int((one != other).sum())):
      return f'{apart} of {one.size} greedy tokens differ from ours'
    gap = float(np.abs(one - other).max())
    if not gap <= GAP:
      return f'{name}: {gap:.1e} from ours'
  return ''


def _begin(
  entrant: Entrant, job: workload.Job, running: dict[Entrant, link.Asked]
) -> dict[str, Any]:
  """Starts an entrant, and returns its first answer, programs compiled."""
  module = f'{PACKAGE}.{entrant.module}'
  job = dataclasses.replace(job, variant=entrant.variant)
  more = {pages.VARIABLE: entrant.memory}
  running[entrant] = link.start(entrant.python, module, job, more)
  ready = running[entrant].hear()
  for _ in range(ready['cold']):
    running[entrant].ask()
  return ready


def hold(chosen: list[Entrant], job: workload.Job, rounds: int) -> Report:
  """Returns what the entrants of a job cost, asked in turn.

  Raises:
    RuntimeError: ours failed; another one's failure is reported.
  """
  running, report = {}, Report([], {}, {})
  samples: dict[Entrant, list[dict[str, float]]] = {}
  ours = None
  try:
    for entrant in chosen:
      place = f'{entrant.who}, {job.work} {job.size.name.upper()}'
      say(f'starting {place}')
      try:
        ready = _begin(entrant, job, running)
      except RuntimeError as error:
        if entrant.is_ours:
          raise
        report.left_out[place] = f'failed: {error}'
        continue
      ours = ready['check'] if ours is None else ours
      if why := difference(ours, ready['check']):
        report.left_out[place] = f'not measured: {why}'
        continue
      samples[entrant] = []
      report.versions.update(ready['versions'])
    for number in range(rounds):
      say(f'round {number + 1} of {job.work} {job.size.name.upper()}')
      order = list(samples)
      first = number % len(order)
      for entrant in order[first:] + order[:first]:
        if why := _repeat(running[entrant], entrant, samples):
          report.left_out[f'{entrant.who}, {job.work}'] = why
  finally:
    for asked in running.values():
      asked.close()
  report.rows.extend(_row(who, job, found) for who, found in samples.items())
  return report


def _repeat(
  asked: link.Asked,
  entrant: Entrant,
  samples: dict[Entrant, list[dict[str, float]]],
) -> str:
  """Adds what one repeat cost; drops a peer that failed, and returns why."""
  try:
    samples[entrant].append(asked.ask())
  except RuntimeError as error:
    if entrant.is_ours:
      raise
    del samples[entrant]
    return f'failed: {error}'
  return ''


def _row(
  entrant: Entrant, job: workload.Job, samples: list[dict[str, float]]
) -> table.Row:
  """Returns what was measured, its bound not known yet."""
  costs = workload.costs(job.work, job.size, job.shape)
  return table.Row(
    work=job.work,
    size=job.size.name,
    who=entrant.who,
    cpu=[sample['cpu'] for sample in samples],
    wall=[sample['wall'] for sample in samples],
    canary=[sample['canary'] for sample in samples],
    peak=max(sample['peak'] for sample in samples),
    operations=sum(cost.operations for cost in costs),
    bound=0.0,
  )


def say(text: str) -> None:
  """Tells whoever waits what is going on; the table goes elsewhere."""
  print(f'{time.strftime("%H:%M:%S")} {text}', file=sys.stderr, flush=True)


def write_checkpoint(job: workload.Job) -> None:
  """Writes the random weights that all load; ends the program if it cannot."""
  module = f'{PACKAGE}.hugging'
  command = [sys.executable, '-m', module, 'checkpoint', job.text()]
  done = subprocess.run(command, capture_output=True, text=True)
  if done.returncode:
    said = done.stderr.strip().splitlines()[-1]
    sys.exit(f'transformers and torch, which write the checkpoint: {said}')


def bounded(report: Report, cores: int, bytes_a_second: float) -> Report:
  """Returns the report with each row's bound by products and memory.

  Args:
    report: of a run on those cores.
    cores: how many.
    bytes_a_second: that they move together.
  """
  rates = [rate for row in report.rows for rate in row.canary]
  rate = cores * float(np.median(rates))
  rows = []
  for row in report.rows:
    shape = workload.shape_of(row.work, row.size)
    costs = workload.costs(row.work, workload.SIZES[row.size], shape)
    bound = sum(cost.seconds(rate, bytes_a_second) for cost in costs)
    rows.append(dataclasses.replace(row, bound=bound))
  return dataclasses.replace(report, rows=rows)
