"""Releasing trained models: small files under released/ with a card each, which mmclib.zoo loads by name."""

import json
from pathlib import Path

import numpy as np
import torch
import yaml

from artifact import receipts
from artifact.compute import origin, trained
from artifact.exhibits.exhibit import Missing, correct, epsilon_text, with_interval, worst
from artifact.exhibits.ladder import attacked, kept, strongest
from artifact.experiment import ROOT, Profile, load_profile, model_identity
from artifact.measurements import ladder, variants, white_box
from artifact.methods import OBJECTIVES, rungs
from artifact.sections import Model, Training
from mmclib import checkpoints, zoo


def release(profile: Profile, key: str, folder: Path = zoo.FOLDER) -> Path:
    """Write one trained model of a profile as <profile>-<model>.safetensors with its card; returns the file.

    A tensor whose numbers are all float16 numbers is kept as such; loaded, every bit is what was trained and evaluated.
    """
    model = trained.ensure_model(profile, key)  # trained here where the profile says so
    spec, network = profile.models[key], profile.network(key)
    metadata = {"model": spec.model_dump(), "network": network.model_dump(), "identity": model.receipt["identity"]}
    state = {name: tensor.cpu() for name, tensor in model.classifier.state_dict().items()}
    state = {name: half if tensor.is_floating_point() and (half := tensor.half()).float().equal(tensor) else tensor
             for name, tensor in state.items()}
    learned = [tensor for name, tensor in state.items() if name.startswith("backbone") and tensor.is_floating_point()]
    whole = all(tensor.dtype == torch.float16 for tensor in learned)
    path = folder / f"{profile.name}-{key}.safetensors"
    digest = checkpoints.save_tensors(path, state, metadata)
    card = {"name": path.stem, "sha256": digest, "precision": "float16" if whole else "float32", "bytes": path.stat().st_size,
            "trained_checkpoint_sha256": model.receipt["results"]["checkpoint_sha256"], "receipt": model.path.name, **metadata,
            "test_accuracy": model.receipt["results"]["test_accuracy"], "provenance": model.receipt["provenance"]}
    path.with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(card_text(profile, key, card), encoding="utf-8")
    return path


def row_of(name: str) -> tuple[Profile, str] | None:
    """The profile and the row that a released model's name, <profile>-<model>, stands for; None where no profile has it (any more)."""
    for file in sorted((ROOT / "profiles").glob("*.yaml")):  # either part may hold a dash
        key = name.removeprefix(f"{file.stem}-")
        if key != name and key in (profile := load_profile(file.stem)).models:
            return profile, key
    return None


def cards() -> dict[Path, str]:
    """The card of every released model that is a row of a profile, as today's receipts tell it; a row taken out leaves its card alone."""
    found = {}
    for name in zoo.released():
        if row := row_of(name):
            card = json.loads((zoo.FOLDER / f"{name}.json").read_text(encoding="utf-8"))
            found[zoo.FOLDER / f"{name}.md"] = card_text(*row, card)
    return found


def _left(profile: Profile, key: str) -> tuple[int, dict[str, dict]]:
    """How many images were attacked, and what each attack left, the worst case last: of the ladder, else PGD under each objective."""
    try:
        if key in ladder.models(profile):
            flags = {rungs(profile)[name]: kept(profile, rung) for name, rung in attacked(profile, key).items()}
            flags["worst case"] = strongest(profile, key)
        elif key in variants.models(profile) and key not in white_box.models(profile):
            specs = variants.variant(profile, key)
            flags = {OBJECTIVES[name].name: correct(profile, specs[name]) for name in ("untargeted_1", "untargeted_2")}
            flags["worst case"] = np.logical_and.reduce(list(flags.values()))
        elif key in white_box.models(profile):
            flags = {rungs(profile)[name]: correct(profile, spec) for name, spec in white_box.objectives(profile, key).items()}
            flags["worst case"] = np.logical_and.reduce(list(flags.values()))
        else:
            return 0, {}
        return len(flags["worst case"]), {title: worst([own]) for title, own in flags.items()}
    except Missing:
        return 0, {}


def _header(card: dict, attacks: str, attacked: str, left: dict[str, dict]) -> dict:
    """The card's YAML header as the Hugging Face Hub reads it."""
    dataset = card["network"]["dataset"]
    metrics = [{"type": "accuracy", "value": card["test_accuracy"]}]
    if left:
        robust = round(float(left["worst case"]["accuracy"]) / 100, 4)
        metrics.append({"type": "accuracy", "name": f"worst case of {attacks}, {attacked}", "value": robust})
    result = {"task": {"type": "image-classification"}, "dataset": {"name": dataset, "type": dataset, "split": "test"}, "metrics": metrics}
    return {"license": "mit", "library_name": "mmclib", "tags": ["adversarial-robustness", "max-mahalanobis-center"], "datasets": [dataset],
            "metrics": ["accuracy"], "model-index": [{"name": card["name"], "results": [result]}]}


def card_text(profile: Profile, key: str, card: dict) -> str:
    """A released model's card as Markdown: what it is, how it was made, and what the attacks of its receipts left."""
    # The card's own settings: those of the profile's row may have changed since the model was released.
    spec, network, made = Model(**card["model"]), Training(**card["network"]), card["provenance"]
    trained = "standard training"
    if spec.adversarial:
        noisy = " by N-FGSM" * (network.noise > 0 and spec.adversarial == "untargeted")
        against = f" against the {spec.inner}" if spec.inner else ""
        trained = f"{spec.adversarial} adversarial training{noisy}{against}"
    seed = f", seed {spec.seed}" if spec.seed else ""
    images, left = _left(profile, key) if card["identity"] == model_identity(profile, key) else (0, {})
    # what it is the worst case of belongs to the number: of fewer attacks it is higher
    attacks = "all attacks of the verdict" if profile.verdict and key in profile.verdict.models else f"{len(left) - 1} attacks"
    attacked = f"l_inf, ε = {epsilon_text(profile.white_box.epsilons[0])}, first {images:,} test images"
    lines = [
        "---", yaml.safe_dump(_header(card, attacks, attacked, left), sort_keys=False, allow_unicode=True, width=200).strip(), "---",
        f"# {card['name']}",
        "",
        f'`mmclib.load_released("{card["name"]}")`: loss {spec.loss}'
        + (f", C_MM = {spec.radius:g}" if spec.loss.startswith(("mm", "emc")) else "")
        + f", {trained} on {network.dataset}, {network.epochs} epochs{seed}.",
        "",
        f"* Network: {network.architecture}"
        + (f" v{network.version}, n = {network.blocks}" if network.architecture == "resnet" else "")
        + f", {network.feature_dim} features. Images in [0, 1]; the training mean is inside the model.",
        f"* Test accuracy after the last epoch: {100 * card['test_accuracy']:.2f} % (receipt `{card['receipt']}`).",
        f"* Weights are {card['precision']} numbers, as they were evaluated.",
        f"* {made['device']}, {receipts.seconds(card) / 3600:.2f} hours, torch {made['torch']}, "
        f"commit {(made['commit'] or 'unknown')[:10]}.",
        f"* sha256 `{card['sha256']}`",
        "",
        "Not for use: a research model, made to be attacked.",
        "",
    ]
    if left:
        lines += [f"| attack ({attacked}) | accuracy left |", "|---|---|"]
        lines += [*(f"| {title} | {with_interval(cell)} |" for title, cell in left.items()), ""]
    return "\n".join(lines)


def release_all(profile_name: str, keys: list[str]) -> list[Path]:
    """Release several models of a profile by name."""
    profile = load_profile(profile_name)
    origin.start(profile)
    return [release(profile, key) for key in keys]
