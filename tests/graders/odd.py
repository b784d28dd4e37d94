"""Honest programs, and wrong ones, that look odd: judged as Python would.

Each is a source and its tests; the verdict is that of running the one and then
the others in one namespace. `TOGETHER` are those whose tests and program share
more than plain data: state, objects with operators, subclasses, functions that
go both ways.
"""

TOGETHER = {
  'operators between own': (
    '''
class V:
  def __init__(s,x): s.x=x
  def __add__(s,o): return V(s.x+(o.x if isinstance(o,V) else o))
  def __radd__(s,o): return s+o
  def __mul__(s,k): return V(s.x*k)
  def __neg__(s): return V(-s.x)
  def __abs__(s): return abs(s.x)
  def __eq__(s,o): return s.x==o.x
  def __len__(s): return s.x
  def __getitem__(s,i): return s.x+i
  def __call__(s,y): return s.x*y
''',
    ('assert V(1)+V(2)==V(3)', 'assert V(2)*3==V(6)', 'assert -V(2)==V(-2)', 'assert abs(V(-2))==2', 'assert len(V(3))==3', 'assert V(3)[1]==4', 'assert V(3)(2)==6', 'assert sum([V(1),V(2)])==V(3)',),
  ),
  'fork in call, child goes on': (
    '''
import os
def add(a,b):
  os.fork()
  return a+b
''',
    ('assert add(1,2)==3', 'assert add(2,2)==4',),
  ),
  'global counter in one test': (
    '''
n=0
def inc():
  global n
  n+=1
''',
    ('''
inc()
inc()
assert n==2
''',),
  ),
  'global list seen': (
    '''
log=[]
def f(x):
  log.append(x)
''',
    ('''
f(1)
f(2)
assert log==[1,2]
''',),
  ),
  'global list cleared by test': (
    '''
log=[]
def f(x):
  log.append(x)
  return len(log)
''',
    ('''
f(1)
log.clear()
assert f(2)==1
''',),
  ),
  'context manager': (
    '''
class C:
  def __enter__(s): s.on=True; return s
  def __exit__(s,*a): s.on=False; return True
''',
    ('''
c=C()
with c as d:
  assert d.on
assert not c.on
''',),
  ),
  'singleton': (
    '''
class S:
  _i=None
  def __new__(c):
    if c._i is None: c._i=super().__new__(c)
    return c._i
''',
    ('assert S() is S()', '''
a=S()
b=S()
assert a is b
''',),
  ),
  'list subclass with method': (
    '''
class St(list):
  def peek(s): return s[-1]
''',
    ('''
s=St()
s.append(1)
s.append(2)
assert s.peek()==2
''', 'assert St([1,2])==[1,2]', 'assert isinstance(St(), list)', 'assert St([1,2]).peek()==2',),
  ),
  'dict subclass missing': (
    '''
class D(dict):
  def __missing__(s,k): return 0
def f(): return D(a=1)
''',
    ('assert f()["a"]==1', 'assert f()["b"]==0', 'assert f()=={"a":1}',),
  ),
  'int enum': (
    '''
import enum
class C(enum.IntEnum):
  R=1
  G=2
def f(): return C.G
''',
    ('assert f()==2', 'assert f().name=="G"', 'assert C.R<C.G', 'assert f() is C.G', 'assert f()==C.G',),
  ),
  'enum': (
    '''
import enum
class C(enum.Enum):
  R=1
  G=2
def f(): return C.G
''',
    ('assert f()==C.G', 'assert f().name=="G"', 'assert f().value==2', 'assert C(1)==C.R', 'assert C["R"]==C.R', 'assert [c.value for c in C]==[1,2]', 'assert f() is C.G', 'assert len(C)==2',),
  ),
  'str enum': (
    '''
import enum
class C(str,enum.Enum):
  R="r"
def f(): return C.R
''',
    ('assert f()=="r"', 'assert f().value=="r"',),
  ),
  'float subclass': (
    '''
class F(float):
  @property
  def half(s): return s/2
''',
    ('assert F(3)==3.0', 'assert F(3).half==1.5',),
  ),
  'namedtuple': (
    '''
from collections import namedtuple
P=namedtuple("P","x y")
def f(): return P(1,2)
''',
    ('assert f()==(1,2)', 'assert f().x==1', 'assert f()==P(1,2)', 'assert f()._asdict()=={"x":1,"y":2}', 'assert f()._replace(x=3)==(3,2)', 'assert str(f())=="P(x=1, y=2)"', '''
x,y=f()
assert y==2
''', 'assert isinstance(f(),tuple)',),
  ),
  'typing namedtuple method': (
    '''
from typing import NamedTuple
class P(NamedTuple):
  x:int
  def dbl(s): return s.x*2
''',
    ('assert P(2).dbl()==4', 'assert P(2)==(2,)', 'assert isinstance(P(2),P)',),
  ),
  'attribute list append': (
    '''
class N:
  def __init__(s,v): s.v=v; s.kids=[]
  def total(s): return s.v+sum(k.total() for k in s.kids)
''',
    ('''
r=N(1)
r.kids.append(N(2))
assert r.total()==3
''', '''
r=N(1)
r.kids=[N(5)]
assert r.total()==6
''', '''
r=N(1)
r.kids+=[N(5)]
assert r.total()==6
''',),
  ),
  'attribute dict set': (
    '''
class N:
  def __init__(s): s.d={}
  def get(s,k): return s.d.get(k)
''',
    ('''
n=N()
n.d["a"]=1
assert n.get("a")==1
''',),
  ),
  'alias seen later': (
    '''
class S:
  def __init__(s): s.items=[]
  def push(s,x): s.items.append(x)
''',
    ('''
s=S()
x=s.items
s.push(1)
assert x==[1]
''', '''
s=S()
s.push(1)
assert s.items==[1]
''',),
  ),
  'own exception attrs': (
    '''
class E(Exception):
  def __init__(s,code): super().__init__(f"code {code}"); s.code=code
def f(): raise E(3)
''',
    ('''
try:
  f()
  assert 0
except E as e:
  assert e.code==3
  assert str(e)=="code 3"
''',),
  ),
  'own exception str': (
    '''
class E(Exception):
  def __str__(s): return "boom"
def f(): raise E(3)
''',
    ('''
try:
  f()
  assert 0
except E as e:
  assert str(e)=="boom"
''',),
  ),
  'function compared': (
    '''
def f(x): return f
''',
    ('assert f(1)==f', 'assert f(1) is f', 'assert callable(f(1))',),
  ),
  'numpy strings': (
    '''
import numpy as np
def f(): return np.array(["a","bc"])
''',
    ('assert list(f())==["a","bc"]',),
  ),
  'docstring': (
    '''
def f():
  """Doc."""
''',
    ('assert f.__doc__=="Doc."',),
  ),
  'callback mutates': (
    '''
def f(cb):
  xs=[]
  cb(xs)
  return xs
''',
    ('assert f(lambda l: l.append(1))==[1]',),
  ),
  'test object passed': (
    '''
def f(o): return o.x+1
''',
    ('''
class O:
  x=1
assert f(O())==2
''',),
  ),
  'test class passed': (
    '''
def f(C): return C().x
''',
    ('''
class O:
  x=1
assert f(O)==1
''',),
  ),
  'deepcopy own by test': (
    '''
class A:
  def __init__(s): s.x=[1]
''',
    ('''
import copy
a=A()
b=copy.deepcopy(a)
assert b.x==[1]
''',),
  ),
  'array module': (
    '''
import array
def f(): return array.array("i",[1,2])
''',
    ('assert list(f())==[1,2]', '''
import array
assert f()==array.array("i",[1,2])
''',),
  ),
  'inplace ops': (
    '''
class A:
  def __init__(s): s.n=0
  def __iadd__(s,k): s.n+=k; return s
''',
    ('''
a=A()
a+=3
assert a.n==3
''',),
  ),
  'memoryview': (
    '''
def f(): return memoryview(b"ab")
''',
    ('assert bytes(f())==b"ab"', 'assert f()==b"ab"',),
  ),
  'int float str of own': (
    '''
class V:
  def __int__(s): return 3
  def __float__(s): return 2.5
  def __str__(s): return "v"
  def __index__(s): return 1
  def __format__(s, f): return "F"+f
  def __round__(s,n=None): return 7
''',
    ('assert int(V())==3', 'assert float(V())==2.5', 'assert str(V())=="v"', 'assert [5,6][V()]==6', 'assert f"{V():x}"=="Fx"', 'assert round(V())==7',),
  ),
  'test linked list class': (
    '''
def rev(h):
  p=None
  while h:
    h.next,p,h=p,h,h.next
  return p
def length(h):
  n=0
  while h is not None: n+=1; h=h.next
  return n
''',
    ('''
class ListNode:
  def __init__(s,v,n=None): s.val=v; s.next=n
def build(xs):
  h=None
  for x in reversed(xs): h=ListNode(x,h)
  return h
def out(h):
  r=[]
  while h: r.append(h.val); h=h.next
  return r
''', 'assert out(rev(build([1,2,3])))==[3,2,1]', 'assert length(build([1,2]))==2', '''
h=build([1,2])
r=rev(h)
assert h.next is None and r.next is h
''',),
  ),
  'test double': (
    '''
def f(clock, log):
  log.write(clock.now())
  return clock() + len(log)
''',
    ('''
class Clock:
  def now(s): return 5
  def __call__(s): return 7
class Log:
  def __init__(s): s.lines=[]
  def write(s,x): s.lines.append(x)
  def __len__(s): return len(s.lines)
l=Log()
assert f(Clock(), l)==8
assert l.lines==[5]
''',),
  ),
  'module in program': (
    '''
import math
def f(x): return math.sqrt(x)
''',
    ('assert math.isclose(f(2), 1.41421356, rel_tol=1e-6)',),
  ),
}  # fmt: skip

ALONE = {
  'prints a lot': (
    '''
def add(a,b):
  print("x"*20000)
  return a+b
''',
    ('assert add(2,3)==5', 'assert add(2,3)==5', 'assert add(2,3)==5',),
  ),
  'threads with callback': (
    '''
from concurrent.futures import ThreadPoolExecutor
def apply(f, xs):
  with ThreadPoolExecutor(4) as pool: return list(pool.map(f, xs))
''',
    ('assert apply(lambda x: x*x, [1,2,3]) == [1,4,9]',),
  ),
  'multiprocessing pool': (
    '''
import multiprocessing
def sq(x): return x*x
def apply(xs):
  with multiprocessing.Pool(2) as p: return p.map(sq, xs)
''',
    ('assert apply([1,2,3]) == [1,4,9]',),
  ),
  'process pool executor': (
    '''
from concurrent.futures import ProcessPoolExecutor
def sq(x): return x*x
def apply(xs):
  with ProcessPoolExecutor(2) as p: return list(p.map(sq, xs))
''',
    ('assert apply([1,2,3]) == [1,4,9]',),
  ),
  'fork in call': (
    '''
import os
def add(a,b):
  if os.fork()==0: os._exit(0)
  os.wait()
  return a+b
''',
    ('assert add(1,2)==3', 'assert add(2,2)==4',),
  ),
  'recursion': (
    '''
def f(n): return 0 if n==0 else 1+f(n-1)
''',
    ('assert f(900)==900',),
  ),
  'setrecursionlimit': (
    '''
import sys
sys.setrecursionlimit(10000)
def f(n): return 0 if n==0 else 1+f(n-1)
''',
    ('assert f(5000)==5000',),
  ),
  'main guard exit': (
    '''
import sys
def add(a,b): return a+b
if __name__=="__main__": sys.exit(3)
''',
    ('assert add(1,2)==3',),
  ),
  'global counter': (
    '''
n=0
def inc():
  global n
  n+=1
  return n
''',
    ('assert inc()==1', 'assert inc()==2', 'assert n==2',),
  ),
  'floats': (
    '''
def f(x): return x*0.1
''',
    ('assert f(3)==0.30000000000000004', 'assert abs(f(3)-0.3)<1e-9', 'assert f(float("inf"))==float("inf")', 'assert f(float("nan"))!=f(float("nan"))',),
  ),
  'neg zero': (
    '''
def f(): return -0.0
''',
    ('''
import math
assert math.copysign(1,f())==-1
''',),
  ),
  'sets': (
    '''
def f(x): return set(x)
''',
    ('assert f([1,2,2])=={1,2}', 'assert f("ab")=={"a","b"}', 'assert {1} < f([1,2])',),
  ),
  'generator where list expected': (
    '''
def f(n): return (i for i in range(n))
''',
    ('assert f(2)==[0,1]',),
  ),
  'map where list expected': (
    '''
def f(n): return map(int, "123")
''',
    ('assert f(2)==[1,2,3]',),
  ),
  'map listed': (
    '''
def f(n): return map(int, "123")
''',
    ('assert list(f(2))==[1,2,3]',),
  ),
  'zip tuple': (
    '''
def f(a,b): return zip(a,b)
''',
    ('assert tuple(f([1],[2]))==((1,2),)',),
  ),
  'tuple for list': (
    '''
def f(): return (1,2)
''',
    ('assert f()==[1,2]',),
  ),
  'list for tuple nested': (
    '''
def f(): return [(1,[2])]
''',
    ('assert f()==[[1,[2]]]',),
  ),
  'dict views': (
    '''
def f(): return {1:2}.items()
''',
    ('assert list(f())==[(1,2)]', 'assert (1,2) in f()', 'assert len(f())==1',),
  ),
  'reversed': (
    '''
def f(): return reversed([1,2])
''',
    ('assert list(f())==[2,1]',),
  ),
  'enumerate next': (
    '''
def f(): return enumerate("ab")
''',
    ('''
e=f()
assert next(e)==(0,"a")
assert next(e)==(1,"b")
''',),
  ),
  'typing star': (
    '''
from typing import *
def f(x: List[int]) -> Optional[int]: return max(x) if x else None
''',
    ('assert f([1,3])==3', 'assert f([]) is None',),
  ),
  'dataclass': (
    '''
from dataclasses import dataclass
@dataclass
class P:
  x:int
  y:int=0
def f(a): return P(a)
''',
    ('assert f(1)==P(1,0)', 'assert f(1).x==1', 'assert str(f(1))=="P(x=1, y=0)"', 'assert repr(f(2))=="P(x=2, y=0)"', 'assert f(1)!=P(2)',),
  ),
  'dataclass frozen hash': (
    '''
from dataclasses import dataclass
@dataclass(frozen=True, order=True)
class P:
  x:int
''',
    ('assert len({P(1),P(1),P(2)})==2', 'assert P(1)<P(2)', 'assert sorted([P(2),P(1)])[0].x==1', 'assert max(P(1),P(3))==P(3)', '''
try:
  P(1).x=2
  assert False
except AttributeError:
  pass
''',),
  ),
  'vars': (
    '''
class P:
  def __init__(s,x): s.x=x
''',
    ('assert vars(P(1))=={"x":1}', 'assert P(2).__dict__=={"x":2}',),
  ),
  'decorated': (
    '''
import functools
def deco(f):
  @functools.wraps(f)
  def w(*a): return f(*a)+1
  return w
@deco
def add(a,b): return a+b
''',
    ('assert add(1,2)==4', 'assert add.__name__=="add"',),
  ),
  'lru_cache': (
    '''
import functools
@functools.lru_cache(None)
def fib(n): return n if n<2 else fib(n-1)+fib(n-2)
''',
    ('assert fib(80)==23416728348467685', 'assert fib.cache_info().currsize==81',),
  ),
  'property class method static': (
    '''
class A:
  n=3
  def __init__(s): s._v=1
  @property
  def v(s): return s._v
  @v.setter
  def v(s,x): s._v=x*2
  @classmethod
  def make(c): return c()
  @staticmethod
  def two(): return 2
''',
    ('''
a=A.make()
a.v=4
assert a.v==8
''', 'assert A.two()==2 and A.n==3', '''
A.n=5
assert A().n==5
''',),
  ),
  'iterator class': (
    '''
class It:
  def __init__(s,n): s.n=n
  def __iter__(s): return s
  def __next__(s):
    if s.n==0: raise StopIteration
    s.n-=1
    return s.n
''',
    ('assert list(It(3))==[2,1,0]', 'assert sum(It(3))==3',),
  ),
  'exception group raise': (
    '''
def f(): raise ValueError("bad")
''',
    ('''
import re
try:
  f()
except ValueError as e:
  assert re.search("bad", str(e))
else:
  assert False
''',),
  ),
  'os error attrs': (
    '''
def f(): open("/nonexistent/x")
''',
    ('''
try:
  f()
  assert 0
except FileNotFoundError as e:
  assert e.errno==2
''',),
  ),
  'assert in program': (
    '''
def f(x):
  assert x>0, "neg"
  return x
''',
    ('''
try:
  f(-1)
  raise SystemError
except AssertionError as e:
  assert str(e)=="neg"
''',),
  ),
  'kwargs defaults star': (
    '''
def f(a,*b,c=1,**d): return (a,b,c,d)
''',
    ('assert f(1)==(1,(),1,{})', 'assert f(1,2,3,c=4,e=5)==(1,(2,3),4,{"e":5})',),
  ),
  'async': (
    '''
import asyncio
async def g(x): return x+1
def f(x): return asyncio.run(g(x))
''',
    ('assert f(1)==2',),
  ),
  'closure state': (
    '''
def make():
  n=[0]
  def inc():
    n[0]+=1
    return n[0]
  return inc
''',
    ('''
f=make()
assert f()==1 and f()==2
''', 'assert make()()==1',),
  ),
  'curry': (
    '''
def add(a): return lambda b: lambda c: a+b+c
''',
    ('assert add(1)(2)(3)==6',),
  ),
  'big ints': (
    '''
def f(n): return 7**n
''',
    ('assert f(1000)%1000==7**1000%1000', 'assert f(3000)==7**3000',),
  ),
  'unicode': (
    '''
def f(s): return s[::-1]
''',
    ('assert f("añ😀")=="😀ña"',),
  ),
  'bytes': (
    '''
def f(b): return bytearray(b)+b"x"
''',
    ('assert f(b"a")==b"ax"', 'assert isinstance(f(b"a"),bytearray)',),
  ),
  'none printed': (
    '''
def f(x): print(x)
''',
    ('assert f(1) is None',),
  ),
  'numpy array': (
    '''
import numpy as np
def f(n): return np.arange(n)
''',
    ('''
import numpy as np
assert (f(3)==np.array([0,1,2])).all()
''', 'assert f(3).sum()==3', 'assert list(f(2))==[0,1]', 'assert f(3).shape==(3,)',),
  ),
  'numpy scalar': (
    '''
import numpy as np
def f(x): return np.mean(x)
''',
    ('assert f([1,2,3])==2.0', 'assert isinstance(f([1]),float)', 'assert abs(f([1,2])-1.5)<1e-9',),
  ),
  'datetime': (
    '''
import datetime
def f(): return datetime.date(2020,1,31)+datetime.timedelta(1)
''',
    ('''
import datetime
assert f()==datetime.date(2020,2,1)
''', 'assert f().isoformat()=="2020-02-01"', 'assert str(f())=="2020-02-01"',),
  ),
  'decimal': (
    '''
from decimal import *
def f(): return Decimal("0.1")*3
''',
    ('''
from decimal import Decimal
assert f()==Decimal("0.3")
''', 'assert float(f())==0.3',),
  ),
  'regex match': (
    'import re\ndef f(s): return re.match(r"(\\w)(\\w)", s)\n',
    ('assert f("ab").group(1)=="a"', 'assert f("") is None', 'assert f("ab").groups()==("a","b")', 'assert f("ab")',),
  ),
  'collections import by program': (
    '''
from collections import Counter
def f(s): return Counter(s)
''',
    ('assert f("aab")==Counter("aab")', 'assert f("aab")=={"a":2,"b":1}',),
  ),
  'heap of tuples': (
    '''
import heapq
def f(h,x): heapq.heappush(h,x)
''',
    ('''
h=[]
f(h,3)
f(h,1)
assert h[0]==1
''', '''
h=[5]
f(h,(0))
assert sorted(h)==[0,5]
''',),
  ),
  'shadow helper': (
    '''
def sum(xs): return 42
def f(xs): return sum(xs)
''',
    ('assert f([1])==42',),
  ),
  'class named as builtin': (
    '''
class set:
  def __init__(s): s.x=1
def f(): return set().x
''',
    ('assert f()==1',),
  ),
  'default mutable': (
    '''
def f(x, acc=[]):
  acc.append(x)
  return acc
''',
    ('assert f(1)==[1]', 'assert f(2)==[1,2]',),
  ),
  'sleep a little': (
    '''
import time
def f(): time.sleep(0.2); return 1
''',
    ('assert f()==1',),
  ),
  'daemon thread': (
    '''
import threading,time
t=threading.Thread(target=lambda: time.sleep(100),daemon=True)
t.start()
def f(): return 1
''',
    ('assert f()==1',),
  ),
  'stdin read at load': (
    '''
import sys
data=sys.stdin.read()
def f(): return data
''',
    ('assert f()==""',),
  ),
  'match statement': (
    '''
def f(x):
  match x:
    case [a,*_]: return a
    case {"k":v}: return v
    case _: return None
''',
    ('assert f([3,4])==3', 'assert f({"k":5})==5', 'assert f(1) is None',),
  ),
  'walrus future annotations': (
    '''
from __future__ import annotations
def f(x: Undefined) -> Nope: return (y:=x)+y
''',
    ('assert f(2)==4',),
  ),
  'slots': (
    '''
class A:
  __slots__=("x",)
''',
    ('''
a=A()
a.x=1
assert a.x==1
''', '''
try:
  A().y=1
  assert False
except AttributeError: pass
''',),
  ),
  'abstract': (
    '''
import abc
class B(abc.ABC):
  @abc.abstractmethod
  def f(s): ...
class C(B):
  def f(s): return 1
''',
    ('assert C().f()==1', 'assert isinstance(C(),B)', '''
try:
  B()
  assert False
except TypeError: pass
''', 'assert issubclass(C,B)',),
  ),
  'generator send close': (
    '''
def g():
  x=yield 1
  yield x*2
''',
    ('''
it=g()
assert next(it)==1
assert it.send(5)==10
''',),
  ),
  'hash of own in set': (
    '''
class K:
  def __init__(s,k): s.k=k
  def __hash__(s): return hash(s.k)
  def __eq__(s,o): return s.k==o.k
''',
    ('assert len({K(1),K(1)})==1', 'assert K(1) in [K(2),K(1)]', '''
d={K(1):2}
assert d[K(1)]==2
''',),
  ),
  'linked list': (
    '''
class Node:
  def __init__(s,v,n=None): s.val=v; s.next=n
def rev(h):
  p=None
  while h: h.next,p,h=p,h,h.next
  return p
''',
    ('''
h=Node(1,Node(2,Node(3)))
r=rev(h)
out=[]
while r:
  out.append(r.val)
  r=r.next
assert out==[3,2,1]
''', 'assert rev(None) is None',),
  ),
  'tree eq none': (
    '''
class T:
  def __init__(s,v): s.v=v; s.l=s.r=None
''',
    ('''
t=T(1)
assert t.l is None and t.r == None
''',),
  ),
  'unordered compare by test': (
    '''
def f(xs): return list(set(xs))
''',
    ('assert sorted(f([2,1,2]))==[1,2]', 'assert set(f([1]))=={1}',),
  ),
  'complex': (
    '''
import cmath
def f(): return cmath.sqrt(-1)
''',
    ('assert f()==1j', 'assert abs(f())==1.0',),
  ),
  'polynomial helper lambda arg': (
    '''
def integrate(f,a,b,n=1000):
  h=(b-a)/n
  return h*sum(f(a+(i+.5)*h) for i in range(n))
''',
    ('assert abs(integrate(lambda x:x*x,0,3)-9)<1e-3',),
  ),
  'sort key lambda': (
    '''
def f(xs,key): return sorted(xs,key=key,reverse=True)
''',
    ('assert f(["a","bbb","cc"],len)==["bbb","cc","a"]', 'assert f([(1,2),(2,1)],lambda t:t[1])==[(1,2),(2,1)]',),
  ),
  'test generator passed': (
    '''
def f(g): return list(g)
''',
    ('''
def gen():
  yield 1
  yield 2
assert f(gen())==[1,2]
''', 'assert f(map(str,[1]))==["1"]', 'assert f(iter([1]))==[1]',),
  ),
  'test namedtuple passed': (
    '''
def f(p): return p.x
''',
    ('''
from collections import namedtuple
P=namedtuple("P","x")
assert f(P(3))==3
''',),
  ),
  'warn and log': (
    '''
import logging,warnings,sys
logging.warning("x")
warnings.warn("y")
print("e",file=sys.stderr)
def f(): return 1
''',
    ('assert f()==1',),
  ),
  'del global': (
    '''
x=1
del x
def f(): return 1
''',
    ('assert f()==1',),
  ),
  'semicolons tabs crlf': (
    '''
def f(a):
	x=a;
	return x
''',
    ('assert f(1)==1',),
  ),
  'form feed': (
    '''
def f(a):
  return a
''',
    ('assert f(1)==1',),
  ),
  'non-ascii names': (
    '''
def größe(ñ): return ñ
''',
    ('assert größe(1)==1',),
  ),
  'exits in thread': (
    '''
import threading,sys
t=threading.Thread(target=sys.exit)
t.start()
t.join()
def f(): return 1
''',
    ('assert f()==1',),
  ),
  'atexit prints': (
    '''
import atexit
atexit.register(print,"bye")
def f(): return 1
''',
    ('assert f()==1',),
  ),
  'temp file': (
    '''
import tempfile,os
def f():
  with tempfile.NamedTemporaryFile("w+",delete=False) as t: t.write("hi")
  s=open(t.name).read()
  os.unlink(t.name)
  return s
''',
    ('assert f()=="hi"',),
  ),
  'sqlite': (
    '''
import sqlite3
def f():
  c=sqlite3.connect(":memory:")
  return c.execute("select 1+1").fetchone()
''',
    ('assert f()==(2,)',),
  ),
  'json pickle copy': (
    '''
import json,pickle,copy
class A: pass
def f(x): return copy.deepcopy(json.loads(pickle.loads(pickle.dumps(json.dumps(x)))))
''',
    ('assert f({"a":[1]})=={"a":[1]}',),
  ),
  'pickle own class': (
    '''
import pickle
class A:
  def __init__(s): s.x=1
def f(): return pickle.loads(pickle.dumps(A())).x
''',
    ('assert f()==1',),
  ),
  'exec eval': (
    '''
exec("def f(x): return eval('x+1')")
''',
    ('assert f(1)==2',),
  ),
  'globals dict': (
    '''
globals()["f"]=lambda: 5
''',
    ('assert f()==5',),
  ),
  'self import': (
    '''
import sys
def f(): return sys.modules[__name__].g()
def g(): return 3
''',
    ('assert f()==3',),
  ),
  'test uses two functions': (
    '''
def enc(s): return s[::-1]
def dec(s): return s[::-1]
''',
    ('assert dec(enc("abc"))=="abc"',),
  ),
  'wrong: off by one': (
    '''
def f(x): return x
''',
    ('assert f(1)==2',),
  ),
  'wrong: raises': (
    '''
def f(x): return 1/0
''',
    ('assert f(1)==2',),
  ),
  'ordereddict order eq': (
    '''
from collections import OrderedDict as O
def f(): return O([(1,2),(3,4)])
''',
    ('''
from collections import OrderedDict as O
assert f()!=O([(3,4),(1,2)])
''', 'assert f()=={3:4,1:2}',),
  ),
  'itertools chain': (
    '''
import itertools
def f(): return itertools.chain([1],[2])
''',
    ('assert list(f())==[1,2]', 'assert [x for x in f()]==[1,2]',),
  ),
  'count islice by test': (
    '''
import itertools
def f(): return itertools.count(5)
''',
    ('''
import itertools
assert list(itertools.islice(f(),3))==[5,6,7]
''', 'assert next(f())==5',),
  ),
  'bool result numpy': (
    '''
import numpy as np
def f(): return np.bool_(True)
''',
    ('assert f()', 'assert f()==True', 'assert f() is not None',),
  ),
  'frozenset in dict': (
    '''
def f(): return {frozenset({1}):[2]}
''',
    ('assert f()=={frozenset([1]):[2]}',),
  ),
  'slice range': (
    '''
def f(): return range(0,10,3)
''',
    ('assert f()==range(0,10,3)', 'assert list(f())==[0,3,6,9]',),
  ),
  'ellipsis notimpl': (
    '''
def f(): return ...
''',
    ('assert f() is ...',),
  ),
  'type returned': (
    '''
class A: pass
def f(x): return type(x)
''',
    ('assert f(1)==int', 'assert f(1) is int', 'assert f(A())==A', 'assert f(A()) is A', 'assert f("").__name__=="str"', 'assert f(A()).__name__=="A"',),
  ),
  'string formatting of object': (
    '''
class A:
  def __repr__(s): return "A()"
''',
    ('assert f"{A()}"=="A()"', 'assert "%s" % A()=="A()"', 'assert [A()].__repr__()=="[A()]"',),
  ),
  'bytes io': (
    'import io\ndef f():\n  return io.StringIO("a\\nb")\n',
    ('assert f().read()=="a\\nb"', 'assert list(f())==["a\\n","b"]',),
  ),
  'reads own source via inspect': (
    '''
import inspect
def f():
  try: return inspect.getsource(f)
  except OSError: return "no"
''',
    ('assert isinstance(f(), str)',),
  ),
  'walks stack': (
    '''
import sys
def f(): return sys._getframe().f_code.co_name
''',
    ('assert f()=="f"',),
  ),
  'name is': (
    '''
def f(): return __name__ != "__main__"
''',
    ('assert f()',),
  ),
  '__file__': (
    '''
try: x=__file__
except NameError: x=1
def f(): return 1
''',
    ('assert f()==1',),
  ),
}  # fmt: skip
