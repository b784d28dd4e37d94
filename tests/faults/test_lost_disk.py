"""With its checkpoints in a folder of their own, a run outlives its disk."""

import os
import pathlib
import shutil

import bucket as stand_in
import pytest
import runs as small
import several

from score_jax import files, places

pytestmark = pytest.mark.long


@pytest.fixture
def local(tmp_path):
  """A folder of checkpoints on another disk, and how to read it."""
  folder = tmp_path / 'elsewhere'
  return str(folder), lambda: folder, lambda name: (folder / name).exists()


@pytest.fixture
def bucket(tmp_path, monkeypatch):
  """A folder of checkpoints in a bucket, and how to read a copy of it."""
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
    folder = f'gs://{stand_in.NAME}/run'
    yield folder, read, lambda name: f'run/{name}' in served.objects


@pytest.mark.parametrize('where', ['local', 'bucket'])
def test_killed_and_its_disk_lost_a_run_ends_as_the_unbroken_one(
  runs, unbroken, tmp_path, where, request
):
  folder, read, has = request.getfixturevalue(where)
  first, second = tmp_path / 'first', tmp_path / 'second'
  process = runs.fork(tmp_path / 'log', first, checkpoint__folder=folder)
  # In stage 2, behind its first checkpoint, at step 3.
  small.await_claim(process, lambda: has('stage2/3/commit_success.txt'))
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


def test_two_processes_save_to_a_bucket_and_find_all_of_it_again(
  runs, tmp_path, bucket
):
  folder, read, has = bucket
  short = {'train__stage1_steps': 2, 'train__stage2_steps': 2, 'eval__every': 0}
  settings = short | {'checkpoint__every': 1, 'checkpoint__folder': folder}
  first, second = tmp_path / 'first', tmp_path / 'second'
  with several.group(runs, first, 2, 1, **settings) as group:
    assert group.codes() == [0, 0], group.said(0)
  assert has('stage2/2/commit_success.txt')
  metrics = small.rows(first / 'metrics.jsonl')
  shutil.rmtree(first)
  with several.group(runs, second, 2, 1, **settings) as group:
    assert group.codes() == [0, 0], group.said(0)
    assert f'finished: nothing is left to do in {second}' in group.said(0)
  assert small.rows(second / 'metrics.jsonl') == metrics
  # Each process wrote the parts that it has.
  parts = os.listdir(read() / 'stage2' / '2' / 'params')
  assert {'ocdbt.process_0', 'ocdbt.process_1'} <= set(parts)
