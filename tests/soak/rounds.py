"""Runs under faults, one after the other, and what became of them."""

import collections
import pathlib
import signal
import subprocess
import time

import runs as small
import several
from compiling import QUICK

from score_jax import step_files

from . import compare, harm, plan
from .group import Group

EVERY = 4  # Steps between checkpoints.
STEPS = {'stage1': 16, 'stage2': 24}
POISONED = 'stage1:6,stage1:13,stage2:7,stage2:18'
LIMIT = 3  # Updates in a row that are not finite stop a run.
SETTINGS = {
  'train__stage1_steps': STEPS['stage1'],
  'train__stage2_steps': STEPS['stage2'],
  'checkpoint__every': EVERY,
  'eval__every': 8,
  'eval__problems': 20,
  'eval__batch': 20,
  'limits__nonfinite_updates': LIMIT,
}
SOON = 120.0  # Seconds for what has to end, on a busy machine.
GRACE = 30.0  # Seconds that the launcher gives those that still connect.
NO_ROOM = ('cannot be written', 'could not be written')


class Soak:
  """Runs under faults, and the count of those."""

  def __init__(
    self,
    folder: pathlib.Path,
    seed: int,
    processes: int,
    devices: int,
    can_fill: bool,
  ):
    """Takes where all goes, the seed, and how many processes of how many devices.

    `can_fill` says whether the disk of folder/disk is small and its own.
    """
    self.folder, self.processes = folder, processes
    self._runs = small.Runs(folder / 'compiled')
    self._devices, self._can_fill = devices, can_fill
    kinds = set(plan.WEIGHTS) - (set() if can_fill else {plan.FULL})
    self._faults = plan.faults(seed, processes, kinds)
    self._starts = plan.starts(seed)
    self._next: plan.Fault | None = None
    self.tried, self.survived = collections.Counter(), collections.Counter()
    self.wrong: list[str] = []
    self._excused: set[str] = set()  # Batches that there was no room to keep.
    self._began, self._attempts, self._rounds = time.monotonic(), 0, 0
    self._logs = folder / 'logs'
    self._logs.mkdir()

  def say(self, text: str) -> None:
    """Prints a line with the time since the start."""
    print(f'{time.monotonic() - self._began:7.1f} s  {text}', flush=True)

  def run(self, minutes: float) -> list[str]:
    """Returns what went wrong in runs under faults of so many minutes."""
    if not self._can_fill:
      self.say('no disk is filled: only root can mount a small one')
    unbroken = self.folder / 'unbroken'
    group = self._start(unbroken, '')
    try:
      if any(group.codes(20 * SOON)):
        return [f'the unbroken run failed:\n{group.said()}']
    finally:
      group.end()
    self.say('the unbroken run has ended; faults begin')
    deadline = time.monotonic() + 60 * minutes
    while time.monotonic() < deadline and not self.wrong:
      self._round(unbroken, deadline)
    return self.wrong

  def _round(self, unbroken: pathlib.Path, deadline: float) -> None:
    """Brings a run to its end under faults, and compares it."""
    workdir = self.folder / 'disk' / f'run{self._rounds + 1}'
    survived, self._excused = collections.Counter(), set()
    while not self.wrong:
      # Behind the time it is brought to its end, so that it can be compared.
      ended, done = self._attempt(workdir, time.monotonic() > deadline)
      survived += done
      if ended:
        break
    if self.wrong:
      return
    wanted = compare.batches(unbroken)
    excused = self._excused - compare.batches(workdir)
    excused |= compare.made_room(workdir, wanted)
    found = compare.differences(workdir, unbroken, STEPS, excused)
    kept = wanted - excused
    if missing := kept - compare.batches(workdir):
      found.append(f'batches that were not kept: {sorted(missing)}')
    self.wrong += [f'{workdir.name}: {text}' for text in found]
    if found:
      return
    self._rounds += 1
    survived[plan.BATCH] += len(kept)
    self.survived += survived
    self.say(f'{workdir.name} equals the unbroken run')
    subprocess.run(['rm', '-rf', str(workdir)], check=True)

  def _start(self, workdir: pathlib.Path, named: str) -> Group:
    self._attempts += 1
    settings = {'__'.join(k.split('.')): v for k, v in small.SMALL.items()}
    devices = f'--xla_force_host_platform_device_count={self._devices}'
    return Group(
      [
        str(pathlib.Path(__file__).with_name('poisoned.py')),
        *self._runs.arguments(workdir, **(settings | SETTINGS)),
      ],
      self._runs.environment()
      | {
        'PYTHONPATH': str(small.ROOT),
        'XLA_FLAGS': f'{QUICK} {devices}',
        'POISONED': ','.join(filter(None, (POISONED, named))),
      },
      self.processes,
      self._logs / f'{self._attempts:04}',
    )

  def _attempt(
    self, workdir: pathlib.Path, calm: bool
  ) -> tuple[bool, collections.Counter]:
    """Returns whether a start brought a run to its end, and its faults.

    Args:
      workdir: of the run.
      calm: whether nothing is to go wrong any more.
    """
    begun, faults = next(self._starts), collections.Counter()
    if begun.damage and not calm:
      how, place = begun.damage.how, begun.damage.place
      damaged = harm.damage(workdir, how, place, STEPS)
      if damaged:
        self.say(f'{workdir.name}: {begun.damage.how}: {damaged}')
        faults[plan.DAMAGE] += 1
    named = spoiled(workdir) if begun.spoil and not calm else ''
    if named:
      self.say(f'{workdir.name}: updates are not finite from {named}')
      faults[plan.SPOIL] += 1
    group = self._start(workdir, named)
    try:
      codes, expected = self._attend(group, workdir, faults, calm or named)
      self._check(group, codes, expected)
    except subprocess.TimeoutExpired:
      self._blame(group, 'a process did not end')
      codes = []
    finally:
      if left := group.left(15):
        self._blame(group, f'processes are left: {left}')
      group.end()
    self._excused |= compare.not_kept(group.said())
    self.tried += faults
    return bool(codes) and not any(codes), faults

  def _check(self, group: Group, codes: list[int], expected: set[int]) -> None:
    self.say(f'ended with {codes}')
    if not set(codes) <= expected | {0}:
      self._blame(group, f'exit codes {codes}, of {sorted(expected)}')

  def _blame(self, group: Group, text: str) -> None:
    end = group.said()[-6000:]
    self.wrong.append(f'start {self._attempts}: {text}; it said:\n{end}')

  def _attend(
    self,
    group: Group,
    workdir: pathlib.Path,
    faults: collections.Counter,
    calm: bool | str,
  ) -> tuple[list[int], set[int]]:
    """Returns the exit codes of processes under faults, and what they may be.

    Args:
      group: the processes.
      workdir: of the run.
      faults: counts those that happened.
      calm: whether nothing more goes wrong while they run.
    """
    expected = {1} if calm else set()
    seen = _Steps(workdir, group)
    while group.alive() and not calm:
      self._next = self._next or next(self._faults)
      if not seen.arrive(self._next):
        break  # It waits for the next start.
      fault, self._next = self._next, None
      self.say(f'{workdir.name}: {fault.kind}  {_words(fault)}')
      faults[fault.kind] += 1
      if fault.kind in (plan.FULL, plan.NARROW):
        self._take_room(group, workdir, fault)
        expected |= {1, 2, several.STOPPED, -signal.SIGABRT}
        continue
      return self._end(group, fault, expected)
    codes = group.codes(20 * SOON)
    if any(c in (1, 2) for c in codes) and not calm:
      words = group.said()
      if not any(x in words for x in NO_ROOM):
        self._blame(group, 'it failed, and not for want of room')
    return codes, expected

  def _take_room(
    self, group: Group, workdir: pathlib.Path, fault: plan.Fault
  ) -> None:
    """Takes all room from one process or from all, and gives it back."""
    until = time.monotonic() + fault.lasts
    if fault.kind == plan.NARROW:
      group.narrow(fault.process, True)
      time.sleep(fault.lasts)
      group.narrow(fault.process, False)
      return
    with harm.full(workdir.parent):
      while time.monotonic() < until:  # What is deleted makes room.
        harm.fill(workdir.parent / 'filler')
        time.sleep(0.01)

  def _end(
    self, group: Group, fault: plan.Fault, expected: set[int]
  ) -> tuple[list[int], set[int]]:
    """Ends processes; returns their exit codes, and what those may be."""
    one = group.processes[fault.process]
    starting = fault.after is None
    if fault.kind == plan.KILL_ALL:
      for process in group.processes:
        process.kill()
      return group.codes(SOON), {-signal.SIGKILL}
    ended = {several.STOPPED, -signal.SIGABRT}
    if fault.kind == plan.KILL_ONE:
      one.kill()
      expected = expected | ended | {-signal.SIGKILL}
    else:
      one.terminate()
      expected = expected | {several.STOPPED}
      if starting:  # Before it listens, the signal ends it.
        expected |= ended | {-signal.SIGTERM}
    try:
      return group.codes(GRACE if starting else SOON), expected
    except subprocess.TimeoutExpired:
      if not starting:
        raise
    # Those that wait for it to connect are ended by the launcher.
    for process in group.processes:
      process.kill()
    return group.codes(SOON), expected | {-signal.SIGKILL}

  def table(self) -> str:
    """Returns how often each fault happened, and was survived."""
    kinds = [*plan.WEIGHTS, plan.DAMAGE, plan.SPOIL, plan.BATCH]
    self.tried[plan.BATCH] = self.survived[plan.BATCH]
    lines = [f'{"fault":42}{"times":>7}{"survived":>10}']
    lines += [f'{k:42}{self.tried[k]:7}{self.survived[k]:10}' for k in kinds]
    total = sum(self.tried.values()), sum(self.survived.values())
    lines.append(f'{"all":42}{total[0]:7}{total[1]:10}')
    lines.append(
      f'{self._rounds} runs equal the unbroken one, in {self._attempts - 1} '
      f'starts of {self.processes} processes'
    )
    return '\n'.join(lines)


def spoiled(workdir: pathlib.Path) -> str:
  """Returns from which step on no update is finite, or ''.

  It lies right behind a save, so that the run stops before the next one.
  """
  newest = harm.newest_step(workdir)
  stage, done = ('stage1', 0)
  if newest is not None:
    stage, done = newest.parent.name, int(newest.name)
  if done == STEPS[stage] and stage == 'stage1':
    stage, done = 'stage2', 0
  first = -(-done // EVERY) * EVERY + 1
  return f'{stage}:{first}+' if first + LIMIT <= STEPS[stage] else ''


def _words(fault: plan.Fault) -> str:
  when = 'in the start' if fault.after is None else f'{fault.after} steps on'
  saving = ', in a save' if fault.saving else ''
  return f'(process {fault.process}, {when}{saving}, {fault.delay:.2f} s later)'


class _Steps:
  """Waits for the moments at which faults come."""

  def __init__(self, workdir: pathlib.Path, group: Group):
    self._path, self._group = workdir / 'metrics.jsonl', group
    self._workdir, self._since = workdir, time.time()
    self._base: int | None = None  # Rows at the fault before.

  def arrive(self, fault: plan.Fault) -> bool:
    """Returns whether the moment of a fault has come; else all have ended."""
    if fault.after is not None:
      if self._base is None:
        # A run drops the rows behind its checkpoint before it adds new ones.
        if not self._await(self._opened, 20 * SOON):
          return False
        self._base = self._rows()
      goal = self._base + fault.after
      if not self._await(lambda: self._rows() >= goal, 20 * SOON):
        return False
      if fault.saving:
        self._await(self._saving, 20)  # It may have none to come.
    self._await(lambda: False, fault.delay)
    self._base = self._rows()
    return self._group.alive()

  def _await(self, claim, seconds: float) -> bool:
    """Returns whether a claim came to hold, while all of them live."""
    deadline = time.monotonic() + seconds
    while self._group.alive() and time.monotonic() < deadline:
      if claim():
        return True
      time.sleep(0.005)
    return False

  def _opened(self) -> bool:
    return self._path.exists() and self._path.stat().st_mtime > self._since

  def _rows(self) -> int:
    return self._path.read_bytes().count(b'\n') if self._path.exists() else 0

  def _saving(self) -> bool:
    folders = self._workdir.glob(f'checkpoints/*/{step_files.UNFINISHED}')
    return next(folders, None) is not None
