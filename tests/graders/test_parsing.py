"""An expression is worth what its parts are worth, in every notation."""

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from score_jax.graders import notation, parsing, values
from score_jax.graders.math import equal

EXAMPLES = settings(max_examples=25, deadline=None, derandomize=True)
MANY = settings(EXAMPLES, max_examples=120)
SUM, PRODUCT, ATOM = range(3)


def boxed(answer):
  return rf'\boxed{{{answer}}}'


def inside(text, level, least, brackets):
  opening, closing = brackets
  return f'{opening}{text}{closing}' if level < least else text


BRACKETS = st.sampled_from(
  [('(', ')'), (r'\left(', r'\right)'), (r'\bigl(', r'\bigr)')]
)
BLANK = st.sampled_from(['', ' ', r'\,'])


@st.composite
def number(draw):
  """(LaTeX, value, how tightly it binds)."""
  n, d = draw(st.integers(1, 12)), draw(st.integers(2, 9))
  kind = draw(st.integers(0, 5))
  if kind == 0:
    return rf'\frac{{{n}}}{{{d}}}', Fraction(n, d), PRODUCT
  if kind == 1:
    return f'{n}.5', n + Fraction(1, 2), ATOM
  if kind == 2:
    return rf'\binom{{{d}}}{{{n % d}}}', Fraction(math.comb(d, n % d)), ATOM
  if kind == 3 and n < 7:
    return f'{n}!', Fraction(math.factorial(n)), PRODUCT
  return str(n), Fraction(n), ATOM


def combined(parts):
  @st.composite
  def draw_one(draw):
    one, other = draw(parts), draw(parts)
    brackets, blank = draw(BRACKETS), draw(BLANK)
    kind = draw(st.sampled_from(['+', '-', 'cdot', 'side', '/', 'frac', '^']))
    (a, x, p), (b, y, q) = one, other
    if kind in '+-':
      text = f'{a}{blank}{kind}{blank}{inside(b, q, PRODUCT, brackets)}'
      return text, x + y if kind == '+' else x - y, SUM
    if kind == 'side':
      both = (inside(t, SUM, ATOM, brackets) for t in (a, b))
      return blank.join(both), x * y, PRODUCT
    if kind == '^':
      return inside(a, SUM, ATOM, brackets) + '^{2}', x**2, PRODUCT
    left = inside(a, p, PRODUCT, brackets)
    right = inside(b, min(q, PRODUCT), ATOM, brackets)
    if kind == 'cdot':
      return left + r' \cdot ' + right, x * y, PRODUCT
    if not y:
      return one
    if kind == 'frac':
      return rf'\frac{{{a}}}{{{b}}}', x / y, PRODUCT
    return left + '/' + right, x / y, PRODUCT

  return draw_one()


EXPRESSIONS = st.recursive(number(), combined, max_leaves=4)


@MANY
@given(EXPRESSIONS)
def test_an_expression_of_numbers_is_worth_what_python_computes(expression):
  text, value, _ = expression
  gold = str(value)
  assert equal(gold, boxed(text))
  assert not equal(str(value + 1), boxed(text))
  assert not equal(str(value * 2 + 1), boxed(text))


@EXAMPLES
@given(st.integers(2, 9), st.integers(2, 9), st.integers(2, 9))
def test_numbers_in_brackets_side_by_side_are_multiplied(a, b, c):
  for text in (
    f'({a})({b})({c})',
    f'{a}({b})({c})',
    rf'({a}){b} \cdot {c}',
    rf'\left({a}\right) \left({b}\right){c}',
    rf'({a})\frac{{{b * c}}}{{1}}',
  ):
    assert equal(str(a * b * c), boxed(text)), text
    assert not equal(str(a + b + c + 1000), boxed(text))
  assert equal(str(a + b), boxed(f'({a})({b})')) == (a + b == a * b)


FUNCTIONS = (r'\ln', r'\sin', r'\tan', r'\arctan', r'\exp', r'\log_7')


@EXAMPLES
@given(st.sampled_from(FUNCTIONS), st.integers(3, 9), st.integers(2, 9))
def test_what_is_multiplied_with_a_function_is_not_in_it(function, a, b):
  within = rf'{function}({a * b})'
  for text in (
    rf'{function} {a} \cdot {b}',
    rf'{function}{{{a}}} \cdot {b}',
    rf'{function}{{{a}}} \times {b}',
    rf'{b}{function} {a}',
    rf'{b} \cdot {function}({a})',
  ):
    assert equal(rf'{b}{function}({a})', boxed(text)), text
    assert not equal(within, boxed(text)), text


@EXAMPLES
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from('xyn'))
def test_arguments_of_commands_need_no_braces(a, b, letter):
  for short, full in (
    (rf'\frac{a}{b}', rf'\frac{{{a}}}{{{b}}}'),
    (rf'\frac {a} {b}', rf'\frac{{{a}}}{{{b}}}'),
    (rf'\frac{a}{letter}', rf'\frac{{{a}}}{{{letter}}}'),
    (rf'\frac {letter}{{{b}}}', rf'\frac{{{letter}}}{{{b}}}'),
    (rf'\frac\pi{b}', rf'\frac{{\pi}}{{{b}}}'),
    (rf'\sqrt{a}', rf'\sqrt{{{a}}}'),
    (rf'\sqrt[3]{a}', rf'\sqrt[3]{{{a}}}'),
    (rf'\sqrt {letter}', rf'\sqrt{{{letter}}}'),
    (rf'\binom{a}{b}', rf'\binom{{{a}}}{{{b}}}'),
    (rf'\frac\sqrt{{{a}}}{b}', rf'\frac{{\sqrt{{{a}}}}}{{{b}}}'),
  ):
    assert notation.tidy(short) == notation.tidy(full)


@pytest.mark.parametrize(
  'text',
  [
    r'1\frac{3}{2}',  # A mixed number would have less than one behind it.
    r'\ln 3 / 2',
    r'\sin x / 2',
    '5!!',
    r'\sum_{i=1}^{9} i',
    '2 3',
  ],
)
def test_what_may_mean_two_things_is_not_understood(text):
  with pytest.raises(parsing.Undecided):
    parsing.expression(notation.tidy(text))


@EXAMPLES
@given(st.integers(1, 8), st.integers(0, 8))
def test_factorials_of_variables_cancel_as_those_of_numbers_do(k, m):
  quotient = rf'\frac{{(n+{m})!}}{{(n+{m}-1)!}}'
  assert values.same(quotient, f'n+{m}')
  assert not values.same(quotient, f'n+{m + 1}')
  assert equal(r'\binom{n}{k}', boxed(r'\frac{n!}{k!(n-k)!}'))
  assert not equal(r'\binom{n}{k}', boxed(rf'\frac{{n!}}{{k!(n-{k})!}}'))
