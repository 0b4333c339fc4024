"""What is looked at without being an attack's score: features in a plane, loss surfaces, uncertainty scores, superclasses, randomness.

Each takes what artifact.compute.measure gives every evaluation and returns what its receipt keeps.
"""

import itertools
import time

import torch
import torch.nn.functional as F

from artifact.compute import peers, trained
from artifact.compute.pieces import Pieces
from artifact.experiment import pack
from artifact.measurements.measurement import ADAPTIVE, num_classes
from mmclib import attacks, data, evaluation
from mmclib.attacks.climb import ascend, random_start
from mmclib.attacks.objectives import OBJECTIVES, best_other, logit_of
from mmclib.counter import image_seeds
from mmclib.fingerprints import fingerprint
from mmclib.intervals import wilson_interval
from mmclib.seeds import derive
from mmclib.training.step import TrainingStep, best_precision
from mmclib.training.trainer import make_optimizers

_CHUNK = 500  # images whose logits or gradients are taken at a time: a device holds no graph of ten thousand


def plane(profile, spec, classifier, images, labels, *, partial) -> dict:
    """Fig. 3b: 2-D features of the test images, and the path of the attacked images' features under each objective."""
    settings, device = spec.settings, profile.device
    features = torch.cat([_features(classifier, part.to(device)) for part in (images.float() / 255).split(1000)])
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(derive(profile.seed, "plane")))
    right = torch.cdist(features, classifier.head.centers.float().cpu()).argmin(1) == labels.cpu()  # an image that is wrong shows no attack
    chosen = order[right[order]][:settings["inputs"]]
    if not len(chosen):
        raise ValueError(f"{spec.model} classifies none of {len(images)} images rightly: there is nothing to attack; train it for longer")
    start, own = (images[chosen].float() / 255).to(device), labels[chosen].to(device)
    goals = evaluation.random_targets(labels[chosen], num_classes(profile, spec.model), seed=derive(profile.seed, "targets")).to(device)
    paths = {}
    for name in ("cross_entropy", "untargeted_1", "targeted_1"):
        path = []

        def gradient(current, name=name, path=path):
            path.append(_features(classifier, current))
            return _objective_gradient(classifier, current, own, name, goals if name == "targeted_1" else None)[1]

        last = ascend(gradient, start, start, **{key: settings[key] for key in ("epsilon", "step_size", "steps")})
        paths[name] = _rounded(torch.stack([*path, _features(classifier, last)], 1))  # (inputs, steps + 1, 2)
    return {"features": _rounded(features), "labels": labels.tolist(), "inputs": chosen.tolist(), "targets": goals.tolist(),
            "centers": _rounded(classifier.head.centers), "paths": paths}


@torch.no_grad()
def _features(classifier, images) -> torch.Tensor:
    return classifier.features(images).float().cpu()


def _rounded(values) -> list:
    values = values.tolist() if isinstance(values, torch.Tensor) else values
    return [_rounded(value) if isinstance(value, list) else float(f"{value:.5g}") for value in values]


@torch.no_grad()
def _logits(classifier, images) -> torch.Tensor:
    return torch.cat([classifier(part) for part in images.split(_CHUNK)])


def superclass(profile, spec, classifier, images, labels, *, partial) -> dict:
    """Is the predicted class in the right superclass? (App. B.3)."""
    superclass_of = torch.empty(num_classes(profile, spec.model), dtype=torch.int64)
    for number, members in enumerate(data.superclasses(profile.dataset(spec.model))):
        superclass_of[members] = number
    predicted = _logits(classifier, images.to(profile.device).float() / 255).argmax(1).cpu()
    return _share(superclass_of[predicted] == superclass_of[labels])


def _share(correct) -> dict:
    low, high = wilson_interval(int(correct.sum()), len(correct))
    return {"accuracy": correct.double().mean().item(), "interval": [low, high], "correct": pack(correct)}


def repeated(profile, spec, classifier, images, labels, *, partial) -> dict:
    """Does the model say the same twice? A random defence would need attacks that average over its randomness."""
    pixels = images.to(profile.device).float() / 255
    first, second = _logits(classifier, pixels), _logits(classifier, pixels)
    return _share((first == second).all(1).cpu()) | {"largest_difference": (first - second).abs().max().item()}


def scores(profile, spec, classifier, images, labels, *, partial) -> dict:
    """Uncertainty of clean and attacked images: MMC's loss of the predicted class (Sec. 3.3), or -log of the largest softmax."""
    pixels, own = images.to(profile.device).float() / 255, labels.to(profile.device)
    hyper = {key: spec.settings[key] for key in ("epsilon", "steps", "step_size")}
    seeds = image_seeds(derive(profile.seed, "pgd", 0), len(pixels), pixels.device)
    pieces = Pieces(partial, fingerprint(classifier, images, labels))

    def score(batch, rows):
        logits = _logits(classifier, batch).double()
        distance = profile.models[spec.model].loss in ADAPTIVE
        values = -logits.amax(1) if distance else -F.log_softmax(logits, 1).amax(1)
        return _rounded(values.cpu()), (logits.argmax(1) == own[rows]).tolist()

    def attacked(name, rows):  # all steps and the last iterate: the attack does not stop at the boundary
        def towards(part):  # the likeliest wrong class
            logits = _logits(classifier, pixels[part]).scatter(1, own[part, None], -torch.inf)
            return logits.argmax(1) if name.startswith("targeted") else None

        crafted = [attacks.pgd(classifier, pixels[part], own[part], targets=towards(part), objective=name, seed=seeds[part],
                               stop_early=False, **hyper).images for part in rows.split(profile.batch_size)]
        return score(torch.cat(crafted), rows)

    clean, correct = score(pixels, slice(None))
    kept = {"clean": clean, "correct": pack(correct), "attacked": {}}
    for name in spec.settings["objectives"]:
        found = [pieces.once(f"{name} {int(rows[0])}", lambda name=name, rows=rows: attacked(name, rows))
                 for rows in torch.arange(len(pixels), device=pixels.device).split(_CHUNK)]
        values, still = (list(itertools.chain(*parts)) for parts in zip(*found, strict=True))
        kept["attacked"][name] = {"scores": values, "correct": pack(still)}
    return kept


def diagnosis(profile, spec, classifier, images, labels, *, partial) -> dict:
    """Why cross-entropy is blind: logit scales, margins against iterations under each objective, and slices of two losses."""
    settings = spec.settings
    pixels, own = images.to(profile.device).float() / 255, labels.to(profile.device)
    logits = _logits(classifier, pixels)
    gaps = (logit_of(logits, own) - best_other(logits, own)).cpu()
    seeds = image_seeds(derive(profile.seed, "pgd", 0), len(pixels), pixels.device)
    pieces = Pieces(partial, fingerprint(classifier, images, labels))

    def path(name):
        margins, zeros = [], []

        def gradient(current):
            output, slope = _objective_gradient(classifier, current, own, name)
            margins.append((logit_of(output, own) - best_other(output, own)).median().item())
            zeros.append((slope.flatten(1).abs().amax(1) == 0).double().mean().item())
            return slope

        ascend(gradient, random_start(pixels, seeds, settings["epsilon"]), pixels,
               **{key: settings[key] for key in ("epsilon", "step_size", "steps")})
        return {"margin": _rounded(margins), "zero_gradients": _rounded(zeros)}

    paths = {name: pieces.once(name, lambda name=name: path(name)) for name in ("cross_entropy", "untargeted_1", "untargeted_2")}
    right = (gaps > 0).nonzero().flatten()
    chosen = int(right[gaps[right].argsort()[len(right) // 2]]) if len(right) else 0  # the correct image of median margin
    return {"gap": _rounded(gaps), "largest_logit": _rounded(logits.abs().amax(1)), "paths": paths, "image": chosen,
            "surface": _surface(classifier, pixels[chosen:chosen + 1], own[chosen:chosen + 1], settings, derive(profile.seed, "surface"))}


def _objective_gradient(classifier, images, labels, name, targets=None):
    found = []
    for part in torch.arange(len(images), device=images.device).split(_CHUNK):
        pixels = images[part].detach().requires_grad_()
        z = classifier.features(pixels)
        logits = classifier.head.logits(z)
        values = OBJECTIVES[name](z, logits, labels[part], None if targets is None else targets[part])
        found.append((logits.detach(), torch.autograd.grad(values.sum(), pixels)[0]))
    return tuple(map(torch.cat, zip(*found, strict=True)))


def _surface(classifier, image, label, settings, seed):
    # Along the sign of the margin's gradient and along random signs, up to epsilon each way.
    _, gradient = _objective_gradient(classifier, image, label, "untargeted_2")
    random = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed)).to(image).sign()
    axis = torch.linspace(-settings["epsilon"], settings["epsilon"], settings["grid"], device=image.device)
    a, b = torch.meshgrid(axis, axis, indexing="ij")
    points = (image + a.reshape(-1, 1, 1, 1) * gradient.sign() + b.reshape(-1, 1, 1, 1) * random).clamp(0, 1)
    logits, labels = _logits(classifier, points), label.expand(len(points))
    losses = {name: OBJECTIVES[name](None, logits, labels, None).reshape(a.shape) for name in ("cross_entropy", "untargeted_2")}
    return {"axis": _rounded(axis), **{name: _rounded(values) for name, values in losses.items()}}


def libraries(profile, spec, classifier, images, labels, *, partial) -> dict:
    """What the field's libraries report of this model with the losses that they come with."""
    pieces = Pieces(partial, fingerprint(classifier, images, labels))
    pixels, own = images.to(profile.device).float() / 255, labels.to(profile.device)
    return {"accuracy": peers.reports(classifier, pixels, own, once=pieces.once, **spec.settings)}


def step_time(profile, spec, classifier, images, labels, *, partial) -> dict:
    """Time of a training step over that of `against`, alternating in one process: what a loss costs, whatever else the machine does."""
    names, size = (spec.model, spec.settings["against"]), spec.settings["batch_size"]
    train_images, train_labels, _ = trained.load_data(profile.dataset(spec.model), "train", size)
    steppers = {}
    for name in names:
        network = trained.build(profile, name).to(profile.device, memory_format=torch.channels_last)
        recipe = trained.recipe(profile, name)
        precision = best_precision(profile.device) if profile.precision == "auto" else profile.precision
        steppers[name] = TrainingStep(network, make_optimizers(network, recipe, precision), recipe, precision)
    batch = (train_images.to(profile.device).float() / 255).contiguous(memory_format=torch.channels_last), train_labels.to(profile.device)

    def block(name, steps):
        began = time.perf_counter()
        for _ in range(steps):
            loss, *_ = steppers[name](*batch, (None, None))
        loss.item()  # waits for the device
        return time.perf_counter() - began

    for name in names:
        block(name, 2)  # the first steps find their kernels and their memory
    once = max(block(name, 2) for name in names) / 2
    steps = max(2, min(50, int(0.3 / once)))
    ratios = sorted(block(spec.model, steps) / block(spec.settings["against"], steps) for _ in range(spec.settings["rounds"]))
    return {"ratio": ratios[len(ratios) // 2], "ratios": _rounded(ratios), "steps": steps}


KINDS = {function.__name__: function for function in (plane, superclass, repeated, scores, diagnosis, libraries, step_time)}
