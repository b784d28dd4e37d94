"""A program and its tests as plain arguments, for scorers of sandboxes."""

from score_jax.graders import code, sandbox


def run(source: str, setup: str, tests: list[str], timeout: float) -> dict:
  """Returns the verdict on a program, and what can be seen of its run."""
  asked = code.decode_tests(code.encode_tests(setup=setup, tests=tests))
  limits = sandbox.Limits(seconds=timeout, memory_mb=1024)
  report = code.judge(source, asked, limits)
  return {
    'verdict': 'pass' if code.passes(report, asked) else 'fail',
    'stdout': report.output,
    'cwd': report.folder,
    'peak_rss_mib': report.peak_mb,
  }
