"""The command that trains and tabulates every row, run small and whole."""

import csv
import os
import signal
import subprocess
import sys
import time

import pytest
import runs as small

from configs import presets
from score_jax import files
from score_jax.config import ConfigError
from score_jax.laboratory import cells
from score_jax.methods import catalogue

# So that two rounds have two updates each, or three; one that has but one
# samples twice, for its traces and for its checkpoint.
UPDATES = 6
SETTINGS = {
  'train.stage1_steps': 2,
  'train.stage2_steps': 4,
  'method.rounds': 2,
  'model.unroll': False,
  'train.trajectories': 64,
  'train.accumulation': 0,  # Chosen, for each of them.
  'sampling.parts': 0,
  'sampling.first_attempts': 4,
  'task.train_problems': 200,
  'checkpoint.every': 2,
  'eval.problems': 40,
  'eval.batch': 40,
  'eval.every': 0,
  'optimizer.learning_rate': 1e-4,
  'table.samples': 4,
  'table.problems': 20,
  'table.turns': 4,
}
FIGURES = (
  'transitions',
  'accuracy',
  'changes',
  'edits',
  'shift',
  'budget',
  'attempts',
)


def start(runs, workdir, *more):
  arguments = [f'--config.{k}={v}' for k, v in SETTINGS.items()]
  command = [sys.executable, '-m', 'score_jax.table', f'--workdir={workdir}']
  return subprocess.Popen(
    [*command, '--seeds=1', *arguments, *more],
    cwd=small.ROOT,
    env=runs.environment(),
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def finish(process):
  said, _ = process.communicate(timeout=900)
  assert process.returncode == 0, said
  return said


@pytest.fixture(scope='module')
def table(runs, tmp_path_factory):
  """The work directory of a table of all rows that nobody stopped."""
  workdir = tmp_path_factory.mktemp('table')
  finish(start(runs, workdir))
  return workdir


@pytest.fixture(scope='module')
def rows(table):
  with open(table / 'table.csv') as file:
    return {row['name']: row for row in csv.DictReader(file)}


@pytest.mark.long
def test_the_table_has_every_row_and_none_failed(table, rows):
  assert list(rows) == list(catalogue.ROWS)
  assert 'Missing' not in (table / 'table.md').read_text()
  assert 'SCoRe, three turns &' in (table / 'table.tex').read_text()


@pytest.mark.long
def test_every_figure_is_drawn_of_all_its_methods(table):
  text = (table / 'table.md').read_text()
  assert 'is not drawn' not in text
  assert 'Not there yet' not in text
  for name in FIGURES:
    assert f'](figures/{name}.png)' in text
    assert (table / 'figures' / f'{name}.png').exists()
  assert 'Missing' not in (table / 'table.html').read_text()


@pytest.mark.long
@pytest.mark.parametrize('name', catalogue.ROWS)
def test_every_trained_row_made_all_updates_and_sampled_as_much(rows, name):
  if name in ('base', 'self_refine', 'self_contrast'):
    assert float(rows[name]['updates']) == 0
    return
  assert float(rows[name]['updates']) == UPDATES
  # 64 rows of two attempts; a group is 4 rows, of up to 13 attempts.
  each = float(rows[name]['attempts']) / UPDATES
  assert abs(each - 128) <= 13 / 2


@pytest.mark.long
def test_prompting_rows_ask_other_things_of_the_same_base(table):
  def first(name, listed):
    path = table / name / 'seed0' / 'evaluations' / f'{listed}.jsonl'
    found, _ = files.read_jsonl(path)
    return [row['attempts'][0] for row in found]

  base = first('base', 'base')
  assert len(base) == 40
  assert first('self_refine', 'self_refine') == base
  assert first('self_contrast', 'self_contrast') == base


@pytest.mark.long
def test_the_same_command_again_trains_nothing(runs, table):
  before = (table / 'table.csv').read_text()
  said = finish(start(runs, table))
  assert f'{len(catalogue.ROWS)} runs, {len(catalogue.ROWS)} of' in said
  assert (table / 'table.csv').read_text() == before


@pytest.mark.long
def test_a_row_stopped_in_a_round_ends_as_the_unbroken_one(
  runs, table, tmp_path
):
  rows = ('--methods=star_d_plus', '--config.checkpoint.every=2')
  cell = tmp_path / 'star_d_plus' / 'seed0'
  process = start(runs, tmp_path, *rows)
  deadline = time.monotonic() + 300
  # As the second round begins, with the first one done.
  while not (cell / 'traces' / 'round2.npz').exists():
    assert process.poll() is None, process.communicate()[0]
    assert time.monotonic() < deadline
    time.sleep(0.02)
  os.kill(process.pid, signal.SIGTERM)
  assert 'stopped' in finish(process)
  assert not (tmp_path / 'table.csv').exists()
  finish(start(runs, tmp_path, *rows))
  unbroken = table / 'star_d_plus' / 'seed0'
  assert small.rows(cell / 'metrics.jsonl') == small.rows(
    unbroken / 'metrics.jsonl'
  )
  for name in ('round1', 'round2'):
    found = small.params(cell, name, 3)
    assert found == small.params(unbroken, name, 3)
  ours, theirs = (files.read_json(x / 'eval.json') for x in (cell, unbroken))
  assert ours == theirs


def test_an_unknown_row_is_refused_in_one_line(runs, tmp_path):
  process = start(runs, tmp_path, '--methods=star_d,rize')
  said, _ = process.communicate(timeout=300)
  assert process.returncode == 2
  assert "got 'rize' (did you mean rise?)" in said.strip().splitlines()[-1]


def test_what_trains_nothing_is_there_once_whatever_the_seeds(tmp_path):
  config = presets.make('score', '')
  found = cells.plans(config, tmp_path, ['base', 'score'], seeds=3)
  where = [str(plan.workdir.relative_to(tmp_path)) for plan in found]
  assert where == ['base/seed0', 'score/seed0', 'score/seed1', 'score/seed2']
  assert [plan.final for plan in found[:2]] == ['base', 'stage2']


def test_rounds_without_an_update_are_refused_before_anything_runs(tmp_path):
  config = presets.make('score', '')
  config.method.rounds = 1000
  with pytest.raises(ConfigError, match='would make no update'):
    cells.plans(config, tmp_path, ['interleaved'], seeds=1)
