"""Launches in a folder of their own, with stand-ins for the clouds' tools."""

import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
STAND_IN = pathlib.Path(__file__).with_name('stand_in.py')
TIMEOUT = 60  # Seconds that a launch of a test may take.

# A job without jax: exits with the N-th code of --codes at its N-th start.
TINY = """
import os, pathlib, signal, sys, time

def stop(number, frame):
  print('saving', flush=True)
  sys.exit(int(os.environ['SCORE_STOPPED_CODE']))

signal.signal(signal.SIGTERM, stop)
given = dict(a.lstrip('-').split('=', 1) for a in sys.argv[1:])
starts = pathlib.Path(given['starts'])
codes = given['codes'].split(',')
number = len(starts.read_text()) if starts.exists() else 0
starts.write_text('x' * (number + 1))
print('start', number + 1, sys.argv[1:], os.environ.get('SCORE_COORDINATOR'))
time.sleep(float(given.get('seconds', 0)))
sys.exit(int(codes[number]))
"""


@dataclasses.dataclass(frozen=True)
class Launches:
  """Runs the launcher in a copy of this repository, of what it needs alone."""

  root: pathlib.Path  # The copy.
  tools: pathlib.Path  # The folder of the stand-ins, which is on PATH.

  def answer(self, tool, *lines):
    """Makes a tool answer; see stand_in.py."""
    path = self.tools / 'answers.json'
    answers = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(answers | {tool: lines}))
    shutil.copy(STAND_IN, self.tools / 'stand_in.py')
    program = self.tools / tool
    program.write_text(f'#!{sys.executable} -SE\n{STAND_IN.read_text()}')
    program.chmod(0o755)

  def environment(self):
    """Returns that of a launch: no tools but the stand-ins and the system's."""
    return {
      'PATH': f'{self.tools}:/usr/bin:/bin',
      'HOME': str(self.tools),
      'LANG': 'C.UTF-8',
    }

  def start(self, *arguments, environment=None):
    """Returns a launch under way."""
    return subprocess.Popen(
      [sys.executable, '-m', 'launch', *arguments],
      cwd=self.root,
      env=environment or self.environment(),
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )

  def run(self, *arguments):
    """Returns exit code, output and errors of a launch."""
    process = self.start(*arguments)
    said, errors = process.communicate(timeout=TIMEOUT)
    return process.returncode, said, errors

  def calls(self):
    """Returns all calls of stand-ins, in words."""
    path = self.tools / 'calls.jsonl'
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def make(folder):
  """Returns launches in a folder that is empty so far."""
  root, tools = folder / 'copy', folder / 'tools'
  tools.mkdir()
  shutil.copytree(
    ROOT / 'launch', root / 'launch', ignore=shutil.ignore_patterns('__py*')
  )
  shutil.copytree(ROOT / 'configs', root / 'configs')
  (root / 'tiny.py').write_text(TINY)
  (root / 'requirements.txt').write_text('jax==0.10.2  # via nobody\n')
  identity = ('-c', 'user.name=a', '-c', 'user.email=a@b.c')
  for words in (
    ('init', '--quiet'),
    ('add', '.'),
    (*identity, 'commit', '--quiet', '--message=all'),
  ):
    subprocess.run(['git', *words], cwd=root, check=True)
  return Launches(root, tools)
