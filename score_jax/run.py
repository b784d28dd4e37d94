"""One job from its start, or from where it was killed, to its report."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import itertools
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from ml_collections import ConfigDict

from score_jax import (
  again,
  checkpoint,
  claims,
  notices,
  phase,
  places,
  pretrain,
  processes,
  room,
  summary,
  tasks,
  train,
  watch,
)
from score_jax import config as config_lib
from score_jax import job as job_lib
from score_jax.checkpoint import CheckpointError
from score_jax.config import ConfigError
from score_jax.job import Job
from score_jax.journal import NO_ROOM, say
from score_jax.methods import catalogue, prompting
from score_jax.methods.plan import Inference, Phase
from score_jax.places import Unreachable
from score_jax.report.build import build
from score_jax.report.words import points
from score_jax.spare import TakenOver
from score_jax.stopping import Interrupted, Stop

OK, FAILED = 0, 1
# What ends a job in one line that says why.
FAILURES = (phase.TrainingError, CheckpointError, TakenOver, Unreachable)


def stopped_code() -> int:
  """Returns the exit code of a job that was stopped and can go on.

  It is 0, for whoever asked got what was asked for. A launcher that has to tell
  such a job from a finished one sets SCORE_STOPPED_CODE to another.

  Raises:
    ConfigError: if that is no exit code.
  """
  text = os.environ.get('SCORE_STOPPED_CODE', str(OK))
  if not text.isdecimal() or int(text) > 255:
    raise ConfigError(
      f'SCORE_STOPPED_CODE must be an exit code, 0 to 255; got {text!r}.'
    )
  return int(text)


def together(config: ConfigDict, workdir: pathlib.Path, started: float) -> int:
  """Returns the exit code of a job that any number of processes do; see `run`.

  Raises:
    ConfigError: on all processes, if they cannot work together; and as `run`,
      where there is one.
  """
  if config.job == 'pretrain' and processes.several():
    raise ConfigError(
      "job='pretrain' is for one process: the model that it makes is small; "
      'start it without SCORE_COORDINATOR.'
    )
  _check_alike(config, workdir)
  c, stop = config.limits, Stop()
  stop.listen()
  if c.notices:
    notices.listen(stop.ask)
  with only_one(workdir):
    return processes.run(
      lambda: run(config, workdir, stop, started),
      workdir,
      watch.Limits(c.silent_seconds, c.stalled_times, c.stalled_seconds),
      stopped_code(),
    )


def _check_alike(config: ConfigDict, workdir: pathlib.Path) -> None:
  """Refuses processes that were started with different settings."""
  own = {'--workdir': str(workdir)}
  own |= config_lib.flatten(json.loads(config.to_json()))
  if found := processes.differing(own):
    process, name, first, other = found
    raise ConfigError(
      f'{name} must be the same for all processes; process 0 has {first!r} and '
      f'process {process} {other!r}. Start all of them with one command line.'
    )


def run(
  config: ConfigDict, workdir: pathlib.Path, stop: Stop, started: float
) -> int:
  """Returns the exit code of the job that `config` describes.

  Args:
    config: checked settings.
    workdir: where all output goes, and unfinished work may be; no other job
      may use it.
    stop: whether someone asked to end.
    started: when the program started, of time.monotonic().

  Raises:
    ConfigError: if the settings do not fit what they name.
  """
  stopped = stopped_code()
  try:
    if config.job == 'pretrain':
      pretrain.run(config, workdir, stop)
    else:
      attend(config, workdir, stop, started)
  except Interrupted:
    after = f'goes on from what is saved in {workdir}'
    if config.job == 'pretrain':
      after = 'starts anew'
    say(f'stopped; the same command {after}')
    return stopped
  except FAILURES as error:
    return _failed(str(error))
  except OSError as error:
    if error.errno not in NO_ROOM:
      raise
    return _failed(
      f'{error.filename or workdir} cannot be written ({error.strerror}); make '
      'room, and the same command goes on from what is saved.'
    )
  return OK


def _failed(words: str) -> int:
  """Says why the job ends, and returns its exit code."""
  print(f'score_jax: {words}', file=sys.stderr)
  processes.note(words)
  return FAILED


@contextlib.contextmanager
def only_one(workdir: pathlib.Path) -> Iterator[None]:
  """Refuses a work directory that another job is using.

  Raises:
    ConfigError: on all processes.
  """
  with contextlib.ExitStack() as held:
    if refusal := processes.decide(lambda: _lock(workdir, held)):
      raise ConfigError(refusal)
    _check_room(workdir)
    yield


def _check_room(folder: pathlib.Path, setting: str = '--workdir') -> None:
  """Refuses a folder that one of the processes cannot write to.

  Raises:
    ConfigError: on all processes.
  """
  for refusal in processes.share(lambda: room.refusal(folder, setting)):
    if refusal:
      raise ConfigError(refusal)


def _lock(workdir: pathlib.Path, held: contextlib.ExitStack) -> str:
  """Locks a work directory until `held` is closed; returns why not, or ''."""
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    lock = open(workdir / '.lock', 'w')  # noqa: SIM115
  except OSError as error:
    return (
      f'--workdir={workdir} cannot be written ({error.strerror}); give another.'
    )
  held.enter_context(lock)
  try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError:
    return (
      f'--workdir={workdir} is in use by another job; wait for it, or give '
      'another.'
    )
  return ''


def attend(
  config: ConfigDict,
  workdir: pathlib.Path,
  stop: Stop,
  started: float,
  setup: Callable[..., Job] = job_lib.setup,
) -> None:
  """Runs the phases that the job has to see finished, and what frames them.

  Args:
    config: checked settings.
    workdir: where all output goes, and unfinished work may be.
    stop: whether someone asked to end.
    started: when the program started, of time.monotonic().
    setup: gives the job; called if there is anything to do.

  Raises:
    ConfigError, TrainingError, CheckpointError, Interrupted: as they say.
  """
  config = filled_in(catalogue.on_equal_terms(config))
  plans = catalogue.chain(config)
  spare = claims.spare(config, workdir)
  if spare and processes.decide(lambda: claims.bring_back(config, spare)):
    say(f'{workdir} is made good from what {spare.folder} has kept of it')
  held = processes.decide(lambda: claims.is_claimed(config, workdir))
  where = claims.checkpoints(config, workdir)
  missing = [p for p in plans if not train.is_finished(where, p)]
  results = processes.decide(lambda: train.read_results(workdir / 'eval.json'))
  names = ['base', *(p.name for p in plans), *_asked(config)]
  known = held and processes.decide(lambda: claims.same_model(config, workdir))
  if known and not missing and all(name in results for name in names):
    say(f'finished: nothing is left to do in {workdir}')
    say(table(results))
    _report(config, workdir)
    return
  if config.job == 'stage2' and missing[:1] == plans[:1] and not held:
    say('stage 1 is not there yet: it is trained first')
  with contextlib.ExitStack() as opened:
    job = setup(config, workdir, stop, opened)
    for inference in _asked(config).values():
      job.asking(inference)  # Refused now, or behind all training.
    if not held:  # Not before: settings that were refused claim nothing.
      processes.decide(lambda: claims.claim(config, workdir))
    if spare:
      processes.decide(lambda: claims.take_over(spare))
      job = dataclasses.replace(job, spare=spare)
      if not places.is_bucket(where):
        _check_room(where, claims.FOLDER)
    say(summary.describe(job, plans))
    if note := processes.decide(lambda: _no_room(job, missing)):
      say(note)
    _stages(job, plans, started)


def _no_room(job: Job, plans: list[Phase]) -> str:
  """Returns that the checkpoints of phases may find no room, or ''."""
  where = claims.checkpoints(job.config, job.workdir)
  if not plans or places.is_bucket(where):
    return ''
  there = [len(checkpoint.steps(where / plan.name)) for plan in plans]
  # The newest, the best, and for a moment the one that is being written.
  each = job.config.checkpoint.keep + 1
  most = 1 + sum(max(0, each - n) for n in there)
  disk = where if job.spare else job.workdir
  return room.warning(disk, summary.checkpoint_bytes(job), most)


def _stages(job: Job, plans: list[Phase], started: float) -> None:
  """Evaluates the base, trains and evaluates each stage, and reports."""
  results = {'base': train.evaluate_into(job, 'base', job.base_on_devices(), 0)}
  say(f'base: {_result(results["base"])}')
  seconds = time.monotonic() - started
  compiles = '; the first step of a stage compiles first' if plans else ''
  say(f'{seconds:.0f} s after start{compiles}')
  for note in _cut_off(job, results['base']):
    say(note)
  for plan in plans:
    results[plan.name] = _stage(job, plan, plans)
    say(
      f'{plan.name}: {_result(results[plan.name])}  (best checkpoint by '
      f'training reward: step {results[plan.name]["step"]} of {plan.steps})'
    )
    # The last one's is the whole run's, below, where nothing more is asked.
    goes_on = plan is not plans[-1] or _asked(job.config)
    if goes_on and job.config.log.report and processes.is_first():
      build(job.workdir)
  for name, inference in _asked(job.config).items():
    params, step = final(job, plans)
    results[name] = train.evaluate_into(job, name, params, step, inference)
    say(f'{name}: {_result(results[name])}')
  say(table(results))
  _report(job.config, job.workdir)


def _report(config: ConfigDict, workdir: pathlib.Path) -> None:
  """Builds the report, where it is wanted, and says where it is."""
  if config.log.report and processes.is_first():
    processes.enter('reporting', '')
    say(f'report    {build(workdir)}')


def _asked(config: ConfigDict) -> dict[str, Inference]:
  """Returns what the final model is asked beside attempts, by name."""
  asked, method = {}, catalogue.get(config)
  if method.inference != prompting.attempts(config):
    asked[method.name] = method.inference
  if config.eval.attempts:
    name = f'attempts{config.eval.attempts}'
    asked[name] = prompting.repeated(config.eval.attempts)
  return asked


def final(job: Job, plans: list[Phase]) -> tuple[Any, int]:
  """Returns the parameters that all phases end with, and their step."""
  if not plans:
    return job.base_on_devices(), 0
  params, step = phase.best_params(job, plans[-1].name)
  return job.bound(params), step


CUT_OFF = 0.05  # Of the base model's attempts; more than that is said.


def _cut_off(job: Job, base: dict[str, Any]) -> list[str]:
  """Returns a warning for each turn whose answers do not fit their budget."""
  lengths = job.config.sampling.max_tokens
  return [
    f"warning   {base[f'truncated_t{turn}']:.0%} of the base model's attempts "
    f'{turn} are cut off at sampling.max_tokens={tuple(lengths)}, and count '
    f'as {job.config.method.truncated}; raise it'
    for turn in range(1, len(lengths) + 1)
    if base[f'truncated_t{turn}'] > CUT_OFF
  ]


def filled_in(config: ConfigDict) -> ConfigDict:
  """Returns the settings with the task's own wording, so that it is kept."""
  filled, task = config.copy_and_resolve_references(), tasks.get(config.task)
  filled.task.prompt = config.task.prompt or task.prompt
  filled.task.instruction = config.task.instruction or task.instruction
  return filled


def _stage(job: Job, plan: Phase, plans: list[Phase]) -> dict[str, Any]:
  """Returns the test result of a stage, trained if it is not finished."""
  start = functools.partial(_start, job, plan, plans[: plans.index(plan)])
  if train.is_finished(claims.checkpoints(job.config, job.workdir), plan):
    say(f'{plan.name} is finished')
  else:
    train.train_stage(job, plan, start)
  train.validate_end(job, plan)
  again.make(job, plan, start)
  params, step = phase.best_params(job, plan.name)
  return train.evaluate_into(job, plan.name, job.bound(params), step)


def _start(job: Job, plan: Phase, before: list[Phase]) -> Any:
  """Returns what a stage starts from, and says what that is."""
  if not before:
    say(f'{plan.name} starts from the base model')
    return job.start()
  params, step = train.start_params(job, before[-1].name)
  say(
    f'{plan.name} starts from the best checkpoint of {before[-1].name}, '
    f'step {step}'
  )
  return params


def _result(result: dict[str, Any]) -> str:
  """Returns one line of an evaluation, in percent with 95 % intervals."""

  def figure(name: str, signed: bool = False) -> str:
    values = (result[name], *result['ci95'][name])
    value, low, high = (points(x, signed) for x in values)
    return f'{value} [{low}, {high}]'

  turns = itertools.takewhile(
    lambda turn: f'accuracy_t{turn}' in result, itertools.count(1)
  )
  rates = [f'Acc@t{turn} {figure(f"accuracy_t{turn}")}' for turn in turns]
  return '  '.join([*rates, f'Δ {figure("delta", signed=True)}'])


def table(results: dict[str, Any]) -> str:
  """Returns the evaluations as a table, in percent of all problems."""
  columns = {
    'Acc@t1': 'accuracy_t1',
    'Acc@t2': 'accuracy_t2',
    'Δ': 'delta',
    'Δ i→c': 'delta_i_to_c',
    'Δ c→i': 'delta_c_to_i',
    'changed': 'answer_change_rate',
  }
  wide = 1 + max(7, *map(len, results))
  lines = [f'{"":{wide}}' + ''.join(f'{head:>20}' for head in columns)]
  for name, result in results.items():
    line = f'{name:{wide}}'
    for metric in columns.values():
      values = (result[metric], *result['ci95'][metric])
      value, low, high = map(points, values)
      line += f'{value:>6} [{low:>5},{high:>5}]'
    lines.append(line)
  count = next(iter(results.values()))['n']
  lines.append(f'% of {count} test problems, with 95 % intervals')
  return '\n'.join(lines)
