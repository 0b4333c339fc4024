"""Adversarial images of released models for anyone to check: 8-bit pixels, in which a ball of 8/255 is exact."""

from dataclasses import dataclass
from pathlib import Path

import torch

from artifact.compute import trained
from artifact.experiment import Profile
from artifact.release import row_of
from mmclib import attacks, checkpoints, data, evaluation
from mmclib.seeds import derive
from mmclib.zoo import FOLDER, load_released, released_path


@dataclass(frozen=True)
class Checked:
    """What a file of adversarial images was found to hold."""

    images: int
    epsilon: int  # the largest change of a pixel, in 255ths
    correct: int  # images that the model still classifies as their label


def craft(classifier, images, labels, *, epsilon=8, seed=0, rounds=2, steps=50) -> torch.Tensor:
    """Return 8-bit adversarial images (N, C, H, W) within `epsilon` 255ths of the 8-bit `images`, the originals where none was found.

    Margin PGD first, then every wrong class in turn on what is left after rounding: a success counts only when the rounded image is
    misclassified in float32. Where rounding undid a success both are tried again from other starts, `rounds` times in all.
    """
    found = images.clone()
    left = (evaluation.accuracy(classifier, images, labels).correct).nonzero().squeeze(1)
    for number in range(rounds):
        fooled = torch.zeros(len(images), dtype=torch.bool)  # before rounding
        for attack, options in ((attacks.pgd, {"objective": "untargeted_2", "step_size": 2 / 255}), (attacks.multi_targeted, {})):
            if len(left) == 0:
                return found
            result = attack(classifier, images[left].float() / 255, labels[left], epsilon=epsilon / 255, steps=steps,
                            seed=derive(seed, "adversarial images", number), **options)
            whole = (result.images * 255).round().short()
            low, high = images[left].short() - epsilon, images[left].short() + epsilon
            whole = torch.minimum(torch.maximum(whole, low), high).clamp(0, 255).to(torch.uint8)
            still = evaluation.accuracy(classifier, whole, labels[left]).correct
            fooled[left] |= result.fooled
            found[left[~still]] = whole[~still]
            left = left[still]
        left = left[fooled[left]]
    return found


def write(profile: Profile, key: str, count: int, folder: Path = FOLDER / "adversarial") -> Path:
    """Craft on a released model's first `count` test images and write <profile>-<model>.safetensors with what it claims."""
    name = f"{profile.name}-{key}"
    classifier = load_released(name)
    images, labels, digest = trained.load_data(profile.dataset(key), "test", count)
    if len(labels) < count:
        raise ValueError(f"the test set of {profile.dataset(key)} has {len(labels)} images, so there are no {count} to craft")
    found = craft(classifier, images, labels)
    correct = evaluation.accuracy(classifier, found, labels).correct
    claims = {"model": name, "model_sha256": checkpoints.file_sha256(released_path(name)), "data": profile.dataset(key),
              "data_sha256": digest, "images": count, "epsilon": 8, "correct": int(correct.sum())}
    path = folder / f"{name}.safetensors"
    checkpoints.save_tensors(path, {"images": found, "labels": labels}, claims)
    return path


def check(name: str, folder: Path = FOLDER / "adversarial") -> Checked:
    """Verify a released model's adversarial images: its file, the test set, the labels, the ball and the accuracy are as claimed.

    Raises FileNotFoundError where there are none, and ValueError for an unknown model or that says which claim does not hold.
    """
    model_sha256 = checkpoints.file_sha256(released_path(name))
    if not (folder / f"{name}.safetensors").exists():
        row = row_of(name)
        remedy = f"; make them with: python -m artifact adversarial --profile {row[0].argument} {row[1]}" if row else ""
        raise FileNotFoundError(f"{name} has no adversarial images yet{remedy}")
    tensors, claims = checkpoints.load_model_state(folder / f"{name}.safetensors")
    images, labels = data.load(claims["data"], "test")
    images, labels = images[:claims["images"]], labels[:claims["images"]]
    found, changed, correct = tensors["images"], None, None
    if found.dtype == torch.uint8 and found.shape == images.shape:
        changed = (found.short() - images.short()).abs().max().item()
        correct = int(evaluation.accuracy(load_released(name), found, labels).correct.sum())
    for claim, holds in {
        f"the model is {claims['model_sha256'][:16]}": model_sha256 == claims["model_sha256"],
        f"the labels are those of {claims['data']}'s first {claims['images']} test images": torch.equal(tensors["labels"], labels),
        f"no pixel changes by more than {claims['epsilon']}/255": changed is not None and changed <= claims["epsilon"],
        f"{claims['correct']} images are still classified rightly": correct == claims["correct"],
    }.items():
        if not holds:
            raise ValueError(f"the adversarial images of {name} are not as claimed: that {claim} does not hold here "
                             f"(change {changed}/255, {correct} right)")
    return Checked(len(labels), changed, correct)
