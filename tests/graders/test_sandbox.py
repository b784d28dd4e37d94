"""What runs inside reaches nothing outside, and nothing outlives its time."""

import dataclasses
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from score_jax.graders import confine, instrument, sandbox, supervise

ROOT = pathlib.Path(__file__).parents[2]
LIMITS = sandbox.Limits(seconds=20.0, memory_mb=512)
needs_bubblewrap = pytest.mark.skipif(
  not sandbox.caged(), reason='bubblewrap is not installed, or cannot start'
)


def run(source, tests=('0',), caged=True, limits=LIMITS, before=''):
  first, more = instrument.ready(before, '', tuple(tests), '')
  program = textwrap.dedent(source)
  return sandbox.run(program, first, more, '', limits, caged=caged)


def alive(marker):
  """Returns the processes of this machine that have a word in their line."""
  found = []
  for path in pathlib.Path('/proc').glob('[0-9]*/cmdline'):
    try:
      line = path.read_bytes()
      state = path.with_name('stat').read_text().rsplit(')', 1)[1].split()[0]
    except OSError:
      continue
    if marker.encode() in line and state != 'Z':
      found.append(int(path.parent.name))
  return found


def wait_until(claim):
  end = time.monotonic() + 20
  while not claim() and time.monotonic() < end:
    time.sleep(0.02)
  return claim()


# Starts processes in all ways that leave a process group.
SPAWNER = """
import os, subprocess, sys, time
def wait(): subprocess.run([sys.executable, '-c', 'import time;time.sleep(99)#{0}'])
subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)  # {0}'])
subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)  # {0}'],
                 start_new_session=True)
if os.fork() == 0:
  os.setsid()
  if os.fork() == 0:
    for fd in range(64):
      try: os.close(fd)
      except OSError: pass
    os.open('/dev/null', 2); os.dup(0); os.dup(0)
    wait()
  os._exit(0)
"""


@needs_bubblewrap
def test_every_protection_holds_here():
  assert sandbox.missing_protections() == {}
  sandbox.check_protections(allow_unprotected=False)


@needs_bubblewrap
def test_the_program_meets_an_empty_machine():
  """From within: what it sees of files, users, processes and variables."""
  os.environ['SCORE_TEST_SECRET'] = 'x'
  report = run("""
    import json, os
    status = open('/proc/self/status').read()
    def names(path):
      try: return sorted(os.listdir(path))
      except OSError: return []
    print(json.dumps({
      'home': names('/root') + names('/home') + names('/etc') + names('/var'),
      'tmp': names('/tmp'),
      'secret': 'SCORE_TEST_SECRET' in os.environ,
      'pids': len([n for n in names('/proc') if n.isdigit()]),
      'groups': [g for g in os.getgroups() if g == 0],
      'powers': [l.split()[1] for l in status.splitlines() if l[:3] == 'Cap'],
      'cards': names('/sys/class/net'),
    }))
  """)
  del os.environ['SCORE_TEST_SECRET']
  seen = json.loads(report.output)
  assert set(seen['home']) <= {'ld.so.cache'}
  assert (seen['tmp'], seen['secret'], seen['groups']) == ([], False, [])
  assert seen['pids'] <= 3
  assert all(int(power, 16) == 0 for power in seen['powers'][1:3])
  assert seen['cards'] == []


@needs_bubblewrap
def test_no_file_of_this_machine_changes(tmp_path):
  kept = tmp_path / 'kept'
  kept.write_text('kept')
  for path in (tmp_path, kept):
    path.chmod(0o777)
  # It walks through all that it sees, which takes a cold disk a while.
  patient = dataclasses.replace(LIMITS, seconds=120.0)
  program = f"""
    import os, pathlib, shutil, site, sys
    places = ['/', '/usr', '/usr/bin', '/etc', '/dev', '/proc/sys/kernel',
              sys.prefix, os.path.dirname(os.__file__), site.getusersitepackages(),
              '..', {str(tmp_path)!r}, os.path.expanduser('~root')]
    for place in places:
      try: pathlib.Path(place, 'score_was_here').write_text('x')
      except OSError: continue
      print('wrote', place)
    for path in ({str(kept)!r}, '/usr/bin/env', sys.executable):
      for action in (os.unlink, lambda p: open(p, 'a'), lambda p: os.chmod(p, 0)):
        try: action(path)
        except OSError: continue
        print('changed', path)
    shutil.rmtree('/', ignore_errors=True)
  """
  report = run(program, limits=patient)
  assert report.passed == 1
  assert set(report.output.split()) <= {'wrote', '..'} - {'..'} | set()
  assert kept.read_text() == 'kept'
  assert [path.name for path in tmp_path.iterdir()] == ['kept']


@needs_bubblewrap
def test_nothing_connects(tmp_path):
  hits = []

  def listen(server):
    while True:
      try:
        server.accept()[0].close()
      except OSError:
        return
      hits.append(server)

  addresses = [
    (socket.AF_INET, ('127.0.0.1', 0)),
    (socket.AF_UNIX, str(tmp_path / 'socket')),
    (socket.AF_UNIX, f'\0score-test-{os.getpid()}'),
  ]
  servers, lines = [], []
  for family, address in addresses:
    server = socket.socket(family)
    server.bind(address)
    server.listen()
    threading.Thread(target=listen, args=(server,), daemon=True).start()
    servers.append(server)
    lines.append((int(family), server.getsockname()))
  found = [
    (family, name.decode() if isinstance(name, bytes) else name)
    for family, name in lines
  ]
  report = run(f"""
    import socket
    for family, name in {found!r}:
      one = socket.socket(family)
      one.settimeout(1)
      try: one.connect(name)
      except OSError: continue
      print('connected')
    try: print(socket.gethostbyname('localhost.localdomain'))
    except OSError: pass
  """)
  for server in servers:
    server.close()
  assert (report.passed, report.output, hits) == (1, '', [])


@needs_bubblewrap
def test_what_it_started_ends_with_it():
  marker = f'score-test-{time.time_ns()}'
  report = run(SPAWNER.format(marker) + 'time.sleep(0.3)')
  assert report.passed == 1
  assert wait_until(lambda: alive(marker) == [])


@needs_bubblewrap
@pytest.mark.parametrize('moment', [0.0, 0.05, 0.1, 0.3, 1.0])
def test_it_ends_with_whoever_runs_it(moment):
  """Whenever that is killed, even without a moment to clean up."""
  marker = f'score-test-{time.time_ns()}'
  source = SPAWNER.format(marker) + 'time.sleep(99)'
  runner = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests' / 'graders')!r}]
from score_jax.graders import sandbox, instrument
before, tests = instrument.ready('', '', ('0',), '')
print(flush=True)
sandbox.run({source!r}, before, tests, '', sandbox.Limits(60.0, 512), caged=True)
# {marker}
"""
  process = subprocess.Popen(
    [sys.executable, '-c', runner], stdout=subprocess.PIPE
  )
  process.stdout.readline()
  time.sleep(moment)
  inside = list(supervise.descendants(process.pid))
  process.send_signal(signal.SIGKILL)
  process.communicate()
  assert wait_until(lambda: alive(marker) == [])
  assert wait_until(
    lambda: not any(os.path.exists(f'/proc/{pid}') for pid in inside)
  )


def test_the_caller_is_left_as_it_was(tmp_path):
  before = (
    sorted(os.listdir('/proc/self/fd')),
    os.getcwd(),
    dict(os.environ),
    os.getpriority(os.PRIO_PROCESS, 0),
    signal.getsignal(signal.SIGCHLD),
    threading.active_count(),
    supervise.descendants(os.getpid()),
  )
  for source in ('x = 1', 'while True: pass', 'import os; os._exit(0)', '('):
    run(source, caged=sandbox.caged(), limits=sandbox.Limits(0.5, 256))
  after = (
    sorted(os.listdir('/proc/self/fd')),
    os.getcwd(),
    dict(os.environ),
    os.getpriority(os.PRIO_PROCESS, 0),
    signal.getsignal(signal.SIGCHLD),
    threading.active_count(),
    supervise.descendants(os.getpid()),
  )
  assert after == before


def test_what_is_printed_is_kept_to_a_limit():
  source = 'print("y" * 10**6)\nadd = lambda: 1'
  report = run(source, ['assert add() == 1'], caged=sandbox.caged())
  assert report.passed == 1
  assert 0 < len(report.output) <= 1 << 16


def test_a_flood_of_print_ends_the_program_at_once():
  source = 'while True: print("y" * 10**5)'
  report = run(source, caged=sandbox.caged(), limits=sandbox.Limits(30.0, 256))
  assert not report.finished
  assert report.seconds < 20


@needs_bubblewrap
def test_all_processes_together_have_one_memory():
  """Each of the children stays far below the limit that binds one process."""
  source = """
    import os, time
    for _ in range(8):
      if os.fork() == 0:
        x = bytearray(b'x') * (100 << 20)
        time.sleep(20)
        os._exit(0)
    time.sleep(20)
  """
  report = run(source, limits=sandbox.Limits(15.0, 300))
  assert not report.finished
  assert report.seconds < 12


def test_a_limit_of_processor_time_ends_what_computes_and_not_what_waits():
  limits = sandbox.Limits(30.0, 256, cpu_seconds=0.5)
  busy = run('while True: pass', caged=sandbox.caged(), limits=limits)
  assert (busy.timed_out, busy.finished) == (True, False)
  assert busy.seconds < 20
  source = 'import time\ntime.sleep(1.5)\nadd = lambda: 1'
  tests = ['assert add() == 1']
  waits = run(source, tests, caged=sandbox.caged(), limits=limits)
  assert (waits.timed_out, waits.passed) == (False, 1)


def test_without_bubblewrap_it_is_refused_unless_allowed(bare):
  missing = sandbox.missing_protections()
  assert {'no network', 'read-only files', 'own processes'} <= set(missing)
  assert 'limits' not in missing and 'clean environment' not in missing
  with pytest.raises(sandbox.SandboxError, match=r'grading\.allow_unprotected'):
    sandbox.check_protections(allow_unprotected=False)
  sandbox.check_protections(allow_unprotected=True)


@pytest.fixture
def bare(monkeypatch):
  """A machine without bubblewrap."""
  caches = (sandbox.caged, sandbox.missing_protections, sandbox._complaint)
  monkeypatch.setattr(confine, 'bubblewrap', lambda: None)
  for cached in caches:
    cached.cache_clear()
  yield
  for cached in caches:
    cached.cache_clear()


def test_unprotected_a_program_still_has_its_own_folder_limits_and_end():
  source = """
    import os, resource
    open('left', 'w').close()
    print(os.getcwd(), resource.getrlimit(resource.RLIMIT_AS)[0] >> 20)
    def add(a, b):
      while a == 1: pass
      return a + b
  """
  tests = ['assert add(2, 3) == 5', 'assert add(2, 3) == 6', 'add(1, 1)']
  limits = sandbox.Limits(1.0, 300)
  report = run(source, tests, caged=False, limits=limits)
  folder, memory = report.output.split()
  assert (report.passed, report.finished, report.timed_out) == (1, False, True)
  assert memory == '300'
  assert folder == report.folder and not os.path.exists(folder)


def test_a_sandbox_that_does_not_start_says_why(monkeypatch):
  broken = ['sh', '-c', 'echo no such namespace; exit 1', 'sh']
  monkeypatch.setattr(confine, 'command', lambda *arguments: broken)
  with pytest.raises(sandbox.SandboxError, match='no such namespace'):
    run('x = 1', caged=sandbox.caged())


def test_broken_helpers_of_the_data_are_an_error_and_no_verdict():
  with pytest.raises(sandbox.SandboxError, match='before the tests'):
    run('x = 1', before='1 / 0', caged=sandbox.caged())
