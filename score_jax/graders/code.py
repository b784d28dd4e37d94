"""Graders for programs: the tests of a problem decide, in the sandbox."""

from __future__ import annotations

import dataclasses
import json
import re
import textwrap
from collections.abc import Sequence

from score_jax.graders import instrument, sandbox
from score_jax.graders.confine import Limits
from score_jax.graders.supervise import Report
from score_jax.problem import Outcome, Problem, Verdict


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


def grade(
  problem: Problem,
  text: str,
  *,
  seconds: float,
  memory_mb: int,
  allow_unprotected: bool,
) -> Verdict:
  """Returns RIGHT if the program in a text passes all tests of its problem.

  The verdict's answer is the program, its share that of the tests passed.
  TIMEOUT means that the tests did not come to their end in time, UNPARSED that
  the text holds no program.

  Args:
    problem: its answer comes from `encode_tests`.
    text: an attempt; see `program_of`.
    seconds: of the clock, for the program and all its tests; of processor time
      the program has half as many.
    memory_mb: of the program's processes together.
    allow_unprotected: runs it even where it cannot be shut in.

  Raises:
    SandboxError: if the sandbox fails, or programs cannot be shut in.
  """
  sandbox.check_protections(allow_unprotected)
  program = program_of(text)
  if not program:
    return Verdict(Outcome.UNPARSED, '', 0.0)
  tests = decode_tests(problem.answer)
  limits = Limits(seconds, memory_mb, cpu_seconds=seconds * COMPUTING)
  report = judge(program, tests, limits)
  share = report.passed / len(tests.tests)
  return Verdict(_outcome(report, tests), program, share)


def judge(program: str, tests: Tests, limits: Limits) -> Report:
  """Returns what came of a program in the best sandbox that there is."""
  fields = (tests.before, tests.setup, tests.tests, tests.entry)
  before, arguments = instrument.ready(*fields)
  return sandbox.run(
    program,
    before,
    arguments,
    tests.entry,
    limits,
    caged=sandbox.caged(),
  )


def passes(report: Report, tests: Tests) -> bool:
  """Returns whether every test ran and none failed."""
  return report.finished and report.passed == len(tests.tests)


def _outcome(report: Report, tests: Tests) -> Outcome:
  if passes(report, tests):
    return Outcome.RIGHT
  return Outcome.TIMEOUT if report.timed_out else Outcome.WRONG


def decode_tests(answer: str) -> Tests:
  """Returns what `encode_tests` encoded."""
  fields = json.loads(answer)
  return Tests(**fields | {'tests': tuple(fields['tests'])})


# Of the seconds of the clock; the rest is for the tests, and for processors
# that others use too. What never ends is given up so much earlier.
COMPUTING = 0.5
_LONGEST = 1 << 20  # Characters of a text that are read: no one writes more.
_FENCE = re.compile(r'^[ \t]*(?:```|~~~)[^\n]*', re.MULTILINE)
# How a line begins that is not prose.
_CODE = re.compile(
  r'[ \t\r\n]*(import |from \w|def |class |async def |@|#|"""|\w+ *=)'
)


def program_of(text: str) -> str:
  """Returns the program in an attempt, or '' if there is none.

  1. A text that begins with a line of code and whose first fence is bare began
     inside a fence, which the prompt opened: what comes before that fence.
  2. Else of the complete fenced blocks the last one that is not blank.
  3. Else, a fence that only opens: what follows it, as of a cut-off answer.
  4. Else the whole text.

  A fence is a line of three or more backticks or tildes. One with a word behind
  it (`python`) opens a block; a bare one closes the open block if it is of the
  same sign and no shorter, and opens one where none is open.

  Args:
    text: any text, read to a length of `_LONGEST`, in linear time.
  """
  text = text[:_LONGEST]
  fences = [fence for fence in map(_fence, _FENCE.finditer(text)) if fence]
  if not fences:
    return _tidy(text)
  if not fences[0].word and _CODE.match(text):
    return _tidy(text[: fences[0].start])
  last, opened = '', None
  for fence in fences:
    if opened is None or fence.word:
      opened = fence
    elif fence.mark.startswith(opened.mark):
      last = _tidy(text[opened.end : fence.start]) or last
      opened = None
  return last or (_tidy(text[opened.end :]) if opened else '')


@dataclasses.dataclass(frozen=True)
class _Fence:
  start: int
  end: int
  mark: str  # '```', or longer.
  word: str  # What stands behind it.


def _fence(found: re.Match) -> _Fence | None:
  line = found.group().strip()
  word = line.lstrip(line[0])
  if '`' in word:  # Code within a line.
    return None
  mark = line[: len(line) - len(word)]
  return _Fence(found.start(), found.end(), mark, word.strip())


def _tidy(program: str) -> str:
  """Returns a program without blank ends and without a common indent."""
  lines = program.rstrip().split('\n')
  while lines and not lines[0].strip():
    lines.pop(0)
  return textwrap.dedent('\n'.join(lines))
