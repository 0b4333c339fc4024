"""The decoupled direction and norm attack in l_2 (Rony et al., 2019): the least distortion per image, with no epsilon to choose.

Each image moves along its normalised gradient and is then set onto a sphere around its original, whose radius shrinks while its
latest try is a success and grows while it is none.
"""

import math

import torch
from torch import Tensor, nn

from mmclib import counter
from mmclib.attacks.climb import column, scaled
from mmclib.attacks.door import begin
from mmclib.attacks.ledger import AttackResult
from mmclib.attacks.objectives import Objective
from mmclib.checks import check_bound, check_setting

_LAST_STEP = 0.01  # what the step size decays to, as a share of the first


def ddn(model: nn.Module, images: Tensor, labels: Tensor, *, targets: Tensor | None = None, objective: Objective | None = None,
        seed: int | Tensor = 0, steps: int = 100, step_size: float = 1.0, gamma: float = 0.05, radius: float = 1.0,
        epsilon: float = math.inf, precision: str = "float32") -> AttackResult:
    """Find for each image the closest one in l_2 that is misclassified, or classified as its target.

    Images (N, C, H, W) in [0, 1], labels and targets int64 (N,). `step_size` is the l_2 length of the first step, which decays along
    a half cosine; `radius` is the first sphere's and changes by the share `gamma` with each step. The default objective is
    success_margin, where the paper has cross_entropy, which is blind on distance logits. A gradient of exactly zero is replaced by a
    random direction, drawn from the image's seed. What is found beyond `epsilon` counts as not found; by default nothing is too far.
    `steps` images are judged, the first the original, and the last move is not. Tries are not rounded to 8 bits, as the authors' are.
    Images where nothing was found come back unchanged with success False. Raises ValueError for bad input.
    Source: Rony et al., 2019, Algorithm 1.
    """
    steps, gamma, epsilon = check_setting("steps", steps, 1, int), check_setting("gamma", gamma, 0), check_bound(epsilon)
    step_size, radius = check_setting("step_size", step_size, 0), check_setting("radius", radius, 1e-12)
    with begin(model, images, labels, targets=targets, objective=objective or "success_margin", seed=seed,
               precision=precision) as (frozen, ledger, seeds):
        rows = ledger.look_at_originals(frozen.logits(ledger.originals))
        if len(rows):
            _search(frozen, ledger, rows, seeds[rows], steps, step_size, gamma, radius)
        return ledger.result("l2", name="ddn", epsilon=epsilon)


def _search(frozen, ledger, rows, seeds, steps, step_size, gamma, radius):
    originals, labels = ledger.originals[rows], ledger.labels[rows]
    targets = None if ledger.targets is None else ledger.targets[rows]
    farthest = torch.maximum(originals, 1 - originals).flatten(1).norm(dim=1)  # to the corner of the box
    current, radius = originals, torch.full_like(farthest, radius)
    for step in range(steps):
        logits, _, gradients = frozen.gradients(current, labels, targets)
        zero = ledger.count_gradients(rows, gradients)
        ledger.queries[rows] += 1
        logits = ledger.confirmed(frozen, rows, current, logits)
        success = ledger.keep_closer(rows, current, logits, (current - originals).flatten(1).norm(dim=1))
        gradients = scaled(gradients)[0]
        if bool(zero.any()):
            gradients[zero] = counter.normal(seeds[zero], originals.shape[1:], "direction", step).to(gradients.dtype)
        length = step_size * (_LAST_STEP + (1 - _LAST_STEP) * (1 + math.cos(math.pi * step / steps)) / 2)
        moved = current - originals + gradients * column(length / _norm(gradients))
        radius = torch.minimum(torch.where(success, (1 - gamma) * radius, (1 + gamma) * radius), farthest)
        current = (originals + moved * column(radius / _norm(moved))).clamp_(0, 1)


def _norm(images):
    return images.flatten(1).norm(dim=1).clamp_(min=1e-12)
