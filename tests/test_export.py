"""A trained stage comes out on any machine, or one line says why it does not."""

import json
import shutil

import jax
import numpy as np
import pytest
import runs as small

from score_jax import checkpoint, export
from score_jax import config as config_lib
from score_jax.models import families, weights
from score_jax.models.architecture import Execution
from score_jax.models.transformer import Transformer


@pytest.fixture
def workdir(unbroken, tmp_path):
  """A finished run, to damage."""
  return shutil.copytree(unbroken, tmp_path / 'run')


def set_in_config(workdir, part, **changes):
  path = workdir / 'config.json'
  config = json.loads(path.read_text())
  config[part] |= changes
  path.write_text(json.dumps(config))


@pytest.fixture
def command(capsys):
  """Returns a function: options to exit code and what was said on it."""

  def run(**options):
    given = [f'--{name}={value}' for name, value in options.items()]
    try:
      export.main(given)
    except SystemExit as end:
      return end.code, capsys.readouterr().err
    return 0, capsys.readouterr().out

  return run


def loaded(folder):
  model = Transformer(
    families.model_config(weights.read_config(folder)), Execution()
  )
  return weights.load(folder, weights.target(model))


@pytest.mark.parametrize('stage', small.STEPS)
def test_what_was_trained_on_other_devices_comes_out_bit_for_bit(
  workdir, tmp_path, command, stage
):
  # There are eight here, which no such mesh fits.
  set_in_config(workdir, 'mesh', data=3, fsdp=16, tensor=5)
  out = tmp_path / 'out'
  code, said = command(workdir=workdir, out=out, stage=stage)
  best = checkpoint.best_step(workdir / 'checkpoints' / stage)
  assert (code, said) == (0, f'wrote {stage}, step {best} to {out}\n')
  saved = small.params(workdir, stage, best)
  found = jax.tree_util.tree_flatten_with_path(loaded(out))[0]
  assert len(found) == len(saved)
  for path, leaf in found:
    name = '/'.join(key.key for key in path)
    assert np.asarray(leaf).tobytes() == saved[name]
  for name in ('tokenizer.json', 'tokenizer_config.json'):
    assert (out / name).read_bytes() == (config_lib.BUNDLED / name).read_bytes()


def test_a_stage_that_is_not_finished_is_said_to_be_so(
  workdir, tmp_path, command
):
  last = small.STEPS['stage2']
  set_in_config(workdir, 'train', stage2_steps=last + 1)
  out = tmp_path / 'out'
  best = checkpoint.best_step(workdir / 'checkpoints' / 'stage2')
  assert command(workdir=workdir, out=out) == (
    0,
    f'wrote stage2, step {best} (the best so far: {last} of {last + 1} steps '
    f'are made) to {out}\n',
  )


def test_the_last_stage_is_the_last_that_has_a_checkpoint(
  workdir, tmp_path, command
):
  shutil.rmtree(workdir / 'checkpoints' / 'stage2')
  (workdir / 'checkpoints' / 'stage2').mkdir()  # As a kill leaves it.
  code, said = command(workdir=workdir, out=tmp_path / 'out')
  assert code == 0 and said.startswith('wrote stage1, step ')


def test_a_base_model_that_has_moved_is_asked_for(workdir, tmp_path, command):
  set_in_config(workdir, 'model', path=str(tmp_path / 'gone'))
  out = tmp_path / 'out'
  assert command(workdir=workdir, out=out) == (
    2,
    f'score_jax: {tmp_path / "gone"}, where the run had its base model, is not '
    'a folder; give that of the base model by --model.\n',
  )
  assert not out.exists()
  code, _ = command(workdir=workdir, out=out, model=config_lib.BUNDLED)
  assert code == 0


def test_a_folder_in_use_is_refused_before_anything_is_read(tmp_path, command):
  (tmp_path / 'file').write_text('mine')
  assert command(workdir=tmp_path / 'nothing', out=tmp_path) == (
    2,
    f'score_jax: {tmp_path} is in use; export to a folder that is not there '
    'yet.\n',
  )


def test_a_stage_without_a_whole_checkpoint_is_named(
  workdir, tmp_path, command
):
  folder = workdir / 'checkpoints' / 'stage2'
  for file in folder.glob('*/manifest.json'):
    file.unlink()
  code, said = command(workdir=workdir, out=tmp_path / 'out')
  assert code == 1
  assert said.startswith(f'score_jax: {folder} holds no whole checkpoint among')
  assert not (tmp_path / 'out').exists()


def test_what_is_no_run_or_stage_is_named(workdir, tmp_path, command):
  out = tmp_path / 'out'
  code, said = command(workdir=tmp_path, out=out)
  assert (code, said) == (
    2,
    f'score_jax: --workdir={tmp_path} holds no run (no config.json).\n',
  )
  code, said = command(workdir=workdir, out=out, stage='stage3')
  assert code == 2
  assert 'no checkpoint' in said and 'there are stage1, stage2' in said
  (workdir / 'config.json').write_text('{"model": ')
  code, said = command(workdir=workdir, out=out)
  assert (code, said.count('\n')) == (2, 1)
  assert f'{workdir / "config.json"} is damaged' in said
