"""How long do saves hold training up, and how long would they if it waited?

    python tests/benchmarks/saves.py [--width=512] [--layers=8] [--steps=24]

Trains a made-up state of so many parameters with Adam's moments: a step is a
matrix product of a fixed time, and a save follows every few of them. It prints
the share of the time that `save` holds the steps up, beside that of a save that
is waited for, and how much slower the steps are while one is being written.
"""

import argparse
import pathlib
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from score_jax import checkpoint


def state_of(width: int, layers: int) -> dict:
  """Returns a state of layers x width^2 parameters and two moments of each."""
  keys = jax.random.split(jax.random.key(0), 3 * layers)
  noise = [jax.random.normal(key, (width, width)) for key in keys]
  params, first, second = (noise[n::3] for n in range(3))
  return {'params': params, 'opt_state': [first, second], 'step': jnp.int32(0)}


@jax.jit
def step(state: dict) -> dict:
  """Returns another state, after some work."""
  x = state['params'][0]
  for _ in range(20):
    x = jnp.tanh(x @ state['params'][0])
  # Added a thousand times less than nothing, so that no work is left out.
  nudge = jnp.sum(x) * 1e-30
  return jax.tree.map(lambda y: y + nudge.astype(y.dtype), state)


def measured(
  state: dict, steps: int, every: int, waits: bool
) -> tuple[np.ndarray, float]:
  """Returns the seconds of each step, and of all saves.

  Args:
    state: to begin with.
    steps: how many.
    every: steps between saves.
    waits: whether a save is waited for.
  """
  seconds, saving = [], 0.0
  with tempfile.TemporaryDirectory() as folder:
    opened = checkpoint.open_checkpoints(pathlib.Path(folder), 1, print)
    for number in range(1, steps + 1):
      started = time.monotonic()
      state = jax.block_until_ready(step(state))
      seconds.append(time.monotonic() - started)
      if number % every == 0:
        started = time.monotonic()
        opened.save(number, state, {}, float(number))
        if waits:
          opened.wait()
        saving += time.monotonic() - started
    opened.close()
  return np.array(seconds), saving


def main() -> None:
  """Prints the measurement."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--width', type=int, default=512)
  parser.add_argument('--layers', type=int, default=8)
  parser.add_argument('--steps', type=int, default=24)
  parser.add_argument('--every', type=int, default=6)
  asked = parser.parse_args()
  state = state_of(asked.width, asked.layers)
  size = sum(x.nbytes for x in jax.tree.leaves(state))
  measured(state, 2, 1, True)  # Compiles, and opens what is opened once.
  plain, _ = measured(state, asked.steps, asked.steps + 1, False)
  print(f'state {size / 1e6:.0f} MB, a step {np.median(plain):.3f} s')
  for name, waits in (('in the background', False), ('waited for', True)):
    seconds, saving = measured(state, asked.steps, asked.every, waits)
    share = saving / (saving + seconds.sum())
    slower = seconds.sum() / plain.sum() - 1
    each = saving / (asked.steps // asked.every)
    print(
      f'saves {name}: each holds the steps up for {each:.3f} s, {share:.1%} of '
      f'the time; the steps are {slower:+.0%} slower'
    )


if __name__ == '__main__':
  main()
