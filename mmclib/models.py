"""The paper's networks for small images, and Classifier: a backbone that makes features, a head that makes logits of them."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmclib import checks

__all__ = [
    "BasicBlock", "Classifier", "GlobalAveragePool", "GlobalMaxPool", "Multiplied", "PreActivationBottleneck", "WhitenedConv2d",
    "airbench", "resnet", "small_convnet", "whiten",
]


class Classifier(nn.Module):
    """Images in [0, 1] (N, C, H, W) -> logits (N, L): logits = head.logits(features), features = backbone(images - mean).

    `mean` is the training mean (C, H, W), of each pixel or with sides of 1; zero until it is set. Raises ValueError for one of another form
    or that is not finite. `forward` is the public door and checks what it is given (ValueError); pixel values only on a CPU, where looking
    at them costs no synchronisation. `features` is the unchecked fast path.
    """

    mean: Tensor
    head: Any  # a module with num_classes, logits(features) and loss(features, labels, reduction)

    def __init__(self, backbone: nn.Module, head: nn.Module, mean: Tensor | None = None):
        super().__init__()
        self.backbone, self.head = backbone, head
        own = torch.zeros(1, 1, 1) if mean is None else torch.as_tensor(mean, dtype=torch.float32).clone()
        if own.ndim != 3 or not own.isfinite().all():
            held = f"shape {tuple(own.shape)}" if own.ndim != 3 else "NaN or infinity"
            raise ValueError(f"mean must be finite and of shape (C, H, W), with sides of 1 where it is one number for all, got {held}")
        self.register_buffer("mean", own)

    def check_shape(self, images: Tensor, name: str = "images") -> None:
        """Require images (N, C, H, W) that the mean can be taken from: none of their sides may be stretched. Raises ValueError."""
        channels, *sides = self.mean.shape
        fits = channels == images.shape[1] and all(mine in (1, other) for mine, other in zip(sides, images.shape[2:], strict=True))
        if self.mean.numel() > 1 and not fits:  # one number is for all
            known = ", ".join(["any" if side == 1 else str(side) for side in sides])
            raise ValueError(f"{name} must have shape (N, {channels}, {known}), as the model's mean has it, got {tuple(images.shape)}")

    def features(self, images: Tensor) -> Tensor:
        """Features z, (N, feature_dim), of images (N, C, H, W)."""
        return self.backbone(images - self.mean)

    def forward(self, images: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            checks.check_images(images, values=images.device.type == "cpu")
            self.check_shape(images)
        return self.head.logits(self.features(images))

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        # A mean that is not set yet takes the shape of the one that is loaded.
        mean = state_dict.get(f"{prefix}mean")
        if mean is not None and mean.shape != self.mean.shape and self.mean.numel() == 1:
            self.mean = torch.zeros_like(mean, device=self.mean.device)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def resnet(blocks: int = 5, version: int = 2, in_channels: int = 3, feature_dim: int = 256) -> nn.Module:
    """Return the residual network of the authors' code (Keras' cifar10_resnet) up to its features, for images of any size.

    Version 2 has 9 * blocks + 2 layers, bottleneck pre-activation blocks and widths 64, 128, 256 (He et al., 2016b); version 1 has
    6 * blocks + 2 and widths 16, 32, 64. The paper's "ResNet-32" is version 2 with blocks=5, its "ResNet-110" blocks=18.
    Raises ValueError for another version or fewer than one block.
    """
    if version not in (1, 2):
        raise ValueError(f"version must be 1 or 2, got {version!r}")
    if not isinstance(blocks, Integral) or blocks < 1:
        raise ValueError(f"blocks must be a whole number of at least 1, got {blocks!r}")
    layers = [_conv(in_channels, 16, 3), _norm(16), nn.ReLU()]
    width_in = 16
    for stage, (inner, width) in enumerate([(16, 64), (64, 128), (128, 256)] if version == 2 else [(w, w) for w in (16, 32, 64)]):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            if version == 2:
                # The very first block follows a BN and a ReLU already.
                layers.append(PreActivationBottleneck(width_in, inner, width, stride, activate=stage > 0 or block > 0))
            else:
                layers.append(BasicBlock(width_in, width, stride))
            width_in = width
    if version == 2:
        layers += [_norm(width_in), nn.ReLU()]
    return _initialised(nn.Sequential(*layers, GlobalAveragePool(), nn.Linear(width_in, feature_dim)))


def small_convnet(in_channels: int = 1, feature_dim: int = 64, width: int = 32) -> nn.Module:
    """Return four 3 x 3 convolutions (two of them with stride 2; widths w, w, 2w, 2w) up to the features; trains in seconds on digits."""
    layers = []
    for source, target, stride in ((in_channels, width, 1), (width, width, 2), (width, 2 * width, 1), (2 * width, 2 * width, 2)):
        # Batch statistics move ten times as fast as in the ResNet: such runs have hundreds of steps, not hundreds of thousands.
        layers += [_conv(source, target, 3, stride), _norm(target, momentum=0.1), nn.ReLU()]
    return _initialised(nn.Sequential(*layers, GlobalAveragePool(), nn.Linear(2 * width, feature_dim)))


def airbench(widths: Sequence[int] = (64, 256, 256), stem: str = "learned", in_channels: int = 3, feature_dim: int = 256,
             feature_scale: float = 1.0) -> nn.Module:
    """Return the body of airbench94 (Jordan, 2024) up to its features: high accuracy for little computation, not the paper's ResNet.

    A 2 x 2 convolution to 24 channels (the stem), then for each width a group of convolution, max-pooling and convolution, each
    convolution 3 x 3 and followed by batch normalisation (without a scale) and GELU; the maximum over what is left of the map, and a
    linear layer to the features, which are multiplied by `feature_scale` (the norm that the features are to reach). Images need
    at least 2 + 2**len(widths) pixels a side. `stem` is "learned", or "whitened": fixed filters that `whiten` sets from images.
    Raises ValueError for another stem.
    """
    if stem not in ("learned", "whitened"):
        raise ValueError(f"stem must be 'learned' or 'whitened', got {stem!r}")
    width_in = 24
    if stem == "learned":
        layers = [nn.Conv2d(in_channels, width_in, 2, bias=False), _bias_norm(width_in), nn.GELU()]
    else:
        width_in = 8 * in_channels  # a filter and its negative for each of the patch's directions
        layers = [WhitenedConv2d(in_channels, width_in), nn.GELU()]
    for width in widths:
        layers += [_identity_like(_conv(width_in, width, 3)), nn.MaxPool2d(2), _bias_norm(width), nn.GELU(),
                   _identity_like(_conv(width, width, 3)), _bias_norm(width), nn.GELU()]
        width_in = width
    features = nn.Linear(width_in, feature_dim)
    nn.init.zeros_(features.weight)  # z = 0 at the start: a distance loss begins at its centers' norm and nothing blows up
    nn.init.zeros_(features.bias)
    return nn.Sequential(*layers, GlobalMaxPool(), features, Multiplied(feature_scale))


class WhitenedConv2d(nn.Conv2d):
    """A 2 x 2 convolution with fixed filters, set by `whiten`, and a learned bias."""

    bias: nn.Parameter

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 2)
        self.weight.requires_grad_(False)
        nn.init.zeros_(self.bias)


@torch.no_grad()
def whiten(network: nn.Module, images: Tensor, epsilon: float = 5e-4) -> None:
    """Set the fixed filters of a "whitened" stem to the principal directions of the 2 x 2 patches of images (N, C, H, W), scaled to
    unit variance, and their negatives. Raises ValueError for a network without such a stem."""
    stem = next((module for module in network.modules() if isinstance(module, WhitenedConv2d)), None)
    if stem is None:
        raise ValueError('network has no whitened stem; airbench(stem="whitened") has one')
    patches = F.unfold(images, 2).transpose(1, 2).flatten(0, 1)
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = (vectors / (values + epsilon).sqrt()).T.flip(0).reshape(-1, *stem.weight.shape[1:])
    stem.weight.copy_(torch.cat([filters, -filters]))


class GlobalMaxPool(nn.Module):
    """(N, C, H, W) -> (N, C)."""

    def forward(self, maps: Tensor) -> Tensor:
        # By index: amax looks for its gradient's places by equality, which a compiled bfloat16 step that recomputes them may miss (0 / 0).
        return F.adaptive_max_pool2d(maps, 1).flatten(1)


class Multiplied(nn.Module):
    """Multiply by a constant, in float32 at least."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = float(factor)

    def forward(self, values: Tensor) -> Tensor:
        return values.float() * self.factor if values.dtype in (torch.float16, torch.bfloat16) else values * self.factor


class GlobalAveragePool(nn.Module):
    """(N, C, H, W) -> (N, C)."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.mean((2, 3))


class BasicBlock(nn.Module):
    """Version 1: relu(x + BN(conv3(relu(BN(conv3(x)))))), with a 1 x 1 convolution on the shortcut where the width changes."""

    def __init__(self, width_in: int, width: int, stride: int):
        super().__init__()
        self.conv1, self.norm1 = _conv(width_in, width, 3, stride), _norm(width)
        self.conv2, self.norm2 = _conv(width, width, 3), _norm(width)
        self.shortcut = _conv(width_in, width, 1, stride) if width_in != width else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(maps)))
        return F.relu(self.shortcut(maps) + self.norm2(self.conv2(inner)))


class PreActivationBottleneck(nn.Module):
    """Version 2: x + conv1(r(conv3(r(conv1(r(x)))))) with r = relu(BN(.)), and a 1 x 1 convolution on each stage's first shortcut."""

    def __init__(self, width_in: int, inner: int, width: int, stride: int, activate: bool = True):
        super().__init__()
        self.activate = nn.Sequential(_norm(width_in), nn.ReLU()) if activate else nn.Identity()
        self.conv1, self.norm1 = _conv(width_in, inner, 1, stride), _norm(inner)
        self.conv2, self.norm2 = _conv(inner, inner, 3), _norm(inner)
        self.conv3 = _conv(inner, width, 1)
        self.shortcut = _conv(width_in, width, 1, stride) if width_in != width else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(self.activate(maps))))
        return self.shortcut(maps) + self.conv3(F.relu(self.norm2(self.conv2(inner))))


def _conv(source, target, size, stride=1):
    return nn.Conv2d(source, target, size, stride, padding=size // 2, bias=False)


def _norm(channels, momentum=0.01):
    # Keras' defaults: epsilon 1e-3, and momentum 0.99 for the past, which is 0.01 in PyTorch's sense.
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=momentum)


def _bias_norm(channels):
    # Without a scale: the kernels before and after it make one superfluous.
    norm = nn.BatchNorm2d(channels)
    norm.weight.requires_grad_(False)
    return norm


@torch.no_grad()
def _identity_like(convolution):
    # The first filters pass their own input channel on (as nn.init.dirac_): a deep network begins as a shallow one.
    nn.init.dirac_(convolution.weight[:convolution.in_channels])
    return convolution


def _initialised(network):
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")  # He-normal
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network
