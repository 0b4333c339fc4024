"""From a profile to trained models: look the receipt up, else train (or go on training) and write it."""

import hashlib
import os
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from artifact import processes
from artifact.compute.locks import only_one
from artifact.compute.origin import provenance, start
from artifact.experiment import (
    ROOT,
    Profile,
    checkpoint_folder,
    model_identity,
    model_receipt_path,
    model_settings,
    pack,
    read_receipt,
    write_receipt,
)
from artifact.measurements.measurement import num_classes, objective
from mmclib import centers, checkpoints, data, evaluation, models, training, zoo
from mmclib.seeds import derive


@lru_cache(maxsize=4)
def load_data(name: str, split: str, count: int | None = None) -> tuple[torch.Tensor, torch.Tensor, str]:
    """A data set's first `count` images (uint8) and labels, with the sha256 of both."""
    images, labels = data.load(name, split)
    images, labels = images[:count], labels[:count]
    digest = hashlib.sha256(images.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()
    return images, labels, digest


def build(profile: Profile, model: str) -> models.Classifier:
    """The untrained network of a profile's model, weights drawn from the model's own seed."""
    spec, network = profile.models[model], profile.network(model)
    images, _, _ = load_data(network.dataset, "train", network.train_images)
    made = _centers(profile, model)
    torch.manual_seed(derive(profile.seed, spec.seed, "weights"))
    mean = images.float().mean(0) / 255
    classifier = zoo.assemble(network.model_dump(), spec.model_dump(), num_classes(profile, model), made, mean)
    if network.architecture == "airbench" and network.stem == "whitened":
        models.whiten(classifier, images[:5000].float() / 255 - mean)
    return classifier


def _centers(profile, model) -> torch.Tensor | None:
    spec, network = profile.models[model], profile.network(model)
    classes, dim, drawn = num_classes(profile, model), network.feature_dim, derive(profile.seed, spec.seed, "centers")
    if spec.loss not in zoo.PRESET:
        return None
    if spec.loss == "mmc-rand":
        return centers.random_centers(classes, dim, spec.radius, seed=drawn)
    if spec.loss == "mmc-hm":
        return centers.hierarchical_centers(data.superclasses(network.dataset), dim, spec.radii, seed=drawn if spec.rotate else None)
    # Algorithm 1 where the dimension allows it; in the plane (Fig. 3b) the same criterion's optimum, a regular polygon.
    return (centers.max_mahalanobis_centers if classes <= dim + 1 else centers.optimised_centers)(classes, dim, spec.radius)


def recipe(profile: Profile, model: str) -> training.Recipe:
    """How a profile's model is trained."""
    spec, network = profile.models[model], profile.network(model)
    adversarial = None
    if spec.adversarial:
        goal = "targeted" if spec.adversarial == "targeted" else "untargeted"
        # Cross-entropy has no gradient on MMC's logits, so its adversarial training is adaptive (App. B.4).
        climbed = f"{goal}_2" if spec.inner == "margin" else objective(profile, model, goal == "targeted")
        adversarial = training.AdversarialTraining(mode=goal, epsilon=network.epsilon, step_size=network.step_size, steps=network.steps,
                                                   objective=climbed, noise=network.noise, guard=network.guard)
        if network.noise and goal == "targeted":  # one step towards a target is weak
            adversarial = adversarial.two_steps()
    same = ("epochs", "batch_size", "learning_rate", "decay", "momentum", "weight_decay", "shift", "flip", "optimizer", "other_rate",
            "schedule", "warm_up", "fill", "average", "half")
    return training.Recipe(milestones=tuple(network.milestones), adversarial=adversarial, **{name: getattr(network, name) for name in same})


@dataclass(frozen=True)
class TrainedModel:
    """A trained classifier in float32 with the receipt of its training."""

    classifier: models.Classifier
    receipt: dict
    path: Path


def train(profile: Profile, model: str, *, progress: bool = True) -> TrainedModel:
    """Train one model of the profile, or go on where an earlier run stopped; load it where that is done already.

    What would end the process (Ctrl-C, TERM, a time budget) ends it after the step under way, state saved: call again to go on.
    """
    start(profile)
    if model not in profile.models:
        raise ValueError(f"profile {profile.name!r} has no model {model!r}; known: {', '.join(profile.models)}")
    receipt_path, folder = model_receipt_path(profile, model), checkpoint_folder(profile, model)
    if receipt_path.exists():  # before the lock, which a record that cannot be written to does not grant
        return _load(profile, model)
    with only_one(receipt_path), processes.stop_flag() as stop:
        if receipt_path.exists():
            return _load(profile, model)
        network, seed = profile.network(model), derive(profile.seed, profile.models[model].seed, "training")
        images, labels, train_hash = load_data(network.dataset, "train", network.train_images)
        test_images, test_labels, test_hash = load_data(network.dataset, "test", network.test_images)
        began = time.perf_counter()
        result = training.fit(
            build(profile, model), (images, labels), (test_images, test_labels), recipe=recipe(profile, model), seed=seed,
            folder=folder, device=profile.device, precision=profile.precision, stop=stop, progress=progress)
        if not result.finished:
            print(f"{model} stopped in epoch {len(result.history) + 1} of {network.epochs}; its state is saved", flush=True)
            raise RuntimeError(f"the training of {model!r} was stopped")  # or what stopped it, which `stop_flag` delivers now
        classifier = result.model.float().to(memory_format=torch.contiguous_format).eval()
        digest = checkpoints.save_model(folder / "model.safetensors", classifier.cpu(), {"model": model, "profile": profile.name})
        final = evaluation.accuracy(classifier.to(profile.device), test_images, test_labels)
        seconds = [epoch["seconds"] for epoch in result.history]
        receipt = {
            "identity": model_identity(profile, model), "kind": "model", "model": model, "config": model_settings(profile, model),
            "data": {"name": network.dataset, "train_sha256": train_hash, "test_sha256": test_hash, "test_images": len(test_labels)},
            "results": {"test_accuracy": final.accuracy, "test_correct": pack(final.correct), "checkpoint_sha256": digest,
                        "history": [{key: epoch[key] for key in epoch if key != "seconds"} for epoch in result.history]},
            "provenance": provenance(profile, time.perf_counter() - began) | {"epoch_seconds": seconds, "precision": result.precision},
        }
        write_receipt(receipt_path, receipt)
        checkpoints.remove_states(folder)
        return TrainedModel(classifier, read_receipt(receipt_path), receipt_path)


def _load(profile: Profile, model: str) -> TrainedModel:
    receipt_path, file = model_receipt_path(profile, model), checkpoint_folder(profile, model) / "model.safetensors"
    receipt = read_receipt(receipt_path)
    remedy = f"delete {receipt_path.relative_to(ROOT) if receipt_path.is_relative_to(ROOT) else receipt_path} and train it again"
    if not file.exists():
        _restore(profile, model, receipt, file)
    if not file.exists():
        raise FileNotFoundError(f"the checkpoint of {model!r} is missing ({file}); {remedy}")
    if hashlib.sha256(file.read_bytes()).hexdigest() != receipt["results"]["checkpoint_sha256"]:
        if f"{profile.name}-{model}" in zoo.released():
            remedy = f"delete {file}, and it is made again of the released model"
        raise ValueError(f"the checkpoint of {model!r} is damaged: its sha256 is not the receipt's ({file}); {remedy}")
    state, spec = checkpoints.load_model_state(file)[0], profile.models[model]
    with torch.random.fork_rng(devices=[]):  # what the weights are drawn as is overwritten
        classifier = zoo.assemble(profile.network(model).model_dump(), spec.model_dump(), num_classes(profile, model),
                                  state["head.centers"] if spec.loss in zoo.PRESET else None, state["mean"])
    classifier.load_state_dict(state)
    return TrainedModel(classifier.to(profile.device).eval(), receipt, receipt_path)


def _restore(profile: Profile, model: str, receipt: dict, file: Path) -> None:
    # A clone has the receipts but not checkpoints/: a released model holds the same numbers, and so the very same file is made of it.
    name = f"{profile.name}-{model}"
    if name not in zoo.released():
        return
    with only_one(file):  # jobs side by side miss it together
        if not file.exists():
            _make_again(profile, model, receipt, file, name)


def _make_again(profile, model, receipt, file, name):
    classifier = zoo.load_released(name)
    made = file.with_name("restored.safetensors")
    if checkpoints.save_model(made, classifier, {"model": model, "profile": profile.name}) == receipt["results"]["checkpoint_sha256"]:
        os.replace(made, file)
        print(f"{model}: the checkpoint is made again from released/{name}.safetensors", flush=True)
    else:  # another training's
        made.unlink()


def ensure_model(profile: Profile, model: str) -> TrainedModel:
    """The trained model: loaded, or trained on the spot where the profile says that this takes seconds.

    Raises FileNotFoundError that names the command which makes it.
    """
    if model in profile.models and not model_receipt_path(profile, model).exists() and not profile.train_on_the_spot:
        raise FileNotFoundError(f"model {model!r} of profile {profile.name!r} is not trained yet; "
                                f"make it with: python -m artifact run --profile {profile.argument} --only 'train {model}'")
    return train(profile, model, progress=False)


def write_notebook_receipt(output: str, results: dict, *, profile: Profile | None = None, began: float | None = None) -> None:
    """What a job is done by: the notebook's last step writes its results, whole or not at all, to the path `output`."""
    kept = provenance(profile, time.perf_counter() - began) if profile and began else {}
    path = Path(output)
    with only_one(path):
        write_receipt(path, {"identity": path.stem.rsplit("-", 1)[-1], "kind": "notebook", "results": results, "provenance": kept})
