"""Runs of the command, so small that they end in seconds.

Most are forked from a process that has imported everything, which takes longer
than what a small run then does. They are real processes otherwise: they parse
the command line, and can be killed.
"""

import dataclasses
import functools
import gc
import multiprocessing
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import app
from compiling import QUICK

from score_jax import checkpoint, files, main

ROOT = pathlib.Path(__file__).parents[1]
EVERY = 3  # Steps between checkpoints.
STEPS = {'stage1': 8, 'stage2': 14}
SMALL = {
  'train.stage1_steps': STEPS['stage1'],
  'train.stage2_steps': STEPS['stage2'],
  'train.trajectories': 32,
  'sampling.first_attempts': 4,
  'task.train_problems': 100,
  'checkpoint.every': EVERY,
  'eval.problems': 50,
  'eval.batch': 40,  # So that the last batch has to be filled up.
  'eval.every': 5,
  'eval.validation_problems': 20,
  'eval.resamples': 50,
  'log.samples_every': 4,
  # Drawing takes longer than the steps; the unbroken run has both.
  'log.report': False,
  'log.tensorboard': False,
}
# Compiled programs are millions of objects, and a full collection looks at each.
COLLECTED = 50_000, 20, 50
TIMEOUT = 900  # Of what hangs: a busy machine takes several times as long.
# Not this file: the process that imports them has not the tests' folder on its
# path, but may have a folder runs/, which make demo leaves, in its place.
IMPORTED = (
  'score_jax.main',
  'seqio',
  'transformers.models.auto.tokenization_auto',
  'score_jax.run',
  'matplotlib.pyplot',
)


@dataclasses.dataclass(frozen=True)
class Runs:
  """Starts the command on one device; what is compiled is kept for the next."""

  compiled: pathlib.Path  # A folder for compiled programs.

  def environment(self) -> dict[str, str]:
    return os.environ | {
      'XLA_FLAGS': QUICK,
      'JAX_PLATFORMS': 'cpu',
      'JAX_COMPILATION_CACHE_DIR': str(self.compiled),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
      'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
    }

  def arguments(
    self,
    workdir: pathlib.Path,
    job: str = 'score',
    preset: str = '',
    **settings: Any,
  ) -> list[str]:
    """Returns those of a small run; a setting's dots are written as __."""
    changes = {k.replace('__', '.'): v for k, v in settings.items()}
    return [
      f'--config=configs/{job}.py:{preset}',
      f'--workdir={workdir}',
      *(f'--config.{k}={v}' for k, v in (SMALL | changes).items()),
    ]

  def start(
    self, workdir: pathlib.Path, job: str = 'score', **settings: Any
  ) -> subprocess.Popen:
    """Returns a small run under way, started as people start it."""
    arguments = self.arguments(workdir, job, **settings)
    return subprocess.Popen(
      [sys.executable, '-m', 'score_jax.main', *arguments],
      cwd=ROOT,
      env=self.environment(),
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )

  def fork(
    self,
    log: pathlib.Path,
    workdir: pathlib.Path,
    job: str = 'score',
    **settings: Any,
  ) -> BaseProcess:
    """Returns a small run under way, forked; it says what it says to a file."""
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(list(IMPORTED))
    forkserver.ensure_running()
    arguments = self.arguments(workdir, job, **settings)
    process = context.Process(
      target=_run, args=(arguments, str(log), self.environment())
    )
    process.start()
    return process

  def finish(
    self, workdir: pathlib.Path, job: str = 'score', **settings: Any
  ) -> str:
    """Returns what a small run said to its end, which must be a good one."""
    with tempfile.TemporaryDirectory() as folder:
      log = pathlib.Path(folder, 'log')
      process = self.fork(log, workdir, job, **settings)
      process.join(TIMEOUT)
      process.kill()  # One that takes too long; another has ended.
      process.join()
      said = log.read_text()
    assert process.exitcode == 0, said
    return said


def await_claim(process: BaseProcess, claim: Callable[[], bool]) -> None:
  """Returns when a claim holds of a run, which must not end before."""
  deadline = time.monotonic() + TIMEOUT
  while not claim():
    assert process.exitcode is None
    assert time.monotonic() < deadline
    time.sleep(0.001)


def has_said(log: pathlib.Path, words: str) -> bool:
  """Returns whether a forked run has said some words to its file."""
  return log.exists() and words in log.read_text()


def recorded(workdir: pathlib.Path) -> int:
  """Returns how many steps a run has recorded, of all stages."""
  path = workdir / 'metrics.jsonl'
  return path.read_bytes().count(b'\n') if path.exists() else 0


def _run(arguments: list[str], log: str, environment: dict[str, str]) -> None:
  gc.freeze()  # What is imported stays: collections need not look at it.
  gc.set_threshold(*COLLECTED)
  os.chdir(ROOT)
  with open(log, 'w') as file:
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
  os.environ.update(environment)
  # What Python and jax read of it when they started, before the fork.
  sys.path[:0] = filter(None, environment.get('PYTHONPATH', '').split(':'))
  for name, value in {
    'jax_compilation_cache_dir': environment['JAX_COMPILATION_CACHE_DIR'],
    'jax_enable_compilation_cache': True,
    'jax_persistent_cache_min_compile_time_secs': 0,
    'jax_persistent_cache_min_entry_size_bytes': -1,
  }.items():
    jax.config.update(name, value)
  sys.argv = ['main', *arguments]  # Where ml_collections looks.
  app.run(main.main, argv=sys.argv, flags_parser=main.parse)


@functools.cache
def rows(path: pathlib.Path) -> tuple[dict[str, Any], ...]:
  """Returns the rows of a finished run's file, without what a clock said,
  and what was compiled."""
  found, bad = files.read_jsonl(path)
  assert bad == []
  timed = ('seconds', 'tokens_per_second', 'device_idle', 'compilations')
  return tuple(
    {k: v for k, v in row.items() if not k.startswith(timed)} for row in found
  )


def params(workdir: pathlib.Path, stage: str, step: int) -> dict[str, bytes]:
  """Returns the bits of a checkpoint's parameters by name."""
  folder = workdir / 'checkpoints' / stage
  saved = ocp.StandardCheckpointHandler().metadata(
    folder / str(step) / 'params'
  )
  place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  target = {
    name.removeprefix('params/'): jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=place
    )
    for name, leaf in dict(saved).items()
  }
  found, _ = checkpoint.restore_params(folder, [step], target, print)
  return {name: np.asarray(leaf).tobytes() for name, leaf in found.items()}


def assert_same(
  workdir: pathlib.Path,
  unbroken: pathlib.Path,
  steps: Mapping[str, int] = STEPS,
) -> None:
  """Refuses two finished runs that differ in a bit of what they learned."""
  for stage, last in steps.items():
    folder = pathlib.Path('checkpoints', stage)
    best = checkpoint.best_step(unbroken / folder)
    assert checkpoint.best_step(workdir / folder) == best
    for step in (best, last):
      assert params(workdir, stage, step) == params(unbroken, stage, step)
  for name in ('metrics.jsonl', 'samples.jsonl'):
    assert rows(workdir / name) == rows(unbroken / name)
  ours, theirs = (files.read_json(x / 'eval.json') for x in (workdir, unbroken))
  assert ours == theirs
