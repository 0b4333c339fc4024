"""What callers bring along - types, modes, odd models, NaN - changes no number: it is handled, or refused in one sentence."""

import functools
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from mmclib import attacks, counter, evaluation
from mmclib.attacks.climb import ShortStepsWarning
from mmclib.attacks.frozen import BatchDependenceWarning, FrozenModel
from mmclib.attacks.ledger import GradientMaskingWarning, _slack

LINF = {"epsilon": 0.1, "step_size": 0.03, "steps": 5}
SHORT = {"pgd": LINF, "mim": LINF, "multi_targeted": {"epsilon": 0.1, "steps": 5, "classes": 3},
         "carlini_wagner": {"binary_search_steps": 3, "steps": 30, "learning_rate": 0.03}, "fmn": {"steps": 15}, "ddn": {"steps": 15},
         "spsa": {"epsilon": 0.1, "steps": 3, "evaluations": 32, "learning_rate": 0.05},
         "gaussian_noise": {"sigma": 0.3}, "rotation": {"degrees": 60.0}}
EVERY = pytest.mark.parametrize("name", SHORT)
TENSORS = ("images", "success", "fooled", "distortion", "queries", "gradients", "vanished", "vanished_first")


def run(name, model, images, labels, **changes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GradientMaskingWarning)
        return getattr(attacks, name)(model, images, labels, **{**SHORT[name], **changes})


def equal(one, other):
    return all(getattr(one, name).equal(getattr(other, name)) for name in TENSORS)


class Answer(nn.Module):
    """A model whose logits pass through a function."""

    def __init__(self, model, change):
        super().__init__()
        self.model, self.change = model, change

    def forward(self, images):
        return self.change(self.model(images))


def subset(logits, value=-torch.inf):
    return torch.cat((logits[:, :7], torch.full_like(logits[:, 7:], value)), 1)


@EVERY
@pytest.mark.parametrize("targeted", (False, True))
def test_minus_infinity_is_an_ordinary_logit(name, targeted, mmc, digits):
    if targeted and name == "multi_targeted":
        pytest.skip("multi_targeted chooses its targets itself")
    some = digits[1] < 7
    images, labels = digits[0][some][:20], digits[1][some][:20]
    targets = (labels + 1) % 7 if targeted else None
    infinite, finite = (evaluation.robust_accuracy(Answer(mmc, functools.partial(subset, value=value)), images, labels,
                                                   getattr(attacks, name), targets=targets, **SHORT[name])
                        for value in (-torch.inf, -1e4))
    assert infinite.success.equal(finite.success) and infinite.correct.equal(finite.correct) and infinite.finite
    if not targeted or name in ("pgd", "mim", "carlini_wagner", "fmn", "ddn"):
        assert infinite.success.any()


def test_the_label_is_no_target_even_among_classes_of_minus_infinity(mmc, digits):
    def two(logits):  # the true class ties with all those left out
        return torch.cat((logits[:, :2], torch.full_like(logits[:, 2:], -torch.inf)), 1)
    model, images = Answer(mmc, two), digits[0][:8]
    labels = model(images).argmax(1)
    result = run("multi_targeted", model, images, labels, classes=9, epsilon=0.5, steps=10)
    assert result.success.any() and model(result.images).argmax(1).ne(labels).equal(result.success)


@EVERY
def test_a_model_that_answers_nan_is_refused(name, mmc, digits):
    def nan(logits):
        return torch.where(torch.arange(len(logits))[:, None] >= 0, torch.nan, logits)
    with pytest.raises(ValueError, match=f"model returns NaN logits for 5 of 5 images.*{name} cannot judge them"):
        run(name, Answer(mmc, nan), digits[0][:5], digits[1][:5])
    for evaluate in (evaluation.accuracy, functools.partial(evaluation.robust_accuracy, attack=getattr(attacks, name), **SHORT[name])):
        with pytest.raises(ValueError, match="model returns NaN logits for 5"):
            evaluate(Answer(mmc, nan), digits[0][:5], digits[1][:5])


def test_nan_met_on_the_way_is_told_and_never_a_success(sce, digits):
    class Brittle(nn.Module):  # NaN wherever an image has moved
        def forward(self, images):
            moved = (images[:, None] - digits[0]).abs().flatten(2).amax(2).amin(1) > 0
            return sce(images).masked_fill(moved[:, None], torch.nan)
    clean = evaluation.accuracy(Brittle(), *digits).accuracy
    with pytest.warns(GradientMaskingWarning), pytest.warns(RuntimeWarning, match="pgd: the model returned NaN logits on the way"):
        outcome = evaluation.robust_accuracy(Brittle(), *digits, attacks.pgd, **LINF)
    assert outcome.accuracy <= clean and not outcome.finite


@EVERY
@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16, torch.float64))
def test_images_of_any_floating_type_are_crafted_and_judged_in_float32(name, dtype, mmc, digits):
    images, labels = digits[0][:16].to(dtype), digits[1][:16]
    result = run(name, mmc, images, labels)
    assert result.images.dtype == torch.float32 and equal(result, run(name, mmc, images.float(), labels))
    outcome = evaluation.robust_accuracy(mmc, images, labels, getattr(attacks, name), **SHORT[name])
    assert not outcome.rejected.any() and outcome.success.equal(result.success)


@EVERY
@pytest.mark.parametrize("targeted", (False, True))
def test_a_model_in_float64_is_attacked_in_float64(name, targeted, sce, digits):
    if targeted and name == "multi_targeted":
        pytest.skip("multi_targeted chooses its targets itself")
    double = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double()
    labels = double(digits[0][:12].double()).argmax(1)
    targets = (labels + 1) % 10 if targeted else None
    for images in (digits[0][:12], digits[0][:12].half(), (digits[0][:12] * 255).to(torch.uint8)):
        outcome = evaluation.robust_accuracy(double, images, labels, getattr(attacks, name), targets=targets, **SHORT[name])
        assert not outcome.rejected.any()
    assert run(name, double, digits[0][:12], labels, targets=targets).images.dtype == torch.float64


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16))
def test_a_model_in_half_precision_is_refused_in_one_sentence(dtype, digits):
    half = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).to(dtype)
    for evaluate in (functools.partial(run, "pgd"), evaluation.accuracy):
        with pytest.raises(ValueError, match=f"model holds {str(dtype)[6:]} parameters.*pass model.float"):
            evaluate(half, *digits)


@EVERY
def test_results_are_no_part_of_the_callers_graph(name, mmc, digits):
    images = digits[0][:6].clone().requires_grad_()
    result = run(name, mmc, images, digits[1][:6])
    assert not any(getattr(result, tensor).requires_grad for tensor in TENSORS) and result.images.numpy().shape == (6, 1, 8, 8)
    assert images.grad is None
    evaluation.robust_accuracy(mmc, images, digits[1][:6], getattr(attacks, name), **SHORT[name]).distortion.numpy()


@EVERY
def test_the_callers_modes_change_no_bit(name, sce, digits):
    images, labels = digits[0][:16], digits[1][:16]
    plain = run(name, sce, images, labels)
    with torch.inference_mode():  # the images too are inference tensors
        inference = run(name, sce, images * 1, labels + 0)
    with torch.autocast("cpu", torch.bfloat16):
        lower = run(name, sce, images, labels)
    with torch.no_grad():
        no_grad = run(name, sce, images, labels)
    torch.set_default_dtype(torch.float64)
    try:
        default = run(name, sce, images, labels)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(equal(plain, other) for other in (inference, lower, no_grad, default))


@EVERY
def test_a_model_made_in_inference_mode_is_refused_in_one_sentence(name, digits):
    with torch.inference_mode():
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        with pytest.raises(ValueError, match="model was made inside torch.inference_mode.*outside"):
            run(name, model, *digits)
    with pytest.raises(ValueError, match="model was made inside torch.inference_mode.*outside"):
        run(name, model, *digits)


def test_evaluation_works_in_the_callers_modes(sce, digits):
    plain = evaluation.robust_accuracy(sce, *digits, attacks.pgd, **LINF)
    with torch.inference_mode():
        inference = evaluation.robust_accuracy(sce, *digits, attacks.pgd, **LINF)
        assert evaluation.accuracy(sce, *digits).accuracy > 0.5
    torch.set_default_dtype(torch.float64)
    try:
        default = evaluation.robust_accuracy(sce, *digits, attacks.pgd, **LINF)
    finally:
        torch.set_default_dtype(torch.float32)
    assert plain.correct.equal(inference.correct) and plain.correct.equal(default.correct)


@EVERY
@pytest.mark.parametrize("compiled", ("traced", "scripted"))
def test_torchscript_is_attacked_like_the_eager_model(name, compiled, digits):
    torch.manual_seed(0)
    eager = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()
    model = torch.jit.trace(eager, digits[0][:16]) if compiled == "traced" else torch.jit.script(eager)
    labels = eager(digits[0][:16]).argmax(1)
    one, other = (run(name, network, digits[0][:16], labels) for network in (eager, model))
    assert one.success.equal(other.success) and torch.allclose(one.images, other.images, atol=1e-4)
    assert evaluation.accuracy(model, digits[0][:16], labels).accuracy == 1


def test_a_tuple_for_logits_is_the_same_sentence_everywhere(mmc, digits):
    images, labels = digits
    model = Answer(mmc, lambda logits: (logits, logits))
    for evaluate in (lambda: attacks.pgd(model, images, labels), lambda: evaluation.accuracy(model, images, labels),
                     lambda: evaluation.transfer_row(mmc, {"tuple": model}, images, labels, attacks.pgd),
                     lambda: evaluation.transfer_row(model, {"mmc": mmc}, images, labels, attacks.pgd),
                     lambda: evaluation.robust_accuracy(model, images, labels, attacks.pgd)):
        with pytest.raises(ValueError, match=r"model must return logits of shape \(16, classes\), got tuple"):
            evaluate()


def test_numpys_numbers_are_numbers(mmc, digits):
    images, labels = digits[0][:8], digits[1][:8]
    plain = attacks.pgd(mmc, images, labels, epsilon=0.125, steps=3, seed=4, step_size=0.0625)
    numpys = attacks.pgd(mmc, images, labels, epsilon=np.float32(0.125), steps=np.int64(3), seed=np.int64(4), step_size=np.float16(0.0625))
    assert equal(plain, numpys)
    for name, options in SHORT.items():
        converted = {key: np.float64(value) if isinstance(value, float) else np.int32(value) for key, value in options.items()}
        assert equal(run(name, mmc, images, labels), run(name, mmc, images, labels, **converted))
    assert evaluation.robust_accuracy(mmc, images, labels, attacks.pgd, batch_size=np.int64(5), seed=np.int32(1)).correct.shape == (8,)
    assert counter.image_seeds(np.uint8(3), 4).equal(counter.image_seeds(3, 4))
    for wrong in (np.float32(3), np.bool_(True), True, 2.5, float("nan"), np.nan, "3"):
        with pytest.raises(ValueError, match="steps must be an integer"):
            attacks.pgd(mmc, images, labels, steps=wrong)


class BatchStatistics(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten(), nn.Linear(144, 10))

    def forward(self, images):
        return self.layers(images)


class Unsteady(nn.Module):
    def forward(self, images):
        return images.flatten(1)[:, :10] + torch.rand(len(images), 10)


@pytest.mark.parametrize("model", (BatchStatistics, Unsteady))
def test_rows_that_depend_on_their_batch_are_warned_of(model, digits):
    for evaluate in (functools.partial(run, "pgd"), evaluation.accuracy, functools.partial(evaluation.robust_accuracy, attack=attacks.pgd)):
        with pytest.warns(BatchDependenceWarning, match="change with the other images in its call") as caught:
            evaluate(model(), digits[0][:5], digits[1][:5])
        assert sum(warning.category is BatchDependenceWarning for warning in caught) == 1


@EVERY
def test_no_such_warning_for_ordinary_models(name, mmc, sce, digits):
    with warnings.catch_warnings():
        warnings.simplefilter("error", BatchDependenceWarning)
        for model in (mmc, sce, Answer(mmc, subset)):
            run(name, model, digits[0][:5], digits[1][:5] % 7)


def test_the_default_objective_is_the_margin_with_and_without_targets(mmc, digits):
    images, labels = digits[0][:20], digits[1][:20]
    targets = (labels + 1) % 10
    for name in ("pgd", "mim", "spsa"):
        assert equal(run(name, mmc, images, labels), run(name, mmc, images, labels, objective="untargeted_2"))
        one, other = (run(name, mmc, images, labels, targets=targets, **named) for named in ({}, {"objective": "targeted_2"}))
        assert equal(one, other)
        assert equal(run(name, mmc, images, labels), run(name, mmc, images, labels, objective="margin"))


def test_warnings_point_at_the_callers_line(mmc, digits):
    blind = {"objective": "cross_entropy", **LINF}
    calls = [(GradientMaskingWarning, lambda: attacks.pgd(mmc, *digits, **blind)),
             (GradientMaskingWarning, lambda: evaluation.robust_accuracy(mmc, *digits, attacks.pgd, **blind)),
             (BatchDependenceWarning, lambda: attacks.pgd(BatchStatistics(), *digits, **LINF)),
             (BatchDependenceWarning, lambda: evaluation.accuracy(BatchStatistics(), *digits))]
    for category, evaluate in calls:
        with pytest.warns(category) as caught:
            evaluate()
        place = next((warning.filename, warning.lineno) for warning in caught if warning.category is category)
        assert place == (__file__, evaluate.__code__.co_firstlineno)


def test_a_result_says_what_it_is_in_a_line(mmc, digits):
    result = run("pgd", mmc, digits[0][:8], digits[1][:8])
    fooled, gradients = int(result.fooled.sum()), int(result.gradients.sum())
    assert repr(result) == f"AttackResult(8 images, {fooled} fooled, linf, {gradients} gradients, 0 % zero)"


@pytest.mark.parametrize("classes", (3, 4, 9, 10))  # too few, the fewest, fewer and no fewer than its ten targets
def test_autoattack_takes_models_of_few_classes(classes):
    pytest.importorskip("pyautoattack", reason="pyautoattack is not installed")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, classes))
    images = torch.rand(4, 1, 4, 4)
    labels = model(images).argmax(1)
    if classes < 4:
        with pytest.raises(ValueError, match="autoattack needs a model of at least 4 classes.*got 3"):
            attacks.autoattack(model, images, labels)
        return
    close, far = (attacks.autoattack(model, images, labels, epsilon=epsilon) for epsilon in (1e-4, 0.5))  # the first leaves survivors
    assert not close.success.all() and far.success.all()


def test_autoattack_in_odd_surroundings(mmc, digits):
    pytest.importorskip("pyautoattack", reason="pyautoattack is not installed")
    some = digits[1] < 7
    images, labels = digits[0][some][:6], digits[1][some][:6]
    plain = attacks.autoattack(mmc, images, labels, epsilon=0.2)
    assert plain.success.all()
    with torch.inference_mode():
        assert attacks.autoattack(mmc, images * 1, labels + 0, epsilon=0.2).success.all()
    torch.set_default_dtype(torch.float64)
    try:
        assert equal(plain, attacks.autoattack(mmc, images, labels, epsilon=0.2))
    finally:
        torch.set_default_dtype(torch.float32)
    assert attacks.autoattack(mmc, images.double().requires_grad_(), labels, epsilon=np.float32(0.2), seed=np.int64(1)).success.all()
    assert attacks.autoattack(Answer(mmc, subset), images, labels, epsilon=0.2).success.all()
    double = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double()
    assert attacks.autoattack(double, images, double(images.double().flatten(1)).argmax(1), epsilon=0.3).success.all()


def test_an_endless_logit_of_a_wrong_class_is_a_success():
    assert _slack(torch.tensor([[torch.inf, 1.0, 0.0], [-torch.inf, -torch.inf, torch.inf]])).tolist() == pytest.approx([1e-5, 0.0])


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
