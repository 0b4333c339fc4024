"""What every attack promises: closed-form optima, no blindness, no trace left behind, no dependence on the batch, clear refusals."""

import warnings

import pytest
import torch
from torch import nn

from mmclib import attacks, centers, data, evaluation, losses, models

SHORT = {"pgd": {"steps": 10, "step_size": 0.03, "epsilon": 0.1}, "mim": {"steps": 10, "step_size": 0.03, "epsilon": 0.1},
         "carlini_wagner": {"binary_search_steps": 4, "steps": 40, "learning_rate": 0.02}, "fmn": {"steps": 20}, "ddn": {"steps": 20},
         "spsa": {"epsilon": 0.1, "steps": 5, "evaluations": 32, "learning_rate": 0.03},
         "gaussian_noise": {"sigma": 0.3}, "rotation": {"degrees": 60.0}}
GRADIENT = ("pgd", "mim", "carlini_wagner")


class Linear(nn.Module):
    """Two classes, w·x + b against its negative: every optimum has a closed form."""

    def __init__(self, size=4):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(size * size, generator=generator))

    def forward(self, images):
        value = (images - 0.5).flatten(1) @ self.weight
        return torch.stack([value, -value], 1)


class Shifted(nn.Module):
    def __init__(self, model, shift):
        super().__init__()
        self.model, self.shift = model, shift

    def forward(self, images):
        return self.model(images) + self.shift


def run(name, model, images, labels, **changes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(attacks, name)(model, images, labels, **{**SHORT[name], **changes})


def test_pgd_and_mim_reach_the_linear_models_optimum():
    model, images = Linear(), torch.full((6, 1, 4, 4), 0.5)
    images += 0.2 * model.weight.detach().sign().reshape(1, 4, 4) * torch.linspace(0.1, 1, 6)[:, None, None, None]
    labels = torch.zeros(6, dtype=torch.int64)
    needed = (images - 0.5).flatten(1) @ model.weight.detach() / model.weight.detach().abs().sum()  # ε at which the sign flips
    for epsilon in (0.05, 0.11, 0.17):
        for name in ("pgd", "mim"):
            result = run(name, model, images, labels, epsilon=epsilon, step_size=0.02, steps=30, objective="untargeted_2")
            assert result.success.equal(needed < epsilon), (name, epsilon)
            assert float((result.images - images).abs().max()) <= epsilon + 1e-6


def test_carlini_wagner_finds_the_distance_to_the_boundary():
    model, images = Linear(), torch.full((4, 1, 4, 4), 0.5)
    images += 0.05 * model.weight.detach().reshape(1, 4, 4) * torch.tensor([0.3, 0.6, 1.0, 1.5])[:, None, None, None]
    distance = (images - 0.5).flatten(1) @ model.weight.detach() / model.weight.detach().norm()
    result = run("carlini_wagner", model, images, torch.zeros(4, dtype=torch.int64), binary_search_steps=9, steps=400, learning_rate=0.005)
    assert result.success.all()
    assert torch.all(result.distortion >= distance - 1e-4) and torch.allclose(result.distortion, distance, rtol=0.02)


@pytest.mark.parametrize(("name", "order"), [("fmn", 1), ("ddn", 2)])
def test_minimal_distortions_are_the_distance_to_the_boundary(name, order):
    model, images = Linear(), torch.full((4, 1, 4, 4), 0.5)
    images += 0.05 * model.weight.detach().reshape(1, 4, 4) * torch.tensor([-0.1, 0.6, 1.0, 1.5])[:, None, None, None]
    # in l_inf the distance is w.x over the l_1 norm of w, in l_2 over its own; the first image is misclassified as it is
    distance = ((images - 0.5).flatten(1) @ model.weight.detach()).clamp(min=0) / model.weight.detach().norm(p=order)
    outcome = evaluation.minimal_distortion(model, images, torch.zeros(4, dtype=torch.int64), getattr(attacks, name), steps=200)
    assert outcome.success.all() and not outcome.rejected.any() and outcome.distortion[0] == 0
    assert torch.all(outcome.distortion >= distance - 1e-4) and torch.allclose(outcome.distortion, distance, rtol=0.01)


@pytest.mark.parametrize("name", SHORT)
def test_a_constant_on_the_logits_changes_nothing(name, mmc, digits):
    images, labels = digits
    objective = {} if name in ("gaussian_noise", "rotation") else {"objective": "untargeted_2"}
    plain, shifted = (run(name, model, images, labels, **objective) for model in (mmc, Shifted(mmc, 1e6)))
    assert abs(plain.success.double().mean() - shifted.success.double().mean()) <= 1 / 60 + 1e-9
    assert mmc(images).max() < 1 and plain.success.any()  # all logits are negative, and no attack is blind for it


def test_cross_entropy_sees_no_gradient_on_mmc_and_says_so(mmc, digits):
    images, labels = digits
    with pytest.warns(UserWarning, match="exactly zero"):
        blind = attacks.pgd(mmc, images, labels, objective="cross_entropy", **SHORT["pgd"])
    seeing = run("pgd", mmc, images, labels, objective="untargeted_2")
    assert blind.zero_gradients > 0.3 and seeing.zero_gradients == 0
    assert seeing.success.sum() > blind.success.sum() + 10


@pytest.mark.parametrize("name", SHORT)
def test_the_model_is_left_as_it_was_found(name, mmc, digits):
    mmc.train()
    first = next(mmc.parameters())
    first.grad = torch.ones_like(first)
    before = {key: value.clone() for key, value in mmc.state_dict().items()}
    run(name, mmc, digits[0][:4], digits[1][:4])
    assert mmc.training and all(parameter.requires_grad for parameter in mmc.parameters()) and bool((first.grad == 1).all())
    assert all(value.equal(before[key]) for key, value in mmc.state_dict().items())

    def failing(features, logits, labels, targets):
        raise RuntimeError("objective failed")
    if name in ("pgd", "mim"):
        with pytest.raises(RuntimeError, match="objective failed"):
            run(name, mmc, digits[0][:4], digits[1][:4], objective=failing)
        assert mmc.training and all(parameter.requires_grad for parameter in mmc.parameters())
    first.grad = None
    mmc.eval()


@pytest.mark.parametrize("name", SHORT)
def test_the_batch_size_changes_no_bit(name, mmc, digits):
    images, labels = digits
    hyper = {**SHORT[name], **({} if name in ("gaussian_noise", "rotation") else {"objective": "untargeted_2"})}
    if name == "carlini_wagner":
        hyper |= {"binary_search_steps": 3, "steps": 15, "learning_rate": 0.05}
    outcomes = [
        evaluation.robust_accuracy(mmc, images, labels, getattr(attacks, name), seed=3, batch_size=size, **hyper) for size in (7, 64, 256)
    ]
    for other in outcomes[1:]:
        assert outcomes[0].correct.equal(other.correct) and outcomes[0].distortion.equal(other.distortion)


def test_the_batch_size_changes_no_bit_on_a_resnet():
    images, labels = data.load("digits", "test")
    torch.manual_seed(0)
    head = losses.MaxMahalanobisCenter(centers.max_mahalanobis_centers(10, 16))
    model = models.Classifier(models.resnet(blocks=1, version=2, in_channels=1, feature_dim=16), head).eval()
    outcomes = [evaluation.robust_accuracy(model, images[:40], labels[:40], attacks.pgd, seed=1, batch_size=size, objective="untargeted_1",
                                           steps=3, step_size=0.03, epsilon=0.1).distortion for size in (7, 64, 256)]
    assert outcomes[0].equal(outcomes[1]) and outcomes[0].equal(outcomes[2])


@pytest.mark.parametrize("name", ("pgd", "mim", "spsa"))
def test_every_image_stays_inside_its_ball_and_the_box(name, mmc, digits):
    images, labels = digits
    result = run(name, mmc, images, labels, objective="untargeted_1")
    assert float((result.images - images).abs().max()) <= 0.1 + 1e-6
    assert float(result.images.min()) >= 0 and float(result.images.max()) <= 1 and result.finite
    assert mmc(result.images).argmax(1).ne(labels).equal(result.success)  # claimed and true


def test_targets_are_reached_and_accuracy_is_of_the_true_label(mmc, digits):
    images, labels = digits
    targets = evaluation.random_targets(labels, 10, seed=1)
    assert bool((targets != labels).all())
    result = run("pgd", mmc, images, labels, targets=targets, objective="targeted_2", epsilon=0.3)
    predicted = mmc(result.images).argmax(1)
    assert result.success.equal(predicted == targets) and result.fooled.equal(predicted != labels) and result.success.any()


def test_more_restarts_never_help_the_defence(mmc, digits):
    one, three = (run("pgd", mmc, *digits, objective="untargeted_1", restarts=count, epsilon=0.08).success for count in (1, 3))
    assert bool((three | ~one).all())


@pytest.mark.parametrize(("change", "says"), [
    ({"images": torch.rand(2, 1, 8, 8) * 2}, "images must lie in \\[0, 1\\]"),
    ({"images": torch.full((2, 1, 8, 8), float("nan"))}, "images must lie in \\[0, 1\\], but holds NaN"),
    ({"images": torch.zeros(2, 1, 8, 8, dtype=torch.uint8)}, "images must be floating point.*divide 8-bit images by 255"),
    ({"images": torch.rand(0, 1, 8, 8), "labels": torch.zeros(0, dtype=torch.int64)}, "images is an empty batch"),
    ({"labels": torch.tensor([0, 10])}, "labels must lie in \\[0, 9\\]"),
    ({"labels": torch.tensor([0.0, 1.0])}, "labels must be int64"),
    ({"labels": torch.tensor([1])}, "labels must hold 2 entries"),
    ({"targets": torch.tensor([1, 1])}, "targets must differ from labels, but image 1"),
    ({"objective": "margins"}, "objective must be a callable or one of"),
    ({"objective": "targeted_1"}, "needs targets"),
    ({"epsilon": -0.1}, "epsilon must be a finite number of at least 0, got -0.1"),
    ({"steps": 0}, "steps must be a finite number of at least 1|steps must be an integer of at least 1"),
    ({"seed": 0.5}, "seed must be an integer"),
])
def test_bad_input_is_one_sentence(mmc, change, says):
    inputs = {"images": torch.rand(2, 1, 8, 8), "labels": torch.tensor([0, 1])} | change
    with pytest.raises(ValueError, match=says) as error:
        attacks.pgd(mmc, inputs.pop("images"), inputs.pop("labels"), **inputs)
    assert "\n" not in str(error.value)


def test_spsas_estimate_is_unbiased_on_a_quadratic_and_its_calls_are_counted():
    from mmclib.attacks.spsa import estimate_gradient
    calls = []

    def values(perturbed, owner):
        calls.append(len(perturbed))
        return (perturbed.flatten(1) ** 2).sum(1)

    images = torch.rand(3, 1, 4, 4)
    estimate = estimate_gradient(values, images, torch.arange(3), evaluations=8192, delta=0.01)
    assert sum(calls) == 3 * 8192
    # each coordinate's error has standard deviation about sqrt(sum of the others' squared gradients / pairs)
    spread = (2 * images).flatten(1).norm(dim=1) / 4096 ** 0.5
    assert bool(((estimate - 2 * images).flatten(1).abs().amax(1) < 4.5 * spread).all())
