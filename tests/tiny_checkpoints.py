"""Small random checkpoints of every family, written by transformers."""

import pytest

WHY = 'the logits to compare with are computed by transformers, in torch'
torch = pytest.importorskip('torch', reason=WHY)
transformers = pytest.importorskip('transformers', reason=WHY)

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(1)

_SMALL = {
  'vocab_size': 96,
  'hidden_size': 32,
  'intermediate_size': 48,
  'num_hidden_layers': 3,
  'num_attention_heads': 4,
  'num_key_value_heads': 2,
  'head_dim': 16,
  'bos_token_id': None,
  'eos_token_id': None,
  'pad_token_id': None,
}
_LLAMA3 = {
  'rope_type': 'llama3',
  'factor': 8.0,
  'low_freq_factor': 1.0,
  'high_freq_factor': 4.0,
  'original_max_position_embeddings': 64,
}
_LINEAR = {'rope_type': 'linear', 'factor': 8.0}
_GEMMA3 = {
  'num_hidden_layers': 6,  # Five slide, then one sees everything.
  'sliding_window': 5,
  'query_pre_attn_scalar': 24,
  'rope_scaling': _LINEAR,
}
# One case of each family.
FAMILIES = (
  'gemma2',
  'gemma3_text',
  'llama 3, tied',
  'qwen2 with windows',
  'qwen3',
)
# Windows, soft caps and wave lengths are so small that each of them bites
# within the 24 tokens that tests compare.
CASES = {
  'gemma2': {
    'sliding_window': 5,
    'query_pre_attn_scalar': 24,
    'attn_logit_softcapping': 2.0,
    'final_logit_softcapping': 3.0,
  },
  'gemma2 biased, not capped, untied': {
    'attention_bias': True,
    'attn_logit_softcapping': None,
    'final_logit_softcapping': None,
    'tie_word_embeddings': False,
  },
  'gemma3_text': _GEMMA3,
  'gemma3_text capped, layers listed': {
    'layer_types': ['full_attention', 'sliding_attention', 'full_attention'],
    'sliding_window': 5,
    'final_logit_softcapping': 3.0,
    'rope_theta': 500.0,
    'rope_local_base_freq': 50.0,
  },
  'gemma3 with vision': {
    'text_config': {**_SMALL, **_GEMMA3},
    'vision_config': {
      'hidden_size': 16,
      'intermediate_size': 16,
      'num_hidden_layers': 1,
      'num_attention_heads': 2,
      'image_size': 28,
      'patch_size': 14,
    },
    'image_token_index': 95,
    'boi_token_index': 94,
    'eoi_token_index': 93,
    'mm_tokens_per_image': 1,
  },
  'llama': {'num_key_value_heads': None, 'head_dim': None},
  'llama 3, tied': {
    'rope_theta': 500.0,
    'rope_scaling': _LLAMA3,
    'tie_word_embeddings': True,
  },
  'llama biased, linear rope': {
    'attention_bias': True,
    'mlp_bias': True,
    'rope_scaling': _LINEAR,
  },
  'qwen2, tied': {'tie_word_embeddings': True, 'head_dim': 8},
  'qwen2 with windows': {
    'use_sliding_window': True,
    'sliding_window': 5,
    'max_window_layers': 1,
    'rope_theta': 1e6,
  },
  'qwen3': {'rope_theta': 1e6},
  'qwen3 biased, tied, with windows': {
    'attention_bias': True,
    'tie_word_embeddings': True,
    'use_sliding_window': True,
    'sliding_window': 5,
    'max_window_layers': 2,
  },
}


def _randomize(model) -> None:
  """Draws all weights, for norms of 1 and biases of 0 would hide mistakes."""
  generator = torch.Generator().manual_seed(1)
  with torch.no_grad():
    for parameter in model.parameters():
      noise = torch.randn(parameter.shape, generator=generator)
      if parameter.ndim > 1:
        parameter.copy_(noise * parameter.shape[-1] ** -0.5)
      else:
        parameter.add_(0.3 * noise)


def build(case: str, dtype: str = 'float32', **changes):
  """Returns a model of transformers with eager attention, weights random.

  Args:
    case: of CASES; its first word is the model_type.
    dtype: of the weights.
    **changes: to the settings of the case.
  """
  family = case.replace(',', '').split()[0]
  small = {} if family == 'gemma3' else _SMALL
  settings = {**small, **CASES[case], **changes}
  config = transformers.AutoConfig.for_model(family, **settings)
  kind = transformers.AutoModelForCausalLM
  if family == 'gemma3':
    kind = transformers.AutoModelForImageTextToText
  model = kind.from_config(config, attn_implementation='eager')
  _randomize(model)
  return model.to(getattr(torch, dtype)).eval()


def logits(model, tokens, mask=None):
  """Returns float32[B, T, V], what a model of transformers makes of tokens."""
  tokens = torch.tensor(tokens, dtype=torch.int64)
  mask = None if mask is None else torch.tensor(mask, dtype=torch.int64)
  with torch.no_grad():
    return model(tokens, attention_mask=mask).logits.float().numpy()
