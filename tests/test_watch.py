"""A process that failed, is lost or hangs is told of, and no other."""

import contextlib
import fcntl
import socket
import subprocess
import sys
import threading
import time

import pytest

from score_jax import watch

RUN = 'now'
PATIENT = watch.Limits(
  silent_seconds=30.0, stalled_times=20.0, stalled_seconds=60.0
)
HASTY = watch.Limits(silent_seconds=0.3, stalled_times=2.0, stalled_seconds=0.2)
STOPPED = 75


@contextlib.contextmanager
def _watching(folder, process=0, processes=2, limits=PATIENT):
  """Gives a watch that runs, and the losses that it called of."""
  losses, called = [], threading.Event()

  def on_loss(loss):
    losses.append(loss)
    called.set()

  one = watch.Watch(folder, RUN, process, processes, limits, STOPPED, on_loss)
  one.start()
  try:
    yield one, losses, called
  finally:
    one.end(0, '')


def _sign(process=1, host='elsewhere', phase='grading', **fields):
  return watch.Sign(RUN, process, host, phase, fields.pop('beat', 7), **fields)


def test_a_sign_is_read_as_it_was_written(tmp_path):
  sign = _sign(code=1, words='“no luck”')
  watch.write(tmp_path, sign)
  assert watch.read(tmp_path, RUN, 1) == sign


@pytest.mark.parametrize('text', ['', '{"run": "no', '[1]', '{"run": "now"}'])
def test_what_is_no_sign_says_nothing(tmp_path, text):
  (tmp_path / '1.json').write_text(text)
  assert watch.read(tmp_path, RUN, 1) is None


def test_the_sign_of_an_earlier_start_says_nothing(tmp_path):
  watch.write(tmp_path, _sign())
  assert watch.read(tmp_path, 'another', 1) is None


def test_who_holds_its_lock_lives_and_who_lets_go_is_gone(tmp_path):
  sign = _sign(host=socket.gethostname())
  with open(tmp_path / '1.lock', 'w') as held:
    fcntl.flock(held, fcntl.LOCK_EX)
    assert not watch.is_gone(tmp_path, sign)
  assert watch.is_gone(tmp_path, sign)


def test_of_another_host_no_lock_says_that_a_process_is_gone(tmp_path):
  (tmp_path / '1.lock').touch()
  assert not watch.is_gone(tmp_path, _sign(host='elsewhere'))


def test_a_process_that_failed_is_named_with_its_phase_and_words(tmp_path):
  with _watching(tmp_path) as (one, losses, called):
    watch.write(tmp_path, _sign(code=3, words='KeyError: 5'))
    assert called.wait(10)
    (loss,) = losses
    assert loss == one.loss()
  assert loss.words == 'process 1 failed while grading: KeyError: 5'
  assert (loss.process, loss.code) == (1, 3)


@pytest.mark.parametrize('code', [0, STOPPED])
def test_a_process_that_ended_well_is_no_loss(tmp_path, code):
  with _watching(tmp_path) as (one, losses, _):
    watch.write(tmp_path, _sign(code=code, host=socket.gethostname()))
    (tmp_path / '1.lock').touch()
    assert one.loss() is None
    assert one.ended()
  assert losses == []


def test_a_process_that_is_gone_without_a_word_is_lost(tmp_path):
  with _watching(tmp_path) as (one, _, called):
    watch.write(tmp_path, _sign(host=socket.gethostname(), phase='saving'))
    (tmp_path / '1.lock').touch()
    assert called.wait(10)
    assert one.loss() == watch.Loss(1, 'process 1 was lost while saving', None)


def test_a_process_without_a_new_beat_is_lost_after_its_time(tmp_path):
  watch.write(tmp_path, _sign())
  with _watching(tmp_path, limits=HASTY) as (one, _, called):
    assert one.loss() is None
    assert called.wait(10)
    loss = one.loss()
  assert loss.words.startswith(
    'process 1 was lost while grading: no sign of life for '
  )
  assert loss.code is None


def test_a_process_that_beats_is_not_lost(tmp_path):
  watch.write(tmp_path, _sign())
  with _watching(tmp_path, limits=HASTY) as (one, losses, _):
    for beat in range(20):
      watch.write(tmp_path, _sign(beat=beat))
      time.sleep(HASTY.silent_seconds / 10)
      assert one.loss() is None
  assert losses == []


def test_two_watches_see_that_the_other_lives(tmp_path):
  first = _watching(tmp_path, process=0, limits=HASTY)
  second = _watching(tmp_path, process=1, limits=HASTY)
  with first as (one, losses, _), second as (other, more, _):
    time.sleep(3 * HASTY.silent_seconds)
    assert (one.loss(), other.loss()) == (None, None)
  assert losses == more == []


def test_a_phase_that_takes_many_times_its_usual_time_is_told_with_stacks(
  tmp_path, capfd
):
  with _watching(tmp_path, processes=1, limits=HASTY) as (one, _, _):
    for _ in range(watch.KNOWN + 1):
      one.enter('grading', 'stage1 step 3')
    _hang_in_a_function_of_this_name(capfd)


def _hang_in_a_function_of_this_name(capfd):
  said, deadline = '', time.monotonic() + 10
  while 'most recent call first' not in said and time.monotonic() < deadline:
    time.sleep(0.05)
    said += capfd.readouterr().err
  time.sleep(0.1)
  said += capfd.readouterr().err
  assert 'process 0 has been grading, stage1 step 3 for 0' in said
  assert 'in _hang_in_a_function_of_this_name' in said


def test_a_phase_that_takes_its_usual_time_is_not_told(tmp_path, capfd):
  patient = watch.Limits(30.0, 20.0, 0.0)
  with _watching(tmp_path, processes=1, limits=patient) as (one, _, _):
    for _ in range(watch.KNOWN + 1):
      one.enter('grading')
      time.sleep(0.15)
    one.enter('grading')
    time.sleep(2.2)  # The watch looks twice; 20 times 0.15 s are more.
  assert capfd.readouterr().err == ''


def _witnessed(folder, last_words):
  return subprocess.run(
    [sys.executable, '-I', watch.__file__, str(folder), RUN, '1'],
    input=last_words,
    capture_output=True,
    timeout=60,
  ).stderr.decode()


def test_a_witness_names_those_that_are_gone_and_their_phases(tmp_path):
  here = socket.gethostname()
  watch.write(tmp_path, _sign(0, here, phase='saving'))
  watch.write(tmp_path, _sign(1, here, phase='grading, stage1 step 3'))
  watch.write(tmp_path, _sign(2, here, phase='sampling'))
  for process in (0, 1):
    (tmp_path / f'{process}.lock').touch()
  with open(tmp_path / '2.lock', 'w') as held:
    fcntl.flock(held, fcntl.LOCK_EX)
    said = _witnessed(tmp_path, b'')
  assert said.splitlines() == [
    'score_jax: process 0 was lost while saving',
    'score_jax: process 1 was lost while grading, stage1 step 3',
  ]


def test_a_witness_of_a_process_that_said_goodbye_says_nothing(tmp_path):
  watch.write(tmp_path, _sign(1, socket.gethostname()))
  (tmp_path / '1.lock').touch()
  assert _witnessed(tmp_path, watch.GOODBYE) == ''
