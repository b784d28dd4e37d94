"""Attention is a softmax over what is seen, and so is its written gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.models import attention
from score_jax.models.attention import attend, attend_parts, KeyValue, Softmax

SOFTMAX = Softmax(0.5, 2.0)


def keys_of(heads):
  """Returns keys and values, the latter twice as large, of [B, S, K, H]."""
  return KeyValue(jnp.moveaxis(heads, 1, 3), jnp.moveaxis(heads * 2, 1, 2))


def test_a_soft_cap_squeezes_and_zero_leaves_alone():
  x = jnp.asarray([-100.0, 0.1, 100.0])
  np.testing.assert_allclose(attention.softcap(x, 0.0), x)
  found = attention.softcap(x, 3.0)
  np.testing.assert_allclose(found, [-3, 3 * np.tanh(0.1 / 3), 3], rtol=1e-6)


def some_heads(rows, columns, *heads):
  draws = np.random.default_rng(columns).normal(size=(rows, columns, *heads, 4))
  return jnp.asarray(draws, jnp.float32)


@pytest.fixture
def heads():
  """A query of two columns, 5 keys, and a mask that lets each see some."""
  query = some_heads(2, 2, 2, 3)
  keys = keys_of(some_heads(2, 5, 2))
  mask = np.random.default_rng(2).random((2, 2, 5)) < 0.6
  mask[..., 0] = True
  return query, keys, jnp.asarray(mask)


def test_attention_is_a_softmax_over_the_keys_that_are_seen(heads):
  query, keys, mask = heads
  found = jax.jit(functools.partial(attend, SOFTMAX))(query, (keys, mask))
  for b, t, k, g in np.ndindex(query.shape[:-1]):
    score = np.asarray(query[b, t, k, g] @ keys.key[b, k]) * 0.5
    weight = np.where(mask[b, t], np.exp(2 * np.tanh(score / 2)), 0.0)
    expected = weight @ np.asarray(keys.value[b, k]) / weight.sum()
    np.testing.assert_allclose(
      found[b, t, k, g], expected, rtol=1e-5, atol=1e-6
    )


def test_attention_over_parts_is_attention_over_all_keys(heads):
  query, keys, mask = heads
  cut = [slice(0, 2), slice(2, 5)]
  parts = [
    (KeyValue(keys.key[..., s], keys.value[:, :, s]), mask[..., s]) for s in cut
  ]
  found = jax.jit(functools.partial(attend_parts, SOFTMAX))(query, tuple(parts))
  expected = attend(SOFTMAX, query, (keys, mask))
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_part_that_nobody_sees_weighs_nothing(heads):
  query, keys, mask = heads
  parts = ((keys, mask), (keys, jnp.zeros_like(mask)))
  found = jax.jit(functools.partial(attend_parts, SOFTMAX))(query, parts)
  expected = attend(SOFTMAX, query, (keys, mask))
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_rows_that_share_a_part_attend_as_if_each_had_its_own(heads):
  query, keys, mask = heads
  one = jax.tree.map(lambda x: x[:1], keys)
  each = jax.tree.map(lambda x: jnp.repeat(x[:1], 2, axis=0), keys)
  parts = jax.jit(functools.partial(attend_parts, SOFTMAX))
  np.testing.assert_allclose(
    parts(query, ((one, mask),)), parts(query, ((each, mask),)), rtol=1e-5
  )


@pytest.fixture
def shared():
  """Four rows of two prompts: query, own keys and prompt, with masks."""
  query, heads = some_heads(4, 3, 2, 3), some_heads(4, 4, 2)
  own = keys_of(heads[:, :3]), jnp.asarray(np.tri(3, dtype=bool))[None]
  seen = np.ones((2, 3, 5), bool)
  seen[1, :, 2:] = False  # The second prompt is shorter.
  seen[0, 2, 0] = False  # A window's end.
  prompt = keys_of(some_heads(2, 5, 2)), jnp.asarray(seen)
  return query, own, prompt


def copied(query, own, prompt):
  """Returns the same attention with a copy of the prompt for each row."""
  (keys, mask), (before, seen) = own, prompt
  each = query.shape[0] // before.key.shape[0]
  before = jax.tree.map(lambda x: jnp.repeat(x, each, axis=0), before)
  both = KeyValue(
    jnp.concatenate([before.key, keys.key], axis=-1),
    jnp.concatenate([before.value, keys.value], axis=-2),
  )
  mask = jnp.broadcast_to(mask, (query.shape[0], *mask.shape[1:]))
  seen = jnp.repeat(seen, each, axis=0)
  return both, jnp.concatenate([seen, mask], axis=-1)


def test_rows_behind_a_shared_prompt_see_it_as_a_copy_of_their_own(shared):
  query, own, prompt = shared
  found = jax.jit(functools.partial(attend, SOFTMAX))(query, own, prompt)
  expected = attend(SOFTMAX, query, copied(*shared))
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def plainly(softmax, query, part):
  """Returns attention in jax's own terms, which it derives by itself."""
  keys, mask = part
  scores = jnp.einsum('BTKGH,BKHS->BKGTS', query, keys.key) * softmax.scale
  scores = attention.softcap(scores, softmax.cap)
  scores = jnp.where(mask[:, None, None], scores, -jnp.inf)
  weights = jax.nn.softmax(scores, axis=-1)
  return jnp.einsum('BKGTS,BKSH->BTKGH', weights, keys.value)


@pytest.mark.parametrize('cap', [0.0, 2.0])
def test_the_written_gradient_is_the_one_that_jax_derives(shared, cap):
  query, (keys, mask), (before, seen) = shared
  softmax = Softmax(0.5, cap)
  weight = some_heads(4, 3, 2, 3)[::-1]

  def written(query, keys, before):
    out = attend(softmax, query, (keys, mask), (before, seen))
    return jnp.sum(out * weight)

  def derived(query, keys, before):
    part = copied(query, (keys, mask), (before, seen))
    return jnp.sum(plainly(softmax, query, part) * weight)

  args = (query, keys, before)
  found, expected = (
    jax.jit(jax.grad(f, argnums=(0, 1, 2)))(*args) for f in (written, derived)
  )
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6),
    found,
    expected,
  )


def test_the_gradient_keeps_the_types_of_what_it_is_of(shared):
  query, (keys, mask), (before, seen) = shared
  narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (query, keys, before))

  def total(query, keys, before):
    out = attend(SOFTMAX, query, (keys, mask), (before, seen))
    return jnp.sum(out.astype(jnp.float32))

  found = jax.grad(total, argnums=(0, 1, 2))(*narrow)
  wide = jax.grad(total, argnums=(0, 1, 2))(query, keys, before)
  for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(wide), strict=True):
    assert x.dtype == jnp.bfloat16
    np.testing.assert_allclose(x.astype(jnp.float32), y, rtol=0.1, atol=0.1)
