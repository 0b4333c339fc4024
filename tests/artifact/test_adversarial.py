"""Released adversarial images: whole pixels within the ball, and a check that finds what is not as claimed."""

from functools import partial

import pytest
import torch

from artifact import adversarial, experiment
from artifact.experiment import load_profile
from mmclib import checkpoints, data, load_released, zoo
from mmclib.evaluation import accuracy

NAME = "quick-at-un-sce"
RELEASED = pytest.mark.skipif("cpu-sce" not in zoo.released(), reason="cpu-sce is not released")


def test_crafted_images_are_whole_pixels_of_the_ball_and_fool_as_counted(mmc, digits):
    images, labels = (digits[0] * 255).round().to(torch.uint8), digits[1]
    found = adversarial.craft(mmc, images, labels, epsilon=26, steps=5, rounds=1)
    assert found.dtype == torch.uint8 and (found.short() - images.short()).abs().max() == 26
    correct = accuracy(mmc, found, labels).correct
    assert correct.double().mean() < 0.6 < accuracy(mmc, images, labels).accuracy
    assert torch.equal(found[correct], images[correct])


@pytest.mark.data
def test_the_check_finds_each_claim_that_does_not_hold(tmp_path, monkeypatch):
    data_or_skip()
    monkeypatch.setattr(adversarial, "craft", partial(adversarial.craft, steps=5, rounds=1))
    path = adversarial.write(load_profile("quick"), "at-un-sce", 12, folder=tmp_path)
    checked = adversarial.check(NAME, folder=tmp_path)
    assert checked.images == 12 and checked.epsilon == 8
    tensors, claims = checkpoints.load_model_state(path)
    assert checked.correct == claims["correct"] == int(accuracy(load_released(NAME), tensors["images"], tensors["labels"]).correct.sum())

    far = tensors["images"].clone()
    far[0, 0, 0, 0] = 255 if far[0, 0, 0, 0] < 128 else 0
    for changed, claim, what in (({"images": far}, {}, "no pixel changes by more than 8/255"),
                                 ({"labels": tensors["labels"].roll(1)}, {}, "the labels are those of cifar10"),
                                 ({}, {"correct": claims["correct"] - 1}, "images are still classified rightly"),
                                 ({}, {"model_sha256": "0" * 64}, "the model is 0000000000000000"),
                                 ({"images": tensors["images"][:5]}, {}, "no pixel changes")):
        checkpoints.save_tensors(path, tensors | changed, claims | claim)
        with pytest.raises(ValueError, match=what):
            adversarial.check(NAME, folder=tmp_path)


def data_or_skip():
    try:
        data.load("cifar10", "test")
    except FileNotFoundError as error:
        pytest.skip(str(error))


@RELEASED
def test_no_more_images_are_claimed_than_there_are():
    quick = experiment.load_profile("quick")
    model = next(name.removeprefix("quick-") for name in zoo.released() if name.startswith("quick-"))
    short = quick.model_copy(update={"training": {name: network.model_copy(update={"dataset": "digits"})
                                                  for name, network in quick.training.items()}})
    with pytest.raises(ValueError, match="so there are no 100000 to craft"):
        adversarial.write(short, model, 100_000)
    with pytest.raises(FileNotFoundError, match="cpu-lgm has no adversarial images yet; make them with: python -m artifact adversarial"):
        adversarial.check("cpu-lgm")
