"""Programs that are wrong as people's programs are: a reference, changed once.

What to repair is made of them. Whether a change really breaks a program is for
its tests to say: `failing` keeps those that run and fail one.
"""

from __future__ import annotations

import ast
import copy
import dataclasses
import random
from collections.abc import Callable, Iterable, Iterator, Sequence

from score_jax.graders import code
from score_jax.graders.code import Tests
from score_jax.graders.confine import Limits

_TRIES = 8  # Draws for each program that is asked for.
_OPERATORS = {
  ast.Lt: (ast.LtE, ast.Gt),
  ast.LtE: (ast.Lt, ast.GtE),
  ast.Gt: (ast.GtE, ast.Lt),
  ast.GtE: (ast.Gt, ast.LtE),
  ast.Eq: (ast.NotEq,),
  ast.NotEq: (ast.Eq,),
  ast.In: (ast.NotIn,),
  ast.NotIn: (ast.In,),
  ast.Add: (ast.Sub,),
  ast.Sub: (ast.Add,),
  ast.Mult: (ast.Add, ast.Pow),
  ast.Div: (ast.FloorDiv, ast.Mult),
  ast.FloorDiv: (ast.Div, ast.Mod),
  ast.Mod: (ast.FloorDiv,),
  ast.Pow: (ast.Mult,),
  ast.And: (ast.Or,),
  ast.Or: (ast.And,),
}
_DROPPED = (ast.Assign, ast.AugAssign, ast.Expr, ast.If, ast.Break)
_SWAPPED = {'min': 'max', 'max': 'min', 'any': 'all', 'all': 'any'}

# Changes a tree in place; drawn by index, so that copies can be changed alike.
Change = Callable[[ast.AST], None]


def wrong_programs(source: str, seed: int, count: int) -> list[str]:
  """Returns programs that differ from a source in one place.

  They are drawn without order among all places: another operator, a number off
  by one, swapped arguments, a negated condition, a dropped statement, another
  initial value, a wrong return. The same source and seed give the same ones.

  Args:
    source: a program.
    seed: of the draws.
    count: so many at most; a short program has fewer places.

  Raises:
    SyntaxError: if `source` is not Python.
  """
  tree = ast.parse(source)
  places = list(_changes(tree))
  random.Random(seed).shuffle(places)
  seen, found = {ast.unparse(tree)}, []
  for number, change in places[: _TRIES * count]:
    if len(found) == count:
      break
    text = _changed(tree, number, change)
    if text not in seen:
      seen.add(text)
      found.append(text)
  return found


def failing(programs: Iterable[str], tests: Tests, limits: Limits) -> list[str]:
  """Returns those programs that load, end in time, and fail a test.

  Args:
    programs: sources.
    tests: of the problem that they should solve.
    limits: of each.

  Raises:
    SandboxError: if the sandbox fails.
  """
  # The first test passes wherever there is something to test.
  asked = dataclasses.replace(tests, tests=('0', *tests.tests))
  kept = []
  for program in programs:
    report = code.judge(program, asked, limits)
    wrong = report.finished and not code.passes(report, asked)
    if wrong and report.passed:
      kept.append(program)
  return kept


def _changed(tree: ast.AST, number: int, change: Change) -> str:
  other = copy.deepcopy(tree)
  change(_nodes(other)[number])
  return ast.unparse(ast.fix_missing_locations(other))


def _nodes(tree: ast.AST) -> list[ast.AST]:
  return list(ast.walk(tree))


def _changes(tree: ast.AST) -> Iterator[tuple[int, Change]]:
  """Yields (number of a node, what could be wrong with it)."""
  for number, node in enumerate(_nodes(tree)):
    for kind, changes in _OF.items():
      if isinstance(node, kind):
        for change in changes(node):
          yield number, change


def _set(field: str, value: ast.AST | object) -> Change:
  return lambda node: setattr(node, field, value)


def _compare(node: ast.Compare) -> Iterator[Change]:
  for other in _OPERATORS.get(type(node.ops[0]), ()):
    yield _set('ops', [other(), *node.ops[1:]])


def _operate(node: ast.BinOp | ast.BoolOp | ast.AugAssign) -> Iterator[Change]:
  for other in _OPERATORS.get(type(node.op), ()):
    yield _set('op', other())
  if isinstance(node, ast.BinOp) and isinstance(
    node.op, (ast.Sub, ast.Div, ast.FloorDiv, ast.Mod)
  ):
    yield _swap_sides


def _swap_sides(node: ast.BinOp) -> None:
  node.left, node.right = node.right, node.left


def _number(node: ast.Constant) -> Iterator[Change]:
  value = node.value
  if isinstance(value, bool):
    yield _set('value', not value)
  elif isinstance(value, int):
    yield _set('value', value + 1)
    if value > 0:
      yield _set('value', value - 1)


def _arguments(node: ast.Call) -> Iterator[Change]:
  plain = not any(isinstance(one, ast.Starred) for one in node.args)
  if len(node.args) > 1 and plain:
    yield _swap_arguments
  if isinstance(node.func, ast.Name) and node.func.id in _SWAPPED:
    yield _set('func', ast.Name(_SWAPPED[node.func.id], ast.Load()))


def _swap_arguments(node: ast.Call) -> None:
  node.args[:2] = node.args[1::-1]


def _condition(node: ast.If | ast.While | ast.IfExp) -> Iterator[Change]:
  if not isinstance(node, ast.While):  # It would mostly not run, or not end.
    yield _negate
  if isinstance(node, ast.If) and node.orelse:
    yield _set('orelse', [])


def _negate(node: ast.If | ast.IfExp) -> None:
  node.test = ast.UnaryOp(ast.Not(), node.test)


def _statements(node: ast.AST) -> Iterator[Change]:
  for place, statement in enumerate(node.body):
    text = isinstance(statement, ast.Expr) and isinstance(
      statement.value, ast.Constant
    )
    if isinstance(statement, _DROPPED) and not text:
      yield _drop(place)
    if isinstance(statement, ast.Return) and place > 0:
      yield from _early(node.body[:place], place)


def _drop(place: int) -> Change:
  def change(node):
    node.body[place : place + 1] = [] if len(node.body) > 1 else [ast.Pass()]

  return change


def _early(before: Sequence[ast.stmt], place: int) -> Iterator[Change]:
  """Yields a return that has slipped into the loop before it."""
  if isinstance(before[-1], (ast.For, ast.While)):

    def change(node):
      node.body[place - 1].body.append(node.body.pop(place))

    yield change


def _result(node: ast.Return) -> Iterator[Change]:
  value = node.value
  if isinstance(value, ast.Tuple) and len(value.elts) > 1:
    yield _set('value', ast.Tuple(value.elts[::-1], ast.Load()))
  elif isinstance(value, (ast.Compare, ast.BoolOp)):
    yield _set('value', ast.UnaryOp(ast.Not(), value))
  elif isinstance(value, ast.Call) and len(value.args) == 1:
    yield _set('value', value.args[0])  # As where `list(...)` is forgotten.


_BODIES = (ast.FunctionDef, ast.For, ast.While, ast.If, ast.With)
_OF = {
  ast.Compare: _compare,
  (ast.BinOp, ast.BoolOp, ast.AugAssign): _operate,
  ast.Constant: _number,
  ast.Call: _arguments,
  (ast.If, ast.While, ast.IfExp): _condition,
  _BODIES: _statements,
  ast.Return: _result,
}
