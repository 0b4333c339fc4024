"""Margins of features against what they must be: half the way between two centers, and the point where the answer changes."""

import numpy as np
import pytest
import torch

from mmclib import centers, losses, margins
from mmclib.margins import feature_margin
from mmclib.optimality import area, optimality
from tests.mmclib.small import Own

CENTERS = centers.max_mahalanobis_centers(5, 8, 10.0)


def heads():
    torch.manual_seed(0)
    softmax = losses.SoftmaxCrossEntropy(5, 8)
    torch.nn.init.normal_(softmax.linear.bias)
    elastic = losses.ElasticMaxMahalanobisCenter(CENTERS, alpha=1.0)
    torch.nn.init.normal_(elastic.offsets)
    return [softmax, losses.CenterLoss(5, 8), losses.MaxMahalanobisCenter(CENTERS), losses.MaxMahalanobisCenter(CENTERS, form="absolute"),
            losses.MaxMahalanobisLDA(torch.randn(5, 8) * 3), elastic]


def test_a_feature_on_its_center_is_half_the_way_from_the_others():
    between = torch.cdist(CENTERS, CENTERS)[0, 1].double()
    margins = feature_margin(losses.MaxMahalanobisCenter(CENTERS), CENTERS, torch.arange(5))
    assert torch.allclose(margins, between.expand(5) / 2, rtol=1e-5)
    wrong = feature_margin(losses.MaxMahalanobisCenter(CENTERS), CENTERS, (torch.arange(5) + 1) % 5)
    assert torch.allclose(wrong, -between.expand(5) / 2, rtol=1e-5)


@pytest.mark.parametrize("head", heads(), ids=lambda head: type(head).__name__)
def test_no_nearer_point_changes_the_answer_and_one_at_the_margin_does(head):
    head = head.double()
    features = 4 * torch.randn(40, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = head.logits(features).argmax(1)
    margins = feature_margin(head, features, labels)
    assert (margins > 0).all()
    away = torch.randn(200, 40, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    inside = features + 0.999 * margins[:, None] * away / away.norm(dim=2, keepdim=True)
    assert head.logits(inside.reshape(-1, 8)).argmax(1).reshape(200, 40).eq(labels).all()
    z = features.clone().requires_grad_()  # straight to the nearest boundary: against the margin's own gradient
    logits = head.logits(z)
    own = logits.gather(1, labels[:, None])
    ways = []
    for other in range(5):
        gradient, = torch.autograd.grad((own[:, 0] - logits[:, other]).sum(), z, retain_graph=True)
        ways.append(torch.nn.functional.normalize(gradient, dim=1))
    crossed = torch.stack([head.logits(features - 1.001 * margins[:, None] * way).argmax(1) != labels for way in ways])
    if not isinstance(head, losses.MaxMahalanobisCenter) or head.form == "squared":  # else the gradient is not normal to the boundary
        assert crossed.any(0).all()


def test_margins_refuse_what_they_cannot_know():
    head = losses.MaxMahalanobisCenter(CENTERS)
    with pytest.raises(ValueError, match="LargeMarginGaussianMixture are not known to be hyperplanes"):
        feature_margin(losses.LargeMarginGaussianMixture(5, 8), torch.zeros(1, 8), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"features must have shape \(N, 8\)"):
        feature_margin(head, torch.zeros(1, 7), torch.tensor([0]))
    with pytest.raises(ValueError, match="labels must lie in"):
        feature_margin(head, torch.zeros(1, 8), torch.tensor([5]))


def test_optimality_is_1_for_the_best_and_0_for_an_attack_that_finds_nothing():
    best, none = np.array([0.0, 0.1, 0.3, np.inf]), np.array([0.0, np.inf, np.inf, np.inf])
    assert area(best, 0.4) == pytest.approx((0 + 0.1 + 0.3 + 0.4) / 4)
    assert optimality(best, best, 0.4) == 1 and optimality(none, best, 0.4) == 0
    half = np.array([0.0, 0.1, np.inf, np.inf])  # takes 0.3 of the 0.4 that can be taken
    assert optimality(half, best, 0.4) == pytest.approx(0.75)
    assert optimality(none, none, 0.4) is None
    with pytest.raises(ValueError, match="must not be below the best"):
        optimality(best, none, 0.4)
    for wrong in ([], [-1.0], [np.nan], [[1.0]]):
        with pytest.raises(ValueError, match="distances must"):
            area(wrong, 1.0)


def test_two_classes_that_share_a_center_have_no_boundary():
    head = losses.MaxMahalanobisCenter(torch.tensor([[0.0, 0.0], [0.0, 0.0], [2.0, 0.0]]), scale=1.0)
    assert margins.feature_margin(head, torch.tensor([[0.0, 3.0]]), torch.tensor([0])).tolist() == [1.0]


def test_a_margin_is_known_of_our_heads_alone():
    features, labels = torch.randn(4, 16), torch.arange(4)
    for head in (Own(centers=torch.randn(10, 16)), losses.LargeMarginGaussianMixture(10, 16)):
        with pytest.raises(ValueError, match="not known to be hyperplanes"):
            margins.feature_margin(head, features, labels)
