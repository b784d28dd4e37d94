"""The verdict of plain Python: a program and its tests in one namespace.

Reads a JSON list of [source, [tests]] and writes one of booleans. Each pair has
a process of its own. It confines nothing: for programs of our own alone.
"""

import json
import os
import sys
import types


def passes(source: str, tests: list[str]) -> bool:
  """Returns whether all tests pass, found out in a child."""
  child = os.fork()
  if child:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
  own = os.getpid()
  good = False
  try:
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
      os.dup2(nothing, stream)
    module = types.ModuleType('program')
    sys.modules['program'] = module
    for text in (source, *tests):
      exec(compile(text, '<text>', 'exec', dont_inherit=True), vars(module))
    good = True
  finally:
    os._exit(0 if good or os.getpid() != own else 1)


def main() -> None:
  pairs = json.load(sys.stdin)
  json.dump([passes(*pair) for pair in pairs], sys.stdout)


if __name__ == '__main__':
  main()
