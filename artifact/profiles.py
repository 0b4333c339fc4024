"""A profile: what to train, what to attack and how hard, refused with a sentence where its settings do not go together."""

import re
import shlex
from itertools import combinations
from pathlib import Path
from typing import Literal

from pydantic import model_validator

from artifact.sections import (
    Band,
    CarliniWagner,
    Cifar100,
    Cluster,
    Count,
    Depth,
    Model,
    Plane,
    Seeds,
    Spsa,
    Strict,
    Training,
    Transfer,
    Transformations,
    Variants,
    Verdict,
    WhiteBox,
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
ROOT = Path(__file__).resolve().parent.parent
SIZES = {"digits": {"train": 1297, "test": 500}, "digit-pairs": {"train": 10_000, "test": 2000}, "mnist": {"train": 60_000, "test": 10_000},
         "cifar10": {"train": 50_000, "test": 10_000}, "cifar100": {"train": 50_000, "test": 10_000}}
CLASSES = {"digits": 10, "digit-pairs": 100, "mnist": 10, "cifar10": 10, "cifar100": 100}
STAND_INS = ("digits", "digit-pairs")
MODEL_FIELDS = ("model", "models", "convergence_models", "table_3_model", "networks", "autoattack", "diagnosed",
                "elastic", "hierarchical", "forms", "inner", "radius", "uncertainty")


class Profile(Strict):
    """What to train, what to attack, and how hard."""

    title: str
    device: Literal["cpu", "cuda"] = "cpu"
    threads: Count = 1  # per job; part of what CPU results depend on, to the bit
    # "auto" is bfloat16 where the device multiplies it faster, else float32; which one it was stands in the receipt.
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    batch_size: Count = 256
    job_gradients: Count = 400_000  # of one image each: the least work of a job that attacks, which shares its models among jobs of so much
    train_on_the_spot: bool = False  # may a notebook opened alone train what it misses
    seed: int = 0
    training: dict[str, Training]
    models: dict[str, Model]
    white_box: WhiteBox
    carlini_wagner: CarliniWagner | None = None
    spsa: Spsa | None = None
    transformations: Transformations | None = None
    transfer: Transfer | None = None
    plane: Plane | None = None
    cifar100: Cifar100 | None = None
    depth: Depth | None = None
    variants: Variants | None = None
    verdict: Verdict | None = None
    cluster: Cluster = Cluster()
    seeds: Seeds | None = None
    band: Band = Band()
    # Is this the paper's data at the paper's length, so that a number can be called reproduced or not?
    comparable: bool = False
    # Set by load_profile, not in the file: the file's stem, and what it was asked for by.
    name: str = ""
    source: str = ""

    @model_validator(mode="after")
    def _together(self):
        for refuse in (self._names, self._networks, self._images, self._data, self._measured, self._plane, self._seeds, self._alike,
                       self._verdict):
            refuse()
        return self

    def _names(self):
        """Refuse names that are none, that nothing has, or that are there twice."""
        for key, model in self.models.items():
            if not _NAME.fullmatch(key) or len(key) > 100:
                raise ValueError(f"models: {key[:100]!r} is no name of a model; letters, digits, dots, dashes and underscores are")
            if model.training not in self.training:
                raise ValueError(f"models.{key}.training is {model.training!r}; known: {', '.join(self.training)}")
        for one, other in combinations(self.models, 2):
            if one.replace("_", "-") == other.replace("_", "-"):
                raise ValueError(f"models {one!r} and {other!r} differ in a dash alone, and a job's name in Snakemake has none; rename one")
        for section, field, key in self.named_models():
            if key not in self.models:
                raise ValueError(f"{section}.{field} names {key!r}; known models: {', '.join(self.models)}")
        for section, field, keys in self.lists_of_models():
            if len(set(keys)) != len(keys):
                raise ValueError(f"{section}.{field} names {next(key for key in keys if keys.count(key) > 1)!r} twice")

    def _networks(self):
        """Refuse centers that do not fit in the features, or that the data has no tree for."""
        for key, model in self.models.items():
            training, classes = self.training[model.training], CLASSES[self.dataset(key)]
            # Two features are for looking at (Fig. 3b): there the centers are a regular polygon.
            if model.loss in ("mmc", "mmlda", "emc") and classes > training.feature_dim + 1 and training.feature_dim != 2:
                raise ValueError(f"models.{key}: {classes} Max-Mahalanobis centers need feature_dim >= {classes - 1}, "
                                 f"but training.{model.training}.feature_dim is {training.feature_dim}")
            if model.loss == "mmc-hm" and classes != 100:
                raise ValueError(f"models.{key}: hierarchical centers need a data set with superclasses "
                                 f"(cifar100 or digit-pairs), training.{model.training}.dataset is {training.dataset!r}")
        for key in self.variants.hierarchical if self.variants else []:
            if CLASSES[self.dataset(key)] != 100:
                raise ValueError(f"variants.hierarchical names {key!r}, whose data set {self.dataset(key)!r} has no superclasses")

    def _images(self):
        """Refuse more images than there are."""
        for name, training in self.training.items():
            for split in ("train", "test"):
                asked, there = getattr(training, f"{split}_images"), SIZES[training.dataset][split]
                if asked is not None and asked > there:
                    raise ValueError(f"training.{name}.{split}_images is {asked}, and {training.dataset} has {there}")
        for section in type(self).model_fields:
            part = getattr(self, section)
            for field in ("images", "features"):
                for key in self._models_of(section) if isinstance(getattr(part, field, None), int) else []:
                    asked, there = getattr(part, field), SIZES[self.dataset(key)]["test"]
                    if asked > there:
                        raise ValueError(f"{section}.{field} is {asked}, and the test set of {self.dataset(key)} ({key}) has {there}")

    def _data(self):
        """Refuse to compare models of several data sets, and a stand-in with the paper."""
        for section, field, keys in self.lists_of_models():
            sets = sorted({self.dataset(key) for key in keys})
            if len(sets) > 1 and section != "depth" and field != "uncertainty":  # which name the data with the model
                raise ValueError(f"{section}.{field} are of {' and '.join(sets)}; what is compared image by image must be of one data set")
        if self.comparable and self.stand_in():
            raise ValueError("comparable is true, and the profile trains on a stand-in for the paper's data")

    def _plane(self):
        """Refuse a plane that could not be drawn (Fig. 3b)."""
        if self.plane is None:
            return
        drawn = self.models[self.plane.model]
        if self.training[drawn.training].feature_dim != 2:
            raise ValueError(f"plane.model is {self.plane.model!r}, whose features must have 2 dimensions to be drawn")
        if drawn.loss not in ("mmc", "mmc-rand", "mmlda"):
            raise ValueError(f"plane.model is {self.plane.model!r} of loss {drawn.loss}; Figure 3b shows nearest centers, by which mmc, "
                             "mmc-rand and mmlda predict")
        if self.plane_beside() is None:
            raise ValueError(f"plane.model is {self.plane.model!r}; white_box must have a model that differs from it in its training alone")

    def _seeds(self):
        """Refuse seeds of a model that the verdict does not have."""
        for key in self.seeds.models if self.seeds else []:
            if not self.verdict or not any(key in self.seeds_of(model)[1:] for model in self.verdict.models):
                raise ValueError(f"seeds.models names {key!r}; verdict.models must have a model that differs from it in its seed alone")

    def _verdict(self):
        """Refuse a verdict over more images, or by fewer passes, than it has."""
        if self.verdict is None:
            return
        for key in self.verdict.models:
            tested = self.network(key).test_images or SIZES[self.dataset(key)]["test"]
            if tested < self.verdict.images:
                raise ValueError(f"verdict.images is {self.verdict.images}, and {key} is tested on {tested} (test_images)")
        if self.verdict.images > self.white_box.images:
            raise ValueError(f"verdict.images is {self.verdict.images}; it must be at most white_box.images = {self.white_box.images}")
        for field in ("check_images", "distances", "indicators", "matched"):
            if (asked := getattr(self.verdict, field) or 0) > self.verdict.images:
                raise ValueError(f"verdict.{field} is {asked}; it must be at most verdict.images = {self.verdict.images}")
        if self.verdict.matched:
            classes = max(CLASSES[self.dataset(key)] for key in self.verdict.models)
            looks = 2 * (classes - 1) * ("malt" in self.verdict.more_rungs)
            needed = max(1 + 3 * min(self.verdict.classes, classes - 1), 1 + looks + 3 * min(3, self.verdict.classes, classes - 1))
            if self.verdict.passes < needed:
                raise ValueError(f"verdict.passes is {self.verdict.passes}; one step towards each wrong class takes {needed} passes")

    def _measured(self):
        """Refuse what is asked of models that the section does not measure, or cannot tell apart: it would fail when all is trained."""
        for section, field in (("white_box", "convergence_models"), ("spsa", "table_3_model"), ("verdict", "diagnosed"),
                               ("verdict", "autoattack")):
            part = getattr(self, section)
            named = getattr(part, field, [])
            for key in [named] if isinstance(named, str) else named:
                if key not in part.models:
                    raise ValueError(f"{section}.{field} names {key!r}, which {section}.models does not")
        for section, field, keys in self.lists_of_models():
            if section == "depth" or field in ("uncertainty", "autoattack", "diagnosed"):  # named with their data set, or no table's rows
                continue
            for one, other in combinations(keys, 2):
                if self._told(one) == self._told(other):
                    raise ValueError(f"{section}.{field} names {one} and {other}, which a table would call the same: they differ only in "
                                     "what no name says (scale, training, data)")
        for one, other in zip(*self.depth.networks.values(), strict=True) if self.depth else ():
            losses = [self.models[key].model_copy(update={"training": ""}) for key in (one, other)]
            if losses[0] != losses[1] or self.dataset(one) != self.dataset(other):
                raise ValueError(f"depth.networks compares {one!r} with {other!r}; they must be the same loss on the same data")
        tree = self.variants.hierarchical if self.variants else []
        if tree and (len(tree) < 2 or self.models[tree[0]].loss != "mmc"):
            raise ValueError("variants.hierarchical must name an mmc model and after it those with hierarchical centers, got "
                             f"{', '.join(tree)}")

    def _alike(self):
        """Refuse a verdict over networks that differ in more than the loss: its claims are about that alone."""
        models = self.verdict.models if self.verdict else []
        for adversarial in (None, "untargeted"):
            pair = [key for loss in ("sce", "mmc") if (key := self.find(models, loss, adversarial))]
            trainings = [self.network(key) for key in pair]
            if len(pair) == 2 and trainings[0] != trainings[1]:
                raise ValueError(f"verdict.models compares {pair[0]} with {pair[1]}, whose trainings {self.models[pair[0]].training!r} and "
                                 f"{self.models[pair[1]].training!r} differ; what it says of a loss would be of the network")
        tested = {key: self.network(key).test_images for key in models}
        if len(set(tested.values())) > 1:
            raise ValueError("verdict.models are tested on different numbers of images (test_images: "
                             f"{', '.join(f'{key} {count}' for key, count in tested.items())}); they are compared image by image")

    def _told(self, key: str):
        """What a model's name in a table says of it (artifact.methods.label)."""
        spec, network = self.models[key], self.network(key)
        trained = self.crafting(key) if spec.adversarial else None
        return spec.model_copy(update={"training": "", "scale": 1.0}), trained, network.feature_dim == 2

    def named_models(self):
        """Yield (section, field, model) for every place that names a model."""
        yield from ((section, field, key) for section, field, keys in self.lists_of_models() for key in keys)

    def lists_of_models(self):
        """Yield (section, field, models) for every list of models, each of which names a model once; a model alone is a list of one."""
        for section in type(self).model_fields:
            part = getattr(self, section)
            for field in (name for name in MODEL_FIELDS if isinstance(part, Strict) and hasattr(part, name)):
                value = getattr(part, field)
                groups = value.values() if isinstance(value, dict) else [[value] if isinstance(value, str) else value]
                yield from ((section, field, keys) for keys in groups)

    def _models_of(self, section: str) -> list[str]:
        # Tables of the variants use white_box's images.
        sections = ("white_box", "cifar100", "depth", "variants") if section == "white_box" else (section,)
        return [key for name, _, key in self.named_models() if name in sections]

    def find(self, models: list[str], loss: str, adversarial: str | None = None) -> str | None:
        """The first of the models with this loss (mmc: squared) and this adversarial training of the paper's, None without one."""
        return next((key for key in models if (spec := self.models[key]).loss == loss and spec.adversarial == adversarial
                     and spec.form is None and spec.inner is None), None)

    def principal(self, models: list[str]) -> list[str]:
        """The rows of SCE and MMC that sentences name, of these models: standard training first. The first two where there is neither."""
        found = (self.find(models, loss, adversarial) for adversarial in (None, "untargeted", "targeted") for loss in ("sce", "mmc"))
        return [model for model in found if model] or models[:2]

    def seeds_of(self, model: str) -> list[str]:
        """A model and those of `seeds` that differ from it in their seed alone."""
        spec = self.models[model]
        return [model, *(key for key in (self.seeds.models if self.seeds else []) if self.models[key].seed != spec.seed
                         and self.models[key].model_copy(update={"seed": spec.seed}) == spec)]

    def plane_beside(self) -> str | None:
        """The model of white_box that the plane shows in two dimensions: it differs from the plane's own in its training alone."""
        drawn = self.models[self.plane.model]
        return next((key for key in self.white_box.models
                     if self.models[key].model_copy(update={"training": drawn.training}) == drawn), None)

    def network(self, model: str) -> Training:
        """The settings of a model's network and of its training."""
        return self.training[self.models[model].training]

    def dataset(self, model: str) -> str:
        return self.network(model).dataset

    def crafting(self, model: str) -> tuple[int, float, bool]:
        """How the images of an adversarial training are crafted: steps, their size, and whether from a noisy start (N-FGSM).

        One noisy step towards a target is weak: two steps take its place (mmclib's AdversarialTraining.two_steps).
        """
        network = self.network(model)
        if network.noise and self.models[model].adversarial == "targeted":
            return 2, network.epsilon / 2, False
        return network.steps, network.step_size, network.noise > 0

    @property
    def argument(self) -> str:
        """What a command line asks for it by."""
        return shlex.quote(self.source)

    def stand_in(self) -> bool:
        return any(training.dataset in STAND_INS for training in self.training.values())
