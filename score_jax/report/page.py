"""The report as one HTML file that needs nothing else, for any reader."""

from __future__ import annotations

import importlib.resources
import math

from score_jax.report import examples, files, tables, words
from score_jax.report.files import Run
from score_jax.report.markup import escape
from score_jax.report.style import Picture
from score_jax.tasks.about import about

PAPER = 'https://arxiv.org/abs/2409.12917'

# Whatever a model wrote, this page loads nothing and runs nothing.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"

WHAT = """
<p>A language model answers a problem: its <b>first attempt</b>. Then it is told
that there <em>might</em> be an error and asked to look again. The instruction
never says whether there is one. What the model writes now is its <b>second
attempt</b>. Left as they are, models gain little by this: they repeat
themselves, or spoil answers that were right.</p>
<p><b>SCoRe</b> teaches them to use the second look, by reinforcement learning on
their own attempts, in two stages. <b>Stage I</b> rewards second attempts and
holds first attempts to what the model wrote before, so that it learns to correct
and not merely to answer better at once. <b>Stage II</b> rewards both attempts,
with a bonus for a wrong answer made right and a penalty for a right one
spoilt.</p>
"""

GLOSSARY = {
  'Attempt': 'One answer, written out. Each attempt is read together with the '
  'problem, all attempts before it and the instructions between them.',
  'Self-correction': 'To turn a wrong answer into a right one without being '
  'told that it is wrong. A checker knows the right answers; only training '
  'and these statistics hear from it.',
  'Acc@t1, Acc@t2': 'The share of problems whose first, or second, attempt is '
  'right.',
  'Δ': 'Acc@t2 − Acc@t1: what looking again gains, in percentage points.',
  'Δ(i→c), Δ(c→i)': 'Fixed (incorrect, then correct) and broken (correct, then '
  'incorrect) answers, as shares of all problems. '
  'Acc@t2 = Acc@t1 + Δ(i→c) − Δ(c→i).',
  'Edit-distance ratio': 'Characters inserted and deleted from one attempt to '
  'the next, divided by the characters of both: 0 for a copy, 1 for nothing '
  'in common.',
  '95 % interval': 'By bootstrap over problems: where the number would lie in '
  '95 of 100 repetitions with other problems of the same kind. It does not '
  'cover what another training run would give.',
  'Greedy': 'The model always writes its most probable next token, so the '
  'same problem gets the same answer. Training draws tokens at random.',
  'KL divergence': 'How far the probabilities of the trained model have moved '
  'from those of the untrained one; 0 means not at all. In nats per attempt.',
  'Entropy': 'How undecided the model is at each token; 0 means that only one '
  'continuation is left to it.',
  'Group without a signal': 'Samples of one problem are compared with each '
  'other. Where all earn the same, there is nothing to learn from.',
  'Reward, paid': 'The reward is what the checker says of an attempt, 1 if it '
  'is right. What the attempt is paid follows from it: in Stage I, first '
  'attempts are paid nothing; in Stage II, second ones are paid the bonus α for '
  'progress on top, or lose it for a step back. From both, the KL divergence '
  'is taken off, by its weight β.',
  'Advantage': 'What an attempt is paid, less the mean of what the other samples '
  'of its problem are paid. Training makes what has a positive one more '
  'probable. As it follows from the pay and not from the reward, an attempt '
  'with reward 0 can have an advantage of several points.',
  'Sampled': 'Drawn at random, token by token, as training does; evaluations are '
  'greedy unless they say otherwise.',
}

SECTIONS = {
  'numbers': 'Numbers',
  'training': 'Training',
  'examples': 'Examples',
  'glossary': 'Glossary',
  'settings': 'Settings',
}


def page(run: Run, pictures: dict[str, Picture]) -> str:
  """Returns the whole report.

  Args:
    run: what the work directory holds.
    pictures: what was drawn of it; any may be missing.
  """
  css = importlib.resources.files('score_jax') / 'assets' / 'report.css'
  task = str(run.settings.get('task.name', ''))
  title = escape('Self-correction report' + (f': {task}' if task else ''))
  links = ''.join(f'<a href="#{k}">{v}</a>' for k, v in SECTIONS.items())
  return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{title}</title>
<style>{css.read_text('utf-8')}</style>
</head>
<body>
<nav><span>{title}</span>{links}</nav>
<main>
{_opening(run, pictures)}
{_numbers(run, pictures)}
{_training(run, pictures)}
{_examples(run, pictures)}
{_glossary()}
{_settings(run)}
</main>
<footer><p>The method is that of <a href="{PAPER}">Training Language Models to
Self-Correct via Reinforcement Learning</a> (arXiv 2409.12917). Every figure
also lies in <code>plots/</code> beside this file.</p></footer>
</body>
</html>
"""


def headline(run: Run) -> str:
  """Returns the run in one sentence, as text."""
  if 'base' not in run.summaries or run.trained is None:
    return _headline_without_training(run)
  before, after = run.summaries['base'], run.summaries[run.trained]
  last = _turns(after)[-1]
  name = f'accuracy_t{last}'
  old, new = _percent(before, name), _percent(after, name)
  attempts = f'{words.ordinal(last)} attempts'
  if old == new:
    return f'Training left {attempts} at {new} right'
  rises = files.value(after, name) > files.value(before, name)
  verb = 'raised' if rises else 'lowered'
  return f'Training {verb} {attempts} from {old} to {new} right'


def lead(run: Run) -> str:
  """Returns what the headline rests on, in one or two sentences of text."""
  if 'base' not in run.summaries or run.trained is None:
    return ''
  before, after = run.summaries['base'], run.summaries[run.trained]
  end = words.suffix(_turns(after)[-1])
  fixed, broken = (f'delta_{way}{end}' for way in ('i_to_c', 'c_to_i'))
  return (
    f'{words.checkpoint(run.trained)}, looking again fixes '
    f'{_percent(after, fixed)} of all answers and breaks '
    f'{_percent(after, broken)}; before training, it fixed '
    f'{_percent(before, fixed)} and broke {_percent(before, broken)}. '
    f'First attempts are {_percent(after, "accuracy_t1")} right; before '
    f'training, {_percent(before, "accuracy_t1")} were.'
  )


def _headline_without_training(run: Run) -> str:
  if run.summaries:
    name, summary = list(run.summaries.items())[-1]
    label = words.checkpoint(name, run.trains)
    return f'{label}, {_accuracies(summary)}'
  if run.segments:
    part = run.segments[-1]
    step = part.steps[-1]['step']
    return (
      f'Training has reached step {step} of {words.stage(part.stage)}; no '
      'evaluation has been written yet'
    )
  return 'This run has written nothing yet'


def _turns(summary: dict) -> list[int]:
  """Returns the attempts that a summary counts, or the first two."""
  turns = [
    t
    for t in range(1, len(words.ORDINALS))
    if not math.isnan(files.value(summary, f'accuracy_t{t}'))
  ]
  return turns or [1, 2]


def _accuracies(summary: dict) -> str:
  turns = _turns(summary)
  told = turns if len(turns) <= 3 else [*turns[:2], turns[-1]]
  return ', '.join(
    f'{words.ordinal(t)} attempts {"are " if t == told[0] else ""}'
    f'{_percent(summary, f"accuracy_t{t}")}{" right" if t == told[0] else ""}'
    for t in told
  )


def _percent(summary: dict, name: str) -> str:
  return words.percent(files.value(summary, name))


def _opening(run: Run, pictures: dict[str, Picture]) -> str:
  return (
    f'<h1>{escape(headline(run))}</h1>{_paragraph("lead", lead(run))}'
    f'{_notes(run)}<div class="opening"><div>{WHAT}{_method(run)}{_task(run)}</div>'
    f'{_figure(pictures, "accuracy")}</div>{examples.flow(run)}'
  )


def _method(run: Run) -> str:
  """Returns a word on a run of another method than SCoRe, '' for SCoRe."""
  name = str(run.settings.get('method.name', 'score'))
  if name == 'score':
    return ''
  return (
    f'<p>This run is one to compare SCoRe with: <b>{escape(name)}</b>, as it '
    'is called in <code>score_jax/methods</code>.</p>'
  )


def _task(run: Run) -> str:
  """Returns what the model had to do, '' for a task that only its user knows."""
  name = str(run.settings.get('task.name', ''))
  text = about(name)
  return f'<p><b>The task, {escape(name)}.</b> {escape(text)}</p>' * bool(text)


def _paragraph(kind: str, text: str) -> str:
  return f'<p class="{kind}">{escape(text)}</p>' * bool(text)


def _notes(run: Run) -> str:
  if not run.notes:
    return ''
  items = ''.join(f'<li>{escape(note)}</li>' for note in run.notes)
  return (
    '<div class="notes"><p>Some of the run’s files could not be read in full:'
    f'</p><ul>{items}</ul></div>'
  )


def _numbers(run: Run, pictures: dict[str, Picture]) -> str:
  if not run.summaries:
    return _section('numbers', '<p>No checkpoint has been evaluated yet.</p>')
  return _section(
    'numbers',
    tables.basis(run),
    tables.numbers(run),
    tables.smaller_gain(run),
    tables.verdict(run),
    _figure(pictures, 'transitions'),
    tables.shares(run, 'difficulty', 'Right answers by difficulty'),
    tables.shares(run, 'task', 'Right answers by task'),
  )


def _training(run: Run, pictures: dict[str, Picture]) -> str:
  if not run.segments:
    absent = (
      'No step of training has been logged yet.'
      if run.trains
      else 'This job evaluates a model, and trains nothing.'
    )
    return _section('training', f'<p>{absent}</p>')
  spans = ', '.join(
    f'{len(part.steps):,} of {escape(words.stage(part.stage))}'
    for part in run.segments
  )
  drawn = (
    'training_accuracy',
    'training_transitions',
    'training_changes',
    'training_kl',
    'health',
    'seconds',
  )
  return _section(
    'training',
    f'<p>Steps so far: {spans}. Attempts of training are sampled, so these '
    f'rates differ from those above, which were answered {tables.manner(run)}.'
    '</p>',
    f'<div class="figures">{"".join(_figure(pictures, n) for n in drawn)}</div>',
    tables.verdicts(run),
  )


def _examples(run: Run, pictures: dict[str, Picture]) -> str:
  if not run.rows:
    return _section('examples', '<p>No attempts have been written yet.</p>')
  training = (
    '<details><summary>Trajectories from training, with what each attempt '
    'earned</summary><p>The <a href="#glossary">glossary</a> says how pay and '
    'advantage follow from a reward.</p>'
    f'<div class="cards short">{examples.samples(run)}</div></details>'
  )
  return _section(
    'examples',
    '<p>These are the first test problems of each kind in the order of the '
    'test set, not chosen by hand. In each attempt, <del>struck words</del> '
    'are gone from the next one and <ins>underlined words</ins> were not in '
    'the one before. <code>python -m score_jax.viewer WORKDIR</code> makes a '
    'page of all of them, to filter and to search.</p>',
    examples.groups(run),
    _figure(pictures, 'edits'),
    training if run.samples else '',
  )


def _glossary() -> str:
  items = ''.join(f'<dt>{k}</dt><dd>{v}</dd>' for k, v in GLOSSARY.items())
  return _section('glossary', f'<dl>{items}</dl>')


def _settings(run: Run) -> str:
  if not run.settings:
    return _section('settings', '<p>No settings have been written yet.</p>')
  return _section(
    'settings',
    f'<details><summary>All {len(run.settings)} settings of this run</summary>'
    f'{tables.settings(run)}</details>',
  )


def _section(name: str, *parts: str) -> str:
  return (
    f'<section><h2 id="{name}">{SECTIONS[name]}</h2>{"".join(parts)}</section>'
  )


def _figure(pictures: dict[str, Picture], name: str) -> str:
  if name not in pictures:
    return ''
  picture = pictures[name]
  return (
    f'<figure>{picture.svg}<figcaption id="{name}-caption">'
    f'{escape(picture.caption)}</figcaption></figure>'
  )
