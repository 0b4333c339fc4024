"""Accuracy, robust accuracy, its worst case over attacks, minimal distortion and transfer: batched, resumable, verified in float32, the
same for every batch size."""

import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor, nn

from mmclib import counter
from mmclib.attacks import carlini_wagner, mim, pgd
from mmclib.attacks.ledger import GradientMaskingWarning, GradientShares, warn_if_masked
from mmclib.checks import check_labels, warn
from mmclib.fingerprints import fingerprint
from mmclib.partials import Partial
from mmclib.verified import (
    attacked,
    check,
    check_attack,
    check_models,
    each_batch,
    is_one_of,
    name_of,
    options_of,
    predicted_by,
    settings_of,
)

__all__ = [
    "Evaluation", "WorstCase", "accuracy", "minimal_distortion", "random_targets", "robust_accuracy", "transfer_matrix", "transfer_row",
    "worst_case",
]


@dataclass(frozen=True, repr=False, eq=False)
class Evaluation(GradientShares):
    """What an evaluation found, per image (tensors of N rows on the CPU)."""

    correct: torch.Tensor  # bool: still classified as the true label
    success: torch.Tensor  # bool: classified as the target, or without targets not correct
    distortion: torch.Tensor  # float, of the image that the attack returned (its last or best try where it failed), in its own norm
    queries: torch.Tensor  # int64: images sent through the model
    gradients: torch.Tensor  # int64: input gradients taken
    vanished: torch.Tensor  # int64: those that are exactly zero
    vanished_first: torch.Tensor  # bool: the first one is exactly zero
    rejected: torch.Tensor  # bool: the attack claimed a success that a plain float32 pass or the ball did not confirm
    norm: str = ""
    seconds: float = 0.0
    finite: bool = True  # no logit that an attack met was NaN

    @property
    def accuracy(self) -> float:
        """Share of images still classified as their true label."""
        return self.correct.double().mean().item()

    @property
    def distances(self) -> torch.Tensor:
        """The distortion where the attack succeeded, infinity where it did not: float (N,), as `mmclib.optimality.area` wants it."""
        return self.distortion.masked_fill(~self.success, math.inf)

    @property
    def mean_distortion(self) -> float:
        """Mean distortion over the successes; NaN when there are none."""
        return self.distortion[self.success].double().mean().item()

    def __repr__(self) -> str:
        return (f"Evaluation({len(self.correct)} images, {self.accuracy:.1%} right, {int(self.gradients.sum())} gradients, "
                f"{self.zero_gradients_overall:.0%} zero{f', {count} successes rejected' if (count := int(self.rejected.sum())) else ''})")


@dataclass(frozen=True, repr=False, eq=False)
class WorstCase:
    """What several attacks leave of the same N images, each given those only that all before it left. Printed, it is a table."""

    clean: Evaluation
    evaluations: dict[str, Evaluation]  # by attack, in their order, of the images that it was given; without those that got none
    left: dict[str, float]  # share of the N images that are right after this attack and all before it
    correct: torch.Tensor  # bool (N,), on the CPU: right after all of them

    @property
    def accuracy(self) -> float:
        """Share of the N images that no attack fooled."""
        return self.correct.double().mean().item()

    def __repr__(self) -> str:
        width = max(map(len, ("worst case", *self.left)))
        lines = [f"{'':<{width}}  still right  zero gradients", f"{'clean':<{width}}{self.clean.accuracy:>13.1%}"]
        for name, left in self.left.items():
            line = f"{name:<{width}}{left:>13.1%}"
            if found := self.evaluations.get(name):
                line += f"{found.zero_gradients_overall:>16.0%}" + ("  no evidence: gradients are masked" if found.masked else "")
            lines.append(line)
        return "\n".join([*lines, f"{'worst case':<{width}}{self.accuracy:>13.1%}"])


def accuracy(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 512) -> Evaluation:
    """Classify clean images, float in [0, 1] or uint8 (N, C, H, W); labels int64 (N,). Raises ValueError for bad input."""
    batch_size = check({"model": model}, images, labels, None, batch_size)
    began = time.perf_counter()
    parts = each_batch(len(labels), batch_size, lambda part: predicted_by(model, images[part], part.start))
    predicted = torch.cat([classes for _, classes in parts])
    correct = predicted == labels.cpu()
    nothing = torch.zeros(len(labels), dtype=torch.int64, device="cpu")
    none = torch.zeros_like(correct)
    distortion = torch.zeros(len(labels), dtype=torch.float32, device="cpu")
    return Evaluation(correct, ~correct, distortion, nothing + 1, nothing, nothing, none, none, "", time.perf_counter() - began)


def robust_accuracy(model: nn.Module, images: Tensor, labels: Tensor, attack: Callable, *, targets: Tensor | None = None,
                    seed: int | Tensor = 0, batch_size: int = 256, partial: str | Path | None = None, progress: bool = False,
                    **hyper) -> Evaluation:
    """Attack every image and count those still classified as their true label; `hyper` goes to the attack.

    Images float in [0, 1] or uint8 (N, C, H, W), labels and targets int64 (N,), seed an integer or int64 (N,). The attack may be a
    functools.partial of anything but targets and seed, which are dealt out by image: so the result does not depend on batch_size (on CUDA
    up to rounding), which halves by itself when memory runs out. One of your own is called as `attack(model, images, labels, targets=None
    or (n,), seed=(n,), **hyper)`, with the model in evaluation mode and nothing frozen, names its bound `epsilon`, and returns an
    AttackResult, which `mmclib.attacks.judged` makes of any images; gradients that it leaves on the parameters are dropped. `partial` is a
    file that an interrupted evaluation resumes from; it is removed at the end. With it, attacks of this package work in batches of at most
    batch_size that take about half a minute, where so few images fill a call; an attack of your own, and autoattack, are taken in batches
    of batch_size. Each claimed success is verified by a plain pass in float32 (float64 for a model in it) and must lie inside its ball;
    what that pass sees misclassified there counts, claimed or not. Warns of vanishing gradients and where more than 1 % of the successes
    are rejected. Raises ValueError for bad input.
    """
    check_attack(attack, hyper)
    finished = Partial(partial, lambda: fingerprint(model, images, labels, attack, targets, seed, hyper))
    for part, _, columns in attacked(model, images, labels, attack, targets, seed, batch_size, hyper, progress, finished):
        del columns["inside"]
        finished.add(part, columns)
    outcome = _evaluation(finished.joined())
    finished.remove()
    warn_if_masked(outcome, name_of(attack))
    _warn_if_rejected(outcome, name_of(attack))
    return outcome


def _warn_if_rejected(outcome, name):
    rejected, claimed = int(outcome.rejected.sum()), int((outcome.rejected | outcome.success).sum())
    if rejected > 0.01 * claimed:
        warn(f"{name}: {rejected} of {claimed} claimed successes are rejected and count as right: their images leave [0, 1] or the ball of "
             "the epsilon given here, or a plain float32 pass does not confirm them", UserWarning)


def worst_case(model: nn.Module, images: Tensor, labels: Tensor, attacks: Mapping[str, Callable], *, seed: int = 0, batch_size: int = 256,
               progress: bool = False) -> WorstCase:
    """Attack each image by one attack after the other until one fools the model: the accuracy that may be called robust.

    `attacks` maps names to attacks with their settings (functools.partial), the cheap ones first; `mmclib.attacks.ladder(epsilon)` is
    such a choice. fmn, ddn and carlini_wagner need an epsilon here, beyond which what they find does not count. Images, labels and the
    other options are as in `robust_accuracy`; an image that an attack of this package fools is fooled by it alone too. Warns where no
    attack had gradients to follow. Raises ValueError for bad input.
    """
    if not isinstance(attacks, Mapping) or not attacks:
        got = "none" if isinstance(attacks, Mapping) else type(attacks).__name__
        raise ValueError(f"attacks must map at least one name to an attack, got {got}")
    for attack in attacks.values():
        check_attack(attack, {}, bounded=True)
    clean, seeds = accuracy(model, images, labels, batch_size), counter.image_seeds(seed, len(labels))
    correct, left, evaluations = clean.correct.clone(), {}, {}
    for name, attack in attacks.items():
        rows = correct.nonzero().squeeze(1)
        if len(rows) > 0:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", GradientMaskingWarning)  # one attack that is not masked is enough
                evaluations[name] = robust_accuracy(model, images[rows], labels[rows], attack, seed=seeds[rows], batch_size=batch_size,
                                                    progress=progress)
            correct[rows] = evaluations[name].correct
        left[name] = correct.double().mean().item()
    climbed = [found for found in evaluations.values() if found.gradients.any()]
    if climbed and all(found.masked for found in climbed):
        warn_if_masked(climbed[-1], "worst_case")
    return WorstCase(clean, evaluations, left, correct)


def minimal_distortion(model: nn.Module, images: Tensor, labels: Tensor, attack: Callable = carlini_wagner, **options) -> Evaluation:
    """Find each image's least distortion: `robust_accuracy` with a minimal-distortion attack; see `.mean_distortion` and
    `.distortion`."""
    return robust_accuracy(model, images, labels, attack, **options)


def transfer_row(source: nn.Module, models: Mapping[str, nn.Module], images: Tensor, labels: Tensor, attack: Callable, *, seed: int = 0,
                 batch_size: int = 256, partial: str | Path | None = None, progress: bool = False, **hyper) -> dict[str, Evaluation]:
    """Craft on `source` and judge each of `models` (a dict by name) on the same images; returns a dict of Evaluations by name.

    Crafting does not stop at success (stop_early=False) unless asked to: an image that barely fools its source transfers badly. Attacks
    without that option (multi_targeted, minimal distances) stop there all the same. What a model calls wrong counts as in
    `robust_accuracy`: only inside the ball. `partial` and warnings as there.
    """
    check_attack(attack, hyper)
    check_models(models)
    found, finished = _row(source, models, images, labels, attack, seed, batch_size, partial, progress, hyper)
    finished.remove()
    return found


def _row(source, models, images, labels, attack, seed, batch_size, partial, progress, hyper):
    if "stop_early" in options_of(attack) and "stop_early" not in settings_of(attack) | hyper:
        if is_one_of(attack, (mim, pgd)) and (settings_of(attack) | hyper).get("restarts", 1) != 1:
            raise ValueError(f"{name_of(attack)} crafts for other models with stop_early=False, which takes one restart; leave restarts "
                             "out, or set stop_early=True, whose images barely fool their source")
        hyper = hyper | {"stop_early": False}
    check(models, images, labels, None, batch_size)
    # the models' order too: columns are numbered by it
    finished = Partial(partial, lambda: fingerprint(source, list(models), models, images, labels, attack, seed, hyper))
    for part, result, columns in attacked(source, images, labels, attack, None, seed, batch_size, hyper, progress, finished):
        inside = columns.pop("inside")
        for number, model in enumerate(models.values()):
            wrong = predicted_by(model, result.images, part.start) != labels[part].cpu()
            fooled = wrong & inside
            columns |= {f"correct {number}": ~fooled, f"success {number}": fooled, f"rejected {number}": wrong & ~inside}
        finished.add(part, columns)
    columns = finished.joined()
    found = {name: _evaluation(columns, number) for number, name in enumerate(models)}
    warn_if_masked(next(iter(found.values())), name_of(attack))  # crafted once, so the same for all
    for name, outcome in found.items():
        _warn_if_rejected(outcome, f"{name_of(attack)} on {name}")
    return found, finished


def transfer_matrix(models: Mapping[str, nn.Module], images: Tensor, labels: Tensor, attack: Callable, *, seed: int = 0,
                    batch_size: int = 256, partial: str | Path | None = None, progress: bool = False,
                    **hyper) -> dict[str, dict[str, Evaluation]]:
    """Judge every model on images crafted on every model: {source: {model: Evaluation}}; options as in `transfer_row` (Fig. 4).

    `partial` names one file for each source, with its number behind it; they are removed when all are done.
    """
    check_attack(attack, hyper)
    check_models(models)
    rows = {name: _row(source, models, images, labels, attack, seed, batch_size, partial if partial is None else f"{partial}.{number}",
                       progress, hyper) for number, (name, source) in enumerate(models.items())}
    for _, finished in rows.values():
        finished.remove()
    return {name: found for name, (found, _) in rows.items()}


def random_targets(labels: Tensor, num_classes: int, *, seed: int = 0) -> Tensor:
    """Draw for each label another class, uniformly, int64 (N,); the draw for image i depends on the seed and i alone."""
    check_labels(labels, num_classes)
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2 for a target to differ from its label, got {num_classes}")
    bits = counter.words(counter.image_seeds(seed, len(labels), labels.device), 1, "targets").squeeze(1)
    return (labels + 1 + ((bits >> 2) & (2**62 - 1)) % (num_classes - 1)) % num_classes


def _evaluation(columns, number=None):
    """What the columns of all images say, and with `number` what that one of several models made of them."""
    own = {field.name: columns.get(f"{field.name} {number}", columns.get(field.name)) for field in fields(Evaluation)}
    return Evaluation(**own | {"finite": bool(own["finite"].all())})
