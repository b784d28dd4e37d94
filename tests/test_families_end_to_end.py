"""Each family, from a folder as on the hub to one that transformers serves.

Checkpoint and tokenizer are of the family's kind, small, and made here. What
they go through is the command: both stages, killed on the way and gone on
with, exported, loaded by transformers.
"""

import concurrent.futures
import dataclasses
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import runs as small
import tiny
import tiny_tokenizers
from ml_collections import ConfigDict
from tiny_tokenizers import GEMMA, GEMMA3, LLAMA, QWEN, QWEN3, with_template

from score_jax import base_model, checkpoint, export, files, programs, sharding
from score_jax.models import lora, weights

tiny_checkpoints = pytest.importorskip('tiny_checkpoints')
torch, transformers = tiny_checkpoints.torch, tiny_checkpoints.transformers

pytestmark = pytest.mark.long

FAMILIES = {
  'gemma2': GEMMA,
  'gemma3_text': with_template(GEMMA, GEMMA3),
  'llama 3, tied': LLAMA,
  'qwen2, tied': QWEN,
  'qwen3': with_template(QWEN, QWEN3),
}
PROVED = 'qwen2, tied'  # Compared with an unbroken run.
PROBLEMS = 4
STEPS = {'stage1': 4, 'stage2': 4}
# A random model answers nothing right; it is paid for being cut off rather
# than ending, so that there is something to learn.
SETTINGS = {
  'task__chat': 'on',
  'method__reward__unparsed': -1.0,
  'sampling__max_prompt_tokens': 80,
  'sampling__max_tokens': '(6, 6)',
  'train__stage1_steps': STEPS['stage1'],
  'train__stage2_steps': STEPS['stage2'],
  'train__trajectories': 16,
  'checkpoint__every': 1,
  'optimizer__learning_rate': 1e-2,
  'model__unroll': False,
  'log__progress': False,
  'task__train_problems': 20,
  'eval__problems': PROBLEMS,
  'eval__batch': PROBLEMS,
  'eval__every': 0,
}
ADAPTED_FAMILY = 'gemma3_text'
ADAPTED = {
  'job': 'stage1',
  'train__stage1_steps': 2,
  'model__lora__rank': 3,
  'model__lora__alpha': 12.0,
  'optimizer__learning_rate': 3e-2,
}


@dataclasses.dataclass(frozen=True)
class Case:
  """A family's run, when it is over."""

  model: pathlib.Path
  workdir: pathlib.Path
  killed_in: str  # A stage; '' = none.
  said: str  # By its last start.


def make_model(folder: pathlib.Path, case: str) -> pathlib.Path:
  """Writes a checkpoint as on the hub: weights, tokenizer, chat template."""
  kind = FAMILIES[case]
  words = tiny_tokenizers.tokenizers.Tokenizer.from_str(kind.library)
  # Most families' embeddings have rows that no token uses.
  size = words.get_vocab_size() + 5
  tiny_checkpoints.build(case, vocab_size=size).save_pretrained(folder)
  tiny_tokenizers.write(folder, kind)
  return folder


def run_to_its_end(
  runs, workdir: pathlib.Path, killed_in: str, settings
) -> str:
  """Returns what a run said to its end; its first start may be killed.

  Args:
    runs: start it.
    workdir: of the run.
    killed_in: the stage in which it is killed once, or ''.
    settings: its own.
  """
  log = workdir.with_name(f'{workdir.name}.log')
  if killed_in:
    process = runs.fork(log, workdir, **settings)
    folder = workdir / 'checkpoints' / killed_in
    deadline = time.monotonic() + small.TIMEOUT
    while checkpoint.newest_step(folder) is None:
      assert process.exitcode is None, log.read_text()
      assert time.monotonic() < deadline
      time.sleep(0.005)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
  return runs.finish(workdir, **settings)


@pytest.fixture(scope='module')
def finished(runs, tmp_path_factory):
  """Finished runs of all families, each killed in one of its stages.

  Beside them 'unbroken', one of them that nobody killed, and 'adapted', stage
  I of an adapter.
  """
  models = {
    case: make_model(tmp_path_factory.mktemp('model'), case)
    for case in FAMILIES
  }
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    waiting = {}

    def submit(name, case, killed_in, **settings):
      workdir = tmp_path_factory.mktemp('run')
      settings = SETTINGS | {'model__path': models[case]} | settings
      said = pool.submit(run_to_its_end, runs, workdir, killed_in, settings)
      waiting[name] = models[case], workdir, killed_in, said

    for i, case in enumerate(FAMILIES):
      submit(case, case, ('stage1', 'stage2')[i % 2])
    submit('adapted', ADAPTED_FAMILY, '', **ADAPTED)
    submit('unbroken', PROVED, '')
    return {
      name: Case(model, workdir, killed_in, said.result())
      for name, (model, workdir, killed_in, said) in waiting.items()
    }


@pytest.fixture(scope='module')
def exported(finished, tmp_path_factory):
  """Returns a function: a family to the folder that its run is exported to."""
  made = {}

  def make(case):
    if case not in made:
      made[case] = tmp_path_factory.mktemp('export') / 'out'
      export.export(finished[case].workdir, made[case], '', '')
    return made[case]

  return make


@pytest.mark.parametrize('case', FAMILIES)
def test_killed_in_either_stage_every_family_goes_on_to_the_end(finished, case):
  assert f'{finished[case].killed_in}: going on from step ' in (
    finished[case].said
  )
  results = files.read_json(finished[case].workdir / 'eval.json')
  assert list(results) == ['base', 'stage1', 'stage2']
  rows = small.rows(finished[case].workdir / 'metrics.jsonl')
  assert len(rows) == sum(STEPS.values())
  assert max(row['grad_norm'] for row in rows) > 0.01


def test_it_ends_bit_for_bit_where_the_unbroken_run_ends(finished):
  small.assert_same(
    finished[PROVED].workdir, finished['unbroken'].workdir, STEPS
  )


def generate(model, ids: list[int]) -> list[int]:
  """Returns the ids that transformers writes greedily behind others."""
  tokens = torch.tensor([ids])
  out = model.generate(
    tokens,
    attention_mask=torch.ones_like(tokens),
    do_sample=False,
    max_new_tokens=6,
    pad_token_id=0,
  )
  return out[0, len(ids) :].tolist()


def conversation(library, *messages: str) -> str:
  """Returns what the folder's own template writes, told nothing."""
  roles = ('user', 'assistant') * len(messages)
  turns = [
    {'role': role, 'content': text}
    for role, text in zip(roles, messages, strict=False)
  ]
  return library.apply_chat_template(
    turns, tokenize=False, add_generation_prompt=True
  )


def two_turns(model, library, question: str, instruction: str) -> list[str]:
  """Returns both attempts, as one who serves the folder would get them."""
  ends = model.generation_config.eos_token_id
  ids = library.encode(
    conversation(library, question), add_special_tokens=False
  )
  first = generate(model, ids)
  _, tail = conversation(library, question, 'MARK', instruction).split('MARK')
  tail = library.encode(tail, add_special_tokens=False)
  if first[-1] in ends:  # It closed its message itself.
    tail = tail[1:]
  second = generate(model, ids + first + tail)
  return [
    library.decode([i for i in each if i not in ends], skip_special_tokens=True)
    for each in (first, second)
  ]


@pytest.mark.parametrize('case', FAMILIES)
def test_transformers_writes_what_the_run_graded(finished, exported, case):
  workdir, folder = finished[case].workdir, exported(case)
  model = transformers.AutoModelForCausalLM.from_pretrained(folder)
  library = transformers.AutoTokenizer.from_pretrained(folder)
  instruction = files.read_json(workdir / 'config.json')['task']['instruction']
  rows, _ = files.read_jsonl(workdir / 'evaluations' / 'stage2.jsonl')
  before, _ = files.read_jsonl(workdir / 'evaluations' / 'base.jsonl')
  assert len(rows) == PROBLEMS
  for row in rows:
    found = two_turns(model, library, row['prompt'], instruction)
    assert found == row['attempts']
  assert any(
    a['attempts'] != b['attempts'] for a, b in zip(rows, before, strict=True)
  ), 'nothing was learned, so this would hold of the base'


def trained(workdir: pathlib.Path, stage: str):
  """Returns the decoder, its trained parameters, and the adapter's settings.

  They are read from the run's checkpoint, not from what was exported.
  """
  config = ConfigDict(files.read_json(workdir / 'config.json'))
  mesh = sharding.make_mesh((1, 1, 1), jax.devices()[:1])
  model = base_model.make_model(config, config.model.path, mesh)
  chosen = programs.adapter(config)
  like = weights.target(model)
  where = workdir / 'checkpoints' / stage
  params, _ = checkpoint.restore_params(
    where,
    checkpoint.best_first(where),
    lora.target(like, chosen, 'float32'),
    print,
  )
  base = weights.load(config.model.path, like)
  return model, base, lora.bind(base, params, chosen)


def some_tokens() -> np.ndarray:
  return np.random.default_rng(0).integers(0, 250, (2, 24)).astype(np.int32)


def assert_same_logits(theirs, workdir: pathlib.Path, stage: str) -> None:
  """Refuses other logits than the run's; they must not be the base's either."""
  model, base, params = trained(workdir, stage)
  expected = np.asarray(tiny.logits_of(model, params, some_tokens()))
  plain = np.asarray(tiny.logits_of(model, base, some_tokens()))
  found = tiny_checkpoints.logits(theirs.eval(), some_tokens())
  size = np.abs(expected).max()
  assert np.abs(found - expected).max() <= 2e-5 * size
  assert np.abs(plain - expected).max() > 1e-2 * size


@pytest.mark.parametrize('case', FAMILIES)
def test_what_was_trained_has_its_logits_in_transformers(
  finished, exported, case
):
  theirs = transformers.AutoModelForCausalLM.from_pretrained(exported(case))
  assert_same_logits(theirs, finished[case].workdir, 'stage2')


def test_a_trained_adapter_has_its_logits_merged_and_in_peft(
  finished, tmp_path
):
  peft = pytest.importorskip('peft', reason='it loads the adapter folder')
  folder, workdir = finished['adapted'].model, finished['adapted'].workdir
  load = transformers.AutoModelForCausalLM.from_pretrained
  export.export(workdir, tmp_path / 'merged', '', '')
  assert_same_logits(load(tmp_path / 'merged'), workdir, 'stage1')
  export.export(workdir, tmp_path / 'adapter', '', '', adapter=True)
  theirs = peft.PeftModel.from_pretrained(load(folder), tmp_path / 'adapter')
  assert_same_logits(theirs, workdir, 'stage1')


def test_the_command_exports_the_same_folder(finished, exported, tmp_path):
  out = tmp_path / 'out'
  ended = subprocess.run(
    [
      *(sys.executable, '-m', 'score_jax.export'),
      *(f'--workdir={finished[PROVED].workdir}', f'--out={out}'),
    ],
    cwd=small.ROOT,
    capture_output=True,
    text=True,
    timeout=small.TIMEOUT,
  )
  assert ended.returncode == 0, ended.stderr
  assert 'wrote stage2, step ' in ended.stdout
  theirs = exported(PROVED)
  names = sorted(path.name for path in theirs.iterdir())
  assert sorted(path.name for path in out.iterdir()) == names
  for name in names:
    assert (out / name).read_bytes() == (theirs / name).read_bytes()
