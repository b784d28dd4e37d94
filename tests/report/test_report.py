"""The page of a run: safe, whole, and right in what it says."""

import collections
import json
import re
import subprocess
import sys

import pytest
from reported import (
  AFTER,
  FIGURES,
  Page,
  row,
  rows,
  sample,
  step,
  summary,
  write_lines,
  write_run,
)

from score_jax import config as config_lib
from score_jax.report import build as build_lib
from score_jax.report import (
  examples,
  files,
  page,
  tables,
  words,
)
from score_jax.report.build import build
from score_jax.tasks.about import about

HOSTILE = (
  '<script>alert(1)</script>',
  '</pre><img src=x onerror=alert(2)>',
  '"><svg onload=alert(3)> $x^2$ --> ]]>',
  '&lt;b&gt; &amp; \u202e right to left',
  "' onclick='alert(4)",
)


@pytest.fixture(scope='module')
def hostile(tmp_path_factory):
  """A report in which everything that a model or a task writes is hostile."""
  folder = write_run(tmp_path_factory.mktemp('hostile'), turns=2)
  for path in (folder / 'evaluations').iterdir():
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for i, record in enumerate(records):
      text = HOSTILE[i % len(HOSTILE)]
      record |= {'prompt': text, 'answer': text, 'difficulty': text}
      record['attempts'] = [text, text[::-1]]
    write_lines(path, records)
  (folder / 'evaluations' / '<img src=x>.jsonl').write_text('not json')
  entry = sample(HOSTILE[0], 1, records[0], 2)
  write_lines(folder / 'samples.jsonl', [entry])
  write_lines(folder / 'metrics.jsonl', [step(HOSTILE[1], 1, 2)])
  summaries = json.loads((folder / 'eval.json').read_text())
  summaries[HOSTILE[2]] = summaries['base']
  (folder / 'eval.json').write_text(json.dumps(summaries))
  settings = {'task': {'name': HOSTILE[0], 'instruction': HOSTILE[1]}}
  (folder / 'config.json').write_text(json.dumps(settings))
  return build(folder)


def test_what_a_model_writes_is_shown_and_does_nothing(built, hostile):
  calm, found = Page(built.read_text()), Page(hostile.read_text())
  assert found.open == []
  # The file whose name is markup adds a note, and a note is a list.
  assert found.tags.keys() == calm.tags.keys() | {'ul'}
  assert not any(name.startswith('on') for _, name, _ in found.attributes)
  shown = set(found.texts)
  for text in HOSTILE:
    assert {text, text[::-1]} <= shown


@pytest.mark.parametrize('name', ['built', 'hostile'])
def test_the_page_loads_nothing_and_runs_nothing(name, request):
  text = request.getfixturevalue(name).read_text()
  found = Page(text)
  assert not found.tags.keys() & {'script', 'link', 'img', 'iframe', 'object'}
  for tag, attribute, value in found.attributes:
    if attribute in ('src', 'href', 'xlink:href', 'action', 'data'):
      assert value.startswith('#') or (tag == 'a' and value == page.PAPER)
  css = text[text.index('<style>') : text.index('</style>')]
  assert 'url(' not in css
  assert '@import' not in css


def test_ids_are_unique_and_every_reference_within_the_page_resolves(built):
  text = built.read_text()
  ids = collections.Counter(
    value for _, name, value in Page(text).attributes if name == 'id'
  )
  assert max(ids.values()) == 1
  aims = re.findall(r'url\(#([^)]*)\)|href="#([^"]*)"', text)
  assert len(aims) > 50
  assert {a or b for a, b in aims} <= ids.keys()
  described = re.findall(r'aria-describedby="([^"]*)"', text)
  assert len(described) == len(FIGURES)
  assert set(described) <= ids.keys()


def test_the_first_sentence_says_what_training_changed(built):
  heading = re.search(r'<h1>(.*?)</h1>', built.read_text())[1]
  assert heading.replace(words.SPACE, ' ') == (
    'Training raised second attempts from 25.0 % to 75.0 % right'
  )
  lead = re.search(r'<p class="lead">(.*?)</p>', built.read_text())[1]
  assert lead.replace(words.SPACE, ' ') == (
    'After Stage II, looking again fixes 25.0 % of all answers and breaks '
    '0.0 %; before training, it fixed 0.0 % and broke 25.0 %. First attempts '
    'are 50.0 % right; before training, 50.0 % were.'
  )


def test_the_table_holds_each_number_with_its_interval_and_its_change(run):
  table = tables.numbers(files.read(run))
  line = re.search(
    r'<tr[^>]*><th scope="row">Second attempt right.*?</tr>', table
  )
  cells = re.findall(r'<td>(.*?)</td>', line[0])
  assert [cell.split('<')[0] for cell in cells] == [
    '25.0',
    '75.0',
    '75.0',
    '+50.0',
  ]
  low, high = summary(rows(AFTER, 2))['ci95']['accuracy_t2']
  assert words.between(low, high) in cells[2]
  assert cells[3].count('+') == 3  # The change and both of its bounds.


def test_changes_are_paired_by_problem_whatever_the_order_of_lines(run):
  orderly = tables.numbers(files.read(run)), tables.verdict(files.read(run))
  path = run / 'evaluations' / 'base.jsonl'
  path.write_text(''.join(reversed(path.read_text().splitlines(True))))
  base = files.read(run).rows['base']
  assert base[0].id == 'sum/39'
  found = files.read(run)
  assert (tables.numbers(found), tables.verdict(found)) == orderly
  assert '20 final answers from wrong to right and 0 from' in orderly[1]


def test_examples_are_grouped_by_what_became_of_the_first_answer(run):
  text = examples.groups(files.read(run))
  counts = re.findall(r'<h3>(\w+).*?<p class="quiet">(\d+) of 40', text)
  assert counts == [
    ('Fixed', '10'),
    ('Kept', '20'),
    ('Broken', '0'),
    ('Still', '10'),
  ]
  first = text[text.index('<article') : text.index('</article>')]
  assert re.findall(r'<h4>(.*?)</h4>', first.replace(words.SPACE, ' ')) == [
    'Before training',
    'After Stage II',
  ]
  assert '<pre><del>4</del>01</pre>' in first
  assert '<pre><ins>5</ins>01</pre>' in first


def test_difficulties_are_counted_apart(run):
  path = run / 'evaluations' / 'stage2.jsonl'
  records = rows(AFTER, 2)
  for i, record in enumerate(records):
    record['difficulty'] = 'easy' if i % 4 == 0 else 'hard'
  for name in ('base', 'stage1', 'stage2'):
    write_lines(path.with_stem(name), records)
  run = files.read(run)
  table = tables.shares(run, 'difficulty', 'By difficulty')
  table = table.replace(words.SPACE, ' ')
  lines = re.findall(r'<th scope="row">(\w+)</th>(.*?)</tr>', table)
  cells = {k: re.findall(r'<td>(.*?)</td>', v)[:3] for k, v in lines}
  assert cells == {
    'easy': ['10', '100.0 %', '100.0 %'],
    'hard': ['30', '33.3 %', '66.7 %'],
  }


@pytest.mark.usefixtures('unsaved')
def test_three_turns_reach_every_part_of_the_report(tmp_path):
  text = build(write_run(tmp_path, turns=3)).read_text()
  assert 'Training raised third attempts from' in text
  assert 'Third attempt right' in text
  assert 'Broken: second attempt right, third wrong' in text
  assert text.count('<span>Third attempt</span>') > 10
  assert {p.stem for p in (tmp_path / 'plots').iterdir()} == FIGURES


def test_the_same_files_give_the_same_bytes_wherever_they_lie(built, run):
  def everything(folder):
    paths = [folder / 'report.html', *(folder / 'plots').iterdir()]
    return {path.name: path.read_bytes() for path in paths}

  assert everything(build(run).parent) == everything(built.parent)


@pytest.mark.usefixtures('unsaved')
def test_a_failed_write_leaves_the_old_report_and_no_litter(run, monkeypatch):
  build(run)
  before = {p: p.read_bytes() for p in run.rglob('*') if p.is_file()}

  def fail(source, target):
    raise OSError('disk full')

  monkeypatch.setattr(build_lib.os, 'replace', fail)
  (run / 'samples.jsonl').unlink()
  with pytest.raises(OSError, match='disk full'):
    build(run)
  after = {p: p.read_bytes() for p in run.rglob('*') if p.is_file()}
  del before[run / 'samples.jsonl']
  assert after == before


def test_the_command_prints_the_report_or_what_is_wrong(tmp_path):
  (tmp_path / 'config.json').write_text('{}')

  def call(*arguments):
    return subprocess.run(
      [sys.executable, '-m', 'score_jax.report', *map(str, arguments)],
      capture_output=True,
      text=True,
    )

  nowhere = tmp_path / 'nowhere'
  nowhere.mkdir()
  for named in (tmp_path, f'--workdir={tmp_path}'):
    assert call(named).stdout.strip() == str(tmp_path / 'report.html')
  bad = call(nowhere)
  assert bad.returncode == 2
  assert f'--workdir={nowhere} holds no run' in bad.stderr
  assert 'Traceback' not in bad.stderr
  assert list(nowhere.iterdir()) == []


def test_commands_with_flags_of_one_name_are_imported_together():
  names = ('report.__main__', 'viewer.__main__', 'export')
  code = '; '.join(f'import score_jax.{name}' for name in names)
  subprocess.run([sys.executable, '-c', code], check=True)


def test_what_an_attempt_was_paid_stands_beside_what_it_earned(run):
  record = row(1, AFTER[1], 2)
  entry = sample('stage2', 10, record, 2)
  write_lines(run / 'samples.jsonl', [entry | {'paid': [-0.004, 10.9]}, entry])
  text = examples.samples(files.read(run))
  notes = re.findall(r'<span class="label">(reward.*?)</span>', text)
  assert notes == [
    'reward 0.00, paid 0.00, advantage +0.25',
    'reward +11.00, paid +10.90, advantage +0.25',
    'reward 0.00, advantage +0.25',
    'reward +11.00, advantage +0.25',
  ]


def test_a_setting_that_is_not_the_default_stands_first_with_it(run):
  config = config_lib.default()
  with config.unlocked():
    config.method.alpha = 5.0
  (run / 'config.json').write_text(config.to_json())
  text = tables.settings(files.read(run))
  changed, others = text.split('As by default')
  assert re.findall('<code>([^<]*)</code>', changed) == ['method.alpha', '5.0']
  assert '(default: 10.0)' in changed
  assert 'method.beta1' in others
  assert 'method.alpha' not in others


def test_how_attempts_were_judged_is_told_of_the_end_of_each_stage(run):
  assert tables.verdicts(files.read(run)) == ''
  steps = [
    step('stage1', n, 2)
    | {'outcome_unparsed_t1': 0.5 if n > 8 else 1.0, 'tests_passed_t2': 0.25}
    for n in range(1, 11)
  ]
  write_lines(run / 'metrics.jsonl', steps)
  text = tables.verdicts(files.read(run)).replace(words.SPACE, ' ')
  lines = re.findall(r'row">([^<]*)</th><td>([^<]*)</td>', text)
  assert lines == [
    ('First attempt: no answer found', '50.0 %'),
    ('Second attempt: share of tests passed', '25.0 %'),
  ]


def test_a_smaller_gain_with_more_right_in_the_end_is_explained(run):
  assert tables.smaller_gain(files.read(run)) == ''
  summaries = json.loads((run / 'eval.json').read_text())
  summaries['stage1'] |= {'accuracy_t1': 0.3, 'delta': 0.4, 'accuracy_t2': 0.7}
  (run / 'eval.json').write_text(json.dumps(summaries))
  text = tables.smaller_gain(files.read(run))  # Now 0.5, 0.25 and 0.75.
  assert 'first attempts by 20.0 points' in text
  assert 'second attempts by 5.0' in text


def test_each_checkpoint_names_the_step_it_is_of(run):
  summaries = json.loads((run / 'eval.json').read_text())
  for name, number in {'base': 0, 'stage1': 140, 'stage2': 120}.items():
    summaries[name]['step'] = number
  (run / 'eval.json').write_text(json.dumps(summaries))
  head = tables.numbers(files.read(run)).split('</thead>')[0]
  assert re.findall(r'step \d+', head) == ['step 140', 'step 120']


def test_a_run_of_another_method_does_not_pass_for_score(run):
  config = json.loads((run / 'config.json').read_text())
  assert 'one to compare' not in page.page(files.read(run), {})
  config['method']['name'] = 'star_d'
  (run / 'config.json').write_text(json.dumps(config))
  assert '<b>star_d</b>' in page.page(files.read(run), {})


def test_the_report_tells_what_its_task_is(built):
  assert 'leading zero' in built.read_text()
  assert about('math=2,gsm8k=1').count('Each problem') == 2
  assert about('mbpp_plus') == about('mbpp')
  assert about('of-my-own') == ''


@pytest.mark.usefixtures('unsaved')
def test_a_model_that_is_evaluated_alone_is_not_spoken_of_as_trained(run):
  config = json.loads((run / 'config.json').read_text())
  (run / 'config.json').write_text(json.dumps(config | {'job': 'evaluate'}))
  summaries = json.loads((run / 'eval.json').read_text())
  (run / 'eval.json').write_text(json.dumps({'base': summaries['base']}))
  for path in (run / 'evaluations').iterdir():
    if path.stem != 'base':
      path.unlink()
  (run / 'metrics.jsonl').unlink()
  (run / 'samples.jsonl').unlink()
  text = build(run).read_text().replace(words.SPACE, ' ')
  assert '<h1>As evaluated, first attempts are 50.0 % right, second' in text
  assert 'evaluates a model, and trains nothing' in text
  assert 'of 40 problems as evaluated' in text
  assert 'Before training' not in text
  assert 'before training' not in text
