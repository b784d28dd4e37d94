"""Flags in, a job out.

python -m score_jax.main --config=configs/stage2.py[:PRESET] [--workdir=DIR]
  [--config.some.setting=value ...]

Without arguments both stages are trained on the bundled model and task. All
settings are in score_jax/config.py, presets in configs/presets.py and models.py.
"""

from __future__ import annotations

import os
import pathlib
import re
import sys
import time
import traceback
from collections.abc import Sequence

# Read when TensorFlow and jax are imported, so they come before them.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')
os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')
os.environ.setdefault('TRANSFORMERS_VERBOSITY', 'error')

from absl import app, flags, logging
from ml_collections import config_flags, ConfigDict

from score_jax import checks, pages
from score_jax import config as config_lib
from score_jax.config import ConfigError

DEFAULT = pathlib.Path(__file__).parents[1] / 'configs' / 'score.py'
NO_SETTINGS = (
  '--config: the file needs a function get_config that returns what '
  'presets.make of configs/ returns.'
)
_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'A file of configs/, with :PRESET behind it.'
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Where all output goes; runs/PRESET if not given.'
)


def _fail(text: str) -> None:
  """Ends the program with one line that says what is wrong."""
  print(f'score_jax: {text}', file=sys.stderr)
  sys.exit(2)


def parse(argv: Sequence[str]) -> list[str]:
  """Returns the arguments behind the flags.

  What absl and ml_collections say of a bad setting is a traceback; here it is
  one line with the setting, the value and the remedy.
  """
  logging.set_verbosity(logging.ERROR)  # Else some of it is said twice.
  try:
    for name, value in _overrides(argv).items():
      config_lib.check_override(config_lib.default(), name, value)
    rest = flags.FLAGS(_with_config(argv))
    # A file not found says so now, when it is looked into.
    if {*_CONFIG.value.keys()} != {*config_lib.default().keys()}:
      _fail(NO_SETTINGS)
    return rest
  except flags.UnrecognizedFlagError as error:
    hint = config_lib.nearest(error.flagname, ('config', 'workdir'))
    return _fail(f'--{error.flagname} is not a flag{hint}; see --help.')
  except OSError as error:
    there = sorted(x.name for x in DEFAULT.parent.glob('*.py'))
    remedy = (
      f'--config: {_last_line(error)}; give a file of configs/, which holds '
      f'{", ".join(there)}.'
    )
    return _fail(_blame(error) or remedy)
  except AttributeError as error:  # No get_config, or None from it.
    return _fail(_blame(error) or NO_SETTINGS)
  except Exception as error:  # Whatever a config file or its parser raises.
    return _fail(_blame(error) or _last_line(error))


def _with_config(argv: Sequence[str]) -> list[str]:
  """Returns the arguments, with the default file where none is given.

  A default of the flag itself would be read, overrides and all, before `parse`
  can see to it that an error is one line.
  """
  given = any(a.lstrip('-').split('=')[0] == 'config' for a in argv[1:])
  return [*argv] if given else [argv[0], f'--config={DEFAULT}', *argv[1:]]


def _overrides(argv: Sequence[str]) -> dict[str, str | None]:
  """Returns {setting: value} of all arguments --config.setting=value."""
  found = {}
  for argument in argv:
    name, given, value = argument.lstrip('-').partition('=')
    if argument.startswith('-') and name.startswith('config.'):
      found[name.removeprefix('config.')] = value if given else None
  return found


def _blame(error: BaseException) -> str:
  """Returns what went wrong in a config file, and where; '' if nothing did."""
  chain = [error]
  while inner := chain[-1].__cause__ or chain[-1].__context__:
    chain.append(inner)
  for cause in reversed(chain):
    if isinstance(cause, ConfigError):
      return str(cause)
    if isinstance(cause, SyntaxError):
      return f'{cause.filename}, line {cause.lineno}: {cause.msg}.'
    places = [
      f'{frame.f_code.co_filename}, line {line}'
      for frame, line in traceback.walk_tb(cause.__traceback__)
      if frame.f_globals.get('__name__') == f'{_CONFIG.name}_config'
    ]
    if places:
      return f'{places[-1]}: {_one_line(cause)}'
  return ''


def _one_line(error: BaseException) -> str:
  """Returns an error in one line; ml_collections adds all other settings."""
  text = str(error).replace('\\n', ' ')  # As a KeyError writes a line's end.
  text = re.sub(r'Other fields present: .*}\W*', '', text)
  return f'{type(error).__name__}: {" ".join(text.split())}'


def _last_line(error: BaseException) -> str:
  """Returns the end of what absl and ml_collections say in many lines."""
  lines = str(error).strip().splitlines() or [type(error).__name__]
  return re.sub(r'^.* failure to load: ', '', lines[-1].strip())


def main(argv: Sequence[str]) -> None:
  """Runs the job that the flags describe."""
  if len(argv) > 1:
    _fail(f'{argv[1]!r} is no flag; settings are --config.NAME=VALUE.')
  config = _CONFIG.value
  if '://' in (_WORKDIR.value or ''):
    _fail(
      f'--workdir={_WORKDIR.value} is no folder. Give one, for several hosts '
      'on a file system that they share; checkpoints alone may be in a bucket: '
      '--config.checkpoint.folder=gs://BUCKET/FOLDER.'
    )
  workdir = pathlib.Path(_WORKDIR.value or f'runs/{config.preset}').absolute()
  try:
    _run(config, workdir)
  except ConfigError as error:
    _fail(str(error))


def _run(config: ConfigDict, workdir: pathlib.Path) -> None:
  started = time.monotonic()
  logging.set_verbosity(logging.WARNING)  # Libraries' notes are not for users.
  import jax  # Here, for refused flags should come in an instant.

  from score_jax import compilation, processes

  compilation.keep(config.compilation.folder, config.compilation.least_seconds)
  processes.connect(os.environ, config.limits.silent_seconds)
  from score_jax import base_model, run
  from score_jax.methods import catalogue

  base_model.model_folder(
    config
  )  # A mesh says little to who has no weights yet.
  # As it is set, and as the method runs beside others with other rows.
  for settings in (config, catalogue.on_equal_terms(config)):
    checks.check(settings, jax.device_count(), jax.default_backend())

  sys.exit(run.together(config, workdir, started))


if __name__ == '__main__':
  pages.ask()
  app.run(main, flags_parser=parse)
