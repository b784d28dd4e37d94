"""The mathematics of the paper, and nothing else (arXiv:2409.12917).

    reward ──► shaped reward ─┐
    KL per turn ──────────────┴► value ──► return ──► advantage ──► loss

Every quantity is per turn: each turn's tokens are credited with that turn's
own return. Both stages are one expression with two rows of numbers:

    stage I   reward (0, 1), progress 0,     KL weights (beta2, beta1)
    stage II  reward (1, 1), progress alpha, KL weights (beta1, beta1)

Letters: B rows, L columns, T turns, N problems, F first attempts of a problem,
S second attempts that share one first attempt; B = N * F * S.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from score_jax.policy import TokenScores

MOVING_AVERAGE_RATE = 0.1  # Of one step; the last ten or so count.


@dataclasses.dataclass(frozen=True)
class Stage:
  """What a stage pays for and what it holds, a number per turn."""

  reward: tuple[float, ...]  # Weight of r(y_t) in the credit of turn t.
  progress: float  # alpha: weight of r(y_t) - r(y_{t-1}), for t > 1.
  held: tuple[bool, ...]  # Turns whose KL weighs beta2; the others, beta1.
  beta1: float
  gamma: float  # Discount between turns; the paper's choice is 0.
  kl_estimator: str  # 'k1', 'k2', 'k3' or 'exact'.
  # Turns whose tokens learn, by reward or KL; () = all of them do.
  taught: tuple[bool, ...] = ()


@dataclasses.dataclass(frozen=True)
class Groups:
  """How the rows of one problem belong together."""

  first: int  # F, first attempts of a problem.
  second: int  # S, second attempts that share a first one.


def stage_one(
  turns: int, target: int, beta1: float, gamma: float, kl_estimator: str
) -> Stage:
  """Returns stage I: teach attempt `target`, hold the attempts before it.

  Eq. 3: maximize r(y2) - beta1 KL_2 - beta2 KL_1. With more than two turns
  the attempts are taught one after the other, target = 2, then 3 (ICLR,
  stages I(a) and I(b)).
  """
  reward = tuple(float(t == target) for t in range(1, turns + 1))
  held = tuple(t < target for t in range(1, turns + 1))
  return Stage(reward, 0.0, held, beta1, gamma, kl_estimator)


def stage_two(
  turns: int, alpha: float, beta1: float, gamma: float, kl_estimator: str
) -> Stage:
  """Returns stage II: all attempts are paid, progress between them extra.

  Eq. 4 with the bonus alpha * (r(y2) - r(y1)) on the second turn's reward.
  """
  return Stage(
    (1.0,) * turns, alpha, (False,) * turns, beta1, gamma, kl_estimator
  )


def turn_sums(x: jax.Array, turn: jax.Array, turns: int) -> jax.Array:
  """Returns float[B, T], the sums of x[B, L] over each turn's own tokens."""
  mine = turn[:, None, :] == jnp.arange(1, turns + 1)[None, :, None]
  # where, not a product: what stands at other tokens must not matter at all.
  return jnp.sum(jnp.where(mine, x[:, None, :], 0.0), axis=-1)


def shaped_reward(stage: Stage, reward: jax.Array) -> jax.Array:
  """Returns float[B, T]: what each turn is paid, given r(y_t) [B, T].

  The progress r(y_t) - r(y_{t-1}) is paid to turn t alone: paid to turn t - 1
  it would teach the model to fail first.
  """
  return paid_for(stage, reward, reward)


def paid_for(stage: Stage, attempt: jax.Array, made: jax.Array) -> jax.Array:
  """Returns float[B, T]: what each turn would be paid for another attempt.

  Args:
    stage: what is paid for.
    attempt: float[B, T], r of another attempt at each turn, on the context
      that the row's own attempts before that turn made.
    made: float[B, T], r(y_t) of the row's own attempts.
  """
  before = jnp.pad(made[:, :-1], ((0, 0), (1, 0)))
  gain = (attempt - before).at[:, 0].set(0.0)
  return jnp.asarray(stage.reward)[None] * attempt + stage.progress * gain


def taught(stage: Stage) -> jax.Array:
  """Returns bool[1, T], the turns that learn."""
  return jnp.asarray(stage.taught or (True,) * len(stage.reward))[None]


def kl_weights(stage: Stage, beta2: jax.Array) -> jax.Array:
  """Returns float[1, T], the weight of each turn's KL."""
  return jnp.where(jnp.asarray(stage.held)[None], beta2, stage.beta1)


def kl_terms(
  stage: Stage, scores: TokenScores, turn: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns each turn's KL as a number in the return, and as a loss.

  KL(policy || reference) of whole attempts, each on its own context. If
  f(y; theta) has the KL as its expectation, the KL's gradient is
  E[f grad log p(y) + grad f]: the first term is f, detached, as a cost in the
  return of the tokens that made y; the second is f itself as a loss. With
  u = log p(y) - log p_ref(y), summed over the attempt's tokens:

    k1     f = u; E[grad f] = 0, so nothing is left for the loss.
    k3     f = sum of exp(-u_i) - 1 + u_i over tokens i; both terms.
    exact  f = sum of the KL over the vocabulary at each token; both terms
           (arXiv:2504.10637).
    k2     u^2 / 2 as a loss has the gradient u grad log p(y), which is k1's
           without a baseline; its value is not the KL's.

  Args:
    stage: names the estimator.
    scores: of policy and reference, float[B, L] each.
    turn: int32[B, L].

  Returns:
    float[B, T], detached, and float[B, T], differentiable.

  Raises:
    ValueError: if the estimator is not one of these.
  """
  turns = len(stage.reward)
  ratio = scores.logp - scores.reference_logp
  if stage.kl_estimator == 'k1':
    number = turn_sums(ratio, turn, turns)
    return jax.lax.stop_gradient(number), jnp.zeros_like(number)
  if stage.kl_estimator == 'k2':
    term = jnp.square(turn_sums(ratio, turn, turns)) / 2
    return jnp.zeros_like(term), term
  if stage.kl_estimator == 'k3':
    # Other tokens' ratios mean nothing and may overflow: out before exp.
    ratio = jnp.where(turn > 0, ratio, 0.0)
    term = turn_sums(jnp.exp(-ratio) - 1 + ratio, turn, turns)
    return jax.lax.stop_gradient(term), term
  if stage.kl_estimator == 'exact':
    term = turn_sums(scores.kl, turn, turns)
    return jax.lax.stop_gradient(term), term
  raise ValueError(
    'method.kl_estimator must be k1, k2, k3 or exact; got '
    f'{stage.kl_estimator!r}.'
  )


def returns(value: jax.Array, gamma: float) -> jax.Array:
  """Returns float[B, T]: G_t = value_t + gamma * G_{t+1}."""
  total = value[:, -1:]
  columns = [total]
  for t in range(value.shape[1] - 2, -1, -1):
    total = value[:, t : t + 1] + gamma * total
    columns.append(total)
  return jnp.concatenate(columns[::-1], axis=1)


def leave_one_out(value: jax.Array, valid: jax.Array) -> jax.Array:
  """Returns value less the mean of its valid siblings (arXiv:2402.14740).

  Args:
    value: float[..., M, T], M siblings.
    valid: bool[..., M, T]; one that is not, or has no valid sibling, gets 0.
  """
  weight = valid.astype(value.dtype)
  others = jnp.sum(weight, -2, keepdims=True) - weight
  total = jnp.sum(value * weight, -2, keepdims=True) - value * weight
  advantage = value - total / jnp.maximum(others, 1.0)
  return jnp.where(valid & (others > 0), advantage, 0.0)


def normalized(value: jax.Array, valid: jax.Array) -> jax.Array:
  """Returns value less its group's mean, over its deviation (2402.03300).

  Both are taken over all valid siblings, the row itself among them. A group of
  equal values gets 0.

  Args:
    value: float[..., M, T], M siblings.
    valid: bool[..., M, T]; one that is not gets 0.
  """
  weight = valid.astype(value.dtype)
  count = jnp.maximum(jnp.sum(weight, -2, keepdims=True), 1.0)
  mean = jnp.sum(value * weight, -2, keepdims=True) / count
  apart = jnp.where(valid, value - mean, 0.0)
  variance = jnp.sum(jnp.square(apart), -2, keepdims=True) / count
  # Beside a deviation of rounding alone the floor is large, else nothing.
  return apart / (jnp.sqrt(variance) + 1e-6)


def advantages(
  value: jax.Array,
  valid: jax.Array,
  groups: Groups,
  baseline: str,
  given: jax.Array | None = None,
) -> jax.Array:
  """Returns float[B, T]: each turn's return less its own turn's baseline.

  What the expectation of the gradient is, over all that may be sampled:

    leave_one_out   the policy gradient. A return takes no part in its own
                    baseline, the mean of its siblings (arXiv:2402.14740).
    remax           the policy gradient. The baseline is what the greedy
                    attempt on the same context is paid (arXiv:2310.10505), so
                    it depends on the context alone.
    moving_average  the policy gradient. The baseline is a mean over the
                    returns of steps before this one.
    none            the policy gradient; nothing is subtracted.
    group           another one (GRPO, arXiv:2402.03300). With rewards of 0 and
                    1, a chance p of success and large groups it is that of
                    2 arcsin(sqrt p), not of p: problems that are nearly always
                    or nearly never solved weigh up to 1 / sqrt(p (1 - p)) more.

  With siblings, first attempts are compared with the other first attempts of
  their problem, later ones with those that share their first attempt where
  there are any, else with the problem's other trajectories at the same turn.

  Args:
    value: float[B, T], returns; siblings are adjacent.
    valid: bool[B, T], attempts that count.
    groups: the siblings.
    baseline: 'leave_one_out', 'group', 'remax', 'moving_average' or 'none'.
    given: float[1 or B, T], the baseline itself; for 'remax' and
      'moving_average'.

  Raises:
    ValueError: if the rows do not form whole groups, or the baseline is none
      of these.
  """
  rows = len(value)
  if rows % (groups.first * groups.second):
    raise ValueError(
      f'rows must form whole groups of {groups.first} x {groups.second}; '
      f'got {rows}.'
    )
  if baseline == 'none':
    return jnp.where(valid, value, 0.0)
  if baseline in ('remax', 'moving_average'):
    return jnp.where(valid, value - given, 0.0)
  compare = {'group': normalized, 'leave_one_out': leave_one_out}.get(baseline)
  if compare is None:
    raise ValueError(
      'method.baseline must be leave_one_out, group, remax, moving_average or '
      f'none; got {baseline!r}.'
    )
  return _among_siblings(compare, value, valid, groups)


def _among_siblings(
  compare: Callable[[jax.Array, jax.Array], jax.Array],
  value: jax.Array,
  valid: jax.Array,
  groups: Groups,
) -> jax.Array:
  """Returns float[B, T]: each turn's return compared with its siblings'."""
  rows, turns = value.shape
  shape = (-1, groups.first, groups.second, turns)
  value, valid = value.reshape(shape), valid.reshape(shape)
  # The copies of a shared first attempt are one sample: they count once, by
  # the mean of what followed, and are no siblings of each other.
  weight = valid.astype(value.dtype)
  count = jnp.sum(weight, 2)
  mean = jnp.sum(value * weight, 2) / jnp.maximum(count, 1.0)
  between = compare(mean, count > 0)[:, :, None]
  if groups.second == 1:
    return between.reshape(rows, turns)
  within = compare(value, valid)
  first = jnp.arange(turns) == 0
  between = jnp.where(valid, between, 0.0)
  return jnp.where(first, between, within).reshape(rows, turns)


def loss(
  advantage: jax.Array,
  kl_loss: jax.Array,
  weights: jax.Array,
  logp: jax.Array,
  turn: jax.Array,
) -> jax.Array:
  """Returns float[]: its gradient descends what the stage asks to maximize.

  -mean over rows of sum_t [ A_t log p(y_t | x_t) - w_t KL_t ]. The value
  itself means little.

  Args:
    advantage: float[B, T]; no gradient passes through it.
    kl_loss: float[B, T], the differentiable part of each turn's KL.
    weights: float[1 or B, T], of the KL.
    logp: float[B, L].
    turn: int32[B, L]; tokens of turn 0 take no part.
  """
  turn_logp = turn_sums(logp, turn, advantage.shape[1])
  gain = jax.lax.stop_gradient(advantage) * turn_logp
  return -jnp.mean(jnp.sum(gain - weights * kl_loss, axis=1))


def next_average(
  average: jax.Array, value: jax.Array, step: jax.Array
) -> jax.Array:
  """Returns float[T]: the moving mean of each turn's return, one step on.

  It is the plain mean of all steps so far until a step weighs
  MOVING_AVERAGE_RATE, and forgets from then on.

  Args:
    average: float[T], before this step.
    value: float[T], mean of this step's returns.
    step: int[], updates before this one.
  """
  rate = jnp.maximum(MOVING_AVERAGE_RATE, 1.0 / (step + 1.0))
  return average + rate * (value - average)


def next_beta2(
  beta2: jax.Array,
  held_kl: jax.Array,
  objective: jax.Array,
  rate: float,
  fraction: float,
  low: float,
  high: float,
) -> jax.Array:
  """Returns float[]: beta2 moved so that beta2 * KL tracks the objective.

  The paper says in one sentence that beta2 is adapted to balance the two
  magnitudes; the rule is ours: log beta2 goes `rate` of the way to where
  beta2 * held_kl = fraction * |objective|.

  Args:
    beta2: float[], the weight so far.
    held_kl: float[], mean KL of the held turns, nats.
    objective: float[], mean value of the taught turn, in reward units.
    rate: share of the way in one step; 0 keeps beta2.
    fraction: of the objective's magnitude.
    low: the least that beta2 may become.
    high: the most.
  """
  # Less than this either magnitude is noise: k1 may even be negative.
  floor = 1e-4
  goal = fraction * jnp.maximum(jnp.abs(objective), floor)
  step = jnp.log(goal) - jnp.log(beta2 * jnp.maximum(held_kl, floor))
  return jnp.clip(beta2 * jnp.exp(rate * step), low, high)
