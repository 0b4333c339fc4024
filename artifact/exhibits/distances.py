"""How far each model is from the edge: accuracy against every epsilon, and why the margin of features does not become one of images."""

import warnings

import numpy as np
import pandas as pd

from artifact.exhibits.exhibit import (
    Item,
    NotPlanned,
    chosen,
    clean,
    correct,
    epsilon_text,
    evaluation,
    figure_title,
    in_255ths,
    looks,
    pivot,
    with_interval,
)
from artifact.exhibits.style import WIDE, log_ticks, panels_of, styled, subplots
from artifact.experiment import Profile
from artifact.measurements import ladder, white_box
from artifact.measurements.measurement import num_classes
from artifact.methods import label, short
from mmclib.intervals import wilson_interval


def asked(profile: Profile, methods: list[str] | None, field: str) -> list[str]:
    """The verdict's models among `methods` where the profile asks for `field`. Raises NotPlanned where there are none."""
    return chosen(profile.verdict.models if profile.verdict and getattr(profile.verdict, field) else [], methods)


def least(profile: Profile, model: str, norm: str = "linf") -> np.ndarray:
    """The distance of each image's nearest known adversarial: 0 where it is wrong as it is, infinity where none was found.

    In l_inf the least over FMN and all attacks of fixed epsilon that the verdict makes on the model, those at equal passes included: who
    is fooled in a ball is no farther away.
    """
    spec = ladder.distances(profile, model)[norm]
    found = np.where(correct(profile, spec), np.inf, evaluation(profile, spec)["distance"])
    found[~clean(profile, model, len(found))] = 0
    if norm == "linf":
        known = [*ladder.rungs(profile, model).values(), *ladder.checks(profile, model).values(), *white_box.curve(profile, model).values()]
        for spec in known:
            if "epsilon" in spec.settings:
                fooled = np.flatnonzero(~correct(profile, spec)[:len(found)])  # some are made on fewer images
                found[fooled] = np.minimum(found[fooled], spec.settings["epsilon"])
        for spec in ladder.matched(profile, model).values():
            nearest = np.array([np.inf if value is None else value for value in evaluation(profile, spec)["least"]])[:len(found)]
            found[:len(nearest)] = np.minimum(found[:len(nearest)], nearest)
    return found


def distance_text(profile: Profile, value: float) -> str:
    """A distance in l_inf with its unit; "none found" for infinity."""
    if not np.isfinite(value):
        return "none found"
    return f"{f'{255 * value:#.2g}'.rstrip('.')}/255" if in_255ths(profile) else f"{value:.2g}"


def _accuracy(distances, epsilon) -> dict:
    left = int((distances > epsilon + 1e-9).sum())
    low, high = wilson_interval(left, len(distances))
    return {"epsilon": epsilon, "accuracy": 100 * left / len(distances), "low": 100 * low, "high": 100 * high}


def whole_curve(profile: Profile, methods: list[str] | None = None) -> Item:
    """Accuracy against every epsilon at once, from the least distance of each image over all attacks."""
    models, plan = asked(profile, methods, "distances"), profile.verdict
    epsilons = sorted({*profile.white_box.curve_epsilons, profile.white_box.epsilons[0]})
    titles = {("linf", 0.0): "Clean", **{("linf", epsilon): f"ε = {epsilon_text(epsilon)}" for epsilon in epsilons},
              ("l2", plan.l2_epsilon): f"l_2, ε = {plan.l2_epsilon:g}"}
    long, medians = [], {}
    for model in models:
        by_norm = {norm: least(profile, model, norm) for norm in ("linf", "l2")}
        for norm, distances in by_norm.items():
            places = sorted({0.0, *distances[np.isfinite(distances)], *(epsilons if norm == "linf" else [plan.l2_epsilon])})
            long += [{"model": model, "method": label(profile, model), "norm": norm, "title": titles.get((norm, place)),
                      **_accuracy(distances, place)} for place in places]
        medians[model] = np.median(by_norm["linf"])
    values = pd.DataFrame(long)
    table = pivot(values.dropna(subset="title"), list(titles.values()))  # the curve's points that stand in the table
    table["median ε"] = [distance_text(profile, medians[model]) for model in models]
    by = values.set_index(["model", "norm", "epsilon"])
    first, second = profile.white_box.epsilons[0], plan.l2_epsilon
    says = "; ".join(
        f"{label(profile, model)}: median ε to a wrong answer {distance_text(profile, medians[model])}, accuracy "
        f"{with_interval(by.loc[(model, 'linf', first)])} at {epsilon_text(first)} and "
        f"{by.loc[(model, 'l2', second), 'accuracy']:.1f} % at {second:g} in l_2"
        for model in models if model in ladder.side_by_side(profile))
    title = f"Accuracy against every ε at once, {plan.distances} images; in l_inf the worst case over all attacks, in l_2 DDN"
    return Item("Whole curve", "whole_curve", title, says, table, values.round(6),
                draw_whole_curve(values[values["norm"] == "linf"], looks(profile, models), first, in_255ths(profile),
                                 figure_title(profile, title.partition(";")[0])),
                f"Beyond the paper. For each image the smallest distance found by FMN ({plan.distance_steps} steps, no ε to choose) or by "
                "an l_inf attack of fixed ε on this model in the verdict (a jump of the curve at such an ε is images that FMN did not fool "
                "so near); in l_2 DDN with as many steps. Accuracy in %. Attacks give upper bounds only; no curve is a certificate.")


_UNIT = {True: r"$\ell_\infty$, in 1/255", False: r"$\ell_\infty$, pixels in [0, 1]"}


@styled
def draw_whole_curve(data: pd.DataFrame, looks: dict, epsilon: float, in_255ths: bool, title: str):
    """Accuracy against epsilon as steps, on a log axis; `data`: model, epsilon, accuracy, low, high (%). `epsilon` is marked."""
    scale, panels = 255 if in_255ths else 1, panels_of(looks)
    most = max(map(len, panels.values()))
    figure, axes = subplots(1, len(panels), figsize=(WIDE, 2.9 + 0.16 * most), sharex=True, sharey=True, squeeze=False)
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
        log_ticks(axis)
        axis.legend(loc="upper left", bbox_to_anchor=(0, -0.2))
    axes[0][0].set_ylabel("accuracy, worst case (%)")
    figure.suptitle(title)
    return figure


def images_and_features(profile: Profile, model: str) -> pd.DataFrame:
    """Of each image the exact margin of its feature, also in units of the features' spread, and its least distances in l_inf and l_2."""
    feature = evaluation(profile, ladder.distances(profile, model)["feature"])
    return pd.DataFrame({"margin": feature["margin"], "relative": np.array(feature["margin"]) / feature["spread"],
                         "linf": least(profile, model), "l2": least(profile, model, "l2")})


def why(profile: Profile, methods: list[str] | None = None) -> Item:
    """Per image, the exact margin of its feature against the least distance of an adversarial: the loss enlarges the first alone."""
    models = [model for model in asked(profile, methods, "distances") if "feature" in ladder.distances(profile, model)]
    if not models:
        raise NotPlanned("the boundaries of these models are no hyperplanes")
    long, rows, medians = [], {}, {}
    for model in models:
        frame = images_and_features(profile, model)
        long.append(frame.assign(model=model))
        right = frame[frame["margin"] > 0]
        medians[model] = right.median() if len(right) else right.reindex([0]).loc[0]
        rows[label(profile, model)] = _why_cells(profile, medians[model])
    values = pd.concat(long, ignore_index=True).assign(image=lambda frame: frame.groupby("model").cumcount())
    drawn = [model for model in models if model in ladder.side_by_side(profile)] or models
    title = f"What the loss enlarges and what it does not, {profile.verdict.distances} images"
    return Item("Why", "why", title, _why_says(profile, drawn, medians), pd.DataFrame(rows).T,
                values.replace(np.inf, None),
                draw_why(values, looks(profile, drawn), in_255ths(profile), num_classes(profile, drawn[0]),
                                   figure_title(profile, title)),
                "Beyond the paper. Medians over the images classified correctly. The feature margin is exact: the distance of z to the "
                "nearest hyperplane beyond which another class is predicted. It is given unscaled and in units of the features' own spread "
                "(their root mean square distance from their mean), which makes models comparable. If all features lie on L evenly spread "
                "centers, the margin in spreads is the root of L/(2(L − 1)). Ratios are of medians, of one pair of models (one seed); "
                "their intervals are of draws of the images, with replacement.")


def _why_cells(profile, medians) -> dict:
    return {"margin of features": f"{medians['margin']:.3g}", "in spreads": f"{medians['relative']:.2f}",
            "distance of images, l_inf": distance_text(profile, medians["linf"]),
            "distance of images, l_2": f"{medians['l2']:.2g}" if np.isfinite(medians["l2"]) else "none found"}


def ratios(profile: Profile, ours: str, theirs: str) -> pd.DataFrame:
    """One model's median margin of features (unscaled: `margin`; in spreads: `relative`) and distance of images (`linf`) over another's,
    each over the images that the model classifies correctly, with a 95 % interval: of 2,000 draws of the images, with replacement."""
    frames = [images_and_features(profile, model)[["margin", "relative", "linf"]].to_numpy() for model in (ours, theirs)]
    right = [np.where(frame[:, :1] > 0, frame, np.nan) for frame in frames]
    draws = np.random.default_rng(0).integers(len(right[0]), size=(2000, len(right[0])))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # no image is right, or none was found
        estimate = np.divide(*(np.nanmedian(frame, axis=0) for frame in right))
        drawn = [np.concatenate([np.nanmedian(frame[part], axis=1) for part in np.split(draws, 20)]) for frame in right]
        low, high = np.nanpercentile(drawn[0] / drawn[1], (2.5, 97.5), axis=0, method="inverted_cdf")  # which knows infinity
    return pd.DataFrame({"ratio": estimate, "low": low, "high": high}, index=["margin", "relative", "linf"])


def ratio_text(row) -> str:
    ratio, low, high = (f"{row[part]:.2f}" if np.isfinite(row[part]) else "∞" for part in ("ratio", "low", "high"))
    return f"{ratio} [{low}, {high}]"


def _why_says(profile, models, medians) -> str:
    times = []
    for adversarial in (None, "untargeted"):
        sce, mmc = (profile.find(models, loss, adversarial) for loss in ("sce", "mmc"))
        if sce and mmc and medians[sce]["relative"] > 0 and 0 < medians[sce]["linf"] < np.inf and np.isfinite(medians[mmc]["linf"]):
            larger = ratios(profile, mmc, sce)
            times.append(f"{short(profile, mmc)}'s feature margin is {ratio_text(larger.loc['relative'])} times {short(profile, sce)}'s in "
                         f"units of spread ({ratio_text(larger.loc['margin'])} times unscaled), its distance from image to nearest "
                         f"adversarial example {ratio_text(larger.loc['linf'])} times")
    parts = [f"{label(profile, model)} {medians[model]['relative']:.2f} spreads ({medians[model]['margin']:.3g}) in features and "
             f"{distance_text(profile, medians[model]['linf'])} in l_inf" for model in models]
    return "; ".join([*times, f"median distance to the boundary: {parts[0]}", *parts[1:]])


@styled
def draw_why(data: pd.DataFrame, looks: dict, in_255ths: bool, classes: int, title: str):
    """Margin of the feature against the least distance, one point an image that is right; `data`: model, margin, relative, linf.

    Diamonds are medians; the dashed line is the margin of features that lie on evenly spread centers of `classes` classes.
    """
    scale, panels = 255 if in_255ths else 1, panels_of(looks)
    figure, axes = subplots(1, len(panels), figsize=(WIDE, 3.6), sharey=True, squeeze=False, sharex=True)
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
        axis.set(xscale="log", title=name, xlabel=f"distance of the nearest adversarial\n({_UNIT[in_255ths]})")
        axis.legend(loc="upper left", bbox_to_anchor=(0, -0.26))
    axes[0][0].set_ylim(0, None)  # when all is drawn: the panels share it
    log_ticks(axes[0][0])
    axes[0][0].set_ylabel("margin of the feature\n(in the features' spread)")
    figure.suptitle(title)
    return figure
