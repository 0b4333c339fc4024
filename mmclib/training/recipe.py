"""What fit() is told: the optimizer, the augmentation and, for adversarial training, the attack."""

import dataclasses
from dataclasses import dataclass

from mmclib.attacks.objectives import Objective
from mmclib.checks import check_setting


@dataclass(frozen=True)
class AdversarialTraining:
    """What every batch is turned into before its step, in evaluation mode; targets uniform over the wrong classes (the authors' code
    draws them among all, the true one included).

    `steps` signed-gradient steps from a uniform start in the ball, projected (PGD, Madry et al., 2018); with `noise` k > 0 from a uniform
    start in the ball of k epsilon and without projection (N-FGSM, de Jorge et al., 2022, which takes one step of epsilon). `guard`
    watches for catastrophic overfitting: where the accuracy under PGD-5 on the margin, on 256 training images, falls by more than that in
    an epoch, the training goes back to before that epoch and on with two projected steps of epsilon / 2.
    """

    mode: str = "untargeted"
    epsilon: float = 8 / 255
    step_size: float = 2 / 255
    steps: int = 10
    objective: Objective = "cross_entropy"  # a name or a callable, see mmclib.attacks.objectives
    noise: float = 0.0
    guard: float | None = None

    def __post_init__(self):
        if self.mode not in ("untargeted", "targeted"):
            raise ValueError(f"mode must be 'untargeted' or 'targeted', got {self.mode!r}")
        _numbers(self, 0, float, "epsilon", "step_size", "noise", *(["guard"] if self.guard is not None else []))
        _numbers(self, 1, int, "steps")

    def two_steps(self) -> "AdversarialTraining":
        """Return what the guard goes on with."""
        return dataclasses.replace(self, steps=2, step_size=self.epsilon / 2, noise=0.0)


@dataclass(frozen=True)
class Recipe:
    """Optimizer, schedule and augmentation; the defaults are the authors' on CIFAR-10 but for the 200 epochs, which the caller says.

    With `optimizer` "sgd" all parameters follow momentum SGD; with "muon" convolution kernels turn by Muon at `learning_rate` (radians)
    and all else follows Adam at `other_rate`, so that no rate depends on the scale of the loss. Schedule "steps" multiplies the rate by
    `decay` after each of the `milestones` (epochs), "linear" raises it over the share `warm_up` of all steps and then lowers it to
    zero. Weight decay acts on convolution kernels only (SGD). Images are shifted by up to the share `shift` of a side, edges filled by
    the "nearest" pixel or by "reflect"; `flip` is False, True (a coin for each image and epoch) or "alternating" (a coin for the first
    epoch, then the other way each time). `average` is the time constant in epochs of an exponential moving average of the weights that
    replaces them at the end (0: none). `half` rounds the final weights to float16 numbers. Raises ValueError for values out of range.
    """

    epochs: int
    batch_size: int = 50
    learning_rate: float = 0.01
    milestones: tuple = (100, 150)
    decay: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 2e-4
    shift: float = 0.1
    flip: bool | str = True
    adversarial: AdversarialTraining | None = None
    optimizer: str = "sgd"
    other_rate: float = 0.002
    schedule: str = "steps"
    warm_up: float = 0.0
    fill: str = "nearest"
    average: float = 0.0
    half: bool = False

    def __post_init__(self):
        if not isinstance(self.milestones, (tuple, list)):
            raise ValueError(f"milestones must be a tuple of epochs, got {self.milestones!r}")
        _numbers(self, 1, int, "epochs", "batch_size")
        _numbers(self, 0, float, "learning_rate", "decay", "momentum", "weight_decay", "shift", "other_rate", "warm_up", "average")
        if self.momentum >= 1 or self.shift > 1 or self.warm_up > 1:
            raise ValueError("momentum must be below 1, shift and warm_up at most 1, "
                             f"got {self.momentum!r}, {self.shift!r} and {self.warm_up!r}")
        for name, known in (("optimizer", ("sgd", "muon")), ("schedule", ("steps", "linear")), ("fill", ("nearest", "reflect")),
                            ("flip", (False, True, "alternating"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {getattr(self, name)!r}")

    def rate(self, epoch: int, step: int = 0, steps: int = 1) -> float:
        """Return the share of its full value that a learning rate has at a step of an epoch (both from 0) of `steps` steps."""
        if self.schedule == "steps":
            return self.decay ** sum(epoch >= milestone for milestone in self.milestones)
        total = self.epochs * steps
        done, rise = epoch * steps + step, self.warm_up * total
        return (done + 1) / (rise + 1) if done < rise else (total - done) / (total - rise)


def plain(recipe) -> dict:
    """Return a recipe as JSON gives it back, so that a saved one compares equal."""
    if recipe.adversarial and callable(objective := recipe.adversarial.objective):  # which may hold what cannot be copied
        name = getattr(objective, "__qualname__", type(objective).__qualname__)
        recipe = dataclasses.replace(recipe, adversarial=dataclasses.replace(recipe.adversarial, objective=name))
    return dataclasses.asdict(recipe) | {"milestones": list(recipe.milestones)}


def _numbers(settings, low, kind, *names):
    """Check settings and keep them as plain numbers: NumPy's scalars are no JSON."""
    for name in names:
        object.__setattr__(settings, name, check_setting(name, getattr(settings, name), low, kind))
