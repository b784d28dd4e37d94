"""A run goes on elsewhere: by other processes, on another mesh, and back."""

import signal

import pytest
import runs as small
import several

from score_jax import checkpoint

pytestmark = pytest.mark.long
STEPS = 8
LEARNING = {
  'job': 'stage1',
  'train__stage1_steps': STEPS,
  'checkpoint__every': 4,
  'eval__every': 0,
  'eval__problems': 16,
  'eval__batch': 16,
}
FSDP = {'mesh__data': 1, 'mesh__fsdp': 8, 'mesh__tensor': 1}
CUBE = {'mesh__data': 2, 'mesh__fsdp': 2, 'mesh__tensor': 2}
# Sums over devices are made in another order.
CLOSE = {'rel': 1e-5, 'abs': 1e-5}
# Processes, devices of each, and the mesh.
EIGHT, ONE, OTHER = (2, 4, FSDP), (1, 1, {}), (2, 4, CUBE)


def _train(runs, workdir, where, until=None):
  """Trains to the end, or until so many steps are recorded and then saved."""
  processes, devices, mesh = where
  with several.group(
    runs, workdir, processes, devices, **LEARNING, **mesh
  ) as group:
    if until is not None:
      group.rows(workdir, until)
      group.processes[-1].send_signal(signal.SIGTERM)
    expected = 0 if until is None else several.STOPPED
    assert group.codes(3 * small.TIMEOUT) == [expected] * processes, group.said(
      0
    )
    return group.said(0)


def _newest(workdir):
  folder = workdir / 'checkpoints' / 'stage1'
  return checkpoint.newest_step(folder)


@pytest.fixture(scope='module')
def stayed(runs, tmp_path_factory):
  """The run of two processes of four devices, mesh fsdp=8, to its end."""
  workdir = tmp_path_factory.mktemp('stayed') / 'run'
  _train(runs, workdir, EIGHT)
  return workdir


def _assert_continues(workdir, stayed):
  ours, theirs = (small.rows(x / 'metrics.jsonl') for x in (workdir, stayed))
  assert len(ours) == len(theirs) == STEPS
  for one, two in zip(ours, theirs, strict=True):
    assert one.keys() == two.keys()
    for name, value in two.items():
      number = isinstance(value, int | float)
      expected = pytest.approx(value, **CLOSE) if number else value
      assert one[name] == expected, (name, one, two)


@pytest.mark.parametrize('other', [ONE, OTHER], ids=['one', 'cube'])
def test_a_run_goes_on_elsewhere_and_back_along_the_same_curve(
  runs, stayed, tmp_path, other
):
  workdir = tmp_path / 'run'
  _train(runs, workdir, EIGHT, until=2)
  moved = _newest(workdir)
  assert 2 <= moved < STEPS
  before = small.params(workdir, 'stage1', moved)
  said = _train(runs, workdir, other, until=moved + 1)
  assert f'stage1: going on from step {moved} of {STEPS}' in said
  # Nothing was lost on the way: what was restored is what had been saved.
  if (workdir / 'checkpoints' / 'stage1' / str(moved)).exists():
    assert small.params(workdir, 'stage1', moved) == before
  back = _newest(workdir)
  assert moved < back
  _train(runs, workdir, EIGHT)
  small.rows.cache_clear()  # The file has grown.
  _assert_continues(workdir, stayed)
