"""How large is everything on one device? What memory and work follow from.

Letters: L columns.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import Counter
from typing import Any

import jax
from jax import numpy as jnp

from score_jax import batching, lengths, reading
from score_jax import config as config_lib
from score_jax.decoding import SAME
from score_jax.models import stack
from score_jax.programs import columns, Setup


@dataclasses.dataclass(frozen=True)
class Kernels:
  """How weights lie where products read them."""

  width: int  # Bytes of a number.
  gathered: bool  # Over fsdp, for each use.
  parts: int = 1  # Over fsdp, that stay where they are while rows travel.


@dataclasses.dataclass(frozen=True)
class Sizes:
  """The numbers that both the memory and the work follow from, per device."""

  setup: Setup

  @property
  def mesh(self) -> dict[str, int]:
    """Returns the sizes of the mesh axes by name."""
    return dict(self.setup.mesh.shape)

  @property
  def shards(self) -> int:
    """Returns into how many parts rows are split."""
    return self.mesh['data'] * self.mesh['fsdp']

  def split(self, size: int, ways: int) -> int:
    """Returns a device's part; what does not divide is kept whole."""
    return size // ways if size % ways == 0 else size

  def tensor(self, size: int) -> int:
    """Returns a device's part of heads, MLP or vocabulary."""
    return self.split(size, self.mesh['tensor'])

  @property
  def act(self) -> int:
    """Returns the bytes of a number that a product reads."""
    return jnp.dtype(self.setup.config.model.dtype).itemsize

  @property
  def summed(self) -> int:
    """Returns the bytes of a number that is added up between products."""
    return jnp.dtype(self.setup.config.model.residual_dtype).itemsize

  @property
  def casts(self) -> bool:
    """Returns whether parameters are stored in another type than is used."""
    c = self.setup.config.model
    return c.param_dtype != c.dtype

  @functools.cached_property
  def own(self) -> float:
    """Returns the elements of the model that a device holds."""
    return elements(self.setup.base)

  @property
  def layer(self) -> float:
    """Returns the elements of one layer's products, gathered over fsdp."""
    c = self.setup.model.config
    heads = 2 * self.tensor(c.heads) + 2 * self.tensor(c.kv_heads)
    return c.width * (heads * c.head_dim + 3 * self.tensor(c.mlp))

  @property
  def laid_out(self) -> float:
    """Returns the elements of kernels that lie anew, for steps of few rows."""
    c, execution = self.setup.model.config, self.setup.model.execution
    forms = {stack.form_of(execution, rows) for rows in self.decoded}
    if not execution.unroll:
      return 0.0
    return len(forms - {'kernel'}) * c.layers * self.layer

  @property
  def table(self) -> float:
    """Returns the elements of the vocabulary's table, gathered over fsdp."""
    c = self.setup.model.config
    return self.tensor(c.vocab_size) * c.width

  @property
  def gathers(self) -> bool:
    """Returns whether parameters are gathered before they are used."""
    return self.mesh['fsdp'] > 1

  @property
  def kernels(self) -> Kernels:
    """Returns how the weights lie while they train."""
    return Kernels(self.act, self.gathers)

  @property
  def decoding(self) -> Kernels:
    """Returns how the weights lie while they sample."""
    kept, ways = self.setup.decoding, self.mesh['fsdp']
    return Kernels(
      self._kept(kept.weights),
      self.gathers and kept.layout == 'train',
      ways if kept.layout == 'tensor' else 1,
    )

  def _kept(self, dtype: str) -> int:
    """Returns the bytes of a number of a weight or a cache that samples."""
    return (
      self.act if dtype == SAME else min(jnp.dtype(dtype).itemsize, self.act)
    )

  @property
  def problems(self) -> int:
    """Returns a device's problems in one call of the sampler."""
    config = self.setup.config
    each = config_lib.samples_per_problem(config)
    whole = config.train.trajectories // each // config.sampling.parts
    return self.split(whole, self.shards)

  @property
  def sampled(self) -> int:
    """Returns a device's rows in one call of the sampler."""
    config = self.setup.config
    whole = config.train.trajectories // config.sampling.parts
    return self.split(whole, self.shards)

  @property
  def attempting(self) -> list[int]:
    """Returns a device's rows in one call of the sampler, for each turn.

    Second attempts that share a first one are rows of their own behind it.
    """
    return [self.split(rows, self.shards) for rows in self._attempting]

  @property
  def _attempting(self) -> list[int]:
    """Returns the rows of all devices in one call, for each turn."""
    sampling = self.setup.config.sampling
    whole = self.setup.config.train.trajectories // sampling.parts
    later = [whole] * (len(sampling.max_tokens) - 1)
    return [whole // sampling.second_attempts, *later]

  @property
  def decoded(self) -> list[int]:
    """Returns how many of these rows are decoded at once, falling."""
    return self._decoded(self.sampled)

  def _decoded(self, rows: int) -> list[int]:
    each = config_lib.samples_per_problem(self.setup.config)
    if self.problems * each != self.sampled:
      return [rows]  # They do not lie beside their prompts.
    sampling = self.setup.config.sampling
    return batching.sizes(rows, tuple(sampling.compact), sampling.refill)

  @property
  def is_refilled(self) -> bool:
    """Returns whether rows wait for others to end before they are decoded."""
    return self.decoded[0] < self.sampled

  @property
  def steps(self) -> dict[tuple[int, int, int], float]:
    """Returns how many steps of one call of the sampler read what of a device.

    Returns:
      {(columns of own cache, rows, prompts): steps}. Rows that go on without
      others have prompts of their own.
    """
    config, own = self.setup.config, 0
    sampling, found = config.sampling, Counter()
    turns = zip(
      self._attempting, self.attempting, sampling.max_tokens, strict=True
    )
    for turn, (whole, each, longest) in enumerate(turns):
      devices = whole // each  # One, where all have the same rows.
      piece = sampling.grow or longest
      read = lengths.rows_read(
        self.setup.attempt,
        longest,
        (devices, each),
        tuple(self._decoded(each)),
        piece,
        turn,
      )
      for (number, rows), steps in read.items():
        columns = own + min((number + 1) * piece, longest)
        prompts = self.problems if rows == each else rows
        found[columns, rows, prompts] += steps
      own += longest + self.setup.instruction + 1
    return dict(found)

  @property
  def learned(self) -> int:
    """Returns a device's rows in one part of the update."""
    train = self.setup.config.train
    return self.split(train.trajectories // train.accumulation, self.shards)

  @property
  def prompts(self) -> int:
    """Returns a device's prompts in one part of the update; 0 = in their rows.

    Prompts that rows of one group do not share are read with them.
    """
    config = self.setup.config
    rows = config.train.trajectories // config.train.accumulation
    group = config_lib.samples_per_problem(config)
    each = reading.sharing(rows, group, self.shards)
    return 0 if each == 1 else self.split(rows // each, self.shards)

  @property
  def read(self) -> int:
    """Returns a device's tokens in one part of the update, prompts once."""
    if not self.prompts:
      return self.learned * self.length
    prompt = self.setup.config.sampling.max_prompt_tokens
    return self.prompts * prompt + self.learned * self.slots

  @property
  def queries(self) -> int:
    """Returns a row's columns in the widest pass of the update."""
    return self.slots if self.prompts else self.length

  @property
  def slots(self) -> int:
    """Returns the columns of a row's own cache."""
    config = self.setup.config
    return self.length - config.sampling.max_prompt_tokens

  @property
  def widths(self) -> dict[int, float]:
    """Returns how many parts of the update read how many columns of a row."""
    config = self.setup.config
    train, longest = config.train, tuple(config.sampling.max_tokens)
    group = config_lib.samples_per_problem(config)
    widths = reading.widths(tuple(train.widths), self.queries)
    return lengths.widths_read(
      self.setup.attempt,
      longest,
      self.queries - sum(longest),
      (
        train.trajectories,
        train.accumulation,
        group,
        config.sampling.second_attempts,
      ),
      tuple(widths),
    )

  @property
  def pieces(self) -> list[tuple[int, int]]:
    """Returns how many tokens are drawn with how many columns of own cache."""
    sampling, found, own = self.setup.config.sampling, [], 0
    for longest in sampling.max_tokens:
      left = longest
      while left:
        piece = min(sampling.grow or longest, left)
        own, left = own + piece, left - piece
        found.append((piece, own))
      own += self.setup.instruction + 1
    return found

  @property
  def length(self) -> int:
    """Returns L."""
    return columns(self.setup.config, self.setup.instruction)

  @property
  def scored(self) -> int:
    """Returns the columns of a row that are scored: those of attempts."""
    return min(self.length, sum(self.setup.config.sampling.max_tokens))

  @property
  def block(self) -> int:
    """Returns the columns whose logits exist at once in the update."""
    config = self.setup.config
    rows = config.train.trajectories // config.train.accumulation
    return max(1, min(self.scored, config.model.logits_chunk // rows))

  def cache(self, rows: int, slots: int) -> float:
    """Returns the bytes of keys and values of all layers."""
    c, dtype = self.setup.model.config, self.setup.decoding.cache
    scale = 4 if dtype == 'int8' else 0
    head = c.head_dim * self._kept(dtype) + scale
    return c.layers * rows * slots * 2 * self.tensor(c.kv_heads) * head

  def scores(self, rows: int, queries: int, keys: int) -> float:
    """Returns the bytes of one layer's attention scores, float32."""
    heads = self.tensor(self.setup.model.config.heads)
    return rows * heads * queries * keys * 4

  @property
  def kernel(self) -> bool:
    """Returns whether rows that are read whole attend by a kernel.

    It keeps no scores.
    """
    return self.setup.config.model.attention != 'plain'

  def attended(self, rows: int, queries: int, keys: int, copies: int) -> float:
    """Returns the bytes of one layer's attention of rows that are read whole.

    Args:
      rows: of a device.
      queries: columns of a row.
      keys: columns that it attends to.
      copies: of the scores that live at once, where they are in memory.
    """
    if not self.kernel:
      return copies * self.scores(rows, queries, keys)
    if self.setup.config.model.attention == 'splash':
      from score_jax.models import splash  # Here, for it takes a second.

      before = keys - queries
      queries, _ = splash.padded_columns(queries)
      keys, _ = splash.padded_columns(before + queries)
    c = self.setup.model.config
    # Queries and output, keys and values, of which rows behind a prompt have a
    # copy, and the gradients of all four.
    own, read = self.tensor(c.heads) * queries, self.tensor(c.kv_heads) * keys
    return 4 * rows * (own + read) * c.head_dim * self.act

  def mlp(self, rows: int, length: int) -> float:
    """Returns the elements of one layer's widest activation."""
    return rows * length * self.tensor(self.setup.model.config.mlp)


def elements(tree: Any) -> float:
  """Returns the numbers that arrays of these layouts hold on one device."""
  return sum(
    math.prod(x.sharding.shard_shape(x.shape)) for x in jax.tree.leaves(tree)
  )
