"""Every method with every seed, one after the other, and the table of all.

    <workdir>/<method>/seed<n>/   one run each, as `run` leaves it
    <workdir>/table.md, .csv, .tex, .html, and figures/

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

import jax
from ml_collections import ConfigDict

from score_jax import base_model, checks, claims, files, phase, run
from score_jax import job as job_lib
from score_jax.checkpoint import CheckpointError
from score_jax.job import Job
from score_jax.journal import say
from score_jax.laboratory import asking, cells, pages
from score_jax.laboratory.cells import FAILED, Plan
from score_jax.methods import catalogue, prompting
from score_jax.stopping import Stop


def table(
  config: ConfigDict,
  workdir: pathlib.Path,
  names: Sequence[str],
  seeds: int,
  stop: Stop,
) -> None:
  """Trains and asks what is missing, and writes the table of all that is there.

  Args:
    config: of all runs but for method.name and seed.
    workdir: where all output goes, and unfinished work may be.
    names: of the methods, in the order to print.
    seeds: how many, from config.seed on.
    stop: whether someone asked to end.

  Raises:
    ConfigError: if the settings do not fit what they name, or a cell holds the
      work of other settings.
    Interrupted: on SIGTERM, when what was reached is saved.
  """
  asking.check(config)
  todo = cells.plans(config, workdir, names, seeds)
  for plan in todo:
    checks.check(plan.config, jax.device_count(), jax.default_backend())
    claims.is_claimed(run.filled_in(plan.config), plan.workdir)
  untrained = [plan for plan in todo if not plan.is_finished()]
  missing = [p for p in todo if not p.is_finished() or asking.missing(p)]
  say(f'{len(todo)} runs, {len(todo) - len(missing)} of them finished')
  pace = _Pace(untrained)
  try:
    with contextlib.ExitStack() as opened:
      setup = sharing(opened)
      for plan in missing:
        say(f'--- {plan.name}, seed {plan.seed}: {pace.left()}')
        _run(plan, todo, stop, setup)
        pace.done(plan)
  finally:
    pages.write(workdir, todo, names)


def _run(plan: Plan, todo: Sequence[Plan], stop: Stop, setup: Callable) -> None:
  """Runs a cell; one that cannot go on is noted, and the others do."""
  plan.workdir.mkdir(parents=True, exist_ok=True)
  (plan.workdir / FAILED).unlink(missing_ok=True)
  try:
    if not plan.is_finished():
      _share_base(plan, todo)
      run.attend(
        plan.given.copy_and_resolve_references(),
        plan.workdir,
        stop,
        time.monotonic(),
        setup,
      )
    _ask(plan, stop, setup)
  except (phase.TrainingError, CheckpointError) as error:
    say(f'{plan.name}, seed {plan.seed} failed: {error}')
    files.write_text(plan.workdir / FAILED, f'{error}\n')


def _ask(plan: Plan, stop: Stop, setup: Callable[..., Job]) -> None:
  """Asks a finished cell's final model what the table wants to know of it."""
  questions = asking.missing(plan)
  if not questions:
    return
  started = time.monotonic()
  job = setup(run.filled_in(plan.config), plan.workdir, stop, None)
  params, step = run.final(job, list(catalogue.get(plan.config).phases))
  asking.ask(plan, job, params, step)
  seconds = time.monotonic() - started
  say(f'asked as well, in {seconds:.0f} s: {", ".join(questions)}')


def _share_base(plan: Plan, todo: Sequence[Plan]) -> None:
  """Copies the base's evaluation from another cell, where it is the same.

  Greedy attempts depend on no seed; the number of turns shows in the rows.
  """
  if plan.config.eval.temperature or plan.results():
    return
  for other in todo:
    base = other.results().get('base')
    if other.config.turns == plan.config.turns and base:
      listed = pathlib.Path('evaluations', 'base.jsonl')
      if (other.workdir / listed).exists():
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
      kept[0].asking(prompting.repeated(config.table.turns))
    first = kept[0]
    between = first.instructions[:1] * (config.turns - 1)
    config = job_lib.decided(
      config, base_model.model_folder(config), first.mesh, len(between[0])
    )
    return dataclasses.replace(
      first, config=config, workdir=workdir, stop=stop, instructions=between
    )

  return setup


class _Pace:
  """When the runs that are left will have ended."""

  def __init__(self, missing: Sequence[Plan]):
    # What trains nothing takes seconds, and says nothing of the others.
    self._left = {p.workdir for p in missing if catalogue.get(p.config).phases}
    self._ended = 0
    self._started = time.monotonic()

  def done(self, plan: Plan) -> None:
    """Notes that one has ended."""
    if plan.workdir in self._left:
      self._left.remove(plan.workdir)
      self._ended += 1

  def left(self) -> str:
    """Returns how many are left to train, and when the last one will end."""
    count = len(self._left)
    words = f'{count} run{"s" * (count != 1)} left to train'
    if not self._ended:
      return words
    each = (time.monotonic() - self._started) / self._ended
    seconds = each * len(self._left)
    clock = time.strftime('%H:%M', time.localtime(time.time() + seconds))
    return f'{words}, about {seconds / 60:.0f} min, until {clock}'
