"""Drawing of the verdict: accuracy down the ladder, and why cross-entropy is blind."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from artifact.exhibits.figures import WIDE, error, styled
from artifact.methods import OBJECTIVES, RUNGS, mathtext


@styled
def ladder(data: pd.DataFrame, looks: dict, claims: dict, title: str):
    """Worst case so far, rungs downwards from clean accuracy, and small and hollow each attack's own accuracy.

    `data` has columns model, rung, own, accuracy, low, high (%); `claims` maps a model to the accuracy that the paper prints for it.
    """
    titles = {"clean": "no attack"} | {name: text for name, text in RUNGS.items() if name in set(data["rung"])}
    places = {name: place for place, name in enumerate(titles)}
    groups = {adversarial: [model for model in looks if (looks[model]["linestyle"] != "-") is adversarial] for adversarial in (False, True)}
    groups = {adversarial: models for adversarial, models in groups.items() if models}
    most = max(map(len, groups.values()))
    figure, axes = plt.subplots(1, len(groups), figsize=(WIDE, 3.9 + 0.16 * max(0, most - 2)), sharex=True, sharey=True, squeeze=False)
    for axis, (adversarial, models) in zip(axes[0], groups.items(), strict=True):
        for number, model in enumerate(models):
            rows, own = data[data["model"] == model], looks[model]
            aside = (number - (len(models) - 1) / 2) * min(0.16, 0.6 / len(models))  # side by side, so that intervals stay readable
            where = rows["rung"].map(places) + aside
            text = f"{own['label']}: {rows['accuracy'].iloc[0]:.1f} % → {rows['accuracy'].iloc[-1]:.1f} %"
            axis.errorbar(rows["accuracy"], where, xerr=error(rows), elinewidth=0.9, capsize=1.5, **own | {"label": text, "linestyle": "-"})
            apart = rows["own"] > rows["accuracy"] + 1e-9
            axis.plot(rows["own"][apart], where[apart], own["marker"], color=own["color"], markerfacecolor="white", markeredgewidth=0.8)
            if model in claims:
                axis.axvline(claims[model], color=own["color"], linestyle=(0, (5, 3)), linewidth=1.2, zorder=1.5,
                             label=f"the paper's {claims[model]:.1f} %, trained at full length")
        axis.set_yticks(range(len(titles)), [mathtext(text) for text in titles.values()])
        axis.set(xlim=(-2, 100), ylim=(len(titles) - 0.5, -0.5), xlabel="accuracy, worst case so far (%)",
                 title="adversarial training" if adversarial else "standard training")
        axis.plot([], [], "o", color="0.4", markerfacecolor="white", markeredgewidth=0.8, label="hollow: this attack alone")
        axis.legend(loc="upper left", bbox_to_anchor=(0, -0.13))
    figure.suptitle(title)
    return figure


@styled
def diagnosis(seen: dict, looks: dict, title: str):
    """A row for each model: logit gaps, margin against iteration, two loss surfaces; `seen` holds receipts' results by model."""
    figure, axes = plt.subplots(len(seen), 4, figsize=(WIDE, 0.75 + 1.5 * len(seen)), squeeze=False, width_ratios=(1, 1, 0.95, 0.95))
    for row, (model, results) in zip(axes, seen.items(), strict=True):
        gap = np.asarray(results["gap"])
        row[0].hist(gap, bins=24, color=looks[model]["color"])
        if gap.max() > 50:
            row[0].axvline(104, color="black", linewidth=0.8, linestyle="--")  # exp(-104) is zero in float32
        row[0].set(ylabel=f"{looks[model]['label']}\nimages")
        for name, path in reversed(results["paths"].items()):  # grey last, dotted, over what it would hide under
            own = {"linestyle": ":", "zorder": 3} if name == "cross_entropy" else {}
            row[1].plot(path["margin"], color=OBJECTIVES[name].colour, label=mathtext(OBJECTIVES[name].name), **own)
        row[1].axhline(0, color="black", linewidth=0.6)
        axis = np.asarray(results["surface"]["axis"])
        for place, name in ((2, "cross_entropy"), (3, "untargeted_2")):
            values = np.asarray(results["surface"][name]).T
            drawn = row[place].pcolormesh(255 * axis, 255 * axis, values, cmap="cividis", shading="nearest", rasterized=True)
            if np.ptp(values) > 0:
                figure.colorbar(drawn, ax=row[place], label="loss")
            else:
                row[place].text(0.5, 0.5, f"exactly {abs(values[0, 0]):g}\neverywhere", transform=row[place].transAxes, ha="center",
                                va="center", color="white")
            row[place].grid(False)
            row[place].set(aspect="equal")
        row[2].set_ylabel("random signs (/255)")
    for axis, text in zip(axes[0], ("logit gaps", "margin by objective", "cross-entropy", "margin loss"), strict=True):
        axis.set_title(text)
    along = "along the margin's\ngradient (/255)"
    for axis, text in zip(axes[-1], ("true logit − best other\n(dashed: softmax saturates)", "PGD step", along, along), strict=True):
        axis.set_xlabel(text)
    for row in axes:
        row[1].set_ylabel("median margin")
    handles, texts = axes[0][1].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=4)
    figure.suptitle(title)
    return figure
