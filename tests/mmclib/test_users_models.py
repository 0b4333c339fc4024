"""What users' own models, attacks and settings do that ours do not: each was a fault that an outsider found."""

import functools
import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

from mmclib import attacks, centers, checks, evaluation, intervals, losses, margins, models, optimality
from mmclib.attacks.climb import scaled
from mmclib.attacks.frozen import FrozenModel
from mmclib.attacks.objectives import divided, divided_by_gap
from mmclib.fingerprints import UnidentifiedError, fingerprint
from mmclib.training import AdversarialTraining, Recipe, fit
from mmclib.training.batches import epoch_plan

L = {"epsilon": 0.2, "step_size": 0.05, "steps": 20}
CLIMBERS = [functools.partial(attacks.mim, **L), attacks.fmn, attacks.ddn]


class Through(nn.Module):
    """A model behind a function of its images and logits."""

    def __init__(self, model, before=lambda images: images, after=lambda logits: logits):
        super().__init__()
        self.model, self.before, self.after = model, before, after

    def forward(self, images):
        return self.after(self.model(self.before(images)))


class Flattening(nn.Module):
    """A small network as tutorials write it, with .view."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.last = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 16, 3), nn.Linear(256, 10)

    def forward(self, images):
        return self.last(torch.relu(self.second(torch.relu(self.first(images)))).view(-1, 256))


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


@pytest.mark.parametrize("attack", [attacks.pgd, attacks.spsa, attacks.gaussian_noise, attacks.multi_targeted, attacks.carlini_wagner])
def test_a_model_that_flattens_by_view_is_attacked(digits, attack):
    images, labels = (tensor[:20] for tensor in digits)
    model = Flattening().eval()
    before = {name: (tensor.clone(), tensor.stride()) for name, tensor in model.state_dict().items()}
    short = {"steps": 3} if attack is not attacks.gaussian_noise else {"draws": 2}
    found = attack(model, images, labels, **short)
    assert found.fooled.shape == labels.shape
    after = model.state_dict()
    assert all(after[name].equal(tensor) and after[name].stride() == stride for name, (tensor, stride) in before.items())


def test_a_forward_that_was_replaced_on_the_model_is_what_is_attacked(mmc, digits):
    images, labels = digits
    mirrored, original = Through(mmc, lambda pixels: pixels.flip(3)), mmc.forward
    true = evaluation.robust_accuracy(mirrored, images.flip(3), labels, attacks.pgd, epsilon=0.15, step_size=0.03, steps=20)
    mmc.forward = lambda pixels: original(pixels.flip(3))
    try:
        found = evaluation.robust_accuracy(mmc, images.flip(3), labels, attacks.pgd, epsilon=0.15, step_size=0.03, steps=20)
    finally:
        del mmc.forward
    assert found.correct.equal(true.correct) and not found.rejected.any()


def test_a_transfer_goes_on_with_the_models_in_another_order(mmc, sce, digits, tmp_path):
    images, labels = digits
    rows = {"mmc": mmc, "sce": sce}
    whole = evaluation.transfer_row(mmc, rows, images, labels, attacks.pgd, batch_size=16, **L)
    file = tmp_path / "partial"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "attacked", _stopping(evaluation.attacked, after=2))
        with pytest.raises(KeyboardInterrupt):
            evaluation.transfer_row(mmc, rows, images, labels, attacks.pgd, batch_size=16, partial=file, **L)
    assert file.exists()
    turned = dict(reversed(rows.items()))
    found = evaluation.transfer_row(mmc, turned, images, labels, attacks.pgd, batch_size=16, partial=file, **L)
    assert all(found[name].correct.equal(whole[name].correct) for name in rows)


def _stopping(generate, after):
    def stopped(*arguments):
        for number, batch in enumerate(generate(*arguments)):
            if number == after:
                raise KeyboardInterrupt
            yield batch
    return stopped


def test_a_transfer_counts_no_image_outside_the_ball(mmc, digits):
    images, labels = digits

    def careless(model, images, labels, *, epsilon=0.01, targets=None, seed=0):
        return attacks.pgd(model, images, labels, targets=targets, seed=seed, epsilon=0.5, step_size=0.1, steps=10)

    honest = evaluation.robust_accuracy(mmc, images, labels, careless)
    found = evaluation.transfer_row(mmc, {"itself": mmc}, images, labels, careless)["itself"]
    assert found.correct.equal(honest.correct) and found.rejected.equal(honest.rejected) and found.rejected.any()


def test_a_training_that_is_interrupted_while_it_crafts_leaves_no_frozen_model(digits):
    pixels = (digits[0] * 255).to(torch.uint8)

    def interrupts(features, logits, labels, targets):
        raise KeyboardInterrupt

    model = models.Classifier(models.small_convnet(), losses.SoftmaxCrossEntropy(10, 64))
    recipe = Recipe(epochs=1, batch_size=20, adversarial=AdversarialTraining(steps=2, objective=interrupts))
    with pytest.raises(KeyboardInterrupt):
        fit(model, (pixels, digits[1]), (pixels, digits[1]), recipe=recipe, seed=0, progress=False)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_training_with_dropout_is_the_seeds_own_and_goes_on_to_the_bit(digits, tmp_path):
    pixels = (digits[0] * 255).to(torch.uint8)

    def trained(seed=0, **options):
        torch.manual_seed(0)
        backbone = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 16))
        model = models.Classifier(backbone, losses.SoftmaxCrossEntropy(10, 16))
        torch.rand(options.pop("drawn", 1))  # what else a caller draws is nothing to the training
        before = torch.get_rng_state()
        result = fit(model, (pixels, digits[1]), (pixels, digits[1]), recipe=Recipe(epochs=2, batch_size=20), seed=seed, progress=False,
                     **options)
        assert torch.get_rng_state().equal(before)
        return result

    whole, steps = trained(), iter(range(100))
    assert not trained(folder=tmp_path, stop=lambda: next(steps) == 2, drawn=3).finished
    again = trained(folder=tmp_path, drawn=5)
    assert again.finished and [epoch["loss"] for epoch in again.history] == [epoch["loss"] for epoch in whole.history]
    assert trained(seed=1).history[-1]["loss"] != whole.history[-1]["loss"]


def test_fit_says_what_it_takes(digits):
    pixels = (digits[0] * 255).to(torch.uint8)
    data = (pixels, digits[1])
    with pytest.raises(ValueError, match="must be an mmclib Classifier"):
        fit(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), data, data, recipe=Recipe(epochs=1), seed=0)

    class Body(Flattening):
        def forward(self, images):
            return torch.relu(self.second(torch.relu(self.first(images)))).view(-1, 256)
    with pytest.raises(ValueError, match=r"calls .view on activations"):
        fit(models.Classifier(Body(), losses.SoftmaxCrossEntropy(10, 256)), data, data, recipe=Recipe(epochs=1), seed=0, progress=False)


def test_a_fingerprint_sees_what_a_users_module_holds(monkeypatch):
    settings = types.ModuleType("users_settings")
    settings.__file__, settings.EPS = "/home/user/users_settings.py", 0.1
    monkeypatch.setitem(sys.modules, "users_settings", settings)

    def reads():
        from users_settings import EPS
        return EPS

    def imports():
        import nothing_of_this_name
        return nothing_of_this_name

    first = fingerprint(reads), fingerprint(settings)
    settings.EPS = 0.3
    assert fingerprint(reads) != first[0] and fingerprint(settings) != first[1]
    plain = fingerprint(_settled)
    _settled.eps = 1
    try:
        assert fingerprint(_settled) != plain
    finally:
        del _settled.eps
    with pytest.raises(UnidentifiedError, match="nothing_of_this_name"):
        fingerprint(imports)
    assert fingerprint(np) == fingerprint(np), "a library counts by its name"


def _settled():
    return _settled.eps


@pytest.mark.parametrize("setting", [{"targets": torch.zeros(2, dtype=torch.int64)}, {"seed": 7}])
def test_what_is_dealt_out_by_image_is_no_setting_of_a_partial(mmc, digits, setting):
    with pytest.raises(ValueError, match=f"{next(iter(setting))} is dealt out by image"):
        evaluation.robust_accuracy(mmc, *digits, functools.partial(attacks.pgd, **setting))


def test_a_partials_stop_early_is_kept(mmc, digits):
    counts = [evaluation.transfer_row(mmc, {"itself": mmc}, *digits, attack, **options)["itself"].gradients.sum() for attack, options in (
        (functools.partial(attacks.pgd, stop_early=True, **L), {}), (attacks.pgd, L | {"stop_early": True}), (attacks.pgd, L))]
    assert counts[0] == counts[1] < counts[2]


def test_divided_objectives_take_targets_like_those_they_divide():
    logits, labels, targets = torch.tensor([[3.0, 1.0, 0.0]]), torch.tensor([0]), torch.tensor([2])
    assert divided("targeted_2", 2.0)(None, logits, labels, targets).item() == -1.5
    assert divided_by_gap("targeted_1")(None, logits, labels, targets).item() == 0.0
    for make in (lambda name: divided(name, 2.0), divided_by_gap):
        with pytest.raises(ValueError, match="untargeted"):
            make("untargeted_2")(None, logits, labels, targets)
        with pytest.raises(ValueError, match="one of margin"):
            make("nothing")


def test_autoattack_leaves_the_callers_generator_alone(mmc, digits):
    pytest.importorskip("pyautoattack")
    images, labels = (tensor[:4] for tensor in digits)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    attacks.autoattack(mmc, images, labels, epsilon=0.5)
    assert torch.get_rng_state().equal(before)
    with pytest.raises(ValueError, match="version must be"):
        attacks.autoattack(mmc, images, labels, version="Standard")


def test_the_last_iterate_with_logits_stands_for_a_transfer(sce, digits):
    """Where only the last iterate is NaN the images gave logits before, and the batch is not lost."""
    images, labels = digits
    whole = attacks.pgd(sce, images, labels, stop_early=False, epsilon=0.1, step_size=0.02, steps=4, start="clean")
    longer = {"stop_early": False, "epsilon": 0.1, "step_size": 0.02, "steps": 5, "start": "clean"}
    original = FrozenModel.logits
    with pytest.MonkeyPatch.context() as patch, pytest.warns(RuntimeWarning, match="NaN"):
        patch.setattr(FrozenModel, "logits", lambda self, pixels: original(self, pixels) * (torch.nan if len(pixels) > 1 else 1))
        found = attacks.pgd(sce, images, labels, **longer)
    assert found.images.equal(whole.images) and not found.finite


@pytest.mark.parametrize(("call", "says"), [
    (lambda m, x, y: attacks.pgd(lambda pixels: m(pixels), x, y), "must be a torch.nn.Module"),
    (lambda m, x, y: evaluation.accuracy(lambda pixels: m(pixels), x, y), "must be a torch.nn.Module"),
    (lambda m, x, y: evaluation.robust_accuracy(m, x, y, lambda model, images, labels, **others: images), "must return an AttackResult"),
    (lambda m, x, y: evaluation.worst_case(m, x, y, [attacks.pgd]), "attacks must map at least one name to an attack, got list"),
    (lambda m, x, y: evaluation.transfer_row(m, [m], x, y, attacks.pgd), "models must map at least one name to a model, got list"),
    (lambda m, x, y: attacks.pgd(Through(m, after=lambda logits: logits[:, :1]), x, y), "at least 2 classes"),
    (lambda m, x, y: checks.check_images(torch.rand(2, 0, 8, 8)), "at least one pixel"),
    (lambda m, x, y: models.whiten(models.small_convnet(), x), "no whitened stem"),
    (lambda m, x, y: intervals.binomial_interval(5, 3), r"hits must lie in \[0, count\]"),
    (lambda m, x, y: intervals.auroc_interval([0.1, float("nan")], [0.5]), "one is NaN"),
    (lambda m, x, y: optimality.optimality([0.1, 0.2, 0.3], [0.05], 0.4), "of the same images"),
])
def test_bad_input_is_one_sentence(mmc, digits, call, says):
    images, labels = (tensor[:20] for tensor in digits)
    with pytest.raises(ValueError, match=says):
        call(mmc, images, labels)


def test_a_refused_loss_moves_no_center():
    head = losses.CenterLoss(3, 4)
    before = head.centers.clone()
    with pytest.raises(ValueError, match="reduction"):
        head.loss(torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1]), "average")
    assert head.centers.equal(before)


def test_numpys_numbers_are_numbers():
    assert centers.max_mahalanobis_centers(np.int64(10), np.int32(32)).equal(centers.max_mahalanobis_centers(10, 32))
    head = losses.MaxMahalanobisCenter(centers.max_mahalanobis_centers(3, 4), scale=np.float32(0.5))
    assert type(head.scale) is float and head.scale == 0.5
    assert type(losses.SoftmaxCrossEntropy(np.int64(3), np.int64(4)).num_classes) is int


def test_two_classes_that_share_a_center_have_no_boundary():
    head = losses.MaxMahalanobisCenter(torch.tensor([[0.0, 0.0], [0.0, 0.0], [2.0, 0.0]]), scale=1.0)
    assert margins.feature_margin(head, torch.tensor([[0.0, 3.0]]), torch.tensor([0])).tolist() == [1.0]


def test_a_reflected_shift_of_the_whole_side_stays_inside():
    plan = epoch_plan(2000, 8, 5, seed=0, epoch=0, shift=1.0, fill="reflect")
    assert plan.rows.min() >= 0 and plan.rows.max() == 7 and plan.columns.min() >= 0 and plan.columns.max() == 4
    usual = epoch_plan(50, 8, 8, seed=0, epoch=0, shift=0.25, fill="reflect", flip=False)
    padded = torch.nn.functional.pad(torch.arange(8.0)[None, None], (2, 2), mode="reflect")[0, 0].long()
    windows = {tuple(padded[start:start + 8].tolist()) for start in range(5)}
    assert {tuple(row) for row in usual.rows.tolist()} == windows
