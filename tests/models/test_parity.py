"""The decoder computes what transformers computes, for every family."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import tiny_checkpoints

from score_jax import sampler
from score_jax.config import ConfigError
from score_jax.models import families, served, weights
from score_jax.models.architecture import Execution, inverse_frequencies, Rope
from score_jax.models.transformer import Transformer
from score_jax.policy import Policy

torch = tiny_checkpoints.torch
FAMILIES = tiny_checkpoints.FAMILIES


def ours(folder, dtype='float32', **execution):
  """Returns the decoder of a folder and its parameters."""
  config = families.model_config(weights.read_config(folder))
  model = Transformer(config, Execution(dtype, dtype, **execution))
  return model, weights.load(folder, weights.target(model))


@functools.partial(jax.jit, static_argnums=0)
def logits(model, params, tokens):
  hidden, _ = model.apply({'params': params}, tokens)
  return model.apply({'params': params}, hidden, method='unembed')


def some_tokens(rows=3, columns=24):
  """Returns int32[rows, columns], and which of them stand in a row."""
  tokens = np.random.default_rng(0).integers(0, 90, (rows, columns))
  length = np.linspace(columns // 3, columns, rows).astype(int)
  mask = np.arange(columns) < length[:, None]
  return tokens.astype(np.int32), mask


@pytest.mark.parametrize('case', tiny_checkpoints.CASES)
def test_logits_are_those_of_transformers(checkpoint, case):
  theirs, folder = checkpoint(case)
  tokens, mask = some_tokens()
  expected = tiny_checkpoints.logits(theirs, tokens, mask)[mask]
  found = np.asarray(logits(*ours(folder), tokens))[mask]
  assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def off(one, other):
  """Returns the root of the mean square of what two arrays differ by."""
  return np.sqrt(np.mean(np.square(one - other)))


@pytest.mark.parametrize('case', FAMILIES)
def test_in_bfloat16_logits_are_nearer_to_float32_than_those_of_transformers(
  checkpoint, case
):
  theirs, folder = checkpoint(case, 'bfloat16')
  tokens, mask = some_tokens()
  rounded = tiny_checkpoints.logits(theirs, tokens, mask)[mask]
  model, params = ours(folder, 'bfloat16')
  found = np.asarray(logits(model, params, tokens))[mask]
  exact = Transformer(model.config, Execution())
  exact = np.asarray(logits(exact, params_in(params, 'float32'), tokens))[mask]
  # Less is rounded here: sums and gates once, scores and angles never.
  assert off(found, exact) <= 0.9 * off(rounded, exact)


@pytest.mark.parametrize('case', FAMILIES)
@pytest.mark.parametrize(
  ('residual', 'most'), [('float32', 1.0), ('bfloat16', 1.15)]
)
def test_in_bfloat16_logits_differ_no_more_than_two_runs_of_transformers_do(
  checkpoint, case, residual, most
):
  """Its own two runs: rows as they are, and behind eight columns of padding.

  A narrow residual stream rounds about as often as transformers does, but not
  at the very same places, so up to a seventh more is allowed there.
  """
  theirs, folder = checkpoint(case, 'bfloat16')
  tokens, _ = some_tokens(rows=8)
  gap = np.zeros((8, 8), np.int32)
  mask = np.concatenate([gap, np.ones_like(tokens)], axis=1)
  padded = np.concatenate([gap, tokens], axis=1)
  one = tiny_checkpoints.logits(theirs, tokens)
  other = tiny_checkpoints.logits(theirs, padded, mask)[:, 8:]
  model = ours(folder, 'bfloat16', residual_dtype=residual)
  found = np.asarray(logits(*model, tokens))
  assert off(one, other) > 0
  for each in (one, other):
    assert off(found, each) <= most * off(one, other)


def params_in(params, dtype):
  return jax.tree.map(lambda x: x.astype(dtype), params)


@pytest.mark.parametrize('case', ('gemma3_text', 'qwen2 with windows'))
def test_scanned_layers_give_the_logits_of_unrolled_ones(checkpoint, case):
  _, folder = checkpoint(case)
  tokens, _ = some_tokens()
  unrolled = logits(*ours(folder, unroll=True), tokens)
  scanned = logits(*ours(folder, unroll=False), tokens)
  np.testing.assert_allclose(scanned, unrolled, rtol=1e-5, atol=1e-5)


def two_greedy_turns(folder, prompts, length):
  """Returns the trajectory of 64 tokens, three ids between, and 8 tokens."""
  sampling = sampler.Sampling(
    first_attempts=1,
    second_attempts=1,
    max_tokens=(64, 8),
    policy=Policy(temperature=0.0),
    end_tokens=(-1,),
    close=7,
    pad=0,
  )
  model, params = ours(folder)
  between = [jnp.asarray([5, 6, 8], jnp.int32)]
  prompts = sampler.Prompts(prompts, length, jnp.arange(len(length)))
  sample = sampler.make_sampler(model, sampling)
  return sample(params, prompts, between, jax.random.key(0))


@pytest.mark.parametrize('case', FAMILIES)
def test_greedy_tokens_and_log_probabilities_are_those_of_transformers(
  checkpoint, case
):
  theirs, folder = checkpoint(case)
  prompts, mask = some_tokens(rows=2, columns=9)
  length = mask.sum(axis=1)
  found = two_greedy_turns(folder, jnp.asarray(prompts), jnp.asarray(length))
  for row, size in enumerate(length):
    tokens = np.asarray(found.tokens[row, : found.length[row]])
    written = generate(theirs, prompts[row, :size])
    np.testing.assert_array_equal(tokens[size : size + 64], written)
    scores = tiny_checkpoints.logits(theirs, tokens[None])[0]
    scores = np.asarray(jax.nn.log_softmax(scores))[:-1]
    expected = np.take_along_axis(scores, tokens[1:, None], axis=1)[:, 0]
    mine = np.asarray(found.turn[row, 1 : len(tokens)]) > 0
    assert mine.sum() == 64 + 8
    logp = np.asarray(found.logp[row, 1 : len(tokens)])
    np.testing.assert_allclose(logp[mine], expected[mine], atol=1e-4)


def generate(model, prompt):
  """Returns the 64 tokens that transformers writes greedily behind one."""
  prompt = torch.tensor(prompt, dtype=torch.int64)[None]
  out = model.generate(
    prompt,
    attention_mask=torch.ones_like(prompt),
    do_sample=False,
    max_new_tokens=64,
    pad_token_id=0,
  )
  return out[0, prompt.shape[1] :].numpy()


@pytest.mark.parametrize('head_dim', (64, 80, 128, 256))
@pytest.mark.parametrize(
  ('family', 'rope', 'parameters'),
  (
    ('gemma2', Rope(1e4), {'rope_type': 'default'}),
    (
      'gemma2',
      Rope(1e4, 'linear', 8.0),
      {'rope_type': 'linear', 'factor': 8.0},
    ),
    (
      'llama',
      Rope(5e5, 'llama3', 32.0, 1.0, 4.0, 8192),
      {
        'rope_type': 'llama3',
        'rope_theta': 5e5,
        'factor': 32.0,
        'low_freq_factor': 1.0,
        'high_freq_factor': 4.0,
        'original_max_position_embeddings': 8192,
      },
    ),
  ),
)
def test_rotary_frequencies_are_those_of_transformers(
  family, rope, parameters, head_dim
):
  kind = tiny_checkpoints.transformers.AutoConfig
  config = kind.for_model(
    family, head_dim=head_dim, rope_parameters=dict(parameters)
  )
  init = tiny_checkpoints.transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS
  if rope.scaling == 'default':
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float) / head_dim
    expected = 1.0 / rope.theta**exponent
  else:
    expected, _ = init[rope.scaling](config, torch.device('cpu'))
  found = inverse_frequencies(rope, head_dim)
  np.testing.assert_allclose(found, expected.numpy(), rtol=1e-6)


@pytest.mark.parametrize('case', tiny_checkpoints.CASES)
def test_a_file_of_transformers_4_and_one_of_5_say_the_same(checkpoint, case):
  _, folder = checkpoint(case)
  new = json.loads((folder / 'config.json').read_text())
  config = families.model_config(new)
  text = new.get('text_config', new)
  parameters = text.pop('rope_parameters')
  if 'full_attention' in parameters:
    near = parameters['sliding_attention']
    text['rope_local_base_freq'] = near['rope_theta']
    parameters = parameters['full_attention']
  text['rope_theta'] = parameters.pop('rope_theta')
  if parameters['rope_type'] != 'default':
    text['rope_scaling'] = parameters
  assert families.model_config(new) == config


@pytest.mark.parametrize('case', tiny_checkpoints.CASES)
def test_what_transformers_wrote_is_exported_byte_for_byte(
  checkpoint, tmp_path, case
):
  theirs, _ = checkpoint(case, 'bfloat16')
  theirs.save_pretrained(tmp_path / 'in', max_shard_size='20KB')
  assert len(list((tmp_path / 'in').glob('*.safetensors'))) > 1
  _, params = ours(tmp_path / 'in', 'bfloat16')
  hf = weights.read_config(tmp_path / 'in')
  served.save(tmp_path / 'out', params, hf, tmp_path / 'in')
  assert tensors_of(tmp_path / 'out') == tensors_of(tmp_path / 'in')


def tensors_of(folder):
  """Returns {name: (dtype, shape, bytes)}, read by the format's own library."""
  found = {}
  for file in folder.glob('*.safetensors'):
    for name, tensor in safetensors.deserialize(file.read_bytes()):
      found[name] = tensor['dtype'], tensor['shape'], bytes(tensor['data'])
  return found


@pytest.mark.parametrize('case', (*FAMILIES, 'gemma3 with vision'))
def test_what_was_trained_and_exported_transformers_computes_alike(
  checkpoint, tmp_path, case
):
  _, folder = checkpoint(case)
  model, params = ours(folder)
  # As if trained: every weight moves a little.
  params = jax.tree.map(
    lambda x: x + 0.1 * jnp.sin(jnp.cumsum(x)).reshape(x.shape), params
  )
  hf = weights.read_config(folder)
  served.save(tmp_path / 'out', params, hf, folder, file_bytes=20_000)
  kind = tiny_checkpoints.transformers.AutoModelForCausalLM
  if case == 'gemma3 with vision':
    kind = tiny_checkpoints.transformers.AutoModelForImageTextToText
  theirs = kind.from_pretrained(tmp_path / 'out', attn_implementation='eager')
  tokens, mask = some_tokens()
  expected = tiny_checkpoints.logits(theirs, tokens, mask)[mask]
  found = np.asarray(logits(model, params, tokens))[mask]
  assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_a_model_with_vision_is_exported_with_it_or_as_text_alone(
  checkpoint, tmp_path
):
  _, folder = checkpoint('gemma3 with vision')
  model, params = ours(folder)
  hf = weights.read_config(folder)
  with pytest.raises(ConfigError, match='vision part, which is copied from'):
    served.save(tmp_path / 'out', params, hf)
  served.save(tmp_path / 'out', params, hf['text_config'])
  kind = tiny_checkpoints.transformers.AutoModelForCausalLM
  theirs = kind.from_pretrained(tmp_path / 'out')
  tokens, mask = some_tokens()
  expected = tiny_checkpoints.logits(theirs, tokens, mask)[mask]
  found = np.asarray(logits(model, params, tokens))[mask]
  assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
