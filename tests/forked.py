"""The command in processes forked from one that has imported everything.

What a run imports takes longer than what a small one then does. They are real
processes otherwise: they parse the command line, and can be killed.
"""

import multiprocessing
import os
import pathlib
import sys
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess

import jax
import runs as small
from absl import app

from score_jax import main

# Programs are run so few times here that compiling them well does not pay.
FLAGS = '--xla_backend_optimization_level=0'
IMPORTED = (
  'forked',
  'seqio',
  'transformers.models.auto.tokenization_auto',
  'score_jax.run',
  'matplotlib.pyplot',
)


def start(
  runs: small.Runs, log: pathlib.Path, workdir: pathlib.Path, **settings
) -> BaseProcess:
  """Returns a small run under way.

  Args:
    runs: says how it is started, and where what is compiled is kept.
    log: a file to which it says what it says.
    workdir: of the run.
    **settings: those of `Runs.start`.
  """
  context = multiprocessing.get_context('forkserver')
  context.set_forkserver_preload(list(IMPORTED))
  forkserver.ensure_running()
  arguments = runs.arguments(workdir, **settings)
  process = context.Process(
    target=_run, args=(arguments, str(log), str(runs.compiled))
  )
  process.start()
  return process


def finish(runs, log, workdir, **settings) -> str:
  """Returns what a small run said to its end, which must be a good one."""
  process = start(runs, log, workdir, **settings)
  process.join(small.TIMEOUT)
  process.kill()  # One that takes too long; another has ended.
  process.join()
  said = log.read_text()
  assert process.exitcode == 0, said
  return said


def _run(arguments: list[str], log: str, compiled: str) -> None:
  os.chdir(small.ROOT)
  with open(log, 'w') as file:
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
  os.environ['XLA_FLAGS'] = FLAGS
  for name, value in {
    'jax_enable_compilation_cache': True,
    'jax_compilation_cache_dir': compiled,
    'jax_persistent_cache_min_compile_time_secs': 0,
    'jax_persistent_cache_min_entry_size_bytes': -1,
  }.items():
    jax.config.update(name, value)
  sys.argv = ['main', *arguments]  # Where ml_collections looks.
  app.run(main.main, argv=sys.argv, flags_parser=main.parse)
