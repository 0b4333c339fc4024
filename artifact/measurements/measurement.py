"""One measurement of a model, as a specification that can be looked up or computed, and what all rooms of measurements need."""

import importlib
from dataclasses import dataclass, field
from pathlib import Path

from artifact.experiment import CLASSES, Profile, identity, model_identity, model_receipt_path, read_receipt, results_folder

ADAPTIVE = ("mmc", "mmc-rand", "mmc-hm", "emc")  # losses attacked with the paper's adaptive objectives (App. B.4)

LIBRARIES = ("foolbox", "torchattacks", "pyautoattack")  # the field's, which the measurement `libraries` runs


@dataclass(frozen=True)
class Measurement:
    """One attack on one model: its identity is the model's and every setting's, its receipt one small JSON file."""

    model: str
    attack: str  # "clean", a function of mmclib.attacks, "transfer_" and one, or a probe of artifact.compute
    images: int
    targeted: bool = False
    settings: dict = field(default_factory=dict)

    def identity(self, profile: Profile) -> str:
        return identity("evaluation", model=model_identity(profile, self.model), attack=self.attack, images=self.images,
                        targeted=self.targeted, settings=self.settings, seed=profile.seed)

    def path(self, profile: Profile) -> Path:
        goal = "targeted-" if self.targeted else ""
        return results_folder(profile) / "evaluations" / self.model / f"{self.attack}-{goal}{self.identity(profile)}.json"

    def models(self) -> list[str]:
        """Every model that it uses: its own, and the targets of a transfer."""
        return [self.model, *self.settings.get("targets", ())]

    def gradients(self) -> float:
        """Gradients of one image that it takes at most, for estimates of time."""
        steps = self.settings.get("steps", 1) * self.settings.get("restarts", 1)
        if self.attack == "carlini_wagner":  # searches abort early
            steps *= self.settings["binary_search_steps"] / 3
        elif self.attack == "spsa":  # forward passes only
            steps *= self.settings["evaluations"] / 3
        elif self.attack == "multi_targeted":  # most images fall to one of the first classes
            steps *= self.settings["classes"] / 2
        elif self.attack == "autoattack":  # some 100 + 900 + 1,800 gradients and 5,000 forward passes, on the survivors
            steps = 2000
        elif self.attack in ("scores", "diagnosis"):
            steps *= 3
        elif self.attack == "indicators":  # every step of each path, and the attack without bounds, which succeeds early
            steps += 50
        elif self.attack == "stability":
            steps = self.settings["points"] / 3
        elif self.attack == "matched":  # each image survives at one epsilon at most; few do
            steps = self.settings["budget"] / 4
        elif self.attack == "plane":  # all images forward once, a few attacked
            return self.images / 3 + 3 * steps * self.settings["inputs"]
        return self.images * steps


def same_checkpoints(profile: Profile, receipt: dict) -> bool:
    """Was an evaluation made of the very weights that the models' receipts name now? True where a model has no receipt to ask."""
    used = {receipt["model"]: receipt["checkpoint_sha256"], **receipt.get("target_sha256", {})}
    return all(read_receipt(path)["results"]["checkpoint_sha256"] == digest
               for model, digest in used.items() if (path := model_receipt_path(profile, model)).exists())


def stands(profile: Profile, receipt: dict) -> bool:
    """Is an evaluation the one that would be made now: of the same weights, and no package was missing that can be imported since?"""
    left = receipt["results"].get("accuracy") if receipt["config"]["attack"] == "libraries" else None
    missing = [package for package in LIBRARIES if left and left.get(package) == "not installed"]
    return same_checkpoints(profile, receipt) and not any(map(_imports, missing))


def _imports(package: str) -> bool:
    try:
        importlib.import_module(package)
    except ImportError:
        return False
    return True


def objective(profile: Profile, model: str, targeted: bool) -> str:
    """The paper's choice: L_Ada^{tar,1} and L_Ada^{un,1} on MMC, cross-entropy elsewhere (Sec. 4.2, App. B.4)."""
    if profile.models[model].loss not in ADAPTIVE:
        return "cross_entropy"
    return "targeted_1" if targeted else "untargeted_1"


def once(profile: Profile, specs: list[Measurement]) -> list[Measurement]:
    """The evaluations, each once, in their order."""
    return list({spec.identity(profile): spec for spec in specs}.values())


def num_classes(profile: Profile, model: str) -> int:
    return CLASSES[profile.dataset(model)]
