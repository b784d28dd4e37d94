"""What tests hold of a program that is elsewhere: handles of its objects.

The program decides what its own objects do among themselves. Where one of them
meets data of the tests, it may not decide:

- It equals no data, whatever its class says, and is not ordered against it.
- Arithmetic with data gives a mixed handle. That may be looked at as an object,
  but gives no number: or an object could answer `abs(f(x) - 0.5) < 1e-6` as it
  likes.
- `in` looks at its items one by one.

An instance of a program's subclass of `int`, `list` and the like comes as what
it holds, which is compared as data; the program is asked for its attributes.

Standard library only: this file runs inside the sandbox.
"""

_NUMBER, _PEER = '_handle_number', '_handle_peer'
# Dunders that say something of an object and are data.
_TOLD = ('__name__', '__qualname__', '__dict__', '__module__')
# Special methods, by what they may come to with data of the tests.
_ASKED = (
  'setattr', 'delattr', 'iter', 'next', 'len', 'getitem', 'setitem', 'delitem',
  'str', 'repr', 'format', 'enter',
)  # fmt: skip
_TO_NUMBER = (
  'bool', 'abs', 'int', 'float', 'complex', 'index', 'round', 'trunc', 'floor',
  'ceil', 'pos', 'neg', 'invert',
)  # fmt: skip
_ORDER = ('lt', 'le', 'gt', 'ge')
_ARITHMETIC = (
  'add', 'sub', 'mul', 'truediv', 'floordiv', 'mod', 'pow', 'matmul', 'and',
  'or', 'xor', 'lshift', 'rshift',
)  # fmt: skip


def _ask(name, handle, *arguments):
  return getattr(handle, _PEER).request(name, handle, *arguments)


class Handle:
  """An object of the program's, in the tests' process."""

  __slots__ = (_NUMBER, _PEER)
  _handle_mixed = False  # Whether data of the tests went into it.

  def __init__(self, peer, number):
    object.__setattr__(self, _PEER, peer)
    object.__setattr__(self, _NUMBER, number)

  def __getattr__(self, name):
    if name.startswith('__') and name not in _TOLD:
      raise AttributeError(name)
    return _ask('getattr', self, name)

  def __eq__(self, other):
    """True for itself; the program decides between two of its own objects."""
    if not is_ours(other):
      return False
    same = self._handle_number == other._handle_number
    return same or _ask('binary', self, other, 'eq') is True

  def __hash__(self):
    return _ask('hash', self)

  def __instancecheck__(self, one):
    return is_ours(one) and _ask('isinstance', one, self)

  def __subclasscheck__(self, one):
    return is_ours(one) and _ask('issubclass', one, self)

  def __exit__(self, kind, error, trace):
    return _ask('exit', self, kind, () if error is None else error.args)

  def __copy__(self):
    return _ask('copy', self)

  def __deepcopy__(self, memory):
    return _ask('deepcopy', self)

  def __reduce_ex__(self, protocol):
    raise TypeError('an object of the program cannot be copied by its tests')


class CallableHandle(Handle):
  """A function or a class of the program's, in the tests' process."""

  __slots__ = ()

  def __call__(self, *args, **keywords):
    return _ask('call', self, args, keywords)


class MixedHandle(Handle):
  """What an object of the program's and data of the tests came to."""

  __slots__ = ()
  _handle_mixed = True


class MixedCallableHandle(CallableHandle):
  """The same, of what can be called."""

  __slots__ = ()
  _handle_mixed = True


_HANDLES = (Handle, CallableHandle, MixedHandle, MixedCallableHandle)


def is_ours(value):
  """Returns whether a value stands for an object of the program's."""
  return type(value) in _HANDLES or isinstance(value, Owned)


def kept_whole(result, mixed):
  """Returns what an operation gave, if the program may decide that much.

  Raises:
    TypeError: if it is data that was asked of a mixture.
  """
  if not mixed:
    return result
  if type(result) not in _HANDLES:
    raise TypeError('an object of the program gives no number with data')
  kind = MixedCallableHandle if callable(result) else MixedHandle
  return kind(result._handle_peer, result._handle_number)


def _asker(name):
  return lambda self, *arguments: _ask(name, self, *arguments)


def _number(name):
  def method(self, *arguments):
    return kept_whole(_ask(name, self, *arguments), self._handle_mixed)

  return method


def _ordered(name):
  def method(self, other):
    if not is_ours(other):
      return NotImplemented
    return _ask('binary', self, other, name)

  return method


def _arithmetic(name, swapped=False):
  def method(self, other):
    left, right = (other, self) if swapped else (self, other)
    result = getattr(self, _PEER).request('binary', left, right, name)
    mixed = self._handle_mixed or not is_ours(other) or other._handle_mixed
    return kept_whole(result, mixed)

  return method


for _kind in _HANDLES:
  _kind.__doc__ = property(lambda self: _ask('getattr', self, '__doc__'))
for _name in _ASKED:
  setattr(Handle, f'__{_name}__', _asker(_name))
for _name in _TO_NUMBER:
  setattr(Handle, f'__{_name}__', _number(_name))
for _name in _ORDER:
  setattr(Handle, f'__{_name}__', _ordered(f'__{_name}__'))
for _name in _ARITHMETIC:
  setattr(Handle, f'__{_name}__', _arithmetic(f'__{_name}__'))
  setattr(Handle, f'__i{_name}__', _arithmetic(f'__i{_name}__'))
  setattr(Handle, f'__r{_name}__', _arithmetic(f'__{_name}__', swapped=True))


class Owned:
  """An instance of a program's subclass of a type that is data."""

  _handle_mixed = False

  def __getattr__(self, name):
    if (name.startswith('__') and name not in _TOLD) or name in (
      _NUMBER,
      _PEER,
    ):
      raise AttributeError(name)
    return _ask('getattr', self, name)

  def __setattr__(self, name, value):
    _ask('setattr', self, name, value)

  def __delattr__(self, name):
    _ask('delattr', self, name)

  def __repr__(self):
    return _ask('repr', self)

  def __str__(self):
    return _ask('str', self)

  def __format__(self, form):
    return _ask('format', self, form)

  def __missing__(self, key):
    return _ask('getitem', self, key)

  def __copy__(self):
    return _ask('copy', self)

  def __deepcopy__(self, memory):
    return _ask('deepcopy', self)

  def __reduce_ex__(self, protocol):
    raise TypeError('an object of the program cannot be copied by its tests')


def _among_own(kind, name):
  """Returns an operator that the program decides between its own objects."""
  plain = getattr(kind, name)

  def method(self, other):
    if is_ours(other):
      return _ask('binary', self, other, name)
    return plain(self, other)

  return method


_owned_classes = {}
_FILLED = (list, dict, set)
_HOLDING = (int, float, complex, str, bytes, tuple, frozenset, *_FILLED)


def _owned_class(kind):
  """Returns the class of what a program's subclass of a type holds."""
  if kind in _owned_classes:
    return _owned_classes[kind]
  inside = {}
  for name in ('eq', 'ne', *_ORDER, *_ARITHMETIC):
    name = f'__{name}__'
    if hasattr(kind, name):
      inside[name] = _among_own(kind, name)
  inside['__hash__'] = kind.__hash__
  made = type(kind.__name__, (Owned, kind), inside)
  _owned_classes[kind] = made
  return made


def owned(value, peer, number):
  """Returns plain data as an instance of a program's subclass of its type."""
  kind = next((k for k in _HOLDING if isinstance(value, k)), None)
  if kind is None:
    return value
  made = kind.__new__(_owned_class(kind), value)
  if kind in _FILLED:
    kind.__init__(made, value)
  vars(made).update({_PEER: peer, _NUMBER: number})
  return made
