"""Presets are the paper's numbers, on slices that hold their models."""

import collections

import pytest

from configs import models, presets
from score_jax import base_model, checks, chips, estimate, fitting, programs
from score_jax import config as config_lib
from score_jax.models import families, public

MARGIN = 0.85  # Of a chip's memory; the rest is for what no estimate sees.
INSTRUCTION = 96  # Tokens between two attempts, more than any wording needs.

# layers, width, heads, key heads, head width, MLP width, vocabulary, tied:
# facts of the checkpoints' public config.json.
Sizes = collections.namedtuple(
  'Sizes', 'layers width heads kv_heads head_dim mlp vocab tied'
)
GEMMA2 = {
  'gemma2_2b': Sizes(26, 2304, 8, 4, 256, 9216, 256_000, True),
  'gemma2_9b': Sizes(42, 3584, 16, 8, 256, 14336, 256_000, True),
  'gemma2_27b': Sizes(46, 4608, 32, 16, 128, 36864, 256_000, True),
}
GEMMA3 = {
  'gemma3_1b': Sizes(26, 1152, 4, 1, 256, 6912, 262_144, True),
  'gemma3_4b': Sizes(34, 2560, 8, 4, 256, 10240, 262_208, True),
  'gemma3_12b': Sizes(48, 3840, 16, 8, 256, 15360, 262_208, True),
  'gemma3_27b': Sizes(62, 5376, 32, 16, 128, 21504, 262_208, True),
}
LLAMA3 = {
  'llama3_1b': Sizes(16, 2048, 32, 8, 64, 8192, 128_256, True),
  'llama3_3b': Sizes(28, 3072, 24, 8, 128, 8192, 128_256, True),
  'llama3_8b': Sizes(32, 4096, 32, 8, 128, 14336, 128_256, False),
  'llama3_70b': Sizes(80, 8192, 64, 8, 128, 28672, 128_256, False),
}
QWEN25 = {
  '0.5b': Sizes(24, 896, 14, 2, 64, 4864, 151_936, True),
  '1.5b': Sizes(28, 1536, 12, 2, 128, 8960, 151_936, True),
  '3b': Sizes(36, 2048, 16, 2, 128, 11008, 151_936, True),
  '7b': Sizes(28, 3584, 28, 4, 128, 18944, 152_064, False),
  '14b': Sizes(48, 5120, 40, 8, 128, 13824, 152_064, False),
  '32b': Sizes(64, 5120, 40, 8, 128, 27648, 152_064, False),
  '72b': Sizes(80, 8192, 64, 8, 128, 29568, 152_064, False),
}
QWEN3 = {
  'qwen3_0.6b': Sizes(28, 1024, 16, 8, 128, 3072, 151_936, True),
  'qwen3_1.7b': Sizes(28, 2048, 16, 8, 128, 6144, 151_936, True),
  'qwen3_4b': Sizes(36, 2560, 32, 8, 128, 9728, 151_936, True),
  'qwen3_8b': Sizes(36, 4096, 32, 8, 128, 12288, 151_936, False),
  'qwen3_14b': Sizes(40, 5120, 40, 8, 128, 17408, 151_936, False),
  'qwen3_32b': Sizes(64, 5120, 64, 8, 128, 25600, 151_936, False),
}
BY_NAME = {**GEMMA2, **GEMMA3, **LLAMA3, **QWEN3}
# Billions of parameters, as the families' authors state them; where tied, the
# embedding counts once.
STATED = {
  'gemma2_2b': 2.61,
  'gemma2_9b': 9.24,
  'gemma2_27b': 27.2,
  'gemma3_1b': 1.0,
  'llama3_1b': 1.24,
  'llama3_3b': 3.21,
  'llama3_8b': 8.03,
  'llama3_70b': 70.6,
  'qwen25_0.5b': 0.49,
  'qwen25_7b': 7.61,
  'qwen25_72b': 72.7,
  'qwen3_0.6b': 0.6,
  'qwen3_8b': 8.2,
  'qwen3_32b': 32.8,
}


def sizes_of(name: str) -> Sizes:
  return BY_NAME.get(name) or QWEN25[name.rpartition('_')[2]]


def architecture(name: str):
  """Returns the decoder of a model of the table."""
  sizes = sizes_of(name)
  kind = name.split('_')[0]
  family = {
    'gemma2': 'gemma2',
    'gemma3': 'gemma3_text',
    'llama3': 'llama',
    'qwen25': 'qwen2',
    'qwen3': 'qwen3',
  }[kind]
  return families.model_config(
    {
      'model_type': family,
      'num_hidden_layers': sizes.layers,
      'hidden_size': sizes.width,
      'num_attention_heads': sizes.heads,
      'num_key_value_heads': sizes.kv_heads,
      'head_dim': sizes.head_dim,
      'intermediate_size': sizes.mlp,
      'vocab_size': sizes.vocab,
      'tie_word_embeddings': sizes.tied,
    }
  )


def of_models():
  return [p for p in presets.PRESETS if p not in presets.PLAIN]


def by_hand(sizes: Sizes) -> int:
  """Returns the parameters of a model but for norms and biases."""
  heads = 2 * (sizes.heads + sizes.kv_heads) * sizes.head_dim
  layer = sizes.width * (heads + 3 * sizes.mlp)
  tables = (1 if sizes.tied else 2) * sizes.vocab * sizes.width
  return sizes.layers * layer + tables


@pytest.mark.parametrize('name', STATED)
def test_the_table_gives_the_parameters_that_the_authors_state(name):
  assert by_hand(sizes_of(name)) / 1e9 == pytest.approx(STATED[name], rel=0.02)


@pytest.mark.parametrize('name', models.MODELS)
def test_the_planner_knows_each_model_by_the_same_sizes(name):
  found = families.model_config(public.of_preset(f'{name}_math'))
  known = sizes_of(name)
  for ours, theirs in {
    'layers': found.layers,
    'width': found.width,
    'heads': found.heads,
    'kv_heads': found.kv_heads,
    'head_dim': found.head_dim,
    'mlp': found.mlp,
    'tied': found.tied_embeddings,
  }.items():
    assert getattr(known, ours) == theirs, ours


@pytest.mark.parametrize('preset', of_models())
def test_a_preset_fits_the_memory_of_its_slice(preset):
  config = presets.make('score', preset)
  name = preset.rpartition('_')[0]
  found = chips.parse(models.MODELS[name].slice)
  checks.check(config, found.devices)
  mesh = programs.abstract_mesh(config_lib.mesh_shape(config, found.devices))
  setup = programs.setup(config, architecture(name), mesh, INSTRUCTION)
  setup = fitting.decided(setup, found.chip.memory)
  assert setup.decoding.layout in ('gathered', 'tensor')
  moments = estimate.sampling_moments(setup) + estimate.update_moments(setup)
  most = estimate.peak(moments)
  assert most.total <= MARGIN * found.chip.memory, most


@pytest.mark.parametrize('name', models.MODELS)
def test_the_tensor_axis_divides_heads_and_key_heads(name):
  sizes, tensor = sizes_of(name), models.MODELS[name].tensor
  assert sizes.heads % tensor == sizes.kv_heads % tensor == 0


@pytest.mark.parametrize('task', presets.TASKS)
def test_a_model_takes_the_papers_numbers_of_its_task(task):
  plain = config_lib.flatten(presets.make('score', task))
  for preset in of_models():
    if preset.endswith(f'_{task}'):
      found = config_lib.flatten(presets.make('score', preset))
      for part in ('method.', 'optimizer.', 'train.stage', 'sampling.max'):
        mine = {k: v for k, v in found.items() if k.startswith(part)}
        assert mine == {k: v for k, v in plain.items() if k.startswith(part)}
      for name in ('train.trajectories', 'task.name', 'eval.temperature'):
        assert found[name] == plain[name]


def test_the_names_are_those_of_every_family_and_size():
  names = {p.rpartition('_')[0] for p in of_models()}
  assert names == set(models.MODELS)
  assert {*BY_NAME} == {n for n in names if not n.startswith('qwen25')}
  for kind, those in {
    '': QWEN25,
    'math_': ('1.5b', '7b', '72b'),
    'coder_': ('0.5b', '1.5b', '3b', '7b', '14b', '32b'),
  }.items():
    assert {f'qwen25_{kind}{size}' for size in those} <= names
  assert len(of_models()) == 2 * len(names)
  assert 'gemma2_2b_math' in presets.PRESETS


def test_a_preset_of_a_model_is_refused_without_its_folder():
  config = presets.make('score', 'gemma2_9b_mbpp')
  with pytest.raises(config_lib.ConfigError) as caught:
    base_model.model_folder(config)
  text = str(caught.value)
  for part in ("model.path=''", 'gemma2_9b_mbpp', 'google/gemma-2-9b-it'):
    assert part in text
  assert '--config.model.path=DIR' in text and '\n' not in text
