"""What looks wrong is named, and what fits is proposed."""

import dataclasses
import re

import pytest
from planned import settings, setup

from score_jax import (
  advice,
  checks,
  chips,
  fitting,
)
from score_jax.estimate import Efficiency


def words(**changes):
  return '\n'.join(advice.warnings(setup(**changes), 1.0, None))


PAPER = {'task.name': 'math', 'train.trajectories': 512}
LENGTHS = {'sampling.max_tokens': (512, 512)}
STEPS = {'train.stage1_steps': 1500, 'train.stage2_steps': 1500}


def test_the_papers_own_settings_warn_of_nothing():
  quiet = {'model.logits_chunk': 100_000, 'sampling.max_prompt_tokens': 512}
  quiet['sampling.layout'] = 'gathered'
  assert words(**PAPER, **LENGTHS, **STEPS, **quiet) == ''


@pytest.mark.parametrize(
  ('changes', 'expected'),
  [
    ({'method.beta2': 0.2}, r'method.beta2=0.2; the paper has 0.1'),
    ({'method.gamma': 0.5}, r'method.gamma=0.5; the paper has 0.0'),
    ({'train.stage1_steps': 10}, r'the paper has 3,000 in all'),
    ({'sampling.max_tokens': (8, 8)}, r'many answers will be cut off'),
    ({'sampling.max_tokens': (512, 300)}, r'last attempt has the least room'),
    ({'sampling.first_attempts': 2}, r'baseline of 1 sibling'),
    ({'model.logits_chunk': 512}, r'gathered anew for each of'),
    ({'sampling.layout': 'train'}, r'over mesh.fsdp=4; set it to gathered'),
  ],
)
def test_what_is_unlike_the_paper_or_costly_is_named(changes, expected):
  plain = {**PAPER, **LENGTHS, **STEPS, 'model.logits_chunk': 100_000}
  plain['sampling.layout'] = 'gathered'
  assert expected in words(**{**plain, **changes})


def test_leaving_out_rows_that_end_early_is_advised_where_it_gains_and_fits():
  long = {'sampling.max_tokens': (400, 400)}

  def told(attempt, memory=None, **changes):
    made = dataclasses.replace(setup(**long, **changes), attempt=attempt)
    found = advice.warnings(made, 1.0, memory)
    return [x for x in found if 'set sampling.compact' in x]

  (said,) = told(60.0)
  assert 'attempts of 60 tokens on average' in said
  assert 'sampling.compact="(0.5, 0.25, 0.12)"' in said
  assert int(re.search(r'moves (\d+)% fewer', said)[1]) > 30
  assert told(0.0) == []  # Nothing is known of their lengths.
  assert told(399.0) == []
  assert told(60.0, **{'sampling.compact': (0.5,)}) == []
  assert told(60.0, **{'sampling.refill': 2}) == []
  better = setup(**long, **{'sampling.compact': advice.HALVES})
  needed = fitting.peak(better) / fitting.ROOM
  assert told(60.0, needed * 1.001) == [said]
  assert told(60.0, needed * 0.999) == []


def test_blocks_of_logits_are_made_larger_only_where_that_fits():
  many = PAPER | LENGTHS | {'model.logits_chunk': 512}
  few = setup(**many)

  def told(memory):
    return [
      x for x in advice.warnings(few, 1.0, memory) if 'gathered anew' in x
    ]

  (said,) = told(None)
  chunk = int(re.search(r'set it to ([\d,]+)', said)[1].replace(',', ''))
  larger = fitting.with_settings(few, {'model.logits_chunk': chunk})
  needed = fitting.peak(larger) / fitting.ROOM
  assert told(needed * 1.001) == [said]
  assert said not in told(needed * 0.999)
  assert told(fitting.peak(few)) == []


def test_heads_that_the_mesh_does_not_divide_are_named():
  found = advice.warnings(setup((1, 2, 4)), 1.0, None)
  assert any('does not divide kv_heads=2' in text for text in found)


def test_a_device_that_is_too_small_is_named():
  assert any('95%' in x for x in advice.warnings(setup(), 95.0, 100.0))
  assert not any(
    'of a device' in x for x in advice.warnings(setup(), 50.0, 100.0)
  )


def test_proposals_fit_are_allowed_and_come_fastest_first():
  wanted = chips.parse('v5e:2x4')
  whole = fitting.peak(setup((1, 8, 1)))
  # So little memory that what is asked for does not fit.
  chip = dataclasses.replace(wanted.chip, memory=0.9 * whole)
  target = dataclasses.replace(wanted, chip=chip)
  found = advice.proposals(setup((1, 8, 1)), target, Efficiency(), 8)
  assert found
  assert [p.seconds for p in found] == sorted(p.seconds for p in found)
  for p in found:
    assert p.peak <= fitting.ROOM * chip.memory
    changed = settings(
      **{
        'mesh.data': p.mesh[0],
        'mesh.fsdp': p.mesh[1],
        'mesh.tensor': p.mesh[2],
        'model.remat': p.remat,
        'train.accumulation': p.accumulation,
        'sampling.layout': p.layout,
        'sampling.parts': p.parts,
      }
    )
    checks.check(changed, 8)
  tiny_chip = dataclasses.replace(wanted.chip, memory=1.0)
  none = dataclasses.replace(wanted, chip=tiny_chip)
  assert advice.proposals(setup(), none, Efficiency(), 8) == []
