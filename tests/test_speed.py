"""What the benchmark counts, compares and shows."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from compiling import QUICK

from tests.benchmarks.speed import contest, link, table, workload

# Weights: q 4 x 4, k and v 4 x 2 each, o 4 x 4; an MLP of 3 products 4 x 3.
MINUTE = workload.Size('minute', 1, 4, 2, 1, 2, 3, 5)
BODY = 16 + 8 + 8 + 16 + 36
HEAD = 20
# Of a query that meets one key: two heads' 2 products and 2 sums, and the
# same again for what the key's value adds.
PAIR = 16


def test_operations_of_sampling_are_those_counted_by_hand():
  # Two problems, two samples each; 3 tokens, then 2 and 1 between, then 2.
  shape = workload.Shape(4, 2, 3, (2, 2), 1)
  found = [c.operations for c in workload.costs('sample', MINUTE, shape)]
  prompt = 2 * (2 * (3 * BODY + HEAD) + PAIR * (1 + 2 + 3))
  token = 4 * (2 * (BODY + HEAD) + PAIR * 4)
  # The last token of attempt 1 and the instruction's one.
  between = 4 * (2 * (2 * BODY + HEAD) + PAIR * (5 + 6))
  last = 4 * (2 * (BODY + HEAD) + PAIR * 7)
  assert found == [prompt, token, between, last]


def test_operations_of_an_update_are_those_counted_by_hand():
  shape = workload.Shape(2, 1, 1, (1, 2), 1)  # Rows of 5, 3 of them written.
  found = [c.operations for c in workload.costs('update', MINUTE, shape)]
  # The prompt once; four columns of each row, which meet it and each other.
  once = 2 * BODY + PAIR
  rows = 2 * (2 * (4 * BODY + 3 * HEAD) + PAIR * (4 + 10))
  adam = 12 * (BODY + HEAD)
  assert found == [once, rows, once, rows, 2 * once, 2 * rows, adam]


def test_bytes_of_a_sampled_token_are_weights_and_every_rows_cache():
  shape = workload.Shape(4, 4, 3, (2,), 0)
  token = workload.costs('sample', MINUTE, shape)[1]
  cache = 4 * (3 + 1) * 2 * 2  # Rows, columns, key and value, width of each.
  assert token.bytes == 4 * (BODY + HEAD + cache)


def test_a_bound_is_of_whatever_takes_longer():
  cost = workload.Cost(operations=30.0, bytes=8.0)
  assert cost.seconds(rate=10.0, bandwidth=4.0) == 3.0
  assert cost.seconds(rate=30.0, bandwidth=4.0) == 2.0


def test_cores_multiply_side_by_side_and_share_one_memory():
  row = table.Row('sample', 'tiny', 'x', [1.0], [1.0], [1e9], 0, 1.0, 0.0)
  report = contest.Report([row], {}, {})

  def bound(cores, bytes_a_second):
    return contest.bounded(report, cores, bytes_a_second).rows[0].bound

  assert bound(2, 1e30) == pytest.approx(bound(1, 1e30) / 2)
  assert bound(2, 1e3) == pytest.approx(bound(1, 1e3))


def test_a_peer_that_is_not_there_is_left_out_with_a_reason():
  found, left_out = contest.entrants(['trl'], {'trl': '/no/python'})
  assert {entrant.module for entrant in found} == {'ours'}
  assert found[0].who == table.OURS
  assert left_out == {
    'TRL': '/no/python does not run: No such file or directory'
  }
  why = contest.missing(sys.executable, 'not_a_package')
  assert why == f'not_a_package is not installed in {sys.executable}'
  assert contest.missing(sys.executable, 'numpy') == ''


def test_a_process_that_ends_says_why():
  asked = link.start(sys.executable, 'no_such_module', job('sample', ''))
  try:
    with pytest.raises(RuntimeError, match='No module named no_such_module'):
      asked.hear()
    with pytest.raises(RuntimeError, match='No module named no_such_module'):
      asked.ask()
  finally:
    asked.close()


class Ended:
  """A process that was there when the rounds began."""

  def ask(self):
    raise RuntimeError('no answer in 600 s')


def test_one_that_fails_is_dropped_unless_all_are_held_against_it():
  ours, variant, *_ = contest.ENTRANTS
  samples = {ours: [], variant: []}
  why = contest._repeat(Ended(), variant, samples)
  assert why == 'failed: no answer in 600 s'
  assert list(samples) == [ours]
  with pytest.raises(RuntimeError, match='no answer'):
    contest._repeat(Ended(), ours, samples)


def test_what_computes_something_else_is_not_measured():
  ours = {'tokens': [[2, 3], [4, 5]], 'logp': [-1.0, -2.0]}
  assert contest.difference(ours, ours) == ''
  other = {**ours, 'tokens': [[2, 3], [4, 6]]}
  assert '1 of 4 greedy tokens' in contest.difference(ours, other)
  near = {**ours, 'logp': [-1.0, -2.0009]}
  assert contest.difference(ours, near) == ''
  assert 'logp' in contest.difference(ours, {**ours, 'logp': [-1.0, -2.01]})
  assert 'logp' in contest.difference(ours, {**ours, 'logp': [-1.0, np.nan]})
  assert contest.difference(ours, {}) != ''


def row(who, cpu, wall):
  return table.Row(
    work='sample',
    size='tiny',
    who=who,
    cpu=cpu,
    wall=wall,
    canary=[10e9] * len(cpu),
    peak=5_000_000,
    operations=8e9,
    bound=0.4,
  )


def test_the_table_holds_medians_ranges_and_shares():
  rows = [
    row('slow', [4.0, 9.0, 5.0], [6.0, 6.0, 6.0]),
    row(table.OURS, [2.0, 1.0, 3.0], [5.0, 4.0, 8.0]),
    row('fast', [3.0, 3.0, 3.0], [9.0, 9.0, 9.0]),
  ]
  lines = table.markdown(rows, 1).splitlines()
  cells = [cell.strip() for cell in lines[2].strip('|').split('|')]
  assert cells == [
    'sample',
    'TINY',
    'score_jax',
    '2.00 (1.00–3.00)',
    '5.00 (4.00–8.00)',
    '5',
    '4.0',
    '40%',
    '20%',
    '1.00',
  ]
  assert [line.rsplit('|', 2)[1].strip() for line in lines[3:]] == [
    '2.50',
    '1.50',
  ]
  assert '1.50 times' in table.verdicts(rows, 1)[0]
  # On two cores it is wall seconds that count: 6 of the others, 5 of ours.
  assert '1.20 times' in table.verdicts(rows, 2)[0]
  assert rows[1].share(2) == 8 / 5 / 20
  # Ours in another way is none of the others, however fast.
  ours = next(row for row in rows if row.who == table.OURS)
  way = dataclasses.replace(ours, who=f'{table.OURS}, oneDNN')
  assert table.verdicts([*rows, way], 1) == table.verdicts(rows, 1)
  assert table.verdicts([ours, way], 1) == []


def test_a_lap_is_answered_when_its_successor_is_asked_for(tmp_path):
  requests, answers = tmp_path / 'requests', tmp_path / 'answers'
  requests.write_text('repeat\nrepeat\n')
  with open(requests) as asked, open(answers, 'w') as answered:
    mark = link.marker(link.Link(asked, answered), {'a': 1}, 2, ('numpy',))
    mark()
    assert len(answers.read_text().splitlines()) == 1
    mark()
  ready, lap = map(json.loads, answers.read_text().splitlines())
  assert (ready['check'], ready['cold']) == ({'a': 1}, 2)
  assert ready['versions'] == {'numpy': np.__version__}
  assert lap['wall'] >= 0 and lap['canary'] > 1e8 and lap['peak'] > 10_000_000


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A checkpoint of a model that takes no time."""
  why = 'transformers, in torch, writes the checkpoint and is compared with'
  pytest.importorskip('torch', reason=why)
  pytest.importorskip('transformers', reason=why)
  from tests.benchmarks.speed import hugging

  path = str(tmp_path_factory.mktemp('models') / 'little')
  hugging.write_checkpoint(job('sample', path))
  return path


def job(work, folder):
  size = workload.Size('little', 1, 16, 2, 1, 8, 24, 40)
  shape = workload.Shape(4, 2, 5, (4, 4), 3)
  if work == 'sample':  # Other prompts, so that no row is another's sample.
    shape = dataclasses.replace(shape, problems=4)
  return workload.Job(work, 'cache kept', size, shape, folder, 1)


def test_ours_samples_what_transformers_samples(folder):
  from tests.benchmarks.speed import hugging, ours

  mine, theirs = (x.make(job('sample', folder)) for x in (ours, hugging))
  assert np.shape(mine.check['tokens']) == (4, 8)
  assert contest.difference(mine.check, theirs.check) == ''


def test_ours_scores_what_transformers_scores_and_goes_on_from_it(folder):
  from tests.benchmarks.speed import hugging, ours

  mine, theirs = (x.make(job('update', folder)) for x in (ours, hugging))
  assert np.shape(mine.check['logp']) == (4 * 8,)
  assert contest.difference(mine.check, theirs.check) == ''
  mine.repeat()
  theirs.repeat()


def test_the_command_for_accelerators_runs_wherever_it_is(tmp_path):
  ended = subprocess.run(
    [
      *(sys.executable, '-m', 'tests.benchmarks.accelerator', '--rounds=1'),
      *('--config=configs/score.py', '--config.model.unroll=False'),
      *('--config.train.trajectories=32', '--config.sampling.first_attempts=4'),
      *('--config.mesh.fsdp=4', '--config.sampling.layout=gathered'),
      *('--config.model.dtype=bfloat16', '--config.sampling.parts=2'),
      *('--tflops=0.1', f'--trace={tmp_path}', f'--out={tmp_path}/found.json'),
    ],
    cwd=pathlib.Path(__file__).parents[1],
    env=os.environ
    | {
      'JAX_PLATFORMS': 'cpu',
      'XLA_FLAGS': f'--xla_force_host_platform_device_count=4 {QUICK}',
    },
    capture_output=True,
    text=True,
    check=False,
  )
  assert ended.returncode == 0, ended.stderr
  found = json.loads((tmp_path / 'found.json').read_text())
  assert found['what'].startswith('4 x cpu, mesh 1 x 4 x 1; 84,608 parameters')
  assert [row['work'] for row in found['rows']] == ['sample', 'update']
  for row in found['rows']:
    assert float(row['TFLOP/s']) > 0
    assert row['of its peak'].endswith('%')
    assert row['of its bandwidth'] == 'not known'
    assert '| '.join(row.values()) in ended.stdout.replace(' | ', '| ')
  assert list(tmp_path.rglob('*.xplane.pb'))
