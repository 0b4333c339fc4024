"""Evaluation: verified claims, resuming, running out of memory, transfer, intervals, targets."""

import warnings

import pytest
import torch
from torch import nn

from mmclib import attacks, counter, data, evaluation

PGD = {"objective": "untargeted_2", "epsilon": 0.1, "step_size": 0.03, "steps": 5}


def same(one, other):
    return all(getattr(one, name).equal(getattr(other, name)) for name in ("correct", "success", "distortion", "queries", "vanished"))


def test_accuracy_takes_bytes_and_floats(mmc):
    images, labels = data.load("digits", "test")
    from_bytes, from_floats = (
        evaluation.accuracy(mmc, images, labels),
        evaluation.accuracy(mmc, images.float() / 255, labels, batch_size=100),
    )
    assert from_bytes.correct.equal(from_floats.correct) and from_bytes.accuracy > 0.8
    assert from_bytes.to_dict()["accuracy"] == from_bytes.accuracy


def test_an_interrupted_evaluation_goes_on_where_it_stopped(mmc, digits, tmp_path):
    images, labels = digits
    whole = evaluation.robust_accuracy(mmc, images, labels, attacks.pgd, batch_size=20, **PGD)
    partial, calls = tmp_path / "deep" / "evaluation.partial", []

    def pgd(model, images, labels, *, interrupt=True, **options):
        calls.append(len(images))
        if interrupt and len(calls) == 3:
            raise KeyboardInterrupt
        return attacks.pgd(model, images, labels, **options)

    with pytest.raises(KeyboardInterrupt):
        evaluation.robust_accuracy(mmc, images, labels, pgd, batch_size=20, partial=partial, **PGD)
    assert partial.exists() and calls == [20, 20, 20]
    resumed = evaluation.robust_accuracy(mmc, images, labels, pgd, batch_size=20, partial=partial, **PGD)
    assert calls == [20, 20, 20, 20] and same(whole, resumed) and not partial.exists()


def test_a_partial_file_of_another_evaluation_or_a_damaged_one_is_not_used(mmc, digits, tmp_path):
    images, labels = digits[0][:20], digits[1][:20]
    partial = tmp_path / "partial"
    whole = evaluation.robust_accuracy(mmc, images, labels, attacks.pgd, **PGD)
    kept = evaluation._Finished(partial, lambda: "another")
    kept.add(slice(0, 20), {"correct": torch.zeros(20, dtype=torch.bool)})
    assert same(whole, evaluation.robust_accuracy(mmc, images, labels, attacks.pgd, partial=partial, **PGD))
    partial.write_bytes(b"torn")
    with pytest.warns(UserWarning, match="cannot be read"):
        assert same(whole, evaluation.robust_accuracy(mmc, images, labels, attacks.pgd, partial=partial, **PGD))


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


def test_a_model_of_ones_own_needs_no_parameters(digits):
    class Brightness(nn.Module):
        def forward(self, images):
            mean = images.mean((1, 2, 3))
            return torch.stack((mean, 1 - mean), 1)
    images = torch.linspace(0.1, 0.9, 9).reshape(9, 1, 1, 1).expand(9, 1, 4, 4)
    labels = (images[:, 0, 0, 0] <= 0.5).long()
    outcome = evaluation.robust_accuracy(Brightness(), images, labels, attacks.pgd, objective="untargeted_2", epsilon=0.15, step_size=0.05)
    # argmax gives ties to class 0, which is the label of the images above one half only
    assert outcome.correct.equal((images[:, 0, 0, 0] - 0.5).abs() > 0.15)


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
