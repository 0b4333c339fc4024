"""A small network on digits, trained for moments, and what several test files put into it."""

import torch
from torch import nn

from mmclib import centers, data, losses, models
from mmclib.training import AdversarialTraining, Recipe, fit

TARGETED = AdversarialTraining("targeted", epsilon=0.1, step_size=0.05, steps=2, objective="targeted_1")
SINGLE_STEP = AdversarialTraining(epsilon=0.1, step_size=0.1, steps=1, noise=2.0, objective="untargeted_1", guard=0.2)
SHORT = Recipe(epochs=2, batch_size=50, milestones=(1,), flip=False)
MUON = Recipe(epochs=2, batch_size=50, optimizer="muon", learning_rate=0.1, momentum=0.6, schedule="linear", warm_up=0.3, shift=0.125,
              fill="reflect", flip="alternating", average=0.5, half=True)


def small(*, head=None, mean=None):
    torch.manual_seed(0)
    head = head or losses.MaxMahalanobisCenter(centers.max_mahalanobis_centers(10, 16, 10.0))
    return models.Classifier(models.small_convnet(1, 16, 8), head, mean)


def trained(model, folder=None, *, count=100, test=40, stop=None, precision="float32", **changes):
    (images, labels), (others, truth) = data.load("digits", "train"), data.load("digits", "test")
    recipe = Recipe(**{"epochs": 1, "shift": 0, "flip": False, "batch_size": 20} | changes)
    return fit(model, (images[:count], labels[:count]), (others[:test], truth[:test]), recipe=recipe, seed=0, folder=folder, stop=stop,
               precision=precision, compile=False, progress=False)


def flat_weights(result):
    return torch.cat([parameter.detach().flatten() for parameter in result.model.parameters()])


def against(objective):
    return AdversarialTraining(epsilon=0.1, step_size=0.05, steps=1, objective=objective)


class Through(nn.Module):
    """A model behind a function of its images and logits."""

    def __init__(self, model, before=lambda images: images, after=lambda logits: logits):
        super().__init__()
        self.model, self.before, self.after = model, before, after

    def forward(self, images):
        return self.after(self.model(self.before(images)))


class Own(nn.Module):
    """A head as CONTRIBUTING asks for one."""

    num_classes = 10

    def __init__(self, centers=None, **changes):
        super().__init__()
        self.linear = nn.Linear(16, 10)
        vars(self).update(changes)
        if centers is not None:
            self.register_buffer("centers", centers)

    def logits(self, features):
        return self.linear(features)

    def loss(self, features, labels, reduction="mean"):
        return nn.functional.cross_entropy(self.logits(features), labels, reduction=reduction)


def own(head=Own, backbone=None, **changes):
    torch.manual_seed(0)
    return models.Classifier(backbone or models.small_convnet(1, 16, 8), head(**changes))


def axes(radius=10.0):
    return torch.eye(10, 16) * radius


def classifier(head=None, width=8):
    torch.manual_seed(0)
    backbone = models.small_convnet(1, 16, width=width)
    return models.Classifier(backbone, head() if head else losses.MaxMahalanobisCenter(axes()))


def few(count=130):
    return tuple(tensor[:count] for tensor in data.load("digits", "train")), tuple(tensor[:50] for tensor in data.load("digits", "test"))


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
