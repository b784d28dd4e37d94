"""A cloud's notice ends the job once, and its silence costs nothing."""

import queue
import socket
import time

import metadata
import pytest

from score_jax import notices, stopping

TERMINATE = 'TERMINATE_ON_HOST_MAINTENANCE'
QUICK = 60.0  # On a busy machine.


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
  monkeypatch.setattr(notices, 'PAUSE_SECONDS', 0.05)


@pytest.fixture
def server(monkeypatch):
  with metadata.serve() as said:
    monkeypatch.setenv('GCE_METADATA_HOST', said.host)
    yield said


@pytest.fixture
def heard():
  """What a job was asked to end for."""
  return queue.Queue()


def _ended(threads):
  for thread in threads:
    thread.join(QUICK)
  return not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize(
  ('key', 'value'), [('maintenance-event', TERMINATE), ('preempted', 'TRUE')]
)
def test_a_notice_in_the_middle_ends_the_job(server, heard, key, value):
  notices.listen(heard.put)
  server.await_questions('wait_for_change', 2)
  assert heard.empty()
  server.set(key, value)
  assert heard.get(timeout=QUICK) == f'{server.host} says {key}={value}'


def test_a_machine_that_is_only_moved_goes_on(server, heard):
  notices.listen(heard.put)
  server.await_questions('maintenance-event?wait', 1)
  server.set('maintenance-event', 'MIGRATE_ON_HOST_MAINTENANCE')
  server.await_questions('maintenance-event?wait', 2)
  assert heard.empty()


def test_a_job_started_again_uses_the_time_that_is_left(server, heard):
  """Else it would end at once each time, until no start is left."""
  server.values['maintenance-event'] = TERMINATE
  notices.listen(heard.put)
  server.await_questions('maintenance-event?wait', 1)
  assert heard.empty()
  server.set('maintenance-event', 'NONE')
  server.await_questions('maintenance-event?wait', 2)
  server.set('maintenance-event', TERMINATE)
  assert TERMINATE in heard.get(timeout=QUICK)


def test_a_job_on_a_machine_that_is_being_taken_ends_at_once(server, heard):
  server.values['preempted'] = 'TRUE'
  notices.listen(heard.put)
  assert heard.get(timeout=QUICK) == f'{server.host} says preempted=TRUE'


def test_a_server_that_fails_for_a_while_is_asked_again(server, heard):
  threads = notices.listen(heard.put)
  server.await_questions('wait_for_change', 2)
  server.failures = 4
  server.set('maintenance-event', 'NONE')  # As before, with a new tag.
  server.set('preempted', 'FALSE')
  server.await_questions('wait_for_change', 8)
  assert all(thread.is_alive() for thread in threads)
  server.set('preempted', 'TRUE')
  assert 'preempted=TRUE' in heard.get(timeout=QUICK)


def test_a_server_that_does_not_wait_is_not_asked_without_pause(
  server, heard, monkeypatch
):
  monkeypatch.setattr(notices, 'POLL_SECONDS', 0)
  monkeypatch.setattr(notices, 'PAUSE_SECONDS', 0.2)
  notices.listen(heard.put)
  server.await_questions('preempted?wait', 1)
  time.sleep(1)
  assert len(server.asked) <= 2 * 8


def test_a_server_of_another_kind_is_not_listened_to(server, heard):
  server.flavor = 'Other'
  server.values['preempted'] = 'TRUE'
  assert _ended(notices.listen(heard.put))
  assert heard.empty()


def test_where_nothing_answers_the_threads_end_and_nobody_waits(
  heard, monkeypatch
):
  monkeypatch.setattr(notices, 'CONNECT_SECONDS', 0.2)
  with socket.socket() as mute:  # Takes connections, and says nothing.
    mute.bind(('127.0.0.1', 0))
    mute.listen()
    host = f'127.0.0.1:{mute.getsockname()[1]}'
    monkeypatch.setenv('GCE_METADATA_HOST', host)
    started = time.monotonic()
    threads = notices.listen(heard.put)
    assert time.monotonic() - started < 0.2
    assert _ended(threads)
  assert heard.empty()


def test_asked_by_a_notice_a_job_stops_as_on_a_signal(capfd):
  stop = stopping.Stop()
  stop.ask('metadata says preempted=TRUE')
  assert stop.heard()
  with pytest.raises(stopping.Interrupted):
    stop.check()
  assert capfd.readouterr().err == (
    'metadata says preempted=TRUE: stopping: the step under way is finished '
    'and saved first\n'
  )
