"""Iterative l_inf attacks: PGD (Madry et al., 2018) and MIM (Dong et al., 2018) in one loop that drops images once they are
fooled."""

import torch

from mmclib import counter
from mmclib.attacks.network import attacked
from mmclib.attacks.result import AttackResult, Best, check_attack


def signed_step(images, gradients, originals, epsilon, step_size):
    """Step along the gradient's sign, then project onto the l_inf ball around the originals and onto [0, 1]; all (N, C, H, W)."""
    moved = torch.add(images, gradients.sign(), alpha=step_size)
    return torch.minimum(torch.maximum(moved, originals - epsilon), originals + epsilon).clamp_(0, 1)


def random_start(originals, seeds, epsilon, restart=0):
    """Draw a uniform point of the l_inf ball around each image, clipped to [0, 1]."""
    noise = counter.uniform(seeds, originals.shape[1:], "start", restart).to(originals.dtype)
    return (originals + epsilon * noise).clamp_(0, 1)


def pgd(model, images, labels, *, targets=None, objective="cross_entropy", seed=0, epsilon=8 / 255, step_size=2 / 255, steps=10,
        restarts=1, start="random", stop_early=True, precision="float32") -> AttackResult:
    """Attack by projected gradient ascent on the objective within an l_inf ball; the best iterate by margin is kept.

    Images (N, C, H, W) in [0, 1], labels and targets int64 (N,), seed an integer or int64 (N,). Fooled images leave the batch,
    restarts try the survivors only. `start` is "random" or "clean". With stop_early=False every image takes every step and the
    last iterate is returned, as transfer attacks want it. Raises ValueError for bad input. Source: Madry et al., 2018;
    objectives: Appendix B.4.
    """
    return _ascend(model, images, labels, targets, objective, seed, epsilon, step_size, steps, restarts, start, stop_early, precision, None)


def mim(model, images, labels, *, targets=None, objective="cross_entropy", seed=0, epsilon=8 / 255, step_size=2 / 255, steps=10,
        restarts=1, start="clean", stop_early=True, precision="float32", decay=1.0) -> AttackResult:
    """Attack like `pgd`, stepping along the sign of a momentum over gradients divided by their mean absolute value.

    `decay` weighs the past (1.0 in the paper). A gradient of exactly zero adds nothing, where the bare formula would divide by
    zero. Raises ValueError for bad input. Source: Dong et al., 2018.
    """
    check_attack(images, labels, targets, decay=(decay, 0, float))
    return _ascend(
        model, images, labels, targets, objective, seed, epsilon, step_size, steps, restarts, start, stop_early, precision, decay
    )


def _ascend(model, images, labels, targets, objective, seed, epsilon, step_size, steps, restarts, start, stop_early, precision, decay):
    check_attack(images, labels, targets, epsilon=(epsilon, 0, float), step_size=(step_size, 0, float), steps=(steps, 1, int),
                 restarts=(restarts, 1, int))
    if start not in ("random", "clean"):
        raise ValueError(f"start must be 'random' or 'clean', got {start!r}")
    if restarts > 1 and not (start == "random" and stop_early):
        raise ValueError(f"restarts={restarts} needs start='random' and stop_early=True; without them every restart is the same or wasted")
    seeds = counter.image_seeds(seed, len(images), images.device)
    best = Best(images, labels, targets)
    with attacked(model, objective, targets, precision) as network, torch.no_grad():
        everyone = torch.arange(len(images), device=images.device)
        if start == "random" and stop_early:
            best.update(everyone, images, network.logits(images))  # those misclassified as they are need no attack
        for restart in range(restarts):
            rows = (best.rank < 2).nonzero().squeeze(1) if stop_early else everyone
            if len(rows) == 0:
                break
            current = random_start(images[rows], seeds[rows], epsilon, restart) if start == "random" else images.clone()
            _climb(network, best, rows, current, epsilon, step_size, steps, decay, stop_early)
    return best.result("linf", name="pgd" if decay is None else "mim")


def _climb(network, best, rows, current, epsilon, step_size, steps, decay, stop_early):
    """Run one restart on the images numbered `rows`, booking every iterate in `best`."""
    momentum = None if decay is None else torch.zeros_like(current)
    for step in range(steps):
        targets = None if best.targets is None else best.targets[rows]
        logits, _, gradients = network.gradients(current, best.labels[rows], targets)
        zero = best.count_gradients(rows, gradients)
        if stop_early:
            success = best.update(rows, current, confirmed(network, best, rows, current, logits))
            stay = ~success
            if decay is None:  # a zero gradient moves nothing, now or in any later step: booked to the end and dropped
                stuck = zero & stay
                best.gradients[rows[stuck]] += steps - 1 - step
                best.vanished[rows[stuck]] += steps - 1 - step
                stay &= ~stuck
            rows, current, gradients = rows[stay], current[stay], gradients[stay]
            momentum = momentum if decay is None else momentum[stay]
            if len(rows) == 0:
                return
        else:
            best.queries[rows] += 1
        if decay is not None:
            mean = gradients.flatten(1).abs().mean(1).clamp_(min=1e-12)[:, None, None, None]
            momentum = decay * momentum + gradients / mean
            gradients = momentum
        current = signed_step(current, gradients, best.originals[rows], epsilon, step_size)
    logits = network.logits(current)
    if stop_early:
        best.update(rows, current, logits)
    else:
        best.queries[rows] += 1
        best.replace(rows, current, *best.judge(rows, logits))


def confirmed(network, best, rows, current, logits):
    """Recompute in float32 the logits of tries that look like a success in a lower precision."""
    if network.precision != "float32":
        hit = best.judge(rows, logits)[0] > 0
        if bool(hit.any()):
            logits = logits.float()
            logits[hit] = network.logits(current[hit])
            best.queries[rows[hit]] += 1
    return logits
