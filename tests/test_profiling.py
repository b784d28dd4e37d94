"""A trace of some steps is there, and names what they do."""

import collections
import gzip
import json


def test_a_trace_holds_the_wanted_steps_and_names_their_phases(runs, tmp_path):
  said = runs.finish(
    tmp_path,
    'stage1',
    train__stage1_steps=4,
    eval__every=3,
    profile__first_step=2,
    profile__steps=2,
  )
  folder = tmp_path / 'profile' / 'stage1'
  (line,) = (x for x in said.splitlines() if x.startswith('trace'))
  assert f'tensorboard --logdir={folder}' in line
  assert 'ui.perfetto.dev' in line
  assert list(folder.glob('plugins/profile/*/*.xplane.pb'))
  (path,) = folder.glob('plugins/profile/*/*.trace.json.gz')
  events = json.loads(gzip.decompress(path.read_bytes()))['traceEvents']
  names = collections.Counter(event.get('name') for event in events)
  # One batch of one part: its time is that of the host's calls, and waits.
  for name, least in (('sample', 4), ('grade', 4), ('update', 2), ('data', 2)):
    assert names[name] >= least, (name, names[name])
  assert names['validate'] == 1  # Behind step 3.
  steps = [
    event['args']['step_num']
    for event in events
    if event.get('name') == 'train'
  ]
  assert sorted(map(int, steps)) == [2, 3]


def test_nothing_is_traced_unless_asked_for(unbroken):
  assert not (unbroken / 'profile').exists()


def test_a_trace_of_steps_that_are_not_made_is_told(runs, tmp_path):
  said = runs.finish(
    tmp_path,
    'stage1',
    train__stage1_steps=1,
    eval__every=0,
    profile__first_step=2,
  )
  assert 'profile.first_step=2 is none of the steps 1 to 1 that stage1' in said
  assert not (tmp_path / 'profile').exists()
