"""The ladder: how far accuracy falls under ever stronger attacks on the same images, and why cross-entropy is blind."""

import numpy as np
import pandas as pd

from artifact.exhibits.exhibit import (
    Item,
    chosen,
    clean,
    correct,
    epsilon_text,
    evaluation,
    figure_title,
    in_255ths,
    looks,
    papers_cell,
    pivot,
    with_interval,
    worst,
)
from artifact.exhibits.style import WIDE, error, panels_of, styled, subplots
from artifact.experiment import Profile, read_receipt, unpack
from artifact.measurements import ladder
from artifact.measurements.measurement import Measurement
from artifact.methods import OBJECTIVES, label, mathtext, rungs


def kept(profile: Profile, spec: Measurement) -> np.ndarray:
    """Which of the verdict's images are still classified correctly, as booleans."""
    return correct(profile, spec)[:profile.verdict.images]


def attacked(profile: Profile, model: str) -> dict[str, Measurement]:
    """The ladder's rungs that were run: not AutoAttack where the rung before it left it no image."""
    return {name: spec for name, spec in ladder.rungs(profile, model).items()
            if name != "autoattack" or evaluation(profile, spec)["queries"] > 0}


def strongest(profile: Profile, model: str) -> np.ndarray:
    """Which images no attack of the verdict fooled, as booleans: ladder, checks, transfers from the other models, FMN within epsilon."""
    left = np.logical_and.reduce([kept(profile, spec) for spec in ladder.rungs(profile, model).values()])
    if model in profile.verdict.models:
        for name in ("longer", "black_box"):
            found = kept(profile, ladder.checks(profile, model)[name])
            left[:len(found)] &= found
        for substitute, spec in ladder.transfer(profile).items():
            if substitute != model:
                left &= unpack(evaluation(profile, spec)["targets"][model]["correct"], spec.images)
        if fmn := ladder.distances(profile, model).get("linf"):
            distances = np.array(evaluation(profile, fmn)["distance"])
            fooled = ~correct(profile, fmn) & (distances <= profile.white_box.epsilons[0] - 5e-7)  # a receipt has six decimals
            left[:len(fooled)] &= ~fooled[:len(left)]
    return left


def ladder_item(profile: Profile, methods: list[str] | None = None) -> Item:
    """Accuracy along the ladder: each rung's own number, and the worst case over it and all before."""
    methods, long = chosen(profile.verdict.models if profile.verdict else [], methods), []
    for model in methods:
        attacks = [("clean", "Clean", clean(profile, model, profile.verdict.images), None)]
        for name, spec in attacked(profile, model).items():
            masked = evaluation(profile, spec)["zero_gradients"] if name != "autoattack" else None
            attacks.append((name, rungs(profile)[name], kept(profile, spec), masked))
        before = []
        for name, title, own, masked in attacks:
            before.append(own)
            so_far = worst(before)
            long.append({"model": model, "method": label(profile, model), "rung": name, "title": title, **worst([own]),
                         **{f"{'' if key == 'accuracy' else key + '_'}so_far": value for key, value in so_far.items()},
                         "zero_gradients": masked})
        long.append(long[-1] | {"rung": "worst", "title": "worst case", "zero_gradients": None} | so_far)
    values = pd.DataFrame(long)
    plan, epsilon = profile.verdict, epsilon_text(profile.white_box.epsilons[0])
    every = rungs(profile)["multi_targeted"].removeprefix("margin, ")
    title = f"Accuracy (%) under ever stronger attacks, ε = {epsilon}"
    return Item(
        "Ladder", "ladder", title, _ladder_says(profile, values), pivot(values, ["Clean", *ladder.titles(profile), "worst case"]),
        values.round(4),
        draw_ladder(values[values["rung"] != "worst"], looks(profile, methods), rungs(profile), _papers(profile, methods),
                    figure_title(profile, title)),
        f"Beyond the paper. Each attack (a rung of the ladder) is run on the same {plan.images} test images and has its own number. In the "
        "worst case an image is right only if no attack fools it; attacks stand in the order of what each adds, which for one model "
        "may not be their order of strength. In the figure the worst case is over the rung and all before it, and hollow marks "
        f"are an attack's own number where that is higher. PGD takes {profile.white_box.steps[1]} steps; restarts: {plan.restarts}; "
        f"{every}: {plan.classes} targets of {plan.steps} steps each, whose size decays to zero. Dividing logits needs centers of known "
        "norm C; with a loss of scale s they are divided by 2sC²."
        + (f" AutoAttack was run only on the images that {every} did not fool: its number is the worst case of both, and there is none "
           "where no image was left.") * (plan.autoattack_on == "survivors" and bool(plan.autoattack))
        + _beside_autoattack(profile, methods),
    )


def _beside_autoattack(profile, methods) -> str:
    """What AutoAttack finds beyond the other rungs, and its time beside theirs, by the clocks in the receipts."""
    parts, processors = [], set()
    for model in methods:
        ran = attacked(profile, model)
        if "autoattack" in ran:
            theirs, others = ran.pop("autoattack"), list(ran.values())
            ours = np.logical_and.reduce([kept(profile, spec) for spec in others])
            total = sum(evaluation(profile, spec)["seconds"] for spec in others) / 3600
            alone, longest = (evaluation(profile, spec)["seconds"] / 3600 for spec in (theirs, ran["multi_targeted"]))
            processors |= {read_receipt(spec.path(profile))["provenance"].get("device") for spec in (theirs, *others)}
            parts.append(f"{label(profile, model)} {100 * kept(profile, theirs).mean():.1f} % where the others leave "
                         f"{100 * ours.mean():.1f} %, in {alone:.1f} hours; every wrong class took {longest:.1f} and all others together "
                         f"{total:.1f}")
    differ = ", on several processors" if len(processors) > 1 else ""
    return f" AutoAttack leaves {'; '.join(parts)} (the receipts' clocks{differ}, beside other work)." if parts else ""


def _ladder_says(profile, values) -> str:
    parts = []
    for model in profile.principal(list(dict.fromkeys(values["model"]))):
        rows = values[values["model"] == model].set_index("rung")
        parts.append(
            f"{label(profile, model)}: {rows.loc['clean', 'accuracy']:.1f} % of these images without attack, "
            f"{rows.loc['cross_entropy', 'accuracy']:.1f} % under cross-entropy, {rows.loc['untargeted_1', 'accuracy']:.1f} % under "
            f"L_Ada^{{un,1}}, {with_interval(rows.loc['worst'])} in the worst case"
        )
    return "; ".join(parts)


def _papers(profile: Profile, methods: list[str]) -> dict[str, float]:
    """What the paper prints for MMC models under its longest attack, where the profile's is that: CIFAR-10, its steps and epsilon."""
    printed = {model: papers_cell(profile, model, "pgd50_un_8") for model in methods if profile.models[model].loss == "mmc"}
    return {model: float(cell) for model, cell in printed.items() if cell}


@styled
def draw_ladder(data: pd.DataFrame, looks: dict, rungs: dict, claims: dict, title: str):
    """Worst case so far, rungs downwards from clean accuracy, and small and hollow each attack's own accuracy.

    `data` has columns model, rung, accuracy (its own), so_far, low_so_far, high_so_far (the worst case), in %; `rungs` maps
    names to titles, `claims` a model to the accuracy that the paper prints for it.
    """
    titles = {"clean": "no attack"} | {name: text for name, text in rungs.items() if name in set(data["rung"])}
    places = {name: place for place, name in enumerate(titles)}
    panels = panels_of(looks)
    most = max(map(len, panels.values()))
    figure, axes = subplots(1, len(panels), figsize=(WIDE, 3.9 + 0.16 * max(0, most - 2)), sharex=True, sharey=True, squeeze=False)
    for axis, (name, models) in zip(axes[0], panels.items(), strict=True):
        for number, model in enumerate(models):
            rows, own = data[data["model"] == model], looks[model]
            aside = (number - (len(models) - 1) / 2) * min(0.16, 0.6 / len(models))  # side by side, so that intervals stay readable
            where, worst_case = rows["rung"].map(places) + aside, rows["so_far"]
            text = f"{own['label']}: {worst_case.iloc[0]:.1f} % → {worst_case.iloc[-1]:.1f} %"
            interval = rows[["so_far", "low_so_far", "high_so_far"]].set_axis(["accuracy", "low", "high"], axis=1)
            axis.errorbar(worst_case, where, xerr=error(interval), elinewidth=0.9, capsize=1.5, **own | {"label": text, "linestyle": "-"})
            apart = rows["accuracy"] > worst_case + 1e-9
            axis.plot(rows["accuracy"][apart], where[apart], own["marker"], color=own["color"], markerfacecolor="white",
                      markeredgewidth=0.8)
            if model in claims:
                axis.axvline(claims[model], color=own["color"], linestyle=(0, (5, 3)), linewidth=1.2, zorder=1.5,
                             label=f"the paper's {claims[model]:.1f} %, trained at full length")
        axis.set_yticks(range(len(titles)), [mathtext(text) for text in titles.values()])
        axis.set(xlim=(-2, 100), ylim=(len(titles) - 0.5, -0.5), xlabel="accuracy, worst case so far (%)",
                 title=name)
        axis.plot([], [], "o", color="0.4", markerfacecolor="white", markeredgewidth=0.8, label="hollow: this attack alone")
        axis.legend(loc="upper left", bbox_to_anchor=(0, -0.13))
    figure.suptitle(title)
    return figure


def diagnosis(profile: Profile, methods: list[str] | None = None) -> Item:
    """Why cross-entropy is blind on large distance logits: scales, iterations, loss surfaces."""
    models = chosen(profile.verdict.diagnosed if profile.verdict else [], methods)
    seen = {model: evaluation(profile, ladder.diagnosis(profile, model)) for model in models}
    long = [{"model": model, "objective": name, "step": step, "median_margin": margin, "zero_gradients": zero}
            for model, results in seen.items() for name, path in results["paths"].items()
            for step, (margin, zero) in enumerate(zip(path["margin"], path["zero_gradients"], strict=True))]
    says = "; ".join(
        f"{label(profile, model)}: median gap between the true class's logit and the next {np.median(results['gap']):.1f}, "
        "cross-entropy's gradient exactly zero on "
        f"{100 * results['paths']['cross_entropy']['zero_gradients'][0]:.0f} % of the images at the random start"
        for model, results in seen.items()
    )
    title = "Why cross-entropy is blind"
    return Item(
        "Diagnosis",
        "diagnosis",
        title,
        says,
        values=pd.DataFrame(long),
        figure=draw_diagnosis(seen, looks(profile, seen), in_255ths(profile),
                              figure_title(profile, title)),
        notes="Beyond the paper. Gap: the true class's logit less the largest other, below zero a wrong answer. Loss surfaces: one test "
        "image moved by up to ε along the sign of the margin's gradient and along random signs.",
    )


@styled
def draw_diagnosis(seen: dict, looks: dict, in_255ths: bool, title: str):
    """A row for each model: logit gaps, the median gap against iteration, two loss surfaces; `seen` holds receipts' results by model."""
    unit, of = (255, " (/255)") if in_255ths else (1, "")
    figure, axes = subplots(len(seen), 4, figsize=(WIDE, 0.75 + 1.5 * len(seen)), squeeze=False, width_ratios=(1, 1, 0.95, 0.95))
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
            drawn = row[place].pcolormesh(unit * axis, unit * axis, values, cmap="cividis", shading="nearest", rasterized=True)
            if np.ptp(values) > 0:
                figure.colorbar(drawn, ax=row[place], label="loss")
            else:
                row[place].text(0.5, 0.5, f"exactly {abs(values[0, 0]):g}\neverywhere", transform=row[place].transAxes, ha="center",
                                va="center", color="white")
            row[place].grid(False)
            row[place].set(aspect="equal")
        row[2].set_ylabel(f"random signs{of}")
    for axis, text in zip(axes[0], ("logit gaps", "gap under attack", "cross-entropy", "margin loss"), strict=True):
        axis.set_title(text)
    along = f"along the margin's\ngradient{of}"
    for axis, text in zip(axes[-1], ("true logit − best other\n(dashed: softmax saturates)", "PGD step", along, along), strict=True):
        axis.set_xlabel(text)
    for row in axes:
        row[1].set_ylabel("median gap")
    handles, texts = axes[0][1].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=4)
    figure.suptitle(title)
    return figure
