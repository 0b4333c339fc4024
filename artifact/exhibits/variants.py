"""Tables 4 and 5 and the variants that App. B leaves open, from receipts; every sentence is computed from the numbers."""

import numpy as np
import pandas as pd

from artifact.exhibits.exhibit import (
    CLEAN,
    NO_PAPER,
    Item,
    chosen,
    clean,
    clean_of_all,
    column_title,
    correct,
    difference,
    distortion,
    epsilon_text,
    evaluation,
    figure_title,
    number,
    pivot,
    trained_in,
    with_difference,
    worst,
)
from artifact.exhibits.style import NARROW, styled, subplots
from artifact.experiment import Profile
from artifact.measurements import variants
from artifact.measurements.measurement import ADAPTIVE
from artifact.methods import OBJECTIVES, base, label, mathtext
from mmclib.intervals import auroc_interval

NAMES = {
    "digits": "digits",
    "digit-pairs": "pairs of digits (100 classes)",
    "mnist": "MNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
}


def _title(profile: Profile, column: str) -> str:
    plan = profile.white_box
    if column == "margin":
        return f"PGD-{plan.steps[1]} margin, ε = {epsilon_text(plan.epsilons[0])}"
    if column.startswith("spsa_"):
        _, goal, place = column.split("_")
        return f"SPSA-{profile.spsa.evaluations} {goal}, ε = {epsilon_text(profile.spsa.epsilons[place == '16'])}"
    return f"C&W {column.removeprefix('cw_')}, l_2" if column.startswith("cw_") else column_title(profile, column)


def table_4(profile: Profile, methods: list[str] | None = None) -> Item:
    """Table 4: the methods on 100 classes."""
    models, long = chosen(profile.cifar100.models if profile.cifar100 else [], methods), []
    for model in models:
        cells = clean_of_all(profile, model) | {
            column: (distortion if column.startswith("cw_") else number)(evaluation(profile, spec))
            for column, spec in variants.table_4(profile, model).items()}
        long += [{"model": model, "method": label(profile, model), "column": column, "title": _title(profile, column), **cell}
                 for column, cell in cells.items()]
    data, values = NAMES[profile.dataset(models[0])], pd.DataFrame(long)
    return Item(
        "Table 4", "table_4", f"{data[0].upper() + data[1:]}: accuracy (%), and mean minimal distortion under C&W",
        _table_4_says(profile, models), pivot(values), values.round(4),
        notes=_table_4_notes(profile),
    )


def _table_4_notes(profile) -> str:
    plan, spsa, cw = profile.white_box, profile.spsa, profile.carlini_wagner
    notes = (f"PGD: {plan.images} test images, MMC under its adaptive objectives, the others under cross-entropy; the last column, beyond "
             "the paper, is the margin for all. How many steps the paper's Table 4 takes is not in our copy.")
    if spsa:
        notes += f" SPSA: {spsa.images} images, {spsa.steps} steps of {spsa.evaluations} evaluations, objectives as for PGD."
    if cw:
        notes += (f" C&W: {cw.images} images, {cw.binary_search_steps} binary-search steps of {cw.steps} iterations, its own margin for "
                  "all; the mean is over the images that had to be moved."
                  + " So few search steps do not find the constant for logits of both scales." * (cw.binary_search_steps < 9))
    return f"{notes} {NO_PAPER}"


def _table_4_says(profile, models) -> str:
    mmc, sce = (profile.find(models, loss) for loss in ("mmc", "sce"))
    if not (mmc and sce):
        return "SCE and MMC are not both here"
    mine, theirs = (variants.table_4(profile, model) for model in (mmc, sce))
    first = min(len(clean(profile, model, None)) for model in (mmc, sce))  # as many images as both are tested on
    gaps = {"all" if first > profile.white_box.images else "clean": difference(*(clean(profile, model, first) for model in (mmc, sce)))}
    gaps |= {column: difference(correct(profile, mine[column]), correct(profile, theirs[column])) for column in ("pgd10_un_8", "margin")}
    parts = [f"{_title(profile, column)}: {label(profile, mmc)} over SCE by {with_difference(gap)}" for column, gap in gaps.items()]
    held, strong = (gaps[column][1] > 0 for column in ("pgd10_un_8", "margin"))
    return (f"At 95 %, this {label(profile, mmc)} is {'' if held else 'not '}more robust than this SCE (one seed of each) under the "
            f"paper's attack and {'' if strong else 'not '}under the margin. {'; '.join(parts)}")


def table_5(profile: Profile, methods: list[str] | None = None) -> Item:
    """Table 5: a shallower and a deeper network."""
    networks, long = profile.depth.networks if profile.depth else {}, []
    models = chosen([model for group in networks.values() for model in group], methods)
    for network, model in ((network, model) for network, group in networks.items() for model in group if model in models):
        data, name = NAMES[profile.dataset(model)], label(profile, model)
        long += [{"data": data, "network": network, "model": model, "method": f"{data}, {network}, {name}", "column": column,
                  "title": _title(profile, column), **number(evaluation(profile, spec))}
                 for column, spec in variants.table_5(profile, model).items()]
    values = pd.DataFrame(long)
    return Item("Table 5", "table_5", "White-box accuracy (%) by depth", _table_5_says(profile, networks, methods), pivot(values),
                values.round(4),
                notes=f"MMC under its adaptive objectives, SCE under cross-entropy; last column: the margin for both. {NO_PAPER}")


def _table_5_says(profile, networks, methods) -> str:
    (shallow, first), (deep, second) = list(networks.items())[:2]
    parts, held = [], {}
    for low, high in zip(first, second, strict=True):
        if methods is not None and not {low, high} <= set(methods):
            continue
        gains = {
            column: difference(
                correct(profile, variants.table_5(profile, high)[column]), correct(profile, variants.table_5(profile, low)[column])
            )
            for column in ("pgd10_un_8", "margin")
        }
        parts += [
            f"{label(profile, low)} on {NAMES[profile.dataset(low)]}, {_title(profile, column)}: {with_difference(gain)}"
            for column, gain in gains.items()
        ]
        held.setdefault(profile.models[low].loss, []).append(gains["pgd10_un_8"][1] > 0)
    if not parts:
        return "not both networks are here"
    lacking = [name for loss, name in (("sce", "SCE"), ("mmc", "MMC")) if loss not in held]
    if not lacking:  # the claim is about both losses: the pairs of one, or of a third, say nothing of the other's
        mmc, sce = all(held["mmc"]), any(held["sce"])
        judged = (f"{'As the paper claims' if mmc and not sce else 'Against the claim of the paper'}, at 95 % under its own attack: MMC "
                  f"{'gains' if mmc else 'does not gain significantly'} from depth, SCE {'gains' if sce else 'does not significantly'}. ")
    else:
        judged = f"Of {' and '.join(lacking)} not both networks are here, so the paper's claim is not judged. "
    return f"{judged}From {shallow} to {deep}: {'; '.join(parts)}"


def _variant_item(name, stem, title, group, notes=""):
    def build(profile: Profile, methods: list[str] | None = None) -> Item:
        models = chosen(variants.groups(profile).get(group, []), methods)
        long, left = [], {}
        for model in models:
            specs = variants.variant(profile, model)
            cells = clean_of_all(profile, model) | {column: number(evaluation(profile, spec)) for column, spec in specs.items()}
            both = [correct(profile, specs[objective]) for objective in ("untargeted_1", "untargeted_2")]
            cells["worst"], left[model] = worst(both), np.logical_and.reduce(both)
            titles = CLEAN | {
                "superclass": "Superclass, clean",
                "untargeted_1": OBJECTIVES["untargeted_1"].name,
                "untargeted_2": "margin",
                "worst": "worst case",
            }
            long += [{"model": model, "method": label(profile, model), "column": column, "title": titles[column], **cell}
                     for column, cell in cells.items()]
        values = pd.DataFrame(long).round(4)
        figure = None
        if group == "radius":
            radii = {model: profile.models[model].radius for model in models}
            figure = draw_radius(values.assign(radius=values["model"].map(radii)), figure_title(profile, mathtext(title)))
        plan = profile.white_box
        data = NAMES[profile.dataset(models[0])]
        return Item(name, stem, title, _variant_says(profile, models, left), pivot(values), values, figure,
                    f"Beyond the paper. {data[0].upper() + data[1:]}, {plan.images} test images, PGD-{plan.steps[1]}, untargeted, "
                    f"ε = {epsilon_text(plan.epsilons[0])}. Worst case: per image over the two objectives. {notes}".strip()
                    + trained_in(profile, {model: label(profile, model) for model in models}))
    return build


def _variant_says(profile, models, left) -> str:
    parts = []
    for goal in (None, "targeted", "untargeted"):  # standard and adversarial training are compared among themselves
        group = [model for model in models if profile.models[model].adversarial == goal]
        plain = next((model for model in group if base(profile, model) == "MMC-10"), None)
        for model in group:
            if plain and model != plain:
                parts.append(f"{label(profile, model)} {with_difference(difference(left[model], left[plain]))}")
    return f"worst case against MMC-10 trained the same way: {'; '.join(parts)}" if parts else "no variant stands beside the baseline here"


elastic = _variant_item("Elastic", "elastic", "Elastic centers (Eq. 21): accuracy (%) by α", "elastic")
hierarchical = _variant_item("Hierarchical", "hierarchical", "Hierarchical centers (App. B.3): accuracy (%)", "hierarchical",
                             "HM (C1, C2): superclasses C1 from the origin, classes C2 from their superclass.")
forms = _variant_item(
    "Forms",
    "forms",
    "Squared, absolute and Huber form (App. B.2): accuracy (%)",
    "forms",
    'The paper: the squared form "can better collaborate with the AT mechanism". Huber\'s δ is 1: farther from the center '
    "than that its gradient is the absolute form's.",
)
inner = _variant_item("Inner objective", "inner", "What adversarial training trains against: accuracy (%)", "inner",
                      f"The paper's adversarial training of MMC climbs {OBJECTIVES['untargeted_1'].name}; these are compared with one that "
                      "climbs the margin, which attacks MMC best.")
radius = _variant_item("Radius", "radius", "Accuracy against C_MM", "radius")


@styled
def draw_radius(data: pd.DataFrame, title: str):
    """Clean and robust accuracy against C_MM; `data` has columns radius, column ("clean", "worst"), accuracy, low, high (%)."""
    figure, axis = subplots(figsize=(NARROW, 2.7))
    for column, text, colour, marker in (("clean", "clean", "#0072B2", "o"),
                                         ("untargeted_1", OBJECTIVES["untargeted_1"].name, OBJECTIVES["untargeted_1"].colour, "^"),
                                         ("worst", "worst case of two", "#D55E00", "P")):
        rows = data[data["column"] == column].sort_values("radius")
        axis.fill_between(rows["radius"], rows["low"], rows["high"], color=colour, alpha=0.15, linewidth=0)
        axis.plot(rows["radius"], rows["accuracy"], color=colour, marker=marker, label=mathtext(text))
    axis.set(xscale="log", xlabel=r"$C_{\mathrm{MM}}$", ylabel="accuracy (%)", ylim=(-2, 102))
    axis.set_xticks(sorted(set(data["radius"])), [f"{value:g}" for value in sorted(set(data["radius"]))])
    axis.minorticks_off()
    figure.suptitle(title, wrap=True)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def uncertainty(profile: Profile, methods: list[str] | None = None) -> Item:
    """Does the loss value say when the model is wrong, or attacked? AUROC with a 95 % interval (Hanley and McNeil, 1982, as logits)."""
    models = chosen(profile.variants.uncertainty if profile.variants else [], methods)
    rows, long, several = {}, [], len({profile.dataset(model) for model in models}) > 1
    names = {model: label(profile, model) + (f" on {NAMES[profile.dataset(model)]}" if several else "") for model in models}
    names = {model: f"{name} ({model})" if list(names.values()).count(name) > 1 else name for model, name in names.items()}
    for model in models:
        spec = variants.uncertainty(profile, model)
        results = evaluation(profile, spec)
        clean, right = np.array(results["clean"]), correct(profile, spec)
        asked = {"right from wrong": (clean[right], clean[~right])}
        for name, attacked in results["attacked"].items():
            text = {"cross_entropy": "cross-entropy PGD", "untargeted_1": "L_Ada^{un,1} PGD", "untargeted_2": "margin PGD",
                    "targeted_1": "L_Ada^{tar,1} PGD"}[name]
            asked[f"clean from {text}"] = (clean, np.array(attacked["scores"]))
        score = "L_MMC" if profile.models[model].loss in ADAPTIVE else "max softmax"
        row = rows[f"{names[model]}, {score}"] = {}
        for question, (low, high) in asked.items():
            known = len(low) and len(high)
            value, least, most = auroc_interval(low, high) if known else (None, None, None)
            row[question] = (
                "–" if value is None else f"{value:.3f} [{least:.3f}, {most:.3f}]"
                + (f" ({len(high)} wrong)" if question == "right from wrong" else "")
            )
            long.append({"model": model, "score": score, "question": question, "auroc": value, "low": least, "high": most,
                         "negatives": len(low), "positives": len(high)})
    values = pd.DataFrame(long)
    known = values.dropna(subset="auroc")
    says = "AUROC: " + "; ".join(
        f"{names[row.model]} by {row.score}, {row.question}: {row.auroc:.3f} [{row.low:.3f}, {row.high:.3f}]"
        for row in known.itertuples()
    )
    plan = profile.white_box
    return Item(
        "Uncertainty",
        "uncertainty",
        "The loss value as a measure of uncertainty (AUROC)",
        says,
        pd.DataFrame(rows).T.fillna("–"),
        values.round(4),
        notes=f'Beyond the paper, which calls the loss value "a reliable metric of the uncertainty on returned predictions". 0.5 is '
        "chance; below it attacked images look more certain than clean ones. Of the attacks on MMC L_Ada^{tar,1}, towards the center of "
        "the likeliest wrong class, alone tries to look certain: an AUROC near 1 against the others is no defence. An image and its "
        "attacked copy count as independent in the intervals. "
        f"{plan.images} images, PGD-{plan.steps[0]}, last iterate.",
    )
