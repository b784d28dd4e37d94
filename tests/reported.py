"""A run as files, whose numbers can be counted by hand, and its page as a tree."""

import collections
import html.parser
import json

import numpy as np

from score_jax import config as config_lib
from score_jax import evaluation

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
