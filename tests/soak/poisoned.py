"""The command, whose rewards are no numbers in some steps.

POISONED=STAGE:STEP,STAGE:STEP+,... names them; + is that one and all later
ones of the stage.
"""

import dataclasses
import os
import sys

import jax.numpy as jnp
from absl import app

from score_jax import main
from score_jax.stage import Stage


def poisoned(stage: str, step: int, named: str) -> bool:
  """Returns whether a step, from 1, is among those that are named."""
  for name in filter(None, named.split(',')):
    of_stage, _, number = name.partition(':')
    if of_stage != stage:
      continue
    first = int(number.rstrip('+'))
    if step == first or (number.endswith('+') and step >= first):
      return True
  return False


def spoil(update):
  """Returns an update of batches that have not a number for a reward."""

  def spoiled(state, reference, batch, near):
    reward = batch.reward.at[0, 0].set(jnp.nan)
    return update(
      state, reference, dataclasses.replace(batch, reward=reward), near
    )

  return spoiled


def script(named: str) -> None:
  """Lets the steps that are named have such batches."""
  plain = Stage.step

  def step(self, state, number, journal, times):
    update = self.update
    if poisoned(self.plan.name, number + 1, named):
      self.update = spoil(update)
    try:
      return plain(self, state, number, journal, times)
    finally:
      self.update = update

  Stage.step = step


if __name__ == '__main__':
  script(os.environ['POISONED'])
  sys.argv[0] = 'main'  # Where ml_collections looks.
  app.run(main.main, argv=sys.argv, flags_parser=main.parse)
