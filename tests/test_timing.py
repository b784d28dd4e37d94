"""Every second of a step is counted once, and idle is what nothing covers."""

import time

import pytest

from score_jax import timing


@pytest.mark.parametrize(
  ('busy', 'idle'),
  [
    ([], 10.0),
    ([(10, 20)], 0.0),
    ([(12, 15)], 7.0),
    ([(12, 15), (17, 18)], 6.0),
    ([(17, 18), (12, 15)], 6.0),  # In whatever order.
    ([(12, 15), (13, 16), (14, 15)], 6.0),  # Queued behind each other.
    ([(5, 12), (19, 25)], 7.0),  # Begun before the step, ended behind it.
    ([(1, 2), (30, 40)], 10.0),  # Not in the step at all.
    ([(5, 30), (12, 15)], 0.0),
  ],
)
def test_idle_are_the_seconds_that_no_work_covers(busy, idle):
  assert timing.idle_seconds(busy, 10.0, 20.0) == pytest.approx(idle)


@pytest.fixture
def clock(monkeypatch):
  """A clock that is moved by hand."""
  now = [100.0]
  monkeypatch.setattr(timing.time, 'monotonic', lambda: now[0])

  def wait(seconds):
    now[0] += seconds

  return wait


@pytest.fixture
def times():
  opened = timing.Times()
  yield opened
  opened.close()


def test_a_second_is_of_the_innermost_span_and_of_no_other(clock, times):
  clock(1)
  with times.span('sample'):
    clock(2)
    with times.span('data'):
      clock(4)
    clock(8)
  with times.span('data'):
    clock(16)
  assert times.spent('data', 'sample', 'update') == 30
  found = times.take()
  assert found.pop('device_idle_share') == 1
  assert found == {'seconds': 31, 'seconds_sample': 10, 'seconds_data': 20}


def test_steps_follow_each_other_without_a_gap(clock, times):
  clock(1)
  assert times.take()['seconds'] == 1
  with times.span('log'):
    clock(2)
    assert times.take()['seconds_log'] == 2
    clock(4)  # What writes the step down belongs to the next one.
  clock(8)
  found = times.take()
  assert (found['seconds'], found['seconds_log']) == (12, 4)


def test_a_span_that_fails_is_ended_all_the_same(clock, times):
  with pytest.raises(KeyError), times.span('sample'):
    clock(1)
    raise KeyError
  clock(2)
  assert times.take()['seconds_sample'] == 1


def test_work_that_is_counted_by_hand_is_no_idleness(clock, times):
  clock(3)
  with times.working():
    clock(1)
  assert times.take()['device_idle_share'] == pytest.approx(3 / 4)


class Pending:
  """What a device makes, ready after some time from now."""

  def __init__(self, seconds):
    self.until = time.monotonic() + seconds

  def block_until_ready(self):
    time.sleep(max(0.0, self.until - time.monotonic()))
    return self


def test_devices_are_busy_until_what_they_were_given_is_ready(times):
  times.take()
  made = times.queue(
    lambda: ('donated', Pending(0.4)), result=lambda pair: pair[1]
  )
  time.sleep(0.1)  # The host does something else meanwhile.
  found = times.take()
  assert time.monotonic() >= made[1].until  # It was awaited.
  assert found['seconds'] >= 0.4
  assert found['device_idle_share'] < 0.2
