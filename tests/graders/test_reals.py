"""A set of real numbers is the same however it is written."""

import itertools
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from score_jax.graders.math import equal

EXAMPLES = settings(max_examples=30, deadline=None, derandomize=True)
ENDS = st.lists(st.integers(-40, 40), min_size=2, max_size=4, unique=True).map(
  sorted
)


def boxed(answer):
  return rf'Therefore it is $\boxed{{{answer}}}$.'


def contains(pieces, number):
  """By the definition of an interval; pieces are (low, [, high, ])."""
  return any(
    (low < number or (low == number and has_low))
    and (number < high or (number == high and has_high))
    for low, has_low, high, has_high in pieces
  )


def intervals(pieces):
  return r' \cup '.join(
    f'{"[" if has_low else "("}{low}, {high}{"]" if has_high else ")"}'
    for low, has_low, high, has_high in pieces
  )


def inequalities(pieces):
  sign = {True: r'\le', False: '<'}
  return r' \text{ or } '.join(
    f'{low} {sign[has_low]} x {sign[has_high]} {high}'
    for low, has_low, high, has_high in pieces
  )


@st.composite
def pieces_(draw):
  """One or two intervals that do not touch."""
  ends = draw(ENDS)
  ends = ends[: len(ends) // 2 * 2]
  sides = st.booleans()
  return [
    (ends[i], draw(sides), ends[i + 1], draw(sides))
    for i in range(0, len(ends), 2)
  ]


@EXAMPLES
@given(pieces_(), pieces_())
def test_two_sets_are_equal_if_they_have_the_same_numbers(one, other):
  """Looked at in steps of a half, which tell all sets apart that occur."""
  places = [Fraction(n, 2) for n in range(-100, 101)]
  same = all(contains(one, n) == contains(other, n) for n in places)
  assert equal(intervals(one), boxed(inequalities(other))) == same
  assert equal(inequalities(one), boxed(intervals(other))) == same


@EXAMPLES
@given(pieces_())
def test_a_set_is_the_same_in_all_spellings(pieces):
  gold = intervals(pieces)
  for text in (
    intervals(pieces[::-1]),
    inequalities(pieces),
    rf'x \in {gold}',
    rf'\{{x \mid {inequalities(pieces)}\}}',
    rf'\left\{{ x \in \mathbb{{R}} : {inequalities(pieces)} \right\}}',
  ):
    assert equal(gold, boxed(text)), text


@EXAMPLES
@given(pieces_(), st.data())
def test_a_bracket_or_an_end_that_is_changed_makes_it_another_set(pieces, data):
  place = data.draw(st.integers(0, len(pieces) - 1))
  low, has_low, high, has_high = pieces[place]
  for changed in (
    (low, not has_low, high, has_high),
    (low, has_low, high, not has_high),
    (low, has_low, high + Fraction(1, 2), has_high),
  ):
    other = [*pieces[:place], changed, *pieces[place + 1 :]]
    assert not equal(intervals(pieces), boxed(inequalities(other)))


@EXAMPLES
@given(st.integers(-9, 9), st.integers(1, 9))
def test_a_distance_is_an_interval_around_a_number(middle, radius):
  low, high = middle - radius, middle + radius
  inside = rf'|x {"-" if middle >= 0 else "+"} {abs(middle)}|'
  for sign, pieces in (
    ('<', f'({low},{high})'),
    (r'\le', f'[{low},{high}]'),
    ('>', rf'(-\infty,{low}) \cup ({high},\infty)'),
    (r'\ge', rf'(-\infty,{low}] \cup [{high},\infty)'),
  ):
    assert equal(pieces, boxed(f'{inside} {sign} {radius}'))
    assert not equal(pieces, boxed(f'{inside} {sign} {radius + 1}'))


@EXAMPLES
@given(st.lists(st.integers(-9, 9), min_size=1, max_size=3, unique=True))
def test_what_is_left_out_leaves_the_rest(numbers):
  ends = [r'-\infty', *map(str, sorted(numbers)), r'\infty']
  gold = r' \cup '.join(f'({a},{b})' for a, b in itertools.pairwise(ends))
  listed = ', '.join(map(str, numbers))
  for text in (
    rf'x \ne {listed}',
    rf'\mathbb{{R}} \setminus \{{{listed}\}}',
    r' \text{ and } '.join(rf'x \neq {n}' for n in numbers),
  ):
    assert equal(gold, boxed(text)), text
  assert not equal(gold, boxed(rf'x \ne {listed}, 77'))


@pytest.mark.parametrize(
  ('gold', 'answer'),
  [
    (r'(1,3)', r'x>1 \text{ or } x<3'),
    (r'(-\infty,1)\cup(3,\infty)', r'x<1 \text{ and } x>3'),
    (r'x>3', r'y>3'),
    (r'(1,3)', r'1<x<y'),
    (r'(1,3)', r'\{1,3\}'),
    (r'\{1,3\}', r'1<x<3'),
    (r'(0,\infty)', r'\mathbb{R}'),
    (r'(3,1)', r'3<x<1'),
    (r'\emptyset', '0'),
    (r'(1,\infty]', 'x>1'),
    (r'|x|<-1', '|x|<-1, x<0'),
  ],
)
def test_another_set_or_what_is_none_is_wrong(gold, answer):
  assert not equal(gold, boxed(answer))
