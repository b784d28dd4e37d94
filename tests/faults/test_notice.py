"""A run that hears of its machine's end saves, and ends where another would."""

import metadata
import pytest
import runs as small

from score_jax import checkpoint

pytestmark = pytest.mark.slow
STOPPED = 75


def test_told_of_maintenance_a_run_saves_and_goes_on_to_the_unbroken_end(
  runs, unbroken, tmp_path, monkeypatch
):
  monkeypatch.setenv('SCORE_STOPPED_CODE', str(STOPPED))
  workdir, log = tmp_path / 'run', tmp_path / 'log'
  with metadata.serve() as server:
    monkeypatch.setenv('GCE_METADATA_HOST', server.host)
    process = runs.fork(log, workdir)
    small.await_claim(process, lambda: small.recorded(workdir) >= 4)
    server.set('maintenance-event', 'TERMINATE_ON_HOST_MAINTENANCE')
    process.join(small.TIMEOUT)
    assert process.exitcode == STOPPED, log.read_text()
    said = log.read_text()
    assert (
      f'{server.host} says maintenance-event=TERMINATE_ON_HOST_MAINTENANCE: '
      'stopping: the step under way is finished and saved first'
    ) in said
    done = len(small.rows(workdir / 'metrics.jsonl'))
    small.rows.cache_clear()  # The file grows.
    assert 4 <= done < sum(small.STEPS.values())
    stage = 'stage1' if done < small.STEPS['stage1'] else 'stage2'
    folder = workdir / 'checkpoints' / stage
    assert checkpoint.newest_step(folder) == done - (
      small.STEPS['stage1'] if stage == 'stage2' else 0
    )
    # The machine is still to be taken away: the run makes use of the time.
    said = runs.finish(workdir)
  assert 'stopping' not in said
  small.assert_same(workdir, unbroken)
