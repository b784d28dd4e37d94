"""TPUs are planned for in the shapes that are rented."""

import pytest

from launch import slices
from score_jax import (
  chips,
)
from score_jax.chips import GIB
from score_jax.config import ConfigError


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
