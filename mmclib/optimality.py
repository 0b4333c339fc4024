"""How close an attack comes to the best one known (AttackBench; Cinà et al., 2025), without torch."""

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["area", "optimality"]


def area(distances: ArrayLike, most: float) -> float:
    """Return the area under accuracy against distance from 0 to `most`: the mean of the images' distances (N,), each at most `most`.

    An image's distance is that of its nearest adversarial: 0 where it is wrong as it is, infinity where none was found. Raises ValueError
    for distances that are none.
    """
    distances = np.asarray(distances, float)
    if distances.ndim != 1 or not len(distances) or not (distances >= 0).all():
        raise ValueError("distances must have shape (N,) with at least one image, and be at least 0 and no NaN")
    if not most > 0:
        raise ValueError(f"most must be above 0, got {most}")
    return float(np.minimum(distances, most).mean())


def optimality(distances: ArrayLike, best: ArrayLike, most: float) -> float | None:
    """Return what share of the area the best attack takes from the clean accuracy, this attack takes too: 1 the best, 0 nothing.

    `distances` and `best` (N,) are an attack's and the least of all attacks', as in `area`; both end at `most`. None where the best finds
    nothing either. Raises ValueError for distances that are none, below the best, or of another number of images.
    """
    if np.shape(distances) != np.shape(best):
        raise ValueError(f"distances and best must be of the same images, got shapes {np.shape(distances)} and {np.shape(best)}")
    mine, least = area(distances, most), area(best, most)
    if (np.asarray(distances) < np.asarray(best)).any():
        raise ValueError("distances must not be below the best ones")
    whole = float((np.asarray(best) > 0).mean()) * most
    return None if whole <= least else 1 - (mine - least) / (whole - least)
