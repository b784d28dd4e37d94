"""Runs of the command, so small that they end in seconds."""

import dataclasses
import functools
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from score_jax import checkpoint, files

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
}
TIMEOUT = 300


@dataclasses.dataclass(frozen=True)
class Runs:
  """Starts the command on one device; what is compiled is kept for the next."""

  compiled: pathlib.Path  # A folder for compiled programs.

  def environment(self) -> dict[str, str]:
    return os.environ | {
      'XLA_FLAGS': '',
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
    """Returns a small run under way."""
    arguments = self.arguments(workdir, job, **settings)
    return subprocess.Popen(
      [sys.executable, '-m', 'score_jax.main', *arguments],
      cwd=ROOT,
      env=self.environment(),
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )

  def finish(
    self, workdir: pathlib.Path, job: str = 'score', **settings
  ) -> str:
    """Returns what a small run said to its end, which must be a good one."""
    process = self.start(workdir, job, **settings)
    said, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, said + errors
    return said


@functools.cache
def rows(path: pathlib.Path) -> tuple[dict[str, Any], ...]:
  """Returns the rows of a finished run's file, without what a clock said."""
  found, bad = files.read_jsonl(path)
  assert bad == []
  timed = ('seconds', 'tokens_per_second')
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
