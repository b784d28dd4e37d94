"""A headless Chromium, driven over a pair of pipes by its own protocol.

The standard library is enough for that: messages are JSON, ended by a NUL.
"""

import base64
import fcntl
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import time

CHROMIUM = next(
  filter(None, map(shutil.which, ('chromium', 'chromium-browser'))), None
)
# Chromium reads from file 3 and writes to file 4.
LAUNCH = (
  'import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); '
  'os.execv(sys.argv[3], sys.argv[3:])'
)
OPTIONS = (
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-dev-shm-usage',
  '--disable-sync',
  '--hide-scrollbars',
  '--no-first-run',
  '--remote-debugging-pipe',
)
PATIENCE = 60.0  # Seconds for any answer.


class Browser:
  """One window; `errors` gathers what its pages raise or are refused."""

  def __init__(self, folder: pathlib.Path):
    """Starts it.

    Args:
      folder: empty, for its profile.
    """
    (their_in, our_out), (our_in, their_out) = os.pipe(), os.pipe()
    # Out of the way of 3 and 4.
    theirs = [fcntl.fcntl(x, fcntl.F_DUPFD, 10) for x in (their_in, their_out)]
    self._process = subprocess.Popen(
      [
        *(sys.executable, '-c', LAUNCH, *map(str, theirs), CHROMIUM),
        *OPTIONS,
        f'--user-data-dir={folder}',
      ],
      pass_fds=theirs,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
    )
    for descriptor in (their_in, their_out, *theirs):
      os.close(descriptor)
    self._in, self._out = os.fdopen(our_in, 'rb'), our_out
    self._number, self._buffer, self._session = 0, b'', None
    self.errors: list[str] = []
    self._guard = threading.Timer(10 * PATIENCE, self._process.kill)
    self._guard.daemon = True
    self._guard.start()
    target = self.call('Target.createTarget', url='about:blank')['targetId']
    session = self.call('Target.attachToTarget', targetId=target, flatten=True)
    self._session = session['sessionId']
    for domain in ('Page', 'Runtime', 'Log'):
      self.call(f'{domain}.enable')

  def close(self) -> None:
    """Ends it."""
    self._guard.cancel()
    self._process.kill()
    self._process.wait()
    self._in.close()
    os.close(self._out)

  def call(self, method: str, **params):
    """Returns what Chromium answers to a method of its protocol."""
    self._number += 1
    message = {'id': self._number, 'method': method, 'params': params}
    if self._session:
      message['sessionId'] = self._session
    os.write(self._out, json.dumps(message).encode() + b'\0')
    while True:
      answer = self._read()
      if answer.get('id') == self._number:
        assert 'error' not in answer, answer
        return answer['result']
      self._note(answer)

  def _read(self):
    while b'\0' not in self._buffer:
      chunk = self._in.read1(1 << 20)
      assert chunk, 'Chromium has ended'
      self._buffer += chunk
    message, _, self._buffer = self._buffer.partition(b'\0')
    return json.loads(message)

  def _note(self, event) -> None:
    if event.get('method') == 'Runtime.exceptionThrown':
      self.errors.append(json.dumps(event['params']['exceptionDetails']))
    if event.get('method') == 'Log.entryAdded':
      self.errors.append(event['params']['entry']['text'])

  def open(self, path: pathlib.Path, width: int = 1400, height: int = 900):
    """Shows a file; it may still be loading when this returns."""
    self.errors.clear()
    self.call(
      'Emulation.setDeviceMetricsOverride',
      width=width,
      height=height,
      deviceScaleFactor=1,
      mobile=False,
    )
    self.call('Page.navigate', url=path.absolute().as_uri())

  def dark(self, on: bool) -> None:
    """Asks pages for dark colours, or for light ones."""
    value = 'dark' if on else 'light'
    feature = {'name': 'prefers-color-scheme', 'value': value}
    self.call('Emulation.setEmulatedMedia', features=[feature])

  def value(self, script: str):
    """Returns what an expression gives in the page."""
    answer = self.call(
      'Runtime.evaluate',
      expression=script,
      returnByValue=True,
      awaitPromise=True,
    )
    assert 'exceptionDetails' not in answer, answer
    return answer['result'].get('value')

  def wait(self, script: str):
    """Returns the first true value of an expression."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
      if found := self.value(script):
        return found
      time.sleep(0.02)
    raise TimeoutError(f'{script} never came true; {self.errors}')

  def press(self, key: str) -> None:
    """Presses and releases a key, as a user does."""
    text = {'text': key} if len(key) == 1 else {}
    self.call('Input.dispatchKeyEvent', type='keyDown', key=key, **text)
    self.call('Input.dispatchKeyEvent', type='keyUp', key=key)

  def click(self, selector: str) -> None:
    """Clicks into the middle of the first element that a selector finds."""
    find = f'document.querySelector({json.dumps(selector)})'
    x, y = self.value(
      f'(() => {{ const b = {find}.getBoundingClientRect(); '
      'return [b.x + b.width / 2, b.y + b.height / 2]; })()'
    )
    for kind in ('mousePressed', 'mouseReleased'):
      self.call(
        'Input.dispatchMouseEvent',
        type=kind,
        x=x,
        y=y,
        button='left',
        clickCount=1,
      )

  def screenshot(self, whole: bool = False) -> bytes:
    """Returns a PNG of the window, or of the whole page."""
    answer = self.call('Page.captureScreenshot', captureBeyondViewport=whole)
    return base64.b64decode(answer['data'])
