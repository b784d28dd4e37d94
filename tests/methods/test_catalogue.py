"""Every row of the table is what its name says, at the cost of all others."""

import pytest

from configs import presets, table
from score_jax import journal
from score_jax.config import ConfigError
from score_jax.methods import catalogue
from score_jax.methods.plan import Round, StagePlan
from score_jax.methods.score import split
from score_jax.objective import Stage

STEPS = 90  # 30 and 60.
COMMON = {'beta1': 0.01, 'gamma': 0.0, 'kl_estimator': 'k1'}


def config(name, **settings):
  found = presets.make('score', '')
  found.method.name = name
  found.train.stage1_steps, found.train.stage2_steps = 30, 60
  found.update(settings)
  return found


def phases(name):
  return catalogue.get(config(name)).phases


def stages(name):
  return [phase.stage for phase in phases(name)]


TRAINED = [n for n in catalogue.METHODS if phases(n)]
SCORE = [
  Stage((0.0, 1.0), 0.0, (True, False), **COMMON),
  Stage((1.0, 1.0), 10.0, (False, False), **COMMON),
]


def test_the_default_method_is_score():
  assert presets.make('score', '').method.name == 'score'
  assert stages('score') == SCORE


def test_an_unknown_method_is_refused_with_the_nearest():
  with pytest.raises(
    ConfigError, match=r"'star_d_pluss' \(did you mean star_d_"
  ):
    catalogue.get(config('star_d_pluss'))


def test_a_stage_of_score_is_no_job_for_another_method():
  other = config('rise')
  other.job = 'stage1'
  with pytest.raises(ConfigError, match=r'job=stage1 .* set job=score'):
    catalogue.get(other)


def test_a_baseline_of_siblings_is_refused_without_any():
  given = config('score_group')
  given.sampling.first_attempts, given.method.baseline = 1, 'none'
  with pytest.raises(ConfigError, match=r'siblings \(group\); .* at least 2'):
    catalogue.get(given)


def test_what_samples_before_its_updates_refuses_to_overlap_them():
  given = config('star_d')
  given.train.overlap = True
  with pytest.raises(ConfigError, match='set it to False'):
    catalogue.get(given)


def test_supervised_methods_refuse_three_turns():
  with pytest.raises(ConfigError, match='got turns=3; set turns=2'):
    catalogue.get(config('rise', turns=3))


@pytest.mark.parametrize('name', TRAINED)
def test_every_trained_row_makes_as_many_updates(name):
  on_terms = catalogue.on_equal_terms(config(name))
  assert sum(p.steps for p in catalogue.get(on_terms).phases) == STEPS


def attempts_per_update(on_terms, name):
  rows, turns = on_terms.train.trajectories, on_terms.turns
  greedy = 0
  if name == 'score_remax':
    # One per problem, and one per row for each later turn.
    greedy = rows // on_terms.sampling.first_attempts + rows * (turns - 1)
  return rows * turns + greedy


@pytest.mark.parametrize('name', TRAINED)
@pytest.mark.parametrize('rows', [128, 512])
def test_every_trained_row_samples_as_many_attempts_within_a_group(name, rows):
  given = config(name)
  given.train.trajectories = rows
  on_terms = catalogue.on_equal_terms(given)
  found = attempts_per_update(on_terms, name)
  group = 8 * 3 + 1  # Of K rows: three attempts each, and a greedy one.
  assert abs(found - 2 * rows) <= group / 2
  if rows == 512:
    assert found == pytest.approx(2 * rows, rel=0.01)


@pytest.mark.parametrize('name', TRAINED)
def test_in_the_table_every_row_samples_the_very_same_number(name):
  given = table.get_config()
  given.method.name = name
  on_terms = catalogue.on_equal_terms(given)
  assert attempts_per_update(on_terms, name) == 240


@pytest.mark.parametrize('rounds', [3, 12])
@pytest.mark.parametrize('name', TRAINED)
def test_phases_come_in_the_order_of_their_names(name, rounds):
  """The record of a run is kept in that order."""
  given = config(name)
  given.method.rounds = rounds
  on_terms = catalogue.on_equal_terms(given)
  names = [p.name for p in catalogue.get(on_terms).phases]
  assert names == sorted(set(names), key=journal.order)


def test_without_stage_one_all_updates_are_stage_two():
  (only,) = phases('without_stage_one')
  assert (only.stage, only.steps) == (SCORE[1], STEPS)


def test_without_the_bonus_progress_is_not_paid():
  first, second = stages('without_bonus')
  assert first == SCORE[0]
  assert second == Stage((1.0, 1.0), 0.0, (False, False), **COMMON)


def test_single_turn_training_teaches_the_first_attempt_alone():
  (only,) = stages('single_turn')
  assert (only.reward, only.taught) == ((1.0, 0.0), (True, False))


def test_plain_multi_turn_training_a_credits_each_turn_with_all_that_follows():
  (only,) = stages('multi_turn_sum')
  assert (only.reward, only.progress, only.gamma) == ((1.0, 1.0), 0.0, 1.0)
  assert only.taught == (True, True)
  half = config('multi_turn_sum')
  half.method.multi_turn_gamma = 0.5
  assert catalogue.get(half).phases[0].stage.gamma == 0.5


def test_plain_multi_turn_training_b_teaches_the_second_attempt_alone():
  (only,) = stages('multi_turn_last')
  assert (only.reward, only.taught) == ((0.0, 1.0), (False, True))


@pytest.mark.parametrize(
  ('name', 'share'),
  [('score', 0.0), ('offline_mixed', 0.5), ('without_online', 1.0)],
)
def test_offline_first_attempts_have_their_share_in_both_stages(name, share):
  assert stages(name) == SCORE
  assert [p.offline for p in phases(name)] == [share, share]


@pytest.mark.parametrize(
  ('name', 'baseline'),
  [
    ('score', 'leave_one_out'),
    ('score_remax', 'remax'),
    ('score_group', 'group'),
    ('score_moving_average', 'moving_average'),
    ('score_no_baseline', 'none'),
  ],
)
def test_rows_of_a_baseline_differ_from_score_in_nothing_else(name, baseline):
  assert stages(name) == SCORE
  assert [p.baseline for p in phases(name)] == [baseline, baseline]


def test_interleaved_stages_take_turns():
  found = phases('interleaved')
  assert [p.stage for p in found] == SCORE * 3
  assert [p.steps for p in found] == [10, 20, 10, 20, 10, 20]


def test_three_turns_are_three_stages_at_the_cost_of_two():
  on_terms = catalogue.on_equal_terms(config('score_three_turns'))
  assert (on_terms.turns, tuple(on_terms.sampling.max_tokens)) == (3, (6,) * 3)
  assert [(p.name, p.steps) for p in catalogue.get(on_terms).phases] == [
    ('stage1a', 15),
    ('stage1b', 15),
    ('stage2', 60),
  ]


def test_three_turns_lose_no_update_of_an_odd_number():
  odd = config('score_three_turns')
  odd.train.stage1_steps = 31
  steps = [p.steps for p in catalogue.get(catalogue.on_equal_terms(odd)).phases]
  assert steps == [15, 15, 61]


def test_three_turns_refuse_a_stage_without_an_update():
  one = config('score_three_turns')
  one.train.stage1_steps = 1
  with pytest.raises(ConfigError, match=r'stage1a .* would make no update'):
    catalogue.get(catalogue.on_equal_terms(one))


def test_star_in_stage_two_keeps_stage_one():
  first, *rounds = phases('star_stage_two')
  assert isinstance(first, StagePlan)
  assert first.stage == SCORE[0]
  assert all(isinstance(p, Round) for p in rounds)
  assert [p.steps for p in rounds] == [20, 20, 20]


@pytest.mark.parametrize(
  ('name', 'rounds'), [('star_d', 3), ('pair_sft_d', 1), ('rise', 3)]
)
def test_supervised_rows_have_their_published_rounds(name, rounds):
  assert len(phases(name)) == rounds


def test_enhancement_becomes_stricter_round_by_round():
  found = [p.build.keywords['threshold'] for p in phases('label_enhancement')]
  assert found == pytest.approx([1.0, 2 / 3, 1 / 3])


def test_prompting_asks_more_and_grades_the_ends():
  refine = catalogue.get(config('self_refine'))
  assert refine.phases == ()
  assert (len(refine.inference.instructions), refine.inference.graded) == (
    2,
    (1, 3),
  )
  contrast = catalogue.get(config('self_contrast')).inference
  assert (len(contrast.instructions), contrast.graded) == (3, (1, 4))


@pytest.mark.parametrize(
  ('steps', 'rounds', 'sizes'),
  [(9, 3, [3, 3, 3]), (10, 3, [3, 3, 4]), (11, 3, [3, 4, 4])],
)
def test_updates_are_split_evenly_and_none_is_lost(steps, rounds, sizes):
  assert split(steps, rounds) == sizes
