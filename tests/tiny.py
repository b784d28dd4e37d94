"""Models, rows and settings so small that every attempt can be listed.

Letters: B rows, L columns, T turns, V vocabulary, M tokens of an attempt.
"""

import dataclasses
import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from score_jax import learner, objective, sampler
from score_jax.models.architecture import Execution, ModelConfig, Rope
from score_jax.models.transformer import Transformer
from score_jax.policy import Policy
from score_jax.trajectory import Trajectory

END = 0
CLOSE = 1  # Not END, so that what nobody sampled can be told from what was.
PAD = 2  # A token like any other: only its place makes it padding.

PLAIN = ModelConfig(
  vocab_size=7,
  layers=2,
  width=16,
  heads=4,
  kv_heads=4,
  head_dim=4,
  mlp=24,
  activation='silu',
  norm_eps=1e-6,
  query_scale=0.5,
  tied_embeddings=False,
  ropes=(Rope(100.0),),
  rope_of_layer=(0, 0),
  window_of_layer=(0, 0),
)
# So few words that every attempt can be listed.
THREE_WORDS = dataclasses.replace(
  PLAIN, vocab_size=3, layers=1, rope_of_layer=(0,), window_of_layer=(0,)
)
# Grouped queries, windows, soft caps, and all else that families differ in.
RICH = dataclasses.replace(
  PLAIN,
  kv_heads=2,
  activation='gelu_tanh',
  tied_embeddings=True,
  ropes=(Rope(100.0), Rope(30.0, 'linear', 2.0)),
  rope_of_layer=(0, 1),
  window_of_layer=(3, 0),
  norm_offset=1.0,
  post_norms=True,
  query_key_norms=True,
  query_key_value_bias=True,
  output_bias=True,
  mlp_bias=True,
  embedding_scale=2.0,
  attention_softcap=2.0,
  final_softcap=3.0,
)


def transformer(config: ModelConfig = PLAIN, **execution) -> Transformer:
  return Transformer(config, Execution(**execution))


def params_of(model: nn.Module, seed: int = 0):
  """Returns parameters whose next tokens are neither flat nor certain."""
  start = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), int))
  draw = np.random.default_rng(seed).normal

  def param(path, shape):
    noise = draw(size=shape.shape) * shape.shape[-1] ** -0.5
    about = 1.0 if path[-1].key == 'scale' else 0.0
    return jnp.asarray(about + noise, jnp.float32)

  return jax.tree.map_with_path(param, nn.meta.unbox(start['params']))


class PrefixTable(nn.Module):
  """The most general policy: logits of its own for every row so far.

  Rows of up to `columns` tokens are numbered as words of a language with V
  letters are; the state of a column is the row of the table.
  """

  vocab_size: int
  columns: int
  execution: Execution = Execution()

  def setup(self):
    rows = sum(self.vocab_size**i for i in range(self.columns + 1))
    shape = (rows, self.vocab_size)
    self.table = self.param('table', nn.initializers.normal(1.0), shape)

  def __call__(self, tokens: jax.Array, cache=None):
    number = jnp.zeros_like(tokens[:, 0])
    columns = []
    for i in range(tokens.shape[1]):
      number = number * self.vocab_size + tokens[:, i] + 1
      columns.append(number)
    return self.table[jnp.stack(columns, axis=1)], None

  def unembed(self, hidden: jax.Array) -> jax.Array:
    return hidden


class ColumnLogits(nn.Module):
  """A policy whose parameters are the logits of every column of every row.

  So the loss's gradient shows what each token is credited with.
  """

  shape: tuple[int, int, int]  # B, L, V.
  execution: Execution = Execution()

  def setup(self):
    normal = nn.initializers.normal(1.0)
    self.logits = self.param('logits', normal, self.shape)

  def __call__(self, tokens: jax.Array, cache=None):
    return self.logits, None

  def unembed(self, hidden: jax.Array) -> jax.Array:
    return hidden


@functools.partial(jax.jit, static_argnums=0)
def logits_of(model: Transformer, params, tokens: jax.Array) -> jax.Array:
  """Returns float32[B, L, V], what a whole pass predicts behind each column."""
  hidden, _ = model.apply({'params': params}, tokens)
  return model.apply({'params': params}, hidden, method='unembed')


def token_logp(logits: jax.Array, tokens: jax.Array) -> jax.Array:
  """Returns [B, L]: log softmax of logits [B, L, V] at tokens; 0 at column 0.

  Logits at a column predict the token of the next one.
  """
  logp = jax.nn.log_softmax(logits[:, :-1], axis=-1)
  logp = jnp.take_along_axis(logp, tokens[:, 1:, None], axis=-1)[..., 0]
  return jnp.pad(logp, ((0, 0), (1, 0)))


def attempts(limit: int, vocab_size: int = 3) -> list[tuple[int, ...]]:
  """Returns all attempts of at most `limit` tokens."""
  others = [v for v in range(vocab_size) if v != END]
  ended = [
    (*start, END)
    for size in range(limit)
    for start in itertools.product(others, repeat=size)
  ]
  return ended + list(itertools.product(others, repeat=limit))


def trajectory(
  prompts: list[list[int]],
  written: list[tuple[tuple[int, ...], ...]],
  instructions: list[list[int]],
  columns: int,
) -> Trajectory:
  """Returns the rows that a sampler would return, put together in Python.

  Args:
    prompts: ids of each row's prompt.
    written: the attempts of each row, T each.
    instructions: ids between attempts, T - 1 of them.
    columns: L.
  """
  rows, turns = len(written), len(written[0])
  tokens = np.full((rows, columns), PAD, np.int32)
  turn = np.zeros((rows, columns), np.int32)
  length = np.zeros(rows, np.int32)
  span = np.zeros((rows, turns, 2), np.int32)
  truncated = np.zeros((rows, turns), bool)
  for b, (prompt, tries) in enumerate(zip(prompts, written, strict=True)):
    row = list(prompt)
    for t, attempt in enumerate(tries):
      span[b, t] = len(row), len(row) + len(attempt)
      turn[b, slice(*span[b, t])] = t + 1
      truncated[b, t] = attempt[-1] != END
      row.extend(attempt)
      if t + 1 < turns:
        row.extend([CLOSE] * int(truncated[b, t]))
        row.extend(instructions[t])
    tokens[b, : len(row)] = row
    length[b] = len(row)
  return jax.tree.map(
    jnp.asarray,
    Trajectory(
      tokens, turn, np.zeros(turn.shape, np.float32), length, span, truncated
    ),
  )


def sampling(**changes) -> sampler.Sampling:
  plain = sampler.Sampling(
    first_attempts=4,
    second_attempts=1,
    max_tokens=(4, 3),
    policy=Policy(),
    end_tokens=(END,),
    close=CLOSE,
    pad=PAD,
  )
  return dataclasses.replace(plain, **changes)


def prompts(
  rows: list[list[int]], columns: int, number=None
) -> sampler.Prompts:
  """Returns rows padded to some columns, numbered from 0 if not told."""
  tokens = [row + [PAD] * (columns - len(row)) for row in rows]
  number = range(len(rows)) if number is None else number
  return sampler.Prompts(
    tokens=jnp.asarray(tokens, jnp.int32),
    length=jnp.asarray([len(row) for row in rows], jnp.int32),
    number=jnp.asarray(list(number), jnp.int32),
  )


STAGE_ONE = objective.Stage(
  reward=(0.0, 1.0),
  progress=0.0,
  held=(True, False),
  beta1=0.3,
  gamma=0.0,
  kl_estimator='k1',
)
STAGE_TWO = objective.Stage(
  reward=(1.0, 1.0),
  progress=10.0,
  held=(False, False),
  beta1=0.3,
  gamma=0.0,
  kl_estimator='k1',
)


def learning(stage: objective.Stage, **changes) -> learner.Learning:
  plain = learner.Learning(
    stage=stage,
    groups=objective.Groups(first=2, second=1),
    policy=Policy(),
    baseline='leave_one_out',
    mask_truncated=False,
    accumulation=1,
    logits_chunk=1024,
    attempt_tokens=(),
    prompt_tokens=0,
    beta2_rate=0.0,
    beta2_fraction=0.5,
    beta2_low=0.01,
    beta2_high=10.0,
  )
  return dataclasses.replace(plain, **changes)
