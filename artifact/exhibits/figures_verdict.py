"""Drawing of the verdict: accuracy down the ladder, and why cross-entropy is blind."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from artifact.exhibits.figures import OBJECTIVES, drawing, line_style
from artifact.items import label

SHORT = {
    "cross_entropy": "PGD\ncross-entropy",
    "divided": "logits\n/ 2C²",
    "untargeted_1": "$L_{Ada}^{un,1}$\n(the paper's)",
    "untargeted_2": "margin\n$L_{Ada}^{un,2}$",
    "restarts": "restarts",
    "multi_targeted": "every wrong\nclass",
    "autoattack": "AutoAttack",
}


def ladder(data: pd.DataFrame, title: str):
    """Worst case so far along the rungs; `data` has columns model, rung, accuracy, low, high (%)."""
    with drawing():
        figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), sharey=True)
        places = {name: place for place, name in enumerate(SHORT)}
        for axis, adversarial in zip(axes, (False, True), strict=True):
            models = [model for model in dict.fromkeys(data["model"]) if model.startswith("at-") == adversarial]
            for number, model in enumerate(models):
                rows, look = data[data["model"] == model], line_style(model)
                where = rows["rung"].map(places) + (number - (len(models) - 1) / 2) * 0.07  # side by side, so that intervals stay readable
                error = [(rows["accuracy"] - rows["low"]).clip(lower=0), (rows["high"] - rows["accuracy"]).clip(lower=0)]
                axis.errorbar(where, rows["accuracy"], yerr=error, elinewidth=0.7, capsize=1.5, **look)
            axis.set_xticks(range(len(SHORT)), SHORT.values(), fontsize=6.5)
            axis.set(ylim=(-2, 102), title="adversarial training" if adversarial else "standard training")
            if models:
                axis.legend(fontsize=6.5)
        axes[0].set_ylabel("accuracy, worst case so far (%)")
        figure.suptitle(title, fontsize=9.5)
    return figure


def diagnosis(seen: dict, epsilon: float, title: str):
    """A row for each model: logit gaps, margin against iteration, two loss surfaces; `seen` holds receipts' results by model."""
    with drawing():
        figure, axes = plt.subplots(len(seen), 4, figsize=(9.8, 2.2 * len(seen) + 0.4), dpi=85, squeeze=False)
        for row, (model, results) in zip(axes, seen.items(), strict=True):
            gap = np.asarray(results["gap"])
            row[0].hist(gap, bins=24, color=line_style(model)["color"])
            if gap.max() > 50:
                row[0].axvline(104, color="black", linewidth=0.8, linestyle="--")  # exp(-104) is zero in float32
            row[0].set(xlabel="logit of the true class - next", ylabel=f"{label(model)}\nimages")
            for name, path in results["paths"].items():
                text, colour = OBJECTIVES[name]
                row[1].plot(path["margin"], color=colour, label=text)
            row[1].axhline(0, color="black", linewidth=0.6)
            row[1].set(xlabel="PGD step", ylabel="median margin")
            axis = np.asarray(results["surface"]["axis"])
            for place, name in ((2, "cross_entropy"), (3, "untargeted_2")):
                values = np.asarray(results["surface"][name]).T
                drawn = row[place].pcolormesh(axis, axis, values, cmap="cividis", shading="nearest", rasterized=True)
                if np.ptp(values) > 0:
                    figure.colorbar(drawn, ax=row[place])
                else:
                    row[place].text(
                        0.5,
                        0.5,
                        f"exactly {abs(values[0, 0]):g}\neverywhere",
                        transform=row[place].transAxes,
                        ha="center",
                        va="center",
                        color="white",
                        fontsize=8,
                    )
                row[place].grid(False)
                row[place].set(xlabel="along the margin's gradient", ylabel="along random signs", aspect="equal")
        axes[0][0].set_title("logit gaps\n(dashed: softmax saturates)", fontsize=7.5)
        axes[0][1].set_title("margin\nunder each objective", fontsize=7.5)
        axes[0][1].legend(fontsize=6.5)
        axes[0][2].set_title("cross-entropy\naround one image", fontsize=7.5)
        axes[0][3].set_title("margin loss\naround it", fontsize=7.5)
        figure.suptitle(title, fontsize=9.5)
    return figure
