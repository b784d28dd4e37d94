"""One compiled program: prompts in, trajectories out, all turns.

    prefill prompts (once per problem) ──► attempt 1 ──► prefill instruction
        ──► attempt 2 ──► ...

Turn t + 1 goes on from turn t's cache. The second prompt is made of sampled
ids and constant ids; nothing is decoded and encoded again. The cache grows as
it is filled, since a step reads all of it. An attempt's loops end when all its
rows have ended.

Letters: B rows, N problems, F first attempts per problem, S second attempts
per first, L columns, P prompt columns, T turns, M tokens of an attempt,
I tokens of an instruction, D width.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from score_jax import sharding
from score_jax.models import stack, transformer
from score_jax.models.attention import KeyValue
from score_jax.models.cache import Cache, empty_cache, grown
from score_jax.policy import draw, Policy
from score_jax.trajectory import Trajectory


@dataclasses.dataclass(frozen=True)
class Sampling:
  """What is compiled into the program; B = N * first_attempts * second."""

  first_attempts: int  # F, per problem.
  second_attempts: int  # S, that share a first attempt; from turn 2 on.
  max_tokens: tuple[int, ...]  # M per turn, the end token counted.
  policy: Policy
  end_tokens: tuple[int, ...]  # Any of them ends an attempt.
  close: int  # Put behind an attempt that was cut off, as context.
  pad: int
  grow: int = 0  # Columns that the cache grows by in an attempt; 0 = at once.
  # Shares of the rows, falling: once no more than that are alive, those alone
  # are decoded. Each adds a loop to the program.
  compact: tuple[float, ...] = ()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prompts:
  """Problems as the model reads them."""

  tokens: jax.Array  # int32[N, P], from column 0, padded on the right.
  length: jax.Array  # int32[N], at least 1.
  number: jax.Array  # int32[N]: a row's random numbers follow from it.


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FirstAttempts:
  """First attempts that were written before and are context, not samples."""

  tokens: jax.Array  # int32[N * F, M]; M tokens without an end are cut off.
  given: jax.Array  # bool[N * F]; the other rows sample their own.


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Rows:
  """Rows as they grow."""

  tokens: jax.Array  # int32[B, L].
  turn: jax.Array  # int32[B, L].
  logp: jax.Array  # float32[B, L].
  length: jax.Array  # int32[B].
  ended: jax.Array  # bool[B], the attempt under way.


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Attempt:
  """What the draws of one attempt need beside the rows."""

  uniform: jax.Array  # float32[B, M].
  tokens: jax.Array  # int32[B, M], read where given.
  given: jax.Array  # bool[B].


Sample = Callable[..., Trajectory]


@functools.cache  # So that jobs of one process compile it once.
def make_sampler(model: transformer.Transformer, sampling: Sampling) -> Sample:
  """Returns the jitted sampler.

  It is called as `sample(params, prompts, instructions, key, first=None)`:

    params: of the model.
    prompts: Prompts of N problems.
    instructions: T - 1 arrays int32[I], the constant ids between attempts,
      with what closes the attempt's message left out where the end token
      closes it.
    key: a random key; with it, a problem's number and the sample's place in
      its group fix a row's draws, whatever batch or mesh the row is in.
    first: FirstAttempts, or None where all rows sample their own.

  It returns the trajectories of B = N * F * S rows; L is P plus what all turns
  may fill.
  """
  sample = functools.partial(_sample, model, sampling)
  return jax.jit(sample)


def _sample(model, sampling, params, prompts, instructions, key, first=None):
  run = _model(model, params)
  turns = len(sampling.max_tokens)
  rows, cache, hidden = _prefill(run, sampling, prompts, instructions)
  truncated, spans = [], []
  for turn in range(1, turns + 1):
    if turn == 2:
      rows, cache, hidden, truncated, spans = _branch(
        sampling, (rows, cache, hidden, truncated, spans)
      )
    start = rows.length
    attempt = _attempt_inputs(sampling, prompts.number, key, turn, first)
    rows, cache = _attempt(run, sampling, rows, cache, hidden, attempt, turn)
    truncated.append(~rows.ended)
    spans.append(jnp.stack([start, rows.length], axis=1))
    if turn < turns:
      rows, cache, hidden = _instruct(
        run, sampling, rows, cache, instructions[turn - 1]
      )
  trajectory = Trajectory(
    tokens=rows.tokens,
    turn=rows.turn,
    logp=rows.logp,
    length=rows.length,
    span=jnp.stack(spans, axis=1),
    truncated=jnp.stack(truncated, axis=1),
  )
  return jax.tree.map(run.rows, trajectory)  # Each host reads its own rows.


@dataclasses.dataclass(frozen=True)
class _Model:
  """The decoder with its parameters bound."""

  module: transformer.Transformer
  variables: dict
  forms: dict[str, dict]  # The same, as steps read them (`stack.form_of`).

  def __call__(self, *args):
    return self.module.apply(self.variables, *args)

  def at(self, step: jax.Array, rows: int) -> _Model:
    """Returns the decoder for one step of a loop, of so many rows."""
    execution = self.module.execution
    variables = self.forms[stack.form_of(execution, rows)]
    return _Model(self.module, _held(variables, step, execution.dtype), {})

  def unembed(self, hidden: jax.Array) -> jax.Array:
    return self.module.apply(self.variables, hidden, method='unembed')

  def rows(self, x: jax.Array) -> jax.Array:
    """Returns x laid out with its first dimension split as rows."""
    axes = ('batch',) + (None,) * (x.ndim - 1)
    return sharding.constrain(self.module.execution.mesh, x, *axes)


def _model(model, params) -> _Model:
  """Returns the decoder with its layers apart, and in all forms of kernels.

  XLA leaves out those that no loop reads.
  """
  params = stack.by_layer(model.execution, params)
  forms = {
    form: {'params': stack.laid_out(model.execution, params, form)}
    for form in stack.forms(model.execution)
  }
  return _Model(model, {'params': params}, forms)


def _held(tree, step: jax.Array, dtype: str):
  """Returns a tree whose narrow arrays seem to depend on a loop's step.

  Else XLA may widen them to the type of products once, before the loop, and
  every step reads the wide copy: what narrow arrays are kept for is lost.
  """
  width = jnp.dtype(dtype).itemsize

  def hold(x):
    if x.ndim < 2 or x.dtype.itemsize >= width:
      return x
    return jax.lax.optimization_barrier((x, step))[0]

  return jax.tree.map(hold, tree)


def _at(x: jax.Array, column: jax.Array) -> jax.Array:
  """Returns [B, ...], x[b, column[b]] of x [B, L, ...]."""
  index = column.reshape(-1, *(1,) * (x.ndim - 1))
  return jnp.take_along_axis(x, index, axis=1)[:, 0]


def _prefill(run, sampling, prompts, instructions):
  """Returns rows, cache and last states after one pass over the prompts."""
  problems, columns = prompts.tokens.shape
  rows = problems * sampling.first_attempts
  slots = sum(sampling.max_tokens) + sum(len(i) + 1 for i in instructions)
  hidden, prompt = run(prompts.tokens)
  own = empty_cache(run.module.config, run.module.execution, rows, 0)
  cache = Cache(prompt, own, prompts.length)

  def spread(x):  # [N, ...] -> [N * F, ...]
    return run.rows(jnp.repeat(x, sampling.first_attempts, axis=0))

  inside = jnp.arange(columns)[None] < prompts.length[:, None]
  tokens = spread(jnp.where(inside, prompts.tokens, sampling.pad))
  tokens = jnp.pad(tokens, ((0, 0), (0, slots)), constant_values=sampling.pad)
  state = _Rows(
    tokens=tokens,
    turn=jnp.zeros_like(tokens),
    logp=jnp.zeros(tokens.shape, jnp.float32),
    length=spread(prompts.length),
    ended=jnp.zeros(rows, bool),
  )
  return state, cache, spread(_at(hidden, prompts.length - 1))


def _branch(sampling, state):
  """Returns the state with every row repeated for its second attempts."""
  if sampling.second_attempts == 1:
    return state
  rows, cache, hidden, *others = state
  axis = _row_axis(cache)

  def repeat(tree, axis):
    def one(x):
      return jnp.repeat(x, sampling.second_attempts, axis=axis)

    return jax.tree.map(one, tree)

  cache = dataclasses.replace(cache, own=repeat(cache.own, axis))
  return repeat(rows, 0), cache, repeat(hidden, 0), *repeat(others, 0)


def _row_axis(cache: Cache) -> int:
  """Returns where rows lie; in a scanned cache layers lie before them."""
  return 1 if isinstance(cache.own, KeyValue) else 0


def _grown(run, cache: Cache, columns: int) -> Cache:
  """Returns the cache with so many more columns of each row."""
  own = grown(run.module.execution, cache.own, columns)
  return dataclasses.replace(cache, own=own)


def _attempt_inputs(sampling, number, key, turn, first):
  """Returns the draws' random numbers, a function of key, row and turn."""
  length = sampling.max_tokens[turn - 1]
  each = sampling.first_attempts
  if turn > 1:
    each *= sampling.second_attempts

  def uniform(number, sample):
    own = key
    for part in (number, sample, turn):
      own = jax.random.fold_in(own, part)
    return jax.random.uniform(own, (length,))

  samples = jnp.tile(jnp.arange(each), number.shape[0])
  numbers = jax.vmap(uniform)(jnp.repeat(number, each), samples)
  if turn == 1 and first is not None:
    return _Attempt(numbers, first.tokens, first.given)
  rows = numbers.shape[0]
  tokens = jnp.zeros((rows, length), jnp.int32)
  return _Attempt(numbers, tokens, jnp.zeros(rows, bool))


def _attempt(run, sampling, rows, cache, hidden, attempt, turn):
  """Returns rows and cache after one attempt; its last tokens are not fed."""
  limit = sampling.max_tokens[turn - 1]
  rows = dataclasses.replace(rows, ended=jnp.zeros_like(rows.ended))
  rows = _append(run, sampling, rows, hidden, attempt, turn, 0)
  step = functools.partial(_step, run, sampling, turn)
  sizes = _sizes(run, sampling, cache, len(rows.length))
  state, done = (jnp.int32(1), rows, cache), 0
  while done < limit:
    piece = min(sampling.grow or limit, limit - done)
    i, rows, cache = state
    state = i, rows, _grown(run, cache, piece)
    done += piece
    state = _decode(step, state, attempt, done, sizes)
  return state[1:]


def _step(run, sampling, turn, attempt, state):
  i, rows, cache = state
  now = run.at(i, len(rows.length))
  prompt = _held(cache.prompt, i, run.module.execution.dtype)
  # A row that has ended feeds its last token again, which changes nothing.
  column = rows.length[:, None] - 1
  token = jnp.take_along_axis(rows.tokens, column, axis=1)
  read = dataclasses.replace(cache, prompt=prompt)
  hidden, own = now(token, column, read)
  cache = dataclasses.replace(cache, own=own)
  rows = _append(now, sampling, rows, hidden[:, 0], attempt, turn, i)
  return i + 1, rows, cache


def _sizes(run, sampling, cache, rows: int) -> list[int]:
  """Returns how many rows of each device's part are decoded, falling."""
  shards = sharding.row_shards(run.module.execution.mesh)
  if rows % shards or len(cache.prompt_length) % shards:
    return [rows]  # Rows are not split, or not beside their prompts.
  return sizes(rows // shards, sampling.compact)


def sizes(rows: int, compact: tuple[float, ...]) -> list[int]:
  """Returns how many of a device's rows are decoded at once, falling.

  Args:
    rows: all of a device's rows.
    compact: as of `Sampling`.
  """
  smaller = {max(1, round(share * rows)) for share in compact}
  return [rows, *sorted((n for n in smaller if n < rows), reverse=True)]


def _decode(step, state, attempt, limit: int, sizes: list[int]):
  """Returns step number, rows and cache with tokens drawn up to the limit.

  When no more rows are alive than the next size, these alone go on: they are
  taken out, decoded, and put back. Each device does so with its own.
  """
  size, *smaller = sizes
  shards = len(state[1].length) // size
  floor = smaller[0] if smaller else 0

  def more(state):
    i, rows, _ = state
    alive = jnp.sum(~rows.ended.reshape(shards, size), axis=1)
    return (i < limit) & (jnp.max(alive) > floor)

  state = jax.lax.while_loop(more, functools.partial(step, attempt), state)
  if not smaller:
    return state
  i, rows, cache = state
  ended = rows.ended.reshape(shards, size)
  place = jnp.argsort(ended, axis=1, stable=True)[:, :floor]
  part = _taken((rows, attempt), place)
  few = _cache_of(cache, place)
  i, rows_few, few = _decode(step, (i, part[0], few), part[1], limit, smaller)
  rows = _put(rows, rows_few, place)
  own = _put(cache.own, few.own, place, _row_axis(cache))
  return i, rows, dataclasses.replace(cache, own=own)


def _taken(tree, place: jax.Array, axis: int = 0):
  """Returns the rows at `place`, int32[shards, n], of each shard's rows."""
  shards = place.shape[0]

  def one(x):
    x = jnp.moveaxis(x, axis, 0)
    parts = x.reshape(shards, -1, *x.shape[1:])
    found = jax.vmap(lambda part, at: part[at])(parts, place)
    return jnp.moveaxis(found.reshape(-1, *x.shape[1:]), 0, axis)

  return jax.tree.map(one, tree)


def _put(tree, few, place: jax.Array, axis: int = 0):
  """Returns the rows with those at `place` replaced; undoes `_taken`."""
  shards = place.shape[0]

  def one(x, y):
    x, y = jnp.moveaxis(x, axis, 0), jnp.moveaxis(y, axis, 0)
    parts, new = (z.reshape(shards, -1, *z.shape[1:]) for z in (x, y))
    found = jax.vmap(lambda part, at, z: part.at[at].set(z))(parts, place, new)
    return jnp.moveaxis(found.reshape(x.shape), 0, axis)

  return jax.tree.map(one, tree, few)


def _cache_of(cache: Cache, place: jax.Array):
  """Returns the cache of some rows, each with a copy of its prompt.

  Rows that are left of a group are no longer as many as those of the others.
  """
  axis = _row_axis(cache)
  rows = jax.tree.leaves(cache.own)[0].shape[axis]
  each = rows // len(cache.prompt_length)
  return Cache(
    _taken(cache.prompt, place // each, axis),
    _taken(cache.own, place, axis),
    _taken(cache.prompt_length, place // each),
  )


def _append(run, sampling, rows, hidden, attempt, turn, i):
  """Returns the rows with the i-th token of their attempt drawn and written."""
  token, logp = draw(
    run.unembed(hidden), attempt.uniform[:, i], sampling.policy
  )
  given = attempt.given
  token = jnp.where(given, attempt.tokens[:, i], token)
  live = ~rows.ended
  # Rows that have ended write to a column that is not there.
  column = jnp.where(live, rows.length, rows.tokens.shape[1])
  index = (jnp.arange(token.shape[0]), column)
  end = jnp.isin(token, jnp.asarray(sampling.end_tokens))
  mine = jnp.where(given, 0, turn)
  return _Rows(
    tokens=rows.tokens.at[index].set(token, mode='drop'),
    turn=rows.turn.at[index].set(mine, mode='drop'),
    logp=rows.logp.at[index].set(jnp.where(given, 0.0, logp), mode='drop'),
    length=rows.length + live,
    ended=rows.ended | end,
  )


def _instruct(run, sampling, rows, cache, instruction):
  """Returns rows, cache and last states with the instruction read.

  The last token of the attempt, not fed yet, goes first. An attempt that was
  cut off is closed by an end token, which nobody sampled; the instruction of
  the others stands one column further left, and the pad token behind it is
  overwritten, in the cache too, before it can be seen.
  """
  batch, length = rows.length.shape[0], instruction.shape[0]
  cache = _grown(run, cache, length + 1)
  column = rows.length[:, None] - 1
  last = jnp.take_along_axis(rows.tokens, column, axis=1)
  pad = jnp.asarray([sampling.pad], jnp.int32)
  close = jnp.asarray([sampling.close], jnp.int32)
  ended = jnp.concatenate([instruction, pad])
  cut = jnp.concatenate([close, instruction])
  tail = jnp.where(rows.ended[:, None], ended[None], cut[None])
  columns = column + jnp.arange(length + 2)[None]
  hidden, own = run(jnp.concatenate([last, tail], axis=1), columns, cache)
  added = length + (~rows.ended).astype(jnp.int32)
  index = (jnp.arange(batch)[:, None], columns[:, 1:])
  rows = dataclasses.replace(
    rows, tokens=rows.tokens.at[index].set(tail), length=rows.length + added
  )
  cache = dataclasses.replace(cache, own=own)
  return rows, cache, _at(hidden, added)
