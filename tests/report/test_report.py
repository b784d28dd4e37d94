import collections
import dataclasses
import html.parser
import io
import itertools
import json
import re
import subprocess
import sys

import hypothesis
import hypothesis.strategies as st
import matplotlib as mpl
import matplotlib.image
import numpy as np
import pytest

from score_jax import config as config_lib
from score_jax import evaluation
from score_jax.report import build as build_lib
from score_jax.report import (
  curves,
  differences,
  examples,
  figures,
  files,
  page,
  style,
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
FIGURES = {
  'accuracy',
  'transitions',
  'training_accuracy',
  'training_transitions',
  'training_changes',
  'training_kl',
  'edits',
  'health',
  'seconds',
}
# (first attempt right, second attempt right) of problem i, in turn.
BEFORE = [(True, True), (False, False), (True, False), (False, False)]
AFTER = [(True, True), (False, True), (True, True), (False, False)]


def outcome(right):
  return 'right' if right else 'wrong'


def row(number, fates, turns):
  """A problem whose attempts after the second copy it."""
  right = [*fates, *[fates[-1]] * (turns - 2)]
  texts = [str(500 + number) if r else str(400 + number) for r in right]
  return {
    'id': f'sum/{number}',
    'prompt': f'{number}+500=',
    'answer': str(500 + number),
    'attempts': texts,
    'outcomes': [outcome(r) for r in right],
    'truncated': [False] * turns,
    'difficulty': '',
  }


def rows(fates, turns):
  return [row(i, fates[i % 4], turns) for i in range(40)]


def step(stage, number, turns):
  names = ['accuracy_t{}', 'kl_t{}', 'entropy_t{}', 'truncated_t{}']
  names += ['flat_groups_t{}', 'validation_accuracy_t{}']
  entry = {'stage': stage, 'step': number, 'beta2': 0.1, 'grad_norm': 1.0}
  entry |= {n.format(t): 0.1 * t for n in names for t in range(1, turns + 1)}
  entry |= {'seconds': 2.0, 'seconds_sample': 1.0, 'tokens_per_second': 900.0}
  for turn in range(2, turns + 1):
    end = '' if turn == 2 else f'_t{turn}'
    entry |= {f'delta_i_to_c{end}': 0.15, f'delta_c_to_i{end}': 0.05}
    entry |= {f'answer_change_rate{end}': 0.2}
  return entry


def write_lines(path, records):
  path.write_text(''.join(json.dumps(r) + '\n' for r in records))


def summary(records):
  return evaluation.summarize(
    evaluation.compare(
      [r['attempts'] for r in records],
      [r['attempts'] for r in records],
      np.array([[o == 'right' for o in r['outcomes']] for r in records]),
      np.array([r['truncated'] for r in records]),
    ),
    resamples=200,
    seed=0,
  )


def sample(stage, number, record, turns):
  return record | {
    'stage': stage,
    'step': number,
    'reward': [0.0] * (turns - 1) + [11.0],
    'advantage': [0.25] * turns,
  }


def write_run(folder, turns):
  """Writes a run of two stages; its numbers can be counted by hand."""
  config = config_lib.default()
  (folder / 'config.json').write_text(config.to_json())
  (folder / 'evaluations').mkdir()
  checkpoints = {'base': BEFORE, 'stage1': AFTER, 'stage2': AFTER}
  evaluations = {k: rows(fates, turns) for k, fates in checkpoints.items()}
  for name, records in evaluations.items():
    write_lines(folder / 'evaluations' / f'{name}.jsonl', records)
  summaries = {name: summary(r) for name, r in evaluations.items()}
  (folder / 'eval.json').write_text(json.dumps(summaries))
  stages = ('stage1', 'stage2')
  steps = [step(s, n, turns) for s in stages for n in range(1, 13)]
  write_lines(folder / 'metrics.jsonl', steps)
  record = row(1, AFTER[1], turns)
  drawn = [sample(s, 10, record, turns) for s in stages]
  write_lines(folder / 'samples.jsonl', drawn)
  return folder


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


class Page(html.parser.HTMLParser):
  """What a browser would find: tags, attributes, and text of each tag."""

  VOID = ('meta', 'link', 'img', 'br', 'input')

  def __init__(self, text):
    super().__init__()
    self.tags, self.attributes, self.open = collections.Counter(), [], []
    self.texts = []
    self.feed(text)
    self.close()

  def handle_starttag(self, tag, attrs):
    self.tags[tag] += 1
    self.attributes += [(tag, *pair) for pair in attrs]
    if tag not in self.VOID:
      self.open.append(tag)
    if tag == 'pre':
      self.texts.append('')

  def handle_startendtag(self, tag, attrs):
    self.tags[tag] += 1
    self.attributes += [(tag, *pair) for pair in attrs]

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if 'pre' in self.open:
      self.texts[-1] += data


@pytest.fixture
def run(tmp_path):
  return write_run(tmp_path, turns=2)


@pytest.fixture
def unsaved(monkeypatch):
  """Draws all figures but renders none, which takes most of the time."""

  def picture(name, caption, draw):
    draw()
    return style.Picture(name, caption, b'', '<svg></svg>')

  monkeypatch.setattr(style, 'picture', picture)


@pytest.fixture(scope='module')
def built(tmp_path_factory):
  folder = write_run(tmp_path_factory.mktemp('built'), turns=2)
  return build(folder)


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


def test_every_figure_is_a_picture_of_its_own_and_stands_on_the_page(built):
  plots = built.parent / 'plots'
  assert {p.name for p in plots.iterdir()} == {f'{n}.png' for n in FIGURES}
  for path in plots.iterdir():
    image = matplotlib.image.imread(io.BytesIO(path.read_bytes()), 'png')
    assert image.shape[1] == 1280
    assert 0.005 < (image[..., :3].min(-1) < 0.9).mean() < 0.9
  assert Page(built.read_text()).tags['svg'] == len(FIGURES)


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


@pytest.fixture
def asked(run):
  """A run whose final model was asked for three attempts too."""
  config = json.loads((run / 'config.json').read_text())
  config['eval']['attempts'] = 3
  (run / 'config.json').write_text(json.dumps(config))
  more = rows(AFTER, 3)
  write_lines(run / 'evaluations' / 'attempts3.jsonl', more)
  summaries = json.loads((run / 'eval.json').read_text())
  summaries['attempts3'] = summary(more)
  (run / 'eval.json').write_text(json.dumps(summaries))
  return run


def test_what_a_model_is_asked_beside_stands_behind_the_stages(asked):
  read = files.read(asked)
  assert list(read.summaries) == ['base', 'stage1', 'stage2', 'attempts3']
  assert list(read.rows) == list(read.summaries)
  assert read.checkpoints == ['base', 'stage1', 'stage2']
  assert (read.trained, read.newest) == ('stage2', 'stage2')


def test_only_pairs_of_attempts_that_were_made_have_a_bar(asked):
  (axes,) = figures.transitions(files.read(asked)).axes
  labels = [label.get_text() for label in axes.get_yticklabels()]
  assert len(labels) == 4 + 1  # Of attempt 3 one alone knows.
  assert labels[3:] == [
    'Asked 3 times\nattempt 1 to 2',
    'Asked 3 times\nattempt 2 to 3',
  ]


def test_a_caption_speaks_of_what_is_drawn(asked):
  run = files.read(asked)
  made = figures.pictures(run)
  assert 'Below each group' in made['accuracy'].caption
  assert 'Thick' not in made['training_accuracy'].caption  # Too few steps.
  longer = [
    dataclasses.replace(part, steps=part.steps * curves.PARTS_SMOOTHED * 2)
    for part in run.segments
  ]
  made = figures.pictures(dataclasses.replace(run, segments=tuple(longer)))
  assert 'Thick: its moving average.' in made['training_accuracy'].caption


def test_numbers_on_bars_do_not_run_into_each_other(asked):
  with mpl.rc_context(style.LOOK):  # As `style.picture` draws it.
    drawn = figures.accuracy(files.read(asked))
    drawn.draw_without_rendering()
  (axes,) = drawn.axes
  boxes = [text.get_window_extent() for text in axes.texts]
  assert len(boxes) == 3 * 2 + 3
  for one, other in itertools.combinations(boxes, 2):
    assert not one.overlaps(other)
  labels = [label.get_text() for label in axes.get_xticklabels()]
  assert all('points' in label for label in labels)


@pytest.mark.usefixtures('unsaved')
def test_ten_turns_are_drawn(tmp_path):
  text = build(write_run(tmp_path, turns=10)).read_text()
  assert 'Training raised tenth attempts from' in text
  assert {p.stem for p in (tmp_path / 'plots').iterdir()} == FIGURES


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


def test_tokens_that_do_not_fit_each_other_cost_their_line_alone(run):
  entry = sample('stage2', 10, row(1, AFTER[1], 2), 2)
  whole = {'tokens': ['a', 'b'], 'turn': [1, 2], 'logp': [0, 0], 'kl': [0, 0]}
  short = whole | {'kl': [0]}
  write_lines(run / 'samples.jsonl', [entry | whole, entry | short, entry])
  found = files.read(run)
  assert [s.tokens is None for s in found.samples] == [False, True]
  assert found.samples[0].tokens.text == ('a', 'b')
  assert '1 of' in found.notes[0]


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


@pytest.mark.parametrize(
  ('values', 'panels'), [([0.1, 0.1], 5), ([0.1, 0.2], 6)]
)
def test_a_weight_that_never_moves_has_no_panel(run, values, panels):
  steps = [
    step('stage1', n, 2) | {'beta2': value, 'logp_gap_mean': 0.1}
    for n, value in enumerate(values, start=1)
  ]
  write_lines(run / 'metrics.jsonl', steps)
  figure = curves.health(files.read(run))
  assert len([axes for axes in figure.axes if axes.lines]) == panels


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


TEXTS = st.lists(st.text('ab 1.\n_²', max_size=70), min_size=1, max_size=4)


@hypothesis.given(TEXTS)
def test_marked_pieces_join_to_the_attempts_and_their_rests_agree(attempts):
  marked = differences.pieces(attempts)
  assert [''.join(p.text for p in parts) for parts in marked] == attempts
  for before, after in itertools.pairwise(marked):
    kept = ''.join(p.text for p in before if not p.gone)
    assert kept == ''.join(p.text for p in after if not p.new)
  assert not any(p.new for p in marked[0])
  assert not any(p.gone for p in marked[-1])


def test_a_number_is_compared_by_digits_and_a_text_by_words():
  assert examples.marked(['633', '643', '643']) == [
    '6<del>3</del>3',
    '6<ins>4</ins>3',
    '643',
  ]
  assert examples.marked(['The sum is 633.', 'The sum is 643.']) == [
    'The sum is <del>633</del>.',
    'The sum is <ins>643</ins>.',
  ]
  assert examples.marked(['1', '2', '3']) == [
    '<del>1</del>',
    '<ins><del>2</del></ins>',
    '<ins>3</ins>',
  ]


@pytest.mark.parametrize(
  ('name', 'label'),
  [
    ('base', 'Before training'),
    ('stage1', 'After Stage I'),
    ('stage1b', 'After Stage I(b)'),
    ('stage2', 'After Stage II'),
    ('stage2round1', 'After Stage II, round 1'),
    ('round2', 'After Round 2'),
    ('round2stage1', 'After Round 2, Stage I'),
    ('training', 'After training'),
    ('star', 'star'),
  ],
)
def test_checkpoints_have_plain_names(name, label):
  assert words.checkpoint(name).replace(words.SPACE, ' ') == label


def test_numbers_print_alike_whichever_way_they_were_computed():
  assert words.percent(0.9065 - 0.658, signed=True) == '+24.9'
  assert words.percent(0.2485, signed=True) == '+24.9'
  assert words.percent(np.float64(0.9065)) == words.percent(0.9065)
  assert words.percent(-0.0001, signed=True) == '+0.0'
  assert words.percent(-0.112, signed=True) == '−11.2'
  assert words.percent(float('nan')) == '–'
