"""What one of two processes of two devices saves; run by test_commits.py.

Argument 1 is a folder for both, argument 2 a file for what was found, as JSON.
"""

import contextlib
import errno
import json
import os
import pathlib
import resource
import sys
import time

import jax
import numpy as np
from orbax.checkpoint import path as ocp_path

from score_jax import checkpoint, processes, sharding, step_files

processes.connect(os.environ, 60.0)
me, folder = jax.process_index(), pathlib.Path(sys.argv[1])
mesh = sharding.make_mesh((1, 4, 1))


def state(step):
  noise = np.random.default_rng(step).normal(size=(1024, 64))
  rows = sharding.put_rows(mesh, noise.astype(np.float32))
  return {
    'params': {'w': rows},
    'step': sharding.put_whole(mesh, np.array(step)),
  }


@contextlib.contextmanager
def little_room(process):
  """Lets no file of this process grow beyond 20 kB, where it is its turn."""
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  if me == process:
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
  yield
  resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def no_folder(process):
  """Lets this process make no folder to save to, where it is its turn."""

  async def fail(self):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  plain = ocp_path.atomicity.AtomicRenameTemporaryPath.create
  if me == process:
    ocp_path.atomicity.AtomicRenameTemporaryPath.create = fail
  yield
  ocp_path.atomicity.AtomicRenameTemporaryPath.create = plain


@contextlib.contextmanager
def no_deletion(process):
  """Lets this process delete no older step, where it is its turn."""

  def fail(steps):
    if steps:
      raise OSError(errno.EIO, os.strerror(errno.EIO))

  deleter = opened.manager._checkpoint_deleter
  plain = deleter.delete_steps
  if me == process:
    deleter.delete_steps = fail
  yield
  deleter.delete_steps = plain


def saved(step):
  """Returns what a save says that fails, or ''."""
  try:
    opened.save(step, state(step), {}, float(step))
    opened.wait()
  except checkpoint.CheckpointError as error:
    return str(error)
  return ''


opened = checkpoint.open_checkpoints(folder, 1, print)
said, seconds = [saved(1)], []
for fault, process, step in (
  (little_room, 0, 2),
  (little_room, 1, 4),
  (no_folder, 0, 6),
  (no_deletion, 0, 8),
):
  with fault(process):
    started = time.monotonic()
    said.append(saved(step))
    seconds.append(time.monotonic() - started)
  said.append(saved(step + 1))
restored, _ = opened.restore(state(0))
equal = jax.tree.map(lambda a, b: bool((a == b).all()), restored, state(9))
found = {
  'said': said,
  'seconds': seconds,
  'steps': checkpoint.steps(folder),
  'equal': all(jax.tree.leaves(equal)),
  'unfinished': [x.name for x in folder.glob(step_files.UNFINISHED)],
}
opened.close()
pathlib.Path(sys.argv[2]).write_text(json.dumps(found))
