"""A trained stage out, as a checkpoint folder that transformers and vLLM load.

python -m score_jax.export --workdir=runs/mine --out=DIR [--stage=stage2]

A run with an adapter comes out merged into its base model; with --adapter, as
a folder that PEFT and vLLM load beside the base model. The chat template that
comes along writes by itself what was trained on (see chat.py). Whatever devices
are there are used: the machine need not be the one that trained.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from score_jax import config as config_lib
from score_jax import files
from score_jax.config import ConfigError


def export(
  workdir: pathlib.Path,
  out: pathlib.Path,
  stage: str,
  dtype: str,
  adapter: bool = False,
  base: str = '',
) -> str:
  """Writes the best checkpoint of a stage, and returns which one that was.

  Args:
    workdir: of the run.
    out: the folder to write; it may not hold anything yet.
    stage: its name; '' = the last one that has a checkpoint.
    dtype: of the weights; '' = as the base model's are stored, an adapter's
      as it was trained.
    adapter: whether to write the adapter alone.
    base: the base model's folder; '' = where it was when the run began.

  Raises:
    ConfigError: if there is no such run, stage or base model, or no adapter, or
      `out` is in use.
    CheckpointError: if the stage has no whole checkpoint.
  """
  import jax

  from score_jax import base_model, checkpoint, claims, programs, sharding
  from score_jax.models import lora, served, weights

  served.refuse_in_use(out)
  config = _settings(workdir)
  chosen = programs.adapter(config)
  if adapter:
    _check_adapter(chosen, workdir)
  stage = _stage(config, workdir, stage)
  source = _base_folder(config, base)
  mesh = sharding.make_mesh((1, jax.device_count(), 1))
  model = base_model.make_model(config, source, mesh)
  target = lora.target(weights.target(model), chosen, config.model.param_dtype)
  where = claims.checkpoints(config, workdir) / stage
  params, meta = checkpoint.restore_params(
    where, checkpoint.best_first(where), target, print
  )
  which = f'{stage}, step {meta["step"]}{_so_far(config, where)}'
  hf = weights.read_config(source)
  template = _chat_template(config, source)
  if adapter:
    params = _cast(params, dtype) if dtype else params
    served.save_adapter(out, params, chosen, hf, source, template)
    return f'the adapter of {which}'
  dtypes = dtype or weights.stored_dtypes(source)
  if chosen is None:
    params = _cast(params, dtypes)
  else:
    frozen = _frozen(config, source, model, meta['reference'], where)
    params = lora.merge(frozen, params, chosen, dtypes)
  served.save(out, params, hf, source, progress=True, chat_template=template)
  return which


def _check_adapter(chosen: Any, workdir: pathlib.Path) -> None:
  if chosen is None:
    raise ConfigError(
      f'--adapter: the run in {workdir} has none, for it trained all parameters '
      '(model.lora.rank=0); leave --adapter out.'
    )


def _cast(params: Any, dtypes: Any) -> Any:
  """Returns parameters in one type, or each in its own."""
  import jax

  dtypes = jax.tree.broadcast(dtypes, params)
  return jax.tree.map(lambda x, to: x.astype(to), params, dtypes)


def _frozen(
  config: ConfigDict,
  source: str,
  model: Any,
  reference: str,
  where: pathlib.Path,
) -> Any:
  """Returns the base model's parameters, if those are what was trained on.

  Args:
    config: of the run.
    source: the base model's folder.
    model: the decoder to load it into.
    reference: the hash of what was trained on.
    where: the checkpoints.
  """
  from score_jax import base_model, fingerprint

  frozen = base_model.load(config, source, model)
  if fingerprint.params_hash(frozen) != reference:
    raise ConfigError(
      f'{source} is not the base model that {where} was trained on; give its '
      'folder by --model.'
    )
  return frozen


def _so_far(config: ConfigDict, folder: pathlib.Path) -> str:
  """Returns a remark where a stage's checkpoints do not reach its end."""
  from score_jax import checkpoint
  from score_jax.methods import catalogue

  steps = {phase.name: phase.steps for phase in catalogue.get(config).phases}
  newest, last = checkpoint.newest_step(folder), steps[folder.name]
  if newest >= last:
    return ''
  return f' (the best so far: {newest} of {last} steps are made)'


def _settings(workdir: pathlib.Path) -> ConfigDict:
  """Returns the settings of a run."""

  path = workdir / 'config.json'
  if not path.exists():
    raise ConfigError(f'--workdir={workdir} holds no run (no config.json).')
  try:
    return ConfigDict(config_lib.completed(files.read_json(path)))
  except (ValueError, AttributeError) as error:
    raise ConfigError(f'{path} is damaged; restore it.') from error


def _base_folder(config: ConfigDict, given: str) -> str:
  """Returns the base model's folder."""
  path = given or config.model.path or str(config_lib.BUNDLED)
  if not pathlib.Path(path).is_dir():
    was = '' if given else ', where the run had its base model,'
    raise ConfigError(
      f'{path}{was} is not a folder; give that of the base model by --model.'
    )
  return path


def _chat_template(config: ConfigDict, source: str) -> str:
  """Returns the chat template that writes what was trained on; '' = as it is."""
  from score_jax import chat, tokenizer

  task = config.task
  words = tokenizer.load(
    source, chat.Chat(task.chat, task.system, task.thinking)
  )
  if words.template is None:
    return ''
  served = chat.served(words.template)
  return '' if served == words.library.get_chat_template() else served


def _stage(config: ConfigDict, workdir: pathlib.Path, name: str) -> str:
  """Returns a stage that has checkpoints: the one asked for, or the last."""
  from score_jax import checkpoint, claims
  from score_jax.methods import catalogue

  where = claims.checkpoints(config, workdir)
  found = [
    phase.name
    for phase in catalogue.get(config).phases
    if checkpoint.steps(where / phase.name)
  ]
  if not found or (name and name not in found):
    raise ConfigError(
      f'--stage={name!r} has no checkpoint in {where}; there '
      f'{"is none yet" if not found else "are " + ", ".join(found)}.'
    )
  return name or found[-1]


def parse(argv: Sequence[str]) -> argparse.Namespace:
  """Returns the options of the command line."""
  parser = argparse.ArgumentParser('score_jax.export', description=__doc__)
  parser.add_argument('--workdir', required=True, help='of the run')
  parser.add_argument('--out', required=True, help='folder to write')
  parser.add_argument(
    '--stage', default='', help='whose best checkpoint; the last one'
  )
  parser.add_argument(
    '--dtype',
    default='',
    choices=('float32', 'bfloat16'),
    help="of the weights; the base model's",
  )
  parser.add_argument(
    '--adapter', action='store_true', help='write the adapter alone'
  )
  parser.add_argument(
    '--model', default='', help="the base model's folder, if it has moved"
  )
  return parser.parse_args(argv)


def main(argv: Sequence[str]) -> None:
  """Exports what the options name."""
  given = parse(argv)
  from score_jax.checkpoint import CheckpointError
  from score_jax.places import Unreachable

  try:
    which = export(
      pathlib.Path(given.workdir),
      pathlib.Path(given.out),
      given.stage,
      given.dtype,
      given.adapter,
      given.model,
    )
  except ConfigError as error:
    print(f'score_jax: {error}', file=sys.stderr)
    sys.exit(2)
  except (CheckpointError, Unreachable) as error:
    print(f'score_jax: {error}', file=sys.stderr)
    sys.exit(1)
  print(f'wrote {which} to {given.out}')


if __name__ == '__main__':
  main(sys.argv[1:])
