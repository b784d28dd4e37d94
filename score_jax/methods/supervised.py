"""Rounds of supervised training: traces, a builder's rows, updates.

Every method makes as many updates, and samples as many trajectories, as SCoRe
does in both stages.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from ml_collections import ConfigDict

from score_jax.methods import (
  blind,
  importance,
  pair_sft,
  rehearsal,
  retries,
  rise,
  selective,
  star,
)
from score_jax.methods.plan import Phase, Round
from score_jax.methods.score import split, stages

Builder = Callable


def _rounds(
  builders: Sequence[Builder], steps: int, words: str, prefix: str = ''
) -> list[Round]:
  """Returns a round per builder, the updates divided among them."""
  sizes = split(steps, len(builders))
  return [
    Round(f'{prefix}round{i + 1}', size, words, build)
    for i, (size, build) in enumerate(zip(sizes, builders, strict=True))
  ]


def _all_steps(config: ConfigDict) -> int:
  return config.train.stage1_steps + config.train.stage2_steps


def _same(config: ConfigDict, build: Builder, words: str) -> list[Round]:
  """Returns method.rounds rounds of one builder."""
  return _rounds([build] * config.method.rounds, _all_steps(config), words)


def star_rounds(config: ConfigDict, keep_right: bool) -> list[Round]:
  """Returns STaR on D, or on D+ with those right twice."""
  words = 'imitate second attempts that end right'
  return _same(config, _star(config, keep_right), words)


def _star(config: ConfigDict, keep_right: bool) -> Builder:
  weight = config.method.first_weight
  return functools.partial(
    star.rows, keep_right=keep_right, first_weight=weight
  )


def star_in_stage_two(config: ConfigDict) -> list[Phase]:
  """Returns stage I of SCoRe, and STaR on D+ in place of its stage II.

  The paper does not say which of the two sets it took; D alone would leave
  right first attempts unguarded.
  """
  *first, last = stages(config)
  builders = [_star(config, keep_right=True)] * config.method.rounds
  words = 'imitate second attempts that end right'
  return [*first, *_rounds(builders, last.steps, words, 'stage2')]


def pairs(config: ConfigDict, keep_right: bool) -> list[Round]:
  """Returns Pair-SFT on D, or on D+ with right first attempts as well."""
  build = functools.partial(
    pair_sft.rows,
    keep_right=keep_right,
    first_weight=config.method.first_weight,
  )
  words = 'imitate right attempts behind wrong ones of the same problem'
  return _rounds([build], _all_steps(config), words)


def blind_control(config: ConfigDict) -> list[Round]:
  """Returns what makes a base whose second attempts look at nothing."""
  words = 'imitate second attempts that are copies, or made without a look'
  return _rounds([blind.rows], _all_steps(config), words)


def introspection(config: ConfigDict) -> list[Round]:
  """Returns RISE."""
  build = functools.partial(
    rise.rows, temperature=config.method.reward_temperature
  )
  return _same(config, build, 'imitate all attempts, weighted by reward')


def self_rehearsal(config: ConfigDict) -> list[Round]:
  """Returns selective self-rehearsal, one round as published."""
  words = "imitate the model's own right attempts, else the gold one"
  return _rounds([rehearsal.rows], _all_steps(config), words)


def importance_weighted(config: ConfigDict) -> list[Round]:
  """Returns importance-weighted self-improvement."""
  share = config.method.importance_share
  build = functools.partial(importance.rows, share=share)
  words = f'imitate the {share:.0%} of right traces of the least shift'
  return _same(config, build, words)


def label_enhancement(config: ConfigDict) -> list[Round]:
  """Returns progressively selective label enhancement.

  The threshold falls evenly from 1, which no margin passes, towards 0.
  """
  rounds = config.method.rounds
  builders = [
    functools.partial(
      selective.rows,
      threshold=1 - i / rounds,
      temperature=config.method.reward_temperature,
    )
    for i in range(rounds)
  ]
  words = 'imitate the best of a group, or all of it by softmax weight'
  return _rounds(builders, _all_steps(config), words)


def mistakes_and_retries(config: ConfigDict) -> list[Round]:
  """Returns training on mistakes followed by the right solution."""
  share = config.method.retry_share
  build = functools.partial(retries.rows, share=share)
  words = f'imitate mistakes (in {share:.0%} of wrong traces) and retries'
  return _rounds([build], _all_steps(config), words)
