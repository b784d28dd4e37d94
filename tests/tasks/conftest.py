"""Where problems are: fixtures of our own, and the published files."""

import os
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope='session')
def ours():
  """A folder in the published layouts, with problems of our own."""
  return pathlib.Path(__file__).parent / 'fixtures'


@pytest.fixture(scope='session')
def real():
  """The folder of published files; skips where there is none."""
  places = [os.environ.get('SCORE_DATA_DIR'), ROOT.parent / 'shared' / 'data']
  for place in filter(None, places):
    if pathlib.Path(place).is_dir():
      return pathlib.Path(place)
  return pytest.skip('no published files: set SCORE_DATA_DIR to their folder')


@pytest.fixture(scope='session')
def prepared(tmp_path_factory):
  """A folder for what is prepared of our own problems."""
  return tmp_path_factory.mktemp('prepared')


@pytest.fixture(scope='session')
def prepared_real(tmp_path_factory):
  """A folder for what is prepared of the published files."""
  return tmp_path_factory.mktemp('prepared_real')
