"""What a researcher found who brought a loss, an attack or a network of their own."""

import functools
import os
import subprocess
import sys
import types
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from mmclib import attacks, centers, checkpoints, data, evaluation, files, fingerprints, installing, losses, margins, models
from mmclib.training import Recipe, fit, step, trainer

EPSILON = 0.2


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    head = losses.MaxMahalanobisCenter(centers.max_mahalanobis_centers(10, 16, 10.0))
    return models.Classifier(models.small_convnet(1, 16, 8), head).eval()


@pytest.fixture(scope="module")
def digits():
    images, labels = data.load("digits", "test")
    return images[:12].float() / 255, labels[:12]


def trained(model, folder=None):
    (images, labels), (others, truth) = data.load("digits", "train"), data.load("digits", "test")
    recipe = Recipe(epochs=1, shift=0, flip=False, batch_size=20, milestones=())
    return fit(model, (images[:60], labels[:60]), (others[:20], truth[:20]), recipe=recipe, seed=0, folder=folder, compile=False,
               progress=False)


def far(model, images, labels, *, targets=None, seed=0, **settings):
    """Beyond any ball: what an attack returns that does not keep its bound."""
    return attacks.judged(model, images, labels, 1 - images, targets=targets)


def test_images_from_elsewhere_are_judged_by_a_plain_pass(model, digits):
    images, labels = digits
    crafted = attacks.pgd(model, images, labels, epsilon=EPSILON, step_size=0.05, steps=10).images
    found = attacks.judged(model, images, labels, crafted)
    with torch.no_grad():
        assert torch.equal(found.fooled, (model(images).argmax(1) != labels) | (model(crafted).argmax(1) != labels))
    assert found.fooled.any() and found.distortion.max() <= EPSILON + 1e-6 and not found.gradients.any()
    assert torch.allclose(attacks.judged(model, images, labels, crafted, norm="l2").distortion,
                          (found.images - images).flatten(1).norm(dim=1))
    for wrong, says in ((crafted[:3], "shape of images"), (crafted * 2, "crafted"), (crafted.double().numpy(), "crafted")):
        with pytest.raises(ValueError, match=says):
            attacks.judged(model, images, labels, wrong)
    with pytest.raises(ValueError, match="norm must be"):
        attacks.judged(model, images, labels, crafted, norm="l7")


def test_an_attack_whose_bound_is_not_known_is_told_of(model, digits):
    with pytest.warns(UserWarning, match="far has no setting epsilon, so any change within"):
        free = evaluation.robust_accuracy(model, *digits, far)
    assert free.success.any()
    # A bound in functools.partial of an attack that takes any settings is one, in a worst case too.
    bound = functools.partial(far, epsilon=EPSILON)
    with pytest.warns(UserWarning, match="claimed successes are rejected"):
        assert not evaluation.robust_accuracy(model, *digits, bound).success[evaluation.accuracy(model, *digits).correct].any()
    with pytest.warns(UserWarning, match="claimed successes are rejected"):
        left = evaluation.worst_case(model, *digits, {"far": bound})
    assert torch.equal(left.correct, left.clean.correct)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluation.minimal_distortion(model, *digits, attacks.fmn, steps=3)  # of our own those without a ball are known


def test_a_transfer_tells_of_rejected_successes_for_each_model(model, digits):
    with pytest.warns(UserWarning) as told:
        evaluation.transfer_row(model, {"a": model, "b": model}, *digits, far, epsilon=EPSILON)
    assert [next(name for name in "ab" if f"far on {name}: " in str(warning.message)) for warning in told] == ["a", "b"]


def test_how_an_attack_is_called_is_said_before_it_is(model, digits):
    def bare(model, images, labels, eps):
        raise AssertionError("not reached")

    for attack, settings, says in ((bare, {"eps": 0.1}, "bare cannot be called as attack.*seed=..., eps=.*'targets'"),
                                   (attacks.pgd, {"epsilonn": 0.1}, "pgd cannot be called.*'epsilonn'")):
        for call in (lambda **options: evaluation.robust_accuracy(model, *digits, **options),
                     lambda **options: evaluation.transfer_row(model, {"a": model}, *digits, **options)):
            with pytest.raises(ValueError, match=says):
                call(attack=attack, **settings)
    with pytest.raises(ValueError, match="bare cannot be called"):
        evaluation.worst_case(model, *digits, {"bare": bare})
    with pytest.raises(ValueError, match="must return an AttackResult, which mmclib.attacks.judged makes"):
        evaluation.robust_accuracy(model, *digits, lambda model, images, labels, **_: images)


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


@pytest.mark.parametrize("runner", [None, torch.__file__], ids=["script", "python -m library script"])
def test_a_state_is_not_resumed_under_a_loss_that_was_edited(runner, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "__file__", runner, raising=False)
    trained(own(), tmp_path)
    source = "\n".join(("import torch", "class Own(Base):", "    def loss(self, features, labels):",
                        "        return {} * super(Own, self).loss(features, labels)"))
    edited = {}
    for factor in (2, 3):
        namespace = {"Base": Own, "__name__": "__main__"}
        exec(source.format(factor), namespace)
        edited[factor] = namespace["Own"]
    with pytest.raises(ValueError, match="holds the state of another training .code"):
        trained(own(edited[2]), tmp_path)
    again = tmp_path / "again"
    first = trained(own(edited[2]), again)
    assert trained(own(edited[2]), again).history == first.history  # whoever runs the same cell again goes on
    with pytest.raises(ValueError, match="holds the state of another training .code"):
        trained(own(edited[3]), again)


def test_a_file_beside_a_package_is_no_library():
    beside = types.ModuleType("mmclib_exercise")
    beside.__file__ = str(Path(fingerprints.__file__).parent) + "_exercise.py"
    assert fingerprints._from_library(fingerprints.__file__) and not fingerprints._from_library(beside.__file__)


def test_a_margin_is_known_of_our_heads_alone():
    features, labels = torch.randn(4, 16), torch.arange(4)
    for head in (Own(centers=torch.randn(10, 16)), losses.LargeMarginGaussianMixture(10, 16)):
        with pytest.raises(ValueError, match="not known to be hyperplanes"):
            margins.feature_margin(head, features, labels)


def test_a_path_with_blanks_is_quoted_in_a_remedy(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/home/anna/my course/bin/python")
    assert "'/home/anna/my course/bin/python'" in installing.installing("foolbox")


@pytest.mark.parametrize("seconds", ["1m", "nan", "-3"])
def test_seconds_between_states_are_a_number(seconds, monkeypatch):
    monkeypatch.setenv("MMC_CHECKPOINT_SECONDS", seconds)
    with pytest.raises(ValueError, match="MMC_CHECKPOINT_SECONDS must be a number of seconds"):
        trainer._checkpoint_seconds()
    monkeypatch.setenv("MMC_CHECKPOINT_SECONDS", "2.5")
    assert trainer._checkpoint_seconds() == 2.5


def test_compiling_needs_the_compiler_that_torch_takes_and_pythons_headers(monkeypatch):
    there = {"g++", "clang++"}
    monkeypatch.setattr(step.shutil, "which", lambda name: name if name in there else None)
    monkeypatch.setattr(step.Path, "exists", lambda path: "Python.h" in there)
    monkeypatch.setattr(step.sys, "platform", "linux")
    monkeypatch.delenv("CXX", raising=False)
    assert not step.can_compile("cpu")
    there.add("Python.h")
    assert step.can_compile("cpu")
    there.remove("g++")
    assert not step.can_compile("cpu")
    monkeypatch.setenv("CXX", "clang++")
    assert step.can_compile("cpu")


def test_what_windows_cannot_do_is_left_out(tmp_path, monkeypatch):
    def no_folder(*_):
        raise PermissionError("a folder")
    monkeypatch.setattr(os, "open", no_folder)
    monkeypatch.setattr(os, "kill", no_folder)
    path = tmp_path / "state"  # made before: there are no paths of Windows here
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        files.write_whole(path, b"whole")
        assert checkpoints._lives(1)
    assert path.read_bytes() == b"whole"


def test_what_is_not_durable_makes_no_folder(tmp_path):
    files.write_whole(tmp_path / "new" / "state", b"whole")
    assert (tmp_path / "new" / "state").read_bytes() == b"whole" and len(list((tmp_path / "new").iterdir())) == 1
    with pytest.raises(FileNotFoundError):  # whoever shows a progress has gone, with the folder
        files.write_whole(tmp_path / "gone" / "progress", b"whole", durable=False)
    assert not (tmp_path / "gone").exists()


def test_an_installed_library_keeps_data_in_the_users_folder(tmp_path):
    """A copy of the package without the clone around it, as a wheel is."""
    script = "import mmclib.data as d; print(d.__file__)\ntry: d.load('cifar10', 'test')\nexcept FileNotFoundError as error: print(error)"
    os.symlink(Path(data.__file__).parent, tmp_path / "linked")  # resolved, so it is still the clone's
    (tmp_path / "site").mkdir()
    package = tmp_path / "site" / "mmclib"
    subprocess.run(["cp", "-r", str(Path(data.__file__).parent), str(package)], check=True)
    environment = {key: value for key, value in os.environ.items() if key != "MMC_DATA"} | {
        "PYTHONPATH": str(tmp_path / "site"), "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(str(package))
    assert f"cifar10 is not in {tmp_path}/.cache/mmclib" in done.stdout and "mmclib.data.download('cifar10')" in done.stdout
