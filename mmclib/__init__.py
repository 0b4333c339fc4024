"""Max-Mahalanobis center loss (Pang et al., ICLR 2020): losses, centers, models, attacks and their evaluation in PyTorch."""

from importlib import import_module

__version__ = "0.1.0"
_MODULES = (
    "attacks", "centers", "checks", "data", "density", "evaluation", "experiment", "losses", "models", "profiles", "report",
    "seeds", "training",
)


def __getattr__(name):
    # Submodules load on first use: a command that only reads profiles or receipts does not wait for torch.
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return [*globals(), *_MODULES]
