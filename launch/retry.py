"""Which ends of a job are followed by another start, and how many."""

from __future__ import annotations

import time
from collections.abc import Callable

from launch.settings import Settings
from launch.shell import say

# What score_jax is asked to exit with when it was stopped and has saved:
# "try again later" in sysexits.h.
STOPPED = 75
# Ends that say nothing against the job: stopped; aborted by JAX because another
# process was lost (SIGABRT); killed or terminated from outside.
LOST = (STOPPED, 134, 137, 143)
ENVIRONMENT = (f'SCORE_STOPPED_CODE={STOPPED}', 'PYTHONUNBUFFERED=1')
# JAX asks TPUs and Slurm itself who takes part.
TOGETHER = 'SCORE_COORDINATOR=auto'
TICK = 0.05  # Seconds between two looks at whether someone asked to end.


def until_done(
  settings: Settings,
  start: Callable[[], int],
  asked: Callable[[], bool] = lambda: False,
) -> int:
  """Returns the exit code of the last start; LOST ones are followed by another.

  Args:
    settings: how many starts there may be, and how far apart.
    start: runs the job, and returns its exit code.
    asked: whether someone asked to end; then there is no other start.
  """
  for left in range(settings.retries, -1, -1):
    code = start()
    if code not in LOST or not left or asked():
      break
    say(
      f'exit code {code}: starting again in {settings.pause:g} s ({left} '
      'starts left)'
    )
    moment = time.monotonic() + settings.pause
    while time.monotonic() < moment and not asked():
      time.sleep(min(TICK, settings.pause))
  return code
