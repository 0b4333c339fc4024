"""General transformations (Sec. 4, Table 2-III): Gaussian noise and rotation, one random draw or the worst of several."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmclib import counter
from mmclib.attacks.door import begin
from mmclib.attacks.ledger import AttackResult
from mmclib.attacks.objectives import Objective
from mmclib.checks import check_setting


def gaussian_noise(model: nn.Module, images: Tensor, labels: Tensor, *, targets: Tensor | None = None, objective: Objective = "margin",
                   seed: int | Tensor = 0, sigma: float = 0.05, draws: int = 1) -> AttackResult:
    """Add Gaussian noise of standard deviation `sigma`, clipped to [0, 1]; with draws > 1 the worst draw per image counts.

    Images (N, C, H, W) in [0, 1]. `objective` is accepted for uniformity: the draw with the largest margin is the worst.
    Distortion is the l_2 norm of the change. The mean over draws is the mean accuracy over seeds. Raises ValueError for bad
    input.
    """
    sigma, draws = check_setting("sigma", sigma, 0), check_setting("draws", draws, 1, int)

    def draw(originals, seeds, number):
        noise = counter.normal(seeds, originals.shape[1:], "noise", number).to(originals.dtype)
        return (originals + sigma * noise).clamp_(0, 1), None

    with begin(model, images, labels, targets=targets, objective=objective, seed=seed) as (frozen, ledger, seeds):
        _worst(frozen, ledger, seeds, draws, draw)
        return ledger.result("l2", name="gaussian_noise")


def rotation(model: nn.Module, images: Tensor, labels: Tensor, *, targets: Tensor | None = None, objective: Objective = "margin",
             seed: int | Tensor = 0, degrees: float = 30.0, draws: int = 1) -> AttackResult:
    """Rotate by an angle uniform on ±`degrees`, bilinear with edge fill; with draws > 1 the worst angle per image counts.

    Images (N, C, H, W) in [0, 1]. `objective` is accepted for uniformity. Distortion is the absolute angle in degrees.
    Raises ValueError for bad input. Source: Engstrom et al., 2019.
    """
    degrees, draws = check_setting("degrees", degrees, 0), check_setting("draws", draws, 1, int)

    def draw(originals, seeds, number):
        angles = degrees * counter.uniform(seeds, (), "angle", number)
        return rotate(originals, angles), angles.abs()

    with begin(model, images, labels, targets=targets, objective=objective, seed=seed) as (frozen, ledger, seeds):
        angles = _worst(frozen, ledger, seeds, draws, draw)
        return ledger.result("degrees", distortion=angles, name="rotation")


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
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


def _worst(frozen, ledger, seeds, draws, draw):
    """Keep each image's worst draw, and return what `draw` measured of it; images fooled by one draw need no other."""
    measure = torch.zeros_like(ledger.margin)
    for number in range(draws):
        rows = ledger.unsolved()
        if len(rows) == 0:
            break
        current, measured = draw(ledger.originals[rows], seeds[rows], number)
        before = ledger.rank[rows], ledger.margin[rows]
        ledger.update(rows, current, frozen.logits(current))
        if measured is not None:
            taken = (ledger.rank[rows] != before[0]) | (ledger.margin[rows] != before[1])
            measure[rows[taken]] = measured[taken].to(measure.dtype)
    return measure
