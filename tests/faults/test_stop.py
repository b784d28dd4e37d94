"""A run that is asked to end at an awkward moment misses nothing later."""

import json

import several

from score_jax.train import VALIDATED

STOPPED = several.STOPPED


def _rows(workdir):
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


def _validations(workdir):
  return [
    {k: x for k, x in row.items() if k.startswith('validation')}
    for row in _rows(workdir)
  ]


def test_a_stop_in_the_last_validation_of_a_stage_loses_none_of_it(
  runs, tmp_path
):
  # No other step of it is validated.
  settings = {'job': 'stage1', 'train__stage1_steps': 2, 'eval__every': 5}
  unbroken, stopped = tmp_path / 'unbroken', tmp_path / 'stopped'
  runs.finish(unbroken, **settings)
  what = 'ask:validation:0:'
  with several.group(runs, stopped, 1, scripted=what, **settings) as group:
    assert group.codes() == [STOPPED], group.said(0)
  assert [VALIDATED in row for row in _rows(stopped)] == [False, False]
  runs.finish(stopped, **settings)
  assert _validations(stopped) == _validations(unbroken)
  assert [bool(x) for x in _validations(unbroken)] == [False, True]
