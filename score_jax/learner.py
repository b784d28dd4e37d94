"""One compiled program: trajectories in, new state out.

Letters: B rows, L columns, T turns.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from score_jax import objective, sharding
from score_jax.models.transformer import Transformer
from score_jax.policy import Policy, score_tokens, token_logp, TokenScores
from score_jax.trajectory import Trajectory

# Scalars, or one number per turn, float[T]; `advantage` alone is [B, T].
Metrics = dict[str, jax.Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """All that training changes; data and randomness follow from the step."""

  step: jax.Array  # int32[]: updates made in this stage.
  params: Any  # The policy.
  opt_state: Any
  beta2: jax.Array  # float32[]: weight of the held turns' KL.
  skipped: jax.Array  # int32[]: updates in a row that were not finite.


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
  """Graded trajectories."""

  trajectory: Trajectory
  reward: jax.Array  # float32[B, T]: r(y_t).


@dataclasses.dataclass(frozen=True)
class Learning:
  """What is compiled into the update."""

  stage: objective.Stage
  groups: objective.Groups
  policy: Policy
  baseline: str  # 'leave_one_out' or 'none'.
  mask_truncated: bool  # Whether attempts cut off earn and teach nothing.
  accumulation: int  # Parts of the batch, whole groups each.
  logits_chunk: int  # Tokens whose logits exist at once.
  beta2_rate: float  # 0 keeps beta2.
  beta2_fraction: float
  beta2_low: float
  beta2_high: float


Update = Callable[[TrainState, Any, Batch], tuple[TrainState, Metrics]]


def init_state(
  params: Any, optimizer: optax.GradientTransformation, beta2: float
) -> TrainState:
  """Returns the state before a stage's first update."""
  return TrainState(
    step=jnp.int32(0),
    params=params,
    opt_state=optimizer.init(params),
    beta2=jnp.float32(beta2),
    skipped=jnp.int32(0),
  )


def make_update(
  model: Transformer,
  optimizer: optax.GradientTransformation,
  learning: Learning,
) -> Update:
  """Returns the jitted update; the state passed in is donated.

  It is called as `update(state, reference, batch)` with the frozen
  reference's parameters, and returns the new state and the metrics of the
  batch under the policy that sampled it. An update that is not finite leaves
  all but `step` and `skipped` as they were.
  """
  update = functools.partial(_update, model, optimizer, learning)
  return jax.jit(update, donate_argnums=0)


def loss_and_metrics(
  model: Transformer,
  learning: Learning,
  params: Any,
  reference: Any,
  beta2: jax.Array,
  batch: Batch,
) -> tuple[jax.Array, Metrics]:
  """Returns the loss, float[], and metrics of a batch of whole groups.

  One forward pass over whole rows scores all turns; the reference likewise.
  """
  trajectory, stage = batch.trajectory, learning.stage
  scores = _scores(model, learning, params, reference, trajectory.tokens)
  turn = trajectory.turn
  valid = jnp.ones_like(trajectory.truncated)
  if learning.mask_truncated:
    valid = ~trajectory.truncated
  kl_number, kl_loss = objective.kl_terms(stage, scores, turn)
  weights = objective.kl_weights(stage, beta2)
  paid = objective.shaped_reward(stage, batch.reward)
  value = objective.returns(paid - weights * kl_number, stage.gamma)
  advantage = objective.advantages(
    value, valid, learning.groups, learning.baseline
  )
  loss = objective.loss(advantage, kl_loss, weights * valid, scores.logp, turn)
  return loss, _metrics(learning, batch, scores, paid, value, advantage)


def _scores(model, learning, params, reference, tokens) -> TokenScores:
  def unembed(params):
    return lambda x: model.apply({'params': params}, x, method='unembed')

  tokens = sharding.constrain(model.execution.mesh, tokens, 'batch', 'length')
  hidden, _ = model.apply({'params': params}, tokens)
  reference = jax.lax.stop_gradient(reference)
  reference_hidden, _ = model.apply({'params': reference}, tokens)
  return score_tokens(
    unembed(params),
    hidden,
    unembed(reference),
    reference_hidden,
    tokens,
    learning.policy,
    learning.logits_chunk,
    learning.stage.kl_estimator == 'exact',
  )


def _metrics(learning, batch, scores, paid, value, advantage) -> Metrics:
  """Returns means over rows; those of tokens are per turn where it matters."""
  trajectory = batch.trajectory
  turn, turns = trajectory.turn, batch.reward.shape[1]
  sums = functools.partial(objective.turn_sums, turn=turn, turns=turns)
  tokens = sums(jnp.ones_like(scores.logp))
  count = jnp.maximum(jnp.sum(tokens, axis=0), 1.0)
  exact = learning.stage.kl_estimator == 'exact'
  kl = scores.kl if exact else scores.logp - scores.reference_logp
  gap = jnp.where(turn > 0, jnp.abs(scores.logp - trajectory.logp), 0.0)
  group = learning.groups.first * learning.groups.second
  spread = jnp.ptp(value.reshape(-1, group, turns), axis=1)
  return {
    'reward': batch.reward.mean(0),
    'paid': paid.mean(0),
    'value': value.mean(0),
    'kl': sums(kl).mean(0),
    'entropy': jnp.sum(sums(scores.entropy), 0) / count,
    'truncated': trajectory.truncated.astype(jnp.float32).mean(0),
    'tokens': tokens.mean(0),
    'advantage': advantage,
    'advantage_size': jnp.abs(advantage).mean(0),
    'flat_groups': jnp.mean(spread < 1e-6, axis=0, dtype=jnp.float32),
    'logp_gap_mean': jnp.sum(gap) / jnp.maximum(jnp.sum(turn > 0), 1),
    'logp_gap_max': jnp.max(gap),
  }


def _update(model, optimizer, learning, state, reference, batch):
  grads, loss, metrics = _gradient(model, learning, state, reference, batch)
  updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  norm = optax.tree.norm(grads)
  finite = jnp.isfinite(loss) & jnp.isfinite(norm)

  def keep(new, old):
    return jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)

  beta2 = keep(_next_beta2(learning, state.beta2, metrics), state.beta2)
  state = TrainState(
    step=state.step + 1,
    params=keep(params, state.params),
    opt_state=keep(opt_state, state.opt_state),
    beta2=beta2,
    skipped=jnp.where(finite, 0, state.skipped + 1),
  )
  scalars = {'loss': loss, 'grad_norm': norm, 'beta2': beta2}
  return state, metrics | scalars | {'skipped': state.skipped}


def _gradient(model, learning, state, reference, batch):
  """Returns gradient, loss and metrics, averaged over the batch's parts."""
  grad = jax.value_and_grad(loss_and_metrics, argnums=2, has_aux=True)

  def of_part(part):
    (loss, metrics), grads = grad(
      model, learning, state.params, reference, state.beta2, part
    )
    return grads, loss, metrics

  if learning.accumulation == 1:
    return of_part(batch)
  parts = jax.tree.map(
    lambda x: x.reshape(learning.accumulation, -1, *x.shape[1:]), batch
  )
  shapes = jax.eval_shape(of_part, jax.tree.map(lambda x: x[0], parts))
  zero = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), shapes[0])

  def add(total, part):
    grads, *rest = of_part(part)
    return jax.tree.map(jnp.add, total, grads), rest

  total, (losses, metrics) = jax.lax.scan(add, zero, parts)
  grads = jax.tree.map(
    lambda x, p: (x / learning.accumulation).astype(p.dtype), total, shapes[0]
  )
  means = jax.tree.map(lambda x: jnp.mean(x, axis=0), metrics)
  highest = {'logp_gap_max': jnp.max(metrics['logp_gap_max'])}
  rows = metrics['advantage']
  highest['advantage'] = rows.reshape(-1, rows.shape[-1])
  return grads, jnp.mean(losses), means | highest


def _next_beta2(learning, beta2, metrics):
  held = jnp.asarray(learning.stage.held)
  if not learning.beta2_rate or not any(learning.stage.held):
    return beta2
  kl = jnp.sum(jnp.where(held, metrics['kl'], 0.0))
  taught = jnp.sum(jnp.where(held, 0.0, metrics['value']))
  return objective.next_beta2(
    beta2,
    kl,
    taught,
    learning.beta2_rate,
    learning.beta2_fraction,
    learning.beta2_low,
    learning.beta2_high,
  )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Examples:
  """Rows to imitate."""

  tokens: jax.Array  # int32[B, L], padded on the right.
  weight: jax.Array  # float32[B, L]: of each token in the loss; 0 = context.


def make_imitation(
  model: Transformer,
  optimizer: optax.GradientTransformation,
  logits_chunk: int,
) -> Callable[[TrainState, Examples], tuple[TrainState, Metrics]]:
  """Returns the jitted update of supervised training; the state is donated.

  The loss is the weighted mean of -log p over the tokens.
  """

  def loss(params, examples):
    hidden, _ = model.apply({'params': params}, examples.tokens)

    def unembed(x):
      return model.apply({'params': params}, x, method='unembed')

    logp = token_logp(unembed, hidden, examples.tokens, Policy(), logits_chunk)
    # where: a token without weight must not matter, whatever it scores.
    total = jnp.where(examples.weight > 0, examples.weight * logp, 0.0)
    return -jnp.sum(total) / jnp.sum(examples.weight)

  def update(state, examples):
    value, grads = jax.value_and_grad(loss)(state.params, examples)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    state = dataclasses.replace(
      state,
      step=state.step + 1,
      params=optax.apply_updates(state.params, updates),
      opt_state=opt_state,
    )
    return state, {'loss': value, 'grad_norm': optax.tree.norm(grads)}

  return jax.jit(update, donate_argnums=0)


def make_optimizer(
  name: str,
  learning_rate: float,
  schedule: str,
  warmup_steps: int,
  steps: int,
  b1: float,
  b2: float,
  eps: float,
  weight_decay: float,
  clip_norm: float,
) -> optax.GradientTransformation:
  """Returns the optimizer of one stage of `steps` updates."""
  rate = _schedule(learning_rate, schedule, warmup_steps, steps)
  if name == 'sgd':
    rule = optax.sgd(rate)
  elif name == 'adamw':
    rule = optax.adamw(rate, b1, b2, eps, weight_decay=weight_decay)
  else:
    rule = optax.adam(rate, b1, b2, eps)
  if not clip_norm:
    return rule
  return optax.chain(optax.clip_by_global_norm(clip_norm), rule)


def _schedule(rate, schedule, warmup_steps, steps) -> optax.Schedule:
  after = max(1, steps - warmup_steps)
  if schedule == 'linear':
    main = optax.linear_schedule(rate, 0.0, after)
  elif schedule == 'cosine':
    main = optax.cosine_decay_schedule(rate, after)
  else:
    main = optax.constant_schedule(rate)
  if not warmup_steps:
    return main
  warmup = optax.linear_schedule(0.0, rate, warmup_steps)
  return optax.join_schedules([warmup, main], [warmup_steps])
