"""Drawing Figs. 1, 2, 5 and 6 from the numbers of artifact.theory, and nothing else."""

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.ticker import LogLocator

from artifact.exhibits.style import WIDE, styled, subplots
from artifact.methods import METHODS, mathtext

SCE, MMC = METHODS["sce"].colour, METHODS["mmc"].colour
GREY = "#4d4d4d"
BEHIND_TEXT = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85}
# Ten colours for the digits, distinct in lightness as well as hue for colour-blind readers (Tol's muted palette and grey).
CLASSES = ["#332288", "#2F8FC4", "#2A9D8F", "#117733", "#7A7A1F", "#B8860B", "#CC6677", "#882255", "#AA4499", "#555555"]
REGIONS = ["#F1E9E1", "#DCEBF5", "#E0F0E6"]
NAMES = {"sce": "SCE", "mmc-10": "MMC-10"}


@styled
def figure_1(results):
    """Fig. 1: movement by class (top) and density (bottom) of two-dimensional features under SCE and MMC-10."""
    figure, axes = subplots(2, 2, figsize=(WIDE, 6.9))
    panels = results["panels"]
    # Coloured by the logarithm that the receipt holds: powers and logarithms differ in their last bit between processors.
    shades = np.concatenate([panel["log10_density"] for panel in panels.values()])
    scale = Normalize(*np.percentile(shades, [2, 98]))
    for column, (name, panel) in enumerate(panels.items()):
        points, before = np.array(panel["points"]), np.array(panel["before"])
        colour = SCE if name == "sce" else MMC
        for axis in axes[:, column]:
            _contours(axis, panel, points, colour)
            axis.set(xlabel="feature 1", aspect="equal", box_aspect=1)
            axis.grid(False)
        top, bottom = axes[:, column]
        top.scatter(*points.T, s=7, c=[CLASSES[label] for label in panel["labels"]], linewidths=0)
        few = np.concatenate([np.flatnonzero(np.array(panel["labels"])[:len(before)] == label)[:4] for label in range(10)])
        few = few[(np.abs(before[few] - np.mean([top.get_xlim(), top.get_ylim()], 1)) < np.ptp(top.get_xlim()) / 2).all(1)]
        moves, before = (points[:len(before)] - before)[few], before[few]  # four of a class, or shafts hide the points
        top.quiver(*before.T, *moves.T, clip_on=True, angles="xy", scale_units="xy", scale=1, width=0.0038, headwidth=6, headlength=7,
                   headaxislength=6, color="0.15", alpha=0.8, zorder=3)
        labels = np.array(panel["labels"])
        for label in range(10):
            middle = points[labels == label].mean(0)
            # Beyond the outer contour under MMC; beyond the points under SCE, and beside them for a class near the origin.
            reach = 2.4 if name == "mmc-10" else (0.14 if np.linalg.norm(middle) > 5 else 0.06) * np.ptp(points)
            away = middle / np.linalg.norm(middle) * reach
            top.annotate(str(label), middle + away, ha="center", va="center", color=CLASSES[label],
                         weight="bold", annotation_clip=True, zorder=6, bbox={"boxstyle": "circle,pad=0.12", **BEHIND_TEXT})
        order = np.argsort(panel["log10_density"], kind="stable")
        shown = bottom.scatter(*points[order].T, s=7, c=np.array(panel["log10_density"])[order], cmap="viridis",
                                norm=scale, linewidths=0)
        first, last = panel["epochs"]
        top.set_title(f"{NAMES[name]}: movement from epoch {first} to {last}", color=colour)
        bottom.set_title(f"{NAMES[name]}: density, median {_power(panel['median_density'])} per unit area", color=colour)
    for axis in axes.flat:
        axis.set_ylabel("feature 2")
    bar = figure.colorbar(shown, ax=axes[1], location="right", shrink=0.85, pad=0.01, extend="both",
                          label="samples of the class per unit area")
    ticks = [step * 10**power for power in range(-3, 9) for step in (1, 2, 5) if scale.vmin <= np.log10(step * 10**power) <= scale.vmax]
    bar.set_ticks(np.log10(ticks), labels=[f"{tick:,g}" for tick in ticks])
    levels = " and ".join(f"{level:g}" for level in panel["levels"])
    figure.suptitle(f"Two-dimensional training features, {results['data']}.\n"
                    f"Dashed: contours of each class's loss at {levels}; arrows: training samples between the two epochs",
                    fontsize=9.5)
    return figure


def _contours(axis, panel, points, colour):
    low, high = points.min(0), points.max(0)
    margin = (0.12 if panel["centers"] is None else 0.11) * (high - low).max()  # room for circles and names
    middle, half = (low + high) / 2, (high - low).max() / 2 + margin  # a square, so that panels of a row have one height
    low, high = middle - half, middle + half
    axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    if panel["centers"] is not None:
        for center in panel["centers"]:
            for level in panel["levels"]:
                axis.add_patch(Circle(center, np.sqrt(2 * level), fill=False, linestyle="--", linewidth=0.6, color=colour))
        axis.plot(*np.transpose(panel["centers"]), "+", color="black", markersize=6, markeredgewidth=1, zorder=4)
        return
    x, y = np.meshgrid(np.linspace(low[0], high[0], 240), np.linspace(low[1], high[1], 240))
    logits = np.stack([x, y], -1) @ np.transpose(panel["weight"]) + panel["bias"]
    top = logits.max(-1, keepdims=True)
    # Rounded, because products, exponentials and logarithms differ in their last bits between processors, and a pixel with them.
    loss = ((np.log(np.exp(logits - top).sum(-1, keepdims=True)) + top) - logits).round(9)
    for label in range(loss.shape[-1]):
        axis.contour(x, y, loss[..., label], levels=panel["levels"], colors=[colour], linewidths=0.6, linestyles="--")


def _power(value):
    return f"{value:.0f}" if value < 1000 else f"{value:,.0f}".replace(",", "\u2009")


@styled
def figure_2(results):
    """Fig. 2: contours of the g-SCE loss with σ_k < σ_k̃, of the MMC loss, and the radius of both against the loss."""
    softmax, mmc = results["softmax"], results["mmc"]
    figure, axes = subplots(1, 3, figsize=(WIDE, 3.2), width_ratios=(1, 1, 1.1))
    for axis, shape, colour, outward in ((axes[0], softmax, SCE, True), (axes[1], mmc, MMC, False)):
        center = np.array(shape["center"])
        widest = max(contour["radius"] for contour in shape["contours"])
        for contour, shade in zip(shape["contours"], (0.45, 0.7, 1.0), strict=True):
            axis.add_patch(Circle(center, contour["radius"], fill=False, linewidth=1.4, edgecolor=colour, alpha=shade))
            axis.plot(*np.transpose(contour["found"]), ".", color=colour, markersize=3.5, alpha=shade)
            place = center + (contour["radius"] + 0.085 * widest) * np.array([0.0, -1.0])
            axis.annotate(f"C = {_loss(contour['loss'])}", place, ha="center", va="center", color=colour,
                          bbox={"boxstyle": "round,pad=0.05", **BEHIND_TEXT})
        inner = min(contour["radius"] for contour in shape["contours"])
        for angle in np.radians([35, 90, 145, 215]):
            ends = np.outer((inner * 0.98, widest * 1.14) if outward else (widest * 1.02, inner * 1.25),
                            (np.cos(angle), np.sin(angle))) + center
            arrow = {"arrowstyle": "-|>", "color": GREY, "linewidth": 1.1, "shrinkA": 0, "shrinkB": 0}
            axis.annotate("", ends[1], ends[0], arrowprops=arrow)
        axis.set(xlim=center[0] + np.array([-1.25, 1.25]) * widest, ylim=center[1] + np.array([-1.25, 1.25]) * widest,
                 aspect="equal", xlabel="feature 1")
        axis.grid(False)
    axes[0].plot(*softmax["center"], "x", color="black", markersize=5)
    axes[0].annotate(r"$\mathbf{M}_{k,\tilde k}$", softmax["center"], (0, 6), textcoords="offset points", ha="center")
    for mean, name, side in ((softmax["mean"], r"$\mu_k$", 9), (softmax["rival_mean"], r"$\mu_{\tilde k}$", -9)):
        axes[0].plot(*mean, "o", color="black", markersize=3.5)
        axes[0].annotate(name, mean, (side, -3), textcoords="offset points", ha="center", zorder=5,
                         bbox={"boxstyle": "round,pad=0.08", **BEHIND_TEXT})
    sigmas = rf"$\sigma_k={softmax['sigma']:g}<\sigma_{{\tilde k}}={softmax['rival_sigma']:g}$"
    axes[0].set(ylabel="feature 2", title=f"(a) g-SCE, {sigmas}")
    axes[1].plot(*mmc["center"], "+", color="black")
    axes[1].annotate(r"$\mu^*_y$", mmc["center"], (-62, 3), textcoords="offset points", arrowprops={"arrowstyle": "-", "linewidth": 0.6},
                     bbox={"boxstyle": "round,pad=0.05", **BEHIND_TEXT}, zorder=6)
    axes[1].set(ylabel="feature 2", title="(b) MMC, own scale")
    axes[2].plot(results["losses"], softmax["radii"], color=SCE,
                 label=r"g-SCE: $\sqrt{\mathbf{B}+\log(e^C-1)/(\sigma_k-\sigma_{\tilde k})}$")
    axes[2].plot(results["losses"], mmc["radii"], color=MMC, label=r"MMC: $\sqrt{2C}$")
    for shape, colour in ((softmax, SCE), (mmc, MMC)):
        axes[2].plot([c["loss"] for c in shape["contours"]], [c["radius"] for c in shape["contours"]], "o", color=colour)
    axes[2].set(xscale="log", xlabel="loss C (falls →)", ylabel="contour radius (feature units)", ylim=(0, None),
                title="(c) radius as the loss falls")
    axes[2].invert_xaxis()
    axes[2].xaxis.set_major_locator(LogLocator(numticks=6))
    axes[2].minorticks_off()
    figure.legend(loc="outside lower right", ncols=2)
    figure.suptitle("Loss contours: lines from the closed forms, dots by root finding; arrows point to lower loss",
                    fontsize=9.5)
    return figure


def _loss(value):
    return f"{value:g}" if value >= 0.01 else f"$10^{{{round(np.log10(value))}}}$"


@styled
def figure_5(results):
    """Fig. 5: the Max-Mahalanobis centers for L = 2, 3, 4 on the unit sphere."""
    figure = Figure(figsize=(WIDE, 2.6))
    for place, panel in enumerate(results["panels"], 1):
        points, count = np.array(panel["centers"]), panel["num_classes"]
        solid = count == 4
        axis = figure.add_subplot(1, 3, place, projection="3d" if solid else None)
        shown = points if solid else points[:, :2]
        for i in range(count):
            if count > 2:  # for two, the radii and the edge are one line
                axis.plot(*np.transpose([np.zeros(shown.shape[1]), shown[i]]), color=GREY, linewidth=0.9, linestyle="--")
            for j in range(i):
                axis.plot(*shown[[j, i]].T, color=MMC, linewidth=1.3, alpha=0.7)
        axis.plot(*shown.T, "o", color=MMC, markersize=6)
        axis.plot(*np.zeros((shown.shape[1], 1)), ".", color="black")
        for i, point in enumerate(shown):
            axis.text(*(1.27 * point), rf"$\mu^*_{i + 1}$", ha="center", va="center")
        if solid:
            u, v = np.meshgrid(np.linspace(0, 2 * np.pi, 61), np.linspace(0, np.pi, 31))
            axis.plot_wireframe(np.cos(u) * np.sin(v), np.sin(u) * np.sin(v), np.cos(v), color="0.8", linewidth=0.35,
                                rstride=10, cstride=10)
            axis.set_box_aspect((1, 1, 1), zoom=1.1)
            axis.view_init(elev=14, azim=38)
        else:
            axis.add_patch(Circle((0, 0), 1, fill=False, linewidth=0.7, edgecolor="0.7"))
            axis.set(aspect="equal", xlim=(-1.4, 1.4), ylim=(-1.4, 1.4))
        axis.set_axis_off()
        axis.set_title(f"L = {count}: angle {panel['angle']:.1f}°")
    figure.suptitle(r"Max-Mahalanobis centers on the sphere $\Vert\mu\Vert_2=C_{MM}$ (drawn for $C_{MM}=1$)")
    return figure


@styled
def figure_6(results):
    """Fig. 6: the gradient fields of the four adaptive objectives and the way of one feature that follows them."""
    centers, grid, start = (np.array(results[key]) for key in ("centers", "grid", "start"))
    names = {"untargeted_1": mathtext("L_Ada^{un,1}") + r": away from $\mu^*_y$",
             "untargeted_2": mathtext("L_Ada^{un,2}") + r": to the nearest other class",
             "targeted_1": mathtext("L_Ada^{tar,1}") + r": to $\mu^*_{y_t}$",
             "targeted_2": mathtext("L_Ada^{tar,2}") + r": across the boundary of $y$ and $y_t$"}
    span = 1.05 * np.abs(grid).max()
    x, y = np.meshgrid(np.linspace(-span, span, 400), np.linspace(-span, span, 400))
    region = np.argmin([(x - cx) ** 2 + (y - cy) ** 2 for cx, cy in centers], 0)
    figure, axes = subplots(2, 2, figsize=(WIDE, 6.9), sharex=True, sharey=True)
    for axis, panel in zip(axes.flat, results["panels"], strict=True):
        axis.contourf(x, y, region, levels=[-0.5, 0.5, 1.5, 2.5], colors=REGIONS, zorder=0)
        axis.contour(x, y, region, levels=[0.5, 1.5], colors="white", linewidths=1.2, zorder=1)
        slopes = np.array(panel["gradient"])
        size = np.linalg.norm(slopes, axis=1, keepdims=True)
        axis.quiver(*grid.T, *(slopes / np.maximum(size, 1e-9)).T, color="0.55", scale=19, width=0.0042,
                    pivot="mid", zorder=2)
        path = np.array([*panel["path"], panel["end"]])
        axis.plot(*path.T, color=MMC, linewidth=1.8, zorder=4)
        inside = path[np.abs(path).max(1) < 0.97 * span]  # the arrow's head is drawn, also where the way leaves the panel
        axis.annotate("", inside[-1], inside[-3], arrowprops={"arrowstyle": "-|>", "color": MMC, "linewidth": 1.8}, zorder=4)
        axis.plot(*start, "o", color="black", markersize=5, zorder=5)
        axis.annotate("z", start, (7, 3), textcoords="offset points")
        crossing = panel["crossing"]  # a length rounded once already, to hundredths: 8.45 is 8.5, as the sentence says
        axis.plot(*crossing["point"], "D", color="white", markeredgecolor=MMC, markersize=5, zorder=5)
        axis.text(0.97, 0.04, f"leaves class y after {crossing['length'] + 1e-9:.1f} units", transform=axis.transAxes,
                  ha="right", bbox={"boxstyle": "round,pad=0.2", **BEHIND_TEXT})
        axis.plot(*centers.T, "+", color="black", markersize=9, markeredgewidth=1.4, zorder=5)
        for center, name in zip(centers, (r"$\mu^*_y$", r"$\mu^*_{\tilde y}$", r"$\mu^*_{y_t}$"), strict=True):
            axis.annotate(name, center, (7, -12), textcoords="offset points", zorder=6)
        axis.set(title=names[panel["objective"]], xlim=(-span, span), ylim=(-span, span), aspect="equal")
        axis.grid(False)
    for axis in axes[:, 0]:
        axis.set_ylabel("feature 2")
    for axis in axes[1]:
        axis.set_xlabel("feature 1")
    figure.suptitle("Feature plane with three MM centers (shades: predicted class; grey: ascent direction;\n"
                    "orange: the way of one feature z, diamond: where its class changes)")
    return figure
