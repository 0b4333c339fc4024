"""One training step: what it crafts, in which precision, and where it is compiled or becomes a CUDA graph."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from mmclib import attacks, data, losses, models
from mmclib.training import AdversarialTraining, Recipe, fit, step
from tests.mmclib.small import MUON, SHORT, SINGLE_STEP, TARGETED, axes, classifier, few, same, small, weights

pytestmark = pytest.mark.usefixtures("one_thread")


def stepper(recipe, head=None):
    model = small(head=head)
    cuda = SimpleNamespace(features=model.features, head=model.head, parameters=lambda: iter([SimpleNamespace(is_cuda=True)]))
    return step.TrainingStep(cuda, [], recipe, compiled=True)


class OwnHead(losses.SoftmaxCrossEntropy):
    pass


@pytest.mark.parametrize(("recipe", "head", "graphed"), [
    (Recipe(epochs=9), None, True), (Recipe(epochs=9, schedule="linear"), None, False), (Recipe(epochs=9, optimizer="muon"), None, False),
    (Recipe(epochs=9), OwnHead(10, 16), False), (Recipe(epochs=9, adversarial=AdversarialTraining(steps=1)), None, True),
    (Recipe(epochs=9, adversarial=AdversarialTraining(steps=1, objective=attacks.objectives.divided("margin", 2.0))), None, False)])
def test_a_step_becomes_a_cuda_graph_only_where_all_of_it_can(monkeypatch, recipe, head, graphed):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    assert stepper(recipe, head).graphed == graphed


def test_a_step_that_goes_back_forgets_its_cuda_graph(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    attack = AdversarialTraining(steps=1, noise=2.0, guard=0.2)
    one = stepper(Recipe(epochs=9, adversarial=attack))
    one.graph, one.calls = "captured", 40
    one.restart(attack.two_steps())
    assert one.graph is None and one.calls == 0 and one.attack.steps == 2


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "float32"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")])
def test_auto_precision_asks_a_gpu_what_it_multiplies(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert step.best_precision("cuda") == expected


def test_compiling_needs_the_compiler_that_torch_takes_and_pythons_headers(monkeypatch):
    there = {"g++", "clang++"}
    monkeypatch.setattr(step.shutil, "which", lambda name: name if name in there else None)
    monkeypatch.setattr(step.Path, "exists", lambda path: "Python.h" in there)
    monkeypatch.setattr(step.sys, "platform", "linux")
    monkeypatch.delenv("CXX", raising=False)
    assert not step.can_compile("cpu")
    there.add("Python.h")
    assert step.can_compile("cpu")
    there.remove("g++")
    assert not step.can_compile("cpu")
    monkeypatch.setenv("CXX", "clang++")
    assert step.can_compile("cpu")


@pytest.mark.parametrize("able, expected", [({"amx_bf16": True, "avx512_bf16": True}, "bfloat16"), ({"avx512_bf16": True}, "float32"),
                                            ({}, "float32")])
def test_auto_precision_is_bfloat16_only_where_a_cpu_has_matrix_units_for_it(monkeypatch, able, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert step.best_precision("cpu") == expected


def test_compiling_is_chosen_for_long_runs_only(monkeypatch):
    model = models.Classifier(models.resnet(5), losses.SoftmaxCrossEntropy(10, 256))
    assert step.worth_compiling(model, (3, 32, 32), 50_000, Recipe(epochs=200))
    assert not step.worth_compiling(classifier(), (1, 8, 8), 1297, Recipe(epochs=30, adversarial=TARGETED))
    assert model.training and model.backbone.training
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert not step.can_compile("cpu")
    whole = fit(classifier(), *few(), recipe=SHORT, seed=0, compile=True, progress=False)  # no compiler: eager, without a word
    assert whole.finished


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("adversarial", [None, TARGETED])
def test_the_cuda_graph_learns_what_eager_learns(adversarial):
    recipe = Recipe(epochs=3, milestones=(2,), flip=False, adversarial=adversarial)
    train, test = data.load("digits", "train"), data.load("digits", "test")
    eager, graphed = (fit(classifier(), train, test, recipe=recipe, seed=0, device="cuda", compile=compile, progress=False)
                      for compile in (False, True))
    for first, second in zip(eager.history, graphed.history, strict=True):
        assert first["loss"] == pytest.approx(second["loss"], rel=0.05)
        assert first["test_accuracy"] == pytest.approx(second["test_accuracy"], abs=0.04)


@pytest.mark.parametrize("mode", ["untargeted", "targeted"])
def test_crafting_raises_the_objective_inside_the_ball_and_touches_nothing(mode):
    images, labels = few(40)[0]
    images = (images.float() / 255).contiguous(memory_format=torch.channels_last)
    attack = AdversarialTraining(mode, epsilon=0.1, step_size=0.02, steps=10, objective=f"{mode}_1")
    recipe = Recipe(epochs=1, adversarial=attack)
    model = classifier()
    before = weights(model)
    targets, start = step.draw(recipe.adversarial, images, labels, 10, seed=0, epoch=0, step=0)
    assert (start - images).abs().max() <= 0.1 + 1e-6 and start.min() >= 0 and start.max() <= 1
    stepper = step.TrainingStep(model, None, recipe)
    crafted = stepper._craft(model.features, images, labels, targets, start, torch.zeros((), dtype=torch.int64))
    assert (crafted - images).abs().max() <= 0.1 + 1e-6 and crafted.min() >= 0 and crafted.max() <= 1
    assert same(before, weights(model)) and all(parameter.requires_grad for parameter in model.parameters())

    def value(pixels):
        model.eval()
        objective = step.resolve(attack.objective, targets)
        return objective(None, model(pixels), labels, targets).mean()

    assert value(crafted) > value(start) + 1


def test_targets_are_uniform_over_the_wrong_classes_and_a_function_of_the_step():
    recipe = Recipe(epochs=1, adversarial=TARGETED)
    images, labels = torch.rand(9000, 1, 2, 2), torch.arange(9000) % 10
    targets, start = step.draw(recipe.adversarial, images, labels, 10, seed=0, epoch=0, step=0)
    assert not (targets == labels).any()
    counts = torch.bincount((targets - labels) % 10, minlength=10)[1:]
    assert ((counts - 1000).abs() < 120).all()  # four standard deviations of a multinomial cell
    again = step.draw(recipe.adversarial, images, labels, 10, seed=0, epoch=0, step=0)
    other = step.draw(recipe.adversarial, images, labels, 10, seed=0, epoch=0, step=1)
    assert torch.equal(again[0], targets) and torch.equal(again[1], start)
    assert not torch.equal(other[0], targets) and not torch.equal(other[1], start)


def test_single_step_training_starts_outside_the_ball_and_does_not_project():
    images, labels = torch.rand(6, 1, 8, 8), torch.arange(6)
    _, start = step.draw(SINGLE_STEP, images, labels, 10, seed=0, epoch=0, step=0)
    model = classifier()
    model.mean = torch.zeros(1, 8, 8)
    stepper = step.TrainingStep(model, [], dataclasses.replace(MUON, adversarial=SINGLE_STEP))
    crafted = stepper._craft(model.features, images, labels, None, start, torch.zeros((), dtype=torch.int64))
    assert (start - images).abs().max() > 0.15 and (crafted - images).abs().max() > 0.25  # up to 2 and 3 epsilon
    moved = (crafted - start).abs()
    inside = (crafted > 0) & (crafted < 1) & (moved > 0)
    torch.testing.assert_close(moved[inside], torch.full_like(moved[inside], 0.1))


def test_the_head_sees_float32_in_bfloat16_training():
    seen = []

    class Spy(losses.MaxMahalanobisCenter):
        def loss(self, features, labels, reduction="mean"):
            seen.append(features.dtype)
            return super().loss(features, labels, reduction)

    result = fit(classifier(lambda: Spy(axes())), *few(), recipe=SHORT, seed=0, precision="bfloat16", progress=False)
    assert set(seen) == {torch.float32} and result.history[-1]["loss"] < result.history[0]["loss"]
    assert all(parameter.dtype == torch.float32 for parameter in result.model.parameters())
