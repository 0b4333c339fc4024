"""What fit() is told: the optimizer, the augmentation and, for adversarial training, the attack."""

import dataclasses
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class AdversarialTraining:
    """PGD on every batch from a random start, in evaluation mode; targets uniform over the wrong classes (Madry et al., 2018)."""

    mode: str = "untargeted"
    epsilon: float = 8 / 255
    step_size: float = 2 / 255
    steps: int = 10
    objective: object = "cross_entropy"  # a name or a callable, see mmclib.attacks.objectives

    def __post_init__(self):
        if self.mode not in ("untargeted", "targeted"):
            raise ValueError(f"mode must be 'untargeted' or 'targeted', got {self.mode!r}")
        _at_least(0, epsilon=self.epsilon, step_size=self.step_size)
        _at_least(1, steps=self.steps)


@dataclass(frozen=True)
class Recipe:
    """Momentum SGD and augmentation; the defaults are the paper's on CIFAR-10 but for the 200 epochs, which are the caller's to say.

    The learning rate is multiplied by `decay` after each of the `milestones` (epochs); weight decay acts on convolution kernels only.
    Raises ValueError for values out of range.
    """

    epochs: int
    batch_size: int = 50
    learning_rate: float = 0.01
    milestones: tuple = (100, 150)
    decay: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 2e-4
    shift: float = 0.1
    flip: bool = True
    adversarial: AdversarialTraining | None = None

    def __post_init__(self):
        _at_least(1, epochs=self.epochs, batch_size=self.batch_size)
        _at_least(0, learning_rate=self.learning_rate, decay=self.decay, momentum=self.momentum, weight_decay=self.weight_decay,
                  shift=self.shift)
        if self.momentum >= 1 or self.shift > 1:
            raise ValueError(f"momentum must be below 1 and shift at most 1, got {self.momentum!r} and {self.shift!r}")

    def rate(self, epoch) -> float:
        """Return the learning rate of an epoch, counted from 0."""
        return self.learning_rate * self.decay ** sum(epoch >= milestone for milestone in self.milestones)


def plain(recipe) -> dict:
    """Return a recipe as JSON gives it back, so that a saved one compares equal."""
    settings = dataclasses.asdict(recipe) | {"milestones": list(recipe.milestones)}
    if recipe.adversarial and callable(recipe.adversarial.objective):
        settings["adversarial"]["objective"] = recipe.adversarial.objective.__qualname__
    return settings


def _at_least(bound, **values):
    for name, value in values.items():
        if not (isinstance(value, (int, float)) and math.isfinite(value) and value >= bound):
            raise ValueError(f"{name} must be a number of at least {bound}, got {value!r}")
        if bound == 1 and not isinstance(value, int):
            raise ValueError(f"{name} must be a whole number, got {value!r}")
