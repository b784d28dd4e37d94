"""Settings that cannot run are refused by name; the presets are the paper's."""

import ast
import inspect
import itertools
import pathlib
import re

import pytest

from configs import presets
from score_jax import checks
from score_jax import config as config_lib
from score_jax.problem import Outcome

ROOT = pathlib.Path(__file__).parents[1]
NUMBERS = ('1.5', 'a', '', '1e3', '(1,)')


def _config(job='score', preset='arithmetic', **changes):
  """Returns a preset's settings with some of them changed; __ is a dot."""
  config = presets.make(job, preset)
  config.update_from_flattened_dict(
    {name.replace('__', '.'): value for name, value in changes.items()}
  )
  return config


def _refusal(config, devices=1):
  with pytest.raises(config_lib.ConfigError) as caught:
    checks.check(config, devices)
  text = str(caught.value)
  assert '\n' not in text
  return text


def _one(name, value, *words):
  return pytest.param({name: value}, words, id=f'{name}={value}')


AT_LEAST_0 = (
  'seed',
  'model.lora.rank',
  'task.train_problems',
  'method.alpha',
  'method.beta1',
  'method.beta2',
  'method.adaptive_beta2.rate',
  'optimizer.learning_rate',
  'optimizer.warmup_steps',
  'optimizer.weight_decay',
  'optimizer.clip_norm',
  'eval.every',
  'eval.temperature',
  'log.samples',
  'log.samples_every',
  'limits.logp_gap',
  'limits.corrected_gap',
  'compilation.least_seconds',
  'profile.first_step',
  'pretrain.learning_rate',
)
AT_LEAST_1 = (
  'turns',
  'sampling.first_attempts',
  'sampling.second_attempts',
  'sampling.max_prompt_tokens',
  'train.trajectories',
  'train.stage1_steps',
  'train.stage2_steps',
  'checkpoint.every',
  'checkpoint.keep',
  'eval.problems',
  'eval.batch',
  'eval.validation_problems',
  'eval.resamples',
  'limits.nonfinite_updates',
  'model.logits_chunk',
  'pretrain.layers',
  'pretrain.heads',
  'pretrain.mlp',
  'pretrain.trajectories',
  'pretrain.first_steps',
  'pretrain.second_steps',
  'pretrain.check_every',
  'profile.steps',
)
SHARES = (
  'method.gamma',
  'method.offline_fraction',
  'method.adaptive_beta2.fraction',
  'limits.grader_failures',
  'pretrain.repair_share',
  'pretrain.first_accuracy',
)
CHOICES = {
  'job': ('stage3', 'pretrain, stage1, stage2, score, evaluate'),
  'model.dtype': ('float16', 'float32, bfloat16'),
  'model.param_dtype': ('bf16', 'float32, bfloat16'),
  'model.reference_dtype': ('int8', 'float32, bfloat16'),
  'model.residual_dtype': ('float16', 'float32, bfloat16'),
  'model.remat': ('blocks', 'none, block, products, auto'),
  'model.attention': ('flash', 'plain, splash, cudnn'),
  'model.products': ('mkl', 'xla, onednn'),
  'sampling.weights': ('int4', 'same, bfloat16, int8'),
  'sampling.cache': ('fp8', 'same, bfloat16, int8'),
  'sampling.layout': ('fsdp', 'train, gathered, tensor, auto'),
  'optimizer.name': ('adan', 'adam, adamw, sgd'),
  'optimizer.schedule': ('cosin', 'constant, linear, cosine'),
  'method.kl_estimator': ('k4', 'k1, k2, k3, exact'),
  'method.baseline': (
    'mean',
    'leave_one_out, remax, group, moving_average, none',
  ),
  'method.truncated': ('drop', 'keep, wrong, mask'),
  'method.correction': ('clipped', 'none, truncated, masked'),
  'method.correction_level': ('turn', 'token, attempt, trajectory'),
}


@pytest.mark.parametrize('name', AT_LEAST_0)
def test_a_number_below_0_is_refused(name):
  text = _refusal(_config(**{name: -1}))
  assert re.fullmatch(rf'{name} must be at least 0; got -1(\.0)?\.', text)


@pytest.mark.parametrize('name', AT_LEAST_1)
def test_a_number_below_1_is_refused(name):
  text = _refusal(_config(**{name: 0}))
  assert text == f'{name} must be at least 1; got 0.'


@pytest.mark.parametrize('value', [-0.1, 1.1, float('nan')])
@pytest.mark.parametrize('name', SHARES)
def test_a_share_outside_0_to_1_is_refused(name, value):
  text = _refusal(_config(**{name: value}))
  assert text == f'{name} must be between 0 and 1; got {value}.'


@pytest.mark.parametrize('name', CHOICES)
def test_an_unknown_choice_is_refused_with_those_there_are(name):
  value, allowed = CHOICES[name]
  text = _refusal(_config(**{name: value}))
  assert text.startswith(f'{name} must be one of {allowed}; got {value!r}')


def test_a_misspelt_choice_is_refused_with_the_nearest_one():
  text = _refusal(_config(optimizer__schedule='cosin'))
  assert text.endswith('(did you mean cosine?).')


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    _one(
      'model.residual_dtype',
      'bfloat16',
      'model.residual_dtype=bfloat16 is narrower than model.dtype=float32',
      'set it to float32',
    ),
    _one(
      'method.kl_estimator',
      'k1_loss',
      "method.kl_estimator='k1_loss' is refused",
      'zero in expectation',
      'use one of k1, k2, k3, exact',
    ),
    _one(
      'method.kl_estimator',
      'k3_loss',
      "method.kl_estimator='k3_loss' is refused",
      'that of KL(ref || policy)',
      'use one of k1, k2, k3, exact',
    ),
    pytest.param(
      {'turns': 1, 'sampling.max_tokens': (6,)},
      ('turns must be at least 2', 'got 1.'),
      id='one turn',
    ),
    pytest.param(
      {'turns': 3},
      ('sampling.max_tokens', 'each of turns=3', 'got (6, 6)'),
      id='three turns, two lengths',
    ),
    _one('sampling.max_tokens', (6, 1), 'sampling.max_tokens', 'got (6, 1)'),
    _one('sampling.grow', -1, 'sampling.grow must be at least 0', 'got -1'),
    _one('sampling.refill', -1, 'sampling.refill must be at least 0', 'got -1'),
    pytest.param(
      {'sampling.refill': 8, 'sampling.grow': 4},
      ('sampling.refill=8', 'set sampling.grow=0, not 4'),
      id='places, and caches that grow',
    ),
    _one('sampling.compact', (0.5, 0.0), 'sampling.compact', 'got (0.5, 0.0)'),
    _one('sampling.compact', (0.2, 0.5), 'falling', 'got (0.2, 0.5)'),
    _one('train.widths', (0.5, 0.2), 'rising', 'got (0.5, 0.2)'),
    _one('train.widths', (0.5, 1.5), 'at most 1', 'got (0.5, 1.5)'),
    _one('sampling.max_tokens', (6, 6.5), 'sampling.max_tokens', '(6, 6.5)'),
    _one('sampling.max_tokens', ('a', 6), 'sampling.max_tokens', "('a', 6)"),
    _one(
      'sampling.temperature',
      0.0,
      'sampling.temperature must be above 0',
      'got 0.0',
      'eval.temperature=0',
    ),
    _one('sampling.top_k', -1, 'sampling.top_k must be at least 0', 'got -1'),
    _one('optimizer.eps', 0.0, 'optimizer.eps must be above 0', 'got 0.0'),
    _one('optimizer.learning_rate', float('inf'), 'finite number; got inf'),
    _one('method.reward.wrong', float('nan'), 'finite number; got nan'),
    _one('seed', 2**32, 'seed must be below 2**32', 'got 4294967296'),
    _one('sampling.top_p', 0.0, 'sampling.top_p in (0, 1]', 'and 0.0.'),
    _one('sampling.top_p', 1.5, 'sampling.top_p in (0, 1]', 'and 1.5.'),
    _one(
      'sampling.top_k',
      5,
      'sampling.top_k=5',
      'set top_k=0',
      'sampling.score_truncated=True',
    ),
    _one(
      'sampling.top_p',
      0.9,
      'sampling.top_p=0.9',
      'top_p=1.0',
      'sampling.score_truncated=True',
    ),
    _one(
      'sampling.weights',
      'int8',
      "sampling.weights='int8' rounds what samples",
      'limits.logp_gap=0.001 would stop the run',
      'set limits.logp_gap=0.1',
      "sampling.weights='same'",
    ),
    _one('sampling.cache', 'bfloat16', "sampling.cache='bfloat16' rounds"),
    _one(
      'sampling.first_attempts',
      1,
      'method.baseline=leave_one_out',
      'sampling.first_attempts of at least 2',
      'got 1.',
    ),
    pytest.param(
      {'method.adaptive_beta2.rate': 0.1, 'method.beta2': 20.0},
      ('method.beta2 must lie between', 'got 0.01 <= 20.0 <= 10.0'),
      id='beta2 above its range',
    ),
    pytest.param(
      {'method.adaptive_beta2.rate': 0.1, 'method.adaptive_beta2.low': 0.0},
      ('method.adaptive_beta2.low', 'above 0', 'got 0.0'),
      id='beta2 whose logarithm has no bound',
    ),
    *[
      pytest.param({'model.lora.rank': 4, f'model.lora.{name}': value}, words)
      for name, value, *words in (
        ('alpha', 0.0, 'model.lora.alpha must be above 0; got 0.0'),
        ('dropout', 1.0, 'model.lora.dropout must be', 'below 1; got 1.0'),
        ('dropout', -0.1, 'model.lora.dropout must be at least 0'),
        ('targets', (), 'model.lora.targets is empty', 'query, key, value'),
        ('targets', ('qeury',), "got 'qeury' (did you mean query?)."),
        ('targets', ('o_proj',), "got 'o_proj' (did you mean output?)."),
        ('targets', ('up', 'up'), 'model.lora.targets names one twice'),
      )
    ],
    pytest.param(
      {'model.lora.rank': 4, 'model.reference_on_host': True},
      ('model.reference_on_host=True', 'model.lora.rank=4', 'set it to False'),
      id='an adapter whose base is on the host',
    ),
    _one(
      'train.trajectories',
      500,
      'train.trajectories=500',
      'K=8',
      'set it to 496.',
    ),
    _one('train.trajectories', 4, 'train.trajectories=4', 'set it to 8.'),
    _one(
      'train.accumulation',
      3,
      'train.accumulation=3 does not divide the 64 problems',
      'set it to one of their divisors, or to 0',
    ),
    _one('pretrain.width', 60, 'pretrain.width', '2 x pretrain.heads', '60'),
    _one(
      'method.correction_cap', 0.5, 'method.correction_cap', '0 for no limit'
    ),
    pytest.param(
      {'method.correction': 'masked', 'method.correction_cap': 0.0},
      ('method.correction=masked', '0 is no limit', 'set it to 2'),
      id='a mask without a limit',
    ),
    _one(
      'train.overlap',
      True,
      'train.overlap=True learns from attempts of the parameters before',
      'method.correction=none',
      'set method.correction=truncated',
    ),
    pytest.param(
      {
        'train.overlap': True,
        'method.correction': 'truncated',
        'sampling.top_k': 5,
        'sampling.score_truncated': True,
      },
      ('sampling.top_k=5', 'do not go with train.overlap=True', 'set top_k=0'),
      id='tokens cut off a step later',
    ),
    pytest.param(
      {
        'model.dtype': 'bfloat16',
        'sampling.cache': 'int8',
        'sampling.top_p': 0.9,
        'sampling.score_truncated': True,
        'method.correction': 'truncated',
      },
      (
        'sampling.top_p=0.9 do not go with model.dtype=bfloat16, '
        'sampling.cache=int8',
        'set top_k=0 and top_p=1.0, or model.dtype=float32',
      ),
      id='tokens that rounding cuts off',
    ),
  ],
)
def test_settings_that_cannot_run_are_refused_with_the_remedy(changes, words):
  text = _refusal(_config(**changes))
  for part in words:
    assert part in text


def test_truncated_sampling_is_allowed_where_it_is_scored_as_well():
  config = _config(sampling__top_k=5, sampling__score_truncated=True)
  checks.check(config, 1)


@pytest.mark.parametrize(
  ('kind', 'platform', 'remedy'),
  [
    ('splash', 'cpu', 'model.attention=plain'),
    ('splash', 'gpu', 'model.attention=cudnn or model.attention=plain'),
    ('cudnn', 'tpu', 'model.attention=splash or model.attention=plain'),
  ],
)
def test_a_kernel_of_another_platform_is_refused(kind, platform, remedy):
  config = _config(model__attention=kind, model__dtype='bfloat16')
  config.limits.logp_gap = 0.1
  with pytest.raises(config_lib.ConfigError) as caught:
    checks.check(config, 1, platform)
  assert f'model.attention={kind}' in str(caught.value)
  assert f'platform {platform}; set {remedy}.' in str(caught.value)
  checks.check(config, 1, config_lib.KERNELS[kind])
  checks.check(config, 1)  # Where nobody knows, as in a plan.


def test_a_library_of_cpus_is_refused_elsewhere():
  config = _config(model__products='onednn')
  with pytest.raises(config_lib.ConfigError, match=r'platform tpu; set model'):
    checks.check(config, 1, 'tpu')
  checks.check(config, 1, 'cpu')
  checks.check(config, 1)


def test_cudnn_is_refused_in_float32():
  text = _refusal(_config(model__attention='cudnn'))
  assert 'model.dtype=float32; set model.dtype=bfloat16' in text


@pytest.mark.parametrize('value', [-0.1, 1.0, float('nan')])
@pytest.mark.parametrize('name', ['optimizer.b1', 'optimizer.b2'])
def test_a_mean_that_never_moves_is_refused(name, value):
  text = _refusal(_config(**{name: value}))
  assert text == f'{name} must be at least 0 and below 1; got {value}.'


def test_one_first_attempt_is_allowed_without_a_baseline():
  changes = {'method.baseline': 'none', 'sampling.first_attempts': 1}
  checks.check(_config(**changes), 1)


@pytest.mark.parametrize(
  ('sizes', 'words'),
  [
    ((3, 1, 1), ('3 x 1 x 1 does not fit 8 devices', 'set one axis to -1')),
    ((3, -1, 1), ('3 x -1 x 1 does not fit 8 devices', '3 must divide 8')),
    ((2, 2, 1), ('2 x 2 x 1 does not fit 8 devices',)),
    ((-1, -1, 1), ('at most one of them -1', 'set mesh.data=1, mesh.fsdp=-1')),
    ((0, -1, 1), ('0 x -1 x 1', 'at least 1')),
    ((-2, 4, 1), ('-2 x 4 x 1', 'at least 1')),
  ],
)
def test_a_mesh_that_does_not_fit_the_devices_is_refused(sizes, words):
  data, fsdp, tensor = sizes
  config = _config(mesh__data=data, mesh__fsdp=fsdp, mesh__tensor=tensor)
  text = _refusal(config, devices=8)
  assert 'mesh.data x mesh.fsdp x mesh.tensor' in text
  for part in words:
    assert part in text


@pytest.mark.parametrize(
  ('sizes', 'shape'),
  [((1, -1, 1), (1, 8, 1)), ((2, 2, -1), (2, 2, 2)), ((8, 1, 1), (8, 1, 1))],
)
def test_the_axis_left_open_takes_the_devices_that_are_left(sizes, shape):
  data, fsdp, tensor = sizes
  config = _config(mesh__data=data, mesh__fsdp=fsdp, mesh__tensor=tensor)
  assert config_lib.mesh_shape(config, 8) == shape


def test_rows_that_the_mesh_does_not_divide_are_refused():
  config = _config(train__trajectories=72, train__accumulation=3)
  checks.check(config, 8)
  text = _refusal(config, devices=16)
  for part in ('train.trajectories=72', 'train.accumulation=3', '24 rows'):
    assert part in text
  assert 'mesh.data x mesh.fsdp = 16' in text


@pytest.mark.parametrize(
  'changes', [{'sampling.refill': 2}, {'sampling.compact': (0.5,)}], ids=str
)
def test_devices_that_choose_among_rows_need_the_prompts_of_these(changes):
  config = _config(
    **{
      'mesh.fsdp': 4,
      'train.trajectories': 24,
      'sampling.first_attempts': 4,
      'train.accumulation': 1,
      **changes,
    }
  )
  text = _refusal(config, devices=4)
  (name,) = changes
  for part in (f'{name}={changes[name]}', 'fsdp = 4 divides', 'there are 6'):
    assert part in text


@pytest.mark.parametrize(
  ('name', 'hint'),
  [
    ('sed', 'seed'),
    ('optimizer.learnig_rate', 'optimizer.learning_rate'),
    ('alpha', 'method.alpha'),
    ('train.learning_rate', 'optimizer.learning_rate'),
  ],
)
def test_a_misspelt_setting_is_refused_with_the_one_that_was_meant(name, hint):
  with pytest.raises(config_lib.ConfigError) as caught:
    config_lib.check_override(config_lib.default(), name, '1')
  text = f'{name} is not a setting (did you mean {hint}?).'
  assert str(caught.value) == text


@pytest.mark.parametrize(
  ('name', 'value', 'words'),
  [
    *[('seed', x, f'must be a whole number; got {x!r}') for x in NUMBERS],
    ('seed', '1.5', 'the default is 0'),
    ('method.alpha', 'ten', "must be a number; got 'ten'; the default is 10.0"),
    ('log.tensorboard', 'maybe', "must be True or False; got 'maybe'"),
    ('sampling.max_tokens', '(6, a)', 'must be whole numbers in brackets, as'),
    ('sampling.max_tokens', "('a', 6)", 'must be whole numbers in brackets'),
    ('sampling.max_tokens', '(6.5, 6)', "got '(6.5, 6)'"),
    ('sampling.compact', '(1, 2)', 'numbers with a point in brackets, as'),
    ('model.lora.targets', 'query,value', 'must be names in quotes and'),
    ('model.lora.targets', '(1,)', 'must be names in quotes and brackets'),
    ('optimizer', '1', 'is a group of settings; set one of them'),
    ('seed', None, 'needs its value behind a =, as --config.seed=0'),
  ],
)
def test_a_value_of_another_type_is_refused(name, value, words):
  with pytest.raises(config_lib.ConfigError) as caught:
    config_lib.check_override(config_lib.default(), name, value)
  assert str(caught.value).startswith(f'{name} ')
  assert words in str(caught.value)


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('seed', '3'),
    ('method.alpha', '3'),
    ('method.alpha', '1e-3'),
    ('log.tensorboard', 'false'),
    ('sampling.max_tokens', '(6, 6, 6)'),
    ('sampling.compact', '(0.5, 0.25)'),
    ('sampling.max_tokens', '6,6'),
    ('model.lora.targets', "('query', 'up')"),
    ('model.path', ''),
  ],
)
def test_a_value_of_the_type_is_taken(name, value):
  config_lib.check_override(config_lib.default(), name, value)


def test_the_settings_are_locked():
  config = config_lib.default()
  with pytest.raises(AttributeError):
    config.alpha = 1.0
  with pytest.raises(AttributeError):
    config.method.alhpa = 1.0
  with pytest.raises(TypeError):
    config.seed = 'a'


def test_what_products_read_anyway_needs_no_room_for_a_gap():
  kept = {'sampling.weights': 'bfloat16', 'sampling.cache': 'bfloat16'}
  checks.check(_config(model__dtype='bfloat16', **kept), 1)
  wide = {'limits.logp_gap': 0.1, 'sampling.weights': 'int8'}
  checks.check(_config(**wide), 1)


@pytest.mark.parametrize('preset', presets.PLAIN)
@pytest.mark.parametrize('job', config_lib.JOBS)
def test_every_preset_can_run_as_every_job(job, preset):
  checks.check(presets.make(job, preset), 8)


def test_an_unknown_preset_is_refused_with_those_there_are():
  with pytest.raises(config_lib.ConfigError) as caught:
    presets.make('score', 'maht')
  for part in ('arithmetic, math, mbpp', "'maht'", 'did you mean math?'):
    assert part in str(caught.value)


# Section 5 and the table of hyperparameters in its appendix.
PAPER = {
  'math': {
    'optimizer.name': 'adam',
    'optimizer.learning_rate': 5e-6,
    'train.trajectories': 512,
    'steps': 3000,
    'method.alpha': 10,
    'method.beta1': 0.01,
    'method.beta2': 0.1,
    'sampling.temperature': 1.0,
    'eval.temperature': 0.0,
    'method.gamma': 0.0,
    'turns': 2,
  },
  'mbpp': {
    'optimizer.name': 'adam',
    'optimizer.learning_rate': 1e-5,
    'train.trajectories': 128,
    'steps': 1500,
    'method.alpha': 10,
    'method.beta1': 0.01,
    'method.beta2': 0.25,
    'sampling.temperature': 1.0,
    'eval.temperature': 0.0,
    'method.gamma': 0.0,
    'turns': 2,
  },
}


@pytest.mark.parametrize('preset', PAPER)
def test_a_preset_of_the_paper_has_the_numbers_of_its_table(preset):
  settings = config_lib.flatten(presets.make('score', preset))
  both = settings['train.stage1_steps'] + settings['train.stage2_steps']
  settings['steps'] = both
  assert {name: settings[name] for name in PAPER[preset]} == PAPER[preset]


def _read_names(path: pathlib.Path) -> set[str]:
  """Returns the attributes, keys and arguments that a file reads by name."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
      found.add(node.attr)
    elif isinstance(node, ast.arg):
      found.add(node.arg)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
      found.add(node.value)
  return found


def test_every_setting_is_read_outside_the_file_that_declares_it():
  files = set((ROOT / 'score_jax').rglob('*.py'))
  files.remove(ROOT / 'score_jax' / 'config.py')
  read = set().union(*(_read_names(path) for path in files))
  # Rewards are read by the name of their outcome.
  read |= {outcome.name.lower() for outcome in Outcome}
  # Says that a truncated distribution is meant, and changes nothing itself.
  read.add('score_truncated')
  names = config_lib.flatten(config_lib.default())
  assert [x for x in names if x.split('.')[-1] not in read] == []


def test_a_comment_says_what_each_setting_is():
  bare = []
  lines = inspect.getsource(config_lib).splitlines()
  for before, line in itertools.pairwise(lines):
    declared = re.match(r'  c(?:onfig)?\.(\w+) = (?!_)', line)
    explained = '#' in line or before.strip().startswith('#')
    if declared and not explained:
      bare.append(declared[1])
  assert bare == []
