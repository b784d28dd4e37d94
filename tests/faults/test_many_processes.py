"""Any number of processes learn what one learns, and end together."""

import signal
import time

import pytest
import runs as small
import several

from score_jax import checkpoint, files

pytestmark = pytest.mark.long
# 20 steps, on a mesh of eight devices.
LEARNING = {
  'train__stage1_steps': 8,
  'train__stage2_steps': 12,
  'checkpoint__every': 4,
  'eval__every': 4,
}
STEPS = {'stage1': 8, 'stage2': 12}
# Sums over devices are made in another order by other processes.
CLOSE = {'rel': 1e-5, 'abs': 1e-5}
# For the others to end, on a busy machine, with what they have to save.
QUICK = 60.0


def _assert_close(workdir, other, steps):
  ours, theirs = (small.rows(x / 'metrics.jsonl') for x in (workdir, other))
  assert len(ours) == len(theirs) == sum(steps.values())
  for one, two in zip(ours, theirs, strict=True):
    assert one.keys() == two.keys()
    for name, value in two.items():
      number = isinstance(value, int | float)
      expected = pytest.approx(value, **CLOSE) if number else value
      assert one[name] == expected, (name, one, two)
  ours, theirs = (files.read_json(x / 'eval.json') for x in (workdir, other))
  assert ours == theirs
  for stage, last in steps.items():
    ours, theirs = (x / 'checkpoints' / stage for x in (workdir, other))
    assert checkpoint.newest_step(ours) == last
    assert checkpoint.best_step(ours) == checkpoint.best_step(theirs)
  for name in ('base', *steps):
    path = f'evaluations/{name}.jsonl'
    assert small.rows(workdir / path) == small.rows(other / path)


@pytest.fixture(scope='module')
def alone(runs, tmp_path_factory):
  """The run of one process on eight devices."""
  workdir = tmp_path_factory.mktemp('alone') / 'run'
  with several.group(runs, workdir, 1, 8, **LEARNING) as group:
    assert group.codes() == [0], group.said(0)
  return workdir


@pytest.fixture(scope='module')
def pair(runs, tmp_path_factory):
  """The run of two processes on four devices each."""
  workdir = tmp_path_factory.mktemp('pair') / 'run'
  with several.group(runs, workdir, 2, 4, **LEARNING) as group:
    assert group.codes(2 * small.TIMEOUT) == [0, 0], group.said(0)
    # The first one prints; the other has nothing to say but Gloo's greeting.
    for line in group.said(1).splitlines():
      assert line.startswith('[Gloo] Rank')
  return workdir


def test_two_processes_learn_what_one_learns(pair, alone):
  _assert_close(pair, alone, STEPS)


def test_four_processes_learn_what_two_learn_bit_for_bit(runs, pair, tmp_path):
  workdir = tmp_path / 'run'
  with several.group(runs, workdir, 4, 2, **LEARNING) as group:
    assert group.codes(3 * small.TIMEOUT) == [0] * 4, group.said(0)
  small.assert_same(workdir, pair, STEPS)


@pytest.mark.parametrize(
  ('steps', 'settings'),
  [
    (
      {'stage1': 2, 'stage2': 2},
      {
        'method__baseline': 'remax',
        'method__offline_fraction': 0.5,
        'sampling__parts': 2,
        'train__accumulation': 2,
        'model__lora__rank': 4,
        'model__lora__dropout': 0.1,
      },
    ),
    (
      {'round1': 2, 'round2': 2},
      {
        'method__name': 'star_d_plus',
        'method__rounds': 2,
        'sampling__parts': 2,
        'model__lora__rank': 4,
      },
    ),
    ({'self_refine': 0}, {'method__name': 'self_refine'}),
    (
      {'stage1': 2, 'stage2': 2},
      {'sampling__layout': 'tensor'},
    ),
    (
      {'stage1': 3, 'stage2': 2},
      {
        'train__overlap': True,
        'train__stage1_steps': 3,
        'method__correction': 'truncated',
        'sampling__parts': 2,
        'limits__corrected_gap': 10.0,
      },
    ),
  ],
  ids=['remax', 'star', 'self_refine', 'laid out', 'overlap'],
)
def test_what_else_can_be_set_gives_what_one_process_gives(
  runs, tmp_path, steps, settings
):
  short = {'train__stage1_steps': 2, 'train__stage2_steps': 2, 'eval__every': 2}
  for name, processes, devices in (('one', 1, 2), ('two', 2, 1)):
    with several.group(
      runs, tmp_path / name, processes, devices, **(short | settings)
    ) as group:
      assert group.codes() == [0] * processes, group.said(0)
  two, one = tmp_path / 'two', tmp_path / 'one'
  if any(steps.values()):
    _assert_close(two, one, steps)
  else:
    assert small.rows(two / 'evaluations/self_refine.jsonl') == small.rows(
      one / 'evaluations/self_refine.jsonl'
    )


def test_a_signal_to_one_process_saves_all_and_one_process_goes_on(
  runs, alone, tmp_path
):
  workdir = tmp_path / 'run'
  with several.group(runs, workdir, 2, 4, **LEARNING) as group:
    group.rows(workdir, 2)
    group.processes[1].send_signal(signal.SIGTERM)
    assert group.codes(QUICK) == [several.STOPPED] * 2, group.said(0)
  done = len(small.rows(workdir / 'metrics.jsonl'))
  small.rows.cache_clear()  # The file grows.
  folder = workdir / 'checkpoints' / 'stage1'
  assert 2 <= done < STEPS['stage1']
  assert checkpoint.newest_step(folder) == done
  with several.group(runs, workdir, 1, 8, **LEARNING) as group:
    assert group.codes() == [0], group.said(0)
    assert f'stage1: going on from step {done} of 8' in group.said(0)
  _assert_close(workdir, alone, STEPS)


@pytest.mark.parametrize('lost', [0, 1])
def test_when_one_process_is_killed_the_others_say_so_and_end(
  runs, tmp_path, lost
):
  workdir = tmp_path / 'run'
  what = f'end:prompts:{lost}:sampling, stage1 step 2'
  with several.group(runs, workdir, 2, scripted=what) as group:
    group.processes[lost].wait(small.TIMEOUT)
    codes = group.codes(QUICK)
    time.sleep(1)  # The witness of one that JAX aborts is a moment behind.
    said = group.said(1 - lost)
  assert codes[lost] == -signal.SIGKILL
  assert codes[1 - lost] in (several.STOPPED, -signal.SIGABRT), said
  assert f'process {lost} was lost while' in said
  assert 'stage1 step' in said


@pytest.mark.parametrize(
  ('where', 'phase'),
  [('grader', 'grading'), ('prompts', 'sampling')],
)
def test_an_error_on_one_process_ends_the_others_with_its_words(
  runs, tmp_path, where, phase
):
  workdir = tmp_path / 'run'
  what = f'fail:{where}:1:{phase}, stage1 step 5'
  with several.group(runs, workdir, 2, scripted=what) as group:
    group.rows(workdir, 4)
    assert group.codes(QUICK) == [1, 1], group.said(0)
    first, second = group.said(0), group.said(1)
  assert 'RuntimeError: out of luck' in second
  assert (
    f'process 1 failed while {phase}, stage1 step 5: RuntimeError: out of '
    'luck; process 0 ends as well'
  ) in first
  assert 'Traceback' not in first
  if where == 'grader':  # All hear of it in the step, and what is saved stays.
    folder = workdir / 'checkpoints' / 'stage1'
    assert checkpoint.newest_step(folder) == 3


def test_a_phase_that_hangs_is_told_with_its_process_and_stacks(runs, tmp_path):
  workdir = tmp_path / 'run'
  hasty = {'limits__stalled_seconds': 8.0, 'limits__stalled_times': 1.0}
  what = 'hang:grader:1:grading, stage1 step 4'
  with several.group(runs, workdir, 2, scripted=what, **hasty) as group:
    group.rows(workdir, 3)
    deadline = time.monotonic() + QUICK
    words = 'process 1 has been grading, stage1 step 4 for '
    while words not in group.said(1) or 'in hang' not in group.said(1):
      assert time.monotonic() < deadline, group.said(1)
      time.sleep(0.1)


def test_a_setting_that_is_refused_ends_all_with_its_words(runs, tmp_path):
  with several.group(runs, tmp_path / 'run', 2, task__name='lyrics') as group:
    assert group.codes() == [2, 2], group.said(0)
    assert 'lyrics' in group.said(0)


@pytest.mark.parametrize('processes', [1, 2])
def test_two_jobs_do_not_share_a_work_directory(runs, tmp_path, processes):
  workdir = tmp_path / 'run'
  with several.group(runs, workdir, processes) as first:
    first.rows(workdir, 1)
    before = {x: x.read_bytes() for x in (workdir / 'processes').glob('start')}
    with several.group(runs, workdir, 4) as second:
      assert second.codes() == [2] * 4, second.said(0)
      for process in range(4):
        assert 'is in use by another job' in second.said(process)
    assert all(x.read_bytes() == text for x, text in before.items())
    assert all(p.poll() in (None, 0) for p in first.processes), first.said(0)
