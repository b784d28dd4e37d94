"""One compiled program: prompts in, trajectories out, all turns.

    prefill prompts (once per problem) ──► attempt 1 ──► prefill instruction
        ──► attempt 2 ──► ...

Turn t + 1 goes on from turn t's cache. The second prompt is made of sampled
ids and constant ids; nothing is decoded and encoded again. The cache grows as
it is filled, since a step reads all of it. An attempt's loops end when all its
rows have ended; which rows they read meanwhile is said by `batching.py`.

Letters: B rows, N problems, F first attempts per problem, S second attempts
per first, L columns, P prompt columns, T turns, M tokens of an attempt,
I tokens of an instruction.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from score_jax import batching, sharding
from score_jax.batching import State
from score_jax.models import stack, transformer
from score_jax.models.cache import Cache, empty_cache, grown, row_axis
from score_jax.policy import draw, Policy
from score_jax.trajectory import Trajectory


@dataclasses.dataclass(frozen=True)
class Sampling:
  """What is compiled into the program; from turn 2 on, B = N * F * S."""

  first_attempts: int  # F, per problem.
  second_attempts: int  # S, that share a first attempt; from turn 2 on.
  max_tokens: tuple[int, ...]  # M per turn, the end token counted.
  policy: Policy
  end_tokens: tuple[int, ...]  # Any of them ends an attempt.
  close: int  # Put behind an attempt that was cut off, as context.
  pad: int
  # Columns that the cache grows by in an attempt; 0 = at once, as where rows
  # are refilled.
  grow: int = 0
  # Rows of each device decoded at a time, those that end making room; 0 = all.
  refill: int = 0
  # Shares of them, falling: once no more than that are alive, those alone are
  # decoded. Each adds a loop to the program.
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

  start: jax.Array  # int32[B], where it begins.
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
    attempt = _attempt_inputs(sampling, prompts.number, start, key, turn, first)
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


def _written(x: jax.Array, column: jax.Array, new: jax.Array) -> jax.Array:
  """Returns x [B, L], new in column, [B] or [B, n], if there is such a one.

  Row by row, so that on a mesh each device writes its own.
  """
  return jax.vmap(lambda x, at, new: x.at[at].set(new, mode='drop'))(
    x, column, new
  )


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
  axis = row_axis(cache)

  def repeat(tree, axis):
    def one(x):
      return jnp.repeat(x, sampling.second_attempts, axis=axis)

    return jax.tree.map(one, tree)

  cache = dataclasses.replace(cache, own=repeat(cache.own, axis))
  return repeat(rows, 0), cache, repeat(hidden, 0), *repeat(others, 0)


def _grown(run, cache: Cache, columns: int) -> Cache:
  """Returns the cache with so many more columns of each row."""
  own = grown(run.module.execution, cache.own, columns)
  return dataclasses.replace(cache, own=own)


def _attempt_inputs(sampling, number, start, key, turn, first):
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
    return _Attempt(start, numbers, first.tokens, first.given)
  rows = numbers.shape[0]
  tokens = jnp.zeros((rows, length), jnp.int32)
  return _Attempt(start, numbers, tokens, jnp.zeros(rows, bool))


def _attempt(run, sampling, rows, cache, hidden, attempt, turn):
  """Returns rows and cache after one attempt; its last tokens are not fed."""
  limit = sampling.max_tokens[turn - 1]
  rows = dataclasses.replace(rows, ended=jnp.zeros_like(rows.ended))
  rows = _append(run, sampling, rows, hidden, attempt, turn)
  step = functools.partial(_step, run, sampling, turn)
  state, done = State(jnp.int32(1), rows, attempt, cache), 0
  shards, sizes = _sizes(run, sampling, cache, state.size)
  if sizes[0] * shards < state.size:
    state = batching.refill(
      step,
      functools.partial(_alive, limit),
      state,
      sizes,
      shards,
      functools.partial(_grown, run, columns=limit),
      is_last=turn == len(sampling.max_tokens),
    )
    return state.rows, state.cache
  while done < limit:
    piece = min(sampling.grow or limit, limit - done)
    cache = _grown(run, state.cache, piece)
    done += piece
    state = dataclasses.replace(state, cache=cache)
    alive = functools.partial(_alive, done)
    state = batching.decode(step, alive, state, sizes)
  return state.rows, state.cache


def _alive(limit: int, state: State) -> jax.Array:
  """Returns bool[B], whose attempts go on, to that many tokens."""
  rows, start = state.rows, state.inputs.start
  return ~rows.ended & (rows.length - start < limit)


def _step(run, sampling, turn, state: State) -> State:
  rows, cache = state.rows, state.cache
  now = run.at(state.steps, state.size)
  prompt = _held(cache.prompt, state.steps, run.module.execution.dtype)
  # A row that has ended feeds its last token again, which changes nothing.
  column = rows.length[:, None] - 1
  token = jnp.take_along_axis(rows.tokens, column, axis=1)
  read = dataclasses.replace(cache, prompt=prompt)
  hidden, own = now(token, column, read)
  return dataclasses.replace(
    state,
    steps=state.steps + 1,
    rows=_append(now, sampling, rows, hidden[:, 0], state.inputs, turn),
    cache=dataclasses.replace(cache, own=own),
  )


def _sizes(run, sampling, cache, rows: int) -> tuple[int, list[int]]:
  """Returns the devices' parts, and how many rows of each are decoded."""
  shards = sharding.row_shards(run.module.execution.mesh)
  if rows % shards or len(cache.prompt_length) % shards:
    return 1, [rows]  # Rows are not split, or not beside their prompts.
  each = rows // shards
  return shards, batching.sizes(each, sampling.compact, sampling.refill)


def _append(run, sampling, rows, hidden, attempt, turn):
  """Returns the rows with the next token of their attempt drawn and written."""
  longest = attempt.uniform.shape[1]
  i = rows.length - attempt.start
  live = ~rows.ended & (i < longest)
  i = jnp.minimum(i, longest - 1)
  token, logp = draw(
    run.unembed(hidden), _at(attempt.uniform, i), sampling.policy
  )
  given = attempt.given
  token = jnp.where(given, _at(attempt.tokens, i), token)
  # Rows that have ended write to a column that is not there.
  column = jnp.where(live, rows.length, rows.tokens.shape[1])
  end = jnp.isin(token, jnp.asarray(sampling.end_tokens))
  mine = jnp.where(given, 0, turn)
  return _Rows(
    tokens=_written(rows.tokens, column, token),
    turn=_written(rows.turn, column, mine),
    logp=_written(rows.logp, column, jnp.where(given, 0.0, logp)),
    length=rows.length + live,
    ended=rows.ended | (live & end),
  )


def _instruct(run, sampling, rows, cache, instruction):
  """Returns rows, cache and last states with the instruction read.

  The last token of the attempt, not fed yet, goes first. An attempt that was
  cut off is closed by an end token, which nobody sampled; the instruction of
  the others stands one column further left, and the pad token behind it is
  overwritten, in the cache too, before it can be seen.
  """
  length = instruction.shape[0]
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
  rows = dataclasses.replace(
    rows,
    tokens=_written(rows.tokens, columns[:, 1:], tail),
    length=rows.length + added,
  )
  cache = dataclasses.replace(cache, own=own)
  return rows, cache, _at(hidden, added)
