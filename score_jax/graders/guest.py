"""The program's process: runs it, and answers what its tests ask of it.

Nothing here is secret from the program, and nothing here decides: a program
that rewrites this process can only change the values that it gives back, which
the tests' process takes as data (see wire.py).

Standard library only: this file runs inside the sandbox.
"""

import os
import sys

from score_jax.graders.peer import give_up_powers, Gone, Peer
from score_jax.graders.wire import contents

MODULE = 'program'  # Not '__main__': what only a script does stays undone.
_FRAMES = 50  # Of ours below the program's, added to its recursion limit.


def main(source, sink, program, before, entry, limits, uid):
  """Runs a program, then answers for it until the process is ended.

  Args:
    source: file descriptor from which the tests' questions are read.
    sink: file descriptor to which answers go.
    program: the program's source.
    before: compiled code that runs first in the program's namespace.
    entry: the name under test, which `before` shall not have defined.
    limits: see `peer.give_up_powers`.
    uid: the same.
  """
  guest = Guest(source, sink)
  give_up_powers(limits, uid)
  sys.argv = [MODULE]
  sys.setrecursionlimit(sys.getrecursionlimit() + _FRAMES)
  pid = os.getpid()
  guest.load(program, before, entry)
  if os.getpid() != pid:  # A child that the program forked and forgot.
    os._exit(0)
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
    answer, _ = self.guest.ask((self.number, args, keywords))
    good, value = answer
    if not good:
      raise value[0](*value[1])
    return value


class Iterator(Callback):
  """An iterator of the tests, as the program sees it."""

  def __iter__(self):
    return self

  def __next__(self):
    return self()


class Guest(Peer):
  """Answers questions about the objects of a program."""

  def __init__(self, source, sink):
    super().__init__(source, sink)
    self.objects = []  # Alive for ever, so that an id stays one object's.
    self.number = {}
    self.space = {}
    self.failure = None  # What the program raised while it was loaded.

  def load(self, program, before, entry):
    """Runs the program's own statements; what they raise is told later."""
    module = type(sys)(MODULE)
    sys.modules[MODULE] = module
    self.space = vars(module)
    self.send(b'!', b'')  # The clock starts; all before was ours.
    try:
      exec(before, self.space)
      self.space.pop(entry, None)
      text = program.removeprefix('\ufeff')
      exec(compile(text, f'<{MODULE}>', 'exec', dont_inherit=True), self.space)
    except BaseException as error:
      self.failure = error

  def export(self, value):
    if isinstance(value, Callback):
      return ('callback', value.number)
    if id(value) not in self.number:
      self.number[id(value)] = len(self.objects)
      self.objects.append(value)
    number = self.number[id(value)]
    if isinstance(value, type) and issubclass(value, BaseException):
      return ('exception', number, value.__module__, value.__name__, _up(value))
    return ('callable' if callable(value) else 'object', number)

  def resolve(self, data):
    kind, number = data
    if kind == 'object':
      return self.objects[number]
    return {'callback': Callback, 'iterator': Iterator}[kind](self, number)

  def answer(self, question, containers):
    name, *arguments = question
    old = [contents(one) for one in containers]
    try:
      if name == 'names':
        value = (True, self.names(*arguments))
      else:
        value = (True, _ANSWERS[name](*arguments))
    except BaseException as error:
      value = _raised(error)
    _flush()
    changes = [
      (number, new)
      for number, (one, was) in enumerate(zip(containers, old, strict=True))
      if _differ(was, new := contents(one))
    ]
    return self.encode(value, changes, containers)

  def encode(self, value, changes, containers):
    try:
      result, _ = self.dumps(value)
      changed, _ = self.dumps(changes, containers)
    except Exception as error:
      result, _ = self.dumps(_raised(error))
      changed, _ = self.dumps([])
    whole, _ = self.dumps((result, changed))
    return whole

  def names(self, wanted):
    """Returns those of the program's globals that are wanted and there.

    Raises:
      Exception: what the program raised when it was loaded.
    """
    if self.failure is not None:
      raise self.failure
    return {name: self.space[name] for name in wanted if name in self.space}


def _flush():
  try:
    sys.stdout.flush()
  except Exception:  # The program may have closed or replaced it.
    return


def _up(kind):
  """Returns the next exception class above one."""
  return next(k for k in kind.__mro__[1:] if issubclass(k, BaseException))


def _raised(error):
  return (False, (type(error), error.args))


def _differ(old, new):
  if isinstance(old, bytes):
    return old != new
  same = len(old) == len(new)
  return not (same and all(a is b for a, b in zip(old, new, strict=True)))


def _call(function, args, keywords):
  return function(*args, **keywords)


def _binary(left, right, name):
  import operator

  return getattr(operator, name)(left, right)


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
  'hash': hash,
  'isinstance': isinstance,
  'issubclass': issubclass,
  'binary': _binary,
}
