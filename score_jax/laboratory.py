"""Every method with every seed, one after the other, and the table of all.

    <workdir>/<method>/seed<n>/   one run each, as `run` leaves it
    <workdir>/table.md, .csv, .tex

A run that was stopped goes on where it was, and one that is finished is not
touched, so the same command ends whatever a kill left undone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import shutil
import time
from collections.abc import Callable, Sequence

from ml_collections import ConfigDict

from score_jax import comparison, files, phase, run
from score_jax import job as job_lib
from score_jax.checkpoint import CheckpointError
from score_jax.comparison import Cell, Line
from score_jax.job import Job, Stop
from score_jax.journal import say
from score_jax.methods import catalogue

AGAINST = 'score'  # The method that all are held against.
FAILED = 'failed.txt'  # In the folder of a run that could not go on.


@dataclasses.dataclass(frozen=True)
class Plan:
  """One cell of the table, to be trained."""

  given: ConfigDict  # As the table's settings have it.
  config: ConfigDict  # The same on equal terms, as it is run.
  workdir: pathlib.Path

  @property
  def name(self) -> str:
    """Returns the method's name."""
    return self.config.method.name

  @property
  def final(self) -> str:
    """Returns the name that its last evaluation has."""
    method = catalogue.get(self.config)
    if method.phases:
      return method.phases[-1].name
    return 'base' if self.name == 'base' else self.name

  def is_finished(self) -> bool:
    """Returns whether its last evaluation is there."""
    path = self.workdir / 'eval.json'
    return path.exists() and self.final in files.read_json(path)


def plans(
  config: ConfigDict, workdir: pathlib.Path, names: Sequence[str], seeds: int
) -> list[Plan]:
  """Returns all cells, seed by seed, so that a table is soon there.

  What trains nothing and is evaluated greedily is the same with every seed.

  Raises:
    ConfigError: if there is no such method.
  """
  found = []
  for seed in range(config.seed, config.seed + seeds):
    for name in names:
      one = config.copy_and_resolve_references()
      with one.unlocked():
        one.method.name, one.seed = name, seed
      where = workdir / name / f'seed{seed}'
      trained = bool(catalogue.get(one).phases)
      if trained or seed == config.seed or config.eval.temperature:
        found.append(Plan(one, catalogue.on_equal_terms(one), where))
  return found


def table(
  config: ConfigDict,
  workdir: pathlib.Path,
  names: Sequence[str],
  seeds: int,
  stop: Stop,
) -> None:
  """Trains what is missing, and writes the table of all that is there.

  Args:
    config: of all runs but for method.name and seed.
    workdir: where all output goes, and unfinished work may be.
    names: of the methods, in the order to print.
    seeds: how many, from config.seed on.
    stop: whether someone asked to end.

  Raises:
    ConfigError: if the settings do not fit what they name.
    Interrupted: on SIGTERM, when what was reached is saved.
  """
  todo = plans(config, workdir, names, seeds)
  missing = [plan for plan in todo if not plan.is_finished()]
  say(f'{len(todo)} runs, {len(todo) - len(missing)} of them finished')
  pace = _Pace(missing)
  try:
    with contextlib.ExitStack() as opened:
      setup = sharing(opened)
      for plan in missing:
        say(f'--- {plan.name}, seed {plan.config.seed}: {pace.left()}')
        _run(plan, todo, stop, setup)
        pace.done()
  finally:
    write(workdir, todo, names)


def _run(plan: Plan, todo: Sequence[Plan], stop: Stop, setup: Callable) -> None:
  """Runs a cell; one that cannot go on is noted, and the others do."""
  plan.workdir.mkdir(parents=True, exist_ok=True)
  _share_base(plan, todo)
  (plan.workdir / FAILED).unlink(missing_ok=True)
  try:
    run.attend(
      plan.given.copy_and_resolve_references(),
      plan.workdir,
      stop,
      time.monotonic(),
      setup,
    )
  except (phase.TrainingError, CheckpointError) as error:
    say(f'{plan.name}, seed {plan.config.seed} failed: {error}')
    files.write_text(plan.workdir / FAILED, f'{error}\n')


def _share_base(plan: Plan, todo: Sequence[Plan]) -> None:
  """Copies the base's evaluation from another cell, where it is the same.

  Greedy attempts depend on no seed; the number of turns shows in the rows.
  """
  if plan.config.eval.temperature or (plan.workdir / 'eval.json').exists():
    return
  for other in todo:
    results = other.workdir / 'eval.json'
    if other.config.turns == plan.config.turns and results.exists():
      base = files.read_json(results).get('base')
      listed = pathlib.Path('evaluations', 'base.jsonl')
      if base and (other.workdir / listed).exists():
        (plan.workdir / 'evaluations').mkdir(exist_ok=True)
        shutil.copy(other.workdir / listed, plan.workdir / listed)
        files.write_json(plan.workdir / 'eval.json', {'base': base})
        return


def sharing(opened: contextlib.ExitStack) -> Callable[..., Job]:
  """Returns a setup of jobs that loads model, data and graders only once.

  Args:
    opened: closes, after all jobs, what they share.
  """
  kept: list[Job] = []

  def setup(config, workdir, stop, _):
    if not kept:
      kept.append(job_lib.setup(config, workdir, stop, opened))
    first = kept[0]
    between = first.instructions[:1] * (config.turns - 1)
    return dataclasses.replace(
      first, config=config, workdir=workdir, stop=stop, instructions=between
    )

  return setup


class _Pace:
  """When the runs that are left will have ended."""

  def __init__(self, missing: Sequence[Plan]):
    # What trains nothing takes seconds, and says nothing of the others.
    self._trained = [bool(catalogue.get(p.config).phases) for p in missing]
    self._ended = 0
    self._started = time.monotonic()

  def done(self) -> None:
    """Notes that one more has ended."""
    self._ended += 1

  def left(self) -> str:
    """Returns how many are left, and when the last one is expected to end."""
    over = sum(self._trained[: self._ended])
    words = f'{len(self._trained) - self._ended} runs left'
    if not over:
      return words
    each = (time.monotonic() - self._started) / over
    seconds = each * sum(self._trained[self._ended :])
    clock = time.strftime('%H:%M', time.localtime(time.time() + seconds))
    return f'{words}, about {seconds / 60:.0f} min, until {clock}'


def write(
  workdir: pathlib.Path, todo: Sequence[Plan], names: Sequence[str]
) -> list[Line]:
  """Writes the table of all finished cells; returns its rows."""
  found = cells(todo)
  if not found:
    return []
  others = found.get(AGAINST, [])
  lines = [
    comparison.line(name, catalogue.METHODS[name][0], found[name], others)
    for name in names
    if name in found
  ]
  problems = len(next(iter(found.values()))[0].right)
  texts = {
    'md': comparison.markdown(lines, problems) + _unfinished(todo),
    'csv': comparison.comma_separated(lines),
    'tex': comparison.latex(lines, problems),
  }
  for kind, text in texts.items():
    files.write_text(workdir / f'table.{kind}', text)
  say(f'table     {workdir / "table.md"}')
  return lines


def cells(todo: Sequence[Plan]) -> dict[str, list[Cell]]:
  """Returns the finished cells of each method, in the order of the seeds."""
  found: dict[str, list[Cell]] = {}
  for plan in todo:
    if not plan.is_finished():
      continue
    rows, _ = files.read_jsonl(
      plan.workdir / 'evaluations' / f'{plan.final}.jsonl'
    )
    metrics = plan.workdir / 'metrics.jsonl'
    steps = files.read_jsonl(metrics)[0] if metrics.exists() else []
    cell = comparison.read_cell(rows, steps)
    found.setdefault(plan.name, []).append(cell)
  return found


def _unfinished(todo: Sequence[Plan]) -> str:
  """Returns words on the runs that the table lacks, and why."""
  text = ''
  for plan in todo:
    if plan.is_finished():
      continue
    path = plan.workdir / FAILED
    why = path.read_text().strip() if path.exists() else 'not finished yet'
    text += f'\n- {plan.name}, seed {plan.config.seed}: {why}'
  return f'\nMissing:\n{text}\n' if text else ''
