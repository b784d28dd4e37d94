"""A config in, memory and time out; nothing is loaded.

python -m score_jax.plan --config=configs/score.py:PRESET [--slice=v5e:4x4]
  [--model=gemma2_2b] [--nocompile] [--attempt_tokens=300] [--out=FILE.json]
  [--config.some.setting=value ...] (all flags: docs/plan.md)

With a slice's name the sampler and the update are compiled for it, on a
machine without a TPU; that takes minutes and `pip install libtpu==0.0.42.*`.
"""

from __future__ import annotations

import math
import os

# Read when jax is imported: the TPU that is planned for is not here.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import pathlib
import sys
from collections.abc import Sequence

from absl import app, flags

from score_jax import main as main_lib
from score_jax.config import ConfigError, refuse

_SLICE = flags.DEFINE_string(
  'slice', '', "TPU to plan for, as v5e:4x4; '' = none."
)
_MODEL = flags.DEFINE_string(
  'model', '', "A public model, as gemma2_2b; '' = as the config says."
)
_COMPILE = flags.DEFINE_bool('compile', True, 'Compile for the slice.')
_OUT = flags.DEFINE_string('out', '', 'A file for all numbers, as JSON.')
_INSTRUCTION = flags.DEFINE_integer(
  'instruction_tokens', 64, 'Tokens between two attempts.', lower_bound=1
)
_ATTEMPT = flags.DEFINE_float(
  'attempt_tokens', 0.0, 'Tokens of an attempt, the mean; 0 = the longest.'
)
_GRADING = flags.DEFINE_float(
  'grading_seconds', 0.0, 'That a step waits for its graders.', lower_bound=0
)
SHARES = {
  name: flags.DEFINE_float(
    f'{name}_efficiency', value, f'Share of the peak {name} that is reached.'
  )
  for name, value in (('compute', 0.5), ('memory', 0.7), ('network', 0.6))
}


def main(argv: Sequence[str]) -> None:
  """Prints the plan that the flags ask for."""
  del argv
  from score_jax import files, plan_page, planning
  from score_jax.estimate import Efficiency

  try:
    efficiency = Efficiency(**{k: _share(flag) for k, flag in SHARES.items()})
    _check_out()
    refuse(
      not math.isfinite(_GRADING.value),
      f'--grading_seconds must be a number of seconds; got {_GRADING.value}.',
    )
    plan = planning.make(
      flags.FLAGS.config,
      _MODEL.value,
      _SLICE.value,
      _COMPILE.value,
      _INSTRUCTION.value,
      efficiency,
      _GRADING.value,
      _ATTEMPT.value,
    )
  except ConfigError as error:
    print(f'score_jax: {error}', file=sys.stderr)
    sys.exit(2)
  print(plan_page.page(plan, efficiency))
  if _OUT.value:
    files.write_json(pathlib.Path(_OUT.value), plan_page.record(plan))


def _share(flag: flags.FlagHolder) -> float:
  """Returns the value of a flag that is a share of something.

  Raises:
    ConfigError: if it is none.
  """
  refuse(
    not 0 < flag.value <= 1,
    f'--{flag.name} is a share, above 0 and at most 1; got {flag.value:g}.',
  )
  return flag.value


def _check_out() -> None:
  """Refuses a file that cannot be written, before anything is compiled."""
  folder = pathlib.Path(_OUT.value).parent
  refuse(
    bool(_OUT.value) and pathlib.Path(_OUT.value).is_dir(),
    f'--out={_OUT.value} is a folder; name a file in it.',
  )
  refuse(
    bool(_OUT.value) and not folder.is_dir(),
    f'--out={_OUT.value}: {folder} is no folder; make it first.',
  )


if __name__ == '__main__':
  app.run(main, flags_parser=main_lib.parse)
