"""Every row of the table, by its name."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ml_collections import ConfigDict

from score_jax.config import ConfigError, nearest
from score_jax.methods import plain_rl, prompting, score, supervised
from score_jax.methods.plan import Inference, Method, Phase, Round

# Words for people; phases and inference, each a function of the settings.
_Entry = tuple[
  str,
  Callable[[ConfigDict], Sequence[Phase]],
  Callable[[ConfigDict], Inference],
]


def _trained(words: str, phases: Callable) -> _Entry:
  return words, phases, prompting.attempts


def _prompted(words: str, inference: Callable) -> _Entry:
  return words, lambda config: (), inference


def _baseline(words: str, baseline: str) -> _Entry:
  return _trained(words, lambda c: score.with_baseline(c, baseline))


HALF = 0.5  # Of the problems, where offline first attempts are mixed in.

METHODS: dict[str, _Entry] = {
  'base': _prompted('Base model', prompting.attempts),
  'self_refine': _prompted('Self-Refine', prompting.self_refine),
  'self_contrast': _prompted('Self-Contrast', prompting.self_contrast),
  'star_d': _trained('STaR, D', lambda c: supervised.star_rounds(c, False)),
  'star_d_plus': _trained(
    'STaR, D+', lambda c: supervised.star_rounds(c, True)
  ),
  'pair_sft_d': _trained('Pair-SFT, D', lambda c: supervised.pairs(c, False)),
  'pair_sft_d_plus': _trained(
    'Pair-SFT, D+', lambda c: supervised.pairs(c, True)
  ),
  'rise': _trained('RISE', supervised.introspection),
  'self_rehearsal': _trained(
    'Selective self-rehearsal', supervised.self_rehearsal
  ),
  'importance_weighted': _trained(
    'Importance-weighted self-improvement', supervised.importance_weighted
  ),
  'label_enhancement': _trained(
    'Progressively selective label enhancement', supervised.label_enhancement
  ),
  'retries': _trained(
    'SFT on mistakes and retries', supervised.mistakes_and_retries
  ),
  'single_turn': _trained('Single-turn RL', plain_rl.single_turn),
  'multi_turn_sum': _trained('Multi-turn RL (a): sum', plain_rl.summed),
  'multi_turn_last': _trained(
    'Multi-turn RL (b): (x2, y2)', plain_rl.last_turn
  ),
  'score': _trained('SCoRe', score.stages),
  'without_stage_one': _trained(
    'SCoRe without Stage I', score.without_stage_one
  ),
  'without_bonus': _trained('SCoRe without the bonus', score.without_bonus),
  'star_stage_two': _trained(
    'SCoRe with STaR in Stage II', supervised.star_in_stage_two
  ),
  'without_online': _trained(
    'SCoRe without online first attempts',
    lambda c: score.with_offline(c, 1.0),
  ),
  'offline_mixed': _trained(
    'SCoRe, half of first attempts offline',
    lambda c: score.with_offline(c, HALF),
  ),
  'interleaved': _trained('SCoRe, stages interleaved', score.interleaved),
  'score_remax': _baseline('SCoRe with ReMax', 'remax'),
  'score_group': _baseline('SCoRe, group-normalised (GRPO)', 'group'),
  'score_moving_average': _baseline(
    'SCoRe with a moving average', 'moving_average'
  ),
  'score_no_baseline': _baseline('SCoRe without a baseline', 'none'),
  'score_three_turns': _trained('SCoRe, three turns', score.stages),
  'blind': _trained('Blind second attempts', supervised.blind_control),
}
CONTROLS = ('blind',)  # What others start from: no rows of the table.
ROWS = tuple(name for name in METHODS if name not in CONTROLS)
SUPERVISED = (
  'blind',
  'star_d',
  'star_d_plus',
  'pair_sft_d',
  'pair_sft_d_plus',
  'rise',
  'self_rehearsal',
  'importance_weighted',
  'label_enhancement',
  'retries',
  'star_stage_two',
)

SIBLINGS = ('leave_one_out', 'group')  # Baselines that need some.


def get(config: ConfigDict) -> Method:
  """Returns the method that method.name chooses.

  Raises:
    ConfigError: if there is none of that name, or the job, the number of
      turns, of updates or of attempts does not go with it.
  """
  name = config.method.name
  check_name(name)
  if config.job in ('stage1', 'stage2') and name != 'score':
    raise ConfigError(
      f'job={config.job} is a stage of SCoRe; got method.name={name!r}; set '
      'job=score, which runs all phases of any method.'
    )
  if name in SUPERVISED and config.turns != 2:
    raise ConfigError(
      f'method.name={name!r} trains on traces of two attempts; got '
      f'turns={config.turns}; set turns=2.'
    )
  words, phases, inference = METHODS[name]
  method = Method(name, words, tuple(phases(config)), inference(config))
  rounds = all(isinstance(phase, Round) for phase in method.phases)
  if config.train.overlap and method.phases and rounds:
    raise ConfigError(
      f'train.overlap=True samples beside an update, and method.name={name!r} '
      'samples before its updates; set it to False.'
    )
  first = config.sampling.first_attempts
  for phase in method.phases:
    if getattr(phase, 'baseline', '') in SIBLINGS and first < 2:
      raise ConfigError(
        f'method.name={name!r} compares a return with its siblings '
        f'({phase.baseline}); got sampling.first_attempts={first}; set it to '
        'at least 2.'
      )
    if phase.steps < 1:
      raise ConfigError(
        f'{phase.name} of method.name={name!r} would make no update, with '
        f'train.stage1_steps={config.train.stage1_steps}, '
        f'train.stage2_steps={config.train.stage2_steps} and method.rounds='
        f'{config.method.rounds}; make more steps, or fewer rounds.'
      )
  return method


def check_name(name: str) -> None:
  """Refuses what is no method, with the nearest one.

  Raises:
    ConfigError: if there is none of that name.
  """
  if name not in METHODS:
    raise ConfigError(
      f'method.name must be one of {", ".join(METHODS)}; got {name!r}'
      f'{nearest(name, METHODS)}.'
    )


def chain(config: ConfigDict) -> list[Phase]:
  """Returns the phases that a job has to see finished, in their order."""
  phases = list(get(config).phases)
  if config.job == 'evaluate':
    return []
  return phases[:-1] if config.job == 'stage1' else phases


def on_equal_terms(config: ConfigDict) -> ConfigDict:
  """Returns the settings with which a method costs what the others cost.

  As many attempts are sampled per update (within the size of a group), and as
  many updates are made. ReMax samples a greedy attempt per problem, and one
  per row and later turn, so it gets fewer rows. Three turns are three attempts
  a row, and three stages.
  """
  changed = config.copy_and_resolve_references()
  name = config.method.name
  with changed.unlocked():
    if name == 'score_three_turns' and config.turns == 2:
      _with_turns(changed, 3)
      # Stages I(a) and I(b); what they cannot share evenly, stage II makes.
      first, rest = divmod(config.train.stage1_steps, 2)
      changed.train.stage1_steps = first
      changed.train.stage2_steps = config.train.stage2_steps + rest
    changed.train.trajectories = _rows(config, changed)
  return changed.lock()


def _with_turns(config: ConfigDict, turns: int) -> None:
  lengths = tuple(config.sampling.max_tokens)
  config.turns = turns
  more = (lengths[-1],) * (turns - len(lengths))
  config.sampling.max_tokens = lengths + more


def _rows(config: ConfigDict, changed: ConfigDict) -> int:
  """Returns trajectories per update of the settings changed, whole groups."""
  s = config.sampling
  group = s.first_attempts * s.second_attempts
  before = config.train.trajectories * config.turns
  each = group * changed.turns
  if changed.method.name == 'score_remax':
    each += 1 + group * (changed.turns - 1)
  elif changed.turns == config.turns:
    return config.train.trajectories
  # Whole groups in every part, and as many rows on every device.
  parts = math.lcm(config.train.accumulation or 1, s.parts or 1)
  mesh = config.mesh
  shards = math.prod(x for x in (mesh.data, mesh.fsdp) if x > 0)
  groups = parts * shards // math.gcd(shards, group)
  return max(1, round(before / each / groups)) * groups * group
