"""Max-Mahalanobis center loss (Pang et al., ICLR 2020): losses, centers, models, attacks and their evaluation in PyTorch."""

from importlib import import_module

__version__ = "0.1.0"
_MODULES = (
    "attacks", "centers", "checkpoints", "checks", "data", "distances", "evaluation", "intervals", "losses", "margins", "models",
    "optimality", "seeds", "training", "zoo",
)


def __getattr__(name):
    # Submodules load on first use: who needs an interval or a seed does not wait for torch.
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name == "load_released":
        return import_module(f"{__name__}.zoo").load_released
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return [*globals(), *_MODULES, "load_released"]
