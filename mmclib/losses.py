"""The heads: each owns what turns features z (N, d) into logits (N, L), and the loss it is trained with.

All share one shape: `logits(features)` and `loss(features, labels, reduction="mean")`, computed in float32 (float64 for float64
features) under autocast too. Bad input is a ValueError; values are looked at on the CPU only, where no device stalls for it.
"""

import math
from numbers import Integral, Real

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmclib import checks
from mmclib.distances import as_float, scaled_squared_distances, squared_distances

__all__ = [
    "CenterLoss", "ElasticMaxMahalanobisCenter", "LargeMarginGaussianMixture", "MaxMahalanobisCenter", "MaxMahalanobisLDA",
    "SoftmaxCrossEntropy",
]


class SoftmaxCrossEntropy(nn.Module):
    """Softmax cross-entropy on a linear layer (Eq. 1); weights He-normal as in Keras, biases zero.

    In training mode `label_smoothing` in [0, 1) shares that much of the target evenly among all classes (the paper has none).
    """

    def __init__(self, num_classes: int, feature_dim: int, label_smoothing: float = 0.0):
        super().__init__()
        self.num_classes, self.feature_dim = _sizes(num_classes, feature_dim)
        self.label_smoothing = _positive("label_smoothing", label_smoothing, zero=True)
        if self.label_smoothing >= 1:
            raise ValueError(f"label_smoothing must be below 1, got {label_smoothing!r}")
        self.linear = nn.Linear(feature_dim, num_classes)
        std = math.sqrt(2 / feature_dim) / 0.87962566103423978  # so that the standard deviation is √(2/d) after truncation
        nn.init.trunc_normal_(self.linear.weight, std=std, a=-2 * std, b=2 * std)
        nn.init.zeros_(self.linear.bias)

    def logits(self, features: Tensor) -> Tensor:
        """W z + b, as (N, L)."""
        _check_features(self, features)
        with torch.autocast(features.device.type, enabled=False):
            z = as_float(features)
            return F.linear(z, self.linear.weight.to(z.dtype), self.linear.bias.to(z.dtype))

    def loss(self, features: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
        """-log softmax(W z + b)_y: (N,) for reduction "none", else a scalar."""
        logits = self.logits(features)
        _check_labels(self, features, labels)
        smoothing = self.label_smoothing if self.training else 0.0
        return _reduce(F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing), reduction)


class CenterLoss(nn.Module):
    """Softmax cross-entropy + weight · ½‖z - c_y‖² (Wen et al. 2016; Remark 2), with centers that follow the features."""

    centers: Tensor

    def __init__(self, num_classes: int, feature_dim: int, weight: float = 0.01, center_step: float = 0.5):
        super().__init__()
        self.num_classes, self.feature_dim = _sizes(num_classes, feature_dim)
        self.weight, self.center_step = _positive("weight", weight, zero=True), _positive("center_step", center_step)
        self.softmax = SoftmaxCrossEntropy(num_classes, feature_dim)
        self.register_buffer("centers", torch.randn(num_classes, feature_dim))

    def logits(self, features: Tensor) -> Tensor:
        """W z + b, as (N, L)."""
        return self.softmax.logits(features)

    def loss(self, features: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
        """The joint loss; in training mode with gradients on, the centers then take their step (`update_centers`)."""
        per_sample = self.softmax.loss(features, labels, reduction="none")
        per_sample = per_sample + self.weight / 2 * _squared_distance_to_own(features, self.centers, labels)
        reduced = _reduce(per_sample, reduction)
        if self.training and torch.is_grad_enabled():
            self.update_centers(features, labels)
        return reduced

    @torch.no_grad()
    def update_centers(self, features: Tensor, labels: Tensor) -> None:
        """c_j ← c_j - step · Σ_{y_i = j} (c_j - z_i) / (1 + n_j): classes that are not in the batch stay."""
        z = features.detach().to(self.centers.dtype)
        counts = torch.zeros_like(self.centers[:, 0]).index_add_(0, labels, torch.ones_like(z[:, 0]))
        pull = torch.zeros_like(self.centers).index_add_(0, labels, self.centers[labels] - z)
        self.centers -= self.center_step * pull / (1 + counts)[:, None]


class LargeMarginGaussianMixture(nn.Module):
    """Large-margin Gaussian mixture (Wan et al. 2018) with trainable means and diagonal covariances.

    With D_l = ½(z - μ_l)ᵀ Σ_l⁻¹ (z - μ_l) the logits are -D_l - ½ log|Σ_l|. In training the true class's D is raised by the
    margin, (1 + α) D_y, and the likelihood term λ (D_y + ½ log|Σ_y|) is added; in evaluation mode there is no margin.
    """

    def __init__(self, num_classes: int, feature_dim: int, margin: float = 0.1, likelihood: float = 0.1):
        super().__init__()
        self.num_classes, self.feature_dim = _sizes(num_classes, feature_dim)
        self.margin, self.likelihood = _positive("margin", margin, zero=True), _positive("likelihood", likelihood, zero=True)
        self.means = nn.Parameter(torch.randn(num_classes, feature_dim))
        self.log_variances = nn.Parameter(torch.zeros(num_classes, feature_dim))

    def _parts(self, features):
        _check_features(self, features)
        halves = scaled_squared_distances(features, self.means, (-self.log_variances).exp()) / 2
        return halves, (self.log_variances.sum(1) / 2).to(halves.dtype)

    def logits(self, features: Tensor) -> Tensor:
        """-D_l - ½ log|Σ_l|, as (N, L)."""
        halves, log_scales = self._parts(features)
        return -halves - log_scales

    def loss(self, features: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
        """Cross-entropy with the margin (training mode) + λ · the negative log-likelihood of the own component."""
        halves, log_scales = self._parts(features)
        _check_labels(self, features, labels)
        own = halves.gather(1, labels[:, None])
        margin = self.margin if self.training else 0.0
        logits = (-halves - log_scales).scatter_add(1, labels[:, None], -margin * own)
        per_sample = F.cross_entropy(logits, labels, reduction="none")
        return _reduce(per_sample + self.likelihood * (own[:, 0] + log_scales[labels]), reduction)


class MaxMahalanobisLDA(nn.Module):
    """Softmax cross-entropy on distances to preset centers (L, d) (Pang et al. 2018; Eq. 10)."""

    centers: Tensor

    def __init__(self, centers: Tensor, scale: float = 0.5):
        super().__init__()
        self.num_classes, self.feature_dim = _keep_centers(self, centers)
        self.scale = _positive("scale", scale)

    def logits(self, features: Tensor) -> Tensor:
        """-scale · ‖z - μ_l‖², as (N, L)."""
        _check_features(self, features)
        return -self.scale * squared_distances(features, self.centers)

    def loss(self, features: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
        """-log softmax(logits)_y: (N,) for reduction "none", else a scalar."""
        logits = self.logits(features)
        _check_labels(self, features, labels)
        return _reduce(F.cross_entropy(logits, labels, reduction="none"), reduction)


class MaxMahalanobisCenter(nn.Module):
    """The MMC loss (Eq. 8): 2 · scale · f(‖z - μ_y‖) to preset centers (L, d), with no softmax.

    f(r) is r²/2 ("squared", the paper's), r ("absolute") or Huber's r²/2 up to δ = `delta` and δ (r - δ/2) beyond (App. B.2).
    """

    centers: Tensor

    def __init__(self, centers: Tensor, form: str = "squared", scale: float = 0.5, delta: float = 1.0):
        super().__init__()
        self.num_classes, self.feature_dim = _keep_centers(self, centers)
        if form not in ("squared", "absolute", "huber"):
            raise ValueError(f'form must be "squared", "absolute" or "huber", got {form!r}')
        self.form, self.scale, self.delta = form, _positive("scale", scale), _positive("delta", delta)

    def _penalty(self, squared):
        if self.form == "squared":
            return self.scale * squared
        away = squared > 0
        distance = torch.where(away, squared, 1).sqrt() * away  # the root's gradient at the center is zero, not infinite
        if self.form == "absolute":
            return 2 * self.scale * distance
        return 2 * self.scale * torch.where(distance <= self.delta, squared / 2, self.delta * (distance - self.delta / 2))

    def logits(self, features: Tensor) -> Tensor:
        """Minus the loss for every label, as (N, L): -scale · ‖z - μ_l‖² in the squared form."""
        _check_features(self, features)
        return -self._penalty(squared_distances(features, self.centers))

    def loss(self, features: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
        """L_MMC(z, y): (N,) for reduction "none", else a scalar; equal to -logits[y] at the cost of one distance."""
        _check_features(self, features)
        _check_labels(self, features, labels)
        return _reduce(self._penalty(_squared_distance_to_own(features, self.centers, labels)), reduction)


class ElasticMaxMahalanobisCenter(nn.Module):
    """The elastic MMC loss (Eq. 21): trainable means with a Gaussian prior of variance `alpha` around preset centers (L, d).

    The parameters are the means' whitened offsets δ, μ = μ* + √α δ, so that SGD is stable for any α and MMC is its limit α → 0.
    """

    centers: Tensor

    def __init__(self, centers: Tensor, alpha: float = 1.0, scale: float = 0.5):
        super().__init__()
        self.num_classes, self.feature_dim = _keep_centers(self, centers)
        self.alpha, self.scale = _positive("alpha", alpha), _positive("scale", scale)
        self.offsets = nn.Parameter(torch.zeros_like(self.centers))

    @property
    def means(self) -> Tensor:
        """μ = μ* + √α δ, as (L, d)."""
        return self.centers + math.sqrt(self.alpha) * self.offsets

    def logits(self, features: Tensor) -> Tensor:
        """-scale · ‖z - μ_l‖², as (N, L)."""
        _check_features(self, features)
        return -self.scale * squared_distances(features, self.means)

    def loss(self, features: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
        """scale · (‖z - μ_y‖² + ‖μ_y - μ*_y‖² / α): (N,) for reduction "none", else a scalar."""
        _check_features(self, features)
        _check_labels(self, features, labels)
        prior = _of_each(self.offsets, labels).square().sum(1)
        return _reduce(self.scale * (_squared_distance_to_own(features, self.means, labels) + prior), reduction)


def _squared_distance_to_own(features, centers, labels):
    z = as_float(features)
    return (z - _of_each(centers, labels).to(z.dtype)).square().sum(1)


def _of_each(rows, labels):
    """Each label's row; a negative label is out of bounds, as one beyond the last is, and does not count from the end."""
    return rows[labels.where(labels >= 0, len(rows))]


def _reduce(values, reduction):
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'reduction must be "mean", "sum" or "none", got {reduction!r}')
    return values if reduction == "none" else getattr(values, reduction)()


def _look_at_values(tensor):
    # Reading a value stalls a CUDA stream and breaks a compiled graph; shapes and types cost nothing anywhere.
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def _check_features(head, features):
    if not isinstance(features, torch.Tensor) or not features.is_floating_point():
        kind = getattr(features, "dtype", type(features).__name__)
        raise ValueError(f"features must be a floating-point torch.Tensor, got {kind}")
    if features.ndim != 2 or features.shape[1] != head.feature_dim or len(features) == 0:
        raise ValueError(f"features must have shape (N, {head.feature_dim}) with N at least 1, got {tuple(features.shape)}")
    if _look_at_values(features) and not all(bound.isfinite() for bound in features.detach().aminmax()):
        raise checks.NotFiniteError("features must be finite, but hold NaN or infinity")


def _check_labels(head, features, labels):
    if isinstance(labels, torch.Tensor) and not _look_at_values(labels):
        if labels.shape != features.shape[:1] or labels.dtype != torch.int64:
            raise ValueError(f"labels must be int64 of shape ({len(features)},), got {labels.dtype} of {tuple(labels.shape)}")
    else:
        checks.check_labels(labels, head.num_classes, count=len(features))


def _keep_centers(head, centers):
    if not isinstance(centers, torch.Tensor) or centers.ndim != 2 or len(centers) < 2 or not centers.is_floating_point():
        shape = tuple(centers.shape) if isinstance(centers, torch.Tensor) else type(centers).__name__
        raise ValueError(f"centers must be a floating-point torch.Tensor (L, d) with L at least 2, got {shape}")
    if not centers.isfinite().all():
        raise ValueError("centers must be finite, but hold NaN or infinity")
    head.register_buffer("centers", centers.detach().float().clone())
    return tuple(centers.shape)


def _sizes(num_classes, feature_dim):
    for name, value, least in (("num_classes", num_classes, 2), ("feature_dim", feature_dim, 1)):
        if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    return int(num_classes), int(feature_dim)


def _positive(name, value, *, zero=False):
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not (0 <= value if zero else 0 < value) or value == math.inf:
        raise ValueError(f"{name} must be a {'non-negative' if zero else 'positive'} number, got {value!r}")
    return float(value)
