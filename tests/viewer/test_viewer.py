"""The viewer in a real browser, and what it is made of without one."""

import base64
import io
import json
import re
import subprocess
import sys
import time
import zlib

import browser as browser_lib
import matplotlib.image
import pytest

from score_jax.viewer.build import build

needs_browser = pytest.mark.skipif(
  browser_lib.CHROMIUM is None, reason='no Chromium on this machine'
)
MEGABYTE = 1e6
HOSTILE = (
  '<script>document.title = "taken"</script>',
  '</script><img src=x onerror="document.title = \'taken\'">',
  '<!--<script>',
  'line\u2028separator\u2029and\u0000nul\u0007bell',
  'half a pair \ud83d',
  '\u202eright to left',
  '&lt;b&gt; &amp; @data@ @script@ \\u003c',
)
FATES = {
  'kept': ('right', 'right'),
  'fixed': ('wrong', 'right'),
  'broken': ('right', 'wrong'),
  'still': ('wrong', 'wrong'),
}


def row(name, fate, attempts=None, **more):
  outcomes = FATES[fate]
  texts = ['42' if o == 'right' else '41' for o in outcomes]
  return {
    'id': name,
    'prompt': f'what is {name}?',
    'answer': '42',
    'difficulty': '',
    'attempts': attempts or texts,
    'outcomes': list(outcomes),
    'truncated': [False, False],
  } | more


def sample(step, stage, record, **more):
  earned = {'reward': [0.0, 1.0], 'advantage': [-0.25, 2.5]}
  return record | {'stage': stage, 'step': step} | earned | more


def write(folder, evaluations, samples=()):
  """Writes the files of a run that the viewer reads."""
  (folder / 'evaluations').mkdir(parents=True, exist_ok=True)
  (folder / 'config.json').write_text('{}')
  files = {f'evaluations/{k}.jsonl': v for k, v in evaluations.items()}
  for name, records in (files | {'samples.jsonl': samples}).items():
    lines = (json.dumps(record) + '\n' for record in records)
    (folder / name).write_text(''.join(lines))
  return folder


def columns(path):
  """Returns what a page carries."""
  text = path.read_text('ascii')
  [packed] = re.findall(r'<script id="data"[^>]*>([^<]*)</script>', text)
  return json.loads(zlib.decompress(base64.b64decode(packed)))


@pytest.fixture(scope='module')
def window(tmp_path_factory):
  opened = browser_lib.Browser(tmp_path_factory.mktemp('profile'))
  yield opened
  opened.close()


@pytest.fixture
def show(window, tmp_path):
  """Gives a function that shows runs in a browser until they are ready."""

  def shown(*folders, **size):
    path = build(folders, tmp_path / 'viewer.html')
    window.open(path, **size)
    window.wait('document.body && document.body.dataset.ready')
    assert window.errors == []
    return window

  return shown


def listed(window):
  """Returns how many trajectories pass the filters."""
  return window.value('items.length')


def summary(window):
  return window.value("document.querySelector('#summary').textContent")


def attempts(window):
  """Returns the texts of the chosen trajectory's attempts."""
  return window.value(
    "[...document.querySelectorAll('.attempt pre')].map((e) => e.textContent)"
  )


def choose_option(window, select, label):
  options = window.value(
    f"[...document.querySelectorAll('#{select} option')]"
    '.map((o) => [o.textContent, o.value])'
  )
  value = dict(options)[label]
  window.value(
    f"(() => {{ const s = document.querySelector('#{select}');"
    f"s.value = '{value}'; s.dispatchEvent(new Event('change')); }})()"
  )


@pytest.fixture
def run(tmp_path):
  base = [row(f'p{i}', 'kept' if i % 2 else 'still') for i in range(12)]
  fates = ['kept', 'fixed', 'broken', 'still', 'fixed', 'kept']
  after = [
    row(
      f'p{i}',
      fates[i % 6],
      difficulty=f'Level {i % 3}',
      task='math' if i < 8 else 'gsm8k',
    )
    for i in range(12)
  ]
  steps = [
    sample(i, f'stage{1 + i // 5}', row(f's{i}', 'fixed')) for i in range(10)
  ]
  return write(tmp_path / 'one', {'base': base, 'stage2': after}, steps)


def test_each_text_is_stored_once_and_found_again_for_each_row(run):
  page = columns(build([run]))
  assert len(set(page['strings'])) == len(page['strings'])
  assert [(s['name'], s['training'], s['end']) for s in page['sources']] == [
    ('base', False, 12),
    ('stage2', False, 24),
    ('stage1', True, 29),
    ('stage2', True, 34),
  ]
  start = 12
  text = [page['strings'][column[start + 1]] for column in page['attempts']]
  assert text == ['41', '42']
  assert page['strings'][page['columns']['task'][start + 9]] == 'gsm8k'


def test_the_same_files_give_the_same_bytes(run, tmp_path):
  first = build([run]).read_bytes()
  assert build([run], tmp_path / 'again.html').read_bytes() == first


def test_the_page_loads_nothing_and_may_run_its_own_script_alone(run):
  text = build([run]).read_text('ascii')
  assert not re.search(r'(src|href)\s*=\s*["\']', text)
  assert 'url(' not in text
  [policy] = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
  assert policy.startswith("default-src 'none'; ")
  assert "'unsafe-inline'" not in policy.split('script-src')[1]
  assert "'sha256-" in policy.split('script-src')[1]


def test_what_no_number_can_be_is_left_blank(tmp_path):
  strange = sample(1, 'stage1', row('p', 'kept'), advantage=[1e400, -1e-9])
  page = columns(build([write(tmp_path, {}, [strange])]))
  assert page['training']['0']['advantage'] == [None, -1e-9]


@needs_browser
def test_filters_let_through_what_was_counted_by_hand(show, run):
  window = show(run)
  assert listed(window) == 12
  # Of each six: kept, fixed, broken, still, fixed, kept.
  window.click('[data-kind=fixed]')
  assert listed(window) == 4
  window.click('[data-kind=broken]')
  assert listed(window) == 6
  choose_option(window, 'difficulty', 'Level 1')  # 1, 4, 7 and 10.
  assert listed(window) == 4
  choose_option(window, 'task', 'gsm8k')  # 8 to 11.
  assert listed(window) == 1
  window.click('[data-kind=fixed]')
  assert listed(window) == 0
  assert summary(window) == 'Nothing passes these filters.'
  window.click('.empty button')
  assert listed(window) == 12
  assert 'first attempts right 50.0\xa0%' in summary(window)
  assert 'last attempts right 66.7\xa0%' in summary(window)


@needs_browser
def test_training_is_filtered_by_step(show, run):
  window = show(run)
  assert window.value("document.querySelector('#steps').hidden")
  choose_option(window, 'source', 'Training, Stage\xa0II')  # Steps 5 to 9.
  assert listed(window) == 5
  window.click('#from')
  window.press('7')
  assert listed(window) == 3
  window.click('#to')
  window.press('8')
  assert listed(window) == 2
  credit = window.value("document.querySelectorAll('.credit')[1].textContent")
  assert credit == 'reward +1.00, advantage +2.50'


@needs_browser
def test_search_finds_text_of_any_field_whatever_its_case(show, run):
  window = show(run)
  window.press('/')
  for keys, count in {'WHAT IS': 12, ' P1': 3, '?': 1}.items():
    for key in keys:
      window.press(key)
    assert listed(window) == count  # p1, p10 and p11; then p1 alone.


@needs_browser
def test_keys_walk_through_the_list(show, run):
  window = show(run)
  steps = [('j', 1), ('j', 2), ('k', 1), ('End', 11), ('j', 11), ('Home', 0)]
  more = [('k', 0), ('ArrowDown', 1), ('ArrowUp', 0), ('PageDown', 11)]
  for key, place in steps + more:
    window.press(key)
    assert window.value('chosen') == place, key
  chosen = window.value(
    "document.querySelector('[aria-selected=true] .where').textContent"
  )
  assert chosen == 'p11'


@needs_browser
def test_two_runs_are_paired_by_problem_whatever_their_order(
  show, run, tmp_path
):
  fates = ['kept', 'still', 'fixed', 'still']
  other = [row(f'p{i}', fates[i % 4], task='math') for i in range(8)]
  other += [row('elsewhere', 'kept')]
  second = write(tmp_path / 'two', {'stage2': other[::-1]})
  window = show(run, second)
  # In the end, ours:   right right wrong wrong right right right right,
  # and theirs:         right wrong right wrong right wrong right wrong.
  assert listed(window) == 8
  counts = window.value(
    "Object.fromEntries([...document.querySelectorAll('#pairs button')]"
    '.map((b) => [b.dataset.kind,'
    " Number(b.querySelector('.count').textContent)]))"
  )
  assert counts == {'both': 3, 'lost': 3, 'won': 1, 'neither': 1}
  window.click('[data-kind=won]')
  assert listed(window) == 1
  assert attempts(window) == ['42', '41', '41', '42']
  headings = window.value(
    "[...document.querySelectorAll('#detail h3')].map((e) => e.textContent)"
  )
  assert headings == [
    'one: After Stage\xa0II',
    'two: After Stage\xa0II',
  ]


@needs_browser
def test_what_a_model_wrote_is_shown_and_does_nothing(show, tmp_path):
  records = [
    row(text, 'fixed', [text, text[::-1]], prompt=text, answer=text)
    for text in HOSTILE
  ]
  window = show(
    write(tmp_path / HOSTILE[0].replace('/', ''), {'base': records})
  )
  visible = str.maketrans({'\0': '\u2400', '\x07': '\u2407'})
  for text in HOSTILE:
    both = window.value('[attempt(items[chosen].row, 0), "ok"]')
    assert both[1] == 'ok'
    assert window.value(
      "document.querySelector('.attempt pre').textContent === "
      f'{json.dumps(text.translate(visible))}'
    )
    window.press('j')
  assert window.value('document.title').startswith('Trajectories: ')
  assert window.value("document.querySelectorAll('img, script').length") == 1
  assert window.errors == []


PROGRAM = """def double(numbers):
    total = []
    for n in numbers:
        total.append(n + n)
    return total"""


@needs_browser
def test_a_program_shows_its_lines_and_which_of_them_changed(show, tmp_path):
  after = PROGRAM.replace('n + n', '2 * n').replace('    return', '\treturn')
  record = row('p', 'fixed', [PROGRAM, after])
  window = show(write(tmp_path / 'run', {'base': [record]}))
  # Line ends and blanks stay as they were written.
  assert attempts(window) == [PROGRAM, after]
  lines = window.value(
    "[...document.querySelectorAll('.attempt:last-child .line')]"
    ".map((e) => e.classList.contains('changed'))"
  )
  assert lines == [False, False, False, True, True]
  marked = window.value(
    "['del', 'ins'].map((tag) => [...document.querySelectorAll(tag)]"
    '.map((e) => e.textContent))'
  )
  assert marked == [['n + ', '    '], ['2 * ', '\t']]


@needs_browser
def test_differences_join_to_both_texts_and_leave_the_same_rest(show, tmp_path):
  """Whatever the texts: random ones, with words, lines, signs and emoji."""
  window = show(write(tmp_path / 'run', {'base': [row('p', 'kept')]}))
  bad = window.value("""(() => {
    let seed = 7;
    const random = (n) => (seed = (seed * 48271) % 2147483647) % n;
    const letters = ['a', 'b', '1', ' ', '\\n', '.', '\\u{1F600}', '_'];
    const make = (n) => Array.from({length: random(n)},
      () => letters[random(letters.length)]).join('');
    const rest = (text, marks, bit) =>
      [...text.split('')].filter((c, i) => !(marks[i] & bit)).join('');
    for (let trial = 0; trial < 2000; trial++) {
      const texts = [make(60), make(60)];
      if (trial % 2) texts[1] = texts[0].replace('a', 'b') + make(9);
      const [a, b] = marksOf(texts);
      if (rest(texts[0], a, GONE) !== rest(texts[1], b, NEW)) return texts;
    }
    return marksOf(['x y', 'x y'])[0].some((m) => m) ? 'same' : '';
  })()""")
  assert bad == ''


@needs_browser
def test_a_number_is_compared_by_digits_and_a_text_by_words(show, tmp_path):
  records = [
    row('number', 'fixed', ['633', '643']),
    row('text', 'fixed', ['The sum is 633.', 'The sum is 643.']),
  ]
  window = show(write(tmp_path / 'run', {'base': records}))
  found = []
  for _ in records:
    found += window.value(
      "[...document.querySelectorAll('#detail pre')]"
      '.map((e) => e.innerHTML).slice(-2)'
    )
    window.press('j')
  assert found == [
    '6<del>3</del>3',
    '6<ins>4</ins>3',
    'The sum is <del>633</del>.',
    'The sum is <ins>643</ins>.',
  ]


@needs_browser
def test_single_tokens_show_advantage_and_kl_on_demand(show, tmp_path):
  logged = {
    'tokens': ['4', '2', ' again', '4', '1'],
    'turn': [1, 1, 0, 2, 2],
    'logp': [-0.5, -0.25, 0.0, -0.125, -2.0],
    'kl': [0.25, -0.125, 0.0, 0.5, -0.0],
    'paid': [-0.01, 10.99],
  }
  entry = sample(3, 'stage2', row('p', 'fixed'), **logged)
  plain = sample(4, 'stage2', row('p', 'fixed'))
  window = show(write(tmp_path / 'run', {}, [entry, plain]))
  assert window.value("document.querySelectorAll('.token').length") == 0
  window.click('[data-mode=kl]')
  texts = window.value(
    "[...document.querySelectorAll('.token')].map((e) => e.textContent)"
  )
  assert texts == ['4', '2', '4', '1']  # No instruction among them.
  credits = window.value(
    "[...document.querySelectorAll('.credit')].map((e) => e.textContent)"
  )
  assert credits[0] == (
    '2 tokens, sum +0.125 nats; largest: "4" +0.250, "2" −0.125'
  )
  assert credits[2].startswith('2 tokens, sum +0.500 nats')
  assert credits[3] == 'reward +1.00, paid +10.99, advantage +2.50'
  assert '"1" 0.000' in credits[2]
  colours = window.value(
    "[...document.querySelectorAll('.token')]"
    '.map((e) => getComputedStyle(e).backgroundColor)'
  )
  assert len(set(colours)) == 4
  window.press('j')
  assert 'not logged' in window.value(
    "document.querySelector('#detail').textContent"
  )


@needs_browser
def test_three_attempts_stand_side_by_side(show, tmp_path):
  three = row('p', 'fixed') | {
    'attempts': ['1', '2', '42'],
    'outcomes': ['wrong', 'unparsed', 'right'],
    'truncated': [False, True, False],
  }
  window = show(write(tmp_path / 'run', {'base': [three]}))
  left = window.value(
    "[...document.querySelectorAll('.attempt')]"
    '.map((e) => e.getBoundingClientRect().left)'
  )
  assert len(left) == 3
  assert sorted(set(left)) == left
  heads = window.value(
    "[...document.querySelectorAll('.attempt strong')]"
    '.map((e) => e.textContent)'
  )
  assert heads == ['✗ wrong', '? no answer found, cut off', '✓ right']


@needs_browser
def test_ten_thousand_trajectories_stay_small_and_come_at_once(show, tmp_path):
  """Each is as long as a worked solution, and no two are alike."""
  words = [f'{a}{b}' for a in 'bdfgklmnpr' for b in 'aeiou']

  def text(number):
    pick = (words[(number * (i + 7) + i * i) % 50] for i in range(300))
    return f'{number}: ' + ' '.join(pick)

  records = [
    row(f'p{i}', list(FATES)[i % 4], [text(i), text(i) + ' again'])
    for i in range(10_000)
  ]
  folder = write(tmp_path / 'run', {'base': records})
  started = time.monotonic()
  window = show(folder, width=1400, height=900)
  elapsed = time.monotonic() - started
  size = (tmp_path / 'viewer.html').stat().st_size
  assert size < 50 * MEGABYTE
  assert int(window.value('document.body.dataset.ready')) < 5_000
  assert elapsed < 30  # Built and shown; tens of times what it should take.
  assert listed(window) == 10_000
  # Only what is on the screen exists, at either end.
  assert window.value("document.querySelectorAll('.row').length") < 60
  window.press('End')
  assert window.value("document.querySelectorAll('.row').length") < 60
  shown = "document.querySelector('[aria-selected=true] .where').textContent"
  assert window.value(shown) == 'p9999'
  window.value("document.querySelector('#query').value = '4321: '")
  window.click('#query')
  window.press(' ')
  assert listed(window) == 1


@needs_browser
@pytest.mark.parametrize('width', [390, 800, 1400])
def test_an_empty_run_and_one_of_one_trajectory_fit_any_width(
  show, tmp_path, width
):
  empty = show(write(tmp_path / 'empty', {}), width=width)
  assert summary(empty) == 'This run has written no trajectories yet.'
  long = row('p' * 80, 'fixed', ['wrong ' * 99, 'x' * 900])
  window = show(write(tmp_path / 'one', {'base': [long]}), width=width)
  assert window.value('document.documentElement.scrollWidth') <= width
  assert window.value("document.querySelector('#detail').scrollWidth") <= width
  assert window.value("document.querySelector('#detail').clientHeight") > 200


@needs_browser
def test_it_is_dark_where_that_is_preferred(show, run):
  window = show(run)
  window.dark(True)
  dark = matplotlib.image.imread(io.BytesIO(window.screenshot()), 'png')
  window.dark(False)
  light = matplotlib.image.imread(io.BytesIO(window.screenshot()), 'png')
  assert dark[..., :3].mean() < 0.3 < 0.8 < light[..., :3].mean()


def test_the_command_prints_the_file_or_what_is_wrong(run, tmp_path):
  def call(*arguments):
    return subprocess.run(
      [sys.executable, '-m', 'score_jax.viewer', *map(str, arguments)],
      capture_output=True,
      text=True,
    )

  out = tmp_path / 'all.html'
  good = call(run, run, f'--out={out}')
  assert (good.returncode, good.stdout.strip()) == (0, str(out))
  assert [s['run'] for s in columns(out)['sources']] == [0] * 4 + [1] * 4
  for bad, said in {
    (): 'got none',
    (tmp_path / 'nowhere',): 'holds no run',
    (run, run, run): '1 to 2 directories',
  }.items():
    refused = call(*bad)
    assert refused.returncode == 2
    assert said in refused.stderr
    assert 'Traceback' not in refused.stderr
