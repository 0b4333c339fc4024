"""Muon: orthogonal updates of fixed size, whatever the scale of the loss."""

import pytest
import torch
from torch import nn

from mmclib import losses
from mmclib.training.muon import Muon, orthogonalised
from tests.mmclib.small import small, trained


@pytest.mark.parametrize("shape", [(8, 40), (40, 8), (16, 16)])
def test_singular_values_come_near_one_and_directions_stay(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    result = orthogonalised(matrix, iterations=5)
    values = torch.linalg.svdvals(result)
    assert 0.6 < values.min() and values.max() < 1.3
    within = u.T @ result @ v.T  # in the matrix's own singular vectors: diagonal
    torch.testing.assert_close(within, torch.diag(within.diagonal()), atol=1e-4, rtol=0)


def test_the_step_does_not_depend_on_the_scale_of_the_loss():
    ends = []
    for scale in (1.0, 1e4):
        kernel = torch.nn.Parameter(torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(1)))
        optimizer = Muon([kernel], lr=0.1)
        for step in range(3):
            kernel.grad = scale * torch.randn(kernel.shape, generator=torch.Generator().manual_seed(step))
            optimizer.step()
        ends.append(kernel.detach())
    torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-5)


def test_a_kernel_turns_by_the_rate():
    kernel = torch.nn.Parameter(torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(1)))
    before = kernel.detach() * 6**0.5 / kernel.detach().norm()
    kernel.grad = torch.randn(kernel.shape, generator=torch.Generator().manual_seed(2))
    Muon([kernel], lr=0.1).step()
    assert 0.7 < (kernel.detach() - before).norm() / (0.1 * 6**0.5) < 1.3


def test_the_momentum_is_nesterovs():
    torch.manual_seed(0)
    kernel, gradients = torch.nn.Parameter(torch.randn(4, 3, 2, 2)), torch.randn(2, 4, 3, 2, 2)
    optimizer = Muon([kernel], lr=0.1, momentum=0.6)
    for gradient in gradients:
        before = kernel.detach() * len(kernel) ** 0.5 / kernel.detach().norm()
        kernel.grad = gradient.clone()
        optimizer.step()
    ahead = gradients[1] + 0.6 * (gradients[1] + 0.6 * gradients[0])
    torch.testing.assert_close(kernel.detach(), before - 0.1 * orthogonalised(ahead.flatten(1)).view_as(kernel))


def test_muon_begins_from_a_kernel_of_zeros():
    model = small(head=losses.SoftmaxCrossEntropy(10, 16))
    nn.init.zeros_(model.backbone[0].weight)
    trained(model, optimizer="muon")
    assert all(parameter.isfinite().all() for parameter in model.parameters())
