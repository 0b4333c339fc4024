"""Muon on convolution kernels (Jordan et al., 2024): momentum whose direction is orthogonalised, so that its size carries no loss scale."""

import torch

_QUINTIC = (3.4445, -4.7750, 2.0315)  # brings singular values in (0, 1] near 1 in a few steps


class Muon(torch.optim.Optimizer):
    """Nesterov momentum on kernels (out, in, height, width), each update turned into the nearest orthogonal (out, in * height * width).

    A kernel is brought to the Frobenius norm sqrt(out) before each step: `lr` is the angle in radians by which it turns, whatever the
    scale of the loss. Kernels must be followed by a normalisation. `precision` is what the orthogonalisation computes in.
    """

    def __init__(self, params, lr, momentum=0.6, iterations=3, precision="float32"):
        super().__init__(params, {"lr": lr, "momentum": momentum, "iterations": iterations, "precision": precision})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for kernel in group["params"]:
                if kernel.grad is None:
                    continue
                state = self.state[kernel]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(kernel)
                momentum = state["momentum_buffer"].mul_(group["momentum"]).add_(kernel.grad)
                ahead = kernel.grad.add(momentum, alpha=group["momentum"])
                kernel.mul_(len(kernel) ** 0.5 / kernel.norm().clamp_min(1e-30))  # a kernel of zeros stays one for this step
                update = orthogonalised(ahead.flatten(1).to(getattr(torch, group["precision"])), group["iterations"])
                kernel.sub_(group["lr"] * update.view_as(kernel).to(kernel.dtype))


def orthogonalised(matrix, iterations=3):
    """Move the singular values of a matrix (m, n) near 1 by Newton-Schulz steps; they end between about 0.7 and 1.2."""
    a, b, c = _QUINTIC
    x = matrix / (matrix.norm() + 1e-7)
    wide = x if x.shape[0] <= x.shape[1] else x.T
    for _ in range(iterations):
        gram = wide @ wide.T
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    return wide if x.shape[0] <= x.shape[1] else wide.T
