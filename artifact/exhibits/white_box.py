"""White-box attacks: Table 1, the same PGD by objective, by steps and by epsilon, and Table 2-I, from receipts."""

import numpy as np
import pandas as pd

from artifact.exhibits.distances import least
from artifact.exhibits.exhibit import (
    NO_PAPER,
    Item,
    Missing,
    NotPlanned,
    chosen,
    clean_of_all,
    column_title,
    correct,
    difference,
    distortion,
    epsilon_text,
    evaluation,
    figure_title,
    looks,
    number,
    papers_cell,
    pivot,
    trained_in,
    verdict,
    with_difference,
    with_interval,
    worst,
)
from artifact.exhibits.style import NARROW, WIDE, error, styled, subplots
from artifact.experiment import Profile
from artifact.measurements import white_box
from artifact.methods import GOALS, METHODS, OBJECTIVES, label, mathtext
from mmclib.intervals import mean_interval

# Of two rows the paper says "as in the original papers" (a test holds these numbers to mmclib.losses' defaults, which need torch).
ROWS_OF_OTHERS = {
    "center": "weight 0.01, centers' step 0.5 (after Wen et al., 2016; the paper gives no values).",
    "lgm": "margin 0.1 and likelihood weight 0.1 (after Wan et al., 2018, whose margin multiplies, where Sec. 3.2 adds one; the paper "
           "gives no values).",
}


def table_1(profile: Profile, methods: list[str] | None = None) -> Item:
    """Table 1: white-box PGD, ten rows."""
    methods = methods or profile.white_box.models
    long = []
    for model in methods:
        cells = clean_of_all(profile, model) | {
            column: number(evaluation(profile, spec)) for column, spec in white_box.table_1(profile, model).items()}
        for column, cell in cells.items():
            # the paper's clean accuracy is of all test images
            paper = papers_cell(profile, model, "clean" if column == "all" else column) if column != "clean" or "all" not in cells else None
            long.append({"method": label(profile, model), "column": column, "title": column_title(profile, column), **cell, "paper": paper,
                         "verdict": verdict(profile, cell["accuracy"], paper)})
    values = pd.DataFrame(long)
    return Item(
        "Table 1",
        "table_1",
        "White-box PGD: accuracy (%) against the true label",
        _table_1_says(profile, methods, values),
        pivot(values),
        values.round(4),
        notes="A targeted attack can leave a lower accuracy than an untargeted one: L_Ada^{un,1} pushes a feature away from its own "
        "center, not across a boundary. This is a finding, not an error. MMC rows under the adaptive objectives L_Ada^{un,1} "
        "and L_Ada^{tar,1}, the others under cross-entropy, as in the paper. "
        f"{profile.white_box.images} test images{', clean accuracy also on all there are' * ('all' in set(values['column']))}, "
        f"{profile.white_box.restarts} random start{'s' * (profile.white_box.restarts > 1)}, best iterate kept."
        + "".join(f" {METHODS[loss].name}: {text}" for loss, text in ROWS_OF_OTHERS.items()
                  if any(profile.models[model].loss == loss for model in methods))
        + _how_trained(profile, methods) + trained_in(profile, {model: label(profile, model) for model in methods}),
    )


def _how_trained(profile, methods) -> str:
    """The adversarial trainings of the rows, each once."""
    ways = {}
    for model in (model for model in methods if profile.models[model].adversarial):
        (steps, step_size, noisy), network = profile.crafting(model), profile.network(model)
        start = f" from a start with noise of up to {epsilon_text(network.noise * network.epsilon)}, not projected (N-FGSM)" * noisy
        way = f"{steps} step{'s' * (steps > 1)} of {epsilon_text(step_size)}{start} at ε = {epsilon_text(network.epsilon)}"
        ways.setdefault(way, set()).add(GOALS[profile.models[model].adversarial])
    names = ["AT rows"] if len(ways) == 1 else [f"AT_{' and AT_'.join(sorted(goals))} rows" for goals in ways.values()]
    return "".join(f" {name}: {way}." for name, way in zip(names, ways, strict=True))


def _table_1_says(profile, methods, values) -> str:
    column = "pgd50_un_8"
    at = values[values["column"] == column].set_index("method")
    named = [model for loss in ("mmc", "sce") if (model := profile.find(methods, loss))] or profile.principal(methods)
    kept_by = [f"{label(profile, model)} keeps {with_interval(at.loc[label(profile, model)])}" for model in named]
    parts = [f"under {column_title(profile, column)}, {' and '.join(kept_by)}"]
    # The paper's ablation: "using the optimal center set can further improve performance" (Sec. 4.3).
    for model in (model for model in methods if profile.models[model].loss == "mmc-rand"):
        for optimal in (other for other in methods if profile.models[other] == profile.models[model].model_copy(update={"loss": "mmc"})):
            ours, theirs = (white_box.table_1(profile, name) for name in (optimal, model))
            gaps = {name: difference(correct(profile, ours[name]), correct(profile, theirs[name])) for name in ours if name != "clean"}
            parts.append(f"{label(profile, optimal)}'s optimal centers over random ones: {with_difference(gaps[column])} (of {len(gaps)} "
                         f"attacks they keep significantly more under {sum(gap.low > 0 for gap in gaps.values())} and less under "
                         f"{sum(gap.high < 0 for gap in gaps.values())}, each taken alone)")
    if profile.comparable:
        judged = values[values["verdict"].isin(["reproduced", "near", "differs"])]["verdict"].value_counts()
        parts.append(", ".join(f"{count} cells {name}" for name, count in judged.items()))
        blank = [verdict(profile, 0.0, row.paper) for row in values.itertuples() if row.verdict in ("reproduced", "near")]
        if trivial := sum(one in ("reproduced", "near") for one in blank):
            parts.append(f"of those reproduced or near {trivial} would be so with an accuracy of 0, as an undefended model has")
    return "; ".join(parts)


def objectives(profile: Profile, methods: list[str] | None = None) -> Item:
    """The same PGD under each objective: what the choice of objective hides."""
    methods = methods or profile.white_box.models
    long, masked = [], {}
    for model in methods:
        specs = white_box.objectives(profile, model)
        cells = {name: number(evaluation(profile, spec)) for name, spec in specs.items()}
        cells["worst"] = worst([correct(profile, spec) for spec in specs.values()])
        masked[label(profile, model)] = f"{100 * evaluation(profile, specs['cross_entropy'])['zero_gradients']:.1f}"
        long += [{"model": model, "method": label(profile, model), "objective": name, "title": OBJECTIVES[name].name, **cell}
                 for name, cell in cells.items()]
    values = pd.DataFrame(long).round(4)
    steps, epsilon = profile.white_box.steps[1], epsilon_text(profile.white_box.epsilons[0])
    title = f"Accuracy (%) under PGD-{steps} un, ε = {epsilon}, by the attack's objective"
    says = "no MMC here"
    if mmc := profile.find(methods, "mmc"):
        at = values[values["model"] == mmc].set_index("objective")
        says = (f"{label(profile, mmc)} seems to keep {with_interval(at.loc['cross_entropy'])} under cross-entropy, whose gradient is "
                f"exactly zero on {masked[label(profile, mmc)]} % of the images attacked; the paper's adaptive objective leaves "
                f"{with_interval(at.loc['untargeted_1'])}, the margin {with_interval(at.loc['untargeted_2'])}")
    return Item("Objectives", "objectives", title, says,
                pivot(values).assign(**{"zero gradients of cross-entropy (%)": masked}), values,
                draw_objectives(values, looks(profile, methods), figure_title(profile, title)),
                "Beyond the paper. Worst case: per image over the three. Zero gradients: of the images attacked, which are right before.")


@styled
def draw_objectives(data: pd.DataFrame, looks: dict, title: str):
    """Accuracy of each model under each objective, the largest gap first; `data`: model, objective, accuracy, low, high (%)."""
    shown = ("cross_entropy", "untargeted_1", "untargeted_2", "worst")
    by = data.set_index(["model", "objective"])["accuracy"]
    models = sorted(looks, key=lambda model: by[model, "worst"] - by[model, "cross_entropy"])
    figure, axis = subplots(figsize=(WIDE, 0.9 + 0.5 * len(models)))
    for place, name in enumerate(shown):
        rows = data[data["objective"] == name].set_index("model").loc[models]
        where = [index + (place - 1.5) * 0.2 for index in range(len(models))]
        axis.barh(where, rows["accuracy"], 0.2, color=OBJECTIVES[name].colour, label=mathtext(OBJECTIVES[name].name), xerr=error(rows),
                  error_kw={"elinewidth": 0.7, "ecolor": "0.35"})
        for y, accuracy, high in zip(where, rows["accuracy"], rows["high"], strict=True):
            axis.annotate(f"{accuracy:.1f}", (high, y), (3, 0), textcoords="offset points", va="center", fontsize="x-small")
    axis.set_yticks(range(len(models)), [looks[model]["label"] for model in models])
    axis.set(xlabel="accuracy (%)", xlim=(0, min(100, 1.12 * data["high"].max())), title=title)
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def convergence(profile: Profile, methods: list[str] | None = None) -> Item:
    """PGD with ever more steps."""
    methods, long = chosen(profile.white_box.convergence_models, methods), []
    for model in methods:
        cells = {steps: number(evaluation(profile, spec)) for steps, spec in white_box.convergence(profile, model).items()}
        long += [{"model": model, "method": label(profile, model), "steps": steps, "title": f"PGD-{steps}", **cell}
                 for steps, cell in cells.items()]
    values = pd.DataFrame(long)
    last, settled = profile.white_box.convergence_steps[-1], profile.white_box.steps[1]
    by_steps = values.set_index(["model", "steps"])["accuracy"]
    says = "; ".join(
        f"{label(profile, m)}: {by_steps[m, settled] - by_steps[m, last]:.1f} points from PGD-{settled} to PGD-{last}" for m in methods
    )
    return Item("Convergence", "convergence", f"Accuracy (%) under PGD un, ε = {epsilon_text(profile.white_box.epsilons[0])}, by steps",
                says, pivot(values), values.round(4),
                notes='The check of Sec. 4.3, "the accuracy converges compared to PGD-50", of the untargeted attack.')


def curve(profile: Profile, methods: list[str] | None = None) -> Item:
    """Accuracy against epsilon under the margin objective."""
    methods = methods or profile.white_box.models
    if not profile.white_box.curve_epsilons:
        raise NotPlanned("the profile names no curve_epsilons")
    long = []
    for model in methods:
        long.append({"model": model, "epsilon": 0.0, **number(evaluation(profile, white_box.table_1(profile, model)["clean"]))})
        long += [
            {"model": model, "epsilon": epsilon, **number(evaluation(profile, spec))}
            for epsilon, spec in white_box.curve(profile, model).items()
        ]
    values = pd.DataFrame(long)
    title = f"PGD-{profile.white_box.steps[0]} with the margin objective"
    most = values[values["epsilon"] == values["epsilon"].max()].sort_values("accuracy", ascending=False, kind="stable")
    says = f"under {title} at ε = {epsilon_text(most['epsilon'].iloc[0])} " + _curve_says(profile, most)
    return Item("Curve", "accuracy_against_epsilon", "Accuracy against epsilon", says, values=values.round(4),
                figure=draw_curve(values, looks(profile, methods), figure_title(profile, title)),
                notes=f"Beyond the paper. {profile.white_box.images} images, {profile.white_box.steps[0]} steps of "
                f"{epsilon_text(profile.white_box.step_size)} at every ε: one short attack, not the worst "
                f"case.{_beyond_the_curve(profile, methods)}")


def _beyond_the_curve(profile, methods) -> str:
    """How much the curve flatters: its widest gap, on the same images, to the worst case that the verdict knows, where that is measured."""
    gaps = []
    for model in methods if profile.verdict and profile.verdict.distances else ():
        if model in profile.verdict.models:
            try:
                known = least(profile, model)
            except Missing:
                continue
            for epsilon, spec in white_box.curve(profile, model).items():
                here, worst_here = correct(profile, spec)[:len(known)], known > epsilon + 1e-9
                gaps.append((100 * (here.mean() - worst_here.mean()), model, epsilon, 100 * here.mean(), 100 * worst_here.mean()))
    if not gaps or (widest := max(gaps))[0] <= 0:
        return ""
    _, model, epsilon, here, worst_here = widest
    return (f" It flatters most at ε = {epsilon_text(epsilon)}, where it leaves {label(profile, model)} {here:.1f} % of the first "
            f"{profile.verdict.distances} images and all attacks of the verdict {worst_here:.1f} % (see Whole curve).")


def _curve_says(profile, most) -> str:
    best, *others = most.to_dict("records")
    if best["accuracy"] == 0:
        return f"no model keeps any of {profile.white_box.images} images"
    says = f"{label(profile, best['model'])} keeps most, {with_interval(best)}"
    if others and others[0]["accuracy"] > 0:
        ours, theirs = (correct(profile, white_box.curve(profile, row["model"])[best["epsilon"]]) for row in (best, others[0]))
        says += (f"; the next is {label(profile, others[0]['model'])}, {with_interval(others[0])} "
                 f"(paired difference {with_difference(difference(ours, theirs))})")
    return says


@styled
def draw_curve(data: pd.DataFrame, looks: dict, title: str):
    """Accuracy against epsilon, the intervals of standard training shaded; `data`: model, epsilon, accuracy, low, high (%)."""
    figure, axis = subplots(figsize=(NARROW, 2.9))
    for model, own in looks.items():
        rows = data[data["model"] == model]
        if len(looks) <= 4 or own["label"] in ("SCE", "MMC-10"):  # ten bands would be mud
            axis.fill_between(rows["epsilon"], rows["low"], rows["high"], color=own["color"], alpha=0.15, linewidth=0)
        axis.plot(rows["epsilon"], rows["accuracy"], **own)
    places = sorted(set(data["epsilon"]))
    whole = all(abs(place * 255 - round(place * 255)) < 1e-6 for place in places)
    axis.set_xticks(places, [f"{place * 255:.0f}" if whole else f"{place:g}" for place in places])
    axis.set(xlabel=r"$\varepsilon$ ($\ell_\infty$, in 1/255)" if whole else r"$\varepsilon$ ($\ell_\infty$)", ylabel="accuracy (%)",
             ylim=(0, 100))
    figure.suptitle(title, wrap=True)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def table_2_distortion(profile: Profile, methods: list[str] | None = None) -> Item:
    """Table 2, part I: mean minimal l_2 distortion under C&W."""
    plan, long = profile.carlini_wagner, []
    for model in chosen(plan.models if plan else [], methods):
        long += [{"model": model, "method": label(profile, model), "goal": goal, "title": f"C&W {goal}",
                  **distortion(evaluation(profile, spec))} for goal, spec in white_box.carlini_wagner(profile, model).items()]
    values = pd.DataFrame(long)
    least = 100 * values["success"].min()
    says = "found for every image that needs one" if least == 100 else f"found for at least {least:.1f} % of the images that need one"
    there = list(dict.fromkeys(values["model"]))
    mmc, sce = (profile.find(there, loss) for loss in ("mmc", "sce"))
    if mmc and sce:
        says = f"{_distortions_say(profile, there)}; {says}"
    look = min(25, max(1, plan.steps // 10))  # as mmclib.attacks.carlini_wagner
    return Item("Table 2-I", "table_2_distortion", "Mean minimal l_2 distortion under C&W", says, pivot(values), values.round(6),
                notes=f"{plan.images} images, {plan.binary_search_steps} binary-search steps of {plan.steps} iterations, "
                f"c0 = {plan.initial_const}, learning rate {plan.learning_rate}; a step ends early where {look} iterations "
                "gain less than 1 % (in the last step 0.1 %). The objective is the margin: untargeted App. B.4's own, "
                "targeted to the target from every other class, stronger than App. B.4's. The mean is over the images that had to be "
                f"moved, not those that are misclassified as they are (targeted: called the target). {NO_PAPER}")


def _distortions_say(profile, methods) -> str:
    mmc, sce = (profile.find(methods, loss) for loss in ("mmc", "sce"))
    first, second = _both_moved(profile, mmc, sce, "un")
    if (searches := profile.carlini_wagner.binary_search_steps) < 9 and len(first) > 0:
        return (f"untargeted, {label(profile, mmc)} {first.mean():.3f} and SCE {second.mean():.3f} on the images that both are fooled on, "
                f"not compared: {searches} search steps do not find the constant for logits of both scales")
    if len(first) < 2:
        return f"{label(profile, mmc)} and SCE are not compared: both are fooled on {len(first)} of the images"
    gap, low, high = _mean_difference(first, second)
    word = "more than" if low > 0 else "less than" if high < 0 else "no different, at 95 %, from"
    return (f"untargeted, on the {len(first)} images that both classify rightly and are fooled on, {label(profile, mmc)} takes a mean "
            f"distortion of {first.mean():.3f}, {word} SCE's {second.mean():.3f} (paired difference {gap:+.3f} [{low:+.3f}, {high:+.3f}])"
            f"{_other_distortions(profile, methods)}")


def _other_distortions(profile, methods) -> str:
    """The same difference for the other goal, and for both goals after adversarial training, so that none of them stands alone."""
    parts = []
    for adversarial in (None, "untargeted"):
        pair = [profile.find(methods, loss, adversarial) for loss in ("mmc", "sce")]
        for goal, word in (("un", "untargeted"), ("tar", "targeted")):
            if all(pair) and (adversarial, goal) != (None, "un") and len((both := _both_moved(profile, *pair, goal))[0]) > 1:
                gap, low, high = _mean_difference(*both)
                parts.append(f"{'after adversarial training, ' * bool(adversarial)}{word} {gap:+.3f} [{low:+.3f}, {high:+.3f}]")
    return f"; in the same way {'; '.join(parts)}" if parts else ""


def _both_moved(profile, first, second, goal) -> list[np.ndarray]:
    """The distortions of both models on the images that both had to be moved on, and were."""
    each = [np.array(evaluation(profile, white_box.carlini_wagner(profile, model)[goal])["distortion"]) for model in (first, second)]
    return [distances[(each[0] > 0) & (each[1] > 0)] for distances in each]


def _mean_difference(first, second) -> tuple[float, float, float]:
    gap = (first - second).mean()
    return gap, *mean_interval(gap, (first - second).std(ddof=1) / len(first) ** 0.5, len(first))
