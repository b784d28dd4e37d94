"""The soak's faults are a function of its seed, and its eye sees differences."""

import itertools
import json

import pytest

from score_jax import inspection
from soak import compare, harm, plan, poisoned, rounds


def _first(seed, kinds=frozenset(plan.WEIGHTS), count=200):
  return list(itertools.islice(plan.faults(seed, 3, set(kinds)), count))


def test_one_seed_gives_one_order_of_faults_and_another_another():
  assert _first(7) == _first(7)
  assert _first(7) != _first(8)
  starts = [list(itertools.islice(plan.starts(n), 50)) for n in (7, 7, 8)]
  assert starts[0] == starts[1] != starts[2]


def test_every_kind_comes_to_every_process():
  found = {(fault.kind, fault.process) for fault in _first(0)}
  assert found == set(itertools.product(plan.WEIGHTS, range(3)))


def test_what_is_not_possible_here_is_left_out_and_the_rest_stays():
  possible = set(plan.WEIGHTS) - {plan.FULL}
  some = _first(0, possible)
  whole = [f for f in _first(0, count=400) if f.kind != plan.FULL]
  assert some == whole[:200]


@pytest.mark.parametrize(
  ('stage', 'step', 'expected'),
  [
    ('stage1', 5, False),
    ('stage1', 6, True),
    ('stage1', 7, False),
    ('stage2', 6, False),
    ('stage2', 9, True),
    ('stage2', 30, True),
  ],
)
def test_steps_are_named_one_by_one_or_from_one_on(stage, step, expected):
  assert poisoned.poisoned(stage, step, 'stage1:6,stage2:9+') == expected
  assert not poisoned.poisoned(stage, step, '')


def _checkpoint(workdir, stage, step):
  folder = workdir / 'checkpoints' / stage / str(step)
  (folder / 'params').mkdir(parents=True)
  (folder / 'params' / 'a').write_bytes(bytes(100))
  (folder / 'manifest.json').write_text('{}')
  (folder / '_METADATA').write_text('{}')  # Which nothing reads.


def test_damage_comes_to_the_newest_checkpoint_of_the_stage_under_way(tmp_path):
  def damage(how, place):
    return harm.damage(tmp_path, how, place, rounds.STEPS)

  assert damage('cut', 0.0) == ''
  _checkpoint(tmp_path, 'stage1', 8)
  assert damage('cut', 0.0) == 'checkpoints/stage1/8/manifest.json'
  _checkpoint(tmp_path, 'stage2', 3)
  _checkpoint(tmp_path, 'stage2', 12)
  path = tmp_path / damage('flipped', 0.9)
  assert path == tmp_path / 'checkpoints/stage2/12/params/a'
  assert sorted(path.read_bytes()) == [0] * 99 + [1]
  assert tmp_path / damage('cut', 0.9) == path
  assert path.stat().st_size == 50
  damage('deleted', 0.9)
  assert not path.exists()


def test_damage_comes_to_the_best_checkpoint_of_a_finished_stage(
  tmp_path, monkeypatch
):
  for step in (8, 12, 16):
    _checkpoint(tmp_path, 'stage1', step)
  monkeypatch.setattr(harm.checkpoint, 'best_step', lambda folder: 12)
  found = harm.damage(tmp_path, 'cut', 0.9, rounds.STEPS)
  assert found == 'checkpoints/stage1/12/params/a'


@pytest.mark.parametrize(
  ('stage', 'step', 'expected'),
  [
    (None, None, 'stage1:1+'),
    ('stage1', 4, 'stage1:5+'),
    ('stage1', 6, 'stage1:9+'),  # Saved when it was asked to end.
    ('stage1', 16, 'stage2:1+'),
    ('stage2', 20, 'stage2:21+'),
    ('stage2', 22, ''),
  ],
)
def test_updates_are_spoiled_from_behind_a_save_to_before_the_next(
  tmp_path, stage, step, expected
):
  if stage:
    _checkpoint(tmp_path, stage, step)
  assert rounds.spoiled(tmp_path) == expected


def test_rows_are_compared_by_their_text_so_that_nan_equals_itself(tmp_path):
  rows = [{'step': 1, 'loss': float('nan'), 'seconds': 1.0}, {'step': 2}]
  changed = [rows[0] | {'seconds': 2.0}, {'step': 3}]
  names = []
  for number, some in enumerate((rows, changed[:1] + rows[1:], changed)):
    names.append(tmp_path / str(number))
    names[-1].write_text(''.join(json.dumps(row) + '\n' for row in some))
  assert compare.of_rows(names[1], names[0]) is None
  assert compare.of_rows(names[2], names[0]).startswith('row 2 is {"step": 3}')
  assert compare.of_rows(tmp_path / 'none', names[0]) == 'not there'


def test_a_batch_that_newer_ones_took_the_place_of_is_excused(tmp_path):
  folder = tmp_path / inspection.FOLDER
  folder.mkdir()
  for step in range(1, inspection.KEPT):
    (folder / f'stage2-{step:06}.npz').touch()
  wanted = {'stage1-000013', 'stage2-000003'}
  assert compare.made_room(tmp_path, wanted) == set()
  (folder / 'stage2-000020.npz').touch()
  assert compare.made_room(tmp_path, wanted) == {'stage1-000013'}


def test_only_a_batch_that_was_said_to_have_no_room_is_excused():
  said = (
    'stage1-000013: its batch could not be kept (No space left on device)\n'
    'stage2-000007: its batch is kept in /tmp/nonfinite\n'
  )
  assert compare.not_kept(said) == {'stage1-000013'}
  assert compare.not_kept('') == set()
