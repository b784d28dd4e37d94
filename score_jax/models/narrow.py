"""How are numbers kept in one byte? Whole steps of a scale that they share."""

from __future__ import annotations

import jax
import jax.numpy as jnp

MOST = 127  # Of int8 on both sides of zero; -128 is left out.


def quantize(
  x: jax.Array, axes: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
  """Returns x in int8, and what one step of it counts.

  A number is off by half a step at most. What is not finite makes all numbers
  that it shares a scale with not finite, as a product with it would.

  Args:
    x: of any floating type.
    axes: numbers along these share a scale; a product sums over them, so that
      what it gives needs the scale alone.

  Returns:
    int8 of the shape of x, and float32 of that shape without the axes.
  """
  wide = x.astype(jnp.float32)
  scale = jnp.max(jnp.abs(wide), axis=axes, keepdims=True) / MOST
  steps = jnp.round(wide / jnp.where(scale == 0, 1.0, scale))
  return steps.astype(jnp.int8), jnp.squeeze(scale, axes)
