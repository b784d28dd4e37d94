"""What holds for every test: eight CPU devices, and no shape by accident."""

import fcntl
import gc
import os
import pathlib

from compiling import QUICK

# Read when jax is first imported, so they come before it.
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['XLA_FLAGS'] = f'--xla_force_host_platform_device_count=8 {QUICK}'
# TensorFlow reads it when anything first asks for a bucket, as TFDS does: tests
# of buckets change objects at once.
os.environ['GCS_STAT_CACHE_MAX_AGE'] = '0'

import jax
import pytest
from runs import COLLECTED, Runs

jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_enable_compilation_cache', False)
gc.set_threshold(*COLLECTED)

# What takes longest, in this order, so that no worker is left with it alone.
FIRST = (
  'tests/faults/test_kill.py',
  'tests/test_adapter.py',
  'tests/test_run.py',
  'tests/test_sharding.py',
  'tests/test_learner.py',
  'tests/test_real_tasks.py',
)


def pytest_collection_modifyitems(items):
  places = {name: place for place, name in enumerate(FIRST)}
  items.sort(
    key=lambda item: places.get(item.nodeid.split('::')[0], len(places))
  )


# Half of the mappings of memory that Linux allows a process: each compiled
# program takes dozens, and the compiler crashes where there are no more.
MAPPINGS = 30_000


@pytest.fixture(scope='module', autouse=True)
def _programs_are_forgotten():
  """Drops compiled programs behind a file, once they take many mappings."""
  yield
  maps = pathlib.Path('/proc/self/maps')
  if maps.exists() and maps.read_bytes().count(b'\n') > MAPPINGS:
    jax.clear_caches()
    gc.collect()


def _shared(tmp_path_factory) -> pathlib.Path:
  """Returns a folder that all workers of these tests have in common."""
  base = tmp_path_factory.getbasetemp()
  return base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base


@pytest.fixture(scope='session')
def runs(tmp_path_factory):
  """Starts small runs of the command, which share what they compile."""
  return Runs(_shared(tmp_path_factory) / 'compiled')


@pytest.fixture(scope='session')
def unbroken(runs, tmp_path_factory):
  """The work directory of a small run of both stages that nobody stopped."""
  workdir = _shared(tmp_path_factory) / 'unbroken'
  done = workdir.with_suffix('.done')
  with open(workdir.with_suffix('.lock'), 'w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)  # Whoever comes second waits for it.
    if not done.exists():
      runs.finish(workdir, log__report=True, log__tensorboard=True)
      done.touch()
  return workdir
