"""What layers are made of: products with named weights, norms, rotations.

Letters: B rows, T columns, N heads, H head width.
"""

from __future__ import annotations

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from score_jax.models import stack
from score_jax.models.architecture import (
  Execution,
  inverse_frequencies,
  ModelConfig,
)


def rounded(x: jax.Array, dtype: str) -> jax.Array:
  """Returns x in its own type, each number the nearest that `dtype` has.

  A cast there and back says the same, but compilers leave that out, and then
  programs that fuse otherwise round otherwise.
  """
  kind = jnp.finfo(dtype)
  return jax.lax.reduce_precision(x, kind.nexp, kind.nmant)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3, 4))
def product(
  equation: str,
  x: jax.Array,
  kernel: jax.Array,
  wide: bool = False,
  products: str = 'xla',
) -> jax.Array:
  """Returns the einsum of two arrays of one type.

  The products of its gradient are in the type of `x` too. They are einsums of
  their own: as jax derives it, the kernel's gradient comes out transposed, and
  on a CPU XLA multiplies that at half the speed.

  Args:
    equation: of einsum, 'input,kernel->output'.
    x: the input.
    kernel: of the same type.
    wide: whether it comes back in float32, as it is summed up, instead of
      rounded to the type of `x`.
    products: what multiplies, as `Execution` has it.
  """
  return _product_forward(equation, x, kernel, wide, products)[0]


def _product_forward(equation, x, kernel, wide, products):
  del products
  # Not by `product`: a rule for what is kept (`remat`) sees the einsum here,
  # and would see no product at all there.
  kind = jnp.float32 if wide else x.dtype
  out = jnp.einsum(equation, x, kernel, preferred_element_type=kind)
  return out, (x, kernel)


def _product_backward(equation, wide, products, kept, cotangent):
  del wide
  x, kernel = kept
  cotangent = cotangent.astype(x.dtype)
  inputs, out = equation.split('->')
  of_x, of_kernel = inputs.split(',')
  of_input = jnp.einsum(f'{out},{of_kernel}->{of_x}', cotangent, kernel)
  if products == 'onednn':
    rows = sum(letter in of_x for letter in out)
    return of_input, _over_rows(rows, x, cotangent).reshape(kernel.shape)
  return of_input, jnp.einsum(f'{of_x},{out}->{of_kernel}', x, cotangent)


product.defvjp(_product_forward, _product_backward)


def _over_rows(axes: int, x: jax.Array, y: jax.Array) -> jax.Array:
  """Returns [I, O], the products of x and y summed over their rows.

  Over one axis, as oneDNN turns a factor over itself on the way: over two the
  compiler makes a turned copy before. It turns the first factor, so the
  narrower one is.

  Args:
    axes: how many leading ones are rows.
    x: [rows ..., I ...].
    y: [rows ..., O ...].
  """
  count = math.prod(x.shape[:axes])
  x, y = x.reshape(count, -1), y.reshape(count, -1)
  if x.shape[1] > y.shape[1]:
    return (y.T @ x).T
  return x.T @ y


def turns(
  config: ModelConfig, position: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns cosines and sines, float32[kinds of layers, B, T, H / 2] each.

  Args:
    config: of the model.
    position: int32[B, T].
  """
  width = config.head_dim
  speed = np.stack([inverse_frequencies(r, width) for r in config.ropes])
  angle = position[None, :, :, None] * speed[:, None, None, :]
  return jnp.cos(angle), jnp.sin(angle)


def made_once(
  arrays: tuple[jax.Array, ...], number: jax.Array
) -> tuple[jax.Array, ...]:
  """Returns the arrays, to be read on a CPU from where they were made.

  XLA fuses what is computed number by number into all that reads it, and takes
  barriers out before it does: every layer, row, head and gradient would have
  its cosines computed anew (docs/costs.md, "Angles once"). What comes out of a
  conditional it reads.

  Args:
    arrays: what is read often.
    number: int32[], at least 0, which XLA must not know.
  """
  zeros = jax.tree.map(jnp.zeros_like, arrays)
  return jax.lax.cond(number >= 0, lambda: arrays, lambda: zeros)


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
  """Returns [B, T, N, H] with its halves rotated; angles are [B, T, H / 2]."""
  cos, sin = cos[:, :, None], sin[:, :, None]
  wide = x.astype(jnp.float32)
  if x.shape[1] == 1:  # A CPU concatenates few numbers one by one.
    halves = wide.reshape(*x.shape[:-1], 2, -1)
    across = jnp.stack([-sin, sin], axis=-2)
    turned = halves * cos[..., None, :] + jnp.flip(halves, axis=-2) * across
    return turned.reshape(x.shape).astype(x.dtype)
  first, second = jnp.split(wide, 2, axis=-1)
  turned = (first * cos - second * sin, second * cos + first * sin)
  return jnp.concatenate(turned, axis=-1).astype(x.dtype)


class Norm(nn.Module):
  """Root-mean-square norm over the last axis (arXiv:1910.07467).

  Gemma rounds what it gives; the others round before the weight comes to it
  as well, which no two programs may do differently and agree in bfloat16.
  """

  config: ModelConfig
  execution: Execution
  is_summed: bool = False  # Whether what it gives is added up, not multiplied.

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    start = nn.initializers.constant(1.0 - self.config.norm_offset)
    scale = self.param(
      'scale',
      nn.with_logical_partitioning(start, ('norm',)),
      (x.shape[-1],),
      self.execution.param_dtype,
    )
    wide = x.astype(jnp.float32)
    mean = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
    wide = wide * jax.lax.rsqrt(mean + self.config.norm_eps)
    if self.config.norm_rounds_first:
      wide = rounded(wide, self.execution.dtype)
    scale = scale.astype(jnp.float32) + self.config.norm_offset
    axes = (1,) * (x.ndim - 1) + scale.shape
    run = self.execution
    return (wide * scale.reshape(axes)).astype(
      run.residual_dtype if self.is_summed else run.dtype
    )


class Projection(nn.Module):
  """A product with a named weight, and a bias where there is one.

  Where 'lora_a' and 'lora_b' lie beside the kernel, what they make of the
  input is added; how they get there is for `lora.bind` to say. Where a
  'kernel_scale' does, the kernel is int8, and what the product gives is scaled.
  Where 'blocks' do, or 'turned' does, that is the kernel (`stack.laid_out`).
  """

  execution: Execution
  equation: str  # Of einsum: input, kernel -> output.
  shape: tuple[int, ...]
  axes: tuple[str, ...]
  inputs: int  # How many leading axes of the kernel are contracted.
  bias: bool
  is_summed: bool = False  # Whether no product reads what it gives as it is.

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    param_dtype = self.execution.param_dtype
    dtype = x.dtype
    if self.is_summed:
      dtype = jnp.dtype(self.execution.residual_dtype)
    scaled = self.has_variable('params', 'kernel_scale')
    # With a bias or a wider sum it is rounded once, when all is added up.
    out = self._product(x, self.bias or scaled or dtype != x.dtype)
    if scaled:
      scale = self.get_variable('params', 'kernel_scale')
      out = out * scale.reshape((1,) * (out.ndim - scale.ndim) + scale.shape)
    if self.has_variable('params', 'lora_a'):
      out = out + self._low_rank(x)
    if self.bias:
      shape, axes = self.shape[self.inputs :], self.axes[self.inputs :]
      zeros = nn.with_logical_partitioning(nn.initializers.zeros, axes)
      bias = self.param('bias', zeros, shape, param_dtype).astype(x.dtype)
      out = out + bias.reshape((1,) * (out.ndim - bias.ndim) + shape)
    return out.astype(dtype)

  def _product(self, x: jax.Array, wide: bool) -> jax.Array:
    outputs = self.shape[self.inputs :]
    for form in ('blocks', 'turned'):
      if not self.has_variable('params', form):
        continue
      kernel = self.get_variable('params', form)
      together = x.reshape(*x.shape[: x.ndim - self.inputs], -1)
      dtype = jnp.dtype('float32') if wide else x.dtype
      out = stack.product(together, kernel, dtype)
      return out.reshape(*out.shape[:-1], *outputs)
    start = nn.initializers.normal(math.prod(self.shape[: self.inputs]) ** -0.5)
    kernel = self.param(
      'kernel',
      nn.with_logical_partitioning(start, self.axes),
      self.shape,
      self.execution.param_dtype,
    )
    kernel = kernel.astype(x.dtype)
    products = self.execution.products
    return product(self.equation, x, kernel, wide, products)

  def _low_rank(self, x: jax.Array) -> jax.Array:
    a, b = (
      self.get_variable('params', name).astype(x.dtype)
      for name in ('lora_a', 'lora_b')
    )
    if rate := self.execution.adapter_dropout:
      kept = jax.random.bernoulli(self.make_rng('dropout'), 1 - rate, x.shape)
      x = jnp.where(kept, x / (1 - rate), 0)
    return jnp.tensordot(jnp.tensordot(x, a, self.inputs), b, 1)
