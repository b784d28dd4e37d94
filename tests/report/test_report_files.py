"""What of a run cannot be read is left out of its report, and told."""

import itertools
import json
import re

import numpy as np
import pytest
from reported import (
  AFTER,
  FIGURES,
  Page,
  row,
  rows,
  sample,
  step,
  write_lines,
)

from score_jax.report import (
  files,
  page,
  words,
)
from score_jax.report.build import build


def build_with_strange_values(run, values):
  """Builds where stage 2 and one evaluation hold these values alone."""
  steps = [step('stage1', n, 2) for n in (1, 2)]
  for number, value in enumerate(values, start=1):
    strange = dict.fromkeys(step('stage2', 1, 2), value)
    steps.append(strange | {'stage': 'stage2', 'step': number})
  write_lines(run / 'metrics.jsonl', steps)
  summaries = json.loads((run / 'eval.json').read_text())
  names = summaries['base'].keys()
  strange = dict(zip(names, itertools.cycle(values), strict=False))
  summaries['stage1'] = strange
  (run / 'eval.json').write_text(json.dumps(summaries))
  assert Page(build(run).read_text()).tags['svg'] == len(FIGURES)


@pytest.mark.parametrize(
  'name', ['metrics.jsonl', 'samples.jsonl', 'evaluations/stage2.jsonl']
)
@pytest.mark.parametrize(
  'tail', ['{"stage": "sta', '[]', 'null', '"x"', '{}', '\x00\x00', '[' * 9999]
)
def test_a_line_cut_short_is_left_out_and_noted(run, name, tail):
  whole = files.read(run)
  with (run / name).open('a') as file:
    file.write(tail)
  found = files.read(run)
  assert (found.segments, found.rows, found.samples) == (
    whole.segments,
    whole.rows,
    whole.samples,
  )
  assert whole.notes == ()
  [note] = found.notes
  assert note.startswith(f'{name}: 1 of ')


@pytest.mark.parametrize(
  'change',
  [
    {'outcomes': ['right']},
    {'outcomes': ['right', 'splendid']},
    {'outcomes': [[], {}]},
    {'attempts': [], 'outcomes': [], 'truncated': []},
    {'attempts': None},
    {'attempts': ['a'], 'outcomes': ['right'], 'truncated': [False]},
  ],
)
def test_a_row_that_does_not_fit_the_others_is_left_out_and_noted(run, change):
  path = run / 'evaluations' / 'stage2.jsonl'
  write_lines(path, [*rows(AFTER, 2), row(99, AFTER[0], 2) | change])
  found = files.read(run)
  assert len(found.rows['stage2']) == 40
  [note] = found.notes
  assert note.startswith('evaluations/stage2.jsonl: 1 ')
  assert note in page.page(found, {})


@pytest.mark.parametrize('content', ['', '{"base": {', '[1, 2]', '\ufffd'])
def test_an_evaluation_that_is_not_json_is_left_out_and_noted(run, content):
  (run / 'eval.json').write_text(content)
  found = files.read(run)
  assert found.summaries == {}
  [note] = found.notes
  assert note.startswith('eval.json is damaged')
  assert 'Delete it' in note


@pytest.mark.parametrize('value', [None, 'many', [], {}, True])
@pytest.mark.usefixtures('unsaved')
def test_a_metric_that_is_never_a_number_does_not_stop_the_report(run, value):
  build_with_strange_values(run, [value])


def test_a_metric_that_is_no_usable_number_does_not_stop_the_report(run):
  huge = [1e30, -1e30, float('inf'), float('nan'), 10**400]
  build_with_strange_values(run, [*huge, None, 'many', [], {}, True])


@pytest.mark.usefixtures('unsaved')
def test_half_a_surrogate_pair_does_not_stop_the_report(run):
  path = run / 'evaluations' / 'stage2.jsonl'
  records = rows(AFTER, 2)
  records[0]['attempts'] = ['\ud83d', '\udc00 tail']
  write_lines(path, records)
  assert '? tail' in Page(build(run).read_text('utf-8')).texts


def test_a_resumed_run_counts_the_last_writing_of_a_step(run):
  entries = [step('stage1', n, 2) | {'reward': r} for n, r in
             [(1, 0.1), (2, 0.2), (3, 0.3), (2, 0.7)]]  # fmt: skip
  entries += [step('stage2', n, 2) | {'reward': 0.9} for n in (1, 2)]
  write_lines(run / 'metrics.jsonl', entries)
  first, second = files.read(run).segments
  assert first.series('reward').tolist() == [0.1, 0.7, 0.3]
  assert first.x.tolist() == [1, 2, 3]
  assert second.x.tolist() == [4, 5]
  assert np.isnan(second.series('not logged')).all()


def test_tokens_that_do_not_fit_each_other_cost_their_line_alone(run):
  entry = sample('stage2', 10, row(1, AFTER[1], 2), 2)
  whole = {'tokens': ['a', 'b'], 'turn': [1, 2], 'logp': [0, 0], 'kl': [0, 0]}
  short = whole | {'kl': [0]}
  write_lines(run / 'samples.jsonl', [entry | whole, entry | short, entry])
  found = files.read(run)
  assert [s.tokens is None for s in found.samples] == [False, True]
  assert found.samples[0].tokens.text == ('a', 'b')
  assert '1 of' in found.notes[0]


def test_what_a_model_is_asked_beside_stands_behind_the_stages(asked):
  read = files.read(asked)
  assert list(read.summaries) == ['base', 'stage1', 'stage2', 'attempts3']
  assert list(read.rows) == list(read.summaries)
  assert read.checkpoints == ['base', 'stage1', 'stage2']
  assert (read.trained, read.newest) == ('stage2', 'stage2')


@pytest.mark.parametrize(
  ('missing', 'lost'),
  [
    ('config.json', set()),
    ('eval.json', {'accuracy', 'transitions'}),
    ('metrics.jsonl', {n for n in FIGURES if n.startswith('training')}
     | {'health', 'seconds'}),
    ('samples.jsonl', set()),
    ('evaluations/stage2.jsonl', set()),
  ],
)  # fmt: skip
@pytest.mark.usefixtures('unsaved')
def test_a_run_without_a_file_loses_what_that_file_told(run, missing, lost):
  (run / missing).unlink()
  text = build(run).read_text()
  assert {p.stem for p in (run / 'plots').iterdir()} == FIGURES - lost
  assert 'could not be read' not in text


@pytest.mark.usefixtures('unsaved')
def test_a_run_that_is_still_in_stage_one_says_so(run):
  for name in ('stage1', 'stage2'):
    (run / 'evaluations' / f'{name}.jsonl').unlink()
  (run / 'eval.json').unlink()
  write_lines(run / 'metrics.jsonl', [step('stage1', n, 2) for n in (1, 2)])
  heading = re.search(r'<h1>(.*?)</h1>', build(run).read_text())[1]
  assert heading.replace(words.SPACE, ' ') == (
    'Training has reached step 2 of Stage I; no evaluation has been written yet'
  )


def test_an_empty_work_directory_gives_a_page_that_claims_nothing(tmp_path):
  text = build(tmp_path).read_text()
  assert 'This run has written nothing yet' in text
  assert '%' not in re.sub(
    r'<style>.*?</style>|<dl>.*?</dl>', '', text, flags=re.S
  )
  assert list((tmp_path / 'plots').iterdir()) == []
