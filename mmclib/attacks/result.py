"""What an attack is given (checked) and what it returns (measured in full precision)."""

import warnings
from dataclasses import dataclass

import torch

from mmclib.attacks.objectives import best_other, logit_of
from mmclib.checks import check_images, check_labels

MASKED = 0.05  # a larger share of exactly zero gradients draws a warning


class GradientMaskingWarning(UserWarning):
    """Too many input gradients are exactly zero: what looks like robustness is likely their absence."""


@dataclass(frozen=True)
class AttackResult:
    """The outcome of an attack on N images; all tensors have N rows."""

    images: torch.Tensor  # (N, C, H, W) in [0, 1]: the best adversarial found, the closest try where none was
    success: torch.Tensor  # bool: classified as the target, or without targets as anything but the label
    fooled: torch.Tensor  # bool: not classified as the true label (what robust accuracy counts)
    distortion: torch.Tensor  # in the attack's own norm, against the originals
    norm: str  # "linf", "l2" or "degrees"
    queries: torch.Tensor  # int64: images sent through the model (with or without a backward pass)
    gradients: torch.Tensor  # int64: input gradients taken, 0 where none was needed or the attack takes none
    vanished: torch.Tensor  # int64: those of them that are exactly zero
    vanished_first: torch.Tensor  # bool: the first one is exactly zero
    finite: bool  # all images, and all logits met on the way, are finite

    @property
    def zero_gradients(self) -> float:
        """Share of the attacked images whose first input gradient is exactly zero."""
        return self.vanished_first.sum().item() / max(1, (self.gradients > 0).sum().item())

    @property
    def zero_gradients_overall(self) -> float:
        """Share of all input gradients taken that are exactly zero."""
        return self.vanished.sum().item() / max(1, self.gradients.sum().item())

    @property
    def total_queries(self) -> int:
        """Images sent through the model by the whole attack."""
        return int(self.queries.sum())


def warn_if_masked(first, overall, name):
    """Warn that gradients vanish when more than 5 % are exactly zero, at the first step or overall."""
    if max(first, overall) > MASKED:
        message = (
            f"{name}: the input gradient is exactly zero for {first:.0%} of the attacked images at the first step "
            f"and {overall:.0%} of all steps;"
            " robustness measured this way is likely gradient masking: try objective='untargeted_2' or 'targeted_2'"
        )
        warnings.warn(message, GradientMaskingWarning, stacklevel=3)


def check_attack(images, labels, targets, **hyper):
    """Check an attack's inputs before any work: images, the form of labels and targets, hyper-parameters (name=(value, lowest,
    what it is)).

    Raises ValueError that names the argument, what it is and what was expected.
    """
    check_images(images)
    check_labels(labels, 2**62, count=len(images))
    if targets is not None:
        check_labels(targets, 2**62, "targets", count=len(images))
        if bool((targets == labels).any()):
            same = int((targets == labels).nonzero()[0])
            raise ValueError(f"targets must differ from labels, but image {same} has both equal to {int(labels[same])}")
    for name, (value, low, kind) in hyper.items():
        if kind is int and (isinstance(value, bool) or not isinstance(value, int)):
            raise ValueError(f"{name} must be an integer of at least {low}, got {value!r}")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not (low <= value < float("inf")):
            raise ValueError(f"{name} must be a finite number of at least {low}, got {value!r}")


class Best:
    """The best try per image so far: classified as asked beats merely fooled beats the larger margin."""

    def __init__(self, images, labels, targets):
        self.originals, self.labels, self.targets = images, labels, targets
        count, device = len(images), images.device
        self.images = images.clone()
        self.rank = torch.full((count,), -1, device=device)  # 2 success, 1 fooled only (targeted), 0 neither, -1 not yet seen
        self.margin = torch.full((count,), -torch.inf, device=device)
        self.queries = torch.zeros(count, dtype=torch.int64, device=device)
        self.gradients, self.vanished = torch.zeros_like(self.queries), torch.zeros_like(self.queries)
        self.vanished_first = torch.zeros(count, dtype=torch.bool, device=device)
        self.finite = True

    def judge(self, rows, logits):
        """Return rank and margin of logits (n, L) for the images numbered `rows`; logits that are not finite never count as
        fooled.

        Raises ValueError for labels or targets outside the model's classes.
        """
        labels = self.labels[rows]
        check_labels(self.labels, logits.shape[1])
        fooled = logits.argmax(1) != labels
        if self.targets is None:
            margin, success = best_other(logits, labels) - logit_of(logits, labels), fooled
        else:
            check_labels(self.targets, logits.shape[1], "targets")
            targets = self.targets[rows]
            margin, success = logit_of(logits, targets) - best_other(logits, targets), logits.argmax(1) == targets
        finite = logits.isfinite().all(1)
        self.finite = self.finite and bool(finite.all())
        rank = torch.where(success, 2, fooled.long()) * finite
        return rank, margin.float().nan_to_num(nan=-torch.inf)

    def update(self, rows, images, logits):
        """Take over the tries that are better than what is known; return which of them are a success."""
        rank, margin = self.judge(rows, logits)
        self.queries[rows] += 1
        better = (rank > self.rank[rows]) | ((rank == self.rank[rows]) & (margin > self.margin[rows]))
        self.replace(rows[better], images[better], rank[better], margin[better])
        return rank == 2

    def replace(self, rows, images, rank, margin):
        """Set the images numbered `rows` to these, whatever was there."""
        self.images[rows], self.rank[rows], self.margin[rows] = images, rank, margin

    def count_gradients(self, rows, gradients, times=None):
        """Book one gradient per image; return which are exactly zero."""
        zero = gradients.flatten(1).abs().amax(1) == 0
        self.vanished_first[rows] |= zero & (self.gradients[rows] == 0)
        self.gradients[rows] += 1
        self.vanished[rows] += zero
        return zero

    def result(self, norm, distortion=None, name="attack") -> AttackResult:
        """Close the books."""
        difference = (self.images - self.originals).flatten(1)
        if distortion is None:
            distortion = difference.abs().amax(1) if norm == "linf" else difference.norm(dim=1)
        outcome = AttackResult(
            self.images, self.rank == 2, self.rank >= 1, distortion, norm, self.queries, self.gradients, self.vanished,
            self.vanished_first, self.finite and bool(self.images.isfinite().all()),
        )
        warn_if_masked(outcome.zero_gradients, outcome.zero_gradients_overall, name)
        return outcome
