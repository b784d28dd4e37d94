"""The command, with what goes wrong on one process at one moment.

SCRIPTED=WHAT:WHERE:PROCESS:PHASE, of `WHATS` and `WHERES`; PHASE is how the
phase begins in which it does, as 'grading, stage1 step 3'.
"""

import os
import signal
import sys
import time

from absl import app

from score_jax import grading, main, processes, rollout, train


def fail():
  raise RuntimeError('out of luck')


def hang():
  time.sleep(10_000)


def end():
  os.kill(os.getpid(), signal.SIGKILL)


def ask():
  os.kill(os.getpid(), signal.SIGTERM)


WHATS = {'fail': fail, 'hang': hang, 'end': end, 'ask': ask}


def before(work, misbehave):
  def wrapped(*args):
    misbehave()
    return work(*args)

  return wrapped


def in_grader(misbehave):
  make = grading.in_process

  def in_process(name):
    plain = make(name)

    def start(problems, texts):
      return before(plain.start(problems, texts), misbehave)

    return grading.Grader(start, plain.complaints)

  grading.in_process = in_process


def in_prompts(misbehave):
  rollout.put_prompts = before(rollout.put_prompts, misbehave)


def in_validation(misbehave):
  train._validate = before(train._validate, misbehave)


WHERES = {
  'grader': in_grader,
  'prompts': in_prompts,
  'validation': in_validation,
}


def script(what, where, process, phase):
  told = []

  def misbehave():
    if os.environ.get('SCORE_PROCESS', '0') != process or told:
      return
    if processes.phase().startswith(phase):
      told.append(True)
      WHATS[what]()

  WHERES[where](misbehave)


if __name__ == '__main__':
  script(*os.environ['SCRIPTED'].split(':'))
  sys.argv[0] = 'main'  # Where ml_collections looks.
  app.run(main.main, argv=sys.argv, flags_parser=main.parse)
