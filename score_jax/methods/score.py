"""SCoRe: stage I teaches the later attempts, stage II trains all of them."""

from __future__ import annotations

import dataclasses

from ml_collections import ConfigDict

from score_jax import objective


@dataclasses.dataclass(frozen=True)
class StagePlan:
  """One stage of a run."""

  name: str  # Of its folder, and in all records.
  stage: objective.Stage
  steps: int  # Updates.
  words: str  # What it does, for people.
  near: str = ''  # The stage whose result it stays near to; '' = the base.


def stages(config: ConfigDict) -> list[StagePlan]:
  """Returns the stages in their order.

  With two turns these are stage1 and stage2. With more, stage I teaches one
  attempt after the other (the paper's stages I(a) and I(b)): stage1a, stage1b,
  ..., stage2. Each of them holds the attempts before its own near what the
  one before it made; stage II stays near the base.
  """
  method, turns = config.method, config.turns
  common = (method.beta1, method.gamma, method.kl_estimator)
  plans = []
  for target in range(2, turns + 1):
    letter = chr(ord('a') + target - 2) if turns > 2 else ''
    plans.append(
      StagePlan(
        f'stage1{letter}',
        objective.stage_one(turns, target, *common),
        config.train.stage1_steps,
        f'teach attempt {target}, hold what comes before it',
        plans[-1].name if plans else '',
      )
    )
  final = objective.stage_two(turns, method.alpha, *common)
  words = f'train all attempts, progress paid {method.alpha:g} times'
  plans.append(StagePlan('stage2', final, config.train.stage2_steps, words))
  return plans


def chain(config: ConfigDict) -> list[StagePlan]:
  """Returns the stages that a job has to see finished, in their order."""
  plans = stages(config)
  if config.job == 'evaluate':
    return []
  return plans[:-1] if config.job == 'stage1' else plans
