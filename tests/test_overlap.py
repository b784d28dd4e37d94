"""Steps that overlap learn from what the step before sampled, and no older."""

import signal
import subprocess
import sys
import types

import pytest
import runs as small

from score_jax import checkpoint, files, stage
from score_jax import config as config_lib
from score_jax.phase import TrainingError

OVERLAP = {
  'train__overlap': True,
  'method__correction': 'truncated',
  'method__baseline': 'moving_average',  # A part of the state of its own.
  'sampling__parts': 2,
  'optimizer__learning_rate': 3e-3,  # So that a step is one to be seen.
  'limits__corrected_gap': 10.0,
  'train__stage1_steps': 5,
  'train__stage2_steps': 4,
}
STEPS = {'stage1': 5, 'stage2': 4}
# What sampled trajectories decide alone.
SAMPLED = ('accuracy_t1', 'accuracy_t2', 'sampled_tokens', 'reward')


WATCHED = """
import pathlib, sys
from absl import app
from score_jax import learner, main, phase, run, stage
log = open(sys.argv.pop(1), 'a', buffering=1)
def noting(word, function):
  def noted(*others):
    print(word, file=log)
    return function(*others)
  return noted
def make_update(*others):
  return noting('updating', made(*others))
made, learner.make_update = learner.make_update, make_update
phase.start_grading = noting('grading', phase.start_grading)
stage._flat = noting('updated', stage._flat)
app.run(main.main, flags_parser=main.parse)
"""


@pytest.fixture(scope='module')
def overlapped(runs, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('overlapped')
  _run(runs, workdir, WATCHED, str(workdir / 'order')).check_returncode()
  return workdir


def _run(runs, workdir, program, *first):
  """Runs a program, made of the command, to its end."""
  arguments = runs.arguments(workdir, **OVERLAP)
  return subprocess.run(
    [sys.executable, '-c', program, *first, *arguments],
    cwd=small.ROOT,
    env=runs.environment(),
    capture_output=True,
    text=True,
    timeout=small.TIMEOUT,
  )


def _rows(workdir, stage='stage1'):
  found, bad = files.read_jsonl(workdir / 'metrics.jsonl')
  assert bad == []
  return [row for row in found if row['stage'] == stage]


def test_what_is_learned_from_is_exactly_one_step_old(
  runs, overlapped, tmp_path
):
  runs.finish(
    tmp_path,
    'stage1',
    **OVERLAP | {'optimizer__learning_rate': 0.0, 'train__stage1_steps': 3},
  )
  ours, base = _rows(overlapped)[:3], _rows(tmp_path)
  same = [
    [a[x] == b[x] for x in SAMPLED] for a, b in zip(ours, base, strict=True)
  ]
  # The base samples steps 1 and 2. Step 3 is not the base's, and not that of
  # the policy before update 3 either: there is one between them.
  assert all(same[0])
  assert all(same[1])
  assert not all(same[2])
  for name in STEPS:
    gaps = [row['logp_gap_mean'] for row in _rows(overlapped, name)]
    assert gaps[0] < 1e-5
    assert min(gaps[1:]) > 1e-3
  assert max(row['logp_gap_mean'] for row in base) < 1e-5


def test_weights_are_in_the_metrics_of_every_step(overlapped):
  for name in STEPS:
    first, *later = _rows(overlapped, name)
    for turn in (1, 2):
      assert first[f'weight_mean_t{turn}'] == pytest.approx(1, abs=1e-4)
      assert first[f'weight_ess_t{turn}'] == pytest.approx(1, abs=1e-4)
      for row in later:
        assert 0.3 < row[f'weight_mean_t{turn}'] <= 2.0
        assert 0.2 < row[f'weight_ess_t{turn}'] < 0.9999
        assert 0 <= row[f'weight_capped_t{turn}'] < 0.5


def test_steps_that_overlap_compile_nothing_behind_the_first(overlapped):
  for name in STEPS:
    counts = [row['compilations'] for row in _rows(overlapped, name)]
    assert counts[0] > 0
    assert not any(counts[1:])


def test_graders_have_the_next_batch_before_an_update_is_awaited(overlapped):
  order = (overlapped / 'order').read_text().split()
  stages = []
  for steps in STEPS.values():
    stages += ['grading']
    stages += ['updating', 'grading', 'updated'] * (steps - 1)
    stages += ['updating', 'updated']
  assert order == stages


STOPPED = """
import os, signal, sys
from absl import app
from score_jax import main, run, train
from score_jax.stage import Stage
step, ends = Stage.step, sys.argv.pop(1).split(':')
def stopped(self, state, number, *others):
  if [self.plan.name, str(number + 1)] == ends[:2]:
    os.kill(os.getpid(), getattr(signal, ends[2]))
  return step(self, state, number, *others)
Stage.step = stopped
app.run(main.main, flags_parser=main.parse)
"""


def _stopped(runs, workdir, stage, step, how):
  """Starts the run and ends it by a signal at the start of a step."""
  return _run(runs, workdir, STOPPED, f'{stage}:{step}:{how}')


@pytest.mark.slow
def test_stopped_and_killed_anywhere_it_ends_as_the_unbroken_run(
  runs, overlapped, tmp_path
):
  ended = _stopped(runs, tmp_path, 'stage1', 2, 'SIGTERM')
  assert ended.returncode == 0, ended.stderr
  # Not where the unbroken run saves; what was sampled ahead is saved too.
  assert checkpoint.steps(tmp_path / 'checkpoints' / 'stage1') == [2]
  ended = _stopped(runs, tmp_path, 'stage2', 3, 'SIGKILL')
  assert ended.returncode == -signal.SIGKILL
  assert 'stage1: going on from step 2 of 5' in ended.stdout
  runs.finish(tmp_path, **OVERLAP)
  small.assert_same(tmp_path, overlapped, STEPS)


def _of(correction):
  config = config_lib.default()
  config.method.correction = correction
  job = types.SimpleNamespace(config=config)
  plan = types.SimpleNamespace(name='stage1')
  return types.SimpleNamespace(job=job, plan=plan)


def test_a_gap_stops_the_run_sooner_where_nothing_weighs_it():
  stage.check_gap(_of('none'), 0.9e-3)
  with pytest.raises(TrainingError) as raised:
    stage.check_gap(_of('none'), 2e-3)
  assert '0.002 nats per token (limits.logp_gap=0.001)' in str(raised.value)
  assert "method.correction='truncated'" in str(raised.value)
  stage.check_gap(_of('masked'), 0.09)
  with pytest.raises(TrainingError) as raised:
    stage.check_gap(_of('masked'), 0.2)
  assert '0.2 nats per token (limits.corrected_gap=0.1)' in str(raised.value)
  assert 'With method.correction=masked some gap is expected' in str(
    raised.value
  )
