"""The stages are the rows of the paper's equations 3 and 4."""

import pytest

from configs import presets
from score_jax.methods import catalogue, score
from score_jax.objective import Stage


def _config(turns=2, job='score', **method):
  config = presets.make(job, '')
  config.turns = turns
  config.method.update(method)
  config.train.stage1_steps, config.train.stage2_steps = 30, 70
  return config


METHOD = {
  'alpha': 7.0,
  'beta1': 0.02,
  'beta2': 0.3,
  'gamma': 0.5,
  'kl_estimator': 'exact',
}
COMMON = {'beta1': 0.02, 'gamma': 0.5, 'kl_estimator': 'exact'}


def test_two_turns_have_the_papers_two_stages():
  first, second = score.stages(_config(**METHOD))
  assert (first.name, first.steps) == ('stage1', 30)
  # Eq. 3: r(y2) alone is paid, the first attempt is held by beta2.
  assert first.stage == Stage(
    reward=(0.0, 1.0), progress=0.0, held=(True, False), **COMMON
  )
  assert (second.name, second.steps) == ('stage2', 70)
  # Eq. 4 with the bonus: both are paid, beta1 on both, alpha on the gain.
  assert second.stage == Stage(
    reward=(1.0, 1.0), progress=7.0, held=(False, False), **COMMON
  )


def test_three_turns_are_taught_one_attempt_after_the_other():
  plans = score.stages(_config(turns=3, **METHOD))
  assert [(p.name, p.steps) for p in plans] == [
    ('stage1a', 30),
    ('stage1b', 30),
    ('stage2', 70),
  ]
  # I(b) holds to the model that I(a) made, the others to the base.
  assert [p.near for p in plans] == ['', 'stage1a', '']
  assert [p.stage for p in plans] == [
    # I(a): attempt 2 is paid, attempt 1 held; I(b): attempt 3, 1 and 2 held.
    Stage((0.0, 1.0, 0.0), 0.0, (True, False, False), **COMMON),
    Stage((0.0, 0.0, 1.0), 0.0, (True, True, False), **COMMON),
    Stage((1.0, 1.0, 1.0), 7.0, (False, False, False), **COMMON),
  ]


@pytest.mark.parametrize(
  ('job', 'turns', 'names'),
  [
    ('evaluate', 2, []),
    ('stage1', 2, ['stage1']),
    ('stage2', 2, ['stage1', 'stage2']),
    ('score', 2, ['stage1', 'stage2']),
    ('stage1', 3, ['stage1a', 'stage1b']),
    ('stage2', 3, ['stage1a', 'stage1b', 'stage2']),
  ],
)
def test_a_job_sees_to_all_stages_up_to_its_own(job, turns, names):
  plans = catalogue.chain(_config(turns=turns, job=job))
  assert [plan.name for plan in plans] == names


def test_what_a_stage_does_is_said_in_words():
  first, second = score.stages(_config(**METHOD))
  assert first.words == 'teach attempt 2, hold what comes before it'
  assert second.words == 'train all attempts, progress paid 7 times'
