"""Rules that turn gradients into updates, and the rate over the steps."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


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
  """Returns the optimizer of one stage of `steps` updates.

  Equal ones are one object, so that their update is compiled once.
  """
  if schedule == 'constant':
    steps = 0  # Read by none of its rules.
  rate = _schedule(learning_rate, schedule, warmup_steps, steps)
  return _rule(name, rate, b1, b2, eps, weight_decay, clip_norm)


@functools.cache
def _rule(
  name, rate, b1, b2, eps, weight_decay, clip_norm
) -> optax.GradientTransformation:
  if name == 'sgd':
    rule = optax.sgd(rate)
  elif name == 'adamw':
    rule = optax.adamw(rate, b1, b2, eps, weight_decay=weight_decay)
  else:
    rule = optax.adam(rate, b1, b2, eps)
  if not clip_norm:
    return rule
  return optax.chain(optax.clip_by_global_norm(clip_norm), rule)


class Widened(NamedTuple):
  """State of an optimizer of bfloat16 parameters."""

  inner: Any  # Of the optimizer that it widens.
  master: Any  # The parameters in float32; () where they are not kept.


def widen(
  optimizer: optax.GradientTransformation, master_weights: bool
) -> optax.GradientTransformation:
  """Returns an optimizer that keeps and computes in float32 whatever it gets.

  Args:
    optimizer: to widen.
    master_weights: whether the parameters too are kept in float32, which adds
      up changes that are too small for bfloat16, 1/256 of a parameter or so.
      What the model sees is the master rounded.
  """

  def wide(tree):
    return jax.tree.map(lambda x: x.astype(jnp.float32), tree)

  def init(params):
    params = wide(params)
    return Widened(optimizer.init(params), params if master_weights else ())

  def update(grads, state, params):
    master = state.master if master_weights else wide(params)
    changes, inner = optimizer.update(wide(grads), state.inner, master)
    if not master_weights:
      return changes, Widened(inner, ())
    master = optax.apply_updates(master, changes)
    changes = jax.tree.map(lambda new, old: new - old, master, wide(params))
    return changes, Widened(inner, master)

  return optax.GradientTransformation(init, update)


@functools.cache
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
