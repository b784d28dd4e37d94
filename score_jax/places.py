"""Folders on a disk or in a bucket, where the two differ.

A path on a disk is a `pathlib.Path`, one in a bucket an `epath.Path`; the two
have most methods in common. A bucket has objects with long names, no folders:
none is renamed at once, each is whole or absent, and the service keeps a
checksum of it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from etils import epath

from score_jax import files
from score_jax.config import ConfigError

SCHEME = 'gs://'

Place = pathlib.Path | epath.Path


class Unreachable(OSError):
  """A bucket that does not answer, or refuses to; it says nothing of files."""


def at(text: str, name: str) -> Place:
  """Returns the folder that a setting names.

  Args:
    text: a path, or gs://BUCKET/FOLDER.
    name: of the setting.

  Raises:
    ConfigError: if it is in a bucket, and a package is missing for that.
  """
  if not text.startswith(SCHEME):
    return pathlib.Path(text).absolute()
  # Orbax asks it what kind of bucket that is.
  if not _is_installed('google.cloud.storage'):
    raise ConfigError(
      f'{name}={text} needs a package more: pip install google-cloud-storage; '
      'or give a folder.'
    )
  return epath.Path(text)


def _is_installed(name: str) -> bool:
  try:
    return importlib.util.find_spec(name) is not None
  except ModuleNotFoundError:  # Of what stands before a dot.
    return False


def is_bucket(path: Place) -> bool:
  """Returns whether a path is in a bucket."""
  return os.fspath(path).startswith(SCHEME)


def absolute(path: Place) -> Place:
  """Returns a path that means the same wherever the program is started."""
  return path if is_bucket(path) else path.absolute()


@contextlib.contextmanager
def access(path: Place) -> Iterator[None]:
  """Makes OSErrors, which name the path, of what clients of buckets raise."""
  try:
    yield
  except FileNotFoundError as error:
    if error.errno:
      raise
    words = os.strerror(errno.ENOENT)
    raise FileNotFoundError(errno.ENOENT, words, str(path)) from error
  except OSError:
    raise
  except Exception as error:
    if not is_bucket(path):
      raise
    words = str(error).partition('\n')[0].rstrip('.')
    raise Unreachable(errno.EIO, words, str(path)) from error


def read_bytes(path: Place) -> bytes:
  """Returns what a file holds."""
  with access(path):
    return path.read_bytes()


def read_text(path: Place) -> str:
  """Returns the text that a file holds."""
  return read_bytes(path).decode()


def write_bytes(path: Place, data: bytes) -> None:
  """Replaces a file, whole or not at all, in a folder made for it."""
  with access(path):
    if is_bucket(path):
      path.write_bytes(data)
      return
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_bytes(path, data)


def exists(path: Place) -> bool:
  """Returns whether there is a file or folder."""
  with access(path):
    return path.exists()


def entries(path: Place) -> list[str]:
  """Returns the names of what is in a folder; none where it is not."""
  # TensorFlow takes a bucket that refuses to answer for a folder that is not
  # there, except where it is asked whether it exists.
  there = exists(path) if is_bucket(path) else path.is_dir()
  if not there:
    return []
  try:
    with access(path):
      return sorted(inner.name for inner in path.iterdir())
  except FileNotFoundError as error:
    raise Unreachable(errno.EIO, 'cannot be listed', str(path)) from error


def below(path: Place) -> list[str]:
  """Returns all files below a folder, named from there, in order."""
  found = []
  for name in entries(path):
    if is_folder(path / name):
      found += [f'{name}/{inner}' for inner in below(path / name)]
    else:
      found.append(name)
  return found


def is_folder(path: Place) -> bool:
  """Returns whether a path that is there is a folder."""
  with access(path):
    # Not is_dir, which says no where a bucket does not answer.
    return path.stat().is_directory if is_bucket(path) else path.is_dir()


def size(path: Place) -> int:
  """Returns the bytes of a file."""
  with access(path):
    if is_bucket(path):
      return path.stat().length
    return path.stat().st_size


def digest(path: Place) -> str:
  """Returns 32 hex digits of a file's bytes; '' of one in a bucket.

  There it would have to be read back through the network.
  """
  if is_bucket(path):
    return ''
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'blake2b').hexdigest()[:32]


def flush(path: Place) -> None:
  """Forces a file to disk; what is in a bucket is kept already."""
  if is_bucket(path):
    return
  with open(path, 'rb') as file:
    os.fsync(file.fileno())


def make(path: Place) -> None:
  """Makes a folder, if it is not there."""
  with access(path):
    path.mkdir(parents=True, exist_ok=True)


def move(path: Place, to: Place) -> None:
  """Gives a folder another name; in a bucket, object by object."""
  with access(path):
    path.rename(to)


def remove(path: Place) -> None:
  """Deletes a folder, as far as it can."""
  if not is_bucket(path):
    shutil.rmtree(path, ignore_errors=True)
    return
  with access(path), contextlib.suppress(FileNotFoundError):
    path.rmtree()
    path.rmtree()  # Of an object that stands for a folder it leaves the rest.


def words(error: Any) -> str:
  """Returns what an OSError says, without the path."""
  return error.strerror or str(error)
