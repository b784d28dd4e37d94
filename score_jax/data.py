"""Problems as arrays, and which of them a step takes.

A batch is a function of the seed and the step, so there is no position to
lose: a resumed run reads what the unbroken run would have read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from score_jax.config import ConfigError
from score_jax.problem import Problem
from score_jax.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Problems:
  """Problems, and their prompts as the model reads them."""

  problems: tuple[Problem, ...]
  tokens: np.ndarray  # int32[n, P], padded on the right.
  length: np.ndarray  # int32[n].

  def take(self, index: np.ndarray) -> Problems:
    """Returns the problems of these indices, in their order."""
    chosen = tuple(self.problems[i] for i in index)
    return Problems(chosen, self.tokens[index], self.length[index])

  def __len__(self) -> int:
    return len(self.problems)


def encode(
  problems: Sequence[Problem], tokenizer: Tokenizer, max_tokens: int
) -> Problems:
  """Returns problems with their prompts as ids, P = max_tokens.

  Raises:
    ConfigError: if a prompt is longer, for one cut off would be another
      problem.
  """
  rows = tokenizer.prompts([problem.prompt for problem in problems])
  length = np.array([len(row) for row in rows], np.int32)
  if len(rows) and length.max() > max_tokens:
    worst = int(length.argmax())
    raise ConfigError(
      f'sampling.max_prompt_tokens={max_tokens} is less than the '
      f'{length[worst]} tokens of problem {problems[worst].id}; '
      f'{int((length > max_tokens).sum())} of {len(rows)} prompts are longer. '
      f'Set it to {length[worst]}.'
    )
  tokens = np.full((len(rows), max_tokens), tokenizer.pad, np.int32)
  for row, ids in zip(tokens, rows, strict=True):
    row[: len(ids)] = ids
  return Problems(tuple(problems), tokens, length)


def batch_indices(count: int, seed: int, batch: int, size: int) -> np.ndarray:
  """Returns int64[size], the problems of one batch.

  Every epoch is a new order of all problems; batches run on across its end.

  Args:
    count: of problems.
    seed: of the order.
    batch: its number, from 0.
    size: problems per batch.
  """
  position = batch * size + np.arange(size)
  epochs = position // count
  chosen = np.empty(size, np.int64)
  for epoch in np.unique(epochs):
    order = np.random.default_rng([seed, int(epoch)]).permutation(count)
    here = epochs == epoch
    chosen[here] = order[position[here] % count]
  return chosen
