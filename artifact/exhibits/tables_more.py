"""The tables and figures of Table 2, Table 3, Fig. 3b and Fig. 4, from receipts."""

import pandas as pd

from artifact import items
from artifact.exhibits import figures
from artifact.exhibits.exhibit import (
    Item,
    NotPlanned,
    correct,
    epsilon_text,
    evaluation,
    figure_title,
    mean_interval,
    number,
    pivot,
    shown,
    with_interval,
)
from artifact.experiment import ROOT, Profile
from artifact.methods import label, short
from mmclib.intervals import wilson_interval

NO_PAPER = "The paper's cells are lost in the source: paper: not available."


def _methods(section, methods):
    chosen = [model for model in (methods or section.models) if model in section.models] if section else []
    if not chosen:
        raise NotPlanned("this profile does not evaluate it for these models")
    return chosen


def table_2_distortion(profile: Profile, methods: list[str] | None = None) -> Item:
    """Table 2, part I: mean minimal l_2 distortion under C&W."""
    rows, long, intervals = {}, [], {}
    for model in _methods(profile.carlini_wagner, methods):
        cells = {goal: evaluation(profile, spec) for goal, spec in items.carlini_wagner(profile, model).items()}
        rows[label(profile, model)] = {f"C&W {goal}": f"{cell['mean_distortion']:.3f}" if cell["mean_distortion"] else "none found"
                                    for goal, cell in cells.items()}
        intervals |= {(label(profile, model), f"C&W {goal}"): mean_interval(cell["mean_distortion"], cell["standard_error"])
                      for goal, cell in cells.items() if cell["mean_distortion"]}
        long += [{"model": model, "goal": goal, "mean_distortion": cell["mean_distortion"], "standard_error": cell["standard_error"],
                  "success": cell["success"]} for goal, cell in cells.items()]
    values = pd.DataFrame(long)
    by = values.set_index(["model", "goal"])
    least = 100 * values["success"].min()
    says = "found for every image" if least == 100 else f"found for at least {least:.1f} % of the images"
    there = list(dict.fromkeys(values["model"]))
    mmc, sce = (profile.find(there, loss) for loss in ("mmc", "sce"))
    if mmc and sce:
        ours, theirs = by.loc[(mmc, "un")], by.loc[(sce, "un")]
        error = (ours["standard_error"] ** 2 + theirs["standard_error"] ** 2) ** 0.5
        gap = ours["mean_distortion"] - theirs["mean_distortion"]
        word = "more than" if gap > 1.96 * error else "less than" if gap < -1.96 * error else "no different, at 95 %, from"
        says = (f"untargeted, {label(profile, mmc)} takes a mean distortion of {ours['mean_distortion']:.3f}, {word} SCE's "
                f"{theirs['mean_distortion']:.3f} (difference {gap:.3f} ± {1.96 * error:.3f}); {says}")
    plan = profile.carlini_wagner
    return Item(
        "Table 2-I",
        "table_2_distortion",
        "Mean minimal l_2 distortion under C&W",
        says,
        pd.DataFrame(rows).T,
        None,
        values.round(6),
        notes=f"{plan.images} images, {plan.binary_search_steps} binary-search steps of {plan.steps} iterations, "
        f"c0 = {plan.initial_const}, learning rate {plan.learning_rate}; 0 where the clean image is misclassified. {NO_PAPER}",
        intervals=intervals,
    )


def table_2_spsa(profile: Profile, methods: list[str] | None = None) -> Item:
    """Table 2, part II: accuracy under SPSA."""
    long, plan = [], profile.spsa
    titles = {f"{goal}_{place}": f"SPSA {goal}, ε = {epsilon_text(epsilon)}" for goal in ("tar", "un")
              for place, epsilon in zip(("8", "16"), plan.epsilons if plan else (), strict=False)}
    for model in _methods(plan, methods):
        cells = {column: number(evaluation(profile, spec)) for column, spec in items.spsa(profile, model).items()}
        long += [{"model": model, "method": label(profile, model), "column": column, "title": titles[column], **cell}
                 for column, cell in cells.items()]
    values = pd.DataFrame(long)
    says = _compare(profile, values, "un_8", titles["un_8"])
    return Item("Table 2-II", "table_2_spsa", f"Accuracy (%) under SPSA, {plan.evaluations} evaluations a step", says,
                pivot(values), None, values.round(4),
                notes=f"{plan.images} images, {plan.steps} Adam steps, learning rate {plan.learning_rate}, δ = {plan.delta}. {NO_PAPER}")


def _compare(profile: Profile, values: pd.DataFrame, column: str, title: str) -> str:
    at = values[values["column"] == column].set_index("model")
    pair = (profile.find(list(at.index), loss) for loss in ("mmc", "sce"))
    return f"{title}: " + "; ".join(f"{label(profile, model)} keeps {with_interval(at.loc[model])}" for model in pair if model)


def table_3(profile: Profile, methods: list[str] | None = None) -> Item:
    """Table 3: SPSA with larger batches, beside the white-box attack that it should approach."""
    plan = profile.spsa
    if not plan or (methods and plan.table_3_model not in methods):
        raise NotPlanned("this profile does not evaluate it for these models")
    model = plan.table_3_model
    cells = {str(count): number(evaluation(profile, spec)) for count, spec in items.table_3(profile).items()}
    name = label(profile, model)
    values = pd.DataFrame([{"evaluations": count, **cell} for count, cell in cells.items()])
    first, last = values.iloc[0], values.iloc[-1]
    if shown(first) == shown(last):
        says = f"{name} keeps {with_interval(first)} with {first['evaluations']} evaluations a step and no less with {last['evaluations']}"
    else:
        says = (f"from {first['evaluations']} to {last['evaluations']} evaluations a step {name} "
                f"{'falls' if last['accuracy'] < first['accuracy'] else 'rises'} from {with_interval(first)} to {with_interval(last)}")
    return Item(
        "Table 3",
        "table_3",
        f"Accuracy (%) of {name} under SPSA by batch size, ε = {epsilon_text(plan.epsilons[0])}",
        says,
        pd.DataFrame({name: {f"batch {count}": shown(cell) for count, cell in cells.items()}}).T,
        None,
        values.round(4),
        notes=NO_PAPER,
        intervals={(name, f"batch {count}"): cell for count, cell in cells.items()},
    )


def table_2_transformations(profile: Profile, methods: list[str] | None = None) -> Item:
    """Table 2, part III: accuracy under noise and rotation, the mean over several draws."""
    rows, long, intervals, plan = {}, [], {}, profile.transformations
    for model in _methods(plan, methods):
        rows[label(profile, model)] = {}
        for kind, specs in items.transformations(profile, model).items():
            flags = [correct(profile, spec) for spec in specs]
            draws = [100 * found.mean() for found in flags]
            title = f"noise σ = {plan.sigma:g}" if kind == "noise" else f"rotation ±{plan.degrees:g}°"
            rows[label(profile, model)][title] = f"{sum(draws) / len(draws):.1f}"
            # An image counts once however often it is drawn: as if its draws told nothing beyond their mean.
            low, high = wilson_interval(sum(found.sum() for found in flags) / len(flags), len(flags[0]))
            intervals[label(profile, model), title] = {"accuracy": sum(draws) / len(draws), "low": 100 * low, "high": 100 * high}
            long.append({"model": model, "column": kind, "accuracy": sum(draws) / len(draws), "low": min(draws), "high": max(draws)})
    values = pd.DataFrame(long)
    at = values[values["column"] == "rotation"].set_index("model")["accuracy"]
    says = "rotation: " + "; ".join(
        f"{label(profile, m)} keeps {at[m]:.1f} %" for m in profile.principal(list(at.index)) if profile.models[m].adversarial != "targeted"
    )
    return Item("Table 2-III", "table_2_transformations", "Accuracy (%) under general transformations", says, pd.DataFrame(rows).T, None,
                values.round(4), notes=f"{plan.images} images, mean over {plan.draws} draws (CSV: lowest and highest draw). {NO_PAPER}",
                intervals=intervals)


def figure_4(profile: Profile, methods: list[str] | None = None) -> Item:
    """Fig. 4: accuracy of every target on examples crafted on every substitute."""
    long = []
    for substitute in _methods(profile.transfer, methods):
        for (attack, epsilon), spec in items.transfer(profile, substitute).items():
            for target, results in evaluation(profile, spec)["targets"].items():
                long.append({"attack": attack.upper(), "epsilon": epsilon, "substitute": substitute, "target": target, **number(results)})
    values = pd.DataFrame(long)
    away = values[values["substitute"] != values["target"]]
    worst = away.loc[away["accuracy"].idxmin()]
    says = (f"the strongest transfer is {worst['attack']} at ε = {epsilon_text(worst['epsilon'])} from "
            f"{label(profile, worst['substitute'])} to {label(profile, worst['target'])}, which keeps {worst['accuracy']:.1f} %")
    steps, names = profile.transfer.steps, {model: short(profile, model) for model in profile.transfer.models}
    return Item("Figure 4", "figure_4", f"Accuracy (%) under transfer attacks (PGD-{steps} and MIM-{steps}, untargeted)", says,
                values=values.round(4),
                figure=figures.transfer_matrices(values, names, paper_figure_4(), figure_title(profile, "Transfer attacks: accuracy (%)")),
                notes="Rows: the model the examples are crafted on; columns: the model that they are tried on; framed: the same model, "
                      "white box. Two scales of colour. Below, the two rows of the paper's figure that our source still has (CIFAR-10); the"
                      "  order of their columns is inferred, not printed: a lead, not a fact.")


def paper_figure_4() -> pd.DataFrame:
    """The surviving rows of the paper's Fig. 4: attack, epsilon, substitute, target, accuracy (%)."""
    wide = pd.read_csv(ROOT / "paper" / "figure4_partial.csv", comment="#")
    long = wide.melt(["substitute", "attack", "eps_256"], var_name="target", value_name="accuracy")
    return pd.DataFrame({"attack": long["attack"].str.extract("([A-Z]+)")[0], "epsilon": long["eps_256"] / 255,
                         "substitute": long["substitute"], "target": long["target"].str.replace("AT-", "AT "),
                         "accuracy": 100 * long["accuracy"]})


def figure_3b(profile: Profile, methods: list[str] | None = None) -> Item:
    """Fig. 3b: how each objective moves a 2-D feature."""
    if not profile.plane or (methods and profile.plane_beside() not in methods):
        raise NotPlanned("this profile does not draw it for these models")
    results = evaluation(profile, items.plane(profile))
    long = [{"input": place, "objective": name, "step": step, "x": x, "y": y}
            for name, paths in results["paths"].items() for place, path in enumerate(paths) for step, (x, y) in enumerate(path)]
    values = pd.DataFrame(long)
    moved = {name: sum(((path[-1][0] - path[0][0]) ** 2 + (path[-1][1] - path[0][1]) ** 2) ** 0.5 for path in paths) / len(paths)
             for name, paths in results["paths"].items()}
    labels, centers = results["labels"], results["centers"]
    fooled = {name: [figures.first_fooled(path, centers, labels[index]) for path, index in zip(paths, results["inputs"], strict=True)]
              for name, paths in results["paths"].items()}
    says = (f"fooled first at step {_steps(fooled['untargeted_1'])} under the untargeted and {_steps(fooled['targeted_1'])} under the "
            f"targeted adaptive objective, {_steps(fooled['cross_entropy'])} under cross-entropy; after {profile.plane.steps} steps "
            f"the feature has moved {moved['untargeted_1']:.2f} under the untargeted and "
            f"{moved['targeted_1']:.2f} under the targeted adaptive objective, {moved['cross_entropy']:.2f} under cross-entropy")
    title = figure_title(profile, f"PGD-{profile.plane.steps} in a 2-D feature space, ε = {profile.plane.epsilon:g}")
    return Item("Figure 3b", "figure_3b", "Adaptive and non-adaptive attacks in a two-dimensional feature space", says, values=values,
                figure=figures.attack_paths(results, title), notes="Stars: the clean inputs. Crosses: the class centers.")


def _steps(found: list[int | None]) -> str:
    return " and ".join("never" if step is None else str(step) for step in found)
