"""A user's file of problems: read whole, or refused with file and line."""

import gzip
import json
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from score_jax.config import ConfigError
from score_jax.tasks import jsonl, rows

GOOD = b'{"problem": "1+1", "answer": "2"}'
texts = st.text(st.characters(exclude_categories=['Cs']), max_size=30)


def _load(tmp_path, data):
  path = tmp_path / 'problems.jsonl'
  path.write_bytes(data)
  found = jsonl.load(str(path), '={answer}')
  return [p for split in ('train', 'validation', 'test') for p in found[split]]


def _refused(tmp_path, data):
  with pytest.raises(ConfigError) as caught:
    _load(tmp_path, data)
  said = str(caught.value)
  assert str(tmp_path / 'problems.jsonl') in said
  assert '\n' not in said
  return said


def test_a_problem_has_the_fields_of_its_line(tmp_path):
  line = {
    'id': 7,
    'problem': 'a {b} \\c',
    'answer': 12,
    'reference': 'r',
    'difficulty': 'd',
    'attempt': 'w',
    'other': [1],
  }
  (found,) = _load(tmp_path, json.dumps(line).encode())
  assert (found.id, found.prompt, found.answer) == ('7', 'a {b} \\c', '12')
  assert (found.reference, found.difficulty, found.attempt) == ('r', 'd', 'w')


def test_what_may_be_left_out_is_filled_in(tmp_path):
  (found,) = _load(tmp_path, GOOD)
  assert (found.id, found.reference) == ('problems-1', '=2')
  assert (found.difficulty, found.attempt) == ('', '')


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=25))
@settings(max_examples=60, deadline=None)
def test_whatever_is_written_is_read_and_nothing_is_lost(
  tmp_path_factory, rows
):
  lines = [json.dumps({'problem': p, 'answer': a}) for p, a in rows]
  for end in ('\n', '\r\n'):
    data = '\ufeff' * (end == '\n') + end.join(lines) + end
    found = _load(tmp_path_factory.getbasetemp(), data.encode())
    by_line = {int(p.id.split('-')[1]): (p.prompt, p.answer) for p in found}
    assert [by_line[n + 1] for n in range(len(rows))] == rows


@given(
  st.binary(max_size=60).filter(
    lambda line: b'\n' not in line and bool(line.strip())
  )
)
@settings(max_examples=200, deadline=None)
def test_a_line_of_any_bytes_is_read_or_refused_by_its_number(
  tmp_path_factory, line
):
  folder = tmp_path_factory.getbasetemp()
  said = _refused(folder, GOOD + b'\n\n' + line + b'\n' + GOOD)
  # No 60 random bytes are a problem; the second line, blank, is left out.
  assert 'problems.jsonl, line 3 ' in said


@pytest.mark.parametrize('kept', range(1, len(GOOD)))
def test_a_last_line_that_is_cut_short_is_refused(tmp_path, kept):
  assert ', line 2 is no JSON' in _refused(tmp_path, GOOD + b'\n' + GOOD[:kept])


@pytest.mark.parametrize(
  ('line', 'reason'),
  [
    (b'{"problem": "a"}', "line 2 has no 'answer'; it has ['problem']."),
    (b'{"answer": "a"}', "line 2 has no 'problem'"),
    (b'{"problem": null, "answer": "2"}', "'problem' of the wrong type (null)"),
    (
      b'{"problem": ["a"], "answer": "2"}',
      "'problem' of the wrong type (list)",
    ),
    (b'{"problem": "a", "answer": 0.1}', "'answer' of the wrong type (float)"),
    (b'{"problem": "a", "answer": true}', "'answer' of the wrong type (bool)"),
    (b'{"problem": "a", "answer": NaN}', "'answer' of the wrong type (float)"),
    (b'{"problem": "a", "answer": "\\ud800"}', 'half a surrogate pair'),
    (b'{"problem": "a", "problem": "b", "answer": "2"}', 'stands twice'),
    (b'{"problem": "a\0", "answer": "2"}', 'line 2 holds a NUL byte'),
    (b'{"problem": "\xff", "answer": "2"}', 'line 2 is not UTF-8 at byte 14'),
    (b'["a", "b"]', "line 2 is ['a', 'b'], no JSON object"),
    (b'3', 'line 2 is 3, no JSON object'),
    (b'[' * 100_000, 'line 2 is nested too deeply'),
    (b'{"problem": "a", "answer": 1' + b'0' * 5000 + b'}', 'line 2 is no JSON'),
  ],
)
def test_a_line_that_cannot_be_used_is_refused_with_the_reason(
  tmp_path, line, reason
):
  assert reason in _refused(tmp_path, GOOD + b'\n' + line + b'\n' + GOOD)


def test_a_file_without_problems_is_refused(tmp_path):
  for data in (b'', b'\n \r\n', b'\xef\xbb\xbf'):
    assert 'is empty; put one JSON object on each line' in _refused(
      tmp_path, data
    )


def test_utf_16_is_refused_with_the_remedy(tmp_path):
  data = GOOD.decode().encode('utf-16')
  assert 'line 1 is UTF-16; save the file as UTF-8.' in _refused(tmp_path, data)


def test_two_problems_of_one_id_are_refused_with_both_lines(tmp_path):
  line = b'{"id": "a", "problem": "1+1", "answer": "2"}'
  said = _refused(tmp_path, b'\n'.join([line, GOOD, line]))
  assert "line 3 has the id 'a' of " in said
  assert 'problems.jsonl, line 1; give every problem an id' in said


def test_a_field_of_ten_megabytes_is_read_whole(tmp_path):
  text = string.ascii_letters * (10_000_000 // 52)
  line = json.dumps({'problem': text, 'answer': '2'}).encode()
  found = _load(tmp_path, line + b'\n' + GOOD)
  assert [len(p.prompt) for p in found] == [len(text), 3]


def _numbered(count):
  return ''.join(
    json.dumps({'id': str(n), 'problem': 'p', 'answer': 'a'}) + '\n'
    for n in range(count)
  )


def test_one_file_gives_every_tenth_problem_to_each_other_split(tmp_path):
  path = tmp_path / 'all.jsonl'
  path.write_text(_numbered(25))
  found = jsonl.load(str(path), '')
  ids = {split: [p.id for p in part] for split, part in found.items()}
  assert ids['validation'] == ['8', '18']
  assert ids['test'] == ['9', '19']
  left = {str(n) for n in range(25)} - {'8', '18', '9', '19'}
  assert ids['train'] == sorted(left, key=int)


def test_a_split_with_a_file_of_its_own_takes_nothing_from_train(tmp_path):
  (tmp_path / 'train.jsonl').write_text(_numbered(20))
  (tmp_path / 'test.jsonl').write_bytes(GOOD)
  found = jsonl.load(str(tmp_path), '')
  assert {split: len(part) for split, part in found.items()} == {
    'train': 18,
    'validation': 2,
    'test': 1,
  }
  assert jsonl.splits(str(tmp_path)) == ('train', 'validation', 'test')


def test_a_folder_with_test_problems_alone_has_no_other_split(tmp_path):
  (tmp_path / 'test.jsonl').write_bytes(GOOD)
  assert jsonl.splits(str(tmp_path)) == ('test',)
  assert list(jsonl.load(str(tmp_path), '')) == ['test']


@pytest.mark.parametrize('path', ['', 'nowhere', '.'])
def test_a_path_without_problems_is_refused(tmp_path, monkeypatch, path):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(ConfigError, match=r'task\.path'):
    jsonl.splits(path)


def test_a_packed_file_that_is_cut_short_is_refused(tmp_path):
  path = tmp_path / 'rows.jsonl.gz'
  packed = gzip.compress(GOOD * 100)
  for data in (packed[:-9], packed[:20], b'no gzip'):
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=r'rows\.jsonl\.gz cannot be read'):
      rows.read_bytes(path)
  path.write_bytes(gzip.compress(GOOD))
  assert [row.fields['answer'] for row in rows.read(path)] == ['2']


def test_a_list_names_the_place_of_what_is_no_object(tmp_path):
  path = tmp_path / 'rows.json'
  path.write_text('[{"a": 1},\n 2]')
  with pytest.raises(ConfigError, match=r'line 2 \(of the list\) is 2, no'):
    list(rows.read(path))
  path.write_text('[{"a": 1},\n oh]')
  with pytest.raises(ConfigError, match='line 2 is no JSON'):
    list(rows.read(path))
