"""Graders for programs: the tests of a problem decide, in the sandbox."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Tests:
  """What decides over a program; `Problem.answer` holds it as JSON."""

  before: str  # Source, run first: helpers that tests call, imports.
  setup: str  # Source, run in the tests' process once the program is loaded.
  tests: tuple[str, ...]  # Source of one test each; passed if nothing raises.
  entry: str  # The name under test, the program's even where Python has one.


def encode_tests(
  *, before: str = '', setup: str = '', tests: Sequence[str], entry: str = ''
) -> str:
  """Returns the `Problem.answer` of a problem that is solved by a program.

  Tests run in order, in one namespace and against one run of the program, so
  what one test leaves behind the next one finds. The program's process never
  sees `setup`, `tests`, or a value that they compare with.

  A name in `setup` or `tests` means, in this order: the program's, if it is
  `entry`; what `before`, `setup` or a test has bound; Python's builtin; else
  whatever the program defines by that name.

  Args:
    before: source that both the tests and the program find executed: for
      HumanEval the prompt itself, with its imports and helpers. The tests keep
      their own copy of it, so that no program can redefine a helper. It is
      shown to the program, so it must not hold expected values. Its own
      definition of `entry` is dropped.
    setup: source run before the tests, with the program at hand: MBPP's
      `test_setup_code`, which builds objects of the program's classes.
    tests: source of at least one test. A test passes if it raises nothing. For
      HumanEval the published test followed by `check(entry)`.
    entry: the function or class under test. Needed where the tests call it by
      a name that is Python's own (`sum`) or that `before` defines.

  Raises:
    ValueError: if there is no test.
  """
  if not tests:
    raise ValueError('tests must hold at least one test; got none.')
  fields = dataclasses.asdict(Tests(before, setup, tuple(tests), entry))
  return json.dumps(fields)
