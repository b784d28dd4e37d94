"""Published files in, a TFDS data set out: prepared once, then read offline.

Imports TensorFlow, so it is imported where problems are wanted and not before.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import socket
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import ClassVar

# Read when TFDS looks for its own store on the net, which is not asked.
os.environ.setdefault('NO_GCE_CHECK', 'true')

import tensorflow_datasets as tfds
from absl import logging

from score_jax.config import ConfigError
from score_jax.problem import Problem
from score_jax.tasks import mathematics, programs, published
from score_jax.tasks.published import Source

# What a change of the problems or of their order has to raise.
VERSION = '1.0.0'
NAME = 'score_jax'
SOURCES: dict[str, Source] = {
  source.name: source
  for source in (
    mathematics.MATH,
    mathematics.GSM8K,
    mathematics.AIME24,
    mathematics.AIME25,
    programs.MBPP,
    programs.MBPP_SANITIZED,
    programs.MBPP_PLUS,
    programs.MBPP_REPAIR,
    programs.HUMANEVAL,
    programs.HUMANEVAL_PLUS,
  )
}
FIELDS = tuple(field.name for field in dataclasses.fields(Problem))


class ScoreJax(tfds.core.GeneratorBasedBuilder):
  """Problems of one data set each, in the fields of `Problem`.

  A prompt is the problem as stated; a task puts its wording around it.
  """

  name = NAME
  VERSION = tfds.core.Version(VERSION)
  # No checksums are registered; TFDS would look for a file of them.
  url_infos: ClassVar = {}
  MANUAL_DOWNLOAD_INSTRUCTIONS = 'See published.wanted of each data set.'
  BUILDER_CONFIGS: ClassVar = [
    tfds.core.BuilderConfig(name=source.name, description=source.about)
    for source in SOURCES.values()
  ]

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(
        {name: tfds.features.Text() for name in FIELDS}
      ),
      disable_shuffling=True,  # Problems keep the order in which they are read.
    )

  def _split_generators(self, dl_manager):
    source = SOURCES[self.builder_config.name]
    splits, notes = published.read(source, *_files(source, dl_manager))
    for note in notes:
      logging.warning('%s', note)
    # Read whole before a single one is written: errors come as they are.
    return {
      name: self._generate_examples(split) for name, split in splits.items()
    }

  def _generate_examples(self, problems):
    for number, problem in enumerate(problems):
      yield number, dataclasses.asdict(problem)


def _files(
  source: Source, dl_manager: tfds.download.DownloadManager
) -> tuple[published.Layout, Mapping[str, pathlib.Path]]:
  """Returns the files of a data set: the user's, else downloaded ones."""
  try:
    folder = pathlib.Path(dl_manager.manual_dir)
    return published.find(source, folder)
  except (AssertionError, ConfigError):
    # `prepare` has looked into a folder that the user named; this one is
    # TFDS's own, which need not be there, nor hold this data set.
    layout = source.layouts[0]
  urls = {key: file.url for key, file in layout.files.items()}
  _check_network(urls.values())
  downloaded = dl_manager.download(urls)
  return layout, {
    key: _with_suffix(pathlib.Path(path), urls[key])
    for key, path in downloaded.items()
  }


def _check_network(urls: Iterable[str]) -> None:
  """Refuses hosts that have no address: TFDS tries for minutes, and is loud.

  Raises:
    OSError: if a host cannot be found.
  """
  for host in {urllib.parse.urlsplit(url).hostname for url in urls} - {None}:
    try:
      socket.getaddrinfo(host, None)
    except OSError as error:
      raise OSError(f'{host} cannot be found: {error}') from error


def _with_suffix(path: pathlib.Path, url: str) -> pathlib.Path:
  """Returns a path that ends as its URL does: so is a file's form told."""
  suffix = pathlib.PurePosixPath(url).suffix
  if path.suffix == suffix:
    return path
  renamed = path.with_name(path.name + suffix)
  if not renamed.exists():
    os.link(path, renamed)
  return renamed


def prepare(name: str, manual_dir: str, data_dir: str) -> None:
  """Makes sure that a data set is prepared; reads no source if it is.

  Preparing ends with one rename, so what is there is whole.

  Args:
    name: one of SOURCES.
    manual_dir: a folder with the published files; '' = download them.
    data_dir: where TFDS keeps what it prepared; '' = as TFDS does.

  Raises:
    ConfigError: if the files are missing or damaged, or cannot be downloaded.
  """
  builder = _builder(name, data_dir)
  if _is_there(builder):
    return
  source = SOURCES[name]
  if manual_dir:
    _check_folder(source, manual_dir)
  config = tfds.download.DownloadConfig(
    manual_dir=manual_dir or None, try_download_gcs=False
  )
  bar = tfds.display_progress_bar
  bar(False)
  try:
    builder.download_and_prepare(download_config=config, file_format='tfrecord')
  except ConfigError:
    raise
  except Exception as error:  # Whatever a network or a disk may say.
    if _is_there(_builder(name, data_dir)):
      return  # Another process has prepared it at the same time.
    raise _unprepared(source, manual_dir, error) from error
  finally:
    bar(True)


def folder(data_dir: str) -> str | None:
  """Returns where TFDS keeps what it prepared; None = as TFDS does."""
  return str(pathlib.Path(data_dir).expanduser()) if data_dir else None


def read_split(name: str, data_dir: str, split: str) -> list[Problem]:
  """Returns the problems of a split of a data set that was prepared."""
  found = tfds.as_numpy(_builder(name, data_dir).as_dataset(split=split))
  return [
    Problem(**{field: row[field].decode() for field in FIELDS}) for row in found
  ]


def _builder(name: str, data_dir: str) -> ScoreJax:
  try:
    return ScoreJax(config=name, data_dir=folder(data_dir))
  except Exception as error:  # What was prepared is looked into at once.
    raise ConfigError(
      f'task.data_dir={data_dir!r}: what TFDS prepared of {name} is damaged '
      f'({_short(error)}); delete the folder {NAME}/{name} there.'
    ) from error


def _is_there(builder: ScoreJax) -> bool:
  return (pathlib.Path(builder.data_dir) / 'dataset_info.json').is_file()


def _check_folder(source: Source, manual_dir: str) -> None:
  folder = pathlib.Path(manual_dir).expanduser()
  if not folder.is_dir():
    raise ConfigError(
      f'task.manual_dir={manual_dir!r} is not a folder; put '
      f'{published.wanted(source)} into one.'
    )
  published.find(source, folder)


def _unprepared(
  source: Source, manual_dir: str, error: Exception
) -> ConfigError:
  if manual_dir:
    return ConfigError(
      f'task.manual_dir={manual_dir!r}: {source.name} cannot be prepared '
      f'({_short(error)}).'
    )
  return ConfigError(
    f'task.name={source.name!r} cannot be downloaded ({_short(error)}); put '
    f'{published.wanted(source)} into a folder and set task.manual_dir to it.'
  )


def _short(error: Exception) -> str:
  text = ' '.join(str(error).split())
  return f'{type(error).__name__}: {text[:200]}'
