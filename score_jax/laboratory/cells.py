"""Which runs make the table, and what each of them has left on disk."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from score_jax import files, train
from score_jax.methods import catalogue

FAILED = 'failed.txt'  # In the folder of a run that could not go on.


@dataclasses.dataclass(frozen=True)
class Plan:
  """One cell of the table, to be trained."""

  given: ConfigDict  # As the table's settings have it.
  config: ConfigDict  # The same on equal terms, as it is run.
  workdir: pathlib.Path

  @property
  def name(self) -> str:
    """Returns the method's name."""
    return self.config.method.name

  @property
  def seed(self) -> int:
    """Returns the run's seed."""
    return self.config.seed

  @property
  def final(self) -> str:
    """Returns the name that its last evaluation has."""
    method = catalogue.get(self.config)
    if method.phases:
      return method.phases[-1].name
    return 'base' if self.name == 'base' else self.name

  def results(self) -> dict[str, Any]:
    """Returns its evaluations by name; {} where there is none yet."""
    return train.read_results(self.workdir / 'eval.json')

  def is_finished(self) -> bool:
    """Returns whether its last evaluation is there."""
    return self.final in self.results()

  def listed(self, name: str) -> list[dict[str, Any]]:
    """Returns the attempts of an evaluation, one row per problem."""
    path = self.workdir / 'evaluations' / f'{name}.jsonl'
    return files.read_jsonl(path)[0]

  def steps(self) -> list[dict[str, Any]]:
    """Returns the records of its training, one per update."""
    path = self.workdir / 'metrics.jsonl'
    return files.read_jsonl(path)[0] if path.exists() else []


def plans(
  config: ConfigDict, workdir: pathlib.Path, names: Sequence[str], seeds: int
) -> list[Plan]:
  """Returns all cells, seed by seed, so that a table is soon there.

  What trains nothing and is evaluated greedily is the same with every seed.

  Raises:
    ConfigError: if there is no such method.
  """
  found = []
  for seed in range(config.seed, config.seed + seeds):
    for name in names:
      one = config.copy_and_resolve_references()
      with one.unlocked():
        one.method.name, one.seed = name, seed
      where = workdir / name / f'seed{seed}'
      trained = bool(catalogue.get(one).phases)
      if trained or seed == config.seed or config.eval.temperature:
        found.append(Plan(one, catalogue.on_equal_terms(one), where))
  return found
