"""What config.json says is what the decoder is; what it has not is refused."""

import pytest

from score_jax.config import ConfigError
from score_jax.models import families
from score_jax.models.architecture import Rope

# Files of the hub, as they are there but for keys that say nothing.
GEMMA2_2B = {
  'architectures': ['Gemma2ForCausalLM'],
  'attention_bias': False,
  'attention_dropout': 0.0,
  'attn_logit_softcapping': 50.0,
  'cache_implementation': 'hybrid',
  'eos_token_id': 1,
  'final_logit_softcapping': 30.0,
  'head_dim': 256,
  'hidden_act': 'gelu_pytorch_tanh',
  'hidden_activation': 'gelu_pytorch_tanh',
  'hidden_size': 2304,
  'intermediate_size': 9216,
  'max_position_embeddings': 8192,
  'model_type': 'gemma2',
  'num_attention_heads': 8,
  'num_hidden_layers': 26,
  'num_key_value_heads': 4,
  'query_pre_attn_scalar': 256,
  'rms_norm_eps': 1e-06,
  'rope_theta': 10000.0,
  'sliding_window': 4096,
  'torch_dtype': 'float32',
  'vocab_size': 256000,
}
GEMMA3_27B = {
  'architectures': ['Gemma3ForConditionalGeneration'],
  'boi_token_index': 255999,
  'eos_token_id': [1, 106],
  'mm_tokens_per_image': 256,
  'model_type': 'gemma3',
  'text_config': {
    'head_dim': 128,
    'hidden_size': 5376,
    'intermediate_size': 21504,
    'model_type': 'gemma3_text',
    'num_attention_heads': 32,
    'num_hidden_layers': 62,
    'num_key_value_heads': 16,
    'query_pre_attn_scalar': 168,
    'rope_scaling': {'factor': 8.0, 'rope_type': 'linear'},
    'sliding_window': 1024,
  },
  'vision_config': {'hidden_size': 1152, 'num_attention_heads': 16},
}
LLAMA_1B = {
  'architectures': ['LlamaForCausalLM'],
  'attention_bias': False,
  'head_dim': 64,
  'hidden_act': 'silu',
  'hidden_size': 2048,
  'intermediate_size': 8192,
  'max_position_embeddings': 131072,
  'mlp_bias': False,
  'model_type': 'llama',
  'num_attention_heads': 32,
  'num_hidden_layers': 16,
  'num_key_value_heads': 8,
  'pretraining_tp': 1,
  'rms_norm_eps': 1e-05,
  'rope_scaling': {
    'factor': 32.0,
    'high_freq_factor': 4.0,
    'low_freq_factor': 1.0,
    'original_max_position_embeddings': 8192,
    'rope_type': 'llama3',
  },
  'rope_theta': 500000.0,
  'tie_word_embeddings': True,
  'vocab_size': 128256,
}
QWEN_MATH_7B = {
  'architectures': ['Qwen2ForCausalLM'],
  'hidden_act': 'silu',
  'hidden_size': 3584,
  'intermediate_size': 18944,
  'max_position_embeddings': 4096,
  'max_window_layers': 28,
  'model_type': 'qwen2',
  'num_attention_heads': 28,
  'num_hidden_layers': 28,
  'num_key_value_heads': 4,
  'rms_norm_eps': 1e-06,
  'rope_theta': 10000,
  'sliding_window': 4096,
  'tie_word_embeddings': False,
  'use_mrope': False,
  'use_sliding_window': False,
  'vocab_size': 152064,
}


def test_gemma_2_alternates_windows_and_caps_scores():
  config = families.model_config(GEMMA2_2B)
  assert config.window_of_layer == (4096, 0) * 13
  assert config.attention_softcap == 50.0
  assert config.final_softcap == 30.0
  assert config.query_scale == 256**-0.5
  assert config.embedding_scale == 48.0
  assert config.tied_embeddings
  assert config.post_norms
  assert config.norm_offset == 1.0


def test_gemma_3_with_vision_is_its_text_part_with_the_defaults_it_omits():
  config = families.model_config(GEMMA3_27B)
  assert config.window_of_layer == ((1024,) * 5 + (0,)) * 10 + (1024, 1024)
  assert config.ropes == (Rope(1e6, 'linear', 8.0), Rope(1e4))
  assert config.rope_of_layer == ((1,) * 5 + (0,)) * 10 + (1, 1)
  assert config.vocab_size == 262_208
  assert config.query_scale == 168**-0.5
  assert config.tied_embeddings
  assert config.query_key_norms


def test_llama_3_stretches_its_angles():
  config = families.model_config(LLAMA_1B)
  assert config.ropes == (Rope(5e5, 'llama3', 32.0, 1.0, 4.0, 8192),)
  assert config.window_of_layer == (0,) * 16
  assert config.norm_eps == 1e-5
  assert not config.query_key_value_bias


def test_qwen_2_has_biases_and_no_window_unless_it_says_so():
  config = families.model_config(QWEN_MATH_7B)
  assert config.query_key_value_bias
  assert not config.output_bias
  assert config.window_of_layer == (0,) * 28
  assert config.head_dim == 128
  slid = {**QWEN_MATH_7B, 'use_sliding_window': True, 'max_window_layers': 20}
  config = families.model_config(slid)
  assert config.window_of_layer == (0,) * 20 + (4096,) * 8


@pytest.mark.parametrize(
  ('base', 'changes', 'named'),
  (
    (LLAMA_1B, {'model_type': 'mixtral'}, "model_type='mixtral'"),
    (LLAMA_1B, {'model_type': 'lama'}, 'did you mean llama?'),
    (LLAMA_1B, {'model_type': None}, 'model_type=None'),
    (LLAMA_1B, {'num_local_experts': 8}, 'num_local_experts=8'),
    (LLAMA_1B, {'quantization_config': {'bits': 4}}, 'quantization_config'),
    (LLAMA_1B, {'compression_config': {'format': 'x'}}, 'compression_config'),
    (LLAMA_1B, {'auto_map': {'AutoModel': 'x.Y'}}, 'auto_map'),
    (LLAMA_1B, {'rope_interleaved': True}, 'rope_interleaved=True'),
    (LLAMA_1B, {'model_type': 'qwen3_moe'}, "model_type='qwen3_moe'"),
    (QWEN_MATH_7B, {'num_experts': 64}, 'num_experts=64'),
    (QWEN_MATH_7B, {'mlp_bias': True}, 'mlp_bias=True'),
    (QWEN_MATH_7B, {'attention_bias': True}, 'attention_bias=True'),
    (GEMMA2_2B, {'use_sliding_window': True}, 'use_sliding_window=True'),
    (
      GEMMA2_2B,
      {'rope_parameters': {'rope_type': 'proportional', 'rope_theta': 1e4}},
      "rope_parameters.rope_type='proportional'",
    ),
    (
      LLAMA_1B,
      {'rope_scaling': {'rope_type': 'default', 'partial_rotary_factor': 0.5}},
      'rope_scaling.partial_rotary_factor=0.5',
    ),
    (LLAMA_1B, {'pretraining_tp': 2}, 'pretraining_tp=2'),
    (LLAMA_1B, {'partial_rotary_factor': 0.5}, 'partial_rotary_factor=0.5'),
    (LLAMA_1B, {'hidden_act': 'gelu'}, "hidden_act='gelu'"),
    (LLAMA_1B, {'sliding_window': 512}, 'sliding_window=512'),
    (LLAMA_1B, {'num_key_value_heads': 5}, 'num_key_value_heads=5'),
    (LLAMA_1B, {'hidden_size': '2048'}, "hidden_size='2048'"),
    (LLAMA_1B, {'rms_norm_eps': None}, 'rms_norm_eps=None'),
    (
      LLAMA_1B,
      {'architectures': ['LlamaForSequenceClassification']},
      'LlamaForSequenceClassification',
    ),
    (
      LLAMA_1B,
      {'rope_scaling': {'type': 'dynamic', 'factor': 2.0}},
      "rope_scaling.rope_type='dynamic'",
    ),
    (
      LLAMA_1B,
      {'rope_scaling': {'rope_type': 'llama3', 'factor': 2.0}},
      'rope_scaling.low_freq_factor=None',
    ),
    (
      QWEN_MATH_7B,
      {'rope_scaling': {'type': 'yarn', 'factor': 4.0}},
      "rope_scaling.rope_type='yarn'",
    ),
    (
      QWEN_MATH_7B,
      {'rope_parameters': {'rope_type': 'longrope', 'rope_theta': 1e4}},
      "rope_parameters.rope_type='longrope'",
    ),
    (
      QWEN_MATH_7B,
      {'rope_scaling': {'type': 'linear', 'factor': 2.0, 'mrope_section': [1]}},
      'rope_scaling.mrope_section=[1]',
    ),
    (QWEN_MATH_7B, {'use_mrope': True}, 'use_mrope=True'),
    (
      QWEN_MATH_7B,
      {'layer_types': ['sliding_attention'] * 28},
      'sliding_window=None',
    ),
    (QWEN_MATH_7B, {'layer_types': ['full_attention']}, 'a list of 1'),
    (
      GEMMA2_2B,
      {'layer_types': ['chunked_attention'] * 26},
      "['chunked_attention']",
    ),
    (GEMMA2_2B, {'sliding_window': None}, 'sliding_window=None'),
    (
      GEMMA2_2B,
      {'use_bidirectional_attention': True},
      'use_bidirectional_attention=True',
    ),
    (
      {**GEMMA3_27B['text_config'], 'attn_logit_softcapping': 50.0},
      {},
      'attn_logit_softcapping=50.0',
    ),
  ),
)
def test_what_is_not_covered_is_refused_by_name(base, changes, named):
  with pytest.raises(ConfigError) as refused:
    families.model_config({**base, **changes})
  text = str(refused.value)
  assert named in text
  assert text.startswith('config.json: ')
  assert '\n' not in text


def test_a_key_of_which_nothing_is_known_is_named():
  hf = {**LLAMA_1B, 'surprise': 3, 'nothing': None, 'use_cache': True}
  assert families.unknown_keys(hf) == ('surprise',)
  inner = {**GEMMA3_27B['text_config'], 'surprise': 3}
  assert families.unknown_keys({**GEMMA3_27B, 'text_config': inner}) == (
    'surprise',
  )
