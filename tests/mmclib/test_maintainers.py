"""What a maintainer found by reading: the caller's modes and settings of torch, CUDA's by their switches alone, models with memory."""

import dataclasses
import os
import subprocess
import sys
import threading
from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from mmclib import attacks, centers, checkpoints, data, evaluation, intervals, losses, models, zoo
from mmclib.attacks.ledger import _slack
from mmclib.fingerprints import fingerprint
from mmclib.modes import own_modes
from mmclib.training import AdversarialTraining, Recipe, fit, step, trainer
from mmclib.training.batches import epoch_plan


def small(mean=None, head=None):
    torch.manual_seed(0)
    head = head or losses.MaxMahalanobisCenter(centers.max_mahalanobis_centers(10, 16))
    return models.Classifier(models.small_convnet(1, 16, 8), head, mean)


def trained(model, folder=None, count=130, stop=None, precision="float32", **changes):
    (images, labels), (others, truth) = data.load("digits", "train"), data.load("digits", "test")
    return fit(model, (images[:count], labels[:count]), (others[:50], truth[:50]), recipe=Recipe(**{"epochs": 1} | changes), seed=0,
               folder=folder, stop=stop, precision=precision, progress=False)


def weights(result):
    return torch.cat([parameter.detach().flatten() for parameter in result.model.parameters()])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("mode", [lambda: torch.autocast("cpu", torch.bfloat16), torch.no_grad, torch.inference_mode])
def test_a_training_in_the_callers_modes_is_the_same(mode, precision):
    plainly, model = trained(small(), precision=precision), small()
    with mode():
        inside = trained(model, precision=precision)
    assert torch.equal(weights(plainly), weights(inside)) and not inside.model.mean.is_inference()
    image, label = torch.rand(1, 1, 8, 8), torch.zeros(1, dtype=torch.int64)
    assert attacks.pgd(inside.model, image, label, steps=1).gradients.sum() >= 0  # a model that attacks take


def test_a_training_leaves_other_devices_generators_and_the_callers_alone(monkeypatch):
    seeded = []
    model = small()
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    state = torch.get_rng_state()
    trained(model)
    assert torch.equal(torch.get_rng_state(), state) and not seeded


def test_draws_do_not_follow_torchs_default_type():
    plans = [epoch_plan(50, 8, 8, seed=3, epoch=0, flip=flip).columns for flip in (True, "alternating")]
    pairs, weight = data.load("digit-pairs", "test")[0], weights(trained(small()))
    model = small()
    try:
        torch.set_default_dtype(torch.float64)
        assert all(torch.equal(epoch_plan(50, 8, 8, seed=3, epoch=0, flip=flip).columns, plan)
                   for flip, plan in zip((True, "alternating"), plans, strict=True))
        assert torch.equal(data.load("digit-pairs", "test")[0], pairs)
        assert torch.equal(weights(trained(model)), weight)
    finally:
        torch.set_default_dtype(torch.float32)


def test_attacks_and_their_judge_compute_without_tf32_and_put_it_back():
    cudnn = torch.backends.cudnn
    allowed, cudnn.allow_tf32 = cudnn.allow_tf32, True
    torch.set_float32_matmul_precision("high")
    try:
        before = cudnn.enabled, cudnn.allow_tf32, cudnn.benchmark
        with own_modes(torch.device("cuda")):
            assert cudnn.enabled and not cudnn.allow_tf32 and torch.get_float32_matmul_precision() == "highest"
        assert (cudnn.enabled, cudnn.allow_tf32, cudnn.benchmark) == before and torch.get_float32_matmul_precision() == "high"
        with own_modes(torch.device("cuda"), exact=False):
            assert cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision("highest")
        cudnn.allow_tf32 = allowed
    # torch's newer settings, mixed with the older so that these cannot be read; in a process of their own, for nothing puts them back
    program = ("import torch; from mmclib.modes import own_modes; backends, parts = torch.backends, ('conv', 'rnn')\n"
               "read = lambda: [getattr(backends.cudnn, p).fp32_precision for p in parts] + [backends.cuda.matmul.fp32_precision]\n"
               "torch.set_float32_matmul_precision('medium')\n"
               "backends.cudnn.conv.fp32_precision, backends.cuda.matmul.fp32_precision = 'tf32', 'ieee'\n"
               "backends.cudnn.rnn.fp32_precision = 'none'; before = read()\n"
               "with own_modes(torch.device('cuda')): assert read() == ['ieee'] * 3, read()\n"
               "assert read() == before, (read(), before)")
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_cuda_training_keeps_cudnn_and_the_callers_choices(monkeypatch):
    seen = []
    monkeypatch.setattr(trainer, "_fit", lambda *_: seen.append((torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark,
                                                                   torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32)))
    monkeypatch.setattr(torch.cuda, "device", lambda device: torch.no_grad())
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: torch.enable_grad())
    images, labels = data.load("digits", "test")
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        fit(small(), (images, labels), (images, labels), recipe=Recipe(epochs=1), seed=0, device="cuda:1")
    assert seen == [(True, True, True, False)]


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
    assert torch.allclose(weights(trained(small(), average=1e-4)), weights(trained(small())), atol=1e-6)


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
    (lambda: small(), lambda: small(torch.full((1, 8, 8), 0.3)), "mean"),
    (lambda: small(torch.full((1, 8, 8), 0.3)), lambda: small(), "mean"),
    (lambda: small(torch.full((1, 8, 8), 0.3)), lambda: small(torch.full((1, 8, 8), 0.2)), "mean"),
    (lambda: acting(torch.tanh), lambda: acting(torch.sin), "attributes")])
def test_a_folder_of_another_mean_or_function_is_not_taken_for_this_one(tmp_path, first, second, key):
    trained(first(), tmp_path, stop=lambda: True)
    with pytest.raises(ValueError, match=f"another training \\({key} "):
        trained(second(), tmp_path)
    assert trained(first(), tmp_path).finished


def test_the_same_model_goes_on_in_its_folder(tmp_path):
    model = small()
    assert not trained(model, tmp_path, stop=lambda: True).finished  # which has set its mean
    assert torch.equal(weights(trained(model, tmp_path)), weights(trained(small())))


def test_modules_act_in_their_order():
    one, two = nn.Linear(4, 4), nn.ReLU()
    assert fingerprint(nn.Sequential(OrderedDict(a=one, b=two))) != fingerprint(nn.Sequential(OrderedDict(b=two, a=one)))


def test_a_living_process_keeps_what_it_is_writing(tmp_path):
    living, dead = (tmp_path / f".state-000000009-{'a' * 16}.safetensors.{pid}" for pid in (os.getppid(), 2**22 + 1))
    for path in (living, dead):
        path.write_bytes(b"half")
    checkpoints.save_state(tmp_path, 1, {"value": torch.zeros(1)}, {})
    assert living.exists() and not dead.exists()


def test_a_state_that_another_process_replaces_while_it_is_read_is_read_anew(tmp_path, monkeypatch):
    checkpoints.save_state(tmp_path, 1, {"value": torch.zeros(1)}, {})
    listed, asked = checkpoints._states, []

    def listing(folder):
        found = listed(folder)
        if not asked:
            asked.append(checkpoints.save_state.__name__)
            found[0].unlink()
            checkpoints.save_state(tmp_path, 2, {"value": torch.ones(1)}, {})
        return found
    monkeypatch.setattr(checkpoints, "_states", listing)
    assert checkpoints.load_state(tmp_path)[0]["value"] == 1


class OneBuffer(nn.Module):
    """Answers each call in the same memory, as bindings of other runtimes do."""

    def __init__(self, model):
        super().__init__()
        self.model, self.buffer = model, torch.empty(512, 10)

    def forward(self, images):
        logits = self.model(images)
        if torch.is_grad_enabled():
            return logits
        return self.buffer[:len(images)].copy_(logits)


def test_a_model_that_answers_in_one_buffer_is_read_before_it_is_asked_again(mmc):
    images, labels = data.load("digits", "test")
    images = images.float() / 255
    settings = {"epsilon": 0.1, "step_size": 0.03, "steps": 5}
    for attack in (None, attacks.pgd):
        found = [evaluation.accuracy(model, images, labels) if attack is None else
                 evaluation.robust_accuracy(model, images, labels, attack, **settings) for model in (mmc, OneBuffer(mmc))]
        assert torch.equal(found[0].correct, found[1].correct)


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


def test_the_ladders_last_rung_says_how_many_classes_it_tries(mmc):
    assert [*attacks.ladder(0.1)][-1] == "margin, each of 9 classes"
    name, last = [*attacks.ladder(0.1, classes=99).items()][-1]
    assert name == "margin, each of 99 classes" and last.keywords["classes"] == 99


def test_an_objective_that_cannot_be_copied_is_trained_with():
    class Locked:
        def __init__(self):
            self.lock, self.teacher = threading.Lock(), torch.ones(2, requires_grad=True) * 2  # no leaf: deepcopy refuses it

        def __call__(self, *arguments):
            return attacks.objectives.untargeted_2(*arguments)
    adversarial = AdversarialTraining(objective=Locked(), steps=1, epsilon=0.1, step_size=0.1)
    assert trained(small(), adversarial=adversarial).finished


def test_a_recipes_numbers_are_plain_and_truth_values_none():
    recipe = Recipe(epochs=np.int64(3), learning_rate=np.float32(0.25), adversarial=AdversarialTraining(guard=np.float64(0.2)))
    assert type(recipe.epochs) is int and type(recipe.learning_rate) is float and type(recipe.adversarial.guard) is float
    for wrong in ({"epochs": True}, {"epochs": 1, "shift": False}, {"epochs": 1, "momentum": float("inf")}):
        with pytest.raises(ValueError, match=f"{[*wrong][-1]} must be "):
            Recipe(**wrong)


@pytest.mark.parametrize("confidence", [1.5, 0.0, float("nan")])
def test_every_interval_refuses_a_confidence_that_is_none(confidence):
    for ask in (lambda: intervals.mean_interval(0.0, 1.0, 5, confidence), lambda: intervals.binomial_interval(1, 2, confidence),
                lambda: intervals.wilson_interval(1, 2, confidence)):
        with pytest.raises(ValueError, match="confidence must lie between 0 and 1"):
            ask()


def test_an_endless_logit_of_a_wrong_class_is_a_success():
    assert _slack(torch.tensor([[torch.inf, 1.0, 0.0], [-torch.inf, -torch.inf, torch.inf]])).tolist() == pytest.approx([1e-5, 0.0])


def test_tiny_centers_leave_a_body_that_trains():
    network = {"architecture": "airbench", "feature_dim": 16, "widths": (8, 8, 8), "stem": "learned"}
    model = zoo.assemble(network, {"loss": "mmc", "scale": 1.0}, 10, centers.max_mahalanobis_centers(10, 16, 1e-4), torch.zeros(3, 32, 32))
    assert model.backbone[-1].factor == pytest.approx(1e-4)
