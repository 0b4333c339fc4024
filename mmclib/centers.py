"""Preset class centers in the feature space: Max-Mahalanobis (Algorithm 1), optimised, random and hierarchical ones."""

import math
from collections.abc import Sequence
from numbers import Integral, Real

import torch
from torch import Tensor

from mmclib import seeds
from mmclib.modes import on_the_cpu

__all__ = ["hierarchical_centers", "largest_cosine", "max_mahalanobis_centers", "optimised_centers", "random_centers"]


@on_the_cpu
def max_mahalanobis_centers(num_classes: int, feature_dim: int, radius: float = 10.0) -> Tensor:
    """The vertices of a regular simplex around the origin (Algorithm 1, App. B.1).

    Returns float32 (num_classes, feature_dim) with norms `radius` and inner products -radius²/(num_classes - 1).
    Raises ValueError for num_classes > feature_dim + 1, where no such set exists.
    """
    _check(num_classes, feature_dim, radius)
    if num_classes > feature_dim + 1:
        raise ValueError(f"num_classes must be at most feature_dim + 1 = {feature_dim + 1} for Max-Mahalanobis centers, "
                         f"got {num_classes}; optimised_centers takes more classes than that")
    # Algorithm 1 gives all rows below the diagonal of column j the same entry, so its recursion solves to one line a column.
    centers = torch.zeros(num_classes, feature_dim, dtype=torch.float64)
    for j in range(num_classes - 1):
        below = num_classes - 1 - j
        centers[j, j] = math.sqrt(num_classes * below / ((num_classes - 1) * (below + 1)))
        centers[j + 1:, j] = -centers[j, j] / below
    return (radius * centers).float()


@on_the_cpu
def random_centers(num_classes: int, feature_dim: int, radius: float = 10.0, *, seed: int = 0) -> Tensor:
    """Centers drawn uniformly from the sphere: "MMC-10 (rand)" of Table 1.

    Returns float32 (num_classes, feature_dim) with norms `radius`.
    """
    _check(num_classes, feature_dim, radius)
    points = torch.randn(num_classes, feature_dim, dtype=torch.float64, generator=_generator(seed, "random centers"))
    return (radius * torch.nn.functional.normalize(points, dim=1)).float()


@on_the_cpu
def optimised_centers(num_classes: int, feature_dim: int, radius: float = 10.0, *, seed: int = 0) -> Tensor:
    """Centers on the sphere with the largest inner product as small as gradient descent makes it (the criterion of Sec. 3.3).

    For num_classes > feature_dim + 1, where Algorithm 1 ends; up to there its simplex is the optimum and is what comes back.
    In two dimensions the result is the regular polygon. Returns float32 (num_classes, feature_dim) with norms `radius`.
    """
    _check(num_classes, feature_dim, radius)
    if num_classes <= feature_dim + 1:
        return max_mahalanobis_centers(num_classes, feature_dim, radius)
    if feature_dim < 2:
        raise ValueError(f"feature_dim must be at least 2 for {num_classes} classes: a line has two ends, got {feature_dim}")
    generator = _generator(seed, "optimised centers")
    # The energy has local minima, fewer in high dimension; a handful of starts is cheap where it matters.
    starts = 8 if num_classes <= 64 else 1
    tries = [_spread(torch.randn(num_classes, feature_dim, dtype=torch.float64, generator=generator)) for _ in range(starts)]
    return (radius * min(tries, key=largest_cosine)).float()


@on_the_cpu
def hierarchical_centers(tree: Sequence, feature_dim: int, radii: Sequence[float], *, seed: int | None = None) -> Tensor:
    """Hierarchical Max-Mahalanobis centers (App. B.3): a leaf's center is the sum of the simplex vertices on its path.

    `tree` is nested lists of class labels, [[0, 3], [1, 2, 4]] for example, of any shape and depth; `radii` holds one radius per
    depth, the root's children first. With `seed` each subtree below the root has its own random rotation. An only child
    takes its parent's place. Returns float32 (L, feature_dim), row l for label l.
    Raises ValueError for a tree that misses or repeats a label or is deeper than `radii`, and for centers that coincide.
    """
    if not isinstance(tree, (list, tuple)):
        raise ValueError(f"tree must be nested lists of class labels, got {type(tree).__name__}")
    found: dict[int, Tensor] = {}

    def place(node, parent, path):
        if not isinstance(node, (list, tuple)):
            if isinstance(node, bool) or not isinstance(node, Integral):
                raise ValueError(f"tree must hold integer class labels, got {node!r}")
            if node in found:
                raise ValueError(f"tree repeats label {node}")
            found[int(node)] = parent
            return
        if len(node) == 0:
            raise ValueError(f"tree has an empty list at {list(path)}")
        if len(path) >= len(radii):
            raise ValueError(f"radii must hold one radius per depth of the tree, got {len(radii)} for a tree deeper than that")
        offsets = torch.zeros(1, feature_dim)
        if len(node) > 1:
            offsets = max_mahalanobis_centers(len(node), feature_dim, radii[len(path)])
        offsets = offsets.double()
        if seed is not None and path:
            offsets = offsets @ _rotation(feature_dim, _generator(seed, "rotation", *path))
        for i, child in enumerate(node):
            place(child, parent + offsets[i], (*path, i))

    place(tree, torch.zeros(feature_dim, dtype=torch.float64), ())
    missing = sorted(set(range(max(found) + 1)) - set(found)) or [label for label in found if label < 0]
    if missing:
        raise ValueError(f"tree must hold every label from 0 to {max(found)} once, label {missing[0]} is "
                         + ("negative" if missing[0] < 0 else "missing"))
    centers = torch.stack([found[label] for label in range(len(found))])
    gaps = torch.cdist(centers, centers, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(math.inf)
    if len(found) > 1 and gaps.min() < 1e-6 * max(radii):
        first, second = divmod(int(gaps.argmin()), len(found))
        raise ValueError(f"radii {list(radii)} put labels {first} and {second} on the same center; make deeper radii smaller "
                         "or give a seed, which rotates the subtrees")
    return centers.float()


def largest_cosine(centers: Tensor) -> float:
    """The largest cosine between any two of the centers (L, d): the smaller, the better they are spread. A float."""
    units = torch.nn.functional.normalize(centers.double(), dim=1)
    return float((units @ units.T).fill_diagonal_(-1).max())


def _spread(points):
    # Riesz energy with a rising exponent: its minimiser tends to the min-max solution; each stage starts where the last ended.
    for power in (2, 8, 32, 128, 512, 4096):
        points = _descend(points, power, iterations=200 if len(points) <= 200 else 40)
    return points


@torch.inference_mode(False)
@torch.enable_grad()
def _descend(points, power, iterations):
    points = torch.nn.functional.normalize(points, dim=1).requires_grad_(True)
    i, j = torch.triu_indices(len(points), len(points), 1)
    optimizer = torch.optim.LBFGS([points], max_iter=iterations, history_size=20, tolerance_grad=1e-10, tolerance_change=1e-14,
                                  line_search_fn="strong_wolfe")

    def energy():
        optimizer.zero_grad()
        units = torch.nn.functional.normalize(points, dim=1)
        squared = (2 - 2 * (units @ units.T)[i, j]).clamp_min(1e-12)
        value = torch.logsumexp(-power / 2 * squared.log(), 0) / power  # the log keeps high powers from overflowing
        value.backward()
        return value

    optimizer.step(energy)
    return torch.nn.functional.normalize(points.detach(), dim=1)


def _rotation(dim, generator):
    q, r = torch.linalg.qr(torch.randn(dim, dim, dtype=torch.float64, generator=generator))
    return q * r.diagonal().sign()  # with the signs fixed the distribution is uniform


def _generator(seed, *purpose):
    return torch.Generator().manual_seed(seeds.derive(seed, *purpose))


def _check(num_classes, feature_dim, radius):
    if isinstance(num_classes, bool) or not isinstance(num_classes, Integral) or num_classes < 2:
        raise ValueError(f"num_classes must be an integer of at least 2, got {num_classes!r}")
    if isinstance(feature_dim, bool) or not isinstance(feature_dim, Integral) or feature_dim < 1:
        raise ValueError(f"feature_dim must be a positive integer, got {feature_dim!r}")
    if isinstance(radius, bool) or not isinstance(radius, Real) or not 1e-30 < float(radius) < 1e30:  # float32 holds the centers
        raise ValueError(f"radius must be a number between 1e-30 and 1e30, got {radius!r}")
