"""With its checkpoints in a folder of their own, a run outlives its disk."""

import os
import pathlib
import shutil

import bucket as stand_in
import pytest
import runs as small

from score_jax import files, places

pytestmark = pytest.mark.slow


@pytest.fixture
def local(tmp_path):
  """A folder of checkpoints on another disk, and what is read of it."""
  folder = tmp_path / 'elsewhere'
  yield str(folder), lambda: folder


@pytest.fixture
def bucket(tmp_path, monkeypatch):
  """A folder of checkpoints in a bucket, and a copy of it to read."""
  pytest.importorskip('google.cloud.storage')

  def read() -> pathlib.Path:
    copy = tmp_path / 'copy'
    for name in served.names():
      if not name.endswith('/'):
        path = copy / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(served.objects[name][1])
    return copy / 'run'

  with stand_in.serve(tmp_path) as served:
    for name, value in served.environment().items():
      monkeypatch.setenv(name, value)
    yield f'gs://{stand_in.NAME}/run', read


@pytest.mark.parametrize('where', ['local', 'bucket'])
def test_killed_and_its_disk_lost_a_run_ends_as_the_unbroken_one(
  runs, unbroken, tmp_path, where, request
):
  folder, read = request.getfixturevalue(where)
  first, second = tmp_path / 'first', tmp_path / 'second'
  process = runs.fork(tmp_path / 'log', first, checkpoint__folder=folder)
  # In stage 2, behind its first checkpoint at step 3 and the validation at 5.
  small.await_rows(process, first, small.STEPS['stage1'] + small.EVERY + 3)
  process.kill()
  process.join()
  assert not (first / 'checkpoints').exists()
  shutil.rmtree(first)
  said = runs.finish(second, checkpoint__folder=folder)
  assert f'{second} is made good from what {folder} has kept of it' in said
  assert 'stage1 is finished' in said
  assert 'stage2: going on from step' in said
  assert 'stage1 starts from' not in said
  kept = read()
  shutil.copytree(kept, second / 'checkpoints')
  small.assert_same(second, unbroken)
  evaluated = sorted(os.listdir(unbroken / 'evaluations'))
  assert sorted(os.listdir(second / 'evaluations')) == evaluated
  for name in places.below(kept / 'files'):
    if name != 'config.json':  # It has the folder's name.
      assert (kept / 'files' / name).read_bytes() == (
        second / name
      ).read_bytes(), name
  assert files.read_json(kept / 'files' / 'eval.json').keys() == {
    'base',
    'stage1',
    'stage2',
  }
