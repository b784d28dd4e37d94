"""A config in, everything that its stages share out."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import signal
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from score_jax import (
  checkpoint,
  data,
  files,
  sampler,
  sharding,
  tasks,
  tokenizer,
)
from score_jax import config as config_lib
from score_jax.config import ConfigError
from score_jax.methods.score import StagePlan
from score_jax.models import families, transformer, weights
from score_jax.policy import Policy

BUNDLED = pathlib.Path(__file__).parent / 'assets' / 'arithmetic'

# Settings that may change between a run and its continuation: they change
# where and how fast it runs, or what is shown, not what is learned.
FREE = (
  'job',
  'log.',
  'checkpoint.',
  'mesh.',
  'limits.',
  'model.path',  # The reference's hash stands for it.
  'model.remat',
  'model.unroll',
  'model.logits_chunk',
  'pretrain.',
)


class Interrupted(Exception):
  """The program was asked to end; what it had reached is saved."""


@dataclasses.dataclass
class Stop:
  """Whether someone asked the program to end."""

  asked: bool = False

  def listen(self) -> None:
    """Notes SIGTERM and Ctrl-C from now on; a second Ctrl-C ends it at once."""
    for number in (signal.SIGTERM, signal.SIGINT):
      signal.signal(number, self._note)

  def _note(self, number, frame) -> None:
    del frame
    self.asked = True
    if number == signal.SIGINT:
      signal.signal(number, signal.SIG_DFL)

  def check(self) -> None:
    """Raises Interrupted if someone asked."""
    if self.asked:
      raise Interrupted


@dataclasses.dataclass(frozen=True)
class Job:
  """What every stage and evaluation of a run needs."""

  config: ConfigDict
  workdir: pathlib.Path
  stop: Stop
  mesh: jax.sharding.Mesh
  model: transformer.Transformer
  base: Any  # Parameters of the frozen reference.
  base_hash: str
  tokenizer: tokenizer.Tokenizer
  task: tasks.Task
  instructions: tuple[jax.Array, ...]  # int32[I], one between two turns.
  train: data.Problems
  validation: data.Problems
  test: data.Problems

  def root_key(self) -> jax.Array:
    """Returns the key that all randomness of the run comes from."""
    return jax.random.key(self.config.seed)

  @functools.cached_property
  def param_shardings(self) -> Any:
    """Returns the layout of the policy's parameters."""
    return jax.tree.map(lambda x: x.sharding, self.base)

  def policy_like(self) -> Any:
    """Returns shapes and layout of the policy's parameters."""
    return with_dtype(self.base, self.config.model.param_dtype)

  def sampling(self, turns: int, first: int, second: int, policy: Policy):
    """Returns what a sampler of the first `turns` turns is compiled from."""
    return sampler.Sampling(
      first_attempts=first,
      second_attempts=second,
      max_tokens=tuple(self.config.sampling.max_tokens[:turns]),
      policy=policy,
      end_tokens=self.tokenizer.end_tokens,
      close=self.tokenizer.close,
      pad=self.tokenizer.pad,
    )

  @functools.cached_property
  def training_sampler(self) -> sampler.Sample:
    """Returns the sampler of all stages' trajectories."""
    s = self.config.sampling
    sampling = self.sampling(
      self.config.turns, s.first_attempts, s.second_attempts, self.policy
    )
    return sampler.make_sampler(self.model, sampling)

  @functools.cached_property
  def first_attempt_sampler(self) -> sampler.Sample:
    """Returns the sampler of first attempts alone."""
    s = self.config.sampling
    return sampler.make_sampler(
      self.model, self.sampling(1, s.first_attempts, 1, self.policy)
    )

  @property
  def policy(self) -> Policy:
    """Returns how logits become the distribution that is trained."""
    s = self.config.sampling
    return Policy(s.temperature, s.top_k, s.top_p)

  @functools.cached_property
  def evaluation_sampler(self) -> sampler.Sample:
    """Returns the sampler of evaluations: one attempt per problem and turn."""
    policy = Policy(self.config.eval.temperature)
    return sampler.make_sampler(
      self.model, self.sampling(self.config.turns, 1, 1, policy)
    )


def model_folder(config: ConfigDict) -> str:
  """Returns the folder of the base model.

  Raises:
    ConfigError: if it is not there.
  """
  path = config.model.path or str(BUNDLED)
  if not pathlib.Path(path).is_dir():
    raise ConfigError(
      f'model.path={path!r} is not a folder; set it to that of a checkpoint as '
      'on the Hugging Face hub, or leave it out for the bundled model.'
    )
  return path


def setup(config: ConfigDict, workdir: pathlib.Path, stop: Stop) -> Job:
  """Returns the job with model, data and tokenizer loaded.

  Raises:
    ConfigError: if something that the config names is not there or not fit.
  """
  mesh = sharding.make_mesh(config_lib.mesh_shape(config, jax.device_count()))
  task = tasks.get(config.task.name)
  folder = model_folder(config)
  chat = config.task
  words = tokenizer.load(
    folder, tokenizer.Chat(chat.chat, chat.system, chat.thinking)
  )
  model = make_model(config, folder, mesh)
  target = with_dtype(weights.target(model), config.model.reference_dtype)
  base = weights.load(folder, target, config.log.progress)
  splits = _load_splits(config, task, words)
  stop.check()
  ids = words.between(config.task.instruction or task.instruction)
  between = jax.device_put(
    jnp.asarray(ids, jnp.int32), sharding.replicated(mesh)
  )
  return Job(
    config=config,
    workdir=workdir,
    stop=stop,
    mesh=mesh,
    model=model,
    base=base,
    base_hash=checkpoint.params_hash(base),
    tokenizer=words,
    task=task,
    instructions=(between,) * (config.turns - 1),
    **splits,
  )


def make_model(
  config: ConfigDict, folder: str, mesh: jax.sharding.Mesh
) -> transformer.Transformer:
  """Returns the decoder that a checkpoint folder describes."""
  c = config.model
  execution = transformer.Execution(
    dtype=c.dtype, remat=c.remat, unroll=c.unroll, mesh=mesh
  )
  architecture = families.model_config(weights.read_config(folder))
  return transformer.Transformer(architecture, execution)


def with_dtype(target: Any, dtype: str) -> Any:
  """Returns shapes and layouts of parameters, in another dtype."""
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, dtype, sharding=x.sharding), target
  )


def _load_splits(config, task, words) -> dict[str, data.Problems]:
  counts = {
    'train': config.task.train_problems,
    'validation': config.eval.validation_problems if config.eval.every else 1,
    'test': config.eval.problems,
  }
  splits = {}
  for split, count in counts.items():
    problems = tasks.load_problems(task, split, count)
    if not problems:
      raise ConfigError(
        f'task.name={task.name!r} has no problems in its {split} split.'
      )
    tasks.check_grader(task, problems[:100])
    splits[split] = data.encode(
      problems, words, config.sampling.max_prompt_tokens
    )
  return splits


def claim(config: ConfigDict, workdir: pathlib.Path) -> None:
  """Writes the settings to a work directory: its work is theirs from now on."""
  files.write_json(workdir / 'config.json', json.loads(config.to_json()))


def is_claimed(config: ConfigDict, workdir: pathlib.Path) -> bool:
  """Returns whether a work directory holds work already, of these settings.

  Raises:
    ConfigError: if it holds the work of other settings.
  """
  path = workdir / 'config.json'
  if not path.exists():
    return False
  old = config_lib.flatten(files.read_json(path))
  new = config_lib.flatten(json.loads(config.to_json()))
  for name in sorted(old.keys() | new.keys()):
    if name.startswith(FREE) or old.get(name) == new.get(name):
      continue
    raise ConfigError(
      f'{name}={new.get(name)!r}, but {workdir} holds a run with '
      f'{old.get(name)!r}; give another --workdir, or set it back.'
    )
  return True


def describe(job: Job, plans: list[StagePlan]) -> str:
  """Returns in plain words what a job is about to do."""
  config, s = job.config, job.config.sampling
  each = config_lib.samples_per_problem(config)
  rows = config.train.trajectories
  problems = rows // each
  between = sum(len(i) for i in job.instructions)
  longest = s.max_prompt_tokens + sum(s.max_tokens) + between
  second = ''
  if s.second_attempts > 1:
    second = f' ({s.first_attempts} first x {s.second_attempts} second)'
  lines = [
    f'model     {job.model.config.layers} layers of width '
    f'{job.model.config.width}, {_count(job.base):,} parameters, '
    f'{config.model.dtype} ({model_folder(config)})',
    f'task      {job.task.name}: {len(job.train):,} problems to train on, '
    f'{len(job.test):,} to test',
    f'a step    {problems} prompts x K={each}{second} x {config.turns} turns '
    f'= {rows} trajectories, {rows * config.turns} attempts, at most '
    f'{rows * sum(s.max_tokens):,} sampled of {rows * longest:,} tokens',
  ]
  lines += [f'prompts   {note}' for note in job.tokenizer.notes]
  for plan in plans:
    kl = [
      f'{config.method.beta2 if held else plan.stage.beta1:g}'
      for held in plan.stage.held
    ]
    lines.append(
      f'{plan.name:9} {plan.steps} steps: {plan.words}; '
      f'KL weights {" and ".join(kl)}'
    )
  sizes = ' x '.join(f'{k} {v}' for k, v in job.mesh.shape.items())
  lines.append(
    f'mesh      {sizes} on {jax.device_count()} '
    f'{jax.devices()[0].platform} devices'
  )
  lines.append(f'memory    {_memory(job, rows, longest)}')
  return '\n'.join(lines)


def _count(params: Any) -> int:
  return sum(x.size for x in jax.tree.leaves(params))


def _memory(job: Job, rows: int, longest: int) -> str:
  """Returns bytes by part, over all devices; what XLA adds is not in it."""
  c, model = job.model.config, job.config.model
  size = {
    name: jnp.dtype(model[name]).itemsize for name in model if 'dtype' in name
  }
  count = _count(job.base)
  moments = {'adam': 2, 'adamw': 2, 'sgd': 0}[job.config.optimizer.name]
  cache = 2 * c.layers * rows * longest * c.kv_heads * c.head_dim
  logits = min(model.logits_chunk, rows * longest) * c.vocab_size * 4
  parts = {
    'policy': count * size['param_dtype'],
    'reference': count * size['reference_dtype'],
    'optimizer': count * moments * size['param_dtype'],
    'gradient': count * size['param_dtype'],
    'cache': cache * size['dtype'],
    'logits': logits,
  }
  return ', '.join(f'{name} {_bytes(n)}' for name, n in parts.items())


def _bytes(count: float) -> str:
  for unit in ('B', 'kB', 'MB', 'GB'):
    if count < 1000:
      return f'{count:.3g} {unit}'
    count /= 1000
  return f'{count:.3g} TB'
