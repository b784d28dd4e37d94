"""Files import only from those above them, and the core touches no world."""

import ast
import functools
import pathlib
import re
import subprocess
import sys

import pytest

import score_jax

ROOT = pathlib.Path(score_jax.__file__).parent

# The reading order.
ORDER = (
  'config',
  'checks',
  'problem',
  'trajectory',
  'streams',
  'files',
  'places',
  'spare',
  'claims',
  'notices',
  'pages',
  'room',
  'watch',
  'processes',
  'stopping',
  'shards',
  'timing',
  'compilation',
  'profiling',
  'sharding',
  'policy',
  'objective',
  'correction',
  'models.architecture',
  'models.attention',
  'models.narrow',
  'models.cache',
  'models.stack',
  'models.products',
  'models.layers',
  'models.splash',
  'models.kernels',
  'models.transformer',
  'models.lora',
  'models.families',
  'models.public',
  'models.names',
  'models.tensor_files',
  'models.weights',
  'models.served',
  'reading',
  'parts',
  'decoding',
  'batching',
  'sampler',
  'optimizers',
  'learner',
  'likelihood',
  'evaluation',
  'budget',
  'chat',
  'tokenizer',
  'graders.exact',
  'graders.guard',
  'graders.worker',
  'graders.pool',
  'graders.notation',
  'graders.answers',
  'graders.forms',
  'graders.units',
  'graders.rationals',
  'graders.parsing',
  'graders.values',
  'graders.scalars',
  'graders.reals',
  'graders.math',
  'graders.kinds',
  'graders.wire',
  'graders.calls',
  'graders.peer',
  'graders.handles',
  'graders.guest',
  'graders.tester',
  'graders.instrument',
  'graders.confine',
  'graders.supervise',
  'graders.sandbox',
  'graders.code',
  'graders.mutate',
  'tasks.wording',
  'tasks.rows',
  'tasks.jsonl',
  'tasks.published',
  'tasks.repair',
  'tasks.mathematics',
  'tasks.programs',
  'tasks.builders',
  'tasks.arithmetic',
  'tasks.catalogue',
  'tasks.mixture',
  'tasks.registry',
  'tasks',
  'tasks.about',
  'data',
  'grading',
  'rollout',
  'methods.traces',
  'methods.plan',
  'methods.score',
  'methods.plain_rl',
  'methods.blind',
  'methods.star',
  'methods.pair_sft',
  'methods.rise',
  'methods.rehearsal',
  'methods.importance',
  'methods.selective',
  'methods.retries',
  'methods.supervised',
  'methods.prompting',
  'methods.catalogue',
  'step_files',
  'commits',
  'fingerprint',
  'checkpoint',
  'journal',
  'inspection',
  'alarms',
  'report.files',
  'report.words',
  'report.markup',
  'report.differences',
  'report.style',
  'report.examples',
  'report.tables',
  'report.curves',
  'report.figures',
  'report.page',
  'report.build',
  'report.command',
  'report.__main__',
  'viewer.data',
  'viewer.build',
  'viewer.__main__',
  'chips',
  'programs',
  'lengths',
  'sizes',
  'estimate',
  'fitting',
  'advice',
  'base_model',
  'job',
  'summary',
  'phase',
  'stage',
  'imitation',
  'train',
  'again',
  'pretrain',
  'run',
  'laboratory.comparison',
  'laboratory.tables',
  'laboratory.cells',
  'laboratory.asking',
  'laboratory.reading',
  'laboratory.looks',
  'laboratory.history',
  'laboratory.drawings',
  'laboratory.sheets',
  'laboratory.pages',
  'laboratory.running',
  'main',
  'tpu',
  'planning',
  'plan_page',
  'plan',
  'table',
  'show',
  'export',
)
CORE = (
  'trajectory',
  'streams',
  'sharding',
  'policy',
  'objective',
  'correction',
  'models.architecture',
  'models.attention',
  'models.narrow',
  'models.cache',
  'models.stack',
  'models.products',
  'models.layers',
  'models.splash',
  'models.kernels',
  'models.transformer',
  'models.lora',
  'reading',
  'parts',
  'decoding',
  'batching',
  'sampler',
  'optimizers',
  'learner',
  'likelihood',
  'evaluation',
)
# Enough for arrays in, arrays out: no files, flags, clocks or logs, and none
# of what takes seconds to import.
ALLOWED = {
  '__future__',
  'collections',
  'dataclasses',
  'enum',
  'flax',
  'functools',
  'jax',
  'math',
  'numpy',
  'optax',
  'score_jax',
  'typing',
}
SLOW = ('seqio', 'tensorflow', 'transformers', 'tokenizers', 'torch')


def path_of(name: str) -> pathlib.Path:
  path = ROOT / name.replace('.', '/')
  return path / '__init__.py' if path.is_dir() else path.with_suffix('.py')


def in_files() -> set[str]:
  """Returns the names of all modules that hold more than a docstring."""
  names = set()
  for path in ROOT.rglob('*.py'):
    name = '.'.join(path.relative_to(ROOT).with_suffix('').parts)
    body = ast.parse(path.read_text()).body
    if any(not isinstance(node, ast.Expr) for node in body):
      names.add(name.removesuffix('.__init__'))
  return names


@functools.cache
def imports(name: str) -> set[str]:
  """Returns whatever a module imports anywhere in its text, in full."""
  found = set()
  for node in ast.walk(ast.parse(path_of(name).read_text())):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom):
      assert not node.level, f'{name} imports by a path with dots'
      found |= {f'{node.module}.{alias.name}' for alias in node.names}
  return found


def ours(name: str) -> set[str]:
  """Returns the modules of the package that a module imports from."""
  modules = set()
  for whole in imports(name):
    top, *parts = whole.split('.')
    if top != 'score_jax':
      continue
    while parts and not path_of('.'.join(parts)).exists():
      parts = parts[:-1]  # What is left off is a name inside the module.
    modules.add('.'.join(parts))
  return modules


def test_every_file_has_its_place_in_the_reading_order():
  assert len(set(ORDER)) == len(ORDER)
  assert set(ORDER) == in_files()


@pytest.mark.parametrize('name', ORDER)
def test_a_file_imports_only_from_those_above_it(name):
  assert ours(name) <= set(ORDER[: ORDER.index(name)])


def test_imports_are_found_in_all_their_forms():
  """Or the claim above would hold of anything."""
  assert {'objective', 'models.transformer', 'policy'} <= ours('learner')
  assert {'tasks', 'tasks.arithmetic'} <= ours('pretrain')
  assert 'run' in ours('main')  # Inside a function.
  assert 'seqio' in imports('tasks.registry')


@pytest.mark.parametrize('name', CORE)
def test_the_core_imports_nothing_but_arrays_and_itself(name):
  assert {i.split('.')[0] for i in imports(name)} <= ALLOWED
  assert ours(name) <= set(CORE)


def test_importing_the_core_loads_nothing_slow():
  loads = '; '.join(f'import score_jax.{name}' for name in CORE)
  code = f'{loads}; import sys; print(sorted(sys.modules.keys() & {set(SLOW)}))'
  found = subprocess.run(
    [sys.executable, '-c', code],
    cwd=ROOT.parent,
    capture_output=True,
    text=True,
    check=True,
  )
  assert found.stdout.strip() == '[]'


WORKSPACE = (ROOT.parent / 'WORKSPACE.md').read_text()


def test_the_workspace_lists_files_in_the_reading_order():
  told = re.findall('(?m)^[|] (`.*`) [|]', WORKSPACE)
  names = [
    name.removesuffix('.py').strip('/').replace('/', '.')
    for name in re.findall('`([^`]+)`', ' '.join(told))
  ]
  folders = {name for name in names if path_of(name).name == '__init__.py'}
  files = [n for n in ORDER if n.split('.')[0] not in folders | {'tasks'}]
  assert [name for name in names if name not in folders] == files


def test_the_workspace_names_every_file_of_the_folders():
  for folder in ('graders', 'tasks', 'laboratory'):
    (told,) = re.findall(rf'(?ms)^In `{folder}/`:.*?^$', WORKSPACE)
    files = {n.split('.')[1] for n in ORDER if n.startswith(f'{folder}.')}
    assert set(re.findall('`([a-z_]+)`', told)) >= files, folder


def test_the_workspace_names_the_core():
  (told,) = re.findall('(?ms)^The core .*?^$', WORKSPACE)
  names = set(re.findall('`([a-z_]+)`', told))
  assert names == {name.split('.')[-1] for name in CORE}


# What is imported under another name than it is installed, or by few.
DISTRIBUTIONS = {
  'absl': 'absl-py',
  'google': 'google-cloud-storage',
  'orbax': 'orbax-checkpoint',
  'tensorflow': 'tensorflow-cpu',
}
EXTRAS = {'google-cloud-storage', 'libtpu'}  # Of pyproject.toml.


def test_what_is_imported_is_asked_for_by_name():
  asked = (ROOT.parent / 'requirements.in').read_text().split()
  names = {line.partition('==')[0].lower() for line in asked} | EXTRAS
  known = {'score_jax', *sys.stdlib_module_names}
  for name in ORDER:
    tops = {found.split('.')[0] for found in imports(name)} - known
    wanted = {
      DISTRIBUTIONS.get(top, top).lower().replace('_', '-') for top in tops
    }
    assert wanted <= names, name
