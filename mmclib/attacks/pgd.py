"""Iterative l_inf attacks: PGD (Madry et al., 2018) and MIM (Dong et al., 2018)."""

from dataclasses import dataclass

from torch import Tensor, nn

from mmclib.attacks.climb import MomentumSteps, SignedSteps, climb, random_start, warn_if_short
from mmclib.attacks.door import begin
from mmclib.attacks.ledger import AttackResult
from mmclib.attacks.objectives import Objective
from mmclib.checks import check_setting


def pgd(model: nn.Module, images: Tensor, labels: Tensor, *, targets: Tensor | None = None, objective: Objective = "margin",
        seed: int | Tensor = 0, epsilon: float = 8 / 255, step_size: float = 2 / 255, steps: int = 10, restarts: int = 1,
        start: str = "random", stop_early: bool = True, precision: str = "float32") -> AttackResult:
    """Attack by projected gradient ascent on the objective within an l_inf ball; the best iterate by margin is kept.

    Images (N, C, H, W) in [0, 1], labels and targets int64 (N,), seed an integer or int64 (N,). Fooled images leave the batch,
    restarts try the survivors only. `start` is "random" or "clean". With stop_early=False every image takes every step and the
    last iterate is returned, as transfer attacks want it. Raises ValueError for bad input. Source: Madry et al., 2018;
    objectives: Appendix B.4.
    """
    plan = _plan("pgd", epsilon, step_size, steps, restarts, start, stop_early)
    with begin(model, images, labels, targets=targets, objective=objective, seed=seed, precision=precision) as (frozen, ledger, seeds):
        _restarts(frozen, ledger, seeds, plan, lambda start: SignedSteps(plan.epsilon, plan.step_size))
        return ledger.result("linf", name="pgd")


def mim(model: nn.Module, images: Tensor, labels: Tensor, *, targets: Tensor | None = None, objective: Objective = "margin",
        seed: int | Tensor = 0, epsilon: float = 8 / 255, step_size: float = 2 / 255, steps: int = 10, restarts: int = 1,
        start: str = "clean", stop_early: bool = True, precision: str = "float32", decay: float = 1.0) -> AttackResult:
    """Attack like `pgd`, stepping along the sign of a momentum over gradients divided by their mean absolute value.

    `decay` weighs the past (1.0 in the authors' code). A gradient of exactly zero adds nothing, where the bare formula would divide by
    zero. Raises ValueError for bad input. Source: Dong et al., 2018.
    """
    plan = _plan("mim", epsilon, step_size, steps, restarts, start, stop_early)
    decay = check_setting("decay", decay, 0)
    with begin(model, images, labels, targets=targets, objective=objective, seed=seed, precision=precision) as (frozen, ledger, seeds):
        _restarts(frozen, ledger, seeds, plan, lambda start: MomentumSteps(plan.epsilon, plan.step_size, decay, start))
        return ledger.result("linf", name="mim")


@dataclass(frozen=True)
class _Plan:
    epsilon: float
    step_size: float
    steps: int
    restarts: int
    start: str
    stop_early: bool


def _plan(name, epsilon, step_size, steps, restarts, start, stop_early):
    if start not in ("random", "clean"):
        raise ValueError(f"start must be 'random' or 'clean', got {start!r}")
    plan = _Plan(check_setting("epsilon", epsilon, 0), check_setting("step_size", step_size, 0), check_setting("steps", steps, 1, int),
                 check_setting("restarts", restarts, 1, int), start, stop_early)
    warn_if_short(name, plan.epsilon, plan.step_size, plan.steps)
    if plan.restarts > 1 and not (start == "random" and stop_early):
        raise ValueError(f"restarts={restarts} needs start='random' and stop_early=True; without them every restart is the same or wasted")
    return plan


def _restarts(frozen, ledger, seeds, plan, rule_from):
    """Climb `plan.restarts` times, each from a start of its own and with the rule that `rule_from(start)` makes."""
    if plan.start == "random" and plan.stop_early:
        ledger.update(ledger.everyone, ledger.originals, frozen.logits(ledger.originals))  # those wrong as they are need no attack
    for restart in range(plan.restarts):
        rows = ledger.unsolved() if plan.stop_early else ledger.everyone
        if len(rows) == 0:
            break
        current = ledger.originals[rows]
        if plan.start == "random":
            current = random_start(current, seeds[rows], plan.epsilon, restart)
        climb(frozen, ledger, rows, current, rule_from(current), plan.steps, stop_early=plan.stop_early)
