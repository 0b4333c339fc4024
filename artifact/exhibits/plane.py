"""Fig. 3b: how attacks move the features of a network whose feature space is a plane, from a receipt."""

import numpy as np
import pandas as pd
from matplotlib.patheffects import withStroke

from artifact.exhibits.exhibit import Item, NotPlanned, evaluation, figure_title
from artifact.exhibits.style import WIDE, styled, subplots
from artifact.experiment import Profile
from artifact.measurements import white_box
from artifact.methods import OBJECTIVES, mathtext


def figure_3b(profile: Profile, methods: list[str] | None = None) -> Item:
    """Fig. 3b: how each objective moves a 2-D feature."""
    if not profile.plane or (methods and profile.plane_beside() not in methods):
        raise NotPlanned("this profile does not draw it for these models")
    results = evaluation(profile, white_box.plane(profile))
    long = [{"input": place, "objective": name, "step": step, "x": x, "y": y}
            for name, paths in results["paths"].items() for place, path in enumerate(paths) for step, (x, y) in enumerate(path)]
    values = pd.DataFrame(long)
    moved = {name: sum(((path[-1][0] - path[0][0]) ** 2 + (path[-1][1] - path[0][1]) ** 2) ** 0.5 for path in paths) / len(paths)
             for name, paths in results["paths"].items()}
    fooled = fooled_at(results)
    says = (f"fooled first at step {_steps(fooled['untargeted_1'])} under the untargeted and {_steps(fooled['targeted_1'])} under the "
            f"targeted adaptive objective, {_steps(fooled['cross_entropy'])} under cross-entropy; after {profile.plane.steps} steps "
            f"the feature has moved {moved['untargeted_1']:.2f} under the untargeted and "
            f"{moved['targeted_1']:.2f} under the targeted adaptive objective, {moved['cross_entropy']:.2f} under cross-entropy")
    title = figure_title(profile, f"PGD-{profile.plane.steps} in a 2-D feature space, ε = {profile.plane.epsilon:g}")
    return Item("Figure 3b", "figure_3b", "Adaptive and non-adaptive attacks in a two-dimensional feature space", says, values=values,
                figure=draw_attack_paths(results, title),
                notes="Stars: the clean inputs, which are classified rightly. Plus signs: the class centers.")


def fooled_at(results: dict) -> dict[str, list[int | None]]:
    """By objective the step at which each input of Fig. 3b is first misclassified, None where it never is."""
    labels, centers = results["labels"], results["centers"]
    return {name: [first_fooled(path, centers, labels[index]) for path, index in zip(paths, results["inputs"], strict=True)]
            for name, paths in results["paths"].items()}


def _steps(found: list[int | None]) -> str:
    return " and ".join("never" if step is None else str(step) for step in found)


@styled
def draw_attack_paths(results: dict, title: str):
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
    figure, axes = subplots(1, len(inputs), figsize=(WIDE, 3.9), sharey=True, squeeze=False)
    for place, axis in enumerate(axes[0]):
        axis.scatter(*points.T, c=labels, cmap="tab10", s=3, alpha=0.18, linewidths=0, rasterized=True)
        for own, center in enumerate(centers):  # outside the ring, where no path ends
            axis.plot(*center, "+", color="black", markersize=5, markeredgewidth=0.8, zorder=3)
            axis.annotate(str(own), 1.14 * center, ha="center", va="center", color="0.25", weight="bold", zorder=9,
                          path_effects=[withStroke(linewidth=2.5, foreground="white")])
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
        axis.set_title(f"input {place + 1}: class {labels[inputs[place]]}, target {results['targets'][place]}", pad=10)  # above arrows
        axis.set(xlabel="$z_1$", xlim=(-span, span), ylim=(-span, span), aspect="equal")
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
