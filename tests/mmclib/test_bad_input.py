"""What cannot be meant is refused in one sentence that names it."""

import pytest
import torch

from mmclib import attacks, centers, checks, evaluation, intervals, models, optimality
from mmclib.training import Recipe, fit
from tests.mmclib.small import Through, small, trained


@pytest.mark.parametrize(("call", "says"), [
    (lambda m, x, y: attacks.pgd(lambda pixels: m(pixels), x, y), "must be a torch.nn.Module"),
    (lambda m, x, y: evaluation.accuracy(lambda pixels: m(pixels), x, y), "must be a torch.nn.Module"),
    (lambda m, x, y: evaluation.robust_accuracy(m, x, y, lambda model, images, labels, **others: images), "must return an AttackResult"),
    (lambda m, x, y: evaluation.worst_case(m, x, y, [attacks.pgd]), "attacks must map at least one name to an attack, got list"),
    (lambda m, x, y: evaluation.transfer_row(m, [m], x, y, attacks.pgd), "models must map at least one name to a model, got list"),
    (lambda m, x, y: attacks.pgd(Through(m, after=lambda logits: logits[:, :1]), x, y), "at least 2 classes"),
    (lambda m, x, y: checks.check_images(torch.rand(2, 0, 8, 8)), "at least one pixel"),
    (lambda m, x, y: evaluation.accuracy(m, x + 1.2e-7 * (x == x.max()), y), r"ranges over .0, 1\.00000012.; .clamp\(0, 1\) takes"),
    (lambda m, x, y: models.whiten(models.small_convnet(), x), "no whitened stem"),
    (lambda m, x, y: intervals.binomial_interval(5, 3), r"hits must lie in \[0, count\]"),
    (lambda m, x, y: intervals.auroc_interval([0.1, float("nan")], [0.5]), "one is NaN"),
    (lambda m, x, y: optimality.optimality([0.1, 0.2, 0.3], [0.05], 0.4), "of the same images"),
    (lambda m, x, y: evaluation.robust_accuracy(m, x, y, "pgd"), "attack must be a function"),
    (lambda m, x, y: evaluation.worst_case(m, x, y, {"a": 3}), "attack must be a function"),
    (lambda m, x, y: attacks.ladder("8/255"), "epsilon must be a finite number"),
    (lambda m, x, y: centers.max_mahalanobis_centers(3, 3, "10"), "radius must be a number"),
    (lambda m, x, y: centers.max_mahalanobis_centers(3, 3, 1e39), "radius must be a number"),
    (lambda m, x, y: centers.max_mahalanobis_centers(3, 3, 1e-46), "radius must be a number"),
    (lambda m, x, y: intervals.wilson_interval(1, 2, 1.5), "confidence must lie between 0 and 1"),
    (lambda m, x, y: Recipe(epochs=1, milestones=100), "milestones must be a tuple"),
    (lambda m, x, y: trained(small().double()), r"pass model\.float\(\)"),
    (lambda m, x, y: trained(small(), folder=__file__), "is a file"),
    (lambda m, x, y: fit(small(), (x, y), (x, y), recipe={}, seed=0), "recipe must be an mmclib Recipe"),
])
def test_bad_input_is_one_sentence(mmc, digits, call, says):
    images, labels = (tensor[:20] for tensor in digits)
    with pytest.raises(ValueError, match=says):
        call(mmc, images, labels)
