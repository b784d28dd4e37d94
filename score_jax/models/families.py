"""Gemma, Llama and Qwen: their `config.json` to ours.

What a family leaves out of its `config.json` stands for the default that
`transformers` has for it; those defaults are tabled here. An option that the
decoder does not have is refused by name, for run without it a checkpoint
gives plausible nonsense.

Letters: L layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from score_jax.config import ConfigError, nearest
from score_jax.models.architecture import ModelConfig, Rope

_SIZES = {
  'vocab_size': 32000,
  'hidden_size': 4096,
  'intermediate_size': 11008,
  'num_hidden_layers': 32,
  'num_attention_heads': 32,
  'num_key_value_heads': None,  # None: as many as there are heads.
  'head_dim': None,  # None: hidden_size / num_attention_heads.
  'max_position_embeddings': 2048,
  'rms_norm_eps': 1e-6,
  'rope_theta': 10_000.0,
  'rope_scaling': None,  # How checkpoints of transformers 4 write it,
  'rope_parameters': None,  # and those of transformers 5.
  'tie_word_embeddings': False,
}
_LLAMA = {
  **_SIZES,
  'hidden_act': 'silu',
  'attention_bias': False,
  'mlp_bias': False,
}
_QWEN2 = {
  **_SIZES,
  'vocab_size': 151_936,
  'intermediate_size': 22016,
  'num_key_value_heads': 32,
  'max_position_embeddings': 32768,
  'hidden_act': 'silu',
  'use_sliding_window': False,
  'sliding_window': 4096,
  'max_window_layers': 28,
  'layer_types': None,
}
_QWEN3 = {**_QWEN2, 'head_dim': 128, 'attention_bias': False}
_GEMMA = {
  **_SIZES,
  'vocab_size': 256_000,
  'hidden_size': 2304,
  'intermediate_size': 9216,
  'num_hidden_layers': 26,
  'num_attention_heads': 8,
  'num_key_value_heads': 4,
  'head_dim': 256,
  'max_position_embeddings': 8192,
  'tie_word_embeddings': True,
  'hidden_activation': 'gelu_pytorch_tanh',
  'attention_bias': False,
  'query_pre_attn_scalar': 256,
  'sliding_window': 4096,
  'layer_types': None,
}
_GEMMA2 = {
  **_GEMMA,
  'attn_logit_softcapping': 50.0,
  'final_logit_softcapping': 30.0,
}
# Its files may have attn_logit_softcapping, but its attention caps nothing.
_GEMMA3 = {
  **_GEMMA,
  'vocab_size': 262_208,
  'max_position_embeddings': 131_072,
  'rope_theta': 1_000_000.0,
  'rope_local_base_freq': 10_000.0,
  'sliding_window_pattern': 6,
  'final_logit_softcapping': None,
}

_DEFAULTS: dict[str, dict[str, Any]] = {
  'gemma2': _GEMMA2,
  'gemma3_text': _GEMMA3,
  'llama': _LLAMA,
  'qwen2': _QWEN2,
  'qwen3': _QWEN3,
}
FAMILIES = (*_DEFAULTS, 'gemma3')  # The last holds a gemma3_text and a vision.

# Keys that change nothing here: bookkeeping, tokens and their sampling, what
# transformers does in training alone, and what is about images alone.
_IRRELEVANT = """
  model_type architectures transformers_version _name_or_path name_or_path
  _commit_hash dtype torch_dtype unsloth_fixed unsloth_version
  bos_token_id eos_token_id pad_token_id unk_token_id sep_token_id
  decoder_start_token_id forced_bos_token_id forced_eos_token_id
  use_cache cache_implementation do_sample temperature top_k top_p typical_p
  repetition_penalty length_penalty no_repeat_ngram_size num_beams max_length
  min_length early_stopping bad_words_ids begin_suppress_tokens
  suppress_tokens diversity_penalty encoder_no_repeat_ngram_size
  exponential_decay_length_penalty num_beam_groups num_return_sequences
  output_scores remove_invalid_values return_dict_in_generate
  attention_dropout initializer_range gradient_checkpointing
  output_attentions output_hidden_states return_dict chunk_size_feed_forward
  attn_implementation _attn_implementation _attn_implementation_autoset
  id2label label2id num_labels problem_type finetuning_task prefix
  task_specific_params tokenizer_class torchscript tf_legacy_loss
  use_bfloat16 is_decoder tie_encoder_decoder cross_attention_hidden_size
  _sliding_window_pattern hidden_act text_config vision_config
  mm_tokens_per_image boi_token_index eoi_token_index image_token_index
  boi_token_id eoi_token_id image_token_id
  """
# Keys of other architectures, of other code or of quantized weights that
# change the computation unless they are off.
_OTHERS = """
  num_experts num_local_experts n_routed_experts num_experts_per_tok
  moe_intermediate_size decoder_sparse_step auto_map
  quantization_config compression_config quantization
  use_bidirectional_attention is_encoder_decoder add_cross_attention
  per_layer_config pruned_heads use_mrope mrope_section
  original_max_position_embeddings rotary_pct rotary_dim alibi use_alibi
  rope_interleave rope_interleaved qkv_bias use_qkv_bias use_bias
  no_rope_layers no_rope_layer_interval use_logn_attn use_dynamic_ntk
  attn_temperature_tuning attention_chunk_size attention_multiplier
  residual_multiplier embedding_multiplier logits_scaling logit_scale
  scale_emb scale_depth dim_model_base clip_qkv qk_norm use_qk_norm qk_layernorm
  parallel_attn use_parallel_residual num_kv_shared_layers
  hidden_size_per_layer_input altup_num_inputs laurel_rank
  activation_sparsity_pattern num_nextn_predict_layers
  """
_HARMLESS = frozenset(_IRRELEVANT.split())
_REFUSED = frozenset(_OTHERS.split())
_ONLY = {'pretraining_tp': 1, 'partial_rotary_factor': 1.0}
_ACTIVATIONS = {
  'silu': 'silu',
  'swish': 'silu',
  'gelu_pytorch_tanh': 'gelu_tanh',
}
_ROPE_KEYS = {
  'default': (),
  'linear': ('factor',),
  'llama3': (
    'factor',
    'low_freq_factor',
    'high_freq_factor',
    'original_max_position_embeddings',
  ),
}


def _refuse(key: str, value: Any, remedy: str) -> None:
  raise ConfigError(f'config.json: {key}={value!r} is not covered; {remedy}.')


def model_config(hf: Mapping[str, Any]) -> ModelConfig:
  """Returns the architecture that a `config.json` of the hub describes.

  Args:
    hf: the parsed file, as written by transformers 4 or 5.

  Raises:
    ConfigError: the family or an option of it is not covered; one line that
      names the key, its value and the remedy.
  """
  text = _text(hf)
  _refuse_uncovered(hf, text)
  c = {k: text.get(k, v) for k, v in _DEFAULTS[text['model_type']].items()}
  _check_sizes(c)
  ropes = _ropes(c)
  slides = _slides(c)
  return ModelConfig(
    vocab_size=c['vocab_size'],
    layers=c['num_hidden_layers'],
    width=c['hidden_size'],
    heads=c['num_attention_heads'],
    kv_heads=c['num_key_value_heads'],
    head_dim=c['head_dim'],
    mlp=c['intermediate_size'],
    activation=_activation(c),
    norm_eps=c['rms_norm_eps'],
    query_scale=c.get('query_pre_attn_scalar', c['head_dim']) ** -0.5,
    tied_embeddings=_is_tied(hf, c),
    ropes=ropes,
    rope_of_layer=tuple(s if len(ropes) > 1 else 0 for s in slides),
    window_of_layer=tuple(c['sliding_window'] if s else 0 for s in slides),
    **_character(text['model_type'], c),
  )


def positions(hf: Mapping[str, Any]) -> int:
  """Returns how many columns a `config.json` says that a model was made for.

  Args:
    hf: the parsed file, of a model that is covered.
  """
  text = _text(hf)
  key = 'max_position_embeddings'
  return text.get(key) or _DEFAULTS[text['model_type']][key]


def _character(family: str, c: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the fields in which families differ whatever the sizes."""
  gemma = family.startswith('gemma')
  bias = bool(c.get('attention_bias', False))
  return {
    'norm_offset': 1.0 if gemma else 0.0,
    'norm_rounds_first': not gemma,
    'post_norms': gemma,
    'query_key_norms': family in ('gemma3_text', 'qwen3'),
    'query_key_value_bias': bias or family == 'qwen2',
    'output_bias': bias,
    'mlp_bias': bool(c.get('mlp_bias', False)),
    'embedding_scale': c['hidden_size'] ** 0.5 if gemma else 1.0,
    'attention_softcap': c.get('attn_logit_softcapping') or 0.0,
    'final_softcap': c.get('final_logit_softcapping') or 0.0,
  }


def unknown_keys(hf: Mapping[str, Any]) -> tuple[str, ...]:
  """Returns the keys that are set and of which nothing is known here.

  Files on the hub carry many harmless ones, and transformers passes over
  them too, so they are for a warning, not for a refusal.
  """
  text = _text(hf)
  known = {*_HARMLESS, *_REFUSED, *_ONLY, *_DEFAULTS[text['model_type']]}
  merged = {**text, **hf}
  return tuple(sorted(k for k, v in merged.items() if k not in known and v))


def _text(hf: Mapping[str, Any]) -> Mapping[str, Any]:
  """Returns the part that describes the decoder, its model_type covered."""
  family = hf.get('model_type')
  if family not in FAMILIES:
    hint = nearest(str(family), FAMILIES)
    _refuse('model_type', family, f'use one of {", ".join(FAMILIES)}{hint}')
  if family != 'gemma3':
    return hf
  text = hf.get('text_config') or {}
  return {**text, 'model_type': 'gemma3_text'}


def _refuse_uncovered(hf: Mapping[str, Any], text: Mapping[str, Any]) -> None:
  """Refuses options that would have to change the computation."""
  for name in hf.get('architectures') or ():
    if not name.endswith(('ForCausalLM', 'ForConditionalGeneration')):
      _refuse('architectures', [name], 'use a checkpoint of a language model')
  mine = _DEFAULTS[text['model_type']]
  others = {key for keys in _DEFAULTS.values() for key in keys} - {*mine}
  for key, value in {**hf, **text}.items():
    if key in _ONLY and value not in (None, _ONLY[key]):
      _refuse(key, value, f'only {_ONLY[key]} is')
    strange = key in _REFUSED or key in others - _HARMLESS
    if strange and value:
      _refuse(key, value, 'use a checkpoint without it, or with it off')


def _check_sizes(c: dict[str, Any]) -> None:
  """Fills in the sizes that follow from others; refuses what is no size."""
  if c['num_key_value_heads'] is None:
    c['num_key_value_heads'] = c['num_attention_heads']
  if c['head_dim'] is None:
    c['head_dim'] = c['hidden_size'] // c['num_attention_heads']
  sizes = ('vocab_size', 'hidden_size', 'intermediate_size', 'head_dim')
  counts = ('num_hidden_layers', 'num_attention_heads', 'num_key_value_heads')
  for key in sizes + counts:
    if not isinstance(c[key], int) or c[key] < 1:
      _refuse(key, c[key], 'it must be a whole number of at least 1')
  if c['num_attention_heads'] % c['num_key_value_heads']:
    _refuse(
      'num_key_value_heads',
      c['num_key_value_heads'],
      f'it must divide num_attention_heads={c["num_attention_heads"]}',
    )
  if c['head_dim'] % 2:
    _refuse('head_dim', c['head_dim'], 'rotary halves need an even number')
  for key in ('rms_norm_eps', *{'query_pre_attn_scalar'}.intersection(c)):
    _positive(key, c[key])


def _positive(key: str, value: Any) -> None:
  if not isinstance(value, int | float) or value <= 0:
    _refuse(key, value, 'it must be a number above 0')


def _activation(c: Mapping[str, Any]) -> str:
  key = 'hidden_activation' if 'hidden_activation' in c else 'hidden_act'
  if c[key] not in _ACTIVATIONS:
    _refuse(key, c[key], f'use one of {", ".join(_ACTIVATIONS)}')
  return _ACTIVATIONS[c[key]]


def _is_tied(hf: Mapping[str, Any], c: Mapping[str, Any]) -> bool:
  # With a vision part the whole model's setting counts, not the text part's.
  if hf['model_type'] == 'gemma3':
    return hf.get('tie_word_embeddings', True)
  return c['tie_word_embeddings']


def _slides(c: Mapping[str, Any]) -> tuple[bool, ...]:
  """Returns for each of L layers whether it sees a window alone."""
  layers, kinds = c['num_hidden_layers'], c.get('layer_types')
  if kinds is None:
    slides = _usual_slides(c, layers)
  else:
    slides = _listed_slides(kinds, layers)
  window = c.get('sliding_window')
  off = not c.get('use_sliding_window', True)
  if any(slides) and (off or not isinstance(window, int) or window < 1):
    _refuse('sliding_window', None if off else window, 'layers slide over it')
  return slides


def _listed_slides(kinds: Sequence[str], layers: int) -> tuple[bool, ...]:
  for kind in kinds:
    if kind not in ('full_attention', 'sliding_attention'):
      _refuse('layer_types', [kind], 'use full_attention or sliding_attention')
  if len(kinds) != layers:
    _refuse(
      'layer_types',
      f'a list of {len(kinds)}',
      f'it must have one entry for each of num_hidden_layers={layers}',
    )
  return tuple(kind == 'sliding_attention' for kind in kinds)


def _usual_slides(c: Mapping[str, Any], layers: int) -> tuple[bool, ...]:
  """Returns which layers slide where the file does not list them."""
  if 'max_window_layers' in c:  # Qwen: the first so many see everything.
    whole = c['max_window_layers'] if c['use_sliding_window'] else layers
    return tuple(i >= whole for i in range(layers))
  if 'sliding_window' not in c:
    return (False,) * layers
  every = c.get('sliding_window_pattern', 2)  # Gemma: every so many-th does.
  return tuple((i + 1) % every != 0 for i in range(layers))


def _ropes(c: Mapping[str, Any]) -> tuple[Rope, ...]:
  """Returns the angles of all layers, or of whole and of sliding ones."""
  if 'rope_local_base_freq' not in c:
    key = 'rope_scaling' if c['rope_scaling'] else 'rope_parameters'
    return (_rope(key, c[key] or {}, c['rope_theta'], c),)
  nested = dict(c['rope_parameters'] or {})
  whole = {**(nested.pop('full_attention', None) or {})}
  near = nested.pop('sliding_attention', None) or {}
  if nested:
    key, value = next(iter(nested.items()))
    _refuse(f'rope_parameters.{key}', value, 'set it per kind of layer')
  key = 'rope_scaling' if c['rope_scaling'] else 'rope_parameters'
  whole.update(c['rope_scaling'] or {})
  return (
    _rope(key, whole, c['rope_theta'], c),
    _rope('rope_parameters', near, c['rope_local_base_freq'], c),
  )


def _rope(
  where: str, given: Mapping[str, Any], theta: float, c: Mapping[str, Any]
) -> Rope:
  """Returns the angles that one table of rotary settings describes.

  Args:
    where: the key of the table, for a refusal.
    given: the table.
    theta: the base, unless the table has its own.
    c: the rest of the file, for the positions a scaling starts from.
  """
  kind = given.get('rope_type', given.get('type', 'default'))
  if kind not in _ROPE_KEYS:
    remedy = f'use one of {", ".join(_ROPE_KEYS)}, or remove {where}'
    _refuse(f'{where}.rope_type', kind, remedy)
  for key, value in given.items():
    if key == 'partial_rotary_factor' and value in (None, 1.0):
      continue
    known = ('rope_type', 'type', 'rope_theta', *_ROPE_KEYS[kind])
    if key not in known and value:
      _refuse(f'{where}.{key}', value, f'rope_type={kind} has no such number')
  numbers = {
    'rope_theta': theta,
    'original_max_position_embeddings': c['max_position_embeddings'],
    **{k: v for k, v in given.items() if k not in ('rope_type', 'type')},
  }
  for key in ('rope_theta', *_ROPE_KEYS[kind]):
    _positive(f'{where}.{key}', numbers.get(key))
  return _scaled(kind, numbers)


def _scaled(kind: str, numbers: Mapping[str, Any]) -> Rope:
  theta = float(numbers['rope_theta'])
  if kind == 'default':
    return Rope(theta)
  if kind == 'linear':
    return Rope(theta, 'linear', numbers['factor'])
  return Rope(
    theta,
    'llama3',
    numbers['factor'],
    numbers['low_freq_factor'],
    numbers['high_freq_factor'],
    numbers['original_max_position_embeddings'],
  )
