"""The checks at every public door: bad input gets one sentence that names the argument, what it is and what was expected."""

import torch


def check_images(images, name="images", *, values=True) -> None:
    """Require float images (N, C, H, W), N >= 1, finite and in [0, 1]; `values=False` skips the pass over the pixels.

    Raises ValueError that names the argument, its shape, type or range, and what was expected.
    """
    if not isinstance(images, torch.Tensor):
        raise ValueError(f"{name} must be a torch.Tensor, got {type(images).__name__}")
    if images.ndim != 4:
        raise ValueError(f"{name} must have shape (N, C, H, W), got {tuple(images.shape)}")
    if not images.is_floating_point():
        raise ValueError(f"{name} must be floating point in [0, 1], got {images.dtype}; divide 8-bit images by 255")
    if len(images) == 0:
        raise ValueError(f"{name} is an empty batch of shape {tuple(images.shape)}; at least one image is needed")
    if values:
        low, high = (bound.item() for bound in images.detach().aminmax())
        if not (low >= 0 and high <= 1):  # written so that NaN, which compares false, fails it
            held = "holds NaN" if low != low or high != high else f"ranges over [{low:.4g}, {high:.4g}]"
            raise ValueError(f"{name} must lie in [0, 1], but {held}")


def check_labels(labels, num_classes, name="labels", *, count=None) -> None:
    """Require int64 labels (N,) in [0, num_classes); `count` is the N expected.

    Raises ValueError that names the argument, its shape, type or range, and what was expected.
    """
    if not isinstance(labels, torch.Tensor):
        raise ValueError(f"{name} must be a torch.Tensor, got {type(labels).__name__}")
    if labels.ndim != 1:
        raise ValueError(f"{name} must have shape (N,), got {tuple(labels.shape)}")
    if labels.dtype != torch.int64:
        raise ValueError(f"{name} must be int64, got {labels.dtype}")
    if count is not None and len(labels) != count:
        raise ValueError(f"{name} must hold {count} entries, one per image, got {len(labels)}")
    if len(labels) and not (0 <= int(labels.min()) and int(labels.max()) < num_classes):
        raise ValueError(f"{name} must lie in [0, {num_classes - 1}], but range over [{int(labels.min())}, {int(labels.max())}]")
