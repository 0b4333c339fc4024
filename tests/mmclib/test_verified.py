"""The judge of attacks: what one must return, which of its successes count, and what is told of the rest."""

import dataclasses
import functools
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from mmclib import attacks, centers, evaluation, losses, models, optimality

EPSILON = 0.2
STRONG = {"epsilon": 0.2, "step_size": 0.05, "steps": 8}
CLIMB = {"epsilon": 0.2, "step_size": 0.05, "steps": 20}
PGD = {"objective": "untargeted_2", "epsilon": 0.1, "step_size": 0.03, "steps": 5}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    head = losses.MaxMahalanobisCenter(centers.max_mahalanobis_centers(10, 16, 10.0))
    return models.Classifier(models.small_convnet(1, 16, 8), head).eval()


def test_images_from_elsewhere_are_judged_by_a_plain_pass(model, digits):
    images, labels = digits
    crafted = attacks.pgd(model, images, labels, epsilon=EPSILON, step_size=0.05, steps=10).images
    found = attacks.judged(model, images, labels, crafted)
    with torch.no_grad():
        assert torch.equal(found.fooled, (model(images).argmax(1) != labels) | (model(crafted).argmax(1) != labels))
    assert found.fooled.any() and found.distortion.max() <= EPSILON + 1e-6 and not found.gradients.any()
    assert torch.allclose(attacks.judged(model, images, labels, crafted, norm="l2").distortion,
                          (found.images - images).flatten(1).norm(dim=1))
    for wrong, says in ((crafted[:3], "shape of images"), (crafted * 2, "crafted"), (crafted.double().numpy(), "crafted")):
        with pytest.raises(ValueError, match=says):
            attacks.judged(model, images, labels, wrong)
    with pytest.raises(ValueError, match="norm must be"):
        attacks.judged(model, images, labels, crafted, norm="l7")


def far(model, images, labels, *, targets=None, seed=0, **settings):
    """Beyond any ball: what an attack returns that does not keep its bound."""
    return attacks.judged(model, images, labels, 1 - images, targets=targets)


def test_an_attack_whose_bound_is_not_known_is_told_of(model, digits):
    with pytest.warns(UserWarning, match="far has no setting epsilon, so any change within"):
        free = evaluation.robust_accuracy(model, *digits, far)
    assert free.success.any()
    # A bound in functools.partial of an attack that takes any settings is one, in a worst case too.
    bound = functools.partial(far, epsilon=EPSILON)
    with pytest.warns(UserWarning, match="claimed successes are rejected"):
        assert not evaluation.robust_accuracy(model, *digits, bound).success[evaluation.accuracy(model, *digits).correct].any()
    with pytest.warns(UserWarning, match="claimed successes are rejected"):
        left = evaluation.worst_case(model, *digits, {"far": bound})
    assert torch.equal(left.correct, left.clean.correct)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluation.minimal_distortion(model, *digits, attacks.fmn, steps=3)  # of our own those without a ball are known


def test_a_transfer_tells_of_rejected_successes_for_each_model(model, digits):
    with pytest.warns(UserWarning) as told:
        evaluation.transfer_row(model, {"a": model, "b": model}, *digits, far, epsilon=EPSILON)
    assert [next(name for name in "ab" if f"far on {name}: " in str(warning.message)) for warning in told] == ["a", "b"]


def test_how_an_attack_is_called_is_said_before_it_is(model, digits):
    def bare(model, images, labels, eps):
        raise AssertionError("not reached")

    for attack, settings, says in ((bare, {"eps": 0.1}, "bare cannot be called as attack.*seed=..., eps=.*'targets'"),
                                   (attacks.pgd, {"epsilonn": 0.1}, "pgd cannot be called.*'epsilonn'")):
        for call in (lambda **options: evaluation.robust_accuracy(model, *digits, **options),
                     lambda **options: evaluation.transfer_row(model, {"a": model}, *digits, **options)):
            with pytest.raises(ValueError, match=says):
                call(attack=attack, **settings)
    with pytest.raises(ValueError, match="bare cannot be called"):
        evaluation.worst_case(model, *digits, {"bare": bare})
    with pytest.raises(ValueError, match="must return an AttackResult, which mmclib.attacks.judged makes"):
        evaluation.robust_accuracy(model, *digits, lambda model, images, labels, **_: images)


def outside(model, images, labels, *, targets=None, seed=0, epsilon=0.2):
    return attacks.pgd(model, images, labels, epsilon=epsilon * 1.01, step_size=0.05, steps=8, seed=seed)


def modest(model, images, labels, *, targets=None, seed=0):
    result = attacks.pgd(model, images, labels, seed=seed, **STRONG)
    return dataclasses.replace(result, fooled=torch.zeros_like(result.fooled), success=torch.zeros_like(result.success))


def test_successes_that_do_not_count_are_told_of_and_those_unclaimed_do(mmc, digits):
    images, labels = digits[0][:40], digits[1][:40]
    with pytest.warns(UserWarning, match=r"of \d+ claimed successes are rejected"):
        found = evaluation.robust_accuracy(mmc, images, labels, outside, epsilon=0.2)
    assert f"{int(found.rejected.sum())} successes rejected" in repr(found) and found.rejected.sum() > 10
    honest = evaluation.robust_accuracy(mmc, images, labels, attacks.pgd, **STRONG)
    assert evaluation.robust_accuracy(mmc, images, labels, modest).correct.equal(honest.correct) and "rejected" not in repr(honest)


def test_an_image_without_an_adversarial_is_infinitely_far(mmc, digits):
    found = evaluation.robust_accuracy(mmc, digits[0][:24], digits[1][:24], attacks.fmn, steps=2)
    assert found.correct.any() and found.distances[found.correct].isinf().all()
    assert found.distances[~found.correct].equal(found.distortion[~found.correct])
    assert optimality.area(found.distances, 1.0) > optimality.area(np.where(found.correct, 0, found.distances), 1.0)


@pytest.mark.parametrize("norm", ["Linf", "l2", "L1"])
def test_the_ball_is_checked_in_the_norm_that_an_attack_names(mmc, digits, norm):
    images, labels = (part[:40] for part in digits)

    def beyond(model, images, labels, *, targets=None, seed=0, epsilon=0.1):
        found = attacks.pgd(model, images, labels, seed=seed, epsilon=1.0, step_size=0.25, steps=10)
        return dataclasses.replace(found, norm=norm)
    with pytest.warns(UserWarning, match="are rejected"):
        found = evaluation.robust_accuracy(mmc, images, labels, beyond)
    assert found.rejected.any() and found.accuracy == evaluation.accuracy(mmc, images, labels).accuracy
    norm = "patch"
    with pytest.warns(UserWarning, match="is not checked in the norm 'patch'; known: linf, l2, l1"):
        assert not evaluation.robust_accuracy(mmc, images, labels, beyond).rejected.any()


def test_a_transfer_counts_no_image_outside_the_ball(mmc, digits):
    images, labels = digits

    def careless(model, images, labels, *, epsilon=0.01, targets=None, seed=0):
        return attacks.pgd(model, images, labels, targets=targets, seed=seed, epsilon=0.5, step_size=0.1, steps=10)

    honest = evaluation.robust_accuracy(mmc, images, labels, careless)
    found = evaluation.transfer_row(mmc, {"itself": mmc}, images, labels, careless)["itself"]
    assert found.correct.equal(honest.correct) and found.rejected.equal(honest.rejected) and found.rejected.any()


@pytest.mark.parametrize("setting", [{"targets": torch.zeros(2, dtype=torch.int64)}, {"seed": 7}])
def test_what_is_dealt_out_by_image_is_no_setting_of_a_partial(mmc, digits, setting):
    with pytest.raises(ValueError, match=f"{next(iter(setting))} is dealt out by image"):
        evaluation.robust_accuracy(mmc, *digits, functools.partial(attacks.pgd, **setting))


def test_a_partials_stop_early_is_kept(mmc, digits):
    counts = [evaluation.transfer_row(mmc, {"itself": mmc}, *digits, attack, **options)["itself"].gradients.sum() for attack, options in (
        (functools.partial(attacks.pgd, stop_early=True, **CLIMB), {}), (attacks.pgd, CLIMB | {"stop_early": True}), (attacks.pgd, CLIMB))]
    assert counts[0] == counts[1] < counts[2]


def test_claims_that_do_not_hold_are_rejected(mmc, digits):
    images, labels = digits

    def lying(model, images, labels, *, targets, seed, epsilon=0.1):
        honest = attacks.pgd(model, images, labels, seed=seed, **{**PGD, "epsilon": 0.5, "stop_early": False})  # leaves the ball of 0.1
        every = torch.ones_like(honest.success)
        return attacks.AttackResult(honest.images, every, every, honest.distortion, "linf", honest.queries, honest.gradients,
                                    honest.vanished, honest.vanished_first, True)
    outcome = evaluation.robust_accuracy(mmc, images, labels, lying)
    assert outcome.accuracy == 1 and outcome.rejected.all() and not outcome.success.any()


def test_low_precision_crafting_is_judged_in_float32(mmc, digits):
    images, labels = digits
    exact, rough = (evaluation.robust_accuracy(mmc, images, labels, attacks.pgd, precision=precision, **PGD)
                    for precision in ("float32", "bfloat16"))
    assert abs(exact.accuracy - rough.accuracy) <= 2 / 60 and not rough.rejected.any()


class Bright(nn.Module):
    def forward(self, images):
        over = images.mean((1, 2, 3)) - 0.05
        return torch.stack((over, -over), 1)


def test_an_image_that_leaves_the_box_counts_for_nothing():
    def beyond(model, images, labels, *, targets=None, seed=0, epsilon=0.5):
        found = attacks.pgd(model, images, labels, epsilon=0.01, step_size=0.01, steps=1)
        every = torch.ones_like(found.success)
        return dataclasses.replace(found, images=images - 0.3, success=every, fooled=every)

    with pytest.warns(UserWarning, match="4 of 4 claimed successes are rejected"):
        found = evaluation.robust_accuracy(Bright(), torch.full((4, 1, 4, 4), 0.2), torch.zeros(4, dtype=torch.int64), beyond)
    assert found.accuracy == 1 and found.rejected.all()


def test_a_targeted_success_is_the_target_and_no_other_class(mmc, digits):
    targets, how = evaluation.random_targets(digits[1], 10, seed=1), PGD | {"objective": "targeted_2"}
    found = evaluation.robust_accuracy(mmc, *digits, attacks.pgd, targets=targets, **how)
    direct = attacks.pgd(mmc, *digits, targets=targets, **how)
    assert found.success.equal(direct.success) and found.correct.equal(~direct.fooled)
    assert (~found.correct & ~found.success).any(), "some are fooled into a third class"


def test_a_worst_case_asks_the_least_distortion_for_its_bound(mmc, digits):
    images, labels = (part[:30] for part in digits)
    for attack in (attacks.fmn, attacks.ddn, attacks.carlini_wagner):
        with pytest.raises(ValueError, match=f"{attack.__name__} looks for the least distortion .*partial.{attack.__name__}, eps"):
            evaluation.worst_case(mmc, images, labels, {"pgd": attacks.pgd, "least": attack})
    least = evaluation.robust_accuracy(mmc, images, labels, attacks.fmn)
    bound = float(least.distances[least.distances > 0].median())
    within = evaluation.worst_case(mmc, images, labels, {"fmn": functools.partial(attacks.fmn, epsilon=bound)})
    assert within.correct.equal(least.distances > bound) and 0 < within.accuracy < 1
    assert not within.evaluations["fmn"].rejected.any(), "what lies beyond is no claim"
    for attack in (attacks.fmn, attacks.ddn):
        whole = attack(mmc, images, labels)
        half = attack(mmc, images, labels, epsilon=(bound := float(whole.distortion[whole.distortion > 0].median())))
        beyond = whole.distortion > bound
        assert half.success.equal(whole.success & ~beyond)
        assert half.images[beyond].equal(images[beyond]) and not half.distortion[beyond].any()
    for wrong in (-1.0, float("nan"), "8/255", True):
        with pytest.raises(ValueError, match="epsilon must be"):
            attacks.fmn(mmc, images, labels, epsilon=wrong)


class Counted(nn.Module):
    """Batch normalisation, whose statistics a call in training mode would move."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))

    def forward(self, images):
        return self.layers(images)


def test_an_attack_of_ones_own_meets_the_model_in_evaluation_mode_and_leaves_it_as_it_was(digits):
    images, labels = digits
    own, modes = Counted().train(), []
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    weight = own.layers[2].weight
    weight.grad = torch.ones_like(weight)

    def steps(model, images, labels, *, targets=None, seed=0, epsilon=0.1):
        modes.append(model.training)
        tried = images.clone().requires_grad_()
        nn.functional.cross_entropy(model(tried), labels).backward()
        return attacks.judged(model, images, labels, (images + epsilon * tried.grad.sign()).clamp(0, 1))
    found = evaluation.robust_accuracy(own, images, labels, steps)
    assert found.success.any() and modes == [False] and own.training and own.layers[1].training
    assert all(tensor.equal(before[name]) for name, tensor in own.state_dict().items())
    assert weight.grad.equal(torch.ones_like(weight)) and own.layers[2].bias.grad is None


def test_an_l1_ball_allows_for_the_rounding_of_its_sum():
    torch.manual_seed(0)
    images = torch.rand(20, 3, 32, 32) * 0.5 + 0.25
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2))

    def on_the_border(model, images, labels, *, targets=None, seed=0, epsilon=12.0):
        change = torch.randn_like(images)
        crafted = images + epsilon * change / change.flatten(1).abs().sum(1)[:, None, None, None]
        return dataclasses.replace(attacks.judged(model, images, labels, crafted), norm="l1")
    with torch.no_grad():
        labels = 1 - model(images).argmax(1)  # wrong wherever they lie
    assert not evaluation.robust_accuracy(model, images, labels, on_the_border).rejected.any()


@dataclasses.dataclass
class Settled:
    """An attack that cannot be hashed, with settings of its own; `restarts` are its own affair."""

    size: float

    def __call__(self, model, images, labels, *, targets=None, seed=0, epsilon=0.1, stop_early=True, restarts=1):
        return attacks.pgd(model, images, labels, epsilon=epsilon, step_size=self.size, steps=3, start="clean")


def test_an_attack_is_whatever_can_be_called(mmc, digits):
    expected = evaluation.robust_accuracy(mmc, *digits, attacks.pgd, epsilon=0.1, step_size=0.05, steps=3, start="clean").correct
    inner = functools.partial(Settled(0.05), epsilon=0.1)
    inner.__name__ = "named"  # such a partial is not flattened by one around it
    for attack in (Settled(0.05), inner, functools.partial(inner, restarts=2)):
        assert evaluation.robust_accuracy(mmc, *digits, attack).correct.equal(expected)
        assert evaluation.transfer_row(mmc, {"itself": mmc}, *digits, attack, restarts=2)["itself"].correct.equal(expected)


def test_a_partial_of_what_its_attack_does_not_take_is_a_sentence(mmc, digits):
    with pytest.raises(ValueError, match=r"pgd cannot be called as attack\(.*epsilonn=\.\.\.\): .*'epsilonn'"):
        evaluation.robust_accuracy(mmc, *digits, functools.partial(attacks.pgd, epsilonn=1))
    with pytest.raises(ValueError, match="pgd crafts for other models with stop_early=False, which takes one restart"):
        evaluation.transfer_row(mmc, {"itself": mmc}, *digits, functools.partial(attacks.pgd, restarts=2))


def test_results_are_compared_by_what_they_are(mmc, digits):
    one, two = (attacks.pgd(mmc, *digits) for _ in range(2))
    assert one == one and one != two and len({one, two}) == 2
