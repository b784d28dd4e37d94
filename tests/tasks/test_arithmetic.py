"""The bundled task: every pair once, no pair on two sides of a split."""

import dataclasses

import numpy as np
import pytest

from score_jax import tasks
from score_jax.problem import Outcome, Problem, Verdict
from score_jax.tasks import arithmetic

PROBLEM = Problem('sum-0', '250+345=', '595', '0595')


def test_every_unordered_pair_of_three_digit_numbers_has_one_number():
  both = np.sort(arithmetic.pairs(np.arange(arithmetic.PAIRS)), axis=1)
  assert both.min() == 100
  assert both.max() == 999
  # 900 numbers make 900 * 901 / 2 pairs; so many different ones are all.
  assert len(np.unique(both, axis=0)) == len(both) == 405_450


def test_the_splits_share_no_number_and_take_all_of_them():
  ranges = sorted(arithmetic.SPLITS.values())
  assert ranges == [(0, 5_000), (5_000, 10_000), (10_000, arithmetic.PAIRS)]
  assert set(arithmetic.SPLITS) == {'train', 'validation', 'test'}


def test_no_problem_of_one_split_is_one_of_another_with_its_numbers_swapped():
  seen = {}
  for split in arithmetic.SPLITS:
    for prompt in arithmetic.columns(split)['prompt']:
      pair = frozenset(prompt.rstrip('=').split('+'))
      assert seen.setdefault(pair, split) == split


def _pair(number):
  """Returns the pair at a place of the triangle, walking it row by row."""
  place = (number * 251_429 + 104_729) % 405_450
  row = 0
  while place > row:
    place -= row + 1
    row += 1
  both = row + 100, place + 100
  return both if number % 2 == 0 else both[::-1]


# Place 104729 lies in row 457, which starts at 457 * 458 / 2 = 104653, at
# column 76: 557 and 176. The next is 251429 + 104729 = 356158, in row 843,
# which starts at 355746, at column 412: 943 and 512, swapped in odd problems.
@pytest.mark.parametrize(('number', 'pair'), [(0, (557, 176)), (1, (512, 943))])
def test_the_first_problems_are_these_for_all_time(number, pair):
  assert tuple(arithmetic.pairs(np.array([number]))[0]) == pair == _pair(number)


def test_the_rows_of_the_triangle_are_found_by_arithmetic_as_by_walking():
  numbers = np.linspace(0, arithmetic.PAIRS - 1, 40).astype(int)
  pairs = arithmetic.pairs(numbers)
  assert [tuple(pair) for pair in pairs] == [_pair(n) for n in numbers]


def test_a_problem_states_its_sum_with_four_digits_as_reference():
  columns = arithmetic.columns('test')
  rows = {name: values[:2].tolist() for name, values in columns.items()}
  assert rows == {
    'id': ['sum-0', 'sum-1'],
    'prompt': ['557+176=', '512+943='],
    'answer': ['733', '1455'],
    'reference': ['0733', '1455'],
    'difficulty': ['', ''],
    'attempt': ['', ''],
  }


@pytest.mark.parametrize('split', arithmetic.SPLITS)
def test_every_answer_is_the_sum_that_the_prompt_asks_for(split):
  columns = arithmetic.columns(split)
  asked = [
    sum(map(int, prompt.rstrip('=').split('+'))) for prompt in columns['prompt']
  ]
  assert asked == columns['answer'].astype(int).tolist()
  assert asked == columns['reference'].astype(int).tolist()
  assert {len(reference) for reference in columns['reference']} == {4}


@pytest.mark.parametrize(
  ('text', 'outcome', 'answer'),
  [
    ('595', Outcome.RIGHT, '595'),
    ('0595', Outcome.RIGHT, '595'),
    (' 595\n', Outcome.RIGHT, '595'),
    ('596', Outcome.WRONG, '596'),
    ('0', Outcome.WRONG, '0'),
    ('', Outcome.UNPARSED, ''),
    ('-595', Outcome.UNPARSED, ''),
    ('595.0', Outcome.UNPARSED, ''),
    ('595 595', Outcome.UNPARSED, ''),
    ('250+345=595', Outcome.UNPARSED, ''),
    ('５９５', Outcome.UNPARSED, ''),  # Digits, but of another alphabet.
    ('9' * 31, Outcome.UNPARSED, ''),
  ],
)
def test_the_grader_takes_one_whole_number_and_nothing_else(
  text, outcome, answer
):
  assert arithmetic.grade(PROBLEM, text) == Verdict(outcome, answer)


@pytest.mark.parametrize('split', arithmetic.SPLITS)
def test_seqio_reads_the_problems_in_their_order(split):
  task = tasks.get(tasks.Settings('arithmetic'))
  problems = tasks.load_problems(task, split, 5_000)
  columns = arithmetic.columns(split)
  assert len(problems) == 5_000
  for field in dataclasses.fields(Problem):
    read = [getattr(problem, field.name) for problem in problems]
    assert read == columns[field.name][:5_000].tolist()


def test_a_count_of_0_takes_the_whole_split():
  task = tasks.get(tasks.Settings('arithmetic'))
  problems = tasks.load_problems(task, 'validation', 0)
  assert [problem.id for problem in problems[:1] + problems[-1:]] == [
    'sum-5000',
    'sum-9999',
  ]
