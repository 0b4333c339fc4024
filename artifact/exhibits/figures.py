"""Drawing: the one palette, the one way to save, and the figures that show training and attacks. Pure functions of what is given."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.ticker import LogLocator

from artifact.exhibits.exhibit import epsilon_text
from artifact.items import label, method

STYLE = Path(__file__).with_name("mmc.mplstyle")
# Okabe and Ito's palette, which colour-blind readers can tell apart; adversarial training is the same colour, dashed.
COLOURS = {"sce": "#0072B2", "center": "#CC79A7", "mmlda": "#009E73", "lgm": "#E69F00", "mmc-10-rand": "#56B4E9",
           "mmc-10": "#D55E00", "mmc-100": "#000000"}
MARKERS = {"sce": "o", "center": "v", "mmlda": "s", "lgm": "D", "mmc-10-rand": "^", "mmc-10": "P", "mmc-100": "X"}
OBJECTIVES = {"cross_entropy": ("cross-entropy", "#999999"), "untargeted_1": (r"$L_{Ada}^{un,1}$", "#56B4E9"),
              "untargeted_2": (r"$L_{Ada}^{un,2}$ (margin)", "#D55E00"), "worst": ("worst case", "#000000")}


def drawing():
    """The context to draw in: Matplotlib's own defaults and our style over them, whatever the user's matplotlibrc says."""
    return plt.style.context(STYLE, after_reset=True)


def line_style(model: str) -> dict:
    """Colour, marker and dash of a method, the same in every figure."""
    model = method(model)
    base = max((known for known in COLOURS if known in model), key=len, default="mmc-100")
    dash = ":" if "at-un-" in model else "--" if "at-tar-" in model else "-"
    return {"color": COLOURS[base], "marker": MARKERS[base], "linestyle": dash, "label": label(model)}


def save(figure, folder: Path, stem: str, data: pd.DataFrame) -> list[str]:
    """Write a figure as PDF and PNG with the numbers that it shows as CSV, without clock times in the files."""
    folder.mkdir(parents=True, exist_ok=True)
    with drawing():
        figure.savefig(folder / f"{stem}.pdf", metadata={"CreationDate": None, "Producer": None, "Creator": None})
        figure.savefig(folder / f"{stem}.png", metadata={"Software": None})
    plt.close(figure)
    data.to_csv(folder / f"{stem}.csv", index=False, encoding="utf-8")
    return [f"{stem}.{ending}" for ending in ("pdf", "png", "csv")]


def training_curves(data: pd.DataFrame, title: str):
    """Fig. 3a: test error against training time; `data` has columns model, seconds, test_error (%)."""
    with drawing():
        # Standard and adversarial training in panels of their own (they differ in time by a factor), where there is any.
        panels = list(data.groupby(data["model"].str.startswith("at-")))
        figure, axes = plt.subplots(1, len(panels), figsize=(7.2 if len(panels) > 1 else 4.2, 3.4), sharey=True, squeeze=False)
        axes = axes[0]
        for axis, (adversarial, curves) in zip(axes, panels, strict=True):
            for model, rows in curves.groupby("model", sort=False):
                axis.plot(rows["seconds"], rows["test_error"], markevery=max(1, len(rows) // 8), **line_style(model))
            axis.set(xlabel="training time (s)", yscale="log")
            axis.yaxis.set_major_formatter("{x:g}")
            # Errors span less than a decade: label between its powers too.
            axis.yaxis.set_minor_locator(LogLocator(subs=(1.5, 2, 3, 4, 5, 7)))
            axis.yaxis.set_minor_formatter("{x:g}")
            axis.set_title("adversarial training" if adversarial else "standard training")
            axis.legend(ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.25))  # beside no curve, however many there are
        axes[0].set_ylabel("test error (%)")
        figure.suptitle(title, fontsize=9.5)
    return figure


def accuracy_against_epsilon(data: pd.DataFrame, title: str):
    """Accuracy against epsilon with 95 % intervals; `data` has columns model, epsilon, accuracy, low, high (%)."""
    with drawing():
        figure, axis = plt.subplots(figsize=(5.4, 3.2))
        for model, rows in data.groupby("model", sort=False):
            look = line_style(model)
            axis.fill_between(rows["epsilon"], rows["low"], rows["high"], color=look["color"], alpha=0.12, linewidth=0)
            axis.plot(rows["epsilon"], rows["accuracy"], **look)
        axis.set(xlabel=r"perturbation $\epsilon$ ($\ell_\infty$, pixels in [0, 1])", ylabel="accuracy (%)", ylim=(0, 100), title=title)
        axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def against_radius(data: pd.DataFrame, title: str):
    """Clean and robust accuracy against C_MM; `data` has columns radius, column ("clean", "worst"), accuracy, low, high (%)."""
    with drawing():
        figure, axis = plt.subplots(figsize=(4.8, 3))
        for column, text, colour, marker in (("clean", "clean", "#0072B2", "o"), ("untargeted_1", r"$L_{Ada}^{un,1}$", "#56B4E9", "^"),
                                             ("worst", "worst case of two objectives", "#D55E00", "P")):
            rows = data[data["column"] == column].sort_values("radius")
            axis.fill_between(rows["radius"], rows["low"], rows["high"], color=colour, alpha=0.15, linewidth=0)
            axis.plot(rows["radius"], rows["accuracy"], color=colour, marker=marker, label=text)
        axis.set(xscale="log", xlabel="$C_{MM}$", ylabel="accuracy (%)", ylim=(-2, 102), title=title)
        axis.set_xticks(sorted(set(data["radius"])), [f"{value:g}" for value in sorted(set(data["radius"]))])
        axis.minorticks_off()
        axis.legend()
    return figure


def objective_bars(data: pd.DataFrame, title: str):
    """Accuracy of each model under each objective; `data` has columns model, objective, accuracy, low, high (%)."""
    with drawing():
        models = list(dict.fromkeys(data["model"]))
        figure, axis = plt.subplots(figsize=(7.2, 3.2))
        width = 0.8 / len(OBJECTIVES)
        for place, (name, (text, colour)) in enumerate(OBJECTIVES.items()):
            rows = data[data["objective"] == name].set_index("model").loc[models]
            where = [index + (place - (len(OBJECTIVES) - 1) / 2) * width for index in range(len(models))]
            error = [(rows["accuracy"] - rows["low"]).clip(lower=0), (rows["high"] - rows["accuracy"]).clip(lower=0)]
            axis.bar(where, rows["accuracy"], width, color=colour, label=text, yerr=error, error_kw={"elinewidth": 0.8})
        axis.set_xticks(range(len(models)), [label(model).replace(" (", "\n(") for model in models], fontsize=7)
        axis.set(ylabel="accuracy (%)", ylim=(0, 100), title=title)
        axis.grid(axis="x", visible=False)
        axis.legend(ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    return figure


def transfer_matrices(data: pd.DataFrame, title: str):
    """Fig. 4: one heat map for each attack and epsilon; `data` has columns attack, epsilon, substitute, target, accuracy (%)."""
    import seaborn

    panels = list(data.groupby(["attack", "epsilon"], sort=False))
    with drawing():
        figure, axes = plt.subplots(1, len(panels), figsize=(2.6 * len(panels) + 1, 3.1), sharey=True, squeeze=False)
        for axis, ((attack, epsilon), rows) in zip(axes[0], panels, strict=True):
            order = list(dict.fromkeys(rows["target"]))
            matrix = rows.pivot(index="substitute", columns="target", values="accuracy")
            matrix = matrix.reindex(index=list(dict.fromkeys(rows["substitute"])), columns=order).rename(index=label, columns=label)
            seaborn.heatmap(matrix, ax=axis, annot=True, fmt=".0f", cmap="cividis", vmin=0, vmax=100, cbar=False, annot_kws={"size": 7},
                            linewidths=0.5)
            axis.set(title=rf"{attack}, $\epsilon$ = {epsilon_text(epsilon)}", xlabel="target model", ylabel="")
            axis.grid(False)
        axes[0][0].set_ylabel("substitute model")
        figure.suptitle(title, fontsize=9.5)
    return figure


def attack_paths(results: dict, title: str):
    """Fig. 3b: the test features by class, and where each objective drives the attacked inputs; `results` from the receipt."""
    marked = (10, 50)
    looks = {
        "cross_entropy": ("non-adaptive: cross-entropy", "#666666", "o"),
        "untargeted_1": (r"adaptive: $L_{Ada}^{un,1}$", "#000000", "s"),
        "targeted_1": (r"adaptive: $L_{Ada}^{tar,1}$", "#B2182B", "D"),
    }
    inputs = results["inputs"]
    with drawing():
        figure, axes = plt.subplots(1, len(inputs), figsize=(3.7 * len(inputs), 3.9), sharey=True, squeeze=False)
        for place, axis in enumerate(axes[0]):
            x, y = zip(*results["features"], strict=True)
            few = len(x) < 2000
            axis.scatter(
                x, y, c=results["labels"], cmap="tab10", s=8 if few else 2, alpha=0.6 if few else 0.35, linewidths=0, rasterized=True
            )
            for number, (x, y) in enumerate(results["centers"]):
                axis.annotate(str(number), (x, y), ha="center", va="center", fontsize=7,
                              bbox={"boxstyle": "circle", "facecolor": "white", "edgecolor": "0.4", "alpha": 0.9})
            for name, (text, colour, marker) in looks.items():
                path = results["paths"][name][place]
                axis.plot(*zip(*path, strict=True), color=colour, linewidth=1.2, label=text)
                for step in (step for step in marked if step < len(path)):
                    axis.plot(*path[step], marker=marker, color=colour, markersize=4.5)
                    axis.annotate(f"Iter-{step}", path[step], fontsize=6.5, color=colour, xytext=(3, 3), textcoords="offset points")
            axis.plot(*results["paths"]["cross_entropy"][place][0], marker="*", color="black", markersize=12,
                      markeredgecolor="white", linestyle="none", zorder=5)
            axis.set(
                title=f"input {place + 1}, class {results['labels'][inputs[place]]}, target {results['targets'][place]}",
                xlabel="$z_1$",
            )
            axis.set_aspect("equal", adjustable="datalim")  # the panel is filled whatever way the paths run
        axes[0][0].set_ylabel("$z_2$")
        figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        figure.suptitle(title, fontsize=9.5)
    return figure
