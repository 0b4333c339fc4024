"""Drawing of the verdict's deeper exhibits: whole curves, margins against distances, and attacks by the passes they take."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from artifact.exhibits.figures import WIDE, styled
from artifact.methods import OBJECTIVES, RUNGS, mathtext

COLOURS = {"cross_entropy": OBJECTIVES["cross_entropy"].colour, "divided": "#0072B2", "gap": "#009E73", "pma": "#CC79A7",
           "pma_gap": "#E69F00", "untargeted_1": OBJECTIVES["untargeted_1"].colour, "untargeted_2": OBJECTIVES["untargeted_2"].colour,
           "malt": "#7B4B94", "multi_targeted": "#000000"}
_UNIT = {True: r"$\ell_\infty$, in 1/255", False: r"$\ell_\infty$, pixels in [0, 1]"}


def _panels(looks: dict) -> dict[str, list[str]]:
    found = {"standard training": [model for model in looks if looks[model]["linestyle"] == "-"],
             "adversarial training": [model for model in looks if looks[model]["linestyle"] != "-"]}
    return {title: models for title, models in found.items() if models}


def _ticks(axis, scale):
    # On a log axis of pixels: 0.01 rather than 10^-2, and few enough to stand beside each other.
    low, high = axis.get_xlim()
    places = [base * 10.0**power for power in range(-5, 4) for base in (1, 2, 5)]
    shown = [place for place in places if low <= place <= high]
    if len(shown) > 7:
        shown = [place for place in shown if f"{place:e}"[0] == "1"]
    axis.set_xticks(shown, [f"{place:g}" for place in shown])
    axis.minorticks_off()


@styled
def whole_curve(data: pd.DataFrame, looks: dict, epsilon: float, in_255ths: bool, title: str):
    """Accuracy against epsilon as steps, on a log axis; `data`: model, epsilon, accuracy, low, high (%). `epsilon` is marked."""
    scale, panels = 255 if in_255ths else 1, _panels(looks)
    most = max(map(len, panels.values()))
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDE, 2.9 + 0.16 * most), sharex=True, sharey=True, squeeze=False)
    above = data["epsilon"][data["epsilon"] > 0]
    start, end = max(0.7 * above.min(), epsilon / 200), max(1.2 * data[data["accuracy"] > 0]["epsilon"].max(), 2 * epsilon)
    for axis, (name, models) in zip(axes[0], panels.items(), strict=True):
        for model in models:
            rows, own = data[data["model"] == model], looks[model]
            places = scale * np.array([start, *rows["epsilon"].clip(lower=start), end])
            heights = {column: [rows[column].iloc[0], *rows[column], rows[column].iloc[-1]] for column in ("accuracy", "low", "high")}
            if len(models) <= 3:
                axis.fill_between(places, heights["low"], heights["high"], step="post", color=own["color"], alpha=0.15, linewidth=0)
            axis.plot(places, heights["accuracy"], drawstyle="steps-post", **own | {"markevery": max(1, len(places) // 6)})
        axis.axvline(scale * epsilon, color="black", linewidth=0.9, linestyle=(0, (5, 3)), label=r"the ladder's $\varepsilon$")
        axis.set(xscale="log", xlim=(scale * start, scale * end), ylim=(-2, 102), title=name, xlabel=rf"$\varepsilon$ ({_UNIT[in_255ths]})")
        _ticks(axis, scale)
        axis.legend(loc="upper left", bbox_to_anchor=(0, -0.2))
    axes[0][0].set_ylabel("accuracy, worst case (%)")
    figure.suptitle(title)
    return figure


@styled
def why(data: pd.DataFrame, looks: dict, in_255ths: bool, classes: int, title: str):
    """Margin of the feature against the least distance, one point an image that is right; `data`: model, margin, relative, linf.

    Diamonds are medians; the dashed line is the margin of features that lie on evenly spread centers of `classes` classes.
    """
    scale, panels = 255 if in_255ths else 1, _panels(looks)
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDE, 3.6), sharey=True, squeeze=False, sharex=True)
    for axis, (name, models) in zip(axes[0], panels.items(), strict=True):
        axis.axhline((classes / 2 / (classes - 1)) ** 0.5, color="0.3", linewidth=0.9, linestyle=(0, (5, 3)),
                     label="all features on evenly spread centers")
        for model in models:
            rows, own = data[(data["model"] == model) & (data["margin"] > 0) & np.isfinite(data["linf"])], looks[model]
            axis.plot(scale * rows["linf"], rows["relative"], own["marker"], color=own["color"], markersize=3, alpha=0.45,
                      markeredgewidth=0, label=own["label"])
            if len(rows):
                axis.plot(scale * rows["linf"].median(), rows["relative"].median(), "D", color=own["color"], markersize=8,
                          markeredgecolor="black", markeredgewidth=0.9, zorder=4)
        axis.plot([], [], "D", color="white", markeredgecolor="black", markersize=6, label="median")
        axis.set(xscale="log", title=name, xlabel=f"distance of the nearest adversarial\n({_UNIT[in_255ths]})", ylim=(0, None))
        axis.legend(loc="upper left", bbox_to_anchor=(0, -0.26))
    _ticks(axes[0][0], scale)
    axes[0][0].set_ylabel("margin of the feature\n(in the features' spread)")
    figure.suptitle(title)
    return figure


@styled
def equal_passes(data: pd.DataFrame, names: dict, budget: int, title: str):
    """A panel for each model: accuracy at epsilon against the passes that an image has had; `data`: model, attack, passes, accuracy."""
    models = list(names)
    across = min(2, len(models))
    down = -(-len(models) // across)
    figure, axes = plt.subplots(down, across, figsize=(WIDE, 0.9 + 1.9 * down), sharex=True, sharey=True, squeeze=False)
    attacks = [name for name in RUNGS if name in set(data["attack"])]
    for axis, model in zip(axes.flat, models, strict=False):
        for name in attacks:
            rows = data[(data["model"] == model) & (data["attack"] == name)]
            if len(rows):
                axis.plot(rows["passes"], rows["accuracy"], drawstyle="steps-post", color=COLOURS[name])
        axis.set(xscale="log", xlim=(1, budget), ylim=(-2, 102), title=names[model])
        _ticks(axis, 1)
    for axis in axes.flat[len(models):]:
        axis.set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("forward and backward passes of an image")
    for row in axes:
        row[0].set_ylabel("accuracy (%)")
    for name in attacks:
        axes[0][0].plot([], [], color=COLOURS[name], label=mathtext(RUNGS[name]))
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle(title)
    return figure
