"""What several processes agree on, and that one alone has nothing to ask."""

import itertools
import json
import signal
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import several

from score_jax import processes, shards, watch
from score_jax.config import ConfigError

LIMITS = watch.Limits(60.0, 20.0, 600.0)


def _fail():
  raise KeyError('lost')


def test_one_process_is_the_first_and_takes_its_own_word():
  assert not processes.several()
  assert processes.is_first()
  assert not processes.agree(False)
  assert processes.agree(True)
  unlike_any_other = object()
  assert processes.share(lambda: unlike_any_other) == [unlike_any_other]
  assert processes.decide(lambda: unlike_any_other) is unlike_any_other


@pytest.mark.parametrize('way', [processes.share, processes.decide])
def test_one_process_raises_what_its_work_raises(way):
  with pytest.raises(KeyError, match='lost'):
    way(_fail)


def test_one_process_reads_all_rows():
  x = jnp.arange(12.0).reshape(4, 3)
  rows = shards.own_rows(x)
  np.testing.assert_array_equal(rows, np.arange(4))
  np.testing.assert_array_equal(shards.read_rows(x, rows), x)
  np.testing.assert_array_equal(shards.fetch([x])[0], x)


def test_what_is_done_now_is_given_or_raised_later():
  done = []
  give = processes.later(lambda: done.append(1) or 'value')
  assert done == [1]
  assert give() == 'value'
  fail = processes.later(_fail)
  with pytest.raises(KeyError, match='lost'):
    fail()


def test_one_process_runs_without_files_and_returns_its_exit_code(tmp_path):
  assert processes.run(lambda: 5, tmp_path, LIMITS, 75) == 5
  assert list(tmp_path.iterdir()) == []
  with pytest.raises(KeyError, match='lost'):
    processes.run(_fail, tmp_path, LIMITS, 75)


@pytest.mark.parametrize(
  'holders',
  [
    {(0, 4): {0}, (4, 8): {1}},
    {(0, 8): {0, 1, 2}},
    {(0, 3): {0, 2}, (3, 6): {1, 3}},
    {(0, 2): {0, 1, 2, 3}},  # More processes than rows.
  ],
)
def test_every_row_is_read_once_by_one_that_holds_it(holders):
  everyone = set(itertools.chain(*holders.values()))
  shares = {p: shards.rows_of(holders, p) for p in everyone}
  rows = sorted(itertools.chain(*(x.tolist() for x in shares.values())))
  assert rows == list(range(max(stop for _, stop in holders)))
  for process, own in shares.items():
    assert own.tolist() == sorted(own)
    for row in own:
      ((_, who),) = [
        (span, who) for span, who in holders.items() if span[0] <= row < span[1]
      ]
      assert process in who


def test_processes_that_hold_the_same_rows_share_them_evenly():
  holders = {(0, 8): {0, 1, 2}}
  sizes = [len(shards.rows_of(holders, p)) for p in range(3)]
  assert sorted(sizes) == [2, 3, 3]


@pytest.mark.parametrize(
  ('variables', 'words'),
  [
    ({}, 'SCORE_PROCESSES must be a whole number'),
    ({'SCORE_PROCESSES': '2'}, 'SCORE_PROCESS must be a whole number'),
    ({'SCORE_PROCESSES': 'x', 'SCORE_PROCESS': '0'}, "got 'x'"),
  ],
)
def test_variables_that_name_no_process_are_refused(variables, words):
  environ = {'SCORE_COORDINATOR': '127.0.0.1:1'} | variables
  with pytest.raises(ConfigError, match='does not start one of') as raised:
    processes.connect(environ, 60.0)
  assert words in str(raised.value)


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
  """What each of two processes found."""
  folder = tmp_path_factory.mktemp('pair')
  several.pair('together.py', lambda i: [folder / str(i)])
  return [json.loads((folder / str(i)).read_text()) for i in (0, 1)]


def test_two_processes_know_who_is_the_first(pair):
  assert [found['several'] for found in pair] == [True, True]
  assert [found['first'] for found in pair] == [True, False]


def test_a_flag_on_any_process_is_up_on_all(pair):
  for found in pair:
    assert found['agree'] == [False, True, True, True]


def test_all_processes_have_what_each_gives_and_what_the_first_decides(pair):
  for found in pair:
    assert found['share'] == [['', [0, None]], ['ü\ud800' * 3000, [1, None]]]
    assert found['decide'] == [0, float('inf')]


def test_what_one_process_raises_ends_all_and_says_where(pair):
  first, second = (found['raised'][:3] for found in pair)
  of_second = 'process 1 failed while starting: one, two'
  of_first = 'process 0 failed while starting: ValueError: three'
  assert first == [
    ['Elsewhere', of_second],
    ['ValueError', 'three'],
    ['Elsewhere', of_second],
  ]
  assert second == [
    ['ConfigError', 'one, two'],
    ['Elsewhere', of_first],
    ['ConfigError', 'one, two'],
  ]


def test_processes_that_do_not_share_a_folder_are_refused(pair):
  for process, found in enumerate(pair):
    kind, text = found['raised'][3]
    assert kind == 'ConfigError'
    assert f'/{process}.d must be one folder for all processes' in text
    assert 'process 1 does not see what process 0 writes there' in text


def test_each_process_reads_its_own_rows_and_can_have_all(pair):
  rows = np.arange(24).reshape(8, 3)
  for split, copied in (('own', 'read'), ('shared', 'read_shared')):
    mine, others = (set(found[split]) for found in pair)
    assert mine | others == set(range(8))
    assert len(mine) == len(others) == 4
    more = 1 if split == 'own' else 0
    for found in pair:
      expected = (rows[found[split]] + more).tolist()
      assert found[copied] == expected
  for found in pair:
    assert found['fetch'] == [(rows + 1).tolist(), rows.tolist(), [1.0, 1.0]]


ABORTED = """
import faulthandler, os, sys, threading, time
from score_jax import processes
faulthandler.enable()  # As absl does.
where = {'SCORE_COORDINATOR': sys.argv[1], 'SCORE_PROCESSES': '1'}
processes.connect(where | {'SCORE_PROCESS': '0'}, 60.0)
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
os.abort()
"""


def test_an_abort_shows_no_stacks_of_threads_that_run():
  """A walk over them while they change is a crash of another kind."""
  ended = subprocess.run(
    [sys.executable, '-c', ABORTED, f'127.0.0.1:{several.free_port()}'],
    capture_output=True,
    text=True,
    check=False,
  )
  assert ended.returncode == -signal.SIGABRT
  assert ended.stderr.count('most recent call first') == 1
