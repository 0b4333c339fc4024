"""Training: what is learnt, recorded and refused; kills, guards and averages end in the same bits."""

import dataclasses
import json
import multiprocessing
import os
import random
import signal
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mmclib import checkpoints, data, losses, models
from mmclib.attacks.ledger import GradientMaskingWarning
from mmclib.centers import random_centers
from mmclib.training import AdversarialTraining, Recipe, fit, step, trainer
from tests.mmclib.small import (
    MUON,
    SHORT,
    SINGLE_STEP,
    TARGETED,
    against,
    axes,
    classifier,
    few,
    flat_weights,
    same,
    small,
    trained,
    weights,
)

pytestmark = pytest.mark.usefixtures("one_thread")
MANY_STEPS = Recipe(epochs=8, batch_size=50, milestones=(4,))
HEADS = {
    "sce": lambda: losses.SoftmaxCrossEntropy(10, 16), "center": lambda: losses.CenterLoss(10, 16),
    "lgm": lambda: losses.LargeMarginGaussianMixture(10, 16), "mmlda": lambda: losses.MaxMahalanobisLDA(axes()),
    "huber": lambda: losses.MaxMahalanobisCenter(axes(), form="huber"), "emc": lambda: losses.ElasticMaxMahalanobisCenter(axes()),
}


def without_clock(history):
    return [{key: value for key, value in epoch.items() if key != "seconds"} for epoch in history]


@pytest.mark.parametrize("head", ["sce", "mmc"])
def test_digits_are_learnt(head):
    torch.manual_seed(0)
    head = losses.SoftmaxCrossEntropy(10, 64) if head == "sce" else losses.MaxMahalanobisCenter(torch.eye(10, 64) * 10)
    model = models.Classifier(models.small_convnet(1, 64), head)
    recipe = Recipe(epochs=8, milestones=(6,), flip=False)
    result = fit(model, data.load("digits", "train"), data.load("digits", "test"), recipe=recipe, seed=0, progress=False)
    assert result.finished and [epoch["epoch"] for epoch in result.history] == list(range(1, 9))
    assert result.history[-1]["test_accuracy"] >= 0.95
    assert [round(epoch["learning_rate"], 6) for epoch in result.history] == [0.01] * 6 + [0.001] * 2
    seconds = [epoch["seconds"] for epoch in result.history]
    assert sorted(seconds) == seconds and seconds[0] > 0
    assert not model.training and torch.allclose(model.mean, data.load("digits", "train")[0].float().mean(0) / 255)


def test_the_optimizer_is_the_papers():
    """Three steps against momentum SGD written out, with the decay on convolution kernels only."""
    train, test = few(150)
    recipe = Recipe(epochs=1, batch_size=50, shift=0.0, flip=False, weight_decay=0.1, learning_rate=0.02)
    model, slow = classifier(), classifier()
    fit(model, train, test, recipe=recipe, seed=4, progress=False)
    slow.mean = train[0].float().mean(0) / 255
    slow.to(memory_format=torch.channels_last)
    plan = trainer.epoch_plan(150, 8, 8, seed=4, epoch=0, shift=0.0, flip=False)
    velocity = {parameter: torch.zeros_like(parameter) for parameter in slow.parameters()}
    slow.train()
    for start in (0, 50, 100):
        rows = plan.order[start:start + 50]
        slow.zero_grad()
        images = (train[0][rows].float() / 255).contiguous(memory_format=torch.channels_last)
        slow.head.loss(slow.features(images), train[1][rows]).backward()
        with torch.no_grad():
            for parameter, momentum in velocity.items():
                decayed = parameter.grad + (0.1 * parameter if parameter.ndim == 4 else 0)
                momentum.mul_(0.9).add_(decayed)
                parameter -= 0.02 * momentum
    for name, tensor in slow.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)


def assert_step_by_step_equals_one_run(recipe, folder):
    """A training of six steps, interrupted after each of them, ends in the bits of one that is not; return the latter."""
    train, test = few()
    whole = fit(classifier(), train, test, recipe=recipe, seed=7, progress=False)
    for calls in range(1, 7):
        result = fit(classifier(), train, test, recipe=recipe, seed=7, folder=folder, stop=lambda: True, progress=False)
        assert result.finished == (calls == 6)
    assert same(weights(whole.model), weights(result.model))
    assert without_clock(whole.history) == without_clock(result.history)
    return whole


@pytest.mark.parametrize("adversarial", [None, TARGETED])
def test_a_training_of_single_steps_equals_one_run(adversarial, tmp_path):
    recipe = Recipe(epochs=2, batch_size=50, milestones=(1,), flip=False, adversarial=adversarial)
    whole = assert_step_by_step_equals_one_run(recipe, tmp_path)
    train, test = few()
    again = fit(classifier(), train, test, recipe=recipe, seed=7, folder=tmp_path, progress=False)
    assert again.finished and same(weights(whole.model), weights(again.model))


def kept_training(name):
    """The center loss has the most state: weights, momentum, and centers that the optimizer does not move. The CPU recipe has two
    optimizers, averages, and what the guard goes back to."""
    if name == "center":
        return classifier(lambda: losses.CenterLoss(10, 16)), MANY_STEPS
    return classifier(), dataclasses.replace(MUON, epochs=4, adversarial=SINGLE_STEP)


def train_and_save_every(seconds, folder, name):
    torch.set_num_threads(1)
    trainer.CHECKPOINT_SECONDS = seconds
    model, recipe = kept_training(name)
    fit(model, *few(1000), recipe=recipe, seed=1, folder=folder, progress=False)


@pytest.mark.parametrize("name", ["center", "cpu recipe"])
def test_six_kills_at_random_moments_change_no_bit(name, tmp_path):
    model, recipe = kept_training(name)
    whole = fit(model, *few(1000), recipe=recipe, seed=1, progress=False)
    server = multiprocessing.get_context("forkserver")  # imports once, then starts a clean process in no time
    server.set_forkserver_preload(["pytest", "torch._dynamo", "mmclib.losses", "mmclib.training"])
    chance, kills = random.Random(0), 0
    while True:
        before = states(tmp_path)
        process = server.Process(target=train_and_save_every, args=(0.0 if kills < 6 else 60.0, tmp_path, name))
        process.start()
        if kills == 6:
            process.join()
            break
        while states(tmp_path) == before and process.is_alive():  # it must get somewhere, or six would never do
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.02))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL  # in the midst of its work, not after it
        kills += 1
    assert process.exitcode == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a kill leaves no damaged state behind
        tensors, saved = checkpoints.load_state(tmp_path)
    assert saved["epoch"] == recipe.epochs
    assert same(weights(whole.model), {name[6:]: tensor for name, tensor in tensors.items() if name.startswith("model.")})
    assert without_clock(whole.history) == without_clock(saved["history"])


def states(folder):
    return sorted(path.name for path in folder.glob("state-*"))


def test_a_damaged_state_falls_back_and_ends_in_the_same_bits(tmp_path):
    train, test = few()
    whole = fit(classifier(), train, test, recipe=SHORT, seed=7, progress=False)
    for _ in range(3):
        fit(classifier(), train, test, recipe=SHORT, seed=7, folder=tmp_path, stop=lambda: True, progress=False)
    newest = max(tmp_path.glob("state-*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="is damaged"):
        result = fit(classifier(), train, test, recipe=SHORT, seed=7, folder=tmp_path, progress=False)
    assert same(weights(whole.model), weights(result.model))


def test_a_folder_of_another_training_is_refused(tmp_path):
    train, test = few()
    fit(classifier(), train, test, recipe=SHORT, seed=7, folder=tmp_path, progress=False)
    with pytest.raises(ValueError, match="another training .seed 7 there, 8 here"):
        fit(classifier(), train, test, recipe=SHORT, seed=8, folder=tmp_path, progress=False)


class Breaks(losses.MaxMahalanobisCenter):
    """A loss that is infinite on the given call."""

    calls, bad = 0, 5

    def loss(self, features, labels, reduction="mean"):
        self.calls += 1
        return super().loss(features, labels, reduction) * (torch.inf if self.calls == self.bad else 1)


def test_a_loss_that_is_not_finite_stops_with_epoch_batch_and_state(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", 0.0)
    train, test = few()
    with pytest.raises(FloatingPointError, match=r"loss became inf in epoch 2, batch 2 of 3 .*last state: .*state-000000005") as caught:
        fit(classifier(lambda: Breaks(axes())), train, test, recipe=SHORT, seed=7, folder=tmp_path, progress=False)
    assert "\n" not in str(caught.value)
    tensors, saved = checkpoints.load_state(tmp_path)
    assert (saved["epoch"], saved["step"]) == (1, 1) and all(tensor.isfinite().all() for tensor in tensors.values())
    # The state kept is a good one: with a loss that behaves it goes on from there to the same end.
    whole = fit(classifier(), train, test, recipe=SHORT, seed=7, progress=False)
    monkeypatch.setattr(Breaks, "bad", 0)
    result = fit(classifier(lambda: Breaks(axes())), train, test, recipe=SHORT, seed=7, folder=tmp_path, progress=False)
    assert same(weights(whole.model), weights(result.model))


def test_running_out_of_memory_is_an_error_with_advice(monkeypatch):
    def no_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(step.TrainingStep, "__call__", no_memory)
    with pytest.raises(MemoryError, match="out of memory on cpu at batch_size=50; take a smaller batch_size"):
        fit(classifier(), *few(), recipe=SHORT, seed=0, progress=False)


def test_progress_in_a_log_is_a_line_now_and_then(capsys, monkeypatch):
    monkeypatch.setattr("mmclib.training.progress.LOG_SECONDS", 0.0)
    fit(classifier(), *few(), recipe=SHORT, seed=0)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 6
    assert lines[-1].startswith("epoch 2/2: loss ") and "images/s" in lines[-1] and lines[-1].endswith("min left")


def test_progress_goes_to_the_file_that_somebody_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("mmclib.training.progress.SHOW_SECONDS", 0.0)
    monkeypatch.setenv("MMC_PROGRESS", str(tmp_path / "sce.training"))
    seen = []
    monkeypatch.setattr("os.replace", lambda new, old: (seen.append(json.loads(Path(new).read_text())), os.rename(new, old)))
    fit(classifier(), *few(), recipe=SHORT, seed=0, progress=False)
    assert [entry["epoch"] for entry in seen] == [1, 1, 1, 2, 2, 2] and {entry["epochs"] for entry in seen} == {2}
    assert all(entry["loss"] > 0 for entry in seen) and seen[-1]["left"] == 0 and seen[0]["left"] > 0
    assert not list(tmp_path.iterdir()) and capsys.readouterr().err == ""
    monkeypatch.setenv("MMC_PROGRESS", str(tmp_path / "no folder" / "sce.training"))
    assert fit(classifier(), *few(), recipe=SHORT, seed=0).finished  # what cannot be shown ends no training


def test_bad_input_is_one_sentence():
    train, test = few()
    for bad, words, keywords in [
        ((train[0].float(), train[1]), "train images must be uint8", {}),
        ((train[0], train[1][:-1]), "train labels must hold 130 entries", {}),
        ((train[0], train[1] + 1), r"train labels must lie in \[0, 9\]", {}),
        (train, "precision must be", {"precision": "half"}),
        (train, "compile must be", {"compile": "yes"}),
        (train, "stop needs a folder", {"stop": lambda: False}),
    ]:
        with pytest.raises(ValueError, match=words):
            fit(classifier(), bad, test, recipe=SHORT, seed=0, **keywords)
    for settings, words in [
        ({"epochs": 0}, "epochs"),
        ({"epochs": 1.5}, "epochs must be an integer of at least 1"),
        ({"epochs": 1, "learning_rate": float("nan")}, "learning_rate"),
        ({"epochs": 1, "momentum": 1.0}, "momentum must be below 1"),
    ]:
        with pytest.raises(ValueError, match=words):
            Recipe(**settings)
    with pytest.raises(ValueError, match="mode must be 'untargeted' or 'targeted', got 'both'"):
        AdversarialTraining("both")


@pytest.mark.parametrize("head", HEADS)
def test_every_head_trains(head):
    history = fit(classifier(HEADS[head]), *few(400), recipe=Recipe(epochs=3, flip=False), seed=0, progress=False).history
    assert history[-1]["loss"] < history[0]["loss"]


@pytest.mark.parametrize("adversarial", [None, SINGLE_STEP])
def test_muon_averages_and_the_guard_resume_to_the_bit(adversarial, tmp_path):
    recipe = dataclasses.replace(MUON, adversarial=adversarial)
    assert_step_by_step_equals_one_run(recipe, tmp_path)


def test_the_guard_goes_back_and_on_with_two_steps(monkeypatch, tmp_path):
    """The second epoch's probe collapses: its weights are thrown away, it is trained again with two steps, and a resume agrees."""
    recipe = dataclasses.replace(MUON, epochs=3, average=0.0, adversarial=SINGLE_STEP)
    probes = iter([0.8, 0.1, 0.7, 0.1])

    class Probed:
        def __init__(self):
            self.fooled = torch.arange(10) >= round(10 * next(probes))

    seen, guard = [], trainer._guard

    def watched(run, state):
        following = guard(run, state)
        seen.append(weights(run.model))
        return following

    monkeypatch.setattr(trainer.attacks, "pgd", lambda *_, **__: Probed())
    monkeypatch.setattr(trainer, "_guard", watched)
    result = fit(classifier(), *few(), recipe=recipe, seed=7, folder=tmp_path, progress=False)
    assert same(seen[1], seen[0]) and not same(seen[2], seen[1]), "after the collapse the weights are the epoch's before it"
    assert [(epoch["epoch"], epoch["collapsed"]) for epoch in result.history] == [(1, False), (2, True), (2, False), (3, False)]
    assert [epoch["probe"] for epoch in result.history] == pytest.approx([0.8, 0.1, 0.7, 0.1])
    first = fit(classifier(), *few(), recipe=dataclasses.replace(recipe, adversarial=dataclasses.replace(SINGLE_STEP, guard=None)),
                seed=7, progress=False)
    assert not same(weights(first.model), weights(result.model))
    assert checkpoints.load_state(tmp_path)[1]["two_steps"]


def test_final_weights_are_float16_numbers_and_the_centers_stay():
    result = fit(classifier(), *few(), recipe=MUON, seed=7, progress=False)
    for name, tensor in result.model.state_dict().items():
        if name.startswith("backbone") and tensor.is_floating_point():
            assert torch.equal(tensor, tensor.half().float()), name
    assert torch.equal(result.model.head.centers, axes())
    images, labels = few()[1]
    accuracy = (result.model(images.float() / 255).argmax(1) == labels).double().mean().item()
    assert result.history[-1]["test_accuracy"] == accuracy


def test_averaged_weights_are_the_mean_of_the_last_ones(monkeypatch):
    """With a constant so long that every step weighs the same, the average is the plain mean of the weights after each step."""
    recipe = dataclasses.replace(MUON, epochs=1, average=1e9, half=False)
    seen, original = [], step.TrainingStep._step

    def watched(self, *arguments):
        outcome = original(self, *arguments)
        seen.append([parameter.detach().clone() for parameter in self.model.parameters()])
        return outcome

    monkeypatch.setattr(step.TrainingStep, "_step", watched)
    result = fit(classifier(), *few(), recipe=recipe, seed=7, progress=False)
    for number, parameter in enumerate(result.model.parameters()):
        torch.testing.assert_close(parameter.detach(), torch.stack([now[number] for now in seen]).mean(0))


def test_a_linear_schedule_rises_and_falls_to_zero():
    recipe = Recipe(epochs=2, schedule="linear", warm_up=0.25)
    shares = [recipe.rate(epoch, step, 10) for epoch in range(2) for step in range(10)]
    assert shares[:5] == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6])
    assert shares[5:] == pytest.approx([1 - i / 15 for i in range(15)])


def test_an_alternating_flip_shows_each_image_both_ways_and_reflection_repeats_no_edge():
    plans = [trainer.epoch_plan(40, 8, 8, seed=3, epoch=epoch, shift=0.0, flip="alternating") for epoch in range(2)]
    flipped = [{int(image): bool(plan.columns[place][0] == 7) for place, image in enumerate(plan.order)} for plan in plans]
    assert all(flipped[0][image] != flipped[1][image] for image in range(40)) and 5 < sum(flipped[0].values()) < 35
    rows = trainer.epoch_plan(200, 8, 8, seed=3, epoch=0, shift=0.25, flip=False, fill="reflect").rows
    assert {tuple(row) for row in rows.tolist()} == {
        (2, 1, 0, 1, 2, 3, 4, 5), (1, 0, 1, 2, 3, 4, 5, 6), (0, 1, 2, 3, 4, 5, 6, 7), (1, 2, 3, 4, 5, 6, 7, 6), (2, 3, 4, 5, 6, 7, 6, 5)}


@pytest.mark.parametrize("other", ["radius", "form", "labels", "images", "seed of random centers", "width"])
def test_a_state_is_only_resumed_by_the_training_that_it_is_of(other, tmp_path):
    train, test = few()
    fit(classifier(), train, test, recipe=SHORT, seed=7, folder=tmp_path, progress=False)
    head = {"radius": lambda: losses.MaxMahalanobisCenter(axes(100.0)), "form": lambda: losses.MaxMahalanobisCenter(axes(), "huber"),
            "seed of random centers": lambda: losses.MaxMahalanobisCenter(random_centers(10, 16, seed=1))}.get(other)
    if other == "labels":
        train = train[0], train[1].flip(0)
    if other == "images":
        train = train[0].flip(3), train[1]
    with pytest.raises(ValueError, match="another training .(model|data)"):
        fit(classifier(head, width=12 if other == "width" else 8), train, test, recipe=SHORT, seed=7, folder=tmp_path, progress=False)


def test_tied_weights_are_saved_and_resumed(tmp_path):
    def tied():
        torch.manual_seed(0)
        twice = torch.nn.Conv2d(4, 4, 3, padding=1)
        backbone = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), twice, torch.nn.ReLU(), twice, models.GlobalAveragePool(),
                                       torch.nn.Linear(4, 16))
        return models.Classifier(backbone, losses.MaxMahalanobisCenter(axes()))

    train, test = few()
    whole = fit(tied(), train, test, recipe=SHORT, seed=7, progress=False)
    fit(tied(), train, test, recipe=SHORT, seed=7, folder=tmp_path, stop=lambda: True, progress=False)
    result = fit(tied(), train, test, recipe=SHORT, seed=7, folder=tmp_path, progress=False)
    assert same(weights(whole.model), weights(result.model))
    assert checkpoints.save_model(tmp_path / "model.safetensors", result.model, {})


def test_a_model_without_a_parameter_to_train_is_refused():
    model = classifier().requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to train"):
        fit(model, *few(), recipe=SHORT, seed=0, progress=False)


def test_the_history_counts_every_test_image():
    many = data.load("digits", "train")  # 1,297: three parts
    result = fit(classifier(), few()[0], many, recipe=SHORT, seed=7, progress=False)
    right = (result.model(many[0].float() / 255).argmax(1) == many[1]).double().mean().item()
    assert 0 < right < 1 and result.history[-1]["test_accuracy"] == pytest.approx(right, abs=2e-3)


def test_a_loss_in_the_history_is_the_mean_over_images(monkeypatch):
    """The last batch is smaller, and weighs less."""
    losses_seen = []
    monkeypatch.setattr(step.TrainingStep, "__call__", lambda self, images, labels, draws: (
        losses_seen.append(len(labels)) or torch.tensor(float(len(labels))), torch.tensor(0), torch.tensor(0)))
    history = fit(classifier(), *few(130), recipe=SHORT, seed=7, progress=False).history
    assert losses_seen[:3] == [50, 50, 30] and history[0]["loss"] == pytest.approx((50 * 50 + 50 * 50 + 30 * 30) / 130)


def test_a_share_of_zero_gradients_is_of_all_steps():
    blind = AdversarialTraining(epsilon=0.1, step_size=0.05, steps=3, objective=lambda z, logits, labels, targets: 0 * logits.sum(1))
    with pytest.warns(GradientMaskingWarning):
        history = fit(classifier(), *few(), recipe=dataclasses.replace(SHORT, adversarial=blind), seed=7, progress=False).history
    assert history[0]["zero_gradients"] == 1


def test_adversarial_training_records_crafting_gradients_that_vanish(tmp_path):
    model = small()
    trained(model, count=1000, epochs=6, learning_rate=0.02)
    with pytest.warns(GradientMaskingWarning, match="epoch 1 was crafted by are exactly zero"):
        blind = trained(model, tmp_path, learning_rate=0.0, epochs=2, adversarial=against("cross_entropy")).history
    seeing = trained(model, learning_rate=0.0, adversarial=against("margin")).history
    assert blind[0]["zero_gradients"] > 0.05 > seeing[0]["zero_gradients"] and "zero_gradients" not in trained(small()).history[0]


@pytest.mark.parametrize("adversarial", [None, against("margin")], ids=["standard", "adversarial"])
def test_a_distance_loss_that_diverges_says_so_as_any_other(adversarial):
    with pytest.raises(FloatingPointError, match=r"in epoch 1, batch \d+ of 5 \(learning rate 1e\+06\); try a smaller learning_rate"):
        trained(small(), learning_rate=1e6, adversarial=adversarial)


@pytest.mark.parametrize("count", [501, 1001, 1, 130])
def test_restated_statistics_take_parts_of_more_than_one_image(count, monkeypatch):
    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16))
    model = models.Classifier(body, losses.SoftmaxCrossEntropy(10, 16))
    images = data.load("digits", "train")[0][:count]
    if count == 1:  # none can be made of it; what there was comes back
        with pytest.raises(ValueError, match="more than 1 value"):
            trainer._restate(model, images)
    else:
        trainer._restate(model, images)
        assert (body[2].running_var != 1).all()
    assert body[2].momentum == 0.1


def test_an_average_of_less_than_a_step_is_the_last_weights():
    assert torch.allclose(flat_weights(trained(small(), average=1e-4)), flat_weights(trained(small())), atol=1e-6)


def test_a_recipes_numbers_are_plain_and_truth_values_none():
    recipe = Recipe(epochs=np.int64(3), learning_rate=np.float32(0.25), adversarial=AdversarialTraining(guard=np.float64(0.2)))
    assert type(recipe.epochs) is int and type(recipe.learning_rate) is float and type(recipe.adversarial.guard) is float
    for wrong in ({"epochs": True}, {"epochs": 1, "shift": False}, {"epochs": 1, "momentum": float("inf")}):
        with pytest.raises(ValueError, match=f"{[*wrong][-1]} must be "):
            Recipe(**wrong)


@pytest.mark.parametrize("seconds", ["1m", "nan", "-3"])
def test_seconds_between_states_are_a_number(seconds, monkeypatch):
    monkeypatch.setenv("MMC_CHECKPOINT_SECONDS", seconds)
    with pytest.raises(ValueError, match="MMC_CHECKPOINT_SECONDS must be a number of seconds"):
        trainer._checkpoint_seconds()
    monkeypatch.setenv("MMC_CHECKPOINT_SECONDS", "2.5")
    assert trainer._checkpoint_seconds() == 2.5


def test_a_training_that_is_interrupted_while_it_crafts_leaves_no_frozen_model(digits):
    pixels = (digits[0] * 255).to(torch.uint8)

    def interrupts(features, logits, labels, targets):
        raise KeyboardInterrupt

    model = models.Classifier(models.small_convnet(), losses.SoftmaxCrossEntropy(10, 64))
    recipe = Recipe(epochs=1, batch_size=20, adversarial=AdversarialTraining(steps=2, objective=interrupts))
    with pytest.raises(KeyboardInterrupt):
        fit(model, (pixels, digits[1]), (pixels, digits[1]), recipe=recipe, seed=0, progress=False)
    assert all(parameter.requires_grad for parameter in model.parameters())
