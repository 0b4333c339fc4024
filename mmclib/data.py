"""Data sets as uint8 images and int64 labels: scikit-learn's digits, pairs of them, and MNIST, CIFAR-10, CIFAR-100 through torchvision."""

import os
import pickle
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from mmclib.installing import installing
from mmclib.modes import on_the_cpu
from mmclib.seeds import derive

__all__ = ["EMBEDDED", "NUM_CLASSES", "download", "load", "num_classes", "superclasses"]

NUM_CLASSES = {"digits": 10, "digit-pairs": 100, "mnist": 10, "cifar10": 10, "cifar100": 100}
EMBEDDED = ("digits", "digit-pairs")
_CLONE = Path(__file__).resolve().parent.parent
_IN_CLONE = (_CLONE / "profiles").is_dir()  # else the package is installed, and nobody's data lie beside it
_USUAL = _CLONE / "data" if _IN_CLONE else Path("~/.cache/mmclib")
TEST_DIGITS = 50  # of each digit, of 1,797 in all
PAIRS_PER_CLASS = {"train": 100, "test": 20}
# torchvision checks MNIST's archives when it downloads them, but of the files it reads only that they exist.
_MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


@on_the_cpu
def load(name: str, split: str, root: str | Path | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return uint8 images (N, C, H, W) and int64 labels (N,) of a data set's "train" or "test" split.

    `root` is the folder in torchvision's layout; by default MMC_DATA, or data/ of the clone (~/.cache/mmclib where there is none).
    "digits" and "digit-pairs" need none.
    Raises ValueError for an unknown name or split or a damaged file, FileNotFoundError for a missing one, both with the remedy.
    """
    _known(name)
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")
    if name == "digits":
        return _digits(split)
    if name == "digit-pairs":
        return _digit_pairs(split)
    return _from_torchvision(name, split, _root(root))


def num_classes(name: str) -> int:
    """Return the number of classes; ValueError for an unknown name."""
    return NUM_CLASSES[_known(name)]


def superclasses(name: str, root: str | Path | None = None) -> list[list[int]]:
    """Return the tree of classes as nested lists of labels, one list a superclass: CIFAR-100's own 20 x 5, the pairs' tens x units.

    Raises ValueError for a data set without superclasses; missing or damaged data as in `load`.
    """
    if name == "digit-pairs":
        return [[10 * tens + units for units in range(10)] for tens in range(10)]
    if name != "cifar100":
        raise ValueError(f"only cifar100 and digit-pairs have superclasses, got {name!r}")
    folder = _root(root)
    _check_files(name, folder)
    with open(folder / "cifar-100-python" / "train", "rb") as file:
        content = pickle.load(file, encoding="latin1")
    # Fine labels are in alphabetical order, not sorted by superclass: only the data set's own pairs of labels tell.
    pairs = sorted(set(zip(content["coarse_labels"], content["fine_labels"], strict=True)))
    return [[fine for coarse, fine in pairs if coarse == superclass] for superclass in range(20)]


def download(name: str, root: str | Path | None = None) -> str:
    """Fetch a data set through torchvision into `root` (md5-checked) and return where it is.

    Raises ValueError for an unknown name and OSError, with the way around, where it cannot be fetched.
    """
    if _known(name) in EMBEDDED:
        return "bundled with scikit-learn, nothing to download"
    folder = _root(root)
    folder.mkdir(parents=True, exist_ok=True)
    for train in (True, False):
        try:
            _dataset_class(name)(str(folder), train=train, download=True)
        except (OSError, RuntimeError) as error:
            raise OSError(f"{name} could not be downloaded ({' '.join(str(error).split())}); copy a folder in torchvision's layout "
                          f"to {folder}, or set MMC_DATA to one") from None
    _check_files(name, folder)
    return str(folder)


def _known(name):
    if name not in NUM_CLASSES:
        raise ValueError(f"there is no data set {name!r}; known: {', '.join(NUM_CLASSES)}")
    return name


def _root(root) -> Path:
    return Path(root or os.environ.get("MMC_DATA") or _USUAL).expanduser()


@cache
def _all_digits():
    # scikit-learn's file, read without importing scikit-learn, which would take seconds of every job.
    found = find_spec("sklearn")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("the digits come with scikit-learn, which is not installed; install it with: "
                                  f"{installing('scikit-learn')}")
    file = Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
    table = torch.from_numpy(np.loadtxt(file, delimiter=",", dtype=np.uint8))
    images = (table[:, :64].reshape(-1, 1, 8, 8) * (255 / 16)).round().to(torch.uint8)  # the originals are integers 0 ... 16
    labels = table[:, 64].long()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(derive("digits")))
    tested = torch.zeros(len(labels), dtype=torch.bool)
    for digit in range(10):
        tested[order[labels[order] == digit][:TEST_DIGITS]] = True
    test, train = order[tested[order]], order[~tested[order]]
    return {"train": (images[train], labels[train]), "test": (images[test], labels[test])}


def _digits(split):
    images, labels = _all_digits()[split]
    return images.clone(), labels.clone()


def _digit_pairs(split):
    # Two digits side by side, drawn with replacement from this split's digits only: 8 x 16 pixels, class 10 * left + right.
    images, labels = _all_digits()[split]
    generator = torch.Generator().manual_seed(derive("digit-pairs", split))
    pairs = torch.arange(100).repeat(PAIRS_PER_CLASS[split])
    pairs = pairs[torch.randperm(len(pairs), generator=generator)]
    members = [(labels == digit).nonzero().squeeze(1) for digit in range(10)]
    draws = torch.rand((2, len(pairs)), generator=generator, dtype=torch.float32)
    halves = []
    for digits, draw in zip((pairs // 10, pairs % 10), draws, strict=True):
        chosen = torch.empty_like(digits)
        for digit, rows in enumerate(members):
            mask = digits == digit
            chosen[mask] = rows[(draw[mask] * len(rows)).long()]
        halves.append(images[chosen])
    return torch.cat(halves, 3), pairs


def _dataset_class(name):
    from torchvision import datasets

    return {"mnist": datasets.MNIST, "cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]


def _from_torchvision(name, split, folder):
    if name == "mnist":
        _check_files(name, folder)
    try:
        dataset = _dataset_class(name)(str(folder), train=split == "train")
    except RuntimeError:
        _check_files(name, folder)  # says which file, and what to do
        raise
    images = torch.as_tensor(dataset.data)
    images = images[:, None] if name == "mnist" else images.permute(0, 3, 1, 2)
    return images.contiguous(), torch.as_tensor(dataset.targets, dtype=torch.int64)


def _check_files(name, folder):
    from torchvision.datasets.utils import check_integrity

    if name == "mnist":
        base, files = folder / "MNIST" / "raw", list(_MNIST_MD5.items())
    else:
        kind = _dataset_class(name)
        base, files = folder / kind.base_folder, [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
    command = f"python -m artifact download {name}" if _IN_CLONE else f"mmclib.data.download({name!r})"
    remedy = f"fetch it with `{command}`, or set MMC_DATA to a folder in torchvision's layout that holds it"
    for file, md5 in files:
        if not (base / file).is_file():
            raise FileNotFoundError(f"{name} is not in {folder} ({(base / file).relative_to(folder)} is missing); {remedy}")
        if not check_integrity(str(base / file), md5):
            raise ValueError(f"{name} in {folder} is damaged ({(base / file).relative_to(folder)} does not have the md5 sum {md5}); "
                             f"delete that file and {remedy}")
