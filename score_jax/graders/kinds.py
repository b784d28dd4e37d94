"""Which standard types cross between a program and its tests, and as what.

Standard library only: this file runs inside the sandbox.
"""

import builtins
import sys

# Types that cross as themselves, for `f(x, int)`, `type(x) is int` and
# `except ValueError`. Called, they build a value or an exception, no more.
TYPES = {
  name: kind
  for name, kind in vars(builtins).items()
  if isinstance(kind, type) and issubclass(kind, BaseException)
} | {
  kind.__name__: kind
  for kind in (
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    bytearray,
    list,
    tuple,
    dict,
    set,
    frozenset,
    range,
    slice,
    object,
    type(None),
  )
}


class WireError(Exception):
  """What is to cross is not data, or what came is not a message."""


def named(place):
  """Returns a listed type, whose module is imported where it is needed."""
  module, name = place
  if module not in sys.modules:
    __import__(module)
  return getattr(sys.modules[module], name, None)


def _nothing(value):
  return None


def _factory(value):
  kind = value.default_factory
  return kind if isinstance(kind, type) and kind in TYPES.values() else None


def _empty(kind, extra):
  return kind()


# (module, name): what to send beside the contents; type and that to a new one.
CONTAINERS = {
  ('builtins', 'list'): (_nothing, _empty),
  ('builtins', 'dict'): (_nothing, _empty),
  ('builtins', 'set'): (_nothing, _empty),
  ('builtins', 'bytearray'): (_nothing, _empty),
  ('collections', 'Counter'): (_nothing, _empty),
  ('collections', 'OrderedDict'): (_nothing, _empty),
  ('collections', 'defaultdict'): (_factory, lambda kind, make: kind(make)),
  ('collections', 'deque'): (
    lambda value: value.maxlen,
    lambda kind, length: kind(maxlen=length),
  ),
}


def _fields(*names):
  """Returns how a type crosses that is built of fields of these names."""
  return (
    lambda value: {name: getattr(value, name) for name in names},
    lambda kind, data: kind(**data),
  )


def _triple(value):
  return (value.start, value.stop, value.step)


def _array(kind, data):
  letters, shape, numbers = data
  # Strings, dates and numbers; no objects, nor parts of other kinds.
  if letters[1:2] not in ('b', 'i', 'u', 'f', 'c', 'U', 'S', 'm', 'M'):
    raise WireError('not an array of numbers')
  if ',' in letters or not all(type(size) is int for size in shape):
    raise WireError('not an array of numbers')
  frombuffer = sys.modules['numpy'].frombuffer
  return frombuffer(numbers, letters).reshape(shape).copy()


def _spread(kind, data):
  return kind(*data)


_DAY = ('year', 'month', 'day')
_CLOCK = ('hour', 'minute', 'second', 'microsecond', 'tzinfo', 'fold')
# (module, name): value to plain data; type and data to value.
KINDS = {
  ('builtins', 'range'): (_triple, _spread),
  ('builtins', 'slice'): (_triple, _spread),
  ('builtins', 'memoryview'): (bytes, lambda kind, data: kind(data)),
  ('array', 'array'): (
    lambda value: (value.typecode, value.tobytes()),
    _spread,
  ),
  ('builtins', 'dict_keys'): (list, lambda _, data: dict.fromkeys(data).keys()),
  ('builtins', 'dict_items'): (list, lambda _, data: dict(data).items()),
  ('builtins', 'dict_values'): (
    list,
    lambda _, data: dict(enumerate(data)).values(),
  ),
  ('decimal', 'Decimal'): (str, lambda kind, data: kind(data)),
  ('fractions', 'Fraction'): (
    lambda value: (value.numerator, value.denominator),
    _spread,
  ),
  ('datetime', 'date'): _fields(*_DAY),
  ('datetime', 'time'): _fields(*_CLOCK),
  ('datetime', 'datetime'): _fields(*_DAY, *_CLOCK),
  ('datetime', 'timedelta'): _fields('days', 'seconds', 'microseconds'),
  ('datetime', 'timezone'): (
    lambda value: value.utcoffset(None),
    lambda kind, data: kind(data),
  ),
  ('uuid', 'UUID'): (lambda value: value.int, lambda kind, n: kind(int=n)),
  ('numpy', 'generic'): (lambda value: value.item(), lambda _, data: data),
  ('numpy', 'ndarray'): (
    lambda value: (value.dtype.str, value.shape, value.tobytes()),
    _array,
  ),
}
