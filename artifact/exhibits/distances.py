"""How far each model is from the edge: accuracy against every epsilon, and why the margin of features does not become one of images."""

import numpy as np
import pandas as pd

from artifact import items, ladder
from artifact.exhibits import figures_deeper
from artifact.exhibits.exhibit import (
    Item,
    NotPlanned,
    clean,
    correct,
    epsilon_text,
    evaluation,
    figure_title,
    looks,
    with_interval,
)
from artifact.experiment import Profile
from artifact.methods import label
from mmclib.intervals import wilson_interval


def chosen(profile: Profile, methods: list[str] | None, field: str) -> list[str]:
    """The verdict's models among `methods` where the profile asks for `field`. Raises NotPlanned where there are none."""
    planned = profile.verdict and getattr(profile.verdict, field)
    found = [model for model in methods or profile.verdict.models if model in profile.verdict.models] if planned else []
    if not found:
        raise NotPlanned(f"this profile's verdict does not ask for {field} of these models")
    return found


def least(profile: Profile, model: str, norm: str = "linf") -> np.ndarray:
    """The distance of each image's nearest known adversarial: 0 where it is wrong as it is, infinity where none was found.

    In l_inf the least over FMN and all attacks of fixed epsilon that the verdict makes: who is fooled in a ball is no farther away.
    """
    spec = ladder.distances(profile, model)[norm]
    found = np.where(correct(profile, spec), np.inf, evaluation(profile, spec)["distance"])
    found[~clean(profile, model, len(found))] = 0
    if norm == "linf":
        known = [*ladder.rungs(profile, model).values(), *ladder.checks(profile, model).values(), *items.curve(profile, model).values()]
        for spec in known:
            if "epsilon" in spec.settings:
                fooled = np.flatnonzero(~correct(profile, spec)[:len(found)])  # some are made on fewer images
                found[fooled] = np.minimum(found[fooled], spec.settings["epsilon"])
    return found


def in_255ths(profile: Profile) -> bool:
    """Is epsilon said in 255ths of a pixel's range, as the paper does?"""
    return "/255" in epsilon_text(profile.white_box.epsilons[0])


def distance_text(profile: Profile, value: float) -> str:
    """A distance in l_inf with its unit; "none found" for infinity."""
    if not np.isfinite(value):
        return "none found"
    return f"{255 * value:.2g}/255" if in_255ths(profile) else f"{value:.2g}"


def _accuracy(distances, epsilon) -> dict:
    left = int((distances > epsilon + 1e-9).sum())
    low, high = wilson_interval(left, len(distances))
    return {"epsilon": epsilon, "accuracy": 100 * left / len(distances), "low": 100 * low, "high": 100 * high}


def whole_curve(profile: Profile, methods: list[str] | None = None) -> Item:
    """Accuracy against every epsilon at once, from the least distance of each image over all attacks."""
    models, plan = chosen(profile, methods, "distances"), profile.verdict
    epsilons = sorted({*profile.white_box.curve_epsilons, profile.white_box.epsilons[0]})
    rows, long, medians = {}, [], {}
    for model in models:
        by_norm = {norm: least(profile, model, norm) for norm in ("linf", "l2")}
        for norm, distances in by_norm.items():
            places = sorted({0.0, *distances[np.isfinite(distances)], *(epsilons if norm == "linf" else [plan.l2_epsilon])})
            long += [{"model": model, "norm": norm, **_accuracy(distances, place)} for place in places]
        medians[model] = np.median(by_norm["linf"])
        cells = {"Clean": _accuracy(by_norm["linf"], 0.0)["accuracy"],
                 **{f"ε = {epsilon_text(epsilon)}": _accuracy(by_norm["linf"], epsilon)["accuracy"] for epsilon in epsilons},
                 f"l_2, ε = {plan.l2_epsilon:g}": _accuracy(by_norm["l2"], plan.l2_epsilon)["accuracy"]}
        rows[label(profile, model)] = {name: f"{value:.1f}" for name, value in cells.items()} | {
            "half fall within": distance_text(profile, medians[model])}
    values = pd.DataFrame(long)
    by = values.set_index(["model", "norm", "epsilon"])
    first, second = profile.white_box.epsilons[0], plan.l2_epsilon
    says = "; ".join(
        f"{label(profile, model)}: half of the images fall within ε = {distance_text(profile, medians[model])}, at "
        f"{epsilon_text(first)} {with_interval(by.loc[(model, 'linf', first)])} are left, at {second:g} in l_2 "
        f"{by.loc[(model, 'l2', second), 'accuracy']:.1f} %" for model in models if model in ladder.side_by_side(profile))
    title = f"Accuracy against every ε at once, {plan.distances} images, worst case over all attacks"
    return Item("Whole curve", "whole_curve", title, says, pd.DataFrame(rows).T, None, values.round(6),
                figures_deeper.whole_curve(values[values["norm"] == "linf"], looks(profile, models), first, in_255ths(profile),
                                           figure_title(profile, title)),
                f"Beyond the paper. Per image the least over FMN ({plan.distance_steps} steps, no ε chosen) and every l_inf attack of "
                "fixed ε that the verdict makes (a step at such an ε is what FMN did not find); in l_2 it is DDN of as many steps. "
                "Accuracy in %, in brackets its 95 % interval. These are attacks: every curve is an upper bound, and there is no "
                "certificate.")


def why(profile: Profile, methods: list[str] | None = None) -> Item:
    """Per image, the exact margin of its feature against the least distance of an adversarial: the loss enlarges the first alone."""
    models = [model for model in chosen(profile, methods, "distances") if "feature" in ladder.distances(profile, model)]
    if not models:
        raise NotPlanned("the boundaries of these models are no hyperplanes")
    long, rows, medians = [], {}, {}
    for model in models:
        feature = evaluation(profile, ladder.distances(profile, model)["feature"])
        frame = pd.DataFrame({"model": model, "margin": feature["margin"], "relative": np.array(feature["margin"]) / feature["spread"],
                              "linf": least(profile, model), "l2": least(profile, model, "l2")})
        long.append(frame)
        right = frame[frame["margin"] > 0].drop(columns="model")
        medians[model] = right.median() if len(right) else right.reindex([0]).loc[0]
        rows[label(profile, model)] = _why_cells(profile, medians[model])
    values = pd.concat(long, ignore_index=True).assign(image=lambda frame: frame.groupby("model").cumcount())
    drawn = [model for model in models if model in ladder.side_by_side(profile)] or models
    title = f"What the loss enlarges and what it does not, {profile.verdict.distances} images"
    return Item("Why", "why", title, _why_says(profile, drawn, medians), pd.DataFrame(rows).T, None,
                values.replace(np.inf, None),
                figures_deeper.why(values, looks(profile, drawn), in_255ths(profile), items.num_classes(profile, drawn[0]),
                                   figure_title(profile, title)),
                "Beyond the paper. Medians over the images that are right. The margin is exact: the distance of z to the nearest "
                "hyperplane on which another class takes over. It is given as it is and in units of the features' own spread (their root "
                "mean square distance from their mean), in which models can be set side by side; with all features on L evenly spread "
                "centers it is the root of L/(2(L − 1)).")


def _why_cells(profile, medians) -> dict:
    return {"margin of features": f"{medians['margin']:.3g}", "in spreads": f"{medians['relative']:.2f}",
            "distance of images, l_inf": distance_text(profile, medians["linf"]),
            "distance of images, l_2": f"{medians['l2']:.2g}" if np.isfinite(medians["l2"]) else "none found"}


def _why_says(profile, models, medians) -> str:
    parts = [f"{label(profile, model)} {medians[model]['relative']:.2f} spreads ({medians[model]['margin']:.3g}) in features and "
             f"{distance_text(profile, medians[model]['linf'])} in l_inf" for model in models]
    return "median distance to the boundary: " + "; ".join(parts)
