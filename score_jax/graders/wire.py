"""How plain data crosses between a program under test and its tests.

Only data crosses, never code: numbers, text, Python's containers and the
standard types of `CONTAINERS` and `KINDS`. An instance of a subclass crosses as
the plain value that it holds, so no method of the program's, such as an
`__eq__` that always agrees, runs in the tests' process. What is not data stays
where it is, and its other side gets what `Codec.export` makes of it.

A view is a container of the program's of which both sides have a copy and keep
each other's up to date; it crosses as its number.

    value = tag of one byte, then what the tag says

Containers that can change are numbered in the order in which they begin, and
`r` points back to one, so that what is one object stays one object.

Standard library only: this file runs inside the sandbox, where there is no
package. Bytes may come from a hostile program: `loads` trusts no length and
builds nothing but what is listed here.
"""

from itertools import chain, islice
from struct import error, pack, Struct, unpack_from

from score_jax.graders.kinds import CONTAINERS, KINDS, named, TYPES, WireError

_SIZE, _FLOAT, _COMPLEX = Struct('<I'), Struct('<d'), Struct('<dd')
_CONSTANTS = {
  b'N': None,
  b'T': True,
  b'F': False,
  b'E': Ellipsis,
  b'M': NotImplemented,
}
_TAG_OF = {id(value): tag for tag, value in _CONSTANTS.items()}
_PLACES, _MAKERS = list(CONTAINERS), list(CONTAINERS.values())
_NUMBER_OF = {place: number for number, place in enumerate(_PLACES)}
_MANY = 256  # Items.


def contents(container):
  """Returns a list, for a dict its keys and values in turn; or bytes.

  Of an instance of a subclass: as the type has it that is no program's.
  """
  kind = type(container)
  if (kind.__module__, kind.__name__) not in CONTAINERS:
    kind = next(k for k in kind.__mro__ if _place(k) in CONTAINERS)
  if kind is bytearray:
    return bytes(container)
  if issubclass(kind, dict):
    return [part for pair in kind.items(container) for part in pair]
  return list(kind.__iter__(container))


def differ(old, new):
  """Returns whether two results of `contents` hold other objects."""
  if isinstance(old, bytes):
    return old != new
  same = len(old) == len(new)
  return not (same and all(a is b for a, b in zip(old, new, strict=True)))


def changed(containers, old):
  """Returns (place, contents) of those that hold other objects than before."""
  return [
    (number, new)
    for number, (one, was) in enumerate(zip(containers, old, strict=True))
    if differ(was, new := contents(one))
  ]


def _place(kind):
  return kind.__module__, kind.__name__


def refill(container, new):
  """Gives a container the contents that `contents` returned of its like."""
  if isinstance(container, dict):
    pairs = list(zip(new[::2], new[1::2], strict=True))
    container.clear()
    for key, value in pairs:  # A Counter's update would add.
      container[key] = value
  elif isinstance(container, (list, bytearray)):
    container[:] = new
  else:
    container.clear()
    (container.update if isinstance(container, set) else container.extend)(new)


class Codec:
  """Turns values into bytes and back, on one side of the pipe."""

  def export(self, value):
    """Returns plain data that stands for a value that cannot cross."""
    raise WireError(f'{type(value).__name__} is not data')

  def resolve(self, data):
    """Returns what the other side's `export` stands for."""
    raise WireError('nothing was exported')

  def contents(self, container):
    """Returns what a container is to be sent as holding."""
    return contents(container)

  def stays(self, value):
    """Returns whether a value that is data is to be exported all the same."""
    return False

  def owns(self, value):
    """Returns whether a value is data and more, and is to be exported too."""
    return False

  def both(self, data, value):
    """Returns what `export` stands for, holding a value."""
    raise WireError('nothing was exported')

  def view(self, container):
    """Returns the number of a view that both sides have, or None."""
    return

  def new_view(self, container):
    """Returns the number of a view that this side makes now, or None."""
    return

  def viewed(self, number):
    """Returns the view of a number."""
    raise WireError('there are no views')

  def see(self, number, container):
    """Makes a container a view that the other side has made."""
    raise WireError('there are no views')

  def dumps(self, value, known=()):
    """Returns a value as bytes, and the numbered containers so far.

    Args:
      value: data, or what `export` can stand for.
      known: containers that both sides have numbered already.
    """
    writer = _Writer(self, known)
    writer.write(value)
    return bytes(writer.out), writer.containers

  def loads(self, data, known=()):
    """Returns the value in `data`, and the numbered containers so far.

    Raises:
      WireError: if `data` is not one value.
    """
    reader = _Reader(self, data, known)
    try:
      value = reader.read()
    except (error, LookupError, ValueError, TypeError, ArithmeticError) as why:
      raise WireError(f'not a message: {type(why).__name__}') from None
    if reader.at != len(data):
      raise WireError('not a message: bytes are left over')
    return value, reader.containers


class _Writer:
  """One value on its way out."""

  def __init__(self, codec, known):
    self.codec = codec
    self.out = bytearray()
    self.containers = list(known)
    self.number = {id(one): i for i, one in enumerate(self.containers)}

  def write(self, value):
    tag = _TAG_OF.get(id(value))
    if tag:
      self.out += tag
    elif type(value) in _WRITERS:
      _WRITERS[type(value)](self, value)
    elif isinstance(value, type) and TYPES.get(value.__name__) is value:
      self.text(b'y', value.__name__)
    else:
      self.instance(value)

  def instance(self, value):
    """Writes what is of no plain type: as data, or as what stands for it."""
    kind = next((k for k in type(value).__mro__ if _is_data(k)), None)
    if kind is None or self.codec.stays(value):
      self.out += b'h'
      self.write(self.codec.export(value))
      return
    view = self.codec.view(value)
    if view is not None:
      self.out += b'w' + _SIZE.pack(view)
      return
    if kind is not type(value) and self.codec.owns(value):
      self.out += b'x'
      self.write(self.codec.export(value))
    place = _place(kind)
    if kind in _WRITERS:
      _WRITERS[kind](self, value)
    elif place in _NUMBER_OF:
      self.container(_NUMBER_OF[place], value)
    else:
      self.text(b'k', '.'.join(place))
      self.write(KINDS[place][0](value))

  def sized(self, tag, data):
    self.out += tag + _SIZE.pack(len(data)) + data

  def text(self, tag, value):
    self.sized(tag, str.encode(value, 'utf-8', 'surrogatepass'))

  def integer(self, value):
    value = int.__index__(value)
    size = int.bit_length(value) // 8 + 1
    self.sized(b'i', int.to_bytes(value, size, 'little', signed=True))

  def items(self, tag, items):
    """Writes many values; numbers and text alone go in one piece."""
    code, packed = _packed(items) if len(items) > 8 else (None, None)
    if code:
      self.sized(tag + code, packed)
      return
    self.out += tag + b'v' + _SIZE.pack(len(items))
    for item in items:
      self.write(item)

  def container(self, number, value):
    """Writes a container once, and then its number."""
    if id(value) in self.number:
      self.out += b'r' + _SIZE.pack(self.number[id(value)])
      return
    self.number[id(value)] = len(self.containers)
    self.containers.append(value)
    view = self.codec.new_view(value)
    if view is not None:
      self.out += b'W' + _SIZE.pack(view)
    self.out += b'm' + bytes([number])
    self.write(_MAKERS[number][0](value))
    inside = self.codec.contents(value)
    if isinstance(inside, bytes):
      self.sized(b'', inside)
    else:
      self.items(b'', inside)


def _packed(items):
  """Returns (how, bytes) of items that need no look at each; or (None, None)."""
  kinds = set(map(type, items))
  try:
    if kinds in ({int}, {float}):
      code = 'q' if int in kinds else 'd'
      return code.encode(), pack(f'<{len(items)}{code}', *items)
    if len(items) > _MANY and kinds == {str} and len(set(items)) <= 256:
      number = {text: n for n, text in enumerate(set(items))}
      table = '\0'.join(number)
      if table.count('\0') == len(number) - 1:
        data = table.encode('utf-8', 'surrogatepass')
        places = bytes(map(number.__getitem__, items))
        return b'i', _SIZE.pack(len(data)) + data + places
    if len(items) > _MANY and kinds <= {int, float, bool, type(None), str}:
      import json  # It takes longer to import than to write a few items.

      if ''.join(item for item in items if type(item) is str).isascii():
        return b'j', json.dumps(items).encode()
    if len(items) > _MANY and kinds == {tuple}:
      code, data = _packed(list(chain.from_iterable(items)))
      if code:
        lengths = pack(f'<{len(items)}q', *map(len, items))
        return b'u', code + _SIZE.pack(len(lengths)) + lengths + data
  except (error, ValueError):  # Beyond 64 bits, or thousands of digits.
    return None, None
  return None, None


def _unpacked(code, data):
  if code == b'j':
    import json

    return list(json.loads(data))
  if code == b'i':
    end = 4 + _SIZE.unpack_from(data)[0]
    table = data[4:end].decode('utf-8', 'surrogatepass').split('\0')
    return list(map(table.__getitem__, data[end:]))
  if code == b'u':
    end = 5 + _SIZE.unpack_from(data, 1)[0]
    items = iter(_unpacked(data[:1], data[end:]))
    return [tuple(islice(items, n)) for n in _unpacked(b'q', data[5:end])]
  if code in (b'q', b'd') and len(data) % 8 == 0:
    return list(unpack_from(f'<{len(data) // 8}{code.decode()}', data))
  raise WireError('not a message: items of no known kind')


class _Reader:
  """One value on its way in."""

  def __init__(self, codec, data, known):
    self.codec = codec
    self.data = data
    self.at = 0
    self.containers = list(known)

  def read(self):
    tag = self.take(1)
    if tag in _CONSTANTS:
      return _CONSTANTS[tag]
    return _READERS[tag](self)

  def take(self, count):
    self.at += count
    if self.at > len(self.data):
      raise WireError('not a message: it breaks off')
    return self.data[self.at - count : self.at]

  def size(self):
    return _SIZE.unpack(self.take(4))[0]

  def sized(self):
    return self.take(self.size())

  def text(self):
    return self.sized().decode('utf-8', 'surrogatepass')

  def items(self):
    code, count = self.take(1), self.size()
    if code != b'v':
      return _unpacked(code, self.take(count))
    if count > len(self.data) - self.at:
      raise WireError('not a message: it counts more than it holds')
    return [self.read() for _ in range(count)]

  def container(self):
    number = self.take(1)[0]
    place, (_, make) = _PLACES[number], _MAKERS[number]
    value = make(named(place), self.read())
    self.containers.append(value)
    plain = isinstance(value, bytearray)
    refill(value, self.sized() if plain else self.items())
    return value

  def view(self):
    number = self.size()
    container = self.read()
    self.codec.see(number, container)
    return container

  def kind(self):
    place = tuple(self.text().split('.'))
    return KINDS[place][1](named(place), self.read())


_WRITERS = {
  int: _Writer.integer,
  float: lambda w, v: w.out.extend(b'f' + _FLOAT.pack(float.__float__(v))),
  complex: lambda w, v: w.out.extend(b'c' + _COMPLEX.pack(v.real, v.imag)),
  str: lambda w, v: w.text(b's', v),
  bytes: lambda w, v: w.sized(b'b', bytes(v)),
  frozenset: lambda w, v: w.items(b'z', list(frozenset.__iter__(v))),
}
_READERS = {
  b'i': lambda r: int.from_bytes(r.sized(), 'little', signed=True),
  b'f': lambda r: _FLOAT.unpack(r.take(8))[0],
  b'c': lambda r: complex(*_COMPLEX.unpack(r.take(16))),
  b's': _Reader.text,
  b'b': _Reader.sized,
  b'y': lambda r: TYPES[r.text()],
  b't': lambda r: tuple(r.items()),
  b'n': lambda r: Record(r.read(), r.items()),
  b'z': lambda r: frozenset(r.items()),
  b'm': _Reader.container,
  b'r': lambda r: r.containers[r.size()],
  b'k': _Reader.kind,
  b'h': lambda r: r.codec.resolve(r.read()),
  b'x': lambda r: r.codec.both(r.read(), r.read()),
  b'w': lambda r: r.codec.viewed(r.size()),
  b'W': _Reader.view,
}


def _is_data(kind):
  place = _place(kind)
  return kind in _WRITERS or place in _NUMBER_OF or place in KINDS


class Record(tuple):
  """What a named tuple crosses as: a tuple with its fields' names."""

  def __new__(cls, fields, values):
    record = super().__new__(cls, values)
    record._fields = fields
    return record

  def __getattr__(self, name):
    fields = vars(self).get('_fields', ())
    if name not in fields:
      raise AttributeError(name)
    return self[fields.index(name)]


def _write_tuple(writer, value):
  items = list(tuple.__iter__(value))
  fields = getattr(type(value), '_fields', None)
  if isinstance(value, Record):
    fields = value._fields
  if isinstance(fields, tuple) and len(fields) == len(items):
    writer.out += b'n'
    writer.write(tuple(str(name) for name in fields))
    writer.items(b'', items)
  else:
    writer.items(b't', items)


_WRITERS[tuple] = _write_tuple
