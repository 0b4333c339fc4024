"""Training batches from images that lie on the device as uint8: order, shifts and flips of an epoch are drawn at once, on the CPU."""

from dataclasses import dataclass

import torch

from mmclib.modes import on_the_cpu
from mmclib.seeds import derive


@dataclass(frozen=True)
class EpochPlan:
    """One epoch's draws, by position in the epoch: image numbers (N,), source rows (N, H) and source columns (N, W), int64."""

    order: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor


@on_the_cpu
def epoch_plan(count, height, width, *, seed, epoch, shift=0.1, flip=True, fill="nearest", device="cpu") -> EpochPlan:
    """Draw an epoch's permutation, whole-pixel shifts (uniform up to `shift` of each side) and horizontal flips, as a Recipe says.

    It depends on (seed, epoch) only, and is drawn on the CPU: the same on every device, and nothing to save for a resume.
    """
    generator = torch.Generator().manual_seed(derive(seed, "epoch", epoch))
    order = torch.randperm(count, generator=generator)

    def sources(size):
        most = round(shift * size)
        offsets = torch.randint(-most, most + 1, (count, 1), generator=generator)
        place = torch.arange(size) - offsets
        if fill == "reflect":
            period = max(1, 2 * (size - 1))
            place = place % period
            return torch.minimum(place, period - place)
        return place.clamp_(0, size - 1)

    rows, columns = sources(height), sources(width)
    if flip:
        if flip == "alternating":  # the coins are the images', and turn over every epoch: in two epochs each is seen both ways
            coins = _heads(count, torch.Generator().manual_seed(derive(seed, "flips")))
            flipped = coins[order] ^ bool(epoch % 2)
        else:
            flipped = _heads(count, generator)
        columns[flipped] = columns[flipped].flip(1)
    return EpochPlan(order.to(device), rows.to(device), columns.to(device))


def _heads(count, generator):
    return torch.rand(count, generator=generator, dtype=torch.float32) < 0.5  # in another type it would be other coins


def batch(images, labels, plan, start, stop):
    """Return float32 images (n, C, H, W) in [0, 1] and labels (n,) of the epoch's positions start ... stop - 1, by one gather."""
    chosen = plan.order[start:stop]
    # Indexing around the channels leaves them last in memory, which is the layout that convolutions like.
    pixels = images[chosen[:, None, None], :, plan.rows[start:stop, :, None], plan.columns[start:stop, None, :]]
    return pixels.permute(0, 3, 1, 2).float() / 255, labels[chosen]
