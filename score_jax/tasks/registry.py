"""seqio's registry: what a task adds to it, under its plain name.

Functions import seqio, and TensorFlow with it, when they are called: seconds
that a refused setting never pays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from score_jax.config import ConfigError
from score_jax.problem import Problem
from score_jax.tasks import wording
from score_jax.tasks.catalogue import Recipe
from score_jax.tasks.mixture import Member

FIELDS = tuple(field.name for field in dataclasses.fields(Problem))
Columns = Mapping[str, Any]  # {field: texts} of all problems of a split.


def add_published(
  name: str, recipe: Recipe, template: str, manual_dir: str, data_dir: str
) -> None:
  """Adds a task over a published data set, which is prepared if it is not yet.

  Raises:
    ConfigError: if it cannot be prepared.
  """
  import seqio

  from score_jax.tasks import builders

  builders.prepare(recipe.source, manual_dir, data_dir)
  template = _fill_examples(recipe, template, data_dir)
  source = seqio.TfdsDataSource(
    tfds_name=f'{builders.NAME}/{recipe.source}:{builders.VERSION}',
    tfds_data_dir=builders.folder(data_dir),
    splits=dict(recipe.splits),
  )
  _add(name, source, template)


def _fill_examples(recipe: Recipe, template: str, data_dir: str) -> str:
  from score_jax.tasks import builders

  if wording.EXAMPLES not in template:
    return template
  known = builders.read_split(recipe.source, data_dir, 'prompt')
  by_id = {problem.id: problem for problem in known}
  missing = [name for name in recipe.examples if name not in by_id]
  if missing:
    raise ConfigError(
      f'{recipe.source} has no {missing[0]}, which task.prompt shows in the '
      f'place of {wording.EXAMPLES}; leave that out of task.prompt.'
    )
  return wording.with_examples(template, [by_id[n] for n in recipe.examples])


def add_columns(
  name: str,
  splits: Sequence[str],
  columns: Callable[[str], Columns],
  template: str,
) -> None:
  """Adds a task over problems that are made or read here.

  Args:
    name: of the task.
    splits: it has.
    columns: from a split to the fields of its problems.
    template: of the prompt.
  """
  import seqio
  import tensorflow as tf

  def dataset(split, shuffle_files, seed=None):
    del shuffle_files, seed  # One source; order is the reader's.
    return tf.data.Dataset.from_tensor_slices(
      {
        field: texts if isinstance(texts, np.ndarray) else _constant(texts)
        for field, texts in columns(split).items()
      }
    )

  _add(name, seqio.FunctionDataSource(dataset, splits=tuple(splits)), template)


def _constant(texts: Sequence[str]) -> Any:
  """Returns texts as they are; an array of NumPy would end one at a NUL."""
  import tensorflow as tf

  return tf.constant([text.encode() for text in texts], tf.string)


def columns_of(problems: Sequence[Problem]) -> Columns:
  """Returns {field: texts} of problems."""
  return {
    field: [dataclasses.asdict(problem)[field] for problem in problems]
    for field in FIELDS
  }


def _add(name: str, source: Any, template: str) -> None:
  """Adds a task, in the place of one of that name with other settings."""
  import seqio
  import tensorflow as tf

  text = seqio.Feature(
    seqio.PassThroughVocabulary(size=0),
    add_eos=False,
    dtype=tf.string,
    rank=0,
  )
  if name in seqio.TaskRegistry.names():
    seqio.TaskRegistry.remove(name)
  seqio.TaskRegistry.add(
    name,
    source=source,
    preprocessors=[_wording(template)],
    output_features=dict.fromkeys(('prompt', 'reference'), text),
  )


def _wording(template: str) -> Callable[[Any], Any]:
  """Returns what puts the wording around the problems of a dataset."""
  import tensorflow as tf

  parts = wording.pieces(template)

  def around(problem):
    # Joined, for the texts hold braces and backslashes of their own.
    texts = [parts[0]]
    for part in parts[1:]:
      texts += [problem['prompt'], part]
    return {**problem, 'prompt': tf.strings.join(texts)}

  def preprocess(dataset):
    return dataset if parts == ['', ''] else dataset.map(around)

  return preprocess


def add_mixture(name: str, members: Sequence[Member]) -> None:
  """Adds a mixture of tasks that were added before."""
  import seqio

  if name in seqio.MixtureRegistry.names():
    seqio.MixtureRegistry.remove(name)
  seqio.MixtureRegistry.add(
    name, [(member.name, float(member.rate)) for member in members]
  )


def read(name: str, split: str, count: int) -> list[Problem]:
  """Returns the first `count` problems of a split as its source has them.

  Args:
    name: of a task that was added.
    split: one that it has.
    count: at most so many; -1 = all.

  Raises:
    ConfigError: if what was prepared cannot be read.
  """
  import seqio
  import tensorflow as tf

  data = seqio.get_mixture_or_task(name).get_dataset(
    sequence_length=None, split=split, shuffle=False
  )
  problems = []
  try:
    for batch in data.take(count).batch(4096).as_numpy_iterator():
      columns = (batch[field] for field in FIELDS)
      problems += [
        Problem(*(text.decode() for text in row))
        for row in zip(*columns, strict=True)
      ]
  except tf.errors.OpError as error:
    raise ConfigError(
      f'task.name={name!r}: what TFDS prepared cannot be read '
      f'({error.message[:200]}); delete its folder in task.data_dir.'
    ) from error
  return problems
