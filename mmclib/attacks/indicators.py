"""Indicators of attack failure (Pintor et al., 2022): per image, a reason to distrust an attack that found nothing.

Each returns bool (N,), True where the indicator is raised. A raised one does not say that the model is weak, but that this attack is
no evidence of its strength. Some ask the model, some read `record_losses` (steps + 1, N): values of an objective that attacks maximise.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmclib.attacks.climb import DecayingSteps, SignedSteps, random_start
from mmclib.attacks.door import begin
from mmclib.attacks.objectives import Objective, resolve
from mmclib.attacks.pgd import pgd
from mmclib.checks import check_label_form, check_setting

__all__ = [
    "Path", "incomplete_optimisation", "record_losses", "record_path", "silent_success", "transfer_failure", "unavailable_gradients",
    "unbounded_failure", "unstable_predictions",
]


@dataclass(frozen=True)
class Path:
    """What an attack saw of N images on its way, steps + 1 rows: the values that it maximised, and the margin, positive on success."""

    losses: Tensor
    margins: Tensor


def record_path(model: nn.Module, images: Tensor, labels: Tensor, *, targets: Tensor | None = None, objective: Objective = "margin",
                seed: int | Tensor = 0, epsilon: float = 8 / 255, step_size: float | None = 2 / 255, steps: int = 50,
                restart: int = 0) -> Path:
    """Climb as `pgd` does from a random start, all steps taken, and record the objective and the success margin of every iterate.

    With step_size=None steps decay as those of `multi_targeted`. Images (N, C, H, W) in [0, 1], labels and targets int64 (N,). The seed
    and the restart's number are those of the attack whose path it is. Raises ValueError for bad input.
    """
    epsilon, steps = check_setting("epsilon", epsilon, 0), check_setting("steps", steps, 1, int)
    restart = check_setting("restart", restart, 0, int)
    margin, losses, margins = resolve("success_margin", targets), [], []
    with begin(model, images, labels, targets=targets, objective=objective, seed=seed) as (frozen, ledger, seeds):
        current = random_start(ledger.originals, seeds, epsilon, restart)
        rule = (DecayingSteps(epsilon, steps, current) if step_size is None
                else SignedSteps(epsilon, check_setting("step_size", step_size, 0)))
        for step in range(steps + 1):
            if step < steps:
                logits, values, gradients = frozen.gradients(current, ledger.labels, ledger.targets)
                current = rule(step, current, gradients, ledger.originals)
            else:
                logits, values = frozen.evaluate(current, ledger.labels, ledger.targets)
            losses.append(values)
            margins.append(margin(None, logits, ledger.labels, ledger.targets))
        return Path(torch.stack(losses), torch.stack(margins))


def record_losses(model: nn.Module, images: Tensor, labels: Tensor, **settings) -> Tensor:
    """Return the objective's values (steps + 1, N) along PGD, for the indicators that read them; settings as of `record_path`."""
    return record_path(model, images, labels, **settings).losses


def unavailable_gradients(model: nn.Module, images: Tensor, labels: Tensor, *, targets: Tensor | None = None,
                          objective: Objective = "margin") -> Tensor:
    """Raised where the objective's gradient by the image is exactly zero or NaN, and for all where the model has none.

    An attack that follows gradients cannot move such an image; saturated softmaxes and operations that cut the graph do that.
    Images (N, C, H, W) in [0, 1], labels and targets int64 (N,). Raises ValueError for bad input. Source: indicator I1.
    """
    with begin(model, images, labels, targets=targets, objective=objective) as (frozen, ledger, _):
        try:
            gradients = frozen.gradients(ledger.originals, ledger.labels, ledger.targets)[2]
        except (RuntimeError, ValueError) as error:  # torch's for a part that is cut off, ours for a graph that is
            if not any(text in str(error) for text in ("does not require grad", "do not require grad", "not have been used in the graph")):
                raise
            return torch.ones_like(ledger.vanished_first)
        return ledger.count_gradients(ledger.everyone, gradients)


def unstable_predictions(model: nn.Module, images: Tensor, labels: Tensor, *, targets: Tensor | None = None,
                         objective: Objective = "margin", seed: int | Tensor = 0, epsilon: float = 8 / 255, points: int = 100,
                         threshold: float = 0.1) -> Tensor:
    """Raised where the objective changes, over random points within epsilon / 2, by more than `threshold` of its value on average.

    Where the surface is that rough, or the model random, a gradient says nothing about the next step: average over several first. A
    point that is NaN or infinite counts as a change of all. Images (N, C, H, W) in [0, 1], labels and targets int64 (N,). Raises
    ValueError for bad input. Source: indicator I2; points are kept in [0, 1].
    """
    epsilon, threshold = check_setting("epsilon", epsilon, 0), check_setting("threshold", threshold, 0)
    points = check_setting("points", points, 1, int)
    with begin(model, images, labels, targets=targets, objective=objective, seed=seed) as (frozen, ledger, seeds):
        def values(at):
            return frozen.evaluate(at, ledger.labels, ledger.targets)[1]

        own = values(ledger.originals)
        scale = torch.where(own == 0, 1, own.abs())
        change = torch.zeros_like(own)
        for number in range(points):
            near = random_start(ledger.originals, seeds, epsilon / 2, number)
            change += ((values(near) - own).abs() / scale).nan_to_num_(1.0, 1.0)
        return change / points > threshold


def silent_success(losses: Tensor, success: Tensor) -> Tensor:
    """Raised where some try on the way was adversarial and the attack did not return it: keep the best try instead of the last.

    Losses (steps, N) of an objective that is positive on success, such as success_margin; `success` bool (N,), as the attack
    reports it. Raises ValueError for other shapes. Source: indicator I3.
    """
    _check_losses(losses)
    if success.dtype != torch.bool or success.shape != losses.shape[1:]:
        raise ValueError(f"success must be bool of shape ({losses.shape[1]},), got {success.dtype} of {tuple(success.shape)}")
    return (losses > 0).any(0) & ~success.to(losses.device)


def incomplete_optimisation(losses: Tensor, *, last: int = 10, threshold: float = 0.05) -> Tensor:
    """Raised where the best loss so far, rescaled to [0, 1], still rises by more than `threshold` over its last 10 values: take more.

    Losses (steps, N) of an objective that is maximised. Never raised where the loss does not move at all, which is what
    `unavailable_gradients` is for. Raises ValueError for another shape. Source: indicator I4.
    """
    last, threshold = check_setting("last", last, 2, int), check_setting("threshold", threshold, 0)
    _check_losses(losses)
    low, high = losses.amin(0), losses.amax(0)
    best = ((losses - low) / torch.where(high > low, high - low, 1)).cummax(0).values[-last:]
    return best[-1] - best[0] > threshold


def transfer_failure(model: nn.Module, crafted: Tensor, labels: Tensor, success: Tensor, *, targets: Tensor | None = None) -> Tensor:
    """Raised where an image that was a success on the model it was crafted on is none on this one: craft on the model itself.

    `crafted` (N, C, H, W) in [0, 1], labels and targets int64 (N,), `success` bool (N,) on the source. Raises ValueError for bad
    input. Source: indicator I5.
    """
    check_label_form(labels, count=len(crafted))
    if success.dtype != torch.bool or success.shape != labels.shape:
        raise ValueError(f"success must be bool of shape ({len(labels)},), got {success.dtype} of {tuple(success.shape)}")
    with begin(model, crafted, labels, targets=targets) as (frozen, ledger, _):
        rank, _ = ledger.judge(ledger.everyone, frozen.logits(ledger.originals))
        return success.to(rank.device) & (rank < 2)


def unbounded_failure(model: nn.Module, images: Tensor, labels: Tensor, *, targets: Tensor | None = None, attack: Callable = pgd,
                      **settings) -> Tensor:
    """Raised where not even an attack that may change every pixel to anything succeeds: it is the attack that fails, not the ball.

    PGD of 100 steps of 0.1 with epsilon 1 unless another attack or settings are named. Images (N, C, H, W) in [0, 1], labels and
    targets int64 (N,). Raises ValueError for bad input. Source: indicator I6.
    """
    if attack is pgd:
        settings = {"epsilon": 1.0, "step_size": 0.1, "steps": 100} | settings
    return ~attack(model, images, labels, targets=targets, **settings).success


def _check_losses(losses):
    if not isinstance(losses, Tensor) or losses.ndim != 2 or len(losses) == 0:
        shape = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
        raise ValueError(f"losses must have shape (steps, N) with at least one step, got {shape}")
    if not losses.isfinite().all():
        raise ValueError("losses must be finite, but hold NaN or infinity")
