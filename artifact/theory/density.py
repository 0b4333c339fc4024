"""Sample density along loss contours: the closed forms of Eqs. 5-7, 9 and 13-19 in log space, and what is measured on features.

The paper's volumes (Eqs. 14 and 18) are the sphere's area times ΔC, as if a contour moved by ΔC where the loss rises by ΔC. It
moves by |dr/dC| ΔC. So every volume and density here comes in two forms: "paper", as printed, and "exact", with that factor. For
MMC the factor is 1/√(2C), which turns the paper's SD ∝ p(C) / C^((d-1)/2) into SD ∝ p(C) / C^((d-2)/2): in two dimensions the
volume between two contours depends on ΔC alone. For losses spread evenly over an interval both theorems' conclusions stand for
d > 2. `tests/artifact/test_density.py` decides for "exact" by Monte Carlo.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree
from scipy.special import gammaln, logsumexp


def log_sphere_area(dim):
    """Log of the area of the unit sphere in R^dim, 2 π^(d/2) / Γ(d/2)."""
    return np.log(2) + dim / 2 * np.log(np.pi) - gammaln(dim / 2)


def log_ball_volume(dim, log_radius=0.0):
    """Log of the volume of a ball in R^dim, from the log of its radius."""
    return log_sphere_area(dim) - np.log(dim) + dim * log_radius


def log_odds(loss):
    """log(exp(C) - 1), the "log(C_e - 1)" of Eq. 5, for losses C > 0 from 1e-300 to 1e300."""
    loss = np.asarray(loss, dtype=float)
    return loss + np.log(-np.expm1(-loss))


def sce_as_quadratic(weight, bias):
    """The quadratic logits -‖z - μ_l‖² + B_l with the softmax of W z + b (Sec. 3.2): μ = W/2 (L, d), B = b + ‖W‖²/4 (L,)."""
    return weight / 2, bias + np.square(weight).sum(1) / 4


def quadratic_logits(features, means, sigmas, biases):
    """h_l = -σ_l ‖z - μ_l‖² + B_l (Eq. 4 with Σ_l = σ_l I) for features (N, d), as (N, L)."""
    squared = np.square(features[:, None] - means).sum(-1)
    return -np.asarray(sigmas) * squared + np.asarray(biases)


def softmax_loss(logits, labels, pair=False):
    """The g-SCE loss (Eq. 3) of logits (N, L), or with `pair` its approximation by the strongest other class (Eq. 6), as (N,)."""
    rows = np.arange(len(logits))
    others = np.array(logits, dtype=float)
    own = others[rows, labels].copy()
    others[rows, labels] = -np.inf
    rival = others.max(1) if pair else logsumexp(others, axis=1)
    return np.logaddexp(0, rival - own)


@dataclass(frozen=True)
class SoftmaxContours:
    """Contours of the g-SCE loss between a class k and its rival k̃ with scaled identity covariances σ_k ≠ σ_k̃ (Theorem 1).

    `mean`, `rival_mean` (d,), the rest floats. Raises ValueError for σ ≤ 0 or σ_k = σ_k̃, where contours are planes (`plane`).
    """

    mean: np.ndarray
    rival_mean: np.ndarray
    sigma: float
    rival_sigma: float
    bias: float = 0.0
    rival_bias: float = 0.0

    def __post_init__(self):
        if not (self.sigma > 0 and self.rival_sigma > 0):
            raise ValueError(f"sigma and rival_sigma must be positive, got {self.sigma} and {self.rival_sigma}")
        if self.sigma == self.rival_sigma:
            raise ValueError(f"sigma and rival_sigma must differ, both are {self.sigma}; contours are planes then: see plane()")

    @property
    def dim(self):
        return len(self.mean)

    @property
    def difference(self):
        """σ_k - σ_k̃."""
        return self.sigma - self.rival_sigma

    @property
    def center(self):
        """M = (σ_k μ_k - σ_k̃ μ_k̃) / (σ_k - σ_k̃) (Eq. 12)."""
        return (self.sigma * np.asarray(self.mean) - self.rival_sigma * np.asarray(self.rival_mean)) / self.difference

    @property
    def constant(self):
        """The bold B of Eq. 7."""
        apart = np.square(np.asarray(self.mean) - np.asarray(self.rival_mean)).sum()
        return self.sigma * self.rival_sigma * apart / self.difference**2 + (self.bias - self.rival_bias) / self.difference

    @property
    def bound(self):
        """C* = log(1 + exp(B (σ_k̃ - σ_k))), the loss at M: the least there is if σ_k > σ_k̃, the largest if σ_k < σ_k̃."""
        return float(np.logaddexp(0, -self.constant * self.difference))

    def swapped(self):
        """The contours of the rival's loss against this class."""
        return SoftmaxContours(self.rival_mean, self.mean, self.rival_sigma, self.sigma, self.rival_bias, self.bias)

    def squared_radius(self, loss):
        """‖z - M‖² where the loss is C (Eq. 13); NaN where no z has that loss."""
        squared = self.constant + log_odds(loss) / self.difference
        return np.where(squared >= 0, squared, np.nan)

    def log_volume_rate(self, loss, form="exact"):
        """Log of dVol/dC between the contours of C and C + dC: Eq. 14 as printed ("paper") or with |dr/dC| ("exact")."""
        log_r = np.log(self.squared_radius(loss)) / 2
        area = log_sphere_area(self.dim) + (self.dim - 1) * log_r
        if _form(form) == "paper":
            return area
        # r² = B + log(e^C - 1) / Δσ, so |dr/dC| = 1 / (2 r |Δσ| (1 - e^-C)).
        return area - np.log(2 * abs(self.difference)) - log_r - np.log(-np.expm1(-np.asarray(loss, dtype=float)))


@dataclass(frozen=True)
class CenterContours:
    """Contours of the MMC loss scale · ‖z - μ_y‖² in R^dim: spheres around the class's center (Theorem 2)."""

    dim: int
    scale: float = 0.5

    def squared_radius(self, loss):
        """‖z - μ‖² = C / scale, 2C for Eq. 8 (Eq. 17)."""
        return np.asarray(loss, dtype=float) / self.scale

    def log_volume_rate(self, loss, form="exact"):
        """Log of dVol/dC: Eq. 18 as printed ("paper") or with dr/dC = 1 / (2 scale r) ("exact")."""
        log_r = np.log(self.squared_radius(loss)) / 2
        area = log_sphere_area(self.dim) + (self.dim - 1) * log_r
        return area if _form(form) == "paper" else area - np.log(2 * self.scale) - log_r


def log_shell_volume(contours, low, high):
    """Log of the volume where the loss is in [low, high], from the two balls, for either kind of contours; no approximation."""
    radii = [np.log(contours.squared_radius(loss)) / 2 for loss in (low, high)]
    inner, outer = np.minimum(*radii), np.maximum(*radii)
    return log_ball_volume(contours.dim, outer) + np.log(-np.expm1(contours.dim * (inner - outer)))


def log_sample_density(contours, loss, count, log_pdf, form="exact"):
    """Log of SD(z) where the loss is C (Eqs. 7, 9, 15, 19): N · p(C) / (dVol/dC), with the constant the paper leaves out.

    `count` is N_k (MMC) or N_{k,k̃} (g-SCE), `log_pdf` the log-density of the loss values at C.
    """
    return np.log(count) + log_pdf - contours.log_volume_rate(loss, form)


def plane(mean, rival_mean, sigma, bias, rival_bias, loss):
    """The contour for σ_k = σ_k̃ = σ (Remark 1): normal n (d,) and offset t with zᵀn = t."""
    mean, rival_mean = np.asarray(mean, dtype=float), np.asarray(rival_mean, dtype=float)
    offset = mean @ mean - rival_mean @ rival_mean + (rival_bias - bias - log_odds(loss)) / sigma
    return mean - rival_mean, offset / 2


def ray_radii(loss_at, center, directions, target, far=1e3, steps=70):
    """The distances from `center` along `directions` (R, d) where `loss_at` is `target`, as (R,).

    `loss_at` takes points (R, d) to (R,) and must be monotone on each ray. Bisection in plain function values up to the distance
    `far`: it knows none of the formulas that it is there to check. NaN where the loss does not reach the target.
    """
    low, high = np.zeros(len(directions)), np.full(len(directions), float(far))

    def above(radii):
        return loss_at(center + radii[:, None] * directions) > target

    at_center = above(low)
    reached = above(high) != at_center
    for _ in range(steps):
        middle = (low + high) / 2
        stay = above(middle) == at_center
        low, high = np.where(stay, middle, low), np.where(stay, high, middle)
    return np.where(reached, (low + high) / 2, np.nan)


def log_neighbour_density(features, neighbours=10):
    """Log-density at each of the points (N, d), (k - 1) / Vol(ball to the k-th neighbour), as (N,).

    It knows no loss and no contour. +inf where k points coincide. ValueError for fewer than two neighbours or too few points.
    """
    points = np.asarray(features, dtype=float)
    if not 2 <= neighbours < len(points):
        raise ValueError(f"neighbours must be at least 2 and less than the {len(points)} points, got {neighbours}")
    kth = cKDTree(points).query(points, neighbours + 1)[0][:, -1]  # the nearest is the point itself
    with np.errstate(divide="ignore"):
        return np.log(neighbours - 1) - log_ball_volume(points.shape[1], np.log(kth))


def _form(form):
    if form not in ("exact", "paper"):
        raise ValueError(f'form must be "exact" or "paper", got {form!r}')
    return form
