"""How the bundled base model is made: an honest miniature of a pretrained one.

    phase 1   prompt | right answer
    phase 2   prompt | attempt | instruction | second attempt

Phase 1 ends early, so that first attempts are often wrong. In phase 2 the
first attempts are the phase-1 model's own samples, and are trained on as they
are, which keeps first attempts what they were. Most second attempts copy the
first one; a small share gives the right answer, whether the first was right or
wrong. So copying is the habit, and correcting a rare one that reinforcement
can strengthen. Nobody tells the model which first attempts were right.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
import shutil
import time
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from ml_collections import ConfigDict

from score_jax import config as config_lib
from score_jax import (
  data,
  evaluation,
  files,
  grading,
  learner,
  likelihood,
  optimizers,
  rollout,
  sampler,
  sharding,
  tasks,
  tokenizer,
)
from score_jax.journal import say
from score_jax.models import families, served, transformer
from score_jax.models.architecture import Execution
from score_jax.policy import Policy
from score_jax.stopping import Stop
from score_jax.tasks import arithmetic

_SPARE = 8  # Ids without a word, for instructions of one's own.


@dataclasses.dataclass(frozen=True)
class _Run:
  """What both phases share."""

  config: ConfigDict
  stop: Stop
  mesh: jax.sharding.Mesh
  model: transformer.Transformer
  words: tokenizer.Tokenizer
  grader: grading.Grader
  train: data.Problems
  validation: data.Problems
  between: tuple[int, ...]  # Ids of the instruction.

  def sampler(self, turns: int, temperature: float) -> sampler.Sample:
    """Returns the compiled sampler of so many attempts, one per problem."""
    lengths = tuple(self.config.sampling.max_tokens[:turns])
    return sampler.make_sampler(
      self.model,
      sampler.Sampling(
        first_attempts=1,
        second_attempts=1,
        max_tokens=lengths,
        policy=Policy(temperature),
        end_tokens=self.words.end_tokens,
        close=self.words.close,
        pad=self.words.pad,
      ),
    )

  def sample(
    self, sample: sampler.Sample, params: Any, problems: data.Problems, key: int
  ) -> rollout.Rollout:
    number = np.arange(len(problems))
    prompts = rollout.put_prompts(self.mesh, problems, number)
    root = jax.random.key(self.config.seed)
    between = (jnp.asarray(self.between, jnp.int32),)
    trajectory = sample(params, prompts, between, jax.random.fold_in(root, key))
    return rollout.start_reading(
      trajectory, problems, self.grader, self.words
    )()


def run(config: ConfigDict, workdir: pathlib.Path, stop: Stop) -> None:
  """Makes `<workdir>/model`, a checkpoint folder as on the hub.

  A run that was interrupted starts anew: the whole takes minutes, and its
  result follows from the seed.
  """
  folder = workdir / 'model'
  if folder.exists():
    say(f'finished: the model is in {folder}')
    return
  source = workdir / 'tokenizer'
  hf = _architecture(config)
  tokenizer.save_word_tokenizer(str(source), _vocabulary())
  job = _setup(config, stop, str(source), hf)
  started = time.monotonic()
  params = _first_phase(job)
  params = _second_phase(job, params)
  say(f'pretrained in {time.monotonic() - started:.0f} s')
  report = _head_room(job, params)
  files.write_json(workdir / 'pretrain.json', report)
  for name, value in report.items():
    say(f'  {name:44} {value:.3f}')
  unfinished = workdir / 'model.unfinished'
  shutil.rmtree(unfinished, ignore_errors=True)
  served.save(unfinished, params, hf)
  for path in source.iterdir():
    shutil.copy(path, unfinished)
  unfinished.rename(folder)  # Whole or absent, whenever a kill comes.
  say(f'wrote {folder}')


def _vocabulary() -> list[str]:
  return [*'0123456789+=\n.,:', *_phrases(arithmetic.INSTRUCTION)]


def _phrases(text: str) -> list[str]:
  """Returns the words of an instruction, each with the blank before it."""
  return sorted(set(re.findall(r' ?[A-Za-z]+', text)))


def _architecture(config: ConfigDict) -> dict[str, Any]:
  """Returns the config.json of the model that is made."""
  c = config.pretrain
  return {
    'architectures': ['Qwen3ForCausalLM'],
    'model_type': 'qwen3',
    'vocab_size': len(_vocabulary()) + 3 + _SPARE,
    'hidden_size': c.width,
    'num_hidden_layers': c.layers,
    'num_attention_heads': c.heads,
    'num_key_value_heads': c.heads,
    'head_dim': c.width // c.heads,
    'intermediate_size': c.mlp,
    'hidden_act': 'silu',
    'rms_norm_eps': 1e-6,
    'rope_theta': 10000.0,
    'max_position_embeddings': 1024,
    'tie_word_embeddings': True,
    'attention_bias': False,
    'bos_token_id': None,
    'eos_token_id': 1,
    'pad_token_id': 0,
    'torch_dtype': 'float32',
  }


def _setup(config, stop, source, hf) -> _Run:
  mesh = sharding.make_mesh(config_lib.mesh_shape(config, jax.device_count()))
  words = tokenizer.load(source)
  task = tasks.get(config.task)

  def split(name, count):
    problems = tasks.load_problems(task, name, count)
    return data.encode(problems, words, config.sampling.max_prompt_tokens)

  model = transformer.Transformer(
    families.model_config(hf), Execution(mesh=mesh)
  )
  return _Run(
    config=config,
    stop=stop,
    mesh=mesh,
    model=model,
    words=words,
    grader=grading.in_process(task.grader),
    train=split('train', config.task.train_problems),
    validation=split('validation', config.eval.validation_problems),
    between=tuple(words.between(task.instruction)),
  )


def _examples(
  run: _Run, rows: list[list[tuple[list[int], float]]], turns: int
) -> likelihood.Examples:
  """Returns rows of parts, each part's tokens with one weight in the loss."""
  c = run.config.sampling
  # An attempt that was cut off is closed by one token more than its limit.
  width = c.max_prompt_tokens + sum(n + 1 for n in c.max_tokens[:turns])
  width += len(run.between) * (turns - 1)
  tokens = np.full((len(rows), width), run.words.pad, np.int32)
  weight = np.zeros((len(rows), width), np.float32)
  for i, parts in enumerate(rows):
    ids = [token for part, _ in parts for token in part]
    tokens[i, : len(ids)] = ids
    weight[i, : len(ids)] = [w for part, w in parts for _ in part]
  return likelihood.Examples(
    sharding.put_rows(run.mesh, tokens), sharding.put_rows(run.mesh, weight)
  )


def _batch(run: _Run, number: int) -> data.Problems:
  size = run.config.pretrain.trajectories
  return run.train.take(
    data.batch_indices(len(run.train), run.config.seed, number, size)
  )


def _prompts(problems: data.Problems) -> list[list[int]]:
  return [
    ids[:n].tolist()
    for ids, n in zip(problems.tokens, problems.length, strict=True)
  ]


def _written(run: _Run, texts: list[str]) -> list[list[int]]:
  """Returns the ids of whole attempts, end token included."""
  return [[*run.words.between(text), run.words.close] for text in texts]


def _learner(run: _Run, params: Any, steps: int):
  """Returns the state before a phase, and its update."""
  optimizer = optimizers.make_optimizer(
    name='adamw',
    learning_rate=run.config.pretrain.learning_rate,
    schedule='cosine',
    warmup_steps=50,
    steps=steps,
    b1=0.9,
    b2=0.99,
    eps=1e-8,
    weight_decay=0.01,
    clip_norm=1.0,
  )
  # Copied, because the update donates them and the caller may need them.
  params = jax.tree.map(jnp.copy, params)
  state = learner.init_state(params, optimizer, 0.0)
  chunk = run.config.model.logits_chunk
  return state, likelihood.make_imitation(run.model, optimizer, chunk)


def _bar(run: _Run, steps: int, name: str) -> tqdm.tqdm:
  return tqdm.trange(steps, desc=name, disable=not run.config.log.progress)


def _first_phase(run: _Run) -> Any:
  """Returns parameters that are right on a set share of first attempts."""
  c = run.config.pretrain
  start = jax.jit(run.model.init)(
    jax.random.key(run.config.seed), jnp.zeros((1, 1), jnp.int32)
  )
  state, update = _learner(run, nn.meta.unbox(start)['params'], c.first_steps)
  greedy = run.sampler(1, 0.0)
  for step in (bar := _bar(run, c.first_steps, 'phase 1')):
    run.stop.check()
    problems = _batch(run, step)
    answers = _written(run, [p.reference for p in problems.problems])
    rows = zip(_prompts(problems), answers, strict=True)
    examples = _examples(run, [[(x, 0.0), (y, 1.0)] for x, y in rows], 1)
    state, metrics = update(state, examples)
    if step % c.check_every == 0:
      graded = run.sample(greedy, state.params, run.validation, 0)
      accuracy = graded.right().mean()
      loss = float(metrics['loss'])
      bar.set_postfix_str(f'loss {loss:.3f}, Acc@t1 {100 * accuracy:.1f}')
      if accuracy >= c.first_accuracy:
        break
  return state.params


def _second_phase(run: _Run, teacher: Any) -> Any:
  """Returns parameters that make second attempts of the teacher's first ones."""
  c = run.config.pretrain
  state, update = _learner(run, teacher, c.second_steps)
  sample = run.sampler(1, 1.0)
  for step in (bar := _bar(run, c.second_steps, 'phase 2')):
    run.stop.check()
    problems = _batch(run, c.first_steps + step)
    first = _written(
      run, [t[0] for t in run.sample(sample, teacher, problems, 1 + step).texts]
    )
    right = _written(run, [p.reference for p in problems.problems])
    rng = np.random.default_rng([run.config.seed, step])
    repairs = rng.random(len(first)) < c.repair_share
    rows = [
      [(x, 0.0), (y1, 1.0), (run.between, 0.0), (y if repair else y1, 1.0)]
      for x, y1, y, repair in zip(
        _prompts(problems), first, right, repairs, strict=True
      )
    ]
    state, metrics = update(state, _examples(run, rows, 2))
    if step % c.check_every == 0:
      bar.set_postfix_str(f'loss {float(metrics["loss"]):.3f}')
  return state.params


def _head_room(run: _Run, params: Any) -> dict[str, float]:
  """Returns how good first attempts are, and how good the rare habit is.

  The habit shows where a sampled second attempt differs from its first; it is
  measured at the training temperature, for greedily the model copies.
  """
  greedy = run.sample(run.sampler(2, 0.0), params, run.validation, 0)
  drawn = run.sample(run.sampler(2, 1.0), params, run.validation, 0)
  greedy_values = evaluation.problem_values(greedy.attempts())
  attempts = drawn.attempts()
  first, second = attempts.right[:, 0], attempts.right[:, 1]
  changed = attempts.changed[:, 0]

  def share(of: np.ndarray, among: np.ndarray) -> float:
    return float(of[among].mean()) if among.any() else float('nan')

  return {
    'greedy accuracy_t1': float(greedy_values['accuracy_t1'].mean()),
    'greedy accuracy_t2': float(greedy_values['accuracy_t2'].mean()),
    'sampled accuracy_t1': float(first.mean()),
    'sampled accuracy_t2': float(second.mean()),
    'sampled: changed, given a wrong first': share(changed, ~first),
    'sampled: changed, given a right first': share(changed, first),
    'sampled: right, given changed and wrong first': share(
      second, changed & ~first
    ),
    'sampled: right, given a right first': share(second, first),
  }
