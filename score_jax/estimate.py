"""How much memory, work and time will a step take? Formulas, nothing measured.

Memory is that of the busiest moment of each program on one device: what stays
(counted from the very shapes that the programs are called with) and what the
moment adds. Which arrays live together at a moment was read from programs that
XLA compiled for TPUs; `docs/plan.md` holds the formulas against the compiler.
"""

from __future__ import annotations

import dataclasses
import functools
import math

from score_jax import sharding
from score_jax.chips import Chip
from score_jax.programs import (
  adapter,
  device_bytes,
  prepare_program,
  sample_program,
  Setup,
  update_program,
)
from score_jax.sizes import elements, Kernels, Sizes


@dataclasses.dataclass(frozen=True)
class Efficiency:
  """Shares of the chip's figures that a program reaches; guesses to be set."""

  compute: float = 0.5
  memory: float = 0.7
  network: float = 0.6


@dataclasses.dataclass(frozen=True)
class Cost:
  """What a phase does on one device."""

  flops: float
  memory: float  # Bytes read from and written to the device's memory.
  network: float  # Bytes received from other devices.

  def __add__(self, other: Cost) -> Cost:
    return Cost(
      self.flops + other.flops,
      self.memory + other.memory,
      self.network + other.network,
    )

  def times(self, count: float) -> Cost:
    """Returns the cost of doing it so many times."""
    return Cost(self.flops * count, self.memory * count, self.network * count)

  def seconds(self, chip: Chip, efficiency: Efficiency) -> dict[str, float]:
    """Returns the seconds that each resource alone would take."""
    return {
      'compute': self.flops / chip.flops / efficiency.compute,
      'memory': self.memory / chip.bandwidth / efficiency.memory,
      'network': self.network / chip.network / efficiency.network,
    }


FULL = Efficiency(1.0, 1.0, 1.0)  # The roofline: a bound from below.


@dataclasses.dataclass(frozen=True)
class Moment:
  """What lies in a device's memory at one moment of a program, in bytes."""

  program: str
  name: str
  parts: dict[str, float]

  @property
  def total(self) -> float:
    """Returns the sum of all parts."""
    return sum(self.parts.values())


def sampling_moments(setup: Setup) -> list[Moment]:
  """Returns the moments of the sampler at which its memory may peak."""
  s, config = Sizes(setup), setup.config
  model, prompt = setup.model.config, config.sampling.max_prompt_tokens
  copies, kernels = setup.decoding.copies, s.decoding
  params = s.own * s.act * (s.casts and not adapter(config) and not copies)
  common = {
    'copied weights' if copies else 'parameters': device_bytes(
      sample_program(setup).kept
    ),
    'parameters as used': params,
    'prompt cache': s.cache(s.problems, prompt),
    # Beside them as they lie (models/stack.py).
    'kernels for few rows': s.laid_out * s.act,
  }
  gathered = {'gathered layers': 2 * s.layer * kernels.width * kernels.gathered}
  before = s.slots - s.pieces[-1][0]
  # The last columns of rows that are refilled are in their places' caches alone.
  last = before if s.is_refilled else s.slots
  own = {'own cache': s.cache(s.sampled, last)}
  # While the keys grow the values wait, and the other way round.
  growing = own['own cache'] + s.cache(s.sampled, before) / 2
  queries = setup.instruction + 2
  moments = {
    'reading the prompts': gathered
    | _reading(s, s.problems, prompt, prompt)
    | {'attention': s.attended(s.problems, prompt, prompt, copies=2)},
    'reading an instruction': gathered
    | own
    | _reading(s, s.sampled, queries, prompt + s.slots),
    **(
      _refilled(s, prompt)
      if s.is_refilled
      else {'growing the cache': {'own cache': growing}, **_fewer(s, prompt)}
    ),
    'drawing a token': own
    | {
      'gathered table': s.table * kernels.width * kernels.gathered,
      'logits': 3 * s.sampled * s.tensor(model.vocab_size) * 4,
    },
  }
  return [Moment('sampler', k, common | v) for k, v in moments.items()]


def _fewer(s: Sizes, prompt: int) -> dict[str, dict[str, float]]:
  """Returns the moments in which rows that have not ended go on alone.

  Each smaller number of rows has a cache of its own, with a copy of the prompt
  for each, and goes back into the larger one, of which keys or values are
  copied meanwhile.
  """
  rows = s.decoded
  own = [s.cache(n, s.slots) for n in rows]
  moments = {}
  for i in range(1, len(rows)):
    moments[f'going on with {rows[i]} rows'] = {
      'own cache': own[0],
      'caches of fewer rows': sum(own[1 : i + 1]) + s.cache(rows[i], prompt),
    }
    moments[f'putting {rows[i]} rows back'] = {
      'own cache': own[0],
      'caches of fewer rows': sum(own[1 : i + 1]),
      'the same, replaced': own[i - 1] / 2,
    }
  return moments


def _refilled(s: Sizes, prompt: int) -> dict[str, dict[str, float]]:
  """Returns the moments in which some rows at a time are decoded.

  These have a cache of their own, with a copy of the prompt for each, and so
  have those that go on alone in the end. All rows' is kept meanwhile, as it was,
  and longer for those that have ended, if another attempt goes on from it: this
  one reads it in another layout than rows are put into it.
  """
  kernels, between = s.decoding, s.setup.instruction + 1
  own, longest, moments = 0, s.setup.config.sampling.max_tokens, {}
  for turn, tokens in enumerate(longest, 1):
    is_last, longer = turn == len(longest), own + tokens
    ended = s.cache(s.sampled, longer) * (not is_last)
    fewer = sum(s.cache(n, longer) for n in s.decoded)
    common = {
      'the same, of ended rows': ended,
      'caches of fewer rows': fewer + s.cache(s.decoded[0], prompt),
    }
    moments[f'attempt {turn}, {s.decoded[0]} rows at a time'] = common | {
      'own cache': s.cache(s.sampled, own),
      'gathered table': s.table * kernels.width * kernels.gathered,
    }
    if not is_last:
      moments[f'going on from attempt {turn}'] = common | {
        'the same, laid out anew': ended,
        'the same, growing': s.cache(s.sampled, longer + between) / 2,
      }
    own = longer + between
  return moments


def _reading(s: Sizes, rows: int, queries: int, keys: int) -> dict[str, float]:
  """Returns what one layer's pass over several columns adds."""
  parts = s.decoding.parts
  met = parts * rows * queries * s.setup.model.config.width * (parts > 1)
  return {
    'attention': 2 * s.scores(rows, queries, keys),
    'MLP': 3 * s.mlp(rows, queries) * s.act,
    # As products read them, and in float32 as they are summed up.
    'rows of other devices': met * (s.act + 4),
  }


def prepare_moments(setup: Setup) -> list[Moment]:
  """Returns the moment at which weights are copied; none without a copy."""
  if not setup.decoding.copies:
    return []
  s = Sizes(setup)
  gathered = s.gathers and setup.decoding.layout == 'gathered'
  parts = {
    'parameters': device_bytes(prepare_program(setup).kept),
    'copied weights': device_bytes(sample_program(setup).kept),
    # As it comes from the other devices, in another order.
    'gathered table': s.table * s.decoding.width * gathered,
  }
  return [Moment('weights', 'copying', parts)]


def update_moments(setup: Setup) -> list[Moment]:
  """Returns the moments of the update at which its memory may peak."""
  s, config = Sizes(setup), setup.config
  state, _, batch = update_program(setup).arguments
  whole = adapter(config) is None
  gradient = elements(setup.trained) * 4
  common = {
    'policy': device_bytes(state.params),
    'optimizer': device_bytes(state.opt_state),
    'reference': device_bytes(setup.waiting_reference),
    'batch': device_bytes(batch),
    'gradient, summed': gradient if config.train.accumulation > 1 else 0.0,
    'parameters as used': (s.own * s.act if s.casts and whole else 0.0),
    'saved activations': setup.model.config.layers * _saved(s),
    'hidden states': 2
    * s.learned
    * (s.queries + s.scored)
    * setup.model.config.width
    * s.act,
  }
  return [
    Moment('update', 'logits, backward', common | _logits(s, whole)),
    Moment('update', 'a layer, backward', common | _layer(s, gradient, whole)),
  ]


def _saved(s: Sizes) -> float:
  """Returns the bytes that one layer keeps for the backward pass."""
  c, remat = s.setup.model.config, s.setup.config.model.remat
  mlp = s.tensor(c.mlp)
  kept = c.width * s.summed  # The block's input.
  if remat != 'block':  # Whatever its products gave.
    heads = s.tensor(c.heads) + 2 * s.tensor(c.kv_heads)
    kept += heads * c.head_dim * s.act + 2 * (c.width + mlp) * s.summed
  saved = s.read * kept
  if remat == 'none':  # Norms in float32, the gate, and softmax's weights.
    saved += s.read * (2 * c.width * 4 + mlp * (s.summed + s.act))
    prompt = s.setup.config.sampling.max_prompt_tokens
    if s.kernel:  # What was attended to, behind a prompt, and what came of it.
      behind = s.learned * prompt * bool(s.prompts)
      saved += 2 * behind * s.tensor(c.kv_heads) * c.head_dim * s.act
      return saved + s.read * s.tensor(c.heads) * (c.head_dim * s.act + 4)
    weights = s.scores(s.learned, s.queries, s.length)
    weights += s.scores(s.prompts, prompt, prompt)
    saved += weights * s.act / 4
  return saved


def _logits(s: Sizes, whole: bool) -> dict[str, float]:
  """Returns what the backward pass of one block of logits adds."""
  c = s.setup.model.config
  block = s.learned * s.block * s.tensor(c.vocab_size)
  parts = {'logits': 2 * block * 4}
  if not whole:
    return parts | {'gathered table': 2 * s.table * s.act * s.gathers}
  # The product is summed in float32 over this device's rows, then reduced
  # over the others', while their gradients of the logits are fetched.
  split = s.shards > 1
  return parts | {
    'gradient of the table': s.table * 4,
    'the same, reduced': s.table * s.act * split,
    'logits of other rows': block * s.mesh['fsdp'] * s.act * s.gathers,
  }


def _layer(s: Sizes, gradient: float, whole: bool) -> dict[str, float]:
  """Returns what the backward pass of one layer adds."""
  c = s.setup.model.config
  tokens = s.learned * s.queries
  width = 4 * c.width + 2 * s.tensor(c.heads) * c.head_dim
  return {
    'gradient': gradient,
    'gathered layers': 2 * s.layer * s.act * s.gathers,
    'gradient of a layer': s.layer * 4 * s.gathers * whole,
    'attention': s.attended(s.learned, s.queries, s.length, copies=3),
    'MLP': s.mlp(s.learned, s.queries) * (3 * s.act + 4),
    'other activations': tokens * width * s.act,
  }


def peak(moments: list[Moment]) -> Moment:
  """Returns the moment that needs the most memory."""
  return max(moments, key=lambda moment: moment.total)


def layers_cost(
  s: Sizes,
  tokens: float,
  keys: float,
  kernels: Kernels,
  is_whole: bool = False,
) -> Cost:
  """Returns the cost of all layers over a device's tokens, without logits.

  Args:
    s: sizes.
    tokens: that a device's rows have.
    keys: that each of them attends to, masked ones counted.
    kernels: how the weights lie.
    is_whole: whether rows are read whole, by a kernel if there is one.
  """
  c = s.setup.model.config
  weights = s.layer * c.layers
  moved = weights * kernels.width
  heads = s.tensor(c.heads) * c.head_dim
  inside = 6 * c.width * s.summed + (4 * heads + 4 * s.tensor(c.mlp)) * s.act
  scores = tokens * keys * s.tensor(c.heads) * 4
  if s.kernel and is_whole:
    scores = 0.0  # They never leave the processor.
  return Cost(
    2 * tokens * weights + 4 * tokens * keys * heads * c.layers,
    moved * (2 if kernels.gathered else 1) / kernels.parts
    + c.layers * (tokens * inside + 4 * scores),
    _received(moved, s.mesh['fsdp']) * kernels.gathered
    + _travels(s, tokens, kernels.parts) * c.layers
    + _reduced(2 * c.layers * tokens * c.width * s.summed, s.mesh['tensor']),
  )


def _travels(s: Sizes, tokens: float, parts: int) -> float:
  """Returns the bytes received for rows that go to one layer's weights.

  Attention and MLP each read the rows of all devices and give back sums in
  float32; queries, keys, values and what attention gives change places.
  """
  c = s.setup.model.config
  heads = 2 * (s.tensor(c.heads) + s.tensor(c.kv_heads)) * c.head_dim
  rows = 2 * tokens * c.width * (s.act + 4) * (parts - 1)
  return rows + _received(tokens * heads * s.act, parts)


def _received(size: float, ways: int) -> float:
  """Returns the bytes that a device receives to gather an array of a size."""
  return size * (ways - 1) / ways


def _reduced(size: float, ways: int) -> float:
  """Returns the bytes that a device receives to sum arrays of a size."""
  return 2 * _received(size, ways)


def head_cost(s: Sizes, tokens: float, kernels: Kernels) -> Cost:
  """Returns the cost of a device's logits, forward."""
  c, parts = s.setup.model.config, kernels.parts
  logits, moved = tokens * s.tensor(c.vocab_size), s.table * kernels.width
  rows = tokens * c.width * s.act * (parts - 1)
  return Cost(
    2 * tokens * s.table,
    moved * (2 if kernels.gathered else 1) / parts + 3 * logits * 4,
    _received(moved, s.mesh['fsdp']) * kernels.gathered
    + rows
    + _received(logits * 4, parts),
  )


def prepare_cost(setup: Setup) -> dict[str, Cost]:
  """Returns the cost of copying the weights, once a step, if they are."""
  if not setup.decoding.copies:
    return {}
  s, ways = Sizes(setup), Sizes(setup).mesh['fsdp']
  copied = device_bytes(sample_program(setup).kept)
  moves = setup.decoding.layout != 'train'
  read = device_bytes(prepare_program(setup).kept)
  return {
    'copy weights': Cost(
      4 * s.own, read + 2 * copied, _received(copied, ways) * moves
    )
  }


def sampling_cost(setup: Setup) -> dict[str, Cost]:
  """Returns the cost of one step's sampling.

  What rows cost that are taken out, put back or exchanged is not counted.
  """
  s, config = Sizes(setup), setup.config
  parts, prompt = config.sampling.parts, config.sampling.max_prompt_tokens
  queries = sum(s.attempting[:-1]) * (setup.instruction + 2)
  keys = s.slots + prompt
  kernels = s.decoding
  # A scan over layers reads the cache, writes it whole, and reads it again.
  reads = 1 if config.model.unroll else 3
  attempts = Cost(0, 0, 0)
  for (own, rows, prompts), steps in s.steps.items():
    one = layers_cost(s, rows, own + prompt, kernels)
    one += head_cost(s, rows, kernels)
    cached = reads * s.cache(rows, own) + s.cache(prompts, prompt)
    attempts += (one + Cost(0, cached, 0)).times(steps * parts)
  read = layers_cost(s, s.problems * prompt, prompt, kernels, is_whole=True)
  return {
    'prompts': (read + layers_cost(s, queries, keys, kernels)).times(parts),
    'attempts': attempts,
  }


def update_cost(setup: Setup) -> dict[str, Cost]:
  """Returns the cost of one update."""
  s = Sizes(setup)
  phases = ('reference', 'policy, forward', 'policy, backward')
  costs = dict.fromkeys(phases, Cost(0, 0, 0))
  for width, parts in s.widths.items():
    for phase, cost in zip(phases, _part_cost(s, width), strict=True):
      costs[phase] += cost.times(parts)
  gradient = elements(setup.trained) * 4
  moved = 2 * device_bytes(update_program(setup).arguments[0]) + 2 * gradient
  return costs | {'optimizer': Cost(10 * gradient / 4, moved, 0)}


def _part_cost(s: Sizes, width: int) -> tuple[Cost, Cost, Cost]:
  """Returns the costs of the reference's pass and of the policy's two.

  Args:
    s: sizes.
    width: columns that one part of the update reads of a row.
  """
  config, whole = s.setup.config, adapter(s.setup.config) is None
  pass_cost = functools.partial(
    layers_cost, s, kernels=s.kernels, is_whole=True
  )
  before = s.length - s.queries  # Of a shared prompt.
  forward = pass_cost(s.learned * width, before + width)
  if s.prompts:
    forward += pass_cost(s.prompts * before, before)
  # Twice the forward pass, once for an adapter, and what is computed anew.
  again = {'none': 0, 'products': 0.3, 'block': 1}[config.model.remat]
  backward = forward.times((2 if whole else 1) + again)
  spread = _reduced(s.layer * s.setup.model.config.layers * 4 * whole, s.shards)
  scored = min(s.scored, width)
  block = s.learned * min(s.block, scored)  # Tokens whose logits exist at once.
  blocks = math.ceil(scored / s.block)
  head = head_cost(s, block, s.kernels)
  once = forward + head.times(blocks)
  backward += (head + _head_backward(s, block, whole)).times(blocks)
  return once, once, backward + Cost(0, 0, spread / 2)


def _head_backward(s: Sizes, tokens: float, whole: bool) -> Cost:
  """Returns the cost of one block of logits backward, once they are there.

  The table's own gradient is summed over all rows; for that of the states the
  other rows' gradients of the logits come to each part of the table.
  """
  c = s.setup.model.config
  states = Cost(2 * tokens * s.table, s.table * s.act, 0)
  if not whole:
    return states
  logits = tokens * s.tensor(c.vocab_size) * s.act
  return states + Cost(
    2 * tokens * s.table,
    s.table * (2 * 4 + 2 * s.act),
    _reduced(s.table * s.act, s.shards) + logits * (s.mesh['fsdp'] - 1),
  )


def step_cost(setup: Setup) -> dict[str, Cost]:
  """Returns the cost of each phase of a step."""
  sampled = {f'sample {k}': v for k, v in sampling_cost(setup).items()}
  return prepare_cost(setup) | sampled | update_cost(setup)


def step_seconds(setup: Setup, chip: Chip, efficiency: Efficiency) -> float:
  """Returns the seconds of a step: of each phase, its scarcest resource's.

  Grading is not in it, nor what the host does between the phases.
  """
  costs = step_cost(setup).values()
  return sum(max(c.seconds(chip, efficiency).values()) for c in costs)


def evaluation_seconds(
  setup: Setup, chip: Chip, efficiency: Efficiency
) -> float:
  """Returns the seconds that sampling one problem of an evaluation takes."""
  config = setup.config.copy_and_resolve_references()
  size = config.eval.batch
  with config.unlocked():
    config.train.trajectories = sharding.filled(Sizes(setup).shards, size)
    config.train.accumulation = config.sampling.parts = 1
    config.sampling.first_attempts = config.sampling.second_attempts = 1
  costs = sampling_cost(dataclasses.replace(setup, config=config)).values()
  seconds = sum(max(c.seconds(chip, efficiency).values()) for c in costs)
  return seconds / size
