"""A dry run prints what a launch does, to the letter, and does nothing."""

import functools
import importlib.metadata
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import goldens
import hypothesis
import jsonschema
import pytest
import yaml
from hypothesis import strategies as st

from launch import manifest

ROOT = goldens.ROOT
SCHEMAS = pathlib.Path(__file__).parent / 'schemas'
CALLED = {
  'tpu_pod': 'gcloud',
  'tpu_pod_queued': 'gcloud',
  'gke': 'kubectl',
  'slurm': 'slurm',
  'skypilot': 'sky',
}


@functools.cache
def _printed(name):
  return goldens.printed(name)


@pytest.mark.parametrize('name', goldens.CASES)
def test_a_dry_run_prints_what_the_file_holds(name):
  assert _printed(name) == goldens.golden(name).read_text()


def test_there_is_a_file_for_each_case_and_no_other():
  files = {path.stem for path in goldens.FOLDER.iterdir()}
  assert files == {*goldens.CASES}


def _shellcheck():
  """Returns the program, from this environment or the system."""
  own = pathlib.Path(sys.executable).with_name('shellcheck')
  found = str(own) if own.exists() else shutil.which('shellcheck')
  if not found:
    pytest.skip('no shellcheck: pip install -r requirements-dev.txt')
  return found


def _complaints(*arguments):
  ended = subprocess.run(
    [_shellcheck(), '--shell=bash', *map(str, arguments)],
    capture_output=True,
    text=True,
    check=False,
  )
  return ended.stdout + ended.stderr


@pytest.mark.parametrize(
  'path', sorted((ROOT / 'launch').glob('*.sh')), ids=lambda p: p.name
)
def test_shellcheck_finds_nothing_in_a_script(path):
  assert _complaints(path) == ''


def test_shellcheck_finds_nothing_in_what_is_printed():
  # SC2016: what has no meaning between single quotes is there on purpose.
  files = [goldens.golden(name) for name in goldens.CASES]
  assert _complaints('--exclude=SC2016', *files) == ''


def test_shellcheck_would_find_an_unquoted_word(tmp_path):
  """Or the claims above would hold of anything."""
  (tmp_path / 'bad.sh').write_text('rm $1\n')
  assert 'SC2086' in _complaints(tmp_path / 'bad.sh')


def _document(name):
  """Returns the manifest that a dry run prints, read by a YAML parser."""
  text = re.search(r"<< 'END'\n(.*?)^END$", _printed(name), re.S | re.M)[1]
  return yaml.safe_load(text)


def _check(document, schema):
  rules = json.loads((SCHEMAS / f'{schema}.json').read_text())
  jsonschema.Draft202012Validator.check_schema(rules)
  jsonschema.Draft202012Validator(rules).validate(document)


@pytest.mark.parametrize(
  ('name', 'schema'),
  [('gke', 'jobset'), ('gke_detached', 'jobset'), ('skypilot', 'skypilot')],
)
def test_a_manifest_has_the_form_that_its_reader_asks_for(name, schema):
  _check(_document(name), schema)


@pytest.mark.parametrize(
  ('path', 'value'),
  [
    (['spec', 'failurePolicy', 'maxRestart'], 3),
    (['spec', 'failurePolicy', 'rules', 0, 'action'], 'FailJob'),
    (['spec', 'replicatedJobs', 0, 'template', 'spec', 'completions'], '4'),
    (
      [
        *('spec', 'replicatedJobs', 0, 'template', 'spec', 'template', 'spec'),
        'restartPolicy',
      ],
      'OnFailure',
    ),
  ],
)
def test_the_form_refuses_what_the_cluster_would(path, value):
  document = _document('gke')
  place = document
  for step in path[:-1]:
    place = place[step]
  place[path[-1]] = value
  with pytest.raises(jsonschema.ValidationError):
    _check(document, 'jobset')


def test_a_pod_is_put_where_its_slice_is_and_asks_for_its_chips():
  job = _document('gke')['spec']['replicatedJobs'][0]['template']['spec']
  pod = job['template']['spec']
  container = pod['containers'][0]
  assert pod['nodeSelector'] == {
    'cloud.google.com/gke-tpu-accelerator': 'tpu-v6e-slice',
    'cloud.google.com/gke-tpu-topology': '8x8',
    'cloud.google.com/gke-spot': 'true',
  }
  # 64 chips: 16 hosts of 4.
  assert (job['completions'], job['parallelism']) == (16, 16)
  assert container['resources']['limits'] == {'google.com/tpu': 4}
  assert pod['terminationGracePeriodSeconds'] == 25


def test_words_reach_a_container_as_they_were_given():
  """Kubernetes makes $ of $$, and a variable's value of $(NAME)."""
  job = _document('gke')['spec']['replicatedJobs'][0]['template']['spec']
  words = job['template']['spec']['containers'][0]['command']
  given = goldens.CASES['gke'][goldens.CASES['gke'].index('--') + 1 :]
  expanded = [
    re.sub(r'\$\$|\$\([^)]*\)', lambda m: '$' * (m[0] == '$$'), word)
    for word in words
  ]
  assert expanded == [*('python', '-m', 'score_jax.main'), *given]
  assert any('$' in word for word in given)


def test_words_reach_a_host_through_two_shells_as_they_were_given():
  given = goldens.CASES['skypilot'][goldens.CASES['skypilot'].index('--') + 1 :]
  run = _document('skypilot')['run'].removeprefix('exec .venv/bin/python')
  shown = subprocess.run(
    ['bash', '-c', f'printf "%s\\0" {run}'],
    capture_output=True,
    text=True,
    check=True,
  ).stdout
  assert shown.split('\0')[:-1] == ['-m', 'score_jax.main', *given]


_TEXTS = st.text(st.characters(exclude_categories=['Cs']))
_KEYS = st.text(st.characters(exclude_categories=['Cs']), max_size=20)
_VALUES = st.recursive(
  _TEXTS | st.integers() | st.booleans(),
  lambda inner: (
    st.lists(inner, min_size=1, max_size=3)
    | st.dictionaries(_KEYS, inner, min_size=1, max_size=3)
  ),
  max_leaves=10,
)


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(st.dictionaries(_KEYS, _VALUES, min_size=1, max_size=3))
def test_a_yaml_parser_reads_what_was_written(document):
  assert yaml.safe_load(manifest.dump(document)) == document


@pytest.mark.parametrize(
  'word', ['yes', 'NO', 'null', '~', '1', '1e3', '', '-']
)
def test_a_key_that_looks_like_another_kind_of_value_stays_a_text(word):
  assert yaml.safe_load(manifest.dump({word: word})) == {word: word}


def _answers(launches):
  """Makes all tools agree to everything."""
  done = json.dumps(
    {'status': {'conditions': [{'type': 'Completed', 'status': 'True'}]}}
  )
  state = 'JobId=7 JobState=COMPLETED Restarts=0 ExitCode=0:0\n'
  launches.answer(
    'gcloud',
    ['queued-resources describe', [{'out': 'ACTIVE\n'}]],
    ['tpu-vm describe', [{'out': 'READY\n'}]],
    ['tpus', [{}]],
  )
  launches.answer('kubectl', ['get', [{'out': done}]], ['', [{}]])
  launches.answer('sbatch', ['', [{'out': '7\n'}]])
  launches.answer('scontrol', ['', [{'out': state}]])
  launches.answer('scancel', ['', [{}]])
  launches.answer('sky', ['launch', [{'out': 'Job ID: 7\n'}]], ['', [{}]])


@pytest.mark.parametrize('name', CALLED)
def test_every_call_of_a_launch_is_in_its_dry_run_word_for_word(launches, name):
  """The dry run is carried out by a shell; both write down the same calls."""
  _answers(launches)
  arguments = goldens.CASES[name]
  code, said, errors = launches.run('--dry-run', *arguments)
  assert (code, errors) == (0, '')
  assert launches.calls() == []
  subprocess.run(
    ['bash', '-euc', said],
    cwd=launches.root,
    env=launches.environment(),
    check=True,
    capture_output=True,
  )
  shown = launches.calls()
  code, _, errors = launches.run(*arguments)
  assert code == 0, errors
  made = launches.calls()[len(shown) :]
  shown = [[word.replace('ID', '7') for word in call] for call in shown]
  assert made
  assert [call for call in made if call not in shown] == []


def test_a_dry_run_of_local_processes_runs_in_a_shell(launches, tmp_path):
  settings = ('--target=local', '--module=tiny', '--port=4321')
  job = ('--', f'--starts={tmp_path}/n', '--codes=0,0', '--x=a "b" $c')
  _, printed, _ = launches.run('--dry-run', *settings, *job)
  shown = subprocess.run(
    ['bash', '-euc', printed],
    cwd=launches.root,
    env=os.environ,
    check=True,
    capture_output=True,
    text=True,
  ).stdout
  _, said, _ = launches.run(*settings, *job)
  assert said.replace('[0] start 2', 'start 1') == shown


def test_a_dry_run_needs_no_tool_and_leaves_no_file(launches):
  for name in goldens.CASES:
    code, _, errors = launches.run('--dry-run', *goldens.CASES[name])
    assert (code, errors) == (0, '')
  assert {p.name for p in launches.root.iterdir()} == {
    *('.git', 'configs', 'launch', 'tiny.py', 'requirements.txt')
  }


def test_the_tpu_plugin_is_of_the_release_that_is_pinned():
  """In the image as on a host: by the same words, which a shell reads here."""
  words = "sed -n 's/^jax==\\([^ ]*\\).*/\\1/p' requirements.txt"
  for name in ('Dockerfile', 'host.sh'):
    assert f'jax[tpu]==$({words})' in (ROOT / 'launch' / name).read_text()
  found = subprocess.run(
    ['bash', '-c', words], cwd=ROOT, capture_output=True, text=True, check=True
  )
  assert found.stdout.strip() == importlib.metadata.version('jax')


def test_the_image_copies_what_is_there():
  lines = (ROOT / 'launch' / 'Dockerfile').read_text().splitlines()
  sources = [line.split()[1] for line in lines if line.startswith('COPY')]
  assert sources == ['requirements.txt', 'configs', 'score_jax']
  assert all((ROOT / source).exists() for source in sources)
