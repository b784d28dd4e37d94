"""Planned attempts have the lengths that are asked for."""

import numpy as np
import pytest

from score_jax import lengths

LONGEST = 768


@pytest.mark.parametrize('mean', [1, 1.5, 20, 300, 760])
def test_lengths_have_the_mean_that_is_asked_for(mean):
  chance = lengths.goes_on(mean, LONGEST)
  assert sum(chance**k for k in range(LONGEST)) == pytest.approx(mean)
  found = lengths.drawn(mean, LONGEST, (400, 500), (3, 0))
  assert found.min() >= 1
  assert found.max() <= LONGEST
  error = found.std() / np.sqrt(found.size)
  assert found.mean() == pytest.approx(mean, abs=4 * error + 1e-9)


@pytest.mark.parametrize('mean', [0, LONGEST, 900])
def test_without_a_mean_or_above_the_longest_all_are_as_long_as_may_be(mean):
  assert (lengths.drawn(mean, LONGEST, (3, 5), (0, 0)) == LONGEST).all()


def test_turns_are_drawn_apart_and_a_plan_twice_alike():
  one, two = (lengths.drawn(20, LONGEST, (50,), (0, turn)) for turn in (0, 1))
  assert (one != two).any()
  again = lengths.drawn(20, LONGEST, (50,), (0, 0))
  np.testing.assert_array_equal(one, again)


def test_siblings_share_the_length_of_a_first_attempt_that_they_share():
  """So a group is as wide as its longest second attempt behind it."""
  apart, shared = (
    lengths.widths_read(8, (64, 64), 0, (32, 16, 2, each), (20, 40, 128))
    for each in (1, 2)
  )
  assert sum(apart.values()) == sum(shared.values()) == 16
  assert shared[20] > apart[20]
