"""What every library computes: sizes, shapes, ids, and the operations of each.

Imports numpy and the standard library alone, for it runs in every library's
own Python.

Letters: B rows, N problems, L columns.
"""

from __future__ import annotations

import dataclasses
import json

import numpy as np

PAD = 0
FIRST = 2  # Ids below are padding and end; none is in a prompt.
BYTES = 4  # Of a float32.


@dataclasses.dataclass(frozen=True)
class Size:
  """A decoder of the Qwen 2 kind, its embedding tied."""

  name: str
  layers: int
  width: int
  heads: int
  kv_heads: int
  head_dim: int
  mlp: int
  vocab: int

  @property
  def body(self) -> int:
    """Weights of the layers' products."""
    attention = 2 * self.width * self.head_dim * (self.heads + self.kv_heads)
    return self.layers * (attention + 3 * self.width * self.mlp)

  @property
  def head(self) -> int:
    """Weights of the product that gives logits; the embedding's as well."""
    return self.width * self.vocab


@dataclasses.dataclass(frozen=True)
class Shape:
  """Rows `prompt | attempt 1 | instruction | attempt 2`, all of one length."""

  rows: int
  problems: int  # rows / problems samples of each.
  prompt: int
  attempts: tuple[int, ...]  # Tokens of each turn.
  between: int  # Tokens of an instruction.

  @property
  def columns(self) -> int:
    gaps = self.between * (len(self.attempts) - 1)
    return self.prompt + sum(self.attempts) + gaps

  @property
  def spans(self) -> list[tuple[int, int]]:
    """First column of each attempt, and behind it."""
    found, column = [], self.prompt
    for tokens in self.attempts:
      found.append((column, column + tokens))
      column += tokens + self.between
    return found


SIZES = {
  'tiny': Size('tiny', 4, 256, 4, 2, 64, 1024, 512),
  'small': Size('small', 8, 512, 8, 4, 64, 2048, 32_000),
}
WORKS = ('sample', 'update', 'iterate')


def shape_of(work: str, size: str) -> Shape:
  """Returns the rows of a kind of work."""
  if work == 'sample':
    return Shape(16, 16, 64, (64, 64), 16)
  if work == 'update':
    rows = 16 if size == 'tiny' else 4
    return Shape(rows, rows // 4, 64, (88, 88), 16)
  return Shape(16, 4, 64, (64,), 0)


@dataclasses.dataclass(frozen=True)
class Job:
  """What one process is asked to compute, again and again."""

  work: str
  variant: str  # Which way, where a library has several.
  size: Size
  shape: Shape
  folder: str  # Of the checkpoint.
  cores: int

  def text(self) -> str:
    return json.dumps(dataclasses.asdict(self))


def read_job(text: str) -> Job:
  """Returns the job that `Job.text` wrote."""
  known = json.loads(text)
  shape = known['shape']
  shape['attempts'] = tuple(shape['attempts'])
  known['size'], known['shape'] = Size(**known['size']), Shape(**shape)
  return Job(**known)


# ------------------------------------------------------------------------- ids


def _ids(size: Size, shape: tuple[int, ...], seed: int) -> np.ndarray:
  draw = np.random.default_rng(seed)
  return draw.integers(FIRST, size.vocab, shape, dtype=np.int32)


def prompts(size: Size, shape: Shape, seed: int = 1) -> np.ndarray:
  """Returns int32[N, prompt]."""
  return _ids(size, (shape.problems, shape.prompt), seed)


def instruction(size: Size, shape: Shape) -> np.ndarray:
  """Returns int32[between], the same for all rows."""
  return _ids(size, (shape.between,), 2)


def rows(size: Size, shape: Shape) -> np.ndarray:
  """Returns int32[B, L], as a sampler might have written them.

  The samples of a problem are adjacent, and begin with its prompt.
  """
  ids = _ids(size, (shape.rows, shape.columns), 3)
  each = shape.rows // shape.problems
  ids[:, : shape.prompt] = np.repeat(prompts(size, shape), each, axis=0)
  return ids


def turns(shape: Shape) -> np.ndarray:
  """Returns int32[B, L]: 1..T where an attempt wrote the token, else 0."""
  turn = np.zeros((shape.rows, shape.columns), np.int32)
  for t, (start, end) in enumerate(shape.spans, start=1):
    turn[:, start:end] = t
  return turn


def texts(ids) -> list[str]:
  """Returns a text per row of ids: the numbers, with blanks between them."""
  return [' '.join(map(str, row)) for row in np.asarray(ids).tolist()]


def rewards(answers: list[str], written: list[str]) -> list[float]:
  """Returns 1.0 for each text that holds its answer: what all are graded by."""
  return [
    float(f' {answer} ' in f' {text} ')
    for answer, text in zip(answers, written, strict=True)
  ]


# ------------------------------------------------------------ what is computed


@dataclasses.dataclass(frozen=True)
class Cost:
  """What no way of computing it can do without."""

  operations: float  # Of numbers: an addition is one, and a multiplication.
  bytes: float  # To and from memory; those of activations are not counted.

  def seconds(self, rate: float, bandwidth: float) -> float:
    """Returns the least seconds at operations, and bytes, a second."""
    return max(self.operations / rate, self.bytes / bandwidth)


def _pass(size: Size, new: int, past: int, logits: int, many: int = 1) -> Cost:
  """Returns the cost of `new` tokens of `many` rows behind `past` others.

  Attention is causal: a token meets those before it and itself. Weights are
  read once, keys and values once per row.

  Args:
    size: of the model.
    new: tokens of each row.
    past: tokens of each row whose keys and values are there.
    logits: tokens of each row whose logits are wanted.
    many: rows.
  """
  products = 2 * many * (new * size.body + logits * size.head)
  pairs = many * (new * past + new * (new + 1) // 2)
  attention = 4 * size.layers * size.heads * size.head_dim * pairs
  cache = 2 * size.layers * size.kv_heads * size.head_dim * many * (past + new)
  weights = size.body + size.head
  return Cost(products + attention, BYTES * (weights + cache))


def sampling_costs(size: Size, shape: Shape) -> list[Cost]:
  """Returns the costs of prompt, instructions and every token's step.

  A prompt is read once for all of its samples; a turn's first token follows
  from what is read before it, its last is read with the instruction.
  """
  found, past = [], 0
  for turn, tokens in enumerate(shape.attempts):
    if turn == 0:
      found.append(_pass(size, shape.prompt, 0, 1, shape.problems))
      past = shape.prompt
    else:
      found.append(_pass(size, 1 + shape.between, past, 1, shape.rows))
      past += 1 + shape.between
    for _ in range(tokens - 1):
      found.append(_pass(size, 1, past, 1, shape.rows))
      past += 1
  return found


def update_costs(size: Size, shape: Shape) -> list[Cost]:
  """Returns the costs of reference, policy, its gradient, and AdamW.

  A prompt is read once for all of its samples. Logits are wanted where
  attempts stand. A gradient costs twice what it is the gradient of. AdamW: 12
  operations a parameter; parameter, gradient and two moments are read, all but
  the gradient written.
  """
  own = shape.columns - shape.prompt
  passes = [
    _pass(size, shape.prompt, 0, 0, shape.problems),
    _pass(size, own, shape.prompt, sum(shape.attempts), shape.rows),
  ]
  parameters = size.body + size.head
  return [
    *passes,
    *passes,
    *(Cost(2 * cost.operations, 2 * cost.bytes) for cost in passes),
    Cost(12 * parameters, 7 * BYTES * parameters),
  ]


def costs(work: str, size: Size, shape: Shape) -> list[Cost]:
  """Returns the costs of a kind of work, one after the other."""
  found = []
  if work != 'update':
    found += sampling_costs(size, shape)
  if work != 'sample':
    found += update_costs(size, shape)
  return found
