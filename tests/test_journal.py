"""What a run writes down is where the run stands, however often it stopped."""

import json
import resource
import time

import pytest
import tensorflow as tf

from score_jax import files, journal

ROW = {
  'accuracy_t1': 0.345,
  'accuracy_t2': 0.5,
  'delta': 0.155,
  'kl_t1': 0.0123,
  'kl_t2': -0.2,
  'truncated_t1': 0.0,
  'truncated_t2': 0.0,
  'tokens_per_second': 5949.0,
  'outcome_timeout_t1': 0.0,
  'outcome_error_t1': 0.0,
  'outcome_timeout_t2': 0.0,
  'outcome_error_t2': 0.0,
}
FIGURES = 'Acc@t1  34.5  Acc@t2  50.0  Δ +15.5  KL 0.012/-0.200  5.9k tokens/s'


def _open(folder, history=(), stage='stage1', steps=3, **changes):
  settings = {'tensorboard': False, 'progress': False} | changes
  return journal.open_journal(
    folder,
    stage,
    steps,
    list(history),
    settings['tensorboard'],
    settings['progress'],
  )


def _write(folder, steps, stage='stage1', history=(), **metrics):
  """Returns the history after some more steps, a sample written at each."""
  with _open(folder, history, stage) as opened:
    for _ in range(steps):
      opened.samples([{'id': 'a'}, {'id': 'b'}])
      opened.step(ROW | metrics)
    return opened.history


def _numbers(folder, name, stage='stage1'):
  rows, bad = files.read_jsonl(folder / name)
  assert bad == []
  return [row['step'] for row in rows if row['stage'] == stage]


def test_the_line_shows_accuracy_gain_kl_and_pace():
  assert journal.figures(ROW) == FIGURES


def test_attempts_cut_off_are_shown_where_there_are_any():
  line = journal.figures(ROW | {'truncated_t2': 0.034})
  assert '  cut off 3.4%  ' in line


def test_a_grader_that_failed_is_shown_by_the_turn_where_it_did_most():
  line = journal.figures(
    ROW | {'outcome_timeout_t1': 0.01, 'outcome_error_t1': 0.02}
  )
  assert '  grader failed 3.0%  ' in line


def test_three_turns_are_shown_where_there_are_three():
  third = {'accuracy_t3': 1.0, 'kl_t3': 2.0, 'truncated_t3': 0.0}
  third |= {'outcome_timeout_t3': 0.0, 'outcome_error_t3': 0.0}
  line = journal.figures(ROW | third)
  assert 'Acc@t3 100.0' in line
  assert 'KL 0.012/-0.200/2.000' in line


def test_every_step_is_one_row_with_its_stage_and_number(tmp_path):
  _write(tmp_path, 2, delta=0.5)
  rows, bad = files.read_jsonl(tmp_path / journal.METRICS)
  assert bad == []
  assert rows == [
    {'stage': 'stage1', 'step': n} | ROW | {'delta': 0.5} for n in (1, 2)
  ]


def test_samples_carry_the_number_of_the_step_they_belong_to(tmp_path):
  _write(tmp_path, 2)
  rows, _ = files.read_jsonl(tmp_path / journal.SAMPLES)
  assert rows == [
    {'stage': 'stage1', 'step': n, 'id': i} for n in (1, 2) for i in 'ab'
  ]


def test_rows_after_the_step_that_is_gone_on_from_are_dropped(tmp_path):
  history = _write(tmp_path, 3)
  _write(tmp_path, 1, history=history[:1], delta=0.25)
  assert _numbers(tmp_path, journal.METRICS) == [1, 2]
  assert _numbers(tmp_path, journal.SAMPLES) == [1, 1, 2, 2]
  rows, _ = files.read_jsonl(tmp_path / journal.METRICS)
  assert [row['delta'] for row in rows] == [ROW['delta'], 0.25]


def test_a_row_that_was_lost_is_written_again_from_the_history(tmp_path):
  history = _write(tmp_path, 2)
  path = tmp_path / journal.METRICS
  whole = path.read_bytes()
  path.write_bytes(whole[:-10])
  with _open(tmp_path, history):
    pass
  assert path.read_bytes() == whole


def test_a_stage_that_goes_on_keeps_the_rows_of_those_before_it(tmp_path):
  _write(tmp_path, 2)
  history = _write(tmp_path, 3, 'stage2')
  _write(tmp_path, 1, 'stage2', history[:1])
  for name, each in ((journal.METRICS, 1), (journal.SAMPLES, 2)):
    assert len(_numbers(tmp_path, name)) == 2 * each
    assert len(_numbers(tmp_path, name, 'stage2')) == 2 * each


def test_a_stage_that_starts_anew_drops_the_rows_of_those_behind_it(tmp_path):
  _write(tmp_path, 2)
  _write(tmp_path, 2, 'stage2')
  _write(tmp_path, 1)
  for name in (journal.METRICS, journal.SAMPLES):
    assert set(_numbers(tmp_path, name)) == {1}
    assert _numbers(tmp_path, name, 'stage2') == []


def test_what_has_no_value_is_null_in_the_row(tmp_path):
  _write(tmp_path, 1, keeps_right=None)
  (line,) = (tmp_path / journal.METRICS).read_text().splitlines()
  assert json.loads(line)['keeps_right'] is None


def test_tensorboard_shows_what_the_rows_hold_after_a_resume(tmp_path):
  with _open(tmp_path, tensorboard=True) as opened:
    for delta in (0.1, 0.2, 0.3):
      opened.step(ROW | {'delta': delta, 'keeps_right': None})
  time.sleep(1.1)  # The files are named after the second they began in.
  with _open(tmp_path, opened.history[:1], tensorboard=True) as opened:
    opened.step(ROW | {'delta': 0.5})
  assert _curve(tmp_path / 'tensorboard' / 'stage1', 'delta') == {
    1: pytest.approx(0.1),
    2: pytest.approx(0.5),
  }
  assert _curve(tmp_path / 'tensorboard' / 'stage1', 'keeps_right') == {}


def test_what_a_full_disk_keeps_out_is_written_when_there_is_room(
  tmp_path, capsys
):
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  with _open(tmp_path, tensorboard=True, steps=50) as opened:
    for step in range(1, 41):
      opened.samples([{'id': step}])
      opened.step(ROW | {'delta': step / 64})
      if step == 10:  # Files may not grow any more.
        resource.setrlimit(resource.RLIMIT_FSIZE, (600, hard))
      if step == 30:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert len(_numbers(tmp_path, journal.METRICS)) == 10
  rows, _ = files.read_jsonl(tmp_path / journal.METRICS)
  assert [row['delta'] for row in rows] == [n / 64 for n in range(1, 41)]
  samples, bad = files.read_jsonl(tmp_path / journal.SAMPLES)
  assert [row['id'] for row in samples] == list(range(1, 41)) and bad == []
  board = tmp_path / 'tensorboard' / 'stage1'
  whole = {n: n / 64 for n in range(1, 41)}
  assert _curve(board, 'delta') == whole
  said = capsys.readouterr().out
  for name in (journal.METRICS, journal.SAMPLES, 'tensorboard/'):
    assert said.count(f'{name} cannot be written (File too large)') == 1
    assert said.count(f'{name} is written again') == 1


def _curve(folder, name):
  """Returns {step: value} as TensorBoard shows it.

  A session that starts at a step hides what was written from there on before.
  """
  curve = {}
  for path in sorted(folder.iterdir()):
    for event in tf.compat.v1.train.summary_iterator(str(path)):
      if event.session_log.status == event.session_log.START:
        curve = {n: x for n, x in curve.items() if n < event.step}
      for value in event.summary.value:
        if value.tag == name:
          curve[event.step] = value.simple_value
  return curve


def test_without_a_terminal_the_first_every_tenth_and_the_last_step_are_shown(
  tmp_path, capsys
):
  with _open(tmp_path, steps=12, progress=True) as opened:
    for _ in range(12):
      opened.step(ROW)
  shown = capsys.readouterr().out.splitlines()
  starts = [f'stage1 {n}/12  {FIGURES}  ' for n in (1, 10, 12)]
  assert [line[: len(s)] for line, s in zip(shown, starts, strict=True)] == (
    starts
  )
  # The first step's time is that of compiling, so it promises nothing.
  assert shown[0].endswith('  compiled')
  assert all(line.endswith(' left') for line in shown[1:])


@pytest.mark.parametrize(('done', 'left'), [(0, '3:00'), (50, '1:20')])
def test_the_time_left_follows_from_the_pace_since_the_start(
  tmp_path, monkeypatch, capsys, done, left
):
  clock = [100.0]
  monkeypatch.setattr(journal.time, 'monotonic', lambda: clock[0])
  with _open(tmp_path, [ROW] * done, steps=100, progress=True) as opened:
    for _ in range(10):
      clock[0] += 2.0
      opened.step(ROW)
  assert capsys.readouterr().out.splitlines()[-1].endswith(f'  {left} left')
