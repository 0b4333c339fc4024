"""Evaluation: verified claims, resuming, running out of memory, transfer, intervals, targets."""

import functools
import warnings

import pytest
import torch
from torch import nn

from mmclib import attacks, counter, data, evaluation, partials, verified
from mmclib.attacks.ledger import GradientMaskingWarning

PGD = {"objective": "untargeted_2", "epsilon": 0.1, "step_size": 0.03, "steps": 5}
STRONG = {"epsilon": 0.2, "step_size": 0.05, "steps": 8}


def same(one, other):
    return all(getattr(one, name).equal(getattr(other, name)) for name in ("correct", "success", "distortion", "queries", "vanished"))


def test_accuracy_takes_bytes_and_floats(mmc):
    images, labels = data.load("digits", "test")
    from_bytes, from_floats = (
        evaluation.accuracy(mmc, images, labels),
        evaluation.accuracy(mmc, images.float() / 255, labels, batch_size=100),
    )
    assert from_bytes.correct.equal(from_floats.correct) and from_bytes.accuracy > 0.8


def test_the_worst_case_is_that_of_all_attacks_alone(mmc, digits):
    images, labels = digits
    rungs = attacks.ladder(epsilon=0.1, steps=10)
    found = evaluation.worst_case(mmc, images, labels, rungs, batch_size=20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", evaluation.GradientMaskingWarning)
        alone = [evaluation.robust_accuracy(mmc, images, labels, attack).correct for attack in rungs.values()]
    assert found.correct.equal(torch.stack(alone).all(0)) and 0 < found.accuracy < found.clean.accuracy
    shares = [found.clean.accuracy, *found.left.values()]
    assert shares == sorted(shares, reverse=True) and shares[-1] == found.accuracy
    assert found.left["cross-entropy"] == alone[0].double().mean()  # the first is given all that are right
    assert len(found.evaluations["margin"].correct) == round(found.left["away from the own center"] * len(labels))
    lines = str(found).splitlines()
    assert repr(found.clean) == f"Evaluation({len(labels)} images, {found.clean.accuracy:.1%} right, 0 gradients, 0% zero)"
    assert len(lines) == 7 and [line.endswith("no evidence: gradients are masked") for line in lines] == [False, False, True, *4 * [False]]


def test_the_worst_case_says_where_no_attack_had_a_gradient(mmc, digits):
    rungs = attacks.ladder(epsilon=0.1, steps=5)
    with pytest.warns(evaluation.GradientMaskingWarning, match="^worst_case"):
        evaluation.worst_case(mmc, *digits, {"blind": rungs["cross-entropy"], "noise": attacks.gaussian_noise})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluation.worst_case(mmc, *digits, rungs)


def test_the_worst_case_of_nothing(mmc, digits):
    images, labels = digits
    with pytest.raises(ValueError, match="at least one"):
        evaluation.worst_case(mmc, images, labels, {})
    wrong = (mmc(images).argmax(1) + 1) % 10  # labels that the model gives to none
    found = evaluation.worst_case(mmc, images, wrong, attacks.ladder(epsilon=0.1, steps=2))
    assert found.accuracy == 0 and found.evaluations == {} and str(found).count("0.0%") == 6


def test_batches_shrink_and_grow_to_what_half_a_minute_allows(monkeypatch):
    clock, sizes = [0.0], []
    monkeypatch.setattr(verified.time, "perf_counter", lambda: clock[0])

    def work(part):
        sizes.append(part.stop - part.start)
        clock[0] += sizes[-1] * (0.5 if part.start < 300 else 5.0)  # seconds an image
    for _ in verified.each_batch(500, 256, lambda part: work(part) or True, least=16, slow=True):
        pass
    assert sizes[0] == 16 and max(sizes) == 48 and sizes[-2] == 16 and sum(sizes) == 500
    sizes.clear()
    for _ in verified.each_batch(500, 256, lambda part: work(part) or True, least=32, slow=True):  # never less than fills a call
        pass
    assert sizes[:2] == [32, 32] and min(sizes[:-1]) == 32 and sum(sizes) == 500
    sizes.clear()
    list(verified.each_batch(500, 256, lambda part: work(part) or True, slow=True))
    assert sizes == [256, 244]


def test_attacks_that_shrink_take_at_least_a_full_call(tmp_path, monkeypatch):
    """Of 32 x 32 pixels a call takes 32 images; what fills calls by itself keeps to the 16 rows that a call has at least."""
    seen = []
    monkeypatch.setattr(verified, "each_batch", lambda *arguments, **options: seen.append(arguments[-1]) or iter(()))
    model, images, labels = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)), torch.rand(4, 3, 32, 32), torch.zeros(4, dtype=torch.int64)
    for attack, least in ((attacks.pgd, 32), (attacks.multi_targeted, 32), (attacks.carlini_wagner, 16), (attacks.spsa, 16)):
        list(verified.attacked(model, images, labels, attack, None, 0, 256, {}, False, partials.Partial(tmp_path / "new", lambda: "of")))
        assert seen.pop() == least and not seen
    list(verified.attacked(model, images, labels, attacks.pgd, None, 0, 256, {}, False, partials.Partial(None, lambda: "of")))
    assert seen == [0]


@pytest.mark.parametrize(("change", "says"), [
    ({"labels": torch.cat((torch.zeros(59, dtype=torch.int64), torch.tensor([10])))}, "labels must lie in \\[0, 9\\]"),
    ({"targets": torch.cat((torch.full((59,), 11), torch.tensor([1])))}, "targets must lie in \\[0, 9\\]"),
    ({"labels": torch.zeros(59, dtype=torch.int64)}, "labels must hold 60 entries, one per image, got 59"),
    ({"targets": torch.zeros(50, dtype=torch.int64)}, "targets must hold 60 entries, one per image, got 50"),
    ({"seed": torch.zeros(50, dtype=torch.int64)}, "seed must be an integer or int64 of shape \\(60,\\)"),
])
def test_what_can_be_known_is_said_before_the_first_attack(change, says, mmc, digits):
    def never(model, images, labels, **options):
        raise AssertionError("attacked")
    options = {"images": digits[0], "labels": digits[1]} | change
    with pytest.raises(ValueError, match=says):
        evaluation.robust_accuracy(mmc, options.pop("images"), options.pop("labels"), never, batch_size=10, **options)


@pytest.mark.parametrize("error", (torch.OutOfMemoryError("CUDA"), RuntimeError("DefaultCPUAllocator: can't allocate memory")))
def test_running_out_of_memory_halves_the_batch_and_changes_nothing(error, mmc, digits):
    images, labels = digits
    sizes = []

    def pgd(model, images, labels, **options):
        sizes.append(len(images))
        if len(images) > 20:
            raise error
        return attacks.pgd(model, images, labels, **options)

    with pytest.warns(UserWarning, match="out of memory: going on with batches of 15"):
        outcome = evaluation.robust_accuracy(mmc, images, labels, pgd, batch_size=60, **PGD)
    assert sizes == [60, 30, 15, 15, 15, 15]
    assert same(outcome, evaluation.robust_accuracy(mmc, images, labels, attacks.pgd, **PGD))


def test_other_errors_are_not_taken_for_missing_memory(mmc, digits):
    def broken(model, images, labels, **options):
        raise RuntimeError("shape mismatch")
    with pytest.raises(RuntimeError, match="shape mismatch"):
        evaluation.robust_accuracy(mmc, *digits, broken)


def test_the_masking_warning_comes_once_for_all_batches(mmc, digits):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        outcome = evaluation.robust_accuracy(mmc, *digits, attacks.pgd, batch_size=10, **{**PGD, "objective": "cross_entropy"})
    assert sum("exactly zero" in str(warning.message) for warning in caught) == 1 and outcome.zero_gradients > 0.3


def test_transfer_runs_every_step_and_is_strongest_on_its_source(mmc, sce, digits):
    matrix = evaluation.transfer_matrix({"mmc": mmc, "sce": sce}, *digits, attacks.mim, seed=1, batch_size=25,
                                        objective="untargeted_1", epsilon=0.15, step_size=0.03, steps=5)
    assert {source: set(row) for source, row in matrix.items()} == {"mmc": {"mmc", "sce"}, "sce": {"mmc", "sce"}}
    assert matrix["mmc"]["mmc"].accuracy < matrix["mmc"]["sce"].accuracy < evaluation.accuracy(sce, *digits).accuracy
    assert bool((matrix["mmc"]["mmc"].queries == 6).all())


def test_minimal_distortion_is_the_carlini_wagner_mean(mmc, digits):
    images, labels = digits[0][:8], digits[1][:8]
    hyper = {"binary_search_steps": 4, "steps": 40, "learning_rate": 0.03}
    outcome = evaluation.minimal_distortion(mmc, images, labels, batch_size=3, **hyper)
    direct = attacks.carlini_wagner(mmc, images, labels, **hyper)
    assert outcome.distortion.equal(direct.distortion)
    assert outcome.mean_distortion == pytest.approx(direct.distortion[direct.success].double().mean().item())


def test_random_targets_are_uniform_over_the_other_classes():
    labels = torch.arange(10).repeat(2000)
    targets = evaluation.random_targets(labels, 10, seed=5)
    assert bool((targets != labels).all()) and targets.dtype == torch.int64
    counts = torch.bincount((targets - labels) % 10, minlength=10)[1:].double()
    assert ((counts - 20000 / 9) ** 2 / (20000 / 9)).sum() < 26.1  # chi-squared with 8 degrees of freedom, 0.1 %
    assert targets[:50].equal(evaluation.random_targets(labels[:50], 10, seed=5))
    assert not targets.equal(evaluation.random_targets(labels, 10, seed=6))


@pytest.mark.parametrize(("images", "labels", "options", "says"), [
    (torch.rand(2, 1, 8, 8) + 1, torch.tensor([0, 1]), {}, "images must lie in"),
    (torch.rand(2, 8, 8), torch.tensor([0, 1]), {}, "images must have shape"),
    (torch.zeros(0, 1, 8, 8, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64), {}, "images is an empty batch"),
    (torch.rand(2, 1, 8, 8), torch.tensor([0]), {}, "labels must hold 2"),
    (torch.rand(2, 1, 8, 8), torch.tensor([0, 12]), {}, "labels must lie in"),
    (torch.rand(2, 1, 8, 8), torch.tensor([0, 1]), {"batch_size": 0}, "batch_size must be"),
    (torch.rand(2, 1, 8, 8), torch.tensor([0, 1]), {"targets": torch.tensor([1])}, "targets must hold 2"),
    (torch.rand(2, 1, 8, 8), torch.tensor([0, 1]), {"seed": torch.tensor([1])}, "seed must be"),
])
def test_bad_input_is_one_sentence(images, labels, options, says, mmc):
    with pytest.raises(ValueError, match=says):
        evaluation.robust_accuracy(mmc, images, labels, attacks.pgd, **options)


def test_labels_out_of_range_stop_accuracy_too(mmc):
    with pytest.raises(ValueError, match="labels must lie in"):
        evaluation.accuracy(mmc, torch.rand(2, 1, 8, 8), torch.tensor([0, 12]))


def test_counter_draws_depend_on_the_image_alone():
    seeds = counter.image_seeds(7, 5)
    for draw in (counter.uniform, counter.normal, counter.signs):
        together = draw(seeds, (3, 4), "test", 2)
        assert together.shape == (5, 3, 4) and together.dtype == torch.float32
        assert together[[3, 1]].equal(draw(seeds[[3, 1]], (3, 4), "test", 2))
        for other in (draw(seeds, (3, 4), "other", 2), draw(seeds, (3, 4), "test", 3), draw(counter.image_seeds(8, 5), (3, 4), "test", 2)):
            assert not together.equal(other)


def test_counter_draws_have_their_distributions():
    seeds = counter.image_seeds(0, 20)
    uniform, normal, signs = (draw(seeds, (5000,), "test") for draw in (counter.uniform, counter.normal, counter.signs))
    assert -1 <= uniform.min() < -0.999 and 0.999 < uniform.max() < 1
    for drawn, variance in ((uniform, 1 / 3), (normal, 1.0), (signs, 1.0)):  # 100,000 draws: four standard errors
        assert abs(drawn.mean()) < 4 * (variance / 1e5) ** 0.5 and abs(drawn.var() - variance) < 0.02
    assert signs.abs().eq(1).all()
    pairs = (signs[:, 1:] * signs[:, :-1]).mean()
    assert abs(pairs) < 4 / 1e5**0.5  # neighbouring bits of one hash are independent


@pytest.mark.cuda
def test_counter_draws_the_same_bits_on_cuda():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    seeds = counter.image_seeds(3, 100)
    for draw in (counter.uniform, counter.signs):
        assert draw(seeds, (50,), "test", 1).equal(draw(seeds.cuda(), (50,), "test", 1).cpu())


def test_vanishing_gradients_are_told_of_where_examples_are_crafted(mmc, sce, digits):
    images, labels = digits[0][:60], digits[1][:60]
    with pytest.warns(GradientMaskingWarning, match="pgd"):
        evaluation.transfer_row(mmc, {"other": sce}, images, labels, attacks.pgd, objective="cross_entropy", **STRONG)
    spsa = functools.partial(attacks.spsa, objective="cross_entropy", epsilon=0.2, learning_rate=0.05, evaluations=16)
    with pytest.warns(GradientMaskingWarning, match="spsa"):
        found = evaluation.robust_accuracy(mmc, images, labels, spsa)
    assert found.masked and found.gradients.any()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        table = evaluation.worst_case(mmc, images, labels, {"spsa": spsa})
    assert "no evidence" in repr(table) and any(one.category is GradientMaskingWarning for one in said)


def test_the_ladders_last_rung_says_how_many_classes_it_tries(mmc):
    assert [*attacks.ladder(0.1)][-1] == "margin, each of 9 classes"
    name, last = [*attacks.ladder(0.1, classes=99).items()][-1]
    assert name == "margin, each of 99 classes" and last.keywords["classes"] == 99
