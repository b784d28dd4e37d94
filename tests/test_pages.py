"""Huge pages are asked for once, where that changes anything."""

import os
import subprocess
import sys

import pytest

from score_jax import pages

ASKED = 'always [madvise] never'


@pytest.mark.parametrize(
  ('environment', 'kernel', 'library', 'expected'),
  [
    ({}, ASKED, 'glibc 2.36', 'glibc.malloc.hugetlb=1'),
    (
      {'GLIBC_TUNABLES': 'glibc.malloc.check=1'},
      ASKED,
      'glibc 2.35',
      'glibc.malloc.check=1:glibc.malloc.hugetlb=1',
    ),
    ({'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=0'}, ASKED, 'glibc 2.36', None),
    ({}, '[always] madvise never', 'glibc 2.36', None),
    ({}, 'always madvise [never]', 'glibc 2.36', None),
    ({}, ASKED, 'glibc 2.31', None),
    ({}, ASKED, 'musl 1.2', None),
    ({}, ASKED, '', None),
  ],
)
def test_they_are_asked_for_where_the_kernel_waits_for_it(
  environment, kernel, library, expected
):
  assert pages.tunables(environment, kernel, library) == expected


def test_a_program_starts_anew_once_with_its_arguments(tmp_path):
  """As it does where the kernel waits to be asked, on this one or another."""
  kernel = tmp_path / 'enabled'
  kernel.write_text(ASKED)
  program = (
    'import os, pathlib, sys; from score_jax import pages; '
    f'pages._KERNEL = pathlib.Path({str(kernel)!r}); print("here", flush=True);'
    'pages.ask(); print(os.environ.get("GLIBC_TUNABLES"), sys.argv[1:])'
  )
  found = subprocess.run(
    [sys.executable, '-c', program, '--one=1', 'two words'],
    env={k: v for k, v in os.environ.items() if k != pages.VARIABLE},
    capture_output=True,
    text=True,
    check=True,
  )
  there = os.confstr('CS_GNU_LIBC_VERSION') or ''
  expected = pages.tunables({}, ASKED, there)
  starts = 1 if expected is None else 2
  assert found.stdout == 'here\n' * starts + (
    f"{expected} ['--one=1', 'two words']\n"
  )
