"""Attacks of the paper on any PyTorch classifier of images in [0, 1]: each takes an objective and returns an AttackResult.

A model is frozen while it is attacked, so one model is attacked in one thread at a time.
"""

from mmclib.attacks.autoattack import autoattack
from mmclib.attacks.carlini_wagner import carlini_wagner
from mmclib.attacks.climb import ascend, random_start, signed_step
from mmclib.attacks.ddn import ddn
from mmclib.attacks.fmn import fmn
from mmclib.attacks.judged import judged
from mmclib.attacks.ladder import ladder
from mmclib.attacks.ledger import AttackResult
from mmclib.attacks.multi_targeted import multi_targeted
from mmclib.attacks.objectives import OBJECTIVES
from mmclib.attacks.pgd import mim, pgd
from mmclib.attacks.spsa import spsa
from mmclib.attacks.transformations import gaussian_noise, rotation

# An image's outcome under these is its own, whatever else is in its batch: on a CPU to the bit, measured on this package's networks, on
# CUDA up to the rounding of its kernels. (AutoAttack's package draws for a whole batch at once.)
PER_IMAGE = frozenset({carlini_wagner, ddn, fmn, gaussian_noise, mim, multi_targeted, pgd, rotation, spsa})
# Those that look for the least distortion, which within no epsilon is found for almost every image.
LEAST_DISTORTION = frozenset({carlini_wagner, ddn, fmn})

__all__ = ["LEAST_DISTORTION", "OBJECTIVES", "PER_IMAGE", "AttackResult", "ascend", "autoattack", "carlini_wagner", "ddn", "fmn",
           "gaussian_noise", "judged", "ladder", "mim", "multi_targeted", "pgd", "random_start", "rotation", "signed_step", "spsa"]
