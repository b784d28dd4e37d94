"""What the grader of mathematics accepts, and above all what it does not."""

import json
import os
import pathlib
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from score_jax.graders import answers
from score_jax.graders.math import equal, grade
from score_jax.graders.pool import Pool
from score_jax.problem import Outcome, Problem

ROOT = pathlib.Path(__file__).parents[2]
DATA = pathlib.Path(
  os.environ.get('SCORE_DATA_DIR', ROOT.parent / 'shared/data')
)
EXAMPLES = settings(max_examples=25, deadline=None, derandomize=True)


def outcome(gold, text):
  return grade(Problem('', '', gold, ''), text).outcome


def boxed(answer):
  return rf'Therefore the answer is $\boxed{{{answer}}}$.'


def rows(name):
  path = DATA / name
  if not path.exists():
    pytest.skip(f'{path} is not there; set SCORE_DATA_DIR.')
  return [json.loads(line) for line in path.read_text().splitlines()]


def documented():
  """Returns (whole text or answer, oracle, answer, verdict) of the document."""
  text, found = (ROOT / 'docs/grading.md').read_text(), []
  for heading, body in re.findall(r'^## (.+)\n((?:(?!## ).*\n)*)', text, re.M):
    for row in re.findall(r'^\| `(.+)` \| `(.*)` \| (\w+) \|$', body, re.M):
      gold, answer = (cell.replace(r'\|', '|') for cell in row[:2])
      whole = heading == 'Where the answer stands'
      found.append((whole, gold, answer.replace('\\n#', '\n#'), row[2]))
  return found


def test_the_document_has_examples_of_all_verdicts():
  verdicts = [verdict for *_, verdict in documented()]
  assert len(verdicts) > 80
  assert set(verdicts) == {'right', 'wrong', 'unparsed'}


@pytest.mark.parametrize(('whole', 'gold', 'answer', 'verdict'), documented())
def test_an_example_of_the_document_holds(whole, gold, answer, verdict):
  text = answer if whole else boxed(answer)
  assert outcome(gold, text).name.lower() == verdict


# Notation: what changes nothing.

WHOLE = st.integers(-(10**6), 10**6)
DIGIT = st.integers(1, 9)
RATIO = st.tuples(WHOLE, st.integers(1, 999))


def spellings(above, below):
  sign = '-' if above < 0 else ''
  return [
    f'{above}/{below}',
    rf'\frac{{{above}}}{{{below}}}',
    rf'{sign}\dfrac{{{abs(above)}}}{{{below}}}',
    rf'\left( \tfrac{{ {above} }}{{ {below} }} \right)',
    rf'\frac {{{2 * above}}} {{{2 * below}}}',
    f'$ {above} / {below} $',
  ]


@EXAMPLES
@given(RATIO, st.data())
def test_a_fraction_is_the_same_in_all_spellings(ratio, data):
  one, other = (data.draw(st.sampled_from(spellings(*ratio))) for _ in range(2))
  assert equal(one, boxed(other.replace('$', '')))


@EXAMPLES
@given(RATIO, st.integers(1, 5))
def test_a_fraction_with_another_numerator_is_wrong(ratio, step):
  above, below = ratio
  for gold in spellings(above, below):
    assert not equal(gold, boxed(rf'\frac{{{above + step}}}{{{below}}}'))


@EXAMPLES
@given(WHOLE)
def test_a_whole_number_is_the_same_in_all_spellings(number):
  for text in (
    f'{number:,}',
    f'{number:,}'.replace(',', '{,}'),
    f'{number:,}'.replace(',', r',\!'),
    f'{number}.0',
    f'${number}$.',
    rf'\text{{{number}}}',
    f'{{{number}}}',
    f'x = {number}',
    rf'\$ {number}',
    rf'{number} \text{{ apples}}',
  ):
    assert equal(str(number), boxed(text)), text


@EXAMPLES
@given(WHOLE.filter(bool), st.integers(0, 6), DIGIT)
def test_another_digit_or_sign_makes_a_number_wrong(number, place, step):
  digits = list(str(abs(number)))
  place %= len(digits)
  digits[place] = str((int(digits[place]) + step) % 10)
  assert not equal(str(abs(number)), boxed(''.join(digits)))
  assert not equal(str(number), boxed(str(-number)))
  assert not equal(str(number), boxed(f'{number}0'))


@EXAMPLES
@given(st.lists(WHOLE, min_size=2, max_size=4, unique=True), st.data())
def test_brackets_and_order_of_a_tuple_count(numbers, data):
  inside = ', '.join(map(str, numbers))
  other = data.draw(st.permutations(numbers).filter(lambda p: p != numbers))
  pairs = ['()', '[]', '[)', '(]']
  gold, wrong = (data.draw(st.permutations(pairs)))[:2]
  assert equal(
    gold[0] + inside + gold[1],
    boxed(rf'\left{gold[0]} {inside}\right{gold[1]}'),
  )
  assert not equal(
    gold[0] + inside + gold[1], boxed(wrong[0] + inside + wrong[1])
  )
  moved = ', '.join(map(str, other))
  assert not equal(f'({inside})', boxed(f'({moved})'))
  assert equal(inside, boxed(moved))
  assert equal(rf'\{{{inside}\}}', boxed(rf'\{{{moved}\}}'))
  assert not equal(inside, boxed(inside.rsplit(',', 1)[0]))


@EXAMPLES
@given(DIGIT, DIGIT, DIGIT, st.sampled_from('xyt'))
def test_a_product_equals_what_it_multiplies_out_to(a, b, c, x):
  product = f'({a}{x}+{b})({x}-{c})'
  sum_ = f'{a}{x}^2+({b - a * c}){x}-{b * c}'
  assert equal(product, boxed(sum_))
  assert not equal(product, boxed(sum_ + '+1'))
  assert not equal(product, boxed(sum_.replace(x, 'z')))


@EXAMPLES
@given(st.integers(2, 40), st.integers(2, 12))
def test_a_radical_equals_what_it_absorbs_and_nothing_near(radicand, factor):
  gold = rf'{factor}\sqrt{{{radicand}}}'
  inside = factor**2 * radicand
  assert equal(gold, boxed(rf'\sqrt{{{inside}}}'))
  assert equal(gold, boxed(rf'{factor} \cdot \sqrt {{{radicand}}}'))
  assert not equal(gold, boxed(rf'\sqrt{{{inside + 1}}}'))
  if round(inside**0.5) ** 2 != inside:
    assert not equal(gold, boxed(f'{inside**0.5:.15f}'))


# Attempts that try to be right by saying everything.


@EXAMPLES
@given(st.lists(WHOLE, min_size=2, max_size=6, unique=True), st.data())
def test_whoever_names_several_answers_has_not_answered(numbers, data):
  gold = str(data.draw(st.sampled_from(numbers)))
  texts = list(map(str, numbers))
  for separator in (', ', ' or ', r' \text{ or } ', '; ', r' \quad '):
    assert not equal(gold, boxed(separator.join(texts))), separator
  assert not equal(gold, r' or '.join(rf'\boxed{{{t}}}' for t in texts))
  assert not equal(gold, f'The answer is {" or ".join(texts)}.')


@pytest.mark.parametrize(
  'text',
  [
    r'\boxed{1} or \boxed{2}',
    r'\boxed{2} or \boxed{1}',
    r'\boxed{1, 2, 3, 4}',
    r'\boxed{2\text{, maybe } 3}',
    r'\boxed{2 \text{ (or 3)}}',
    r'\boxed{\text{not }2}',
    r'\boxed{2?3}',
    r'\boxed{1}, \boxed{2}',
    r'\boxed{x}',
    r'\boxed{2',
    r'\boxed{}',
    r'\boxed{2}}\boxed{3}',
    r'\boxed{x \ne 2}',
    r'\boxed{x > 2}',
    r'\boxed{\{2, 3\}}',
    r'The answer is either 1 or 2.',
    r'The answer is not 2',
    'Integer(2)',
    '().__class__',
    '',
  ],
)
def test_a_hedge_is_not_accepted_for_two(text):
  assert not equal('2', text)


HUGE = 10**7


@pytest.mark.parametrize(
  'text',
  [
    'x' * HUGE,
    '\0' * HUGE,
    r'\boxed{' * (HUGE // 7),
    r'\boxed{3} ' * (HUGE // 50) + 'end',
    '{' * HUGE,
    '}' * HUGE,
    '(' * HUGE,
    '\\' * HUGE,
    '$' * HUGE,
    '1,' * (HUGE // 2),
    'answer is ' * (HUGE // 10),
    '####\n' * (HUGE // 5),
    ' ' * HUGE,
    '9' * HUGE,
  ],
  ids=lambda text: repr(text[:8]),
)
def test_ten_megabytes_take_a_moment(text):
  before = time.process_time()
  assert not equal('2', text)
  assert time.process_time() - before < 5


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
  st.lists(
    st.sampled_from(
      [
        *r'0123456789+-*/^_(){}[]=<>.,;:|!%$\&x yi',
        r'\boxed{',
        r'\frac',
        r'\sqrt',
        *(
          r'\left',
          r'\right',
          r'\text{',
          r'\cup',
          r'\pm',
          ' or ',
          'answer is ',
        ),
        *('\n#### ', r'\{', r'\}', r'\infty', r'\circ', '\0', '−', '²', r'\\'),
      ]
    ),
    max_size=30,
  ).map(''.join)
)
def test_no_text_makes_the_grader_raise(text):
  verdict = grade(Problem('', '', '17', ''), text)
  assert verdict.outcome in (Outcome.RIGHT, Outcome.WRONG, Outcome.UNPARSED)
  assert (verdict.outcome == Outcome.UNPARSED) == (answers.final(text) is None)
  grade(Problem('', '', text, ''), boxed(text))


BOMBS = [
  '9^{9^{9^{9}}}',
  r'2^{10^{100}}',
  '((20!)!)!',
  '100000!',
  r'\binom{10^9}{5\cdot10^8}',
  r'\sum_{i=1}^{10^{12}} \frac{1}{i}',
  r'\prod_{i=1}^{10^{9}} (1+\frac{1}{i^2})',
  r'\lim_{x\to 0} \frac{\sin(\tan x)-\tan(\sin x)}{x^{7}}',
  r'\int_0^1 x^x dx',
  r'\sqrt{2+' * 300 + '2' + '}' * 300,
  '1e999999999',
  r'10^{999999999}',
  r'\frac{0}{0}',
  r'\begin{garbage',
  'exit()',
  '__import__("os").system("true")',
  r'\{' + ', '.join(map(str, range(250))) + r'\}',
  r' \cup '.join(f'({n},{n + 1})' for n in range(0, 180, 2)),
]


def test_what_is_hard_to_compute_is_wrong_at_once():
  equal('2', boxed('x+1'))  # The parser's tables are built once.
  for bomb in BOMBS:
    before = time.process_time()
    assert not equal('2', boxed(bomb)), bomb
    assert not equal('x > 2', boxed(rf'({bomb}, \infty)')), bomb
    assert time.process_time() - before < 2, bomb


@pytest.mark.parametrize('empty', ['', ' ', '$$', r'\boxed{}', 'None', 'nan'])
def test_nothing_is_never_the_right_answer(empty):
  assert not equal(empty, empty)
  assert not equal(empty, boxed(empty))


# Data that lies elsewhere.


def test_public_test_suites_are_agreed_with_and_nothing_wrong_accepted():
  cases = [
    r for r in rows('grader/triples_testsuites.jsonl') if not r['policy']
  ]
  judged = [(equal(r['gold'], r['pred']), r['equal']) for r in cases]
  assert not any(said and not label for said, label in judged)
  assert sum(said == label for said, label in judged) >= 0.99 * len(judged)


def test_variants_and_near_misses_are_told_apart():
  cases = rows('grader/triples_synthetic.jsonl')
  wrong = [r['id'] for r in cases if equal(r['gold'], r['pred']) != r['equal']]
  assert wrong == []


def test_a_pool_grades_every_bomb_within_its_limit():
  cases = rows('grader/bombs.jsonl')
  problems = [Problem(r['id'], '', r['gold'], '') for r in cases]
  limit = min(r['max_seconds'] for r in cases)
  with Pool('score_jax.graders.math:grade', {}, 2, limit, 2048) as pool:
    verdicts = pool.start(problems, [r['pred'] for r in cases]).result()
    assert pool.complaints() == []
  for row, verdict in zip(cases, verdicts, strict=True):
    assert (verdict.outcome == Outcome.RIGHT) == row['equal'], row['id']
    assert verdict.outcome != Outcome.TIMEOUT, row['id']


@pytest.mark.parametrize('split', ['train', 'test'])
def test_every_solution_of_gsm8k_is_right_for_its_own_answer(split):
  for row in rows(f'gsm8k/{split}.jsonl'):
    gold = row['answer'].rsplit('####', 1)[1].strip()
    assert outcome(gold, row['answer']) == Outcome.RIGHT, gold
    next_ = str(int(gold.replace(',', '')) + 1)
    assert outcome(next_, row['answer']) == Outcome.WRONG, gold
