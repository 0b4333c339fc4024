"""Attacks from the one that everybody runs to the strongest here, for `mmclib.evaluation.worst_case`."""

from collections.abc import Callable
from functools import partial

from mmclib.attacks.multi_targeted import multi_targeted
from mmclib.attacks.pgd import pgd
from mmclib.checks import check_setting


def ladder(epsilon: float = 8 / 255, steps: int = 50, classes: int = 9) -> dict[str, Callable]:
    """Name four l_inf attacks with their settings, each stronger than the one before it on MMC: PGD by cross-entropy, by the paper's
    L_Ada^{un,1} and by the margin L_Ada^{un,2} (App. B.4), in steps of epsilon / 4, and the margin towards each of the `classes`
    likeliest wrong classes (of ten, all).
    """
    classes = check_setting("classes", classes, 1, int)
    epsilon = check_setting("epsilon", epsilon, 0)
    climb = partial(pgd, epsilon=epsilon, step_size=epsilon / 4, steps=steps)
    return {
        "cross-entropy": partial(climb, objective="cross_entropy"),
        "away from the own center": partial(climb, objective="untargeted_1"),
        "margin": partial(climb, objective="margin"),
        f"margin, each of {classes} classes": partial(multi_targeted, epsilon=epsilon, steps=steps, classes=classes),
    }
