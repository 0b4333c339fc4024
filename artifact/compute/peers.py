"""The field's libraries on a model of this package, called as their users call them: what each reports, and what it takes to see."""

import torch

from artifact.measurements.measurement import LIBRARIES
from mmclib import attacks, evaluation
from mmclib.attacks.objectives import untargeted_2


def reports(model, images, labels, *, epsilon, step_size, steps, once=lambda name, make: make()) -> dict[str, float | str]:
    """Accuracy of `model` on float images in [0, 1] (N, C, H, W) as each library's PGD finds it, by name; a text where one is missing.

    Libraries run with the losses they come with, and once each with the margin where they let one choose the loss. `once` may keep what
    `make` returns by name, and return it again in a later call.
    """
    def accuracy(attack):
        return evaluation.accuracy(model, attack().detach().clamp(0, 1), labels).accuracy

    left = {"no attack": evaluation.accuracy(model, images, labels).accuracy}
    for package, run in _RUNS.items():
        try:
            for name, attack in run(model, images, labels, epsilon, step_size, steps).items():
                left[name] = once(name, lambda attack=attack: accuracy(attack))
        except ModuleNotFoundError:
            left[package] = "not installed"
    for objective in ("cross_entropy", "untargeted_2"):
        left[f"mmclib, pgd, {objective}"] = evaluation.robust_accuracy(
            model, images, labels, attacks.pgd, objective=objective, epsilon=epsilon, step_size=step_size, steps=steps).accuracy
    return left


def _foolbox(model, images, labels, epsilon, step_size, steps):
    import eagerpy
    import foolbox

    class MarginPGD(foolbox.attacks.LinfPGD):
        def get_loss_fn(self, wrapped, own):
            return lambda inputs: eagerpy.astensor(untargeted_2(None, wrapped(inputs).raw, own.raw, None).sum())

    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=images.device)

    def run(attack):
        torch.manual_seed(0)
        return attack(abs_stepsize=step_size, steps=steps)(wrapped, images, labels, epsilons=epsilon)[1]
    return {"foolbox, LinfPGD": lambda: run(foolbox.attacks.LinfPGD), "foolbox, LinfPGD with the margin": lambda: run(MarginPGD)}


def _torchattacks(model, images, labels, epsilon, step_size, steps):
    import torchattacks

    def run():
        torch.manual_seed(0)
        return torchattacks.PGD(model, eps=epsilon, alpha=step_size, steps=steps)(images, labels)
    return {"torchattacks, PGD": run}


def _pyautoattack(model, images, labels, epsilon, step_size, steps):
    from pyautoattack import AutoAttack

    def run(name):
        attack = AutoAttack(model, norm="Linf", eps=epsilon, version="custom", attacks=[name], seed=0, device=images.device)
        attack.verbose = False
        found = attack.run_standard_evaluation(images, labels)
        return found[0] if isinstance(found, tuple) else found
    return {f"pyautoattack, {name}": lambda name=name: run(name) for name in ("apgd-ce", "apgd-t")}


_RUNS = dict(zip(LIBRARIES, (_foolbox, _torchattacks, _pyautoattack), strict=True))
