"""Of which files does a step's checkpoint consist, and are they whole?

On a disk a step appears by the renaming of a finished folder; in a bucket its
folder has its name from the start, and one file more when it is finished.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from score_jax import places
from score_jax.places import Place

MANIFEST = 'manifest.json'
UNFINISHED = '*.orbax-checkpoint-tmp'  # As Orbax names what it is writing,
FINISHED = 'commit_success.txt'  # and says that it has written it.
ITEMS = ('params', 'rest', 'meta')


def steps(folder: Place) -> list[int]:
  """Returns the steps in a folder, whole or not, in growing order."""
  names = _numbered(folder)
  if places.is_bucket(folder):
    names = [n for n in names if places.exists(folder / n / FINISHED)]
  return sorted(map(int, names))


def _numbered(folder: Place) -> list[str]:
  return [
    name
    for name in places.entries(folder)
    if re.fullmatch('[0-9]+', name) and places.is_folder(folder / name)
  ]


def newest_step(folder: Place) -> int | None:
  """Returns the newest step in a folder, or None if there is none."""
  return max(steps(folder), default=None)


def unfinished(folder: Place) -> list[Place]:
  """Returns the folders of steps that are being written, or never were."""
  if not places.is_bucket(folder):
    return sorted(folder.glob(UNFINISHED))
  finished = {str(step) for step in steps(folder)}
  return [folder / n for n in _numbered(folder) if n not in finished]


def remove_unfinished(folder: Place) -> None:
  """Deletes what a kill, or a save that failed, left behind."""
  for path in unfinished(folder):
    places.remove(path)


def write_manifest(folder: Place, step: int) -> None:
  """Writes size and digest of each file of a step about to be finished.

  In a bucket a damaged object is one that is not there, or of another size: the
  service compares its checksums itself.
  """
  name = str(step)
  if not places.is_bucket(folder):
    name = UNFINISHED.replace('*', name)
  path = folder / name
  manifest = {}
  for item in ITEMS:
    for name in places.below(path / item):
      file = path / item / name
      manifest[f'{item}/{name}'] = [places.size(file), places.digest(file)]
      # Since older steps are deleted on its account.
      places.flush(file)
  text = json.dumps(manifest, indent=2) + '\n'
  places.write_bytes(path / MANIFEST, text.encode())


def fault(
  path: Place, items: Sequence[str], read: Sequence[str] = ITEMS
) -> str:
  """Returns what is wrong with the files of a step, or ''.

  Args:
    path: of the step.
    items: which of its parts are looked at.
    read: of which of these the bytes are read, where there are digests of them;
      of the others the sizes are seen.

  Raises:
    PermissionError, Unreachable: which say nothing about the bytes.
  """
  try:
    manifest = json.loads(places.read_text(path / MANIFEST))
    for name, (size, digest) in manifest.items():
      item = name.split('/')[0]
      if item not in items:
        continue
      found = places.size(path / name)
      if found != size:
        return f'{name} has {found} bytes instead of {size}'
      # One that was copied from a bucket, or to one, has only its size there.
      known = places.digest(path / name) if digest and item in read else ''
      if known and known != digest:
        return f'{name} holds other bytes than were written'
  except (PermissionError, places.Unreachable):
    raise
  except OSError as error:
    return f'{error.filename}: {places.words(error)}'
  except ValueError:
    return f'{MANIFEST} cannot be read'
  return ''


def move_aside(path: Place) -> Place:
  """Gives a step a name that says that it is damaged; returns its new place."""
  aside = path.with_name(f'damaged-{path.name}')
  free, number = aside, 1
  while places.exists(free):
    number += 1
    free = aside.with_name(f'{aside.name}-{number}')
  places.move(path, free)
  return free
