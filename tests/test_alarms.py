"""Every alarm hears what it is for, and nothing in a healthy run."""

import json
import pathlib

import pytest

from score_jax import alarms

BASE = alarms.Base(accuracy=0.5, problems=2000, validation_problems=500)
STEPS = 100


def row(done, **changes):
  """Returns the metrics of a run that goes well, a share `done` through it."""
  healthy = {
    'exact_copy_rate': 0.85 - 0.3 * done,
    'delta': 0.1 * done,
    'delta_c_to_i': 0.02,
    'delta_i_to_c': 0.02 + 0.1 * done,
    'entropy_t1': 0.5 - 0.2 * done,
    'entropy_t2': 0.3 + 0.2 * done,
    'kl_t1': 0.05 * done,
    'kl_t2': 1.5 * done,
    'truncated_t1': 0.001,
    'truncated_t2': 0.01,
    'outcome_timeout_t1': 0.0,
    'outcome_timeout_t2': 0.0,
    'outcome_error_t1': 0.0,
    'outcome_error_t2': 0.0,
    'flat_groups_t1': 0.2,
    'flat_groups_t2': 0.3,
    'validation_accuracy_t1': 0.5 + 0.1 * done,
  }
  return healthy | changes


def history(change=lambda done: {}, steps=STEPS):
  return [row(i / steps, **change(i / steps)) for i in range(steps)]


SCRIPTED = {
  'collapse': lambda d: {'exact_copy_rate': 0.7 + 0.29 * d, 'delta': 0.0},
  'sandbagging': lambda d: {'validation_accuracy_t1': 0.5 - 0.1 * d},
  'over-correction': lambda d: {'delta': -0.2 * d, 'delta_c_to_i': 0.25 * d},
  'truncation': lambda d: {'truncated_t2': 0.3 * d},
  'grader errors': lambda d: {'outcome_timeout_t1': 0.05},
  'entropy': lambda d: {'entropy_t2': 0.3 + 3 * d},
  'KL': lambda d: {'kl_t1': 40.0 if d > 0.8 else 0.5},
  'flat groups': lambda d: {'flat_groups_t2': 0.6 + 0.4 * d},
}


@pytest.mark.parametrize('name', SCRIPTED)
def test_an_alarm_is_raised_by_a_run_that_does_the_thing_and_by_no_other(name):
  assert list(alarms.raised(history(SCRIPTED[name]), BASE)) == [name]


def test_all_alarms_are_scripted():
  every = history(
    lambda d: {
      k: v
      for name, change in SCRIPTED.items()
      if name not in ('collapse', 'over-correction')
      for k, v in change(d).items()
    }
  )
  others = {'collapse', 'over-correction'}  # They exclude each other.
  assert {*alarms.raised(every, BASE)} | others == {*SCRIPTED}


def test_a_healthy_run_is_quiet_at_every_step():
  whole = history()
  for end in range(1, STEPS + 1):
    assert alarms.raised(whole[:end], BASE) == {}


def test_a_base_that_copies_from_the_start_is_no_collapse():
  assert (
    alarms.raised(
      history(lambda d: {'exact_copy_rate': 0.95, 'delta': 0.0}), BASE
    )
    == {}
  )


def test_a_base_that_overcorrects_from_the_start_is_no_alarm():
  assert alarms.raised(history(lambda d: {'delta': -0.1}), BASE) == {}


@pytest.mark.parametrize('stage', ['stage1', 'stage2'])
def test_a_real_run_that_went_well_is_quiet_at_every_step(stage):
  """SCoRe on the bundled task, seed 0: 53.0 / 53.0 became 59.9 / 79.2."""
  path = pathlib.Path(__file__).parent / 'healthy_history.json'
  whole = json.loads(path.read_text())[stage]
  assert len(whole) == 100
  base = alarms.Base(0.53, 2000, 128)
  for end in range(1, len(whole) + 1):
    assert alarms.raised(whole[:end], base) == {}


@pytest.mark.parametrize(('accuracy', 'rings'), [(0.447, True), (0.453, False)])
def test_sandbagging_is_two_standard_errors_below_the_base(accuracy, rings):
  # sqrt(.25 (1 / 2000 + 1 / 500)) = .025, and .5 less two of them .45.
  low = history(lambda d: {'validation_accuracy_t1': accuracy})
  assert bool(alarms.sandbagging(low, BASE)) == rings


def test_without_a_base_nothing_is_said_of_sandbagging():
  assert alarms.raised(history(SCRIPTED['sandbagging']), None) == {}


def test_the_turn_that_is_cut_off_is_named_with_its_setting():
  said = alarms.raised(history(SCRIPTED['truncation']), BASE)['truncation']
  assert 'attempts 2' in said
  assert 'sampling.max_tokens[1]' in said


def test_an_alarm_is_said_once_when_it_is_set_off():
  whole = history(SCRIPTED['truncation'])
  said = [alarms.newly_raised(whole[:n], BASE) for n in range(1, STEPS + 1)]
  assert sum(len(texts) for texts in said) == 1


def test_metrics_that_a_phase_does_not_have_raise_nothing():
  bare = [
    {k: v for k, v in r.items() if not k.startswith(('kl', 'entropy', 'flat'))}
    for r in history()
  ]
  assert alarms.raised(bare, BASE) == {}
