"""What settings leave open follows from a device's memory, and fits it."""

import itertools

import pytest
from planned import setup

from score_jax import estimate, fitting
from score_jax.config import AUTO, REMAT

OPEN = {
  'sampling.parts': 0,
  'train.accumulation': 0,
  'model.remat': AUTO,
  'model.unroll': False,
}
PARTS = (1, 2, 4, 8)  # Of 32 rows in groups of 4.


def test_weights_are_gathered_where_there_is_room_and_split_where_not():
  made = setup(**{'sampling.layout': 'auto'})
  needed = fitting.peak(setup(**{'sampling.layout': 'gathered'}), True)
  assert fitting.layout(made, None) == 'gathered'
  assert fitting.layout(made, 1.01 * needed / fitting.ROOM) == 'gathered'
  assert fitting.layout(made, 0.99 * needed / fitting.ROOM) == 'tensor'
  assert fitting.decided(made, None).decoding.layout == 'gathered'
  # Nothing to gather, nothing to copy.
  whole = setup((1, 1, 8), **{'sampling.layout': 'auto'})
  assert fitting.layout(whole, None) == 'train'
  assert fitting.layout(setup(), None) == 'train'


def needed(parts, remat):
  """Returns the bytes of the update's busiest moment."""
  made = setup((1, 1, 1), **{'train.accumulation': parts, 'model.remat': remat})
  return estimate.peak(estimate.update_moments(made)).total


def chosen(made, memory):
  config = fitting.decided(made, memory).config
  return config.train.accumulation, config.model.remat


def test_where_nothing_is_known_of_the_memory_all_is_taken_to_fit():
  found = fitting.decided(setup(**OPEN), None)
  assert chosen(setup(**OPEN), None) == (1, 'none')
  assert found.config.sampling.parts == 1
  assert found.model.execution.remat == 'none'


def test_what_is_given_stays_whatever_the_memory():
  given = {'train.accumulation': 2, 'model.remat': 'block', 'sampling.parts': 4}
  found = fitting.decided(setup(**given), 1.0)
  assert (found.config.sampling.parts, *chosen(setup(**given), 1.0)) == (
    4,
    2,
    'block',
  )
  assert found.config.to_json() == setup(**given).config.to_json()


def test_the_update_that_is_chosen_fits_and_no_faster_one_does():
  made = setup((1, 1, 1), **OPEN, **{'sampling.layout': 'train'})
  ways = list(itertools.product(PARTS, REMAT))
  peaks = {way: needed(*way) for way in ways}
  found = set()
  for room in sorted(peaks.values()):
    memory = 1.001 * room / fitting.ROOM
    parts, remat = chosen(made, memory)
    assert peaks[parts, remat] <= fitting.ROOM * memory
    for other in ways:
      if peaks[other] <= fitting.ROOM * memory:
        changes = {'train.accumulation': other[0], 'model.remat': other[1]}
        fast = fitting.with_settings(made, changes | {'sampling.parts': 1})
        own = {'train.accumulation': parts, 'model.remat': remat}
        mine = fitting.with_settings(made, own | {'sampling.parts': 1})
        assert seconds(mine) <= seconds(fast)
    found.add((parts, remat))
  # More room, and the choice moves from the smallest to the fastest.
  assert len(found) > 2
  assert (1, 'none') in found


def seconds(made):
  costs = estimate.update_cost(made).values()
  return sum(
    max(c.seconds(fitting.CHIP, estimate.Efficiency()).values()) for c in costs
  )


def test_where_no_update_fits_the_smallest_is_taken():
  made = setup((1, 1, 1), **OPEN)
  smallest = min(itertools.product(PARTS, REMAT), key=lambda way: needed(*way))
  assert chosen(made, 1.0) == smallest


def test_a_remat_that_is_given_is_cut_into_parts_until_it_fits():
  made = setup((1, 1, 1), **{**OPEN, 'model.remat': 'none'})
  memory = 1.001 * needed(4, 'none') / fitting.ROOM
  assert needed(2, 'none') > fitting.ROOM * memory
  assert chosen(made, memory) == (4, 'none')


@pytest.mark.parametrize('parts', PARTS)
def test_a_batch_is_sampled_in_as_few_parts_as_fit(parts):
  made = setup((1, 1, 1), **{**OPEN, 'train.accumulation': 8})
  change = {'sampling.parts': parts, 'model.remat': 'none'}
  alone = fitting.with_settings(made, change)
  memory = 1.001 * fitting.peak(alone, sampler_alone=True) / fitting.ROOM
  assert fitting.decided(made, memory).config.sampling.parts == parts
