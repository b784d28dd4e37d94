"""Mixtures: 'math=2,gsm8k=1' is two problems of one to one of the other."""

from __future__ import annotations

import dataclasses
import fractions
import math
from collections.abc import Sequence

from score_jax.config import ConfigError

CYCLE = 10_000  # Problems, in which the rates have to come out even.


@dataclasses.dataclass(frozen=True)
class Member:
  """A task of a mixture, and its share."""

  name: str
  rate: int  # Problems of each cycle, which are the sum of all rates.


def parse(text: str) -> tuple[Member, ...]:
  """Returns the members of a mixture, with whole rates in lowest terms.

  Args:
    text: as 'math=2,gsm8k=1' or 'math=0.7,gsm8k=0.3'.

  Raises:
    ConfigError: if it is written otherwise, names a member twice, or has rates
      that do not come out even within CYCLE problems.
  """
  names, rates = [], []
  for part in text.split(','):
    name, _, rate = part.partition('=')
    names.append(name.strip())
    rates.append(_rate(text, rate.strip()))
  if len(set(names)) < len(names):
    raise _error(text, 'names a member twice')
  whole = math.lcm(*(rate.denominator for rate in rates))
  counts = [int(rate * whole) for rate in rates]
  shared = math.gcd(*counts)
  counts = [count // shared for count in counts]
  if sum(counts) > CYCLE:
    raise _error(text, f'has rates that add up to over {CYCLE} in lowest terms')
  return tuple(map(Member, names, counts))


def _rate(text: str, rate: str) -> fractions.Fraction:
  try:
    value = fractions.Fraction(rate)
  except (ValueError, ZeroDivisionError):
    raise _error(text, f'has the rate {rate!r}') from None
  if value <= 0:
    raise _error(text, f'has the rate {rate!r}')
  return value


def _error(text: str, reason: str) -> ConfigError:
  return ConfigError(
    f'task.name={text!r} {reason}; write a mixture as math=2,gsm8k=1, each '
    'member once with a rate above 0.'
  )


def shares(rates: Sequence[int], count: int) -> list[int]:
  """Returns how many of `count` problems each member gives, by its rate.

  What does not come out even goes to those that are furthest below their share.
  """
  cycle = sum(rates)
  given = [count * rate // cycle for rate in rates]
  lacking = [-(count * rate % cycle) for rate in rates]
  order = sorted(range(len(rates)), key=lambda i: (lacking[i], i))
  for i in order[: count - sum(given)]:
    given[i] += 1
  return given
