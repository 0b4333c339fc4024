"""Attacks of the paper on any PyTorch classifier of images in [0, 1]: each takes an objective and returns an AttackResult."""

from mmclib.attacks.autoattack import autoattack
from mmclib.attacks.carlini_wagner import carlini_wagner
from mmclib.attacks.linf import mim, pgd, signed_step
from mmclib.attacks.multi_targeted import multi_targeted
from mmclib.attacks.objectives import OBJECTIVES
from mmclib.attacks.result import AttackResult
from mmclib.attacks.spsa import spsa
from mmclib.attacks.transformations import gaussian_noise, rotation

__all__ = ["OBJECTIVES", "AttackResult", "autoattack", "carlini_wagner", "gaussian_noise", "mim", "multi_targeted", "pgd", "rotation",
           "signed_step", "spsa"]
