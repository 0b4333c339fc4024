"""SPSA (Uesato et al., 2018): an l_inf attack that sees only outputs and estimates gradients by simultaneous random
perturbations."""

import torch
from torch import Tensor, nn

from mmclib import counter
from mmclib.attacks.climb import warn_if_short
from mmclib.attacks.door import begin
from mmclib.attacks.ledger import AttackResult
from mmclib.attacks.objectives import Objective
from mmclib.checks import check_setting

_BLOCK = 64  # pairs summed together; fixed, so that the order of additions is the same for every batch
_AT_ONCE = {"cpu": 128}  # perturbed images held in memory together; elsewhere 8192


def estimate_gradient(values, images, seeds, *, evaluations=128, delta=0.01, step=0):
    """Estimate the gradient of `values` at each image by antithetic pairs: the mean of (f(x + dv) - f(x - dv)) / 2d * v, v random
    signs.

    `values(perturbed, owner)` gives f for a stack of perturbed images (n, C, H, W), whose originals are numbered `owner` (n,).
    The work is flattened over images and pairs in parts of bounded memory. Returns (N, C, H, W).
    """
    pairs = evaluations // 2
    estimate = torch.zeros_like(images)
    group = max(1, _AT_ONCE.get(images.device.type, 8192) // (2 * min(pairs, _BLOCK)))
    for part in torch.arange(len(images), device=images.device).split(group):
        for block in torch.arange(pairs, device=images.device).split(_BLOCK):
            noise = counter.signs(seeds[part][:, None], images.shape[1:], f"spsa {step}", block).to(images.dtype)
            shift = delta * noise
            centre = images[part][:, None]
            perturbed = torch.stack((centre + shift, centre - shift), 2).flatten(0, 2)
            f = values(perturbed, part.repeat_interleave(2 * len(block))).reshape(len(part), len(block), 2)
            slopes = ((f[..., 0] - f[..., 1]) / (2 * delta)).to(images.dtype)
            slopes = slopes.nan_to_num_(0.0, 0.0, 0.0)  # a pair that met NaN or infinity says nothing
            estimate[part] += noise.mul_(slopes[..., None, None, None]).sum(1)
    return estimate / pairs


def spsa(model: nn.Module, images: Tensor, labels: Tensor, *, targets: Tensor | None = None, objective: Objective = "margin",
         seed: int | Tensor = 0, epsilon: float = 8 / 255, steps: int = 10, evaluations: int = 128, learning_rate: float = 0.01,
         delta: float = 0.01, stop_early: bool = True) -> AttackResult:
    """Attack within an l_inf ball by Adam on SPSA gradient estimates, projected onto the ball and [0, 1] after each step.

    Images (N, C, H, W) in [0, 1], labels and targets int64 (N,). `evaluations` counts model calls per image and step as the
    paper's batch does: 128 are 64 antithetic pairs, each image with noise of its own. Fooled images leave. The model must accept
    values `delta` outside [0, 1]. Raises ValueError for bad input. Source: Uesato et al., 2018; settings: Sec. 4 and the authors' code.
    """
    epsilon, steps = check_setting("epsilon", epsilon, 0), check_setting("steps", steps, 1, int)
    evaluations, delta = check_setting("evaluations", evaluations, 2, int), check_setting("delta", delta, 1e-12)
    learning_rate = check_setting("learning_rate", learning_rate, 0)
    warn_if_short("spsa", epsilon, learning_rate, steps)
    if evaluations % 2:
        raise ValueError(f"evaluations must be even, since they come in antithetic pairs, got {evaluations}")
    with begin(model, images, labels, targets=targets, objective=objective, seed=seed) as (frozen, ledger, seeds):
        images, labels, targets = ledger.originals, ledger.labels, ledger.targets
        rows, current = ledger.everyone, images
        first, second = torch.zeros_like(images), torch.zeros_like(images)
        for step in range(steps + 1):
            success = ledger.update(rows, current, frozen.logits(current))
            if step == steps:
                break
            if stop_early:
                rows, current, first, second = (state[~success] for state in (rows, current, first, second))
            if len(rows) == 0:
                break

            def values(perturbed, owner, rows=rows):
                owners = rows[owner]
                return frozen.evaluate(perturbed, labels[owners], None if targets is None else targets[owners])[1]

            gradient = estimate_gradient(values, current, seeds[rows], evaluations=evaluations, delta=delta, step=step)
            ledger.queries[rows] += evaluations
            ledger.count_gradients(rows, gradient)  # estimates: where all are zero the outputs are as flat as a masked gradient
            first = torch.lerp(first, gradient, 0.1)
            second = torch.lerp(second, gradient.square(), 0.001)
            update = first / (1 - 0.9 ** (step + 1)) / ((second / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8)
            low, high = (images[rows] - epsilon).clamp_(min=0), (images[rows] + epsilon).clamp_(max=1)
            current = (current + learning_rate * update).clamp(low, high)
        return ledger.result("linf", name="spsa")
