"""Indicators of attack failure: each is raised on a model made to fail that way, and on no ordinary one."""

import pytest
import torch
from torch import nn

from mmclib import attacks
from mmclib.attacks import indicators

SHORT = {"epsilon": 0.1, "step_size": 0.02, "steps": 40}


class Changed(nn.Module):
    def __init__(self, model, before=None, after=None):
        super().__init__()
        self.model, self.before, self.after = model, before, after

    def forward(self, images):
        logits = self.model(images if self.before is None else self.before(images))
        return logits if self.after is None else self.after(logits)


def test_an_ordinary_model_raises_none(sce, digits):
    images, labels = digits
    assert not indicators.unavailable_gradients(sce, images, labels).any()
    # at a twentieth of the ball in which attacks succeed the margin hardly moves; images on the boundary have no margin to speak of
    assert indicators.unstable_predictions(sce, images, labels, epsilon=0.005).double().mean() < 0.1
    assert not indicators.unbounded_failure(sce, images, labels).any()
    losses = indicators.record_losses(sce, images, labels, **SHORT)
    assert losses.shape == (41, 60) and indicators.incomplete_optimisation(losses).double().mean() < 0.1
    result = attacks.pgd(sce, images, labels, **SHORT)
    assert not indicators.silent_success(losses, result.success).any()
    assert not indicators.transfer_failure(sce, result.images, labels, result.success).any()


def test_gradients_that_vanish_or_do_not_exist(mmc, sce, digits):
    images, labels = digits
    blind = indicators.unavailable_gradients(mmc, images, labels, objective="cross_entropy")
    assert 0.3 < blind.double().mean() and not indicators.unavailable_gradients(mmc, images, labels).any()
    for cut in (lambda images: images.round(), lambda images: images.detach() * 1):
        assert indicators.unavailable_gradients(Changed(sce, before=cut), images, labels).all()
    with pytest.raises(ValueError, match="labels must lie in"):
        indicators.unavailable_gradients(sce, images, labels + 10)


def test_a_rough_surface(sce, digits):
    images, labels = digits

    def rough(logits):
        return logits * (1 + 0.5 * (1e4 * logits).sin())
    assert indicators.unstable_predictions(Changed(sce, after=rough), images, labels, epsilon=0.005).double().mean() > 0.9
    one, other = (indicators.unstable_predictions(sce, images[part], labels[part], seed=torch.arange(60)[part]) for part in
                  (slice(0, 60), slice(5, 9)))
    assert one[5:9].equal(other)  # an image's own, whatever else is in the batch


def test_losses_that_are_made_up():
    steps = torch.arange(50, dtype=torch.float32)
    losses = torch.stack((steps, steps.clamp(max=20), torch.zeros(50), -steps, 1 - 0.9**steps), 1)
    assert indicators.incomplete_optimisation(losses).tolist() == [True, False, False, False, False]
    assert indicators.incomplete_optimisation(losses, threshold=0.2).tolist() == [False] * 5
    assert indicators.incomplete_optimisation(losses[:2]).tolist() == [True, True, False, False, True]
    passed = torch.tensor([[-1.0, -1.0, -1.0], [2.0, 0.0, 2.0], [-1.0, -2.0, 3.0]])
    assert indicators.silent_success(passed, torch.tensor([False, False, True])).tolist() == [True, False, False]
    for wrong in (torch.zeros(3), torch.zeros(0, 3), torch.full((2, 2), torch.nan), [1.0]):
        with pytest.raises(ValueError, match="losses must"):
            indicators.incomplete_optimisation(wrong)
    with pytest.raises(ValueError, match="success must be bool"):
        indicators.silent_success(passed, torch.ones(3))


def test_a_last_iterate_worse_than_one_before_it_is_a_silent_success(mmc, digits):
    images, labels = digits
    losses = indicators.record_losses(mmc, images, labels, objective="success_margin", epsilon=0.3, step_size=0.6, steps=9)
    last = losses[-1] > 0
    assert indicators.silent_success(losses, last).any()
    assert indicators.silent_success(losses, last).equal((losses > 0).any(0) & ~last)


def test_what_does_not_transfer(mmc, sce, digits):
    images, labels = digits
    result = attacks.pgd(mmc, images, labels, epsilon=0.1, step_size=0.02)
    raised = indicators.transfer_failure(sce, result.images, labels, result.success)
    assert raised.equal(result.success & sce(result.images).argmax(1).eq(labels)) and raised.any()
    targets = (labels + 1) % 10
    targeted = attacks.pgd(mmc, images, labels, targets=targets, epsilon=0.3, step_size=0.05)
    raised = indicators.transfer_failure(sce, targeted.images, labels, targeted.success, targets=targets)
    assert raised.equal(targeted.success & sce(targeted.images).argmax(1).ne(targets))


def test_an_attack_that_fails_without_bounds(sce, digits):
    images, labels = digits
    hidden = Changed(sce, before=lambda images: images.round())
    right = hidden(images).argmax(1) == labels
    with pytest.warns(attacks.ledger.GradientMaskingWarning):
        raised = indicators.unbounded_failure(hidden, images, labels, start="clean")
    assert raised.equal(right)  # gradients of rounding are zero, and nothing moves
    assert not indicators.unbounded_failure(sce, images, labels, attack=attacks.mim, epsilon=1.0, step_size=0.1).any()


def test_a_path_is_that_of_the_attack_itself(mmc, digits):
    images, labels = digits
    settings = {"objective": "untargeted_1", "epsilon": 0.08, "step_size": 0.02, "steps": 6, "seed": 4}
    path = indicators.record_path(mmc, images, labels, **settings)
    result = attacks.pgd(mmc, images, labels, **settings)
    right = mmc(images).argmax(1) == labels
    assert path.losses.shape == path.margins.shape == (7, 60)
    assert (path.margins > 0).any(0)[right].equal(result.fooled[right]), "who is fooled on the path is who the attack returns"
    others = mmc(images).scatter(1, labels[:, None], -torch.inf)
    decaying = {"epsilon": 0.08, "steps": 6, "seed": 4}
    path = indicators.record_path(mmc, images, labels, targets=others.argmax(1), objective="targeted_2", step_size=None, **decaying)
    reached = attacks.multi_targeted(mmc, images, labels, classes=1, **decaying)
    assert not ((path.margins > 0).any(0) & ~reached.fooled).any()
