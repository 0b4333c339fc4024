import pytest
import torch
from torch import nn

from mmclib import checks, models
from mmclib.training.step import can_compile


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


@pytest.mark.parametrize(("channels", "side", "stem"), [(3, 32, "learned"), (3, 32, "whitened"), (1, 28, "learned"), (1, 28, "whitened")])
def test_airbench_takes_the_real_data_sets_and_begins_at_zero(channels, side, stem):
    network = models.airbench(stem=stem, in_channels=channels, feature_dim=20)
    assert torch.equal(network(torch.rand(2, channels, side, side)), torch.zeros(2, 20))


def test_airbench_has_the_size_that_is_published():
    network = models.airbench(feature_dim=10)
    kernels = [tuple(module.weight.shape[:2]) for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    assert kernels == [(24, 3), (64, 24), (64, 64), (256, 64), (256, 256), (256, 256), (256, 256)]
    assert 1.9e6 < sum(parameter.numel() for parameter in network.parameters()) < 2.05e6


def test_a_group_begins_as_the_identity():
    kernel = models.airbench()[3].weight  # 24 -> 64 channels
    image = torch.rand(1, 24, 8, 8)
    torch.testing.assert_close(torch.nn.functional.conv2d(image, kernel, padding=1)[:, :24], image)


def test_a_whitened_stem_makes_uncorrelated_outputs_of_unit_power():
    network = models.airbench(stem="whitened", in_channels=2)
    images = torch.rand(40, 2, 9, 9, generator=torch.Generator().manual_seed(0)).cumsum(3) / 9 - 0.5
    models.whiten(network, images, epsilon=0.0)
    outputs = torch.nn.functional.conv2d(images, network[0].weight).transpose(0, 1).flatten(1)
    power = outputs @ outputs.T / outputs.shape[1]
    torch.testing.assert_close(power[:8, :8], torch.eye(8), atol=1e-3, rtol=0)
    torch.testing.assert_close(outputs[8:], -outputs[:8])
    assert not network[0].weight.requires_grad


def test_features_scale_so_that_training_is_the_same_for_every_radius():
    """In units of the radius, one gradient step of MMC on the airbench body is the same for C_MM of 1 and of 100."""
    units = []
    for radius in (1.0, 100.0):
        torch.manual_seed(0)
        network = models.airbench((8, 8), in_channels=1, feature_dim=4, feature_scale=radius)
        with torch.no_grad():
            network[-2].weight.normal_(generator=torch.Generator().manual_seed(1))
        features = network(torch.rand(8, 1, 12, 12, generator=torch.Generator().manual_seed(2)))
        loss = ((features - radius * torch.eye(4)[torch.arange(8) % 4]) ** 2).sum(1).mean() / radius**2
        loss.backward()
        units.append([features.detach() / radius, *[parameter.grad for parameter in network.parameters() if parameter.grad is not None]])
    for first, second in zip(*units, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-5)


@pytest.mark.skipif(not can_compile("cpu"), reason="no C++ compiler")
def test_a_compiled_bfloat16_step_of_the_airbench_body_has_finite_gradients():
    torch.manual_seed(0)
    body = models.airbench((8, 8), feature_dim=4).to(memory_format=torch.channels_last).train()
    images = torch.rand(20, 3, 16, 16).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        torch.compile(body)(images).float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in body.parameters() if parameter.requires_grad)


@pytest.mark.parametrize(("version", "widths"), [(1, (16, 32, 64)), (2, (64, 128, 256))])
def test_each_stage_of_the_papers_network_halves_the_map(version, widths):
    seen, network = [], models.resnet(2, version)
    for block in network:
        if isinstance(block, (models.BasicBlock, models.PreActivationBottleneck)):
            block.register_forward_hook(lambda module, given, out: seen.append((out.shape[1], out.shape[2])))
    network(torch.rand(1, 3, 32, 32))
    assert seen == [(width, side) for width, side in zip(widths, (32, 16, 8), strict=True) for _ in range(2)]
