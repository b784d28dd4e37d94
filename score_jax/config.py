"""Every setting once: its default, its unit, where its value comes from.

A recipe in `configs/` is a difference from `default()`. `check` refuses what
cannot run before anything is loaded, in one line that names the setting, the
value and the remedy. Numbers marked *ours* are not stated in the paper
(arXiv:2409.12917).
"""

from __future__ import annotations

import ast
import difflib
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

# The model that is trained where none is named.
BUNDLED = pathlib.Path(__file__).parent / 'assets' / 'arithmetic'
KL_ESTIMATORS = ('k1', 'k2', 'k3', 'exact')
BASELINES = ('leave_one_out', 'remax', 'group', 'moving_average', 'none')
TRUNCATED = ('keep', 'wrong', 'mask')
CORRECTIONS = ('none', 'truncated', 'masked')
CORRECTION_LEVELS = ('token', 'attempt', 'trajectory')
JOBS = ('pretrain', 'stage1', 'stage2', 'score', 'evaluate')
DTYPES = ('float32', 'bfloat16')
REMAT = ('none', 'block', 'products')
AUTO = 'auto'  # Left open, and chosen by a device's memory (`fitting`).
# Kernels for attention, and the platform that each is for.
KERNELS = {'splash': 'tpu', 'cudnn': 'gpu'}
PRODUCTS = ('xla', 'onednn')  # Libraries of them (docs/performance.md).
PROJECTIONS = ('query', 'key', 'value', 'output', 'gate', 'up', 'down')
CHAT = ('auto', 'on', 'off')
LONG_PROMPTS = ('refuse', 'drop')
KEPT = ('same', 'bfloat16', 'int8')
LAYOUTS = ('train', 'gathered', 'tensor', AUTO)


class ConfigError(ValueError):
  """A setting that cannot run; the text names it, its value and the remedy."""


def default() -> ConfigDict:
  """Returns the locked settings that every recipe starts from."""
  config = ConfigDict()
  config.job = 'score'  # One of JOBS; set by the file in configs/.
  config.preset = 'arithmetic'  # Set by the argument of the file in configs/.
  config.seed = 0  # Orders the data, draws the samples, sets the bootstrap.
  config.turns = 2  # Attempts per trajectory; the paper trains 2, later 3.
  config.model = _model()
  config.task = _task()
  config.grading = _grading()
  config.sampling = _sampling()
  config.method = _method()
  config.train = _train()
  config.optimizer = _optimizer()
  config.mesh = _mesh()
  config.checkpoint = _checkpoint()
  config.eval = _eval()
  config.log = _log()
  config.limits = _limits()
  config.compilation = _compilation()
  config.profile = _profile()
  config.pretrain = _pretrain()
  config.table = _table()
  return config.lock()


def _model() -> ConfigDict:
  c = ConfigDict()
  c.path = ''  # A checkpoint folder as on the Hugging Face hub; '' = bundled.
  c.hub = ''  # What a preset is for, as the hub names it; path is then needed.
  c.dtype = 'float32'  # Of what products read.
  # Of what is added up between them: the residual stream, and a product on its
  # way there. float32 halves the rounding of bfloat16, whose logits then are
  # within what two runs of transformers differ by (docs/models.md); bfloat16
  # halves what the layers save for the backward pass.
  c.residual_dtype = 'float32'
  c.param_dtype = 'float32'  # Of what is trained: the policy, or its adapter.
  c.master_weights = True  # bfloat16 param_dtype: a float32 copy to add to.
  c.reference_dtype = 'float32'  # Of the frozen reference's parameters.
  c.reference_on_host = False  # Its layers wait in host memory, full tuning.
  # Low-rank adapter (arXiv:2106.09685); its numbers are *ours*.
  c.lora = ConfigDict(
    {
      'rank': 0,  # 0 = off: all parameters are trained.
      'alpha': 32.0,  # What the adapter adds weighs alpha / rank.
      'targets': PROJECTIONS,  # Which projections it changes.
      'dropout': 0.0,  # Share of its inputs left out, in the update alone.
    }
  )
  # What the backward pass computes anew; one of REMAT, or 'auto': by memory.
  c.remat = 'none'
  # What rows that are read whole attend by, in the update and before they are
  # sampled: plain products, or a kernel of KERNELS (docs/models.md).
  c.attention = 'plain'
  c.products = 'xla'  # Of whole rows on a CPU; one of PRODUCTS.
  c.unroll = True  # Layers unrolled: faster on CPU; scanned: compiles faster.
  c.logits_chunk = 1024  # Tokens whose logits exist at once in the update.
  return c


def _task() -> ConfigDict:
  c = ConfigDict()
  c.name = 'arithmetic'  # As in docs/tasks.md; or a mixture: 'math=2,gsm8k=1'.
  c.eval_name = ''  # Whose test split is evaluated; '' = the same task's.
  c.path = ''  # Of name='jsonl': a file of problems, or a folder of splits.
  c.grader = ''  # 'module:function'; '' = the task's own.
  c.prompt = ''  # With {problem} in it; '' = the task's own wording.
  c.instruction = ''  # Between attempts; '' = the task's own wording.
  c.manual_dir = ''  # A folder with the published files; '' = downloaded.
  c.data_dir = ''  # Where TFDS keeps what it prepared; '' = as TFDS does.
  c.long_prompts = 'refuse'  # Training prompts over the limit: LONG_PROMPTS.
  c.chat = 'auto'  # One of CHAT: by the model's chat template, if it has one.
  c.system = ''  # System prompt of a chat; '' = as the template has it.
  c.thinking = False  # Leave a template that can think to its default.
  c.train_problems = 0  # The first so many of the split; 0 = all.
  return c


def _grading() -> ConfigDict:
  c = ConfigDict()
  c.workers = 0  # Processes that grade at once; 0 = one per CPU core.
  # For one answer, or one program with all its tests; 0 = as the task needs.
  c.seconds = 0.0
  c.memory_mb = 0  # Of a worker, or of a program; 0 = as the task needs.
  c.allow_unprotected = False  # Run programs though a protection is missing.
  return c


def _sampling() -> ConfigDict:
  c = ConfigDict()
  c.first_attempts = 8  # Per problem; K is not stated in the paper (*ours*).
  c.second_attempts = 1  # Per first attempt; K = first x second.
  c.temperature = 1.0  # In training (the paper); a part of the policy.
  c.top_k = 0  # 0 = off. Training refuses it unless score_truncated.
  c.top_p = 1.0  # 1 = off. Training refuses it unless score_truncated.
  c.score_truncated = False  # Says that the cut distribution is to be trained.
  c.max_prompt_tokens = 16  # A longer prompt is refused, never cut.
  c.max_tokens = (8, 8)  # Per turn, the end token counted.
  # Of a batch, one graded while the next one is sampled; 0 = by memory.
  c.parts = 1
  # Columns that a row's cache grows by within an attempt, since every token
  # reads all of it; 0 = by an attempt at once. Each growth compiles a loop.
  c.grow = 0
  # Rows of each device decoded at a time: as some end, rows that wait take their
  # places (continuous batching). 0 = all rows at once, and none waits.
  c.refill = 0
  # Shares of those rows, falling: once no more than that are alive, they alone
  # are decoded. Each compiles a loop, and takes memory for their caches.
  c.compact = (1.0,)  # All rows, always.
  # How the model is kept while it samples, in evaluations too (docs/plan.md).
  # 'same' is as model.dtype has it. What is narrower samples from another
  # policy than the update scores: logp_gap_mean of a step says how far apart.
  c.weights = 'same'  # Of the matrices, one of KEPT.
  c.cache = 'same'  # Of keys and values, one of KEPT.
  # Where the weights lie meanwhile, one of LAYOUTS; no number changes but in
  # rounding. 'auto' is 'gathered' where the plan finds room, else 'tensor'.
  c.layout = 'train'
  return c


def _method() -> ConfigDict:
  c = ConfigDict()
  c.name = 'score'  # A row of methods/catalogue.py.
  c.alpha = 10.0  # Weight of the bonus r(y2) - r(y1) in stage II.
  c.beta1 = 0.01  # Weight of the KL on all turns that are not held.
  c.beta2 = 0.1  # Weight of the KL that holds the first attempt in stage I.
  c.gamma = 0.0  # Discount between turns; above 0 it leaks credit to turn 1.
  c.kl_estimator = 'k1'  # One of KL_ESTIMATORS (*ours*).
  c.baseline = 'leave_one_out'  # One of BASELINES.
  c.truncated = 'wrong'  # An attempt cut off: keep, count as wrong, or mask.
  # Importance weights for what another policy sampled, a step older or rounded
  # otherwise (docs/methods.md): one of CORRECTIONS; none = it is not weighed.
  c.correction = 'none'
  c.correction_level = 'token'  # What a weight is of: CORRECTION_LEVELS.
  c.correction_cap = 2.0  # The largest weight (usual, *ours*); 0 = no limit.
  c.offline_fraction = 0.0  # Of problems whose first attempts are the base's.
  # log beta2 moves so that beta2 * KL1 tracks fraction * |objective of turn 2|
  # (*ours*; the paper has one sentence and no formula). rate 0 = off.
  c.adaptive_beta2 = ConfigDict(
    {'rate': 0.0, 'fraction': 0.5, 'low': 0.01, 'high': 10.0}
  )
  # Of the methods that SCoRe is compared with; *ours* unless their files say.
  c.multi_turn_gamma = 1.0  # Plain multi-turn RL (a): 1 = the sum of rewards.
  c.rounds = 3  # Of STaR and its like (the paper), and of stages interleaved.
  c.first_weight = 0.0  # Of first attempts in the loss of STaR and Pair-SFT.
  c.reward_temperature = 1.0  # RISE, label enhancement: exp(r / temperature).
  c.importance_share = 0.8  # Of right traces that are kept, by their shift.
  c.retry_share = 0.5  # Of wrong first attempts that are shown and mended.
  # What Self-Refine says between its turns.
  c.self_refine = ConfigDict(
    {
      'feedback': '\nReview the solution above and list what is wrong in it:\n',
      'rewrite': '\nNow write the whole solution again, improved:\n',
    }
  )
  # What Self-Contrast says between its turns.
  c.self_contrast = ConfigDict(
    {
      'perspective': '\nSolve the problem again, in a different way:\n',
      'contrast': '\nCompare both solutions and list where they differ:\n',
      'conclude': '\nWith these differences checked, write the solution:\n',
    }
  )
  # Reward of each outcome but right, which earns 1.
  c.reward = ConfigDict(
    {'wrong': 0.0, 'unparsed': 0.0, 'timeout': 0.0, 'error': 0.0}
  )
  return c


def _train() -> ConfigDict:
  c = ConfigDict()
  c.trajectories = 512  # Per step; the paper's batch, read as trajectories.
  # Parts of a batch whose gradients are summed; 0 = by memory.
  c.accumulation = 1
  # Shares of a row's columns, rising: a part of the update reads no more than
  # the least that holds its rows. Each compiles the pass once more.
  c.widths = (1.0,)
  c.stage1_steps = 150  # Updates; the split between stages is *ours*.
  c.stage2_steps = 150  # As above.
  # Sample the next batch while this one is graded and learned from, so by the
  # parameters of one step before; needs method.correction. Not in the paper.
  c.overlap = False
  return c


def _optimizer() -> ConfigDict:
  c = ConfigDict()
  c.name = 'adam'  # 'adam', 'adamw' or 'sgd'.
  c.learning_rate = 5e-6  # At its highest (the paper: MATH).
  c.schedule = 'constant'  # 'constant', 'linear' or 'cosine', to zero.
  c.warmup_steps = 0  # Updates in which the rate rises from zero.
  c.b1 = 0.9  # Adam's three numbers are *ours*.
  c.b2 = 0.999  # As above.
  c.eps = 1e-8  # As above.
  c.weight_decay = 0.0  # adamw only.
  c.clip_norm = 1.0  # Global norm of the gradient; 0 = off.
  return c


def _mesh() -> ConfigDict:
  c = ConfigDict()
  c.data = 1  # Copies of the model; rows are split over data and fsdp.
  c.fsdp = -1  # Parts of every parameter; -1 = the devices that are left.
  c.tensor = 1  # Parts of heads, MLP and vocabulary.
  return c


def _checkpoint() -> ConfigDict:
  c = ConfigDict()
  c.every = 20  # Steps between saves.
  c.keep = 2  # Newest checkpoints kept, beside the best one.
  # Of this run alone; '' = checkpoints/ in the work directory. Another folder,
  # or gs://BUCKET/FOLDER, from which a run goes on where that directory is lost.
  c.folder = ''
  return c


def _eval() -> ConfigDict:
  c = ConfigDict()
  c.problems = 2000  # Of the test split, paired over all checkpoints.
  c.batch = 500  # Problems sampled at once; filled up to as many per device.
  c.temperature = 0.0  # 0 = greedy (the paper).
  c.every = 20  # Steps between validations during training; 0 = never.
  c.attempts = 0  # Also evaluated in the end, so many in a row; 0 = not.
  c.validation_problems = 500  # Of the validation split.
  c.resamples = 2000  # Of the paired bootstrap.
  return c


def _log() -> ConfigDict:
  c = ConfigDict()
  c.samples_every = 10  # Steps between entries in samples.jsonl; 0 = none.
  c.samples = 4  # Trajectories per entry.
  c.tensorboard = True  # Write TensorBoard files beside metrics.jsonl.
  c.report = True  # Write report.html and its figures after each stage.
  c.progress = True  # A bar where the output is a terminal, lines elsewhere.
  return c


def _limits() -> ConfigDict:
  c = ConfigDict()
  c.logp_gap = 1e-3  # Mean |sampling - scoring| log-probability; stops the run.
  # The same where method.correction weighs what is sampled; *ours*.
  c.corrected_gap = 0.1
  c.nonfinite_updates = 3  # Updates skipped in a row before the run stops.
  c.grader_failures = 0.1  # Share of timeout and error that stops the run.
  c.notices = True  # Save and end when Google Cloud says it takes the machine.
  # Of several processes; *ours*.
  c.silent_seconds = 60.0  # One without a sign of life is lost: the others end.
  c.stalled_times = 20.0  # A phase that takes so many times its usual time,
  c.stalled_seconds = 600.0  # and at least so long, is told, with stacks.
  return c


def _compilation() -> ConfigDict:
  c = ConfigDict()
  # Where compiled programs are kept for the next start (gs:// too); 'auto' =
  # ~/.cache/score_jax/compiled, '' = nowhere. JAX_COMPILATION_CACHE_DIR wins.
  c.folder = 'auto'
  c.least_seconds = 1.0  # Programs that compile faster are not kept.
  return c


def _profile() -> ConfigDict:
  c = ConfigDict()
  c.first_step = 0  # Of each stage, that a trace begins with; 0 = no trace.
  c.steps = 3  # That are traced.
  return c


def _pretrain() -> ConfigDict:
  c = ConfigDict()
  c.layers = 2  # Of the model that is made, as the next three.
  c.width = 64  # Of its hidden states.
  c.heads = 4  # Of queries, and as many of keys.
  c.mlp = 128  # Width inside the MLP.
  c.trajectories = 256  # Rows per update.
  c.learning_rate = 3e-3  # At its highest; a cosine to zero.
  c.first_steps = 3000  # At most so many updates on first attempts,
  c.first_accuracy = 0.55  # which end when so many are right, greedily.
  c.check_every = 10  # Updates between looks at that.
  c.second_steps = 5000  # Updates on both turns, first attempts self-sampled.
  c.repair_share = 0.15  # Of second attempts; the others copy the first.
  return c


def _table() -> ConfigDict:
  """What `score_jax.table` shows; methods as methods/catalogue.py names them."""
  c = ConfigDict()
  # Whose accuracy over training is drawn side by side, a panel each.
  c.curves = ('score', 'without_stage_one', 'multi_turn_sum', 'star_d_plus')
  # Whose answer changes over training are drawn.
  c.collapse = (
    'score',
    'without_stage_one',
    'multi_turn_sum',
    'multi_turn_last',
  )
  # Whose edit distances are drawn, a panel each (the paper's four).
  c.edits = ('base', 'star_d', 'pair_sft_d', 'score')
  # Whose final models also attempt behind the base model's first attempts,
  c.shift = ('star_d', 'pair_sft_d', 'multi_turn_sum', 'single_turn', 'score')
  # are sampled many times,
  c.budget = ('base', 'score')
  # and attempt many times in a row.
  c.attempts = ('base', 'pair_sft_d', 'score', 'score_three_turns')
  c.turns = 10  # Attempts in a row.
  c.samples = 32  # Trajectories per problem, and attempts of the top budget.
  c.temperature = 0.7  # Of these samples (the paper).
  c.problems = 500  # Of the test split that these samples are of.
  return c


def flatten(config: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """Returns {'part.setting': value} of a nested config."""
  flat = {}
  for name, value in config.items():
    if isinstance(value, Mapping | ConfigDict):
      flat.update(flatten(value, f'{prefix}{name}.'))
    else:
      flat[prefix + name] = value
  return flat


def completed(saved: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the settings of a run, from what its config.json holds.

  What is newer than the run stands at its default, as the run was made.
  """
  return _laid_over(json.loads(default().to_json()), saved)


def _laid_over(under: dict[str, Any], over: Mapping[str, Any]) -> dict:
  both = {
    name: _laid_over(under[name], value)
    for name, value in over.items()
    if isinstance(value, Mapping) and isinstance(under.get(name), Mapping)
  }
  return {**under, **over, **both}


def nearest(name: str, known: Iterable[str]) -> str:
  """Returns ' (did you mean X?)' for a misspelt name, or ''."""
  close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
  return f' (did you mean {close[0]}?)' if close else ''


KINDS = {
  int: 'a whole number',
  float: 'a number',
  bool: 'True or False',
  str: 'a text',
  (int,): 'whole numbers in brackets, as "(8, 8)"',
  (float,): 'numbers with a point in brackets, as "(0.5, 0.25)"',
  (str,): "names in quotes and brackets, as \"('query', 'value')\"",
}


def _kind(default: Any) -> Any:
  """Returns which of KINDS a setting is; a tuple goes by its first entry."""
  return (type(default[0]),) if isinstance(default, tuple) else type(default)


def _reads_as(kind: Any, text: str) -> bool:
  """Returns whether a text from the command line is a value of a kind."""
  try:
    if isinstance(kind, tuple):
      value = ast.literal_eval(text)
      value = value if isinstance(value, tuple | list) else (value,)
      return all(type(x) is kind[0] for x in value)
    if kind is bool:
      return text.lower() in ('true', 'false', '1', '0', 't', 'f')
    kind(text)
  except (ValueError, SyntaxError):
    return False
  return True


def check_override(config: ConfigDict, name: str, value: str | None) -> None:
  """Refuses an override from the command line that cannot be applied.

  Args:
    config: the settings it would change.
    name: of the setting, with its parts joined by dots.
    value: as it was written; None where there was none.

  Raises:
    ConfigError: if there is no such setting, with the nearest name that is
      there, or if it is of another type.
  """
  known = flatten(config)
  inside = [k for k in known if k.startswith(name + '.')]
  refuse(
    bool(inside),
    f'{name} is a group of settings; set one of them, as --config.'
    f'{inside[0] if inside else ""}=VALUE.',
  )
  refuse(name not in known, f'{name} is not a setting{_alike(name, known)}.')
  kind = _kind(known[name])
  refuse(
    value is None,
    f'{name} needs its value behind a =, as --config.{name}={known[name]}.',
  )
  refuse(
    not _reads_as(kind, value),
    f'{name} must be {KINDS[kind]}; got {value!r}; the default is '
    f'{known[name]!r}.',
  )


def _alike(name: str, known: Iterable[str]) -> str:
  """Returns a hint at the setting that was meant: of the same last name first."""
  last = name.split('.')[-1]
  tails = [k for k in known if k.split('.')[-1] == last]
  return f' (did you mean {tails[0]}?)' if tails else nearest(name, known)


def refuse(bad: bool, text: str) -> None:
  """Raises ConfigError with the text if something is bad."""
  if bad:
    raise ConfigError(text)


def samples_per_problem(config: ConfigDict) -> int:
  """Returns K, the trajectories of one problem in a training batch."""
  return config.sampling.first_attempts * config.sampling.second_attempts


def mesh_shape(config: ConfigDict, devices: int) -> tuple[int, int, int]:
  """Returns the sizes of the mesh axes (data, fsdp, tensor).

  Args:
    config: its `mesh` sizes, of which one may be -1 for what is left.
    devices: how many the mesh has to cover.

  Raises:
    ConfigError: if the axes do not multiply to the number of devices.
  """
  sizes = [config.mesh.data, config.mesh.fsdp, config.mesh.tensor]
  text = f'mesh.data x mesh.fsdp x mesh.tensor = {" x ".join(map(str, sizes))}'
  refuse(
    any(s == 0 or s < -1 for s in sizes) or sizes.count(-1) > 1,
    f'{text} needs sizes of at least 1, at most one of them -1 for the rest; '
    'set mesh.data=1, mesh.fsdp=-1, mesh.tensor=1.',
  )
  known = 1
  for size in sizes:
    known *= size if size > 0 else 1
  fits = devices % known == 0 if -1 in sizes else devices == known
  remedy = 'set one axis to -1 for what the others leave'
  if -1 in sizes:
    remedy = f'{known} must divide {devices}'
  refuse(not fits, f'{text} does not fit {devices} devices; {remedy}.')
  data, fsdp, tensor = (s if s > 0 else devices // known for s in sizes)
  return data, fsdp, tensor
