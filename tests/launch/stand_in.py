"""A stand-in for a tool of a cloud: writes down its call, answers by a list.

It is put on PATH under the tool's name. Beside it lies `answers.json`:

    {"gcloud": [["tpu-vm create", [{"code": 1, "err": "..."}, {}]], ...]}

The first line whose words come in this order among the arguments answers; at
the n-th such call with the n-th answer, and with the last one from then on. An
answer may wait ("wait": seconds), and may do what the words mean on a host that
is a folder here ("host": true).
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).parent
CALLS = HERE / 'calls.jsonl'
HOME = HERE / 'host'


def main(tool, arguments):
  before = [json.loads(line) for line in _read(CALLS).splitlines()]
  with CALLS.open('a') as calls:
    calls.write(json.dumps([tool, *arguments]) + '\n')
  for words, answers in json.loads(_read(HERE / 'answers.json'))[tool]:
    if _matches(words.split(), arguments):
      number = sum(t == tool and _matches(words.split(), a) for t, *a in before)
      return answer(answers[min(number, len(answers) - 1)], arguments)
  print(f'{tool}: no answer to {arguments}', file=sys.stderr)
  return 99


def _read(path):
  return path.read_text() if path.exists() else ''


def _matches(words, arguments):
  """Returns whether the words come in this order among the arguments."""
  rest = iter(arguments)
  return all(word in rest for word in words)


def answer(given, arguments):
  print(given.get('out', ''), end='', flush=True)
  print(given.get('err', ''), end='', file=sys.stderr, flush=True)
  time.sleep(given.get('wait', 0))
  return on_host(arguments) if given.get('host') else given.get('code', 0)


def on_host(arguments):
  """Does what gcloud's scp and ssh do, with a folder for the host's home."""
  HOME.mkdir(exist_ok=True)
  commands = [a for a in arguments if a.startswith('--command=')]
  if not commands:
    shutil.copy(arguments[arguments.index('scp') + 1], HOME)
    return 0
  words = commands[0].removeprefix('--command=')
  environment = os.environ | {'HOME': str(HOME)}
  return subprocess.run(
    ['bash', '-c', words], cwd=HOME, env=environment, check=False
  ).returncode


if __name__ == '__main__':
  sys.exit(main(pathlib.Path(sys.argv[0]).name, sys.argv[1:]))
