"""score_jax on the workload, through the programs that a run calls.

Letters: B rows, L columns, T turns.
"""

from __future__ import annotations

import dataclasses
import os
import sys

import jax
import jax.numpy as jnp
import numpy as np

from score_jax import (
  learner,
  likelihood,
  objective,
  optimizers,
  programs,
  sampler,
)
from score_jax.models import families, stack, weights
from score_jax.models.architecture import Execution
from score_jax.models.transformer import Transformer
from score_jax.policy import Policy
from score_jax.trajectory import Trajectory
from tests.benchmarks.speed import workload
from tests.benchmarks.speed.link import serve, Work
from tests.benchmarks.speed.workload import Job

NEVER = -1  # An end token that nobody draws.
LOGITS = 4096  # Tokens whose logits exist at once.


def _load(job: Job):
  config = families.model_config(weights.read_config(job.folder))
  limits = stack.limits(len(os.sched_getaffinity(0)))  # As settings give them.
  products = job.variant or 'xla'
  if products == 'onednn' and not programs.onednn_ends():
    sys.exit('several cores without AVX-512, where it may never end')
  model = Transformer(config, Execution(products=products, **limits))
  return model, weights.load(job.folder, weights.target(model))


def _sampler(job: Job, model, temperature: float):
  """Returns a function of parameters and seed that gives trajectories.

  An attempt that is cut off gets a closing token: it is the first of the
  instruction, as the others read it.
  """
  size, shape = job.size, job.shape
  each = shape.rows // shape.problems
  tokens = workload.instruction(size, shape).tolist() or [workload.PAD]
  sampling = sampler.Sampling(
    first_attempts=each,
    second_attempts=1,
    max_tokens=shape.attempts,
    policy=Policy(temperature),
    end_tokens=(NEVER,),
    close=tokens[0],
    pad=workload.PAD,
  )
  program = sampler.make_sampler(model, sampling)
  between = (jnp.asarray(tokens[1:], jnp.int32),) * (len(shape.attempts) - 1)

  def sample(params, seed: int) -> Trajectory:
    prompts = sampler.Prompts(
      jnp.asarray(workload.prompts(size, shape, 1 + seed)),
      jnp.full(shape.problems, shape.prompt),
      jnp.arange(shape.problems),
    )
    return program(params, prompts, between, jax.random.key(seed))

  return sample


def _attempts(job: Job, trajectory: Trajectory) -> list[np.ndarray]:
  """Returns the ids of each turn, int32[B, M]."""
  tokens = np.asarray(trajectory.tokens)
  return [tokens[:, start:end] for start, end in job.shape.spans]


def sample(job: Job) -> Work:
  """Returns the sampling of all turns."""
  model, params = _load(job)
  greedy = _attempts(job, _sampler(job, model, 0.0)(params, 0))
  draw = _sampler(job, model, 1.0)

  def repeat():
    jax.block_until_ready(draw(params, 0))

  return Work({'tokens': np.concatenate(greedy, 1).tolist()}, 1, repeat)


def _update(job: Job, model):
  optimizer = optimizers.make_optimizer(
    'adamw', 1e-5, 'constant', 0, 1, 0.9, 0.999, 1e-8, 0.01, 1.0
  )
  shape = job.shape
  turns = len(shape.attempts)
  learning = learner.Learning(
    stage=objective.stage_two(turns, 10.0, 0.01, 0.0, 'k1'),
    groups=objective.Groups(shape.rows // shape.problems, 1),
    policy=Policy(),
    baseline='leave_one_out',
    mask_truncated=False,
    accumulation=1,
    logits_chunk=LOGITS,
    attempt_tokens=shape.attempts,
    prompt_tokens=shape.prompt,
    beta2_rate=0.0,
    beta2_fraction=0.5,
    beta2_low=0.01,
    beta2_high=10.0,
  )
  return optimizer, learner.make_update(model, optimizer, learning)


def _start(optimizer, params) -> learner.TrainState:
  # A copy: the update takes the state's memory, and these are the reference.
  state = learner.init_state(jax.tree.map(jnp.copy, params), optimizer, 0.1)
  # Bound to its device, as updates return it: nothing is compiled twice.
  return jax.device_put(state, jax.devices()[0])


def _written(job: Job) -> Trajectory:
  """Returns the rows that the update is given."""
  shape = job.shape
  turns = len(shape.attempts)
  return Trajectory(
    tokens=jnp.asarray(workload.rows(job.size, shape)),
    turn=jnp.asarray(workload.turns(shape)),
    logp=jnp.zeros((shape.rows, shape.columns), jnp.float32),
    length=jnp.full(shape.rows, shape.columns),
    span=jnp.tile(jnp.asarray(shape.spans)[None], (shape.rows, 1, 1)),
    truncated=jnp.zeros((shape.rows, turns), bool),
  )


def update(job: Job) -> Work:
  """Returns the update, whose own scores are held against the check's."""
  model, params = _load(job)
  trajectory, shape = _written(job), job.shape
  mine = trajectory.turn > 0
  examples = likelihood.Examples(trajectory.tokens, mine.astype(jnp.float32))
  logp = likelihood.make_likelihood(model, LOGITS)(params, examples)
  trajectory = dataclasses.replace(trajectory, logp=logp)
  draw = np.random.default_rng(4)
  shape_of_rewards = (shape.rows, len(shape.attempts))
  reward = draw.integers(0, 2, shape_of_rewards).astype(np.float32)
  batch = learner.Batch(trajectory, jnp.asarray(reward))
  optimizer, program = _update(job, model)
  state, metrics = program(_start(optimizer, params), params, batch)
  if (gap := float(metrics['logp_gap_max'])) > 1e-3:
    raise ValueError(f'the update scores {gap} beside the likelihood')

  def repeat():
    nonlocal state
    state, metrics = program(state, params, batch)
    jax.block_until_ready((state, metrics))

  scores = np.asarray(logp)[np.asarray(mine)]
  return Work({'logp': scores.tolist()}, 0, repeat)


def iterate(job: Job) -> Work:
  """Returns an iteration: sampled, graded, and learned from."""
  model, params = _load(job)
  draw = _sampler(job, model, 1.0)
  optimizer, program = _update(job, model)
  state = _start(optimizer, params)
  answers = [str(workload.FIRST + i) for i in range(job.shape.rows)]

  def repeat():
    nonlocal state
    trajectory = draw(state.params, int(state.step))
    turns = [
      workload.rewards(answers, workload.texts(ids))
      for ids in _attempts(job, trajectory)
    ]
    reward = jnp.asarray(np.array(turns, np.float32).T)
    batch = learner.Batch(trajectory, reward)
    state, metrics = program(state, params, batch)
    jax.block_until_ready((state, metrics))

  return Work({}, 1, repeat)


def make(job: Job) -> Work:
  return {'sample': sample, 'update': update, 'iterate': iterate}[job.work](job)


if __name__ == '__main__':
  serve(make, ('jax', 'jaxlib', 'flax', 'optax'))
