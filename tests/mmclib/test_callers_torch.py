"""Torch as the caller set it: modes, generators, types and precisions change no number and are left as they were."""

import subprocess
import sys

import pytest
import torch

import mmclib
from mmclib import attacks, data, evaluation, zoo
from mmclib.centers import hierarchical_centers, optimised_centers, random_centers
from mmclib.modes import own_modes
from mmclib.training import Recipe, fit, trainer
from mmclib.training.batches import epoch_plan
from tests.mmclib.small import flat_weights, small, trained


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("mode", [lambda: torch.autocast("cpu", torch.bfloat16), torch.no_grad, torch.inference_mode])
def test_a_training_in_the_callers_modes_is_the_same(mode, precision):
    plainly, model = trained(small(), precision=precision), small()
    with mode():
        inside = trained(model, precision=precision)
    assert torch.equal(flat_weights(plainly), flat_weights(inside)) and not inside.model.mean.is_inference()
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
    drawing = {"shift": 0.125, "flip": True}
    pairs, weight = data.load("digit-pairs", "test")[0], flat_weights(trained(small(), **drawing))
    model = small()
    try:
        torch.set_default_dtype(torch.float64)
        assert all(torch.equal(epoch_plan(50, 8, 8, seed=3, epoch=0, flip=flip).columns, plan)
                   for flip, plan in zip((True, "alternating"), plans, strict=True))
        assert torch.equal(data.load("digit-pairs", "test")[0], pairs)
        assert torch.equal(flat_weights(trained(model, **drawing)), weight)
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


def test_autoattack_leaves_the_callers_generator_alone(mmc, digits):
    pytest.importorskip("pyautoattack")
    images, labels = (tensor[:4] for tensor in digits)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    attacks.autoattack(mmc, images, labels, epsilon=0.5)
    assert torch.get_rng_state().equal(before)
    with pytest.raises(ValueError, match="version must be"):
        attacks.autoattack(mmc, images, labels, version="Standard")


@pytest.mark.skipif("cpu-mmc-10" not in zoo.released(), reason="cpu-mmc-10 is not released")
def test_a_released_model_is_float32_whatever_torchs_default():
    torch.set_default_dtype(torch.float64)
    try:
        model = zoo.load_released("cpu-mmc-10")
    finally:
        torch.set_default_dtype(torch.float32)
    assert {tensor.dtype for tensor in model.state_dict().values() if tensor.is_floating_point()} == {torch.float32}


def test_what_is_made_is_on_the_cpu_whatever_the_default_device_is(mmc):
    images, labels = data.load("digits", "test")
    pairs, preset = data.load("digit-pairs", "test")[0], random_centers(10, 16)
    plan = epoch_plan(50, 8, 8, seed=3, epoch=0)
    torch.set_default_device("meta")
    try:
        data._all_digits.cache_clear()
        assert data.load("digits", "test")[0].equal(images) and data.load("digit-pairs", "test")[0].equal(pairs)
        assert random_centers(10, 16).equal(preset) and hierarchical_centers([[0, 1], [2, 3]], 4, (2.0, 1.0), seed=0).device.type == "cpu"
        assert epoch_plan(50, 8, 8, seed=3, epoch=0).order.equal(plan.order)
        found = evaluation.accuracy(mmc, images[:20], labels[:20])
        assert {found.queries.device.type, found.distortion.device.type, found.correct.device.type} == {"cpu"}
        if zoo.released():
            assert {tensor.device.type for tensor in mmclib.load_released(zoo.released()[0]).state_dict().values()} == {"cpu"}
    finally:
        torch.set_default_device(None)


@pytest.mark.skipif("cpu-sce" not in zoo.released(), reason="cpu-sce is not released")
def test_loading_a_model_draws_nothing():
    before = torch.get_rng_state()
    zoo.load_released("cpu-sce")
    assert torch.get_rng_state().equal(before)


def test_optimised_centers_are_made_inside_inference_mode_too():
    with torch.inference_mode():
        inside = optimised_centers(5, 2)
    assert inside.equal(optimised_centers(5, 2))


def test_setting_float32s_precision_leaves_mkldnns_as_it_was():
    mkldnn = torch.backends.mkldnn.matmul
    mkldnn.fp32_precision = "none"  # as it is in a process that set nothing
    with own_modes(torch.device("cuda")):
        pass
    assert mkldnn.fp32_precision == "none"
