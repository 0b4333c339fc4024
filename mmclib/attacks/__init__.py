"""Attacks of the paper on any PyTorch classifier of images in [0, 1]: each takes an objective and returns an AttackResult."""

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

# An image's outcome under these is its own, whatever else is in its batch. (AutoAttack's package draws for a whole batch at once.)
PER_IMAGE = frozenset({carlini_wagner, ddn, fmn, gaussian_noise, mim, multi_targeted, pgd, rotation, spsa})

__all__ = ["OBJECTIVES", "PER_IMAGE", "AttackResult", "ascend", "autoattack", "carlini_wagner", "ddn", "fmn", "gaussian_noise",
           "judged", "ladder", "mim", "multi_targeted", "pgd", "random_start", "rotation", "signed_step", "spsa"]
