"""How cost grows, and what sharing, leaving out and chunking save.

    python -m tests.benchmarks.costs [--repeats=3] [--cores=1]
      [--only=growth,prompts,blocks,early,padding,memory] [--rows=16,64,256,512]
      [--out=FILE.json]

Seconds on pinned cores: of the processor on one, which other programs do not
lengthen, and of the clock on more; the median of the repeats. Compilation is
not counted. Memory comes in huge pages, as score_jax.main asks for it. Models
are of the Qwen 2 kind with random weights.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from absl import app, flags

from score_jax import pages
from tests.benchmarks.speed import machine

_ONLY = flags.DEFINE_list(
  'only',
  ['growth', 'prompts', 'blocks', 'early', 'padding', 'memory'],
  'What is measured.',
)
_ROWS = flags.DEFINE_list(
  'rows', ['16', '64', '256', '512'], 'Batches of which rows end early.'
)
EACH = 8  # Of these rows share a prompt.
_REPEATS = flags.DEFINE_integer('repeats', 3, 'Of each.', lower_bound=1)
_CORES = flags.DEFINE_integer('cores', 1, 'To pin to.', lower_bound=1)
_OUT = flags.DEFINE_string('out', '', 'All numbers, as JSON.')

NEVER = -1  # An end token that nobody draws.
GIB = 1 << 30


def _forms() -> dict[str, int]:
  """Returns how a run on these cores reads kernels, of Execution."""
  from score_jax.models import stack

  return stack.limits(_CORES.value)


@dataclasses.dataclass(frozen=True)
class Case:
  """One piece of work; an attempt of one turn behind each prompt."""

  rows: int = 16
  each: int = 4  # K, rows of a prompt.
  prompt: int = 64
  new: int = 64
  layers: int = 4
  vocab: int = 512
  chunk: int = 4096  # Tokens whose logits the update holds at once.
  whole: bool = False  # Whether the update reads and scores whole rows.
  ends: int = 0  # Of the vocabulary's tokens, all alike likely, end an attempt.
  compact: tuple[float, ...] = ()
  refill: int = 0  # Rows decoded at a time.
  mean: int = 0  # Of geometric lengths that the update reads; 0 = all longest.
  parts: int = 1  # Of the update.
  widths: tuple[float, ...] = ()
  forms: dict[str, int] = dataclasses.field(default_factory=_forms)


def model_of(layers: int, vocab: int, forms: dict[str, int] | None = None):
  """Returns a decoder as wide as TINY."""
  from score_jax.models import families
  from score_jax.models.architecture import Execution
  from score_jax.models.transformer import Transformer

  config = {
    'model_type': 'qwen2',
    'num_hidden_layers': layers,
    'hidden_size': 256,
    'intermediate_size': 1024,
    'num_attention_heads': 4,
    'num_key_value_heads': 2,
    'vocab_size': vocab,
    'tie_word_embeddings': True,
    'rms_norm_eps': 1e-6,
    'rope_theta': 10_000.0,
  }
  return Transformer(families.model_config(config), Execution(**forms or {}))


@functools.cache
def params_of(layers: int, vocab: int):
  import jax
  import jax.numpy as jnp
  from flax.core import meta

  init = jax.jit(model_of(layers, vocab).init)
  tokens = jnp.zeros((1, 1), jnp.int32)
  return meta.unbox(init(jax.random.key(0), tokens))['params']


def sampling(case: Case) -> Callable[[], Any]:
  """Returns what samples trajectories."""
  import jax
  import jax.numpy as jnp

  from score_jax import sampler
  from score_jax.policy import Policy

  plan = sampler.Sampling(
    first_attempts=case.each,
    second_attempts=1,
    max_tokens=(case.new,),
    # So hot that all tokens are alike: lengths are geometric.
    policy=Policy(100.0),
    end_tokens=tuple(range(case.ends)) or (NEVER,),
    close=0,
    pad=0,
    compact=case.compact,
    refill=case.refill,
  )
  model = model_of(case.layers, case.vocab, case.forms)
  program = sampler.make_sampler(model, plan)
  problems = case.rows // case.each
  key = jax.random.key(1)
  prompts = sampler.Prompts(
    jax.random.randint(key, (problems, case.prompt), 0, case.vocab),
    jnp.full(problems, case.prompt),
    jnp.arange(problems),
  )
  params = params_of(case.layers, case.vocab)
  return lambda: program(params, prompts, (), key)


def updating(case: Case):
  """Returns the update, state, reference and batch."""
  import jax
  import jax.numpy as jnp

  from score_jax import learner, objective, optimizers
  from score_jax.policy import Policy
  from score_jax.trajectory import Trajectory

  rows, columns = case.rows, case.prompt + case.new
  optimizer = optimizers.make_optimizer(
    'adamw', 1e-5, 'constant', 0, 1, 0.9, 0.999, 1e-8, 0.01, 1.0
  )
  learning = learner.Learning(
    stage=objective.stage_two(1, 10.0, 0.01, 0.0, 'k1'),
    groups=objective.Groups(case.each, 1),
    policy=Policy(),
    baseline='leave_one_out' if case.each > 1 else 'none',
    mask_truncated=False,
    accumulation=case.parts,
    logits_chunk=case.chunk,
    attempt_tokens=() if case.whole else (case.new,),
    prompt_tokens=0 if case.whole else case.prompt,
    widths=case.widths,
    beta2_rate=0.0,
    beta2_fraction=0.5,
    beta2_low=0.01,
    beta2_high=10.0,
  )
  update = learner.make_update(
    model_of(case.layers, case.vocab), optimizer, learning
  )
  tokens = jax.random.randint(jax.random.key(1), (rows, columns), 0, case.vocab)
  once = tokens[:: case.each, : case.prompt]
  tokens = tokens.at[:, : case.prompt].set(jnp.repeat(once, case.each, axis=0))
  length = jnp.full(rows, columns)
  if case.mean:
    drawn = jax.random.geometric(jax.random.key(3), 1 / case.mean, (rows,))
    length = case.prompt + jnp.minimum(drawn, case.new)
  column = jnp.arange(columns)[None]
  written = (column >= case.prompt) & (column < length[:, None])
  start = jnp.full(rows, case.prompt)
  trajectory = Trajectory(
    tokens=tokens,
    turn=written.astype(jnp.int32),
    logp=jnp.zeros((rows, columns)),
    length=length,
    span=jnp.stack([start, length], axis=1)[:, None],
    truncated=jnp.zeros((rows, 1), bool),
  )
  reward = jax.random.uniform(jax.random.key(2), (rows, 1))
  reference = params_of(case.layers, case.vocab)
  start = functools.partial(learner.init_state, optimizer=optimizer, beta2=0.1)
  return update, start, reference, learner.Batch(trajectory, reward)


def timed(run: Callable[[], Any]) -> float:
  """Returns seconds, the median of the repeats."""
  (seconds,) = in_turns({'': run}).values()
  return statistics.median(seconds)


def in_turns(runs: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
  """Returns the seconds of each by name, one for each repeat.

  One after the other, so that what slows the machine for a while slows all.
  """
  import jax

  now = time.process_time if _CORES.value == 1 else time.perf_counter
  for run in runs.values():
    jax.block_until_ready(run())
  found = {name: [] for name in runs}
  for _ in range(_REPEATS.value):
    for name, run in runs.items():
      start = now()
      jax.block_until_ready(run())
      found[name].append(now() - start)
  return found


def update_seconds(case: Case) -> float:
  import jax
  import jax.numpy as jnp

  update, start, reference, batch = updating(case)
  state = start(jax.tree.map(jnp.copy, reference))

  def run():
    nonlocal state
    state, metrics = update(state, reference, batch)
    return state, metrics

  return timed(run)


def growth() -> Iterator[dict[str, Any]]:
  """Gives seconds of sampling and of the update as one number grows."""
  axes = {
    'rows': (8, 16, 32, 64),
    'new': (32, 64, 128, 256),
    'each': (1, 2, 4, 8),
    'prompt': (64, 128, 256, 512),
    'layers': (2, 4, 8),
    'vocab': (512, 4096, 32_768),
  }
  for name, values in axes.items():
    for value in values:
      case = dataclasses.replace(Case(), **{name: value})
      yield {
        'axis': name,
        'value': value,
        'sample': timed(sampling(case)),
        'update': update_seconds(case),
      }


def prompts() -> Iterator[dict[str, Any]]:
  """Gives what a prompt costs that K = 8 rows share, beside eight copies."""
  shared = Case(rows=32, each=8, prompt=512, new=64)
  copied = dataclasses.replace(shared, each=1)
  for name, case in (('shared', shared), ('copied', copied)):
    model = model_of(case.layers, case.vocab).config
    cached = 2 * model.layers * model.kv_heads * model.head_dim * 4
    read = dataclasses.replace(case, new=1)
    whole = dataclasses.replace(shared, whole=name == 'copied')
    yield {
      'prompts': name,
      'prefill s': timed(sampling(read)),
      'prompt cache MiB': case.rows // case.each * case.prompt * cached / 2**20,
      'sample s': timed(sampling(case)),
      'update s': update_seconds(whole),
    }


def step_seconds(case: Case) -> float:
  """Returns what reading one more token costs, of those that it reads."""
  read, full = (
    timed(sampling(dataclasses.replace(case, new=new))) for new in (1, case.new)
  )
  return (full - read) / (case.new - 1)


def blocks() -> Iterator[dict[str, Any]]:
  """Gives the milliseconds of a step, kernels in each of their forms."""
  for rows in (1, 2, 4, 8, 16, 32, 64):
    case = Case(rows=rows, each=min(4, rows))
    lie, cut, turned = (
      1e3 * step_seconds(dataclasses.replace(case, forms=forms))
      for forms in ({}, {'few': rows}, {'some': rows})
    )
    yield {
      'rows': rows,
      'as they lie': lie,
      'in blocks': cut,
      'turned': turned,
      'lie / blocks': lie / cut,
      'lie / turned': lie / turned,
    }


def _batches() -> list[int]:
  """Returns the rows of the batches of which rows end early.

  Raises:
    app.UsageError: where one is not of whole groups.
  """
  for rows in _ROWS.value:
    if not rows.isdecimal() or not int(rows) or int(rows) % EACH:
      raise app.UsageError(f'--rows: {rows!r}; it is a multiple of {EACH}.')
  return [int(rows) for rows in _ROWS.value]


def _prices(each: int) -> tuple[dict[int, float], Callable]:
  """Returns what reading prompts costs, and a step, of so many rows.

  Args:
    each: rows that share a prompt, at most.
  """
  import numpy as np

  batches = _batches()
  priced = {1, 2, 4, 8, 16, 32, 64, 96, 128, 256, *batches}
  reads, steps = {}, {0: 0.0}
  for rows in sorted(n for n in priced if n <= max(batches)):
    case = Case(rows=rows, each=min(each, rows))
    reads[rows] = timed(sampling(dataclasses.replace(case, new=1)))
    steps[rows] = (timed(sampling(case)) - reads[rows]) / (case.new - 1)

  def step(rows):
    return np.interp(rows, list(steps), list(steps.values()))

  return reads, step


def early() -> Iterator[dict[str, Any]]:
  """Gives what rows cost that end early, beside paying for live tokens.

  The ideal reads the prompts, and then pays for each live token what it costs
  among rows that all go on; it is measured with the others, in turns. The floor
  pays for each step what as many rows cost as are alive in it. The steps are
  paid for the rows that each of them reads, which have a prompt each unless all
  are read; what the whole took beside them is for moving rows.
  """
  import numpy as np

  from score_jax import batching

  finer = (0.75, 0.56, 0.42, 0.32, 0.24, 0.18, 0.12, 0.08, 0.05, 0.03)
  halves = (0.5, 0.25, 0.12)
  # Of 96 and of 128 rows, as many sixteens and at last half of one.
  thirds = (0.667, 0.5, 0.333, 0.167, 0.083)
  quarters = (0.75, 0.5, 0.25, 0.125, 0.0625)
  ways = {
    'all rows go on': {},
    'halves': {'compact': halves},
    'finer': {'compact': finer},
    '32 at a time, halves': {'compact': halves, 'refill': 32},
    '64 at a time, halves': {'compact': halves, 'refill': 64},
    '96 at a time, thirds': {'compact': thirds, 'refill': 96},
    '128 at a time, quarters': {'compact': quarters, 'refill': 128},
  }
  (reads, shared), (_, apart) = _prices(EACH), _prices(1)
  for rows in _batches():
    case = Case(rows=rows, each=EACH)
    ends = 32  # Of 512, so that one token of 16 ends an attempt.
    cases = {
      name: dataclasses.replace(case, ends=ends, **way)
      for name, way in ways.items()
      if way.get('refill', 0) < rows
    }
    plain = sampling(cases['all rows go on'])
    lengths = np.sum(np.asarray(plain().turn) > 0, axis=1)
    alive = np.sum(lengths[:, None] > np.arange(case.new), axis=0)
    live = alive.sum() / (rows * case.new)
    cases['reading'] = dataclasses.replace(case, new=1)
    cases['full'] = case
    seconds = in_turns({name: sampling(case) for name, case in cases.items()})
    read, full = (np.asarray(seconds.pop(x)) for x in ('reading', 'full'))
    ideal = read + (full - read) * live
    price = reads[rows] + (case.new - 1) * shared(rows) * live
    for name, taken in seconds.items():
      sizes = batching.sizes(rows, cases[name].compact, cases[name].refill)
      kept = _read(lengths, sizes)
      paid = sum(shared(n) if n == rows else apart(n) for n in kept)
      yield {
        'rows': rows,
        'left out': name,
        'live share': live,
        's': statistics.median(taken),
        'of the ideal': statistics.median(taken / ideal),
        'steps': (reads[rows] + paid) / price,
        'floor': (reads[rows] + shared(alive[1:]).sum()) / price,
      }


def _read(lengths, sizes: list[int]) -> list[int]:
  """Returns how many rows each step reads, where so many are decoded at once.

  Args:
    lengths: of the rows' attempts, tokens; the first comes of the prompt.
    sizes: as `batching.sizes` gives them.
  """
  from score_jax import batching

  places, batch = sizes[0], batching.exchanged(sizes[0])
  waiting, now, found = [n - 1 for n in lengths if n > 1], [], []
  now, waiting = waiting[:places], waiting[places:]
  while now or waiting:
    while waiting and places - len(now) >= batch:
      now, waiting = now + waiting[:batch], waiting[batch:]
    few = (n for n in sizes if n >= len(now))
    found.append(places if waiting else min(few))
    now = [n - 1 for n in now if n > 1]
  return found


def padding() -> Iterator[dict[str, Any]]:
  """Gives what short rows cost the update, read at fewer and more widths."""
  import jax
  import jax.numpy as jnp

  whole = Case(rows=64, each=4, prompt=64, new=256, mean=64, parts=8)
  ways = {
    'whole rows': (),
    'two': (0.5,),
    'four, as the presets': (0.3, 0.45, 0.7),
    'eight': (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875),
  }
  for name, shares in ways.items():
    case = dataclasses.replace(whole, widths=shares)
    update, start, reference, batch = updating(case)
    state = start(jax.tree.map(jnp.copy, reference))
    _, metrics = update(state, reference, batch)
    yield {
      'widths': name,
      'padding': float(metrics['padding']),
      'update s': update_seconds(case),
    }


def memory() -> Iterator[dict[str, Any]]:
  """Gives what the compiled update holds at most, vocabulary 256,000."""
  import jax

  wide = Case(rows=16, each=4, prompt=64, new=192, vocab=256_000)
  for name, case in {
    'plain': dataclasses.replace(wide, chunk=1 << 30, whole=True),
    'in chunks of 256 tokens': dataclasses.replace(wide, chunk=256),
  }.items():
    update, start, reference, batch = updating(case)
    state = jax.eval_shape(start, reference)
    found = update.lower(state, reference, batch).compile().memory_analysis()
    kept = found.argument_size_in_bytes
    yield {
      'logits': name,
      'arguments GiB': kept / GIB,
      'beside them GiB': found.temp_size_in_bytes / GIB,
      'peak GiB': (kept + found.temp_size_in_bytes) / GIB,
    }


MEASURED = {
  'growth': growth,
  'prompts': prompts,
  'blocks': blocks,
  'early': early,
  'padding': padding,
  'memory': memory,
}


def _cell(value: Any) -> str:
  return f'{value:.3g}' if isinstance(value, float) else str(value)


def show(rows: list[dict[str, Any]]) -> None:
  """Prints rows as a Markdown table."""
  print('| ' + ' | '.join(rows[0]) + ' |')
  print('|' + ' --- |' * len(rows[0]))
  for row in rows:
    print('| ' + ' | '.join(map(_cell, row.values())) + ' |')
  print(flush=True)


def main(argv) -> None:
  """Measures and prints what the flags ask for."""
  del argv
  unknown = set(_ONLY.value) - set(MEASURED)
  if unknown:
    raise app.UsageError(f'--only: {unknown}; it is of {list(MEASURED)}.')
  _batches()  # Refused before anything is measured.
  os.environ.setdefault('JAX_PLATFORMS', 'cpu')
  machine.pin(_CORES.value)
  import jax

  found = {'processor': machine.processor()}
  for name in _ONLY.value:
    found[name] = list(MEASURED[name]())
    show(found[name])
    if _OUT.value:
      pathlib.Path(_OUT.value).write_text(json.dumps(found, indent=2))
    # All programs of all parts are more memory mappings than Linux gives.
    jax.clear_caches()


if __name__ == '__main__':
  pages.ask()
  app.run(main)
