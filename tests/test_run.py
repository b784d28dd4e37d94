"""A small run, start to end: what it leaves, and what it can be asked for."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import runs as small
import safetensors.numpy

from score_jax import config as config_lib
from score_jax import files

METRICS = (
  'accuracy_t1',
  'accuracy_t2',
  'delta',
  'delta_i_to_c',
  'delta_c_to_i',
  'answer_change_rate',
)
# One stage of two steps, and no look at the validation problems.
SHORT = {
  'train__stage1_steps': 2,
  'train__stage2_steps': 2,
  'checkpoint__every': 2,
  'eval__every': 0,
  'log__samples_every': 1,
}


def _rows(workdir, name):
  rows, bad = files.read_jsonl(workdir / name)
  assert bad == []
  return rows


@pytest.mark.parametrize('name', ['base', 'stage1', 'stage2'])
def test_each_model_is_evaluated_with_an_interval_for_every_metric(
  unbroken, name
):
  result = files.read_json(unbroken / 'eval.json')[name]
  assert result['n'] == small.SMALL['eval.problems']
  for metric in METRICS:
    low, high = result['ci95'][metric]
    assert low <= result[metric] <= high
  gain = result['delta_i_to_c'] - result['delta_c_to_i']
  assert result['delta'] == pytest.approx(gain)
  assert result['accuracy_t2'] - result['accuracy_t1'] == pytest.approx(gain)


@pytest.mark.parametrize('name', ['base', 'stage1', 'stage2'])
def test_an_evaluation_counts_the_very_attempts_that_it_lists(unbroken, name):
  listed = _rows(unbroken, f'evaluations/{name}.jsonl')
  result = files.read_json(unbroken / 'eval.json')[name]
  # The first of the test split, each once, the filled-up batch's rest gone.
  assert [row['id'] for row in listed] == [f'sum-{n}' for n in range(50)]
  for turn in (0, 1):
    right = [
      int(row['attempts'][turn] or -1) == int(row['answer']) for row in listed
    ]
    assert result[f'accuracy_t{turn + 1}'] == pytest.approx(sum(right) / 50)
  changed = [row['answers'][0] != row['answers'][1] for row in listed]
  assert result['answer_change_rate'] == pytest.approx(sum(changed) / 50)


def test_metrics_are_one_object_per_step_of_each_stage(unbroken):
  rows = _rows(unbroken, 'metrics.jsonl')
  steps = [
    (stage, n + 1) for stage, count in small.STEPS.items() for n in range(count)
  ]
  assert [(row['stage'], row['step']) for row in rows] == steps
  every = small.SMALL['eval.every']
  for row in rows:
    last = row['step'] == small.STEPS[row['stage']]
    validated = 'validation_accuracy_t2' in row
    assert validated == (last or row['step'] % every == 0)
    assert {'kl_t1', 'kl_t2', 'grad_norm', 'beta2', 'seconds'} <= row.keys()


def test_nothing_is_learned_before_the_first_update(unbroken):
  """The first batch is the base model's own: no KL yet, and no gap."""
  first = _rows(unbroken, 'metrics.jsonl')[0]
  assert first['kl_t1'] == pytest.approx(0, abs=1e-5)
  assert first['kl_t2'] == pytest.approx(0, abs=1e-5)
  for row in _rows(unbroken, 'metrics.jsonl'):
    assert row['logp_gap_mean'] < 1e-5


def test_samples_are_kept_every_few_steps(unbroken):
  rows = _rows(unbroken, 'samples.jsonl')
  steps = {
    stage: [n for n in range(1, count + 1) if n % 4 == 1]
    for stage, count in small.STEPS.items()
  }
  found = [(row['stage'], row['step']) for row in rows]
  assert found == [
    (stage, n) for stage in steps for n in steps[stage] for _ in range(4)
  ]
  for row in rows:
    assert len(row['attempts']) == len(row['reward']) == 2


def test_the_work_directory_holds_all_that_was_promised(unbroken):
  assert json.loads((unbroken / 'config.json').read_text())['seed'] == 0
  for stage, last in small.STEPS.items():
    assert (unbroken / 'checkpoints' / stage / str(last)).is_dir()
    assert list((unbroken / 'tensorboard' / stage).glob('events.*'))
  pictures = list((unbroken / 'plots').glob('*.png'))
  assert pictures
  for picture in pictures:
    assert picture.read_bytes().startswith(b'\x89PNG')
  report = (unbroken / 'report.html').read_text()
  assert report.rstrip().endswith('</html>')


def test_what_is_about_to_happen_is_said_before_it_does(runs, tmp_path):
  log = tmp_path / 'log'
  process = runs.fork(log, tmp_path, 'stage1', sampling__second_attempts=2)
  small.await_claim(process, lambda: small.has_said(log, 'base: '))
  process.kill()
  said = log.read_text().partition('base: ')[0]
  # 32 trajectories: 4 problems with 4 first and 8 second attempts each.
  for words in (
    '84,608 parameters',
    '4 prompts x K=8 (4 first x 2 second) x 2 turns = 32 trajectories',
    '48 attempts, at most 288 sampled',  # 16 and 32, of six tokens each.
    'stage1    8 steps: teach attempt 2',
    'KL weights 0.1 and 0.01',
    'data 1 x fsdp 1 x tensor 1 on 1 cpu devices',
    'MB of a device at most, in the update (a layer, backward): saved',
    'optimizer 677 kB',
  ):
    assert words in said
  assert 'stage2' not in said


@pytest.mark.slow
def test_three_turns_are_trained_in_three_stages(runs, tmp_path):
  runs.finish(
    tmp_path,
    turns=3,
    sampling__max_tokens=(6, 6, 6),
    method__kl_estimator='k2',
    **SHORT,
  )
  results = files.read_json(tmp_path / 'eval.json')
  assert list(results) == ['base', 'stage1a', 'stage1b', 'stage2']
  for result in results.values():
    assert {'accuracy_t3', 'delta_t3'} <= result.keys()
  rows = _rows(tmp_path, 'metrics.jsonl')
  stages = [(row['stage'], row['step']) for row in rows]
  assert stages == [
    (stage, n) for stage in ('stage1a', 'stage1b', 'stage2') for n in (1, 2)
  ]
  for row in _rows(tmp_path, 'samples.jsonl'):
    assert len(row['attempts']) == 3
  # Each starts where the one before ended; stage1b is near to that, too, while
  # stage2 is as far from the base as the two before it have gone.
  start = {row['stage']: row for row in rows if row['step'] == 1}
  for turn in (1, 2, 3):
    assert start['stage1b'][f'kl_t{turn}'] == pytest.approx(0, abs=1e-6)
  assert abs(start['stage2']['kl_t2']) > 1e-4
  # What each stage pays for: attempt 2, attempt 3, all of them.
  paid = [[row[f'paid_t{t}'] for t in (1, 2, 3)] for row in rows]
  for row, (first, second, third) in zip(rows, paid, strict=True):
    if row['stage'] == 'stage1a':
      assert (first, third) == (0, 0)
      assert second == pytest.approx(row['reward_t2'])
    if row['stage'] == 'stage1b':
      assert (first, second) == (0, 0)
      assert third == pytest.approx(row['reward_t3'])


def test_half_of_the_first_attempts_may_be_the_bases(runs, tmp_path):
  runs.finish(
    tmp_path,
    'stage1',
    method__offline_fraction=0.5,
    method__kl_estimator='exact',
    **SHORT,
  )
  # Those are context: the other half's tokens alone are the policy's own.
  for row in _rows(tmp_path, 'metrics.jsonl'):
    assert 0.4 < row['tokens_t1'] / row['tokens_t2'] < 0.6


def test_an_evaluation_says_nothing_of_steps_and_all_that_it_asked(
  runs, tmp_path
):
  said = runs.finish(tmp_path, 'evaluate', eval__attempts=3, **SHORT)
  for absent in ('a step ', 'trained ', 'memory ', 'first step of a stage'):
    assert absent not in said
  lines = said.splitlines()
  (asked,) = (line for line in lines if line.startswith('attempts3: '))
  assert '  Acc@t3 ' in asked
  base, again = (
    next(line for line in reversed(lines) if line.startswith(name))
    for name in ('base ', 'attempts3 ')
  )
  assert base.index('[') == again.index('[')  # The columns stand in line.


def test_second_attempts_may_share_their_first_one(runs, tmp_path):
  runs.finish(
    tmp_path,
    'stage1',
    sampling__second_attempts=2,
    method__kl_estimator='k3',
    log__samples=32,
    **SHORT,
  )
  for row in _rows(tmp_path, 'metrics.jsonl'):
    assert row['sampled_attempts'] == 16 + 32
    first, second = row['tokens_t1'], row['tokens_t2']
    assert row['sampled_tokens'] == pytest.approx(16 * first + 32 * second)
  rows = _rows(tmp_path, 'samples.jsonl')
  assert len(rows) == 64
  pairs = list(zip(rows[::2], rows[1::2], strict=True))
  assert all(a['attempts'][0] == b['attempts'][0] for a, b in pairs)
  assert any(a['attempts'][1] != b['attempts'][1] for a, b in pairs)


def test_a_batch_in_parts_gives_the_metrics_of_the_whole(
  runs, unbroken, tmp_path
):
  runs.finish(tmp_path, 'stage1', train__accumulation=2, **SHORT)
  rows = _rows(tmp_path, 'metrics.jsonl')
  for in_parts, whole in zip(
    rows, _rows(unbroken, 'metrics.jsonl')[:2], strict=True
  ):
    for name in ('accuracy_t1', 'accuracy_t2', 'tokens_t1', 'reward_t2'):
      assert in_parts[name] == pytest.approx(whole[name])
    for name in ('kl_t1', 'kl_t2', 'entropy_t1', 'grad_norm'):
      assert in_parts[name] == pytest.approx(whole[name], rel=1e-3, abs=1e-5)


def test_a_gap_between_sampling_and_scoring_stops_the_run(runs, tmp_path):
  log = tmp_path / 'log'
  process = runs.fork(log, tmp_path, limits__logp_gap=0.0)
  process.join(small.TIMEOUT)
  assert process.exitcode == 1
  said = log.read_text().strip().splitlines()[-1]
  assert said.startswith('score_jax: stage1: sampling and scoring disagree by ')
  assert 'limits.logp_gap=0' in said
  assert 'Use model.dtype=float32' in said
  assert 'Traceback' not in log.read_text()


def test_narrow_samples_are_learned_from_and_their_gap_is_told(runs, tmp_path):
  kept = {'sampling__weights': 'int8', 'sampling__cache': 'int8'}
  runs.finish(tmp_path, 'stage1', limits__logp_gap=0.1, **kept, **SHORT)
  gaps = [row['logp_gap_mean'] for row in _rows(tmp_path, 'metrics.jsonl')]
  assert all(1e-4 < gap < 0.1 for gap in gaps)


FAILING = """
from absl import app
from score_jax import main
from score_jax.tasks import arithmetic
grade = arithmetic.grade
def failing(problem, text):
  if text != problem.reference:
    raise OSError
  return grade(problem, text)
arithmetic.grade = failing
app.run(main.main, flags_parser=main.parse)
"""


def test_a_grader_that_fails_too_often_stops_the_run(runs, tmp_path):
  arguments = runs.arguments(tmp_path, limits__grader_failures=0.2)
  ended = subprocess.run(
    [sys.executable, '-c', FAILING, *arguments],
    cwd=small.ROOT,
    env=runs.environment(),
    capture_output=True,
    text=True,
    timeout=small.TIMEOUT,
  )
  assert ended.returncode == 1
  said = ended.stderr.strip().splitlines()[-1]
  assert said.startswith('score_jax: stage1: the grader failed on ')
  assert 'limits.grader_failures=0.2' in said
  assert 'Traceback' not in ended.stderr


@pytest.mark.slow
def test_a_base_model_that_is_made_here_can_be_trained(runs, tmp_path):
  made = {
    'pretrain__first_steps': 3,
    'pretrain__second_steps': 2,
    'pretrain__trajectories': 32,
    'pretrain__layers': 1,
    'pretrain__width': 16,
  }
  said = runs.finish(tmp_path / 'base', 'pretrain', **made)
  assert 'greedy accuracy_t1' in said
  model = tmp_path / 'base' / 'model'
  assert f'wrote {model}' in said
  said = runs.finish(tmp_path / 'base', 'pretrain', **made)
  assert said == f'finished: the model is in {model}\n'
  said = runs.finish(tmp_path / 'run', 'stage1', model__path=model, **SHORT)
  assert '1 layers of width 16' in said
  assert list(files.read_json(tmp_path / 'run' / 'eval.json')) == [
    'base',
    'stage1',
  ]


def test_work_on_one_base_model_is_not_taken_for_that_of_another(
  runs, tmp_path
):
  other = shutil.copytree(config_lib.BUNDLED, tmp_path / 'other')
  path = other / 'model.safetensors'
  arrays = safetensors.numpy.load_file(path)
  noisy = {k: x + np.float32(0.05) for k, x in arrays.items()}
  safetensors.numpy.save_file(noisy, path, {'format': 'pt'})
  workdir, short = tmp_path / 'run', {**SHORT, 'eval__problems': 20}
  runs.finish(workdir, 'stage1', **short)
  for job in ('evaluate', 'stage2'):
    log = tmp_path / f'{job}.log'
    process = runs.fork(log, workdir, job, model__path=other, **short)
    process.join(small.TIMEOUT)
    assert process.exitcode == 1
    said = log.read_text()
    assert 'belongs to another base model' in said
    assert 'Traceback' not in said
  moved = shutil.copytree(config_lib.BUNDLED, tmp_path / 'moved')
  said = runs.finish(workdir, 'stage1', model__path=moved, **short)
  assert 'stage1 is finished' in said
