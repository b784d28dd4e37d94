"""The published files themselves, where a folder of them is at hand."""

import gzip
import json

import pytest

from score_jax import grading, tasks
from score_jax.problem import Outcome
from score_jax.tasks import catalogue

COUNTS = {
  'gsm8k': {'train': 6_973, 'validation': 500, 'test': 1_319},
  'gsm8k_all': {'train': 7_473, 'test': 1_319},
  'mbpp': {'train': 374, 'validation': 90, 'test': 500},
  'mbpp_sanitized': {'train': 120, 'validation': 43, 'test': 257},
  'mbpp_plus': {'test': 378 - 1},
  'mbpp_plus_test': {'test': 224},
  'humaneval': {'test': 164},
  'humaneval_plus': {'test': 164 - 1},
}


@pytest.fixture(scope='module')
def problems(real, prepared_real):
  """All problems of these tasks, {task: {split: problems}}."""
  found = {}
  for name, counts in COUNTS.items():
    where = {'manual_dir': str(real), 'data_dir': str(prepared_real)}
    task = tasks.get(tasks.Settings(name, **where))
    assert set(task.splits) == set(counts)
    found[name] = {s: tasks.load_problems(task, s, 0) for s in counts}
  return found


def _ids(problems):
  return [p.id for p in problems]


def test_every_split_has_the_published_number_of_problems(problems):
  for name, counts in COUNTS.items():
    found = {s: len(part) for s, part in problems[name].items()}
    assert found == counts, name


def test_problems_keep_the_order_of_the_files(problems):
  for split, ids in {
    'train': range(601, 975),
    'validation': range(511, 601),
    'test': range(11, 511),
  }.items():
    assert _ids(problems['mbpp'][split]) == [f'Mbpp/{n}' for n in ids]
  heads = [f'HumanEval/{n}' for n in range(164)]
  assert _ids(problems['humaneval']['test']) == heads
  heads.remove('HumanEval/32')
  assert _ids(problems['humaneval_plus']['test']) == heads
  lines = [f'test-{n}' for n in range(1, 1_320)]
  assert _ids(problems['gsm8k']['test']) == lines
  train, held = (_ids(problems['gsm8k'][s]) for s in ('train', 'validation'))
  for part in (train, held):
    assert part == sorted(part, key=lambda name: int(name.split('-')[1]))
  assert {*train, *held} == {f'train-{n}' for n in range(1, 7_474)}
  assert _ids(problems['gsm8k_all']['train']) == train + held


def test_every_prompt_holds_its_problem_and_the_form_of_the_answer(
  problems, real
):
  with open(real / 'mbpp' / 'mbpp.jsonl') as file:
    stated = {r['task_id']: r for r in map(json.loads, file)}
  for split in problems['mbpp'].values():
    for problem in split:
      row = stated[int(problem.id.split('/')[1])]
      head, own = problem.prompt.rsplit('\nTask: ', 1)
      assert own.startswith(row['text'].replace('\r\n', '\n'))
      for test in row['test_list'][:3]:
        assert test.replace('\r\n', '\n') in own
      # The worked ones before it are problems 2, 3 and 4.
      for shown in (2, 3, 4):
        assert stated[shown]['text'] in head
      assert problem.reference.startswith('```python\n')
  with gzip.open(real / 'humaneval' / 'HumanEval.jsonl.gz') as file:
    heads = [json.loads(line)['prompt'] for line in file]
  for problem, head in zip(problems['humaneval']['test'], heads, strict=True):
    assert f'```python\n{head}```' in problem.prompt
    start = head.strip('\n')  # Two heads begin with empty lines.
    assert problem.reference.startswith(f'```python\n{start}')
  for split in problems['gsm8k'].values():
    for problem in split:
      assert r'\boxed{answer}' in problem.prompt
      assert rf'\boxed{{{problem.answer}}}' in problem.reference
      float(problem.answer)
      assert '<<' not in problem.reference
      assert '####' not in problem.reference


def test_every_problem_of_mbpp_is_graded_by_all_its_tests(problems, real):
  with open(real / 'mbpp' / 'mbpp.jsonl') as file:
    stated = {r['task_id']: r for r in map(json.loads, file)}
  for split in problems['mbpp'].values():
    for problem in split:
      row = stated[int(problem.id.split('/')[1])]
      tests = json.loads(problem.answer)['tests']
      assert tests == row['test_list'] + row['challenge_test_list']
  entries = {
    p.id: json.loads(p.answer)['entry']
    for split in problems['mbpp'].values()
    for p in split
  }
  assert all(entries.values())
  assert entries['Mbpp/126'] == 'sum'


def test_no_problem_is_in_two_splits(problems):
  for name, splits in problems.items():
    ids = [i for part in splits.values() for i in _ids(part)]
    assert len(set(ids)) == len(ids), name
  plus = set(_ids(problems['mbpp_plus_test']['test']))
  assert plus <= set(_ids(problems['mbpp']['test']))


def test_the_tasks_here_are_all_but_those_not_at_hand_or_made_in_minutes():
  missing = {'math', 'math_all', 'aime24', 'aime25', 'mbpp_repair'}
  published = {name for name, r in catalogue.RECIPES.items() if r.source}
  assert set(COUNTS) | missing == published


@pytest.mark.long
def test_all_programs_to_repair_are_wrong_and_made_alike_twice(
  real, tmp_path_factory
):
  """All of MBPP, made twice: some minutes."""
  made = []
  for _ in range(2):
    where = str(tmp_path_factory.mktemp('repair'))
    task = tasks.get(
      tasks.Settings('mbpp_repair', manual_dir=str(real), data_dir=where)
    )
    made.append({s: tasks.load_problems(task, s, 0) for s in task.splits})
  assert made[0] == made[1]
  counts = {split: len(part) for split, part in made[0].items()}
  assert counts == {'train': 697, 'validation': 163, 'test': 947}
  limits = grading.Limits(0, 20.0, 2048, allow_unprotected=False)
  with grading.open_grader(task, limits) as grader:
    for part in made[0].values():
      wrong = grader.grade(part, [p.attempt for p in part])
      assert {verdict.outcome for verdict in wrong} == {Outcome.WRONG}
      right = grader.grade(part, [p.reference for p in part])
      assert {verdict.outcome for verdict in right} == {Outcome.RIGHT}
