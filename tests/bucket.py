"""A bucket for tests: what Google's storage answers, from this process's memory.

Three clients write one checkpoint, and each is led here by its own variable:
TensorStore the arrays (TENSORSTORE_GCS_HTTP_URL), TensorFlow the small files
(https_proxy: its address is fixed, so that the proxy stands in for the host),
google-cloud-storage a question about the bucket (STORAGE_EMULATOR_HOST).
"""

import contextlib
import dataclasses
import json
import pathlib
import re
import ssl
import subprocess
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME = 'bucket'
HOSTS = 'DNS:www.googleapis.com,DNS:storage.googleapis.com'
OBJECT = re.compile(r'/storage/v1/b/(?P<bucket>[^/]+)/o/(?P<name>[^/]+)$')
COPY = re.compile(r'/storage/v1/b/([^/]+)/o/([^/]+)/rewriteTo/b/[^/]+/o/(.+)$')


@dataclasses.dataclass
class Bucket:
  """What the bucket holds, and what it was asked."""

  url: str
  certificate: pathlib.Path
  objects: dict[str, tuple[int, bytes]]  # Generation and bytes by name.
  asked: list[str]  # Method and path of each request.
  uploads: dict[str, tuple[str, bytearray]]  # Begun and not ended, by id.
  lock: threading.RLock
  generation: int = 0
  full: bool = False  # Whether it refuses whatever is written,
  hidden: bool = False  # and whatever is asked of its objects.

  def environment(self) -> dict[str, str]:
    """Returns what leads a process's clients here."""
    return {
      'TENSORSTORE_GCS_HTTP_URL': self.url,
      'STORAGE_EMULATOR_HOST': self.url,
      'GOOGLE_CLOUD_PROJECT': 'test',
      'GOOGLE_AUTH_TOKEN_FOR_TESTING': 'token',
      'https_proxy': self.url,
      'no_proxy': '127.0.0.1',  # Of several processes, which find each other.
      'CURL_CA_BUNDLE': str(self.certificate),
      # Tests change objects at once, where TensorFlow looks again in seconds.
      'GCS_STAT_CACHE_MAX_AGE': '0',
    }

  def put(self, name: str, data: bytes) -> int:
    """Replaces an object; returns its generation."""
    with self.lock:
      self.generation += 1
      self.objects[name] = (self.generation, data)
      return self.generation

  def names(self, prefix: str = '') -> list[str]:
    """Returns the names of all objects with a prefix, in order."""
    with self.lock:
      return sorted(name for name in self.objects if name.startswith(prefix))


@contextlib.contextmanager
def serve(folder: pathlib.Path) -> Iterator[Bucket]:
  """Gives a bucket that is gone behind the block.

  Args:
    folder: where the certificate of what stands in for Google's hosts is put.
  """
  key, certificate = folder / 'key.pem', folder / 'certificate.pem'
  subprocess.run(
    [
      *('openssl', 'req', '-x509', '-nodes', '-days', '2', '-subj', '/CN=x'),
      *('-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1'),
      *('-addext', f'subjectAltName={HOSTS}'),
      *('-keyout', str(key), '-out', str(certificate)),
    ],
    check=True,
    capture_output=True,
  )
  context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
  context.load_cert_chain(certificate, key)
  server = ThreadingHTTPServer(('127.0.0.1', 0), _Handler)
  server.daemon_threads = True
  url = f'http://127.0.0.1:{server.server_port}'
  server.bucket = Bucket(url, certificate, {}, [], {}, threading.RLock())
  server.tls = context
  threading.Thread(target=server.serve_forever, daemon=True).start()
  try:
    yield server.bucket
  finally:
    server.shutdown()
    server.server_close()


class _Handler(BaseHTTPRequestHandler):
  """Answers one connection."""

  protocol_version = 'HTTP/1.1'
  disable_nagle_algorithm = True

  def log_message(self, *words):
    del words

  def do_CONNECT(self):
    """Becomes the host that the proxy was to lead to."""
    self.send_response_only(200)
    self.end_headers()
    self.request = self.server.tls.wrap_socket(self.request, server_side=True)
    self.rfile = self.request.makefile('rb')
    self.wfile = self.request.makefile('wb', 0)
    self.close_connection = False

  def _read(self) -> bytes:
    if self.headers.get('Transfer-Encoding') == 'chunked':
      data = b''
      while size := int(self.rfile.readline(), 16):
        data += self.rfile.read(size)
        self.rfile.readline()
      self.rfile.readline()
      return data
    return self.rfile.read(int(self.headers.get('Content-Length') or 0))

  def _answer(self, code: int, data: bytes | dict = b'', **headers: str):
    if isinstance(data, dict):
      data = json.dumps(data).encode()
      headers['Content-Type'] = 'application/json'
    self.send_response(code)
    for name, value in headers.items():
      self.send_header(name.replace('_', '-'), value)
    self.send_header('Content-Length', str(len(data)))
    self.end_headers()
    if self.command != 'HEAD':
      self.wfile.write(data)

  def _respond(self):
    bucket, body = self.server.bucket, self._read()
    parts = urllib.parse.urlsplit(self.path)
    query = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
    with bucket.lock:
      bucket.asked.append(f'{self.command} {self.path}')
      writes = self.command in ('POST', 'PUT')
      if bucket.hidden or (bucket.full and writes):
        return self._answer(403, {'error': {'code': 403, 'message': 'denied'}})
      if parts.path.startswith('/upload/'):
        return self._upload(bucket, query, body)
      if found := COPY.match(parts.path):
        return self._copy(bucket, *map(urllib.parse.unquote, found.groups()))
      if found := OBJECT.match(parts.path):
        name = urllib.parse.unquote(found['name'])
        return self._object(bucket, name, query)
      if parts.path == f'/storage/v1/b/{NAME}/o':
        return self._answer(200, _listed(bucket, query))
      if parts.path == f'/storage/v1/b/{NAME}':
        return self._answer(200, {'kind': 'storage#bucket', 'name': NAME})
      if parts.path == f'/storage/v1/b/{NAME}/storageLayout':
        return self._answer(200, {'hierarchicalNamespace': {'enabled': False}})
      if parts.path.startswith(f'/{NAME}/'):
        name = urllib.parse.unquote(parts.path.removeprefix(f'/{NAME}/'))
        return self._object(bucket, name, {'alt': 'media'})
      return self._answer(404, {'error': {'code': 404, 'message': self.path}})

  do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _respond

  def _object(self, bucket: Bucket, name: str, query: dict[str, str]):
    found = bucket.objects.get(name)
    wanted = query.get('ifGenerationMatch')
    if wanted is not None and int(wanted) != (found[0] if found else 0):
      return self._answer(412, {'error': {'code': 412, 'message': 'other'}})
    if not found:
      return self._answer(404, {'error': {'code': 404, 'message': name}})
    generation, data = found
    if self.command == 'DELETE':
      del bucket.objects[name]
      return self._answer(204)
    if query.get('ifGenerationNotMatch') == str(generation):
      return self._answer(304)
    if query.get('alt') != 'media':
      return self._answer(200, _about(bucket, name))
    known = {'x_goog_generation': str(generation)}
    if part := re.match(r'bytes=(\d+)-(\d*)', self.headers.get('Range', '')):
      first, last = int(part[1]), int(part[2] or len(data) - 1)
      if first >= len(data):
        return self._answer(416)
      last = min(last, len(data) - 1)
      known['Content_Range'] = f'bytes {first}-{last}/{len(data)}'
      return self._answer(206, data[first : last + 1], **known)
    return self._answer(200, data, **known)

  def _copy(self, bucket: Bucket, _: str, source: str, target: str):
    if source not in bucket.objects:
      return self._answer(404, {'error': {'code': 404, 'message': source}})
    bucket.put(target, bucket.objects[source][1])
    about = _about(bucket, target)
    return self._answer(200, {'done': True, 'resource': about})

  def _upload(self, bucket: Bucket, query: dict[str, str], body: bytes):
    if self.command == 'POST' and query.get('uploadType') == 'resumable':
      number = str(len(bucket.uploads))
      bucket.uploads[number] = (query['name'], bytearray())
      host = self.headers['Host']
      secure = isinstance(self.request, ssl.SSLSocket)
      where = f'{"https" if secure else "http"}://{host}{self.path}'
      return self._answer(200, Location=f'{where}&upload_id={number}')
    if self.command == 'POST':
      name, wanted = query['name'], query.get('ifGenerationMatch')
      found = bucket.objects.get(name, (0,))[0]
      if wanted is not None and int(wanted) != found:
        return self._answer(412, {'error': {'code': 412, 'message': 'other'}})
      bucket.put(name, body)
      return self._answer(200, _about(bucket, name))
    name, data = bucket.uploads[query['upload_id']]
    data += body
    whole = self.headers.get('Content-Range', '*/*').rpartition('/')[2]
    if whole not in ('*', str(len(data))):
      return self._answer(308, Range=f'bytes=0-{len(data) - 1}')
    bucket.put(name, bytes(data))
    return self._answer(200, _about(bucket, name))


def _about(bucket: Bucket, name: str) -> dict[str, str]:
  generation, data = bucket.objects[name]
  return {
    'name': name,
    'bucket': NAME,
    'generation': str(generation),
    'metageneration': '1',
    'size': str(len(data)),
    'updated': '2026-01-01T00:00:00.000Z',
  }


def _listed(bucket: Bucket, query: dict[str, str]) -> dict:
  """Returns a page of names; few to a page, so that there are several."""
  prefix, delimiter = query.get('prefix', ''), query.get('delimiter', '')
  first, end = query.get('startOffset', ''), query.get('endOffset', '')
  most = min(int(query.get('maxResults', 50)), 50)
  entries = []
  for name in bucket.names(prefix):
    if name < first or (end and name >= end):
      continue
    rest = name.removeprefix(prefix)
    if delimiter and delimiter in rest:
      folder = prefix + rest.partition(delimiter)[0] + delimiter
      if folder not in [entry for _, entry in entries]:
        entries.append(('folder', folder))
    else:
      entries.append(('object', name))
  start = int(query.get('pageToken', 0))
  page, found = entries[start : start + most], {'kind': 'storage#objects'}
  found['items'] = [_about(bucket, x) for kind, x in page if kind == 'object']
  found['prefixes'] = [x for kind, x in page if kind == 'folder']
  if start + most < len(entries):
    found['nextPageToken'] = str(start + most)
  return {k: v for k, v in found.items() if v}
