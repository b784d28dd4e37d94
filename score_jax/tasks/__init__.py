"""Tasks: a source of problems, their wording, and a grader.

A task is text only; no model's vocabulary is known here. Its problems come
from a seqio Task of the same name, so that sources, splits and mixtures are
seqio's.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

from score_jax.config import ConfigError, nearest
from score_jax.problem import Problem
from score_jax.tasks import arithmetic, jsonl, mathematics, registry, wording
from score_jax.tasks import mixture as mixtures
from score_jax.tasks.catalogue import (
  ARITHMETIC_GRADER,
  MIXTURES,
  Recipe,
  RECIPES,
)
from score_jax.tasks.mixture import Member

# Graders that can neither hang nor crash, and need no process of their own.
HARMLESS = (ARITHMETIC_GRADER,)


@dataclasses.dataclass(frozen=True)
class Settings:
  """Which task, and in which words; '' = as it is by default."""

  name: str  # One of RECIPES or MIXTURES, or as 'math=2,gsm8k=1'.
  path: str = ''  # Of name='jsonl': a file of problems, or a folder.
  grader: str = ''  # 'module:function'.
  prompt: str = ''  # With {problem} in it.
  instruction: str = ''  # Between attempts.
  manual_dir: str = ''  # A folder with the published files; '' = downloaded.
  data_dir: str = ''  # Where TFDS keeps what it prepared; '' = as TFDS does.


@dataclasses.dataclass(frozen=True)
class Task:
  """What a task knows beside its problems."""

  name: str  # Of the seqio Task or Mixture.
  prompt: str  # A template, see `wording`; '' = each member's own.
  instruction: str  # Between attempts; does not say whether one was right.
  grader: str  # 'module:function', from (Problem, text) to a Verdict.
  isolated: bool  # Whether the grader needs a process of its own.
  seconds: float  # That it needs for one answer, with room.
  memory_mb: int  # The same.
  register: Callable[[], None]  # Adds it to seqio's registry, data prepared.
  splits: tuple[str, ...]  # Of 'train', 'validation', 'test'.
  members: tuple[Member, ...]  # Of a mixture; else the task itself.


def get(settings: Settings) -> Task:
  """Returns a task; nothing of its data is read.

  Args:
    settings: `config.task`, or whatever else has the fields of Settings.

  Raises:
    ConfigError: if there is none of that name, or if a setting does not fit.
  """
  if settings.name in MIXTURES or '=' in settings.name:
    return _mixture(settings)
  name = settings.name
  if name not in RECIPES:
    known = [*RECIPES, *MIXTURES]
    raise ConfigError(
      f'task.name must be one of {", ".join(known)}, or a mixture as '
      f'math=2,gsm8k=1; got {name!r}{nearest(name, known)}.'
    )
  recipe = RECIPES[name]
  prompt = settings.prompt or recipe.prompt
  wording.check(name, prompt, bool(recipe.examples))
  grader = _grader(settings.grader or recipe.grader)
  splits = jsonl.splits(settings.path) if name == 'jsonl' else recipe.splits
  return Task(
    name=name,
    prompt=prompt,
    instruction=settings.instruction or recipe.instruction,
    grader=grader,
    isolated=grader not in HARMLESS,
    seconds=recipe.seconds,
    memory_mb=recipe.memory_mb,
    register=lambda: _register(settings, recipe, prompt),
    splits=tuple(splits),
    members=(Member(name, 1),),
  )


def tested(settings: Settings) -> Task:
  """Returns the task whose test split is evaluated.

  Another task than the one to train on has its own wording and grader; the
  instruction is the job's, for the two are continued alike.

  Args:
    settings: those of the config, or anything with their names.
  """
  if not settings.eval_name:
    return get(settings)
  return get(
    Settings(
      name=settings.eval_name,
      instruction=settings.instruction,
      manual_dir=settings.manual_dir,
      data_dir=settings.data_dir,
    )
  )


def _grader(name: str) -> str:
  if not re.fullmatch(r'[\w.]+:\w+', name):
    raise ConfigError(
      f'task.grader must be module:function, as my_graders:grade; got {name!r}.'
    )
  return name


def _register(settings: Settings, recipe: Recipe, prompt: str) -> None:
  """Adds one task to seqio's registry."""
  name = settings.name
  if name == 'arithmetic':
    registry.add_columns(name, recipe.splits, arithmetic.columns, prompt)
  elif name == 'jsonl':
    problems = jsonl.load(settings.path, _reference_form(settings))
    registry.add_columns(
      name, tuple(problems), lambda s: registry.columns_of(problems[s]), prompt
    )
  else:
    registry.add_published(
      name, recipe, prompt, settings.manual_dir, settings.data_dir
    )


def _reference_form(settings: Settings) -> str:
  """Returns how an answer becomes a reference, where a problem has none.

  A grader of the user's own reads an answer in a form that is not known here.
  """
  own = settings.grader and settings.grader != RECIPES['jsonl'].grader
  return '{answer}' if own else mathematics.FORM


def _mixture(settings: Settings) -> Task:
  """Returns a mixture; its members must be graded and continued alike."""
  text = MIXTURES.get(settings.name, settings.name)
  members = mixtures.parse(text)
  tasks = [get(_named(settings, member.name)) for member in members]
  for task in tasks[1:]:
    _check_alike(text, tasks[0], task)
  prompts = {task.prompt for task in tasks}
  splits = [s for s in tasks[0].splits if all(s in t.splits for t in tasks)]

  def register() -> None:
    for task in tasks:
      task.register()
    registry.add_mixture(settings.name, members)

  return Task(
    name=settings.name,
    prompt=prompts.pop() if len(prompts) == 1 else '',
    instruction=tasks[0].instruction,
    grader=tasks[0].grader,
    isolated=tasks[0].isolated,
    seconds=max(task.seconds for task in tasks),
    memory_mb=max(task.memory_mb for task in tasks),
    register=register,
    splits=tuple(splits),
    members=members,
  )


def _named(settings: Settings, name: str) -> Settings:
  return Settings(
    name=name,
    path=settings.path,
    grader=settings.grader,
    prompt=settings.prompt,
    instruction=settings.instruction,
    manual_dir=settings.manual_dir,
    data_dir=settings.data_dir,
  )


def _check_alike(text: str, first: Task, other: Task) -> None:
  """Refuses members that one grader and one instruction do not serve."""
  for setting, same in (
    ('task.grader', first.grader == other.grader),
    ('task.instruction', first.instruction == other.instruction),
  ):
    if not same:
      raise ConfigError(
        f'task.name={text!r} mixes {first.name} and {other.name}, which differ '
        f'in {setting}; set it to what serves both.'
      )


def load_problems(task: Task, split: str, count: int) -> list[Problem]:
  """Returns the first `count` problems of a split; 0 = all.

  Those of a mixture stand member by member, as many of each as its rate gives;
  their ids begin with the member's name and a slash.

  Args:
    task: whose seqio Task is read, in its own order.
    split: 'train', 'validation' or 'test'.
    count: at most so many problems.

  Raises:
    ConfigError: if the task has no such split, or its data cannot be read.
  """
  if split not in task.splits:
    raise ConfigError(
      f'task.name={task.name!r} has no {split} split, only '
      f'{", ".join(task.splits) or "none that all its members have"}; choose '
      'another task for it (task.eval_name names the one to test with).'
    )
  task.register()
  rates = [member.rate for member in task.members]
  counts = mixtures.shares(rates, count) if count else [-1] * len(rates)
  problems = []
  for member, most in zip(task.members, counts, strict=True):
    found = registry.read(member.name, split, most)
    if len(task.members) > 1:
      found = [
        dataclasses.replace(p, id=f'{member.name}/{p.id}') for p in found
      ]
    problems += found
  return problems
