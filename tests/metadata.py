"""What Google's metadata server says to a machine, for tests.

https://cloud.google.com/compute/docs/metadata/querying-metadata: without the
header Metadata-Flavor it refuses; with `wait_for_change` it answers when the
value's tag is another one than `last_etag`, or the time is up.
"""

import contextlib
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PATH = '/computeMetadata/v1/instance/'


class Metadata:
  """The values of a machine, and what was asked for them."""

  def __init__(self, host: str, values: dict[str, str]):
    self.host = host
    self.values = dict(values)
    self.tags = dict.fromkeys(values, 1)
    self.changed = threading.Condition()
    self.asked: list[str] = []
    self.failures = 0  # Questions that are refused next.
    self.flavor = 'Google'
    self.ended = False

  def set(self, key: str, value: str) -> None:
    """Changes a value; whoever waits for that is told."""
    with self.changed:
      self.values[key] = value
      self.tags[key] += 1
      self.changed.notify_all()

  def await_questions(self, words: str, count: int) -> None:
    """Returns once so many questions had some words in them."""
    with self.changed:
      assert self.changed.wait_for(
        lambda: sum(words in path for path in self.asked) >= count, 600
      ), self.asked


@contextlib.contextmanager
def serve(
  values: dict[str, str] | None = None,
) -> Iterator[Metadata]:
  """Gives a metadata server that is gone behind the block."""
  server = ThreadingHTTPServer(('127.0.0.1', 0), _Handler)
  server.daemon_threads = True
  calm = {'maintenance-event': 'NONE', 'preempted': 'FALSE'}
  said = Metadata(f'127.0.0.1:{server.server_port}', values or calm)
  server.said = said
  threading.Thread(target=server.serve_forever, daemon=True).start()
  try:
    yield said
  finally:
    with said.changed:
      said.ended = True
      said.changed.notify_all()
    server.shutdown()
    server.server_close()


class _Handler(BaseHTTPRequestHandler):
  """Answers one question."""

  def log_message(self, *words):
    del words

  def do_GET(self):
    said = self.server.said
    parts = urllib.parse.urlsplit(self.path)
    query = dict(urllib.parse.parse_qsl(parts.query))
    key = parts.path.removeprefix(PATH)
    with said.changed:
      said.asked.append(self.path)
      said.changed.notify_all()
      if said.failures:
        said.failures -= 1
        return self.send_error(503)
      if self.headers['Metadata-Flavor'] != 'Google':
        return self.send_error(403)
      if key not in said.values:
        return self.send_error(404)
      if query.get('wait_for_change') == 'true':
        known = query.get('last_etag')
        said.changed.wait_for(
          lambda: said.ended or str(said.tags[key]) != known,
          float(query['timeout_sec']),
        )
      value, tag = said.values[key], str(said.tags[key])
    self.send_response(200)
    self.send_header('Metadata-Flavor', said.flavor)
    self.send_header('ETag', tag)
    self.end_headers()
    self.wfile.write(f'{value}\n'.encode())
    return None
