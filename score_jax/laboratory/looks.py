"""How methods look in figures: the same in all of them, told apart in print."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from score_jax.report import style


@dataclasses.dataclass(frozen=True)
class Look:
  """Of a line, and of a mark on it."""

  colour: str
  marker: str
  dashes: tuple[int, tuple[float, ...]]


SOLID, LONG, SHORT, DOTTED = (
  (0, ()),
  (0, (6, 1.4)),
  (0, (3, 1.2)),
  (0, (1.2, 1.0)),
)
KNOWN = {
  'base': Look(style.QUIET, 'x', DOTTED),
  'score': Look(style.BLUE, 'o', SOLID),
  'without_stage_one': Look(style.GREEN, '^', LONG),
  'multi_turn_sum': Look(style.VERMILLION, 's', SHORT),
  'multi_turn_last': Look(style.ORANGE, 'D', DOTTED),
  'single_turn': Look(style.PURPLE, 'v', LONG),
  'star_d': Look(style.ORANGE, 'D', LONG),
  'star_d_plus': Look(style.ORANGE, 'D', LONG),
  'pair_sft_d': Look(style.GREEN, 's', SHORT),
  'pair_sft_d_plus': Look(style.GREEN, 's', SHORT),
}
OTHERS = (
  Look(style.SKY, 'p', SOLID),
  Look(style.PURPLE, 'v', SHORT),
  Look(style.VERMILLION, 'h', LONG),
  Look(style.INK, '>', SOLID),
  Look(style.SKY, 'P', LONG),
  Look(style.PURPLE, '*', DOTTED),
  Look(style.GREEN, 'd', DOTTED),
  Look(style.BLUE, '<', DOTTED),
)


def of(names: Sequence[str]) -> dict[str, Look]:
  """Returns the look of each method of a figure, no two alike."""
  found = {}
  for name in names:
    tried = [KNOWN[name]] if name in KNOWN else []
    free = [x for x in (*tried, *OTHERS) if x not in found.values()]
    found[name] = free[0] if free else OTHERS[len(found) % len(OTHERS)]
  return found
