"""What is planned is what would run: counted, compiled and put into words."""

import dataclasses
import json
import subprocess
import sys

import pytest
from absl import flags
from planned import settings
from runs import ROOT

from score_jax import config as config_lib
from score_jax import (
  estimate,
  plan,
  plan_page,
  planning,
  tpu,
)
from score_jax.config import ConfigError
from score_jax.estimate import Efficiency
from score_jax.methods import catalogue
from score_jax.models import families, weights


def test_small_times_have_figures():
  assert plan_page._figure(0.0123) == '0.012'
  assert plan_page._figure(49.24) == '49.2'
  assert plan_page._figure(1234.5, 0) == '1,234'
  assert plan_page._figure(0) == '0.0'


def a_plan(**changes):
  config = settings(**changes)
  return planning.make(
    config, 'gemma2_2b', 'v5e:4x4', False, 64, Efficiency(), grading=2.0
  )


@pytest.mark.parametrize(
  ('job', 'steps', 'tested'),
  [('score', 5, 3), ('stage1', 2, 2)],
)
def test_the_updates_and_evaluations_are_those_of_the_job(job, steps, tested):
  given = {'train.stage1_steps': 2, 'train.stage2_steps': 3, 'eval.every': 0}
  config = settings(**given, **{'eval.problems': 100})
  config.job = job
  made = planning.make(config, 'gemma2_2b', 'v5e:4x4', False, 64, Efficiency())
  assert made.steps == steps
  each = estimate.evaluation_seconds(made.setup, made.target.chip, Efficiency())
  assert made.times.evaluations == pytest.approx(100 * tested * each)


def test_a_batch_of_an_evaluation_is_planned_as_it_is_filled_up():
  def seconds(batch):
    made = a_plan(**{'eval.batch': batch, 'mesh.fsdp': 16})
    each = estimate.evaluation_seconds(
      made.setup, made.target.chip, Efficiency()
    )
    return batch * each

  assert seconds(500) == pytest.approx(seconds(512))


@pytest.mark.parametrize('job', ['pretrain', 'evaluate'])
def test_a_job_that_trains_nothing_by_sampling_is_not_planned(job):
  config = settings()
  config.job = job
  with pytest.raises(ConfigError, match=f'job={job} is not planned'):
    planning.make(config, 'gemma2_2b', '', False, 64, Efficiency())


def test_a_method_is_planned_as_it_runs_beside_the_others():
  config = settings(
    **{
      'train.trajectories': 512,
      'method.name': 'score_remax',
      'mesh.fsdp': 16,
    }
  )
  made = planning.make(config, 'gemma2_2b', 'v5e:4x4', False, 64, Efficiency())
  wanted = catalogue.on_equal_terms(config).train.trajectories
  assert made.setup.config.train.trajectories == wanted < 512


def test_a_page_fits_a_terminal_and_its_record_is_json():
  made = a_plan(**{'model.dtype': 'bfloat16'})
  page = plan_page.page(made, Efficiency())
  assert max(map(len, page.splitlines())) <= plan_page.WIDTH
  for heading in ('Parameters', 'Memory', 'Work', 'Time', 'Warnings'):
    assert heading in page
  assert '2,614,341,888' in page
  record = json.loads(json.dumps(plan_page.record(made)))
  assert record['parameters'] == 2_614_341_888
  assert record['seconds']['bound'] < record['seconds']['step']


def test_a_page_says_how_long_attempts_are_taken_to_be():
  whole = a_plan(**{'sampling.max_tokens': (200, 200)})
  assert 'every attempt at its longest' in ' '.join(
    plan_page.page(whole, Efficiency()).split()
  )
  config = whole.setup.config
  made = planning.make(
    config, 'gemma2_2b', 'v5e:4x4', False, 64, Efficiency(), attempt=20.5
  )
  page = ' '.join(plan_page.page(made, Efficiency()).split())
  assert 'attempts of 20.5 tokens on average' in page
  assert plan_page.record(made)['attempt_tokens'] == 20.5
  assert made.times.step < whole.times.step
  assert made.times.evaluations < whole.times.evaluations
  # A run decides without knowing it, and so does its plan.
  assert made.setup.config == whole.setup.config
  assert made.moments == whole.moments


def test_without_a_slice_bytes_are_counted_and_no_seconds_are_told():
  made = planning.make(
    settings(**{'mesh.fsdp': 1}), 'qwen25_0.5b', '', True, 64, Efficiency()
  )
  assert made.times is None
  page = plan_page.page(made, Efficiency())
  assert 'name a --slice for seconds' in page
  assert '494,032,768' in page


def test_the_model_is_the_flags_then_the_presets_then_the_bundled_one():
  config = settings()
  name, numbers = planning.architecture(config, 'gemma2_9b')
  assert (name, numbers.layers) == ('gemma2_9b', 42)
  with config.unlocked():
    config.preset = 'llama3_1b_math'
  assert planning.architecture(config, '')[1].width == 2048
  with config.unlocked():
    config.preset = 'arithmetic'
  bundled = families.model_config(weights.read_config(config_lib.BUNDLED))
  assert planning.architecture(config, '') == ('the bundled model', bundled)


def test_flags_have_the_defaults_of_what_they_set():
  assert {k: v.default for k, v in plan.SHARES.items()} == dataclasses.asdict(
    Efficiency()
  )
  assert flags.FLAGS['slice'].default == ''


@pytest.mark.parametrize(
  ('argument', 'words'),
  [
    ('--compute_efficiency=0', 'is a share, above 0 and at most 1; got 0.'),
    ('--network_efficiency=50', 'got 50.'),
    ('--out=/no/such/plan.json', '/no/such is no folder'),
    ('--out=/tmp', '--out=/tmp is a folder; name a file in it.'),
    ('--grading_seconds=nan', 'must be a number of seconds; got nan.'),
    ('--attempt_tokens=0.5', 'the mean is between 1 and the longest'),
    ('--attempt_tokens=9000', 'sampling.max_tokens=('),
  ],
)
def test_a_flag_that_no_plan_can_use_is_refused_in_a_line(argument, words):
  ended = subprocess.run(
    [sys.executable, '-m', 'score_jax.plan', argument],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert (ended.returncode, ended.stdout) == (2, '')
  assert words in ended.stderr
  assert ended.stderr.count('\n') == 1


def test_without_the_compiler_the_remedy_is_named(monkeypatch):
  monkeypatch.setattr(tpu, 'is_installed', lambda: False)
  with pytest.raises(ConfigError, match=r'pip install "libtpu.*--nocompile'):
    tpu.devices('v5e:2x2')


@pytest.mark.parametrize('target', ['', 'v5e:2x4'])
def test_a_page_says_by_what_rows_attend(target):
  config = settings(
    **{
      'model.attention': 'splash',
      'mesh.fsdp': 8 if target else 1,
      'sampling.layout': config_lib.AUTO,
    }
  )
  made = planning.make(config, 'llama3_1b', target, False, 4, Efficiency())
  assert 'attention splash' in ' '.join(
    plan_page.page(made, Efficiency()).split()
  )


def test_a_model_with_capped_scores_is_not_planned_with_cudnn():
  config = settings(
    **{
      'model.attention': 'cudnn',
      'model.dtype': 'bfloat16',
      'mesh.fsdp': 1,
    }
  )
  with pytest.raises(ConfigError, match=r'cudnn has no cap.*attention=plain'):
    planning.make(config, 'gemma2_2b', '', False, 4, Efficiency())
