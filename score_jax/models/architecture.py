"""What a model is, and how it runs: numbers alone.

What the open families differ in is in `ModelConfig`.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from jax.sharding import Mesh


@dataclasses.dataclass(frozen=True)
class Rope:
  """Rotary angles of one kind of layer."""

  theta: float
  scaling: str = 'default'  # 'default', 'linear' or 'llama3'.
  factor: float = 1.0
  low_frequency_factor: float = 1.0  # llama3 alone reads this and what follows.
  high_frequency_factor: float = 4.0
  original_positions: int = 8192


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """The architecture: every number that the families differ in."""

  vocab_size: int
  layers: int
  width: int
  heads: int
  kv_heads: int
  head_dim: int
  mlp: int
  activation: str  # 'silu' or 'gelu_tanh'.
  norm_eps: float
  query_scale: float  # Scores are query . key times this.
  tied_embeddings: bool
  ropes: tuple[Rope, ...]  # The kinds of layers,
  rope_of_layer: tuple[int, ...]  # and which of them each layer is.
  window_of_layer: tuple[
    int, ...
  ]  # Columns seen, the own one counted; 0 = all.
  norm_offset: float = 0.0  # 1 where the norm's weight is stored less 1.
  norm_rounds_first: bool = False  # Before the weight is multiplied in, too.
  post_norms: bool = False  # Norms behind attention and MLP as well.
  query_key_norms: bool = False
  query_key_value_bias: bool = False
  output_bias: bool = False
  mlp_bias: bool = False
  embedding_scale: float = 1.0
  attention_softcap: float = 0.0  # 0 = off.
  final_softcap: float = 0.0  # 0 = off.


@dataclasses.dataclass(frozen=True)
class Execution:
  """How the decoder runs: numbers change in rounding at most."""

  dtype: str = 'float32'  # Of what products read.
  param_dtype: str = 'float32'
  residual_dtype: str = 'float32'  # Of what is summed up between products.
  remat: str = 'none'  # 'none', 'products' (keeps products) or 'block'.
  unroll: bool = True  # Layers one by one, or under a scan.
  mesh: Mesh | None = None  # Activations are laid out on it.
  adapter_dropout: float = 0.0  # Above 0, a pass needs the key 'dropout'.
  cache_dtype: str = ''  # Of cached keys and values; '' = dtype.
  # Whether rows go to where parts of the parameters lie (sharding.SPLIT),
  # instead of parameters to where the rows are.
  rows_travel: bool = False
  # Up to how many rows a step of decoding reads kernels in blocks, and up to
  # how many turned, on a CPU (models/stack.py); 0 = never.
  few: int = 0
  some: int = 0
  # What multiplies whole rows on a CPU: 'xla', as the compiler chooses, or
  # 'onednn' (models/products.py).
  products: str = 'xla'
  # What whole rows attend by: 'plain' products, or 'splash' or 'cudnn', a
  # kernel of the platform's libraries (models/kernels.py).
  attention: str = 'plain'

  @property
  def is_one_cpu(self) -> bool:
    """Returns whether it is laid out for a CPU that is the only device."""
    return self.some > 0


def inverse_frequencies(rope: Rope, head_dim: int) -> np.ndarray:
  """Returns float32[H / 2], radians per column.

  Computed on the host, so that every backend turns by the same angles: a last
  bit of these is multiplied by the column.

  Raises:
    ValueError: if the scaling is not one of 'default', 'linear', 'llama3'.
  """
  exponent = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
  base = np.float32(1) / np.float32(rope.theta) ** exponent
  if rope.scaling == 'default':
    return base
  if rope.scaling == 'linear':
    return base / np.float32(rope.factor)
  if rope.scaling != 'llama3':
    raise ValueError(
      f'rope scaling must be default, linear or llama3; got {rope.scaling!r}.'
    )
  # Long waves are stretched, short ones kept, those between are mixed.
  turns = rope.original_positions * base / (2 * math.pi)
  low, high = rope.low_frequency_factor, rope.high_frequency_factor
  keep = np.clip((turns - low) / (high - low), 0.0, 1.0)
  return (keep * base + (1 - keep) * base / rope.factor).astype(np.float32)
