// Shows the columns that the page carries: a list of trajectories to filter
// and to search, and the chosen one with its attempts side by side.
//
// Row r is one trajectory; what is known of it stands at place r of every
// column. Only the lines of the list that are on the screen exist as elements.
// Text becomes text nodes, never HTML.
'use strict';

const ROW = 36;  // Pixels of a line of the list.
const SPARE = 8;  // Lines drawn beyond both ends of the screen.
const SHORT = 64;  // Characters of a word that is compared letter by letter.
const CELLS = 4e6;  // Of a table of differences; beyond, all counts as changed.
// A word keeps the blanks behind it, and a sign its repetitions.
const WORD = new RegExp(
  String.raw`\n|[^\S\n]+|(?:\p{N}+|[\p{L}\p{M}_]+|(?<sign>[^\s])\k<sign>*)` +
    String.raw`[^\S\n]*`,
  'gu',
);
const ORDINALS = ['First', 'Second', 'Third', 'Fourth', 'Fifth', 'Sixth'];
const FATES = [
  ['fixed', 'wrong \u2192 right: fixed'],
  ['broken', 'right \u2192 wrong: broken'],
  ['kept', 'stays right'],
  ['still', 'stays wrong'],
];
const PAIRS = [
  ['lost', 'only the one shown is right'],
  ['won', 'only the one compared is right'],
  ['both', 'both are right'],
  ['neither', 'neither is right'],
];
const MODES = ['changes', 'advantage', 'kl', 'logp'];
const MODE_NAMES = {
  changes: 'Changes',
  advantage: 'Advantage per token',
  kl: 'KL per token',
  logp: 'Log-probability per token',
};
const MODE_NOTES = {
  advantage:
    'Every token of an attempt is credited with the advantage of the ' +
    'attempt, so that one attempt has one colour. Orange: made more ' +
    'probable. Blue: made less probable.',
  kl:
    'What each token adds to the KL to the reference: as a rule its ' +
    'log-probability less the one that the reference gives it. Orange: more ' +
    'probable than before training. Blue: less probable.',
  logp:
    'Log-probability when it was sampled. The stronger the blue, the less ' +
    'it was to be expected.',
};

const $ = (id) => document.getElementById(id);

let data = null;
let lower = null;  // The strings in lower case, made at the first search.
let items = [];  // What is listed: {row, other}; other is -1 without a pair.
let chosen = 0;  // Place in items.
let mode = 'changes';
const fates = new Set();  // Pressed buttons; none pressed lets all pass.
const pairs = new Set();

// ---- Data.

async function unpack(text) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = letters.charCodeAt(i);
  const packed = new Blob([bytes]).stream();
  const stream = packed.pipeThrough(new DecompressionStream('deflate'));
  return JSON.parse(await new Response(stream).text());
}

const string = (column, row) => data.strings[data.columns[column][row]] ?? '';

const attempt = (row, turn) => data.strings[data.attempts[turn][row]] ?? '';

const training = (row) => data.training[row] ?? null;

const key = (row) => data.columns.task[row] + ' ' + data.columns.id[row];

function turnsOf(row) {
  let turns = 0;
  while (turns < data.turns && data.attempts[turns][row] >= 0) turns++;
  return turns;
}

const isRight = (row, turn) => data.outcomes[turn][row] === data.right;

const endsRight = (row) => isRight(row, turnsOf(row) - 1);

function fateOf(row) {
  const first = isRight(row, 0), last = endsRight(row);
  if (first) return last ? 'kept' : 'broken';
  return last ? 'fixed' : 'still';
}

function pairOf(item) {
  const one = endsRight(item.row), other = endsRight(item.other);
  if (one) return other ? 'both' : 'lost';
  return other ? 'won' : 'neither';
}

const sourceOf = (row) =>
  data.sources.find((source) => source.start <= row && row < source.end);

function nameOf(source) {
  const run = data.runs.length > 1 ? `${data.runs[source.run]}: ` : '';
  return run + source.label;
}

// ---- Filters.

function candidates() {
  const source = data.sources[$('source').value];
  if (!source) return [];
  const rows = [];
  for (let row = source.start; row < source.end; row++) rows.push(row);
  const beside = data.sources[$('beside').value];
  if (!beside) return rows.map((row) => ({row, other: -1}));
  const others = new Map();
  for (let row = beside.start; row < beside.end; row++) {
    others.set(key(row), row);
  }
  return rows
    .filter((row) => others.has(key(row)))
    .map((row) => ({row, other: others.get(key(row))}));
}

function foundStrings(query) {
  if (!query) return null;
  lower ??= data.strings.map((text) => text.toLowerCase());
  const wanted = query.toLowerCase();
  return lower.map((text) => text.includes(wanted));
}

function hasText(row, found) {
  const columns = data.columns;
  return found[columns.id[row]] || found[columns.prompt[row]] ||
    found[columns.answer[row]] || data.attempts.some((ids) => found[ids[row]]);
}

const hasVerdict = (row, verdict) =>
  data.outcomes.some((column) => column[row] === verdict);

function inSteps(row, from, to) {
  const step = training(row)?.step;
  return step === undefined || (step >= from && step <= to);
}

// Returns a function from an item to whether all but the buttons let it pass.
function filter() {
  const found = foundStrings($('query').value.trim());
  const task = Number($('task').value);
  const difficulty = Number($('difficulty').value);
  const verdict = Number($('verdict').value);
  const from = Number($('from').value || 0);
  const to = Number($('to').value || Infinity);
  const either = (item, test) =>
    test(item.row) || (item.other >= 0 && test(item.other));
  return (item) =>
    (task < 0 || data.columns.task[item.row] === task) &&
    (difficulty < 0 || data.columns.difficulty[item.row] === difficulty) &&
    (verdict < 0 || either(item, (row) => hasVerdict(row, verdict))) &&
    inSteps(item.row, from, to) &&
    (!found || either(item, (row) => hasText(row, found)));
}

function update() {
  const before = items[chosen];
  const all = candidates().filter(filter());
  const paired = Boolean(data.sources[$('beside').value]);
  const byFate = (item) => !fates.size || fates.has(fateOf(item.row));
  const byPair = (item) => !paired || !pairs.size || pairs.has(pairOf(item));
  items = all.filter((item) => byFate(item) && byPair(item));
  count('fates', all.filter(byPair), (item) => fateOf(item.row));
  $('pairs').hidden = !paired;
  if (paired) count('pairs', all.filter(byFate), pairOf);
  $('steps').hidden = !data.sources[$('source').value]?.training;
  summarize(all.length, paired);
  const kept = items.findIndex((item) => item.row === before?.row);
  $('canvas').style.height = `${items.length * ROW}px`;
  choose(Math.max(0, kept), true);
}

function count(group, listed, kindOf) {
  const counts = {};
  for (const item of listed) {
    const kind = kindOf(item);
    counts[kind] = (counts[kind] ?? 0) + 1;
  }
  for (const button of $(group).querySelectorAll('button')) {
    const number = counts[button.dataset.kind] ?? 0;
    button.querySelector('.count').textContent = number.toLocaleString('en');
  }
}

const percent = (part, whole) => `${(100 * part / whole).toFixed(1)}\u00a0%`;

function summarize(all, paired) {
  const number = items.length;
  if (!number) {
    $('summary').textContent = data.sources.length
      ? 'Nothing passes these filters.'
      : 'This run has written no trajectories yet.';
    return;
  }
  const share = (test) => percent(items.filter(test).length, number);
  const parts = [
    `${number.toLocaleString('en')} of ${all.toLocaleString('en')}`,
    `first attempts right ${share((item) => isRight(item.row, 0))}`,
    `last attempts right ${share((item) => endsRight(item.row))}`,
  ];
  if (paired) {
    parts.push(`of those compared ${share((item) => endsRight(item.other))}`);
  }
  $('summary').textContent = parts.join(', ') + notes();
}

const notes = () => (data.notes.length ? `. ${data.notes.join(' ')}` : '');

// ---- The list.

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// Returns text without control characters, which would not be seen; its length
// stays, for marks point into it.
const visible = (text) =>
  text.replace(/[\0-\x08\x0b-\x1f]/g, (c) =>
    String.fromCharCode(0x2400 + c.charCodeAt(0)));

function draw() {
  const list = $('list');
  const first = Math.max(0, Math.floor(list.scrollTop / ROW) - SPARE);
  const seen = Math.ceil(list.clientHeight / ROW) + 2 * SPARE;
  const last = Math.min(items.length, first + seen);
  const lines = [];
  for (let place = first; place < last; place++) lines.push(line(place));
  if (!items.length) lines.push(nothing());
  $('canvas').replaceChildren(...lines);
}

function nothing() {
  const empty = element('div', 'empty', $('summary').textContent + ' ');
  if (data.sources.length) {
    const button = element('button', '', 'Clear the filters');
    button.addEventListener('click', clear);
    empty.append(button);
  }
  return empty;
}

function line(place) {
  const {row, other} = items[place];
  const made = element('div', other < 0 ? 'row' : 'row pair');
  made.id = `row-${place}`;
  made.style.top = `${place * ROW}px`;
  made.setAttribute('role', 'option');
  made.setAttribute('aria-selected', String(place === chosen));
  made.setAttribute('aria-posinset', place + 1);
  made.setAttribute('aria-setsize', items.length);
  const marked = element('span');
  marked.append(marks(row));
  if (other >= 0) marked.append(' | ', marks(other));
  const step = training(row)?.step;
  const where = step === undefined ? string('id', row) : `step ${step}`;
  made.append(marked, element('span', 'where', where), excerpt(row));
  made.addEventListener('click', () => choose(place, false));
  return made;
}

function marks(row) {
  const fate = fateOf(row);
  const flips = fate === 'fixed' || fate === 'broken';
  const made = element('span', flips ? `marks flip ${fate}` : 'marks');
  for (let turn = 0; turn < turnsOf(row); turn++) {
    const right = isRight(row, turn);
    const sign = data.verdicts[data.outcomes[turn][row]][0];
    if (turn) made.append('\u2192');
    made.append(element('span', right ? 'right' : 'wrong', sign));
  }
  made.title = FATES.find(([name]) => name === fate)[1];
  return made;
}

function excerpt(row) {
  const made = element('span', 'text');
  const short = (text) => visible(text.slice(0, 120)).replace(/\s+/g, ' ');
  made.append(short(string('prompt', row)));
  for (let turn = 0; turn < turnsOf(row); turn++) {
    made.append(turn ? ' \u2192 ' : '  ');
    const right = isRight(row, turn) ? 'right' : 'wrong';
    made.append(element('span', right, short(attempt(row, turn))));
  }
  return made;
}

function choose(place, top) {
  chosen = Math.min(Math.max(0, place), Math.max(0, items.length - 1));
  const list = $('list');
  const start = chosen * ROW, end = start + ROW;
  if (start < list.scrollTop) list.scrollTop = start;
  if (end > list.scrollTop + list.clientHeight) {
    list.scrollTop = top ? start : end - list.clientHeight;
  }
  draw();
  list.setAttribute('aria-activedescendant', `row-${chosen}`);
  $('detail').replaceChildren(...(items.length ? detail(items[chosen]) : []));
  $('detail').scrollTop = 0;
}

// ---- The chosen trajectory.

function detail({row, other}) {
  const shown = other < 0 ? [row] : [row, other];
  const parts = [facts(row)];
  if (shown.some((each) => training(each)?.tokens)) parts.push(switches());
  for (const each of shown) {
    const source = sourceOf(each);
    const step = training(each)?.step;
    const title = nameOf(source) + (step === undefined ? '' : `, step ${step}`);
    parts.push(element('h3', '', title), turns(each));
    if (source.training && !training(each).tokens) parts.push(untold());
  }
  return parts;
}

const untold = () =>
  element('p', 'note', 'Its single tokens were not logged.');

function facts(row) {
  const made = element('div', 'facts');
  const known = {
    'Problem': string('prompt', row),
    'Right answer': string('answer', row),
    'Difficulty': string('difficulty', row),
    'Task': string('task', row),
    'Name': string('id', row),
  };
  for (const [name, text] of Object.entries(known)) {
    if (!text) continue;
    const part = element('div');
    part.append(element('span', 'label', name));
    part.append(element('pre', '', visible(text)));
    made.append(part);
  }
  return made;
}

function switches() {
  const made = element('div', 'legend');
  for (const name of MODES) {
    const button = element('button', '', MODE_NAMES[name]);
    button.dataset.mode = name;
    button.setAttribute('aria-pressed', String(name === mode));
    button.addEventListener('click', () => show(name));
    made.append(button);
  }
  if (MODE_NOTES[mode]) made.append(element('p', 'note', MODE_NOTES[mode]));
  return made;
}

function show(name) {
  mode = name;
  choose(chosen, false);
  $('detail').querySelector(`[data-mode="${name}"]`)?.focus();
}

function turns(row) {
  const made = element('div', 'turns');
  const count = turnsOf(row);
  const texts = [...Array(count).keys()].map((turn) => attempt(row, turn));
  const marked = marksOf(texts);
  const tokens = mode === 'changes' ? null : training(row)?.tokens;
  for (let turn = 0; turn < count; turn++) {
    const right = isRight(row, turn);
    const box = element('section', right ? 'attempt' : 'attempt bad');
    box.append(heading(row, turn));
    if (tokens) box.append(...tokenTexts(row, turn, tokens));
    else box.append(text(texts[turn], marked[turn]));
    const credit = creditOf(row, turn);
    if (credit) box.append(element('div', 'credit', credit));
    made.append(box);
  }
  return made;
}

function heading(row, turn) {
  const made = element('header');
  const [sign, name] = data.verdicts[data.outcomes[turn][row]];
  const cut = data.truncated[turn][row] ? ', cut off' : '';
  const ordinal = ORDINALS[turn] ?? `${turn + 1}th`;
  const right = isRight(row, turn) ? 'right' : 'wrong';
  made.append(element('span', '', `${ordinal} attempt`));
  made.append(element('strong', right, `${sign} ${name}${cut}`));
  return made;
}

function number(x, digits) {
  if (x === null || x === undefined) return '\u2013';
  const shown = (Number(x.toFixed(digits)) + 0).toFixed(digits);
  return (shown > 0 ? '+' : '') + shown.replace('-', '\u2212');
}

function creditOf(row, turn) {
  const known = training(row);
  if (!known) return '';
  const parts = ['reward', 'paid', 'advantage']
    .filter((name) => known[name]?.length)
    .map((name) => `${name} ${number(known[name][turn], 2)}`);
  return parts.join(', ');
}

// ---- Single tokens.

function tokenTexts(row, turn, tokens) {
  const places = [...tokens.turn.keys()]
    .filter((place) => tokens.turn[place] === turn + 1);
  const advantage = training(row).advantage[turn];
  const valueOf = (place) =>
    mode === 'advantage' ? advantage : tokens[mode][place];
  const all = mode === 'advantage' ? training(row).advantage : tokens[mode];
  const most = all.reduce((top, x) => Math.max(top, Math.abs(x ?? 0)), 1e-9);
  const made = element('pre');
  for (const place of places) {
    made.append(token(tokens, place, advantage, valueOf(place) / most));
  }
  return [made, element('div', 'credit', tally(tokens, places, valueOf))];
}

function token(tokens, place, advantage, strength) {
  const text = visible(data.strings[tokens.text[place]]);
  const made = element('span', 'token', text);
  const colour = strength < 0 ? '--down' : '--up';
  const share = Math.round(80 * Math.abs(strength));
  made.style.backgroundColor =
    `color-mix(in srgb, var(${colour}) ${share}%, transparent)`;
  made.title = `advantage ${number(advantage, 2)}, KL ` +
    `${number(tokens.kl[place], 3)}, log-probability ` +
    `${number(tokens.logp[place], 3)}`;
  return made;
}

function tally(tokens, places, valueOf) {
  if (mode === 'advantage') return `${places.length} tokens`;
  const sum = places.reduce((total, place) => total + valueOf(place), 0);
  const largest = [...places]
    .sort((a, b) => Math.abs(valueOf(b)) - Math.abs(valueOf(a)))
    .slice(0, 3)
    .map((place) => `${JSON.stringify(data.strings[tokens.text[place]])} ` +
      number(valueOf(place), 3));
  return `${places.length} tokens, sum ${number(sum, 3)} nats; ` +
    `largest: ${largest.join(', ')}`;
}

// ---- Differences.

const NEW = 1, GONE = 2;

// Returns a mark per character of each attempt: NEW against the one before,
// GONE in the one after.
function marksOf(texts) {
  const marked = texts.map((text) => new Uint8Array(text.length));
  for (let turn = 1; turn < texts.length; turn++) {
    const [before, after] = [texts[turn - 1], texts[turn]];
    differ(before, after, marked[turn - 1], marked[turn]);
  }
  return marked;
}

const isShortWord = (text) => text.length <= SHORT && !/\s/.test(text.trim());

function differ(before, after, gone, fresh) {
  if (isShortWord(before) && isShortWord(after)) {
    mark([...before], [...after], gone, fresh);
  } else {
    byLines(before, after, gone, fresh);
  }
}

const wordsOf = (text) => text.match(WORD) ?? [];

const linesOf = (text) => text.match(/[^\n]*\n|[^\n]+/g) ?? [];

const lengthOf = (units) => units.reduce((sum, unit) => sum + unit.length, 0);

// Holds lines against each other, then the words of what differs between two
// lines that stay.
function byLines(before, after, gone, fresh) {
  const [a, b] = [linesOf(before), linesOf(after)];
  const [leaves, comes] = compare(a, b);
  let i = 0, j = 0, atA = 0, atB = 0;
  while (i < a.length || j < b.length) {
    const fromI = i, fromJ = j;
    while (i < a.length && leaves[i]) i++;
    while (j < b.length && comes[j]) j++;
    const [x, y] = [a.slice(fromI, i).join(''), b.slice(fromJ, j).join('')];
    mark(wordsOf(x), wordsOf(y),
      gone.subarray(atA, atA + x.length), fresh.subarray(atB, atB + y.length));
    atA += x.length + (a[i]?.length ?? 0);
    atB += y.length + (b[j]?.length ?? 0);
    i++;
    j++;
  }
}

function mark(a, b, gone, fresh) {
  const [leaves, comes] = compare(a, b);
  paint(a, leaves, gone, GONE);
  paint(b, comes, fresh, NEW);
}

function paint(units, changed, marks, bit) {
  let at = 0;
  units.forEach((unit, place) => {
    if (changed[place]) {
      for (let c = at; c < at + unit.length; c++) marks[c] |= bit;
    }
    at += unit.length;
  });
}

// Returns whether each unit of a leaves and each unit of b comes, by a longest
// common subsequence of what stands between their common ends.
function compare(a, b) {
  const leaves = new Uint8Array(a.length), comes = new Uint8Array(b.length);
  const shorter = Math.min(a.length, b.length);
  let start = 0, end = 0;
  while (start < shorter && a[start] === b[start]) start++;
  while (end < shorter - start &&
         a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
  const n = a.length - end - start, m = b.length - end - start;
  leaves.fill(1, start, start + n);
  comes.fill(1, start, start + m);
  if (n * m > CELLS) return [leaves, comes];
  const common = table(a, b, start, n, m);
  for (let i = 0, j = 0; i < n && j < m;) {
    if (a[start + i] === b[start + j]) {
      leaves[start + i++] = comes[start + j++] = 0;
    } else if (common[(i + 1) * (m + 1) + j] >= common[i * (m + 1) + j + 1]) {
      i++;
    } else {
      j++;
    }
  }
  return [leaves, comes];
}

// Returns at [i, j] how long a common subsequence the rests from i and j have.
function table(a, b, start, n, m) {
  const common = new Uint16Array((n + 1) * (m + 1));
  for (let i = n - 1; i >= 0; i--) {
    for (let j = m - 1; j >= 0; j--) {
      const here = i * (m + 1) + j, below = here + m + 1;
      common[here] = a[start + i] === b[start + j]
        ? common[below + 1] + 1
        : Math.max(common[below], common[here + 1]);
    }
  }
  return common;
}

function text(whole, marks) {
  const lines = linesOf(whole);
  const many = lines.length > 1;
  const made = element('pre', many ? 'lines' : '');
  let at = 0;
  for (const each of lines) {
    const ours = marks.subarray(at, at + each.length);
    const changed = ours.some((bits) => bits);
    const name = changed ? 'line changed' : 'line';
    const box = many ? element('span', name) : made;
    pieces(box, each, ours);
    if (many) made.append(box);
    at += each.length;
  }
  return made;
}

function pieces(box, text, marks) {
  for (let from = 0, to = 0; from < text.length; from = to) {
    while (to < text.length && marks[to] === marks[from]) to++;
    let piece = document.createTextNode(visible(text.slice(from, to)));
    if (marks[from] & GONE) piece = wrap('del', piece);
    if (marks[from] & NEW) piece = wrap('ins', piece);
    box.append(piece);
  }
}

function wrap(tag, inner) {
  const made = element(tag);
  made.append(inner);
  return made;
}

// ---- Controls.

function fill(id, options) {
  $(id).replaceChildren(...options.map(([value, name]) => {
    const option = element('option', '', name);
    option.value = value;
    return option;
  }));
  $(id).addEventListener('change', update);
}

function fillTexts(id) {
  const found = [...new Set(data.columns[id])];
  const named = found
    .map((place) => [place, visible(data.strings[place]) || 'none'])
    .sort((a, b) => a[1].localeCompare(b[1], 'en', {numeric: true}));
  fill(id, [[-1, 'all'], ...named]);
  $(`${id}-box`).hidden = found.length < 2;
}

function fillChips(group, title, kinds, pressed) {
  $(group).replaceChildren(element('span', '', title));
  for (const [kind, name] of kinds) {
    const button = element('button', '', `${name} `);
    button.dataset.kind = kind;
    button.setAttribute('aria-pressed', 'false');
    button.append(element('span', 'count'));
    button.addEventListener('click', () => {
      if (!pressed.delete(kind)) pressed.add(kind);
      button.setAttribute('aria-pressed', String(pressed.has(kind)));
      update();
    });
    $(group).append(button);
  }
}

function clear() {
  for (const id of ['task', 'difficulty', 'verdict']) $(id).value = -1;
  for (const id of ['from', 'to', 'query']) $(id).value = '';
  fates.clear();
  pairs.clear();
  for (const button of document.querySelectorAll('.chips button')) {
    button.setAttribute('aria-pressed', 'false');
  }
  update();
}

// Returns the place of a run's last test, or of whatever it has.
function lastTest(run) {
  const places = [...data.sources.keys()]
    .filter((place) => data.sources[place].run === run);
  const tests = places.filter((place) => !data.sources[place].training);
  return [...places.slice(0, 1), ...tests].pop() ?? -1;
}

function setUp() {
  const named = data.sources.map((source, place) => [place, nameOf(source)]);
  fill('source', named);
  fill('beside', [[-1, 'nothing'], ...named]);
  fill('verdict',
    [[-1, 'any'], ...data.verdicts.map(([, name], place) => [place, name])]);
  fillTexts('task');
  fillTexts('difficulty');
  const many = data.turns > 2 ? 'First to last attempt' : 'An answer';
  fillChips('fates', many, FATES, fates);
  fillChips('pairs', 'Compared, in the end', PAIRS, pairs);
  $('source').value = lastTest(0);
  $('beside').value = data.runs.length > 1 ? lastTest(1) : -1;
  for (const id of ['from', 'to', 'query']) {
    $(id).addEventListener('input', update);
  }
  $('form').addEventListener('submit', (event) => event.preventDefault());
  $('list').addEventListener('scroll', draw);
  window.addEventListener('resize', draw);
  document.addEventListener('keydown', onKey);
  $('list').style.setProperty('--row', `${ROW}px`);
  $('filters').hidden = !data.sources.length;
  $('filters').open = !window.matchMedia('(max-width: 56rem)').matches;
}

function onKey(event) {
  const field = event.target.closest('input, select');
  if (field && event.key === 'Escape') $('list').focus();
  if (field || event.ctrlKey || event.metaKey || event.altKey) return;
  const page = Math.max(1, Math.floor($('list').clientHeight / ROW) - 1);
  const inDetail = event.target.closest('#detail');
  const moves = {
    j: 1, k: -1,
    ...(inDetail ? {} : {
      ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page,
      Home: -Infinity, End: Infinity,
    }),
  };
  if (event.key in moves) {
    choose(chosen + moves[event.key], false);
  } else if (event.key === '/') {
    $('filters').open = true;
    $('query').focus();
  } else if (event.key === 't') {
    show(MODES[(MODES.indexOf(mode) + 1) % MODES.length]);
  } else {
    return;
  }
  event.preventDefault();
}

async function start() {
  data = await unpack($('data').textContent);
  $('data').remove();
  data.right = data.verdicts.findIndex(([, name]) => name === 'right');
  setUp();
  update();
  document.body.dataset.ready = String(Math.round(performance.now()));
}

start().catch((error) => {
  $('summary').textContent = `This page could not read its data: ${error}`;
});
