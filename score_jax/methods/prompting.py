"""Methods that train nothing and ask the base model in another way.

What they ask is constant text between turns, so the sampler runs them as it
runs self-correction; only some of the turns are attempts and graded.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from score_jax.methods.plan import Inference


def attempts(config: ConfigDict) -> Inference:
  """Returns the task's instruction between all attempts."""
  return repeated(config.turns)


def repeated(attempts: int) -> Inference:
  """Returns the task's instruction between so many attempts, all graded.

  More than the model was trained on shows how far correction goes on.
  """
  return Inference(('',) * (attempts - 1), tuple(range(1, attempts + 1)))


def self_refine(config: ConfigDict) -> Inference:
  """Returns Self-Refine (arXiv:2303.17651): attempt, feedback, rewrite.

  Simplified: one round of feedback, no worked examples in the prompt, and no
  score that stops early. The feedback is the model's own and is not graded.
  """
  texts = config.method.self_refine
  return Inference((texts.feedback, texts.rewrite), (1, 3))


def self_contrast(config: ConfigDict) -> Inference:
  """Returns Self-Contrast (arXiv:2401.02009): differing attempts, compared.

  An attempt, one from another perspective, a checklist of where the two
  differ, and the attempt made after it; the first and the last are graded.
  Simplified: one other perspective, given by a constant text where the paper
  has the model name several, and all in one conversation, so the second
  perspective is not blind to the first.
  """
  texts = config.method.self_contrast
  asked = (texts.perspective, texts.contrast, texts.conclude)
  return Inference(asked, (1, 4))
