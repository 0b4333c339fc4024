"""Classifiers from plain settings: each loss has its own head, nothing unknown becomes MMC, and damaged files are refused."""

import pytest
import torch

import mmclib
from mmclib import centers, checkpoints, losses, zoo

NETWORK = {"architecture": "small_convnet", "feature_dim": 16}
CENTERS, MEAN = centers.max_mahalanobis_centers(10, 16), torch.zeros(1, 8, 8)


@pytest.mark.parametrize(("loss", "head"), [
    ({"loss": "sce"}, losses.SoftmaxCrossEntropy), ({"loss": "center"}, losses.CenterLoss),
    ({"loss": "lgm"}, losses.LargeMarginGaussianMixture), ({"loss": "mmlda", "scale": 1.0}, losses.MaxMahalanobisLDA),
    ({"loss": "emc", "scale": 1.0, "alpha": 0.1}, losses.ElasticMaxMahalanobisCenter),
    ({"loss": "mmc", "scale": 1.0, "form": "huber"}, losses.MaxMahalanobisCenter),
    ({"loss": "mmc-rand", "scale": 1.0}, losses.MaxMahalanobisCenter), ({"loss": "mmc-hm", "scale": 1.0}, losses.MaxMahalanobisCenter),
])
def test_each_loss_gets_its_own_head(loss, head):
    model = zoo.assemble(NETWORK, loss, 10, CENTERS if loss["loss"] in zoo.PRESET else None, MEAN)
    assert type(model.head) is head and model(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    assert getattr(model.head, "form", "squared") == loss.get("form", "squared")


def test_a_resnet_is_assembled_from_its_depth():
    model = zoo.assemble({"architecture": "resnet", "feature_dim": 16, "blocks": 1, "version": 1}, {"loss": "sce"}, 10, None, MEAN)
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize(("network", "loss", "preset", "says"), [
    (NETWORK, {"loss": "mcc"}, CENTERS, "unknown loss 'mcc'; known: sce, .*mmc"),
    (NETWORK | {"architecture": "vit"}, {"loss": "sce"}, None, "unknown architecture 'vit'; known: resnet, small_convnet"),
    ({"architecture": "small_convnet"}, {"loss": "sce"}, None, "lack 'feature_dim'"),
    ({"architecture": "resnet", "feature_dim": 16}, {"loss": "sce"}, None, "lack 'blocks'"),
    (NETWORK, {}, None, "lack 'loss'"),
    (NETWORK, {"loss": "emc", "scale": 1.0}, CENTERS, "lack 'alpha'"),
    (NETWORK, {"loss": "mmc", "scale": 1.0}, None, "loss 'mmc' needs preset centers"),
    (NETWORK, {"loss": "sce"}, CENTERS, "loss 'sce' takes no preset centers"),
    (NETWORK, {"loss": "mmc", "scale": 1.0}, CENTERS[:, :8], r"centers must have shape .* \(10, 16\), got \(10, 8\)"),
])
def test_what_is_unknown_or_missing_is_a_sentence(network, loss, preset, says):
    with pytest.raises(ValueError, match=says):
        zoo.assemble(network, loss, 10, preset, MEAN)


def test_a_released_model_is_loaded_from_the_top_of_the_package():
    assert mmclib.load_released is zoo.load_released and "load_released" in dir(mmclib)


def test_an_unknown_or_damaged_released_model_is_a_sentence(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no released model 'best'; known: "):
        zoo.load_released("best")
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    (tmp_path / "a.safetensors").write_bytes(b"other bytes")
    (tmp_path / "a.json").write_text('{"sha256": "0"}')
    with pytest.raises(ValueError, match="released model 'a' is damaged"):
        zoo.load_released("a")


@pytest.mark.parametrize("card", [b"", b"null", b"[]", b"{}", b"\xff", b'{"sha256": 1'])
def test_a_damaged_card_is_a_sentence_that_names_it(card, tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    (tmp_path / "a.safetensors").write_bytes(b"bytes")
    (tmp_path / "a.json").write_bytes(card)
    with pytest.raises(ValueError, match=r"a\.json, is missing or damaged"):
        zoo.load_released("a")


@pytest.mark.parametrize(("tensors", "settings", "says"), [
    ({}, {}, "no released model of this package"),
    ({"mean": torch.zeros(1, 8, 8)}, {"network": {"architecture": "airbench", "dataset": "digits"}, "model": {"loss": "sce"}}, "lack"),
    (None, {}, "infinite or NaN"),
])
def test_a_forged_released_model_is_a_sentence(tensors, settings, says, tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    if tensors is None:
        settings = {"network": {"architecture": "small_convnet", "feature_dim": 8, "dataset": "digits"}, "model": {"loss": "sce"}}
        tensors = zoo.assemble(settings["network"], settings["model"], 10, None, MEAN).state_dict()
        tensors["head.linear.bias"] = torch.full((10,), torch.nan)
    digest = checkpoints.save_tensors(tmp_path / "a.safetensors", tensors, settings)
    (tmp_path / "a.json").write_text(f'{{"sha256": "{digest}"}}')
    with pytest.raises(ValueError, match=says):
        zoo.load_released("a")


def test_tiny_centers_leave_a_body_that_trains():
    network = {"architecture": "airbench", "feature_dim": 16, "widths": (8, 8, 8), "stem": "learned"}
    model = zoo.assemble(network, {"loss": "mmc", "scale": 1.0}, 10, centers.max_mahalanobis_centers(10, 16, 1e-4), torch.zeros(3, 32, 32))
    assert model.backbone[-1].factor == pytest.approx(1e-4)
