"""Squared distances from features to all class centers: exact far from the origin, and in (N, L) memory."""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ["as_float", "scaled_squared_distances", "squared_distances"]

CHUNK = 2 ** 22  # numbers held at once where a difference per sample, class and dimension is needed: 16 MB in float32


class _SquaredDistances(torch.autograd.Function):
    # cdist's forward subtracts before it squares, so nothing cancels; its own backward holds (N, L, d) numbers on CUDA,
    # so the gradient is written out here, in two matrix products.
    @staticmethod
    def forward(features, centers):
        return torch.cdist(features, centers, compute_mode="donot_use_mm_for_euclid_dist").square()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad):
        with torch.autocast(grad.device.type, enabled=False):
            features, centers = ctx.saved_tensors
            origin = centers.detach().mean(0)  # any point will do; near the data it keeps the digits
            z, mu = features - origin, centers - origin
            for_features = for_centers = None
            if ctx.needs_input_grad[0]:
                for_features = 2 * torch.addmm(grad.sum(1, keepdim=True) * z, grad, mu, alpha=-1)
            if ctx.needs_input_grad[1]:
                for_centers = 2 * torch.addmm(grad.sum(0)[:, None] * mu, grad.T, z, alpha=-1)
        return for_features, for_centers


def as_float(features: Tensor) -> Tensor:
    """Features in float32, or float64 where they come so: bfloat16 has a spacing of 1 at 200, where distances are."""
    return features if features.dtype == torch.float64 else features.float()


def squared_distances(features: Tensor, centers: Tensor) -> Tensor:
    """‖z_n - μ_l‖² for features (N, d) and centers (L, d), as (N, L) in float32 (float64 for such features)."""
    with torch.autocast(features.device.type, enabled=False):
        z = as_float(features)
        return _SquaredDistances.apply(z, centers.to(z.dtype))


def scaled_squared_distances(features: Tensor, centers: Tensor, precisions: Tensor) -> Tensor:
    """Σ_j p_lj (z_nj - μ_lj)² for features (N, d), centers and precisions (L, d), as (N, L); by blocks of classes."""
    with torch.autocast(features.device.type, enabled=False):
        z = as_float(features)
        mu, p = centers.to(z.dtype), precisions.to(z.dtype)
        rows = max(1, CHUNK // z.numel())

        def block(z, mu, p):
            return ((z[:, None] - mu).square() * p).sum(-1)

        if rows >= len(mu):
            return block(z, mu, p)
        # Recomputed in the backward pass, block by block, instead of kept.
        blocks = zip(mu.split(rows), p.split(rows), strict=True)
        return torch.cat([checkpoint(block, z, m, q, use_reentrant=False, preserve_rng_state=False) for m, q in blocks], 1)
