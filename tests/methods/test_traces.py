"""What each supervised method makes of traces that are written by hand.

Token 9 ends an attempt; the instruction is token 7.
"""

import math

import numpy as np
import pytest

from score_jax.methods import (
  blind,
  importance,
  pair_sft,
  rehearsal,
  retries,
  rise,
  selective,
  star,
)
from score_jax.methods.traces import by_problem, Collected, pack, Trace

GOLD = (5, 5, 9)


def trace(problem, first, second, right, nats=(1.0, 1.0)):
  return Trace(problem, (1, 2), ((first, 9), (second, 9)), right, nats, GOLD)


MENDED = trace('a', 10, 11, (False, True))
KEPT = trace('a', 12, 13, (True, True))
SPOILT = trace('a', 14, 15, (True, False))
LOST = trace('b', 16, 17, (False, False))
ALL = Collected((MENDED, KEPT, SPOILT, LOST), (7,), 1.0)


def rng():
  return np.random.default_rng(0)


def row(trace, second, weight=1.0, first_weight=0.0):
  first = trace.attempts[0]
  return [((1, 2), 0.0), (first, first_weight), ((7,), 0.0), (second, weight)]


def test_star_keeps_what_was_mended_and_nothing_else():
  found = star.rows(ALL, rng(), keep_right=False, first_weight=0.0)
  assert found == [row(MENDED, (11, 9))]


def test_star_plus_keeps_what_was_right_twice_as_well():
  found = star.rows(ALL, rng(), keep_right=True, first_weight=0.25)
  assert found == [
    row(MENDED, (11, 9), 1.0, 0.25),
    row(KEPT, (13, 9), 1.0, 0.25),
  ]


def seconds_of(keep_right):
  """Returns (first attempt, its partner) of all rows, over many draws."""
  found = set()
  for seed in range(40):
    rows = pair_sft.rows(
      ALL, np.random.default_rng(seed), keep_right, first_weight=0.0
    )
    found |= {(r[1][0][0], r[3][0][0]) for r in rows}
  return found


def test_pairs_join_a_wrong_attempt_with_any_right_one_of_its_problem():
  # Right ones of problem a: 11, 12, 13, 14; problem b was never solved.
  assert seconds_of(keep_right=False) == {(10, y) for y in (11, 12, 13, 14)}


def test_pairs_plus_join_right_attempts_too():
  assert seconds_of(keep_right=True) == {
    (first, y) for first in (10, 12, 14) for y in (11, 12, 13, 14)
  }


def test_blind_second_attempts_are_copies_or_siblings_whatever_they_are_worth():
  draws = np.random.default_rng(0)
  seen = [row for _ in range(500) for row in blind.rows(ALL, draws)]
  seconds = [(row[1][0][0], row[3][0][0]) for row in seen]
  # The neighbour in the group; b has no sibling, so it copies alone.
  again = {(10, 12), (12, 14), (14, 10)}
  assert set(seconds) == again | {(n, n) for n in (10, 12, 14, 16)}
  for pair in again:
    assert 0.06 < seconds.count(pair) / 500 < 0.14
  assert all(row[1][1] == row[3][1] == 1.0 for row in seen)


def test_introspection_weighs_by_reward_and_puts_the_best_second():
  found = rise.rows(
    Collected((MENDED, LOST), (7,), 1.0), rng(), temperature=0.5
  )
  high = math.exp(2)
  # Weights 1, e^2 of the first trace, 1, 1 of the other.
  mean = (1 + high + 1 + 1) / 4
  assert found[0] == row(
    MENDED, (11, 9), pytest.approx(high / mean), pytest.approx(1 / mean)
  )
  # Nothing of problem b was right: its own attempt stays, at the low weight.
  assert found[1] == row(
    LOST, (17, 9), pytest.approx(1 / mean), pytest.approx(1 / mean)
  )
  weights = [w for r in found for w in (r[1][1], r[3][1])]
  assert np.mean(weights) == pytest.approx(1)


def test_introspection_takes_the_best_of_the_whole_group():
  spoilt = Collected((SPOILT,), (7,), 1.0)
  (found,) = rise.rows(spoilt, rng(), temperature=1.0)
  assert found[3][0] == (14, 9)  # The first attempt was right, the second not.


def test_rehearsal_takes_the_own_response_where_right_else_the_gold_one():
  found = rehearsal.rows(ALL, rng())
  assert found == [
    row(MENDED, (11, 9), 1.0, 0.0),
    [((1, 2), 0.0), (GOLD, 1.0)],
    row(KEPT, (13, 9), 1.0, 1.0),
    row(SPOILT, GOLD, 1.0, 1.0),
    row(LOST, GOLD, 1.0, 0.0),
    [((1, 2), 0.0), (GOLD, 1.0)],
  ]


def test_shift_is_the_ratio_of_losses_whichever_is_larger():
  likely = trace('a', 1, 2, (True, True), nats=(9.0, 0.5))
  unlikely = trace('a', 1, 2, (True, True), nats=(9.0, 4.0))
  assert importance.shift(likely, 2.0) == pytest.approx(4.0)
  assert importance.shift(unlikely, 2.0) == pytest.approx(2.0)


def test_importance_leaves_out_the_right_traces_that_are_furthest():
  losses = (1.0, 8.0, 2.0, 0.01, 1.0)
  some = [
    trace(f'{i}', i, 20 + i, (i % 2 == 0, i != 4), nats=(9.0, loss))
    for i, loss in enumerate(losses)
  ]
  # Right second attempts: 0 to 3, of shifts 1, 8, 2, 100.
  found = importance.rows(Collected(some, (7,), 1.0), rng(), share=0.5)
  assert found == [
    row(some[0], (20, 9), 1.0, 1.0),
    row(some[2], (22, 9), 1.0, 1.0),
  ]


def test_label_enhancement_imitates_the_best_alone_beyond_the_threshold():
  group = Collected((MENDED, SPOILT), (7,), 1.0)  # Margin 1 - 1/2.
  found = selective.rows(group, rng(), threshold=0.4, temperature=1.0)
  assert found == [row(MENDED, (11, 9), 1.0)]


def test_label_enhancement_weighs_all_by_softmax_within_the_threshold():
  group = Collected((MENDED, SPOILT), (7,), 1.0)
  found = selective.rows(group, rng(), threshold=0.5, temperature=2.0)
  high = math.exp(0.5) / (math.exp(0.5) + 1)
  assert found == [
    row(MENDED, (11, 9), pytest.approx(high)),
    row(SPOILT, (15, 9), pytest.approx(1 - high)),
  ]


def test_each_problem_weighs_the_same_in_label_enhancement():
  found = selective.rows(ALL, rng(), threshold=1.0, temperature=1.0)
  weights = [r[3][1] for r in found]
  assert sum(weights[:3]) == pytest.approx(1)
  assert weights[3] == pytest.approx(1)


def test_retries_show_mistakes_and_mend_them_all_imitated():
  found = retries.rows(ALL, rng(), share=1.0)
  wrong = [MENDED, LOST]
  assert [r for r in found if r[1][0] != GOLD] == [
    row(t, GOLD, 1.0, 1.0) for t in wrong
  ]
  right_twice = [((1, 2), 0.0), (GOLD, 1.0), ((7,), 0.0), (GOLD, 1.0)]
  assert found.count(right_twice) == 2


def test_retries_show_no_more_than_their_share_of_mistakes():
  many = Collected((LOST,) * 400, (7,), 1.0)
  shown = [r[1][0] != GOLD for r in retries.rows(many, rng(), share=0.25)]
  # Five standard deviations of a binomial count: 5 * sqrt(400 * .25 * .75).
  assert abs(sum(shown) - 100) < 5 * math.sqrt(75)
  assert not any(r[1][0] != GOLD for r in retries.rows(many, rng(), share=0.0))


def test_neighbours_of_one_problem_are_a_group():
  again = trace('a', 1, 2, (True, True))
  groups = by_problem([MENDED, KEPT, LOST, again])
  assert groups == [[MENDED, KEPT], [LOST], [again]]


def test_packed_rows_hold_their_parts_and_weigh_nothing_behind_them():
  tokens, weight = pack([row(MENDED, (11, 9), 2.0, 0.5)], columns=9, pad=3)
  np.testing.assert_array_equal(tokens, [[1, 2, 10, 9, 7, 11, 9, 3, 3]])
  np.testing.assert_array_equal(weight, [[0, 0, 0.5, 0.5, 0, 2, 2, 0, 0]])
