"""What the pictures of features show: each path starts at an image that is right before the attack."""

import math
from dataclasses import replace

import pytest
import torch

from artifact import experiment
from artifact.compute import probes
from artifact.measurements import white_box
from mmclib import data, models
from mmclib.losses import MaxMahalanobisCenter


def test_a_path_starts_at_an_image_that_is_classified_rightly():
    torch.manual_seed(0)
    angles = torch.arange(10) * 2 * math.pi / 10
    head = MaxMahalanobisCenter(10 * torch.stack([angles.cos(), angles.sin()], 1))
    classifier = models.Classifier(models.small_convnet(feature_dim=2), head).eval()
    images, _ = data.load("digits", "test")
    labels = classifier(images.float() / 255).argmax(1)
    labels[::3], labels[1::3] = (labels[::3] + 1) % 10, (labels[1::3] + 5) % 10  # two of three are wrong
    profile = experiment.load_profile("demo")
    spec = white_box.plane(profile)
    spec = replace(spec, settings=spec.settings | {"inputs": 12, "steps": 2})
    found = probes.plane(profile, spec, classifier, images, labels, partial=None)
    assert len(found["inputs"]) == 12 and all(index % 3 == 2 for index in found["inputs"])
    for path in found["paths"].values():
        starts = torch.tensor(path)[:, 0]
        assert torch.equal(torch.cdist(starts, torch.tensor(found["centers"])).argmin(1), labels[found["inputs"]])
    with pytest.raises(ValueError, match="mmc-10-2d classifies none of 500 images rightly: there is nothing to attack"):
        probes.plane(profile, spec, classifier, images[:500], (classifier(images[:500].float() / 255).argmax(1) + 1) % 10, partial=None)


def test_a_gradient_in_parts_is_the_gradient(mmc):
    images, labels = data.load("digits", "test")
    images = images.float() / 255
    parts = torch.arange(500).split(250)
    whole = torch.cat([probes._objective_gradient(mmc, images[part], labels[part], "untargeted_2")[1] for part in parts])
    assert torch.equal(probes._objective_gradient(mmc, images.repeat(2, 1, 1, 1), labels.repeat(2), "untargeted_2")[1][:500], whole)
