"""What crosses is what was sent, and bytes of an enemy make nothing else."""

import collections
import datetime
import decimal
import fractions
import random
import uuid

import numpy as np
import pytest

from score_jax.graders import wire

CODEC = wire.Codec()
Pair = collections.namedtuple('Pair', 'a b')
VALUES = [
  None, True, False, ..., NotImplemented, 0, -1, 2**63 - 1, -(2**63), 2**63,
  10**50, 0.5, float('inf'), 1j, '', '\ud800é', b'\0', bytearray(b'x'),
  (), (1, (2,)), [], [1] * 20, [2**64] * 20, [0.5] * 20, [True] * 20,
  [1, 0.1, None, True, 'x', 2**70, float('inf')] * 50, ['\ud83d\ude00', 1] * 200,
  [10**3000, 1] * 200, [(1, 2), (), (3,)] * 100, [('a', 1.5)] * 300, ['é', '', '\ud800'] * 99,
  ['\0', 'b'] * 300, [('x', 'y'), ('x',)] * 300,
  [((1,), 2)] * 300,
  {1: {2: [3]}}, {1, 2}, frozenset([(1, 2)]), int, ValueError, type(None),
  collections.Counter('aab'), collections.OrderedDict(b=1, a=2),
  collections.defaultdict(list, {1: [2]}), collections.deque([1, 2], 3),
  decimal.Decimal('1.50'), fractions.Fraction(1, 3), range(1, 9, 2),
  slice(1, None), {1: 2}.keys(), {1: 2}.items(), uuid.UUID(int=5),
  datetime.date(2020, 2, 29), datetime.timedelta(1, 2, 3),
  datetime.datetime(2020, 1, 2, 3, tzinfo=datetime.UTC),
]  # fmt: skip


def crossed(value):
  return CODEC.loads(CODEC.dumps(value)[0])[0]


@pytest.mark.parametrize('value', VALUES, ids=repr)
def test_a_value_crosses_as_itself(value):
  got = crossed(value)
  assert type(got) is type(value)
  assert got == value
  assert repr(got) == repr(value)


def test_what_is_one_object_stays_one():
  row = [0]
  grid = [row, row]
  grid.append(grid)
  got = crossed(grid)
  got[0][0] = 1
  assert got[1] == [1]
  assert got[2] is got


def test_a_subclass_crosses_as_what_it_holds():
  class Liar(int):
    def __eq__(self, other):
      return True

    __hash__ = int.__hash__

  class Box(list):
    def __eq__(self, other):
      return True

    __hash__ = None

  assert [type(x) for x in crossed([Liar(3), Box([4])])] == [int, list]
  assert crossed(Liar(3)) == 3 != 4
  assert crossed(Box([4])) != [5]


def test_arrays_and_their_numbers_cross():
  array = np.arange(6, dtype=np.int32).reshape(2, 3)
  got = crossed(array)
  assert got.dtype == array.dtype
  np.testing.assert_array_equal(got, array)
  number = crossed(np.float32(0.5))
  assert (type(number), number) == (float, 0.5)


def test_a_named_tuple_keeps_its_names():
  got = crossed(Pair(1, 2))
  assert got == (1, 2)
  assert (got.a, got.b) == (1, 2)


def test_an_object_is_not_data():
  with pytest.raises(wire.WireError, match='not data'):
    CODEC.dumps(object())


def test_damaged_messages_are_refused_and_do_no_harm():
  """3,000 of them: each is refused, or is a value of the listed types."""
  rng = random.Random(0)
  short = [v for v in VALUES if len(CODEC.dumps(v)[0]) < 300]
  data, _ = CODEC.dumps(short)
  refused = 0
  for _ in range(3_000):
    bad = bytearray(data[: rng.randrange(1, len(data))])
    for _ in range(rng.randrange(1, 4)):
      bad[rng.randrange(len(bad))] = rng.randrange(256)
    try:
      CODEC.loads(bytes(bad))
    except wire.WireError:
      refused += 1
  assert refused > 2_500


def test_a_length_that_lies_reserves_no_memory():
  for tag in (b's', b'tv', b'tq', b'zv', b'm\0Nv'):
    with pytest.raises(wire.WireError):
      CODEC.loads(tag + b'\xff\xff\xff\xff' + b'N' * 8)
