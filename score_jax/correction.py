"""Importance weights, where another policy sampled than the one that learns.

The policy that samples may be a step older, or round otherwise, than the one
that the update scores with. With mu for the first and pi for the second,

    E_pi[ f grad log pi ] = E_mu[ w f grad log pi ],   w = pi / mu,

where w is of all that was drawn before and in what is credited. Weights of
fewer draws, and weights that are bounded, vary less and are biased:

    token       w of the token alone, as in IMPALA (arXiv:1802.01561) and in
                the usual correction of samplers that round otherwise than
                trainers (truncated importance sampling,
                fengyao.notion.site/off-policy-rl). The contexts stay mu's.
    attempt     w of the whole attempt. The contexts of later turns stay mu's.
    trajectory  w of all attempts so far: without a bound it is unbiased.

Letters: B rows, L columns, T turns.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp

from score_jax.objective import turn_sums
from score_jax.policy import TokenScores


@dataclasses.dataclass(frozen=True)
class Correction:
  """How weights are made of the chances that two policies give to tokens."""

  level: str  # 'token', 'attempt' or 'trajectory'.
  cap: float  # The largest weight; infinite = none.
  masked: bool  # Whether what is above the cap weighs 0, and not the cap.


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Weights:
  """Weights of tokens; they carry no gradient."""

  weight: jax.Array  # float32[B, L]; 1 where turn is 0.
  capped: jax.Array  # bool[B, L]: the ratio was above the cap.


def named(kind: str, level: str, cap: float) -> Correction | None:
  """Returns the correction of settings; None where nothing is corrected.

  Args:
    kind: 'none', 'truncated' or 'masked'.
    level: 'token', 'attempt' or 'trajectory'.
    cap: the largest weight; 0 = none.
  """
  if kind == 'none':
    return None
  return Correction(level, cap or float('inf'), kind == 'masked')


def weights(
  correction: Correction,
  logp: jax.Array,
  sampled_logp: jax.Array,
  turn: jax.Array,
  turns: int,
) -> Weights:
  """Returns min(pi / mu, cap) of each token, or 0 above the cap if masked.

  Args:
    correction: what is weighed, and how far.
    logp: float[B, L], log pi of the tokens.
    sampled_logp: float[B, L], log mu of the tokens.
    turn: int32[B, L]; tokens of turn 0 take no part.
    turns: T.
  """
  # where before all else: other tokens' scores mean nothing.
  ratio = jnp.where(turn > 0, logp - sampled_logp, 0.0)
  ratio = jax.lax.stop_gradient(ratio)
  if correction.level != 'token':
    whole = turn_sums(ratio, turn, turns)
    if correction.level == 'trajectory':
      whole = jnp.cumsum(whole, axis=1)
    ratio = _of_turn(whole, turn)
  highest = jnp.log(jnp.float32(correction.cap))
  capped = ratio > highest
  weight = jnp.exp(jnp.minimum(ratio, highest))
  if correction.masked:
    weight = jnp.where(capped, 0.0, weight)
  return Weights(weight, capped)


def _of_turn(x: jax.Array, turn: jax.Array) -> jax.Array:
  """Returns [B, L]: of x [B, T], what each token's turn has; 0 at turn 0."""
  padded = jnp.pad(x, ((0, 0), (1, 0)))
  return jnp.take_along_axis(padded, turn, axis=1)


def weighted(scores: TokenScores, weight: jax.Array) -> TokenScores:
  """Returns the same scores, whose gradients are weighed token by token.

  So each term of the loss is corrected, whatever it makes of the scores.

  Args:
    scores: float[B, L] each.
    weight: float[B, L].
  """

  def scale(x):
    still = jax.lax.stop_gradient(x)
    return still + weight * (x - still)

  return dataclasses.replace(
    scores, logp=scale(scores.logp), kl=scale(scores.kl)
  )


def sums(
  correction: Correction, found: Weights, turn: jax.Array, turns: int
) -> dict[str, jax.Array]:
  """Returns what `metrics` are made of, float32[T] each; of parts, the sums.

  A sample is a token, or an attempt where attempts are weighed.
  """

  of_turn = functools.partial(turn_sums, turn=turn, turns=turns)
  ones = jnp.ones_like(found.weight)
  share = ones
  if correction.level != 'token':
    share = 1 / jnp.maximum(_of_turn(of_turn(ones), turn), 1.0)

  def total(x):
    return jnp.sum(of_turn(share * x), axis=0)

  return {
    'samples': total(ones),
    'weight': total(found.weight),
    'square': total(jnp.square(found.weight)),
    'capped': total(found.capped.astype(jnp.float32)),
  }


def metrics(found: dict[str, jax.Array]) -> dict[str, jax.Array]:
  """Returns what the weights of each turn are like, float32[T] each.

  `weight_mean`, `weight_capped`, the share above the cap, and `weight_ess`,
  the effective sample size (sum w)^2 / sum w^2 as a share of the samples.

  Args:
    found: of `sums`.
  """
  count = jnp.maximum(found['samples'], 1e-9)
  squares = jnp.maximum(found['square'], 1e-9)
  return {
    'weight_mean': found['weight'] / count,
    'weight_capped': found['capped'] / count,
    'weight_ess': jnp.square(found['weight']) / squares / count,
  }
