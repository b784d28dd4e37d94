"""Checkpoints that several tests of a run share."""

import pathlib

import pytest


@pytest.fixture(scope='session')
def checkpoint(tmp_path_factory):
  """Returns a function: case and dtype to a model and its folder."""
  made = {}

  def make(case: str, dtype: str = 'float32') -> tuple[object, pathlib.Path]:
    import tiny_checkpoints

    if (case, dtype) not in made:
      folder = tmp_path_factory.mktemp('checkpoint')
      model = tiny_checkpoints.build(case, dtype)
      model.save_pretrained(folder)
      made[case, dtype] = model, folder
    return made[case, dtype]

  return make
