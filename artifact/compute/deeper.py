"""The verdict's deeper measurements: margins of features, indicators of attack failure, and attacks at equal passes.

Each takes what artifact.compute.measure gives every evaluation and returns what its receipt keeps.
"""

import torch

from artifact.compute.pieces import Pieces
from artifact.experiment import pack
from mmclib import attacks, evaluation
from mmclib.attacks import indicators as raised
from mmclib.attacks.objectives import divided, divided_by_gap
from mmclib.counter import image_seeds
from mmclib.fingerprints import fingerprint
from mmclib.intervals import wilson_interval
from mmclib.margins import feature_margin as margin_of
from mmclib.seeds import derive


def with_objective(settings: dict) -> dict:
    """An attack's settings as its function takes them: `divide_logits` (a number, or "gap") made part of the objective."""
    settings = dict(settings)
    by = settings.pop("divide_logits", None)
    if by is not None:
        settings["objective"] = divided_by_gap(settings["objective"]) if by == "gap" else divided(settings["objective"], by)
    return settings


def _prepared(profile, images, labels):
    return images.to(profile.device).float() / 255, labels.to(profile.device)


def _rounded(values) -> list[float]:
    return [float(f"{value:.5g}") for value in values.tolist()]


@torch.no_grad()
def feature_margin(profile, spec, classifier, images, labels, *, partial) -> dict:
    """The exact margins of the clean images' features, and how far features lie from their mean (root mean square), their unit."""
    pixels, own = _prepared(profile, images, labels)
    features = torch.cat([classifier.features(part).double() for part in pixels.split(500)])
    spread = (features - features.mean(0)).square().sum(1).mean().sqrt().item()
    found = margin_of(classifier.head, features, own)
    correct = evaluation.accuracy(classifier, images, labels).correct
    low, high = wilson_interval(int(correct.sum()), len(correct))
    return {"accuracy": correct.double().mean().item(), "interval": [low, high], "correct": pack(correct), "margin": _rounded(found),
            "spread": float(f"{spread:.5g}")}


def stability(profile, spec, classifier, images, labels, *, partial) -> dict:
    """Where the margin of an image jumps between random points near it: no attack that follows gradients is evidence there."""
    pixels, own = _prepared(profile, images, labels)
    flags = raised.unstable_predictions(classifier, pixels, own, seed=derive(profile.seed, "stability"), **spec.settings)
    return {"raised": {"unstable_predictions": pack(flags)}}


def indicators(profile, spec, classifier, images, labels, *, partial) -> dict:
    """Indicators of attack failure of one rung: of its gradients, of its own path with all steps taken, and without bounds.

    A silent success is an adversarial on the path; it is one only where the rung, in its own receipt, did not return it.
    """
    pixels, own = _prepared(profile, images, labels)
    hyper = with_objective(spec.settings)
    attack = hyper.pop("of")
    seed = derive(profile.seed, attack, 0)  # that of the rung itself
    climb = {key: hyper[key] for key in ("epsilon", "steps")} | {"seed": seed}
    if attack == "multi_targeted":  # towards the likeliest wrong class
        with torch.no_grad():
            logits = torch.cat([classifier(part) for part in pixels.split(500)])
        aim = {"targets": logits.scatter(1, own[:, None], -torch.inf).argmax(1), "objective": "targeted_2"}
        steps = {"step_size": None}
        unbounded = {"attack": attacks.multi_targeted, **hyper, "epsilon": 1.0}
    else:
        aim = {"objective": hyper["objective"]}
        steps = {"step_size": hyper["step_size"], "restart": hyper["restarts"] - 1}  # its last try
        unbounded = aim

    def along_its_path():
        path = raised.record_path(classifier, pixels, own, **aim, **steps, **climb)
        none = torch.zeros(len(own), dtype=torch.bool)  # if the rung returned none
        return {"silent_success": pack(raised.silent_success(path.margins, none)),
                "incomplete_optimisation": pack(raised.incomplete_optimisation(path.losses))}

    def without_bounds():
        return {"unbounded_failure": pack(raised.unbounded_failure(classifier, pixels, own, seed=seed, **unbounded))}

    pieces = Pieces(partial, fingerprint(classifier, images, labels))
    blind = raised.unavailable_gradients(classifier, pixels, own, **aim)
    return {"raised": {"unavailable_gradients": pack(blind), **pieces.once("path", along_its_path),
                       **pieces.once("unbounded", without_bounds)}}


def matched(profile, spec, classifier, images, labels, *, partial) -> dict:
    """One attack at epsilon and its halves, within a budget of passes: per image the least that fooled it, and the passes at epsilon."""
    hyper = with_objective(spec.settings)
    attack, epsilons, _ = getattr(attacks, hyper.pop("of")), hyper.pop("epsilons"), hyper.pop("budget")
    seeds, step_size = image_seeds(derive(profile.seed, attack.__name__, 0), len(labels)), hyper.pop("step_size", None)
    rows, least = torch.arange(len(labels)), torch.full((len(labels),), torch.inf, dtype=torch.float64)
    for epsilon in epsilons:  # what is not fooled in a ball is tried in no smaller one
        if len(rows) == 0:
            break
        own = {} if step_size is None else {"step_size": step_size * epsilon / epsilons[0]}
        outcome = evaluation.robust_accuracy(
            classifier, images[rows], labels[rows], attack, seed=seeds[rows], epsilon=epsilon, batch_size=profile.batch_size,
            partial=partial if epsilon == epsilons[0] else None, **own, **hyper)
        if epsilon == epsilons[0]:
            first, passes = outcome, outcome.queries + outcome.gradients
        rows = rows[~outcome.correct]
        least[rows] = epsilon
    least[~evaluation.accuracy(classifier, images, labels).correct] = 0
    low, high = wilson_interval(int(first.correct.sum()), len(labels))
    return {"accuracy": first.accuracy, "interval": [low, high], "correct": pack(first.correct), "zero_gradients": first.zero_gradients,
            "least": [None if value == torch.inf else value for value in least.tolist()],
            "passes": passes.tolist(), "spent": passes.double().mean().item()}


KINDS = {function.__name__: function for function in (feature_margin, stability, indicators, matched)}
