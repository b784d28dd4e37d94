"""A model's folder that cannot be trained ends the command in one line."""

import json
import shutil

import pytest

from score_jax import config as config_lib
from score_jax import files
from score_jax.models import tensor_files

POINTER = (
  'version https://git-lfs.github.com/spec/v1\n'
  'oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n'
  'size 4988025760\n'
)
GATED = 'Access to model google/gemma-2-2b-it is restricted. You must log in.'
PAGE = '<!doctype html>\n<html><title>Sign in</title></html>\n'


@pytest.fixture
def folder(tmp_path):
  """A copy of the bundled model."""
  return shutil.copytree(config_lib.BUNDLED, tmp_path / 'model')


@pytest.fixture
def refusal(runs, tmp_path):
  """Returns a function: settings to the one line that the command ends with."""

  def of(**settings):
    log, workdir = tmp_path / 'log', tmp_path / 'run'
    process = runs.fork(log, workdir, **settings)
    process.join(120)
    said = log.read_text()
    assert process.exitcode == 2, said
    assert not (workdir / 'config.json').exists(), 'nothing is claimed'
    assert said.startswith('score_jax: ') and said.count('\n') == 1, said
    return said

  return of


def in_shards(folder, keep):
  """Splits the weights in two files, of which some are kept."""
  one = folder / tensor_files.WEIGHTS
  names = sorted(tensor_files.stored_tensors(folder))
  parts = {'a.safetensors': names[::2], 'b.safetensors': names[1::2]}
  where = {n: file for file, some in parts.items() for n in some}
  files.write_json(folder / tensor_files.INDEX, {'weight_map': where})
  for file in keep:
    shutil.copyfile(one, folder / file)
  one.unlink()


def test_a_missing_shard_is_named(folder, refusal):
  in_shards(folder, keep=['a.safetensors'])
  text = refusal(model__path=folder)
  assert f'{folder}/b.safetensors is not there' in text and 'download' in text


@pytest.mark.parametrize(
  ('content', 'remedy'),
  [
    (POINTER, 'git lfs pull'),
    (GATED, "accept the model's license"),
    (PAGE, "accept the model's license"),
  ],
  ids=['pointer', 'gated', 'page'],
)
def test_a_text_in_the_place_of_weights_is_named(
  folder, refusal, content, remedy
):
  (folder / tensor_files.WEIGHTS).write_text(content)
  text = refusal(model__path=folder)
  assert f'{folder}/{tensor_files.WEIGHTS} is not' in text and remedy in text


def test_a_folder_of_something_else_is_named(tmp_path, refusal):
  empty = tmp_path / 'empty'
  empty.mkdir()
  text = refusal(model__path=empty)
  assert f'{empty}/config.json is not there' in text


def test_a_preset_with_a_wrong_folder_is_told_before_data_is_looked_for(
  tmp_path, refusal
):
  text = refusal(
    preset='gemma2_2b_mbpp', mesh__fsdp=1, model__path=tmp_path / 'nowhere'
  )
  assert 'nowhere' in text and 'is not a folder' in text
  assert 'hf download google/gemma-2-2b-it --local-dir DIR' in text
  text = refusal(preset='gemma2_2b_mbpp', mesh__fsdp=1)
  assert 'google/gemma-2-2b-it' in text and '--config.model.path=DIR' in text


def test_a_tokenizer_of_another_model_is_refused(folder, refusal):
  path = folder / 'tokenizer.json'
  words = json.loads(path.read_text())
  vocabulary = words['model']['vocab']
  # As if the word that stands in every prompt came behind all embeddings.
  vocabulary['='] = 1000
  path.write_text(json.dumps(words))
  text = refusal(model__path=folder)
  assert "its tokenizer writes the id 1000 ('=')" in text
  assert 'config.json has vocab_size=' in text


def test_rows_longer_than_the_models_positions_are_refused(folder, refusal):
  path = folder / 'config.json'
  hf = json.loads(path.read_text())
  # Prompt 8, twice 6, the 14 tokens of the instruction, and one that closes.
  path.write_text(json.dumps(hf | {'max_position_embeddings': 34}))
  text = refusal(model__path=folder)
  for part in (
    'sampling.max_prompt_tokens=8',
    'sampling.max_tokens=(6, 6)',
    'instructions of 14',
    'rows of 35',
    'max_position_embeddings=34',
  ):
    assert part in text


def test_more_attempts_than_the_model_has_positions_for_are_refused(
  folder, refusal
):
  path = folder / 'config.json'
  hf = json.loads(path.read_text())
  path.write_text(json.dumps(hf | {'max_position_embeddings': 100}))
  text = refusal(model__path=folder, eval__attempts=6)
  # Prompt 8, six times 6, five times the instruction and what closes.
  assert 'rows of 119 with 6 answers (turns=2, eval.attempts=6' in text
  assert 'max_position_embeddings=100' in text


def test_rows_as_long_as_the_models_positions_are_trained(
  runs, folder, tmp_path
):
  path = folder / 'config.json'
  hf = json.loads(path.read_text())
  path.write_text(json.dumps(hf | {'max_position_embeddings': 35}))
  settings = {'train__stage1_steps': 1, 'eval__problems': 2, 'eval__batch': 2}
  runs.finish(
    tmp_path / 'run',
    job='stage1',
    model__path=folder,
    eval__every=0,
    **settings,
  )
