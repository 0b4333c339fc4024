"""AutoAttack (Croce & Hein, 2020) as its own package runs it, behind the same door as the attacks of this one."""

import torch

from mmclib.attacks.network import attacked
from mmclib.attacks.result import AttackResult, Best, check_attack


def autoattack(model, images, labels, *, targets=None, seed=0, epsilon=8 / 255, version="standard", batch_size=250) -> AttackResult:
    """Run the package `pyautoattack`: APGD on cross-entropy, targeted APGD, targeted FAB and Square, each on what the one before left.

    Images (N, C, H, W) in [0, 1], labels int64 (N,). The package draws for a whole batch at once, so of per-image seeds the first
    counts and the result depends on the batch. `queries` is the mean number of model calls per image, the same for all. Raises
    ValueError for bad input and ModuleNotFoundError, with the remedy, where the package is missing.
    """
    try:
        from pyautoattack import AutoAttack
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "attacks.autoattack runs the package pyautoattack, which is not installed: pip install pyautoattack"
        ) from None
    if targets is not None:
        raise ValueError("targets must be None: AutoAttack's targeted parts choose their own")
    check_attack(images, labels, None, epsilon=(epsilon, 0, float), batch_size=(batch_size, 1, int))
    seed = int(seed.flatten()[0] if isinstance(seed, torch.Tensor) else seed) % 2**31
    best, everyone = Best(images, labels, None), torch.arange(len(images), device=images.device)
    with attacked(model, "untargeted_2") as network:
        calls = 0

        class Counted(torch.nn.Module):  # the package looks for a module's parameters and mode
            def __init__(self):
                super().__init__()
                self.model = model

            def forward(self, inputs):
                nonlocal calls
                calls += len(inputs)
                return self.model(inputs)

        best.update(everyone, images, network.logits(images))
        theirs = AutoAttack(Counted(), norm="Linf", eps=epsilon, version=version, seed=seed, device=images.device)
        theirs.verbose = False
        found = theirs.run_standard_evaluation(images, labels, batch_size=batch_size)
        found = found[0] if isinstance(found, tuple) else found
        best.update(everyone, found.detach().to(images), network.logits(found.detach().to(images)))
    best.queries += calls // len(images)
    return best.result("linf", name="autoattack")
