"""Tasks by name: their wording, their problems through seqio, mixtures."""

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from score_jax import tasks
from score_jax.config import ConfigError, default
from score_jax.problem import Problem
from score_jax.tasks import catalogue, mixture, wording
from score_jax.tasks.mixture import Member

PUBLISHED = [name for name, r in catalogue.RECIPES.items() if r.source]


@pytest.fixture
def task(ours, prepared):
  """Gives tasks over problems of our own."""

  def get(name, **settings):
    where = {'manual_dir': str(ours), 'data_dir': str(prepared)}
    return tasks.get(tasks.Settings(name, **where, **settings))

  return get


def test_the_settings_of_a_config_name_a_task():
  config = default()
  assert tasks.get(config.task).name == 'arithmetic'
  assert not tasks.get(config.task).isolated


@pytest.mark.parametrize('name', [*catalogue.RECIPES, *catalogue.MIXTURES])
def test_an_instruction_hedges_and_gives_no_verdict(name, tmp_path):
  (tmp_path / 'train.jsonl').write_text('')
  found = tasks.get(tasks.Settings(name, path=str(tmp_path)))
  said = found.instruction.lower()
  assert re.search(r'there (might|may) be an error', said)
  assert re.search(r'if (there is one|so), correct it', said)
  for verdict in (
    'is wrong',
    'incorrect',
    'is an error',
    'was right',
    'failed',
  ):
    assert verdict not in said


@pytest.mark.parametrize('name', PUBLISHED)
def test_both_turns_ask_for_the_final_answer_in_one_form(name):
  recipe = catalogue.RECIPES[name]
  form = {
    catalogue.MATH_GRADER: r'\boxed{answer}',
    catalogue.CODE_GRADER: 'one block that begins with ```python',
  }[recipe.grader]
  assert form in recipe.prompt
  assert form in recipe.instruction
  assert re.search(
    '(whole|Explain each step of the) (solution|program)', recipe.prompt
  )
  assert 'anew and nothing but' in recipe.instruction
  comment = recipe.instruction.strip().startswith('# ')
  assert comment == (recipe.grader == catalogue.CODE_GRADER)


@pytest.mark.parametrize('name', PUBLISHED)
def test_problems_come_through_seqio_in_the_words_of_their_task(name, task):
  import seqio

  found = task(name)
  for split in found.splits:
    problems = tasks.load_problems(found, split, 0)
    assert problems, split
    assert name in seqio.TaskRegistry.names()
    for problem in problems:
      assert wording.PROBLEM not in problem.prompt
      assert wording.EXAMPLES not in problem.prompt
      assert problem.prompt.startswith(found.prompt[:30])
      assert problem.prompt.endswith(found.prompt[-10:])
      form = '```python\n' if 'code' in found.grader else r'\boxed{'
      assert form in problem.reference


def test_a_count_takes_the_first_of_a_split(task):
  found = task('gsm8k')
  whole = tasks.load_problems(found, 'train', 0)
  assert tasks.load_problems(found, 'train', 4) == whole[:4]
  assert len(whole) == 18


def test_all_names_train_on_what_others_hold_out(task):
  for name in ('math', 'gsm8k'):
    parts = [
      tasks.load_problems(task(name), s, 0) for s in ('train', 'validation')
    ]
    whole = tasks.load_problems(task(f'{name}_all'), 'train', 0)
    assert whole == parts[0] + parts[1]
    assert task(f'{name}_all').splits == ('train', 'test')


def test_mbpp_shows_problems_2_3_and_4_worked_before_each_problem(task):
  (problem,) = tasks.load_problems(task('mbpp'), 'validation', 0)
  shown = re.findall(
    r'^Task: Write a function to (.*)\.$', problem.prompt, re.M
  )
  # By their ids; the last one is problem 511 itself.
  assert shown == [
    'count the vowels of a text',
    'open a box',
    'add two numbers',
    'open a box',
  ]
  assert problem.prompt.count('```python\n') == 3
  assert problem.prompt.endswith('assert opened(Box(0)) == 0\n\nProgram:\n')


@given(st.text(st.characters(exclude_categories=['Cs']), max_size=20))
def test_examples_and_braces_of_a_problem_are_text(text):
  example = Problem('e', 'E{x}', '', 'R{problem}')
  template = wording.with_examples('A {examples}Q: {problem}\n', [example])
  # An example that holds the placeholder itself would be filled in as well.
  assert template.startswith('A Q: E{x}\nR')
  plain = dataclasses.replace(example, reference='R')
  template = wording.with_examples('A {examples}Q: {problem}\n', [plain])
  assert text.join(wording.pieces(template)) == f'A Q: E{{x}}\nR\n\nQ: {text}\n'


def test_texts_of_any_characters_pass_through_seqio_as_they_are(tmp_path):
  odd = ['{problem}', '\\boxed{%s}', 'a\0b\0', '\x85\u2028', '数🙂', '\n', '']
  from score_jax.tasks import registry

  problems = [Problem(f'{n}', x, x, x, x, x) for n, x in enumerate(odd)]
  columns = registry.columns_of(problems)
  registry.add_columns(
    'odd', ('train',), lambda _: columns, '<{problem}|{problem}>'
  )
  found = registry.read('odd', 'train', -1)
  assert found == [
    dataclasses.replace(p, prompt=f'<{p.prompt}|{p.prompt}>') for p in problems
  ]


def test_settings_replace_a_tasks_words_and_its_grader(task):
  found = task('aime25', prompt='?{problem}', instruction='!', grader='a.b:c')
  assert (found.instruction, found.grader, found.isolated) == (
    '!',
    'a.b:c',
    True,
  )
  asked = [p.prompt for p in tasks.load_problems(found, 'test', 0)]
  assert asked[1] == '?Find the number of primes below $10$.'
  # Another task of the same name afterwards has its own words again.
  again = tasks.load_problems(task('aime25'), 'test', 1)
  assert again[0].prompt.startswith('Solve the following problem.')


def test_a_users_problems_are_graded_as_math_unless_told_otherwise(tmp_path):
  path = tmp_path / 'p.jsonl'
  path.write_text('{"problem": "1+1", "answer": "2"}\n')
  plain = tasks.get(tasks.Settings('jsonl', path=str(path)))
  assert plain.grader == 'score_jax.graders.math:grade'
  (problem,) = tasks.load_problems(plain, 'train', 0)
  assert problem.reference == r'The final answer is $\boxed{2}$.'
  own = tasks.get(tasks.Settings('jsonl', path=str(path), grader='a:b'))
  assert tasks.load_problems(own, 'train', 0)[0].reference == '2'


@pytest.mark.parametrize(
  ('settings', 'said'),
  [
    ({'name': 'gsm9k'}, r'task\.name must be one of .*did you mean gsm8k\?'),
    ({'name': ''}, r"task\.name must be one of .*got ''"),
    ({'name': 'math', 'prompt': 'x'}, r'task\.prompt must hold \{problem\}'),
    (
      {'name': 'math', 'prompt': '{examples}{problem}'},
      'has no worked examples',
    ),
    ({'name': 'math', 'grader': 'mine'}, r'task\.grader must be module:funct'),
    ({'name': 'jsonl'}, r"task\.name='jsonl' needs task\.path"),
    ({'name': 'math=2,gsm9k=1'}, r'did you mean gsm8k\?'),
    ({'name': 'math=2,math=1'}, 'names a member twice'),
    ({'name': 'math=2,gsm8k'}, "has the rate ''"),
    ({'name': 'math=-2,gsm8k=1'}, "has the rate '-2'"),
    ({'name': 'math=2,gsm8k=1/0'}, "has the rate '1/0'"),
    ({'name': 'math=1e9,gsm8k=1'}, 'rates that add up to over 10000'),
    ({'name': 'math=2,mbpp=1'}, r'differ in task\.grader; set it'),
    ({'name': 'math=2,mbpp=1', 'grader': 'a:b'}, r'differ in task\.instructi'),
  ],
)
def test_what_cannot_be_had_is_refused_with_the_remedy(settings, said):
  with pytest.raises(ConfigError, match=said):
    tasks.get(tasks.Settings(**settings))


def test_a_split_that_a_task_lacks_is_refused(task):
  with pytest.raises(
    ConfigError, match='has no train split, only test; choose'
  ):
    tasks.load_problems(task('humaneval'), 'train', 0)


def test_members_that_are_made_equal_can_be_mixed():
  found = tasks.get(
    tasks.Settings('math=1,mbpp=1', grader='a:b', instruction='Anew:')
  )
  assert found.members == (Member('math', 1), Member('mbpp', 1))
  assert found.prompt == ''  # Each member's own.


@pytest.mark.parametrize(
  ('text', 'rates'),
  [
    ('a=2,b=1', [2, 1]),
    ('a=0.7, b=0.3', [7, 3]),
    ('a=1/3,b=1/6,c=1/2', [2, 1, 3]),
    ('a=500,b=1000', [1, 2]),
    ('a=3', [1]),
  ],
)
def test_rates_are_brought_to_lowest_terms(text, rates):
  found = mixture.parse(text)
  assert [member.rate for member in found] == rates
  assert [member.name for member in found] == list('abc')[: len(rates)]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 100))
def test_shares_add_up_and_are_within_one_of_the_rate(rates, count):
  found = mixture.shares(rates, count)
  assert sum(found) == count
  for given_, rate in zip(found, rates, strict=True):
    assert abs(given_ - count * rate / sum(rates)) < 1


def test_a_mixture_holds_its_members_problems_with_their_names(task):
  import seqio

  mixed = task('gsm8k=2,math=1')
  found = tasks.load_problems(mixed, 'train', 0)
  parts = [tasks.load_problems(task(n), 'train', 0) for n in ('gsm8k', 'math')]
  assert [p.id for p in found] == [f'gsm8k/{p.id}' for p in parts[0]] + [
    f'math/{p.id}' for p in parts[1]
  ]
  assert [p.prompt for p in found] == [p.prompt for part in parts for p in part]
  first = tasks.load_problems(mixed, 'train', 6)
  assert [p.id.split('/')[0] for p in first] == ['gsm8k'] * 4 + ['math'] * 2
  rates = seqio.get_mixture_or_task('gsm8k=2,math=1').rate_per_task_name
  assert dict(rates) == {'gsm8k': 2.0, 'math': 1.0}


def test_tests_that_take_long_have_limits_of_their_own():
  needs = {
    name: tasks.get(tasks.Settings(name))
    for name in ('humaneval', 'humaneval_plus', 'mbpp', 'mbpp_plus')
  }
  for name in ('humaneval', 'mbpp'):
    plain, plus = needs[name], needs[f'{name}_plus']
    assert plain.grader == plus.grader
    assert (plain.seconds, plain.memory_mb) == (10.0, 2048)
    assert plus.seconds >= 60.0
  mixed = tasks.get(tasks.Settings('mbpp_plus=1,humaneval_plus=1'))
  assert (mixed.seconds, mixed.memory_mb) == (120.0, 4096)
