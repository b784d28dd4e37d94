"""The command that shows problems as the model will see them."""

import subprocess
import sys

import pytest
from runs import ROOT

from configs import presets
from score_jax import config as config_lib
from score_jax import show, tokenizer
from score_jax.config import ConfigError


@pytest.fixture(scope='module')
def words():
  return tokenizer.load(str(config_lib.BUNDLED))


def _config(tmp_path, lines, **settings):
  path = tmp_path / 'problems.jsonl'
  path.write_text(lines)
  config = presets.make('score', '')
  config.task.name, config.task.path = 'jsonl', str(path)
  config.task.prompt, config.task.instruction = '{problem}', '\nOnce more:\n'
  config.update_from_flattened_dict(settings)
  return config


def test_a_problem_is_shown_prompt_by_prompt_with_its_lengths(tmp_path):
  line = (
    '{"id": "x", "problem": "12+34=", "answer": "46", "reference": "0046",'
    ' "attempt": "0047", "difficulty": "easy"}\n'
  )
  config = _config(tmp_path, line)
  said = '\n'.join(show.show(config, 'train', 3))
  # Every digit and sign is a token of the bundled model, and so is the end.
  assert (
    '\n=== x, easy\n--- prompt, 6 tokens\n12+34=\n'
    '--- fixed first attempt, 5 tokens\n0047<end>\n'
    '--- answer, for the grader alone\n46\n--- reference, 5 tokens\n'
  ) in said
  between = said.split('=== between two attempts, ')[1]
  assert between.split('\n')[0].endswith(
    'tokens, 2 of them unknown to the model'
  )
  assert between.split('\n')[1] == '<end>'


def test_words_that_the_bundled_model_lacks_are_explained(tmp_path):
  config = _config(tmp_path, '{"problem": "hello", "answer": "1"}\n')
  said = '\n'.join(show.show(config, 'train', 1))
  assert '<unknown> stands for all else; --config.model.path=DIR shows' in said
  config.task.name = 'arithmetic'
  config.task.train_problems = 20
  assert '<unknown> stands' not in '\n'.join(show.show(config, 'train', 1))


def test_the_test_split_is_of_the_task_that_is_tested(tmp_path):
  config = _config(tmp_path, '{"problem": "1+1=", "answer": "2"}\n')
  config.task.eval_name = 'arithmetic'
  assert next(show.show(config, 'test', 1)).startswith('task      arithmetic,')
  assert next(show.show(config, 'train', 1)).startswith('task      jsonl, 1 ')


def test_lengths_are_of_the_whole_split_beside_their_limits(tmp_path):
  lines = ''.join(
    f'{{"problem": "{"1" * n}", "answer": "{n}", "reference": "1"}}\n'
    for n in range(1, 10)
  )
  config = _config(tmp_path, lines, **{'sampling.max_prompt_tokens': 6})
  *_, prompts, references = show.show(config, 'train', 1)
  # The ninth of ten validates: 1 to 8 digits are left, one token each.
  least, median, *_, most = prompts.split('over')[0].split()[1:6]
  assert (least, median, most) == ('1', '4', '8')
  assert prompts.endswith('2 of 8 over sampling.max_prompt_tokens=6')
  assert references.endswith('0 of 8 over sampling.max_tokens=6')


def test_special_tokens_can_be_seen(words):
  ids = [*words.library.encode('12', add_special_tokens=False), words.close]
  assert show.visible(ids, words) == '12<end>'


def test_a_long_answer_is_cut_with_its_length(tmp_path, words):
  config = _config(tmp_path, f'{{"problem": "1", "answer": "{"7" * 5000}"}}\n')
  said = '\n'.join(show.show(config, 'train', 1))
  assert f'{"7" * 2000} ... (5,000 characters)\n' in said
  assert '7' * 2001 not in said


def test_a_split_that_is_not_there_is_refused(tmp_path):
  config = _config(tmp_path, '{"problem": "1", "answer": "1"}\n')
  with pytest.raises(ConfigError, match='has no tests split'):
    list(show.show(config, 'tests', 1))


@pytest.mark.parametrize(
  ('flag', 'code', 'said'),
  [
    ('--count=1', 0, '=== sum-10000\n--- prompt, 8 tokens\n730+614=\n'),
    ('--config.task.name=aritmetic', 2, 'did you mean arithmetic?'),
  ],
)
def test_the_command_prints_or_says_in_one_line_what_is_wrong(flag, code, said):
  done = subprocess.run(
    [
      sys.executable,
      '-m',
      'score_jax.show',
      '--config=configs/stage1.py',
      '--config.task.train_problems=50',
      flag,
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=180,
  )
  assert done.returncode == code, done.stderr
  assert said in (done.stdout if code == 0 else done.stderr)
  assert 'Traceback' not in done.stderr
