"""The libraries' kernels compute what plain attention does, and its gradient."""

import dataclasses
import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax._src.cudnn import fused_attention_stablehlo as fused

from score_jax import learner, sampler, sharding
from score_jax.models import families, kernels, splash
from score_jax.models.architecture import Execution
from score_jax.models.attention import attend, KeyValue, Softmax

FAR = jnp.iinfo(jnp.int32).max
LENGTHS = jnp.asarray([5, 2], jnp.int32)  # Of the prompts, at most 5.


def draw(seed, *shape):
  normal = np.random.default_rng(seed).normal(size=shape)
  return jnp.asarray(normal, jnp.float32)


def keys_of(seed, rows, columns, width):
  """Returns keys and values of two heads."""
  shapes = (2, width, columns), (2, columns, width)
  return KeyValue(*(draw(seed, rows, *shape) for shape in shapes))


def masks(columns, window):
  """Returns what is seen of the own columns, and of prompts before them."""
  own = np.arange(columns)
  distance = own[:, None] - own
  seen = (distance >= 0) & (distance < window)
  key, length = np.arange(5), np.asarray(LENGTHS)[:, None, None]
  near = length + own[None, :, None] - key < window
  return jnp.asarray(seen[None]), jnp.asarray((key < length) & near)


def plainly(softmax, window, query, own, prompt):
  seen, before = masks(query.shape[1], window)
  part = None if prompt is None else (prompt, before)
  return attend(softmax, query, (own, seen), part)


def by_kernel(kind, mesh, among, softmax, window, query, own, prompt):
  execution = Execution(attention=kind, mesh=mesh)
  query = query * kernels.query_scale(execution, softmax.scale)
  where = kernels.Window(jnp.int32(window), among)
  part = None if prompt is None else (prompt, LENGTHS)
  return kernels.attend(execution, softmax, query, own, where, part)


def with_gradients(attend, softmax, window, arrays):
  """Returns what attention gives, and gradients of a weighted sum of it."""

  def total(query, own, prompt):
    out = attend(softmax, window, query, own, prompt)
    return jnp.sum(out * draw(9, *out.shape)), out

  wanted = (0, 1) if arrays[2] is None else (0, 1, 2)
  both = jax.value_and_grad(total, wanted, has_aux=True)
  (_, out), grads = jax.jit(both)(*arrays)
  return out, grads


def arrays_of(shared, columns=7, queries=3, width=4):
  """Returns four rows' queries of two key heads, their keys, and prompts'."""
  query = draw(0, 4, columns, 2, queries, width)
  own = keys_of(1, 4, columns, width)
  return query, own, keys_of(2, 2, 5, width) if shared else None


def close(found, expected):
  """Compares to 1e-5, of the largest number where that is above 1."""

  def one(x, y):
    size = max(1.0, float(np.max(np.abs(y))))
    np.testing.assert_allclose(x, y, rtol=0, atol=1e-5 * size)

  jax.tree.map(one, found, expected)


@pytest.mark.parametrize('window', [FAR, 3], ids=['all', 'near'])
@pytest.mark.parametrize('shared', [False, True], ids=['own', 'prompt'])
@pytest.mark.parametrize(
  ('kind', 'cap'), [('splash', 0.0), ('splash', 2.0), ('cudnn', 0.0)]
)
def test_a_kernel_gives_what_plain_attention_gives(kind, cap, shared, window):
  arrays, softmax = arrays_of(shared), Softmax(0.3, cap)
  expected = with_gradients(plainly, softmax, window, arrays)
  kernel = functools.partial(by_kernel, kind, None, (3, FAR))
  close(with_gradients(kernel, softmax, window, arrays), expected)


@pytest.mark.parametrize(
  ('shape', 'queries'),
  [((2, 1, 2), 3), ((1, 2, 4), 4), ((4, 1, 1), 3)],
  ids=['heads', 'queries of a head', 'neither rows nor heads'],
)
def test_on_a_mesh_each_device_attends_for_its_rows_and_heads(shape, queries):
  mesh = sharding.make_mesh(shape, jax.devices()[: math.prod(shape)])
  query, *keys = arrays_of(shared=True, queries=queries)
  arrays, softmax = (query, *keys), Softmax(0.3, 2.0)
  kernel = functools.partial(by_kernel, 'splash', mesh, (3, FAR))
  expected = with_gradients(plainly, softmax, 3, arrays)
  close(with_gradients(kernel, softmax, 3, arrays), expected)


def test_rows_longer_than_a_block_are_covered_by_blocks():
  kernel = functools.partial(by_kernel, 'splash', None, (300,))
  arrays, softmax = arrays_of(shared=True, columns=530), Softmax(0.3)
  expected = with_gradients(plainly, softmax, 300, arrays)
  close(with_gradients(kernel, softmax, 300, arrays), expected)


@pytest.mark.parametrize(
  ('columns', 'expected'),
  [(1, (128, 128)), (512, (512, 512)), (513, (768, 384)), (1100, (1152, 384))],
)
def test_blocks_are_as_wide_as_lanes_and_leave_little_over(columns, expected):
  assert splash.padded_columns(columns) == expected


@pytest.mark.parametrize(
  ('shared', 'called'),
  [(False, 'fmhaSoftmax'), (True, 'fmhaScaleBiasSoftmax')],
  ids=['own', 'prompt'],
)
def test_for_a_gpu_that_is_not_here_cudnn_is_called(
  shared, called, monkeypatch
):
  """Lowered, both ways; whether it runs there only a GPU can say."""
  monkeypatch.setattr(fused, 'check_cudnn_version', lambda: 91000)
  monkeypatch.setattr(fused, 'check_compute_capability', lambda least: True)
  monkeypatch.setattr(kernels, '_platform', lambda mesh: 'gpu')
  arrays = arrays_of(shared, width=8)  # It takes no heads of four.
  narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), arrays)

  def gradients(*arrays):
    return with_gradients(
      functools.partial(by_kernel, 'cudnn', None, (3, FAR)),
      Softmax(0.3),
      3,
      arrays,
    )

  traced = jax.jit(gradients).trace(*narrow)
  lowered = traced.lower(lowering_platforms=('cuda',))
  found = set(re.findall(r'__cudnn\$(\w+)', lowered.as_text()))
  assert found == {called, f'{called}Backward'}


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'attention_softcap': 50.0}, 'no cap on scores.*at 50'),
    ({'head_dim': 12}, 'multiple of 8.*12 wide'),
    ({'head_dim': 320}, 'at most 256.*320 wide'),
  ],
)
def test_a_model_that_cudnn_cannot_do_is_refused(changes, words):
  model = dataclasses.replace(tiny.PLAIN, **{'head_dim': 64, **changes})
  assert re.search(words, kernels.refusal('cudnn', model))
  assert not kernels.refusal('splash', model)
  assert not kernels.refusal('plain', model)


# ---------------------------------------------------------------- whole models

SMALL = {
  'vocab_size': 11,
  'hidden_size': 16,
  'intermediate_size': 24,
  'num_hidden_layers': 2,
  'num_attention_heads': 4,
  'num_key_value_heads': 2,
  'head_dim': 8,
  'rms_norm_eps': 1e-6,
  'rope_theta': 100.0,
}
WINDOWS = {
  'use_sliding_window': True,
  'sliding_window': 3,
  'max_window_layers': 1,
}
GEMMA2 = {
  'sliding_window': 3,
  'query_pre_attn_scalar': 24,
  'attn_logit_softcapping': 2.0,
  'final_logit_softcapping': 3.0,
}
GEMMA3 = {
  'sliding_window': 4,
  'query_pre_attn_scalar': 8,
  'layer_types': ['sliding_attention', 'full_attention'],
  'rope_local_base_freq': 50.0,
}


def model_of(family, **execution):
  own = {'qwen2': WINDOWS, 'gemma2': GEMMA2, 'gemma3_text': GEMMA3}
  numbers = {**SMALL, **own.get(family, {}), 'model_type': family}
  return tiny.transformer(families.model_config(numbers), **execution)


def some_batch():
  """Returns four rows of two prompts, and what they earned."""
  prompts = [[3, 4, 5]] * 2 + [[6]] * 2
  written = [
    ((4, 0), (5, 6, 0)),
    ((0,), (7, 0)),
    ((8, 8), (0,)),
    ((9,) * 4,) * 2,
  ]
  rows = tiny.trajectory(prompts, written, [[5, 6]], columns=16)
  return learner.Batch(rows, draw(3, 4, 2))


@functools.cache
def taught(family, **execution):
  """Returns logits, metrics and the update's gradient of a model."""
  model, batch = model_of(family, **execution), some_batch()
  params, reference = (tiny.params_of(model, seed) for seed in range(2))
  learning = tiny.learning(tiny.STAGE_ONE, prompt_tokens=3)
  assert learner._cut(learning, batch.trajectory, None).prompt == 3

  @jax.jit
  def both(params):
    return jax.value_and_grad(learner.loss_and_metrics, 2, has_aux=True)(
      model, learning, params, reference, jnp.float32(0.1), batch
    )

  logits = tiny.logits_of(model, params, batch.trajectory.tokens)
  return logits, both(params)


@pytest.mark.parametrize(
  ('family', 'kind', 'execution'),
  [
    ('gemma2', 'splash', {'unroll': False, 'remat': 'block'}),
    ('gemma3_text', 'splash', {'unroll': False}),
    pytest.param(
      'llama', 'splash', {'remat': 'products'}, marks=pytest.mark.long
    ),
    pytest.param('qwen2', 'splash', {}, marks=pytest.mark.long),
    ('qwen3', 'cudnn', {}),
    ('gemma3_text', 'cudnn', {'unroll': False, 'remat': 'block'}),
  ],
)
def test_a_family_is_taught_the_same_by_a_kernel(family, kind, execution):
  found = taught(family, attention=kind, **execution)
  close(found, taught(family, unroll=False))


def test_on_a_mesh_a_family_is_taught_the_same_by_a_kernel():
  mesh = sharding.make_mesh((2, 1, 2), jax.devices()[:4])
  found = taught('gemma2', attention='splash', unroll=False, mesh=mesh)
  close(jax.device_get(found), taught('gemma2', unroll=False))


def test_tokens_are_sampled_as_they_are_scored_by_a_kernel():
  """The prompts are read by the kernel, and what follows from the cache."""
  model = model_of('gemma2', attention='splash', unroll=False)
  params = tiny.params_of(model)
  sample = sampler.make_sampler(model, tiny.sampling(first_attempts=2))
  rows = sample(
    params,
    tiny.prompts([[3, 4, 5], [6]], 3),
    (jnp.asarray([5, 6], jnp.int32),),
    jax.random.key(0),
  )
  logits = tiny.logits_of(model, params, rows.tokens)
  logp = tiny.token_logp(logits, rows.tokens)
  np.testing.assert_allclose(
    np.where(rows.turn > 0, logp, 0), rows.logp, atol=1e-5
  )
