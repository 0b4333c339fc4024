"""Networks, heads and objectives of a user's own, which do what ours do not."""

import functools
import math
import threading

import pytest
import torch
from torch import nn

from mmclib import attacks, data, evaluation, losses, models
from mmclib.attacks.frozen import BatchDependenceWarning
from mmclib.training import AdversarialTraining, Recipe, fit
from tests.mmclib.small import Through, against, own, small, trained


class Flattening(nn.Module):
    """A small network as tutorials write it, with .view."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.last = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 16, 3), nn.Linear(256, 10)

    def forward(self, images):
        return self.last(torch.relu(self.second(torch.relu(self.first(images)))).view(-1, 256))


@pytest.mark.parametrize("attack", [attacks.pgd, attacks.spsa, attacks.gaussian_noise, attacks.multi_targeted, attacks.carlini_wagner])
def test_a_model_that_flattens_by_view_is_attacked(digits, attack):
    images, labels = (tensor[:20] for tensor in digits)
    model = Flattening().eval()
    before = {name: (tensor.clone(), tensor.stride()) for name, tensor in model.state_dict().items()}
    short = {"steps": 3} if attack is not attacks.gaussian_noise else {"draws": 2}
    found = attack(model, images, labels, **short)
    assert found.fooled.shape == labels.shape
    after = model.state_dict()
    assert all(after[name].equal(tensor) and after[name].stride() == stride for name, (tensor, stride) in before.items())


def test_a_forward_that_was_replaced_on_the_model_is_what_is_attacked(mmc, digits):
    images, labels = digits
    mirrored, original = Through(mmc, lambda pixels: pixels.flip(3)), mmc.forward
    true = evaluation.robust_accuracy(mirrored, images.flip(3), labels, attacks.pgd, epsilon=0.15, step_size=0.03, steps=20)
    mmc.forward = lambda pixels: original(pixels.flip(3))
    try:
        found = evaluation.robust_accuracy(mmc, images.flip(3), labels, attacks.pgd, epsilon=0.15, step_size=0.03, steps=20)
    finally:
        del mmc.forward
    assert found.correct.equal(true.correct) and not found.rejected.any()


def test_fit_says_what_it_takes(digits):
    pixels = (digits[0] * 255).to(torch.uint8)
    data = (pixels, digits[1])
    with pytest.raises(ValueError, match="must be an mmclib Classifier"):
        fit(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), data, data, recipe=Recipe(epochs=1), seed=0)

    class Body(Flattening):
        def forward(self, images):
            return torch.relu(self.second(torch.relu(self.first(images)))).view(-1, 256)
    with pytest.raises(ValueError, match=r"calls .view on activations"):
        fit(models.Classifier(Body(), losses.SoftmaxCrossEntropy(10, 256)), data, data, recipe=Recipe(epochs=1), seed=0, progress=False)


def test_images_of_another_shape_are_refused_by_name(digits):
    model = small(mean=torch.full((1, 8, 8), 0.3))
    for shape in ((2, 1, 1, 8), (2, 1, 8, 1), (2, 1, 1, 1), (2, 3, 8, 8), (2, 1, 9, 9)):
        wrong, labels = torch.rand(shape), torch.zeros(2, dtype=torch.int64)
        for ask in (lambda images, labels: model(images), *(functools.partial(door, model) for door in (attacks.pgd, evaluation.accuracy))):
            with pytest.raises(ValueError, match=r"images must have shape \(N, 1, 8, 8\)"):
                ask(wrong, labels)
    assert small(mean=torch.tensor([[[0.5]], [[0.4]], [[0.3]]])).features.__self__.mean.shape == (3, 1, 1)
    for mean, says in ((torch.rand(3), r"shape \(3,\)"), (torch.full((1, 8, 8), math.nan), "NaN")):
        with pytest.raises(ValueError, match=says):
            small(mean=mean)
    grey, labels = data.load("digits", "train")
    colours = grey.expand(-1, 3, -1, -1)
    with pytest.raises(ValueError, match="of one shape"):
        fit(small(), (grey, labels), (colours, labels), recipe=Recipe(epochs=1), seed=0)


def test_batch_statistics_show_whatever_the_first_image_is(digits):
    model = nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), nn.Flatten(), nn.Linear(64, 10))
    for value in (0.0, 0.5, 1.0):
        images = torch.cat((torch.full((1, 1, 8, 8), value), digits[0][:5]))
        with pytest.warns(BatchDependenceWarning):
            evaluation.accuracy(model, images, digits[1][:6])


def test_a_last_batch_of_one_image_is_refused_before_the_first_step():
    head = losses.SoftmaxCrossEntropy(10, 16)
    model = models.Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16)), head)
    before = model.backbone[2].running_mean.clone()
    with pytest.raises(ValueError, match="the last batch of an epoch would be one image"):
        trained(model, count=101)
    assert model.backbone[2].running_mean.equal(before) and model.backbone[2].num_batches_tracked == 0
    model.eval()
    with pytest.raises(ValueError, match="the last batch of an epoch would be one image"):
        trained(model, batch_size=1)
    assert not model.training, "a refusal leaves the mode as it was"
    trained(small(), count=101)  # maps of several pixels have statistics


def test_a_partial_of_an_objective_is_one():
    assert trained(small(), adversarial=against(functools.partial(attacks.objectives.untargeted_2))).finished


def test_a_mean_of_ones_own_is_kept_and_none_is_set():
    own = small(mean=torch.full((1, 1, 1), 0.13))
    trained(own)
    assert own.mean.flatten().tolist() == pytest.approx([0.13])
    unset = small()
    trained(unset)
    assert unset.mean.shape == (1, 8, 8)


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


def test_an_objective_that_cannot_be_copied_is_trained_with():
    class Locked:
        def __init__(self):
            self.lock, self.teacher = threading.Lock(), torch.ones(2, requires_grad=True) * 2  # no leaf: deepcopy refuses it

        def __call__(self, *arguments):
            return attacks.objectives.untargeted_2(*arguments)
    adversarial = AdversarialTraining(objective=Locked(), steps=1, epsilon=0.1, step_size=0.1)
    assert trained(small(), adversarial=adversarial).finished


def test_a_head_of_ones_own_trains(tmp_path):
    assert trained(own(), tmp_path).finished


class Twice(nn.Module):
    """Two outputs, as networks with an auxiliary head have in training."""

    def __init__(self):
        super().__init__()
        self.inner = models.small_convnet(1, 16, 8)

    def forward(self, images):
        found = self.inner(images)
        return (found, found) if self.training else found


@pytest.mark.parametrize(("build", "says"), [
    (lambda: own(num_classes=None), "head must have num_classes, the number of its classes, got None"),
    (lambda: own(backbone=Twice()), "the backbone must return features, one tensor .*in training too, got a tuple"),
    (lambda: own(backbone=nn.Identity()), "the backbone must return features, one tensor .*got a tensor of shape"),
    (lambda: own(loss=lambda features, labels: features.sum(1)), "the head's loss must be one number, .*got a tensor of shape .20,."),
    (lambda: own(num_classes=11), "the head's logits must have shape .N, num_classes., here .20, 11., got a tensor of shape .20, 10."),
])
def test_a_part_of_another_form_is_a_sentence(build, says):
    with pytest.raises(ValueError, match=says):
        trained(build())


def test_a_model_of_ones_own_needs_no_parameters(digits):
    class Brightness(nn.Module):
        def forward(self, images):
            mean = images.mean((1, 2, 3))
            return torch.stack((mean, 1 - mean), 1)
    images = torch.linspace(0.1, 0.9, 9).reshape(9, 1, 1, 1).expand(9, 1, 4, 4)
    labels = (images[:, 0, 0, 0] <= 0.5).long()
    outcome = evaluation.robust_accuracy(Brightness(), images, labels, attacks.pgd, objective="untargeted_2", epsilon=0.15, step_size=0.05)
    # argmax gives ties to class 0, which is the label of the images above one half only
    assert outcome.correct.equal((images[:, 0, 0, 0] - 0.5).abs() > 0.15)


class Adapter(nn.Module):
    """A low-rank adapter that merges into its weight in evaluation mode and out of it in training, as loralib's."""

    def __init__(self):
        super().__init__()
        self.weight, self.low, self.merged = nn.Parameter(torch.randn(10, 64)), nn.Parameter(torch.randn(10, 64)), False

    def train(self, mode=True):
        super().train(mode)
        if self.merged == mode:
            self.weight.data += self.low.data if not mode else -self.low.data
            self.merged = not mode
        return self

    def forward(self, images):
        return images.flatten(1) @ (self.weight if self.merged else self.weight + self.low).T


@pytest.mark.parametrize("ask", [evaluation.accuracy, functools.partial(attacks.pgd, steps=4, step_size=0.01)], ids=["accuracy", "pgd"])
def test_modes_are_put_back_by_the_modules_own_doors(digits, ask):
    model = nn.Sequential(Adapter(), nn.Dropout(0.5)).train()
    model[1].eval()  # one module apart from the rest
    ask(model, *digits)
    assert model.training and not model[0].merged and not model[1].training
    model[0](digits[0]).sum().backward()
    assert model[0].low.grad is not None


def test_a_module_of_two_parents_gets_its_own_mode_back(digits):
    shared = nn.Dropout(0.5)
    model = nn.Sequential(nn.Sequential(shared), nn.Flatten(), nn.Sequential(shared), nn.Linear(64, 10)).train()
    model[2].training = False
    attacks.pgd(model, *digits, steps=4, step_size=0.01)
    assert shared.training and model[0].training and not model[2].training and model.training


def test_modules_without_modes_are_attacked(digits):
    images, labels = digits[0][:16], digits[1][:16]
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    frozen = torch.jit.freeze(torch.jit.script(plain))
    exported = torch.export.export(plain, (images,), dynamic_shapes=({0: torch.export.Dim.AUTO},)).module()
    expected = evaluation.robust_accuracy(plain, images, labels, attacks.pgd)
    for model in (frozen, exported, nn.Sequential(nn.Identity(), exported, nn.Identity())):
        assert evaluation.robust_accuracy(model, images, labels, attacks.pgd).correct.equal(expected.correct)


def test_a_compiled_model_that_flattens_by_view_is_attacked(digits):
    images, labels = (tensor[:20] for tensor in digits)
    model = Flattening().eval()
    found = attacks.pgd(torch.compile(model, backend="eager"), images, labels)
    assert found.fooled.equal(attacks.pgd(model, images, labels).fooled)


def test_a_model_spread_over_processes_is_refused(digits):
    spread = nn.parallel.DistributedDataParallel.__new__(nn.parallel.DistributedDataParallel)
    with pytest.raises(ValueError, match="model is a DistributedDataParallel.*pass its .module"):
        evaluation.accuracy(spread, *digits)
