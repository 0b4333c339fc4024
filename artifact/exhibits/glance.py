"""The verdict in one picture: what the paper claims for MMC, what holds of it here, and why."""

import numpy as np
import pandas as pd

from artifact.exhibits.distances import ratio_text, ratios
from artifact.exhibits.exhibit import Item, Missing, NotPlanned, clean, epsilon_text, figure_title, papers_cell, worst
from artifact.exhibits.ladder import kept, strongest
from artifact.exhibits.style import WIDE, error, styled, subplots
from artifact.experiment import Profile
from artifact.measurements import ladder
from artifact.methods import METHODS, OBJECTIVES, label, mathtext, short

# What is shown of a model, from above: how it is called, and its colour.
BARS = {
    "clean": ("no attack", "#B8B8B8"), "cross_entropy": ("cross-entropy PGD", OBJECTIVES["cross_entropy"].colour),
    "untargeted_1": ("L_Ada^{un,1}, the paper's on MMC", OBJECTIVES["untargeted_1"].colour),
    "worst": ("worst case of all attacks", OBJECTIVES["worst"].colour),
}


MARGINS = {"features": ("margin of features (in spreads)", "#009E73"), "images": ("distance of images", "#CC79A7")}
PRINTED = {"color": METHODS["mmc"].colour, "linewidth": 2.2, "solid_capstyle": "butt"}


def glance(profile: Profile, methods: list[str] | None = None) -> Item:
    """SCE beside MMC, as they are and trained adversarially: accuracy without attack, under the paper's and in the worst case, and how
    much of each margin MMC's loss enlarges."""
    pairs = {training: [model for loss in ("sce", "mmc") if (model := profile.find(_asked(profile, methods), loss, training))]
             for training in (None, "untargeted")}
    pairs = {training: pair for training, pair in pairs.items() if len(pair) == 2}
    if not pairs:
        raise NotPlanned("it sets SCE beside MMC")
    bars, ratios, away = [], [], []
    for training, pair in pairs.items():
        try:
            found = [bar for model in pair for bar in _bars(profile, model)], _ratios(profile, *pair)
        except Missing as missing:
            away.append(missing)
            continue
        bars, ratios = bars + found[0], [*ratios, {"training": training or "standard", **found[1]}]
    if not bars:
        raise away[0]
    values, times = pd.DataFrame(bars), pd.DataFrame(ratios)
    names = {model: label(profile, model) for model in dict.fromkeys(values["model"])}
    known, plan = bool(times[["features", "images"]].notna().any(axis=None)), profile.verdict
    title = (f"Robustness under the paper's attack and in the worst case, ε = {epsilon_text(profile.white_box.epsilons[0])}"
             f"{', and why' * known}")
    return Item("At a glance", "glance", title, _says(profile, list(names)[1], values, times),
                values=pd.concat([values, times], ignore_index=True).round(4),
                figure=draw_glance(values, times, names, figure_title(profile, title)),
                notes=f"Beyond the paper. Bars: accuracy on {plan.images} images, with 95 % intervals."
                      + " Orange lines: what the paper prints for the row under its PGD-50, from its own network and training."
                      * bool(values["paper"].notna().any())
                      + f" Right: medians over those of the first {plan.distances} images that are classified rightly, MMC's over "
                        "SCE's, of one pair of models each, with intervals of draws of the images." * known
                      + " Not made yet: the other pair." * bool(away))


def _bars(profile, model) -> list[dict]:
    rungs, printed = ladder.rungs(profile, model), papers_cell(profile, model, "pgd50_un_8")
    left = {"clean": clean(profile, model, profile.verdict.images), "worst": strongest(profile, model)} | {
        name: kept(profile, rungs[name]) for name in ("cross_entropy", "untargeted_1")}
    claimed = float(printed.removeprefix("<=")) if printed else np.nan
    return [{"model": model, "what": name, **worst([left[name]]), "paper": claimed} for name in BARS]


def _ratios(profile, sce, mmc) -> dict[str, float]:
    """MMC's median margin of features and distance of images over SCE's, each with its interval; NaN where they are not measured, or
    there is no median."""
    found = {}
    known = ratios(profile, mmc, sce).replace([np.inf, -np.inf], np.nan) if profile.verdict.distances else None
    for name, row in {"features": "relative", "unscaled": "margin", "images": "linf"}.items():
        for end, column in (("", "ratio"), (" low", "low"), (" high", "high")):
            found[name + end] = np.nan if known is None else known.loc[row, column]
    return found


def _says(profile, mmc, values, times) -> str:
    by, name = values.set_index(["model", "what"]), short(profile, mmc)
    claimed = by.loc[(mmc, "worst"), "paper"]
    says = (("" if np.isnan(claimed) else f"for {name} the paper prints {claimed:.1f} % under its attack; ")
            + f"here {name} keeps {by.loc[(mmc, 'untargeted_1'), 'accuracy']:.1f} % under the paper's attack and "
            f"{by.loc[(mmc, 'worst'), 'accuracy']:.1f} % in the worst case")
    first = times.iloc[0]
    if np.isfinite(first[["features", "images"]].to_numpy(float)).all():
        features, unscaled, images = (ratio_text({"ratio": first[part], "low": first[f"{part} low"], "high": first[f"{part} high"]})
                                      for part in ("features", "unscaled", "images"))
        says += (f": its loss makes the margin of the features {features} times SCE's in units of their spread ({unscaled} times "
                 f"unscaled), and the distance from an image to its nearest adversarial example {images} times")
    return says


def _asked(profile, methods) -> list[str]:
    return [model for model in (profile.verdict.models if profile.verdict else []) if methods is None or model in methods]


@styled
def draw_glance(data: pd.DataFrame, times: pd.DataFrame, names: dict[str, str], title: str):
    """A panel for each training with a group of bars a model, and one with the ratios; `data`: model, what, accuracy, low, high, paper (%);
    `times`: training, features, images; `names` by model, SCE's and MMC's of one training side by side."""
    models, pairs, why = list(names), len(times), bool(times[["features", "images"]].notna().any(axis=None))
    figure, axes = subplots(1, pairs + why, figsize=(WIDE, 3.4), squeeze=False, width_ratios=[1.0] * pairs + [0.7] * why)
    for axis, pair, training in zip(axes[0], (models[:2], models[2:]), times["training"], strict=False):
        for place, model in enumerate(pair):
            rows = data[data["model"] == model].set_index("what").loc[list(BARS)]
            where = place * (len(BARS) + 1) + np.arange(len(BARS))
            axis.barh(where, rows["accuracy"], 0.85, color=[colour for _, colour in BARS.values()], xerr=error(rows),
                      error_kw={"elinewidth": 0.7, "ecolor": "0.35"})
            claimed, meant = rows["paper"].iloc[0], "untargeted_1" if place else "cross_entropy"  # the attack that the paper means
            for y, (name, accuracy) in zip(where, rows["accuracy"].items(), strict=True):
                inside = accuracy > 25
                beside = np.fmax(rows.loc[name, "high"], claimed) if name == meant else rows.loc[name, "high"]
                axis.annotate(f"{accuracy:.1f}", (0 if inside else beside, y), (3, 0), textcoords="offset points",
                              va="center", fontsize="x-small", color="white" if inside and name in ("cross_entropy", "worst") else "black")
            if not np.isnan(claimed):
                at = where[list(BARS).index(meant)]
                axis.plot([claimed] * 2, [at - 0.55, at + 0.55], **PRINTED)
        axis.set_yticks([(len(BARS) - 1) / 2 + place * (len(BARS) + 1) for place in range(2)],
                        [mathtext(names[model].replace(" (", "\n(")) for model in pair])
        axis.set(xlim=(0, 112), xlabel="accuracy (%)", title=f"{'standard' if training == 'standard' else 'adversarial'} training")
        axis.set_xticks(range(0, 101, 25))
        axis.invert_yaxis()
        axis.grid(axis="y", visible=False)
    if why:
        _draw_why(axes[0][-1], times)
    for text, colour in (*BARS.values(), *(MARGINS.values() if why else ())):
        axes[0][0].barh([0], [0], color=colour, label=mathtext(text))
    if data["paper"].notna().any():
        axes[0][0].plot([], [], **PRINTED, label="what the paper prints")
    handles, texts = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=3)
    figure.suptitle(title)
    return figure


def _draw_why(axis, times):
    for place, row in times.iterrows():
        for offset, (name, (_, colour)) in zip((-0.2, 0.2), MARGINS.items(), strict=True):
            if np.isfinite(row[name]):
                low, high = (end if np.isfinite(end := row[f"{name} {side}"]) else row[name] for side in ("low", "high"))
                axis.barh(place + offset, row[name], 0.36, color=colour, error_kw={"elinewidth": 0.7, "ecolor": "0.35"},
                          xerr=[[row[name] - low], [high - row[name]]])
                axis.annotate(f"{row[name]:.2f}", (high, place + offset), (3, 0), textcoords="offset points", va="center",
                              fontsize="x-small")
    axis.axvline(1, color="black", linewidth=0.9)
    axis.set_yticks(range(len(times)), ["standard" if training == "standard" else "adver-\nsarial" for training in times["training"]])
    highest = max(1.0, times[[name + end for name in MARGINS for end in ("", " high")]].max(axis=None))
    axis.set(xlim=(0, 1.25 * highest), xlabel="MMC's over SCE's", title="why: the margins")
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
