"""What is refused before the first step of a training, each by one sentence that says what to do."""

from pathlib import Path

import torch

from mmclib.attacks.frozen import is_of_layout
from mmclib.checks import check_labels
from mmclib.models import Classifier
from mmclib.training.recipe import Recipe


def check(model, train, test, recipe, precision, compile, stop, folder):
    """Raise ValueError for an argument of fit() that it cannot train with."""
    if not isinstance(model, Classifier):
        raise ValueError(f"model must be an mmclib Classifier (a backbone and a head), got {type(model).__name__}")
    if not isinstance(recipe, Recipe):
        raise ValueError(f"recipe must be an mmclib Recipe, got {type(recipe).__name__}")
    classes = getattr(model.head, "num_classes", None)
    if not isinstance(classes, int) or classes < 1:
        raise ValueError(f"the model's head must have num_classes, the number of its classes, got {classes!r}")
    if kinds := {str(tensor.dtype) for tensor in model.parameters() if tensor.dtype != torch.float32}:
        raise ValueError(f"the model's parameters must be float32, got {', '.join(sorted(kinds))}; pass model.float()")
    if folder is not None and Path(folder).exists() and not Path(folder).is_dir():
        raise ValueError(f"folder must be a folder, but {folder} is a file")
    if precision not in ("float32", "bfloat16", "auto"):
        raise ValueError(f"precision must be 'float32', 'bfloat16' or 'auto', got {precision!r}")
    if compile not in ("auto", True, False):
        raise ValueError(f"compile must be 'auto', True or False, got {compile!r}")
    if stop is not None and folder is None:
        raise ValueError("stop needs a folder: a training that stops early would be lost without one")
    for name, (images, labels) in (("train", train), ("test", test)):
        if not isinstance(images, torch.Tensor) or images.dtype != torch.uint8 or images.ndim != 4 or len(images) == 0:
            got = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, torch.Tensor) else type(images).__name__
            raise ValueError(f"{name} images must be uint8 (N, C, H, W) with N >= 1, got {got}")
        check_labels(labels, model.head.num_classes, f"{name} labels", count=len(images))
        model.check_shape(images, f"{name} images")
    if train[0].shape[1:] != test[0].shape[1:]:
        raise ValueError(f"train and test images must be of one shape, got {tuple(train[0].shape[1:])} and {tuple(test[0].shape[1:])}")


def try_backbone(model, images, alone):
    """Ask the backbone for one image's features as a step will. Raises ValueError where it cannot work channels-last, or cannot take a
    last batch of one image."""
    training, pixels = model.training, (images[:1].float() / 255).contiguous(memory_format=torch.channels_last)
    try:
        if alone:
            _try_alone(model, pixels)
        with torch.no_grad():
            model.eval().features(pixels)
    except RuntimeError as error:
        if not is_of_layout(error):
            raise
        raise ValueError("the backbone calls .view on activations, which lie channels-last in training; use .flatten(1) or .reshape "
                         "there") from error
    finally:
        model.train(training)


@torch.no_grad()
def _try_alone(model, pixels):
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        with torch.random.fork_rng([pixels.device] if pixels.is_cuda else []):
            model.train().features(pixels)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ValueError("the last batch of an epoch would be one image, of which batch normalisation knows no statistics; take another "
                         "batch_size, or leave one image out") from error
    finally:
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
