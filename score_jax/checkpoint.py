"""A train state to disk and back, bit for bit.

A stage has one folder, one program writes it, and any may read it:

    <step>/params/        the parameters, which evaluation and stage II read
    <step>/rest/          the other leaves of the state
    <step>/meta/          the score and what the caller adds, as JSON
    <step>/manifest.json  size and digest of every file above
    damaged-<step>/       what `restore` moved aside; nothing deletes it

A step appears at once (`step_files.py`), so a kill at any moment leaves whole
steps and litter. A step without a full manifest is damaged: cut short by a
failing disk, or by a kill while it was being deleted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp

from score_jax import commits, places, processes, step_files
from score_jax.fingerprint import named
from score_jax.places import Place
from score_jax.step_files import ITEMS, newest_step, steps


class CheckpointError(RuntimeError):
  """A checkpoint that cannot be written, found or used; the text says why."""


@dataclasses.dataclass
class _Manifest:
  """What Orbax calls, without a word on the step, when its files are written."""

  folder: Place
  step: int | None = None

  def __call__(self) -> None:
    step_files.write_manifest(self.folder, self.step)


@dataclasses.dataclass(frozen=True)
class Checkpoints:
  """The checkpoints of one stage, as the program that writes them sees them."""

  folder: Place
  manager: ocp.CheckpointManager
  manifest: _Manifest  # Of the save under way.
  report: Callable[[str], None]  # Takes one line for people to read.
  meeting: commits.Meeting | None  # Of the processes, where there are several.

  def save(
    self, step: int, state: Any, meta: Mapping[str, Any], score: float
  ) -> None:
    """Copies a state off the devices, and writes it in the background.

    Its buffers may be donated when this returns. Once the step is whole on
    disk, steps that are neither among the newest nor the best are deleted.

    Args:
      step: number of updates; none of the steps in the folder.
      state: pytree of jax Arrays, none of them empty or a typed random key,
        with a part `params` and at least one leaf beside it.
      meta: anything that JSON can hold.
      score: figure of merit, higher is better; of equal ones the earlier step
        is the best, and NaN is below all numbers.

    Raises:
      CheckpointError: if this step cannot be written, or the one before could
        not be, by any process; on all of them. Older steps are untouched, and
        the next save may succeed.
    """
    record = json.loads(json.dumps({'score': score, 'meta': meta}))
    jax.block_until_ready(state)  # A failed update is not a failed save.
    self.wait()
    with self._writing():
      there = processes.decide(self._tidied)
    if step in there:
      raise CheckpointError(f'Step {step} is in {self.folder} already.')
    items = _items(named(state))
    self.manifest.step = step
    if self.meeting:
      self.meeting.begin()
    # What fails here on one of several processes, the others do not hear of:
    # it ends the job. What may fail for want of room fails in the background.
    with contextlib.nullcontext() if self.meeting else self._writing():
      self.manager.save(
        step,
        args=ocp.args.Composite(
          params=ocp.args.StandardSave(items['params']),
          rest=ocp.args.StandardSave(items['rest']),
          meta=ocp.args.JsonSave(record),
        ),
        metrics={'score': score},
        force=True,
      )

  def restore(
    self, target: Any, last: int | None = None
  ) -> tuple[Any, Any] | None:
    """Returns the state and meta of the newest whole step, or None.

    Damaged steps are reported and moved aside, so that training can write
    them again.

    Args:
      target: the state as arrays or `ShapeDtypeStruct`s, with the shardings
        that it shall have; they need not be those it was saved with.
      last: later steps than this are left alone; None: there are none.

    Raises:
      CheckpointError: if names, shapes or dtypes differ from the target's.
    """
    self.wait()
    for step in processes.decide(lambda: steps(self.folder))[::-1]:
      if last is not None and step > last:
        continue
      fault = _agreed_fault(self.folder / str(step), ITEMS)
      if not fault:
        return _read(self.folder / str(step), target)
      self._move_aside(step, fault)
    return None

  def wait(self) -> None:
    """Returns when the last save is on disk.

    Raises:
      CheckpointError: if it could not be written; raised once.
    """
    with self._writing():
      self.manager.wait_until_finished()

  def close(self) -> None:
    """Waits for the last save and ends the threads; errors as in `wait`."""
    try:
      self.wait()
    finally:
      self.manager.close()

  def _tidied(self) -> list[int]:
    # A save fails with the first of its threads; others may write on for a
    # while, and make the folder anew that was deleted on that account.
    with contextlib.suppress(OSError):  # It writes just now.
      step_files.remove_unfinished(self.folder)
    return steps(self.folder)

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    try:
      yield
    except Exception as error:
      with contextlib.suppress(OSError), places.access(self.folder):
        _remove_unfinished(self.folder)
        # It has already forgotten the steps that this save was to replace.
        self.manager.reload()
      raise CheckpointError(
        f'A checkpoint could not be written to {self.folder}: '
        f'{_reason(commits.Temporary.fault or error)}. The older ones are '
        'untouched, and a later save may succeed.'
      ) from error

  def _move_aside(self, step: int, fault: str) -> None:
    processes.decide(lambda: self._rename(step, fault))
    self.manager.reload()

  def _rename(self, step: int, fault: str) -> None:
    path = self.folder / str(step)
    with self._writing():
      aside = step_files.move_aside(path)
    before = newest_step(self.folder)
    then = 'None is left before it' if before is None else f'Trying {before}'
    self.report(
      f'The checkpoint {path} is damaged: {fault}. It is now {aside.name}. '
      f'{then}.'
    )


def open_checkpoints(
  folder: Place, keep: int, report: Callable[[str], None]
) -> Checkpoints:
  """Returns a folder of checkpoints for the one program that writes it.

  Args:
    folder: made if it is not there; what a kill left unfinished is deleted.
    keep: newest steps to keep; the best one stays beside them.
    report: called with one line for each damaged checkpoint.

  Raises:
    CheckpointError: if the folder cannot be made.
  """
  _quieten_orbax()
  folder = places.absolute(folder)
  try:
    places.make(folder)
    _remove_unfinished(folder)
  except OSError as error:
    raise CheckpointError(f'{folder}: {_reason(error)}.') from error
  manifest = _Manifest(folder)
  meeting = commits.Meeting() if processes.several() else None
  renamed = meeting and not places.is_bucket(folder)
  options = ocp.CheckpointManagerOptions(
    preservation_policy=_NewestAndBest(folder, keep),
    temporary_path_class=commits.Temporary if renamed else None,
    async_options=ocp.AsyncOptions(
      barrier_sync_fn=meeting,
      # Runs in the background, on one process, before the step is renamed to
      # its final name: hashing costs no training time, and no step is ever
      # without its manifest.
      post_finalization_callback=manifest,
      # On a disk, so that a folder that cannot be written is refused in `save`;
      # in a bucket each takes several questions, for which nobody waits.
      create_directories_asynchronously=places.is_bucket(folder),
    ),
  )
  manager = ocp.CheckpointManager(folder, options=options)
  return Checkpoints(folder, manager, manifest, report, meeting)


def is_damaged(folder: Place, step: int, read: Sequence[str] = ITEMS) -> bool:
  """Returns whether a step is not what was written.

  Args:
    folder: of a stage.
    step: that is there.
    read: which of its parts are read for it; of the others, and of all that is
      in a bucket, the sizes are seen.
  """
  return bool(_fault(folder / str(step), ITEMS, read))


def read_meta(folder: Place, step: int) -> Any:
  """Returns what the caller added to a step."""
  return _record(folder / str(step))['meta']


def best_first(folder: Place) -> list[int]:
  """Returns the steps in a folder from the best to the worst.

  Of equal scores the earlier step is the better; a score that is NaN or
  cannot be read is below all others.
  """
  return sorted(
    steps(folder), key=lambda step: (-_score(folder / str(step)), step)
  )


def best_step(folder: Place) -> int | None:
  """Returns the step with the highest score, or None if there is none."""
  return next(iter(best_first(folder)), None)


def score(folder: Place, step: int) -> float:
  """Returns a step's score; -inf if it is NaN or cannot be read."""
  return _score(folder / str(step))


def restore_params(
  folder: Place,
  candidates: Iterable[int],
  target: Any,
  report: Callable[[str], None],
) -> tuple[Any, Any]:
  """Returns the parameters and meta of the first whole step of several.

  As `restore_part`, of which it reads the parameters, all there are.
  """
  state, meta = restore_part(folder, candidates, {'params': target}, report)
  return state['params'], meta


def restore_part(
  folder: Place,
  candidates: Iterable[int],
  target: Mapping[str, Any],
  report: Callable[[str], None],
) -> tuple[Any, Any]:
  """Returns a part of the state, and meta, of the first whole step of several.

  Reads nothing else, and changes nothing in the folder: it may be called while
  another program trains.

  Args:
    folder: of a stage.
    candidates: steps in order of preference, as `best_first` returns them.
    target: {'params': tree} or {another field of the state: a part of its
      tree}, of arrays or `ShapeDtypeStruct`s, with the shardings that they
      shall have. Of the parameters it names all or none.
    report: called with one line for each damaged checkpoint.

  Raises:
    CheckpointError: if no candidate is whole, or if names, shapes or dtypes
      differ from the target's.
  """
  _quieten_orbax()
  candidates = list(candidates)
  items = [item for item, wanted in _items(named(target)).items() if wanted]
  for step in candidates:
    path = places.absolute(folder) / str(step)
    fault = _agreed_fault(path, (*items, 'meta'))
    if not fault:
      return _read(path, target, whole='rest' not in items)
    if jax.process_index() == 0:
      report(f'The checkpoint {path} is damaged, and passed over: {fault}.')
  raise CheckpointError(
    f'{folder} holds no whole checkpoint among the steps {candidates}.'
  )


@dataclasses.dataclass(frozen=True)
class _NewestAndBest:
  """Which steps stay; Orbax asks when a save starts and acts when it is done."""

  folder: Place
  keep: int

  def should_preserve(
    self, checkpoints: Sequence[Any], *, context: Any
  ) -> list[bool]:
    """Returns of each checkpoint whether it stays."""
    del context
    scores = {
      info.step: _number(info.metrics['score'])
      if info.metrics
      else _score(self.folder / str(info.step))
      for info in checkpoints
    }
    best = min(scores, key=lambda step: (-scores[step], step))
    stay = {best, *sorted(scores)[-self.keep :]}
    return [info.step in stay for info in checkpoints]


def _number(score: float) -> float:
  return -math.inf if math.isnan(score) else score


def _score(path: Place) -> float:
  try:
    return _number(_record(path)['score'])
  except places.Unreachable:  # Else the best one might be deleted.
    raise
  except (OSError, ValueError, TypeError, KeyError):
    return -math.inf


def _record(path: Place) -> Any:
  return json.loads(places.read_text(path / 'meta' / 'metadata'))


def _items(named: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
  items = {'params': {}, 'rest': {}}
  for name, leaf in named.items():
    item = 'params' if name.split('/')[0] == 'params' else 'rest'
    items[item][name] = leaf
  return items


def _read(path: Place, target: Any, whole: bool = True) -> tuple[Any, Any]:
  """Returns (a tree like the target, meta) from a step known to be whole.

  Args:
    path: of the step.
    target: what to read.
    whole: whether it has to name all that was written, item by item.
  """
  by_name = named(target)
  items = {item: wanted for item, wanted in _items(by_name).items() if wanted}
  for item, wanted in items.items():
    _check_fits(path / item, wanted, whole)
  leaves = {}
  for item, wanted in items.items():
    leaves |= _read_item(path / item, wanted)
  state = jax.tree.unflatten(
    jax.tree.structure(target), [leaves[name] for name in by_name]
  )
  return state, _record(path)['meta']


def _read_item(path: Place, wanted: Mapping[str, Any]) -> dict[str, Any]:
  for name, leaf in wanted.items():
    if leaf.sharding is None:
      raise CheckpointError(
        f'The target of a restore needs a sharding for {name}; got none.'
      )
  abstract = {
    name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
    for name, leaf in wanted.items()
  }
  how = ocp.args.PyTreeRestore(
    item=abstract,
    restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
    partial_restore=True,  # `_check_fits` says what may be left out.
  )
  with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
    return checkpointer.restore(path, args=how)


def _check_fits(path: Place, wanted: Mapping[str, Any], whole: bool) -> None:
  """Refuses what Orbax would cast in silence, or name less clearly."""
  saved = dict(ocp.StandardCheckpointHandler().metadata(path))
  names = saved.keys() | wanted.keys() if whole else wanted.keys()
  pairs = {
    name: (_describe(saved.get(name)), _describe(wanted.get(name)))
    for name in sorted(names)
  }
  wrong = [
    f'{name} is {there} there and {here} here'
    for name, (there, here) in pairs.items()
    if there != here
  ]
  if wrong:
    more = f'; and {len(wrong) - 3} more' if len(wrong) > 3 else ''
    raise CheckpointError(
      f'The checkpoint {path} does not fit: {"; ".join(wrong[:3])}{more}. Use '
      'the model and optimizer it was written with, or another folder.'
    )


def _describe(leaf: Any) -> str:
  return 'absent' if leaf is None else f'{leaf.dtype}{list(leaf.shape)}'


def _agreed_fault(path: Place, items: Sequence[str]) -> str:
  """Returns what is wrong with a step, or ''; one reads the files for all."""
  return processes.decide(lambda: _fault(path, items))


def _fault(
  path: Place, items: Sequence[str], read: Sequence[str] = ITEMS
) -> str:
  try:
    return step_files.fault(path, items, read)
  except OSError as error:
    raise CheckpointError(f'{error.filename}: {_reason(error)}.') from error


def _remove_unfinished(folder: Place) -> None:
  if jax.process_index() == 0:
    step_files.remove_unfinished(folder)


def _reason(error: Exception) -> str:
  """Returns the system's words for an error that may be pages long."""
  if isinstance(error, commits.SaveFailed):
    return str(error)
  if isinstance(error, OSError):
    return places.words(error)
  code = re.search(r"os_error_code='(\d+)'", str(error))
  if code:
    return os.strerror(int(code[1]))
  first_line = str(error).partition('\n')[0].rstrip('.')
  return f'{type(error).__name__}: {first_line}'


def _quieten_orbax() -> None:
  logging.getLogger('absl').addFilter(_not_from_orbax)


def _not_from_orbax(record: logging.LogRecord) -> bool:
  # Every failure it logs, by hundreds of lines, it also raises.
  return f'{os.sep}orbax{os.sep}' not in record.pathname
