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

from score_jax import correction, objective, parts, reading, sharding, streams
from score_jax.models.lora import bind, Lora
from score_jax.models.products import compiler_options
from score_jax.models.stack import by_layer
from score_jax.models.transformer import Transformer
from score_jax.policy import Attempts, Policy, score_tokens, TokenScores
from score_jax.trajectory import Trajectory

# Scalars, or one number per turn, float[T]; those of ROWS are per row.
ROWS = ('advantage', 'credit', 'token_kl')  # float[B, T], [B, T], [B, L].
Metrics = dict[str, jax.Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """All that training changes; data and randomness follow from the step."""

  step: jax.Array  # int32[]: updates made in this stage.
  params: Any  # Of the policy; with an adapter, that alone.
  opt_state: Any
  beta2: jax.Array  # float32[]: weight of the held turns' KL.
  skipped: jax.Array  # int32[]: updates in a row that were not finite.
  # float32[T]: moving mean of each turn's return; None where none is wanted.
  average: jax.Array | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
  """Graded trajectories."""

  trajectory: Trajectory
  reward: jax.Array  # float32[B, T]: r(y_t).
  # float32[B, T]: r of the greedy attempt on each turn's context, for ReMax.
  greedy: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class Learning:
  """What is compiled into the update."""

  stage: objective.Stage
  groups: objective.Groups
  policy: Policy
  baseline: str  # See `objective.advantages`.
  mask_truncated: bool  # Whether attempts cut off earn and teach nothing.
  accumulation: int  # Parts of the batch, whole groups each.
  logits_chunk: int  # Tokens whose logits exist at once.
  # The longest attempt of each turn; () = nobody says, so whole rows are scored.
  attempt_tokens: tuple[int, ...]
  # The longest prompt, which a group's rows share and is read once for all;
  # 0 = rows are read whole.
  prompt_tokens: int
  beta2_rate: float  # 0 keeps beta2.
  beta2_fraction: float
  beta2_low: float
  beta2_high: float
  # Shares of a row's columns, of which a part of the batch is read no wider
  # than the least that holds it (`parts`); () = all columns.
  widths: tuple[float, ...] = ()
  lora: Lora | None = None  # What is trained; None = all parameters.
  # An adapter's dropout at a step follows from the seed and the steps of all
  # stages before it.
  seed: int = 0
  first_step: int = 0
  # Of what another policy sampled; None = the one that is scored did.
  correction: correction.Correction | None = None


Update = Callable[..., tuple[TrainState, Metrics]]


def init_state(
  params: Any,
  optimizer: optax.GradientTransformation,
  beta2: float,
  averages: int = 0,
) -> TrainState:
  """Returns the state before a stage's first update.

  Args:
    params: what is trained.
    optimizer: of the updates.
    beta2: weight of the held turns' KL.
    averages: turns whose return has a moving mean; 0 = none is kept.
  """
  return TrainState(
    step=jnp.int32(0),
    params=params,
    opt_state=optimizer.init(params),
    beta2=jnp.float32(beta2),
    skipped=jnp.int32(0),
    average=jnp.zeros(averages, jnp.float32) if averages else None,
  )


@functools.cache  # So that jobs of one process compile it once.
def make_update(
  model: Transformer,
  optimizer: optax.GradientTransformation,
  learning: Learning,
) -> Update:
  """Returns the jitted update; the state passed in is donated.

  It is called as `update(state, reference, batch, near=None)` with the frozen
  reference's parameters, and returns the new state and the metrics of the
  batch under the policy as it was before, without dropout. With an adapter the
  reference is the policy's frozen part as well; `near` is then an adapter that
  belongs to the reference in the KL, or None. An update that is not finite
  leaves all but `step` and `skipped` as they were.
  """
  update = functools.partial(_update, model, optimizer, learning)
  options = compiler_options(model.execution)
  return jax.jit(update, donate_argnums=0, compiler_options=options)


def loss_and_metrics(
  model: Transformer,
  learning: Learning,
  params: Any,
  reference: Any,
  beta2: jax.Array,
  batch: Batch,
  key: jax.Array | None = None,
  near: Any = None,
  average: jax.Array | None = None,
  width: int | None = None,
) -> tuple[jax.Array, Metrics]:
  """Returns the loss, float[], and metrics of a batch of whole groups.

  One forward pass scores all turns, a prompt once for its group; the reference
  likewise. With an adapter's dropout the gradient has a pass of its own, so that
  what is paid and reported is of the policy as it is scored, without it. The
  update takes the same loss with sums beside it; this is for those who want the
  mathematics alone, as tests do.

  Args:
    model: of policy and reference.
    learning: what is computed.
    params: what is trained; the gradient is theirs.
    reference: parameters of the frozen reference, stacked by layers.
    beta2: float32[], weight of the held turns' KL.
    batch: of B rows.
    key: draws an adapter's dropout, if there is any.
    near: the reference's own adapter; None = it has none.
    average: float32[T], moving mean of each turn's return, if there is one.
    width: columns that are read of a row, which none of them exceeds; None =
      all. Prompts that are read once are not among them.
  """
  loss, metrics = _loss_and_sums(
    model,
    learning,
    params,
    reference,
    beta2,
    batch,
    key,
    near,
    average,
    width,
  )
  return loss, metrics | _ratios(metrics.pop('sums'))


def _loss_and_sums(
  model,
  learning,
  params,
  reference,
  beta2,
  batch,
  key,
  near,
  average,
  width,
) -> tuple[jax.Array, Metrics]:
  """Returns the same, with `sums` over tokens in place of means over them.

  Of several parts of a batch, sums are what adds up.
  """
  trajectory, stage = batch.trajectory, learning.stage
  read = _reading(learning, trajectory, model.execution.mesh, width)
  scores, taught = _scores_and_taught(
    model, learning, params, reference, near, trajectory, read, key
  )
  turn = trajectory.turn
  taught, weighed = _corrected(learning, batch, scores, taught)
  valid = jnp.ones_like(trajectory.truncated) & objective.taught(stage)
  if learning.mask_truncated:
    valid &= ~trajectory.truncated
  kl_number, _ = objective.kl_terms(stage, scores, turn)
  _, kl_loss = objective.kl_terms(stage, taught, turn)
  weights = objective.kl_weights(stage, beta2)
  paid = objective.shaped_reward(stage, batch.reward)
  credit = paid - weights * kl_number
  value = objective.returns(credit, stage.gamma)
  given = _given(learning, batch, average)
  advantage = objective.advantages(
    value, valid, learning.groups, learning.baseline, given
  )
  loss = objective.loss(advantage, kl_loss, weights * valid, taught.logp, turn)
  rows = {'advantage': advantage, 'credit': credit}
  metrics = _metrics(learning, batch, scores, paid, value, rows)
  return loss, metrics | {'sums': _token_sums(batch, scores) | weighed}


def _scores_and_taught(
  model, learning, params, reference, near, trajectory, read, key
) -> tuple[TokenScores, TokenScores]:
  """Returns the scores of the policy as it is, and those that are taught.

  They are the same but for an adapter's dropout.
  """
  reference = jax.lax.stop_gradient(reference)
  policy = bind(reference, params, learning.lora)
  if near is not None:
    near = jax.lax.stop_gradient(near)
    reference = bind(reference, near, learning.lora)
  both = functools.partial(_scores, learning, reference, trajectory, read)
  scores = both(model, policy)
  if learning.lora is None or not learning.lora.dropout:
    return scores, scores
  taught = both(model, policy, learning.lora.dropout, key)
  return jax.lax.stop_gradient(scores), taught


def _corrected(learning, batch, scores, taught) -> tuple[TokenScores, Metrics]:
  """Returns the scores that are taught, once weighed, and sums of weights."""
  chosen = learning.correction
  if chosen is None:
    return taught, {}
  rows, turns = batch.trajectory, batch.reward.shape[1]
  found = correction.weights(chosen, scores.logp, rows.logp, rows.turn, turns)
  sums = correction.sums(chosen, found, rows.turn, turns)
  return correction.weighted(taught, found.weight), sums


def _given(learning, batch, average) -> jax.Array | None:
  """Returns the baseline that other samples than the batch's decide."""
  if batch.greedy is not None:
    return objective.paid_for(learning.stage, batch.greedy, batch.reward)
  return None if average is None else average[None]


def _scores(
  learning, reference, trajectory, read, model, params, dropout=0.0, key=None
) -> TokenScores:
  """Returns the scores of a batch's tokens, each float32[B, L]."""
  mesh, columns = model.execution.mesh, trajectory.tokens.shape[1]
  attempts = None
  if learning.attempt_tokens:
    attempts = Attempts(read.start, read.turn, learning.attempt_tokens)

  def unembed(params):
    return lambda x: model.apply({'params': params}, x, method='unembed')

  def before(params, *noise):
    decoder = _decoder(model, params, *noise)
    return reading.states_before(decoder, read, mesh)

  scores = score_tokens(
    unembed(params),
    before(params, dropout, key),
    unembed(reference),
    before(reference),
    read.tokens,
    learning.policy,
    learning.logits_chunk,
    learning.stage.kl_estimator == 'exact',
    attempts,
  )
  return jax.tree.map(lambda x: reading.to_rows(read, x, columns), scores)


def _reading(learning, trajectory, mesh, width) -> reading.Reading:
  each, prompt = _shared(learning, len(trajectory.tokens), mesh)
  width = width or trajectory.tokens.shape[1] - prompt
  if not prompt:
    return reading.whole(trajectory, width)
  return reading.behind_prompts(trajectory, each, prompt, width)


def _shared(learning, rows: int, mesh) -> tuple[int, int]:
  """Returns how many rows share a prompt, and its columns; 1 and 0 = none."""
  group, shards = learning.groups, sharding.row_shards(mesh)
  each = reading.sharing(rows, group.first * group.second, shards)
  if each == 1 or not learning.prompt_tokens:
    return 1, 0
  return each, learning.prompt_tokens


def _decoder(model, params, dropout=0.0, key=None) -> reading.Decoder:
  """Returns the model's passes; each draws a dropout of its own."""
  if dropout:
    execution = dataclasses.replace(model.execution, adapter_dropout=dropout)
    model = model.clone(execution=execution)
  params = by_layer(model.execution, params)

  def decode(call, tokens, cache):
    rngs = {'dropout': jax.random.fold_in(key, call)} if dropout else None
    return model.apply({'params': params}, tokens, cache=cache, rngs=rngs)

  return decode


def _metrics(learning, batch, scores, paid, value, rows) -> Metrics:
  """Returns means over rows; those of tokens are per turn where it matters."""
  trajectory = batch.trajectory
  turn, turns = trajectory.turn, batch.reward.shape[1]
  sums = functools.partial(objective.turn_sums, turn=turn, turns=turns)
  tokens = sums(jnp.ones_like(scores.logp))
  exact = learning.stage.kl_estimator == 'exact'
  kl = scores.kl if exact else scores.logp - scores.reference_logp
  group = learning.groups.first * learning.groups.second
  spread = jnp.ptp(value.reshape(-1, group, turns), axis=1)
  return {
    'reward': batch.reward.mean(0),
    'paid': paid.mean(0),
    'value': value.mean(0),
    'kl': sums(kl).mean(0),
    'truncated': trajectory.truncated.astype(jnp.float32).mean(0),
    'tokens': tokens.mean(0),
    **rows,
    'token_kl': jnp.where(turn > 0, kl, 0.0),
    'advantage_size': jnp.abs(rows['advantage']).mean(0),
    'flat_groups': jnp.mean(spread < 1e-6, axis=0, dtype=jnp.float32),
    'logp_gap_max': jnp.max(_gap(trajectory, scores)),
  }


def _gap(trajectory, scores) -> jax.Array:
  """Returns float32[B, L], how far the sampler's log-probabilities are off."""
  gap = jnp.abs(scores.logp - trajectory.logp)
  return jnp.where(trajectory.turn > 0, gap, 0.0)


def _token_sums(batch, scores) -> Metrics:
  """Returns sums over a batch's tokens, of each turn where it matters."""
  trajectory, turns = batch.trajectory, batch.reward.shape[1]
  of_turn = functools.partial(
    objective.turn_sums, turn=trajectory.turn, turns=turns
  )
  return {
    'tokens': jnp.sum(of_turn(jnp.ones_like(scores.logp)), axis=0),
    'entropy': jnp.sum(of_turn(scores.entropy), axis=0),
    'gap': jnp.sum(_gap(trajectory, scores)),
  }


def _ratios(sums: Metrics) -> Metrics:
  """Returns the means over a batch's tokens, of its sums."""
  count = jnp.maximum(sums['tokens'], 1.0)
  weighed = correction.metrics(sums) if 'weight' in sums else {}
  return weighed | {
    'entropy': sums['entropy'] / count,
    'logp_gap_mean': sums['gap'] / jnp.maximum(jnp.sum(sums['tokens']), 1.0),
  }


def _update(model, optimizer, learning, state, reference, batch, near=None):
  grads, loss, metrics = _gradient(
    model, learning, state, reference, batch, near
  )
  metrics |= _ratios(metrics.pop('sums'))
  updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  norm = optax.tree.norm(grads)
  # A finite gradient may make an update that is not, where Adam divides by 0.
  sizes = jnp.stack([loss, norm, optax.tree.norm(updates)])
  finite = jnp.all(jnp.isfinite(sizes))

  def keep(new, old):
    return jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)

  beta2 = keep(_next_beta2(learning, state.beta2, metrics), state.beta2)
  average = state.average
  if average is not None:
    new = objective.next_average(average, metrics['value'], state.step)
    average = keep(new, average)
  state = TrainState(
    step=state.step + 1,
    params=keep(params, state.params),
    opt_state=keep(opt_state, state.opt_state),
    beta2=beta2,
    skipped=jnp.where(finite, 0, state.skipped + 1),
    average=average,
  )
  scalars = {'loss': loss, 'grad_norm': norm, 'beta2': beta2}
  return state, metrics | scalars | {'skipped': state.skipped}


def _gradient(model, learning, state, reference, batch, near):
  """Returns gradient, loss and metrics, averaged over the batch's parts."""
  grad = jax.value_and_grad(_loss_and_sums, argnums=2, has_aux=True)
  root = jax.random.key(learning.seed)
  key = jax.random.fold_in(root, streams.DROPOUT)
  key = jax.random.fold_in(key, learning.first_step + state.step)

  def of_part(width, i, rows):
    """Returns what a part teaches, as `parts.OfPart`."""
    (loss, metrics), grads = grad(
      model,
      learning,
      state.params,
      reference,
      state.beta2,
      rows,
      jax.random.fold_in(key, i),
      near,
      state.average,
      width,
    )
    # Wide from here on: sums and squares of bfloat16 would round away.
    return jax.tree.map(lambda x: x.astype(jnp.float32), grads), loss, metrics

  cut = _cut(learning, batch.trajectory, model.execution.mesh)
  return parts.averaged(cut, of_part, state.params, batch, ROWS)


def _cut(learning, trajectory, mesh) -> parts.Cut:
  rows, columns = trajectory.tokens.shape
  group = learning.groups.first * learning.groups.second
  count = learning.accumulation
  each, prompt = _shared(learning, rows // count, mesh)
  widths = reading.widths(learning.widths, columns - prompt)
  return parts.Cut(count, group, each, prompt, tuple(widths))


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
