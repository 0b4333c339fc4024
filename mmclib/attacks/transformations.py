"""General transformations (Sec. 4, Table 2-III): Gaussian noise and rotation, one random draw or the worst of several."""

import math

import torch
import torch.nn.functional as F

from mmclib import counter
from mmclib.attacks.network import attacked
from mmclib.attacks.result import AttackResult, Best, check_attack


def gaussian_noise(model, images, labels, *, targets=None, objective="cross_entropy", seed=0, sigma=0.05, draws=1) -> AttackResult:
    """Add Gaussian noise of standard deviation `sigma`, clipped to [0, 1]; with draws > 1 the worst draw per image counts.

    Images (N, C, H, W) in [0, 1]. `objective` is accepted for uniformity: the draw with the largest margin is the worst.
    Distortion is the l_2 norm of the change. The mean over draws is the mean accuracy over seeds. Raises ValueError for bad
    input.
    """
    check_attack(images, labels, targets, sigma=(sigma, 0, float), draws=(draws, 1, int))

    def draw(rows, seeds, number):
        noise = counter.normal(seeds, images.shape[1:], "noise", number).to(images.dtype)
        return (images[rows] + sigma * noise).clamp_(0, 1), None

    return _worst(model, images, labels, targets, seed, draws, draw, objective, "l2", "gaussian_noise")


def rotation(model, images, labels, *, targets=None, objective="cross_entropy", seed=0, degrees=30.0, draws=1) -> AttackResult:
    """Rotate by an angle uniform on ±`degrees`, bilinear with edge fill; with draws > 1 the worst angle per image counts.

    Images (N, C, H, W) in [0, 1]. `objective` is accepted for uniformity. Distortion is the absolute angle in degrees.
    Raises ValueError for bad input. Source: Engstrom et al., 2019.
    """
    check_attack(images, labels, targets, degrees=(degrees, 0, float), draws=(draws, 1, int))

    def draw(rows, seeds, number):
        angles = degrees * counter.uniform(seeds, (), "angle", number)
        return rotate(images[rows], angles), angles.abs()

    return _worst(model, images, labels, targets, seed, draws, draw, objective, "degrees", "rotation")


def rotate(images, degrees):
    """Rotate each image (N, C, H, W) about its centre, counter-clockwise, by its angle in degrees (N,); bilinear, edges
    repeated."""
    angles = degrees.double() * (math.pi / 180)
    height, width = images.shape[-2:]
    rows, columns = torch.meshgrid(
        torch.arange(height, device=images.device) - (height - 1) / 2, torch.arange(width, device=images.device) - (width - 1) / 2,
        indexing="ij",
    )
    cos, sin = angles.cos()[:, None, None], angles.sin()[:, None, None]
    # the output pixel (row, column) shows what lay at its place before the turn; rows count downwards
    across, down = cos * columns - sin * rows, sin * columns + cos * rows
    grid = torch.stack((across * 2 / width, down * 2 / height), -1).to(images.dtype)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False).clamp_(0, 1)


def _worst(model, images, labels, targets, seed, draws, draw, objective, norm, name):
    """Keep each image's worst draw; images fooled by one draw need no other."""
    seeds = counter.image_seeds(seed, len(images), images.device)
    best = Best(images, labels, targets)
    measure = torch.zeros(len(images), device=images.device)
    with attacked(model, objective, targets) as network, torch.no_grad():
        for number in range(draws):
            rows = (best.rank < 2).nonzero().squeeze(1)
            if len(rows) == 0:
                break
            current, measured = draw(rows, seeds[rows], number)
            before = best.rank[rows], best.margin[rows]
            best.update(rows, current, network.logits(current))
            if measured is not None:
                taken = (best.rank[rows] != before[0]) | (best.margin[rows] != before[1])
                measure[rows[taken]] = measured[taken]
    return best.result(norm, distortion=measure if norm == "degrees" else None, name=name)
