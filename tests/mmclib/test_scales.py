"""Objectives that need logits of a scale the softmax does not saturate at, MALT's order of targets, and the count of passes."""

import functools
import warnings

import pytest
import torch
from torch import nn

from mmclib import attacks, evaluation
from mmclib.attacks.climb import scaled
from mmclib.attacks.objectives import OBJECTIVES, divided, divided_by_gap, spread
from tests.mmclib.small import Through

SHORT = {"epsilon": 0.1, "step_size": 0.02, "steps": 20}
CLIMB = {"epsilon": 0.2, "step_size": 0.05, "steps": 20}
CLIMBERS = [functools.partial(attacks.mim, **CLIMB), attacks.fmn, attacks.ddn]


def test_dividing_by_the_gap_forgets_the_scale_of_logits():
    labels, logits = torch.tensor([0, 1, 2]), torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    for name in ("cross_entropy", "probability_margin"):
        small, large = (divided_by_gap(name)(None, scale * logits, labels, None) for scale in (1e-3, 1e4))
        assert torch.allclose(small, large, rtol=1e-3, atol=1e-5)
    huge = torch.tensor([[0.0, -200.0, -900.0]], requires_grad=True)
    for name in ("cross_entropy", "probability_margin"):
        blind, = torch.autograd.grad(OBJECTIVES[name](None, huge, torch.tensor([0]), None).sum(), huge)
        sees, = torch.autograd.grad(divided_by_gap(name)(None, huge, torch.tensor([0]), None).sum(), huge)
        assert not blind.any() and sees[0, 1] > 0 > sees[0, 0]
    odd = torch.tensor([[1.0, 1.0, 0.0], [1.0, -torch.inf, -torch.inf]])
    assert divided_by_gap("cross_entropy")(None, odd, torch.tensor([0, 0]), None).isfinite().all(), "no gap to divide by"


def test_the_margin_of_probabilities_lies_between_minus_one_and_one():
    logits = torch.tensor([[3.0, 1.0, 0.0], [0.0, 1.0, 3.0]])
    values = OBJECTIVES["probability_margin"](None, logits, torch.tensor([0, 0]), None)
    shares = logits.softmax(1)
    assert torch.allclose(values, torch.stack([shares[0, 1] - shares[0, 0], shares[1, 2] - shares[1, 0]]))
    towards = OBJECTIVES["probability_margin"](None, logits, torch.tensor([0, 0]), torch.tensor([1, 1]))
    assert torch.allclose(towards, shares[:, 1] - shares[:, 0])


def test_on_mmc_they_are_attacks_only_when_divided(mmc, digits):
    images, labels = digits
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fooled = {name: attacks.pgd(mmc, images, labels, objective=objective, **SHORT).fooled.sum() for name, objective in {
            "cross_entropy": "cross_entropy", "pma": "probability_margin", "divided": divided_by_gap("cross_entropy"),
            "pma_gap": divided_by_gap("probability_margin"), "margin": "margin"}.items()}
    assert max(fooled["cross_entropy"], fooled["pma"]) + 10 < min(fooled["divided"], fooled["pma_gap"])
    assert min(fooled["divided"], fooled["pma_gap"]) >= fooled["margin"] - 3


class Slopes(nn.Module):
    """Three classes by the brightness: the second is close in logits but hardly moves, the third is farther and moves fast, downwards."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.0, 0.1, -10.0]))
        self.offset = nn.Parameter(torch.tensor([0.0, -0.5, 4.0]))

    def forward(self, images):
        return images.mean((1, 2, 3))[:, None] * self.weight + self.offset


def test_malts_first_target_is_the_nearest_were_logits_linear(mmc, digits):
    images, labels = torch.full((3, 1, 4, 4), 0.5), torch.zeros(3, dtype=torch.int64)
    found = {order: attacks.multi_targeted(Slopes(), images, labels, classes=1, epsilon=0.2, steps=10, order=order)
             for order in ("logits", "malt")}
    assert not found["logits"].success.any() and found["malt"].success.all()
    assert found["malt"].queries.min() > 2 and found["malt"].gradients.min() >= 3, "one gradient a wrong class is booked"
    with pytest.raises(ValueError, match="order must be 'logits' or 'malt', got 'size'"):
        attacks.multi_targeted(Slopes(), images, labels, order="size")
    images, labels = digits
    every = [attacks.multi_targeted(mmc, images, labels, epsilon=0.06, steps=10, order=order).success for order in ("logits", "malt")]
    assert abs(int(every[0].sum()) - int(every[1].sum())) <= 2, "with all classes tried the order hardly matters"


@pytest.mark.parametrize("objective", ("margin", "cross_entropy"))
def test_the_passes_booked_are_those_that_a_counter_in_the_model_sees(objective, sce, digits):
    images, labels = digits[0][:16], digits[1][:16]  # as many as a call has rows: none is padding
    seen = {"forward": 0, "backward": 0}

    class Counted(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = sce

        def forward(self, inputs):
            seen["forward"] += 1
            logits = self.model(inputs)
            if logits.requires_grad:
                logits.register_hook(lambda gradient: seen.update(backward=seen["backward"] + 1))
            return logits

    result = attacks.pgd(Counted(), images, labels, objective=objective, stop_early=False, **SHORT)
    assert result.queries.tolist() == [seen["forward"] - 2] * 16, "two more look for dependence on the batch"
    assert result.gradients.tolist() == [seen["backward"]] * 16 == [20] * 16


@pytest.mark.parametrize("attack", CLIMBERS, ids=["mim", "fmn", "ddn"])
def test_an_infinite_gradient_is_followed_like_any_other(sce, digits, attack):
    """The root's slope at a black pixel is infinite: divided by its own norm the gradient vanished, and every image was 'robust'."""
    images, labels = digits
    rooted = Through(sce, lambda pixels: pixels.pow(0.5))
    right = evaluation.accuracy(rooted, images, labels).correct
    assert attack(rooted, images, labels).fooled[right].double().mean() > 0.9


@pytest.mark.parametrize("scale", [1e-20, 1e30])
@pytest.mark.parametrize("attack", CLIMBERS, ids=["mim", "fmn", "ddn"])
def test_the_scale_of_logits_does_not_matter(sce, digits, attack, scale):
    images, labels = (tensor[:40] for tensor in digits)
    found = attack(Through(sce, after=lambda logits: logits * scale), images, labels)
    assert (found.fooled == attack(sce, images, labels).fooled).double().mean() > 0.95


def test_scaled_gradients_are_the_same_to_the_bit_and_never_overflow():
    sizes = torch.tensor([1e-42, 3e-39, 1.0, 3e38, 0.0, 7e-20])
    gradients = sizes[:, None, None, None] * torch.rand(6, 1, 2, 2).clamp(min=0.6)
    found, exponents = scaled(gradients)
    largest = found.flatten(1).abs().amax(1)
    assert ((largest >= 0.5) & (largest < 1))[sizes > 0].all() and not found[4].any()
    assert torch.ldexp(found[[2]], exponents[2]).equal(gradients[[2]])


def test_divided_objectives_take_targets_like_those_they_divide():
    logits, labels, targets = torch.tensor([[3.0, 1.0, 0.0]]), torch.tensor([0]), torch.tensor([2])
    assert divided("targeted_2", 2.0)(None, logits, labels, targets).item() == -1.5
    assert divided_by_gap("targeted_1")(None, logits, labels, targets).item() == 0.0
    for make in (lambda name: divided(name, 2.0), divided_by_gap):
        with pytest.raises(ValueError, match="untargeted"):
            make("untargeted_2")(None, logits, labels, targets)
        with pytest.raises(ValueError, match="one of margin"):
            make("nothing")


@pytest.mark.parametrize("attack", [attacks.fmn, attacks.ddn], ids=["fmn", "ddn"])
@pytest.mark.parametrize("left_out", [-1e4, -1e9, torch.finfo(torch.float32).min])
def test_a_class_left_out_by_a_large_number_is_left_out_as_by_minus_infinity(sce, digits, attack, left_out):
    """The margin that a success needs grew with the spread of all logits, so nothing was one, and every image was 'robust'."""
    images, labels = (tensor[:40] for tensor in digits)
    last = torch.arange(10) == 9
    models = [Through(sce, after=lambda logits, value=value: logits.masked_fill(last, value)) for value in (-torch.inf, left_out)]
    found = [evaluation.robust_accuracy(model, images, labels, attack) for model in models]
    assert found[0].correct.equal(found[1].correct) and not found[0].correct.any()
    torch.testing.assert_close(found[0].distortion, found[1].distortion, rtol=0.05, atol=1e-5)


def test_the_spread_of_logits_is_that_of_the_classes_that_compete():
    endless = torch.inf
    logits = torch.tensor([[3.0, 1, -4, 0], [3, 1, -4, -1e9], [3, 1, -1e9, -1e9], [3, -1e9, -1e9, -1e9], [3, 1, -endless, -endless],
                           [endless, 3, 1, -4], [0.1, 0.1, -9, -20], [-endless] * 4, [1e-3, 5e-4, -5, -6], [0, 0, -5, -1e4]])
    expected = [7, 7, 2, 1e9, 2, 7, 20.1, 0, 6.001, 5]  # where one competes alone, there is nobody to ask
    assert spread(logits).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("attack", [attacks.fmn, attacks.ddn], ids=["fmn", "ddn"])
def test_logits_below_their_largest_are_the_same_model(sce, digits, attack):
    images, labels = (tensor[:30] for tensor in digits)
    found = [evaluation.robust_accuracy(model, images, labels, attack) for model in
             (sce, Through(sce, after=lambda logits: logits - logits.amax(1, keepdim=True).detach()))]
    torch.testing.assert_close(found[0].distortion, found[1].distortion, rtol=1e-4, atol=1e-6)
