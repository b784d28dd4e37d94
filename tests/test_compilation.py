"""Compilations are counted, kept for the next start, and told when late."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
import runs as small

from score_jax import compilation, files

ROOT = pathlib.Path(compilation.__file__).parents[1]


def test_a_program_is_counted_once_for_each_shape():
  @jax.jit
  def nobody_has_compiled_this(x):
    return jnp.sin(x) * 3

  one, two = jnp.ones(2), jnp.ones(3)
  counter = compilation.Counter()
  nobody_has_compiled_this(one)
  nobody_has_compiled_this(one)
  (program,) = counter.new()
  assert 'nobody_has_compiled_this' in program.name
  found = counter.take()
  assert (found['compilations'], found['compilations_read']) == (1, 0)
  assert found['seconds_compile'] == program.seconds > 0
  nobody_has_compiled_this(one)
  assert counter.take()['compilations'] == 0
  nobody_has_compiled_this(two)
  assert counter.take()['compilations'] == 1


def test_the_words_name_the_most_expensive_programs_first():
  programs = [
    compilation.Program(name, seconds)
    for name, seconds in [('a', 1), ('b', 4), ('a', 2), ('c', 3), ('d', 0.5)]
  ]
  said = compilation.words(programs)
  assert said == 'b, c, a (2 times) and 1 more in 10.5 s'
  assert compilation.words(programs[:1]) == 'a in 1.0 s'


# As one start of the command after the other.
PROGRAM = """
import json, sys
from score_jax import compilation
folder = compilation.keep(sys.argv[1], 0.0)
import jax
import jax.numpy as jnp
x = jnp.ones(7)
counter = compilation.Counter()
jax.jit(lambda x: jnp.cos(x) + 41)(x)
print(json.dumps([str(folder), counter.take()]))
"""


def _ended(program, folder, **environment):
  return subprocess.run(
    [sys.executable, '-c', program, str(folder)],
    cwd=ROOT,
    env={
      **{k: v for k, v in os.environ.items() if k != 'XDG_CACHE_HOME'},
      'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
      **environment,
    },
    capture_output=True,
    text=True,
    check=True,
  )


def _started(folder, **environment):
  return json.loads(_ended(PROGRAM, folder, **environment).stdout)


def test_the_second_start_reads_what_the_first_one_compiled(tmp_path):
  where, first = _started(tmp_path / 'kept')
  assert where == str(tmp_path / 'kept')
  _, second = _started(tmp_path / 'kept')
  assert (first['compilations'], first['compilations_read']) == (1, 0)
  assert (second['compilations'], second['compilations_read']) == (1, 1)


def test_programs_are_kept_in_the_users_cache_unless_told_otherwise(tmp_path):
  user = {'XDG_CACHE_HOME': str(tmp_path)}
  where, _ = _started('auto', **user)
  assert where == str(tmp_path / 'score_jax' / 'compiled')
  assert any(pathlib.Path(where).iterdir())
  other = str(tmp_path / 'other')
  user['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
  where, _ = _started('auto', JAX_COMPILATION_CACHE_DIR=other, **user)
  assert where == other
  assert any(pathlib.Path(other).iterdir())
  assert _started('', **user)[0] == 'None'


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path):
  file = tmp_path / 'file'
  file.write_text('')
  with pytest.raises(subprocess.CalledProcessError) as refused:
    _started(file / 'kept')
  said = refused.value.stderr
  assert f'compilation.folder={file / "kept"} cannot be written to' in said
  assert "or to '' to keep no compiled programs" in said
  # Nobody chose the user's own.
  assert _started('auto', XDG_CACHE_HOME=str(file))[0] == 'None'


KEPT = """
import sys
from score_jax import compilation
import jax
print(compilation.keep(sys.argv[1], 0.0), jax.config.jax_compilation_cache_dir)
"""


def test_a_bucket_is_given_to_jax_as_it_is(tmp_path):
  bucket = 'gs://bucket/compiled'
  said = _ended(KEPT, bucket, XDG_CACHE_HOME=str(tmp_path)).stdout
  assert said.split() == [bucket, bucket]


# By oneDNN, whose programs JAX cannot write.
NOT_KEPT = """
import sys
from score_jax import compilation
compilation.keep(sys.argv[1], 0.0)
import jax
import jax.numpy as jnp
from score_jax.models.architecture import Execution
from score_jax.models.products import compiler_options
options = compiler_options(Execution(products='onednn'))
x = jnp.ones((64, 64))
jax.jit(jnp.matmul, compiler_options=options)(x, x).block_until_ready()
"""


@pytest.mark.parametrize('given', ['folder', 'environment'])
def test_what_cannot_be_kept_is_passed_over_without_a_word(tmp_path, given):
  environment = {'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0'}
  if given == 'environment':
    environment['JAX_COMPILATION_CACHE_DIR'] = str(tmp_path)
  ended = _ended(NOT_KEPT, tmp_path, **environment)
  assert 'UserWarning' not in ended.stderr


def test_no_step_behind_the_first_of_a_stage_compiles(unbroken):
  """With validations and saves, in both stages."""
  rows, bad = files.read_jsonl(unbroken / 'metrics.jsonl')
  assert bad == []
  assert {row['stage'] for row in rows} == {*small.STEPS}
  for row in rows:
    assert (row['compilations'] > 0) == (row['step'] == 1), row
  assert any('validation_accuracy_t1' in row for row in rows)


LATE = """
from absl import app
import jax
from score_jax import main
from score_jax.stage import Stage
greedy, calls = Stage.greedy, []
def late(*args):
  calls.append(args)
  if len(calls) == 2:
    jax.jit(lambda x: x * 12345)(jax.numpy.ones(77))
  return greedy(*args)
Stage.greedy = late
app.run(main.main, flags_parser=main.parse)
"""


def test_a_step_that_compiles_late_is_told(runs, tmp_path):
  arguments = runs.arguments(
    tmp_path, 'stage1', train__stage1_steps=3, eval__every=0
  )
  ended = subprocess.run(
    [sys.executable, '-c', LATE, *arguments],
    cwd=small.ROOT,
    env=runs.environment(),
    capture_output=True,
    text=True,
    timeout=small.TIMEOUT,
  )
  assert ended.returncode == 0, ended.stderr
  (said,) = (x for x in ended.stdout.splitlines() if x.startswith('warning'))
  assert said.startswith('warning   stage1 2 compiled jit(')
  rows, _ = files.read_jsonl(tmp_path / 'metrics.jsonl')
  assert [row['compilations'] > 0 for row in rows] == [True, True, False]


def test_steps_say_where_their_time_went(unbroken):
  rows, _ = files.read_jsonl(unbroken / 'metrics.jsonl')
  parts = ('data', 'sample', 'grade', 'update', 'validate', 'log', 'save')
  saved = [row['step'] for row in rows if row.get('seconds_save')]
  # A save is timed in the step behind it.
  assert saved == [
    step + 1
    for last in small.STEPS.values()
    for step in range(small.EVERY, last, small.EVERY)
  ]
  for row in rows:
    counted = sum(row.get(f'seconds_{part}', 0.0) for part in parts)
    assert 0.5 * row['seconds'] < counted <= 1.001 * row['seconds']
    assert 0 <= row['device_idle_share'] < 1
    assert row['seconds_update'] > 0
    validated = 'validation_accuracy_t1' in row
    assert ('seconds_validate' in row) == validated
