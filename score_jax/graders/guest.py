"""The program's process: runs it, and answers what its tests ask of it.

Nothing here is secret from the program, and nothing here decides: a program
that rewrites this process can only change the values that it gives back, which
the tests' process takes as data (see wire.py).

Standard library only: this file runs inside the sandbox.
"""

import os
import sys

from score_jax.graders.peer import give_up_powers, Gone, Peer
from score_jax.graders.wire import changed, contents, differ, refill

MODULE = 'program'  # Not '__main__': what only a script does stays undone.
_FRAMES = 50  # Of ours below the program's, added to its recursion limit.
# Questions about the state of objects: containers in the answer become views.
_STATE = ('getattr', 'getitem', 'names')
_LARGEST = 10_000  # Items of a view; a larger container crosses as a copy.


def main(source, sink, program, before, entry, limits, uid, filtered):
  """Runs a program, then answers for it until the process is ended.

  Args:
    source: file descriptor from which the tests' questions are read.
    sink: file descriptor to which answers go.
    program: the program's source.
    before: compiled code that runs first in the program's namespace.
    entry: the name under test, which `before` shall not have defined.
    limits: see `peer.give_up_powers`.
    uid: the same.
    filtered: the same.
  """
  guest = Guest(source, sink)
  give_up_powers(limits, uid, filtered)
  sys.argv = [MODULE]
  sys.setrecursionlimit(sys.getrecursionlimit() + _FRAMES)
  guest.load(program, before, entry)
  guest.end_forked()
  try:
    guest.serve()
  except Gone:  # The tests have ended.
    os._exit(0)


class Callback:
  """A function of the tests, as the program sees it."""

  def __init__(self, guest, number):
    self.guest = guest
    self.number = number

  def __call__(self, *args, **keywords):
    parts, known = self.guest.ask((self.number, args, keywords))
    for number, new in self.guest.loads(parts[1], known)[0]:
      refill(known[number], new)
    (good, value), _ = self.guest.loads(parts[0])
    if not good:
      kind, args, own = value
      raise kind(*args) if own is None else own
    return value


class Iterator(Callback):
  """An iterator of the tests, as the program sees it."""

  def __iter__(self):
    return self

  def __next__(self):
    return self()


class Proxy:
  """An object of a class of the tests, as the program sees it."""

  def __init__(self, guest, number):
    object.__setattr__(
      self, '_parts', [Callback(guest, number + i) for i in range(3)]
    )
    object.__setattr__(self, '_number', number)

  def __getattr__(self, name):
    return self._parts[0](name)

  def __setattr__(self, name, value):
    self._parts[1](name, value)

  def __call__(self, *args, **keywords):
    return self._parts[2]('call', args, keywords)


def _lent(name):
  return lambda self, *arguments: self._parts[2](name, *arguments)


for _name in (
  'len', 'iter', 'getitem', 'setitem', 'contains', 'eq', 'lt', 'bool', 'str',
  'repr', 'hash',
):  # fmt: skip
  setattr(Proxy, f'__{_name}__', _lent(_name))


class Guest(Peer):
  """Answers questions about the objects of a program."""

  def __init__(self, source, sink):
    super().__init__(source, sink)
    self.pid = os.getpid()
    self.objects = {}  # {number: object}; alive, so that an id stays its own.
    self.number = {}  # {id: number}.
    self.count = 0
    self.proxies = {}  # {number: what stands for an object of the tests}.
    self.views = {}  # {number: contents that the tests know}.
    self.fresh = []  # Numbers of views in the answer that is being written.
    self.tracking = False  # Whether plain containers become views.
    self.space = {}
    self.failure = None  # What the program raised while it was loaded.

  def load(self, program, before, entry):
    """Runs the program's own statements; what they raise is told later."""
    module = type(sys)(MODULE)
    sys.modules[MODULE] = module
    self.space = vars(module)
    self.send(b'!', b'')  # The clock starts; all before was ours.
    self.receive()  # The tests know, and nothing can take that back.
    try:
      exec(before, self.space)
      self.space.pop(entry, None)
      text = program.removeprefix('\ufeff')
      exec(compile(text, f'<{MODULE}>', 'exec', dont_inherit=True), self.space)
    except BaseException as error:
      self.failure = error

  def end_forked(self):
    """Ends a child that the program forked and forgot: one side answers."""
    if os.getpid() != self.pid:
      os._exit(0)

  def register(self, value):
    """Returns the number of an object, which is kept from now on."""
    if id(value) not in self.number:
      self.number[id(value)] = self.count
      self.objects[self.count] = value
      self.count += 1
    return self.number[id(value)]

  def owns(self, value):
    return type(value).__module__ == MODULE

  def view(self, container):
    number = self.number.get(id(container))
    return number if number in self.views else None

  def new_view(self, container):
    if not (self.tracking or self.owns(container)):
      return None
    inside = contents(container)
    if len(inside) > _LARGEST:
      return None
    number = self.register(container)
    self.views[number] = inside
    self.fresh.append(number)
    return number

  def viewed(self, number):
    return self.objects[number]

  def synchronize(self, updates, dropped):
    """Takes over what tests did to views, and which they have let go."""
    for number, new in updates:
      refill(self.objects[number], new)
      self.views[number] = contents(self.objects[number])
    for number in dropped:
      del self.views[number]
      if not self.owns(self.objects[number]):
        del self.number[id(self.objects.pop(number))]

  def updates(self):
    """Returns (number, contents) of the views that the program changed.

    In tuples: a list would itself become a view on its way.
    """
    found = []
    for number, was in self.views.items():
      now = contents(self.objects[number])
      if differ(was, now):
        self.views[number] = now
        found.append((number, tuple(now) if type(now) is list else now))
    return tuple(found)

  def export(self, value):
    if isinstance(value, Callback):
      return ('callback', value.number)
    if type(value) is Proxy:
      return ('proxy', value._number)
    number = self.register(value)
    if isinstance(value, type) and issubclass(value, BaseException):
      return ('exception', number, value.__module__, value.__name__, _up(value))
    return ('callable' if callable(value) else 'object', number)

  def resolve(self, data):
    kind, number = data
    if kind == 'object':
      return self.objects[number]
    if kind == 'proxy':
      if number not in self.proxies:
        self.proxies[number] = Proxy(self, number)
      return self.proxies[number]
    return {'callback': Callback, 'iterator': Iterator}[kind](self, number)

  def answer(self, question, containers):
    name, *arguments = question
    old = [contents(one) for one in containers]
    own = {'names': self.names, 'synchronize': self.synchronize}
    try:
      value = (True, (own.get(name) or _ANSWERS[name])(*arguments))
    except BaseException as error:
      value = self.raised(error)
    self.end_forked()
    _flush()
    changes = changed(containers, old)
    return self.encode(name, value, changes, containers)

  def encode(self, name, value, changes, containers):
    """Returns an answer: the result, what changed of arguments and views."""
    self.fresh = []
    try:
      self.tracking = name in _STATE
      parts = [self.dumps(value)[0]]
      self.tracking = False
      parts.append(self.dumps(changes, containers)[0])
      self.tracking = True
      parts.append(self.dumps(self.updates())[0])
    except Exception as error:
      for number in self.fresh:  # The tests will not learn of them.
        del self.views[number]
      none = self.dumps([])[0]
      parts = [self.dumps(self.raised(error))[0], none, none]
    finally:
      self.tracking = False
    return self.dumps(tuple(parts))[0]

  def raised(self, error):
    """Returns an exception as data, and itself if its class is the program's."""
    own = error if self.owns(error) else None
    return (False, (type(error), error.args, own))

  def names(self, wanted):
    """Returns (name, value) of the program's globals that are wanted and there.

    Raises:
      Exception: what the program raised when it was loaded.
    """
    if self.failure is not None:
      raise self.failure
    return tuple((n, self.space[n]) for n in wanted if n in self.space)


def _flush():
  try:
    sys.stdout.flush()
  except Exception:  # The program may have closed or replaced it.
    return


def _up(kind):
  """Returns the next exception class above one."""
  return next(k for k in kind.__mro__[1:] if issubclass(k, BaseException))


def _call(function, args, keywords):
  return function(*args, **keywords)


def _binary(left, right, name):
  import operator

  return getattr(operator, name)(left, right)


def _operator(name):
  def apply(one):
    import operator

    return getattr(operator, name)(one)

  return apply


def _special(name):
  """Returns what calls a method of a class, as Python's own syntax does."""
  return lambda one, *arguments: getattr(type(one), name)(one, *arguments)


def _exit(one, kind, args):
  error = None if kind is None else kind(*args)
  return bool(type(one).__exit__(one, kind, error, None))


def _copied(name):
  def copied(one):
    import copy

    return getattr(copy, name)(one)

  return copied


_ANSWERS = {
  'call': _call,
  'getattr': getattr,
  'setattr': setattr,
  'delattr': delattr,
  'iter': iter,
  'next': next,
  'len': len,
  'getitem': lambda one, key: one[key],
  'setitem': lambda one, key, value: one.__setitem__(key, value),
  'delitem': lambda one, key: one.__delitem__(key),
  'bool': bool,
  'str': str,
  'repr': repr,
  'format': format,
  'hash': hash,
  'isinstance': isinstance,
  'issubclass': issubclass,
  'binary': _binary,
  'abs': abs,
  'int': int,
  'float': float,
  'complex': complex,
  'round': round,
  'index': _operator('index'),
  'pos': _operator('pos'),
  'neg': _operator('neg'),
  'invert': _operator('invert'),
  'trunc': _special('__trunc__'),
  'floor': _special('__floor__'),
  'ceil': _special('__ceil__'),
  'enter': _special('__enter__'),
  'exit': _exit,
  'copy': _copied('copy'),
  'deepcopy': _copied('deepcopy'),
}
