"""The sections of a profile, each with what it may hold: pydantic refuses unknown keys, wrong types and values out of range."""

import re
from fractions import Fraction
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


def _number(value):
    # "8/255" as the paper writes it, and "1e-4", which YAML takes for a string.
    if isinstance(value, str) and len(value) <= 40 and not re.search(r"[eE][-+]?\d{4}", value):  # 1e9999999 has millions of digits
        try:
            return float(Fraction(value.replace(" ", "")))
        except (ValueError, ZeroDivisionError, OverflowError):
            return value
    return value


Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Positive = Annotated[Number, Field(gt=0)]
Ball = Annotated[Number, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Evaluations = Annotated[int, Field(ge=2, multiple_of=2)]  # of SPSA, which asks in pairs
Models = Annotated[list[str], Field(min_length=1)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Training(Strict):
    """One network on one data set and how it is trained (Sec. 4.1)."""

    dataset: Literal["digits", "digit-pairs", "mnist", "cifar10", "cifar100"]
    train_images: Count | None = None  # the first so many only; None is all
    test_images: Count | None = None
    architecture: Literal["small_convnet", "resnet", "airbench"]
    blocks: Count = 5
    version: Literal[1, 2] = 2
    widths: Annotated[list[Count], Field(min_length=1)] = [64, 256, 256]  # of airbench
    stem: Literal["learned", "whitened"] = "learned"  # of airbench
    feature_dim: Annotated[int, Field(ge=2)]
    epochs: Count
    batch_size: Count = 50
    learning_rate: Positive = 0.01
    milestones: list[Count] = [100, 150]
    decay: Positive = 0.1
    momentum: Annotated[Number, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[Number, Field(ge=0)] = 2e-4
    shift: Ball = 0.1
    flip: bool | Literal["alternating"] = True
    # The optimizers and schedules of mmclib.training.Recipe beyond the paper's.
    optimizer: Literal["sgd", "muon"] = "sgd"
    other_rate: Positive = 0.002
    schedule: Literal["steps", "linear"] = "steps"
    warm_up: Ball = 0.0
    fill: Literal["nearest", "reflect"] = "nearest"
    average: Annotated[Number, Field(ge=0)] = 0.0
    half: bool = False
    # Adversarial training's attack, for the models that ask for it.
    epsilon: Ball = 8 / 255
    step_size: Positive = 2 / 255
    steps: Count = 10
    noise: Annotated[Number, Field(ge=0)] = 0.0  # of N-FGSM, in epsilons: single-step untargeted training
    guard: Ball | None = None
    rate: Positive  # gradients of one image per second on the machine the profile is meant for: estimates only

    @model_validator(mode="after")
    def _of_use(self):
        # A setting without effect would still be part of what the model is: the same weights, trained anew under another name.
        for fields, setting, owner in ((("widths", "stem"), "architecture", "airbench"), (("blocks", "version"), "architecture", "resnet"),
                                       (("other_rate",), "optimizer", "muon"), (("weight_decay",), "optimizer", "sgd"),
                                       (("milestones", "decay"), "schedule", "steps"), (("warm_up",), "schedule", "linear")):
            for field in fields:
                if getattr(self, setting) != owner and getattr(self, field) != type(self).model_fields[field].default:
                    raise ValueError(f"{field} is for {setting} {owner!r} only, this one is {getattr(self, setting)!r}")
        return self

    @model_validator(mode="after")
    def _milestones(self):
        wrong = sorted(set(self.milestones)) != self.milestones or any(m >= self.epochs for m in self.milestones)
        if self.schedule == "steps" and wrong:
            raise ValueError(f"milestones must rise and stay below epochs = {self.epochs}, got {self.milestones}")
        return self


class Model(Strict):
    """One row of the tables: a loss, with or without adversarial training."""

    training: str
    loss: Literal["sce", "center", "lgm", "mmlda", "mmc", "mmc-rand", "mmc-hm", "emc"]
    radius: Positive = 10.0  # C_MM
    # 1 is the authors' code, 1/2 is Eq. 8; the paper's numbers came from the code.
    scale: Positive = 1.0
    adversarial: Literal["targeted", "untargeted"] | None = None
    seed: int = 0
    # Of the variants (App. B.2, B.3). What is None is no part of a model's identity.
    form: Literal["absolute", "huber"] | None = None  # of mmc; None is the squared form
    inner: Literal["margin"] | None = None  # what adversarial training climbs; None is the paper's: L_Ada for distances, else cross-entropy
    alpha: Positive | None = None  # of emc: the variance of the means' prior
    radii: Annotated[list[Positive], Field(min_length=2, max_length=2)] | None = None  # of mmc-hm: superclasses, classes
    rotate: bool | None = None  # of mmc-hm: turn each superclass's centers at random

    @model_validator(mode="after")
    def _variant(self):
        for field, owner in (("form", "mmc"), ("alpha", "emc"), ("radii", "mmc-hm"), ("rotate", "mmc-hm")):
            if getattr(self, field) is not None and self.loss != owner:
                raise ValueError(f"{field} is for loss {owner!r} only, this one is {self.loss!r}")
        for field in ("radius", "scale"):
            if self.loss in ("sce", "center", "lgm") and getattr(self, field) != type(self).model_fields[field].default:
                raise ValueError(f"{field} is for losses with preset centers, this one is {self.loss!r}")
        if self.inner and not self.adversarial:
            raise ValueError("inner is what adversarial training climbs: it needs adversarial: untargeted or targeted")
        for field, owner in (("alpha", "emc"), ("radii", "mmc-hm")):
            if getattr(self, field) is None and self.loss == owner:
                raise ValueError(f"loss {owner!r} needs {field}")
        return self


def _require_rising(section, *keys: str) -> None:
    for key in keys:
        values = getattr(section, key)
        if sorted(set(values)) != values:
            raise ValueError(f"{key} must rise, got {values}")


class WhiteBox(Strict):
    """Table 1: PGD, its convergence check, and accuracy against epsilon."""

    models: Models
    images: Count
    epsilons: Annotated[list[Ball], Field(min_length=2, max_length=2)]
    step_size: Positive
    steps: Annotated[list[Count], Field(min_length=2, max_length=2)] = [10, 50]
    restarts: Count = 1
    convergence_steps: Annotated[list[Count], Field(min_length=1)] = [100, 200]
    convergence_models: list[str] = []
    curve_epsilons: list[Ball] = []

    @model_validator(mode="after")
    def _rising(self):
        _require_rising(self, "epsilons", "curve_epsilons")
        steps = [*self.steps, *self.convergence_steps]
        if sorted(set(steps)) != steps:
            raise ValueError(f"steps and after them convergence_steps must rise, got {self.steps} and {self.convergence_steps}")
        return self


class CarliniWagner(Strict):
    """Table 2, part I: minimal l_2 distortion."""

    models: Models
    images: Count = 500
    binary_search_steps: Count = 9
    initial_const: Positive = 0.01
    steps: Count = 1000
    learning_rate: Positive = 0.005


class Spsa(Strict):
    """Table 2, part II, and Table 3: the attack without gradients."""

    models: Models
    images: Count = 1000
    epsilons: Annotated[list[Ball], Field(min_length=2, max_length=2)]
    evaluations: Evaluations = 128
    steps: Count = 10
    learning_rate: Positive = 0.01
    delta: Positive = 0.01
    table_3_model: str
    table_3_evaluations: Annotated[list[Evaluations], Field(min_length=1)] = [128, 4096, 8192]

    @model_validator(mode="after")
    def _rising(self):
        _require_rising(self, "epsilons", "table_3_evaluations")
        return self


class Transformations(Strict):
    """Table 2, part III: Gaussian noise and rotation."""

    models: Models
    images: Count = 1000
    sigma: Positive = 0.05
    degrees: Positive = 30.0
    draws: Count = 5  # accuracy is the mean over so many


class Transfer(Strict):
    """Fig. 4: examples crafted on one model and tried on the others."""

    models: Models
    images: Count
    epsilons: Annotated[list[Ball], Field(min_length=2, max_length=2)]
    step_size: Positive
    steps: Count = 10
    decay: Annotated[Number, Field(ge=0)] = 1.0

    @model_validator(mode="after")
    def _rising(self):
        _require_rising(self, "epsilons")
        return self


class Plane(Strict):
    """Fig. 3b: attacks seen in a two-dimensional feature space."""

    model: str
    epsilon: Ball = 0.3
    step_size: Positive = 0.01
    steps: Count = 50
    features: Count = 10_000
    inputs: Count = 2


class Cifar100(Strict):
    """Table 4: the methods on a data set of 100 classes, attacked as the other tables say."""

    models: Models


class Depth(Strict):
    """Table 5: networks by name, each with the models that use it."""

    networks: Annotated[dict[str, Models], Field(min_length=2, max_length=2)]

    @model_validator(mode="after")
    def _pairs(self):
        first, second = self.networks.values()
        if len(first) != len(second):
            raise ValueError(f"networks are compared model by model, but one has {len(first)} and the other {len(second)}")
        return self


class Variants(Strict):
    """Beyond the paper: what App. B leaves open, each a list of models beside MMC."""

    elastic: list[str] = []  # Eq. 21
    hierarchical: list[str] = []  # App. B.3
    forms: list[str] = []  # App. B.2
    inner: list[str] = []  # what adversarial training trains against
    radius: list[str] = []  # ablation over C_MM
    uncertainty: list[str] = []  # "a reliable metric of the uncertainty", Sec. 3.3


class Rules(Strict):
    """When a claim of the paper's conclusion holds: points of accuracy, or shares of time."""

    # (i) reliable robustness: the strongest attack takes at most so much more than the paper's own,
    attack_gap: Positive = 5.0
    # (ii) clean accuracy comparable to SCE: the paired 95 % interval of the difference stays above minus this.
    clean_gap: Positive = 1.0
    # (iii) little extra computation: the time of MMC's training step over SCE's exceeds 1 by at most this.
    extra_time: Positive = 0.05
    # A rung of the ladder is evidence where no indicator of attack failure fires on a larger share of its survivors.
    indicator_limit: Annotated[Number, Field(ge=0, lt=1)] = 0.05


class Verdict(Strict):
    """The ladder of ever stronger attacks, and what is made of it."""

    models: Models
    images: Count
    check_images: Count | None = None  # of these the first so many for the self-checks, the diagnosis and the libraries; None is all
    restarts: Annotated[int, Field(ge=2)] = 5
    classes: Count = 9  # of multi_targeted: so many wrong classes of each image
    steps: Count = 50  # of multi_targeted
    queries: Evaluations = 128  # model calls of SPSA's gradient in the black-box check
    autoattack: list[str] = []  # models that AutoAttack is run on too, which takes about ten times as long as all else here
    autoattack_on: Literal["all", "survivors"] = "all"  # survivors: what every wrong class left; its number is the worst case of both
    diagnosed: list[str] = []  # models whose loss surface is drawn
    # What is None or empty here is not made, and no part of any identity.
    more_rungs: list[Literal["gap", "pma", "pma_gap", "malt"]] = []  # of the ladder, by the names in artifact.methods.RUNGS
    distances: Count | None = None  # images whose least distance is searched, by FMN in l_inf and DDN in l_2
    distance_steps: Count = 100
    l2_epsilon: Positive = 0.5  # at which the least l_2 distances are read
    indicators: Count | None = None  # images on which each rung's indicators of attack failure are measured
    matched: Count | None = None  # images of the comparison of attacks at equal passes
    passes: Annotated[int, Field(ge=20)] = 500  # forward and backward passes that each attack has there for an image
    rules: Rules = Rules()


class Seeds(Strict):
    """The same rows from other draws: models that differ from one of the verdict's in their seed alone, evaluated on its ladder."""

    models: Models


class Band(Strict):
    """How close a number must come to be called reproduced: within `reproduced`, or else `near`, points of accuracy."""

    reproduced: Positive = 2.0
    near: Positive = 5.0

    @model_validator(mode="after")
    def _rising(self):
        if self.near < self.reproduced:
            raise ValueError(f"near must be at least reproduced = {self.reproduced:g}, got {self.near:g}")
        return self


class Cluster(Strict):
    """What a job of the profile asks a cluster for; no number depends on it, and it is part of no identity.

    A GPU is asked for where the profile's device is one, and as many cores as it has threads.
    """

    memory_gb: Positive = 4.0  # more than twice artifact.machine.JOB_MEMORY
    # The longest a job asks for. It asks for three times its estimate, at least half an hour; what takes longer is stopped by the cluster,
    # submitted again, and goes on from its last state.
    hours: Positive = 24.0
    retries: Annotated[int, Field(ge=0)] = 5  # submissions after the first; not counted are those that SLURM does itself
    partition: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.,-]+$")] | None = None  # None is the cluster's own default
    account: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.,-]+$")] | None = None
