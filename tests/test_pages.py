"""Huge pages that stay are asked for once, where that changes anything."""

import os
import subprocess
import sys

import pytest

from score_jax import pages

ASKED = 'always [madvise] never'
MEMORY = 8 * 2**30
KEPT = (
  'glibc.malloc.arena_max=1:glibc.malloc.mmap_threshold=1073741824:'
  'glibc.malloc.trim_threshold=1073741824'
)


@pytest.mark.parametrize(
  ('environment', 'kernel', 'library', 'expected'),
  [
    ({}, ASKED, 'glibc 2.36', f'glibc.malloc.hugetlb=1:{KEPT}'),
    (
      {'GLIBC_TUNABLES': 'glibc.malloc.check=1'},
      ASKED,
      'glibc 2.35',
      f'glibc.malloc.check=1:glibc.malloc.hugetlb=1:{KEPT}',
    ),
    (
      {'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=0'},
      ASKED,
      'glibc 2.36',
      f'glibc.malloc.hugetlb=0:{KEPT}',
    ),
    (
      {'GLIBC_TUNABLES': f'glibc.malloc.hugetlb=1:{KEPT}'},
      ASKED,
      'glibc 2.36',
      None,
    ),
    ({}, '[always] madvise never', 'glibc 2.36', KEPT),
    ({}, 'always madvise [never]', 'glibc 2.36', KEPT),
    ({}, ASKED, 'glibc 2.31', None),
    ({}, ASKED, 'musl 1.2', None),
    ({}, ASKED, '', None),
  ],
)
def test_what_the_library_is_not_told_yet_is_added(
  environment, kernel, library, expected
):
  found = pages.tunables(environment, kernel, library, MEMORY)
  assert found == expected


@pytest.mark.parametrize(
  ('names', 'platforms', 'expected'),
  [
    ([], None, False),
    (['null', 'nvidiactl', 'vfio/vfio'], None, False),
    (['nvidia0'], None, True),
    (['accel0'], 'tpu', True),
    (['vfio/3'], None, True),
    (['nvidia0'], 'cpu', False),
  ],
)
def test_beside_an_accelerator_nothing_is_asked(
  tmp_path, names, platforms, expected
):
  for name in names:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
  environment = {'JAX_PLATFORMS': platforms} if platforms else {}
  assert pages._has_accelerator(environment, tmp_path) == expected


def test_a_container_may_use_less_than_the_machine_has(tmp_path):
  limit = tmp_path / 'memory.max'
  whole = pages.host_memory(limit)
  assert whole == os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  for text, expected in (('max\n', whole), (f'{2 * whole}\n', whole)):
    limit.write_text(text)
    assert pages.host_memory(limit) == expected
  limit.write_text(f'{whole // 4}\n')
  assert pages.host_memory(limit) == whole // 4


def test_a_program_starts_anew_once_with_its_arguments(tmp_path):
  """As it does where the kernel waits to be asked, on this one or another."""
  kernel = tmp_path / 'enabled'
  kernel.write_text(ASKED)
  program = (
    'import os, pathlib, sys; from score_jax import pages; '
    f'pages._KERNEL = pathlib.Path({str(kernel)!r}); print("here", flush=True);'
    'pages.ask(); print(os.environ.get("GLIBC_TUNABLES"), sys.argv[1:])'
  )
  rest = {k: v for k, v in os.environ.items() if k != pages.VARIABLE}
  found = subprocess.run(
    [sys.executable, '-c', program, '--one=1', 'two words'],
    env=rest | {'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
    check=True,
  )
  there = os.confstr('CS_GNU_LIBC_VERSION') or ''
  expected = pages.tunables({}, ASKED, there, pages.host_memory())
  starts = 1 if expected is None else 2
  assert found.stdout == 'here\n' * starts + (
    f"{expected} ['--one=1', 'two words']\n"
  )
