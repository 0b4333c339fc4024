"""Images that came from anywhere, another library's attack or a file, as an attack of this package returns them."""

from torch import Tensor, nn

from mmclib.attacks.door import begin
from mmclib.attacks.ledger import AttackResult
from mmclib.checks import check_images


def judged(model: nn.Module, images: Tensor, labels: Tensor, crafted: Tensor, *, targets: Tensor | None = None,
           norm: str = "linf") -> AttackResult:
    """Judge images that were crafted elsewhere by a plain pass; what an attack of one's own returns to `mmclib.evaluation`.

    `images`, the originals, and `crafted` (N, C, H, W) in [0, 1], labels and targets int64 (N,); the distortion is measured in `norm`,
    "linf" or "l2". An image that is no success counts as the closer of the two to one. No queries or gradients are counted but the pass
    itself. Raises ValueError for bad input.
    """
    if norm not in ("linf", "l2"):
        raise ValueError(f"norm must be 'linf' or 'l2', got {norm!r}")
    check_images(crafted, "crafted")
    if crafted.shape != images.shape:
        raise ValueError(f"crafted must have the shape of images, {tuple(images.shape)}, got {tuple(crafted.shape)}")
    with begin(model, images, labels, targets=targets) as (frozen, ledger, _):
        for tried in (ledger.originals, crafted.detach().to(ledger.originals)):
            ledger.update(ledger.everyone, tried, frozen.logits(tried))
        return ledger.result(norm, name="judged")
