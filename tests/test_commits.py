"""A save that one process cannot make is made by none, and the next one is."""

import json

import pytest
import several


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
  """What each of two processes found."""
  folder = tmp_path_factory.mktemp('pair')
  several.pair('saving.py', lambda i: [folder / 'steps', folder / str(i)])
  return [json.loads((folder / str(i)).read_text()) for i in (0, 1)]


def test_a_save_that_fails_on_one_process_fails_on_both_and_the_next_does_not(
  pair,
):
  for found in pair:
    failed = [bool(text) for text in found['said']]
    assert failed == [False] + 4 * [True, False]
    assert found['steps'] == [9]
    assert found['unfinished'] == []
    assert found['equal']


def test_both_say_what_kept_the_one_from_saving(pair):
  first, second = (found['said'][1::2] for found in pair)
  assert 'File too large' in first[0]
  assert 'process 0: ' in second[0]
  assert 'File too large' in second[1]
  assert 'process 1: ' in first[1]
  for text in (first[2], second[2]):
    assert 'No space left on device' in text
  assert 'Input/output error' in first[3]
  assert 'process 0: OSError: [Errno 5]' in second[3]


def test_nobody_waits_for_one_whose_save_has_failed(pair):
  for found in pair:
    assert max(found['seconds']) < 30
