"""Parts of a batch are read at their widths, and come back as they went in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax import lengths, parts, reading
from score_jax.learner import Batch
from score_jax.trajectory import Trajectory

# Prompt, and columns behind it, of rows; two rows are a group.
ROWS = np.asarray(
  [(8, 20), (8, 4), (6, 32), (6, 9), (5, 10), (5, 16), (7, 3), (7, 2)]
)
PROMPT, BEHIND = 8, 32
LIVE = 8 + 20 + 4 + 6 + 32 + 9 + 5 + 10 + 16 + 7 + 3 + 2
LIVE_WHOLE = LIVE + 8 + 6 + 5 + 7  # The prompts once more.


def batch_of(rows):
  prompt, behind = rows.T[..., None]
  length, columns = prompt + behind, np.arange(PROMPT + BEHIND)[None]
  trajectory = Trajectory(
    tokens=np.where(columns < length, 3, 0),
    turn=((columns >= prompt) & (columns < length)).astype(int),
    logp=np.zeros((len(length), PROMPT + BEHIND), np.float32),
    length=length[:, 0],
    span=np.stack([prompt, length], axis=-1),
    truncated=np.zeros((len(length), 1), bool),
  )
  reward = np.arange(len(length), dtype=np.float32)[:, None]
  return jax.tree.map(jnp.asarray, Batch(trajectory, reward))


def learned(cut, rows=ROWS):
  """Returns what is averaged over parts that teach how wide they are read."""

  def of_part(width, i, part):
    filled = reading.filled(part.trajectory, cut.prompt)
    metrics = {
      'width': jnp.float32(width),
      'fits': jnp.max(filled) <= width,
      'logp_gap_max': jnp.max(part.reward),
      'own': jnp.stack([part.reward[:, 0], filled], axis=1),
      'part': jnp.broadcast_to(i, part.reward.shape),
    }
    return jnp.sum(part.reward), jnp.float32(i), metrics

  def run(batch):
    return parts.averaged(cut, of_part, jnp.float32(0), batch, ('own', 'part'))

  return jax.jit(run)(batch_of(rows))


def cut_of(count, shares, prompt=PROMPT):
  columns = PROMPT + BEHIND - prompt
  widths = reading.widths(shares, columns)
  return parts.Cut(count, 2, 2 if prompt else 1, prompt, tuple(widths))


@pytest.mark.parametrize(
  ('count', 'shares', 'read'),
  [
    (1, (), 8 * 32),
    (1, (0.5,), 8 * 32),
    (2, (), 8 * 32),
    # Short are the last two groups, which are the first part.
    (2, (0.5,), 4 * 16 + 4 * 32),
    (4, (0.25, 0.5), 2 * 8 + 2 * 16 + 2 * 32 + 2 * 32),
    # 0.6 of 32 columns are 20.
    (4, (0.25, 0.5, 0.6), 2 * 8 + 2 * 16 + 2 * 20 + 2 * 32),
  ],
)
def test_padding_is_the_share_of_what_is_read_that_nothing_fills(
  count, shares, read
):
  _, _, metrics = learned(cut_of(count, shares))
  # Four prompts are read once each.
  expected = 1 - LIVE / (4 * PROMPT + read)
  np.testing.assert_allclose(metrics['padding'], expected, rtol=1e-6)
  np.testing.assert_allclose(metrics['width'], read / 8)
  assert metrics['fits'] == 1.0


@pytest.mark.parametrize('count', [1, 2, 4])
@pytest.mark.parametrize('shares', [(), (0.5,), (0.25, 0.5, 0.6)])
def test_a_plan_counts_the_widths_that_parts_are_read_at(count, shares):
  cut = cut_of(count, shares)
  _, _, metrics = learned(cut)
  planned = lengths.widths_of(ROWS[:, 1], count, 2, cut.widths)
  np.testing.assert_allclose(metrics['width'], np.mean(planned))


def test_rows_that_are_read_whole_count_their_prompts():
  _, _, metrics = learned(cut_of(2, (0.6,), prompt=0))
  # Rows fill 28, 12, 38, 15 | 15, 21, 10, 9 of 40 columns.
  expected = 1 - LIVE_WHOLE / (4 * 24 + 4 * 40)
  np.testing.assert_allclose(metrics['padding'], expected, rtol=1e-6)


@pytest.mark.parametrize('shares', [(), (0.25, 0.5)])
def test_metrics_of_rows_come_back_in_their_order(shares):
  total, mean, metrics = learned(cut_of(4, shares))
  np.testing.assert_array_equal(metrics['own'][:, 0], np.arange(8))
  np.testing.assert_array_equal(metrics['own'][:, 1], ROWS[:, 1])
  assert (total, mean) == (28 / 4, 1.5)
  assert metrics['logp_gap_max'] == 7
  # By the longest of each group: 20, 32, 16, 3.
  order = [2, 2, 3, 3, 1, 1, 0, 0] if shares else [0, 0, 1, 1, 2, 2, 3, 3]
  np.testing.assert_array_equal(metrics['part'][:, 0], order)


def test_groups_stay_together_and_as_they_are_among_equals():
  rows = np.asarray([(5, 9)] * 8)
  _, _, metrics = learned(cut_of(2, (0.5,)), rows)
  np.testing.assert_array_equal(metrics['part'][:, 0], [0] * 4 + [1] * 4)
  assert metrics['width'] == 16


@pytest.mark.parametrize(
  ('shares', 'columns', 'expected'),
  [
    ((), 40, [40]),
    ((1.0,), 40, [40]),
    ((0.5, 0.9), 40, [20, 36, 40]),
    ((0.1, 0.11), 19, [2, 3, 19]),
    ((0.1, 0.105), 19, [2, 19]),
    ((0.5, 0.75), 1600, [896, 1280, 1600]),  # Tiles of 128.
  ],
)
def test_widths_are_shares_of_the_columns_in_steps(shares, columns, expected):
  assert reading.widths(shares, columns) == expected
