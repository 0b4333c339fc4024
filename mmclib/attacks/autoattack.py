"""AutoAttack (Croce & Hein, 2020) as its own package runs it, behind the same door as the attacks of this one."""

import torch
from torch import Tensor, nn

from mmclib.attacks.door import begin
from mmclib.attacks.frozen import call
from mmclib.attacks.ledger import AttackResult
from mmclib.checks import check_setting
from mmclib.installing import installing


def autoattack(model: nn.Module, images: Tensor, labels: Tensor, *, targets: None = None, seed: int | Tensor = 0, epsilon: float = 8 / 255,
               version: str = "standard", batch_size: int = 250) -> AttackResult:
    """Run the package `pyautoattack`: APGD on cross-entropy, targeted APGD, targeted FAB and Square, each on what the one before left.

    Images (N, C, H, W) in [0, 1], labels int64 (N,). The package draws for a whole batch at once, so of per-image seeds the first
    counts and the result depends on the batch. `queries` is the mean number of model calls per image, the same for all. Raises
    ValueError for bad input and ModuleNotFoundError, with the remedy, where the package is missing.
    """
    try:
        from pyautoattack import AutoAttack
    except ModuleNotFoundError:
        raise ModuleNotFoundError("attacks.autoattack runs the package pyautoattack, which is not installed; install it with: "
                                  f"{installing('pyautoattack')}") from None
    if targets is not None:
        raise ValueError("targets must be None: AutoAttack's targeted parts choose their own")
    if version not in ("standard", "plus", "rand"):
        raise ValueError(f"version must be 'standard', 'plus' or 'rand', got {version!r}")
    epsilon, batch_size = check_setting("epsilon", epsilon, 0), check_setting("batch_size", batch_size, 1, int)
    with begin(model, images, labels, seed=seed) as (frozen, ledger, _):
        if ledger.classes < 4:
            raise ValueError(f"autoattack needs a model of at least 4 classes for its targeted losses, got {ledger.classes}; use pgd or "
                             "multi_targeted")
        originals = ledger.originals
        seed = int(seed.flatten()[0] if isinstance(seed, Tensor) else seed) % 2**31
        calls = 0

        class Counted(nn.Module):  # the package looks for a module's parameters and mode
            def __init__(self):
                super().__init__()
                self.model = model

            def forward(self, inputs):
                nonlocal calls
                calls += len(inputs)
                return call(self.model, inputs.to(originals.dtype)).to(inputs.dtype)

        ledger.update(ledger.everyone, originals, frozen.logits(originals))
        theirs = AutoAttack(Counted(), norm="Linf", eps=epsilon, version=version, seed=seed, device=originals.device)
        theirs.verbose = False
        for part in (theirs.apgd_targeted, theirs.fab):  # as many targets as there are other classes, at most the standard's nine
            part.n_target_classes = min(part.n_target_classes, ledger.classes - 1)
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)  # the package works in float32, but draws in whatever type is the default
        cuda = [originals.device] if originals.is_cuda else []
        try:
            with torch.random.fork_rng(cuda):  # it seeds torch's global generators
                found = theirs.run_standard_evaluation(originals.float(), ledger.labels, batch_size=batch_size)
        finally:
            torch.set_default_dtype(default)
        found = (found[0] if isinstance(found, tuple) else found).detach().to(originals)
        ledger.update(ledger.everyone, found, frozen.logits(found))
        ledger.queries += calls // len(originals)
        return ledger.result("linf", name="autoattack")
