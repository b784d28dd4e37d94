"""What goes wrong in training, told by its metrics, and what to do about it.

Every alarm is a function of the history of one phase, the rows of
metrics.jsonl, and of what is known of the base. It compares the latest WINDOW
steps with the first ones, so that neither one batch nor a base that is odd to
begin with sets it off.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

WINDOW = 20  # Steps; fewer are no history.
COPIES = 0.8  # Share of exact copies that may be a collapse,
COPIES_MORE = 0.05  # if there are so many more than at first,
NO_GAIN = 0.01  # and the second attempt gains less than this.
LOSES = 0.02  # Share of problems that second attempts lose more than at first.
CUT_OFF = 0.05  # Share of attempts cut off.
FAILED = 0.01  # Share of attempts that the grader could not judge.
ENTROPY_TIMES, ENTROPY_MORE = 2.0, 0.5  # Nats per token above the first ones'.
KL_TIMES, KL_LEAST = 4.0, 2.0  # Nats per attempt, above the window before.
FLAT = 0.8  # Share of groups whose returns are all the same.
ERRORS = 2.0  # Standard errors.

History = Sequence[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Base:
  """How good the base's first attempts are, drawn as in validations."""

  accuracy: float
  problems: int  # That this was measured on.
  validation_problems: int  # That every validation is measured on.


def raised(history: History, base: Base | None) -> dict[str, str]:
  """Returns {alarm: a sentence on it and on what to do} for all that are on.

  Args:
    history: of one phase, from its first step.
    base: None where nothing is known of it, which silences 'sandbagging'.
  """
  if len(history) < 2 * WINDOW:
    return {}
  found = {name: alarm(history) for name, alarm in _ALARMS.items()}
  found['sandbagging'] = sandbagging(history, base) if base else ''
  return {name: text for name, text in found.items() if text}


def newly_raised(history: History, base: Base | None) -> list[str]:
  """Returns the sentences of the alarms that the latest step set off."""
  before = raised(history[:-1], base)
  now = raised(history, base)
  return [f'{name}: {now[name]}' for name in now if name not in before]


def collapse(history: History) -> str:
  """Says so where second attempts become copies of the first, and gain nothing."""
  first, last = _both(history, 'exact_copy_rate')
  gain = _mean(history[-WINDOW:], 'delta')
  if not (last > COPIES and last - first > COPIES_MORE and abs(gain) < NO_GAIN):
    return ''
  return (
    f'second attempts copy the first ({last:.0%}, at first {first:.0%}) and '
    f'gain nothing ({gain:+.1%}); raise method.alpha or method.beta2, or train '
    'stage I for longer (train.stage1_steps).'
  )


def sandbagging(history: History, base: Base) -> str:
  """Says so where first attempts fall below the base's.

  By more than two standard errors of the difference of two shares.
  """
  seen = [r for r in history if 'validation_accuracy_t1' in r]
  if not seen:
    return ''
  accuracy, p = seen[-1]['validation_accuracy_t1'], base.accuracy
  spread = p * (1 - p) * (1 / base.problems + 1 / base.validation_problems)
  if accuracy >= p - ERRORS * math.sqrt(spread):
    return ''
  return (
    f'first attempts are right less often ({accuracy:.1%}) than the base model'
    f"'s ({p:.1%}), more than {ERRORS:g} standard errors: the model may fail "
    'first to earn progress; set method.gamma=0, lower method.alpha, or raise '
    'method.beta2.'
  )


def over_correction(history: History) -> str:
  """Says so where second attempts spoil more than they mend, and ever more."""
  first, last = _both(history, 'delta')
  if not (last < 0 and first - last > LOSES):
    return ''
  spoilt = _mean(history[-WINDOW:], 'delta_c_to_i')
  return (
    f'second attempts spoil right answers ({spoilt:.1%} of all problems) and '
    f'lose {-last:.1%} in all; raise method.alpha, which fines it, or lower '
    'optimizer.learning_rate.'
  )


def truncation(history: History) -> str:
  """Says so where attempts are cut off."""
  turn, share = _worst(history, 'truncated')
  if not share > CUT_OFF:
    return ''
  return (
    f'{share:.0%} of attempts {turn} are cut off; raise '
    f'sampling.max_tokens[{turn - 1}], or find out why they do not end.'
  )


def grader(history: History) -> str:
  """Says so where verdicts are missing."""
  kinds = ('outcome_timeout', 'outcome_error')
  turn, share = max(
    (_worst(history, kind) for kind in kinds), key=lambda worst: worst[1]
  )
  if not share > FAILED:
    return ''
  return (
    f'the grader could not judge {share:.1%} of attempts {turn}; raise '
    'grading.seconds, or mend the grader: what it fails on counts as wrong.'
  )


def entropy(history: History) -> str:
  """Says so where the policy becomes noise."""
  for turn in _turns(history, 'entropy'):
    first, last = _both(history, f'entropy_t{turn}')
    if last > ENTROPY_TIMES * first + ENTROPY_MORE:
      return (
        f'the entropy of attempts {turn} runs away ({last:.2f} nats per token, '
        f'at first {first:.2f}); lower optimizer.learning_rate, or raise '
        'method.beta1.'
      )
  return ''


def divergence(history: History) -> str:
  """Says so where the KL to the reference runs away."""
  for turn in _turns(history, 'kl'):
    name = f'kl_t{turn}'
    before = _mean(history[-2 * WINDOW : -WINDOW], name)
    last = _mean(history[-WINDOW:], name)
    if last > KL_LEAST and last > KL_TIMES * max(before, 0.0):
      return (
        f'the KL of attempts {turn} runs away ({last:.1f} nats, {WINDOW} steps '
        f'ago {before:.1f}); lower optimizer.learning_rate, or raise '
        'method.beta1 (method.beta2 where the turn is held).'
      )
  return ''


def flat_groups(history: History) -> str:
  """Says so where nearly all groups have nothing to compare."""
  turn, share = _worst(history, 'flat_groups')
  if not share > FLAT:
    return ''
  return (
    f'{share:.0%} of the groups earn the same in all attempts {turn}, and teach '
    'nothing; take harder or easier problems, raise sampling.first_attempts or '
    'sampling.temperature.'
  )


_ALARMS: dict[str, Callable[[History], str]] = {
  'collapse': collapse,
  'over-correction': over_correction,
  'truncation': truncation,
  'grader errors': grader,
  'entropy': entropy,
  'KL': divergence,
  'flat groups': flat_groups,
}


def _mean(rows: History, name: str) -> float:
  """Returns the mean of a metric; NaN, which no limit is passed by, if none."""
  values = [row[name] for row in rows if row.get(name) is not None]
  return sum(values) / len(values) if values else math.nan


def _both(history: History, name: str) -> tuple[float, float]:
  """Returns a metric's mean over the first and over the latest steps."""
  return _mean(history[:WINDOW], name), _mean(history[-WINDOW:], name)


def _turns(history: History, name: str) -> list[int]:
  """Returns the turns that a metric is known of."""
  turns = []
  while f'{name}_t{len(turns) + 1}' in history[-1]:
    turns.append(len(turns) + 1)
  return turns


def _worst(history: History, name: str) -> tuple[int, float]:
  """Returns the turn where a metric is largest of late, and its mean there."""
  turns = _turns(history, name)
  found = [(t, _mean(history[-WINDOW:], f'{name}_t{t}')) for t in turns]
  return max(found, key=lambda pair: pair[1], default=(0, 0.0))
