"""What is not finite is skipped and kept; what finds no room is tried again."""

import contextlib
import resource

import numpy as np
import pytest
import runs as small
import several

from score_jax import checkpoint, files

SHORT = {
  'train__stage1_steps': 6,
  'train__stage2_steps': 6,
  'eval__every': 0,
  'log__samples_every': 1,
  'log__samples': 32,
}
STEPS = {'stage1': 6, 'stage2': 6}
HASTY = {'checkpoint__every': 1}


def _skipped(workdir):
  rows, bad = files.read_jsonl(workdir / 'metrics.jsonl')
  assert bad == []
  return {(r['stage'], r['step']): (r['skipped'], r['loss']) for r in rows}


def _assert_is_batch(workdir, name, stage, step):
  """Refuses a batch that is not the one the journal shows."""
  texts, bad = files.read_jsonl(workdir / 'nonfinite' / f'{name}.jsonl')
  samples, _ = files.read_jsonl(workdir / 'samples.jsonl')
  shown = [r for r in samples if (r['stage'], r['step']) == (stage, step)]
  assert bad == [] and len(texts) == len(shown) == 32
  for text, sample in zip(texts, shown, strict=True):
    for key in ('id', 'prompt', 'attempts', 'answers', 'outcomes', 'reward'):
      assert text[key] == sample[key]
  with np.load(workdir / 'nonfinite' / f'{name}.npz') as kept:
    assert {'tokens', 'turn', 'logp', 'span', 'truncated', 'reward'} <= set(
      kept
    )
    turns = [
      [n for n in row if n] for row in kept['turn'].tolist()
    ]  # The journal shows what stands behind the prompt.
    assert turns == [[n for n in s['turn'] if n] for s in shown]
    assert np.isnan(kept['credit']).any()
    assert np.isfinite(kept['logp']).all()
    np.testing.assert_array_equal(kept['reward'], [t['reward'] for t in texts])


ONE_OR_TWO = pytest.mark.parametrize(
  'processes',
  [
    pytest.param(1, marks=pytest.mark.slow),
    pytest.param(2, marks=pytest.mark.long),
  ],
)


@ONE_OR_TWO
def test_an_update_that_is_not_finite_is_skipped_counted_and_kept(
  runs, tmp_path, processes
):
  workdir = tmp_path / 'run'
  with several.group(
    runs, workdir, processes, poisoned='stage1:2,stage2:5', **SHORT
  ) as group:
    assert group.codes(2 * small.TIMEOUT) == [0] * processes, group.said(0)
    said = group.said(0)
  assert 'stage1-000002: the update was not finite, and is skipped' in said
  for at, (skipped, loss) in _skipped(workdir).items():
    poisoned = at in (('stage1', 2), ('stage2', 5))
    assert skipped == poisoned
    assert np.isnan(loss) == poisoned
  _assert_is_batch(workdir, 'stage1-000002', 'stage1', 2)
  _assert_is_batch(workdir, 'stage2-000005', 'stage2', 5)
  for step in small.params(workdir, 'stage2', 6).values():
    assert np.isfinite(np.frombuffer(step, np.float32)).all()


@ONE_OR_TWO
def test_too_many_of_them_in_a_row_stop_the_run_and_name_their_batches(
  runs, tmp_path, processes
):
  workdir = tmp_path / 'run'
  with several.group(
    runs,
    workdir,
    processes,
    poisoned='stage1:4+',
    limits__nonfinite_updates=2,
    **SHORT,
  ) as group:
    assert group.codes(2 * small.TIMEOUT) == [1] * processes, group.said(0)
    said = group.said(0)
  assert '2 updates in a row were not finite' in said
  assert f'their batches are in {workdir}/nonfinite' in said
  kept = sorted(x.name for x in (workdir / 'nonfinite').glob('*.npz'))
  assert kept == ['stage1-000004.npz', 'stage1-000005.npz']
  # Before the first of them: what was saved is fit to go on from.
  assert checkpoint.newest_step(workdir / 'checkpoints' / 'stage1') == 3


@pytest.fixture(scope='module')
def roomy(runs, tmp_path_factory):
  """The run of two processes that always have room."""
  workdir = tmp_path_factory.mktemp('roomy') / 'run'
  with several.group(runs, workdir, 2, **SHORT, **HASTY) as group:
    assert group.codes(2 * small.TIMEOUT) == [0, 0], group.said(0)
  return workdir


@contextlib.contextmanager
def _narrow(process):
  """Lets the files of a process grow no further than 20 kB."""
  pid, kind = process.pid, resource.RLIMIT_FSIZE
  _, hard = resource.prlimit(pid, kind)
  resource.prlimit(pid, kind, (20_000, hard))
  yield
  resource.prlimit(pid, kind, (resource.RLIM_INFINITY, hard))


@pytest.mark.long
@pytest.mark.parametrize('process', [0, 1])
def test_a_save_that_one_process_has_no_room_for_is_tried_again_by_all(
  runs, roomy, tmp_path, process
):
  workdir = tmp_path / 'run'
  with several.group(runs, workdir, 2, **SHORT, **HASTY) as group:
    group.rows(workdir, 2)
    with _narrow(group.processes[process]):
      said = ''
      while 'Training goes on; the next save tries again.' not in said:
        assert group.processes[0].poll() is None, group.said(0)
        said = group.said(0)
    assert group.codes(2 * small.TIMEOUT) == [0, 0], group.said(0)
  assert 'File too large' in said
  small.assert_same(workdir, roomy, STEPS)
