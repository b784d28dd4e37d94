import launching
import pytest


@pytest.fixture
def launches(tmp_path):
  """Runs the launcher with stand-ins for tools."""
  return launching.make(tmp_path)
