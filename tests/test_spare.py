"""A lost work directory is made good from what lies beside the checkpoints."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from score_jax import (
  checks,
  claims,
  config,
  files,
  places,
  run,
  spare,
  stopping,
)
from score_jax.config import ConfigError


def _settings(**changes):
  made = config.default()
  for name, value in changes.items():
    made.update_from_flattened_dict({name.replace('__', '.'): value})
  return made


def _work(workdir):
  """Puts into a work directory what a run does; returns it, by name."""
  (workdir / 'evaluations').mkdir(parents=True)
  (workdir / 'traces').mkdir()
  work = {
    'config.json': b'{}',
    'metrics.jsonl': b'{"step": 1}\n',
    'samples.jsonl': b'{"step": 1, "text": "\xc3\xa9"}\n',
    'eval.json': b'{"base": {}}',
    'evaluations/base.jsonl': b'{"id": 0}\n',
    'traces/round1.npz': bytes(range(256)),
  }
  for name, data in work.items():
    (workdir / name).write_bytes(data)
  return work


def _found(workdir):
  return {
    name: (workdir / name).read_bytes()
    for name in places.below(workdir)
    if name != spare.WRITER
  }


@pytest.fixture
def kept(tmp_path):
  """What a job keeps in a folder, of a work directory full of work."""
  work = _work(tmp_path / 'work')
  (tmp_path / 'work' / 'report.html').write_text('made of the others')
  found = spare.Spare(tmp_path / 'folder', tmp_path / 'work')
  found.take_over()
  return found, work


def test_what_a_lost_work_directory_held_is_brought_back(kept, tmp_path):
  kept, work = kept
  new = spare.Spare(kept.folder, tmp_path / 'new')
  assert new.bring_back()
  assert _found(tmp_path / 'new') == work


def test_the_work_of_the_last_job_is_left_as_it_is(kept):
  kept, _ = kept
  path = kept.workdir / 'metrics.jsonl'
  path.write_bytes(b'longer than what is kept of it')
  assert not kept.bring_back()
  assert path.read_bytes() == b'longer than what is kept of it'


def test_a_work_directory_left_behind_by_another_is_brought_up_to_date(
  kept, tmp_path
):
  """As where a job went on elsewhere, and comes back to its first machine."""
  kept, _ = kept
  elsewhere = spare.Spare(kept.folder, tmp_path / 'new')
  elsewhere.bring_back()
  elsewhere.take_over()
  files.append_jsonl(tmp_path / 'new' / 'metrics.jsonl', {'step': 2})
  assert elsewhere.keep() == ''
  assert kept.bring_back()
  rows, _ = files.read_jsonl(kept.workdir / 'metrics.jsonl')
  assert rows == [{'step': 1}, {'step': 2}]


def test_a_job_that_another_has_followed_ends_and_writes_nothing(
  kept, tmp_path
):
  kept, work = kept
  second = spare.Spare(kept.folder, tmp_path / 'new')
  second.bring_back()
  second.take_over()
  (kept.workdir / 'metrics.jsonl').write_bytes(b'of the first')
  with pytest.raises(spare.TakenOver, match=str(kept.folder)):
    kept.keep()
  assert second.keep() == ''
  assert _found(kept.folder / spare.FILES) == work


def test_only_what_has_changed_is_copied_again(kept, monkeypatch):
  kept, _ = kept
  written = []
  write = places.write_bytes

  def note(path, data):
    written.append(path.name)
    write(path, data)

  monkeypatch.setattr(places, 'write_bytes', note)
  assert kept.keep() == ''
  assert written == []
  (kept.workdir / 'eval.json').write_bytes(b'{"base": {"n": 1}}')
  assert kept.keep() == ''
  assert written == ['eval.json']


def test_a_folder_that_cannot_be_written_is_told_and_tried_again(kept):
  kept, _ = kept
  (kept.workdir / 'eval.json').write_bytes(b'new')
  moved = kept.folder.with_name('moved')
  kept.folder.rename(moved)
  kept.folder.write_text('a file where the folder was')
  assert f'{kept.folder}/files could not be written (Not a dir' in kept.keep()
  kept.folder.unlink()
  moved.rename(kept.folder)
  assert kept.keep() == ''
  assert (kept.folder / 'files' / 'eval.json').read_bytes() == b'new'


def test_the_checkpoints_of_other_settings_are_refused_and_left(tmp_path):
  folder, workdir = tmp_path / 'folder', tmp_path / 'work'
  own = _settings(checkpoint__folder=str(folder))
  workdir.mkdir()
  claims.claim(own, workdir)
  claims.take_over(claims.spare(own, workdir))
  before = _found(folder)
  other = _settings(checkpoint__folder=str(folder), seed=7)
  with pytest.raises(ConfigError) as refused:
    claims.bring_back(other, claims.spare(other, tmp_path / 'new'))
  assert str(refused.value) == (
    f'seed=7, but {folder} holds a run with 0; give another checkpoint.folder, '
    'or set it back.'
  )
  assert _found(folder) == before
  assert not (tmp_path / 'new').exists()


def test_the_same_folder_may_be_mounted_elsewhere(tmp_path):
  folder, moved = tmp_path / 'folder', tmp_path / 'moved'
  own = _settings(checkpoint__folder=str(folder))
  (tmp_path / 'work').mkdir()
  claims.claim(own, tmp_path / 'work')
  claims.take_over(claims.spare(own, tmp_path / 'work'))
  folder.rename(moved)
  new = _settings(checkpoint__folder=str(moved), checkpoint__keep=5)
  assert claims.bring_back(new, claims.spare(new, tmp_path / 'new'))
  saved = json.loads((tmp_path / 'new' / 'config.json').read_text())
  assert saved['checkpoint']['keep'] == own.checkpoint.keep


def test_checkpoints_that_nothing_says_whose_they_are_are_refused(tmp_path):
  (tmp_path / 'stage1' / '20').mkdir(parents=True)
  own = _settings(checkpoint__folder=str(tmp_path))
  with pytest.raises(ConfigError, match='holds stage1 already, and no'):
    claims.bring_back(own, claims.spare(own, tmp_path / 'new'))


def test_another_folder_than_that_of_the_run_is_refused(tmp_path):
  """Else it would train anew, and drop the records of what it had."""
  claims.claim(_settings(), tmp_path)
  moved = _settings(checkpoint__folder='elsewhere')
  with pytest.raises(ConfigError, match=r"checkpoint\.folder='elsewhere', but"):
    claims.is_claimed(moved, tmp_path)


def test_without_a_folder_of_their_own_checkpoints_are_in_the_work_directory():
  workdir = pathlib.Path('/w')
  assert claims.checkpoints(_settings(), workdir) == workdir / 'checkpoints'
  assert claims.spare(_settings(), workdir) is None


def test_a_bucket_without_the_package_for_it_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(places, '_is_installed', lambda name: False)
  own = _settings(checkpoint__folder='gs://mine/run')
  with pytest.raises(ConfigError) as refused:
    claims.spare(own, tmp_path)
  assert str(refused.value) == (
    'checkpoint.folder=gs://mine/run needs a package more: pip install '
    'google-cloud-storage; or give a folder.'
  )


@pytest.mark.parametrize('where', ['s3://mine/run', 'gs://mine', 'gs:///run'])
def test_what_is_neither_a_folder_nor_one_in_a_bucket_is_refused(where):
  with pytest.raises(ConfigError, match=r'gs://BUCKET/FOLDER; got'):
    checks.check(_settings(checkpoint__folder=where), 1)


@pytest.mark.parametrize(
  'error',
  [spare.TakenOver('followed'), places.Unreachable(5, 'denied', 'gs://b/run')],
)
def test_who_is_followed_or_cannot_read_fails_in_one_line(
  tmp_path, monkeypatch, capsys, error
):
  def fail(*_):
    raise error

  monkeypatch.setattr(run, 'attend', fail)
  assert run.run(_settings(), tmp_path, stopping.Stop(), 0.0) == run.FAILED
  assert capsys.readouterr().err == f'score_jax: {error}\n'


def test_a_table_has_no_one_folder_for_its_many_runs(tmp_path):
  ended = subprocess.run(
    [
      *(sys.executable, '-m', 'score_jax.table', f'--workdir={tmp_path}'),
      '--config.checkpoint.folder=gs://mine/run',
    ],
    cwd=pathlib.Path(__file__).parents[1],
    env=os.environ | {'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
    check=False,
  )
  assert ended.returncode == 2
  assert 'checkpoint.folder=gs://mine/run is for one run, and' in ended.stderr
