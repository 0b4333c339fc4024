"""How far a feature lies from the boundary between classes: exact where the boundary is a hyperplane."""

import torch
from torch import Tensor, nn

from mmclib import checks, losses
from mmclib.losses import SoftmaxCrossEntropy

__all__ = ["feature_margin"]


def feature_margin(head: nn.Module, features: Tensor, labels: Tensor) -> Tensor:
    """Return the signed l_2 distance (N,) of features (N, d) to the nearest boundary of their own class, negative on its far side.

    The boundary between two centers is their bisecting hyperplane, of a softmax the hyperplane on which two logits agree: the gap of the
    logits over the norm of the weights' difference. Inside the own cell the distance is exact; labels int64 (N,), computed in float64.
    Between two classes that share a center there is no boundary, and the distance is that to the others'. Raises ValueError for bad
    input, and for a head whose boundaries are no hyperplanes (large-margin Gaussian mixtures) or that is not of this package.
    """
    normals, offsets = _hyperplanes(head)
    if not isinstance(features, Tensor) or features.ndim != 2 or features.shape[1] != normals.shape[1]:
        shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(f"features must have shape (N, {normals.shape[1]}), got {shape}")
    checks.check_labels(labels, len(normals), count=len(features))
    scores = features.double() @ normals.T + offsets
    gaps = scores.gather(1, labels[:, None]) - scores
    apart = torch.cdist(normals, normals, compute_mode="donot_use_mm_for_euclid_dist")[labels]
    return torch.where(apart > 0, gaps / apart, torch.inf).scatter(1, labels[:, None], torch.inf).amin(1)


def _hyperplanes(head):
    # Whoever predicts the nearest center, by whatever function of the distance, predicts the largest of μ·z - ‖μ‖²/2.
    softmax = getattr(head, "softmax", head)
    if isinstance(softmax, SoftmaxCrossEntropy):
        return softmax.linear.weight.detach().double(), softmax.linear.bias.detach().double()
    # A head of one's own may have centers and weigh the distances to them, or predict by something else.
    if type(head).__module__ != losses.__name__ or hasattr(head, "log_variances") or not hasattr(head, "centers"):
        raise ValueError(f"the boundaries of {type(head).__name__} are not known to be hyperplanes, so neither is their distance")
    centers = getattr(head, "means", head.centers).detach().double()
    return centers, -centers.square().sum(1) / 2
