"""The tests' process: runs trusted tests on a program that is elsewhere.

Tests find the program's functions and classes as handles. What comes back from
a call is plain data, or again a handle; a handle equals no data whatever its
class says, and no value that a test compares with goes to the program.

Standard library only: this file runs inside the sandbox.
"""

import builtins
import os
import sys

from score_jax.graders.peer import give_up_powers, Gone, Peer
from score_jax.graders.wire import contents, refill, WireError

STARTED, PASSED, FAILED, DONE, BROKEN = b'S', b'1', b'0', b'.', b'E'
SETTLE = '__settle__'  # What `instrument` puts between the tests' statements.


def main(source, sink, verdicts, before, setup, tests, entry, limits, uid):
  """Runs tests and says of each, in one byte, whether it passed.

  Args:
    source: file descriptor from which the program's answers are read.
    sink: file descriptor to which questions go.
    verdicts: file descriptor for the bytes at the head of this file.
    before: (names, code) that runs first; see `instrument.compiled`.
    setup: (names, code) that runs when the program is loaded.
    tests: [(names, code)] of the tests.
    entry: the name under test.
    limits: see `peer.give_up_powers`.
    uid: the same.
  """
  nothing = os.open(os.devnull, os.O_RDWR)
  for stream in (1, 2):  # What tests print is nobody's.
    os.dup2(nothing, stream)
  tester = Tester(source, sink)
  give_up_powers(limits, uid)
  sys.argv = ['tests']
  try:
    tester.receive()  # The program is about to run.
  except Gone:
    return
  os.write(verdicts, STARTED)
  try:
    exec(before[1], tester.space)
  except BaseException:
    os.write(verdicts, BROKEN)
    return
  if tester.ready(entry, setup):
    for names, code in tests:
      passed = tester.passes(names, code)
      os.write(verdicts, PASSED if passed else FAILED)
  os.write(verdicts, DONE)


class Handle:
  """An object of the program's, in the tests' process."""

  __slots__ = ('_handle_number', '_handle_peer')

  def __init__(self, peer, number):
    object.__setattr__(self, '_handle_peer', peer)
    object.__setattr__(self, '_handle_number', number)

  def __getattr__(self, name):
    if name.startswith('__') and name not in _TOLD:
      raise AttributeError(name)
    return _ask('getattr', self, name)

  def __eq__(self, other):
    """True for itself; the program decides between two of its own objects."""
    if not isinstance(other, Handle):
      return False
    same = self._handle_number == other._handle_number
    return same or _ask('binary', self, other, 'eq') is True

  def __hash__(self):
    return _ask('hash', self)

  def __instancecheck__(self, one):
    return type(one) in _HANDLES and _ask('isinstance', one, self)

  def __subclasscheck__(self, one):
    return type(one) in _HANDLES and _ask('issubclass', one, self)

  def __reduce_ex__(self, protocol):
    raise TypeError('an object of the program cannot be copied by its tests')


class CallableHandle(Handle):
  """A function or a class of the program's, in the tests' process."""

  __slots__ = ()

  def __call__(self, *args, **keywords):
    return _ask('call', self, args, keywords)


_HANDLES = (Handle, CallableHandle)
# Dunders that say something of an object and are data.
_TOLD = ('__name__', '__qualname__', '__doc__', '__dict__', '__module__')
_ASKED = 'setattr delattr iter next len getitem setitem delitem bool str repr'
# Between two objects of the program's alone: with a number of the tests' on one
# side, an object could answer `abs(f(x) - 0.5) < 1e-6` as it likes.
_BINARY = 'add sub mul truediv floordiv mod pow matmul and or xor lt le gt ge'


def _ask(name, handle, *arguments):
  return handle._handle_peer.request(name, handle, *arguments)


def _asker(name):
  return lambda self, *arguments: _ask(name, self, *arguments)


def _binary(name):
  def method(self, other):
    if type(other) not in _HANDLES:
      return NotImplemented
    return _ask('binary', self, other, name)

  return method


for _name in _ASKED.split():
  setattr(Handle, f'__{_name}__', _asker(_name))
for _name in _BINARY.split():
  setattr(Handle, f'__{_name}__', _binary(f'__{_name}__'))


class Tester(Peer):
  """Asks a program for its tests, and keeps what they may see of it."""

  def __init__(self, source, sink):
    super().__init__(source, sink)
    self.space = {'__name__': 'tests', SETTLE: self.settle}
    self.borrowed = set()  # Names that the program has given.
    self.pending = {}  # {id: (container, contents, names of results)}.
    self.functions = []  # Of the tests, which the program may call.
    self.exceptions = {}  # {number: the class here}.
    self.number = {}  # {id of a class in `exceptions`: number}.
    self.gone = False

  def ready(self, entry, setup):
    """Returns whether the program was loaded and has what is tested."""
    try:
      found = self.request('names', [entry] if entry else [])
    except BaseException:
      return False
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
    found = self.request('names', wanted) if wanted else {}
    for name in wanted:
      self.space.pop(name, None)
      if name in found:
        self.borrowed.add(name)
        self.space[name] = found[name]

  def request(self, name, *arguments):
    """Returns what the program answers, or raises what it raised."""
    try:
      (result, changed), known = self.ask((name, *arguments))
      good, value = self.loads(result)[0]
    except Gone:
      self.gone = True
      raise
    for number, new in self.loads(changed, known)[0]:
      self.pending[id(known[number])] = (known[number], new, frozenset())
    if good is not True:
      raise _raised(value, name)
    if value is None:  # As of functions that work in place.
      self.settle()
    return value

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

  def export(self, value):
    if type(value) in _HANDLES:
      return ('object', value._handle_number)
    if id(value) in self.number:
      return ('object', self.number[id(value)])
    if callable(value):
      self.functions.append(value)
      return ('callback', len(self.functions) - 1)
    if hasattr(value, '__next__'):
      self.functions.append(value.__next__)
      return ('iterator', len(self.functions) - 1)
    raise TypeError(f'{type(value).__name__} of the tests is not data')

  def resolve(self, data):
    kind, number, *rest = data
    if kind == 'callback':
      return self.functions[number]
    if kind == 'exception':
      return self.exception(number, *rest)
    return (CallableHandle if kind == 'callable' else Handle)(self, number)

  def exception(self, number, module, name, parent):
    """Returns the class that stands for an exception class elsewhere."""
    if number not in self.exceptions:
      found = getattr(sys.modules.get(module), name, None)
      if not (isinstance(found, type) and issubclass(found, BaseException)):
        found = type(name, (parent,), {})
      self.exceptions[number] = found
      self.number[id(found)] = number
    return self.exceptions[number]

  def answer(self, question, containers):
    number, args, keywords = question
    try:
      value = (True, self.functions[number](*args, **keywords))
    except Exception as error:
      value = (False, (type(error), error.args))
    try:
      return self.dumps(value)[0]
    except Exception as error:
      return self.dumps((False, (TypeError, (str(error),))))[0]


def _raised(value, name):
  """Returns the exception that the program raised, of its class here."""
  kind, args = value
  if issubclass(kind, StopIteration) and name != 'next':
    # It would end a `map` of the tests early, and with it the tests.
    return RuntimeError('StopIteration was raised outside of an iterator')
  try:
    error = kind.__new__(kind, *args)
  except TypeError:
    error = None
  if not isinstance(error, BaseException):
    return WireError('what the program raised is no exception')
  return error
