"""tunix on the workload: its Sampler, GRPOLearner and its train step.

Text is the ids themselves, with blanks between them.
"""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tunix.generate import sampler
from tunix.models.qwen2 import model as qwen2
from tunix.models.qwen2 import params
from tunix.rl import rl_cluster
from tunix.rl.grpo import grpo_learner
from tunix.rl.rollout import base_rollout

from tests.benchmarks.speed import workload
from tests.benchmarks.speed.link import marker, open_link, serve, Work
from tests.benchmarks.speed.workload import Job, read_job

PACKAGES = ('google-tunix', 'jax', 'flax')
END = 1
STEPS = 10_000  # More than anybody asks for.
USUAL_CACHE = 1024  # RolloutConfig's kv_cache_size, if it is not told.


class IdTokenizer:
  """What tunix asks of a tokenizer; a class, for it calls methods."""

  def encode(self, text: str, **_) -> list[int]:
    return [int(word) for word in text.split()]

  def decode(self, ids, **_) -> str:
    # Padding would be left out of the next prompt: attempts keep their length.
    return ' '.join(str(int(i) or workload.FIRST) for i in ids)

  def bos_id(self) -> None:
    return None

  def eos_id(self) -> int:
    return END

  def pad_id(self) -> int:
    return workload.PAD


def _mesh() -> jax.sharding.Mesh:
  devices = np.array(jax.devices()[:1]).reshape(1, 1)
  return jax.sharding.Mesh(devices, ('fsdp', 'tp'))


def _load(job: Job):
  size = job.size
  config = qwen2.ModelConfig(
    num_layers=size.layers,
    vocab_size=size.vocab,
    embed_dim=size.width,
    hidden_dim=size.mlp,
    num_heads=size.heads,
    head_dim=size.head_dim,
    num_kv_heads=size.kv_heads,
    rope_theta=10_000,
    norm_eps=1e-6,
    use_tied_embedding=True,
    dtype=jnp.float32,
    param_dtype=jnp.float32,
  )
  return params.create_model_from_safe_tensors(
    job.folder, config, _mesh(), dtype=jnp.float32
  )


def sample(job: Job) -> Work:
  """Returns two calls of Sampler, the second on the first's text.

  Its cache just fits both turns, unless the variant names the usual one.
  """
  size, shape = job.size, job.shape
  fitted = job.variant == 'cache fitted'
  cache = sampler.CacheConfig(
    cache_size=shape.columns if fitted else USUAL_CACHE,
    num_layers=size.layers,
    num_kv_heads=size.kv_heads,
    head_dim=size.head_dim,
  )
  generate = sampler.Sampler(_load(job), IdTokenizer(), cache)
  between = ' '.join(map(str, workload.instruction(size, shape)))
  first = workload.texts(workload.prompts(size, shape))

  def turns(temperature: float, top_p: float | None) -> list[np.ndarray]:
    rows, found = first, []
    for (start, _), tokens in zip(shape.spans, shape.attempts, strict=True):
      if found:
        rows = [f'{row} {between}' for row in rows]
      out = generate(
        rows,
        max_generation_steps=tokens,
        # One length for all turns where the cache is not fitted by hand.
        max_prompt_length=start if fitted else shape.spans[-1][0],
        eos_tokens=[size.vocab + 1],  # Never drawn.
        temperature=temperature,
        top_p=top_p,
        seed=0,
      )
      found.append(np.stack([np.asarray(ids) for ids in out.tokens]))
      rows = [f'{a} {b}' for a, b in zip(rows, out.text, strict=True)]
    return found

  greedy = np.concatenate(turns(0.0, None), axis=1)
  return Work({'tokens': greedy.tolist()}, 1, lambda: turns(1.0, 1.0))


def _learner(job: Job, reward) -> grpo_learner.GRPOLearner:
  """Returns a learner with a frozen reference and its own rollouts."""
  shape, role = job.shape, rl_cluster.Role
  behind = shape.columns - shape.prompt
  config = rl_cluster.ClusterConfig(
    role_to_mesh=dict.fromkeys(
      (role.ACTOR, role.REFERENCE, role.ROLLOUT), _mesh()
    ),
    rollout_engine='vanilla',
    offload_to_cpu=False,
    training_config=rl_cluster.RLTrainingConfig(
      actor_optimizer=optax.adamw(1e-5, weight_decay=0.01),
      eval_every_n_steps=10**9,
      max_steps=STEPS,
    ),
    rollout_config=base_rollout.RolloutConfig(
      max_tokens_to_generate=behind,
      max_prompt_length=shape.prompt,
      kv_cache_size=shape.columns,
      temperature=1.0,
      top_p=1.0,
      eos_tokens=[job.size.vocab + 1],
    ),
  )
  cluster = rl_cluster.RLCluster(
    actor=_load(job),
    reference=_load(job),
    tokenizer=IdTokenizer(),
    cluster_config=config,
  )
  algorithm = grpo_learner.GRPOConfig(
    num_generations=shape.rows // shape.problems, num_iterations=1, beta=0.04
  )
  return grpo_learner.GRPOLearner(
    rl_cluster=cluster, reward_fns=reward, algo_config=algorithm
  )


def update(job: Job) -> Work:
  """Returns the reference's scores and the learner's own jitted step."""
  shape = job.shape
  cluster = _learner(job, lambda **_: [0.0]).rl_cluster
  ids = jnp.asarray(workload.rows(job.size, shape))
  prompt, behind = ids[:, : shape.prompt], ids[:, shape.prompt :]
  mask = workload.turns(shape)[:, shape.prompt :] > 0
  advantage = np.random.default_rng(4).standard_normal(shape.rows)
  trainer = cluster.actor_trainer

  def scores():
    return cluster.get_ref_per_token_logps(
      prompt_tokens=prompt,
      completion_tokens=behind,
      pad_id=workload.PAD,
      eos_id=END,
    )

  with _mesh():
    step, _ = trainer.jit_train_and_eval_step(cache_nnx_graph=True)
    logp = np.asarray(scores())[mask]

  def repeat():
    with _mesh():
      example = grpo_learner.TrainExample(
        prompt_ids=prompt,
        prompt_mask=prompt != workload.PAD,
        completion_ids=behind,
        completion_mask=jnp.asarray(mask, jnp.int32),
        advantages=jnp.asarray(advantage, jnp.float32),
        ref_per_token_logps=scores(),
        old_per_token_logps=None,
      )
      done = step(example)
      # The loss is there before the new parameters are.
      jax.block_until_ready((done, nnx.state(trainer.model)))

  return Work({'logp': logp.tolist()}, 2, repeat)


def iterate(job: Job) -> None:
  """Trains; a lap goes from one batch's grades to the next one's."""
  mark = marker(open_link(), {}, 2, PACKAGES)

  def reward(prompts, completions, answer, **_):
    mark()
    return workload.rewards(answer, completions)

  rows = workload.texts(workload.prompts(job.size, job.shape))
  batch = {
    'prompts': np.array(rows),
    'answer': np.array([str(workload.FIRST + i) for i in range(len(rows))]),
  }
  with _mesh():
    _learner(job, reward).train([batch] * STEPS)


if __name__ == '__main__':
  asked = read_job(sys.argv[1])
  if asked.work == 'iterate':
    iterate(asked)
  else:
    serve({'sample': sample, 'update': update}[asked.work], PACKAGES)
