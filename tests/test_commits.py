"""A save that one process cannot make is made by none, and the next one is."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
import several

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
  """What each of two processes found."""
  folder = tmp_path_factory.mktemp('pair')
  started = [
    subprocess.Popen(
      [sys.executable, 'tests/saving.py', folder / 'steps', folder / str(i)],
      cwd=ROOT,
      env=os.environ
      | {
        'PYTHONPATH': str(ROOT),
        'XLA_FLAGS': '--xla_force_host_platform_device_count=2',
        'SCORE_COORDINATOR': f'127.0.0.1:{port}',
        'SCORE_PROCESSES': '2',
        'SCORE_PROCESS': str(i),
      },
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for port in [several.free_port()]
    for i in (0, 1)
  ]
  try:
    for process in started:
      said, _ = process.communicate(timeout=200)
      assert process.returncode == 0, said
  finally:
    for process in started:
      process.kill()
      process.wait()
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
