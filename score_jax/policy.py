"""What a policy is: one distribution per token, drawn from and scored alike.

Temperature and truncation are parts of the policy, which is the softmax of
`policy_logits`: the sampler draws from it and the update scores with it, so the
two cannot drift apart.

Letters: B rows, L columns, D width, V vocabulary, C columns of a chunk.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

Unembed = Callable[[jax.Array], jax.Array]  # [..., D] -> float32[..., V].


@dataclasses.dataclass(frozen=True)
class Policy:
  """How logits become a distribution."""

  temperature: float = 1.0  # 0 = greedy: all on the highest logit.
  top_k: int = 0  # 0 = off.
  top_p: float = 1.0  # 1 = off.

  def untruncated(self) -> Policy:
    """Returns the policy whose support is the whole vocabulary."""
    return Policy(self.temperature)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TokenScores:
  """What policy and reference say of the tokens of a batch."""

  logp: jax.Array  # float32[B, L]: of the policy.
  entropy: jax.Array  # float32[B, L], nats; carries no gradient.
  reference_logp: jax.Array  # float32[B, L]; carries no gradient.
  kl: jax.Array  # float32[B, L]: exact KL(policy || reference); 0 if not asked.


def policy_logits(logits: jax.Array, policy: Policy) -> jax.Array:
  """Returns float32[..., V], scaled logits, -inf off the policy's support.

  Args:
    logits: float32[..., V].
    policy: a temperature of 0 is scored as 1, for a greedy draw has no
      distribution to speak of.
  """
  scaled = logits / policy.temperature if policy.temperature else logits
  if policy.top_k:
    count = min(policy.top_k, scaled.shape[-1])
    lowest = jax.lax.top_k(scaled, count)[0][..., -1:]
    scaled = jnp.where(scaled >= lowest, scaled, -jnp.inf)
  if policy.top_p < 1:
    scaled = jnp.where(_nucleus(scaled, policy.top_p), scaled, -jnp.inf)
  return scaled


def _nucleus(logits: jax.Array, top_p: float) -> jax.Array:
  """Returns bool[..., V]: the fewest likeliest tokens that hold top_p."""
  order = jnp.sort(logits, axis=-1, descending=True)
  mass = jnp.cumsum(jax.nn.softmax(order, axis=-1), axis=-1)
  before = mass - jax.nn.softmax(order, axis=-1)
  kept = jnp.sum(before < top_p, axis=-1, keepdims=True)
  lowest = jnp.take_along_axis(order, kept - 1, axis=-1)
  return logits >= lowest


def draw(
  logits: jax.Array, uniform: jax.Array, policy: Policy
) -> tuple[jax.Array, jax.Array]:
  """Returns a token per row, int32[B], and its log-probability, float32[B].

  Draws by inverting the distribution function: one uniform number per row
  instead of one noise number per row and token. It is inverted in two steps,
  first which block of the vocabulary and then which of its tokens, so that
  nothing as large as the logits is made beside them.

  Args:
    logits: float32[B, V].
    uniform: float32[B] in [0, 1).
    policy: greedy where its temperature is 0.
  """
  # Read several times: without the barrier XLA may compute them as often.
  scores = jax.lax.optimization_barrier(policy_logits(logits, policy))
  highest = jnp.max(scores, axis=-1, keepdims=True)
  blocks = scores.reshape(scores.shape[0], -1, _block(scores.shape[1]))
  mass = jnp.sum(jnp.exp(blocks - highest[..., None]), axis=-1)
  if policy.temperature:
    reach, top = _reach(mass)
    block = _first_beyond(reach, uniform[:, None] * top)
    before = jnp.take_along_axis(reach - mass, block, axis=-1)
    rest = uniform[:, None] * top - before
    inside = jnp.take_along_axis(blocks, block[..., None], axis=1)[:, 0]
    reach, _ = _reach(jnp.exp(inside - highest))
    place = _first_beyond(reach, rest)
    token = (block * inside.shape[-1] + place)[:, 0].astype(jnp.int32)
  else:
    token = jnp.argmax(scores, axis=-1).astype(jnp.int32)
  score = jnp.take_along_axis(scores, token[:, None], axis=-1)
  total = jnp.sum(mass, axis=-1, keepdims=True)
  return token, (score - highest - jnp.log(total))[:, 0]


def _block(vocabulary: int) -> int:
  """Returns how many tokens are a block: a divisor near the root, at most it.

  One that leaves a multiple of 16 blocks where there is one, so that a mesh
  that splits the vocabulary splits the blocks.
  """
  root = math.isqrt(vocabulary)
  sizes = [n for n in range(root, 0, -1) if vocabulary % n == 0]
  even = [n for n in sizes if vocabulary // n % 16 == 0]
  return (even or sizes)[0]


def _reach(mass: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns float32[B, N], running sums of mass, and the highest, [B, 1].

  Long sums round, and need not even rise: what has no mass reaches nothing,
  so that it cannot be drawn, and the highest always is.
  """
  reach = jnp.where(mass > 0, jnp.cumsum(mass, axis=-1), 0.0)
  return reach, jnp.max(reach, axis=-1, keepdims=True)


def _first_beyond(reach: jax.Array, level: jax.Array) -> jax.Array:
  """Returns int32[B, 1], the first place of [B, N] that is beyond a level.

  Rounding may leave the level below 0, which what has no mass is not beyond.
  """
  top = jnp.max(reach, axis=-1, keepdims=True)
  beyond = (reach > jnp.maximum(level, 0.0)) | (reach == top)
  return jnp.argmax(beyond, axis=-1, keepdims=True)


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=('start', 'turn'),
  meta_fields=('width',),
)
@dataclasses.dataclass(frozen=True)
class Attempts:
  """Where attempts may stand; nothing else of a row needs to be scored."""

  start: jax.Array  # int32[B, T]: first column of an attempt.
  turn: jax.Array  # int32[B, L]: 1..T where an attempt wrote the token, else 0.
  width: tuple[int, ...]  # Columns that attempts of a turn fill at most.


def token_logp(
  unembed: Unembed,
  before: jax.Array,
  tokens: jax.Array,
  policy: Policy,
  chunk: int,
) -> jax.Array:
  """Returns float32[B, L], the log-probability of every token.

  As `score_tokens`, without a reference.
  """

  def score(before, tokens):
    return _chosen(policy_logits(unembed(before), policy), tokens)[0]

  return _by_columns(score, (before, tokens), chunk)


def score_tokens(
  unembed: Unembed,
  before: jax.Array,
  reference_unembed: Unembed,
  reference_before: jax.Array,
  tokens: jax.Array,
  policy: Policy,
  chunk: int,
  exact_kl: bool,
  attempts: Attempts | None = None,
) -> TokenScores:
  """Returns what policy and reference say of every token.

  Logits exist for about `chunk` tokens at a time, forward and backward. The
  score at column i belongs to `tokens[:, i]`, which the state before it
  predicts; where there is none it means nothing.

  Args:
    unembed: the policy's logits of hidden states; gradients reach its weights.
    before: [B, L, D], at each column the policy's state that predicts it, as
      `reading.states_before` gives them.
    reference_unembed: the reference's logits of hidden states.
    reference_before: [B, L, D], the reference's.
    tokens: int32[B, L].
    policy: how logits become a distribution; the reference is scored at the
      same temperature on its whole support.
    chunk: tokens whose logits are held at once.
    exact_kl: whether to sum the KL over the vocabulary; it carries a gradient.
    attempts: what to score, if not all; other tokens' scores are 0 then.
  """
  score = functools.partial(
    _score_block, unembed, reference_unembed, policy, exact_kl
  )
  if attempts is None or sum(attempts.width) >= tokens.shape[1]:
    return _by_columns(score, (before, reference_before, tokens), chunk)
  arrays = tuple(
    _taken(x, attempts) for x in (before, reference_before, tokens)
  )
  scores = _by_columns(score, arrays, chunk)
  return jax.tree.map(lambda x: _put_back(x, attempts), scores)


def _windows(attempts: Attempts) -> list[tuple[jax.Array, int]]:
  """Returns the first column, int32[B], and the width of each turn's window.

  One that would end beyond the row begins earlier; it holds the attempt still.
  """
  last = [attempts.turn.shape[1] - width for width in attempts.width]
  start = jnp.minimum(attempts.start, jnp.asarray(last)[None])
  return list(zip(start.T, attempts.width, strict=True))


def _taken(x: jax.Array, attempts: Attempts) -> jax.Array:
  """Returns the windows of [B, L, ...], one behind the other, [B, N, ...]."""

  def take(x, start, width):
    return jax.lax.dynamic_slice_in_dim(x, start, width)

  parts = [
    jax.vmap(functools.partial(take, width=width))(x, start)
    for start, width in _windows(attempts)
  ]
  return jnp.concatenate(parts, axis=1)


def _put_back(x: jax.Array, attempts: Attempts) -> jax.Array:
  """Returns float32[B, L] of [B, N]: at its column what an attempt's token has.

  A window goes on behind a short attempt, into what is not its own.
  """
  out = jnp.zeros(attempts.turn.shape, x.dtype)
  done = 0
  for t, (start, width) in enumerate(_windows(attempts), start=1):
    part = x[:, done : done + width]
    put = jax.vmap(jax.lax.dynamic_update_slice_in_dim, (0, 0, 0, None))
    placed = put(jnp.zeros_like(out), part, start, 0)
    out = jnp.where(attempts.turn == t, placed, out)
    done += width
  return out


def _by_columns(score: Callable, arrays: tuple, chunk: int):
  """Returns the scores of [B, L, ...] arrays, made a block of columns a time.

  Blocks are cut along columns, so that rows stay where the mesh has them.
  """
  rows, columns = arrays[-1].shape
  width = max(1, min(columns, chunk // rows))
  count = math.ceil(columns / width)
  if count == 1:  # Nothing is gained by making the logits twice.
    return score(*arrays)

  def blocks(x):  # [B, L, ...] -> [count, B, width, ...].
    fill = [(0, 0), (0, count * width - columns)] + [(0, 0)] * (x.ndim - 2)
    x = jnp.pad(x, fill).reshape(rows, count, width, *x.shape[2:])
    return jnp.moveaxis(x, 1, 0)

  scores = jax.lax.map(
    lambda block: jax.checkpoint(score)(*block), jax.tree.map(blocks, arrays)
  )
  return jax.tree.map(
    lambda x: jnp.moveaxis(x, 0, 1).reshape(rows, -1)[:, :columns], scores
  )


def _score_block(
  unembed: Unembed,
  reference_unembed: Unembed,
  policy: Policy,
  exact_kl: bool,
  before: jax.Array,
  reference_before: jax.Array,
  tokens: jax.Array,
) -> TokenScores:
  """Returns the scores of one block of columns, each float32[B, C]."""
  scores = policy_logits(unembed(before), policy)
  reference = jax.lax.stop_gradient(
    policy_logits(reference_unembed(reference_before), policy.untruncated())
  )
  logp, entropy = _chosen(scores, tokens)
  reference_logp, _ = _chosen(reference, tokens)
  kl = jnp.zeros_like(logp)
  if exact_kl:
    kl = _exact_kl(scores, reference)
  return TokenScores(
    logp=logp,
    entropy=jax.lax.stop_gradient(entropy),
    reference_logp=jax.lax.stop_gradient(reference_logp),
    kl=kl,
  )


def _exact_kl(scores: jax.Array, reference: jax.Array) -> jax.Array:
  """Returns float32[...], the KL of two distributions, [..., V] scores each."""
  logp = jax.nn.log_softmax(scores, axis=-1)
  chance = jnp.exp(logp)
  # A token off the policy's support adds 0.
  apart = logp - jax.nn.log_softmax(reference, axis=-1)
  return jnp.sum(chance * jnp.where(chance > 0, apart, 0.0), axis=-1)


@jax.custom_vjp
def _chosen(
  scores: jax.Array, tokens: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns a token's log-probability and the entropy, float32[...] each.

  Its gradient is written out, one pass over the scores: as jax derives it,
  arrays of their size are filled with zeros, scattered into and summed up.
  None goes through the entropy.

  Args:
    scores: float32[..., V]; -inf off the support.
    tokens: int32[...].
  """
  return _chosen_forward(scores, tokens)[0]


def _chosen_forward(scores, tokens):
  total = jax.nn.logsumexp(scores, axis=-1, keepdims=True)
  logp = jnp.take_along_axis(scores, tokens[..., None], axis=-1) - total
  chance = jnp.exp(scores - total)
  mean = jnp.sum(chance * jnp.where(chance > 0, scores, 0.0), axis=-1)
  return (logp[..., 0], total[..., 0] - mean), (scores, tokens, total)


def _chosen_backward(kept, cotangent):
  scores, tokens, total = kept
  chance = jnp.exp(scores - total)
  places = jax.lax.broadcasted_iota(jnp.int32, scores.shape, scores.ndim - 1)
  apart = jnp.where(places == tokens[..., None], 1.0 - chance, -chance)
  return cotangent[0][..., None] * apart, None


_chosen.defvjp(_chosen_forward, _chosen_backward)
