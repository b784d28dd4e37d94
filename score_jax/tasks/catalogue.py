"""Which tasks there are by name: data, wording and grader of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from score_jax.tasks import jsonl, wording

MATH_GRADER = 'score_jax.graders.math:grade'
CODE_GRADER = 'score_jax.graders.code:grade'
ARITHMETIC_GRADER = 'score_jax.tasks.arithmetic:grade'


@dataclasses.dataclass(frozen=True)
class Recipe:
  """What a task is made of; each text is the default of a setting."""

  source: str  # The data set that is prepared; '' = none is.
  splits: Mapping[str, str]  # Each in the terms of what was prepared.
  prompt: str
  instruction: str
  grader: str
  # Ids, in the split 'prompt', of the worked examples that prompts show.
  examples: tuple[str, ...] = ()
  # What its references need of the grader, with room: see docs/grading.md.
  seconds: float = 10.0  # Of the clock, for one answer.
  memory_mb: int = 2048


_WHOLE = {split: split for split in ('train', 'validation', 'test')}
# All that there is to train on; nothing is left to validate with.
_ALL = {'train': 'train+validation', 'test': 'test'}
_TEST = {'test': 'test'}
# Mbpp/255 builds two lists of 1.7 million tuples of 77 and compares them.
_MBPP_PLUS = {'seconds': 120.0, 'memory_mb': 4096}
_SHOTS = ('Mbpp/2', 'Mbpp/3', 'Mbpp/4')  # Those of Austin et al. (2021).


def _math(source: str, splits: Mapping[str, str]) -> Recipe:
  return Recipe(
    source, splits, wording.MATH_PROMPT, wording.MATH_INSTRUCTION, MATH_GRADER
  )


def _code(
  source: str,
  splits: Mapping[str, str],
  prompt: str,
  examples: tuple[str, ...] = (),
  **limits: float,
) -> Recipe:
  instruction = wording.CODE_INSTRUCTION
  return Recipe(
    source, splits, prompt, instruction, CODE_GRADER, examples, **limits
  )


RECIPES: dict[str, Recipe] = {
  'arithmetic': Recipe(
    '',
    _WHOLE,
    wording.PLAIN_PROMPT,
    wording.ARITHMETIC_INSTRUCTION,
    ARITHMETIC_GRADER,
  ),
  'math': _math('math', _WHOLE),
  'math_all': _math('math', _ALL),
  'gsm8k': _math('gsm8k', _WHOLE),
  'gsm8k_all': _math('gsm8k', _ALL),
  'aime24': _math('aime24', _TEST),
  'aime25': _math('aime25', _TEST),
  'mbpp': _code('mbpp', _WHOLE, wording.MBPP_PROMPT, _SHOTS),
  'mbpp_sanitized': _code(
    'mbpp_sanitized', _WHOLE, wording.MBPP_PROMPT, _SHOTS
  ),
  # As it is published, over all of MBPP's ids, those to train on included.
  'mbpp_plus': _code(
    'mbpp_plus',
    {'test': 'prompt+test+validation+train'},
    wording.TASK_PROMPT,
    **_MBPP_PLUS,
  ),
  # The part that no training on MBPP has seen.
  'mbpp_plus_test': _code(
    'mbpp_plus', _TEST, wording.TASK_PROMPT, **_MBPP_PLUS
  ),
  # Each with a wrong program as its first attempt.
  'mbpp_repair': _code('mbpp_repair', _WHOLE, wording.TASK_PROMPT),
  'humaneval': _code('humaneval', _TEST, wording.HUMANEVAL_PROMPT),
  'humaneval_plus': _code(
    'humaneval_plus', _TEST, wording.HUMANEVAL_PROMPT, seconds=60.0
  ),
  'jsonl': _math('', {split: split for split in jsonl.SPLITS}),
}
MIXTURES: dict[str, str] = {
  'math_gsm8k': 'math=2,gsm8k=1',
  'aime': 'aime24=1,aime25=1',
}
