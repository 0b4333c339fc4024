"""The checks at every public door: bad input gets one sentence that names the argument, what it is and what was expected."""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import torch

__all__ = ["NotFiniteError", "any_pixels", "check_bound", "check_images", "check_label_form", "check_labels", "check_model",
           "check_setting", "warn"]


_OURS = (str(Path(__file__).parent) + os.sep, contextlib.__file__)
_beyond = ContextVar("images may lie outside [0, 1]", default=False)


class NotFiniteError(ValueError):
    """Features that are infinite or NaN: bad input from outside, in a training a loss that diverged."""


@contextmanager
def any_pixels() -> Iterator[None]:
    """Let `check_images` pass images outside [0, 1] in this thread: finite differences leave it by design."""
    token = _beyond.set(True)
    try:
        yield
    finally:
        _beyond.reset(token)


def check_images(images: object, name: str = "images", *, values: bool = True) -> None:
    """Require float images (N, C, H, W), N >= 1, finite and in [0, 1]; `values=False` skips the pass over the pixels.

    Raises ValueError that names the argument, its shape, type or range, and what was expected.
    """
    if not isinstance(images, torch.Tensor):
        raise ValueError(f"{name} must be a torch.Tensor, got {type(images).__name__}")
    if images.ndim != 4:
        raise ValueError(f"{name} must have shape (N, C, H, W), got {tuple(images.shape)}")
    if not images.is_floating_point():
        raise ValueError(f"{name} must be floating point in [0, 1], got {images.dtype}; divide 8-bit images by 255")
    if images.numel() == 0:
        raise ValueError(f"{name} is an empty batch of shape {tuple(images.shape)}; at least one image of at least one pixel is needed")
    if values and not _beyond.get():
        low, high = (bound.item() for bound in images.detach().aminmax())
        if not (low >= 0 and high <= 1):  # written so that NaN, which compares false, fails it
            held = "holds NaN" if low != low or high != high else f"ranges over [{low:.9g}, {high:.9g}]"
            raise ValueError(f"{name} must lie in [0, 1], but {held}" + "; .clamp(0, 1) takes what rounding left outside"
                             * (-1e-5 < low and high < 1 + 1e-5))


def check_model(model: object, name: str = "model") -> None:
    """Require a torch.nn.Module: a bare function has no mode and no parameters to leave as they were. Raises ValueError."""
    if not isinstance(model, torch.nn.Module):
        raise ValueError(f"{name} must be a torch.nn.Module, got {type(model).__name__}; put a function into a module's forward")
    if isinstance(model, torch.nn.parallel.DistributedDataParallel):  # its processes would wait for each other at each call
        raise ValueError(f"{name} is a DistributedDataParallel, whose processes must call it alike, and attacks call it as images need it; "
                         "pass its .module, with the images of this process")


def check_labels(labels: torch.Tensor, num_classes: int, name: str = "labels", *, count: int | None = None) -> None:
    """Require int64 labels (N,) in [0, num_classes); `count` is the N expected.

    Raises ValueError that names the argument, its shape, type or range, and what was expected.
    """
    check_label_form(labels, name, count=count)
    if len(labels) and not (0 <= int(labels.min()) and int(labels.max()) < num_classes):
        raise ValueError(f"{name} must lie in [0, {num_classes - 1}], but range over [{int(labels.min())}, {int(labels.max())}]")


def check_label_form(labels: object, name: str = "labels", *, count: int | None = None) -> None:
    """Require int64 labels (N,), whatever their values: shapes and types cost no look at the device. Raises ValueError."""
    if not isinstance(labels, torch.Tensor):
        raise ValueError(f"{name} must be a torch.Tensor, got {type(labels).__name__}")
    if labels.ndim != 1:
        raise ValueError(f"{name} must have shape (N,), got {tuple(labels.shape)}")
    if labels.dtype != torch.int64:
        raise ValueError(f"{name} must be int64, got {labels.dtype}")
    if count is not None and len(labels) != count:
        raise ValueError(f"{name} must hold {count} entries, one per image, got {len(labels)}")


def check_setting(name: str, value: object, low: float, kind: type[Any] = float) -> Any:
    """Return a setting as a plain `kind`, float or int; NumPy's scalars are taken as the numbers they are.

    Raises ValueError where it is no finite number of at least `low`, or no integer where one is needed.
    """
    if kind is int and (isinstance(value, bool) or not isinstance(value, Integral)):
        raise ValueError(f"{name} must be an integer of at least {low}, got {value!r}")
    if isinstance(value, bool) or not isinstance(value, Real) or not (low <= float(value) < float("inf")):
        raise ValueError(f"{name} must be a finite number of at least {low}, got {value!r}")
    return kind(value)


def check_bound(epsilon: object) -> float:
    """Return a bound on distortions as a plain float, where infinity is none. Raises ValueError for NaN, negative or no number."""
    return float("inf") if epsilon == float("inf") else check_setting("epsilon", epsilon, 0)


def warn(message: str, category: type[Warning]) -> None:
    """Warn at the line outside this package that led here, so that a caller sees the line of their own."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OURS):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
