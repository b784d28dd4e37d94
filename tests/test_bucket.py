"""Checkpoints in a bucket hold every bit, and no accident costs more than one.

The clients are the real ones; what answers them is tests/bucket.py.
"""

import os

import bucket as stand_in
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from score_jax import checkpoint, places, step_files

pytest.importorskip('google.cloud.storage')


@pytest.fixture(scope='module')
def server(tmp_path_factory):
  """A bucket that this process's clients, which start only once, are led to."""
  with (
    stand_in.serve(tmp_path_factory.mktemp('bucket')) as bucket,
    pytest.MonkeyPatch.context() as patch,
  ):
    for name, value in bucket.environment().items():
      patch.setenv(name, value)
    yield bucket


@pytest.fixture
def bucket(server):
  server.objects.clear()
  yield server
  server.full = False


FOLDER = f'gs://{stand_in.NAME}/run/stage1'


def _state(step, devices=8):
  mesh = Mesh(np.array(jax.devices()[:devices]), ('fsdp',))
  key = jax.random.key(step)
  state = {
    'params': {
      'w': jax.random.normal(key, (16, 8)),
      'half': jax.random.normal(key, (8,)).astype(jnp.bfloat16),
    },
    'step': jnp.int32(step),
  }
  return jax.tree.map(
    lambda x: jax.device_put(
      x, NamedSharding(mesh, PartitionSpec(*('fsdp',)[: jnp.ndim(x)]))
    ),
    state,
  )


def _assert_same_bits(actual, expected):
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  for a, b in zip(
    jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True
  ):
    assert a.dtype == b.dtype
    assert a.sharding == b.sharding
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def _open(keep=10, messages=None):
  report = [].append if messages is None else messages.append
  where = places.at(FOLDER, 'checkpoint.folder')
  return checkpoint.open_checkpoints(where, keep, report)


@pytest.fixture(scope='module')
def three_steps(server):
  """The objects of steps 10, 20 and 30, of which 20 is the best."""
  server.objects.clear()
  checkpoints = _open()
  for step, score in ((10, 0.1), (20, 0.9), (30, 0.5)):
    checkpoints.save(step, _state(step), {'step': step}, score)
  checkpoints.close()
  return dict(server.objects)


@pytest.fixture
def saved(three_steps, bucket):
  """The bucket with three steps."""
  bucket.objects.update(three_steps)
  return bucket


def _restored(messages=None):
  checkpoints = _open(messages=messages)
  state, meta = checkpoints.restore(_state(0))
  checkpoints.close()
  assert meta == {'step': int(state['step'])}
  _assert_same_bits(state, _state(meta['step']))
  return meta['step']


def test_what_is_restored_from_a_bucket_is_what_was_saved(saved):
  assert _restored() == 30
  where = places.at(FOLDER, '')
  assert checkpoint.best_first(where) == [20, 30, 10]
  target = _state(0, devices=2)['params']
  params, meta = checkpoint.restore_params(where, [20], target, pytest.fail)
  _assert_same_bits(params, _state(20, devices=2)['params'])
  assert meta == {'step': 20}


def test_in_a_bucket_the_newest_and_the_best_are_kept(bucket):
  checkpoints = _open(keep=1)
  for step, score in ((1, 0.9), (2, 0.1), (3, 0.5)):
    checkpoints.save(step, _state(step), {}, score)
  checkpoints.close()
  assert checkpoint.steps(places.at(FOLDER, '')) == [1, 3]
  left = {name.split('/')[2] for name in bucket.names('run/stage1/')}
  assert left - {''} == {'1', '3'}


def test_what_a_kill_left_half_written_is_no_step_and_is_deleted(saved):
  """The same of a step that was being deleted."""
  del saved.objects[f'run/stage1/30/{step_files.FINISHED}']
  where = places.at(FOLDER, '')
  assert checkpoint.steps(where) == [10, 20]
  messages = []
  assert _restored(messages) == 20
  assert messages == []
  assert saved.names('run/stage1/30/') == []


def _shorten(bucket, name):
  bucket.put(name, bucket.objects[name][1][:-1])


def _delete(bucket, name):
  del bucket.objects[name]


@pytest.mark.parametrize(
  ('damage', 'words'),
  [(_shorten, 'bytes instead of'), (_delete, 'No such file')],
)
def test_a_damaged_step_of_a_bucket_is_named_and_moved_aside(
  saved, damage, words
):
  names = saved.names('run/stage1/30/params/')
  damage(saved, max(names, key=lambda name: len(saved.objects[name][1])))
  messages = []
  assert _restored(messages) == 20
  (message,) = messages
  for part in (f'{FOLDER}/30 is damaged', words, 'damaged-30', 'Trying 20'):
    assert part in message
  assert saved.names('run/stage1/30/') == []
  assert len(saved.names('run/stage1/damaged-30/')) >= len(names) - 1


def test_a_bucket_that_refuses_a_save_costs_that_save_alone(saved):
  checkpoints = _open()
  saved.full = True
  with pytest.raises(checkpoint.CheckpointError, match=FOLDER):
    checkpoints.save(40, _state(40), {'step': 40}, 0.0)
    checkpoints.wait()
  saved.full = False
  assert checkpoint.steps(places.at(FOLDER, '')) == [10, 20, 30]
  checkpoints.save(40, _state(40), {'step': 40}, 0.0)
  checkpoints.close()
  assert _restored() == 40


def test_a_bucket_that_cannot_be_read_is_no_empty_one(saved):
  """Else a run would begin anew, or its best step be deleted."""
  saved.hidden = True
  where = places.at(FOLDER, '')
  try:
    with pytest.raises(places.Unreachable):
      checkpoint.newest_step(where)
    with pytest.raises(places.Unreachable):
      checkpoint.best_first(where)
    with pytest.raises(checkpoint.CheckpointError, match='denied'):
      checkpoint.restore_params(where, [30], _state(0)['params'], pytest.fail)
  finally:
    saved.hidden = False


def test_files_of_a_bucket_are_named_read_and_replaced(bucket):
  where = places.at('gs://bucket/a', '')
  assert places.below(where) == []
  assert places.entries(where) == []
  with pytest.raises(FileNotFoundError) as missing:
    places.read_bytes(where / 'x')
  assert missing.value.filename == 'gs://bucket/a/x'
  for data in (b'\xff\x00', b'longer than before', b''):
    places.write_bytes(where / 'b' / 'c.bin', data)
    assert places.read_bytes(where / 'b' / 'c.bin') == data
    assert places.size(where / 'b' / 'c.bin') == len(data)
  places.write_bytes(where / 'd', b'1')
  assert places.below(where) == ['b/c.bin', 'd']
  assert places.entries(where) == ['b', 'd']
  places.remove(where)
  assert bucket.names('a/') == []
  assert os.fspath(where) == 'gs://bucket/a'
