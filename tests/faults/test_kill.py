"""However a run is stopped, it ends where the unbroken run ends, to the bit."""

import json
import math
import os
import random
import shutil
import signal
import subprocess
import time

import pytest
import runs as small

from score_jax import checkpoint, files, step_files

pytestmark = pytest.mark.slow


def _is_saving(workdir):
  folders = workdir.glob(f'checkpoints/*/{step_files.UNFINISHED}')
  return next(folders, None) is not None


def _await(process, claim):
  """Returns when the claim holds of a process that must not end before."""
  deadline = time.monotonic() + small.TIMEOUT
  while not claim():
    assert _exit_code(process) is None
    assert time.monotonic() < deadline
    time.sleep(0.001)


def _exit_code(process):
  """Returns it, or None of a process that runs."""
  if isinstance(process, subprocess.Popen):
    return process.poll()
  return process.exitcode


def _kill(process):
  process.kill()
  if isinstance(process, subprocess.Popen):
    process.communicate()
  else:
    process.join()
  assert _exit_code(process) == -signal.SIGKILL


def _kill_at_random(runs, workdir, draw, moment):
  """Starts the run and kills it; returns whether that broke off a save.

  Args:
    runs: starts it.
    workdir: of the run.
    draw: random numbers.
    moment: 'start', or steps of both stages behind which to kill, and whether
      to wait for the next save.
  """
  before = time.time()
  if moment == 'start':
    process = runs.start(workdir)
    time.sleep(draw.uniform(0, 6))
  else:
    log = workdir.with_suffix('.log')
    process = runs.fork(log, workdir)
    steps, in_a_save = moment
    # A run drops the rows behind its checkpoint before it adds new ones.
    _await(process, lambda: _is_newer(workdir, before))
    _await(process, lambda: small.recorded(workdir) >= steps)
    if in_a_save:
      _await(process, lambda: _is_saving(workdir))
    time.sleep(draw.uniform(0, 0.03))
  _kill(process)
  return _is_saving(workdir)


def _is_newer(workdir, moment):
  path = workdir / 'metrics.jsonl'
  return path.exists() and path.stat().st_mtime > moment


@pytest.mark.parametrize('kills', [5, pytest.param(10, marks=pytest.mark.long)])
def test_killed_many_times_a_run_ends_bit_for_bit_as_the_unbroken_one(
  runs, unbroken, tmp_path, kills
):
  draw = random.Random(0)
  steps = sorted(draw.sample(range(1, sum(small.STEPS.values())), kills - 2))
  moments = [(n, i % 4 < 3) for i, n in enumerate(steps)]
  for _ in range(2):
    moments.insert(draw.randrange(len(moments)), 'start')
  broken_off = [_kill_at_random(runs, tmp_path, draw, x) for x in moments]
  assert any(broken_off)
  runs.finish(tmp_path)
  small.assert_same(tmp_path, unbroken)


def _said_until(process, words):
  """Returns what a run says, up to the line with some words."""
  said = ''
  for line in process.stdout:
    said += line
    if words in line:
      return said
  raise AssertionError(said + process.communicate()[1])


def test_sigterm_saves_and_ends_well_and_the_run_goes_on_from_there(
  runs, unbroken, tmp_path
):
  stops = [
    ('stage1 starts from', 'stage1', 1),
    ('stage2 starts from', 'stage2', 1),
  ]
  for words, stage, step in stops:
    process = runs.start(tmp_path)
    _said_until(process, words)
    process.terminate()
    said, _ = process.communicate(timeout=small.TIMEOUT)
    assert process.returncode == 0
    assert 'stopped; the same command goes on from' in said
    folder = tmp_path / 'checkpoints' / stage
    assert checkpoint.newest_step(folder) == step
    # Not where the unbroken run saves, so never the one to go on from as best.
    meta = json.loads((folder / str(step) / 'meta' / 'metadata').read_text())
    assert math.isnan(meta['score'])
  runs.finish(tmp_path)
  small.assert_same(tmp_path, unbroken)


def test_a_truncated_newest_checkpoint_is_named_and_passed_over(
  runs, unbroken, tmp_path
):
  process = runs.fork(tmp_path / 'log', tmp_path, 'stage2')
  folder = tmp_path / 'checkpoints' / 'stage1'
  _await(process, lambda: checkpoint.steps(folder) == [3, 6])
  _kill(process)
  for path in (folder / '6' / 'params').rglob('*'):
    if path.is_file():
      os.truncate(path, path.stat().st_size // 2)
  said = runs.finish(tmp_path, 'stage2')
  assert f'The checkpoint {folder}/6 is damaged' in said
  assert 'Trying 3' in said
  assert 'stage1: going on from step 3 of 8' in said
  small.assert_same(tmp_path, unbroken)


def test_a_best_checkpoint_that_is_lost_is_made_again(runs, unbroken, tmp_path):
  workdir = tmp_path / 'run'
  shutil.copytree(unbroken, workdir)
  folder = workdir / 'checkpoints' / 'stage1'
  best = checkpoint.best_step(folder)
  before = small.params(workdir, 'stage1', best)
  # As where the disk was full when it was to be saved, or bad since then.
  for path in (folder / str(best) / 'params').rglob('*'):
    if path.is_file():
      path.write_bytes(bytes(path.stat().st_size))
  shutil.rmtree(workdir / 'checkpoints' / 'stage2')
  results = files.read_json(workdir / 'eval.json')
  files.write_json(workdir / 'eval.json', {'base': results['base']})
  said = runs.finish(workdir)
  assert f'its best checkpoint, step {best}, is lost; made again' in said
  assert small.params(workdir, 'stage1', best) == before
  small.assert_same(workdir, unbroken)


def test_a_finished_run_says_so_and_shows_its_result(runs, unbroken):
  before = (unbroken / 'metrics.jsonl').read_bytes()
  said = runs.finish(unbroken)
  assert f'finished: nothing is left to do in {unbroken}' in said
  for name, result in files.read_json(unbroken / 'eval.json').items():
    (line,) = (x for x in said.splitlines() if x.startswith(name))
    assert f'{100 * result["accuracy_t1"]:.1f}' in line
    assert f'{100 * result["accuracy_t2"]:.1f}' in line
  assert (unbroken / 'metrics.jsonl').read_bytes() == before


def test_stage_2_alone_says_that_it_trains_stage_1_first(runs, tmp_path):
  log = tmp_path / 'log'
  process = runs.fork(log, tmp_path, 'stage2')
  words = 'stage 1 is not there yet: it is trained first'
  _await(process, lambda: small.has_said(log, words))
  _kill(process)


def test_stage_1_and_then_stage_2_give_what_one_job_of_both_gives(
  runs, unbroken, tmp_path
):
  runs.finish(tmp_path, 'stage1')
  assert set(files.read_json(tmp_path / 'eval.json')) == {'base', 'stage1'}
  said = runs.finish(tmp_path, 'stage2')
  assert 'stage 1 is not there yet' not in said
  assert 'stage1 is finished' in said
  small.assert_same(tmp_path, unbroken)
