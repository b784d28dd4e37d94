"""What final models are asked, in a small table that trains nothing.

With a learning rate of 0 the final model is the base, so what it says behind
the base's own attempts is known. Attempts are drawn, so that they differ.
"""

import csv
import itertools
import subprocess
import sys

import numpy as np
import pytest
import runs as small

from configs import presets
from score_jax import budget, checks
from score_jax.config import ConfigError
from score_jax.laboratory import asking, cells, running
from score_jax.stopping import Stop

pytestmark = pytest.mark.slow

SETTINGS = {
  'train.stage1_steps': 1,
  'train.stage2_steps': 1,
  'train.trajectories': 16,
  'sampling.first_attempts': 4,
  'task.train_problems': 50,
  'checkpoint.every': 1,
  'eval.problems': 30,
  'eval.batch': 20,  # So that the last batch has to be filled up.
  'eval.every': 0,
  'eval.temperature': 1.0,
  'log.report': False,
  'log.tensorboard': False,
  'optimizer.learning_rate': 0.0,
  'table.samples': 4,
  'table.problems': 9,
  'table.turns': 3,
  'table.shift': ('base', 'star_d', 'without_stage_one'),
  'table.budget': ('base', 'without_stage_one'),
  'table.attempts': ('without_stage_one',),
  'model.unroll': False,  # Compiles faster.
}
NAMES = ['base', 'without_stage_one']  # One phase: less to compile.


def config(**changes):
  found = presets.make('score', '')
  settings = {k.replace('__', '.'): v for k, v in changes.items()}
  found.update_from_flattened_dict(SETTINGS | settings)
  return found


@pytest.fixture(scope='module')
def table(runs, tmp_path_factory):
  """The work directory of a small table."""
  workdir = tmp_path_factory.mktemp('asked')
  arguments = [f'--config.{k}={v}' for k, v in SETTINGS.items()]
  done = subprocess.run(
    [
      sys.executable,
      *('-m', 'score_jax.table', '--config=configs/score.py', '--seeds=1'),
      *(f'--workdir={workdir}', f'--methods={",".join(NAMES)}', *arguments),
    ],
    cwd=small.ROOT,
    env=runs.environment(),
    capture_output=True,
    text=True,
    timeout=small.TIMEOUT,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  return workdir


def plans(table, **changes):
  return cells.plans(config(**changes), table, NAMES, 1)


def right(rows):
  return np.array([[o == 'right' for o in row['outcomes']] for row in rows])


def test_behind_the_bases_attempts_the_base_does_what_it_did(table):
  base, trained = plans(table)
  own = right(base.listed('base'))
  fixed = asking.fixed(trained)
  np.testing.assert_array_equal(fixed.right[:, 0], own)
  # It is not the same by chance: some are right, and some change.
  assert 0 < own.mean() < 1
  assert (own[:, 0] != own[:, 1]).any()


def test_the_base_is_not_asked_to_correct_itself_twice(table):
  assert asking.fixed(plans(table)[0]) is None


def test_samples_are_of_the_first_problems(table):
  found = asking.samples(plans(table)[1])
  assert found.right.shape == found.tokens.shape == (9, 4, 2)
  assert found.tokens.min() >= 1
  assert found.tokens.max() <= 6


def test_attempts_of_one_answer_are_right_or_wrong_together(table):
  found = asking.samples(plans(table)[1])
  for answers, verdicts in zip(found.answers, found.right, strict=True):
    pairs = zip(np.ravel(answers), verdicts.ravel(), strict=True)
    told = {}
    for answer, verdict in pairs:
      assert told.setdefault(answer, verdict) == verdict
  assert max(a for row in found.answers for x in row for a in x if a != '') > 0


def test_attempts_in_a_row_start_with_those_of_the_table(table):
  _, trained = plans(table)
  listed = trained.listed('attempts3')
  assert [row['attempts'][:2] for row in listed] == [
    row['attempts'] for row in trained.listed('stage2')
  ]
  assert {len(row['attempts']) for row in listed} == {3}


def test_the_csv_counts_what_is_kept(table):
  with open(table / 'table.csv') as file:
    rows = {row['name']: row for row in csv.DictReader(file)}
  _, trained = plans(table)
  fixed, samples = asking.fixed(trained), asking.samples(trained)
  wrong = ~fixed.right[:, 0, 0]
  expected = {
    'fixed_first_fixes_wrong': fixed.right[wrong, 0, 1].mean(),
    'samples_avg_at_4_t2': samples.right[..., 1].mean(),
    'samples_pass_at_4_t1': samples.right[..., 0].any(axis=1).mean(),
    'attempts_accuracy_t3': right(trained.listed('attempts3'))[:, 2].mean(),
    # Of two pairs of trajectories, each has an oracle.
    'samples_best_of_4_corrected': np.mean(
      [samples.right[:, i : i + 2, 1].any(axis=1) for i in (0, 2)]
    ),
  }
  for name, value in expected.items():
    assert float(rows['without_stage_one'][name]) == pytest.approx(value)
  base = rows['base']  # Its own first attempts are the base's.
  assert base['fixed_first_fixes_wrong'] == base['fixes_wrong']


def test_figures_are_written_and_say_what_they_lack(table):
  text = (table / 'table.md').read_text()
  page = (table / 'table.html').read_text()
  for name in ('transitions', 'edits', 'shift', 'budget', 'attempts'):
    png = (table / 'figures' / f'{name}.png').read_bytes()
    assert png.startswith(b'\x89PNG')
    assert (table / 'figures' / f'{name}.svg').read_text().startswith('<svg')
    assert f'](figures/{name}.png)' in text
    assert f'id="{name}-caption"' in page
  assert 'Not there yet: STaR, D.' in text
  assert 'is not drawn' not in text


def test_nothing_is_asked_twice(table):
  assert [asking.missing(plan) for plan in plans(table)] == [[], []]


@pytest.mark.parametrize(
  ('setting', 'value', 'asked'),
  [
    ('table__samples', 2, ['samples']),
    ('table__temperature', 0.5, ['samples']),
    ('table__turns', 4, ['attempts4']),
    ('table__budget', ('base',), []),
  ],
)
def test_what_other_settings_ask_is_asked_anew(table, setting, value, asked):
  assert asking.missing(plans(table, **{setting: value})[1]) == asked


def test_what_is_damaged_is_asked_anew(table):
  path = table / NAMES[1] / 'seed0' / 'asked' / 'fixed.npz'
  whole = path.read_bytes()
  try:
    path.write_bytes(whole[: len(whole) // 2])
    assert asking.missing(plans(table)[1]) == ['fixed']
  finally:
    path.write_bytes(whole)


def test_a_table_of_other_settings_is_refused(table):
  other = config(method__alpha=3.0)
  with pytest.raises(ConfigError, match=r'method.alpha=3.0, but .*seed0 holds'):
    running.table(other, table, NAMES, 1, Stop())


@pytest.mark.parametrize('setting', ['shift', 'budget', 'attempts'])
def test_what_asks_in_another_way_is_refused(setting):
  odd = config(**{f'table__{setting}': ('score', 'self_refine')})
  with pytest.raises(ConfigError, match=f'table.{setting} names self_refine'):
    asking.check(odd)


@pytest.mark.parametrize(
  ('setting', 'value', 'least'),
  [
    ('turns', 1, '2'),
    ('samples', 1, '2'),
    ('problems', 0, '1'),
    ('temperature', 0.0, '0.01'),
  ],
)
def test_too_few_of_anything_is_refused(setting, value, least):
  few = config(**{f'table__{setting}': value})
  with pytest.raises(ConfigError, match=f'table.{setting} must be .* {least};'):
    checks.check(few, 1)


def test_a_misspelt_method_is_refused_with_the_nearest():
  with pytest.raises(ConfigError, match=r"'scor' \(did you mean score"):
    asking.check(config(table__curves=('scor',)))


def test_the_settings_of_the_table_can_be_asked():
  asking.check(presets.make('score', ''))


def test_votes_go_by_the_numbers_that_answers_are_kept_as(table):
  """As they would by the texts, which are told apart per problem alone."""
  found = asking.samples(plans(table)[1])
  second = [[turns[1] for turns in row] for row in found.answers]
  for n, answers in enumerate(second):
    counts = [(a, answers.count(a)) for a in set(answers) - {''}]
    most = max((count for _, count in counts), default=0)
    tied = [a for a, count in counts if count == most]
    verdict = dict(zip(answers, found.right[n, :, 1], strict=True))
    expected = np.mean([verdict[a] for a in tied]) if tied else 0.0
    vote = budget.majority([answers], found.right[n : n + 1, :, 1])
    assert vote[0] == pytest.approx(expected)
  assert list(itertools.chain(*second)).count('') < 36
