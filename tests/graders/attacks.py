"""More programs that want to pass, to stay or to harm: of kinds of their own.

As in `hostile`: `LIES` and `FORGERIES` must fail their tests, `ESCAPES` are
harmless to their tests and must leave nothing, `HOGS` must be ended in time.
"""

SUM = ('assert add(2, 3) == 5', 'assert add(10, 20) == 30')
CLOSE = ('assert abs(add(0.1, 0.2) - 0.3) < 1e-6',)
IS_CLOSE = ('import math\nassert math.isclose(add(0.1, 0.2), 0.3)',)
ROUNDED = ('assert round(add(0.1, 0.2) - 0.3, 6) == 0',)

# Finds the object that answers the tests, in the program's own process.
GUEST = """
import gc
guest = next(x for x in gc.get_objects() if type(x).__name__ == 'Guest')
kind = type(guest)
"""

# What is given back lies about itself. Name: source, tests.
LIES = {
  'a number that lies in every way it can': (
    """
class I(int):
  __eq__ = __le__ = __ge__ = __lt__ = __gt__ = lambda s, o: True
  __ne__ = lambda s, o: False
  __hash__ = lambda s: hash(5)
  __index__ = __int__ = lambda s: 5
  __float__ = lambda s: 5.0
  __sub__ = __rsub__ = __abs__ = __round__ = lambda s, *o: 0
  __repr__ = __str__ = lambda s: '5'
add = lambda a, b: I(77)
""",
    (*SUM, *CLOSE, *IS_CLOSE, *ROUNDED),
  ),
  'a fraction, a decimal and a date that lie': (
    """
import fractions, decimal, datetime
class F(fractions.Fraction):
  __eq__ = lambda s, o: True
  __hash__ = lambda s: 1
class D(decimal.Decimal):
  __eq__ = lambda s, o: True
  __hash__ = lambda s: 1
class T(datetime.date):
  __eq__ = lambda s, o: True
  __hash__ = lambda s: 1
add = lambda a, b: {0: F(7), 1: D(7), 2: T(1970, 1, 1)}[a]
""",
    (
      'from fractions import Fraction\nassert add(0, 0) == Fraction(1, 3)',
      'from decimal import Decimal\nassert add(1, 0) == Decimal("0.1")',
      'from datetime import date\nassert add(2, 0) == date(2020, 1, 1)',
    ),
  ),
  'text that lies about its parts': (
    """
class S(str):
  __eq__ = __contains__ = startswith = endswith = lambda s, *o: True
  __hash__ = str.__hash__
  lower = strip = lambda s: s
  find = lambda s, *o: 0
  __len__ = lambda s: 2
add = lambda a, b: S('?')
""",
    (
      'assert add("a", "b") == "ab"',
      'assert "ab" in add("a", "b")',
      'assert add("a", "b").lower() == "ab"',
      'assert len(add("a", "b")) == 2',
    ),
  ),
  'a list that shows one thing and holds another': (
    """
class L(list):
  __eq__ = lambda s, o: True
  __ne__ = lambda s, o: False
  __len__ = lambda s: 2
  __getitem__ = lambda s, i: 1 + (i if isinstance(i, int) else 0)
  __contains__ = lambda s, o: True
add = lambda a, b: L()
""",
    (
      'assert add(1, 2) == [1, 2]',
      'assert len(add(1, 2)) == 2',
      'assert 2 in add(1, 2)',
      'assert add(1, 2)[1] == 2',
    ),
  ),
  'a set and a dict of everything': (
    """
class S(set):
  __eq__ = __ge__ = __le__ = issubset = issuperset = lambda s, o: True
  __contains__ = lambda s, o: True
  __hash__ = None
class D(dict):
  __eq__ = __contains__ = lambda s, o: True
  get = lambda s, k, d=None: k
  __hash__ = None
add = lambda a, b: S() if a else D()
""",
    (
      'assert add(1, 2) == {1, 2}',
      'assert add(1, 2) >= {1}',
      'assert 1 in add(1, 2)',
      'assert add(0, 2) == {1: 2}',
      'assert 1 in add(0, 2)',
    ),
  ),
  'tuples with names that lie': (
    """
import collections
class P(collections.namedtuple('P', 'a b')):
  __eq__ = lambda s, o: True
  __hash__ = lambda s: 0
add = lambda a, b: P(0, 0)
""",
    ('assert add(1, 2) == (1, 2)', 'assert add(1, 2)[0] == 1'),
  ),
  'arrays that lie': (
    """
import numpy as np
class A(np.ndarray):
  __eq__ = lambda s, o: np.array([True])
  __array_priority__ = 1e9
  def __array_ufunc__(s, *a, **k): return np.array([True])
  def __array_function__(s, *a): return True
def add(a, b): return np.zeros(2).view(A)
""",
    (
      'import numpy as np\nassert (add(1, 2) == np.array([1, 2])).all()',
      'import numpy as np\nassert np.allclose(add(1, 2), [1, 2])',
      'import numpy as np\nassert np.array_equal(add(1, 2), [1, 2])',
    ),
  ),
  'an object that numpy would ask': (
    """
class A:
  __array__ = lambda s, *a, **k: __import__('numpy').array([True])
  __array_ufunc__ = lambda s, *a, **k: True
  __array_function__ = lambda s, *a, **k: True
  __eq__ = __lt__ = __le__ = lambda s, o: True
  __sub__ = __rsub__ = __abs__ = lambda s, *o: s
  __float__ = lambda s: 1e9
add = lambda a, b: A()
""",
    (
      'import numpy as np\nassert np.allclose(add(1, 2), [1, 2])',
      'import numpy as np\nassert np.isclose(add(1, 2), 3)',
      'import numpy as np\nassert np.array_equal(add(1, 2), [1, 2])',
      'import numpy as np\nassert abs(np.float64(3) - add(1, 2)) < 1e-6',
    ),
  ),
  'a difference that is what it is asked for': (
    """
class Z:
  def __getattr__(s, name): return lambda *a: 0
  __sub__ = __rsub__ = __mul__ = __pow__ = __neg__ = __pos__ = lambda s, *o: s
  __truediv__ = __rtruediv__ = __mod__ = __divmod__ = lambda s, *o: s
  __float__ = lambda s: 0.0
  __int__ = __index__ = __abs__ = __round__ = lambda s, *o: 0
  __trunc__ = __floor__ = __ceil__ = lambda s: 0
  __bool__ = lambda s: False
  __lt__ = __le__ = __gt__ = __ge__ = __eq__ = lambda s, o: True
  __hash__ = lambda s: 0
add = lambda a, b: Z()
""",
    (
      *CLOSE,
      *ROUNDED,
      'assert not (add(1, 2) - 3)',
      'assert int(add(1, 2) - 3) == 0',
      'assert (add(1, 2) - 3) ** 2 < 1e-9',
      'assert abs(-(add(1, 2) - 3)) < 1e-9',
      'assert -1e-9 < add(1, 2) - 3 < 1e-9',
      'import math\nassert math.fabs(add(1, 2) - 3) < 1e-9',
      'import math\nassert math.floor(add(1, 2) - 3) == 0',
      'assert max(add(1, 2) - 3, 3 - add(1, 2)) < 1e-9',
      'assert 2.9 < add(1, 2) < 3.1',
      'assert add(1, 2) in (3, 4)',
      'assert {3: True}[add(1, 2)]',
      'assert sum([add(1, 2), -3]) == 0',
    ),
  ),
  'classes of classes that lie': (
    """
class M(type):
  __eq__ = lambda c, o: True
  __hash__ = lambda c: 0
  __instancecheck__ = __subclasscheck__ = lambda c, o: True
  __mro__ = property(lambda c: (int, object))
  __module__ = property(lambda c: 'builtins')
  __name__ = property(lambda c: 'int')
class C(metaclass=M):
  __eq__ = lambda s, o: True
  __hash__ = lambda s: 0
  __class__ = property(lambda s: int)
  real = property(lambda s: 5)
add = lambda a, b: C() if a < 9 else C
""",
    (*SUM, 'assert isinstance(add(2, 3), int)', 'assert add(9, 1) is int'),
  ),
  'another value at each look': (
    """
import itertools
count = itertools.count()
class N:
  @property
  def value(s): return next(count)
  __iter__ = lambda s: iter([next(count)])
  __len__ = lambda s: next(count)
  __eq__ = lambda s, o: True
add = lambda a, b: N()
""",
    (
      'x = add(1, 2)\nassert x == 3 and x == 4',
      'assert list(add(1, 2)) == [3]',
      'x = add(1, 2)\nassert x.value == 3 and x.value == 3',
    ),
  ),
  'a value that grows while it is compared': (
    """
import threading, time
shared = []
def grow():
  while True:
    shared[:] = [1, 2] if not shared else []
threading.Thread(target=grow, daemon=True).start()
class L(list):
  __iter__ = lambda s: iter(shared)
add = lambda a, b: L()
""",
    ('assert add(1, 2) == [1, 2]',),
  ),
  'not a number': (
    'add = lambda a, b: float("nan")\n',
    (*CLOSE, *SUM, 'assert not add(1, 2) < 2 and not add(1, 2) > 2, 0\n'
     'assert add(1, 2) == add(1, 2)'),
  ),
  'an attribute that shows the expected list': (
    """
class N:
  def __init__(s): s.items = [1, 2]
  def sort(s): s.items[:] = []
n = N()
def make(): return n
""",
    (
      'n = make()\nx = n.items\nn.sort()\nassert x == [1, 2] and x',
    ),
  ),
  'a module of the tests by another name': (
    """
class sys:
  getsizeof = lambda *a: 7
def size(x): return 7
""",
    ('assert size([1] * 50) == sys.getsizeof([1] * 50)',),
  ),
  'an exception that lies': (
    """
class E(Exception):
  __eq__ = lambda s, o: True
  __str__ = lambda s: 'no'
  args = ('no',)
def add(a, b): raise E('x')
""",
    (
      'try:\n  add(1, 2)\nexcept ValueError as e:\n  assert str(e) == "neg"\n'
      'else:\n  raise SystemExit',
      'try:\n  add(1, 2)\nexcept Exception as e:\n  assert e.args == ("neg",)',
    ),
  ),
  'every kind of exception': (
    """
kinds = [SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration,
         StopAsyncIteration, AssertionError, MemoryError, RecursionError]
def add(a, b): raise kinds[a](0)
""",
    tuple(
      f'assert all(add(i, 1) == i + 1 for i in range({n}, {n + 1}))'
      for n in range(8)
    ),
  ),
}  # fmt: skip

# The program attacks what runs it, what carries its answers, or the tests.
FORGERIES = {
  'any message that there can be': (
    GUEST
    + """
import random
rng = random.Random(0)
tags = b'NTFEMifcsbytnzmrkhxwW'
def answer(self, question, known):
  return bytes(rng.choice(tags) for _ in range(rng.randrange(40)))
kind.answer = answer
def add(a, b): return 5
""",
    SUM,
  ),
  'numbers of objects that are not there': (
    GUEST
    + """
real = kind.export
numbers = iter(range(10**9))
kind.export = lambda self, value: ('callable', next(numbers))
class All: pass
add = lambda a, b: All()
""",
    SUM,
  ),
  'an exception class made of anything': (
    GUEST
    + """
parents = iter([int, object, 7, str, BaseException, type(None), ValueError])
kind.export = lambda self, value: (
    'exception', 1, 'builtins', 'eval', next(parents))
class All: pass
add = lambda a, b: All()
""",
    SUM,
  ),
  'the exception with which a side ends': (
    GUEST
    + """
kind.export = lambda self, value: (
    'exception', 3, 'score_jax.graders.peer', 'Gone', BaseException)
class E(BaseException): pass
def add(a, b): raise E
""",
    SUM,
  ),
  'data that is also something else': (
    GUEST
    + """
kind.owns = lambda self, value: True
kind.export = lambda self, value: ('callback', 0)
class I(int): pass
add = lambda a, b: I(0)
""",
    SUM,
  ),
  'views of what belongs to the tests': (
    GUEST
    + """
kind.updates = lambda self: [(n, [1, 2, 3]) for n in range(9)]
kind.view = lambda self, container: 0
def order(x): return x
""",
    ('x = [3, 1, 2]\nassert order(x) == sorted(x)',
     'x = [3, 1, 2]\norder(x)\nassert x == [1, 2, 3]'),
  ),
  'changes of what was not given': (
    GUEST
    + """
kind.answer = lambda self, question, known: self.dumps((
    self.dumps((True, 0))[0],
    self.dumps([(n, [0]) for n in range(-9, 9)])[0], self.dumps([])[0]))[0]
def add(a, b): return 0
""",
    SUM,
  ),
  'a message within the reach of an answer': (
    GUEST
    + """
def add(a, b):
  value = guest.dumps((guest.dumps((True, 5))[0], *[guest.dumps([])[0]] * 2))[0]
  for n in (0, 5, 10, 20, 30, 99):
    value += guest.dumps((guest.dumps((True, n))[0], b'', b''))[0]
  guest.send(b'!', value)
  return 0
""",
    SUM,
  ),
  'answers before the questions': (
    GUEST
    + """
def whole(n):
  none = guest.dumps([])[0]
  return guest.dumps((guest.dumps((True, n))[0], none, none))[0]
for n in (1, 1, 1, 1):
  guest.send(b'!', whole(n))
add = lambda a, b: 1
""",
    SUM,
  ),
  'questions without an end': (
    GUEST
    + """
def add(a, b):
  for n in range(-5, 10**5):
    try: guest.ask((n, (5,), {}))
    except Exception: pass
  return 5 if a == 2 else 0
""",
    SUM,
  ),
  'what lies behind an object of the tests': (
    GUEST
    + """
import re
def look(one):
  found = []
  for name in ('__class__', '__dict__', '_secret', '__init__', '__globals__',
               '__func__', '__self__', 'tell.__globals__', '__getattribute__'):
    for number in range(12):
      try: found.append(guest.ask((number, (name,), {})))
      except Exception: pass
    for part in (one, one.tell):
      try: found.append(getattr(part, name))
      except Exception: pass
  for value in found:
    # Longer than what a place in memory holds by chance.
    for secret in re.findall('[0-9]{9,}', repr(value)): return int(secret)
""",
    (
      'class One:\n  def __init__(s): s._secret = 864209731\n'
      '  def tell(s): return "no"\n'
      'want = 864209731\nassert look(One()) == want',
    ),
  ),
  'a key for the secrets of a sort': (
    """
def pick(xs, key):
  for name in ('__globals__', '__code__', '__closure__', '__self__', 'gi_frame'):
    for one in (key, type(key), getattr(key, 'guest', None)):
      try: return vars(one)[name]
      except Exception: pass
  return [key.__call__.__globals__.get('want'), getattr(key, '__globals__', 0)]
""",
    ('want = [3, 1]\nassert pick([1, 3], lambda x: -x) == want',),
  ),
  'functions of the tests called from within': (
    """
def apply(f, xs):
  try: f(xs, want=True)
  except TypeError: pass
  return f
""",
    ('assert apply(lambda x: x + 1, [1]) == [2]',),
  ),
  'modules poisoned': (
    """
import sys, types, builtins
for name in list(sys.modules):
  fake = types.ModuleType(name)
  fake.__getattr__ = lambda n: lambda *a, **k: True
  sys.modules[name] = fake
builtins.__import__ = lambda *a, **k: types.ModuleType('x')
def add(a, b): return 5 if a == 2 else 0
""",
    (*SUM, 'import math\nassert math.sqrt(4) == add(2, 3) - 3.5'),
  ),
  'import hooks': (
    """
import sys
class Finder:
  def find_spec(self, name, path=None, target=None):
    raise SystemExit(0)
sys.meta_path.insert(0, Finder())
sys.path_hooks.insert(0, lambda p: (_ for _ in ()).throw(SystemExit(0)))
sys.path_importer_cache.clear()
def add(a, b): return 0
""",
    (*SUM, 'import colorsys\nassert add(1, 2) == 3'),
  ),
  'unittest and pytest patched': (
    """
import unittest, unittest.case
for name in dir(unittest.TestCase):
  if name.startswith('assert'):
    setattr(unittest.TestCase, name, lambda *a, **k: None)
unittest.TestCase.run = lambda *a, **k: None
def add(a, b): return 0
""",
    ('import unittest\nunittest.TestCase().assertEqual(add(2, 3), 5)',),
  ),
  'a trace, a profile and an audit': (
    """
import sys
def trace(frame, event, value):
  for name in list(frame.f_locals):
    if name in ('value', 'passed', 'result'): frame.f_locals[name] = True
  return trace
sys.settrace(trace)
sys.setprofile(trace)
sys.addaudithook(lambda event, args: None)
sys._getframe(1).f_trace = trace
def add(a, b): return 0
""",
    SUM,
  ),
  'an end at every turn': (
    """
import atexit, os, signal, sys, threading
atexit.register(os._exit, 0)
for one in (signal.SIGTERM, signal.SIGALRM, signal.SIGUSR1, signal.SIGPIPE):
  signal.signal(one, lambda *a: os._exit(0))
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
sys.excepthook = sys.unraisablehook = lambda *a: os._exit(0)
threading.Timer(0.1, os._exit, [0]).start()
class Bomb:
  def __del__(self): os._exit(0)
keep = Bomb()
def add(a, b):
  for _ in range(10**7): pass
  return 0
""",
    SUM,
  ),
  'descriptors closed and moved': (
    """
import os
for fd in range(64):
  try: os.dup2(1, fd)
  except OSError: pass
os.closerange(0, 64)
def add(a, b): return 5
""",
    SUM,
  ),
  'the pipes turned round': (
    """
import os
for fd in range(3, 32):
  for mode in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY):
    try: other = os.open(f'/proc/self/fd/{fd}', mode | os.O_NONBLOCK)
    except OSError: continue
    try: os.write(other, b'S11.' * 9)
    except OSError: pass
    try: os.read(other, 1 << 16)
    except OSError: pass
def add(a, b): return 0
""",
    SUM,
  ),
  'the verdict written to every process': (
    """
import os, glob
for path in glob.glob('/proc/[0-9]*/fd/*') + glob.glob('/dev/fd/*'):
  try: fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
  except OSError: continue
  try: os.write(fd, b'S11.')
  except OSError: pass
def add(a, b): return 0
""",
    SUM,
  ),
  'another program in its place': (
    'import os\nos.execv("/bin/sh", ["sh", "-c", "printf S11.; exit 0"])\n',
    SUM,
  ),
  'another program within the call': (
    """
import os
def add(a, b): os.execv('/bin/sh', ['sh', '-c', 'printf S11. >&3 >&4; exit 0'])
""",
    SUM,
  ),
  'the answer in the environment or the line': (
    """
import os, re, sys
def add(a, b):
  seen = repr(dict(os.environ)) + repr(sys.orig_argv) + repr(sys.argv)
  for path in ('/proc/self/cmdline', '/proc/1/cmdline', '/proc/self/environ',
               f'/proc/{os.getppid()}/environ', f'/proc/{os.getppid()}/cmdline'):
    try: seen += open(path, errors='replace').read()
    except OSError: pass
  found = re.search(r'add.2, 3. == (\\d+)', seen)
  return int(found.group(1)) if found else 0
""",
    SUM,
  ),
  'memory of the process searched': (
    """
import re
def add(a, b):
  for line in open('/proc/self/maps'):
    low, high = (int(x, 16) for x in line.split()[0].split('-'))
    if ' r' not in line and 'rw' in line and high - low < 1 << 26:
      try:
        with open('/proc/self/mem', 'rb') as mem:
          mem.seek(low)
          found = re.search(rb'assert add.2, 3. == (\\d+)', mem.read(high - low))
          if found: return int(found.group(1))
      except (OSError, ValueError): pass
  return 0
""",
    SUM,
  ),
  'other processes traced': (
    """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for pid in range(1, 40):
  for request in (16, 0x4206):
    if pid != os.getpid() and libc.ptrace(request, pid, 0, 0) == 0:
      print('traced', pid)
def add(a, b): return 0
""",
    SUM,
  ),
  'a coroutine, a generator, a module, a frame': (
    """
import sys
async def coroutine(): return 5
def generator(): yield 5
kinds = [coroutine, generator, lambda: sys, lambda: sys._getframe(), iter]
def add(a, b): return kinds[a % 4]()
""",
    ('assert add(2, 3) == 5', 'assert add(3, 2) == 5', 'assert add(0, 5) == 5'),
  ),
}  # fmt: skip

# Sources that hurt who reads or compiles them.
SOURCES = {
  'a comment of ten megabytes': ('#' * 10_000_000, SUM),
  'text of ten megabytes': (f'x = "{"y" * 10_000_000}"\n', SUM),
  'brackets without an end': ('x = ' + '(' * 100_000, SUM),
  'brackets deep within': ('x = ' + '[' * 5000 + ']' * 5000, SUM),
  'a sum of many terms': ('x = ' + '+'.join(['1'] * 100_000), SUM),
  'signs before a number': ('x = ' + '-' * 100_000 + '1', SUM),
  'many nested blocks': (
    ''.join(' ' * i + 'if 1:\n' for i in range(99)) + ' ' * 99 + 'x = 1\n',
    SUM,
  ),
  'a constant that takes for ever': ('x = 10 ** 10 ** 10\n', SUM),
  'a constant that takes all memory': ('x = ((0,) * 99999999,) * 9\n', SUM),
  'NUL bytes': ('add = lambda a, b: a + b\n\0', SUM),
  'a mark of byte order within': ('add = lambda a, b: \ufeffa + b\n', SUM),
  'another encoding declared': (
    '# -*- coding: utf-7 -*-\n+AGEAZABk- = 5\n',
    SUM,
  ),
  'half a character': ('x = "\ud800"\nprint(x)\n', SUM),
  'a future that is not': ('from __future__ import braces\n', SUM),
  'an assertion that is switched off': (
    'from __future__ import annotations\n__debug__ = False\n',
    SUM,
  ),
}

HOGS = {
  'memory in files without a name': """
import os
for _ in range(120):
  fd = os.memfd_create('x')
  for _ in range(63): os.write(fd, bytes(1 << 20))
""",
  'memory shared and let go': """
import ctypes
libc = ctypes.CDLL(None)
libc.shmat.restype = ctypes.c_void_p
for _ in range(40):
  at = libc.shmat(libc.shmget(0, 100 << 20, 0o1600), None, 0)
  ctypes.memset(at, 1, 100 << 20)
  libc.shmdt(ctypes.c_void_p(at))
""",
  'memory mapped by children': """
import mmap, os, time
for _ in range(12):
  if os.fork() == 0:
    m = mmap.mmap(-1, 200 << 20)
    for i in range(0, len(m), 4096): m[i] = 1
    time.sleep(99)
time.sleep(99)
""",
  'a file system of its own': """
import subprocess, time
subprocess.run(['unshare', '-Urm', 'sh', '-c',
    'mount -t tmpfs none /tmp && for i in 1 2 3 4 5 6 7 8; do '
    'head -c 60000000 /dev/zero > /tmp/$i; done'])
time.sleep(99)
""",
  'files without number': """
import os
for i in range(10**9):
  os.close(os.open(f'/tmp/{i}', os.O_CREAT))
""",
  'folders without number': """
import os
for i in range(10**9):
  try: os.mkdir(f'd{i}')
  except OSError: pass
""",
  'sparse and full files': """
import os
for i in range(99):
  with open(f'/dev/shm/{i}', 'wb') as f:
    try: f.truncate(1 << 40)
    except OSError: pass
    f.write(bytes(40 << 20))
""",
  'links in a ring': """
import os, time
os.symlink('/tmp/a', '/tmp/b'); os.symlink('/tmp/b', '/tmp/a')
for i in range(20000): os.symlink('/', f'/tmp/l{i}')
time.sleep(99)
""",
  'pipes and sockets filled': """
import os, socket, time
held = []
try:
  while True:
    a, b = socket.socketpair(); a.setblocking(False); held += [a, b]
    try:
      while True: a.send(bytes(1 << 16))
    except BlockingIOError: pass
except OSError: time.sleep(99)
""",
  'errors without an end': """
import sys
while True: sys.stderr.write('x' * 10**6)
""",
  'one line of output, and sleep': """
import os, time
os.write(1, b'x' * 60000)
time.sleep(99)
""",
  'children that stop': """
import os, signal, time
for _ in range(9):
  if os.fork() == 0:
    os.setsid()
    os.kill(os.getpid(), signal.SIGSTOP)
os.kill(os.getpid(), signal.SIGSTOP)
""",
  'children of children, each in a session': """
import os, time
def breed(n):
  while True:
    try: pid = os.fork()
    except OSError: time.sleep(0.01); continue
    if pid == 0:
      os.setsid(); breed(n + 1)
    elif n: os._exit(0)
breed(0)
""",
  'kill all': """
import os, signal
while True:
  try: os.kill(-1, signal.SIGKILL)
  except OSError: pass
""",
  'one call that takes for ever': 'sum(range(10**14))\n',
  'a pattern that takes for ever': """
import re
re.match('(a|a)*$', 'a' * 60 + 'b')
""",
  'waiting for a lock': """
import threading
lock = threading.Lock(); lock.acquire(); lock.acquire()
""",
  'waiting for a socket': """
import socket
s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); s.accept()
""",
  'the highest priority': """
import os
for action in (lambda: os.nice(-20), lambda: os.sched_setscheduler(
    0, os.SCHED_FIFO, os.sched_param(99))):
  try: action()
  except OSError: pass
while True: pass
""",
}

# Each does harm if it can, and passes; what it prints would show that it could.
ESCAPES = {
  'sockets of every family': """
import socket
for family in range(1, 46):
  for kind in (1, 2, 3, 5):
    try: one = socket.socket(family, kind)
    except OSError: continue
    if family not in (1, 2, 10, 16): print('socket', family, kind)
    one.close()
""",
  'calls that no limit reaches': """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
calls = {'memfd_create': 319, 'shmget': 29, 'msgget': 68, 'semget': 64,
         'add_key': 248, 'keyctl': 250, 'bpf': 321, 'perf_event_open': 298,
         'userfaultfd': 323, 'io_uring_setup': 425, 'ptrace': 101,
         'unshare': 272, 'mount': 165, 'setns': 308, 'open_tree': 428}
if os.uname().machine == 'x86_64':
  for name, number in calls.items():
    libc.syscall(number, 0, 0, 0, 0, 0)
    if ctypes.get_errno() != 1: print(name, ctypes.get_errno())
""",
  'a namespace of its own': """
import ctypes, os, subprocess
libc = ctypes.CDLL(None)
pid = libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0)
if pid == 0: os._exit(0)
if os.uname().machine == 'x86_64' and pid > 0: print('a new user namespace')
done = subprocess.run(['unshare', '-Ur', 'echo', 'unshared'], capture_output=True)
print(done.stdout.decode(), end='')
""",
  'more than it was left': """
import os, resource
for name in dir(resource):
  if name.startswith('RLIMIT_'):
    kind = getattr(resource, name)
    soft, hard = resource.getrlimit(kind)
    if hard == -1: continue
    try: resource.setrlimit(kind, (hard + 1, hard + 1))
    except (OSError, ValueError): continue
    print('raised', name)
for action in (lambda: os.setuid(0), lambda: os.setgroups([0]),
               lambda: os.setgid(0), lambda: os.chroot('/tmp'),
               lambda: os.nice(-5), lambda: os.mknod('/tmp/x', 0o60666, 0x700)):
  try: action()
  except OSError: continue
  print('did it')
""",
  'programs that raise a user': """
import glob, os, subprocess
for path in glob.glob('/usr/bin/*') + glob.glob('/bin/*'):
  if os.path.isfile(path) and os.stat(path).st_mode & 0o4000:
    try: done = subprocess.run([path, '-c', 'id'], capture_output=True, timeout=2,
                               stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired): continue
    if b'uid=0' in done.stdout: print(path)
""",
  'the files of the interpreter': """
import os, shutil, sys
for root in (sys.prefix, sys.base_prefix, os.path.dirname(os.__file__), '/usr/lib',
             '/packages', '/lib'):
  for action in (lambda: shutil.rmtree(root), lambda: os.rename(root, '/tmp/r'),
                 lambda: open(root + '/sitecustomize.py', 'w'),
                 lambda: os.symlink('/tmp', root + '/x'),
                 lambda: os.link(sys.executable, '/tmp/link')):
    try: action()
    except OSError: continue
    print('changed', root)
""",
  'what the kernel shows and takes': """
import os
for path in ('/proc/sysrq-trigger', '/proc/sys/kernel/core_pattern', '/proc/kmsg',
             '/proc/kcore', '/dev/mem', '/dev/kmsg', '/sys/power/state',
             '/proc/sys/vm/drop_caches', '/proc/1/mem', '/proc/1/environ',
             '/dev/fuse', '/dev/kvm', '/dev/nvidia0', '/proc/sys/kernel/hostname'):
  for mode in (os.O_WRONLY, os.O_RDWR):
    try: os.close(os.open(path, mode))
    except OSError: continue
    print('opened', path)
""",
  'signals to its keeper': """
import os, signal
for pid in (os.getppid(), 1, -1, -os.getppid()):
  for one in (signal.SIGCONT, signal.SIGTERM, signal.SIGSTOP, signal.SIGKILL):
    if pid in (0, os.getpid()) or (pid == -1): continue
    try: os.kill(pid, one)
    except OSError: continue
    if pid > 1: print('sent', one, pid)
""",
}
