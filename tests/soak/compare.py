"""Does a run under faults end as the unbroken one, and leave nothing behind?"""

import json
import pathlib
import re
from collections.abc import Set

import runs as small

from score_jax import checkpoint, files, inspection, step_files

LITTER = ('*.tmp', step_files.UNFINISHED, '.probe*')


def differences(
  workdir: pathlib.Path,
  unbroken: pathlib.Path,
  steps: dict[str, int],
  excused: Set[str] = frozenset(),
) -> list[str]:
  """Returns in what a finished run differs from the unbroken one; to the bit.

  Args:
    workdir: of the run.
    unbroken: of the other.
    steps: of each stage.
    excused: batches that need not be kept; see `not_kept`.
  """
  found = []
  for stage, last in steps.items():
    folder = pathlib.Path('checkpoints', stage)
    best, ours = (checkpoint.best_step(x / folder) for x in (unbroken, workdir))
    if ours != best:
      found.append(f'{stage}: the best checkpoint is {ours}, not {best}')
      continue
    for step in (best, last):
      ours, theirs = (small.params(x, stage, step) for x in (workdir, unbroken))
      if ours != theirs:
        found.append(f'{stage}: other parameters in step {step}')
  names = ['metrics.jsonl', 'samples.jsonl']
  names += [
    str(x.relative_to(unbroken)) for x in unbroken.glob('*/*.jsonl')
  ]  # Evaluations, and batches that were not finite.
  for name in names:
    if pathlib.Path(name).stem in excused and not (workdir / name).exists():
      continue
    if (difference := of_rows(workdir / name, unbroken / name)) is not None:
      found.append(f'{name}: {difference}')
  ours, theirs = (files.read_json(x / 'eval.json') for x in (workdir, unbroken))
  if ours != theirs:
    found.append('eval.json: other results')
  for pattern in LITTER:
    found += [f'left behind: {x}' for x in workdir.rglob(pattern)]
  return found


def not_kept(said: str) -> set[str]:
  """Returns the batches that a run said it had no room to keep."""
  return set(re.findall(r'^(\S+): its batch could not be kept', said, re.M))


def made_room(workdir: pathlib.Path, names: Set[str]) -> Set[str]:
  """Returns which of some batches are gone because newer ones took their place.

  Updates that are spoiled one after the other make more than are kept.
  """
  there = batches(workdir)
  return names - there if len(there) >= inspection.KEPT else set()


def batches(workdir: pathlib.Path) -> set[str]:
  """Returns the names of the batches that were kept for inspection."""
  return {x.stem for x in (workdir / inspection.FOLDER).glob('*.npz')}


def of_rows(ours: pathlib.Path, theirs: pathlib.Path) -> str | None:
  """Returns the first difference of two files of rows; None: there is none."""
  if not ours.exists():
    return 'not there'
  # As text, for no number is not equal to itself.
  one, two = (
    [json.dumps(row, sort_keys=True) for row in small.rows(x)]
    for x in (ours, theirs)
  )
  if len(one) != len(two):
    return f'{len(one)} rows, not {len(two)}'
  for number, (a, b) in enumerate(zip(one, two, strict=True), start=1):
    if a != b:
      return f'row {number} is {a[:400]}, not {b[:400]}'
  return None
