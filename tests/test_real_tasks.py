"""Two-turn runs on real tasks: stopped and resumed, the same problems follow.

The model is the bundled one, to which most of the words are unknown; what it
says is graded all the same.
"""

import json
import pathlib
import shutil
import time

import pytest
import runs as small

FIXTURES = pathlib.Path(__file__).parent / 'tasks' / 'fixtures'
STEPS = 4  # Of each stage.
TINY = {
  'train__stage1_steps': STEPS,
  'train__stage2_steps': STEPS,
  'train__trajectories': 8,
  'sampling__first_attempts': 4,
  'sampling__max_prompt_tokens': 70,
  'sampling__max_tokens': '(12, 12)',
  'task__train_problems': 0,
  'checkpoint__every': 2,
  'eval__every': 0,
  'eval__problems': 2,
  'eval__batch': 2,
  'log__samples_every': 1,
  'log__samples': 8,
  'grading__workers': 2,
  'limits__grader_failures': 1.0,
}
GRADER = '''
"""A user's own grader: the attempt must end in the answer's last digit."""


def grade(problem, text):
  return text.strip().endswith(problem.answer[-1])
'''


def _math(tmp_path):
  return {'task__name': 'math', 'task__manual_dir': FIXTURES / 'math'}


def _mbpp(tmp_path):
  # Three worked examples stand before each problem.
  more = {'sampling__max_prompt_tokens': 420, 'sampling__parts': 2}
  return _programs('mbpp') | more


def _repair(tmp_path):
  # Room for the fixed first attempts.
  return _programs('mbpp_repair') | {
    'sampling__max_prompt_tokens': 120,
    'sampling__max_tokens': '(50, 12)',
  }


def _programs(name):
  if not shutil.which('bwrap'):
    pytest.skip('no bubblewrap: programs are not run without it')
  return {'task__name': name, 'task__manual_dir': FIXTURES / 'mbpp'}


def _jsonl(tmp_path):
  (tmp_path / 'digits.py').write_text(GRADER)
  rows = [
    {'id': f'own-{n}', 'problem': f'{n}+{n}=', 'answer': str(2 * n)}
    for n in range(40)
  ]
  path = tmp_path / 'problems.jsonl'
  path.write_text('\n'.join(map(json.dumps, rows)))
  return {
    'task__name': 'jsonl',
    'task__path': path,
    'task__grader': 'digits:grade',
  }


def _problems(workdir):
  """Returns which problems each step trained on, by stage and step."""
  found = {}
  for line in (workdir / 'samples.jsonl').read_text().splitlines():
    row = json.loads(line)
    found.setdefault((row['stage'], row['step']), []).append(row['id'])
  return found


@pytest.mark.slow
@pytest.mark.parametrize(
  'task',
  [
    pytest.param(_math, marks=pytest.mark.long),
    pytest.param(_mbpp, marks=pytest.mark.long),
    pytest.param(_repair, marks=pytest.mark.long),
    _jsonl,
  ],
)
def test_a_run_killed_and_resumed_sees_the_same_problems_in_the_same_order(
  task, runs, tmp_path, monkeypatch
):
  settings = TINY | {'task__data_dir': tmp_path / 'prepared'} | task(tmp_path)
  monkeypatch.setenv('PYTHONPATH', str(tmp_path))
  unbroken, broken = tmp_path / 'unbroken', tmp_path / 'broken'
  runs.finish(unbroken, **settings)
  log = tmp_path / 'log'
  process = runs.fork(log, broken, **settings)
  saved = broken / 'checkpoints' / 'stage1' / '2'
  deadline = time.monotonic() + small.TIMEOUT
  while not saved.exists():
    assert process.is_alive(), log.read_text()
    assert time.monotonic() < deadline
    time.sleep(0.01)
  process.kill()
  process.join()
  said = runs.finish(broken, **settings)
  assert 'going on from step ' in said
  seen = _problems(unbroken)
  assert list(seen) == [
    (stage, step)
    for stage in ('stage1', 'stage2')
    for step in range(1, STEPS + 1)
  ]
  assert len({name for ids in seen.values() for name in ids}) > 2
  assert _problems(broken) == seen
  for name in ('metrics.jsonl', 'samples.jsonl'):
    assert small.rows(broken / name) == small.rows(unbroken / name)
  for row in small.rows(unbroken / 'metrics.jsonl'):
    # Whatever it wrote was graded.
    assert row['outcome_error_t1'] == row['outcome_timeout_t1'] == 0
