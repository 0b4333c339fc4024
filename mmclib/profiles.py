"""Profiles: what to train, what to attack and how hard, read from profiles/*.yaml and refused with a sentence where they are wrong."""

from fractions import Fraction
from pathlib import Path
from types import UnionType
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

ROOT = Path(__file__).resolve().parent.parent
CLASSES = {"digits": 10, "digit-pairs": 100, "mnist": 10, "cifar10": 10, "cifar100": 100}
STAND_INS = ("digits", "digit-pairs")


def _number(value):
    # "8/255" as the paper writes it, and "1e-4", which YAML takes for a string.
    if isinstance(value, str):
        try:
            return float(Fraction(value.replace(" ", "")))
        except (ValueError, ZeroDivisionError):
            return value
    return value


Number = Annotated[float, BeforeValidator(_number)]
Positive = Annotated[Number, Field(gt=0)]
Ball = Annotated[Number, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Training(Strict):
    """One network on one data set and how it is trained (Sec. 4.1)."""

    dataset: Literal["digits", "digit-pairs", "mnist", "cifar10", "cifar100"]
    train_images: Count | None = None  # the first so many only; None is all
    architecture: Literal["small_convnet", "resnet"]
    blocks: Count = 5
    version: Literal[1, 2] = 2
    feature_dim: Annotated[int, Field(ge=2)]
    epochs: Count
    batch_size: Count = 50
    learning_rate: Positive = 0.01
    milestones: list[Count] = [100, 150]
    decay: Positive = 0.1
    momentum: Annotated[Number, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[Number, Field(ge=0)] = 2e-4
    shift: Ball = 0.1
    flip: bool = True
    # Adversarial training's PGD, for the models that ask for it.
    epsilon: Ball = 8 / 255
    step_size: Positive = 2 / 255
    steps: Count = 10
    rate: Positive  # gradients of one image per second on the machine the profile is meant for: estimates only

    @model_validator(mode="after")
    def _milestones(self):
        if sorted(self.milestones) != self.milestones or any(m >= self.epochs for m in self.milestones):
            raise ValueError(f"milestones must rise and stay below epochs = {self.epochs}, got {self.milestones}")
        return self


class Model(Strict):
    """One row of the tables: a loss, with or without adversarial training."""

    training: str
    loss: Literal["sce", "center", "lgm", "mmlda", "mmc", "mmc-rand"]
    radius: Positive = 10.0  # C_MM
    # 1 is the authors' code, 1/2 is Eq. 8; the paper's numbers came from the code.
    scale: Positive = 1.0
    adversarial: Literal["targeted", "untargeted"] | None = None
    seed: int = 0


class WhiteBox(Strict):
    """Table 1: PGD, its convergence check, and accuracy against epsilon."""

    models: list[str]
    images: Count
    epsilons: Annotated[list[Ball], Field(min_length=2, max_length=2)]
    step_size: Positive
    steps: Annotated[list[Count], Field(min_length=2, max_length=2)] = [10, 50]
    restarts: Count = 1
    convergence_steps: list[Count] = [100, 200]
    convergence_models: list[str] = []
    curve_epsilons: list[Ball] = []


class CarliniWagner(Strict):
    """Table 2, part I: minimal l_2 distortion."""

    models: list[str]
    images: Count = 500
    binary_search_steps: Count = 9
    initial_const: Positive = 0.01
    steps: Count = 1000
    learning_rate: Positive = 0.005


class Spsa(Strict):
    """Table 2, part II, and Table 3: the attack without gradients."""

    models: list[str]
    images: Count = 1000
    epsilons: Annotated[list[Ball], Field(min_length=2, max_length=2)]
    evaluations: Annotated[int, Field(ge=2)] = 128
    steps: Count = 10
    learning_rate: Positive = 0.01
    delta: Positive = 0.01
    table_3_model: str
    table_3_evaluations: list[Annotated[int, Field(ge=2)]] = [128, 4096, 8192]


class Transformations(Strict):
    """Table 2, part III: Gaussian noise and rotation."""

    models: list[str]
    images: Count = 1000
    sigma: Positive = 0.05
    degrees: Positive = 30.0
    draws: Count = 5  # accuracy is the mean over so many


class Transfer(Strict):
    """Fig. 4: examples crafted on one model and tried on the others."""

    models: list[str]
    images: Count
    epsilons: Annotated[list[Ball], Field(min_length=2, max_length=2)]
    step_size: Positive
    steps: Count = 10
    decay: Annotated[Number, Field(ge=0)] = 1.0


class Plane(Strict):
    """Fig. 3b: attacks seen in a two-dimensional feature space."""

    model: str
    epsilon: Ball = 0.3
    step_size: Positive = 0.01
    steps: Count = 50
    features: Count = 10_000
    inputs: Count = 2


class Band(Strict):
    """How close a number must come to be called reproduced: within `reproduced`, or else `near`, points of accuracy."""

    reproduced: Positive = 2.0
    near: Positive = 5.0


class Profile(Strict):
    """What to train, what to attack, and how hard."""

    title: str
    device: Literal["cpu", "cuda"] = "cpu"
    threads: Count = 1  # per job; part of what CPU results depend on, to the bit
    precision: Literal["float32", "bfloat16"] = "float32"
    batch_size: Count = 256
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
    band: Band = Band()
    # Is this the paper's data at the paper's length, so that a number can be called reproduced or not?
    comparable: bool = False
    # Set by load_profile, not in the file: the file's stem, and what it was asked for by.
    name: str = ""
    source: str = ""

    @model_validator(mode="after")
    def _references(self):
        for key, model in self.models.items():
            if model.training not in self.training:
                raise ValueError(f"models.{key}.training is {model.training!r}; known: {', '.join(self.training)}")
            training = self.training[model.training]
            classes = CLASSES[training.dataset]
            # Two features are for looking at (Fig. 3b): there the centers are a regular polygon.
            if model.loss in ("mmc", "mmlda") and classes > training.feature_dim + 1 and training.feature_dim != 2:
                raise ValueError(f"models.{key}: {classes} Max-Mahalanobis centers need feature_dim >= {classes - 1}, "
                                 f"but training.{model.training}.feature_dim is {training.feature_dim}")
        for section in ("white_box", "carlini_wagner", "spsa", "transformations", "transfer", "plane"):
            for field, value in (getattr(self, section) or Strict()).model_dump().items():
                if field in ("model", "models", "convergence_models", "table_3_model"):
                    for key in [value] if isinstance(value, str) else value:
                        if key not in self.models:
                            raise ValueError(f"{section}.{field} names {key!r}; known models: {', '.join(self.models)}")
        if self.plane and self.training[self.models[self.plane.model].training].feature_dim != 2:
            raise ValueError(f"plane.model is {self.plane.model!r}, whose features must have 2 dimensions to be drawn")
        if self.plane and self.plane.model.removesuffix("-2d") not in self.white_box.models:
            raise ValueError(f"plane.model is {self.plane.model!r}; it must be a model of white_box with '-2d' appended")
        return self

    def dataset(self, model: str) -> str:
        return self.training[self.models[model].training].dataset

    def at_networks(self) -> list[Training]:
        """The training settings that models with adversarial training use, each once."""
        used = dict.fromkeys(model.training for model in self.models.values() if model.adversarial)
        return [self.training[name] for name in used]

    def stand_in(self) -> bool:
        return any(training.dataset in STAND_INS for training in self.training.values())


def _allowed_keys(where: tuple) -> list[str]:
    kind = Profile
    for step in where:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = kind.model_fields[step].annotation
            kind = kind.__args__[0] if isinstance(kind, UnionType) else kind  # X | None -> X
        else:
            kind = kind.__args__[-1]  # dict[str, X] -> X, list[X] -> X
    return sorted(set(kind.model_fields) - {"name", "source"})


def load_profile(name: str) -> Profile:
    """Read and validate profiles/<name>.yaml (or a path to a YAML file).

    Raises ValueError with a sentence for each fault that names the file, the key, and what is allowed.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else ROOT / "profiles" / f"{name}.yaml"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in (ROOT / "profiles").glob("*.yaml")))
        raise ValueError(f"there is no profile {name!r}; known: {known}, or the path of a YAML file")
    shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    try:
        settings = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{shown} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{shown} must hold a mapping of keys to values, got {type(settings).__name__}")
    try:
        return Profile(**settings | {"name": path.stem, "source": name})
    except ValidationError as error:
        raise ValueError("\n".join(f"{shown}: {_sentence(fault)}" for fault in error.errors())) from None


def _sentence(fault: dict) -> str:
    where = ".".join(str(step) for step in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"unknown key {where!r}; allowed here: {', '.join(_allowed_keys(fault['loc'][:-1]))}"
    if fault["type"] == "missing":
        return f"key {where!r} is missing"
    message = fault["msg"].removeprefix("Value error, ")
    return f"{where}: {message}, got {fault['input']!r}" if where else message
