"""A plan as a page of text, and as numbers for machines."""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Iterator
from typing import Any

import jax

from score_jax import config as config_lib
from score_jax import estimate, fitting, programs, tpu
from score_jax.chips import GIB
from score_jax.estimate import Efficiency
from score_jax.planning import Plan
from score_jax.sizes import Sizes

_PREFIXES = ((1e15, 'P'), (1e12, 'T'), (1e9, 'G'), (1e6, 'M'), (1e3, 'k'))
WIDTH = 80
SHOWN = 3  # Proposals.


def page(plan: Plan, efficiency: Efficiency) -> str:
  """Returns the plan in lines of at most 80 columns."""
  sections = {
    'Run': _run(plan),
    'Parameters': _parameters(plan),
    'Shapes': _shapes(plan),
    'Memory of a device, GiB': _memory(plan),
    'Compiled ahead of time, per device': _compiled(plan),
    'Work of a step, per device': _work(plan, efficiency),
    'Time': _time(plan),
    'What fits': _fits(plan),
    'Warnings': [f'- {text}' for text in plan.warnings] or ['none'],
  }
  lines = []
  for name, content in sections.items():
    if content := list(content):
      lines += ['', name, *(wrapped for x in content for wrapped in _wrap(x))]
  return '\n'.join(lines[1:])


def _wrap(line: str) -> list[str]:
  inside = 13 if not line.startswith('- ') else 2
  return textwrap.wrap(
    line,
    WIDTH,
    initial_indent='  ',
    subsequent_indent=' ' * (2 + inside),
    break_long_words=False,
    drop_whitespace=True,
    replace_whitespace=False,
  )


def _row(name: str, text: str) -> str:
  return f'{name:12} {text}'


def _run(plan: Plan) -> Iterator[str]:
  config, setup = plan.setup.config, plan.setup
  sizes = Sizes(plan.setup)
  mesh = ' x '.join(f'{k} {v}' for k, v in sizes.mesh.items())
  where = f'{plan.target.name}, ' if plan.target else ''
  each, rows = config_lib.samples_per_problem(config), config.train.trajectories
  attempts, tokens = programs.sampled_at_most(config)
  yield _row('config', f'{config.job}, preset {config.preset}')
  yield _row('model', plan.model)
  yield _row('mesh', f'{where}{mesh} = {setup.mesh.size} devices')
  yield _row(
    'a step',
    f'{rows // each} problems x K={each} x {config.turns} turns = {rows} '
    f'trajectories, {attempts} attempts',
  )
  yield _row(
    'tokens',
    f'at most {tokens:,} sampled and '
    f'{sizes.read * sizes.shards * config.train.accumulation:,} read by the '
    'update',
  )
  yield _row(
    'in all',
    f'{plan.steps:,} updates, {plan.steps * rows:,} trajectories, at most '
    f'{number(plan.steps * tokens)} sampled tokens',
  )


def _parameters(plan: Plan) -> Iterator[str]:
  base = plan.setup.base
  count = {
    'embedding': _count(base['embedding']),
    'attention': _count(base['layers']['attention']),
    'MLP': _count(base['layers']['mlp']),
    'head': _count(base.get('head', ())),
  }
  count['norms'] = _count(base) - sum(count.values())
  for name, value in count.items():
    if value:
      yield _row(name, f'{value:>15,}')
  yield _row('all', f'{_count(base):>15,}')
  yield _row('trained', f'{_count(plan.setup.trained):>15,}')


def _count(tree: Any) -> int:
  return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))


def _shapes(plan: Plan) -> Iterator[str]:
  config, s = plan.setup.config, Sizes(plan.setup)
  sampling, c = config.sampling, plan.setup.model.config
  each = config_lib.samples_per_problem(config)
  rows = config.train.trajectories
  problems = rows // each // sampling.parts
  yield _row(
    'sampler',
    f'{sampling.parts} call(s) a step: prompts [{problems}, '
    f'{sampling.max_prompt_tokens}], own cache 2 x [{c.layers}, '
    f'{rows // sampling.parts}, {s.slots}, {c.kv_heads}, {c.head_dim}]',
  )
  kept = plan.setup.decoding
  copied = 'copied once a step' if kept.copies else 'as they are trained'
  yield _row(
    'decoding',
    f'layout {kept.layout}, weights {kept.weights}, cache {kept.cache}; '
    f'weights {copied}',
  )
  prompts = s.prompts * s.shards
  once = f'[{prompts}, {sampling.max_prompt_tokens}] once, ' if prompts else ''
  yield _row(
    'update',
    f'tokens [{rows}, {s.length}] in {config.train.accumulation} part(s), '
    f'prompts {once or "in their rows, "}'
    f'logits [{rows // config.train.accumulation}, {s.block}, {c.vocab_size}] '
    f'in {math.ceil(s.scored / s.block)} blocks, remat {config.model.remat}, '
    f'attention {config.model.attention}',
  )


def _memory(plan: Plan) -> Iterator[str]:
  peaks = {}
  for moment in plan.moments:
    best = peaks.get(moment.program)
    peaks[moment.program] = estimate.peak([best, moment] if best else [moment])
  for name, moment in peaks.items():
    yield _row(name, f'busiest {moment.name}: {moment.total / GIB:.2f}')
    for part, size in moment.parts.items():
      if size >= 0.005 * moment.total:
        yield _row('', f'{size / GIB:8.2f}  {part}')
    if name == 'sampler':
      yield _row('', f'{plan.waiting / GIB:8.2f}  waiting, not counted above')
  needed = fitting.peak(plan.setup)
  share = ''
  if plan.target:
    memory = plan.target.chip.memory * plan.target.devices
    memory /= plan.setup.mesh.size
    share = f' of {memory / GIB:.0f} ({needed / memory:.0%})'
  yield _row('needed', f'{needed / GIB:.2f}{share}')


def _compiled(plan: Plan) -> Iterator[str]:
  for name, found in plan.compiled.items():
    if isinstance(found, str):
      yield _row(name, f'refused by the compiler: {found}')
      continue
    predicted = predicted_peak(plan, name)
    yield _row(
      name,
      f'peak {found.peak / GIB:.2f} GiB, predicted {predicted / GIB:.2f} '
      f'({predicted / found.peak - 1:+.0%}); arguments '
      f'{found.arguments / GIB:.2f}, code {found.code / GIB:.2f}; '
      f'{found.seconds:.0f} s to compile',
    )
    for c in found.collectives:
      yield _row(
        '',
        f'{c.kind:18} {c.count:4} in the program, {number(c.runs):>7} run, '
        f'{number(c.total):>7}B',
      )


def predicted_peak(plan: Plan, program: str) -> float:
  """Returns the bytes that the formulas give for one program."""
  mine = [m for m in plan.moments if m.program == program]
  return estimate.peak(mine).total


def _work(plan: Plan, efficiency: Efficiency) -> Iterator[str]:
  head = f'{"":18}{"FLOP":>9}{"memory":>10}{"network":>10}'
  yield head + (f'{"bound s":>10}{"about s":>10}  by' if plan.target else '')
  for name, cost in plan.costs.items():
    line = (
      f'{name:18}{number(cost.flops):>9}{number(cost.memory) + "B":>10}'
      f'{number(cost.network) + "B":>10}'
    )
    if plan.target:
      full = cost.seconds(plan.target.chip, estimate.FULL)
      about = cost.seconds(plan.target.chip, efficiency)
      scarce = max(about, key=about.get)
      line += f'{max(full.values()):10.2f}{about[scarce]:10.2f}  {scarce}'
    yield line


def _time(plan: Plan) -> Iterator[str]:
  times = plan.times
  if times is None:
    yield 'name a --slice for seconds'
    return
  step = times.step + times.grading
  run = plan.steps * step + times.evaluations
  yield _row(
    'a step',
    f'{_figure(step)} s ({_figure(times.bound)} s by the roofline), graders '
    f'{_figure(times.grading)} s; {_lengths(plan.setup.attempt)}',
  )
  yield _row(
    'evaluations', f'{_figure(times.evaluations / 3600)} h of sampling in all'
  )
  yield _row(
    'the run',
    f'{_figure(run / 86400, 2)} days, '
    f'{_figure(run / 3600 * plan.target.devices, 0)} chip-hours',
  )


def _lengths(attempt: float) -> str:
  if not attempt:
    return 'every attempt at its longest'
  return f'attempts of {attempt:g} tokens on average'


def _fits(plan: Plan) -> Iterator[str]:
  if not plan.target:
    return
  if not plan.proposals:
    yield 'nothing: take a larger slice, shorter rows or model.lora.rank=16'
  for p in plan.proposals[:SHOWN]:
    needed = f'{_figure(p.peak / GIB)} GiB  {p.settings()}'
    yield _row(f'{_figure(p.seconds):>6} s', needed)


def _figure(value: float, decimals: int = 1) -> str:
  """Returns a number with so many decimals, or two figures if it is small."""
  if 0 < value < 0.1:
    return f'{value:.2g}'
  return f'{value:,.{decimals}f}'


def number(value: float) -> str:
  """Returns a number with three figures and a prefix."""
  for size, prefix in _PREFIXES:
    if abs(value) >= size:
      return f'{value / size:.3g} {prefix}'
  return f'{value:.3g} '


def record(plan: Plan) -> dict[str, Any]:
  """Returns the plan's numbers as JSON has them; bytes and seconds."""
  return {
    'model': plan.model,
    'slice': plan.target.name if plan.target else None,
    'mesh': dict(plan.setup.mesh.shape),
    'parameters': _count(plan.setup.base),
    'steps': plan.steps,
    'attempt_tokens': plan.setup.attempt,
    'moments': [dataclasses.asdict(m) for m in plan.moments],
    'compiled': {
      k: v if isinstance(v, str) else tpu.as_record(v)
      for k, v in plan.compiled.items()
    },
    'costs': {k: dataclasses.asdict(v) for k, v in plan.costs.items()},
    'seconds': dataclasses.asdict(plan.times) if plan.times else None,
    'proposals': [dataclasses.asdict(p) for p in plan.proposals],
    'warnings': plan.warnings,
  }
