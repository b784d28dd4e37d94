"""Runs to report on."""

import json

import pytest
from reported import (
  AFTER,
  rows,
  summary,
  write_lines,
  write_run,
)

from score_jax.report import (
  style,
)
from score_jax.report.build import build


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
