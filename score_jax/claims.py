"""Whose work is in a folder, and where are its checkpoints?"""

from __future__ import annotations

import json
import pathlib
from typing import Any

from ml_collections import ConfigDict

from score_jax import config as config_lib
from score_jax import files, places
from score_jax.config import ConfigError
from score_jax.places import Place
from score_jax.spare import FILES, Spare, WRITER

# Settings that may change between a run and its continuation: they change
# where and how fast it runs, or what is shown, not what is learned.
FREE = (
  'job',
  'log.',
  'checkpoint.keep',
  'mesh.',
  'limits.',
  'compilation.',
  'profile.',
  'model.path',  # The reference's hash stands for it.
  'model.remat',
  'model.unroll',
  'model.attention',
  'model.products',
  'model.logits_chunk',
  'model.reference_on_host',
  'sampling.grow',
  'sampling.refill',
  'sampling.compact',
  'train.widths',
  'sampling.layout',
  'pretrain.',
  'table.',
)
FOLDER = 'checkpoint.folder'
# Of a work directory, and of a folder of checkpoints, in a refusal.
WORKDIR_REMEDY = 'give another --workdir (make demo: WORKDIR=DIR)'
FOLDER_REMEDY = f'give another {FOLDER}'


def claim(config: ConfigDict, workdir: pathlib.Path) -> None:
  """Writes the settings to a work directory: its work is theirs from now on."""
  files.write_json(workdir / 'config.json', json.loads(config.to_json()))


def is_claimed(config: ConfigDict, workdir: pathlib.Path) -> bool:
  """Returns whether a work directory holds work already, of these settings.

  Raises:
    ConfigError: if it holds the work of other settings.
  """
  path = workdir / 'config.json'
  if not path.exists():
    return False
  saved = _settings(path, 'give another --workdir')
  _compare(config, saved, workdir, WORKDIR_REMEDY, FREE)
  return True


def same_model(config: ConfigDict, workdir: pathlib.Path) -> bool:
  """Returns whether the work in a folder is of the model in the same place.

  What lies elsewhere may be the same; its hash says so once it is loaded.
  """
  saved = files.read_json(workdir / 'config.json')
  return saved['model']['path'] == config.model.path


def checkpoints(config: ConfigDict, workdir: pathlib.Path) -> Place:
  """Returns the folder of a run's checkpoints, in which each stage has one.

  Raises:
    ConfigError: if it is in a bucket, and a package is missing for that.
  """
  if not config.checkpoint.folder:
    return workdir / 'checkpoints'
  return places.at(config.checkpoint.folder, FOLDER)


def spare(config: ConfigDict, workdir: pathlib.Path) -> Spare | None:
  """Returns what makes up for a work directory that is lost, if anything does.

  Raises:
    ConfigError: if checkpoint.folder is in a bucket, and a package is missing.
  """
  if not config.checkpoint.folder:
    return None
  return Spare(checkpoints(config, workdir), workdir)


def bring_back(config: ConfigDict, found: Spare) -> bool:
  """Brings back what a work directory has lost; returns whether it did.

  Raises:
    ConfigError: if checkpoint.folder cannot be read, or is another run's.
  """
  is_claimed(config, found.workdir)  # Else its own work would be replaced.
  try:
    _check_owner(config, found.folder)
    return found.bring_back()
  except OSError as error:
    raise ConfigError(
      f'{FOLDER}={found.folder} cannot be read ({places.words(error)}); see to '
      'it, or give another.'
    ) from error


def take_over(found: Spare) -> None:
  """Has another job that writes to checkpoint.folder end.

  Raises:
    ConfigError: if it cannot be written.
  """
  try:
    found.take_over()
  except OSError as error:
    raise ConfigError(
      f'{FOLDER}={found.folder} cannot be written ({places.words(error)}); see '
      'to it, or give another.'
    ) from error


def _check_owner(config: ConfigDict, folder: Place) -> None:
  """Refuses the checkpoints of another run."""
  path = folder / FILES / 'config.json'
  if places.exists(path):
    saved = _settings(path, FOLDER_REMEDY)
    # The folder itself may be mounted elsewhere.
    _compare(config, saved, folder, FOLDER_REMEDY, (*FREE, FOLDER))
  elif held := [x for x in places.entries(folder) if x not in (FILES, WRITER)]:
    raise ConfigError(
      f'{FOLDER}={folder} holds {", ".join(held)} already, and no '
      f'{path} says of which run; {FOLDER_REMEDY}, or put the config.json of '
      'its work directory there.'
    )


def _settings(path: Place, remedy: str) -> dict[str, Any]:
  """Returns what a config.json holds.

  Raises:
    ConfigError: if it is damaged.
  """
  try:
    saved = json.loads(places.read_text(path))
    config_lib.flatten(config_lib.completed(saved))
  except (ValueError, AttributeError) as error:
    raise ConfigError(
      f'{path} is damaged, so nothing says whose work is there; restore it, or '
      f'{remedy}.'
    ) from error
  return saved


def _compare(
  config: ConfigDict,
  saved: dict[str, Any],
  where: Place,
  remedy: str,
  free: tuple[str, ...],
) -> None:
  """Refuses settings that are not those of a run that goes on.

  Args:
    config: all settings.
    saved: those of the run.
    where: the folder that holds it.
    remedy: what to do instead.
    free: settings that may differ, or how their names begin.
  """
  old = config_lib.flatten(config_lib.completed(saved))
  new = config_lib.flatten(json.loads(config.to_json()))
  for name in sorted(old.keys() | new.keys()):
    if name.startswith(free) or old.get(name) == new.get(name):
      continue
    if name not in new:
      raise ConfigError(
        f'{where} holds a run with {name}={old[name]!r}, which is no setting '
        f'any more; go on with the version that made it, or {remedy}.'
      )
    older = name not in config_lib.flatten(saved)
    raise ConfigError(
      f'{name}={new[name]!r}, but {where} holds a run with {old[name]!r}'
      f'{" (it is older than the setting)" if older else ""}; {remedy}, or set '
      'it back.'
    )
