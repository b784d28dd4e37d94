"""What the model is asked, and what it is told between its attempts.

The wording is our own, and each text is a setting. `{problem}` stands for the
problem, `{examples}` for worked examples where a task has them; all other
braces are text, as LaTeX needs them.

An instruction may not say whether the attempt was right: the model would then
learn to wait for the verdict. So it hedges, asks for the whole answer anew and
for nothing else, and repeats the form of the final answer.
"""

from __future__ import annotations

from collections.abc import Sequence

from score_jax.config import ConfigError
from score_jax.problem import Problem

PROBLEM, EXAMPLES = '{problem}', '{examples}'

PLAIN_PROMPT = PROBLEM
ARITHMETIC_INSTRUCTION = '\nThere may be an error. If so, correct it:\n'

_BOXED = r'the final answer, written as \boxed{answer}'

MATH_PROMPT = (
  'Solve the following problem. Explain each step of the solution, and end '
  f'with {_BOXED}.\n\nProblem: {{problem}}\n\nSolution:\n'
)

MATH_INSTRUCTION = (
  '\nThere might be an error in the solution above. If there is one, correct '
  'it. Write the whole solution anew and nothing but the solution. End with '
  f'{_BOXED}.\n\nSolution:\n'
)

_PROGRAM = 'one block that begins with ```python and ends with ```'

MBPP_PROMPT = (
  'Write a Python program for the task, which has to pass the tests. Answer '
  f'with the whole program in {_PROGRAM}.\n\n'
  '{examples}Task: {problem}\n\nProgram:\n'
)

HUMANEVAL_PROMPT = (
  'Complete the following Python function. Answer with the whole program, the '
  f'lines given here included, in {_PROGRAM}.\n\n'
  '```python\n{problem}```\n\nProgram:\n'
)

TASK_PROMPT = MBPP_PROMPT.replace(EXAMPLES, '')  # Without examples.

# A comment line, for the program goes on with a program.
CODE_INSTRUCTION = (
  '\n# There might be an error in the program above. If there is one, correct '
  'it. Write the whole program anew and nothing but the program, in '
  f'{_PROGRAM}.\n'
)


def program(source: str) -> str:
  """Returns a program in the form that prompts ask for."""
  body = source.strip('\n')
  return f'```python\n{body}\n```'


def source_of(response: str) -> str:
  """Returns the program in a response that `program` has made."""
  return response.removeprefix('```python\n').removesuffix('\n```')


def check(name: str, template: str, has_examples: bool) -> None:
  """Refuses a prompt without the problem, or with examples that are not there.

  Args:
    name: of the task.
    template: its prompt.
    has_examples: whether its data holds worked examples.

  Raises:
    ConfigError: with the remedy.
  """
  if PROBLEM not in template:
    raise ConfigError(
      f'task.prompt must hold {PROBLEM}, where the problem goes; got '
      f'{template[:80]!r}.'
    )
  if EXAMPLES in template and not has_examples:
    raise ConfigError(
      f'task.prompt holds {EXAMPLES}, but task.name={name!r} has no worked '
      'examples; leave it out, or write them into the prompt.'
    )


def with_examples(template: str, examples: Sequence[Problem]) -> str:
  """Returns a prompt's template with its worked examples filled in.

  Each example stands as the problem itself does, from the line of `{problem}`
  to the end, with its reference behind it.
  """
  head, found, rest = template.partition(EXAMPLES)
  shown = ''.join(
    f'{rest.replace(PROBLEM, example.prompt)}{example.reference}\n\n'
    for example in examples
  )
  return head + shown + rest if found else template


def pieces(template: str) -> list[str]:
  """Returns what stands before, between and behind the places of problems."""
  return template.split(PROBLEM)
