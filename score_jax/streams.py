"""Which stream of random numbers is whose?

All keys of a run are folded from its one root key: those of a batch by the
batch's number, the others by these, behind all of them. What is new takes the
next number. (Which problems come when is numpy's to draw: `data.py`.)
"""

EVALUATION = 1_000_000  # What evaluations draw, where they draw at all.
OFFLINE = 1_000_001  # First attempts that the base makes in the policy's place.
DROPOUT = 1_000_002  # What an adapter leaves out, step by step.
ADAPTER = 1_000_003  # What a low-rank adapter starts from.
GREEDY = 1_000_004  # Greedy attempts, which draw nothing.
SAMPLES = 1_000_005  # Many trajectories of a problem, for the laboratory.
