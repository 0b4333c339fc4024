"""What goes on from a folder or a file: the same work to the bit, no other's, and nothing of anybody else is lost."""

import functools
import sys
import warnings

import pytest
import torch
from torch import nn

from mmclib import attacks, checkpoints, evaluation, losses, models, partials, verified
from mmclib.attacks.objectives import divided
from mmclib.training import Recipe, fit
from tests.mmclib.small import Own, against, flat_weights, own, small, trained

STRONG = {"epsilon": 0.2, "step_size": 0.05, "steps": 8}
CLIMB = {"epsilon": 0.2, "step_size": 0.05, "steps": 20}
PGD = {"objective": "untargeted_2", "epsilon": 0.1, "step_size": 0.03, "steps": 5}


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


def test_a_file_of_ones_own_is_not_replaced_by_a_partial_one(mmc, digits, tmp_path):
    weights, text, folder = tmp_path / "weights.safetensors", tmp_path / "notes.txt", tmp_path / "folder"
    checkpoints.save_model(weights, mmc, {"mine": 1})
    text.write_text("import torch  # a day's work")
    folder.mkdir()
    for path in (weights, text, folder):
        with pytest.raises(ValueError, match="is not what an interrupted evaluation left"):
            evaluation.robust_accuracy(mmc, digits[0][:20], digits[1][:20], attacks.pgd, partial=path, **STRONG)
    assert checkpoints.load_model_state(weights)[1] == {"mine": 1} and text.read_text().startswith("import")
    empty = tmp_path / "empty"
    empty.write_bytes(bytes(64))  # a power cut
    with pytest.warns(UserWarning, match="starts over"):
        evaluation.robust_accuracy(mmc, digits[0][:20], digits[1][:20], attacks.pgd, partial=empty, **STRONG)
    assert not empty.exists()


def test_an_objective_that_cannot_be_told_from_another_needs_to_be_only_in_a_folder(tmp_path):
    generator = torch.Generator()  # its content cannot be read

    def noisy(features, logits, labels, targets):
        return attacks.objectives.untargeted_2(features, logits, labels, targets) + 0 * torch.rand((), generator=generator)
    assert trained(small(), adversarial=against(noisy)).finished
    with pytest.raises(ValueError, match="the objective holds .*Generator"):
        trained(small(), tmp_path, adversarial=against(noisy))


class Acting(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.functions = [function]

    def forward(self, images):
        return self.functions[0](images)


def acting(function):
    model = small()
    model.backbone = nn.Sequential(Acting(function), *model.backbone)
    return model


@pytest.mark.parametrize(("first", "second", "key"), [
    (lambda: small(), lambda: small(mean=torch.full((1, 8, 8), 0.3)), "mean"),
    (lambda: small(mean=torch.full((1, 8, 8), 0.3)), lambda: small(), "mean"),
    (lambda: small(mean=torch.full((1, 8, 8), 0.3)), lambda: small(mean=torch.full((1, 8, 8), 0.2)), "mean"),
    (lambda: acting(torch.tanh), lambda: acting(torch.sin), "attributes")])
def test_a_folder_of_another_mean_or_function_is_not_taken_for_this_one(tmp_path, first, second, key):
    trained(first(), tmp_path, stop=lambda: True)
    with pytest.raises(ValueError, match=f"another training \\({key} "):
        trained(second(), tmp_path)
    assert trained(first(), tmp_path).finished


def test_the_same_model_goes_on_in_its_folder(tmp_path):
    model = small()
    assert not trained(model, tmp_path, stop=lambda: True).finished  # which has set its mean
    assert torch.equal(flat_weights(trained(model, tmp_path)), flat_weights(trained(small())))


@pytest.mark.parametrize("runner", [None, torch.__file__], ids=["script", "python -m library script"])
def test_a_state_is_not_resumed_under_a_loss_that_was_edited(runner, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "__file__", runner, raising=False)
    trained(own(), tmp_path)
    source = "\n".join(("import torch", "class Own(Base):", "    def loss(self, features, labels):",
                        "        return {} * super(Own, self).loss(features, labels)"))
    edited = {}
    for factor in (2, 3):
        namespace = {"Base": Own, "__name__": "__main__"}
        exec(source.format(factor), namespace)
        edited[factor] = namespace["Own"]
    with pytest.raises(ValueError, match="holds the state of another training .code"):
        trained(own(edited[2]), tmp_path)
    again = tmp_path / "again"
    first = trained(own(edited[2]), again)
    assert trained(own(edited[2]), again).history == first.history  # whoever runs the same cell again goes on
    with pytest.raises(ValueError, match="holds the state of another training .code"):
        trained(own(edited[3]), again)


def _stopping(generate, after):
    def stopped(*arguments):
        for number, batch in enumerate(generate(*arguments)):
            if number == after:
                raise KeyboardInterrupt
            yield batch
    return stopped


def test_a_transfer_goes_on_with_the_models_in_another_order(mmc, sce, digits, tmp_path):
    images, labels = digits
    rows = {"mmc": mmc, "sce": sce}
    whole = evaluation.transfer_row(mmc, rows, images, labels, attacks.pgd, batch_size=16, **CLIMB)
    file = tmp_path / "partial"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "attacked", _stopping(evaluation.attacked, after=2))
        with pytest.raises(KeyboardInterrupt):
            evaluation.transfer_row(mmc, rows, images, labels, attacks.pgd, batch_size=16, partial=file, **CLIMB)
    assert file.exists()
    turned = dict(reversed(rows.items()))
    found = evaluation.transfer_row(mmc, turned, images, labels, attacks.pgd, batch_size=16, partial=file, **CLIMB)
    assert all(found[name].correct.equal(whole[name].correct) for name in rows)


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


def same(one, other):
    return all(getattr(one, name).equal(getattr(other, name)) for name in ("correct", "success", "distortion", "queries", "vanished"))


def test_an_interrupted_evaluation_goes_on_where_it_stopped(mmc, digits, tmp_path, monkeypatch):
    images, labels = digits
    whole = evaluation.robust_accuracy(mmc, images, labels, attacks.pgd, batch_size=20, **PGD)
    partial, calls, whole_check = tmp_path / "deep" / "evaluation.partial", [], verified._verified

    def interrupted(model, originals, *rest):
        calls.append(len(originals))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole_check(model, originals, *rest)

    monkeypatch.setattr(verified, "_verified", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluation.robust_accuracy(mmc, images, labels, attacks.pgd, batch_size=20, partial=partial, **PGD)
    assert partial.exists() and calls == [20, 20, 20]
    resumed = evaluation.robust_accuracy(mmc, images, labels, attacks.pgd, batch_size=20, partial=partial, **PGD)
    assert calls == [20, 20, 20, 20] and same(whole, resumed) and not partial.exists()


def test_a_partial_file_of_another_evaluation_or_a_damaged_one_is_not_used(mmc, digits, tmp_path):
    images, labels = digits[0][:20], digits[1][:20]
    partial = tmp_path / "partial"
    whole = evaluation.robust_accuracy(mmc, images, labels, attacks.pgd, **PGD)
    kept = partials.Partial(partial, lambda: "another")
    kept.add(slice(0, 20), {"correct": torch.zeros(20, dtype=torch.bool), "norm": "linf", "seconds": 1.0})
    torn = partial.read_bytes()[:-30]
    with pytest.warns(UserWarning, match="holds another evaluation's work"):
        assert same(whole, evaluation.robust_accuracy(mmc, images, labels, attacks.pgd, partial=partial, **PGD))
    partial.write_bytes(torn)
    with pytest.warns(UserWarning, match="cannot be read"):
        assert same(whole, evaluation.robust_accuracy(mmc, images, labels, attacks.pgd, partial=partial, **PGD))


def divided_by(scale):
    def objective(features, logits, labels, targets):
        return attacks.OBJECTIVES["untargeted_2"](features, logits / scale, labels, targets)
    return objective


def interrupt_after(batches, monkeypatch):
    """Let evaluations verify so many batches and no more; returns what lets them go on, and how many images each verified batch had."""
    sizes, whole_check = [], verified._verified

    def interrupted(model, originals, *rest):
        if len(sizes) == batches:
            raise KeyboardInterrupt
        sizes.append(len(originals))
        return whole_check(model, originals, *rest)
    monkeypatch.setattr(verified, "_verified", interrupted)
    return (lambda: monkeypatch.setattr(verified, "_verified", whole_check)), sizes


FUNCTIONS = {
    "closure": (lambda: divided_by(10), lambda: divided_by(100)),
    "lambda": (lambda: lambda *given: attacks.OBJECTIVES["untargeted_2"](*given),
               lambda: lambda *given: attacks.OBJECTIVES["untargeted_1"](*given)),
    "ours, a closure too": (lambda: divided("untargeted_2", 10), lambda: divided("untargeted_2", 100)),
    "default": (lambda: lambda *given, by=1: attacks.OBJECTIVES["untargeted_2"](*given) / by,
                lambda: lambda *given, by=2: attacks.OBJECTIVES["untargeted_2"](*given) / by),
}


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_another_functions_partial_is_never_gone_on_with(kind, mmc, digits, tmp_path, monkeypatch):
    first, second = FUNCTIONS[kind]
    hyper = {name: value for name, value in PGD.items() if name != "objective"}
    partial = tmp_path / "partial"

    def left_over(made):
        partial.unlink(missing_ok=True)
        go_on, _ = interrupt_after(2, monkeypatch)
        with pytest.raises(KeyboardInterrupt):
            evaluation.robust_accuracy(mmc, *digits, attacks.pgd, partial=partial, batch_size=20, objective=made, **hyper)
        go_on()
        return partial.read_bytes()

    left_over(first())
    again, sizes = interrupt_after(9, monkeypatch)
    resumed = evaluation.robust_accuracy(mmc, *digits, attacks.pgd, partial=partial, batch_size=20, objective=first(), **hyper)
    again()
    assert sum(sizes) == 60 - 40  # the same function, made anew: gone on with
    left_over(first())
    sizes = interrupt_after(9, monkeypatch)[1]
    other = evaluation.robust_accuracy(mmc, *digits, attacks.pgd, partial=partial, batch_size=20, objective=second(), **hyper)
    assert sum(sizes) == 60
    for outcome, made in ((resumed, first()), (other, second())):
        assert same(outcome, evaluation.robust_accuracy(mmc, *digits, attacks.pgd, objective=made, **hyper))


def test_what_cannot_be_told_by_its_content_is_not_gone_on_with(mmc, digits, tmp_path):
    with open(__file__) as file:
        def objective(features, logits, labels, targets):
            assert not file.closed
            return attacks.OBJECTIVES["untargeted_2"](features, logits, labels, targets)
        with pytest.warns(UserWarning, match="is not used: a _io.TextIOWrapper cannot be told from another by its content"):
            evaluation.robust_accuracy(mmc, *digits, attacks.pgd, partial=tmp_path / "partial", **{**PGD, "objective": objective})
    assert not list(tmp_path.iterdir())


def test_a_flipped_bit_of_a_partial_file_is_never_used(mmc, digits, tmp_path):
    partial = tmp_path / "partial"
    kept = partials.Partial(partial, lambda: "f" * 64)
    columns = {"correct": torch.rand(20) < 0.5, "queries": torch.arange(20), "distortion": torch.rand(20)}
    kept.add(slice(0, 20), columns | {"norm": "linf", "seconds": 1.5})
    content = partial.read_bytes()

    def read():
        finished = partials.Partial(partial, lambda: "f" * 64)
        return finished.count, {name: parts[0] for name, parts in finished.columns.items()}
    assert read()[0] == 20 and all(read()[1][name].equal(column) for name, column in columns.items())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for place in torch.randperm(8 * len(content), generator=torch.Generator().manual_seed(0))[:400].tolist():
            damaged = bytearray(content)
            damaged[place // 8] ^= 1 << place % 8
            partial.write_bytes(damaged)
            count, found = read()
            # a bit of blank padding may go unseen: what is used is what was kept
            assert count == 0 or (count == 20 and all(found[name].equal(column) for name, column in columns.items()))


def test_transfer_goes_on_where_it_stopped(mmc, sce, digits, tmp_path, monkeypatch):
    models, partial = {"mmc": mmc, "sce": sce}, tmp_path / "partial"
    whole = evaluation.transfer_row(mmc, models, *digits, attacks.mim, **PGD)
    go_on, _ = interrupt_after(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        evaluation.transfer_row(mmc, models, *digits, attacks.mim, partial=partial, batch_size=20, **PGD)
    go_on()
    assert partial.exists()
    sizes = interrupt_after(9, monkeypatch)[1]
    resumed = evaluation.transfer_row(mmc, models, *digits, attacks.mim, partial=partial, batch_size=20, **PGD)
    assert sum(sizes) == 20 and not partial.exists() and all(same(whole[name], resumed[name]) for name in models)
    assert whole["mmc"].accuracy < whole["sce"].accuracy


def test_a_partial_of_functools_is_an_attack_like_any_other(mmc, digits, tmp_path):
    plain = evaluation.robust_accuracy(mmc, *digits, attacks.pgd, **PGD)
    bound = functools.partial(attacks.pgd, **PGD)
    for options in ({}, {"partial": tmp_path / "partial"}, {"progress": True}):
        assert same(plain, evaluation.robust_accuracy(mmc, *digits, bound, **options))
    assert same(*(evaluation.transfer_row(mmc, {"sce": mmc}, *digits, attack, **options)["sce"]
                  for attack, options in ((bound, {}), (attacks.pgd, PGD))))
    outside = functools.partial(attacks.pgd, **{**PGD, "epsilon": 0.05})  # the ball that claims are held against is its own
    assert not evaluation.robust_accuracy(mmc, *digits, outside).rejected.any()
    with pytest.warns(UserWarning, match="^pgd: the input gradient is exactly zero"):
        evaluation.robust_accuracy(mmc, *digits, functools.partial(attacks.pgd, objective="cross_entropy"))


def test_a_matrix_of_transfers_goes_on_behind_the_rows_that_are_done(mmc, sce, digits, tmp_path, monkeypatch):
    rows, partial = {"mmc": mmc, "sce": sce}, tmp_path / "partial"
    whole = evaluation.transfer_matrix(rows, *digits, attacks.pgd, **PGD)
    go_on, _ = interrupt_after(5, monkeypatch)  # three batches of the first row, two of the second
    with pytest.raises(KeyboardInterrupt):
        evaluation.transfer_matrix(rows, *digits, attacks.pgd, partial=partial, batch_size=20, **PGD)
    go_on()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["partial.0", "partial.1"]
    sizes = interrupt_after(9, monkeypatch)[1]
    resumed = evaluation.transfer_matrix(rows, *digits, attacks.pgd, partial=partial, batch_size=20, **PGD)
    assert sizes == [20] and not list(tmp_path.iterdir())
    assert all(same(whole[source][target], resumed[source][target]) for source in rows for target in rows)
