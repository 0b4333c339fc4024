"""The field's libraries on a model of this package, called as their users call them: what each reports, and what it takes to see."""

import torch

from mmclib import attacks, evaluation
from mmclib.attacks.objectives import untargeted_2


def reports(model, images, labels, *, epsilon, step_size, steps) -> dict[str, float | str]:
    """Accuracy of `model` on float images in [0, 1] (N, C, H, W) as each library's PGD finds it, by name; a text where one is missing.

    Libraries run with the losses they come with, and once each with the margin where they let one choose the loss.
    """
    left = {"no attack": evaluation.accuracy(model, images, labels).accuracy}
    for run in (_foolbox, _torchattacks, _autoattack):
        try:
            for name, found in run(model, images, labels, epsilon, step_size, steps):
                left[name] = evaluation.accuracy(model, found.detach().clamp(0, 1), labels).accuracy
        except ModuleNotFoundError:
            left[run.__name__.strip("_")] = "not installed"
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
    for name, attack in (("foolbox, LinfPGD", foolbox.attacks.LinfPGD), ("foolbox, LinfPGD with the margin", MarginPGD)):
        torch.manual_seed(0)
        yield name, attack(abs_stepsize=step_size, steps=steps)(wrapped, images, labels, epsilons=epsilon)[1]


def _torchattacks(model, images, labels, epsilon, step_size, steps):
    import torchattacks
    torch.manual_seed(0)
    yield "torchattacks, PGD", torchattacks.PGD(model, eps=epsilon, alpha=step_size, steps=steps)(images, labels)


def _autoattack(model, images, labels, epsilon, step_size, steps):
    from pyautoattack import AutoAttack
    for name in ("apgd-ce", "apgd-t"):
        attack = AutoAttack(model, norm="Linf", eps=epsilon, version="custom", attacks=[name], seed=0, device=images.device)
        attack.verbose = False
        found = attack.run_standard_evaluation(images, labels)
        yield f"pyautoattack, {name}", found[0] if isinstance(found, tuple) else found
