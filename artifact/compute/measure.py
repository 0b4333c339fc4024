"""From a profile's evaluations to their receipts: look each up by its identity, else attack (or go on attacking) and write it."""

import statistics
import time
from dataclasses import replace

import torch

from artifact.compute import deeper, locks, origin, probes, trained
from artifact.experiment import Profile, model_identity, pack, read_receipt, unpack, write_receipt
from artifact.measurements.measurement import Measurement, num_classes, stands
from mmclib import attacks, evaluation
from mmclib.intervals import wilson_interval
from mmclib.seeds import derive


def evaluate(profile: Profile, spec: Measurement) -> dict:
    """The receipt of one evaluation: looked up, or computed (going on where an interrupted one stopped) and written."""
    origin.start(profile)
    path = spec.path(profile)
    if found := _found(profile, path):  # before the lock, which a record that cannot be written to does not grant
        return found
    with locks.only_one(path):
        if found := _found(profile, path):
            return found
        model = trained.ensure_model(profile, spec.model)
        images, labels, digest = trained.load_data(profile.dataset(spec.model), "test", spec.images)
        began = time.perf_counter()
        kind = "transfer" if spec.attack.startswith("transfer_") else spec.attack
        kind = "after" if "after" in spec.settings else kind
        run = {"clean": _clean, "after": _after, "transfer": _transfer, **probes.KINDS, **deeper.KINDS}.get(kind, _attack)
        partial = path.with_suffix(".partial")
        results = run(profile, spec, model.classifier, images, labels, partial=partial)
        receipt = {
            "identity": spec.identity(profile), "kind": "evaluation", "model": spec.model,
            "model_identity": model_identity(profile, spec.model),
            "checkpoint_sha256": model.receipt["results"]["checkpoint_sha256"],
            "data": {"name": profile.dataset(spec.model), "split": "test", "images": len(labels), "sha256": digest},
            "config": {"attack": spec.attack, "targeted": spec.targeted, "seed": profile.seed, **spec.settings},
            "results": results, "provenance": origin.provenance(profile, time.perf_counter() - began),
        }
        if "targets" in spec.settings:
            receipt["target_sha256"] = {name: trained.ensure_model(profile, name).receipt["results"]["checkpoint_sha256"]
                                        for name in spec.settings["targets"]}
        write_receipt(path, receipt)
        partial.unlink(missing_ok=True)
        return read_receipt(path)


def _found(profile: Profile, path) -> dict | None:
    # Of other weights than those that are there now it is work to do again: no table row may mix two networks.
    receipt = read_receipt(path) if path.exists() else None
    return receipt if receipt and stands(profile, receipt) else None


def summary(outcome: evaluation.Evaluation) -> dict:
    """What a receipt keeps of an evaluation: the numbers, and per image whether the true class was still predicted."""
    low, high = wilson_interval(int(outcome.correct.sum()), len(outcome.correct))
    return {"accuracy": outcome.accuracy, "interval": [low, high], "correct": pack(outcome.correct)}


def _clean(profile, spec, classifier, images, labels, *, partial) -> dict:
    return summary(evaluation.accuracy(classifier, images, labels, batch_size=profile.batch_size))


def _seed(profile: Profile, spec: Measurement) -> int:
    # The seed is the attack's, not the model's: every model meets the same random starts and targets.
    return derive(profile.seed, spec.attack, spec.settings.get("draw", 0))


def _after(profile, spec, classifier, images, labels, *, partial) -> dict:
    """An attack on the images that another one left, its number the worst case of both."""
    earlier = Measurement(spec.model, spec.settings["after"]["attack"], spec.images, settings=spec.settings["after"]["settings"])
    left = torch.from_numpy(unpack(evaluate(profile, earlier)["results"]["correct"], spec.images))
    own = {key: value for key, value in spec.settings.items() if key != "after"}
    kept = {"zero_gradients": 0.0, "queries": 0.0, "seconds": 0.0}
    if left.any():
        found = _attack(profile, replace(spec, settings=own), classifier, images[left], labels[left], partial=partial)
        kept = {key: found[key] for key in kept}
        left[left.clone()] = torch.from_numpy(unpack(found["correct"], int(left.sum())))
    low, high = wilson_interval(int(left.sum()), len(left))
    return {"accuracy": left.double().mean().item(), "interval": [low, high], "correct": pack(left)} | kept


def _attack(profile, spec, classifier, images, labels, *, partial) -> dict:
    hyper = {key: value for key, value in deeper.with_objective(spec.settings).items() if key != "draw"}
    targets = (
        evaluation.random_targets(labels, num_classes(profile, spec.model), seed=derive(profile.seed, "targets")) if spec.targeted else None
    )
    batch_size = profile.batch_size
    if spec.attack == "autoattack":  # which alone depends on its batch; what is kept is whole batches, and on a CPU 16 images take minutes
        batch_size = 16 if profile.device == "cpu" else 256
    outcome = evaluation.robust_accuracy(
        classifier, images, labels, getattr(attacks, spec.attack), targets=targets, seed=_seed(profile, spec),
        batch_size=batch_size, partial=partial, **hyper)
    kept = summary(outcome) | {"zero_gradients": outcome.zero_gradients, "queries": outcome.queries.double().mean().item(),
                               "seconds": round(outcome.seconds, 2)}
    if spec.attack == "carlini_wagner":  # the distortion is the result
        kept |= {"success": outcome.success.double().mean().item(),
                 "distortion": [round(value, 6) for value in outcome.distortion.where(outcome.success, 0).tolist()]}
    if spec.attack in ("fmn", "ddn"):  # those that are still correct have no adversarial; the others' distance is the result
        distances = [round(value, 6) for value in outcome.distortion.tolist()]
        found = [distance for distance, correct in zip(distances, outcome.correct.tolist(), strict=True) if not correct]
        kept |= {"distance": distances, "median_distance": statistics.median(found) if found else None,
                 "gradients": outcome.gradients.double().mean().item()}
    return kept


def _transfer(profile, spec, classifier, images, labels, *, partial) -> dict:
    attack = getattr(attacks, spec.attack.removeprefix("transfer_"))
    names = spec.settings["targets"]
    hyper = {key: value for key, value in spec.settings.items() if key != "targets"}
    targets = {name: trained.ensure_model(profile, name).classifier for name in names}
    outcomes = evaluation.transfer_row(classifier, targets, images, labels, attack, seed=_seed(profile, spec),
                                       batch_size=profile.batch_size, partial=partial, **hyper)
    return {"targets": {name: summary(outcome) for name, outcome in outcomes.items()}}
