"""A work directory that cannot be written is refused before anything is done."""

import contextlib
import resource
import shutil
import subprocess
import types

import pytest

from score_jax import room, run
from score_jax.config import ConfigError


@contextlib.contextmanager
def _mounted(folder, options):
  folder.mkdir()
  command = ['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', str(folder)]
  if subprocess.run(command, capture_output=True).returncode:
    pytest.skip('only root can mount a small disk')
  try:
    yield
  finally:
    subprocess.run(['umount', str(folder)], check=True)


def test_a_folder_with_room_is_not_refused_and_nothing_is_left_in_it(tmp_path):
  assert room.refusal(tmp_path) == ''
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  ('options', 'words'),
  [('size=512k', 'No space left on device'), ('ro', 'Read-only file system')],
)
def test_a_full_and_a_read_only_disk_are_refused_by_name(
  tmp_path, options, words
):
  folder = tmp_path / 'disk'
  with (
    _mounted(folder, options),
    pytest.raises(ConfigError) as raised,
    run.only_one(folder),
  ):
    pass
  assert str(raised.value).startswith(
    f'--workdir={folder} cannot be written ({words}); '
  )


def test_a_limit_on_the_size_of_files_is_refused_as_a_full_disk_is(tmp_path):
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (room.PROBE_BYTES - 1, hard))
  try:
    with (
      pytest.raises(ConfigError, match='File too large'),
      run.only_one(tmp_path),
    ):
      pass
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_checkpoints_that_may_find_no_room_are_told_before_training(
  tmp_path, monkeypatch
):
  disk = types.SimpleNamespace(free=7_000_000_000)
  monkeypatch.setattr(shutil, 'disk_usage', lambda path: disk)
  assert room.warning(tmp_path, each=1_750_000_000, most=4) == ''
  assert room.warning(tmp_path, each=1_760_000_000, most=4) == (
    f'warning   {tmp_path} has 7 GB left, and 4 more checkpoints of up to '
    '1.76 GB may come to lie there beside each other; make room, or lower '
    'checkpoint.keep'
  )
