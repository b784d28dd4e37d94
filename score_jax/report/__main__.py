"""`python -m score_jax.report WORKDIR` rebuilds the report of a run."""

import argparse

from score_jax.report.build import build


def main() -> None:
  parser = argparse.ArgumentParser(
    prog='python -m score_jax.report',
    description='Rebuilds report.html and plots/ of a run from its files.',
  )
  parser.add_argument('workdir', help='the work directory of the run')
  workdir = parser.parse_args().workdir
  try:
    print(build(workdir))
  except FileNotFoundError as error:
    parser.error(str(error))


if __name__ == '__main__':
  main()
