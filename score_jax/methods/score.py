"""SCoRe, and SCoRe without each of its parts.

Stage I teaches the later attempts, stage II trains all of them.
"""

from __future__ import annotations

import dataclasses

from ml_collections import ConfigDict

from score_jax import objective
from score_jax.methods.plan import StagePlan


def stages(config: ConfigDict) -> list[StagePlan]:
  """Returns the stages in their order.

  With two turns these are stage1 and stage2. With more, stage I teaches one
  attempt after the other (the paper's stages I(a) and I(b)): stage1a, stage1b,
  ..., stage2. Each of them holds the attempts before its own near what the
  one before it made; stage II stays near the base.
  """
  method, turns = config.method, config.turns
  common = (method.beta1, method.gamma, method.kl_estimator)
  terms = (method.baseline, method.offline_fraction)
  plans = []
  for target in range(2, turns + 1):
    letter = chr(ord('a') + target - 2) if turns > 2 else ''
    plans.append(
      StagePlan(
        f'stage1{letter}',
        objective.stage_one(turns, target, *common),
        config.train.stage1_steps,
        f'teach attempt {target}, hold what comes before it',
        *terms,
        near=plans[-1].name if plans else '',
      )
    )
  final = objective.stage_two(turns, method.alpha, *common)
  words = f'train all attempts, progress paid {method.alpha:g} times'
  last = StagePlan('stage2', final, config.train.stage2_steps, words, *terms)
  return [*plans, last]


def without_stage_one(config: ConfigDict) -> list[StagePlan]:
  """Returns stage II alone, with the updates of both stages."""
  *first, last = stages(config)
  steps = last.steps + sum(plan.steps for plan in first)
  return [dataclasses.replace(last, steps=steps)]


def without_bonus(config: ConfigDict) -> list[StagePlan]:
  """Returns the stages with nothing paid for progress."""
  *first, last = stages(config)
  stage = dataclasses.replace(last.stage, progress=0.0)
  words = 'train all attempts, progress not paid'
  return [*first, dataclasses.replace(last, stage=stage, words=words)]


def with_offline(config: ConfigDict, share: float) -> list[StagePlan]:
  """Returns the stages with a share of first attempts of the base model's.

  These are context alone: their second attempts are sampled and taught.
  """
  return [dataclasses.replace(p, offline=share) for p in stages(config)]


def with_baseline(config: ConfigDict, baseline: str) -> list[StagePlan]:
  """Returns the stages with another baseline; see `objective.advantages`."""
  return [dataclasses.replace(p, baseline=baseline) for p in stages(config)]


def interleaved(config: ConfigDict) -> list[StagePlan]:
  """Returns the stages in turns, several times, with as many updates in all.

  Version 1 of the paper trains so. A round's stage I goes on from the stage II
  before it, and like all stages stays near the base.
  """
  rounds, plans = config.method.rounds, []
  for number in range(rounds):
    for plan in stages(config):
      part = dataclasses.replace(
        plan,
        name=f'round{number + 1}{plan.name}',
        steps=split(plan.steps, rounds)[number],
        near=f'round{number + 1}{plan.near}' if plan.near else '',
      )
      plans.append(part)
  return plans


def split(steps: int, rounds: int) -> list[int]:
  """Returns the updates of each round, equal within one, the sum `steps`."""
  return [
    steps * (i + 1) // rounds - steps * i // rounds for i in range(rounds)
  ]
