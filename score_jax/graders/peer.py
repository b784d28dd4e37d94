"""What the program's process and the tests' process have in common.

Each asks the other over a pair of pipes: a question is answered before the next
one, but while it waits, a side answers what the other asks back. So calls nest
as they do within one process, and one thread on each side is enough.

Standard library only: this file runs inside the sandbox.
"""

import os
import resource
import sys
from _thread import RLock

from score_jax.graders import calls
from score_jax.graders.wire import Codec, WireError

MAX_BYTES = 1 << 31  # Of one message.
_QUESTION, _ANSWER = b'?', b'!'


class Gone(BaseException):
  """The other side ended, or does not keep to the rules."""


class Peer(Codec):
  """One side of the pipes; subclasses say what they answer and export."""

  def __init__(self, source, sink):
    self.source = os.fdopen(source, 'rb')
    self.sink = os.fdopen(sink, 'wb')
    self.lock = RLock()

  def ask(self, question, known=()):
    """Returns the answer to a question, and the containers numbered so far."""
    with self.lock:
      data, containers = self.dumps(question, known)
      self.send(_QUESTION, data)
      while True:
        kind, data = self.receive()
        if kind == _ANSWER:
          return self.loads(data, containers)
        self.reply(data)

  def serve(self):
    """Answers for ever."""
    while True:
      kind, data = self.receive()
      if kind != _QUESTION:
        raise Gone('an answer that nobody asked for')
      self.reply(data)

  def reply(self, data):
    """Answers a question of the other process."""
    question, containers = self.loads(data)
    self.send(_ANSWER, self.answer(question, containers))

  def answer(self, question, containers):
    """Returns the bytes that answer a question."""
    raise NotImplementedError

  def send(self, kind, data):
    """Sends bytes; raises WireError if they are too many to cross."""
    if len(data) > MAX_BYTES:
      raise WireError(f'a value of {len(data)} bytes is too large to cross')
    try:
      self.sink.write(kind + len(data).to_bytes(8, 'little') + data)
      self.sink.flush()
    except OSError as error:
      raise Gone('the other side ended') from error

  def receive(self):
    """Returns the kind and the bytes of what the other process sends next."""
    head = self.source.read(9)
    size = int.from_bytes(head[1:], 'little')
    if len(head) < 9 or size > MAX_BYTES or head[:1] not in b'?!':
      raise Gone('the other side ended or sent no message')
    data = self.source.read(size)
    if len(data) < size:
      raise Gone('the other side ended within a message')
    return head[:1], data


def give_up_powers(limits, uid, filtered):
  """Takes from this process, for good, what it does not need.

  Args:
    limits: {name of a `resource` limit: its value}.
    uid: whose process this becomes; None: it is nobody's but the user's.
    filtered: whether its system calls are filtered already.
  """
  for name, value in limits.items():
    resource.setrlimit(getattr(resource, name), (value, value))
  if uid is not None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)  # From root: every capability goes with it.
  os.umask(0o077)
  nothing = os.open(os.devnull, os.O_RDWR)
  os.dup2(nothing, 0)
  os.close(nothing)
  sys.path[:] = [one for one in sys.path if one]
  if not filtered:
    calls.restrict()
