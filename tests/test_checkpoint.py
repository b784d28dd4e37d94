"""A checkpoint holds every bit, and no accident costs more than one step."""

import contextlib
import dataclasses
import logging
import math
import pathlib
import shutil
import subprocess
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl import logging as absl_logging
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from score_jax import checkpoint, fingerprint, step_files


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
  step: jax.Array
  params: Any
  opt_state: Any


def _state(step, sizes=(1, 8, 1)):
  """Returns a state whose bits depend on the step, on a mesh of 8 or 1."""
  key = jax.random.key(step)
  params = {
    'embed': jax.random.normal(key, (16, 8)),
    'layers': [
      {'kernel': jax.random.normal(key, (8, 4)).astype(jnp.bfloat16)},
      {'kernel': jax.random.bits(key, (24,), jnp.uint8), 'on': jnp.ones(8) > 0},
    ],
  }
  floats = {'embed': params['embed']}
  opt_state = optax.adam(1e-3).init(floats)
  state = State(jnp.int32(step), params, opt_state)
  return jax.tree.map(jax.device_put, state, _shardings(state, sizes))


def _shardings(tree, sizes):
  devices = np.array(jax.devices()[: math.prod(sizes)]).reshape(sizes)
  mesh = Mesh(devices, ('data', 'fsdp', 'tensor'))
  return jax.tree.map(
    lambda x: NamedSharding(
      mesh, PartitionSpec(*('fsdp', 'tensor')[: jnp.ndim(x)])
    ),
    tree,
  )


def _target(tree, sizes=(1, 8, 1)):
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    tree,
    _shardings(tree, sizes),
  )


def _assert_same_bits(actual, expected):
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  for a, b in zip(
    jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True
  ):
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@contextlib.contextmanager
def _open(folder, keep=10, messages=None):
  report = [].append if messages is None else messages.append
  checkpoints = checkpoint.open_checkpoints(folder, keep, report)
  try:
    yield checkpoints
  finally:
    checkpoints.close()


@pytest.fixture
def saved(tmp_path):
  """A folder with steps 10, 20 and 30, of which 20 is the best."""
  with _open(tmp_path / 'stage1') as checkpoints:
    for step, score in ((10, 0.1), (20, 0.9), (30, 0.5)):
      checkpoints.save(step, _state(step), {'step': step}, score)
  return tmp_path / 'stage1'


def _largest_file(path):
  return max(
    (p for p in path.rglob('*') if p.is_file()), key=lambda p: p.stat().st_size
  )


def test_what_is_restored_is_what_was_saved_bit_for_bit(tmp_path):
  state = _state(7)
  meta = {'seed': 3, 'history': [{'reward': 0.1}, {'reward': None}], 'é': 'ü'}
  with _open(tmp_path) as checkpoints:
    checkpoints.save(7, state, meta, 0.5)
  with _open(tmp_path) as checkpoints:
    restored, restored_meta = checkpoints.restore(_target(state))
  _assert_same_bits(restored, state)
  assert restored_meta == meta


@pytest.mark.parametrize('sizes', [(2, 2, 2), (1, 1, 1)])
def test_a_checkpoint_of_one_mesh_is_restored_onto_another(saved, sizes):
  with _open(saved) as checkpoints:
    restored, _ = checkpoints.restore(_target(_state(30), sizes))
  _assert_same_bits(restored, _state(30))
  assert jax.tree.map(lambda x: x.sharding, restored) == _shardings(
    restored, sizes
  )


def test_buffers_may_be_donated_as_soon_as_save_returns(tmp_path):
  @jax.jit
  def make():
    return {'params': {'w': jnp.arange(2_000_000, dtype=jnp.float32)}, 'n': 1.0}

  overwrite = jax.jit(
    lambda tree: jax.tree.map(lambda x: x * 0 - 1, tree), donate_argnums=0
  )
  with _open(tmp_path, keep=1) as checkpoints:
    for step in range(1, 6):
      state = make()
      checkpoints.save(step, state, {}, 0.0)
      state = jax.block_until_ready(overwrite(state))
      restored, _ = checkpoints.restore(state)
      _assert_same_bits(restored, make())


def test_meta_that_json_cannot_hold_is_refused_before_anything_is_written(
  tmp_path,
):
  with _open(tmp_path) as checkpoints:
    with pytest.raises(TypeError, match='not JSON serializable'):
      checkpoints.save(1, _state(1), {'reward': np.float32(1)}, 0.0)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_checkpoints_restores_nothing(tmp_path):
  with _open(tmp_path / 'a' / 'b') as checkpoints:
    assert checkpoints.restore(_target(_state(1))) is None
  assert checkpoint.best_step(tmp_path / 'absent') is None
  assert checkpoint.newest_step(tmp_path / 'absent') is None


@pytest.mark.parametrize(
  ('scores', 'left'),
  [
    ((0.1, 0.9, 0.5, 0.4, 0.3), [20, 40, 50]),
    ((0.1, 0.2, 0.3, 0.4, 0.5), [40, 50]),
    ((0.7, 0.7, 0.7, 0.7, 0.7), [10, 40, 50]),  # Of equal ones the earliest.
    ((math.nan, -1.0, math.nan, -2.0, math.nan), [20, 40, 50]),
  ],
)
def test_the_newest_and_the_best_are_kept(tmp_path, scores, left):
  for step, score in enumerate(scores, start=1):
    # Opened anew each time: what is best is read from disk.
    with _open(tmp_path, keep=2) as checkpoints:
      checkpoints.save(10 * step, _state(step, (1, 1, 1)), {}, score)
  assert checkpoint.steps(tmp_path) == left


def test_the_parameters_of_the_best_step_are_read_alone(saved):
  shutil.rmtree(saved / '20' / 'rest')
  target = _target(_state(20).params, (1, 1, 1))
  params, meta = checkpoint.restore_params(
    saved, checkpoint.best_first(saved), target, pytest.fail
  )
  _assert_same_bits(params, _state(20).params)
  assert meta == {'step': 20}
  assert checkpoint.best_first(saved) == [20, 30, 10]
  assert checkpoint.best_step(saved) == 20
  assert checkpoint.newest_step(saved) == 30


def test_a_part_of_the_state_is_read_alone_if_it_fits(saved):
  shutil.rmtree(saved / '20' / 'params')
  mu = _state(20).opt_state[0].mu
  target = _target({'opt_state': {'0': {'mu': mu}}}, (1, 1, 1))
  state, meta = checkpoint.restore_part(saved, [20], target, pytest.fail)
  _assert_same_bits(state['opt_state']['0']['mu'], mu)
  assert meta == {'step': 20}
  narrow = {'embed': mu['embed'].astype(jnp.bfloat16)}
  target = _target({'opt_state': {'0': {'mu': narrow}}})
  with pytest.raises(checkpoint.CheckpointError, match=r'0/mu/embed is float3'):
    checkpoint.restore_part(saved, [20], target, pytest.fail)
  file = _largest_file(saved / '20' / 'rest')
  file.write_bytes(file.read_bytes()[:-1])
  messages = []
  with pytest.raises(checkpoint.CheckpointError, match='no whole checkpoint'):
    checkpoint.restore_part(saved, [20], target, messages.append)
  assert f'{saved / "20"} is damaged' in messages[0]


def test_a_reader_passes_over_a_damaged_best_and_changes_nothing(saved):
  _largest_file(saved / '20' / 'params').write_bytes(b'')
  before = sorted(saved.rglob('*'))
  messages = []
  target = _target(_state(30).params)
  params, _ = checkpoint.restore_params(
    saved, [20, 30], target, messages.append
  )
  _assert_same_bits(params, _state(30).params)
  assert len(messages) == 1
  assert str(saved / '20') in messages[0]
  assert sorted(saved.rglob('*')) == before
  with pytest.raises(checkpoint.CheckpointError, match=r'steps \[20\]'):
    checkpoint.restore_params(saved, [20], target, messages.append)


def _truncate(path):
  file = _largest_file(path / 'params')
  file.write_bytes(file.read_bytes()[:-1])


def _zero(path):
  file = _largest_file(path / 'rest')
  data = file.read_bytes()
  file.write_bytes(data[:10] + bytes(16) + data[26:])


def _drop(path):
  _largest_file(path / 'params').unlink()


def _empty(path):
  shutil.rmtree(path)
  path.mkdir()


def _spoil_meta(path):
  (path / 'meta' / 'metadata').write_text('{"score"')


def _spoil_manifest(path):
  (path / step_files.MANIFEST).write_bytes(bytes(100))


@pytest.mark.parametrize(
  ('damage', 'words'),
  [
    (_truncate, 'bytes instead of'),
    (_zero, 'other bytes'),
    (_drop, 'No such file'),
    (_empty, 'No such file'),
    (_spoil_meta, 'meta/metadata has 8 bytes'),
    (_spoil_manifest, 'manifest.json cannot be read'),
  ],
)
def test_a_damaged_step_is_named_and_the_one_before_is_used(
  saved, damage, words, capfd, caplog
):
  damage(saved / '30')
  messages = []
  with _open(saved, messages=messages) as checkpoints:
    restored, meta = checkpoints.restore(_target(_state(20)))
    _assert_same_bits(restored, _state(20))
    assert meta == {'step': 20}
    (message,) = messages
    assert '\n' not in message
    for part in (str(saved / '30'), words, 'damaged-30', 'Trying 20'):
      assert part in message
    checkpoints.save(30, _state(31), {'step': 30}, 0.0)
    restored, _ = checkpoints.restore(_target(_state(31)))
  _assert_same_bits(restored, _state(31))
  assert (saved / 'damaged-30').is_dir()
  assert capfd.readouterr().err == ''
  assert caplog.records == []


def test_an_empty_folder_with_a_high_number_does_not_win(saved):
  (saved / '999').mkdir()
  messages = []
  with _open(saved, messages=messages) as checkpoints:
    restored, _ = checkpoints.restore(_target(_state(30)))
    _assert_same_bits(restored, _state(30))
    checkpoints.save(40, _state(40), {}, 0.0)
  assert '999' in messages[0]
  assert checkpoint.newest_step(saved) == 40


def test_the_same_step_can_be_damaged_twice(saved):
  with _open(saved) as checkpoints:
    for _ in range(2):
      _truncate(saved / '30')
      checkpoints.restore(_target(_state(20)))
      checkpoints.save(30, _state(30), {}, 0.0)
      checkpoints.wait()
  assert (saved / 'damaged-30').is_dir()
  assert (saved / 'damaged-30-2').is_dir()


def test_if_all_are_damaged_each_is_named_and_nothing_is_restored(saved):
  for step in (10, 20, 30):
    _truncate(saved / str(step))
  messages = []
  with _open(saved, messages=messages) as checkpoints:
    assert checkpoints.restore(_target(_state(10))) is None
  assert len(messages) == 3
  assert 'None is left' in messages[-1]


def test_litter_of_a_kill_is_removed_and_a_half_deleted_step_passed_over(saved):
  """A kill between manifest and renaming, and one while 20 was deleted."""
  (saved / '30').rename(saved / '30.orbax-checkpoint-tmp')
  shutil.rmtree(saved / '20' / 'meta')
  messages = []
  with _open(saved, messages=messages) as checkpoints:
    assert not (saved / '30.orbax-checkpoint-tmp').exists()
    restored, _ = checkpoints.restore(_target(_state(10)))
  _assert_same_bits(restored, _state(10))
  assert len(messages) == 1


def test_a_step_that_is_there_is_refused(saved):
  with _open(saved) as checkpoints:
    for step in (30, 20):
      with pytest.raises(
        checkpoint.CheckpointError, match=f'Step {step} is in'
      ):
        checkpoints.save(step, _state(step), {}, 0.0)


def test_a_best_step_that_is_made_again_stands_among_later_ones(saved):
  shutil.rmtree(saved / '20')
  with _open(saved, keep=1) as checkpoints:
    restored, meta = checkpoints.restore(_target(_state(10)), last=20)
    assert meta == {'step': 10}
    _assert_same_bits(restored, _state(10))
    checkpoints.save(20, _state(20), {'step': 20}, 0.9)
    checkpoints.wait()
    restored, _ = checkpoints.restore(_target(_state(10)), last=20)
    _assert_same_bits(restored, _state(20))
    restored, _ = checkpoints.restore(_target(_state(10)))
    _assert_same_bits(restored, _state(30))
  assert checkpoint.steps(saved) == [20, 30]
  assert checkpoint.best_step(saved) == 20


@pytest.mark.parametrize('item', ['params', 'rest', 'meta'])
def test_a_step_is_damaged_in_size_or_where_it_is_read_in_bytes(saved, item):
  path = _largest_file(saved / '20' / item)
  whole = path.read_bytes()
  assert not checkpoint.is_damaged(saved, 20)
  path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
  assert checkpoint.is_damaged(saved, 20)
  assert checkpoint.is_damaged(saved, 20, read=[item])
  assert not checkpoint.is_damaged(saved, 20, read=[])
  path.write_bytes(whole[:-1])
  assert checkpoint.is_damaged(saved, 20, read=[])


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    (
      lambda p: p | {'embed': p['embed'].astype(jnp.bfloat16)},
      r'params/embed is float32\[16, 8\] there and bfloat16\[16, 8\] here',
    ),
    (
      lambda p: p | {'embed': p['embed'][:8]},
      r'params/embed is float32\[16, 8\] there and float32\[8, 8\] here',
    ),
    (
      lambda p: {'layers': p['layers']},
      r'params/embed is float32\[16, 8\] there and absent here',
    ),
    (
      lambda p: p | {'layers': [*p['layers'], jnp.zeros(8)]},
      r'params/layers/2 is absent there and float32\[8\] here',
    ),
  ],
)
def test_a_target_of_another_form_is_refused_by_name(saved, change, words):
  state = _state(30)
  target = _target(dataclasses.replace(state, params=change(state.params)))
  with _open(saved) as checkpoints:
    with pytest.raises(checkpoint.CheckpointError, match=words):
      checkpoints.restore(target)
    with pytest.raises(checkpoint.CheckpointError, match=words):
      checkpoint.restore_params(saved, [30], target.params, pytest.fail)
  assert checkpoint.steps(saved) == [10, 20, 30]


def test_a_target_without_shardings_is_refused(saved):
  target = jax.eval_shape(lambda: _state(30))
  with (
    _open(saved) as checkpoints,
    pytest.raises(
      checkpoint.CheckpointError, match='sharding for params/embed'
    ),
  ):
    checkpoints.restore(target)


def test_an_error_in_the_background_surfaces_once_and_saving_goes_on(
  tmp_path, monkeypatch, capfd, caplog
):
  write_manifest = step_files.write_manifest
  failures = [OSError(5, 'Input/output error')]

  def fail_once(folder, step):
    if failures:
      raise failures.pop()
    write_manifest(folder, step)

  monkeypatch.setattr(step_files, 'write_manifest', fail_once)
  with _open(tmp_path, keep=1) as checkpoints:
    checkpoints.save(1, _state(1), {}, 0.0)
    with pytest.raises(
      checkpoint.CheckpointError, match='Input/output'
    ) as info:
      checkpoints.save(2, _state(2), {}, 0.0)
    assert str(tmp_path) in str(info.value)
    assert list(tmp_path.iterdir()) == []
    checkpoints.save(2, _state(2), {}, 0.0)
    checkpoints.wait()
    restored, _ = checkpoints.restore(_target(_state(2)))
  _assert_same_bits(restored, _state(2))
  assert capfd.readouterr().err == ''
  assert caplog.records == []


@pytest.mark.parametrize('late', [False, True], ids=['before', 'while'])
def test_what_a_failed_save_still_writes_keeps_no_later_one_from_being_made(
  tmp_path, monkeypatch, late
):
  def still_write():
    litter = tmp_path / step_files.UNFINISHED.replace('*', '1')
    (litter / 'params').mkdir(parents=True)
    (litter / 'params' / 'part').write_bytes(b'late')

  write_manifest = step_files.write_manifest

  def write_beside_it(folder, step):
    if late and step == 2:
      still_write()
    write_manifest(folder, step)

  monkeypatch.setattr(step_files, 'write_manifest', write_beside_it)
  with _open(tmp_path) as checkpoints:
    if not late:
      still_write()
    for step in (2, 3):
      checkpoints.save(step, _state(step), {}, 0.0)
    restored, _ = checkpoints.restore(_target(_state(3)))
  _assert_same_bits(restored, _state(3))
  assert sorted(x.name for x in tmp_path.iterdir()) == ['2', '3']


def test_a_failed_save_does_not_make_old_steps_immortal(tmp_path, monkeypatch):
  write_manifest = step_files.write_manifest
  calls = []

  def fail_at_third(folder, step):
    calls.append(folder)
    if len(calls) == 3:
      raise OSError(5, 'Input/output error')
    write_manifest(folder, step)

  monkeypatch.setattr(step_files, 'write_manifest', fail_at_third)
  with _open(tmp_path, keep=2) as checkpoints:
    for step in (1, 2, 3):
      checkpoints.save(step, _state(step), {}, float(step))
    with pytest.raises(checkpoint.CheckpointError):
      checkpoints.wait()
    assert checkpoint.steps(tmp_path) == [1, 2]
    checkpoints.save(4, _state(4), {}, 4.0)
  assert checkpoint.steps(tmp_path) == [2, 4]


def test_a_folder_that_cannot_be_written_is_named(saved):
  moved = saved.with_name('elsewhere')
  with _open(saved) as checkpoints:
    saved.rename(moved)
    saved.write_text('a file where the folder was')
    with pytest.raises(checkpoint.CheckpointError, match=str(saved)):
      checkpoints.save(40, _state(40), {}, 0.0)
    with pytest.raises(checkpoint.CheckpointError, match=str(saved)):
      checkpoint.open_checkpoints(saved / 'below', 1, pytest.fail)
    saved.unlink()
    moved.rename(saved)
    checkpoints.save(40, _state(40), {}, 0.0)
    restored, _ = checkpoints.restore(_target(_state(40)))
  _assert_same_bits(restored, _state(40))


@pytest.fixture
def small_disk(tmp_path):
  """Yields a folder on a disk of 8 MB."""
  disk = tmp_path / 'disk'
  disk.mkdir()
  command = ['mount', '-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', str(disk)]
  if subprocess.run(command, capture_output=True).returncode:
    pytest.skip('only root can mount a small disk')
  yield disk
  subprocess.run(['umount', str(disk)], check=True)


def test_a_full_disk_is_an_error_and_the_older_step_stays(small_disk, capfd):
  def big(step):
    noise = jax.random.bits(jax.random.key(step), (4_000_000,), jnp.uint32)
    return {'params': {'noise': noise}, 'step': jnp.int32(step)}

  small = {'params': {'noise': jnp.zeros(8)}, 'step': jnp.int32(1)}
  folder = small_disk / 'checkpoints'
  with _open(folder, keep=1) as checkpoints:
    checkpoints.save(1, small, {}, 0.0)
    checkpoints.wait()
    with pytest.raises(
      checkpoint.CheckpointError, match=f'{folder}.*No space left'
    ):
      checkpoints.save(2, big(2), {}, 1.0)
      checkpoints.wait()
    restored, _ = checkpoints.restore(small)
    _assert_same_bits(restored, small)
    checkpoints.save(3, small, {}, 0.0)
  assert checkpoint.steps(folder) == [1, 3]  # 1 is the best, 3 the newest.
  assert capfd.readouterr().err == ''


def test_our_own_messages_pass_where_those_of_orbax_are_silenced(
  tmp_path, caplog
):
  with caplog.at_level(logging.INFO, logger='absl'):
    with _open(tmp_path) as checkpoints:
      checkpoints.save(1, _state(1), {}, 0.0)
    absl_logging.info('ours')
  assert [record.getMessage() for record in caplog.records] == ['ours']


KILLED = """
import pathlib, sys
import jax, numpy as np
from score_jax import checkpoint, step_files

folder = pathlib.Path(sys.argv[1])
checkpoints = checkpoint.open_checkpoints(folder, 1, print)
for step in range(checkpoint.newest_step(folder) or 0, 1000):
  noise = np.random.default_rng(step + 1).bytes(60_000_000)
  state = {'params': {'w': jax.numpy.asarray(np.frombuffer(noise, np.float32))}}
  state['step'] = jax.numpy.int32(step + 1)
  checkpoints.wait()
  print('saving', flush=True)
  checkpoints.save(step + 1, state, {'step': step + 1}, float(-step))
"""


def _kill_while_saving(folder, delay):
  """Returns whether the kill left an unfinished step."""
  root = pathlib.Path(__file__).parent.parent
  process = subprocess.Popen(
    [sys.executable, '-c', KILLED, str(folder)],
    stdout=subprocess.PIPE,
    text=True,
    cwd=root,
  )
  assert process.stdout.readline() == 'saving\n'
  assert process.stdout.readline() == 'saving\n'  # One step is whole.
  time.sleep(delay)
  process.kill()
  process.wait()
  return bool(list(folder.glob(step_files.UNFINISHED)))


def test_a_kill_while_saving_costs_at_most_the_step_being_saved(tmp_path):
  target = {
    'params': {'w': jnp.zeros(15_000_000, jnp.float32)},
    'step': jnp.int32(0),
  }
  unfinished, newest = [], 0
  for delay in (0.02, 0.08, 0.15, 0.25, 0.4):
    unfinished.append(_kill_while_saving(tmp_path, delay))
    with _open(tmp_path, keep=1, messages=(messages := [])) as checkpoints:
      restored, meta = checkpoints.restore(target)
    assert messages == []
    assert meta['step'] > newest
    newest = meta['step']
    expected = np.random.default_rng(newest).bytes(60_000_000)
    assert np.asarray(restored['params']['w']).tobytes() == expected
    assert not list(tmp_path.glob(step_files.UNFINISHED))
  assert any(unfinished)


def test_the_hash_is_the_same_on_every_mesh():
  params = _state(1, (1, 1, 1)).params
  hashes = {
    fingerprint.params_hash(
      jax.tree.map(jax.device_put, params, _shardings(params, sizes))
    )
    for sizes in [(1, 1, 1), (1, 8, 1), (2, 2, 2), (8, 1, 1), (1, 2, 4)]
  }
  assert len(hashes) == 1
  assert fingerprint.params_hash(jax.tree.map(np.asarray, params)) in hashes


def _murmur(x):
  x = ((x ^ (x >> 16)) * 0x85EBCA6B) % 2**32
  x = ((x ^ (x >> 13)) * 0xC2B2AE35) % 2**32
  return x ^ (x >> 16)


def test_the_checksums_are_the_sums_that_python_finds():
  leaf = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
  bits = leaf.view(np.uint32).ravel().tolist()
  expected = [
    sum(_murmur(b ^ _murmur(i ^ salt)) for i, b in enumerate(bits)) % 2**32
    for salt in (0x9E3779B9, 0x7F4A7C15)
  ]
  assert np.asarray(fingerprint._checksums(leaf)).tolist() == expected


@pytest.mark.parametrize(
  'change',
  [
    lambda w: -w,  # An even number of signs.
    lambda w: w.at[0, 0].set(jnp.nextafter(w[0, 0], 9.0)),
    lambda w: w[::-1],
    lambda w: w.reshape(4, 8),
    lambda w: jax.lax.bitcast_convert_type(w, jnp.int32),
    lambda w: w.astype(jnp.bfloat16),
  ],
)
def test_the_hash_sees_bits_places_shapes_and_types(change):
  w = jax.random.normal(jax.random.key(0), (8, 4))
  before = fingerprint.params_hash({'w': w})
  assert fingerprint.params_hash({'w': w + 0.0}) == before
  assert fingerprint.params_hash({'w': change(w)}) != before
  assert fingerprint.params_hash({'v': w}) != before
