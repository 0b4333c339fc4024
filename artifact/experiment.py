"""Identities (what a result depends on) and where results lie, without importing torch; receipts themselves are artifact.receipts.

A result is found by its identity: a hash of every setting that it depends on, the identities of the models it used included.
The identity is part of the receipt's file name, so "is it done?" is "does the file exist?", a changed setting makes new work
exactly downstream of itself, and setting it back finds the earlier receipt again. No clock or file time takes part. What a notebook
claims is of its cells too: its receipt says of which, and one of other cells is made again, from the evaluations that are there (but for
a training's own notebook, which needs the weights).
"""

import json
import os
from functools import lru_cache
from pathlib import Path

from artifact.loading import load_profile  # noqa: F401  (for those who import experiment)
from artifact.profiles import CLASSES, ROOT, Profile  # noqa: F401
from artifact.receipts import identity, pack, read_receipt, unpack, write_receipt  # noqa: F401  (likewise)
from artifact.sections import Training

LATER = ("test_images", "widths", "stem", "optimizer", "other_rate", "schedule", "warm_up", "fill", "average", "half", "noise", "guard")


def model_settings(profile: Profile, model: str) -> dict:
    """Everything that the weights of a model depend on."""
    spec = profile.models[model]
    training = profile.training[spec.training].model_dump(exclude={"rate"})
    # A setting that came later is left out where it has the value that all models had before there was a choice: their receipts are
    # still found.
    training = {key: value for key, value in training.items() if key not in LATER or value != Training.model_fields[key].default}
    if spec.adversarial is None:
        training = {key: value for key, value in training.items() if key not in ("epsilon", "step_size", "steps", "noise", "guard")}
    return {**spec.model_dump(exclude={"training"}, exclude_none=True), "network": training, "precision": profile.precision,
            "threads": profile.threads, "profile_seed": profile.seed}


def model_identity(profile: Profile, model: str) -> str:
    return identity("model", **model_settings(profile, model))


def _folder(variable: str, usual: str) -> Path:
    # Absolute, because jobs run in the project's folder; a variable set to nothing is not set.
    return Path(os.path.abspath(os.path.expanduser(os.environ.get(variable) or ROOT / usual)))


def pin_folders() -> None:
    """Make the folders' variables absolute for all processes that are started from here."""
    for variable in ("MMC_RESULTS", "MMC_CHECKPOINTS", "MMC_DATA"):
        if os.environ.get(variable):
            os.environ[variable] = str(_folder(variable, ""))


def results_folder(profile: Profile) -> Path:
    return _folder("MMC_RESULTS", "results") / profile.name


def model_receipt_path(profile: Profile, model: str) -> Path:
    return results_folder(profile) / "models" / f"{model}-{model_identity(profile, model)}.json"


def notebook_code(name: str) -> str:
    """A hash of a notebook's code cells but for its parameters, "" where there is none of that name: texts and outputs do not count."""
    path = ROOT / "notebooks" / f"{name}.ipynb"
    return _code(path, path.stat().st_mtime_ns) if path.exists() else ""


@lru_cache
def _code(path: Path, changed: int) -> str:
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    return identity("code", cells=["".join(cell["source"]) for cell in cells if "parameters" not in cell["metadata"].get("tags", [])])


def checkpoint_folder(profile: Profile, model: str) -> Path:
    return _folder("MMC_CHECKPOINTS", "checkpoints") / profile.name / f"{model}-{model_identity(profile, model)}"
