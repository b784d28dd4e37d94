"""An adapter computes in PEFT, and merged in transformers, what it does here."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import tiny
import tiny_checkpoints

from score_jax.config import ConfigError, PROJECTIONS
from score_jax.models import families, lora, served, weights
from score_jax.models.architecture import Execution
from score_jax.models.lora import Lora
from score_jax.models.transformer import Transformer

FAMILIES = ('gemma2', 'gemma3_text', 'llama', 'qwen2, tied', 'qwen3')
SOME = ('query', 'value', 'output', 'down')


@functools.cache
def some_tokens():
  return np.random.default_rng(0).integers(0, 90, (2, 24)).astype(np.int32)


def ours(folder, chosen, dtype='float32'):
  """Returns hf, base and a trained adapter of a folder, and their logits."""
  hf = weights.read_config(folder)
  model = Transformer(families.model_config(hf), Execution())
  base = weights.load(folder, weights.target(model))
  draw = np.random.default_rng(2).normal
  adapter = jax.tree.map(
    lambda x: jnp.asarray(draw(size=x.shape) / 8, dtype),
    lora.target(base, chosen, dtype),
  )
  bound = lora.bind(base, adapter, chosen)
  found = np.asarray(tiny.logits_of(model, bound, some_tokens()))
  plain = np.asarray(tiny.logits_of(model, base, some_tokens()))
  assert np.abs(found - plain).max() > 0.1
  return hf, base, adapter, found


def assert_near(found, expected):
  assert np.abs(found - expected).max() <= 2e-5 * np.abs(expected).max()


@pytest.mark.parametrize('case', FAMILIES)
def test_peft_and_transformers_make_the_same_of_it(checkpoint, tmp_path, case):
  peft = pytest.importorskip('peft', reason='it loads the adapter folder')
  _, folder = checkpoint(case)
  chosen = Lora(3, 12.0, PROJECTIONS if case == 'qwen3' else SOME, 0.1)
  hf, base, adapter, expected = ours(folder, chosen)
  served.save_adapter(tmp_path / 'adapter', adapter, chosen, hf, folder)
  merged = lora.merge(base, adapter, chosen, 'float32')
  served.save(tmp_path / 'merged', merged, hf, folder)
  load = tiny_checkpoints.transformers.AutoModelForCausalLM.from_pretrained
  assert_near(
    tiny_checkpoints.logits(load(tmp_path / 'merged'), some_tokens()), expected
  )
  theirs = peft.PeftModel.from_pretrained(load(folder), tmp_path / 'adapter')
  assert_near(tiny_checkpoints.logits(theirs.eval(), some_tokens()), expected)


def test_with_vision_peft_adapts_the_text_part_alone(checkpoint, tmp_path):
  peft = pytest.importorskip('peft', reason='it loads the adapter folder')
  _, folder = checkpoint('gemma3 with vision')
  chosen = Lora(2, 4.0, SOME, 0.0)
  hf, _, adapter, expected = ours(folder, chosen)
  served.save_adapter(tmp_path / 'adapter', adapter, chosen, hf, folder)
  load = tiny_checkpoints.transformers.AutoModelForImageTextToText
  theirs = peft.PeftModel.from_pretrained(
    load.from_pretrained(folder), tmp_path / 'adapter'
  )
  assert_near(tiny_checkpoints.logits(theirs.eval(), some_tokens()), expected)
  adapted = [n for n, _ in theirs.named_parameters() if 'lora_' in n]
  assert len(adapted) == 6 * 4 * 2
  assert not any('vision' in name for name in adapted)


def test_its_tensors_are_named_and_turned_as_peft_has_them(
  checkpoint, tmp_path
):
  _, folder = checkpoint('llama')
  chosen = Lora(3, 12.0, ('key', 'output'), 0.25)
  hf, _, adapter, _ = ours(folder, chosen, 'bfloat16')
  out = tmp_path / 'adapter'
  served.save_adapter(out, adapter, chosen, hf, folder)
  tensors = safetensors.numpy.load_file(out / 'adapter_model.safetensors')
  assert len(tensors) == 3 * 2 * 2  # Layers, projections, factors.
  attention = adapter['layers']['attention']
  before = 'base_model.model.model.layers.1.self_attn.'
  for name, leaf, shape in (
    ('k_proj.lora_A', attention['key']['lora_a'], (32, 3)),
    ('k_proj.lora_B', attention['key']['lora_b'], (3, 4 * 8)),
    ('o_proj.lora_A', attention['output']['lora_a'], (4 * 8, 3)),
    ('o_proj.lora_B', attention['output']['lora_b'], (3, 32)),
  ):
    expected = np.asarray(leaf[1]).reshape(shape).T
    found = tensors[f'{before}{name}.weight']
    assert found.dtype == expected.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, expected)
  described = json.loads((out / 'adapter_config.json').read_text())
  assert described['target_modules'] == ['k_proj', 'o_proj']
  assert (described['r'], described['lora_alpha']) == (3, 12.0)
  assert described['lora_dropout'] == 0.25
  with pytest.raises(ConfigError, match='is in use'):
    served.save_adapter(out, adapter, chosen, hf, folder)
