"""What holds for every test: eight CPU devices, and no shape by accident."""

import os

# Read when jax is first imported, so they come before it.
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=8'

import jax
import pytest
from runs import Runs

jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_enable_compilation_cache', False)


@pytest.fixture(scope='session')
def runs(tmp_path_factory):
  """Starts small runs of the command, which share what they compile."""
  return Runs(tmp_path_factory.mktemp('compiled'))


@pytest.fixture(scope='session')
def unbroken(runs, tmp_path_factory):
  """The work directory of a small run of both stages that nobody stopped."""
  workdir = tmp_path_factory.mktemp('unbroken')
  runs.finish(workdir)
  return workdir
