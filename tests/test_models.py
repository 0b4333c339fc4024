import pytest
import torch
from torch import nn

from mmclib import checks, models


class Linear(nn.Module):
    """A head with nothing in it but a matrix."""

    def __init__(self, num_classes, feature_dim):
        super().__init__()
        self.num_classes, self.feature_dim = num_classes, feature_dim
        self.weight = nn.Parameter(torch.ones(num_classes, feature_dim))

    def logits(self, features):
        return features @ self.weight.T


def classifier(mean=None):
    torch.manual_seed(0)
    return models.Classifier(models.small_convnet(1, 16, width=8), Linear(10, 16), mean).eval()


@pytest.mark.parametrize(("version", "layers", "parameters"), [(2, 9 * 5 + 2, 1_448_592), (1, 6 * 5 + 2, 482_704)])
def test_resnet_has_keras_layers_and_size(version, layers, parameters):
    network = models.resnet(5, version)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    on_shortcuts = sum("shortcut" in name for name, module in network.named_modules() if isinstance(module, nn.Conv2d))
    assert len(convolutions) - on_shortcuts + 1 == layers  # the linear layer is counted
    assert on_shortcuts == (3 if version == 2 else 2)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert all(convolution.bias is None for convolution in convolutions)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}


def test_he_normal_initialisation():
    torch.manual_seed(0)
    weight = models.resnet(1, 2)[-1].weight
    assert weight.std().item() == pytest.approx((2 / 256) ** 0.5, rel=0.02)
    assert weight.mean().abs().item() < 1e-3


@pytest.mark.parametrize("size", [(8, 8), (8, 16), (28, 28), (32, 32)])
def test_networks_take_every_image_size(size):
    images = torch.rand(2, 3, *size)
    for network in (models.resnet(1, 1, 3, 24), models.resnet(1, 2, 3, 24), models.small_convnet(3, 24, width=8)):
        assert network(images).shape == (2, 24)


def test_logits_come_from_features_of_images_minus_mean():
    mean = torch.rand(1, 8, 8)
    model, images = classifier(mean), torch.rand(3, 1, 8, 8)
    features = model.backbone(images - mean)
    assert torch.equal(model.features(images), features)
    assert torch.equal(model(images), model.head.logits(features))
    assert "mean" in model.state_dict()


def test_a_mean_not_set_yet_takes_the_loaded_shape():
    source, target, images = classifier(torch.rand(1, 8, 8)), classifier(), torch.rand(2, 1, 8, 8)
    target.load_state_dict(source.state_dict())
    assert torch.equal(source(images), target(images))


def test_images_are_checked_at_the_door():
    model = classifier()
    for bad, words in [
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), "torch.uint8"),
        (torch.zeros(1, 8, 8), r"\(N, C, H, W\)"),
        (torch.full((2, 1, 8, 8), 1.5), r"\[0, 1\]"),
        (torch.full((2, 1, 8, 8), torch.nan), "NaN"),
        (torch.zeros(0, 1, 8, 8), "empty"),
    ]:
        with pytest.raises(ValueError, match=words):
            model(bad)
    with checks.any_pixels():
        assert model(torch.full((2, 1, 8, 8), 1.01)).isfinite().all()


def test_unknown_networks_are_refused():
    with pytest.raises(ValueError, match="version must be 1 or 2, got 3"):
        models.resnet(5, 3)
    with pytest.raises(ValueError, match="blocks must be"):
        models.resnet(0)
