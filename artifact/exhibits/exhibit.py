"""From receipts to numbers: one evaluation, a worst case, an interval, a verdict, and the words a table uses for them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from artifact.experiment import ROOT, Profile, model_receipt_path, read_receipt, unpack
from artifact.measurements.measurement import Measurement, same_checkpoints
from artifact.methods import label, look, paper_label
from artifact.receipts import receipts_read
from mmclib.intervals import mean_interval, paired_interval, wilson_interval


@dataclass(frozen=True)
class Item:
    """A table or figure ready to be written."""

    name: str  # "Table 1"
    stem: str  # "table_1"
    title: str
    says: str  # one sentence, computed from the numbers
    table: pd.DataFrame | None = None  # as it is read: rows are methods
    # every number in long form; with columns method and title, and low and high, those of the table, with `paper` the paper's beside them
    values: pd.DataFrame | None = None
    figure: Figure | Path | None = None  # as it is drawn; where its PNG lies, once it is written
    notes: str = ""
    notebook: str = ""  # where it is shown and explained
    receipts: tuple[Path, ...] = ()  # what it was drawn from

    @property
    def sentence(self) -> str:
        return self.says[:1].upper() + self.says[1:].rstrip(".") + "."

    @property
    def beside_the_paper(self) -> bool:
        """Are there numbers of the paper beside those of the table?"""
        return self.values is not None and "paper" in self.values and bool(self.values["paper"].notna().any())

    @property
    def numbers(self) -> dict[tuple[str, str], dict]:
        """The rows of `values` behind the table's cells that have an interval, by row and column of the table."""
        if self.table is None or not {"method", "title", "low", "high"} <= set(self.values.columns):
            return {}
        return {(row["method"], row["title"]): row for row in self.values.to_dict("records")
                if not pd.isna(row["low"]) and not pd.isna(row["title"])}

    def on_one_line(self, separator: str = "; ") -> pd.DataFrame | None:
        """The table for where a cell is one line of text: the lines of a cell (a claim's seeds) joined by the separator."""
        return None if self.table is None else self.table.replace("\n", separator, regex=True)


CLEAN = {"all": "Clean, all images", "clean": "Clean"}
NO_PAPER = "Our copy of the paper lacks these cells (paper: not available)."


class Missing(LookupError):
    """A receipt that an item needs is not there yet."""


class NotPlanned(Missing):
    """The profile, or the models asked for, have no part in the item."""


def chosen(planned: list[str], methods: list[str] | None) -> list[str]:
    """Those of an item's planned models that are asked for (None: all). Raises NotPlanned where there are none."""
    found = [model for model in planned if methods is None or model in methods]
    if not found:
        raise NotPlanned("this profile does not plan it for these models")
    return found


def attempt(build, profile: Profile, methods: list[str] | None = None) -> Item | None:
    """The item, or None where these models or this profile have no part in it."""
    try:
        return build(profile, methods)
    except Missing:
        return None


def as_far_as_made(build, profile: Profile, models: list[str]) -> Item:
    """The item over all its models, or over those of `models` whose receipts are there; its notes name the others.

    Raises Missing where no model's are there, NotPlanned where the profile has no part in the item.
    """
    try:
        return _traced(build, profile)
    except NotPlanned:
        raise
    except Missing as missing:
        there, away = [], []
        for model in models:
            try:
                build(profile, [model])
                there.append(model)
            except NotPlanned:
                continue
            except Missing:
                away.append(model)
        if not there:
            raise missing from None
        item = _traced(build, profile, there)
        return replace(item, notes=f"{item.notes} Not made yet: {', '.join(label(profile, model) for model in away)}.".strip())


def _traced(build, profile, methods=None):
    with receipts_read() as read:
        item = build(profile, methods)
    return replace(item, receipts=tuple(read))


def evaluation(profile: Profile, spec: Measurement) -> dict:
    """The results of one evaluation's receipt."""
    return _receipt(profile, spec)["results"]


def _receipt(profile: Profile, spec: Measurement) -> dict:
    if not spec.path(profile).exists():
        steps = f", {spec.settings['steps']} steps" if "steps" in spec.settings else ""  # one attack is asked for in several settings
        raise Missing(f"no receipt of {spec.attack} on {spec.model} ({spec.images} images{steps})")
    receipt = read_receipt(spec.path(profile))
    if not same_checkpoints(profile, receipt):
        raise Missing(f"{spec.attack} on {spec.model} was made of another checkpoint than the model's receipt names")
    return receipt


def number(results: dict) -> dict:
    """Accuracy and its 95 % interval in percent."""
    low, high = results["interval"]
    return {"accuracy": 100 * results["accuracy"], "low": 100 * low, "high": 100 * high}


def correct(profile: Profile, spec: Measurement) -> np.ndarray:
    """Which images were still classified correctly, as booleans."""
    receipt = _receipt(profile, spec)
    return unpack(receipt["results"]["correct"], receipt["data"]["images"])


def distortion(results: dict) -> dict:
    """Mean distortion over the images that had to be moved, with its standard error and 95 % interval, and the share of them that it was
    found for; None for none.

    An image that is misclassified as it is (targeted: called the target) needs none: a zero for it would say of the attack what is the
    model's clean error.
    """
    every = np.array(results["distortion"])
    moved, not_found = every[every > 0], round((1 - results["success"]) * len(every))  # those come back unmoved too
    found = {"mean_distortion": moved.mean() if len(moved) else None, "standard_error": None, "low": None, "high": None,
             "success": len(moved) / max(1, len(moved) + not_found), "moved": len(moved)}
    if len(moved) > 1:  # one alone has no spread
        found["standard_error"] = moved.std(ddof=1) / len(moved) ** 0.5
        low, found["high"] = mean_interval(found["mean_distortion"], found["standard_error"], len(moved))
        found["low"] = max(0.0, low)
    return found


def worst(flags: list[np.ndarray]) -> dict:
    """The pointwise worst case over several evaluations of the same images, as `number`."""
    left = np.logical_and.reduce(flags)
    low, high = wilson_interval(int(left.sum()), len(left))
    return {"accuracy": 100 * left.mean(), "low": 100 * low, "high": 100 * high}


class Difference(NamedTuple):
    """Of two accuracies on the same images, in points, with its paired 95 % interval and how many images are right in one alone."""

    points: float
    low: float
    high: float
    only: tuple[int, int] | None = None


FEW = 20  # images that decide a difference, below which their numbers are said beside it


def difference(first: np.ndarray, second: np.ndarray) -> Difference:
    """Difference of two accuracies on the same images."""
    only = int((first & ~second).sum()), int((second & ~first).sum())
    low, high = paired_interval(int((first & second).sum()), *only, int((~first & ~second).sum()))
    return Difference(100 * (only[0] - only[1]) / len(first), 100 * low, 100 * high, only)


def with_difference(gap: Difference) -> str:
    """A difference in points with its interval, whose ends are never rounded to 0 where they are not: that is what is looked for there.

    Where few images decide it, their numbers follow: an interval of so few is about as good as a count.
    """
    low, high = (signed(end) if round(end, 1) or not end else f"{end:+.1g}" for end in (gap.low, gap.high))
    few = f", {gap.only[0]} image{'s' * (gap.only[0] != 1)} against {gap.only[1]}" if gap.only and 0 < sum(gap.only) < FEW else ""
    return f"{signed(gap.points)} points [{low}, {high}]{few}"


def signed(points: float) -> str:
    """With its sign and one decimal; what rounds to nothing is 0.0, never -0.0."""
    return f"{points:+.1f}" if round(points, 1) else "0.0"


def clean(profile: Profile, model: str, images: int | None) -> np.ndarray:
    """Which of the first test images (None: of all) the trained model classifies correctly, as booleans."""
    if not model_receipt_path(profile, model).exists():
        raise Missing(f"{model} is not trained")
    receipt = read_receipt(model_receipt_path(profile, model))
    return unpack(receipt["results"]["test_correct"], receipt["data"]["test_images"])[:images]


def clean_of_all(profile: Profile, model: str) -> dict[str, dict]:
    """Clean accuracy on all test images, which the paper's is of, as a cell of the column "all"; none where as many are attacked."""
    right = clean(profile, model, None)
    return {"all": worst([right])} if len(right) > profile.white_box.images else {}


def trained_in(profile: Profile, names: dict[str, str]) -> str:
    """What precision the models were trained in, by their names, as a sentence behind a table's notes; nothing where it is one."""
    found: dict[str, list[str]] = {}
    for model, name in names.items():
        if model_receipt_path(profile, model).exists():
            found.setdefault(read_receipt(model_receipt_path(profile, model))["provenance"]["precision"], []).append(name)
    return f" Trained in {'; in '.join(f'{one}: ' + ', '.join(of) for one, of in found.items())}." if len(found) > 1 else ""


def looks(profile: Profile, models) -> dict[str, dict]:
    """How each model is drawn, by its key."""
    return {model: look(profile, model) for model in models}


def pivot(values: pd.DataFrame, titles: list[str] | None = None) -> pd.DataFrame:
    """The table of a tidy frame: a row for each method, a column for each title, both in their first order unless titles are given.

    A cell is what `cell_text` says of its row of the frame, "–" where the frame has none.
    """
    texts = values.assign(text=values.apply(cell_text, axis=1)).pivot(index="method", columns="title", values="text")
    texts = texts.reindex(index=list(dict.fromkeys(values["method"])), columns=titles or list(dict.fromkeys(values["title"])))
    return texts.astype(object).fillna("–").rename_axis(None).rename_axis(None, axis=1)


def cell_number(row) -> float | None:
    """The number of a tidy frame's row: its accuracy (%), or its mean distortion; None where there is neither."""
    return next((row[name] for name in ("accuracy", "mean_distortion") if not pd.isna(row.get(name))), None)


def cell_text(row, between: str = "") -> str:
    """The number of a tidy frame's row as a table prints it, accuracies with one decimal, distortions with three; or its interval's ends
    with `between` them."""
    value = cell_number(row)
    if value is None:
        return "none found"
    digits = 1 if value == row.get("accuracy") else 3
    return f"{row['low']:.{digits}f}{between}{row['high']:.{digits}f}" if between else f"{value:.{digits}f}"


def worded(table: pd.DataFrame) -> list[bool]:
    """Which columns hold sentences, which read from the left."""
    return [bool(table.iloc[:, place].astype(str).str.contains("[a-z]{4}").any()) for place in range(table.shape[1])]


def with_interval(cell: dict) -> str:
    return f"{cell['accuracy']:.1f} % [{cell['low']:.1f}, {cell['high']:.1f}]"


def paper_table(name: str, index: str = "method") -> pd.DataFrame:
    """One of the tables under paper/ as it is printed; rows by method, cells as text."""
    return pd.read_csv(ROOT / "paper" / name, comment="#", dtype=str, encoding="utf-8").set_index(index)


def papers_cell(profile: Profile, model: str, column: str) -> str | None:
    """What the paper prints for a model's row in a column of its Table 1, None where this profile's is of other data (the paper's is
    CIFAR-10), steps or epsilon."""
    if profile.dataset(model) != "cifar10" or column_title(profile, column) != papers_title(column):
        return None
    return paper_table("table1.csv")[column].get(paper_label(profile, model))


def papers_title(column: str) -> str:
    """`pgd10_un_8` as "PGD-10 un, ε = 8/255", by the name of the paper's column."""
    attack, _, rest = column.partition("_")
    return "Clean" if column == "clean" else f"PGD-{attack.removeprefix('pgd')} {rest.replace('_', ', ε = ')}/255"


def verdict(profile: Profile, ours: float, printed: str | None) -> str:
    """Whether a number of the paper was reproduced, by the profile's band (points of accuracy)."""
    if not profile.comparable:
        return "not comparable: other data or length"
    if printed is None or pd.isna(printed):
        return "paper: not available"
    bound = float(printed.removeprefix("<="))
    away = max(0.0, ours - bound) if printed.startswith("<=") else abs(ours - bound)
    return "reproduced" if away <= profile.band.reproduced else "near" if away <= profile.band.near else "differs"


def column_title(profile: Profile, column: str) -> str:
    """`pgd10_un_8` as "PGD-10 un, ε = 8/255", with the profile's own steps and epsilon."""
    if column in CLEAN:
        return CLEAN[column]
    attack, goal, place = column.split("_")
    steps = profile.white_box.steps[{"pgd10": 0, "pgd50": 1}[attack]]
    return f"PGD-{steps} {goal}, ε = {epsilon_text(profile.white_box.epsilons[{'8': 0, '16': 1}[place]])}"


def epsilon_text(epsilon: float) -> str:
    """8/255 as the paper writes it, other values as they are."""
    if round(epsilon, 3) == epsilon:
        return f"{epsilon:g}"
    whole = epsilon * 255
    return f"{round(whole)}/255" if abs(whole - round(whole)) < 1e-6 and whole >= 1 else f"{epsilon:g}"


def in_255ths(profile: Profile) -> bool:
    """Is epsilon said in 255ths of a pixel's range, as the paper does?"""
    return "/255" in epsilon_text(profile.white_box.epsilons[0])


def figure_title(profile: Profile, text: str) -> str:
    title = profile.title.replace("$", r"\$")  # a title is text, not Matplotlib's mathematics
    return f"{text}\n{title}" if profile.stand_in() else text
