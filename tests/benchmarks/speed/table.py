"""Figures to a Markdown table: medians, ranges, shares of the machine's best."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence

HEAD = (
  'work',
  'size',
  'who',
  'CPU s',
  'wall s',
  'peak MB',
  'GFLOP/s',
  '% of product',
  '% of bound',
  'time / ours',
)
OURS = 'score_jax'


@dataclasses.dataclass(frozen=True)
class Row:
  """What one way of doing one kind of work cost, a number per repeat."""

  work: str
  size: str
  who: str
  cpu: list[float]  # Seconds.
  wall: list[float]  # Seconds.
  canary: list[float]  # Operations a second of one core, beside the repeat.
  peak: int  # Bytes of memory.
  operations: float
  bound: float  # Seconds that the machine's products and memory need at least.

  def seconds(self, cores: int) -> float:
    """Returns the median that is compared.

    On one core it is of CPU seconds, which other processes do not lengthen; on
    several of wall seconds, for it matters how well they are kept busy.
    """
    return statistics.median(self.cpu if cores == 1 else self.wall)

  def rate(self, cores: int) -> float:
    """Returns operations a second."""
    return self.operations / self.seconds(cores)

  def share(self, cores: int) -> float:
    """Returns the rate as a share of the cores' square product."""
    return self.rate(cores) / (cores * statistics.median(self.canary))


def _range(x: Sequence[float]) -> str:
  return f'{statistics.median(x):.2f} ({min(x):.2f}–{max(x):.2f})'


def _cells(row: Row, ours: float, cores: int) -> list[str]:
  return [
    row.work,
    row.size.upper(),
    row.who,
    _range(row.cpu),
    _range(row.wall),
    f'{row.peak / 1e6:,.0f}',
    f'{row.rate(cores) / 1e9:.1f}',
    f'{row.share(cores):.0%}',
    f'{row.bound / row.seconds(cores):.0%}',
    f'{row.seconds(cores) / ours:.2f}',
  ]


def groups(rows: Sequence[Row]) -> list[list[Row]]:
  """Returns the rows of each kind of work at each size, ours first."""
  found: dict[tuple[str, str], list[Row]] = {}
  for row in sorted(rows, key=lambda row: row.who != OURS):
    found.setdefault((row.work, row.size), []).append(row)
  return list(found.values())


def markdown(rows: Sequence[Row], cores: int) -> str:
  """Returns the table, ours first in each kind of work."""
  lines = [HEAD, ['---'] * 3 + ['---:'] * (len(HEAD) - 3)]
  for group in groups(rows):
    ours = group[0].seconds(cores)
    lines += [_cells(row, ours, cores) for row in group]
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def verdicts(rows: Sequence[Row], cores: int) -> list[str]:
  """Returns a line per kind of work: ours beside the fastest of the others."""
  found = []
  for ours, *rest in groups(rows):
    # Ours with another library of products is none of the others.
    others = [row for row in rest if not row.who.startswith(OURS)]
    if not others:
      continue
    best = min(others, key=lambda row: row.seconds(cores))
    times = best.seconds(cores) / ours.seconds(cores)
    found.append(
      f'{ours.work} {ours.size.upper()}: {times:.2f} times as fast as the '
      f'fastest of the others ({best.who}).'
    )
  return found
