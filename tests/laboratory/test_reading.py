"""A cell's values beside those of its own evaluation, by hand."""

import numpy as np
import pytest

from score_jax import budget
from score_jax.laboratory import reading

# Two problems, two trajectories of two turns.
SAMPLES = budget.Samples(
  answers=[[(0, 1), (2, 1)], [(0, 0), ('', 1)]],
  right=np.array([[(0, 1), (0, 1)], [(1, 1), (0, 0)]], bool),
  tokens=np.array([[(3, 3), (3, 3)], [(5, 5), (5, 5)]]),
)


def means(values):
  return {name: x.mean() for name, x in values.items()}


def test_several_samples_counted_by_hand():
  assert means(reading.several(SAMPLES)) == pytest.approx(
    {
      'samples_avg_at_2_t1': 0.25,
      'samples_pass_at_2_t1': 0.5,
      'samples_avg_at_2_t2': 0.75,
      'samples_pass_at_2_t2': 1.0,
      # One trajectory, or two first attempts: answers 0 and 2 tie, both
      # wrong; 0 is right and the other has no vote.
      'samples_majority_2_parallel': 0.5,
      'samples_majority_2_corrected': 0.75,
      'samples_majority_2_gain': 0.25,
      'samples_best_of_2_parallel': 0.5,
      'samples_best_of_2_corrected': 0.75,
      'samples_best_of_2_gain': 0.25,
      'samples_tokens_2': 8.0,
    }
  )


def test_behind_fixed_first_attempts_the_metrics_are_the_same():
  right = np.array([(0, 1), (0, 0), (1, 0), (1, 1)], bool)
  found = reading.fixed_first(right)
  known = {name: np.nanmean(x) for name, x in found.items()}
  assert known['fixed_first_fixes_wrong'] == 0.5
  assert known['fixed_first_keeps_right'] == 0.5
  assert known['fixed_first_accuracy_t1'] == 0.5
  assert known['fixed_first_delta'] == 0.0


def test_attempts_in_a_row_have_an_accuracy_each():
  right = np.array([[0, 1, 1], [1, 1, 0]], bool)
  assert means(reading.in_a_row(right)) == {
    'attempts_accuracy_t1': 0.5,
    'attempts_accuracy_t2': 1.0,
    'attempts_accuracy_t3': 0.5,
  }
