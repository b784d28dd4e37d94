"""What a method is made of: phases of training, and how its model is asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from score_jax import objective
from score_jax.methods.traces import Collected, Row


@dataclasses.dataclass(frozen=True)
class StagePlan:
  """One phase of reinforcement learning."""

  name: str  # Of its folder, and in all records.
  stage: objective.Stage
  steps: int  # Updates.
  words: str  # What it does, for people.
  baseline: str  # See `objective.advantages`.
  offline: float  # Share of problems whose first attempts are the base's.
  near: str = ''  # The stage whose result it stays near to; '' = the base.


@dataclasses.dataclass(frozen=True)
class Round:
  """One phase of supervised training on traces of the model before it."""

  name: str  # Of its folder, and in all records.
  steps: int  # Updates, and batches of trajectories sampled.
  words: str  # What it does, for people.
  build: Callable[[Collected, np.random.Generator], list[Row]]


Phase = StagePlan | Round


@dataclasses.dataclass(frozen=True)
class Inference:
  """What a model is asked at evaluation."""

  instructions: tuple[str, ...]  # Between turns; '' = the task's.
  graded: tuple[int, ...]  # Turns that are attempts, from 1.


@dataclasses.dataclass(frozen=True)
class Method:
  """One row of the table."""

  name: str
  words: str  # What it is, for people.
  phases: tuple[Phase, ...]  # In their order; none for prompting alone.
  inference: Inference
