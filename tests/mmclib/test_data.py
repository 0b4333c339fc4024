import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmclib import data
from mmclib.training import batches
from mmclib.training.batches import epoch_plan

DATA = Path(os.environ.get("MMC_DATA") or Path(__file__).resolve().parents[2] / "data")
RECEIPTS = Path(__file__).resolve().parents[2] / "results" / "quick" / "models"
needs = {
    "mnist": pytest.mark.skipif(not (DATA / "MNIST").exists(), reason="MNIST is not under MMC_DATA"),
    "cifar10": pytest.mark.skipif(not (DATA / "cifar-10-batches-py").exists(), reason="CIFAR-10 is not under MMC_DATA"),
    "cifar100": pytest.mark.skipif(not (DATA / "cifar-100-python").exists(), reason="CIFAR-100 is not under MMC_DATA"),
}


def bytes_of(images):
    return {image.numpy().tobytes() for image in images}


def test_digits_are_scikit_learns_split_once_and_for_all():
    from sklearn.datasets import load_digits

    (train, train_labels), (test, test_labels) = data.load("digits", "train"), data.load("digits", "test")
    assert train.shape == (1297, 1, 8, 8) and test.shape == (500, 1, 8, 8)
    assert train.dtype == torch.uint8 and train_labels.dtype == torch.int64
    original, labels = load_digits(return_X_y=True)
    expected = torch.tensor(original).mul(255 / 16).round().to(torch.uint8).reshape(-1, 1, 8, 8)
    assert bytes_of(torch.cat([train, test])) == bytes_of(expected)
    assert torch.equal(torch.bincount(torch.cat([train_labels, test_labels])), torch.bincount(torch.tensor(labels)))
    assert torch.bincount(test_labels).min() >= 48  # stratified
    assert torch.equal(data.load("digits", "test")[0], test)


def test_digit_pairs_are_balanced_and_their_digits_disjoint():
    halves = {}
    for split, per_class in (("train", 100), ("test", 20)):
        images, labels = data.load("digit-pairs", split)
        assert images.shape == (100 * per_class, 1, 8, 16) and images.dtype == torch.uint8
        assert torch.bincount(labels).tolist() == [per_class] * 100
        digits, digit_labels = data.load("digits", split)
        known = {image.numpy().tobytes(): int(label) for image, label in zip(digits, digit_labels, strict=True)}
        left, right = images[..., :8].contiguous(), images[..., 8:].contiguous()
        for image_left, image_right, label in zip(left[:300], right[:300], labels[:300], strict=True):
            assert 10 * known[image_left.numpy().tobytes()] + known[image_right.numpy().tobytes()] == label
        halves[split] = bytes_of(torch.cat([left, right]))
    assert not halves["train"] & halves["test"]


def test_trees_hold_every_class_once():
    tree = data.superclasses("digit-pairs")
    assert [len(branch) for branch in tree] == [10] * 10 and tree[3][4] == 34
    with pytest.raises(ValueError, match="only cifar100 and digit-pairs have superclasses, got 'mnist'"):
        data.superclasses("mnist")


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="no data set 'cifar'; known: digits, "):
        data.load("cifar", "train")
    with pytest.raises(ValueError, match="split must be 'train' or 'test', got 'val'"):
        data.load("digits", "val")
    with pytest.raises(ValueError, match="no data set"):
        data.num_classes("svhn")


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100"])
def test_missing_data_names_the_folder_and_the_remedy(name, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        data.load(name, "test", tmp_path)
    sentence = str(caught.value)
    assert all(part in sentence for part in (str(tmp_path), f"python -m artifact download {name}", "MMC_DATA")) and "\n" not in sentence


@pytest.mark.data
@pytest.mark.parametrize(("name", "count", "shape"), [
    pytest.param("mnist", 10_000, (1, 28, 28), marks=needs["mnist"]),
    pytest.param("cifar10", 10_000, (3, 32, 32), marks=needs["cifar10"]),
    pytest.param("cifar100", 10_000, (3, 32, 32), marks=needs["cifar100"]),
])
def test_real_test_sets(name, count, shape):
    images, labels = data.load(name, "test")
    assert images.shape == (count, *shape) and images.dtype == torch.uint8 and images.is_contiguous()
    assert labels.dtype == torch.int64 and len(labels.unique()) == data.num_classes(name)
    receipts = [json.loads(path.read_text())["data"] for path in RECEIPTS.glob("*.json")]
    assert {receipt["test_sha256"] for receipt in receipts if receipt["name"] == name} == {
        hashlib.sha256(images.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()}, "or the record is of other images"


@pytest.mark.data
@needs["cifar100"]
def test_cifar100s_tree_is_its_own():
    tree = data.superclasses("cifar100")
    assert [len(branch) for branch in tree] == [5] * 20
    assert sorted(label for branch in tree for label in branch) == list(range(100))
    assert [4, 30, 55, 72, 95] in tree  # aquatic mammals: beaver, dolphin, otter, seal, whale


@pytest.mark.data
@needs["mnist"]
def test_a_damaged_file_is_named(tmp_path):
    shutil.copytree(DATA / "MNIST" / "raw", tmp_path / "MNIST" / "raw", ignore=shutil.ignore_patterns("*.gz"))
    victim = tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    content = bytearray(victim.read_bytes())
    content[100] ^= 1
    victim.write_bytes(content)
    with pytest.raises(ValueError, match="damaged .*t10k-labels-idx1-ubyte.*download mnist"):
        data.load("mnist", "test", tmp_path)


def test_a_batch_is_what_a_slow_loop_makes():
    images, labels = torch.randint(0, 256, (20, 3, 10, 12), dtype=torch.uint8), torch.arange(20)
    plan = batches.epoch_plan(20, 10, 12, seed=3, epoch=1, shift=0.25)
    pixels, truth = batches.batch(images, labels, plan, 5, 12)
    assert pixels.is_contiguous(memory_format=torch.channels_last)
    for place, position in enumerate(range(5, 12)):
        source = images[plan.order[position]]
        rows, columns = plan.rows[position].tolist(), plan.columns[position].tolist()
        slow = torch.stack([torch.stack([source[:, row, column] for column in columns], 1) for row in rows], 1)
        assert torch.equal(pixels[place], slow.float() / 255)
        assert truth[place] == plan.order[position]


def test_shifts_keep_edges_and_stay_in_their_range():
    plan = batches.epoch_plan(2000, 32, 30, seed=0, epoch=0, shift=0.1, flip=True)
    assert sorted(plan.order.tolist()) == list(range(2000))
    offsets = 16 - plan.rows[:, 16]
    assert set(offsets.tolist()) == {-3, -2, -1, 0, 1, 2, 3}
    assert torch.equal(plan.rows, (torch.arange(32) - offsets[:, None]).clamp(0, 31))
    flipped = plan.columns[:, 0] > plan.columns[:, -1]
    assert 0.45 < flipped.float().mean() < 0.55
    unflipped = torch.where(flipped[:, None], plan.columns.flip(1), plan.columns)
    assert torch.equal(unflipped, (torch.arange(30) - (15 - unflipped[:, 15])[:, None]).clamp(0, 29))
    still = batches.epoch_plan(7, 8, 8, seed=0, epoch=0, shift=0.0, flip=False)
    assert torch.equal(still.columns, torch.arange(8).expand(7, 8))


def test_epochs_differ_and_repeat():
    first, again, next_one = (batches.epoch_plan(100, 8, 8, seed=0, epoch=epoch) for epoch in (0, 0, 1))
    assert torch.equal(first.order, again.order) and torch.equal(first.columns, again.columns)
    assert not torch.equal(first.order, next_one.order)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_same_seed_gives_the_same_batches_on_cuda():
    images, labels = data.load("digits", "train")
    for device in ("cpu", "cuda"):
        plan = batches.epoch_plan(len(labels), 8, 8, seed=5, epoch=2, device=device)
        pixels, truth = batches.batch(images.to(device), labels.to(device), plan, 0, 50)
        if device == "cpu":
            expected = pixels, truth
    assert torch.equal(pixels.cpu(), expected[0]) and torch.equal(truth.cpu(), expected[1])


def test_a_reflected_shift_of_the_whole_side_stays_inside():
    plan = epoch_plan(2000, 8, 5, seed=0, epoch=0, shift=1.0, fill="reflect")
    assert plan.rows.min() >= 0 and plan.rows.max() == 7 and plan.columns.min() >= 0 and plan.columns.max() == 4
    usual = epoch_plan(50, 8, 8, seed=0, epoch=0, shift=0.25, fill="reflect", flip=False)
    padded = torch.nn.functional.pad(torch.arange(8.0)[None, None], (2, 2), mode="reflect")[0, 0].long()
    windows = {tuple(padded[start:start + 8].tolist()) for start in range(5)}
    assert {tuple(row) for row in usual.rows.tolist()} == windows


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
