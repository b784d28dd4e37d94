"""The tests' process: runs trusted tests on a program that is elsewhere.

Tests find the program's functions and classes as handles. What comes back from
a call is plain data, or again a handle; a handle equals no data whatever its
class says, and no value that a test compares with goes to the program.

Standard library only: this file runs inside the sandbox.
"""

import builtins
import os
import sys

from score_jax.graders.handles import CallableHandle, Handle, is_ours, owned
from score_jax.graders.peer import give_up_powers, Gone, Peer
from score_jax.graders.wire import changed, contents, differ, refill, WireError

STARTED, PASSED, FAILED, DONE, BROKEN = b'S', b'1', b'0', b'.', b'E'
SETTLE = '__settle__'  # What `instrument` puts between the tests' statements.
MODULE = 'tests'  # In which the classes of the tests are.


def main(
  source,
  sink,
  verdicts,
  before,
  setup,
  tests,
  entry,
  modules,
  limits,
  uid,
  filtered,
):
  """Runs tests and says of each, in one byte, whether it passed.

  Args:
    source: file descriptor from which the program's answers are read.
    sink: file descriptor to which questions go.
    verdicts: file descriptor for the bytes at the head of this file.
    before: (names, code) that runs first; see `instrument.compiled`.
    setup: (names, code) that runs when the program is loaded.
    tests: [(names, code)] of the tests.
    entry: the name under test.
    modules: see `instrument.modules`.
    limits: see `peer.give_up_powers`.
    uid: the same.
    filtered: the same.
  """
  nothing = os.open(os.devnull, os.O_RDWR)
  for stream in (1, 2):  # What tests print is nobody's.
    os.dup2(nothing, stream)
  tester = Tester(source, sink)
  give_up_powers(limits, uid, filtered)
  sys.argv = ['tests']
  try:
    tester.receive()  # The program is about to run.
  except Gone:
    return
  os.write(verdicts, STARTED)
  tester.send(b'?', b'')
  try:
    exec(before[1], tester.space)
  except BaseException:
    os.write(verdicts, BROKEN)
    return
  if tester.ready(entry, modules, setup):
    for names, code in tests:
      passed = tester.passes(names, code)
      os.write(verdicts, PASSED if passed else FAILED)
  os.write(verdicts, DONE)


class Tester(Peer):
  """Asks a program for its tests, and keeps what they may see of it."""

  def __init__(self, source, sink):
    super().__init__(source, sink)
    self.space = {'__name__': MODULE, SETTLE: self.step}
    self.borrowed = set()  # Names that the program has given.
    self.names = ()  # Those that the code which runs now may borrow.
    self.stale = False  # Whether the program has run since it gave them.
    self.pending = {}  # {id: (container, contents, names of results)}.
    self.functions = []  # Of the tests, which the program may call.
    self.lent = {}  # {number: object of a class of the tests}.
    self.lent_number = {}  # {id of such an object: number}.
    self.handles = {}  # {number: what stands for the object here}.
    self.views = {}  # {number: (container, contents that the program knows)}.
    self.view_number = {}  # {id of a view: number}.
    self.exceptions = {}  # {number: the class here}.
    self.number = {}  # {id of a class in `exceptions`: number}.
    self.gone = False

  def ready(self, entry, modules, setup):
    """Returns whether the program was loaded and has what is tested."""
    try:
      found = dict(self.request('names', [entry, *modules]))
    except BaseException:
      return False
    for name, attributes in modules.items():
      module = __import__(name)
      if name in found and all(hasattr(module, one) for one in attributes):
        self.space[name] = module
    if entry:
      if entry not in found:
        return False
      self.space[entry] = found[entry]
      self.borrowed.add(entry)
    return self.passes(*setup)

  def passes(self, names, code):
    """Returns whether code of the tests raises nothing."""
    if self.gone:  # A bare `except` must not make this a pass.
      return False
    self.names = names
    try:
      self.borrow(names)
      exec(code, self.space)
    except BaseException:
      return False
    finally:
      self.settle()
    return not self.gone

  def borrow(self, names):
    """Binds names that only the program can mean to what it means by them."""
    wanted = [
      name
      for name in names
      if name in self.borrowed
      or not (name in self.space or hasattr(builtins, name))
    ]
    found = dict(self.request('names', wanted)) if wanted else {}
    self.stale = False
    for name in wanted:
      self.space.pop(name, None)
      if name in found:
        self.borrowed.add(name)
        self.space[name] = found[name]

  def step(self, bound=(), used=()):
    """Lets the next statement see what the last one did; see `settle`."""
    self.settle(bound, used)
    if self.stale:
      self.borrow([n for n in self.names if not is_ours(self.space.get(n))])

  def request(self, name, *arguments):
    """Returns what the program answers, or raises what it raised."""
    try:
      if self.views:
        self.synchronize()
      (result, changes, updates), known = self.ask((name, *arguments))
      good, value = self.loads(result)[0]
    except Gone:
      self.gone = True
      raise
    self.stale = True
    for number, new in self.loads(changes, known)[0]:
      self.pending[id(known[number])] = (known[number], new, frozenset())
    for number, new in self.loads(updates)[0]:
      refill(self.views[number][0], new)
      self.see(number, self.views[number][0])
    if good is not True:
      raise _raised(value, name)
    if value is None:  # As of functions that work in place.
      self.settle()
    return value

  def synchronize(self):
    """Tells the program what the tests did to views, and which they let go."""
    updates, dropped = [], []
    for number, references in _references(self.views).items():
      container, was = self.views[number]
      if differ(was, now := contents(container)):
        updates.append((number, now))
        self.views[number] = (container, now)
      if references <= _ALONE:
        dropped.append(number)
        del self.view_number[id(container)]
        del self.views[number]
    if updates or dropped:
      self.ask(('synchronize', updates, dropped))

  def view(self, container):
    return self.view_number.get(id(container))

  def viewed(self, number):
    return self.views[number][0]

  def see(self, number, container):
    if number in self.views:
      self.view_number.pop(id(self.views[number][0]), None)
    self.views[number] = (container, contents(container))
    self.view_number[id(container)] = number

  def settle(self, bound=(), used=()):
    """Lets the tests see what the program did to its arguments.

    Not before the statement that made the call has ended, nor while the next
    ones use what came of it: or `assert f(x) == sorted(x)` would pass for an
    `f` that empties x and returns it.

    Args:
      bound: names that the last statement has given values to.
      used: names that the next statement uses.
    """
    for key, (container, new, results) in list(self.pending.items()):
      results = results.union(bound)
      if results & set(used):
        self.pending[key] = (container, new, results)
      else:
        del self.pending[key]
        refill(container, new)

  def contents(self, container):
    """Returns what the program has left in a container, seen here or not."""
    held = self.pending.get(id(container))
    return held[1] if held else contents(container)

  def stays(self, value):
    return is_ours(value)

  def both(self, data, value):
    _, number, *_ = data
    if number in self.views:  # It was made one just now, as plain data.
      made = owned(value, self, number)
      self.see(number, made)
      return made
    if number not in self.handles:
      self.handles[number] = owned(value, self, number)
    return self.handles[number]

  def export(self, value):
    """Returns the data by which the program knows an object of this side."""
    if is_ours(value):
      return ('object', value._handle_number)
    if id(value) in self.number:
      return ('object', self.number[id(value)])
    if type(value).__module__ == MODULE and not isinstance(value, type):
      return ('proxy', self.lend(value))
    if callable(value):
      self.functions.append(value)
      return ('callback', len(self.functions) - 1)
    if hasattr(value, '__next__'):
      self.functions.append(value.__next__)
      return ('iterator', len(self.functions) - 1)
    raise TypeError(f'{type(value).__name__} of the tests is not data')

  def lend(self, value):
    """Returns the number of an object of the tests, for the program to use.

    Of what lies in it the program gets what is public, as Python means that:
    a function's globals, say, would show it the tests.
    """
    if id(value) not in self.lent_number:
      number = len(self.functions)
      self.functions += [
        lambda name: getattr(value, _public(name)),
        lambda name, new: setattr(value, _public(name), new),
        lambda name, *arguments: _LENT[name](value, *arguments),
      ]
      self.lent[number] = value
      self.lent_number[id(value)] = number
    return self.lent_number[id(value)]

  def resolve(self, data):
    kind, number, *rest = data
    if kind == 'callback':
      return self.functions[number]
    if kind == 'proxy':
      return self.lent[number]
    if kind == 'exception':
      return self.exception(number, *rest)
    if number not in self.handles:
      handle = CallableHandle if kind == 'callable' else Handle
      self.handles[number] = handle(self, number)
    return self.handles[number]

  def exception(self, number, module, name, parent):
    """Returns the class that stands for an exception class elsewhere."""
    if number not in self.exceptions:
      found = getattr(sys.modules.get(module), name, None)
      if not (isinstance(found, type) and issubclass(found, BaseException)):
        found = type(name, (parent,), dict(_OF_EXCEPTIONS))
      self.exceptions[number] = found
      self.number[id(found)] = number
    return self.exceptions[number]

  def answer(self, question, containers):
    """Returns the bytes of a call's result, and of what it changed."""
    number, args, keywords = question
    old = [contents(one) for one in containers]
    try:
      value = (True, self.functions[number](*args, **keywords))
    except Exception as error:
      value = (False, (type(error), error.args, vars(error).get(_OWN)))
    changes = changed(containers, old)
    try:
      parts = self.dumps(value)[0], self.dumps(changes, containers)[0]
    except Exception as error:
      failed = (False, (TypeError, (str(error),), None))
      parts = self.dumps(failed)[0], self.dumps([])[0]
    return self.dumps(parts)[0]


def _public(name):
  if type(name) is not str or name.startswith('_'):
    raise AttributeError(name)
  return name


# What a program may do to an object of the tests.
_LENT = {
  'call': lambda one, args, keywords: one(*args, **keywords),
  'len': len,
  'iter': iter,
  'getitem': lambda one, key: one[key],
  'setitem': lambda one, key, value: one.__setitem__(key, value),
  'contains': lambda one, item: item in one,
  'eq': lambda one, other: one == other,
  'lt': lambda one, other: one < other,
  'bool': bool,
  'str': str,
  'repr': repr,
  'hash': hash,
}


def _references(views):
  return {number: sys.getrefcount(pair[0]) for number, pair in views.items()}


_ALONE = _references({0: ([], [])})[0]  # Of what nothing else refers to.
_OWN = '_handle'  # Where an exception keeps the program's.


def _attribute(error, name):
  if name == _OWN or name.startswith('__') or _OWN not in vars(error):
    raise AttributeError(name)
  return getattr(vars(error)[_OWN], name)


def _text(error):
  own = vars(error).get(_OWN)
  return BaseException.__str__(error) if own is None else str(own)


# What an exception whose class is the program's has here.
_OF_EXCEPTIONS = {'__getattr__': _attribute, '__str__': _text}


def _raised(value, name):
  """Returns the exception that the program raised, of its class here."""
  kind, args, own = value
  if issubclass(kind, StopIteration) and name != 'next':
    # It would end a `map` of the tests early, and with it the tests.
    return RuntimeError('StopIteration was raised outside of an iterator')
  try:
    error = kind.__new__(kind, *args)
  except TypeError:
    error = None
  if not isinstance(error, BaseException):
    return WireError('what the program raised is no exception')
  if own is not None:
    vars(error)[_OWN] = own
  return error
