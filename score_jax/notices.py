"""What a cloud says before it takes a machine away, heard in time to save.

Google Cloud tells a machine by its metadata server, seconds to an hour before
it is stopped (SIGTERM comes later, if it comes): `maintenance-event` turns from
NONE to TERMINATE_ON_HOST_MAINTENANCE, and of a spot machine `preempted` turns
from FALSE to TRUE. A question with `wait_for_change` is answered when the value
changes, so that waiting costs nothing.

Elsewhere nothing answers, and the threads end. Slurm sends SIGTERM.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import os
import threading
import time
from collections.abc import Callable

VARIABLE = 'GCE_METADATA_HOST'  # As Google's own libraries read it.
HOST = 'metadata.google.internal'
PATH = '/computeMetadata/v1/instance/'
FLAVOR = ('Metadata-Flavor', 'Google')
CONNECT_SECONDS = 3.0  # As Google's own libraries wait for the server.
TRIES = 3  # To find the server at the start; as often as those do.
POLL_SECONDS = 300  # After so long the server answers without a change.
PAUSE_SECONDS = 5.0  # Between questions that were not answered.


@dataclasses.dataclass(frozen=True)
class Notice:
  """A value to watch, and which of its values end the job."""

  key: str
  ending: tuple[str, ...]
  # A job that is started again where the end is only announced makes use of the
  # time that is left, an hour with some machines.
  known_at_start: bool  # Whether to end on what is so at the start already.


NOTICES = (
  Notice('maintenance-event', ('TERMINATE_ON_HOST_MAINTENANCE',), False),
  Notice('preempted', ('TRUE',), True),
)


def listen(ask: Callable[[str], None]) -> list[threading.Thread]:
  """Starts to listen, in threads that hold nothing up; returns them.

  Args:
    ask: called in one of them, with what was heard, when the job is to end.
  """
  host = os.environ.get(VARIABLE) or HOST
  threads = [
    threading.Thread(
      target=_watch, args=(host, notice, ask), daemon=True, name=notice.key
    )
    for notice in NOTICES
  ]
  for thread in threads:
    thread.start()
  return threads


def _watch(host: str, notice: Notice, ask: Callable[[str], None]) -> None:
  """Returns once it has asked the job to end, or where no server is found."""
  found = None
  for _ in range(TRIES):
    found = found or _answer(host, notice.key)
  if found is None:
    return
  value, tag = found
  heeded = notice.known_at_start
  while not (heeded and value in notice.ending):
    found = _answer(host, notice.key, tag)
    # It is restarted now and then, and what stands in for it may not wait.
    if found is None or found[0] == value:
      time.sleep(PAUSE_SECONDS)
    if found is not None:
      heeded = heeded or found[0] != value
      value, tag = found
  ask(f'{host} says {notice.key}={value}')


def _answer(
  host: str, key: str, known: str | None = None
) -> tuple[str, str] | None:
  """Returns a value and its tag; None where the server does not give it.

  Args:
    host: HOST or HOST:PORT.
    key: of the instance.
    known: tag of a value; the answer then waits for another value. None: it
      does not wait.
  """
  path = PATH + key
  if known is not None:
    path += f'?wait_for_change=true&timeout_sec={POLL_SECONDS}'
    path += f'&last_etag={known}' if known else ''
  # Not urllib, which would ask through the proxy that the environment names.
  connection = http.client.HTTPConnection(host, timeout=CONNECT_SECONDS)
  # An OSError is of the network; the others, of what is no such server.
  with (
    contextlib.closing(connection),
    contextlib.suppress(OSError, http.client.HTTPException, ValueError),
  ):
    connection.connect()
    if known is not None:
      connection.sock.settimeout(POLL_SECONDS + CONNECT_SECONDS)
    connection.request('GET', path, headers=dict([FLAVOR]))
    answer = connection.getresponse()
    text = answer.read().decode().strip()
    if answer.status == 200 and answer.getheader(FLAVOR[0]) == FLAVOR[1]:
      return text, answer.getheader('ETag', '')
  return None
