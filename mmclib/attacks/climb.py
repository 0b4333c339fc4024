"""Signed-gradient ascent in an l_inf ball, written once: attacks differ in the objective and in the rule that takes a step."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mmclib import checks, counter


def signed_step(images: Tensor, gradients: Tensor, originals: Tensor, epsilon: float, step_size: float) -> Tensor:
    """Step along the gradient's sign, then project onto the l_inf ball around the originals and onto [0, 1]; all (N, C, H, W)."""
    return _inside(torch.add(images, gradients.sign(), alpha=step_size), originals, epsilon)


def scaled(gradients: Tensor) -> tuple[Tensor, Tensor]:
    """Return gradients (N, C, H, W) times a power of two per image, so that the largest entry of each lies in [1/2, 1), and its exponents.

    A direction has no size: norms and means of the scaled ones neither overflow nor vanish, and are else the same to the bit. A gradient of
    zero stays as it is.
    """
    exponents = torch.frexp(gradients.flatten(1).abs().amax(1)).exponent
    return times_power_of_two(gradients, -column(exponents)), exponents


def times_power_of_two(values: Tensor, exponents: Tensor) -> Tensor:
    """Return values · 2^exponents where 2^exponents alone may be beyond the type of the values."""
    half = exponents // 2
    return torch.ldexp(torch.ldexp(values, half), exponents - half)


class ShortStepsWarning(UserWarning):
    """All steps of an attack together are shorter than its ball is wide."""


def warn_if_short(name: str, epsilon: float, step_size: float, steps: int) -> None:
    """Warn where `steps` steps of `step_size` do not reach from the middle of the ball to its border."""
    if steps * step_size < epsilon * (1 - 1e-6):
        checks.warn(f"{name}: {steps} step{'s' * (steps > 1)} of {step_size:.3g} reach{'es' * (steps == 1)} {steps * step_size:.3g}, not "
                    f"the border of the ball of {epsilon:.3g}: the attack is weaker than its epsilon says; take more or larger steps "
                    "(epsilon / 4 is usual)", ShortStepsWarning)


def random_start(originals: Tensor, seeds: Tensor, epsilon: float, restart: int = 0) -> Tensor:
    """Draw a uniform point of the l_inf ball around each image (N, C, H, W), clipped to [0, 1]; seeds int64 (N,)."""
    noise = counter.uniform(seeds, originals.shape[1:], "start", restart).to(originals.dtype)
    return (originals + epsilon * noise).clamp_(0, 1)


def ascend(gradient: Callable[[Tensor], Tensor], start: Tensor, originals: Tensor, *, epsilon: float, step_size: float,
           steps: int) -> Tensor:
    """Take `steps` signed steps from `start` along `gradient(images)`, with no bookkeeping, and return the last iterate.

    For what is no attack on a frozen model: adversarial training, probes. `gradient` sees every iterate but the last and may record it.
    """
    current = start
    for _ in range(steps):
        current = signed_step(current, gradient(current), originals, epsilon, step_size)
    return current


class SignedSteps:
    """PGD's rule (Madry et al., 2018): steps of one size along the gradient's sign."""

    waits_for_gradient = True  # a zero gradient moves nothing, now or in any later step

    def __init__(self, epsilon, step_size):
        self.epsilon, self.step_size = epsilon, step_size

    def keep(self, mask):
        """Drop the images that have left."""

    def __call__(self, step, current, gradients, originals):
        return signed_step(current, gradients, originals, self.epsilon, self.step_size)


class MomentumSteps:
    """MIM's rule (Dong et al., 2018, Eq. 6): along the sign of g <- decay * g + gradient / its mean absolute value."""

    waits_for_gradient = False

    def __init__(self, epsilon, step_size, decay, start):
        self.epsilon, self.step_size, self.decay = epsilon, step_size, decay
        self.momentum = torch.zeros_like(start)

    def keep(self, mask):
        self.momentum = self.momentum[mask]

    def __call__(self, step, current, gradients, originals):
        gradients = scaled(gradients)[0]
        mean = gradients.flatten(1).abs().mean(1).clamp_(min=1e-12)  # of a zero gradient: adds nothing
        self.momentum = self.decay * self.momentum + gradients / column(mean)
        return signed_step(current, self.momentum, originals, self.epsilon, self.step_size)


class DecayingSteps:
    """Steps that decay from 2 epsilon to zero along a half cosine, each mixed with a share of the last move (APGD's momentum)."""

    waits_for_gradient = False
    share = 0.25  # of the last move in the next, as in APGD (Croce & Hein, 2020, Eq. 4: 1 - alpha)

    def __init__(self, epsilon, steps, start):
        self.epsilon, self.steps, self.before = epsilon, steps, start

    def keep(self, mask):
        self.before = self.before[mask]

    def __call__(self, step, current, gradients, originals):
        size = self.epsilon * (1 + math.cos(math.pi * step / self.steps))
        stepped = signed_step(current, gradients, originals, self.epsilon, size)
        if step:
            share = self.share * (1 - step / self.steps)  # a constant share would keep late, small steps from settling
            mixed = current + (1 - share) * (stepped - current) + share * (current - self.before)
            stepped = _inside(mixed, originals, self.epsilon)
        self.before = current
        return stepped


def climb(frozen, ledger, rows, current, rule, steps, *, goals=None, stop_early=True) -> None:
    """Ascend from `current`, the starts of the images numbered `rows`, and book every iterate in the ledger.

    `rule(step, current, gradients, originals)` takes a step; `goals` (n,) are the targets of an untargeted attack's objective. Images
    leave once they are a success. With stop_early=False all take every step, and the last iterate is what the ledger keeps, or the last
    whose logits are no NaN.
    """
    for step in range(steps):
        targets = goals if ledger.targets is None else ledger.targets[rows]
        logits, _, gradients = frozen.gradients(current, ledger.labels[rows], targets)
        zero = ledger.count_gradients(rows, gradients)
        if stop_early:
            success = ledger.update(rows, current, ledger.confirmed(frozen, rows, current, logits))
            stay = ~success
            if rule.waits_for_gradient:
                stuck = zero & stay
                ledger.give_up(rows[stuck], steps - 1 - step)
                stay &= ~stuck
            rows, current, gradients = rows[stay], current[stay], gradients[stay]
            goals = None if goals is None else goals[stay]
            rule.keep(stay)
            if len(rows) == 0:
                return
        else:
            ledger.take(rows, current, logits)
        current = rule(step, current, gradients, ledger.originals[rows])
    logits = frozen.logits(current)
    if stop_early:
        ledger.update(rows, current, logits)
    else:
        ledger.take(rows, current, logits)


def column(values):
    return values[:, None, None, None]


def _inside(images, originals, epsilon):
    return torch.minimum(torch.maximum(images, originals - epsilon), originals + epsilon).clamp_(0, 1)
