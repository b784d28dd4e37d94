"""Published layouts, read from problems of our own."""

import ast
import dataclasses
import json
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from score_jax.config import ConfigError
from score_jax.problem import Problem
from score_jax.tasks import mathematics, programs, published

SOURCES = [
  mathematics.MATH,
  mathematics.GSM8K,
  mathematics.AIME24,
  mathematics.AIME25,
  programs.MBPP,
  programs.MBPP_SANITIZED,
  programs.MBPP_PLUS,
  programs.HUMANEVAL,
  programs.HUMANEVAL_PLUS,
]


def _read(source, folder):
  return published.read(source, *published.find(source, folder))


def _copy(ours, tmp_path, name):
  shutil.copytree(ours / name, tmp_path / name)
  return tmp_path / name


@pytest.mark.parametrize('source', SOURCES, ids=lambda s: s.name)
def test_problems_are_whole_and_no_id_is_in_two_splits(source, ours):
  splits, notes = _read(source, ours)
  problems = [p for split in splits.values() for p in split]
  assert len({p.id for p in problems}) == len(problems) > 0
  for problem in problems:
    assert problem.prompt
    assert problem.answer
    assert problem.reference
    assert '\r' not in problem.prompt + problem.reference
  # Fewer than were published, which is said of each split.
  assert len(notes) >= len(source.published)


@pytest.mark.parametrize(
  ('text', 'answer'),
  [
    (r'so \boxed{12}.', '12'),
    (r'\boxed{1} and then \boxed{\frac{1}{2}} ends', r'\frac{1}{2}'),
    (r'\boxed 7$ it is', '7'),
    (r'$\fbox{a b}$', 'a b'),
    (r'\boxed{\{1, 2\}}', r'\{1, 2\}'),
    (r'\boxed{\left\{ x}', r'\left\{ x'),
    (r'\boxed{ 3 } \boxed{4', '3'),
    (r'\boxedx{3}', None),
    ('no box', None),
    (r'\boxed', None),
    (r'\boxed{\\}', r'\\'),
  ],
)
def test_the_answer_is_what_stands_in_the_last_whole_box(text, answer):
  assert mathematics.boxed(text) == answer


@given(
  st.recursive(
    st.just('x'),
    lambda s: s.map('{{{}}}'.format) | st.tuples(s, s).map(''.join),
    max_leaves=8,
  )
)
def test_braces_inside_a_box_are_kept(inside):
  assert mathematics.boxed(rf'a \boxed{{{inside}}} b') == inside


def test_math_from_its_folders_is_math_from_the_lists(tmp_path, ours):
  folders, _ = _read(mathematics.MATH, ours)
  shutil.copytree(ours / 'math_lists', tmp_path / 'math')
  lists, _ = _read(mathematics.MATH, tmp_path)
  assert (
    published.find(mathematics.MATH, tmp_path)[0]
    is not (published.find(mathematics.MATH, ours)[0])
  )
  assert folders == lists


def test_the_listed_problems_of_math_are_its_test_and_all_others_train(ours):
  splits, _ = _read(mathematics.MATH, ours)
  # The list names problems 2, 5 and 9 of both subjects' test folders.
  listed = {
    f'test/{s}/{k}.json' for s in ('algebra', 'geometry') for k in (2, 5, 9)
  }
  assert {p.id for p in splits['test']} == listed
  others = {p.id for s in ('train', 'validation') for p in splits[s]}
  # Two folders of two subjects with twelve problems each.
  assert len(others) == 48 - 6
  assert len(splits['validation']) == 42 // 10
  assert {p.id.split('/')[0] for p in splits['train']} == {'train', 'test'}


def test_math_keeps_levels_that_are_not_known(ours):
  splits, _ = _read(mathematics.MATH, ours)
  levels = {p.difficulty for p in splits['train']}
  assert {'Level ?', 'Level 1', 'Level 5'} <= levels


@pytest.mark.parametrize(
  ('line', 'reason'),
  [
    ('{"unique_id": "test/algebra/99.json"}', "names 'test/algebra/99.json'"),
    ('{"problem": "Who?"}', "names 'Who[?]', which is not in the folders"),
    ('{"id": 3}', "line 1 has no 'problem'"),
  ],
)
def test_a_listed_problem_that_is_not_there_is_refused(
  tmp_path, ours, line, reason
):
  folder = _copy(ours, tmp_path, 'math')
  (folder / 'math_splits' / 'test.jsonl').write_text(line)
  with pytest.raises(ConfigError, match=reason):
    _read(mathematics.MATH, tmp_path)


def test_a_damaged_file_of_math_is_refused_by_name(tmp_path, ours):
  folder = _copy(ours, tmp_path, 'math')
  path = folder / 'MATH' / 'train' / 'algebra' / '3.json'
  path.write_text(path.read_text()[:40])
  with pytest.raises(ConfigError, match=r'algebra/3\.json, line 2 is no JSON'):
    _read(mathematics.MATH, tmp_path)


def test_gsm8k_keeps_the_number_alone_and_no_calculator_marks(ours):
  splits, _ = _read(mathematics.GSM8K, ours)
  first = splits['test'][0]
  # Problem 20: 23 pears in each of 1020 crates.
  assert (first.id, first.answer) == ('test-1', str(23 * 1020))
  assert first.reference == (
    'Each crate holds 23, so 1020 crates hold 23460.\n'
    r'The final answer is $\boxed{23460}$.'
  )
  assert '<<' not in ''.join(p.reference for p in splits['train'])


def test_an_answer_of_gsm8k_without_its_mark_is_refused(tmp_path, ours):
  folder = _copy(ours, tmp_path, 'gsm8k')
  row = {'question': 'q', 'answer': 'It is 4.'}
  (folder / 'test.jsonl').write_text(json.dumps(row))
  with pytest.raises(ConfigError, match=r'test\.jsonl, line 1 has an answer'):
    _read(mathematics.GSM8K, tmp_path)


@pytest.mark.parametrize(
  'fields',
  [
    {'ID': 'a', 'Problem': 'p', 'Answer': 7},
    {'id': 'a', 'problem': 'p', 'answer': '007'},
    {'id': 'a', 'question': 'p', 'answer': '7', 'solution': None},
  ],
)
@pytest.mark.parametrize('suffix', ['jsonl', 'json'])
def test_aime_is_read_in_all_its_forms(tmp_path, fields, suffix):
  text = json.dumps([fields] if suffix == 'json' else fields)
  (tmp_path / f'aime24.{suffix}').write_text(text)
  splits, _ = _read(mathematics.AIME24, tmp_path)
  form = r'The final answer is $\boxed{7}$.'
  assert splits == {'test': [Problem('a', 'p', '7', form)]}


def test_aime_is_read_from_parquet(tmp_path):
  pyarrow = pytest.importorskip('pyarrow')
  from pyarrow import parquet

  rows = [{'ID': 'a', 'Problem': 'p', 'Solution': 's', 'Answer': 7}]
  path = tmp_path / 'aime_2024_problems.parquet'
  parquet.write_table(pyarrow.Table.from_pylist(rows), path)
  splits, _ = _read(mathematics.AIME24, tmp_path)
  assert splits['test'][0].reference == 's\nThe final answer is $\\boxed{7}$.'
  path.write_bytes(path.read_bytes()[:50])
  with pytest.raises(ConfigError, match=r'\.parquet cannot be read'):
    _read(mathematics.AIME24, tmp_path)


def test_the_two_parts_of_an_aime_have_ids_of_their_own(ours):
  splits, _ = _read(mathematics.AIME25, ours)
  assert [(p.id, p.answer) for p in splits['test']] == [
    ('I-1', '7'),
    ('II-1', '4'),
  ]


def test_mbpp_is_split_by_task_id(ours):
  splits, _ = _read(programs.MBPP, ours)
  assert {s: [p.id for p in part] for s, part in splits.items()} == {
    'prompt': ['Mbpp/1', 'Mbpp/2', 'Mbpp/3', 'Mbpp/4'],
    'test': ['Mbpp/11', 'Mbpp/12'],
    'validation': ['Mbpp/511'],
    'train': ['Mbpp/601', 'Mbpp/602', 'Mbpp/974'],
  }


def _run(problem):
  """Runs a reference against its tests in this process: ours are harmless."""
  decides = json.loads(problem.answer)
  source = problem.reference.removeprefix('```python\n').removesuffix('\n```')
  names = {}
  for text in (decides['before'], source, decides['setup'], *decides['tests']):
    exec(text, names)
  return decides


@pytest.mark.parametrize('source', SOURCES[4:], ids=lambda s: s.name)
def test_references_pass_all_their_tests(source, ours):
  splits, _ = _read(source, ours)
  for split in splits.values():
    for problem in split:
      _run(problem)


def test_mbpp_states_three_tests_and_grades_by_the_challenge_tests_too(ours):
  splits, _ = _read(programs.MBPP, ours)
  first = splits['prompt'][0]
  assert first.prompt == (
    'Write a function to double a number.\nTests:\nassert double(2) == 4\n'
    'assert double(0) == 0\nassert double(-3) == -6'
  )
  assert len(_run(first)['tests']) == 4
  # The box is made by setup code, of a class that the program defines.
  assert _run(splits['validation'][0])['setup'] == 'box = Box(3)'
  assert _run(splits['prompt'][3])['entry'] == 'sum'


def test_humaneval_asks_for_the_function_whose_head_it_states(ours):
  splits, _ = _read(programs.HUMANEVAL, ours)
  for problem in splits['test']:
    entry = json.loads(problem.answer)['entry']
    assert f'def {entry}(' in problem.prompt
    source = problem.reference.removeprefix('```python\n').removesuffix('\n```')
    assert source.startswith(problem.prompt)
    ast.parse(source)


@pytest.mark.parametrize(
  ('source', 'name'),
  [
    (programs.HUMANEVAL_PLUS, 'HumanEval/32'),
    (programs.MBPP_PLUS, 'Mbpp/599'),
  ],
  ids=lambda x: getattr(x, 'name', x),
)
def test_what_is_broken_is_left_out_by_name_with_the_reason(source, name, ours):
  splits, notes = _read(source, ours)
  assert name not in {p.id for split in splits.values() for p in split}
  (note,) = [note for note in notes if name in note]
  assert f'{name} is left out: its ' in note


def test_without_its_files_a_folder_is_refused_with_where_they_are(tmp_path):
  with pytest.raises(ConfigError) as caught:
    published.find(mathematics.GSM8K, tmp_path)
  said = str(caught.value)
  assert 'does not hold gsm8k; put train.jsonl (https://raw.github' in said


def test_files_may_lie_beside_each_other_or_in_a_folder_of_their_own(
  ours, tmp_path
):
  assert published.find(programs.MBPP, ours)[1]['all'].is_file()
  assert published.find(programs.MBPP, ours / 'mbpp')[1]['all'].is_file()


def _problems(count):
  return [Problem(f'p{n}', 'x', '1', '1') for n in range(count)]


@given(st.integers(0, 60), st.randoms())
def test_what_is_held_out_depends_on_the_problems_alone(count, random):
  problems = _problems(count)
  mixed = random.sample(problems, count)
  one, other = published.hold_out(problems), published.hold_out(mixed)
  assert {s: set(p) for s, p in one.items()} == {
    s: set(p) for s, p in other.items()
  }
  assert len(one['validation']) == count // 10


def test_no_more_than_500_are_held_out():
  assert len(published.hold_out(_problems(6000))['validation']) == 500


def test_an_id_that_stands_twice_is_refused(tmp_path, ours):
  folder = _copy(ours, tmp_path, 'humaneval')
  path = folder / 'HumanEval.jsonl'
  path.write_text(path.read_text() * 2)
  with pytest.raises(ConfigError, match="has the id 'HumanEval/0' twice"):
    _read(programs.HUMANEVAL, tmp_path)


def test_a_count_other_than_the_published_one_is_said(ours):
  source = dataclasses.replace(mathematics.AIME24, published={'test': 3})
  assert _read(source, ours)[1] == []
  source = dataclasses.replace(source, published={'test': 4})
  assert _read(source, ours)[1] == [
    'aime24: 3 problems in test, where 4 were published.'
  ]


def test_a_split_without_a_problem_is_refused(tmp_path, ours):
  folder = _copy(ours, tmp_path, 'mbpp')
  lines = (folder / 'mbpp.jsonl').read_text().splitlines()
  (folder / 'mbpp.jsonl').write_text('\n'.join(lines[:-3]))
  with pytest.raises(ConfigError, match='has no problem of its split train'):
    _read(programs.MBPP, tmp_path)
