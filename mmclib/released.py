"""Released models: small files under released/ with a card each, loaded by name without data, profile or training."""

import hashlib
import json
from pathlib import Path

import torch

from mmclib import checkpoints, evaluation, ladder, pipeline
from mmclib.experiment import CLASSES, ROOT, Profile, load_profile
from mmclib.models import Classifier
from mmclib.numbers import Missing, number, with_interval
from mmclib.numbers import evaluation as look_up
from mmclib.sections import Model, Training

FOLDER = ROOT / "released"


def names() -> list[str]:
    """The released models, by name."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def load(name: str) -> Classifier:
    """A released model in float32 and evaluation mode, on the CPU.

    Raises ValueError for an unknown name, and for a file whose sha256 is not the one in its card.
    """
    path = FOLDER / f"{name}.safetensors"
    if not path.exists():
        raise ValueError(f"there is no released model {name!r}; known: {', '.join(names()) or 'none'}")
    if hashlib.sha256(path.read_bytes()).hexdigest() != json.loads(path.with_suffix(".json").read_text())["sha256"]:
        raise ValueError(
            f"released model {name!r} is damaged: its sha256 is not the one in {path.with_suffix('.json').name}; fetch it again"
        )
    state, metadata = checkpoints.load_model_state(path)
    state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    network = Training(**metadata["network"])
    model = pipeline.assemble(Model(**metadata["model"]), network, CLASSES[network.dataset], state.get("head.centers"), state["mean"])
    model.load_state_dict(state)
    return model.eval()


def release(profile: Profile, key: str, folder: Path = FOLDER) -> Path:
    """Write one trained model of a profile as <profile>-<model>.safetensors with its card; returns the file.

    Convolutions and linear layers are kept in half precision where that changes no prediction on the whole test set, else in float32.
    """
    trained = pipeline.ensure_model(profile, key)
    spec, network = profile.models[key], profile.training[profile.models[key].training]
    images, labels, _ = pipeline.load_data(network.dataset, "test")
    metadata = {"model": spec.model_dump(), "network": network.model_dump(), "identity": trained.receipt["identity"]}
    state = {name: tensor.cpu().clone() for name, tensor in trained.classifier.state_dict().items()}
    half = {name: tensor.half() if tensor.ndim > 1 and name.startswith("backbone") else tensor for name, tensor in state.items()}
    judge = trained.classifier.cpu()
    before = evaluation.accuracy(judge, images, labels).correct
    judge.load_state_dict({name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in half.items()})
    same = bool(evaluation.accuracy(judge, images, labels).correct.equal(before))
    judge.load_state_dict(state)
    path = folder / f"{profile.name}-{key}.safetensors"
    digest = checkpoints.save_tensors(path, half if same else state, metadata)
    card = {"name": path.stem, "sha256": digest, "precision": "half" if same else "float32", "bytes": path.stat().st_size,
            "trained_checkpoint_sha256": trained.receipt["results"]["checkpoint_sha256"], "receipt": trained.path.name, **metadata,
            "test_accuracy": trained.receipt["results"]["test_accuracy"], "provenance": trained.receipt["provenance"]}
    path.with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n")
    path.with_suffix(".md").write_text(_card(profile, key, card))
    return path


def _card(profile: Profile, key: str, card: dict) -> str:
    spec, network, made = profile.models[key], profile.training[profile.models[key].training], card["provenance"]
    trained = f"{spec.adversarial} adversarial training" if spec.adversarial else "standard training"
    lines = [
        f"# {card['name']}",
        "",
        f'`mmclib.models.load_released("{card["name"]}")`: loss {spec.loss}'
        + (f", C_MM = {spec.radius:g}" if spec.loss.startswith(("mm", "emc")) else "")
        + f", {trained} on {network.dataset}, {network.epochs} epochs.",
        "",
        f"* Network: {network.architecture}"
        + (f" v{network.version}, n = {network.blocks}" if network.architecture == "resnet" else "")
        + f", {network.feature_dim} features. Images in [0, 1]; the training mean is inside the model.",
        f"* Test accuracy after the last epoch: {100 * card['test_accuracy']:.2f} % (receipt `{card['receipt']}`).",
        f"* Weights in {card['precision']} precision"
        + (", which changes no prediction on the test set." if card["precision"] == "half" else "."),
        f"* {made['device']}, {made['seconds'] / 3600:.2f} hours, torch {made['torch']}, commit {(made['commit'] or 'unknown')[:10]}.",
        f"* sha256 `{card['sha256']}`",
        "",
        "Not for use: a research model, made to be attacked.",
        "",
    ]
    try:
        found = {title: number(look_up(profile, rung)) for name, title in ladder.RUNGS.items()
                 if (rung := ladder.rungs(profile, key).get(name)) is not None} if profile.verdict and key in profile.verdict.models else {}
    except Missing:
        found = {}
    if found:
        lines += ["| attack | accuracy left |", "|---|---|", *(f"| {title} | {with_interval(cell)} |" for title, cell in found.items()), ""]
    return "\n".join(lines)


def release_all(profile_name: str, keys: list[str]) -> list[Path]:
    """Release several models of a profile by name."""
    profile = load_profile(profile_name)
    pipeline.start(profile)
    with torch.no_grad():
        return [release(profile, key) for key in keys]
