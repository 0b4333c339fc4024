"""Drawing: the one style, the one way to save, and the figures that show training and attacks. Pure functions of what is given.

Wherever a function takes `looks`, it maps a model's key to what `artifact.methods.look` says of it, in the order of drawing.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from artifact.exhibits.exhibit import epsilon_text
from artifact.methods import OBJECTIVES, mathtext

STYLE = Path(__file__).with_name("mmc.mplstyle")
NARROW, WIDE = 84 / 25.4, 174 / 25.4  # inches: a column and a page of 84 and 174 mm
# Whatever a user's own matplotlibrc says, a figure is drawn, and later saved, over matplotlib's defaults.
styled = plt.style.context(["default", STYLE])


def save(figure, folder: Path, stem: str, data: pd.DataFrame) -> list[str]:
    """Write a figure as PDF and PNG with the numbers that it shows as CSV, without clock times in the files."""
    folder.mkdir(parents=True, exist_ok=True)
    with plt.style.context(["default", STYLE]):
        figure.savefig(folder / f"{stem}.pdf", metadata={"CreationDate": None, "Producer": None, "Creator": None})
        figure.savefig(folder / f"{stem}.png", metadata={"Software": None})
    plt.close(figure)
    data.to_csv(folder / f"{stem}.csv", index=False, encoding="utf-8")
    return [f"{stem}.{ending}" for ending in ("pdf", "png", "csv")]


def error(rows: pd.DataFrame) -> list[pd.Series]:
    """The lengths of an interval's two sides, as `errorbar` wants them."""
    return [(rows["accuracy"] - rows["low"]).clip(lower=0), (rows["high"] - rows["accuracy"]).clip(lower=0)]


@styled
def training_curves(data: pd.DataFrame, looks: dict, title: str):
    """Fig. 3a: test error by epoch; `data` has columns model, epoch, test_error (%)."""
    # Standard and adversarial training in panels of their own, where there is any.
    panels = [[model for model in looks if (looks[model]["linestyle"] != "-") is adversarial] for adversarial in (False, True)]
    panels = [models for models in panels if models]
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDE if len(panels) > 1 else NARROW, 2.9), sharey=True, squeeze=False)
    for axis, models in zip(axes[0], panels, strict=True):
        for model in models:
            rows, own = data[data["model"] == model], looks[model]
            bold = len(models) <= 4 or own["label"] in ("SCE", "MMC-10")  # of many, the two that the claim is about
            axis.plot(rows["epoch"], rows["test_error"], markevery=max(1, len(rows) // 8), **own | {"linewidth": 1.8 if bold else 0.9})
        axis.set(xlabel="epoch", title="adversarial training" if looks[models[0]]["linestyle"] != "-" else "standard training")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend(ncols=2)
    axes[0][0].set(ylabel="test error (%)", ylim=(0, None))
    figure.suptitle(title)
    return figure


@styled
def accuracy_against_epsilon(data: pd.DataFrame, looks: dict, title: str):
    """Accuracy against epsilon, the intervals of standard training shaded; `data`: model, epsilon, accuracy, low, high (%)."""
    figure, axis = plt.subplots(figsize=(NARROW, 2.9))
    for model, own in looks.items():
        rows = data[data["model"] == model]
        if len(looks) <= 4 or own["label"] in ("SCE", "MMC-10"):  # ten bands would be mud
            axis.fill_between(rows["epsilon"], rows["low"], rows["high"], color=own["color"], alpha=0.15, linewidth=0)
        axis.plot(rows["epsilon"], rows["accuracy"], **own)
    places = sorted(set(data["epsilon"]))
    whole = all(abs(place * 255 - round(place * 255)) < 1e-6 for place in places)
    axis.set_xticks(places, [f"{place * 255:.0f}" if whole else f"{place:g}" for place in places])
    axis.set(xlabel=r"$\varepsilon$ ($\ell_\infty$, in 1/255)" if whole else r"$\varepsilon$ ($\ell_\infty$)", ylabel="accuracy (%)",
             ylim=(0, 100), title=title)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@styled
def against_radius(data: pd.DataFrame, title: str):
    """Clean and robust accuracy against C_MM; `data` has columns radius, column ("clean", "worst"), accuracy, low, high (%)."""
    figure, axis = plt.subplots(figsize=(NARROW, 2.7))
    for column, text, colour, marker in (("clean", "clean", "#0072B2", "o"),
                                         ("untargeted_1", OBJECTIVES["untargeted_1"].name, OBJECTIVES["untargeted_1"].colour, "^"),
                                         ("worst", "worst case of two", "#D55E00", "P")):
        rows = data[data["column"] == column].sort_values("radius")
        axis.fill_between(rows["radius"], rows["low"], rows["high"], color=colour, alpha=0.15, linewidth=0)
        axis.plot(rows["radius"], rows["accuracy"], color=colour, marker=marker, label=mathtext(text))
    axis.set(xscale="log", xlabel=r"$C_{\mathrm{MM}}$", ylabel="accuracy (%)", ylim=(-2, 102), title=title)
    axis.set_xticks(sorted(set(data["radius"])), [f"{value:g}" for value in sorted(set(data["radius"]))])
    axis.minorticks_off()
    figure.legend(loc="outside lower center", ncols=3)
    return figure


@styled
def objective_bars(data: pd.DataFrame, looks: dict, title: str):
    """Accuracy of each model under each objective, the largest gap first; `data`: model, objective, accuracy, low, high (%)."""
    shown = ("cross_entropy", "untargeted_1", "untargeted_2", "worst")
    by = data.set_index(["model", "objective"])["accuracy"]
    models = sorted(looks, key=lambda model: by[model, "worst"] - by[model, "cross_entropy"])
    figure, axis = plt.subplots(figsize=(WIDE, 0.9 + 0.5 * len(models)))
    for place, name in enumerate(shown):
        rows = data[data["objective"] == name].set_index("model").loc[models]
        where = [index + (place - 1.5) * 0.2 for index in range(len(models))]
        axis.barh(where, rows["accuracy"], 0.2, color=OBJECTIVES[name].colour, label=mathtext(OBJECTIVES[name].name), xerr=error(rows),
                  error_kw={"elinewidth": 0.7, "ecolor": "0.35"})
        for y, accuracy, high in zip(where, rows["accuracy"], rows["high"], strict=True):
            axis.annotate(f"{accuracy:.1f}", (high, y), (3, 0), textcoords="offset points", va="center", fontsize="x-small")
    axis.set_yticks(range(len(models)), [looks[model]["label"] for model in models])
    axis.set(xlabel="accuracy (%)", xlim=(0, min(100, 1.12 * data["high"].max())), title=title)
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    figure.legend(loc="outside lower center", ncols=4)
    return figure


@styled
def transfer_matrices(data: pd.DataFrame, names: dict, paper: pd.DataFrame, title: str):
    """Fig. 4: one heat map for each attack and epsilon, white box framed; below, what is left of the paper's.

    `data` has columns attack, epsilon, substitute, target, accuracy (%), `paper` the same with names for models; `names` maps keys to
    short names.
    """
    ours = data.assign(substitute=data["substitute"].map(names), target=data["target"].map(names))
    panels = list(ours.groupby(["attack", "epsilon"]))
    most = [10 * np.ceil(part["accuracy"].max() / 10) for part in (ours, paper)]
    heights = [ours["substitute"].nunique(), paper["substitute"].nunique()]
    figure, axes = plt.subplots(2, len(panels), figsize=(WIDE, 1.7 + 0.32 * sum(heights)), sharey="row", squeeze=False,
                                height_ratios=heights)
    for row, frame, top, who in zip(axes, (ours, paper), most, ("ours", "the paper"), strict=True):
        for axis, ((attack, epsilon), rows) in zip(row, frame.groupby(["attack", "epsilon"]), strict=False):
            across, down = list(dict.fromkeys(rows["target"])), list(dict.fromkeys(rows["substitute"]))
            matrix = rows.pivot(index="substitute", columns="target", values="accuracy").loc[down, across]
            drawn = axis.imshow(matrix, cmap="cividis", vmin=0, vmax=top, aspect="auto")
            for (y, x), value in np.ndenumerate(matrix.to_numpy()):
                axis.text(x, y, f"{value:.0f}", ha="center", va="center", color="white" if value < 0.55 * top else "black",
                          fontsize="small")
                if across[x] == down[y]:  # crafted on the very model: white box
                    axis.add_patch(plt.Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor="#D55E00", linewidth=1.6, clip_on=False))
            axis.set_xticks(range(len(across)), across, rotation=90 if len(across) > 2 else 0)
            axis.set_yticks(range(len(down)), down)
            axis.set(title=rf"{attack}, $\varepsilon$ = {epsilon_text(epsilon)}")
            axis.tick_params(length=0)
            axis.grid(False)
        figure.colorbar(drawn, ax=row, label="accuracy (%)")
        row[0].set_ylabel(f"{who}:\ncrafted on")
    axes[0][0].figure.supxlabel("tried on", fontsize="medium")
    figure.suptitle(title)
    return figure


@styled
def attack_paths(results: dict, title: str):
    """Fig. 3b: the test features by class, and where each objective drives the attacked inputs; `results` from the receipt.

    A cross marks the first step at which the nearest center is no longer the input's class.
    """
    marked = ((10, 3.5), (50, 6.0))  # steps and their markers' sizes
    drawn = {"cross_entropy": ("cross-entropy, not adaptive", "#606060"),
             "untargeted_1": (mathtext(OBJECTIVES["untargeted_1"].name), "#0072B2"),
             "targeted_1": (mathtext(OBJECTIVES["targeted_1"].name), OBJECTIVES["targeted_1"].colour)}
    inputs, centers, labels = results["inputs"], np.array(results["centers"]), np.array(results["labels"])
    points = np.array(results["features"])
    span = 1.55 * np.linalg.norm(centers, axis=1).max()
    white = {"color": "white", "linewidth": 3.2, "solid_capstyle": "round"}
    figure, axes = plt.subplots(1, len(inputs), figsize=(WIDE, 3.9), sharey=True, squeeze=False)
    for place, axis in enumerate(axes[0]):
        axis.scatter(*points.T, c=labels, cmap="tab10", s=3, alpha=0.18, linewidths=0, rasterized=True)
        for number, center in enumerate(centers):  # outside the ring, where no path ends
            axis.plot(*center, "+", color="black", markersize=5, markeredgewidth=0.8, zorder=3)
            axis.annotate(str(number), 1.14 * center, ha="center", va="center", color="0.25", weight="bold")
        for name, (text, colour) in drawn.items():
            path = np.array(results["paths"][name][place])
            axis.plot(*path.T, zorder=4, **white)
            axis.plot(*path.T, color=colour, linewidth=1.3, label=text, zorder=5)
            for step, size in (mark for mark in marked if mark[0] < len(path)):
                axis.plot(*path[step], "o", color=colour, markersize=size, markeredgecolor="white", markeredgewidth=0.6, zorder=6)
            if (step := first_fooled(path, centers, labels[inputs[place]])) is not None:
                axis.plot(*path[step], "X", color=colour, markersize=8, markeredgecolor="white", markeredgewidth=0.7, zorder=7)
            out = np.flatnonzero(np.abs(path).max(1) > span)
            if len(out):  # the path goes on beyond the panel: an arrow at the border
                last, past = path[out[0] - 1], path[out[0]]
                reach = min((0.99 * span - s * a) / (s * (b - a)) for a, b in zip(last, past, strict=True) for s in (1, -1) if s * b > span)
                arrow = {"arrowstyle": "-|>", "color": colour, "shrinkA": 0, "shrinkB": 0}
                axis.annotate("", last + reach * (past - last), last, arrowprops=arrow, zorder=7)
        axis.plot(*results["paths"]["cross_entropy"][place][0], "*", color="black", markersize=11, markeredgecolor="white", zorder=8)
        axis.set(title=f"input {place + 1}: class {labels[inputs[place]]}, target {results['targets'][place]}", xlabel="$z_1$",
                 xlim=(-span, span), ylim=(-span, span), aspect="equal")
        axis.grid(False)
    axes[0][0].set_ylabel("$z_2$")
    for text, marker, size in (("clean input", "*", 9), ("Iter-10", "o", 3.5), ("Iter-50", "o", 6), ("first misclassified", "X", 7)):
        axes[0][0].plot([], [], marker, color="black", markersize=size, linestyle="none", label=text)
    handles, texts = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=4)
    figure.suptitle(title)
    return figure


def first_fooled(path, centers, label) -> int | None:
    """The first step of a path of features whose nearest center is not its class's, which is what MMC predicts; None if there is none."""
    distance = np.linalg.norm(np.asarray(path)[:, None] - np.asarray(centers)[None], axis=2)
    wrong = np.flatnonzero(distance.argmin(1) != label)
    return int(wrong[0]) if len(wrong) else None
