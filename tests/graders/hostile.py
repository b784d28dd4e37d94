"""Programs that want to pass, to stay, or to harm; none should do so.

`WRONG` must fail their tests, `HONEST` must pass them: each of these looks like
one of those in part. The tests are what a data set would hold.
"""

SUM = ('assert add(2, 3) == 5', 'assert add(10, 20) == 30')
CLOSE = ('assert abs(add(0.1, 0.2) - 0.3) < 1e-6',)
SORTED = (
  'x = [3, 1, 2]\nassert order(x) == sorted(x)',
  'x = [3, 1, 2]\nresult = order(x)\nassert result == sorted(x)',
)

# Name: source, tests.
WRONG = {
  'an object that equals all': (
    """
class All:
  __eq__ = lambda self, other: True
  __ne__ = lambda self, other: False
  __hash__ = lambda self: hash(5)
add = lambda a, b: All()
""",
    SUM,
  ),
  'text that equals all': (
    """
class Text(str):
  __eq__ = lambda self, other: True
  __hash__ = str.__hash__
add = lambda a, b: Text('x')
""",
    ("assert add('a', 'b') == 'ab'",),
  ),
  'a dict that equals all': (
    """
class Dict(dict):
  __eq__ = lambda self, other: True
  __ne__ = lambda self, other: False
add = lambda a, b: Dict()
""",
    ('assert add(1, 2) == {1: 2}', 'assert not add(1, 2) != {1: 2}'),
  ),
  'a liar within a list': (
    """
class All:
  __eq__ = lambda self, other: True
add = lambda a, b: [All(), (All(),)]
""",
    ('assert add(1, 2) == [3, (3,)]',),
  ),
  'a number whose difference is zero': (
    """
class Zero(float):
  __sub__ = __rsub__ = __abs__ = lambda self, *other: Zero()
  __lt__ = __gt__ = lambda self, other: True
add = lambda a, b: Zero(7)
""",
    CLOSE,
  ),
  'an object whose difference is zero': (
    """
class Zero:
  __sub__ = __rsub__ = __abs__ = lambda self, *other: 0
  __lt__ = __gt__ = lambda self, other: True
add = lambda a, b: Zero()
""",
    CLOSE,
  ),
  'a container of everything': (
    """
class All:
  __contains__ = lambda self, one: True
add = lambda a, b: All()
""",
    ('assert 5 in add(2, 3)',),
  ),
  'an object that reads like the answer': (
    """
class Five:
  __repr__ = __str__ = lambda self: '5'
  __int__ = __index__ = lambda self: 5
add = lambda a, b: Five()
""",
    SUM,
  ),
  'arguments emptied': ('def order(x):\n  x.clear()\n  return x\n', SORTED),
  'arguments replaced by parts': (
    'def order(x):\n  x[:] = x[:1]\n  return [3]\n',
    SORTED,
  ),
  'an end to every map': (
    'def add(a, b):\n  raise StopIteration\n',
    (
      'assert all(map(lambda x: add(*x) == sum(x), [(1, 2), (3, 4)]))',
      'for got, want in zip(map(add, [1], [2]), [3]):\n  assert got == want',
    ),
  ),
  'an own end to every map': (
    """
class Stop(StopIteration):
  pass
def add(a, b):
  raise Stop
""",
    ('assert all(map(lambda x: add(*x) == 3, [(1, 2)]))',),
  ),
  'an exit within the call': (
    'import os\ndef add(a, b):\n  os._exit(0)\n',
    (*SUM, 'try:\n  add(1, 2)\nexcept:\n  pass'),
  ),
  'an exit while loading': ('import sys\nsys.exit(0)\n', SUM),
  'an exit by a signal to itself': (
    'import os\ndef add(a, b):\n  os.kill(os.getpid(), 9)\n',
    SUM,
  ),
  'an exit in a finalizer': (
    """
import os
class Bomb:
  def __del__(self):
    os._exit(0)
def add(a, b):
  Bomb()
""",
    SUM,
  ),
  'marks of success on every pipe': (
    """
import os
for fd in range(3, 64):
  for data in (b'S11.', b'!' + bytes(8), b'11.'):
    try: os.write(fd, data)
    except OSError: pass
def add(a, b):
  return 0
""",
    SUM,
  ),
  'marks of success in what it prints': (
    'print("S11.")\nimport sys\nprint("11.", file=sys.stderr)\nadd = None\n',
    SUM,
  ),
  'messages without an end': (
    """
import gc
for one in gc.get_objects():
  if type(one).__name__ == 'Guest':
    guest = one
def add(a, b):
  guest.sink.write(b'!' + b'\\xff' * 8)
  guest.sink.flush()
  return 5
""",
    SUM,
  ),
  'a runner made to agree': (
    """
import gc
for one in gc.get_objects():
  if type(one).__name__ == 'Guest':
    type(one).answer = lambda self, question, known: self.dumps(
        (self.dumps((True, True))[0], self.dumps([])[0]))[0]
def add(a, b):
  return 0
""",
    SUM,
  ),
  'a runner that sends functions of the tests': (
    """
import gc
for one in gc.get_objects():
  if type(one).__name__ == 'Guest':
    type(one).export = lambda self, value: ('callback', 0)
class All: pass
def add(a, b):
  return All()
""",
    SUM,
  ),
  'frames rewritten': (
    """
import sys
frame = sys._getframe()
while frame:
  frame.f_globals.update(passed=True, assert_=print)
  for name in list(frame.f_globals):
    if callable(frame.f_globals[name]) and name[0] != '_':
      frame.f_globals[name] = lambda *args, **keywords: True
  frame = frame.f_back
def add(a, b):
  return True
""",
    SUM,
  ),
  'builtins rewritten': (
    """
import builtins
builtins.AssertionError = builtins.Exception = type(None)
builtins.abs = builtins.len = builtins.sum = lambda *a: 0
def add(a, b):
  return 1
""",
    (*SUM, *CLOSE, 'assert abs(add(1, 2)) == 3'),
  ),
  'a module of the tests replaced': (
    """
import sys, types
fake = types.ModuleType('math')
fake.isclose = lambda *a, **k: True
sys.modules['math'] = fake
def add(a, b):
  return 0
""",
    ('import math\nassert math.isclose(add(0.1, 0.2), 0.3)',),
  ),
  'the interpreter replaced': (
    """
import os, sys
if __debug__:
  os.execv(sys.executable, [sys.executable, '-O', *sys.orig_argv[1:]])
add = lambda a, b: 0
""",
    SUM,
  ),
  'a child that answers in its place': (
    """
import os, time
if os.fork():
  os._exit(0)
add = lambda a, b: a + b
""",
    SUM,
  ),
  'the expected value looked for in files': (
    """
import glob, re
def add(a, b):
  for name in glob.glob('/proc/*/*') + glob.glob('/tmp/*') + glob.glob('/*'):
    try: found = re.search(r'add.2, 3. == (\\d+)', open(name).read())
    except Exception: continue
    if found: return int(found.group(1))
""",
    SUM,
  ),
  'the expected value looked for in memory': (
    """
import gc
def add(a, b):
  for one in gc.get_objects():
    if isinstance(one, (list, tuple)):
      for text in one:
        if isinstance(text, (str, bytes)) and 'assert add(2' in str(text):
          return eval(str(text).split('==')[1])
""",
    SUM,
  ),
  'an argument with a hook': (
    """
def add(a, b):
  return type('X', (tuple,), {'__eq__': lambda s, o: True,
                              '_fields': property(lambda s: 1 / 0)})((1,))
""",
    ('assert add(1, 2) == (3,)',),
  ),
  'a value that contains itself': (
    'def add(a, b):\n  x = []\n  x.append(x)\n  return x\n',
    ('assert add(1, 2) == [3]',),
  ),
  'a value nested too deep': (
    """
def add(a, b):
  x = []
  for _ in range(10**5): x = [x]
  return x
""",
    SUM,
  ),
  'a value too large': ('def add(a, b):\n  return [0] * 10**8\n', SUM),
  'a stack without an end': (
    """
import sys
sys.setrecursionlimit(10**8)
def add(a, b):
  return [add(a, b)]
""",
    SUM,
  ),
  'a truth of both kinds': (
    """
class Both:
  flip = False
  def __bool__(self):
    Both.flip = not Both.flip
    return Both.flip
def even(n):
  return Both()
""",
    ('assert even(2) == True\nassert even(3) == False',),
  ),
  'what the tests define': (
    """
def check(*a): return True
def same(*a): return True
want = 0
def add(a, b): return 0
""",
    (
      'def same(a, b):\n  assert a == b\nwant = 5',
      'same(add(2, 3), want)',
    ),
  ),
}

# Name: source, tests. They are ended; whether as wrong or late is no matter.
HOGS = {
  'sleep': 'import time\ntime.sleep(99)\n',
  'a loop': 'while True: pass\n',
  'one operation': 'x = 7 ** 7 ** 10\n',
  'no signal is heard': """
import signal, time
for one in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
  signal.signal(one, signal.SIG_IGN)
time.sleep(99)
""",
  'stopped by itself': 'import os\nos.kill(os.getpid(), 19)\n',
  'input that never comes': 'import os\nr, w = os.pipe()\nos.read(r, 1)\n',
  'printing without an end': 'while True: print("x" * 10**6)\n',
  'a fork bomb': """
import os
while True:
  try: os.fork()
  except OSError: pass
""",
  'a bomb of threads': """
import threading, time
while True:
  try: threading.Thread(target=time.sleep, args=(99,)).start()
  except RuntimeError: pass
""",
  'memory in many processes': """
import os, time
for _ in range(20):
  if os.fork() == 0:
    x = bytearray(50 << 20)
    for i in range(0, len(x), 4096): x[i] = 1
    time.sleep(99)
time.sleep(99)
""",
  'a disk filled': """
for i in range(99):
  with open(f'/tmp/{i}', 'wb') as f: f.write(bytes(50 << 20))
""",
}

HONEST = {
  'prints and warns': (
    'import warnings\nprint("x" * 9999)\nwarnings.warn("w")\n'
    'add = lambda a, b: a + b\n',
    SUM,
  ),
  'a class with its own equality': (
    """
class Point:
  def __init__(self, x): self.x = x
  def __eq__(self, other): return self.x == other.x
  def __hash__(self): return hash(self.x)
def add(a, b): return Point(a + b)
""",
    (
      'assert add(2, 3) == Point(5)',
      'assert add(2, 3) != Point(6)',
      'assert add(2, 3).x == 5',
      'assert isinstance(add(2, 3), Point) and not isinstance(5, Point)',
      'assert {add(2, 3): 1}[Point(5)] == 1',
      'point = Point(1)\npoint.x = 4\nassert point == Point(4)',
    ),
  ),
  'work in place': (
    'def order(x):\n  x.sort()\n',
    (
      'x = [3, 1, 2]\norder(x)\nassert x == [1, 2, 3]',
      'x = [3, 1, 2]\nassert order(x) is None and x == [1, 2, 3]',
    ),
  ),
  'work in place and a result': (
    'def order(x):\n  x["a"].append(1)\n  return len(x["a"])\n',
    (
      'x = {"a": [0]}\nassert order(x) == 2\nassert x == {"a": [0, 1]}',
      'x = {"a": [0]}\nn = order(x)\nassert n == 2\nassert x["a"][1] == 1',
    ),
  ),
  'own and built-in exceptions': (
    """
class Refused(ValueError): pass
def add(a, b):
  if a < 0: raise Refused('no', a)
  if b < 0: raise KeyError(b)
  return a + b
""",
    (
      'try:\n  add(-1, 1)\n  assert 0, 1\nexcept ValueError as e:\n'
      '  assert e.args == ("no", -1)',
      'try:\n  add(-1, 1)\n  raise SystemExit\nexcept Refused:\n  pass',
      'try:\n  add(1, -1)\n  raise SystemExit\nexcept KeyError as e:\n'
      '  assert e.args == (-1,)',
    ),
  ),
  'generators and iterators': (
    'def count(n):\n  for i in range(n):\n    yield [i]\n',
    (
      'assert list(count(3)) == [[0], [1], [2]]',
      'c = count(2)\nassert next(c) == [0] and next(c) == [1]\n'
      'try:\n  next(c)\n  assert False, 0\nexcept StopIteration:\n  pass',
      'assert [1] in count(3) and [9] not in count(3)',
    ),
  ),
  'functions taken and given': (
    """
def apply(f, xs): return [f(x) for x in xs]
def adder(n): return lambda x: x + n
def total(xs): return sum(xs)
""",
    (
      'assert apply(lambda x: x * 2, [1, 2]) == [2, 4]',
      'assert apply(adder(1), range(2)) == [1, 2]',
      'assert apply(str, [1]) == ["1"]',
      'assert total(x for x in [1, 2]) == 3',
      'try:\n  apply(lambda x: 1 / x, [0])\n  raise SystemExit\n'
      'except ZeroDivisionError:\n  pass',
    ),
  ),
  'standard types': (
    """
import collections, datetime, decimal, fractions
Pair = collections.namedtuple('Pair', 'a b')
def give(name):
  return {
    'counter': collections.Counter('aab'), 'deque': collections.deque([1], 2),
    'ordered': collections.OrderedDict(a=1), 'pair': Pair(1, 2),
    'decimal': decimal.Decimal('0.1'), 'fraction': fractions.Fraction(1, 3),
    'date': datetime.date(2020, 1, 2), 'lists': [[0] * 2] * 2,
    'default': collections.defaultdict(list, a=[1]), 'range': range(3),
    'keys': {1: 2}.keys(), 'type': int, 'big': 10**30, 'text': '\\ud800é',
    'nested': {(1, frozenset([2])): {3: b'4'}}, 'complex': 1j, 'more': ...,
  }[name]
""",
    (
      'import collections, datetime, decimal, fractions',
      'assert give("counter") == collections.Counter(a=2, b=1)',
      'assert give("counter").most_common(1) == [("a", 2)]',
      'assert give("deque") == collections.deque([1])',
      'assert list(give("ordered").items()) == [("a", 1)]',
      'assert give("pair") == (1, 2) and give("pair").b == 2',
      'assert give("decimal") == decimal.Decimal("0.1")',
      'assert give("fraction") * 3 == 1',
      'assert give("date").year == 2020',
      'x = give("lists")\nx[0][0] = 1\nassert x[1][0] == 1',
      'assert give("default")["b"] == []',
      'assert give("range") == range(3) and set(give("keys")) == {1}',
      'assert give("type") is int and give("big") == 10**30',
      'assert give("text") == "\\ud800é" and give("more") is ...',
      'assert give("nested") == {(1, frozenset([2])): {3: b"4"}}',
      'assert give("complex") == 1j and type(give("complex")) is complex',
    ),
  ),
  'a name that Python has, too': (
    'def sum(a, b):\n  return a + b\n',
    ('assert sum(2, 3) == 5',),
  ),
  'threads, files and processes': (
    """
import subprocess, tempfile, threading
def add(a, b):
  found = []
  thread = threading.Thread(target=found.append, args=(a,))
  thread.start(); thread.join()
  with tempfile.TemporaryFile() as file:
    file.write(b'x' * b)
    return found[0] + file.tell() + len(subprocess.check_output(['true']))
""",
    SUM,
  ),
  'a script with a main': (
    'import sys\nadd = lambda a, b: a + b\n'
    'if __name__ == "__main__":\n  sys.exit(input())\n',
    SUM,
  ),
  'a deep recursion': (
    'def add(a, b):\n  return a if b == 0 else 1 + add(a, b - 1)\n',
    ('assert add(0, 970) == 970',),
  ),
}
