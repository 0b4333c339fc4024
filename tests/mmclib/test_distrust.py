"""What a distrustful researcher found: silence where gradients are missing, other trainings taken for one's own, files lost."""

import dataclasses
import functools
import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from mmclib import attacks, centers, checkpoints, data, evaluation, intervals, losses, models, optimality, zoo
from mmclib.attacks.climb import ShortStepsWarning
from mmclib.attacks.frozen import BatchDependenceWarning
from mmclib.attacks.ledger import GradientMaskingWarning
from mmclib.attacks.objectives import divided
from mmclib.fingerprints import fingerprint
from mmclib.training import AdversarialTraining, Recipe, fit

PGD = {"epsilon": 0.2, "step_size": 0.05, "steps": 8}


def small(seed=0, head=None, mean=None):
    torch.manual_seed(seed)
    head = head or losses.MaxMahalanobisCenter(centers.max_mahalanobis_centers(10, 16, 10.0))
    return models.Classifier(models.small_convnet(1, 16, 8), head, mean)


def trained(model, folder=None, count=100, test=40, **changes):
    (images, labels), (others, truth) = data.load("digits", "train"), data.load("digits", "test")
    recipe = Recipe(**{"epochs": 1, "shift": 0, "flip": False, "batch_size": 20} | changes)
    return fit(model, (images[:count], labels[:count]), (others[:test], truth[:test]), recipe=recipe, seed=0, folder=folder, compile=False,
               progress=False)


def against(objective):
    return AdversarialTraining(epsilon=0.1, step_size=0.05, steps=1, objective=objective)


class Scaled(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, images):
        return self.factor * images


def with_scale(factor):
    model = small()
    model.backbone = nn.Sequential(Scaled(factor), *model.backbone)
    return model


def with_frozen_layer():
    model = small()
    model.backbone[0].weight.requires_grad_(False)
    return model


@pytest.mark.parametrize(("first", "second", "key"), [
    (lambda folder: trained(small(), folder, adversarial=against(divided("cross_entropy", 10.0))),
     lambda folder: trained(small(), folder, adversarial=against(divided("cross_entropy", 1000.0))), "objective"),
    (lambda folder: trained(with_scale(1.0), folder), lambda folder: trained(with_scale(5.0), folder), "layers"),
    (lambda folder: trained(with_frozen_layer(), folder), lambda folder: trained(small(), folder), "layers"),
    (lambda folder: trained(small(), folder), lambda folder: trained(small(), folder, test=39), "test"),
], ids=["objective", "setting", "frozen", "test set"])
def test_a_folder_of_another_training_is_not_taken_for_this_one(tmp_path, first, second, key):
    first(tmp_path)
    with pytest.raises(ValueError, match=rf"holds the state of another training \({key} "):
        second(tmp_path)
    history = first(tmp_path).history  # itself it is
    assert len(history) == 1


def test_vanishing_gradients_are_told_of_where_examples_are_crafted(mmc, sce, digits):
    images, labels = digits[0][:60], digits[1][:60]
    with pytest.warns(GradientMaskingWarning, match="pgd"):
        evaluation.transfer_row(mmc, {"other": sce}, images, labels, attacks.pgd, objective="cross_entropy", **PGD)
    spsa = functools.partial(attacks.spsa, objective="cross_entropy", epsilon=0.2, learning_rate=0.05, evaluations=16)
    with pytest.warns(GradientMaskingWarning, match="spsa"):
        found = evaluation.robust_accuracy(mmc, images, labels, spsa)
    assert found.masked and found.gradients.any()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        table = evaluation.worst_case(mmc, images, labels, {"spsa": spsa})
    assert "no evidence" in repr(table) and any(one.category is GradientMaskingWarning for one in said)


def test_adversarial_training_records_crafting_gradients_that_vanish(tmp_path):
    model = small()
    trained(model, count=1000, epochs=6, learning_rate=0.02)
    with pytest.warns(GradientMaskingWarning, match="epoch 1 was crafted by are exactly zero"):
        blind = trained(model, tmp_path, learning_rate=0.0, epochs=2, adversarial=against("cross_entropy")).history
    seeing = trained(model, learning_rate=0.0, adversarial=against("margin")).history
    assert blind[0]["zero_gradients"] > 0.05 > seeing[0]["zero_gradients"] and "zero_gradients" not in trained(small()).history[0]


def outside(model, images, labels, *, targets=None, seed=0, epsilon=0.2):
    return attacks.pgd(model, images, labels, epsilon=epsilon * 1.01, step_size=0.05, steps=8, seed=seed)


def modest(model, images, labels, *, targets=None, seed=0):
    result = attacks.pgd(model, images, labels, seed=seed, **PGD)
    return dataclasses.replace(result, fooled=torch.zeros_like(result.fooled), success=torch.zeros_like(result.success))


def test_successes_that_do_not_count_are_told_of_and_those_unclaimed_do(mmc, digits):
    images, labels = digits[0][:40], digits[1][:40]
    with pytest.warns(UserWarning, match=r"of \d+ claimed successes are rejected"):
        found = evaluation.robust_accuracy(mmc, images, labels, outside, epsilon=0.2)
    assert f"{int(found.rejected.sum())} successes rejected" in repr(found) and found.rejected.sum() > 10
    honest = evaluation.robust_accuracy(mmc, images, labels, attacks.pgd, **PGD)
    assert evaluation.robust_accuracy(mmc, images, labels, modest).correct.equal(honest.correct) and "rejected" not in repr(honest)


def test_images_of_another_shape_are_refused_by_name(digits):
    model = small(mean=torch.full((1, 8, 8), 0.3))
    for shape in ((2, 1, 1, 8), (2, 1, 8, 1), (2, 1, 1, 1), (2, 3, 8, 8), (2, 1, 9, 9)):
        wrong, labels = torch.rand(shape), torch.zeros(2, dtype=torch.int64)
        for ask in (lambda images, labels: model(images), *(functools.partial(door, model) for door in (attacks.pgd, evaluation.accuracy))):
            with pytest.raises(ValueError, match=r"images must have shape \(N, 1, 8, 8\)"):
                ask(wrong, labels)
    assert small(mean=torch.tensor([[[0.5]], [[0.4]], [[0.3]]])).features.__self__.mean.shape == (3, 1, 1)
    for mean, says in ((torch.rand(3), r"shape \(3,\)"), (torch.full((1, 8, 8), math.nan), "NaN")):
        with pytest.raises(ValueError, match=says):
            small(mean=mean)
    grey, labels = data.load("digits", "train")
    colours = grey.expand(-1, 3, -1, -1)
    with pytest.raises(ValueError, match="of one shape"):
        fit(small(), (grey, labels), (colours, labels), recipe=Recipe(epochs=1), seed=0)


def test_a_mean_of_ones_own_is_kept_and_none_is_set():
    own = small(mean=torch.full((1, 1, 1), 0.13))
    trained(own)
    assert own.mean.flatten().tolist() == pytest.approx([0.13])
    unset = small()
    trained(unset)
    assert unset.mean.shape == (1, 8, 8)


def test_backward_hooks_are_part_of_a_model():
    model = small()
    plain = fingerprint(model)
    handle = model.backbone[0].register_full_backward_hook(lambda module, inputs, outputs: (inputs[0] * 0,))
    hooked = fingerprint(model)
    handle.remove()
    assert hooked != plain == fingerprint(model)


def test_a_file_of_ones_own_is_not_replaced_by_a_partial_one(mmc, digits, tmp_path):
    weights, text, folder = tmp_path / "weights.safetensors", tmp_path / "notes.txt", tmp_path / "folder"
    checkpoints.save_model(weights, mmc, {"mine": 1})
    text.write_text("import torch  # a day's work")
    folder.mkdir()
    for path in (weights, text, folder):
        with pytest.raises(ValueError, match="is not what an interrupted evaluation left"):
            evaluation.robust_accuracy(mmc, digits[0][:20], digits[1][:20], attacks.pgd, partial=path, **PGD)
    assert checkpoints.load_model_state(weights)[1] == {"mine": 1} and text.read_text().startswith("import")
    empty = tmp_path / "empty"
    empty.write_bytes(bytes(64))  # a power cut
    with pytest.warns(UserWarning, match="starts over"):
        evaluation.robust_accuracy(mmc, digits[0][:20], digits[1][:20], attacks.pgd, partial=empty, **PGD)
    assert not empty.exists()


@pytest.mark.parametrize("name", ["pgd", "mim", "spsa"])
def test_steps_that_do_not_reach_the_balls_border_are_told_of(mmc, digits, name):
    attack, size = getattr(attacks, name), "learning_rate" if name == "spsa" else "step_size"
    images, labels = digits[0][:20], digits[1][:20]
    with pytest.warns(ShortStepsWarning, match=f"{name}: 4 steps of 0.02 reach 0.08, not the border of the ball of 0.2"):
        attack(mmc, images, labels, epsilon=0.2, steps=4, **{size: 0.02})
    with warnings.catch_warnings():
        warnings.simplefilter("error", ShortStepsWarning)
        attack(mmc, images, labels, epsilon=0.2, steps=4, **{size: 0.05})
        attack(mmc, images, labels)  # by default


@pytest.mark.parametrize("adversarial", [None, against("margin")], ids=["standard", "adversarial"])
def test_a_distance_loss_that_diverges_says_so_as_any_other(adversarial):
    with pytest.raises(FloatingPointError, match=r"in epoch 1, batch \d+ of 5 \(learning rate 1e\+06\); try a smaller learning_rate"):
        trained(small(), learning_rate=1e6, adversarial=adversarial)


def test_muon_begins_from_a_kernel_of_zeros():
    model = small(head=losses.SoftmaxCrossEntropy(10, 16))
    nn.init.zeros_(model.backbone[0].weight)
    trained(model, optimizer="muon")
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_batch_statistics_show_whatever_the_first_image_is(digits):
    model = nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), nn.Flatten(), nn.Linear(64, 10))
    for value in (0.0, 0.5, 1.0):
        images = torch.cat((torch.full((1, 1, 8, 8), value), digits[0][:5]))
        with pytest.warns(BatchDependenceWarning):
            evaluation.accuracy(model, images, digits[1][:6])


def test_an_image_without_an_adversarial_is_infinitely_far(mmc, digits):
    found = evaluation.robust_accuracy(mmc, digits[0][:24], digits[1][:24], attacks.fmn, steps=2)
    assert found.correct.any() and found.distances[found.correct].isinf().all()
    assert found.distances[~found.correct].equal(found.distortion[~found.correct])
    assert optimality.area(found.distances, 1.0) > optimality.area(np.where(found.correct, 0, found.distances), 1.0)


def test_a_last_batch_of_one_image_is_refused_before_the_first_step():
    head = losses.SoftmaxCrossEntropy(10, 16)
    model = models.Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16)), head)
    before = model.backbone[2].running_mean.clone()
    with pytest.raises(ValueError, match="the last batch of an epoch would be one image"):
        trained(model, count=101)
    assert model.backbone[2].running_mean.equal(before) and model.backbone[2].num_batches_tracked == 0
    model.eval()
    with pytest.raises(ValueError, match="the last batch of an epoch would be one image"):
        trained(model, batch_size=1)
    assert not model.training, "a refusal leaves the mode as it was"
    trained(small(), count=101)  # maps of several pixels have statistics


@pytest.mark.parametrize(("ask", "says"), [
    (lambda mmc, images, labels: evaluation.robust_accuracy(mmc, images, labels, "pgd"), "attack must be a function"),
    (lambda mmc, images, labels: evaluation.worst_case(mmc, images, labels, {"a": 3}), "attack must be a function"),
    (lambda mmc, images, labels: attacks.ladder("8/255"), "epsilon must be a finite number"),
    (lambda mmc, images, labels: centers.max_mahalanobis_centers(3, 3, "10"), "radius must be a number"),
    (lambda mmc, images, labels: centers.max_mahalanobis_centers(3, 3, 1e39), "radius must be a number"),
    (lambda mmc, images, labels: centers.max_mahalanobis_centers(3, 3, 1e-46), "radius must be a number"),
    (lambda mmc, images, labels: intervals.wilson_interval(1, 2, 1.5), "confidence must lie between 0 and 1"),
    (lambda mmc, images, labels: Recipe(epochs=1, milestones=100), "milestones must be a tuple"),
    (lambda mmc, images, labels: trained(small().double()), r"pass model\.float\(\)"),
    (lambda mmc, images, labels: trained(small(), folder=__file__), "is a file"),
    (lambda mmc, images, labels: fit(small(), (images, labels), (images, labels), recipe={}, seed=0), "recipe must be an mmclib Recipe"),
])
def test_bad_input_is_one_sentence(mmc, digits, ask, says):
    with pytest.raises(ValueError, match=says):
        ask(mmc, *digits)


def test_an_objective_that_cannot_be_told_from_another_needs_to_be_only_in_a_folder(tmp_path):
    generator = torch.Generator()  # its content cannot be read

    def noisy(features, logits, labels, targets):
        return attacks.objectives.untargeted_2(features, logits, labels, targets) + 0 * torch.rand((), generator=generator)
    assert trained(small(), adversarial=against(noisy)).finished
    with pytest.raises(ValueError, match="the objective holds .*Generator"):
        trained(small(), tmp_path, adversarial=against(noisy))


def test_a_partial_of_an_objective_is_one():
    assert trained(small(), adversarial=against(functools.partial(attacks.objectives.untargeted_2))).finished


@pytest.mark.skipif("cpu-mmc-10" not in zoo.released(), reason="cpu-mmc-10 is not released")
def test_a_released_model_is_float32_whatever_torchs_default():
    torch.set_default_dtype(torch.float64)
    try:
        model = zoo.load_released("cpu-mmc-10")
    finally:
        torch.set_default_dtype(torch.float32)
    assert {tensor.dtype for tensor in model.state_dict().values() if tensor.is_floating_point()} == {torch.float32}
