"""Identities (what a result depends on), where results lie, and receipts (what came out), without importing torch.

A result is found by its identity: a hash of every setting that it depends on, the identities of the models it used included.
The identity is part of the receipt's file name, so "is it done?" is "does the file exist?", a changed setting makes new work
exactly downstream of itself, and setting it back finds the earlier receipt again. No clock or file time takes part.
"""

import hashlib
import json
import os
from pathlib import Path

import numpy as np

from artifact.profiles import CLASSES, ROOT, Profile, load_profile  # noqa: F401  (CLASSES and load_profile for those who import experiment)
from artifact.sections import Training

# Part of every identity: raise it when a change of the code changes numbers, and all receipts become work to do again.
REVISION = 1
LATER = ("test_images", "widths", "stem", "optimizer", "other_rate", "schedule", "warm_up", "fill", "average", "half", "noise", "guard")


class TimeBudgetEnded(Exception):
    """Training stopped on time with its state saved; the same call goes on."""


def identity(kind: str, **settings) -> str:
    """Hash what a result depends on to 12 hexadecimal digits."""
    text = json.dumps({"revision": REVISION, "kind": kind, **settings}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


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


def results_folder(profile: Profile) -> Path:
    return Path(os.environ.get("MMC_RESULTS", ROOT / "results")) / profile.name


def model_receipt_path(profile: Profile, model: str) -> Path:
    return results_folder(profile) / "models" / f"{model}-{model_identity(profile, model)}.json"


def checkpoint_folder(profile: Profile, model: str) -> Path:
    base = Path(os.environ.get("MMC_CHECKPOINTS", ROOT / "checkpoints"))
    return base / profile.name / f"{model}-{model_identity(profile, model)}"


def write_receipt(path: Path, receipt: dict) -> None:
    """Write JSON so that it is there whole or not at all, also after a power cut."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with open(partial, "w") as file:
        json.dump(receipt, file, indent=1, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def read_receipt(path: Path) -> dict:
    """Read a receipt; a damaged one raises ValueError that says what to do."""
    try:
        return json.loads(Path(path).read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged ({error}); delete it and run the same command again") from None


def pack(flags) -> str:
    """Booleans (N,) as hexadecimal text, most significant bit first."""
    return np.packbits(np.asarray(flags.cpu() if hasattr(flags, 'cpu') else flags)).tobytes().hex()


def unpack(text: str, count: int) -> np.ndarray:
    """The booleans (count,) behind `pack`."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))[:count].astype(bool)
