"""Gemma, Llama and Qwen: their tensors' names to our parameters.

One map drives import and export, so that the two cannot drift apart.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

from score_jax.models.architecture import ModelConfig

_Axes = tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True)
class Tensor:
  """Where one of our parameters lies in a checkpoint, and how it is turned.

  Stacked parameters, those below 'layers', have one tensor per layer; `axes`
  are then those of one layer.
  """

  name: str  # In the checkpoint; '{}' is the layer.
  path: tuple[str, ...]  # In our parameters.
  # For each axis of the checkpoint's tensor, which axes of ours it runs over:
  # a query kernel [D, N, H] is stored as [N H, D], which is ((1, 2), (0,)).
  axes: _Axes

  @property
  def is_stacked(self) -> bool:
    """Whether the parameter holds one of these per layer."""
    return self.path[0] == 'layers'


@dataclasses.dataclass(frozen=True)
class Layout:
  """How the names of a checkpoint begin."""

  body: str = 'model.'
  head: str = 'lm_head.weight'


# The text part of Gemma 3 with vision, as on the hub and as held in memory.
_LAYOUTS = (
  Layout(),
  Layout('language_model.model.', 'language_model.lm_head.weight'),
  Layout('model.language_model.', 'lm_head.weight'),
)
# Tensors beside the decoder: they are passed over, and exported as they came.
_BESIDE = re.compile(r'\.rotary_emb\.inv_freq$')
_BESIDE_TEXT = re.compile(r'^(model\.)?(vision_tower|multi_modal_projector)\.')


def layout(names: Container[str]) -> Layout:
  """Returns how the tensors of a checkpoint are named; else the usual way."""
  for each in _LAYOUTS:
    if f'{each.body}embed_tokens.weight' in names:
      return each
  return _LAYOUTS[0]


def is_beside(hf: Mapping[str, Any], name: str) -> bool:
  """Whether a tensor of a checkpoint is none of the decoder's parameters."""
  vision = hf['model_type'] == 'gemma3' and _BESIDE_TEXT.search(name)
  return bool(vision or _BESIDE.search(name))


def tensors(config: ModelConfig, names: Layout) -> tuple[Tensor, ...]:
  """Returns where every parameter lies in a checkpoint; serves both ways.

  Args:
    config: the architecture.
    names: how the names begin.
  """
  body = names.body
  outer = [
    Tensor(f'{body}embed_tokens.weight', ('embedding',), ((0,), (1,))),
    Tensor(f'{body}norm.weight', ('final_norm', 'scale'), ((0,),)),
  ]
  if not config.tied_embeddings:
    outer.append(Tensor(names.head, ('head',), ((0,), (1,))))
  inner = (*_projections(config), *_norms(config))
  return (
    *outer,
    *(
      Tensor(f'{body}layers.{{}}.{name}', ('layers', *path), axes)
      for name, path, axes in inner
    ),
  )


def adapter_tensors(
  config: ModelConfig, hf: Mapping[str, Any]
) -> tuple[Tensor, ...]:
  """Returns where the matrices of an adapter lie in a folder of PEFT.

  Args:
    config: the architecture.
    hf: the base model's `config.json`.
  """
  # Modules as they are named in memory, which with vision is not as in files.
  body = _LAYOUTS[2 if hf['model_type'] == 'gemma3' else 0].body
  found = []
  for theirs, ours, axes in _projections(config):
    if ours[-1] == 'bias':
      continue
    outputs, inputs = (len(group) for group in axes)
    name = (
      f'base_model.model.{body}layers.{{}}.{theirs.removesuffix(".weight")}'
    )
    path = ('layers', *ours[:-1])
    a = ((inputs,), tuple(range(inputs)))
    b = (tuple(range(1, outputs + 1)), (0,))
    found.append(Tensor(f'{name}.lora_A.weight', (*path, 'lora_a'), a))
    found.append(Tensor(f'{name}.lora_B.weight', (*path, 'lora_b'), b))
  return tuple(found)


def adapter_modules(
  config: ModelConfig, hf: Mapping[str, Any], targets: Sequence[str]
) -> list[str] | str:
  """Returns what PEFT is told to adapt: names, or a pattern for whole names.

  Args:
    config: the architecture.
    hf: the base model's `config.json`.
    targets: our names of the projections.
  """
  theirs = {
    ours[1]: name.split('.')[1] for name, ours, _ in _projections(config)
  }
  modules = [theirs[name] for name in targets]
  if hf['model_type'] != 'gemma3':
    return modules
  # The vision part has modules of the same names.
  return rf'model\.language_model\..*\.({"|".join(modules)})'


def _projections(
  config: ModelConfig,
) -> Iterator[tuple[str, tuple[str, ...], _Axes]]:
  """Yields name, path and axes of each kernel and bias of a layer."""
  to_heads, to_flat = ((1, 2), (0,)), ((1,), (0,))
  biased = config.query_key_value_bias
  for theirs, ours, kernel, bias in (
    ('self_attn.q_proj', ('attention', 'query'), to_heads, biased),
    ('self_attn.k_proj', ('attention', 'key'), to_heads, biased),
    ('self_attn.v_proj', ('attention', 'value'), to_heads, biased),
    (
      'self_attn.o_proj',
      ('attention', 'output'),
      ((2,), (0, 1)),
      config.output_bias,
    ),
    ('mlp.gate_proj', ('mlp', 'gate'), to_flat, config.mlp_bias),
    ('mlp.up_proj', ('mlp', 'up'), to_flat, config.mlp_bias),
    ('mlp.down_proj', ('mlp', 'down'), to_flat, config.mlp_bias),
  ):
    yield f'{theirs}.weight', (*ours, 'kernel'), kernel
    if bias:
      # A bias runs over the kernel's output axes, which lie first in theirs.
      flat = tuple(range(len(kernel[0])))
      yield f'{theirs}.bias', (*ours, 'bias'), (flat,)


def _norms(
  config: ModelConfig,
) -> Iterator[tuple[str, tuple[str, ...], _Axes]]:
  """Yields name, path and axes of each norm of a layer."""
  names = {
    'input_layernorm': ('attention_norm',),
    'post_attention_layernorm': ('mlp_norm',),
  }
  if config.post_norms:
    names = {
      'input_layernorm': ('attention_norm',),
      'post_attention_layernorm': ('post_attention_norm',),
      'pre_feedforward_layernorm': ('mlp_norm',),
      'post_feedforward_layernorm': ('post_mlp_norm',),
    }
  if config.query_key_norms:
    names['self_attn.q_norm'] = ('attention', 'query_norm')
    names['self_attn.k_norm'] = ('attention', 'key_norm')
  for theirs, ours in names.items():
    yield f'{theirs}.weight', (*ours, 'scale'), ((0,),)
