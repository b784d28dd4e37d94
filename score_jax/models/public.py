"""Which numbers do the public checkpoints have?

The part of each `config.json` on the Hugging Face hub that says how large a
model is, so that a run can be planned before anything is downloaded. What is
left out is the family's default, as in a `config.json` (see `families`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from score_jax.config import ConfigError, nearest

_GEMMA2 = {'model_type': 'gemma2'}
_GEMMA3 = {'model_type': 'gemma3_text', 'vocab_size': 262_208}
_LLAMA3 = {'model_type': 'llama', 'vocab_size': 128_256, 'head_dim': 128}
_QWEN25 = {'model_type': 'qwen2'}
_QWEN3 = {'model_type': 'qwen3', 'head_dim': 128}
_LINEAR8 = {'rope_scaling': {'rope_type': 'linear', 'factor': 8.0}}


def _sizes(family, width, mlp, layers, heads, kv_heads, **others):
  return {
    **family,
    'hidden_size': width,
    'intermediate_size': mlp,
    'num_hidden_layers': layers,
    'num_attention_heads': heads,
    'num_key_value_heads': kv_heads,
    **others,
  }


_TIED = {'tie_word_embeddings': True}
_QWEN_WIDE = {'vocab_size': 152_064}

CONFIGS: dict[str, Mapping[str, Any]] = {
  'gemma2_2b': _sizes(_GEMMA2, 2304, 9216, 26, 8, 4),
  'gemma2_9b': _sizes(_GEMMA2, 3584, 14336, 42, 16, 8),
  'gemma2_27b': _sizes(
    _GEMMA2, 4608, 36864, 46, 32, 16, head_dim=128, query_pre_attn_scalar=144
  ),
  'gemma3_1b': _sizes(_GEMMA3, 1152, 6912, 26, 4, 1, sliding_window=512)
  | {'vocab_size': 262_144},
  'gemma3_4b': _sizes(
    _GEMMA3, 2560, 10240, 34, 8, 4, sliding_window=1024, **_LINEAR8
  ),
  'gemma3_12b': _sizes(
    _GEMMA3, 3840, 15360, 48, 16, 8, sliding_window=1024, **_LINEAR8
  ),
  'gemma3_27b': _sizes(
    _GEMMA3,
    5376,
    21504,
    62,
    32,
    16,
    head_dim=128,
    query_pre_attn_scalar=168,
    sliding_window=1024,
    **_LINEAR8,
  ),
  'llama3_1b': _sizes(_LLAMA3, 2048, 8192, 16, 32, 8, **_TIED)
  | {'head_dim': 64},
  'llama3_3b': _sizes(_LLAMA3, 3072, 8192, 28, 24, 8, **_TIED),
  'llama3_8b': _sizes(_LLAMA3, 4096, 14336, 32, 32, 8),
  'llama3_70b': _sizes(_LLAMA3, 8192, 28672, 80, 64, 8),
  'qwen25_0.5b': _sizes(_QWEN25, 896, 4864, 24, 14, 2, **_TIED),
  'qwen25_1.5b': _sizes(_QWEN25, 1536, 8960, 28, 12, 2, **_TIED),
  'qwen25_3b': _sizes(_QWEN25, 2048, 11008, 36, 16, 2, **_TIED),
  'qwen25_7b': _sizes(_QWEN25, 3584, 18944, 28, 28, 4, **_QWEN_WIDE),
  'qwen25_14b': _sizes(_QWEN25, 5120, 13824, 48, 40, 8, **_QWEN_WIDE),
  'qwen25_32b': _sizes(_QWEN25, 5120, 27648, 64, 40, 8, **_QWEN_WIDE),
  'qwen25_72b': _sizes(_QWEN25, 8192, 29568, 80, 64, 8, **_QWEN_WIDE),
  'qwen3_0.6b': _sizes(_QWEN3, 1024, 3072, 28, 16, 8, **_TIED),
  'qwen3_1.7b': _sizes(_QWEN3, 2048, 6144, 28, 16, 8, **_TIED),
  'qwen3_4b': _sizes(_QWEN3, 2560, 9728, 36, 32, 8, **_TIED),
  'qwen3_8b': _sizes(_QWEN3, 4096, 12288, 36, 32, 8),
  'qwen3_14b': _sizes(_QWEN3, 5120, 17408, 40, 40, 8),
  'qwen3_32b': _sizes(_QWEN3, 5120, 25600, 64, 64, 8),
}


# Those that were trained on, for mathematics or code, keep their sizes.
CONFIGS |= {
  f'qwen25_{kind}_{size}': CONFIGS[f'qwen25_{size}']
  for kind, sizes in (
    ('math', ('1.5b', '7b', '72b')),
    ('coder', ('0.5b', '1.5b', '3b', '7b', '14b', '32b')),
  )
  for size in sizes
}


def get(name: str) -> Mapping[str, Any]:
  """Returns the numbers of a public model.

  Raises:
    ConfigError: if none of that name is known.
  """
  if name not in CONFIGS:
    raise ConfigError(
      f'--model must be one of {", ".join(CONFIGS)}; got '
      f'{name!r}{nearest(name, CONFIGS)}.'
    )
  return CONFIGS[name]


def of_preset(preset: str) -> Mapping[str, Any] | None:
  """Returns the numbers of the model that a preset's name begins with.

  `gemma2_2b_math` is gemma2_2b on MATH; None where no model is named.
  """
  for name, numbers in CONFIGS.items():
    if (preset + '_').startswith(name + '_'):
      return numbers
  return None
