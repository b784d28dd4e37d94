"""Problems as arrays, and which of them a step takes.

A batch is a function of the seed and the step, so there is no position to
lose: a resumed run reads what the unbroken run would have read. Members of a
mixture take turns by their rates, exactly, and each has epochs of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from score_jax.config import ConfigError
from score_jax.problem import Problem
from score_jax.tasks.mixture import Member
from score_jax.tokenizer import Tokenizer

CYCLE = 1_000_003  # Which of numpy's streams a cycle's order belongs to.


@dataclasses.dataclass(frozen=True)
class Part:
  """Problems that stand together, and how often they have their turn."""

  count: int  # Of problems.
  rate: int  # Turns in each cycle, which has as many as all parts together.


@dataclasses.dataclass(frozen=True)
class Problems:
  """Problems, and their prompts as the model reads them."""

  problems: tuple[Problem, ...]
  tokens: np.ndarray  # int32[n, P], padded on the right.
  length: np.ndarray  # int32[n].
  # int32[n, A], fixed first attempts with their ends, padded behind them; what
  # stands at a problem without one means nothing. None: no problem has one.
  first: np.ndarray | None = None
  parts: tuple[Part, ...] = ()  # Of a mixture, in order; () = one alone.
  dropped: int = 0  # Problems left out, as too long.

  def take(self, index: np.ndarray) -> Problems:
    """Returns the problems of these indices, in their order."""
    chosen = tuple(self.problems[i] for i in index)
    first = None if self.first is None else self.first[index]
    return Problems(chosen, self.tokens[index], self.length[index], first)

  def batch(self, seed: int, number: int, size: int) -> np.ndarray:
    """Returns int64[size], the problems of a batch; see `mixed_indices`."""
    parts = self.parts or (Part(len(self), 1),)
    return mixed_indices(parts, seed, number, size)

  def __len__(self) -> int:
    return len(self.problems)


def encode(
  problems: Sequence[Problem],
  tokenizer: Tokenizer,
  max_tokens: int,
  max_attempt: int = 0,
  drop: bool = False,
  members: Sequence[Member] = (),
) -> Problems:
  """Returns problems with their prompts as ids, P = max_tokens.

  Args:
    problems: of a mixture member by member, as `tasks.load_problems` gives.
    tokenizer: of the model.
    max_tokens: P; a longer prompt cut off would be another problem.
    max_attempt: A, for fixed first attempts with their end tokens.
    drop: whether problems that are too long are left out, and counted in
      `dropped`; fit for problems to train on. Else they are refused.
    members: of the mixture; their rates order the batches.

  Raises:
    ConfigError: if a prompt or a fixed first attempt is longer and `drop` is
      False; or if a member, or all, has no problem that is short enough.
  """
  rows = tokenizer.prompts([problem.prompt for problem in problems])
  fixed = [tokenizer.written(p.attempt) if p.attempt else [] for p in problems]
  length = np.array([len(row) for row in rows], np.int32)
  size = np.array([len(row) for row in fixed], np.int32)
  fits = (length <= max_tokens) & (size <= max_attempt)
  if not drop:
    _check_length(problems, length, 'sampling.max_prompt_tokens', max_tokens)
    _check_length(problems, size, 'sampling.max_tokens[0]', max_attempt)
  kept = np.flatnonzero(fits)
  if len(problems) and not len(kept):
    raise ConfigError(
      f'sampling.max_prompt_tokens={max_tokens} leaves none of '
      f'{len(problems)} problems, whose prompts have {length.min()} tokens and '
      'more; raise it.'
    )
  chosen = tuple(problems[i] for i in kept)
  return Problems(
    problems=chosen,
    tokens=_padded([rows[i] for i in kept], max_tokens, tokenizer.pad),
    length=length[kept],
    first=_padded([fixed[i] for i in kept], max_attempt, tokenizer.pad)
    if size.any()
    else None,
    parts=_parts(chosen, members),
    dropped=len(problems) - len(kept),
  )


def _check_length(
  problems: Sequence[Problem], length: np.ndarray, setting: str, most: int
) -> None:
  if not len(length) or length.max() <= most:
    return
  worst = int(length.argmax())
  what = 'prompts' if 'prompt' in setting else 'fixed first attempts'
  raise ConfigError(
    f'{setting}={most} is less than the {length[worst]} tokens of problem '
    f'{problems[worst].id}; {int((length > most).sum())} of {len(length)} '
    f'{what} are longer. Set it to {length[worst]}; or, to train without them, '
    "set task.long_prompts='drop'."
  )


def _padded(rows: Sequence[Sequence[int]], width: int, pad: int) -> np.ndarray:
  """Returns int32[n, width], rows with padding behind them."""
  tokens = np.full((len(rows), width), pad, np.int32)
  for row, ids in zip(tokens, rows, strict=True):
    row[: len(ids)] = ids
  return tokens


def _parts(
  problems: Sequence[Problem], members: Sequence[Member]
) -> tuple[Part, ...]:
  """Returns how many problems each member of a mixture has."""
  if len(members) < 2:
    return ()
  parts = []
  for member in members:
    start = f'{member.name}/'
    count = sum(problem.id.startswith(start) for problem in problems)
    if not count:
      raise ConfigError(
        f'task.name mixes {member.name}, of which no problem is left; raise '
        'sampling.max_prompt_tokens or task.train_problems.'
      )
    parts.append(Part(count, member.rate))
  return tuple(parts)


def batch_indices(count: int, seed: int, batch: int, size: int) -> np.ndarray:
  """Returns int64[size], the problems of one batch.

  Every epoch is a new order of all problems; batches run on across its end.

  Args:
    count: of problems.
    seed: of the order.
    batch: its number, from 0.
    size: problems per batch.
  """
  return mixed_indices((Part(count, 1),), seed, batch, size)


def mixed_indices(
  parts: Sequence[Part], seed: int, batch: int, size: int
) -> np.ndarray:
  """Returns int64[size], the problems of one batch of a mixture.

  Turns go in cycles, in which each part has as many as its rate, in an order
  drawn for the cycle. So after each cycle the rates are exact, and which
  problem has turn t is known without those before it. A part's problems come
  in epochs of its own.

  Args:
    parts: in the order in which they stand.
    seed: of all orders.
    batch: its number, from 0.
    size: problems per batch.
  """
  turn = batch * size + np.arange(size)
  part, place = _turns([part.rate for part in parts], seed, turn)
  starts = np.cumsum([0] + [part.count for part in parts])
  chosen = np.empty(size, np.int64)
  for number, each in enumerate(parts):
    here = part == number
    found = _in_epochs(each.count, [seed, number], place[here])
    chosen[here] = starts[number] + found
  return chosen


def _turns(
  rates: Sequence[int], seed: int, turn: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns which part has each turn, and which of its turns it is.

  Args:
    rates: of each part.
    seed: of the cycles' orders.
    turn: int64[n], numbered from 0.
  """
  if len(rates) == 1:
    return np.zeros_like(turn), turn
  slots = np.repeat(np.arange(len(rates)), rates)
  cycle, slot = np.divmod(turn, len(slots))
  part, place = np.empty_like(turn), np.empty_like(turn)
  for number in np.unique(cycle):
    order = np.random.default_rng([seed, int(number), CYCLE]).permutation(slots)
    here = cycle == number
    mine = order[slot[here]]
    before = np.array(
      [(order[:s] == p).sum() for s, p in zip(slot[here], mine, strict=True)]
    )
    part[here] = mine
    place[here] = number * np.asarray(rates)[mine] + before
  return part, place


def _in_epochs(
  count: int, seed: Sequence[int], place: np.ndarray
) -> np.ndarray:
  """Returns int64[n], which of a part's problems have its turns int64[n]."""
  stream, number = seed
  chosen = np.empty(len(place), np.int64)
  epochs = place // count
  for epoch in np.unique(epochs):
    rng = np.random.default_rng([stream, int(epoch), number])
    order = rng.permutation(count)
    here = epochs == epoch
    chosen[here] = order[place[here] % count]
  return chosen
