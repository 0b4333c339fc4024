"""Confidence intervals of a share or a mean, without torch: who reads receipts and draws tables needs nothing else of the library."""

import math
from collections.abc import Sequence
from statistics import NormalDist

__all__ = ["auroc_interval", "binomial_interval", "mean_interval", "paired_interval", "wilson_interval"]


def _checked(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence!r}")
    return confidence


def _quantile(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + _checked(confidence)) / 2)


def wilson_interval(successes: float, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval for a share of `successes` in `count` (Wilson, 1927); successes may be a mean over repetitions.

    Raises ValueError for impossible counts.
    """
    if not 0 <= successes <= count or count < 1:
        raise ValueError(f"successes must lie in [0, count] and count be at least 1, got successes={successes}, count={count}")
    z = _quantile(confidence)
    share, scale = successes / count, 1 + z * z / count
    middle = (share + z * z / (2 * count)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half) if successes else 0.0, min(1.0, middle + half) if successes < count else 1.0


def paired_interval(both: int, first: int, second: int, neither: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Newcombe's score interval for the difference of two shares of the same items (Newcombe, 1998, method 10).

    `both`, `first`, `second` and `neither` count the items that are successes in both samples, in one only, and in none. Honest at the
    edges: no success in 200 against none in 200 gives about -0.019 to 0.019. Raises ValueError for negative counts or no item.
    """
    count = both + first + second + neither
    if min(both, first, second, neither) < 0 or count < 1:
        raise ValueError(f"counts must be at least 0 with one item in all, got {both}, {first}, {second}, {neither}")
    one, two = (both + first) / count, (both + second) / count
    (low_1, high_1), (low_2, high_2) = (wilson_interval(both + other, count, confidence) for other in (first, second))
    product = (both + first) * (second + neither) * (both + second) * (first + neither)
    together = both * neither - first * second
    # Of a positive association half an item's worth is taken off, as Newcombe does; an empty margin has none to speak of.
    association = (max(together - count / 2, 0) if together > 0 else together) / math.sqrt(product) if product else 0.0

    def half(down, up):
        return math.sqrt(max(0.0, down * down - 2 * association * down * up + up * up))
    return max(-1.0, one - two - half(one - low_1, high_2 - two)), min(1.0, one - two + half(high_1 - one, two - low_2))


def mean_interval(mean: float, standard_error: float, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Student's interval for the mean of `count` values, from their standard error (deviation over the root of the count).

    Of a paired difference where the values are differences of the same items. Raises ValueError for fewer than two values.
    """
    if count < 2 or not standard_error >= 0:
        raise ValueError(f"the spread of a mean needs two values and an error of at least 0, got count={count}, error={standard_error}")
    from scipy.special import stdtrit  # the quantile of Student's distribution
    half = float(stdtrit(count - 1, (1 + _checked(confidence)) / 2)) * standard_error
    return mean - half, mean + half


def auroc_interval(negatives: Sequence[float], positives: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Return (AUROC, low, high) of scores that should be larger for positives: Hanley and McNeil's variance on the logit scale.

    The interval lies within [0, 1]; where the two sides do not overlap at all, the variance is that of one half pair that does.
    Raises ValueError where one side is empty or a score is NaN.
    """
    n, p = len(negatives), len(positives)
    if not n or not p:
        raise ValueError(f"both sides need a score, got {n} negatives and {p} positives")
    if any(score != score for score in (*negatives, *positives)):
        raise ValueError("scores must have an order, but one is NaN")
    from bisect import bisect_left, bisect_right
    ordered = sorted(negatives)
    area = sum(bisect_left(ordered, score) + bisect_right(ordered, score) for score in positives) / (2 * n * p)
    inside = min(max(area, 0.5 / (n * p)), 1 - 0.5 / (n * p))
    first, second = inside / (2 - inside), 2 * inside * inside / (1 + inside)
    variance = (inside * (1 - inside) + (p - 1) * (first - inside**2) + (n - 1) * (second - inside**2)) / (n * p)
    middle = math.log(inside / (1 - inside))
    half = _quantile(confidence) * math.sqrt(max(variance, 0.0)) / (inside * (1 - inside))
    low, high = (1 / (1 + math.exp(-(middle + side))) for side in (-half, half))
    return area, 0.0 if area == 0 else low, 1.0 if area == 1 else high


def binomial_interval(hits: int, count: int, confidence: float = 0.99) -> tuple[float, float]:
    """Clopper and Pearson's interval for a share, (low, high): at least `confidence` for any share and count.

    Raises ValueError for impossible counts.
    """
    if not 0 <= hits <= count or count < 1:
        raise ValueError(f"hits must lie in [0, count] and count be at least 1, got hits={hits}, count={count}")
    from scipy.stats import beta  # a second of imports, which tables do not need
    tail = (1 - _checked(confidence)) / 2
    low = beta.ppf(tail, hits, count - hits + 1) if hits else 0.0
    high = beta.ppf(1 - tail, hits + 1, count - hits) if hits < count else 1.0
    return float(low), float(high)
