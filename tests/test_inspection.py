"""The batch of an update that was not finite is there to be looked at."""

import os

import jax.numpy as jnp
import numpy as np

from score_jax import files, inspection

ROWS = [{'id': 'a', 'attempts': ['1', '2']}, {'id': 'b', 'attempts': ['3']}]
ARRAYS = {
  'tokens': jnp.arange(6).reshape(2, 3),
  'reward': np.array([[1.0, np.nan]]),
}


def test_a_batch_is_kept_as_arrays_and_as_text(tmp_path, capsys):
  inspection.keep(tmp_path, 'stage1-000012', ARRAYS, ROWS)
  with np.load(tmp_path / 'nonfinite' / 'stage1-000012.npz') as kept:
    assert set(kept) == {'tokens', 'reward'}
    np.testing.assert_array_equal(kept['tokens'], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(kept['reward'], [[1.0, np.nan]])
  text = tmp_path / 'nonfinite' / 'stage1-000012.jsonl'
  assert files.read_jsonl(text) == (ROWS, [])
  assert capsys.readouterr().out == (
    f'stage1-000012: its batch is kept in {tmp_path}/nonfinite\n'
  )


def test_rows_without_text_have_no_file_of_it(tmp_path):
  inspection.keep(tmp_path, 'round1-000001', ARRAYS)
  (path,) = (tmp_path / 'nonfinite').iterdir()
  assert path.name == 'round1-000001.npz'


def test_only_the_newest_batches_are_kept(tmp_path):
  names = [f'stage1-{n:06}' for n in (7, 3, 12, *range(20, 28))]
  for moment, name in enumerate(names, start=1):
    inspection.keep(tmp_path, name, ARRAYS, ROWS)
    for path in (tmp_path / 'nonfinite').glob(f'{name}.*'):
      os.utime(path, (moment, moment))
  found = sorted(path.name for path in (tmp_path / 'nonfinite').iterdir())
  kept = names[-inspection.KEPT :]
  assert found == sorted(f'{n}.{end}' for n in kept for end in ('jsonl', 'npz'))


def test_where_there_is_no_room_for_a_batch_training_goes_on(tmp_path, capsys):
  (tmp_path / 'nonfinite').write_text('a file where the folder would be')
  inspection.keep(tmp_path, 'stage1-000001', ARRAYS, ROWS)
  assert capsys.readouterr().out == (
    'stage1-000001: its batch could not be kept (File exists)\n'
  )
