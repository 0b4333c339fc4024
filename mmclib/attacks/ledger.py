"""What an attack returns, and the ledger it keeps on the way: the best try, queries and gradients of each image."""

import math
from dataclasses import dataclass

import torch

from mmclib import checks
from mmclib.attacks.objectives import best_other, logit_of, spread

MASKED = 0.05  # a larger share of exactly zero gradients draws a warning
# Margin demanded of a minimal distortion, relative to the spread of the logits: other kernels' rounding must not undo a success.
_SLACK = 1e-5


class GradientMaskingWarning(UserWarning):
    """Too many input gradients are exactly zero: what looks like robustness is likely their absence."""


class GradientShares:
    """How many gradients vanished, of whatever has `gradients`, `vanished` and `vanished_first`."""

    gradients: torch.Tensor
    vanished: torch.Tensor
    vanished_first: torch.Tensor

    @property
    def zero_gradients(self) -> float:
        """Share of the attacked images whose first input gradient is exactly zero."""
        return self.vanished_first.sum().item() / max(1, (self.gradients > 0).sum().item())

    @property
    def zero_gradients_overall(self) -> float:
        """Share of all input gradients taken that are exactly zero."""
        return self.vanished.sum().item() / max(1, self.gradients.sum().item())

    @property
    def masked(self) -> bool:
        """Whether more than 5 % are exactly zero, at the first step or overall: what looks like robustness is likely their absence."""
        return max(self.zero_gradients, self.zero_gradients_overall) > MASKED


@dataclass(frozen=True, repr=False, eq=False)
class AttackResult(GradientShares):
    """The outcome of an attack on N images; all tensors have N rows, and none is part of a graph."""

    images: torch.Tensor  # (N, C, H, W) in [0, 1], float32 (float64 for such a model): the best adversarial, else the closest try
    success: torch.Tensor  # bool: classified as the target, or without targets as anything but the label
    fooled: torch.Tensor  # bool: not classified as the true label (what robust accuracy counts)
    distortion: torch.Tensor  # in the attack's own norm, against the originals in the type of `images`
    norm: str  # "linf", "l2" or "degrees"
    queries: torch.Tensor  # int64: images sent through the model (with or without a backward pass)
    # int64: input gradients taken or estimated, and those of steps that an image without any (all zero) could not take; 0 where none was
    # needed or the attack takes none
    gradients: torch.Tensor
    vanished: torch.Tensor  # int64: those of them that are exactly zero
    vanished_first: torch.Tensor  # bool: the first one is exactly zero
    finite: bool  # no logit met on the way was NaN; minus infinity is an ordinary logit, that of a class left out

    def __repr__(self) -> str:
        return (f"AttackResult({len(self.images)} images, {int(self.fooled.sum())} fooled, {self.norm}, "
                f"{int(self.gradients.sum())} gradients, {100 * self.zero_gradients_overall:.0f} % zero)")


def warn_if_masked(outcome: GradientShares, name: str) -> None:
    """Warn that gradients vanish when more than 5 % are exactly zero, at the first step or overall."""
    first, overall = outcome.zero_gradients, outcome.zero_gradients_overall
    if outcome.masked:
        checks.warn(
            f"{name}: the input gradient is exactly zero for {first:.0%} of the attacked images at the first step "
            f"and {overall:.0%} of all steps;"
            " robustness measured this way is likely gradient masking: try objective='untargeted_2' or 'targeted_2'",
            GradientMaskingWarning)


class Ledger:
    """The best try per image so far: classified as asked beats merely fooled beats the larger margin."""

    def __init__(self, images, labels, targets, classes=None):
        self.originals, self.labels, self.targets, self.classes = images, labels, targets, classes
        count, device = len(images), images.device
        self.everyone = torch.arange(count, device=device)
        self.images = images.clone()
        self.rank = torch.full((count,), -1, device=device)  # 2 success, 1 fooled only (targeted), 0 neither, -1 none but NaN seen
        self.margin = torch.full((count,), -torch.inf, dtype=images.dtype, device=device)
        self.queries = torch.zeros(count, dtype=torch.int64, device=device)
        self.gradients, self.vanished = torch.zeros_like(self.queries), torch.zeros_like(self.queries)
        self.vanished_first = torch.zeros(count, dtype=torch.bool, device=device)
        self.met_nan = torch.zeros((), dtype=torch.bool, device=device)

    def unsolved(self):
        """Numbers of the images that are no success yet."""
        return (self.rank < 2).nonzero().squeeze(1)

    def judge(self, rows, logits):
        """Return rank and margin of logits (n, L) for the images numbered `rows`; NaN is no answer, and has the rank -1."""
        labels, predicted = self.labels[rows], logits.argmax(1)
        fooled = predicted != labels
        if self.targets is None:
            margin, success = best_other(logits, labels) - logit_of(logits, labels), fooled
        else:
            targets = self.targets[rows]
            margin, success = logit_of(logits, targets) - best_other(logits, targets), predicted == targets
        nan = logits.isnan().any(1)
        self.met_nan |= nan.any()
        rank = torch.where(success, 2, fooled.long()).masked_fill_(nan, -1)
        return rank, margin.to(self.margin.dtype).nan_to_num(nan=-torch.inf)

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

    def take(self, rows, images, logits):
        """Take over these tries whatever was there, but for those whose logits are NaN."""
        rank, margin = self.judge(rows, logits)
        self.queries[rows] += 1
        known = rank >= 0
        self.replace(rows[known], images[known], rank[known], margin[known])

    def look_at_originals(self, logits, least=0.0):
        """For attacks that minimise distortion: book the originals, whose distance is 0 where they are a success as they are.

        Returns the numbers of the images to attack.
        """
        self.queries += 1
        self.rank, margin = self.judge(self.everyone, logits)
        done = (self.rank == 2) & (margin > least + _slack(logits))
        self.rank = torch.where(done, 2, self.rank.clamp(max=1))
        self.distance = torch.full_like(self.margin, torch.inf).masked_fill_(done, 0)
        return (~done).nonzero().squeeze(1)

    def keep_closer(self, rows, images, logits, distance, least=0.0):
        """For attacks that minimise distortion: take over successes that are closer than what is known; return which are successes.

        A success has a margin above `least` and rounding. `distance` (n,) is whatever grows with the distortion.
        """
        rank, margin = self.judge(rows, logits)
        success = (rank == 2) & (margin > least + _slack(logits))
        closer = success & (distance < self.distance[rows])
        self.distance[rows[closer]] = distance[closer]
        self.replace(rows[closer], images[closer], rank[closer], margin[closer])
        return success

    def confirmed(self, frozen, rows, current, logits):
        """Recompute in full precision the logits of tries that look like a success in a lower one."""
        if frozen.precision != "float32":
            hit = self.judge(rows, logits)[0] > 0
            if bool(hit.any()):
                logits = logits.to(self.margin.dtype)
                logits[hit] = frozen.logits(current[hit])
                self.queries[rows[hit]] += 1
        return logits

    def count_gradients(self, rows, gradients):
        """Book one gradient per image; return which are exactly zero."""
        zero = gradients.flatten(1).abs().amax(1) == 0
        self.vanished_first[rows] |= zero & (self.gradients[rows] == 0)
        self.gradients[rows] += 1
        self.vanished[rows] += zero
        return zero

    def give_up(self, rows, steps):
        """Book the gradients of images that will not move any more as if the remaining steps had been taken."""
        self.gradients[rows] += steps
        self.vanished[rows] += steps

    def result(self, norm, distortion=None, name="attack", epsilon=math.inf) -> AttackResult:
        """Sum up as an AttackResult; the distortion is measured in `norm` unless given. What was found beyond `epsilon` was not found.

        Warns of vanishing gradients and of NaN on the way. Raises ValueError where an image was met with NaN logits only.
        """
        if bool(self.met_nan):
            unknown = (self.rank < 0).nonzero().squeeze(1)
            if len(unknown):
                raise ValueError(f"model returns NaN logits for {len(unknown)} of {len(self.images)} images, the first of them image "
                                 f"{int(unknown[0])}: {name} cannot judge them")
            checks.warn(f"{name}: the model returned NaN logits on the way; such tries count for nothing", RuntimeWarning)
        difference = (self.images - self.originals).flatten(1)
        if distortion is None:
            distortion = difference.abs().amax(1) if norm == "linf" else difference.norm(dim=1)
        beyond = (distortion > epsilon).nonzero().squeeze(1)
        if len(beyond):
            self.images[beyond], self.rank[beyond], distortion[beyond] = self.originals[beyond], 0, 0
        outcome = AttackResult(self.images, self.rank == 2, self.rank >= 1, distortion, norm, self.queries, self.gradients, self.vanished,
                               self.vanished_first, not bool(self.met_nan))
        warn_if_masked(outcome, name)
        return outcome


def _slack(logits):
    return _SLACK * spread(logits)
