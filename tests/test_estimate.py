"""Bytes and work of a step are what arrays take and products need."""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from planned import long_rows, MESH, MODEL, settings, setup

from score_jax import (
  chips,
  estimate,
  fitting,
  lengths,
  programs,
  sharding,
)
from score_jax.estimate import Cost, Efficiency
from score_jax.models import weights


def test_device_bytes_are_those_that_real_arrays_take():
  mesh = sharding.make_mesh(MESH)
  model = tiny.transformer(MODEL, unroll=False, mesh=mesh)
  like = weights.target(model)
  real = jax.tree.map(
    lambda x: jax.device_put(jnp.zeros(x.shape, x.dtype), x.sharding), like
  )
  first = jax.devices()[0]
  taken = sum(
    shard.data.nbytes
    for x in jax.tree.leaves(real)
    for shard in x.addressable_shards
    if shard.device == first
  )
  assert programs.device_bytes(setup().base) == taken


@pytest.mark.parametrize('rank', [0, 2])
def test_the_programs_take_the_arguments_that_are_planned_for(rank):
  """Traced on real devices: shapes, types and trees are what they expect."""
  changes = {'model.lora.rank': rank}
  real = programs.setup(
    settings(**changes), MODEL, sharding.make_mesh(MESH), instruction=4
  )
  sample = programs.sample_program(real)
  written = jax.eval_shape(sample.function, *sample.arguments)
  update = programs.update_program(real)
  state, _ = jax.eval_shape(update.function, *update.arguments)
  found = jax.tree.map(lambda x: (x.shape, x.dtype), written)
  wanted = jax.tree.map(
    lambda x: (x.shape, x.dtype), update.arguments[2].trajectory
  )
  assert found == wanted
  assert written.tokens.shape == (32, 4 + 6 + 5 + 6)
  jax.tree.map(
    lambda new, old: np.testing.assert_equal(new.shape, old.shape),
    state,
    update.arguments[0],
  )


def test_operations_of_a_pass_are_those_that_the_compiler_counts():
  model = tiny.transformer(MODEL)
  rows, columns = 8, 64
  shapes = nn.meta.unbox(
    jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), int))
  )
  tokens = jax.ShapeDtypeStruct((rows, columns), jnp.int32)

  def run(params, tokens):
    hidden, _ = model.apply(params, tokens)
    return model.apply(params, hidden, method='unembed')

  counted = jax.jit(run).lower(shapes, tokens).compile().cost_analysis()
  s = estimate.Sizes(setup((1, 1, 1)))
  tokens = rows * columns
  mine = estimate.layers_cost(s, tokens, columns, s.kernels)
  mine += estimate.head_cost(s, tokens, s.kernels)
  # The compiler counts norms, rotary angles and the softmax as well.
  assert mine.flops < counted['flops'] < 1.1 * mine.flops


def test_work_is_divided_among_devices_and_grows_with_rows():
  alone = estimate.update_cost(setup((1, 1, 1)))
  spread = estimate.update_cost(setup((1, 8, 1)))
  twice = estimate.update_cost(
    setup((1, 1, 1), **{'train.trajectories': 64, 'model.logits_chunk': 256})
  )
  for name in ('reference', 'policy, forward', 'policy, backward'):
    assert alone[name].network == 0 < spread[name].network
    # Blocks of logits are filled up, so a few columns are counted over.
    np.testing.assert_allclose(spread[name].flops * 8, alone[name].flops)
    np.testing.assert_allclose(twice[name].flops, 2 * alone[name].flops)


def test_seconds_are_those_of_each_resource_at_its_share():
  chip = chips.Chip(
    flops=100.0, memory=0, bandwidth=10.0, network=5.0, shapes=()
  )
  cost = Cost(50.0, 30.0, 5.0) + Cost(50.0, 10.0, 5.0)
  found = cost.seconds(chip, Efficiency(0.5, 0.8, 1.0))
  assert found == {'compute': 2.0, 'memory': 5.0, 'network': 2.0}


def test_a_cache_is_two_numbers_per_key_head_column_row_and_layer():
  sizes = estimate.Sizes(setup(**{'model.dtype': 'bfloat16'}))
  # Two layers, 32 rows on 4 parts, 17 columns behind the prompt, 1 of 2 key
  # heads of 32 numbers, 2 bytes each, keys and values.
  assert sizes.slots == 6 + 4 + 1 + 6
  assert sizes.cache(sizes.sampled, sizes.slots) == 2 * 8 * 17 * 32 * 2 * 2


def test_a_cache_grows_one_half_at_a_time_and_parts_divide_it():
  def own(moment, **changes):
    moments = estimate.sampling_moments(setup(**changes))
    return next(m for m in moments if m.name == moment).parts['own cache']

  drawing, growing = 'drawing a token', 'growing the cache'
  # 17 columns at last, 11 before the last attempt.
  assert own(growing) == own(drawing) * (1 + 11 / 17 / 2)
  assert own(drawing) == 2 * own(drawing, **{'sampling.parts': 2})


def test_pieces_of_an_attempt_add_up_to_it():
  sizes = estimate.Sizes(setup(**{'sampling.grow': 4}))
  # Attempts of 6, and 4 + 1 columns between them.
  assert sizes.pieces == [(4, 4), (2, 6), (4, 15), (2, 17)]


def sampled(**changes):
  moments = estimate.sampling_moments(setup(**changes))
  return estimate.peak(moments).parts


def test_a_narrow_cache_has_a_scale_for_each_head_and_column():
  sizes = estimate.Sizes(setup(**{'sampling.cache': 'int8'}))
  # As above, with one byte for a number and a float32 for each 32 of them.
  assert sizes.cache(8, 17) == 2 * 8 * 17 * (32 + 4) * 2


@pytest.mark.parametrize('layout', ['gathered', 'tensor'])
@pytest.mark.parametrize('rank', [0, 2])
def test_a_copy_to_sample_from_is_counted_as_it_lies(layout, rank):
  changes = {'sampling.layout': layout, 'model.lora.rank': rank}
  made = setup(**changes)
  kept = programs.device_bytes(programs.sample_program(made).kept)
  assert sampled(**changes)['copied weights'] == kept
  (copying,) = estimate.prepare_moments(made)
  assert copying.parts['copied weights'] == kept
  state, reference, _ = programs.update_program(made).arguments
  assert fitting.waiting(made) == programs.device_bytes((state, reference))
  assert estimate.prepare_moments(setup()) == []


def test_copied_weights_are_split_as_their_layout_says():
  for layout, ways in (('gathered', 2), ('tensor', 8)):
    made = setup(**{'sampling.layout': layout})
    kept = programs.sample_program(made).kept
    tables = [kept['embedding'], *jax.tree.leaves(kept['layers'])]
    # Of kernels [L, in, out] and the table; norms are [L, D].
    matrices = sum(math.prod(x.shape) for x in tables if x.shape[-1] > 1)
    norms = sum(math.prod(x.shape) for x in tables if x.shape == (2, 128))
    one = 4 * (matrices - norms) / ways + 4 * (norms + 128)
    assert programs.device_bytes(kept) == one


def test_int8_weights_are_a_quarter_of_float32_ones():
  wide, narrow = (
    sampled(**{'sampling.layout': 'gathered', 'sampling.weights': weights})
    for weights in ('same', 'int8')
  )
  share = narrow['copied weights'] / wide['copied weights']
  assert 0.25 < share < 0.28


def test_only_weights_that_lie_as_they_are_trained_are_gathered_per_token():
  cost = {
    layout: estimate.step_cost(setup(**{'sampling.layout': layout}))
    for layout in ('train', 'gathered', 'tensor')
  }
  moved = {k: v['sample attempts'].network for k, v in cost.items()}
  # Over fsdp nothing moves; over tensor=2 sums do, in all layouts.
  sums = 12 * 2 * 8 * MODEL.layers * MODEL.width * 4
  assert moved['gathered'] == sums
  assert sums < moved['tensor'] < moved['train']
  assert 'copy weights' not in cost['train']
  copy = cost['gathered']['copy weights'].network
  made = setup(**{'sampling.layout': 'gathered'})
  kept = programs.device_bytes(programs.sample_program(made).kept)
  assert copy == kept * 3 / 4


def test_less_is_kept_the_more_is_computed_anew():
  def kept(**changes):
    moments = estimate.update_moments(setup(**changes))
    return moments[0].parts['saved activations']

  block, products, none = (
    kept(**{'model.remat': r}) for r in ('block', 'products', 'none')
  )
  # A block keeps its input: 2 layers, 128 float32; 2 prompts of 4 columns, and
  # 8 rows of the 17 behind them.
  assert block == 2 * (2 * 4 + 8 * 17) * 128 * 4
  assert block < products < none
  narrow = {'model.dtype': 'bfloat16', 'model.remat': 'block'}
  assert kept(**narrow) == block
  assert kept(**narrow, **{'model.residual_dtype': 'bfloat16'}) == block / 2
  assert kept(**{'train.accumulation': 2, 'model.remat': 'block'}) == block / 2


def test_an_adapter_has_no_gradient_of_the_table():
  parts = {
    name
    for m in estimate.update_moments(setup(**{'model.lora.rank': 2}))
    for name in m.parts
  }
  assert 'gradient of the table' not in parts
  assert 'saved activations' in parts


def test_rows_that_go_on_alone_have_caches_of_their_own():
  """tests/test_tpu.py holds the formula to what XLA for TPUs said."""
  made = setup(**{'sampling.compact': (0.5, 0.3)})
  sizes = estimate.Sizes(made)
  assert sizes.decoded == [8, 4, 2]  # 32 rows on 4 parts.
  found = {m.name: m.parts for m in estimate.sampling_moments(made)}
  row = sizes.cache(1, sizes.slots)
  assert found['going on with 2 rows']['own cache'] == 8 * row
  alone = (4 + 2) * row + sizes.cache(2, 4)
  assert found['going on with 2 rows']['caches of fewer rows'] == alone
  assert found['putting 2 rows back']['caches of fewer rows'] == 6 * row
  assert found['putting 2 rows back']['the same, replaced'] == 2 * row
  assert found['putting 4 rows back']['caches of fewer rows'] == 4 * row
  assert found['putting 4 rows back']['the same, replaced'] == 4 * row
  names = {m.name for m in estimate.sampling_moments(setup())}
  assert names.isdisjoint(name for name in found if ' rows' in name)


def test_rows_decoded_some_at_a_time_have_caches_beside_all_rows():
  """tests/test_tpu.py holds the formula to what XLA for TPUs said."""
  made = setup(**{'sampling.refill': 2, 'sampling.compact': (0.5,)})
  sizes = estimate.Sizes(made)
  assert sizes.decoded == [2, 1]
  # 8 rows of each of 4 devices, all of them long: four waves of two.
  assert sizes.steps == {(6, 2, 2): 4 * 6, (17, 2, 2): 4 * 6}
  found = {m.name: m.parts for m in estimate.sampling_moments(made)}
  one = found['attempt 1, 2 rows at a time']
  assert one['own cache'] == 0
  assert one['the same, of ended rows'] == sizes.cache(8, 6)
  few = sizes.cache(2 + 1, 6) + sizes.cache(2, 4)  # And two prompts.
  assert one['caches of fewer rows'] == few
  assert found['going on from attempt 1']['the same, growing'] == (
    sizes.cache(8, 6 + 5) / 2
  )
  two = found['attempt 2, 2 rows at a time']
  assert two['own cache'] == sizes.cache(8, 11)
  assert two['the same, of ended rows'] == 0
  assert 'growing the cache' not in found


def test_waves_of_rows_read_the_weights_once_each():
  def attempts(**changes):
    costs = estimate.sampling_cost(setup(**changes))
    return costs['attempts']

  whole, waves = attempts(), attempts(**{'sampling.refill': 2})
  assert waves.flops == pytest.approx(whole.flops)
  layers = estimate.Sizes(setup()).layer * MODEL.layers * 4
  more = waves.memory - whole.memory
  assert more > 3 * 12 * layers  # Of 12 tokens; four waves for one.


@pytest.mark.parametrize(
  ('refill', 'compact', 'waves'),
  [
    (0, (0.5,), [8]),
    (3, (1.0,), [3, 3, 3]),
    (3, (0.7,), [3, 3, 2]),
    (7, (0.5, 0.2), [7, 1]),
    (9, (1.0,), [8]),
  ],
)
def test_the_last_wave_reads_as_few_rows_as_hold_the_rest(
  refill, compact, waves
):
  changes = {'sampling.refill': refill, 'sampling.compact': compact}
  # Where all are read at once, so are the prompts: one for four rows.
  prompts = {8: 2} if waves == [8] else {n: n for n in waves}
  expected = {
    (own, rows, prompts[rows]): 6 * waves.count(rows)
    for own in (6, 17)
    for rows in waves
  }
  assert estimate.Sizes(setup(**changes)).steps == expected


def test_second_attempts_that_share_a_first_one_are_rows_behind_it():
  changes = {'sampling.first_attempts': 2, 'sampling.second_attempts': 2}
  sizes = estimate.Sizes(setup(**changes))
  assert sizes.attempting == [4, 8]
  assert sizes.steps == {(6, 4, 2): 6, (17, 8, 2): 6}
  some = {'sampling.refill': 3, 'sampling.compact': (0.5,)}
  refilled = estimate.Sizes(setup(**changes, **some))
  assert refilled.steps == {
    (6, 3, 3): 6,
    (6, 2, 2): 6,
    (17, 3, 3): 12,
    (17, 2, 2): 6,
  }
  apart = estimate.sampling_cost(setup())
  shared = estimate.sampling_cost(setup(**changes))
  for part in ('prompts', 'attempts'):
    assert shared[part].flops < apart[part].flops


@pytest.mark.parametrize(('rows', 'each'), [(24, [6, 6]), (8, [2, 2])])
def test_first_attempts_that_do_not_divide_are_whole_on_every_device(
  rows, each
):
  """Of four: 6 and 2 rows of first attempts, each with four second ones."""
  sizes = estimate.Sizes(
    setup(
      **{
        'train.trajectories': rows,
        'sampling.first_attempts': 1,
        'sampling.second_attempts': 4,
      }
    )
  )
  first, second = sizes.attempting
  assert (first, second) == tuple(each)
  assert [rows for _, rows, _ in sizes.steps] == [first, second]


def test_rows_that_are_whole_on_every_device_end_together():
  """30 rows on 4 parts are not split: all devices have the same."""
  made = setup(**{'train.trajectories': 28, 'sampling.max_tokens': (64, 64)})
  assert estimate.Sizes(made).sampled == 7
  made = setup(**{'train.trajectories': 30, 'sampling.max_tokens': (64, 64)})
  sizes = estimate.Sizes(dataclasses.replace(made, attempt=8.0))
  assert sizes.sampled == 30
  # The longest of 30 rows, not of 120.
  steps = sum(sizes.steps.values())
  every = np.mean(
    [
      lengths.drawn(8.0, 64, (1, 30), (draw, turn)).max()
      for draw in range(8)
      for turn in (0, 1)
    ]
  )
  assert steps == pytest.approx(2 * every)


def test_a_block_of_logits_is_no_wider_than_what_is_read():
  changes = {
    'sampling.max_tokens': (64, 64),
    'model.logits_chunk': 10_000,
    'train.accumulation': 4,
    'train.widths': (0.25, 1.0),
  }
  early = dataclasses.replace(setup(**changes), attempt=1.0)
  sizes = estimate.Sizes(early)
  assert sizes.widths == {34: 4}
  assert sizes.block == 128  # As the longest attempts have it.
  rows, columns = sizes.learned, 34
  layers = estimate.layers_cost(
    sizes, rows * columns, 4 + columns, sizes.kernels
  ) + estimate.layers_cost(sizes, sizes.prompts * 4, 4, sizes.kernels)
  head = estimate.head_cost(sizes, rows * columns, sizes.kernels)
  found = estimate.update_cost(early)['reference'].flops
  assert found == pytest.approx(4 * (layers.flops + head.flops))


def attempts_of(mean, **changes):
  """Returns what drawing attempts of a mean length costs."""
  made = dataclasses.replace(setup(**changes), attempt=mean)
  return estimate.sampling_cost(made)['attempts']


def test_attempts_that_end_early_cost_what_the_rows_cost_that_are_read():
  long = {'sampling.max_tokens': (64, 64)}
  whole, early = attempts_of(0, **long), attempts_of(8, **long)
  # All rows are read until the last has ended, which is late.
  assert 0.5 * whole.flops < early.flops < 0.95 * whole.flops
  fewer = attempts_of(8, **long, **{'sampling.compact': (0.5, 0.25, 0.12)})
  assert fewer.flops < 0.55 * early.flops
  places = {'sampling.refill': 2, 'sampling.compact': (0.5,)}
  refilled = attempts_of(8, **long, **places)
  assert refilled.flops < 0.55 * early.flops
  # An eighth of the tokens are there, and no way costs less than they do.
  least = (
    whole.flops * 8 / 64 * 0.85
  )  # But for the columns that they attend to.
  assert least < min(fewer.flops, refilled.flops)
  # All at their longest, leaving out gains nothing and refilling costs reads.
  same = attempts_of(64, **long, **{'sampling.compact': (0.5, 0.25, 0.12)})
  assert same == whole
  assert attempts_of(64, **long, **places).memory > whole.memory


def test_updates_of_rows_that_ended_early_are_as_wide_as_the_parts_longest():
  changes = {
    'sampling.max_tokens': (64, 64),
    'train.accumulation': 4,
    'train.widths': (0.25, 0.5, 0.75, 1.0),
  }
  made = setup(**changes)
  assert estimate.Sizes(made).widths == {133: 4}  # 64 + 5 + 64 of a row.
  early = dataclasses.replace(made, attempt=8.0)
  found = estimate.Sizes(early).widths
  assert set(found) <= {34, 67, 100, 133}
  assert sum(found.values()) == pytest.approx(4)
  assert found.get(133, 0) < 1
  work, less = (estimate.update_cost(x) for x in (made, early))
  for phase in ('reference', 'policy, forward', 'policy, backward'):
    assert less[phase].flops < 0.75 * work[phase].flops
  assert less['optimizer'] == work['optimizer']
  one = dataclasses.replace(
    setup(**changes | {'train.widths': (1.0,)}), attempt=8
  )
  assert estimate.update_cost(one) == work


def test_what_is_tried_in_place_of_settings_keeps_the_attempts_length():
  made = dataclasses.replace(setup(), attempt=3.0)
  assert fitting.with_settings(made, {'sampling.parts': 2}).attempt == 3.0


def test_rows_that_do_not_lie_beside_their_prompts_are_decoded_all_at_once():
  # 2 problems on 4 parts.
  changes = {'train.trajectories': 8, 'sampling.refill': 1}
  assert estimate.Sizes(setup(**changes)).decoded == [2]


def test_kernels_are_counted_in_each_form_that_steps_read():
  mesh = sharding.make_mesh((1, 1, 1), jax.devices()[:1])

  def kernels(some=0, **changes):
    config = settings(**{'model.unroll': True, **changes})
    made = programs.setup(config, MODEL, mesh, instruction=4)
    few = dataclasses.replace(made.model.execution, few=16, some=some)
    made = dataclasses.replace(made, model=made.model.clone(execution=few))
    moments = estimate.sampling_moments(made)
    return {m.parts['kernels for few rows'] for m in moments}

  once = 2 * 128 * (2 * 4 * 32 + 2 * 2 * 32 + 3 * 256) * 4
  assert kernels() == {0}  # 32 rows.
  assert kernels(**{'train.trajectories': 16}) == {once}
  assert kernels(**{'sampling.compact': (0.5,)}) == {once}
  assert kernels(some=32) == {once}
  assert kernels(some=32, **{'sampling.compact': (0.5,)}) == {2 * once}
  scanned = {'train.trajectories': 16, 'model.unroll': False}
  assert kernels(**scanned) == {0}


def test_with_a_kernel_no_scores_are_counted():
  plain, kernel = (
    long_rows(kind, programs.abstract_mesh((1, 4, 1)))
    for kind in ('plain', 'splash')
  )
  scores = 3 * estimate.Sizes(plain).scores(64, 773, 1029)
  moment = estimate.peak(estimate.update_moments(plain))
  assert moment.parts['attention'] == scores
  # Rows of two key heads beside four queries' heads, in bfloat16: 773 columns
  # are two blocks, and with 256 of a prompt before these, three.
  expected = 64 * 4 * (4 * 1024 + 2 * 1536) * 128 * 2
  moment = estimate.peak(estimate.update_moments(kernel))
  assert moment.parts['attention'] == expected
  work = {
    name: sum(cost.memory for cost in estimate.update_cost(made).values())
    for name, made in (('plain', plain), ('kernel', kernel))
  }
  assert work['kernel'] < work['plain'] / 2
