"""Which faults there are, and which comes when: a function of a seed."""

import dataclasses
import random
from collections.abc import Iterator

KILL_ONE, KILL_ALL = 'one process killed', 'all processes killed'
ASK = 'SIGTERM to one process'
DAMAGE = 'needed checkpoint damaged'
FULL = 'disk full for all'
NARROW = 'no room for one process'
SPOIL = 'updates not finite until the run stops'
BATCH = 'update not finite, skipped'  # In the unbroken run as well.
# Of so many faults each kind comes so often, on average.
WEIGHTS = {KILL_ONE: 4, KILL_ALL: 3, ASK: 3, FULL: 3, NARROW: 3}
DAMAGED = 0.3  # Share of the starts before which a checkpoint is damaged.
SPOILED = 0.1  # Share of those whose updates are not finite until they stop.
STARTING = 0.15  # Share of the kills that come while the processes start.
SAVING = 0.4  # Share of the others that wait for a save to be under way.


@dataclasses.dataclass(frozen=True)
class Fault:
  """What goes wrong, and when."""

  kind: str
  process: int  # Which one it happens to, where it is one.
  after: int | None  # Steps recorded since the last fault; None: in the start.
  saving: bool  # Whether it then waits for a save to be under way.
  delay: float  # Seconds after all that.
  lasts: float  # Seconds for which there is no room, where that is it.


@dataclasses.dataclass(frozen=True)
class Damage:
  """What happens to the files of a checkpoint between two starts."""

  how: str  # 'cut', 'flipped' or 'deleted'.
  place: float  # Of the file among those of the step, from 0 to 1.


def faults(seed: int, processes: int, kinds: set[str]) -> Iterator[Fault]:
  """Gives faults for ever, of the kinds that are possible here."""
  draw = random.Random(f'faults {seed}')
  while True:
    kind = draw.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    process = draw.randrange(processes)
    starts = kind in (KILL_ONE, KILL_ALL, ASK) and draw.random() < STARTING
    after = None if starts else draw.randrange(8)
    saving = draw.random() < SAVING and not starts
    delay = draw.uniform(0, 15) if starts else draw.uniform(0, 0.5)
    lasts = draw.uniform(1, 8)
    if kind in kinds:
      yield Fault(kind, process, after, saving, delay, lasts)


@dataclasses.dataclass(frozen=True)
class Start:
  """What is wrong with a start from its beginning."""

  damage: Damage | None
  spoil: bool  # Whether no update is finite.


def starts(seed: int) -> Iterator[Start]:
  """Gives for each start what is wrong with it."""
  draw = random.Random(f'starts {seed}')
  while True:
    happens, place = draw.random() < DAMAGED, draw.random()
    how = draw.choice(('cut', 'flipped', 'deleted'))
    spoil = draw.random() < SPOILED
    yield Start(Damage(how, place) if happens else None, spoil)
