"""A profile of seconds that several test files take through the whole path."""

TINY = """
title: "handwritten digits (8 x 8) stand in for the paper's data sets"
train_on_the_spot: true
training:
  digits: {dataset: digits, architecture: small_convnet, feature_dim: 16, epochs: 4, milestones: [3], flip: false,
           epsilon: 0.1, step_size: 0.05, steps: 2, rate: 10000}
models:
  sce: {training: digits, loss: sce}
  mmc-10: {training: digits, loss: mmc}
white_box:
  {models: [sce, mmc-10], images: 40, epsilons: [0.1, 0.2], step_size: 0.05, steps: [2, 4], convergence_steps: [6],
   convergence_models: [mmc-10], curve_epsilons: [0.1]}
"""


def told(receipt):
    """A receipt without when, where and in what time it was made, and the checksum that covers this too."""
    return {key: value for key, value in receipt.items() if key not in ("provenance", "sha256")}
