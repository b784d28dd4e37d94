"""Is the best checkpoint of a finished stage there? If not, it is made again."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

from score_jax import checkpoint, phase, processes, train
from score_jax.job import Job
from score_jax.journal import say, Silent
from score_jax.methods.plan import Phase
from score_jax.places import Place
from score_jax.timing import Times


def make(job: Job, plan: Phase, start: Callable[[], Any]) -> None:
  """Makes the best checkpoint of a finished stage anew, if it is lost.

  It is lost where the disk was full when it was to be saved, or has damaged it
  since. What follows from the stage would then follow from another step. Its
  steps are made again from the newest checkpoint before it, for they are
  functions of the seed.

  Args:
    job: what all stages share.
    plan: of the stage.
    start: as of `train.train_stage`.

  Raises:
    Interrupted: on SIGTERM; what was made again is not kept.
    CheckpointError: if it cannot be saved.
    TakenOver: if another job goes on with the checkpoints.
  """
  where = phase.folder(job, plan.name)
  best, history = processes.decide(lambda: _lost_best(where))
  if best is None:
    return
  say(f'{plan.name}: its best checkpoint, step {best}, is lost; made again')
  stage = train.open_phase(job, plan, start)
  keep = job.config.checkpoint.keep
  opened = checkpoint.open_checkpoints(where, keep, say)
  with contextlib.closing(opened) as checkpoints:
    found = checkpoints.restore(stage.abstract(), last=best)
    if found is None:
      done, state = 0, stage.init(start())
    else:
      done = found[1]['step']
      state = stage.restored(found[0], done)
    journal = Silent(plan.name, history[:done])
    with contextlib.closing(Times()) as times:
      for step in range(done, best):
        job.stop.check()
        state, metrics = stage.step(state, step, journal, times)
        journal.step(metrics | times.take())
    if done < best:
      meta = train.meta_of(stage, history[:best])
      train.keep_records(job)
      checkpoints.save(
        best, stage.saved(state), meta, history[best - 1]['score']
      )


def _lost_best(where: Place) -> tuple[int | None, list[dict[str, Any]]]:
  """Returns the best step if it is lost, else None; and a stage's history."""
  newest, there = checkpoint.newest_step(where), checkpoint.best_step(where)
  history = checkpoint.read_meta(where, newest)['history']
  scores = {row['step']: row['score'] for row in history if 'score' in row}
  ranked = {step: x for step, x in scores.items() if not math.isnan(x)}
  if not ranked:  # An older run, or one whose rewards were no numbers.
    return None, history
  best = min(ranked, key=lambda step: (-ranked[step], step))
  if checkpoint.score(where, there) > ranked[best]:  # Begun by an older one.
    return None, history
  if not checkpoint.is_damaged(where, best, read=['params', 'meta']):
    return None, history
  return best, history
