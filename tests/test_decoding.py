"""A copy of the weights samples what they would, as far as it was rounded."""

import contextlib
import dataclasses
import functools
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax.traverse_util import flatten_dict, unflatten_dict

from score_jax import config as config_lib
from score_jax import (
  data,
  decoding,
  job,
  phase,
  rollout,
  sampler,
  sharding,
  tpu,
)
from score_jax.decoding import Decoding
from score_jax.models import lora, narrow, stack, weights
from score_jax.models.cache import Cache
from score_jax.timing import Times

# Every dimension divides by 4, so that all that can be split is.
CONFIG = dataclasses.replace(tiny.RICH, vocab_size=16, mlp=32)
UNTIED = dataclasses.replace(tiny.PLAIN, vocab_size=16, mlp=32)
PROMPTS = [[3, 4, 5], [4], [6, 13], [5]]
INSTRUCTION = [5, 6]
ADAPTER = lora.Lora(2, 4.0, tuple(stack.PROJECTIONS), 0.0)
INT8 = Decoding('int8', 'int8')


def on_mesh(shape, config=CONFIG, **execution):
  """Returns a decoder on a mesh, and its parameters."""
  mesh = sharding.make_mesh(shape, jax.devices()[: math.prod(shape)])
  model = tiny.transformer(config, mesh=mesh, **execution)
  places = jax.tree.map(lambda x: x.sharding, weights.target(model))
  return model, jax.device_put(tiny.params_of(model), places)


def sampler_of(model, kept):
  sampling = tiny.sampling(first_attempts=2, max_tokens=(4, 5))
  return sampler.make_sampler(decoding.decoder(model, kept), sampling)


def inputs(mesh):
  prompts = tiny.prompts(PROMPTS, 3)
  if mesh is not None:
    prompts = jax.tree.map(lambda x: sharding.put_rows(mesh, x), prompts)
  return prompts, (jnp.asarray(INSTRUCTION, jnp.int32),), jax.random.key(0)


def sample(model, params, kept):
  ready = decoding.make_prepare(model, kept)(params)
  found = sampler_of(model, kept)(ready, *inputs(model.execution.mesh))
  return jax.device_get(found)


@functools.cache
def as_trained(shape, unroll):
  model, params = on_mesh(shape, unroll=unroll)
  return sample(model, params, Decoding())


def assert_alike(found, expected):
  np.testing.assert_allclose(found.logp, expected.logp, atol=1e-5)
  same = dataclasses.replace(found, logp=expected.logp)
  jax.tree.map(np.testing.assert_array_equal, same, expected)


@pytest.mark.parametrize('layout', ['gathered', 'tensor'])
@pytest.mark.parametrize(
  ('shape', 'unroll'),
  [((2, 2, 2), False), ((1, 8, 1), True)],
)
def test_every_layout_samples_what_the_layout_of_training_samples(
  shape, unroll, layout
):
  model, params = on_mesh(shape, unroll=unroll)
  found = sample(model, params, Decoding(layout=layout))
  assert_alike(found, as_trained(shape, unroll))


def adapted(model, params):
  """Returns parameters with a random adapter bound to them, and the adapter."""
  like = lora.target(weights.target(model), ADAPTER, 'float32')
  draw = np.random.default_rng(3).normal
  own = jax.tree.map(
    lambda x: jax.device_put(0.1 * draw(size=x.shape), x.sharding), like
  )
  own = jax.tree.map(lambda x: x.astype(jnp.float32), own)
  return lora.bind(params, own, ADAPTER)


def test_an_adapter_is_laid_out_beside_what_it_adapts():
  model, params = on_mesh((1, 4, 2), unroll=False)
  bound, kept = adapted(model, params), Decoding(layout='tensor')
  assert_alike(sample(model, bound, kept), sample(model, bound, Decoding()))


@pytest.mark.parametrize('config', [CONFIG, UNTIED], ids=['tied', 'untied'])
@pytest.mark.parametrize(
  'kept',
  [
    Decoding(layout='gathered'),
    Decoding('bfloat16', layout='tensor'),
    Decoding('int8', 'int8', 'tensor'),
    Decoding('int8'),
  ],
  ids=str,
)
def test_what_is_planned_for_is_what_is_made(config, kept):
  """Shapes, types and places; and no device holds more than it has to."""
  model, params = on_mesh((1, 4, 2), config)
  for given in (params, adapted(model, params)):
    made = flatten_dict(decoding.make_prepare(model, kept)(given))
    shapes = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
      given,
    )
    planned = flatten_dict(decoding.like(model, kept, shapes))
    assert made.keys() == planned.keys()
    for path, x in made.items():
      assert (x.shape, x.dtype) == (planned[path].shape, planned[path].dtype)
      assert x.sharding.is_equivalent_to(planned[path].sharding, x.ndim), path
      if path[-1] in ('kernel', 'embedding', 'head'):
        assert x.itemsize == {'int8': 1, 'bfloat16': 2, 'same': 4}[kept.weights]
        ways = 2 if kept.layout == 'gathered' else 8
        held = x.size // ways
        # Of two key heads of four numbers each: both axes split them.
        assert x.addressable_shards[0].data.size == held, path


def test_told_nothing_parameters_are_not_copied():
  model, params = on_mesh((1, 4, 2))
  assert decoding.make_prepare(model, Decoding())(params) is params
  assert decoding.decoder(model, Decoding()) == model
  assert decoding.like(model, Decoding(), params) is params


def test_casting_once_changes_no_bit():
  """Where products read bfloat16, they read the same numbers as before."""
  model, params = on_mesh((1, 2, 1), unroll=False, dtype='bfloat16')
  expected = sample(model, params, Decoding())
  for kept in (Decoding('bfloat16'), Decoding(layout='gathered')):
    found = sample(model, params, kept)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def widened(made):
  """Returns float32 parameters of the numbers that int8 ones stand for."""
  flat = {k: np.asarray(x) for k, x in flatten_dict(made).items()}
  wide = {}
  for (*module, name), x in flat.items():
    if name.endswith('_scale'):
      continue
    scale = flat.get((*module, f'{name}_scale'))
    if scale is not None:
      inputs = stack.PROJECTIONS[module[-1]][1] if module else 1
      axes = tuple(range(1, 1 + inputs))
      x = x.astype(np.float32) * np.expand_dims(scale, axes)
    wide[*module, name] = jnp.asarray(x)
  return unflatten_dict(wide)


MODEL = tiny.transformer(CONFIG)
TOKENS = jnp.asarray(np.random.default_rng(1).integers(0, 16, (3, 6)))


@pytest.mark.parametrize('config', [CONFIG, UNTIED], ids=['tied', 'untied'])
@pytest.mark.parametrize('adapts', [False, True])
def test_int8_products_are_those_of_the_numbers_they_stand_for(config, adapts):
  model = tiny.transformer(config)
  params = tiny.params_of(model)
  if adapts:
    params = adapted(model, params)
  made = decoding.make_prepare(model, Decoding('int8'))(params)
  found = tiny.logits_of(model, made, TOKENS)
  expected = tiny.logits_of(model, widened(made), TOKENS)
  np.testing.assert_allclose(found, expected, atol=1e-5)


def half_steps(params, made):
  """Returns {path: the most that int8 takes each number off by}."""
  flat, half = flatten_dict(made), {}
  for path, x in flatten_dict(params).items():
    *module, name = path
    scale = flat.get((*module, f'{name}_scale'))
    if scale is None:
      half[path] = np.zeros(x.shape)
      continue
    inputs = stack.PROJECTIONS[module[-1]][1] if module else 1
    axes = tuple(range(1, 1 + inputs))
    half[path] = np.broadcast_to(np.expand_dims(scale, axes) / 2, x.shape)
  return half


def test_int8_logits_are_off_by_what_roundings_of_weights_do_to_them():
  """Each by less than half a step; the logits, to first order, by their sum.

  At most it is the sum over weights of |d logit / d weight| step / 2. Roundings
  that are independent, and spread evenly, give a standard deviation: the root
  of the sum of (d logit / d weight)^2 step^2 / 12.
  """
  params = tiny.params_of(MODEL)
  made = decoding.make_prepare(MODEL, Decoding('int8'))(params)
  half, wide = half_steps(params, made), flatten_dict(widened(made))
  for path, x in flatten_dict(params).items():
    off = np.abs(np.asarray(wide[path]) - np.asarray(x))
    assert np.all(off <= half[path] * (1 + 1e-4)), path
  row = TOKENS[:1]
  slope = jax.jit(jax.jacrev(lambda p: tiny.logits_of(MODEL, p, row)[0, -1]))
  slopes = flatten_dict(slope(params))
  most, square = np.zeros(CONFIG.vocab_size), np.zeros(CONFIG.vocab_size)
  for path, step in half.items():
    each = np.abs(np.asarray(slopes[path])) * step[None]
    axes = tuple(range(1, each.ndim))
    most += each.sum(axes)
    square += np.square(each).sum(axes) / 3
  found, exact = (tiny.logits_of(MODEL, p, row)[0, -1] for p in (made, params))
  off = np.abs(np.asarray(found) - np.asarray(exact))
  assert np.all(off <= most)
  assert np.all(off <= 4 * np.sqrt(square))
  assert np.max(off) > 0.01


def stepwise(model, ready, tokens, prompt):
  """Returns log-probabilities of one row's tokens, fed one at a time."""
  run = functools.partial(model.apply, {'params': ready})

  @jax.jit
  def step(token, column, cache):
    hidden, own = run(token[None, None], column[None, None], cache)
    return hidden[:, 0], dataclasses.replace(cache, own=own)

  hidden, read = jax.jit(run)(tokens[:, :prompt])
  own = sampler.empty_cache(model.config, model.execution, 1, tokens.shape[1])
  cache, logits = Cache(read, own, jnp.asarray([prompt])), []
  last = hidden[:, -1]
  for column in range(prompt, tokens.shape[1]):
    logits.append(run(last, method='unembed')[0])
    last, cache = step(tokens[0, column], jnp.asarray(column), cache)
  logp = jax.nn.log_softmax(jnp.stack(logits), axis=-1)
  return jnp.take_along_axis(logp, tokens[0, prompt:, None], axis=-1)[:, 0]


@pytest.mark.parametrize(
  ('cache', 'unroll'), [('same', True), ('bfloat16', False), ('int8', True)]
)
def test_recorded_log_probabilities_are_those_of_the_copy_that_drew(
  cache, unroll
):
  """And not those of the weights as they are trained."""
  model, kept = tiny.transformer(CONFIG, unroll=unroll), Decoding('int8', cache)
  params = tiny.params_of(model)
  found = sample(model, params, kept)
  ready = decoding.make_prepare(model, kept)(params)
  decoder = decoding.decoder(model, kept)
  row, first = 1, len(PROMPTS[0])  # Its prompt is as wide as the batch's.
  end = int(found.span[row, 0, 1])
  tokens = jnp.asarray(found.tokens[row : row + 1, :end])
  mine = stepwise(decoder, ready, tokens, first)
  np.testing.assert_allclose(found.logp[row, first:end], mine, atol=1e-5)
  trained = tiny.token_logp(tiny.logits_of(model, params, tokens), tokens)
  gap = np.abs(np.asarray(trained)[0, first:] - mine)
  assert 1e-3 < gap.max() < 0.2


@pytest.mark.parametrize('unroll', [True, False])
def test_the_loop_reads_int8_and_no_copy_of_it_that_was_widened(unroll):
  """What the loop over tokens carries is in its text."""
  config = dataclasses.replace(CONFIG, mlp=52)  # Like nothing else's size.
  model = tiny.transformer(config, unroll=unroll)
  ready = jax.eval_shape(
    decoding.make_prepare(model, INT8), tiny.params_of(model)
  )
  text = sampler_of(model, INT8).lower(ready, *inputs(None)).compile().as_text()
  carried = [line for line in text.splitlines() if ' while(' in line]
  carried = ' '.join(line.split(' while(')[0] for line in carried)
  ours = 's8[16,52]' if unroll else 's8[2,16,52]'
  assert ours in carried
  assert ours.replace('s8', 'f32') not in carried
  # The cache too: 8 rows, 2 heads of 4 numbers, 4 + 5 + 3 own columns.
  own = 's8[8,2,4,12]' if unroll else 's8[2,8,2,4,12]'
  assert own in carried
  assert own.replace('s8', 'f32') not in carried


def test_no_token_gathers_weights_that_do_not_lie_as_they_are_trained():
  """Bytes that the compiled programs move between devices."""
  big = dataclasses.replace(CONFIG, width=64, mlp=256)
  loops = tpu.Loops(layers=2, others=(9,), ring=4)
  moved = {}
  for layout in decoding.LAYOUTS:
    model, params = on_mesh((1, 4, 1), big, unroll=False)
    kept = Decoding(layout=layout)
    ready = decoding.make_prepare(model, kept)(params)
    lowered = sampler_of(model, kept).lower(
      ready, *inputs(model.execution.mesh)
    )
    found = tpu.collectives(lowered.compile().as_text(), loops)
    moved[layout] = sum(c.total for c in found)
  assert moved['gathered'] < 0.01 * moved['train']
  assert moved['tensor'] < 0.5 * moved['train']


def test_a_number_that_is_not_finite_is_not_hidden():
  x = jnp.asarray([[1.0, -2.0], [jnp.nan, 1.0], [jnp.inf, 1.0], [0.0, 0.0]])
  steps, scale = narrow.quantize(x, (1,))
  found = steps * scale[:, None]
  np.testing.assert_allclose(found[0], [1, -2], atol=1 / 127)
  assert not np.isfinite(found[1:3]).all(axis=1).any()
  np.testing.assert_array_equal(found[3], [0, 0])
  assert steps.dtype == jnp.int8


def a_job(kept, parts):
  """Returns a job of four problems, that nobody grades."""
  model, params = on_mesh((1, 2, 1), unroll=False)
  config = config_lib.default()
  with config.unlocked():
    config.update_from_flattened_dict(
      {
        'train.trajectories': 8,
        'sampling.first_attempts': 2,
        'sampling.max_tokens': (4, 5),
        'sampling.parts': parts,
      }
    )
  problems = data.Problems((None,) * 4, *map(np.asarray, PADDED))
  words = types.SimpleNamespace(
    end_tokens=(tiny.END,), close=tiny.CLOSE, pad=tiny.PAD
  )
  nothing = dict.fromkeys(f.name for f in dataclasses.fields(job.Job))
  mine = {
    'config': config,
    'mesh': model.execution.mesh,
    'model': model,
    'decoding': kept,
    'base': params,
    'tokenizer': words,
    'instructions': inputs(None)[1],
    'train': problems,
  }
  return job.Job(**(nothing | mine)), params


PADDED = (
  np.asarray([[3, 4, 5], [4, 2, 2], [6, 13, 2], [5, 2, 2]], np.int32),
  np.asarray([3, 1, 2, 1], np.int32),
)


@pytest.mark.parametrize('offline', [0.0, 0.5])
def test_one_copy_serves_all_parts_and_is_gone_before_the_update(
  monkeypatch, offline
):
  made, seen = [], []

  def start(sample, problems, parts, times):
    for place in np.split(np.arange(len(problems)), parts):
      sample(place)
      seen.append(in_int8())

  def prepared(self, params):
    made.append(params)
    return decoding.make_prepare(self.model, self.decoding)(params)

  def in_int8():
    return sum(x.nbytes for x in jax.live_arrays() if x.dtype == jnp.int8)

  monkeypatch.setattr(rollout, 'start_sampling', start)
  monkeypatch.setattr(job.Job, 'prepared', prepared)
  here, params = a_job(Decoding('int8', layout='gathered'), parts=2)
  before = in_int8()
  with contextlib.closing(Times()) as times:
    phase.start_sampling(here, params, 0, offline, times)
  # The policy's, and the base's where its attempts are wanted.
  assert len(made) == (2 if offline else 1)
  assert len(seen) == 2
  assert min(seen) > before
  assert in_int8() == before
