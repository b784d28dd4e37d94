"""Rows to imitate in, new state out: the likelihood of chosen tokens.

Letters: B rows, L columns.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from score_jax import reading
from score_jax.learner import TrainState
from score_jax.models.lora import bind, Lora
from score_jax.models.products import compiler_options
from score_jax.models.transformer import Transformer
from score_jax.policy import Policy, token_logp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Examples:
  """Rows to imitate."""

  tokens: jax.Array  # int32[B, L], padded on the right.
  weight: jax.Array  # float32[B, L]: of each token in the loss; 0 = context.


@functools.cache
def make_likelihood(
  model: Transformer, logits_chunk: int, lora: Lora | None = None
) -> Callable[..., jax.Array]:
  """Returns the jitted log p of each token times its weight, float32[B, L].

  It is called as `likelihood(params, examples, reference=None)`, with the
  frozen part of the policy where an adapter is trained. What has no weight
  gets 0.
  """
  likelihood = functools.partial(_likelihood, model, logits_chunk, lora)
  return jax.jit(likelihood, compiler_options=compiler_options(model.execution))


def _likelihood(model, logits_chunk, lora, params, examples, reference=None):
  variables = {'params': bind(reference, params, lora)}
  hidden, _ = model.apply(variables, examples.tokens)

  def unembed(x):
    return model.apply(variables, x, method='unembed')

  before = reading.before(hidden)
  logp = token_logp(unembed, before, examples.tokens, Policy(), logits_chunk)
  # where: a token without weight must not matter, whatever it scores.
  return jnp.where(examples.weight > 0, examples.weight * logp, 0.0)


@functools.cache
def make_imitation(
  model: Transformer,
  optimizer: optax.GradientTransformation,
  logits_chunk: int,
  lora: Lora | None = None,
  accumulation: int = 1,
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
  """Returns the jitted update of supervised training; the state is donated.

  It is called as `update(state, examples, reference=None)`, with the frozen
  part of the policy where an adapter is trained. The loss is the weighted mean
  of -log p over the tokens.

  Args:
    model: that is trained.
    optimizer: of the state.
    logits_chunk: tokens whose logits are held at once.
    lora: the adapter that is trained; None = all parameters are.
    accumulation: parts of a batch that are learned from one after the other;
      they divide its rows.
  """
  likelihood = functools.partial(_likelihood, model, logits_chunk, lora)

  def loss(params, examples, reference, weight):
    total = likelihood(params, examples, jax.lax.stop_gradient(reference))
    return -jnp.sum(total) / weight

  def gradient(params, examples, reference):
    """Returns the loss and its gradient, summed over the parts."""
    weight = jnp.sum(examples.weight)
    of_part = jax.value_and_grad(loss)
    if accumulation == 1:
      return of_part(params, examples, reference, weight)

    def add(total, part):
      found = of_part(params, part, reference, weight)
      return jax.tree.map(
        lambda a, b: a + b.astype(a.dtype), total, found
      ), None

    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), params)
    parts = jax.tree.map(
      lambda x: x.reshape(accumulation, -1, *x.shape[1:]), examples
    )
    return jax.lax.scan(add, (jnp.float32(0.0), zero), parts)[0]

  def update(state, examples, reference=None):
    value, grads = gradient(state.params, examples, reference)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    state = dataclasses.replace(
      state,
      step=state.step + 1,
      params=optax.apply_updates(state.params, updates),
      opt_state=opt_state,
    )
    return state, {'loss': value, 'grad_norm': optax.tree.norm(grads)}

  options = compiler_options(model.execution)
  return jax.jit(update, donate_argnums=0, compiler_options=options)
