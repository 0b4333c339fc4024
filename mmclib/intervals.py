"""Confidence intervals of a share, without torch: who reads receipts and draws tables needs nothing else of the library."""

import math
from statistics import NormalDist


def wilson_interval(successes, count, confidence=0.95) -> tuple[float, float]:
    """Return Wilson's score interval for a share of `successes` in `count` (Wilson, 1927). Raises ValueError for impossible
    counts."""
    if not 0 <= successes <= count or count < 1:
        raise ValueError(f"successes must lie in [0, count] and count be at least 1, got successes={successes}, count={count}")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, scale = successes / count, 1 + z * z / count
    middle = (share + z * z / (2 * count)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half) if successes else 0.0, min(1.0, middle + half) if successes < count else 1.0


def binomial_interval(hits, count, confidence=0.99) -> tuple[float, float]:
    """Clopper and Pearson's interval for a share, (low, high): at least `confidence` for any share and count."""
    from scipy.stats import beta  # a second of imports, which tables do not need
    tail = (1 - confidence) / 2
    low = beta.ppf(tail, hits, count - hits + 1) if hits else 0.0
    high = beta.ppf(1 - tail, hits + 1, count - hits) if hits < count else 1.0
    return float(low), float(high)
