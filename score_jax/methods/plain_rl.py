"""Reinforcement learning without the stages of SCoRe.

All are one stage over the base with the updates of both stages of SCoRe, the
same samples and the same KL weight beta1. See section 5 of arXiv:2409.12917.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from score_jax.methods.plan import StagePlan
from score_jax.objective import Stage


def single_turn(config: ConfigDict) -> list[StagePlan]:
  """Returns training of the first attempt alone, "w/o multi-turn training".

  Second attempts are sampled, so that every method samples the same number,
  and show what the instruction then does; nothing is learned of them.
  """
  later = config.turns - 1
  words = 'train the first attempt alone'
  taught = (True,) + (False,) * later
  return [_stage(config, (1.0,) + (0.0,) * later, taught, 0.0, words)]


def summed(config: ConfigDict) -> list[StagePlan]:
  """Returns plain multi-turn training (a): the sum of the rewards of all turns.

  With the discount gamma = 1 a turn is credited with its own reward and all
  later ones, the policy gradient of the sum; method.multi_turn_gamma sets it.
  """
  turns, gamma = config.turns, config.method.multi_turn_gamma
  words = f'train all attempts on the sum of rewards, gamma {gamma:g}'
  return [_stage(config, (1.0,) * turns, (True,) * turns, gamma, words)]


def last_turn(config: ConfigDict) -> list[StagePlan]:
  """Returns plain multi-turn training (b): on pairs (x2, y2) alone.

  First attempts are sampled from the policy and are context: neither reward
  nor KL teaches them.
  """
  before = config.turns - 1
  words = 'train the last attempt alone, whatever comes before it'
  taught = (False,) * before + (True,)
  return [_stage(config, (0.0,) * before + (1.0,), taught, 0.0, words)]


def _stage(config, reward, taught, gamma, words) -> StagePlan:
  method, train = config.method, config.train
  return StagePlan(
    'training',
    Stage(
      reward,
      0.0,
      (False,) * config.turns,
      method.beta1,
      gamma,
      method.kl_estimator,
      taught,
    ),
    train.stage1_steps + train.stage2_steps,
    words,
    method.baseline,
    method.offline_fraction,
  )
