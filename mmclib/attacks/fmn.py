"""The fast minimum-norm attack in l_inf (Pintor et al., 2021): the least distortion per image, with no epsilon to choose.

Each image has a bound of its own (the paper's epsilon), which shrinks while its latest try is a success and grows while it is none; the
ascent is projected onto that ball.
"""

import math

import torch
from torch import Tensor, nn

from mmclib.attacks.climb import scaled, times_power_of_two
from mmclib.attacks.door import begin
from mmclib.attacks.ledger import AttackResult
from mmclib.attacks.objectives import Objective
from mmclib.checks import check_bound, check_setting

_LAST_STEP, _LAST_GAMMA = 0.01, 0.001  # what the step size (as a share of the first) and gamma decay to


def fmn(model: nn.Module, images: Tensor, labels: Tensor, *, targets: Tensor | None = None, objective: Objective | None = None,
        seed: int | Tensor = 0, steps: int = 100, step_size: float = 1.0, gamma: float = 0.05, epsilon: float = math.inf,
        precision: str = "float32") -> AttackResult:
    """Find for each image the closest one in l_inf that is misclassified, or classified as its target.

    Images (N, C, H, W) in [0, 1], labels and targets int64 (N,). `step_size` is the l_2 length of the first step and `gamma` the share
    by which each image's bound changes at first; both decay along a half cosine. What is found beyond `epsilon` counts as not found; by
    default nothing is too far. `steps` images are judged, the first the original, and the last move is not. The default objective is
    success_margin; another one should be positive exactly on success, since its value over its slope is the first guess of epsilon.
    `seed` is accepted for uniformity; nothing is drawn. Images where nothing was found come back unchanged with success False. Raises
    ValueError for bad input. Source: Pintor et al., 2021, Algorithm 1.
    """
    steps, gamma, epsilon = check_setting("steps", steps, 1, int), check_setting("gamma", gamma, 0), check_bound(epsilon)
    step_size = check_setting("step_size", step_size, 0)
    with begin(model, images, labels, targets=targets, objective=objective or "success_margin", seed=seed,
               precision=precision) as (frozen, ledger, _):
        rows = ledger.look_at_originals(frozen.logits(ledger.originals))
        current = ledger.originals[rows]
        bound = torch.full_like(ledger.margin[rows], torch.inf)
        for step in range(steps):
            if len(rows) == 0:
                break
            originals = ledger.originals[rows]
            targets = None if ledger.targets is None else ledger.targets[rows]
            logits, values, gradients = frozen.gradients(current, ledger.labels[rows], targets)
            zero = ledger.count_gradients(rows, gradients)
            ledger.queries[rows] += 1
            logits = ledger.confirmed(frozen, rows, current, logits)
            distance = (current - originals).flatten(1).abs().amax(1)
            success = ledger.keep_closer(rows, current, logits, distance)
            cosine = (1 + math.cos(math.pi * step / steps)) / 2
            share = _LAST_GAMMA + (gamma - _LAST_GAMMA) * cosine
            length = step_size * (_LAST_STEP + (1 - _LAST_STEP) * cosine)
            closest = ledger.distance[rows]
            # as if the objective were linear: its value over the dual norm of its gradient is the way to the boundary (Eq. 4)
            gradients, exponents = scaled(gradients)
            slope = gradients.flatten(1).abs().sum(1).clamp_(min=1e-12)
            ahead = distance + times_power_of_two(values.abs().to(distance.dtype), -exponents).nan_to_num_(torch.inf) / slope
            missed = torch.where(closest.isfinite(), bound * (1 + share), ahead)
            bound = torch.where(success, torch.minimum(bound * (1 - share), closest), missed)
            bound = torch.minimum(bound, torch.maximum(originals, 1 - originals).flatten(1).amax(1))  # the box ends there
            norm = gradients.flatten(1).norm(dim=1).clamp_(min=1e-12)
            moved = current + gradients * (length / norm)[:, None, None, None]
            reach = bound[:, None, None, None]
            current = torch.minimum(torch.maximum(moved, originals - reach), originals + reach).clamp_(0, 1)
            stuck = zero & ~success  # nothing will move it any more
            ledger.give_up(rows[stuck], steps - 1 - step)
            rows, current, bound = rows[~stuck], current[~stuck], bound[~stuck]
        return ledger.result("linf", name="fmn", epsilon=epsilon)
