"""Small files survive what can happen between two writes."""

import resource

import pytest

from score_jax import files


def test_a_written_file_holds_the_text_and_leaves_nothing_beside_it(tmp_path):
  files.write_text(tmp_path / 'a', 'old')
  files.write_text(tmp_path / 'a', 'new é')
  assert (tmp_path / 'a').read_text(encoding='utf-8') == 'new é'
  assert [path.name for path in tmp_path.iterdir()] == ['a']


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
  files.write_text(tmp_path / 'a', 'old')
  with pytest.raises(UnicodeEncodeError):
    files.write_text(tmp_path / 'a', 'new \ud800')
  assert (tmp_path / 'a').read_text() == 'old'
  assert [path.name for path in tmp_path.iterdir()] == ['a']


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path):
  files.write_json(tmp_path / 'a', {'b': [1, 2.5, None]})
  with pytest.raises(TypeError):
    files.write_json(tmp_path / 'a', {'b': object()})
  assert (tmp_path / 'a').read_text() == (
    '{\n  "b": [\n    1,\n    2.5,\n    null\n  ]\n}\n'
  )


def test_appended_rows_are_read_in_order(tmp_path):
  rows = [{'step': 1}, {'text': 'two\nlines'}, {'step': 3}]
  for row in rows:
    files.append_jsonl(tmp_path / 'a', row)
  assert files.read_jsonl(tmp_path / 'a') == (rows, [])


@pytest.mark.parametrize('end', [b'{"step": 2', b'{"step": 2, "text": "\xc3'])
def test_a_line_cut_short_is_numbered_and_the_next_row_is_whole(tmp_path, end):
  (tmp_path / 'a').write_bytes(b'{"step": 1}\n' + end)
  assert files.read_jsonl(tmp_path / 'a') == ([{'step': 1}], [2])
  files.append_jsonl(tmp_path / 'a', {'step': 3})
  assert files.read_jsonl(tmp_path / 'a') == ([{'step': 1}, {'step': 3}], [2])


def test_a_row_that_has_no_room_leaves_the_file_as_it_was(tmp_path):
  files.append_jsonl(tmp_path / 'a', {'step': 1})
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))
  try:
    with pytest.raises(OSError, match='File too large'):
      files.append_jsonl(tmp_path / 'a', {'text': 30 * 'a'})
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  assert (tmp_path / 'a').read_bytes() == b'{"step": 1}\n'


def test_zeroed_bytes_cost_only_their_line(tmp_path):
  (tmp_path / 'a').write_bytes(b'{"a": 1}\n' + bytes(8) + b'\n{"a": 3}\n')
  assert files.read_jsonl(tmp_path / 'a') == ([{'a': 1}, {'a': 3}], [2])
