"""What is planned is what would run: counted, compiled and put into words."""

import dataclasses
import json
import math
import re
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from absl import flags
from planned import MESH, MODEL, settings, setup
from runs import ROOT

from configs import presets
from launch import slices
from score_jax import (
  advice,
  checks,
  chips,
  estimate,
  fitting,
  plan,
  plan_page,
  planning,
  programs,
  sharding,
  tpu,
)
from score_jax import config as config_lib
from score_jax.chips import GIB
from score_jax.config import ConfigError
from score_jax.estimate import Cost, Efficiency
from score_jax.methods import catalogue
from score_jax.models import families, public, weights

# What the hub's pages of the checkpoints say of their safetensors.
PUBLISHED = {
  'gemma2_2b': 2_614_341_888,
  'gemma2_9b': 9_241_705_984,
  'gemma2_27b': 27_227_128_320,
  'gemma3_1b': 999_885_952,
  'llama3_1b': 1_235_814_400,
  'llama3_3b': 3_212_749_824,
  'llama3_8b': 8_030_261_248,
  'llama3_70b': 70_553_706_496,
  'qwen25_0.5b': 494_032_768,
  'qwen25_1.5b': 1_543_714_304,
  'qwen25_3b': 3_085_938_688,
  'qwen25_7b': 7_615_616_512,
  'qwen25_14b': 14_770_033_664,
  'qwen25_32b': 32_763_876_352,
  'qwen25_72b': 72_706_203_648,
  'qwen3_0.6b': 596_049_920,
  'qwen3_8b': 8_190_735_360,
}


@pytest.mark.parametrize('name', PUBLISHED)
def test_a_public_model_has_the_parameters_that_its_page_says(name):
  base = programs.setup(
    settings(),
    families.model_config(public.get(name)),
    programs.abstract_mesh((1, 1, 1)),
    4,
  ).base
  count = sum(math.prod(x.shape) for x in jax.tree.leaves(base))
  assert count == PUBLISHED[name]


def test_every_public_model_is_covered_and_found_by_the_start_of_a_preset():
  for name, numbers in public.CONFIGS.items():
    families.model_config(numbers)
    assert public.of_preset(f'{name}_math') is numbers
    assert public.of_preset(name) is numbers
  assert public.of_preset('math') is None
  assert public.of_preset('gemma2_2bx') is None


def test_a_misspelt_model_is_refused_with_the_nearest():
  with pytest.raises(ConfigError, match=r'did you mean gemma2_2b\?'):
    public.get('gemma2_2bb')


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


@pytest.mark.parametrize(
  ('name', 'devices', 'gib'),
  [
    ('v5e:4x4', 16, 16),
    ('v5p:2x2x2', 8, 95),
    ('v5p:16x16x24', 6144, 95),
    ('v6e:2x4', 8, 32),
  ],
)
def test_a_slice_is_a_kind_of_chip_and_how_many(name, devices, gib):
  found = chips.parse(name)
  assert (found.devices, found.chip.memory) == (devices, gib * GIB)


@pytest.mark.parametrize('name', slices.SLICES)
def test_what_can_be_launched_can_be_planned(name):
  assert chips.parse(name).devices == slices.SLICES[name].chips


@pytest.mark.parametrize(
  ('name', 'words'),
  [
    ('v5f:4x4', 'did you mean v5'),
    ('v5e', 'v5e is rented as 1x1, 2x2, 2x4, .*, 16x16; got'),
    ('v5e:4x4x4', 'v5e is rented as 1x1'),
    ('v5e:16x32', 'v5e is rented as 1x1'),
    ('v5e:4x5', 'v5e is rented as 1x1'),
    ('v5e:0x4', 'v5e is rented as 1x1'),
    ('v5p:4x4', 'v5p is rented as 2x2x1, .* as 4x4x4 .* at most 6,144 chips'),
    ('v5p:4x4x6', 'v5p is rented as 2x2x1'),
    ('v5p:8x4x4', 'v5p is rented as 2x2x1'),
    ('v5p:16x16x32', 'v5p is rented as 2x2x1'),
    ('v5p:0x4x4', 'v5p is rented as 2x2x1'),
  ],
)
def test_a_slice_that_is_not_sold_is_refused(name, words):
  with pytest.raises(ConfigError, match=words):
    chips.parse(name)


PROGRAM = """
HloModule jit_update

%windowed_dot_general_body_ag.1 (p: f32[4]) -> f32[4] {
  %collective-permute.1 = bf16[4,8]{1,0:T(8,128)(2,1)} collective-permute(%p), channel_id=1, op_name="jit(_update)/while/body/jvp(T)/T._run_layers/while/body/dot"
  %collective-permute.2 = bf16[4,8]{1,0} collective-permute(%p), channel_id=2, op_name="jit(_update)/while/body/jvp(T)/T._run_layers/while/body/dot"
}

%started (p: f32[4]) -> f32[4] {
  %all-gather.5 = f32[16]{0} all-gather(%p), channel_id=3, op_name="jit(_update)/while/body/while/body/dot"
}

%all-reduce-scatter.3 (p: f32[16,8]) -> f32[4,8] {
  %all-reduce.9 = f32[16,8]{1,0} all-reduce(%p), channel_id=6
  ROOT %slice.1 = f32[4,8]{1,0} dynamic-slice(%all-reduce.9, %i)
}

%summed (p: f32[16,8]) -> f32[4,8] {
  ROOT %fusion.7 = f32[4,8]{1,0:T(8,128)} fusion(%p), kind=kCustom, calls=%all-reduce-scatter.3, metadata={op_name="jit(_update)/while/body/T._run_layers/while/body/dot"}
}

%done (p: f32[4]) -> f32[4] {
  %all-gather.6 = f32[16]{0} all-gather(%p), channel_id=3, op_name="jit(_update)/while/body/while/body/dot"
}

ENTRY %main (p: f32[4]) -> f32[4] {
  %all-reduce.1 = (f32[10]{0}, bf16[10]{0}) all-reduce(%p, %q), channel_id=4, op_name="jit(_update)/sum"
  %all-gather-start.1 = (f32[4]{0}, f32[16]{0}) all-gather-start(%p), channel_id=5, op_name="jit(_update)/sum"
  ROOT %all-gather-done.1 = f32[16]{0} all-gather-done(%all-gather-start.1)
}
"""


def test_collectives_are_counted_by_the_loops_they_stand_in():
  loops = tpu.Loops(layers=3, others=(5, 7), ring=9)
  found = {c.kind: c for c in tpu.collectives(PROGRAM, loops)}
  assert {*found} == {
    'all-gather',
    'all-reduce',
    'reduce-scatter',
    'collective-permute',
  }
  gather, reduce = found['all-gather'], found['all-reduce']
  # Once in 5 x 7 blocks, though in two pieces, and once outside.
  assert (gather.count, gather.runs) == (2, 36)
  assert gather.total == 36 * 64
  assert (reduce.count, reduce.runs, reduce.total) == (1, 1, 60)
  # A sum of which each device keeps a quarter, in 5 parts of 3 layers.
  scatter = found['reduce-scatter']
  assert (scatter.count, scatter.runs) == (1, 15)
  assert scatter.total == 15 * 4 * 8 * 4
  # Two that share 8 hops around the ring, in 5 parts of 3 layers.
  permute = found['collective-permute']
  assert (permute.count, permute.runs) == (2, 15 * 8)
  assert permute.total == 15 * 8 * 64


def test_of_the_ways_to_read_a_part_the_widest_is_counted():
  line = (
    '  %all-gather.{0} = f32[{1}]{{0}} all-gather(%p), channel_id={0}, '
    'op_name="jit(_update)/while/body/{2}dot"'
  )
  ways = [(1, 8, 'branch_0_fun/'), (2, 16, 'branch_1_fun/'), (3, 4, '')]
  text = '\n'.join(line.format(*way) for way in ways)
  loops = tpu.Loops(layers=3, others=(5,), ring=1)
  (gather,) = tpu.collectives(text, loops)
  assert (gather.count, gather.runs, gather.total) == (2, 10, 5 * (16 + 4) * 4)


def words(**changes):
  return '\n'.join(advice.warnings(setup(**changes), 1.0, None))


PAPER = {'task.name': 'math', 'train.trajectories': 512}
LENGTHS = {'sampling.max_tokens': (512, 512)}
STEPS = {'train.stage1_steps': 1500, 'train.stage2_steps': 1500}


def test_the_papers_own_settings_warn_of_nothing():
  quiet = {'model.logits_chunk': 100_000, 'sampling.max_prompt_tokens': 512}
  quiet['sampling.layout'] = 'gathered'
  assert words(**PAPER, **LENGTHS, **STEPS, **quiet) == ''


@pytest.mark.parametrize(
  ('changes', 'expected'),
  [
    ({'method.beta2': 0.2}, r'method.beta2=0.2; the paper has 0.1'),
    ({'method.gamma': 0.5}, r'method.gamma=0.5; the paper has 0.0'),
    ({'train.stage1_steps': 10}, r'the paper has 3,000 in all'),
    ({'sampling.max_tokens': (8, 8)}, r'many answers will be cut off'),
    ({'sampling.max_tokens': (512, 300)}, r'last attempt has the least room'),
    ({'sampling.first_attempts': 2}, r'baseline of 1 sibling'),
    ({'model.logits_chunk': 512}, r'gathered anew for each of'),
    ({'sampling.layout': 'train'}, r'over mesh.fsdp=4; set it to gathered'),
  ],
)
def test_what_is_unlike_the_paper_or_costly_is_named(changes, expected):
  plain = {**PAPER, **LENGTHS, **STEPS, 'model.logits_chunk': 100_000}
  plain['sampling.layout'] = 'gathered'
  assert expected in words(**{**plain, **changes})


def test_blocks_of_logits_are_made_larger_only_where_that_fits():
  many = PAPER | LENGTHS | {'model.logits_chunk': 512}
  few = setup(**many)

  def told(memory):
    return [
      x for x in advice.warnings(few, 1.0, memory) if 'gathered anew' in x
    ]

  (said,) = told(None)
  chunk = int(re.search(r'set it to ([\d,]+)', said)[1].replace(',', ''))
  larger = fitting.with_settings(few, {'model.logits_chunk': chunk})
  needed = fitting.peak(larger) / fitting.ROOM
  assert told(needed * 1.001) == [said]
  assert said not in told(needed * 0.999)
  assert told(fitting.peak(few)) == []


def test_rows_that_go_on_alone_have_caches_of_their_own():
  """Compiled: tests hold the formula to what XLA for TPUs said, below."""
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
  """Compiled: tests hold the formula to what XLA for TPUs said, below."""
  made = setup(**{'sampling.refill': 2, 'sampling.compact': (0.5,)})
  sizes = estimate.Sizes(made)
  assert sizes.decoded == [2, 1]
  assert sizes.waves == [2] * 4  # 8 rows of each of 4 devices.
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
  assert estimate.Sizes(setup(**changes)).waves == waves


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


def test_small_times_have_figures():
  assert plan_page._figure(0.0123) == '0.012'
  assert plan_page._figure(49.24) == '49.2'
  assert plan_page._figure(1234.5, 0) == '1,234'
  assert plan_page._figure(0) == '0.0'


def test_heads_that_the_mesh_does_not_divide_are_named():
  found = advice.warnings(setup((1, 2, 4)), 1.0, None)
  assert any('does not divide kv_heads=2' in text for text in found)


def test_a_device_that_is_too_small_is_named():
  assert any('95%' in x for x in advice.warnings(setup(), 95.0, 100.0))
  assert not any(
    'of a device' in x for x in advice.warnings(setup(), 50.0, 100.0)
  )


def test_proposals_fit_are_allowed_and_come_fastest_first():
  wanted = chips.parse('v5e:2x4')
  whole = fitting.peak(setup((1, 8, 1)))
  # So little memory that what is asked for does not fit.
  chip = dataclasses.replace(wanted.chip, memory=0.9 * whole)
  target = dataclasses.replace(wanted, chip=chip)
  found = advice.proposals(setup((1, 8, 1)), target, Efficiency(), 8)
  assert found
  assert [p.seconds for p in found] == sorted(p.seconds for p in found)
  for p in found:
    assert p.peak <= fitting.ROOM * chip.memory
    changed = settings(
      **{
        'mesh.data': p.mesh[0],
        'mesh.fsdp': p.mesh[1],
        'mesh.tensor': p.mesh[2],
        'model.remat': p.remat,
        'train.accumulation': p.accumulation,
        'sampling.layout': p.layout,
        'sampling.parts': p.parts,
      }
    )
    checks.check(changed, 8)
  tiny_chip = dataclasses.replace(wanted.chip, memory=1.0)
  none = dataclasses.replace(wanted, chip=tiny_chip)
  assert advice.proposals(setup(), none, Efficiency(), 8) == []


def a_plan(**changes):
  config = settings(**changes)
  return planning.make(
    config, 'gemma2_2b', 'v5e:4x4', False, 64, Efficiency(), grading=2.0
  )


@pytest.mark.parametrize(
  ('job', 'steps', 'tested'),
  [('score', 5, 3), ('stage1', 2, 2)],
)
def test_the_updates_and_evaluations_are_those_of_the_job(job, steps, tested):
  given = {'train.stage1_steps': 2, 'train.stage2_steps': 3, 'eval.every': 0}
  config = settings(**given, **{'eval.problems': 100})
  config.job = job
  made = planning.make(config, 'gemma2_2b', 'v5e:4x4', False, 64, Efficiency())
  assert made.steps == steps
  each = estimate.evaluation_seconds(made.setup, made.target.chip, Efficiency())
  assert made.times.evaluations == pytest.approx(100 * tested * each)


@pytest.mark.parametrize('job', ['pretrain', 'evaluate'])
def test_a_job_that_trains_nothing_by_sampling_is_not_planned(job):
  config = settings()
  config.job = job
  with pytest.raises(ConfigError, match=f'job={job} is not planned'):
    planning.make(config, 'gemma2_2b', '', False, 64, Efficiency())


def test_a_method_is_planned_as_it_runs_beside_the_others():
  config = settings(
    **{
      'train.trajectories': 512,
      'method.name': 'score_remax',
      'mesh.fsdp': 16,
    }
  )
  made = planning.make(config, 'gemma2_2b', 'v5e:4x4', False, 64, Efficiency())
  wanted = catalogue.on_equal_terms(config).train.trajectories
  assert made.setup.config.train.trajectories == wanted < 512


def test_a_page_fits_a_terminal_and_its_record_is_json():
  made = a_plan(**{'model.dtype': 'bfloat16'})
  page = plan_page.page(made, Efficiency())
  assert max(map(len, page.splitlines())) <= plan_page.WIDTH
  for heading in ('Parameters', 'Memory', 'Work', 'Time', 'Warnings'):
    assert heading in page
  assert '2,614,341,888' in page
  record = json.loads(json.dumps(plan_page.record(made)))
  assert record['parameters'] == PUBLISHED['gemma2_2b']
  assert record['seconds']['bound'] < record['seconds']['step']


def test_without_a_slice_bytes_are_counted_and_no_seconds_are_told():
  made = planning.make(
    settings(**{'mesh.fsdp': 1}), 'qwen25_0.5b', '', True, 64, Efficiency()
  )
  assert made.times is None
  page = plan_page.page(made, Efficiency())
  assert 'name a --slice for seconds' in page
  assert '494,032,768' in page


def test_the_model_is_the_flags_then_the_presets_then_the_bundled_one():
  config = settings()
  name, numbers = planning.architecture(config, 'gemma2_9b')
  assert (name, numbers.layers) == ('gemma2_9b', 42)
  with config.unlocked():
    config.preset = 'llama3_1b_math'
  assert planning.architecture(config, '')[1].width == 2048
  with config.unlocked():
    config.preset = 'arithmetic'
  bundled = families.model_config(weights.read_config(config_lib.BUNDLED))
  assert planning.architecture(config, '') == ('the bundled model', bundled)


def test_flags_have_the_defaults_of_what_they_set():
  assert {k: v.default for k, v in plan.SHARES.items()} == dataclasses.asdict(
    Efficiency()
  )
  assert flags.FLAGS['slice'].default == ''


@pytest.mark.parametrize(
  ('argument', 'words'),
  [
    ('--compute_efficiency=0', 'is a share, above 0 and at most 1; got 0.'),
    ('--network_efficiency=50', 'got 50.'),
    ('--out=/no/such/plan.json', '/no/such is no folder'),
  ],
)
def test_a_flag_that_no_plan_can_use_is_refused_in_a_line(argument, words):
  ended = subprocess.run(
    [sys.executable, '-m', 'score_jax.plan', argument],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert (ended.returncode, ended.stdout) == (2, '')
  assert words in ended.stderr
  assert ended.stderr.count('\n') == 1


def test_without_the_compiler_the_remedy_is_named(monkeypatch):
  monkeypatch.setattr(tpu, 'is_installed', lambda: False)
  with pytest.raises(ConfigError, match=r'pip install "libtpu.*--nocompile'):
    tpu.devices('v5e:2x2')


# What XLA for TPUs said of peak memory, GiB of a device (docs/plan.md): the
# sampler and the update of the preset `math`, bfloat16 beside float32 policies.
# Of docs/plan.md: GiB that the compiler says; weights are copied by a program
# of their own where the layout is not that of training.
COMPILED = [
  ('gemma2_2b', 'v5e:4x4', (1, 16, 1), 'train', None, 8.58, 8.04),
  ('gemma2_2b', 'v5p:2x2x2', (1, 8, 1), 'gathered', 7.19, 20.17, 12.29),
  ('gemma2_9b', 'v5p:2x2x4', (1, 16, 1), 'train', None, 27.44, 19.14),
  ('gemma2_9b', 'v5e:8x8', (1, 16, 4), 'gathered', 5.52, 10.87, 6.19),
  ('qwen25_1.5b', 'v6e:2x4', (2, 4, 1), 'gathered', 4.75, 6.91, 18.31),
  ('gemma2_27b', 'v5p:4x4x4', (1, 32, 2), 'gathered', None, 33.54, 12.97),
]
# What is not in all rows alike.
OTHERS = {
  'qwen25_1.5b': {'train.accumulation': 32, 'model.remat': 'products'},
}


@pytest.mark.parametrize(
  ('model', 'slice_', 'mesh', 'layout', 'weights', 'sampler', 'update'),
  COMPILED,
)
def test_peaks_are_within_15_percent_of_the_compilers(
  model, slice_, mesh, layout, weights, sampler, update
):
  config = presets.make('score', 'math')
  with config.unlocked():
    config.update_from_flattened_dict(
      {
        'model.dtype': 'bfloat16',
        'model.reference_dtype': 'bfloat16',
        'sampling.layout': layout,
        'train.accumulation': 16,
        'model.remat': 'block',
        'sampling.parts': 1,
        **OTHERS.get(model, {}),
      }
    )
  made = programs.setup(
    config,
    families.model_config(public.get(model)),
    programs.abstract_mesh(mesh),
    instruction=64,
  )
  assert math.prod(mesh) == chips.parse(slice_).devices
  moments = [
    (estimate.sampling_moments(made), sampler),
    (estimate.update_moments(made), update),
  ]
  if weights is not None:
    moments.append((estimate.prepare_moments(made), weights))
  for found, compiled in moments:
    predicted = estimate.peak(found).total / GIB
    assert abs(predicted / compiled - 1) < 0.15


@pytest.mark.parametrize(
  ('shares', 'sampler'), [((0.5,), 11.54), ((0.5, 0.25, 0.12), 12.36)]
)
def test_peaks_are_within_15_percent_where_rows_go_on_alone(shares, sampler):
  predicted = sampler_peak(**{'sampling.compact': shares})
  assert abs(predicted / sampler - 1) < 0.15


def sampler_peak(**changes):
  """Returns what is predicted for Gemma 2 2B on v5e:4x4, GiB."""
  config = presets.make('score', 'math')
  with config.unlocked():
    config.update_from_flattened_dict(
      {
        'model.dtype': 'bfloat16',
        'sampling.layout': 'train',
        'sampling.parts': 1,
        'model.remat': 'block',
        **changes,
      }
    )
  made = programs.setup(
    config,
    families.model_config(public.get('gemma2_2b')),
    programs.abstract_mesh((1, 16, 1)),
    instruction=64,
  )
  return estimate.peak(estimate.sampling_moments(made)).total / GIB


@pytest.mark.parametrize(
  ('rows', 'layout', 'shares', 'sampler'),
  [
    (8, 'train', (1.0,), 8.91),
    (16, 'train', (1.0,), 10.0),
    (16, 'tensor', (0.5,), 8.74),
  ],
)
def test_peaks_are_within_15_percent_where_rows_take_places(
  rows, layout, shares, sampler
):
  predicted = sampler_peak(
    **{
      'sampling.layout': layout,
      'sampling.refill': rows,
      'sampling.grow': 0,
      'sampling.compact': shares,
    }
  )
  assert abs(predicted / sampler - 1) < 0.15


@pytest.mark.skipif(
  not tpu.is_installed(), reason='libtpu, the compiler for TPUs, is not there'
)
def test_sampler_and_update_compile_for_a_tpu_that_is_not_here():
  """And what they are called with takes the bytes that were counted."""
  found = tpu.devices('v5e:2x2')
  config = settings(**{'model.dtype': 'bfloat16', 'model.logits_chunk': 4096})
  model = dataclasses.replace(MODEL, heads=2, head_dim=128)
  real = programs.setup(config, model, tpu.mesh((1, 4, 1), found), 4)
  for make in (programs.sample_program, programs.update_program):
    program = make(real)
    compiled = tpu.compile_program(program, tpu.Loops(2, (1,), 4))
    counted = programs.device_bytes(program.arguments)
    # Arrays are laid out in tiles, and small ones are filled up.
    assert counted <= compiled.arguments <= 1.2 * counted + 64 * 1024
    assert compiled.peak > 0
    kinds = {c.kind for c in compiled.collectives}
    assert kinds & {'all-gather', 'collective-permute'}


@pytest.mark.skipif(
  not tpu.is_installed(), reason='libtpu, the compiler for TPUs, is not there'
)
def test_weights_that_are_gathered_once_are_gathered_by_no_token():
  """Compiled for a TPU that is not here: what moves, and what is held."""
  found = tpu.devices('v5e:2x2')
  config = settings(
    **{
      'model.dtype': 'bfloat16',
      'sampling.layout': 'gathered',
      'sampling.weights': 'int8',
      'limits.logp_gap': 0.1,
    }
  )
  model = dataclasses.replace(MODEL, heads=2, head_dim=128)
  real = programs.setup(config, model, tpu.mesh((1, 4, 1), found), 4)
  prepare, sample = (
    make(real) for make in (programs.prepare_program, programs.sample_program)
  )
  copied = tpu.compile_program(prepare, tpu.Loops(2, (2,), 4))
  decoded = tpu.compile_program(sample, tpu.Loops(2, (6,), 4))
  counted = programs.device_bytes(sample.arguments)
  assert counted <= decoded.arguments <= 1.2 * counted + 64 * 1024
  moved = {
    name: sum(c.total for c in made.collectives)
    for name, made in (('copied', copied), ('decoded', decoded))
  }
  size = programs.device_bytes(sample.kept)
  assert 0.9 * size < moved['copied'] < 1.2 * size
  assert moved['decoded'] < 0.01 * size


# Rows so long that attention scores are what the update holds most of, and so
# many that they do not fit beside the processor, which XLA would use for them.
LONG_ROWS = {
  'train.trajectories': 256,
  'model.dtype': 'bfloat16',
  'model.remat': 'block',
  'model.logits_chunk': 1024,
  'sampling.max_prompt_tokens': 256,
  'sampling.max_tokens': (384, 384),
}
WIDE = dataclasses.replace(MODEL, width=256, head_dim=128, mlp=512)


def long_rows(kind, mesh):
  """Returns what an update of long rows is made from, with a kind of attention."""
  config = settings(**LONG_ROWS, **{'model.attention': kind})
  return programs.setup(config, WIDE, mesh, instruction=4)


def predicted(made):
  return estimate.peak(estimate.update_moments(made)).total


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


def test_a_large_updates_peak_with_a_kernel_is_within_15_percent():
  """Of what the compiler said for Gemma 2 2B on v5e:4x4 (docs/models.md)."""
  config = presets.make('score', 'math')
  with config.unlocked():
    config.update_from_flattened_dict(
      {
        'model.dtype': 'bfloat16',
        'model.reference_dtype': 'bfloat16',
        'model.attention': 'splash',
        'model.remat': 'block',
        'train.accumulation': 2,
      }
    )
  made = programs.setup(
    config,
    families.model_config(public.get('gemma2_2b')),
    programs.abstract_mesh((1, 16, 1)),
    instruction=64,
  )
  assert abs(predicted(made) / GIB / 14.76 - 1) < 0.15


@pytest.mark.long
@pytest.mark.skipif(
  not tpu.is_installed(), reason='libtpu, the compiler for TPUs, is not there'
)
def test_an_update_of_long_rows_takes_less_memory_with_a_kernel():
  """Compiled for a TPU that is not here; the kernel's as predicted."""
  mesh = tpu.mesh((1, 4, 1), tpu.devices('v5e:2x2'))
  peaks = {}
  for kind in ('plain', 'splash'):
    made = long_rows(kind, mesh)
    compiled = tpu.compile_program(
      programs.update_program(made), tpu.Loops(2, (1,), 4)
    )
    peaks[kind] = compiled.peak
  assert abs(predicted(made) / peaks['splash'] - 1) < 0.15
  assert peaks['splash'] < 0.75 * peaks['plain']


@pytest.mark.parametrize('target', ['', 'v5e:2x4'])
def test_a_page_says_by_what_rows_attend(target):
  config = settings(
    **{
      'model.attention': 'splash',
      'mesh.fsdp': 8 if target else 1,
      'sampling.layout': config_lib.AUTO,
    }
  )
  made = planning.make(config, 'llama3_1b', target, False, 4, Efficiency())
  assert 'attention splash' in ' '.join(
    plan_page.page(made, Efficiency()).split()
  )


def test_a_model_with_capped_scores_is_not_planned_with_cudnn():
  config = settings(
    **{
      'model.attention': 'cudnn',
      'model.dtype': 'bfloat16',
      'mesh.fsdp': 1,
    }
  )
  with pytest.raises(ConfigError, match=r'cudnn has no cap.*attention=plain'):
    planning.make(config, 'gemma2_2b', '', False, 4, Efficiency())
