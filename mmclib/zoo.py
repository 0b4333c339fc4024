"""Classifiers from plain settings, and the trained ones that come with the repository: no profile, data or receipt is needed."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmclib import checkpoints, data, losses, models

__all__ = ["FOLDER", "PRESET", "assemble", "load_released", "released", "released_path"]

FOLDER = Path(__file__).resolve().parent.parent / "released"
PRESET = ("mmlda", "mmc", "mmc-rand", "mmc-hm", "emc")  # losses whose centers are not trained but given


def assemble(network: Mapping, loss: Mapping, num_classes: int, centers: Tensor | None, mean: Tensor) -> models.Classifier:
    """An untrained network with its loss as the head, drawn from torch's global generator.

    `network` is a mapping with "architecture" ("resnet", "small_convnet" or "airbench") and "feature_dim", a resnet's also with "blocks"
    and "version", an airbench's with "widths" and "stem"; `loss` one with "loss" (a name: sce, center, lgm, or of `PRESET`) and what that
    loss takes of "scale", "alpha" and "form".
    `centers` are the preset ones (num_classes, feature_dim), None for other losses; `mean` is the per-pixel training mean (C, H, W).
    Further keys are not looked at. Raises ValueError for an unknown architecture or loss, and for what one of them misses.
    """
    dim, channels = _setting(network, "feature_dim"), len(mean)
    norm = 1.0 if centers is None else centers.norm(dim=1).mean().item()
    scale = round(norm, 3) or norm
    backbones = {
        "resnet": lambda: models.resnet(_setting(network, "blocks"), _setting(network, "version"), channels, dim),
        "small_convnet": lambda: models.small_convnet(channels, dim),
        # Features begin in units of the norm of the centers that they are drawn to: training is then the same for every C_MM.
        "airbench": lambda: models.airbench(_setting(network, "widths"), _setting(network, "stem"), channels, dim, scale),
    }
    given: Any = centers  # None for heads that take none, which is seen to before any is made
    heads = {
        "sce": lambda: losses.SoftmaxCrossEntropy(num_classes, dim),
        "center": lambda: losses.CenterLoss(num_classes, dim),
        "lgm": lambda: losses.LargeMarginGaussianMixture(num_classes, dim),
        "mmlda": lambda: losses.MaxMahalanobisLDA(given, scale=_setting(loss, "scale")),
        "emc": lambda: losses.ElasticMaxMahalanobisCenter(given, alpha=_setting(loss, "alpha"), scale=_setting(loss, "scale")),
        **dict.fromkeys(("mmc", "mmc-rand", "mmc-hm"),  # one loss around other centers
                        lambda: losses.MaxMahalanobisCenter(given, loss.get("form") or "squared", _setting(loss, "scale"))),
    }
    architecture, name = _known(network, "architecture", backbones), _known(loss, "loss", heads)
    if (centers is None) == (name in PRESET):
        raise ValueError(f"loss {name!r} {'needs preset centers' if centers is None else 'takes no preset centers'}")
    if centers is not None and tuple(centers.shape) != (num_classes, dim):
        raise ValueError(f"centers must have shape (num_classes, feature_dim) = {(num_classes, dim)}, got {tuple(centers.shape)}")
    backbone = backbones[architecture]()  # before the head: the order of the draws
    return models.Classifier(backbone, heads[name](), mean=mean)


def released() -> list[str]:
    """The released models, by name."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def released_path(name: str) -> Path:
    """Return the file of a released model. Raises ValueError for an unknown name, naming those there are and where they are."""
    path = FOLDER / f"{name}.safetensors"
    if not path.exists():
        if not FOLDER.is_dir():
            raise ValueError(f"released model {name!r} is in a clone of the repository, not in the installed package; load it in a clone")
        raise ValueError(f"there is no released model {name!r}; known: {', '.join(released()) or 'none'}")
    return path


def load_released(name: str) -> models.Classifier:
    """Return a trained model that comes with the repository (released/), in float32 and evaluation mode, on the CPU.

    Nothing is fetched. Raises ValueError for an unknown name, naming those there are, and for a file whose sha256 is not the one in its
    card.
    """
    path = released_path(name)
    card = path.with_suffix(".json")
    try:
        told = json.loads(card.read_bytes())["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"the card of released model {name!r}, {card}, is missing or damaged ({error}); fetch it again") from None
    if hashlib.sha256(path.read_bytes()).hexdigest() != told:
        raise ValueError(f"released model {name!r} is damaged: its sha256 is not the one in {card.name}; fetch it again")
    try:
        state, metadata = checkpoints.load_model_state(path)
        state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
        network, loss = metadata["network"], metadata["model"]
        centers = state.get("head.centers") if loss["loss"] in PRESET else None
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):  # initial weights are drawn and replaced: the caller's draws are not
            model = assemble(network, loss, data.NUM_CLASSES[network["dataset"]], centers, state["mean"])
        model.float().load_state_dict(state)  # whatever torch's default type is
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path} is no released model of this package ({' '.join(str(error).split())[:200]}); fetch it again") from None
    if not all(value.isfinite().all() for value in state.values()):
        raise ValueError(f"{path} holds weights that are infinite or NaN; fetch it again")
    return model.eval()


def _setting(settings, name):
    if settings.get(name) is None:
        raise ValueError(f"the settings lack {name!r}: {dict(settings)}")
    return settings[name]


def _known(settings, name, choices) -> str:
    chosen = _setting(settings, name)
    if chosen not in choices:
        raise ValueError(f"unknown {name} {chosen!r}; known: {', '.join(choices)}")
    return chosen
