"""Prints problems as the model will see them, with their lengths in tokens.

python -m score_jax.show --config=configs/stage1.py:math
  [--config.model.path=DIR] [--config.some.setting=value ...]
  [--count=3] [--split=train]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import numpy as np
from absl import app, flags, logging
from ml_collections import ConfigDict

from score_jax import base_model, tasks, tokenizer
from score_jax import config as config_lib
from score_jax import main as main_lib
from score_jax.chat import Chat
from score_jax.config import ConfigError
from score_jax.problem import Problem
from score_jax.tasks import Task
from score_jax.tokenizer import Tokenizer

QUANTILES = (0.0, 0.5, 0.9, 0.99, 1.0)
WIDEST = 2000  # Characters of an oracle answer that are shown: tests are long.
_COUNT = flags.DEFINE_integer('count', 3, 'How many problems are shown.')
_SPLIT = flags.DEFINE_string('split', 'train', 'Of which split.')


def show(config: ConfigDict, split: str, count: int) -> Iterator[str]:
  """Yields what there is to see of a split, line by line.

  Args:
    config: of which the task, the model's tokenizer and the lengths count.
    split: 'train', 'validation' or 'test'.
    count: how many problems are shown; the lengths are of all.

  Raises:
    ConfigError: if the task or the tokenizer cannot be had.
  """
  c = config.task
  task = tasks.tested(c) if split == 'test' else tasks.get(c)
  folder = base_model.model_folder(config)
  words = tokenizer.load(folder, Chat(c.chat, c.system, c.thinking))
  most = config.task.train_problems if split == 'train' else 0
  problems = tasks.load_problems(task, split, most)
  yield f'task      {task.name}, {len(problems):,} problems in {split}'
  yield f'grader    {task.grader}'
  yield from (f'prompts   {note}' for note in words.notes)
  if folder == str(config_lib.BUNDLED) and task.name != 'arithmetic':
    yield (
      'tokens    of the bundled model, which knows sums alone: <unknown> stands '
      'for all else; --config.model.path=DIR shows them as your model has them'
    )
  for problem in problems[:count]:
    yield from _problem(problem, words)
  yield ''
  yield from _between(tasks.get(c), words)
  yield ''
  yield from _lengths(problems, words, config)


def _problem(problem: Problem, words: Tokenizer) -> Iterator[str]:
  """Yields one problem, prompt by prompt."""
  prompt = words.prompts([problem.prompt])[0]
  label = f', {problem.difficulty}' if problem.difficulty else ''
  yield f'\n=== {problem.id}{label}'
  yield f'--- prompt, {_tokens(prompt, words)}'
  yield visible(prompt, words)
  if problem.attempt:
    fixed = words.written(problem.attempt)
    yield f'--- fixed first attempt, {_tokens(fixed, words)}'
    yield visible(fixed, words)
  answer = problem.answer
  cut = f' ... ({len(answer):,} characters)' if len(answer) > WIDEST else ''
  yield f'--- answer, for the grader alone\n{answer[:WIDEST]}{cut}'
  yield f'--- reference, {_tokens(words.written(problem.reference), words)}'


def _between(task: Task, words: Tokenizer) -> Iterator[str]:
  ids = words.between(task.instruction)
  yield f'=== between two attempts, {_tokens(ids, words)}'
  yield visible([words.close, *ids], words)


def visible(ids: Sequence[int], words: Tokenizer) -> str:
  """Returns ids as text in which special tokens can be seen."""
  return words.library.decode(
    list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
  )


def _tokens(ids: Sequence[int], words: Tokenizer) -> str:
  """Returns how many ids there are, and how many stand for unknown text."""
  unknown = sum(i == words.library.unk_token_id for i in ids)
  strange = f', {unknown} of them unknown to the model' if unknown else ''
  return f'{len(ids)} tokens{strange}'


def _lengths(
  problems: Sequence[Problem], words: Tokenizer, config: ConfigDict
) -> Iterator[str]:
  """Yields the quantiles of lengths, beside the settings that limit them."""
  s = config.sampling
  prompts = [len(ids) for ids in words.prompts([p.prompt for p in problems])]
  references = [len(words.written(p.reference)) for p in problems]
  names = ['least', *(f'{q:.0%}' for q in QUANTILES[1:-1]), 'most']
  yield f'{"tokens":12}' + ''.join(f'{name:>8}' for name in names)
  for name, lengths, setting, most in (
    ('prompt', prompts, 'sampling.max_prompt_tokens', s.max_prompt_tokens),
    ('reference', references, 'sampling.max_tokens', s.max_tokens[0]),
  ):
    values = np.quantile(lengths, QUANTILES)
    over = sum(length > most for length in lengths)
    yield (
      f'{name:12}'
      + ''.join(f'{value:8.0f}' for value in values)
      + f'   {over:,} of {len(lengths):,} over {setting}={most}'
    )


def main(argv: Sequence[str]) -> None:
  """Prints what the flags ask for."""
  del argv
  logging.set_verbosity(logging.WARNING)
  try:
    for line in show(flags.FLAGS.config, _SPLIT.value, _COUNT.value):
      print(line)
  except ConfigError as error:
    print(f'score_jax: {error}', file=sys.stderr)
    sys.exit(2)


if __name__ == '__main__':
  app.run(main, flags_parser=main_lib.parse)
