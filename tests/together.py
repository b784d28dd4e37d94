"""What one of two processes of two devices finds; run by test_processes.py.

Argument 1 is where to put it, as JSON.
"""

import json
import os
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

from score_jax import processes, sharding, shards
from score_jax.config import ConfigError

processes.connect(os.environ, 60.0)


def raised(work):
  try:
    work()
  except Exception as error:
    return [type(error).__name__, str(error)]
  raise AssertionError('It was to raise.')


def refuse_on_the_other():
  if me == 1:
    raise ConfigError('one, two')
  return 'fine'


def fail():
  raise ValueError('three')


me, here = jax.process_index(), pathlib.Path(sys.argv[1])
processes.GRACE_SECONDS = 1.0  # No folder here takes its time.
mesh = sharding.make_mesh((1, 4, 1))
rows = np.arange(24).reshape(8, 3)
split = sharding.put_rows(mesh, rows)
copied = sharding.put_whole(mesh, rows)
added = jax.jit(lambda x: x + 1)(split)
own, shared = shards.own_rows(split), shards.own_rows(copied)
found = {
  'several': processes.several(),
  'first': processes.is_first(),
  'agree': [processes.agree(x) for x in (False, me == 1, me == 0, True)],
  'share': processes.share(lambda: ['ü\ud800' * 3000 * me, (me, None)]),
  'decide': processes.decide(lambda: [me, float('inf')]),
  'raised': [
    raised(lambda: processes.share(refuse_on_the_other)),
    raised(lambda: processes.decide(fail)),
    raised(lambda: processes.share(processes.later(refuse_on_the_other))),
    raised(lambda: processes.run(fail, here.with_suffix('.d'), None, 75)),
  ],
  'own': own.tolist(),
  'read': shards.read_rows(added, own).tolist(),
  'shared': shared.tolist(),
  'read_shared': shards.read_rows(copied, shared).tolist(),
  'fetch': [x.tolist() for x in shards.fetch((added, copied, jnp.ones(2)))],
}
here.write_text(json.dumps(found))
