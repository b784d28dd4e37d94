"""Loops read the rows that they are to, and as often as a plan says."""

import jax
import numpy as np
import pytest
import tiny

from score_jax import batching, lengths, sharding
from score_jax.sampler import make_sampler

PROMPTS = [[3, 4, 5], [4], [6, 6, 3, 5], [5, 3], [3, 3, 6], [5]]
WIDTH = 4  # Columns of the prompts.
INSTRUCTION = [5, 6]
KEY = jax.random.key(7)


class Counting(tiny.Transformer):
  """A decoder that tells how often it is run, on how many rows and columns."""

  def __call__(self, *args):
    shape = args[0].shape
    jax.debug.callback(lambda: PASSES.append(shape))
    return super().__call__(*args)


PASSES = []


def passes_of(prompts=PROMPTS[:4], mesh=None, **how):
  """Returns what one sample of each prompt is, and its lengths."""
  model = Counting(tiny.PLAIN, tiny.Execution(unroll=False, mesh=mesh))
  sample = make_sampler(model, tiny.sampling(first_attempts=1, **how))
  params = tiny.params_of(model)
  PASSES.clear()
  found = jax.device_get(
    sample(
      params,
      tiny.prompts(prompts, WIDTH),
      (np.asarray(INSTRUCTION, np.int32),),
      KEY,
    )
  )
  jax.effects_barrier()
  return found, np.diff(found.span, axis=-1)[..., 0]


def test_the_loop_ends_as_soon_as_all_rows_have_ended():
  found, tokens = passes_of(max_tokens=(50, 40))
  assert not found.truncated.any()
  assert tokens.max() < 30
  assert len(set(tokens[:, 0])) > 1  # Some wait for others.
  # Whole prompt; tokens but the last; last and instruction; tokens again.
  one, two = tokens.max(axis=0)
  columns = [
    WIDTH,
    *[1] * (one - 1),
    2 + len(INSTRUCTION),
    *[1] * (two - 1),
  ]
  assert sorted(PASSES) == sorted((4, n) for n in columns)


@pytest.mark.parametrize('places', [1, 2, 3])
def test_a_row_that_waits_takes_the_place_of_one_that_has_ended(places):
  """As many steps as a queue of the rows' lengths gives, and no more."""
  _, tokens = passes_of(max_tokens=(9, 6), refill=places)
  steps = 0
  for turn in range(2):
    waiting = [n - 1 for n in tokens[:, turn] if n > 1]  # Behind the first.
    now = []
    while waiting or now:
      now += [waiting.pop(0) for _ in range(places - len(now)) if waiting]
      now = [n - 1 for n in now if n > 1]
      steps += 1
  assert PASSES.count((places, 1)) == steps
  assert len(PASSES) == steps + 2  # The prompts and the instruction.


@pytest.mark.parametrize('devices', [1, 2])
@pytest.mark.parametrize(
  'how',
  [
    {'compact': (0.7, 0.3)},
    {'refill': 2},
    {'refill': 4, 'compact': (0.5,)},
    {'grow': 5, 'compact': (0.5,)},
  ],
)
def test_a_plan_counts_the_steps_that_loops_take(how, devices):
  """Of the very lengths that were drawn: as many steps of as many rows."""
  mesh = sharding.make_mesh((1, devices, 1), jax.devices()[:devices])
  prompts, each = (PROMPTS * 2)[:10], 10 // devices
  _, tokens = passes_of(prompts, mesh, max_tokens=(9, 6), **how)
  sizes = batching.sizes(each, how.get('compact', ()), how.get('refill', 0))
  planned = []
  for turn in tokens.T:
    assert len(set(turn)) > 3
    # The first token is drawn from the pass before.
    left = turn.reshape(devices, each) - 1
    # Who ended there waits for no place.
    left = np.take_along_axis(left, np.argsort(left == 0, kind='stable'), 1)
    planned += lengths.steps_of(left, tuple(sizes))
  found = [rows // devices for rows, columns in PASSES if columns == 1]
  assert sorted(found) == sorted(planned)
