"""docs/tasks.md: what it shows is run, in order, in an empty folder."""

import pathlib
import re

import pytest

from configs import presets
from score_jax import config as config_lib
from score_jax import show
from score_jax.tasks import builders, catalogue, published

ROOT = pathlib.Path(__file__).parents[2]
TEXT = (ROOT / 'docs' / 'tasks.md').read_text()
FENCE = re.compile(r'^```(\w+)\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def _snippets():
  """Yields the language, the file that it is to be (or '') and the text."""
  for found in FENCE.finditer(TEXT):
    before = TEXT[: found.start()].rstrip()
    named = re.search(r'File `(\S+)`:$', before)
    yield found[1], named[1] if named else '', found[2]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A folder with the files that the how-to tells to write."""
  folder = tmp_path_factory.mktemp('howto')
  for _, name, text in _snippets():
    if name:
      (folder / name).write_text(text)
  return folder


def test_its_python_runs(folder, monkeypatch):
  monkeypatch.chdir(folder)
  code = [text for kind, name, text in _snippets() if kind == 'python']
  code = [
    text for text in code if text != (folder / 'my_graders.py').read_text()
  ]
  assert len(code) >= 3
  exec('\n'.join(code), {})


def test_its_commands_show_the_problems_of_its_file(folder, monkeypatch):
  monkeypatch.chdir(folder)
  for text in [text for kind, _, text in _snippets() if kind == 'sh']:
    command, _, flags = text.strip().partition(' --')
    assert command == 'python -m score_jax.show'
    config = presets.make('score', '')
    for flag in f'--{flags}'.split():
      name, value = flag.removeprefix('--config.').split('=')
      config_lib.check_override(config, name, value)
      config.update_from_flattened_dict({name: value})
    said = '\n'.join(show.show(config, 'train', 3))
    assert '3 problems in train' in said
    for name in ('a', 'b, easy', 'c'):
      assert f'=== {name}\n' in said
    if 'task.grader' in text:
      assert 'grader    my_graders:last_word' in said


def test_its_grader_grades(folder, monkeypatch):
  monkeypatch.syspath_prepend(folder)
  import my_graders

  from score_jax.problem import Outcome, Problem

  problem = Problem('a', '', '12', '')
  for text, outcome in (
    ('it is 12', Outcome.RIGHT),
    ('13', Outcome.WRONG),
    (' ', Outcome.UNPARSED),
  ):
    assert my_graders.last_word(problem, text).outcome == outcome


def test_its_table_has_every_task_with_the_numbers_of_its_splits():
  table = TEXT.split('## Where the files')[0]
  for name, recipe in catalogue.RECIPES.items():
    assert f'`{name}`' in table
    source = builders.SOURCES.get(recipe.source)
    for parts in recipe.splits.values() if source and source.published else ():
      count = sum(source.published[part] for part in parts.split('+'))
      assert f'{count:,}' in table
  for name, members in catalogue.MIXTURES.items():
    assert f'`{name}`' in table
    assert f'`{members}`' in table


def test_every_problem_that_is_left_out_is_named():
  for source in builders.SOURCES.values():
    for name in source.left_out:
      assert name in TEXT


def test_every_source_says_where_it_is_from():
  for source in builders.SOURCES.values():
    urls = [file.url for file in source.layouts[0].files.values()]
    assert all(url.startswith('https://') for url in urls)
    assert all(url in published.wanted(source) for url in urls)
