"""Open checkpoints by size: the slice they are trained on, and how they fit it.

One row per size, one slice for each: it holds the policy in float32, Adam's two
moments, the gradient, a bfloat16 reference and a step's activations with room
to spare, by the estimate of `python -m score_jax.plan`. All numbers are *ours*.
"""

from __future__ import annotations

import dataclasses

from ml_collections import ConfigDict

from score_jax import chips
from score_jax import config as config_lib


@dataclasses.dataclass(frozen=True)
class Model:
  """One size of a family, and what it is trained on."""

  hub: (
    str  # The checkpoint's name on the Hugging Face hub; told to follow chat.
  )
  slice: str  # As chips.parse reads it: the chip, and the shape of their grid.
  tensor: int  # Parts of heads and MLP; divides the heads and the key heads.
  rows: int = 1  # Rows per fsdp shard whose gradient is made at once.
  sampled: int = 32  # Rows per fsdp shard that are sampled at once.

  @property
  def fsdp(self) -> int:
    """Returns into how many parts the parameters are split otherwise."""
    return chips.parse(self.slice).devices // self.tensor


MODELS: dict[str, Model] = {
  'gemma2_2b': Model('google/gemma-2-2b-it', 'v5e:4x4', 1),
  'gemma2_9b': Model('google/gemma-2-9b-it', 'v5e:8x8', 4),
  'gemma2_27b': Model('google/gemma-2-27b-it', 'v6e:8x8', 4),
  'gemma3_1b': Model('google/gemma-3-1b-it', 'v5e:2x4', 1),
  'gemma3_4b': Model('google/gemma-3-4b-it', 'v5e:4x8', 2),
  'gemma3_12b': Model('google/gemma-3-12b-it', 'v5e:8x8', 4),
  'gemma3_27b': Model('google/gemma-3-27b-it', 'v6e:8x8', 4),
  'llama3_1b': Model('meta-llama/Llama-3.2-1B-Instruct', 'v5e:2x4', 1),
  'llama3_3b': Model('meta-llama/Llama-3.2-3B-Instruct', 'v5e:4x4', 2),
  'llama3_8b': Model('meta-llama/Llama-3.1-8B-Instruct', 'v5e:4x8', 4),
  'llama3_70b': Model('meta-llama/Llama-3.3-70B-Instruct', 'v5p:4x4x4', 4),
  'qwen25_0.5b': Model('Qwen/Qwen2.5-0.5B-Instruct', 'v5e:2x4', 1),
  'qwen25_1.5b': Model('Qwen/Qwen2.5-1.5B-Instruct', 'v5e:2x4', 1),
  'qwen25_3b': Model('Qwen/Qwen2.5-3B-Instruct', 'v5e:4x4', 2),
  'qwen25_7b': Model('Qwen/Qwen2.5-7B-Instruct', 'v5e:4x8', 4),
  'qwen25_14b': Model('Qwen/Qwen2.5-14B-Instruct', 'v5e:8x8', 4),
  'qwen25_32b': Model('Qwen/Qwen2.5-32B-Instruct', 'v6e:8x8', 4),
  'qwen25_72b': Model('Qwen/Qwen2.5-72B-Instruct', 'v5p:4x4x4', 4),
  'qwen25_math_1.5b': Model('Qwen/Qwen2.5-Math-1.5B-Instruct', 'v5e:2x4', 1),
  'qwen25_math_7b': Model('Qwen/Qwen2.5-Math-7B-Instruct', 'v5e:4x8', 4),
  'qwen25_math_72b': Model('Qwen/Qwen2.5-Math-72B-Instruct', 'v5p:4x4x4', 4),
  'qwen25_coder_0.5b': Model('Qwen/Qwen2.5-Coder-0.5B-Instruct', 'v5e:2x4', 1),
  'qwen25_coder_1.5b': Model('Qwen/Qwen2.5-Coder-1.5B-Instruct', 'v5e:2x4', 1),
  'qwen25_coder_3b': Model('Qwen/Qwen2.5-Coder-3B-Instruct', 'v5e:4x4', 2),
  'qwen25_coder_7b': Model('Qwen/Qwen2.5-Coder-7B-Instruct', 'v5e:4x8', 4),
  'qwen25_coder_14b': Model('Qwen/Qwen2.5-Coder-14B-Instruct', 'v5e:8x8', 4),
  'qwen25_coder_32b': Model('Qwen/Qwen2.5-Coder-32B-Instruct', 'v6e:8x8', 4),
  'qwen3_0.6b': Model('Qwen/Qwen3-0.6B', 'v5e:2x4', 1),
  'qwen3_1.7b': Model('Qwen/Qwen3-1.7B', 'v5e:4x4', 2),
  'qwen3_4b': Model('Qwen/Qwen3-4B', 'v5e:4x8', 4),
  'qwen3_8b': Model('Qwen/Qwen3-8B', 'v5e:4x8', 4),
  'qwen3_14b': Model('Qwen/Qwen3-14B', 'v5e:8x8', 4),
  'qwen3_32b': Model('Qwen/Qwen3-32B', 'v6e:8x8', 4),
}


def apply(config: ConfigDict, model: Model) -> None:
  """Writes a size's numbers behind those of a task."""
  config.model.hub = model.hub
  config.model.dtype = 'bfloat16'
  config.model.reference_dtype = 'bfloat16'
  config.limits.logp_gap = 0.05  # bfloat16 rounds; in float32 it is 1e-5.
  config.sampling.layout = 'auto'  # By the slice's memory.
  config.task.chat = 'on'
  config.model.remat = 'block'
  config.mesh.fsdp, config.mesh.tensor = model.fsdp, model.tensor
  # 256 tokens of each device, for each block gathers the vocabulary's table.
  config.model.logits_chunk = 256 * model.fsdp
  rows = config.train.trajectories
  problems = rows // config_lib.samples_per_problem(config)
  # Never more parts than problems: a group is not split.
  config.train.accumulation = _parts(rows, model.fsdp * model.rows, problems)
  config.sampling.parts = _parts(rows, model.fsdp * model.sampled, problems)


def _parts(rows: int, at_once: int, problems: int) -> int:
  return max(1, min(rows // at_once, problems))
