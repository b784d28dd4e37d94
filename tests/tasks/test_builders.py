"""Data sets are prepared once, whole or not at all, and then read offline."""

import dataclasses
import pathlib
import shutil
import types

import pytest

from score_jax import tasks
from score_jax.config import ConfigError
from score_jax.tasks import builders, mathematics, published


def _folder(data_dir, name='gsm8k'):
  return pathlib.Path(data_dir) / builders.NAME / name / builders.VERSION


def test_what_is_prepared_is_what_the_files_say_in_their_order(ours, prepared):
  for name, source in builders.SOURCES.items():
    builders.prepare(name, str(ours), str(prepared))
    splits, _ = published.read(source, *published.find(source, ours))
    for split, problems in splits.items():
      assert builders.read_split(name, str(prepared), split) == problems


def test_a_second_start_reads_no_source(ours, tmp_path):
  source, data = tmp_path / 'source', str(tmp_path / 'data')
  shutil.copytree(ours / 'gsm8k', source)
  builders.prepare('gsm8k', str(source), data)
  before = builders.read_split('gsm8k', data, 'train')
  shutil.rmtree(source)
  builders.prepare('gsm8k', str(source), data)
  assert builders.read_split('gsm8k', data, 'train') == before


def test_a_damaged_source_is_refused_and_leaves_nothing_that_passes_for_data(
  ours, tmp_path
):
  source, data = tmp_path / 'source', str(tmp_path / 'data')
  shutil.copytree(ours / 'gsm8k', source)
  text = (source / 'test.jsonl').read_text()
  (source / 'test.jsonl').write_text(text[:-20])
  with pytest.raises(ConfigError, match=r'test\.jsonl, line 5 is no JSON'):
    builders.prepare('gsm8k', str(source), data)
  assert not _folder(data).exists()
  (source / 'test.jsonl').write_text(text)
  builders.prepare('gsm8k', str(source), data)
  assert len(builders.read_split('gsm8k', data, 'test')) == 5


def test_damaged_preparations_are_refused_with_the_folder_to_delete(
  ours, tmp_path
):
  data = str(tmp_path)
  settings = tasks.Settings('gsm8k', manual_dir=str(ours), data_dir=data)
  task = tasks.get(settings)
  assert tasks.load_problems(task, 'test', 0)
  (path,) = _folder(data).glob('*-test.tfrecord*')
  path.write_bytes(path.read_bytes()[:-40])
  with pytest.raises(ConfigError, match='delete its folder in task'):
    tasks.load_problems(task, 'test', 0)
  (_folder(data) / 'dataset_info.json').write_text('{')
  with pytest.raises(ConfigError, match='delete the folder score_jax/gsm8k'):
    builders.prepare('gsm8k', str(ours), data)


@pytest.mark.parametrize('name', ['nowhere', 'empty'])
def test_a_folder_without_the_files_is_refused_before_anything_is_tried(
  tmp_path, name
):
  (tmp_path / 'empty').mkdir()
  with pytest.raises(ConfigError) as caught:
    builders.prepare('humaneval', str(tmp_path / name), str(tmp_path / 'data'))
  said = str(caught.value)
  assert said.startswith('task.manual_dir=')
  assert 'HumanEval.jsonl.gz (https://github.com/openai/human-eval' in said
  assert not (tmp_path / 'data').exists()


def _at(url):
  """Returns the source of GSM8K with its files at other addresses."""
  layout = mathematics.GSM8K.layouts[0]
  files = {
    split: dataclasses.replace(file, url=f'{url}/{split}.jsonl')
    for split, file in layout.files.items()
  }
  layout = dataclasses.replace(layout, files=files)
  return dataclasses.replace(mathematics.GSM8K, layouts=(layout,))


def test_files_are_downloaded_where_no_folder_is_named(
  ours, tmp_path, monkeypatch
):
  source = _at(f'file://{ours}/gsm8k')
  monkeypatch.setitem(builders.SOURCES, 'gsm8k', source)
  builders.prepare('gsm8k', '', str(tmp_path))
  direct, _ = published.read(source, *published.find(source, ours))
  for split, problems in direct.items():
    assert builders.read_split('gsm8k', str(tmp_path), split) == problems


@pytest.mark.parametrize(
  'url', ['https://nowhere.invalid', 'file:///nowhere/at/all']
)
def test_a_download_that_fails_says_what_to_put_where(
  tmp_path, monkeypatch, url
):
  monkeypatch.setitem(builders.SOURCES, 'gsm8k', _at(url))
  with pytest.raises(ConfigError) as caught:
    builders.prepare('gsm8k', '', str(tmp_path))
  said = str(caught.value)
  assert "task.name='gsm8k' cannot be downloaded" in said
  assert f'train.jsonl ({url}/train.jsonl)' in said
  assert 'set task.manual_dir' in said
  assert not _folder(tmp_path).exists()


def test_a_downloaded_file_keeps_the_form_that_its_address_says(ours, tmp_path):
  """TFDS names what it downloads as it likes."""
  source = builders.SOURCES['mbpp_sanitized']

  def download(urls):
    assert [url.split('/')[-1] for url in urls.values()] == [
      'sanitized-mbpp.json'
    ]
    path = tmp_path / 'some_name_of_its_own'
    shutil.copy(ours / 'mbpp' / 'sanitized-mbpp.json', path)
    return dict.fromkeys(urls, path)

  class Manager(types.SimpleNamespace):
    @property
    def manual_dir(self):
      raise AssertionError('as TFDS raises where there is none')

  monkey = pytest.MonkeyPatch()
  with monkey.context() as patch:
    patch.setattr(builders, '_check_network', lambda urls: None)
    layout, paths = builders._files(source, Manager(download=download))
  splits, _ = published.read(source, layout, paths)
  expected, _ = published.read(source, *published.find(source, ours))
  assert splits == expected


def test_another_process_that_was_faster_is_no_error(
  ours, tmp_path, monkeypatch
):
  data = str(tmp_path)
  prepare = builders.ScoreJax.download_and_prepare

  def slower(self, **arguments):
    prepare(self, **arguments)
    raise OSError('the folder is there already')

  monkeypatch.setattr(builders.ScoreJax, 'download_and_prepare', slower)
  builders.prepare('aime25', str(ours), data)
  assert len(builders.read_split('aime25', data, 'test')) == 2
