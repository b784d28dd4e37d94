"""Weights go in and out of safetensors whole, or are refused by name."""

import json
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from score_jax import sharding
from score_jax.config import ConfigError
from score_jax.models import families, names, served, weights
from score_jax.models.architecture import Execution
from score_jax.models.transformer import Transformer

# A model with every kind of tensor: biases, norms of queries, four norms.
TINY = {
  'model_type': 'gemma3_text',
  'attention_bias': True,
  'head_dim': 8,
  'hidden_size': 16,
  'intermediate_size': 24,
  'num_attention_heads': 4,
  'num_hidden_layers': 3,
  'num_key_value_heads': 2,
  'query_pre_attn_scalar': 8,
  'sliding_window': 4,
  'tie_word_embeddings': False,
  'vocab_size': 32,
}
PROJECTION = 'model.layers.1.self_attn.q_proj.weight'


def model_of(hf, mesh=None, **execution):
  if mesh is not None:
    count = int(np.prod(mesh))
    mesh = sharding.make_mesh(mesh, jax.devices()[:count])
  config = families.model_config(hf)
  return Transformer(config, Execution(mesh=mesh, **execution))


def random_params(model):
  """Returns parameters that are normal noise: no zeros, no ones."""
  shapes = weights.target(model)
  leaves, tree = jax.tree.flatten(shapes)
  rng = np.random.default_rng(0)
  return tree.unflatten(
    jax.device_put(rng.normal(size=x.shape).astype(x.dtype), x.sharding)
    for x in leaves
  )


def read_raw(folder):
  """Returns {name: (dtype, shape, bytes)}, read by the format's own library."""
  found = {}
  for file in folder.glob('*.safetensors'):
    for name, tensor in safetensors.deserialize(file.read_bytes()):
      assert name not in found
      found[name] = tensor['dtype'], tensor['shape'], bytes(tensor['data'])
  return found


@pytest.fixture(scope='session')
def originals(tmp_path_factory):
  """The same weights in one file and in many."""
  folder = tmp_path_factory.mktemp('originals')
  params = random_params(model_of(TINY))
  served.save(folder / 'tiny', params, TINY)
  served.save(folder / 'parts', params, TINY, file_bytes=4000)
  return folder


@pytest.fixture
def folder(originals, tmp_path):
  """A checkpoint in one file."""
  return shutil.copytree(originals / 'tiny', tmp_path / 'tiny')


@pytest.fixture
def sharded(originals, tmp_path):
  """A checkpoint in several files with an index."""
  return shutil.copytree(originals / 'parts', tmp_path / 'parts')


def load(folder, mesh=None, **execution):
  hf = weights.read_config(folder)
  return weights.load(folder, weights.target(model_of(hf, mesh, **execution)))


def rewrite(folder, change):
  """Rewrites a file of weights; change maps {name: array} in place."""
  tensors = safetensors.numpy.load_file(folder / 'model.safetensors')
  change(tensors)
  safetensors.numpy.save_file(tensors, folder / 'model.safetensors')


def refusal(folder, **execution):
  with pytest.raises(ConfigError) as refused:
    load(folder, **execution)
  assert '\n' not in str(refused.value)
  return str(refused.value)


@pytest.mark.parametrize(
  ('mesh', 'dtype'),
  (
    ((1, 1, 1), 'float32'),
    ((1, 1, 1), 'bfloat16'),
    ((1, 8, 1), 'float32'),
    ((1, 2, 4), 'bfloat16'),
  ),
)
def test_what_was_imported_is_exported_byte_for_byte(tmp_path, mesh, dtype):
  params = random_params(model_of(TINY, param_dtype=dtype))
  served.save(tmp_path / 'first', params, TINY)
  hf = weights.read_config(tmp_path / 'first')
  params = load(tmp_path / 'first', mesh, param_dtype=dtype)
  served.save(tmp_path / 'second', params, hf, file_bytes=3000)
  assert read_raw(tmp_path / 'second') == read_raw(tmp_path / 'first')
  assert len(list((tmp_path / 'second').glob('*.safetensors'))) > 3
  assert weights.read_config(tmp_path / 'second') == hf
  assert hf['torch_dtype'] == dtype


def test_one_file_and_many_hold_the_same(folder, sharded):
  assert read_raw(folder) == read_raw(sharded)
  jax.tree.map(np.testing.assert_array_equal, load(folder), load(sharded))


def test_every_mesh_gives_the_same_logits(folder):
  tokens = np.random.default_rng(0).integers(0, 32, (8, 12)).astype(np.int32)

  def logits(mesh):
    model = model_of(TINY, mesh)

    @jax.jit
    def run(params, tokens):
      hidden, _ = model.apply({'params': params}, tokens)
      return model.apply({'params': params}, hidden, method='unembed')

    return np.asarray(run(load(folder, mesh), tokens))

  expected = logits(None)
  for mesh in ((1, 1, 1), (1, 8, 1), (1, 2, 4)):
    off = np.abs(logits(mesh) - expected).max()
    assert off <= 1e-5 * np.abs(expected).max()


def test_a_parameter_lies_where_the_table_of_axes_says(folder):
  params = load(folder, (1, 2, 4))
  query = params['layers']['attention']['query']['kernel']
  assert query.shape == (3, 16, 4, 8)
  assert query.sharding.shard_shape(query.shape) == (3, 8, 1, 8)
  assert query.addressable_data(0).shape == (3, 8, 1, 8)


@pytest.mark.parametrize('source', (np.float16, ml_dtypes.bfloat16))
@pytest.mark.parametrize('dtype', ('float32', 'bfloat16'))
def test_weights_are_cast_to_the_dtype_that_is_wanted(folder, source, dtype):
  exact = load(folder)

  def cast(tensors):
    for name in tensors:
      tensors[name] = tensors[name].astype(source)

  rewrite(folder, cast)
  expected = jax.tree.map(
    lambda x: np.asarray(x).astype(source).astype(jnp.dtype(dtype)), exact
  )
  found = load(folder, param_dtype=dtype)
  jax.tree.map(np.testing.assert_array_equal, found, expected)
  assert found['embedding'].dtype == jnp.dtype(dtype)


def test_a_checkpoint_of_several_dtypes_is_exported_as_it_came(
  folder, tmp_path
):
  def narrow(tensors):
    # Of another dtype and first in the file, though no parameter.
    tensors['model.layers.0.self_attn.rotary_emb.inv_freq'] = np.ones(4, '<f4')
    for name in tensors:
      if 'norm' not in name and 'inv_freq' not in name:
        tensors[name] = tensors[name].astype(np.float16)

  rewrite(folder, narrow)
  params = jax.tree.map(
    lambda x, dtype: x.astype(dtype),
    load(folder),
    weights.stored_dtypes(folder),
  )
  served.save(tmp_path / 'again', params, TINY, folder)
  assert read_raw(tmp_path / 'again') == read_raw(folder)
  hf = weights.read_config(tmp_path / 'again')
  assert hf['torch_dtype'] == 'float16'


def test_a_tied_head_may_be_there_if_it_is_the_embedding(folder, tmp_path):
  hf = weights.read_config(folder) | {'tie_word_embeddings': True}
  (folder / 'config.json').write_text(json.dumps(hf))
  assert 'lm_head.weight differs from the embedding' in refusal(folder)

  def tie(tensors):
    tensors['lm_head.weight'] = tensors['model.embed_tokens.weight']

  rewrite(folder, tie)
  params = load(folder)
  assert 'head' not in params
  served.save(tmp_path / 'again', params, hf, folder)
  assert read_raw(tmp_path / 'again') == read_raw(folder)
  rewrite(folder, lambda tensors: tensors.pop('lm_head.weight'))
  jax.tree.map(np.testing.assert_array_equal, load(folder), params)


def test_stored_angles_are_passed_over_and_exported_as_they_came(
  folder, tmp_path
):
  angles = {'model.layers.0.self_attn.rotary_emb.inv_freq': np.ones(4, '<f4')}
  rewrite(folder, lambda tensors: tensors.update(angles))
  served.save(tmp_path / 'again', load(folder), TINY, folder)
  assert read_raw(tmp_path / 'again') == read_raw(folder)


def test_an_export_takes_the_tokenizer_along_but_no_other_files(
  folder, tmp_path
):
  for name in ('tokenizer.json', 'generation_config.json', 'optimizer.pt'):
    (folder / name).write_text(name)
  served.save(tmp_path / 'out', load(folder), TINY, folder)
  assert {f.name for f in (tmp_path / 'out').iterdir()} == {
    'config.json',
    'generation_config.json',
    'model.safetensors',
    'tokenizer.json',
  }
  assert (tmp_path / 'out' / 'tokenizer.json').read_text() == 'tokenizer.json'


def test_no_file_is_larger_than_asked_and_the_index_knows_them(sharded):
  index = json.loads((sharded / 'model.safetensors.index.json').read_text())
  raw = read_raw(sharded)
  assert index['weight_map'].keys() == raw.keys()
  assert index['metadata']['total_size'] == sum(
    len(b) for _, _, b in raw.values()
  )
  for file in sharded.glob('*.safetensors'):
    tensors = safetensors.deserialize(file.read_bytes())
    data = sum(len(tensor['data']) for _, tensor in tensors)
    assert data <= 4000 or len(tensors) == 1
    assert {index['weight_map'][name] for name, _ in tensors} == {file.name}


def test_an_export_that_fails_leaves_no_folder(folder, tmp_path):
  broken = {**TINY, 'surprise': object()}  # JSON cannot say this.
  with pytest.raises(TypeError):
    served.save(tmp_path / 'out', load(folder), broken)
  assert not (tmp_path / 'out').exists()
  served.save(tmp_path / 'out', load(folder), TINY)
  assert not (tmp_path / 'out.tmp').exists()


def test_an_export_never_overwrites(folder):
  params = load(folder)
  with pytest.raises(ConfigError, match='tiny is in use; export to a folder'):
    served.save(folder, params, TINY)


def test_parameters_of_another_architecture_are_not_exported(folder, tmp_path):
  params = load(folder)
  with pytest.raises(ConfigError, match=r'embedding has the shape \[32, 16\]'):
    served.save(tmp_path / 'out', params, {**TINY, 'vocab_size': 64})
  with pytest.raises(ConfigError, match='head are in one only'):
    served.save(tmp_path / 'out', params, {**TINY, 'tie_word_embeddings': True})
  assert not (tmp_path / 'out').exists()


def test_a_bar_counts_the_bytes(folder, tmp_path, capsys):
  params = weights.load(folder, weights.target(model_of(TINY)), progress=True)
  assert 'loading tiny: 100%' in capsys.readouterr().err
  served.save(tmp_path / 'out', params, TINY, progress=True)
  assert 'exporting out: 100%' in capsys.readouterr().err


def test_an_unknown_key_of_config_json_is_warned_of(folder):
  hf = weights.read_config(folder) | {'surprise': 3}
  (folder / 'config.json').write_text(json.dumps(hf))
  with pytest.warns(UserWarning, match='nothing is known of surprise'):
    weights.read_config(folder)


def test_every_tensor_has_one_place_and_every_parameter_one_name():
  model = model_of(TINY)
  paths = [t.path for t in names.tensors(model.config, names.Layout())]
  params = weights.target(model)
  found = jax.tree_util.tree_flatten_with_path(params)[0]
  found = [tuple(key.key for key in path) for path, _ in found]
  assert sorted(paths) == sorted(found)


# What is refused.


def test_a_missing_tensor_is_named(folder):
  rewrite(folder, lambda tensors: tensors.pop(PROJECTION))
  assert f'lacks the tensors {PROJECTION};' in refusal(folder)


def test_a_surplus_tensor_is_named(folder):
  more = {'model.layers.3.mlp.up_proj.weight': np.ones((2, 2), np.float32)}
  rewrite(folder, lambda tensors: tensors.update(more))
  assert 'has the tensors model.layers.3.mlp.up_proj.weight,' in refusal(folder)


def test_a_misshapen_tensor_is_named(folder):
  def cut(tensors):
    tensors[PROJECTION] = tensors[PROJECTION][:-1].copy()

  rewrite(folder, cut)
  text = refusal(folder)
  assert f'{PROJECTION} has the shape [31, 16]' in text
  assert 'config.json makes it [32, 16]' in text


def test_a_quantized_tensor_is_named(folder):
  def quantize(tensors):
    tensors[PROJECTION] = tensors[PROJECTION].astype(np.int8)

  rewrite(folder, quantize)
  assert f'{PROJECTION} has the dtype I8' in refusal(folder)


@pytest.mark.parametrize('lost', (1, 1000))
def test_a_file_that_was_cut_short_is_named(folder, lost):
  file = folder / 'model.safetensors'
  whole = file.read_bytes()
  file.write_bytes(whole[:-lost])
  text = refusal(folder)
  assert f'{file} has {len(whole) - lost} bytes where its header says' in text
  (size,) = struct.unpack('<Q', whole[:8])
  header = json.loads(whole[8 : 8 + size])
  header.pop('__metadata__')
  kept = len(whole) - lost - 8 - size
  cut = sorted(n for n, t in header.items() if t['data_offsets'][1] > kept)
  assert f'cut short, within {", ".join(cut[:3])}' in text


def test_a_file_with_more_than_its_tensors_is_named(folder):
  file = folder / 'model.safetensors'
  file.write_bytes(file.read_bytes() + b'junk')
  assert 'it was damaged; download it again.' in refusal(folder)


@pytest.mark.parametrize('kept', (0, 5, 8, 60))
def test_a_file_cut_short_in_its_header_is_named(folder, kept):
  file = folder / 'model.safetensors'
  file.write_bytes(file.read_bytes()[:kept])
  text = refusal(folder)
  assert f'{file} is not whole safetensors; download it again.' in text


def test_a_tensor_whose_bytes_do_not_fit_its_shape_is_named(folder):
  file = folder / 'model.safetensors'
  raw = file.read_bytes()
  (size,) = struct.unpack('<Q', raw[:8])
  header = json.loads(raw[8 : 8 + size])
  header[PROJECTION]['shape'] = [32, 15]
  text = json.dumps(header).encode()
  file.write_bytes(struct.pack('<Q', len(text)) + text + raw[8 + size :])
  assert f'{PROJECTION} has 2048 bytes' in refusal(folder)


def test_a_missing_file_of_several_is_named(sharded):
  lost = sorted(sharded.glob('*.safetensors'))[1]
  lost.unlink()
  assert f'{lost} is not there' in refusal(sharded)


def test_a_tensor_that_is_in_two_files_is_named(sharded):
  one, other = sorted(sharded.glob('*.safetensors'))[1:3]
  shutil.copyfile(other, one)
  assert f'{other} repeats ' in refusal(sharded)


def test_a_tensor_that_only_the_index_has_is_named(sharded):
  file = sharded / 'model.safetensors.index.json'
  index = json.loads(file.read_text())
  index['weight_map']['model.more'] = next(iter(index['weight_map'].values()))
  file.write_text(json.dumps(index))
  assert 'lacks model.more, though' in refusal(sharded)


@pytest.mark.parametrize(
  ('content', 'said'),
  (
    (
      'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n',
      'it is a git-lfs pointer; run git lfs pull in its folder.',
    ),
    (
      '<!DOCTYPE html><html><body>Log in</body></html>',
      "message of the hub in place of the file; accept the model's license",
    ),
    (
      'Access to model google/gemma-2-2b is restricted. You must have access',
      "message of the hub in place of the file; accept the model's license",
    ),
    (
      '{"error":"Access to model is gated"}',
      "message of the hub in place of the file; accept the model's license",
    ),
  ),
)
@pytest.mark.parametrize('name', ('model.safetensors', 'config.json'))
def test_a_placeholder_is_told_from_the_file(folder, name, content, said):
  (folder / name).write_text(content)
  text = refusal(folder)
  assert str(folder / name) in text
  assert said in text


@pytest.mark.parametrize(
  ('there', 'said'),
  (
    ((), 'has no model.safetensors and no model.safetensors.index.json'),
    (('pytorch_model.bin',), 'has pytorch_model.bin but no model.safetensors'),
    (
      ('model-00001-of-00002.safetensors',),
      'has model-00001-of-00002.safetensors but no model.safetensors.index',
    ),
  ),
)
def test_a_folder_without_weights_is_refused(folder, there, said):
  (folder / 'model.safetensors').unlink()
  for name in there:
    (folder / name).write_text('')
  assert said in refusal(folder)


def test_a_folder_that_is_not_there_or_has_no_config_is_refused(folder):
  with pytest.raises(ConfigError, match='not a folder; download the checkp'):
    weights.read_config('google/gemma-2-2b')
  (folder / 'config.json').unlink()
  with pytest.raises(ConfigError, match=r'config\.json is not there; give'):
    weights.read_config(folder)


# Several processes.

WORKER = """
import pathlib, sys
import jax
jax.config.update('jax_num_cpu_devices', 2)
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
from score_jax import sharding
from score_jax.models import families, served, weights
from score_jax.models.architecture import Execution
from score_jax.models.transformer import Transformer

source, out = map(pathlib.Path, sys.argv[3:])
hf = weights.read_config(source)
mesh = sharding.make_mesh((1, 2, 2))
model = Transformer(families.model_config(hf), Execution(mesh=mesh))
params = weights.load(source, weights.target(model))
assert not params['embedding'].is_fully_addressable
served.save(out, params, hf, source, file_bytes=4000)
"""


def free_address():
  with socket.socket() as found:
    found.bind(('localhost', 0))
    return f'localhost:{found.getsockname()[1]}'


def test_two_processes_import_and_export_together(folder, tmp_path):
  address = free_address()
  environment = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}
  root = str(pathlib.Path(weights.__file__).parents[2])
  environment['PYTHONPATH'] = root
  workers = [
    subprocess.Popen(
      [
        *(sys.executable, '-c', WORKER),
        *(address, str(i), str(folder), str(tmp_path / 'out')),
      ],
      env=environment,
    )
    for i in range(2)
  ]
  try:
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
  finally:
    for worker in workers:
      worker.kill()
  assert read_raw(tmp_path / 'out') == read_raw(folder)
