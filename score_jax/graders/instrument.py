"""Tests, made ready for the process in which they run.

Between a test's statements goes a call of `tester.SETTLE`, which lets the test
see what the program did to its arguments. It waits for as long as statements
use the result of the call: in

    result = f(x)
    assert result == sorted(x)

x is what it was before the call; one statement later it is what f made of it.
"""

from __future__ import annotations

import ast
import builtins
import dis
import functools
import marshal
import sys
import types
import warnings
from collections.abc import Iterator, Sequence

from score_jax.graders.tester import SETTLE

_LOADS = ('LOAD_NAME', 'LOAD_GLOBAL', 'LOAD_FROM_DICT_OR_GLOBALS')
_BLOCKS = ('body', 'orelse', 'finalbody', 'handlers', 'cases')
_UNSETTLING = (
  ast.Import,
  ast.ImportFrom,
  ast.FunctionDef,
  ast.AsyncFunctionDef,
  ast.ClassDef,
)
_BINDING = (ast.Assign, ast.AnnAssign, ast.AugAssign)


def compiled(source: str, name: str) -> types.CodeType:
  """Returns the code of a test with the calls in it.

  Raises:
    SyntaxError, ValueError: if it is not Python.
  """
  tree = parsed(source)
  tree.body = _settled(tree.body, set())
  ast.fix_missing_locations(tree)
  return compile(tree, f'<{name}>', 'exec', dont_inherit=True)


def parsed(source: str) -> ast.Module:
  """Returns a source's tree; published ones would warn of their escapes."""
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    return ast.parse(source)


def _settled(block: list[ast.stmt], assigned: set[str]) -> list[ast.stmt]:
  """Returns the statements of a block with the calls before them.

  Args:
    block: statements, whose own blocks are changed in place.
    assigned: names to which a statement before the block has given a value.
  """
  done: list[ast.stmt] = []
  bound: set[str] = set()
  for statement in block:
    if not (isinstance(statement, _UNSETTLING) or _is_text(statement)):
      done.append(_call(bound, assigned and assigned & _names(statement)))
    binding = isinstance(statement, _BINDING)
    bound = _names(statement, ast.Store) if binding else set()
    assigned = assigned | bound
    _settle_inside(statement, assigned)
    done.append(statement)
  return done


def _settle_inside(node: ast.AST, assigned: set[str]) -> None:
  for field in _BLOCKS:
    inner = getattr(node, field, None)
    if not isinstance(inner, list) or not inner:
      continue
    if isinstance(inner[0], ast.stmt):
      setattr(node, field, _settled(inner, assigned))
    else:
      for part in inner:  # Handlers of a try, cases of a match.
        _settle_inside(part, assigned)


def _names(node: ast.AST, kind: type = ast.Load) -> set[str]:
  return {
    n.id
    for n in ast.walk(node)
    if isinstance(n, ast.Name) and isinstance(n.ctx, kind)
  }


def _is_text(statement: ast.stmt) -> bool:
  """Returns whether it may be a docstring, which must come first."""
  value = statement.value if isinstance(statement, ast.Expr) else None
  return isinstance(value, ast.Constant)


def _call(bound: set[str], used: set[str]) -> ast.stmt:
  """Returns the call before a statement; see `tester.Tester.settle`."""
  names = f'{tuple(sorted(bound))}, {tuple(sorted(used))}'
  return ast.parse(f'{SETTLE}({names})').body[0]


def defined(source: str) -> list[str]:
  """Returns the functions and classes that a source defines at its top.

  Raises:
    SyntaxError, ValueError: if it is not Python.
  """
  kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
  return [n.name for n in parsed(source).body if isinstance(n, kinds)]


def _all_codes(code: types.CodeType) -> Iterator[types.CodeType]:
  yield code
  for constant in code.co_consts:
    if isinstance(constant, types.CodeType):
      yield from _all_codes(constant)


def _bound(code: types.CodeType) -> set[str]:
  """Returns the globals that a code binds itself."""
  own = {i.argval for i in dis.get_instructions(code) if _is(i, 'STORE_NAME')}
  return own | {
    i.argval
    for inner in _all_codes(code)
    for i in dis.get_instructions(inner)
    if _is(i, 'STORE_GLOBAL')
  }


def _used(code: types.CodeType) -> set[str]:
  """Returns the globals that a code, and what it defines, may look up."""
  return {
    i.argval
    for inner in _all_codes(code)
    for i in dis.get_instructions(inner)
    if _is(i, *_LOADS)
  }


def _is(instruction: dis.Instruction, *names: str) -> bool:
  return instruction.opname in names


@functools.lru_cache(maxsize=256)
def ready(
  before: str, setup: str, tests: tuple[str, ...], entry: str
) -> tuple[bytes, bytes]:
  """Returns what the program's and the tests' processes are to run.

  A name that any of the sources binds is never looked up in the program, so
  that no program can slip in a helper of the tests.

  Args:
    before, setup, tests, entry: see `code.encode_tests`.

  Raises:
    SyntaxError, ValueError: if one of the sources is not Python.

  Returns:
    (`before` as code; the arguments of `tester.main`), as `marshal` bytes.
  """
  first = compile(parsed(before), '<before>', 'exec', dont_inherit=True)
  codes = [compiled(before, 'before'), compiled(setup, 'setup')]
  codes += [compiled(one, f'test {n}') for n, one in enumerate(tests)]
  bound = set().union(*map(_bound, codes)) | {SETTLE}
  found = [sorted(_used(c) - bound - _python(entry)) for c in codes]
  parts = list(zip(found, codes, strict=True))
  arguments = {'before': parts[0], 'setup': parts[1], 'tests': parts[2:]}
  arguments['modules'] = modules((before, setup, *tests), set().union(*found))
  return marshal.dumps(first), marshal.dumps(arguments)


def modules(sources: Sequence[str], names: set[str]) -> dict[str, list[str]]:
  """Returns {name of a standard module: what tests use of it}.

  That a program has imported it is enough for tests that do not, but what it
  calls by that name must not decide: `f(x) == sys.getsizeof(x)`.

  Args:
    sources: of the tests.
    names: that none of them binds.
  """
  found: dict[str, list[str]] = {n: [] for n in names & sys.stdlib_module_names}
  if not found:  # As nearly always; some tests are megabytes.
    return {}
  nodes = [node for source in sources for node in ast.walk(parsed(source))]
  inside = {id(n.value): n.attr for n in nodes if isinstance(n, ast.Attribute)}
  for node in nodes:
    if isinstance(node, ast.Name) and node.id in found:
      if id(node) in inside:
        found[node.id].append(inside[id(node)])
      else:  # It is called, say, so it is no module.
        del found[node.id]
  return found


def _python(entry: str) -> set[str]:
  return set(vars(builtins)) - {entry}
