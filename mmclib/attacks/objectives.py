"""What an attack maximises: functions (features, logits, labels, targets) -> one value per image.

The logits of the distance heads are -L_MMC(z, l), so the adaptive objectives of Appendix B.4 are functions of logits and work on
any classifier. A constant added to all logits leaves every gradient as it is.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "OBJECTIVES", "Objective", "best_other", "cross_entropy", "divided", "divided_by_gap", "logit_of", "margin", "probability_margin",
    "resolve", "spread", "success_margin", "targeted_1", "targeted_2", "untargeted_1", "untargeted_2",
]

Objective = str | Callable[..., torch.Tensor]  # a name in OBJECTIVES, or a function as below
_LEFT_OUT, _ORDINARY = 1e3, 5.0


def logit_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Pick each row's logit of its label, (N,)."""
    return logits.gather(1, labels[:, None]).squeeze(1)


def best_other(logits: Tensor, labels: Tensor) -> Tensor:
    """Return each row's largest logit of a class other than its label, (N,); masked by -inf, so negative logits are no trap."""
    return logits.scatter(1, labels[:, None], -torch.inf).amax(1)


def spread(logits: Tensor) -> Tensor:
    """How far each row's logits reach below its largest one, (N,): those of classes left out, by minus infinity or by a large negative
    number, do not count, and plus infinity has no distance to others.

    A class is left out where its logit lies a thousand times farther below than the one above it, than the two largest are from 0, and
    than 5, so that logits around a largest one of 0 are ordinary. Where one class competes alone, the others are not left out.
    """
    lowest = torch.where(logits.isfinite(), logits, torch.inf).amin(1)
    known = logits.masked_fill(~logits.isfinite(), -torch.inf)
    first, second = known.topk(2, 1).values.unbind(1)
    reach = (first - lowest).clamp(min=0)
    size = torch.maximum(first.abs(), second.abs().masked_fill(second.isinf(), 0)).clamp(min=_ORDINARY)
    far = (reach > _LEFT_OUT * size).nonzero().squeeze(1)  # so large a step needs such a reach
    if len(far):
        below = first[far, None] - known[far].sort(1, descending=True).values
        step = below[:, 1:] > _LEFT_OUT * torch.maximum(below[:, :-1], size[far, None])
        last = torch.where(step.any(1), step.int().argmax(1), below.shape[1] - 1)
        reach[far] = below.gather(1, last[:, None]).squeeze(1)
    return reach


def cross_entropy(features: Tensor | None, logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    """Cross-entropy of the true label, or minus that of the target where one is given (Goodfellow et al., 2015)."""
    if targets is None:
        return F.cross_entropy(logits, labels, reduction="none")
    return -F.cross_entropy(logits, targets, reduction="none")


def untargeted_1(features: Tensor | None, logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    """Move away from the own center: L_MMC(z, y) = -logit_y (L_Ada^{un,1}, negated because attacks maximise)."""
    return -logit_of(logits, labels)


def untargeted_2(features: Tensor | None, logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    """Close in on the nearest other center: logit_other - logit_y (L_Ada^{un,2}); positive when fooled."""
    return best_other(logits, labels) - logit_of(logits, labels)


def targeted_1(features: Tensor | None, logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Move to the target's center: logit_t (L_Ada^{tar,1})."""
    return logit_of(logits, targets)


def targeted_2(features: Tensor | None, logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Move from the own center to the target's: logit_t - logit_y (L_Ada^{tar,2})."""
    return logit_of(logits, targets) - logit_of(logits, labels)


def margin(features: Tensor | None, logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    """The margin of Appendix B.4, whichever is meant: untargeted_2 without targets, targeted_2 with them."""
    return untargeted_2(features, logits, labels, targets) if targets is None else targeted_2(features, logits, labels, targets)


def success_margin(features: Tensor | None, logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    """Carlini & Wagner's own f, negated: logit_t - max_{l != t} logit_l with targets, else untargeted_2; positive on success, zero
    on a tie, where the lower class's number decides.

    It differs from targeted_2 where a third class leads: targeted_2 may be positive without the image being classified as the
    target.
    """
    if targets is None:
        return untargeted_2(features, logits, labels, targets)
    return logit_of(logits, targets) - best_other(logits, targets)


def probability_margin(features: Tensor | None, logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    """The margin of the softmax's probabilities, in [-1, 1]: p_other - p_y, or p_t - p_y with targets (PMA, arXiv 2411.15210).

    Blind where the softmax saturates, as cross-entropy is.
    """
    return margin(features, logits.softmax(1), labels, targets)


def divided(objective: Objective, by: float) -> Callable[..., Tensor]:
    """Return the objective on logits divided by `by`: what saturates in the softmax at one scale has gradients at another."""
    _check_known(objective)

    def on_divided_logits(features, logits, labels, targets):
        return resolve(objective, targets)(features, logits / by, labels, targets)
    return on_divided_logits


def divided_by_gap(objective: Objective) -> Callable[..., Tensor]:
    """Return the objective on logits divided per image by the gap between their largest two, so that no softmax saturates.

    The divisor is a constant of the gradient. It stands for the scale that T-MIFPE (arXiv 2507.22428) searches: at a gap of 1 float32
    loses nothing.
    """
    _check_known(objective)

    def on_logits_of_gap_1(features, logits, labels, targets):
        first, second = logits.detach().topk(2, dim=1).values.unbind(1)
        gap = first - second
        usable = gap.isfinite() & (gap > 0)  # two equal logits, or all but one left out, give no scale
        return resolve(objective, targets)(features, logits / torch.where(usable, gap, 1)[:, None], labels, targets)
    return on_logits_of_gap_1


OBJECTIVES: dict[str, Callable[..., Tensor]] = {
    f.__name__: f for f in (margin, cross_entropy, untargeted_1, untargeted_2, targeted_1, targeted_2, success_margin, probability_margin)}


def resolve(objective: Objective, targets: Tensor | None) -> Callable[..., Tensor]:
    """Return the objective function for a name or callable.

    Raises ValueError for an unknown name, or for an objective that needs targets when there are none (or the reverse).
    """
    _check_known(objective)
    if callable(objective):
        return objective
    if objective.startswith("targeted") and targets is None:
        raise ValueError(f"objective {objective!r} needs targets, but targets is None")
    if objective.startswith("untargeted") and targets is not None:
        raise ValueError(f"objective {objective!r} is untargeted, but targets were given; use targeted_1, targeted_2 or cross_entropy")
    return OBJECTIVES[objective]


def _check_known(objective):
    if not callable(objective) and objective not in OBJECTIVES:
        raise ValueError(f"objective must be a callable or one of {', '.join(OBJECTIVES)}, got {objective!r}")
