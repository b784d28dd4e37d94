"""A trained stage out, as a checkpoint folder that transformers and vLLM load.

python -m score_jax.export --workdir=runs/mine --out=DIR [--stage=stage2]

A run with an adapter comes out merged into its base model; with --adapter, as
a folder that PEFT and vLLM load beside the base model. The chat template that
comes along writes by itself what was trained on (see chat.py).
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Sequence

from ml_collections import ConfigDict

from score_jax.config import ConfigError


def export(
  workdir: pathlib.Path,
  out: pathlib.Path,
  stage: str,
  dtype: str,
  adapter: bool = False,
) -> str:
  """Writes the best checkpoint of a stage, and returns which one that was.

  Args:
    workdir: of the run.
    out: the folder to write; it may not hold anything yet.
    stage: its name; '' = the last one that has a checkpoint.
    dtype: of the weights; '' = as the base model's are stored, an adapter's
      as it was trained.
    adapter: whether to write the adapter alone.

  Raises:
    ConfigError: if there is no such run, stage or checkpoint, or no adapter, or
      `out` is in use.
  """
  import jax

  from score_jax import checkpoint, files, job, sharding
  from score_jax import config as config_lib
  from score_jax.models import lora, tensor_files, weights

  path = workdir / 'config.json'
  if not path.exists():
    raise ConfigError(f'--workdir={workdir} holds no run (no config.json).')
  config = ConfigDict(config_lib.completed(files.read_json(path)))
  chosen = job.adapter(config)
  if adapter and chosen is None:
    raise ConfigError(
      f'--adapter: the run in {workdir} has none, for it trained all parameters '
      '(model.lora.rank=0); leave --adapter out.'
    )
  stage = _stage(workdir, stage)
  source = job.model_folder(config)
  mesh = sharding.make_mesh(config_lib.mesh_shape(config, jax.device_count()))
  model = job.make_model(config, source, mesh)
  target = lora.target(weights.target(model), chosen, config.model.param_dtype)
  where = workdir / 'checkpoints' / stage
  params, meta = checkpoint.restore_params(
    where, checkpoint.best_first(where), target, print
  )
  hf = weights.read_config(source)
  template = _chat_template(config, source)
  if adapter:
    params = jax.tree.map(lambda x: x.astype(dtype or x.dtype), params)
    weights.save_adapter(out, params, chosen, hf, source, template)
    return f'the adapter of {stage}, step {meta["step"]}'
  stored = tensor_files.stored_tensors(pathlib.Path(source))
  dtype = dtype or tensor_files.DTYPES[next(iter(stored.values())).dtype]
  if chosen is None:
    params = jax.tree.map(lambda x: x.astype(dtype), params)
  else:
    base = job.load_base(config, source, model)
    if checkpoint.params_hash(base) != meta['reference']:
      raise ConfigError(
        f'{source} is not the base model that {where} was trained on; put that '
        'one there.'
      )
    params = lora.merge(base, params, chosen, dtype)
  weights.save(out, params, hf, source, progress=True, chat_template=template)
  return f'{stage}, step {meta["step"]}'


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


def _stage(workdir: pathlib.Path, name: str) -> str:
  """Returns a stage that has checkpoints."""
  found = sorted(p.name for p in (workdir / 'checkpoints').glob('*'))
  if not found or (name and name not in found):
    raise ConfigError(
      f'--stage={name!r} has no checkpoint in {workdir}; there '
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
  return parser.parse_args(argv)


def main(argv: Sequence[str]) -> None:
  """Exports what the options name."""
  given = parse(argv)
  try:
    which = export(
      pathlib.Path(given.workdir),
      pathlib.Path(given.out),
      given.stage,
      given.dtype,
      given.adapter,
    )
  except ConfigError as error:
    print(f'score_jax: {error}', file=sys.stderr)
    sys.exit(2)
  print(f'wrote {which} to {given.out}')


if __name__ == '__main__':
  main(sys.argv[1:])
