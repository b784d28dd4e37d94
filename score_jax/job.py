"""A config in, everything that its stages share out."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from score_jax import (
  base_model,
  data,
  decoding,
  fingerprint,
  fitting,
  grading,
  pages,
  processes,
  programs,
  sampler,
  sharding,
  streams,
  tasks,
  tokenizer,
)
from score_jax import config as config_lib
from score_jax.chat import Chat
from score_jax.config import ConfigError
from score_jax.methods.plan import Inference
from score_jax.models import families, lora, transformer, weights
from score_jax.policy import Policy
from score_jax.spare import Spare
from score_jax.stopping import Stop


@dataclasses.dataclass(frozen=True)
class Job:
  """What every stage and evaluation of a run needs."""

  config: ConfigDict
  workdir: pathlib.Path
  stop: Stop
  mesh: jax.sharding.Mesh
  model: transformer.Transformer
  decoding: decoding.Decoding  # How the model is kept while it samples.
  base: Any  # Parameters of the frozen reference.
  base_hash: str
  tokenizer: tokenizer.Tokenizer
  task: tasks.Task
  grader: grading.Grader
  test_task: tasks.Task  # Whose test problems are evaluated.
  test_grader: grading.Grader
  instructions: tuple[jax.Array, ...]  # int32[I], one between two turns.
  train: data.Problems | None  # None: not wanted, as the next one.
  validation: data.Problems | None
  test: data.Problems
  spare: Spare | None = None  # None: checkpoints are in the work directory.

  def root_key(self) -> jax.Array:
    """Returns the key that all randomness of the run comes from."""
    return jax.random.key(self.config.seed)

  @functools.cached_property
  def param_shardings(self) -> Any:
    """Returns the layout of what is trained."""
    return jax.tree.map(lambda x: x.sharding, self.policy_like())

  @functools.cached_property
  def _model_like(self) -> Any:
    return weights.target(self.model)

  def policy_like(self) -> Any:
    """Returns shapes and layout of what is trained."""
    dtype = self.config.model.param_dtype
    return lora.target(self._model_like, programs.adapter(self.config), dtype)

  def base_on_devices(self) -> Any:
    """Returns the reference's parameters, fetched where they lie on the host."""
    places = jax.tree.map(lambda x: x.sharding, self._model_like)
    return jax.device_put(self.base, places)

  def start(self) -> Any:
    """Returns what the first stage starts from: the base, or a new adapter."""
    if programs.adapter(self.config) is None:
      return self.base_on_devices()
    key = jax.random.fold_in(self.root_key(), streams.ADAPTER)
    return lora.init(key, self.policy_like())

  def bound(self, params: Any) -> Any:
    """Returns the policy's parameters, of what is trained."""
    return lora.bind(self.base, params, programs.adapter(self.config))

  def prepared(self, params: Any) -> Any:
    """Returns what samplers take: parameters, or a copy to sample from.

    One for a whole rollout or evaluation, whose memory is free when nobody
    holds it any more.

    Args:
      params: of the model, an adapter bound to them if there is one.
    """
    return decoding.make_prepare(self.model, self.decoding)(params)

  @functools.cached_property
  def decoder(self) -> transformer.Transformer:
    """Returns the model as samplers run it."""
    return decoding.decoder(self.model, self.decoding)

  def sampling(self, turns: int, first: int, second: int, policy: Policy):
    """Returns what a sampler of the first `turns` turns is compiled from."""
    return sampler.Sampling(
      first_attempts=first,
      second_attempts=second,
      max_tokens=self._lengths(turns),
      policy=policy,
      end_tokens=self.tokenizer.end_tokens,
      close=self.tokenizer.close,
      pad=self.tokenizer.pad,
      grow=self.config.sampling.grow,
      refill=self.config.sampling.refill,
      compact=tuple(self.config.sampling.compact),
    )

  def _lengths(self, turns: int) -> tuple[int, ...]:
    """Returns the limits of the first turns; later ones have the last one's."""
    lengths = tuple(self.config.sampling.max_tokens)
    return (lengths + lengths[-1:] * turns)[:turns]

  @functools.cached_property
  def greedy_samplers(self) -> tuple[sampler.Sample, ...]:
    """Returns for each turn the sampler of one greedy attempt on a context."""
    plain = self.sampling(1, 1, 1, Policy(0.0))
    return tuple(
      sampler.make_sampler(
        self.decoder, dataclasses.replace(plain, max_tokens=(limit,))
      )
      for limit in self._lengths(self.config.turns)
    )

  def asking(
    self, inference: Inference | None
  ) -> tuple[sampler.Sample, tuple[jax.Array, ...]]:
    """Returns the sampler of an evaluation, and the ids between its turns.

    Args:
      inference: what the model is asked; None: the job's attempts.

    Raises:
      ConfigError: if its rows may grow past the model's positions.
    """
    if inference is None:
      return self.evaluation_sampler, self.instructions
    texts, turns = inference.instructions, len(inference.instructions) + 1
    policy = Policy(self.config.eval.temperature)
    own = self.config.task.instruction or self.task.instruction
    ids = [self.tokenizer.between(text or own) for text in texts]
    base_model.check_length(
      self.config, self._lengths(turns), [len(i) for i in ids]
    )
    return (
      sampler.make_sampler(self.decoder, self.sampling(turns, 1, 1, policy)),
      tuple(sharding.put_whole(self.mesh, np.array(i, np.int32)) for i in ids),
    )

  @functools.cached_property
  def training_sampler(self) -> sampler.Sample:
    """Returns the sampler of all stages' trajectories."""
    s = self.config.sampling
    sampling = self.sampling(
      self.config.turns, s.first_attempts, s.second_attempts, self.policy
    )
    return sampler.make_sampler(self.decoder, sampling)

  @functools.cached_property
  def first_attempt_sampler(self) -> sampler.Sample:
    """Returns the sampler of first attempts alone."""
    s = self.config.sampling
    return sampler.make_sampler(
      self.decoder, self.sampling(1, s.first_attempts, 1, self.policy)
    )

  @property
  def policy(self) -> Policy:
    """Returns how logits become the distribution that is trained."""
    return programs.policy(self.config)

  @functools.cached_property
  def evaluation_sampler(self) -> sampler.Sample:
    """Returns the sampler of evaluations: one attempt per problem and turn."""
    policy = Policy(self.config.eval.temperature)
    return sampler.make_sampler(
      self.decoder, self.sampling(self.config.turns, 1, 1, policy)
    )


def setup(
  config: ConfigDict,
  workdir: pathlib.Path,
  stop: Stop,
  opened: contextlib.ExitStack,
) -> Job:
  """Returns the job with model, data and tokenizer loaded.

  Args:
    config: checked settings.
    workdir: where all output goes.
    stop: whether someone asked to end.
    opened: closes what the job opens, such as the processes that grade.

  Raises:
    ConfigError: if something that the config names is not there or not fit.
  """
  mesh = sharding.make_mesh(config_lib.mesh_shape(config, jax.device_count()))
  task, test_task = tasks.get(config.task), tasks.tested(config.task)
  folder = base_model.model_folder(config)
  weights.check(folder)  # What is wrong with them is known in an instant.
  chat = config.task
  words = tokenizer.load(folder, Chat(chat.chat, chat.system, chat.thinking))
  ids = words.between(config.task.instruction or task.instruction)
  config = decided(config, folder, mesh, len(ids))
  model = base_model.make_model(config, folder, mesh)
  graders = _open_graders(config, (task, test_task), opened)
  base = base_model.load(config, folder, model)
  base_hash = fingerprint.params_hash(base)
  if config.model.reference_on_host:
    base = base_model.layers_on_host(base)
  stop.check()
  splits = _load_splits(config, task, test_task, graders, words)
  if processes.several():
    _check_alike(folder, base_hash, splits)
  stop.check()
  lengths = [len(ids)] * (config.turns - 1)
  base_model.check_length(config, config.sampling.max_tokens, lengths)
  base_model.check_ids(folder, model.config.vocab_size, words, ids, splits)
  between = sharding.put_whole(mesh, np.array(ids, np.int32))
  return Job(
    config=config,
    workdir=workdir,
    stop=stop,
    mesh=mesh,
    model=model,
    decoding=programs.decoding_of(config),
    base=base,
    base_hash=base_hash,
    tokenizer=words,
    task=task,
    grader=graders[0],
    test_task=test_task,
    test_grader=graders[1],
    instructions=(between,) * (config.turns - 1),
    **splits,
  )


def decided(
  config: ConfigDict, folder: str, mesh: jax.sharding.Mesh, instruction: int
) -> ConfigDict:
  """Returns the settings with what they leave open decided by memory.

  Args:
    config: checked settings.
    folder: of the checkpoint.
    mesh: of the job.
    instruction: tokens between two attempts.
  """
  architecture = families.model_config(weights.read_config(folder))
  setup = programs.setup(config, architecture, mesh, instruction)
  return fitting.decided(setup, processes.decide(_device_memory)).config


def _device_memory() -> float:
  """Returns the bytes of one device; CPUs of a host share its memory."""
  stats = jax.local_devices()[0].memory_stats() or {}
  if 'bytes_limit' in stats:
    return stats['bytes_limit']
  return pages.host_memory() / jax.device_count()


def _check_alike(
  folder: str, base_hash: str, splits: dict[str, data.Problems | None]
) -> None:
  """Refuses processes that read other weights or other problems.

  Of the weights it sees those that every process holds whole, as norms.
  """
  own = {f'the weights in model.path={folder!r}': base_hash}
  for split, problems in splits.items():
    digest = hashlib.blake2b(repr(problems and problems.problems).encode())
    own[f'the {split} problems'] = digest.hexdigest()
  if found := processes.differing(own):
    process, name, *_ = found
    raise ConfigError(
      f'{name} of process {process} differ from those of process 0; put the '
      'same files on every host.'
    )


def _open_graders(
  config: ConfigDict,
  wanted: tuple[tasks.Task, tasks.Task],
  opened: contextlib.ExitStack,
) -> list[grading.Grader]:
  """Returns the graders of tasks; equal ones share their processes."""
  limits = grading.Limits(**config.grading)
  keys = [(task.grader, limits.of(task)) for task in wanted]
  graders = {}
  for key, task in zip(keys, wanted, strict=True):
    if key not in graders:
      graders[key] = opened.enter_context(grading.open_grader(task, limits))
  return [graders[key] for key in keys]


REFERENCES = 100  # Of each split, that its grader must accept.


def _load_splits(
  config: ConfigDict,
  task: tasks.Task,
  test_task: tasks.Task,
  graders: list[grading.Grader],
  words: tokenizer.Tokenizer,
) -> dict[str, data.Problems | None]:
  """Returns the problems of the splits that a job needs; None for the others."""
  chosen = config.task
  trains = config.job != 'evaluate'
  splits: dict[str, data.Problems | None] = {'train': None, 'validation': None}
  load = functools.partial(_load_split, config, words)
  if trains:
    splits['train'] = load(
      task, graders[0], 'train', chosen.train_problems, task.members
    )
  if trains and config.eval.every:
    if 'validation' not in task.splits:
      raise ConfigError(
        f'task.name={task.name!r} has no validation split, and '
        f'eval.every={config.eval.every}; set eval.every=0.'
      )
    count = config.eval.validation_problems
    splits['validation'] = load(task, graders[0], 'validation', count)
  splits['test'] = load(test_task, graders[1], 'test', config.eval.problems)
  return splits


def _load_split(
  config: ConfigDict,
  words: tokenizer.Tokenizer,
  task: tasks.Task,
  grader: grading.Grader,
  split: str,
  count: int,
  members: Sequence[tasks.Member] = (),
) -> data.Problems:
  problems = tasks.load_problems(task, split, count)
  if not problems:
    raise ConfigError(
      f'task.name={task.name!r} has no problems in its {split} split.'
    )
  grading.check_references(task, grader, problems[:REFERENCES])
  return data.encode(
    problems,
    words,
    config.sampling.max_prompt_tokens,
    config.sampling.max_tokens[0],
    drop=split == 'train' and config.task.long_prompts == 'drop',
    members=members,
  )
