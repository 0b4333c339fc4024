"""The strong l_inf attack: margin ascent towards every wrong class in turn, with decaying steps and momentum, on the survivors only.

After the multi-targeted attack of Gowal et al. (2019); the momentum is that of APGD (Croce & Hein, 2020). The margin logit_t -
logit_y does not saturate and is blind to the logits' scale, so the huge distance logits of MMC mask nothing.
"""

import torch
from torch import Tensor, nn

from mmclib.attacks.climb import DecayingSteps, climb, random_start
from mmclib.attacks.door import begin
from mmclib.attacks.ledger import AttackResult
from mmclib.attacks.objectives import Objective, resolve, targeted_2
from mmclib.checks import check_setting

_CANDIDATES = 100  # classes that MALT's order looks at, as its authors' code does


def multi_targeted(model: nn.Module, images: Tensor, labels: Tensor, *, targets: None = None, objective: Objective = "targeted_2",
                   seed: int | Tensor = 0, epsilon: float = 8 / 255, steps: int = 50, classes: int = 9, restarts: int = 1,
                   order: str = "logits", precision: str = "float32") -> AttackResult:
    """Try to turn each image into each of its `classes` likeliest wrong classes, `steps` steps each, until any of them fools the
    model.

    Images (N, C, H, W) in [0, 1], labels int64 (N,). The attack is untargeted and chooses the targets itself: `targets` must be
    None, and the objective is one that takes targets. Steps decay from 2 epsilon to zero along a half cosine. `order` says which class
    is likeliest: the one of the largest logit ("logits"), or ("malt", for one gradient a wrong class) the one that is nearest if logits
    were linear, by the gap over the l_1 norm of its gradient (Melamed et al., 2024). Raises ValueError for bad input.
    """
    if order not in ("logits", "malt"):
        raise ValueError(f"order must be 'logits' or 'malt', got {order!r}")
    if targets is not None:
        raise ValueError("targets must be None: multi_targeted tries the wrong classes itself; for given targets use pgd")
    epsilon, steps = check_setting("epsilon", epsilon, 0), check_setting("steps", steps, 1, int)
    classes, restarts = check_setting("classes", classes, 1, int), check_setting("restarts", restarts, 1, int)
    objective = resolve(objective, labels)  # there will be targets
    with begin(model, images, labels, objective=objective, seed=seed, precision=precision) as (frozen, ledger, seeds):
        logits = frozen.logits(ledger.originals)
        ledger.update(ledger.everyone, ledger.originals, logits)
        # the label comes last, behind classes whose logit is minus infinity, and is left out
        others = logits.clamp(min=torch.finfo(logits.dtype).min).scatter(1, ledger.labels[:, None], -torch.inf)
        ranked = others.argsort(dim=1, descending=True, stable=True)[:, :-1]
        if order == "malt":
            ranked = _nearest_first(frozen, ledger, ranked[:, :_CANDIDATES])
        tries = min(classes, ranked.shape[1])
        for number in range(restarts * tries):
            rows = ledger.unsolved()
            if len(rows) == 0:
                break
            current = random_start(ledger.originals[rows], seeds[rows], epsilon, number)
            climb(frozen, ledger, rows, current, DecayingSteps(epsilon, steps, current), steps, goals=ranked[rows, number % tries])
        return ledger.result("linf", name="multi_targeted")


def _nearest_first(frozen, ledger, ranked):
    """Each unsolved image's classes (N, M) by the l_inf way to them, were the logits linear (MALT; Melamed et al., 2024, Sec. 4)."""
    rows = ledger.unsolved()
    if len(rows) == 0:
        return ranked
    linear, own = frozen.climbing(targeted_2), ledger.labels[rows]
    ways = torch.full(ranked[rows].shape, torch.inf, dtype=ledger.margin.dtype, device=rows.device)
    for place in range(ranked.shape[1]):
        _, values, gradients = linear.gradients(ledger.originals[rows], own, ranked[rows, place])
        ledger.queries[rows] += 1
        ledger.count_gradients(rows, gradients)
        ways[:, place] = -values / gradients.flatten(1).abs().sum(1).clamp_(min=torch.finfo(values.dtype).tiny)
    ranked = ranked.clone()
    ranked[rows] = ranked[rows].gather(1, ways.argsort(dim=1, stable=True))
    return ranked
