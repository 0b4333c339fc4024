"""The strong l_inf attack: margin ascent towards every wrong class in turn, with decaying steps and momentum, on the survivors
only.

After the multi-targeted attack of Gowal et al. (2019); the momentum is that of APGD (Croce & Hein, 2020). The margin logit_t -
logit_y does not saturate and is blind to the logits' scale, so the huge distance logits of MMC mask nothing.
"""

import math

import torch

from mmclib import counter
from mmclib.attacks.linf import confirmed, random_start, signed_step
from mmclib.attacks.network import attacked
from mmclib.attacks.result import AttackResult, Best, check_attack

_MOMENTUM = 0.25  # share of the last move in the next, as in APGD


def multi_targeted(model, images, labels, *, targets=None, objective="targeted_2", seed=0, epsilon=8 / 255, steps=50, classes=9, restarts=1,
                   precision="float32") -> AttackResult:
    """Try to turn each image into each of its `classes` likeliest wrong classes, `steps` steps each, until any of them fools the
    model.

    Images (N, C, H, W) in [0, 1], labels int64 (N,). The attack is untargeted and chooses the targets itself: `targets` must be
    None, and the objective is one that takes targets. Steps decay from 2 epsilon to zero along a half cosine. Raises ValueError
    for bad input.
    """
    if targets is not None:
        raise ValueError("targets must be None: multi_targeted tries the wrong classes itself; for given targets use pgd")
    check_attack(images, labels, None, epsilon=(epsilon, 0, float), steps=(steps, 1, int), classes=(classes, 1, int),
                 restarts=(restarts, 1, int))
    seeds = counter.image_seeds(seed, len(images), images.device)
    best = Best(images, labels, None)
    with attacked(model, objective, labels, precision) as network, torch.no_grad():
        logits = network.logits(images)
        best.update(torch.arange(len(images), device=images.device), images, logits)
        order = logits.scatter(1, labels[:, None], -torch.inf).argsort(dim=1, descending=True, stable=True)[:, :-1]  # the label comes last
        tries = min(classes, order.shape[1])
        for number in range(restarts * tries):
            rows = (best.rank < 2).nonzero().squeeze(1)
            if len(rows) == 0:
                break
            current = random_start(images[rows], seeds[rows], epsilon, number)
            _towards(network, best, rows, order[rows, number % tries], current, epsilon, steps)
    return best.result("linf", name="multi_targeted")


def _towards(network, best, rows, goals, current, epsilon, steps):
    """Climb towards one class per image, booking every iterate in `best`."""
    before = current
    for step in range(steps):
        logits, _, gradients = network.gradients(current, best.labels[rows], goals)
        best.count_gradients(rows, gradients)
        stay = ~best.update(rows, current, confirmed(network, best, rows, current, logits))
        rows, goals, current, before, gradients = (state[stay] for state in (rows, goals, current, before, gradients))
        if len(rows) == 0:
            return
        originals = best.originals[rows]
        stepped = signed_step(current, gradients, originals, epsilon, epsilon * (1 + math.cos(math.pi * step / steps)))
        if step:
            share = _MOMENTUM * (1 - step / steps)  # a constant share would keep late, small steps from settling
            mixed = current + (1 - share) * (stepped - current) + share * (current - before)
            stepped = torch.minimum(torch.maximum(mixed, originals - epsilon), originals + epsilon).clamp_(0, 1)
        before, current = current, stepped
    best.update(rows, current, network.logits(current))
