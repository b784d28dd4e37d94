"""The command line as its user sees it: one line says what to do."""

import fcntl
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from absl import flags
from absl.testing import flagsaver

from score_jax import claims, job, main, processes, run, stopping
from score_jax.config import ConfigError

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture
def parse(monkeypatch, capsys):
  """Returns a function: arguments to the settings, or to what is refused."""

  def run(*arguments):
    argv = ['main', *arguments]
    monkeypatch.setattr(sys, 'argv', argv)  # Where ml_collections looks.
    sys.modules.pop('config_config', None)  # And where it leaves the file.
    with flagsaver.flagsaver():
      try:
        main.parse(argv)
        return flags.FLAGS.config
      except SystemExit as end:
        assert end.code == 2
    shown = capsys.readouterr()
    assert shown.out == ''
    return _only_line(shown.err)

  return run


def _only_line(text):
  """Returns what the one line of an error says."""
  assert text.endswith('\n')
  assert text.count('\n') == 1
  assert text.startswith('score_jax: ')
  return text.removeprefix('score_jax: ').rstrip()


def _command(*arguments, **options):
  """Returns the finished process of a command on one device."""
  environment = os.environ | {'XLA_FLAGS': '', 'JAX_PLATFORMS': 'cpu'}
  return subprocess.run(
    [sys.executable, '-m', 'score_jax.main', *arguments],
    cwd=ROOT,
    env=environment,
    capture_output=True,
    text=True,
    timeout=120,
    **options,
  )


def _refusal(*arguments):
  """Returns the one line with which a command ends."""
  ended = _command(*arguments)
  assert ended.returncode == 2
  assert ended.stdout == ''
  return _only_line(ended.stderr)


def test_without_a_config_both_stages_of_the_bundled_task_are_run(parse):
  config = parse()
  assert (config.job, config.preset) == ('score', 'arithmetic')


@pytest.mark.parametrize('job', ['pretrain', 'stage1', 'stage2', 'score'])
def test_a_config_file_takes_a_preset_as_its_argument(parse, job):
  config = parse(f'--config={ROOT}/configs/{job}.py:math')
  assert (config.job, config.preset) == (job, 'math')


def test_a_setting_on_the_command_line_has_the_last_word(parse):
  config = parse(
    f'--config={ROOT}/configs/score.py:math',
    '--config.seed=3',
    '--config.method.alpha=2',
    '--config.turns=3',
    '--config.sampling.max_tokens=(6, 7, 8)',
    '--config.log.tensorboard=false',
  )
  assert (config.seed, config.method.alpha, config.turns) == (3, 2.0, 3)
  assert config.sampling.max_tokens == (6, 7, 8)
  assert config.log.tensorboard is False


@pytest.mark.parametrize(
  ('argument', 'text'),
  [
    ('--config.sed=1', 'sed is not a setting (did you mean seed?).'),
    (
      '--config.optimizer.learnig_rate=1',
      'optimizer.learnig_rate is not a setting '
      '(did you mean optimizer.learning_rate?).',
    ),
    (
      '--config.seed=1.5',
      "seed must be a whole number; got '1.5'; the default is 0.",
    ),
    (
      '--config.log.tensorboard=maybe',
      "log.tensorboard must be True or False; got 'maybe'; the default is True.",
    ),
    (
      '--config.method.alpha=ten',
      "method.alpha must be a number; got 'ten'; the default is 10.0.",
    ),
    (
      '--config.seed',
      'seed needs its value behind a =, as --config.seed=0.',
    ),
    (
      '--config.optimizer=sgd',
      'optimizer is a group of settings; set one of them, as '
      '--config.optimizer.b1=VALUE.',
    ),
    (
      '--config=configs/score.py:maht',
      "TASK one of math, mbpp; got 'maht' (did you mean math?).",
    ),
    (
      '--config=nowhere.py',
      "--config: [Errno 2] No such file or directory: 'nowhere.py'; give a "
      'file of configs/, which holds __init__.py, evaluate.py,',
    ),
    (
      '--cofnig=configs/score.py',
      '--cofnig is not a flag (did you mean config?); see --help.',
    ),
    ('--workdri=a', '--workdri is not a flag (did you mean workdir?); see'),
    ('--config', 'Missing value for flag --config'),
    ('--workdir', 'Missing value for flag --workdir'),
  ],
)
def test_a_bad_argument_is_refused_in_one_line(
  parse, monkeypatch, argument, text
):
  monkeypatch.chdir(ROOT)
  assert text in parse(argument)


SETTINGS = 'from configs import presets\ndef get_config(preset=""):\n'


@pytest.mark.parametrize(
  ('source', 'line', 'words'),
  [
    ('x = = 3\n', 1, 'invalid syntax'),
    ('import nowhere\n', 1, "No module named 'nowhere'"),
    (
      SETTINGS
      + '  config = presets.make("score", preset)\n'
      + '  config.optimizer.learnig_rate = 1.0\n',
      4,
      'Did you mean "learning_rate" instead of "learnig_rate"?',
    ),
    (
      SETTINGS
      + '  config = presets.make("score", preset)\n'
      + '  config.seed = "a"\n',
      4,
      "field 'seed'",
    ),
    (SETTINGS + '  open("/nowhere")\n', 3, 'No such file'),
    (SETTINGS + '  return {}["a"]\n', 3, "KeyError: 'a'"),
  ],
)
def test_a_fault_in_a_config_file_is_shown_with_file_and_line(
  parse, tmp_path, source, line, words
):
  path = tmp_path / 'mine.py'
  path.write_text(source)
  text = parse(f'--config={path}')
  assert text.startswith(f'{path}, line {line}: ')
  assert words in text


@pytest.mark.parametrize(
  'source',
  [
    'x = 1\n',
    'def get_config():\n  pass\n',
    'def get_config():\n  return {}\n',
  ],
)
def test_a_config_file_that_gives_no_settings_is_told_what_to_give(
  parse, tmp_path, source
):
  path = tmp_path / 'mine.py'
  path.write_text(source)
  text = parse(f'--config={path}')
  assert 'needs a function get_config that returns what presets.make' in text


def test_a_stray_argument_is_refused():
  text = _refusal('configs/stage2.py')
  assert text.startswith("'configs/stage2.py' is no flag; settings are")


def test_a_signal_while_processes_agree_is_heard_the_next_time(monkeypatch):
  stop = stopping.Stop()

  def agree(flag):
    stop._note(signal.SIGTERM, None)
    return flag

  monkeypatch.setattr(processes, 'agree', agree)
  assert not stop.heard()  # As on the others, which have heard of nothing.
  assert stop.heard()


def test_a_bucket_is_refused_as_a_work_directory():
  text = _refusal('--workdir=gs://mine/run')
  assert text.startswith('--workdir=gs://mine/run is no folder. Give one, for')
  assert text.endswith('--config.checkpoint.folder=gs://BUCKET/FOLDER.')


def test_processes_that_were_started_differently_are_refused_by_the_setting(
  parse, tmp_path, monkeypatch
):
  for name, value, words in (
    ('method.alpha', 5.0, '10.0 and process 1 5.0'),
    ('--workdir', '/other', f"'{tmp_path}' and process 1 '/other'"),
  ):
    monkeypatch.setattr(
      processes,
      'share',
      lambda work, more=((name, value),): [work(), work() | dict(more)],
    )
    with pytest.raises(ConfigError) as raised:
      run.together(parse(), tmp_path, 0.0)
    assert str(raised.value).startswith(
      f'{name} must be the same for all processes; process 0 has {words}'
    )
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  ('what', 'words'),
  [
    ("the weights in model.path='m'", "the weights in model.path='m' of"),
    ('the test problems', 'the test problems of'),
  ],
)
def test_processes_that_read_different_files_are_refused(
  monkeypatch, what, words
):
  monkeypatch.setattr(
    processes, 'share', lambda work: [work(), work(), work() | {what: 'other'}]
  )
  with pytest.raises(ConfigError) as raised:
    job._check_alike('m', 'a hash', {'train': None, 'test': None})
  assert str(raised.value).startswith(
    f'{words} process 2 differ from those of process 0'
  )


def test_a_table_of_several_processes_is_refused(tmp_path):
  ended = subprocess.run(
    [sys.executable, '-m', 'score_jax.table', f'--workdir={tmp_path}'],
    cwd=ROOT,
    env=os.environ | {'SCORE_COORDINATOR': 'auto'},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert ended.returncode == 2
  assert 'score_jax.table is for one process' in _only_line(ended.stderr)


def test_settings_are_refused_before_tensorflow_is_loaded(tmp_path):
  """Those that need the devices too: a batch that the mesh does not divide."""
  program = (
    'import sys\n'
    'from absl import app\n'
    'from score_jax import main\n'
    'try:\n'
    '  app.run(main.main, flags_parser=main.parse)\n'
    'except SystemExit as end:\n'
    '  heavy = {"tensorflow", "seqio", "transformers"} & {*sys.modules}\n'
    '  print(end.code, sorted(heavy))\n'
  )
  ended = subprocess.run(
    [
      sys.executable,
      '-c',
      program,
      '--config.train.trajectories=100',
      f'--workdir={tmp_path}/run',
    ],
    cwd=ROOT,
    env=os.environ | {'XLA_FLAGS': ''},
    capture_output=True,
    text=True,
    timeout=120,
  )
  text = _only_line(ended.stderr)
  assert text.startswith('train.trajectories=100 is not a whole number')
  assert ended.stdout == '2 []\n'
  assert not (tmp_path / 'run').exists()


def test_a_model_that_is_not_there_is_refused_and_nothing_is_claimed(tmp_path):
  text = _refusal(
    f'--workdir={tmp_path}', f'--config.model.path={tmp_path}/nowhere'
  )
  assert text.startswith(f"model.path='{tmp_path}/nowhere' is not a folder")
  assert 'bundled' in text
  assert not (tmp_path / 'config.json').exists()


def test_a_workdir_that_cannot_be_written_is_refused(tmp_path):
  (tmp_path / 'file').write_text('')
  text = _refusal(f'--workdir={tmp_path}/file/run')
  assert text == (
    f'--workdir={tmp_path}/file/run cannot be written (Not a directory); '
    'give another.'
  )


def test_a_workdir_in_use_is_refused(tmp_path):
  with open(tmp_path / '.lock', 'w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    text = _refusal(f'--workdir={tmp_path}')
  assert text.startswith(f'--workdir={tmp_path} is in use by another job')


def test_a_workdir_of_other_settings_is_refused_with_both_values(
  parse, tmp_path
):
  config = parse('--config.method.alpha=3')
  (tmp_path / 'config.json').write_text(config.to_json())
  before = (tmp_path / 'config.json').read_bytes()
  text = _refusal(f'--workdir={tmp_path}', '--config.method.alpha=4')
  assert text == (
    f'method.alpha=4.0, but {tmp_path} holds a run with 3.0; give another '
    '--workdir (make demo: WORKDIR=DIR), or set it back.'
  )
  assert (tmp_path / 'config.json').read_bytes() == before


def test_a_run_older_than_a_setting_goes_on_at_its_default_alone(
  parse, tmp_path
):
  config = parse()
  saved = json.loads(config.to_json())
  del saved['method']['alpha'], saved['grading']
  (tmp_path / 'config.json').write_text(json.dumps(saved))
  assert claims.is_claimed(config, tmp_path)
  for name, value, default in (
    ('method.alpha', 4.0, 10.0),
    ('grading.seconds', 3.0, 0.0),
  ):
    changed = parse(f'--config.{name}={value}')
    with pytest.raises(ConfigError) as refused:
      claims.is_claimed(changed, tmp_path)
    assert str(refused.value) == (
      f'{name}={value}, but {tmp_path} holds a run with {default} (it is older '
      'than the setting); give another --workdir (make demo: WORKDIR=DIR), or '
      'set it back.'
    )


def test_a_run_of_a_setting_that_is_no_more_is_refused_by_its_name(
  parse, tmp_path
):
  config = parse()
  saved = json.loads(config.to_json())
  saved['method']['momentum'] = 0.5
  (tmp_path / 'config.json').write_text(json.dumps(saved))
  with pytest.raises(ConfigError, match=r'method\.momentum=0\.5, which is no'):
    claims.is_claimed(config, tmp_path)


@pytest.mark.parametrize('code', ['75', None])
def test_a_stopped_job_exits_with_the_code_that_a_launcher_asked_for(
  runs, tmp_path, monkeypatch, code
):
  if code:
    monkeypatch.setenv('SCORE_STOPPED_CODE', code)
  process = runs.start(tmp_path)
  deadline = time.monotonic() + 60
  while not (tmp_path / '.lock').exists():  # From then on it listens.
    assert process.poll() is None, process.communicate()
    assert time.monotonic() < deadline
    time.sleep(0.05)
  process.terminate()
  said, errors = process.communicate(timeout=60)
  assert 'stopped; the same command goes on from' in said, errors
  assert process.returncode == int(code or 0)


@pytest.mark.parametrize('code', ['', '-1', '256', 'seventy'])
def test_what_is_no_exit_code_is_refused_as_that_of_a_stopped_job(
  monkeypatch, code
):
  monkeypatch.setenv('SCORE_STOPPED_CODE', code)
  with pytest.raises(ConfigError, match=f'0 to 255; got {code!r}'):
    run.stopped_code()
