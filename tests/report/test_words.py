"""Names, numbers and marked changes, as people read them."""

import itertools

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from score_jax.report import (
  differences,
  examples,
  words,
)

TEXTS = st.lists(st.text('ab 1.\n_²', max_size=70), min_size=1, max_size=4)


@hypothesis.given(TEXTS)
def test_marked_pieces_join_to_the_attempts_and_their_rests_agree(attempts):
  marked = differences.pieces(attempts)
  assert [''.join(p.text for p in parts) for parts in marked] == attempts
  for before, after in itertools.pairwise(marked):
    kept = ''.join(p.text for p in before if not p.gone)
    assert kept == ''.join(p.text for p in after if not p.new)
  assert not any(p.new for p in marked[0])
  assert not any(p.gone for p in marked[-1])


def test_a_number_is_compared_by_digits_and_a_text_by_words():
  assert examples.marked(['633', '643', '643']) == [
    '6<del>3</del>3',
    '6<ins>4</ins>3',
    '643',
  ]
  assert examples.marked(['The sum is 633.', 'The sum is 643.']) == [
    'The sum is <del>633</del>.',
    'The sum is <ins>643</ins>.',
  ]
  assert examples.marked(['1', '2', '3']) == [
    '<del>1</del>',
    '<ins><del>2</del></ins>',
    '<ins>3</ins>',
  ]


@pytest.mark.parametrize(
  ('name', 'label'),
  [
    ('base', 'Before training'),
    ('stage1', 'After Stage I'),
    ('stage1b', 'After Stage I(b)'),
    ('stage2', 'After Stage II'),
    ('stage2round1', 'After Stage II, round 1'),
    ('round2', 'After Round 2'),
    ('round2stage1', 'After Round 2, Stage I'),
    ('training', 'After training'),
    ('attempts4', 'Asked 4 times'),
    ('star', 'star'),
  ],
)
def test_checkpoints_have_plain_names(name, label):
  assert words.checkpoint(name).replace(words.SPACE, ' ') == label


def test_numbers_print_alike_whichever_way_they_were_computed():
  assert words.percent(0.9065 - 0.658, signed=True) == '+24.9'
  assert words.percent(0.2485, signed=True) == '+24.9'
  assert words.percent(np.float64(0.9065)) == words.percent(0.9065)
  assert words.percent(-0.0001, signed=True) == '+0.0'
  assert words.percent(-0.112, signed=True) == '−11.2'
  assert words.percent(float('nan')) == '–'
