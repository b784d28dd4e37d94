"""A step's sampling and update on an accelerator, and their share of its peak.

    python -m tests.benchmarks.accelerator --config=configs/score.py:math \
      --model=qwen25_0.5b [--config.some.setting=value ...] [--rounds=5]
      [--tflops=989 --gbytes=3350] [--trace=DIR] [--out=FILE.json]

The programs are those of a run with these settings, on all devices there are,
with random weights of a public model; nothing is downloaded. Every attempt is
as long as it may be. Operations and bytes are the plan's (`score_jax.plan`), of
one device: what the work needs, recomputed activations among it. A trace of one
step is for TensorBoard, Perfetto or XProf.
"""

from __future__ import annotations

import functools
import json
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

from absl import app, flags

from score_jax import main as main_lib

_MODEL = flags.DEFINE_string(
  'model', '', "A public model, as qwen25_0.5b; '' = as the config says."
)
_INSTRUCTION = flags.DEFINE_integer(
  'instruction_tokens', 64, 'Tokens between two attempts.', lower_bound=1
)
_ROUNDS = flags.DEFINE_integer('rounds', 5, 'Repeats of each.', lower_bound=1)
_TFLOPS = flags.DEFINE_float(
  'tflops', 0.0, 'Of a device at its best, bfloat16; 0 = as its name says.'
)
_GBYTES = flags.DEFINE_float(
  'gbytes', 0.0, "Of its memory's bandwidth, a second; 0 = as its name says."
)
_TRACE = flags.DEFINE_string('trace', '', "A folder for a trace; '' = none.")
_OUT = flags.DEFINE_string('out', '', 'All numbers, as JSON.')

# How jax calls a chip of `score_jax.chips`; and GPUs' public figures.
CHIPS = {
  'TPU v4': 'v4',
  'TPU v5 lite': 'v5e',
  'TPU v5': 'v5p',
  'TPU v6 lite': 'v6e',
}
GPUS = {
  'NVIDIA H100': (989e12, 3350e9),
  'NVIDIA H200': (989e12, 4800e9),
  'NVIDIA A100': (312e12, 2039e9),
}


def peak() -> tuple[float, float]:
  """Returns operations and bytes a second of a device; 0 = not known."""
  import jax

  from score_jax import chips

  kind = jax.devices()[0].device_kind
  flops, bandwidth = 0.0, 0.0
  if kind in CHIPS:
    chip = chips.CHIPS[CHIPS[kind]]
    flops, bandwidth = chip.flops, chip.bandwidth
  for name, figures in GPUS.items():
    if kind.startswith(name):
      flops, bandwidth = figures
  return _TFLOPS.value * 1e12 or flops, _GBYTES.value * 1e9 or bandwidth


def setup():
  """Returns what the settings make of the devices that are there."""
  import jax

  from score_jax import checks, fitting, planning, programs, sharding
  from score_jax import config as config_lib

  config = flags.FLAGS.config
  count, platform = jax.device_count(), jax.default_backend()
  checks.check(config, count, platform)
  config_lib.refuse(
    bool(config.model.lora.rank),
    f'model.lora.rank={config.model.lora.rank}: all parameters are measured '
    'here; leave it out.',
  )
  shape = config_lib.mesh_shape(config, count)
  _, numbers = planning.architecture(config, _MODEL.value)
  made = programs.setup(
    config, numbers, sharding.make_mesh(shape), _INSTRUCTION.value
  )
  stats = jax.local_devices()[0].memory_stats() or {}
  return fitting.decided(made, stats.get('bytes_limit'))


def parameters(made, like: Any) -> Any:
  """Returns random numbers of the model's parameters, as `like` lays them out."""
  import jax
  import jax.numpy as jnp
  from flax.core import meta

  tokens = jnp.zeros((1, 1), jnp.int32)

  @functools.partial(
    jax.jit, out_shardings=jax.tree.map(lambda x: x.sharding, like)
  )
  def init(key):
    params = meta.unbox(made.model.init(key, tokens))['params']
    return jax.tree.map(lambda x, to: x.astype(to.dtype), params, like)

  return init(jax.random.key(0))


def sampling(made, params) -> Callable[[], Any]:
  """Returns what copies the weights, if they are, and samples a batch."""
  import jax
  import jax.numpy as jnp

  from score_jax import decoding, programs, sampler

  program, config = programs.sample_program(made), made.config
  prepare = decoding.make_prepare(made.model, made.decoding)
  _, like, between, _ = program.arguments

  def put(x, like):
    return jax.device_put(jnp.asarray(x, like.dtype), like.sharding)

  vocab = made.model.config.vocab_size
  tokens = jax.random.randint(
    jax.random.key(1), like.tokens.shape, 2, vocab
  )  # Below are the ids that end and fill.
  instructions = tuple(put(jnp.full(one.shape, 2), one) for one in between)

  def prompts(part):
    count, columns = like.tokens.shape
    return sampler.Prompts(
      put(tokens, like.tokens),
      put(jnp.full(count, columns), like.length),
      put(part * count + jnp.arange(count), like.number),
    )

  batches = [prompts(i) for i in range(config.sampling.parts)]

  def run():
    ready = prepare(params)
    key = jax.random.key(0)
    found = [
      program.function(ready, batch, instructions, key) for batch in batches
    ]
    if len(found) == 1:
      return found[0]
    return jax.tree.map(lambda *x: jnp.concatenate(x), *found)

  return run


def updating(made, params, trajectory) -> Callable[[], Any]:
  """Returns an update on the trajectories, each from where the last one led."""
  import jax
  import jax.numpy as jnp

  from score_jax import learner, programs

  program, config = programs.update_program(made), made.config
  like, _, of_batch = program.arguments
  rule = programs.optimizer(config, config.train.stage2_steps)

  @functools.partial(
    jax.jit, out_shardings=jax.tree.map(lambda x: x.sharding, like)
  )
  def start(params):
    copy = jax.tree.map(jnp.copy, params)
    return learner.init_state(copy, rule, config.method.beta2)

  state, reference = start(params), parameters(made, made.reference)
  shape = of_batch.reward.shape
  reward = jax.random.bernoulli(jax.random.key(2), 0.5, shape)
  batch = learner.Batch(trajectory, reward.astype(jnp.float32))
  batch = jax.tree.map(
    lambda x, to: jax.device_put(x, to.sharding), batch, of_batch
  )

  def run():
    nonlocal state
    state, metrics = program.function(state, reference, batch)
    return metrics['loss']

  return run


def timed(run: Callable[[], Any]) -> list[float]:
  """Returns seconds of the clock; what is compiled is not in them."""
  import jax

  jax.block_until_ready(run())
  seconds = []
  for _ in range(_ROUNDS.value):
    start = time.perf_counter()
    jax.block_until_ready(run())
    seconds.append(time.perf_counter() - start)
  return seconds


def row(work: str, costs: list, seconds: list[float], tokens: float) -> dict:
  """Returns one line of the table, of one device."""
  flops, bandwidth = peak()
  middle = statistics.median(seconds)
  done = sum(cost.flops for cost in costs) / middle
  moved = sum(cost.memory for cost in costs) / middle
  return {
    'work': work,
    'seconds': f'{middle:.3g} ({min(seconds):.3g}–{max(seconds):.3g})',
    'tokens/s': f'{tokens / middle:,.0f}',
    'TFLOP/s': f'{done / 1e12:.3g}',
    'of its peak': f'{done / flops:.0%}' if flops else 'not known',
    'GB/s': f'{moved / 1e9:.3g}',
    'of its bandwidth': f'{moved / bandwidth:.0%}'
    if bandwidth
    else 'not known',
  }


def measured() -> tuple[str, list[dict]]:
  """Returns what was measured on what, and the rows of the table."""
  import jax
  import jax.numpy as jnp

  from score_jax import estimate

  made = setup()
  config = made.config
  params = parameters(made, made.trained)
  sample = sampling(made, params)
  trajectory = sample()
  update = updating(made, params, trajectory)
  costs = estimate.step_cost(made)
  of = {'sample': [], 'update': []}
  for name, cost in costs.items():
    sampled = name.startswith(('sample', 'copy'))
    of['sample' if sampled else 'update'].append(cost)
  sampled = float(jnp.sum(trajectory.turn > 0))
  read = float(jnp.sum(trajectory.length))
  rows = [
    row('sample', of['sample'], timed(sample), sampled),
    row('update', of['update'], timed(update), read),
  ]
  if _TRACE.value:
    with jax.profiler.trace(_TRACE.value):
      jax.block_until_ready((sample(), update()))
  device = jax.devices()[0]
  count = sum(x.size for x in jax.tree.leaves(params))
  mesh = ' x '.join(map(str, made.mesh.shape.values()))
  return (
    f'{jax.device_count()} x {device.device_kind}, mesh {mesh}; {count:,} '
    f'parameters, {config.model.dtype}; {config.train.trajectories} rows, '
    f'sampled in {config.sampling.parts}, learned from in '
    f'{config.train.accumulation}; remat {config.model.remat}, attention '
    f'{config.model.attention}',
    rows,
  )


def main(argv) -> None:
  """Measures, prints and keeps what the flags ask for."""
  del argv
  words, rows = measured()
  print(f'\n{words}\n')
  print('| ' + ' | '.join(rows[0]) + ' |')
  print('|' + ' --- |' * len(rows[0]))
  for line in rows:
    print('| ' + ' | '.join(line.values()) + ' |')
  if _OUT.value:
    found = {'what': words, 'rows': rows}
    pathlib.Path(_OUT.value).write_text(json.dumps(found, indent=2) + '\n')


if __name__ == '__main__':
  app.run(main, flags_parser=main_lib.parse)
