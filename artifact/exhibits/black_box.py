"""Black-box attacks: Fig. 4, Table 2-II and Table 3, from receipts."""

import numpy as np
import pandas as pd
from matplotlib.patches import Rectangle

from artifact.exhibits.exhibit import (
    NO_PAPER,
    Item,
    NotPlanned,
    cell_text,
    chosen,
    epsilon_text,
    evaluation,
    figure_title,
    number,
    pivot,
    with_interval,
)
from artifact.exhibits.style import WIDE, styled, subplots
from artifact.experiment import ROOT, Profile
from artifact.measurements import black_box
from artifact.methods import label, shorts


def figure_4(profile: Profile, methods: list[str] | None = None) -> Item:
    """Fig. 4: accuracy of every target on examples crafted on every substitute."""
    long = []
    for substitute in chosen(profile.transfer.models if profile.transfer else [], methods):
        for (attack, epsilon), spec in black_box.transfer(profile, substitute).items():
            for target, results in evaluation(profile, spec)["targets"].items():
                long.append({"attack": attack.upper(), "epsilon": epsilon, "substitute": substitute, "target": target, **number(results)})
    values = pd.DataFrame(long)
    away = values[values["substitute"] != values["target"]]
    if away.empty:
        raise NotPlanned("examples of one model have no other to be tried on")
    least = away[away["accuracy"] == away["accuracy"].min()].to_dict("records")
    found = [f"{row['attack']} at ε = {epsilon_text(row['epsilon'])} from {label(profile, row['substitute'])} to "
             f"{label(profile, row['target'])}" for row in least]
    says = (f"the strongest transfer is {' and '.join(found)}, which "
            f"{'keeps' if len(found) == 1 else 'keep'} {least[0]['accuracy']:.1f} %") if len(found) <= 3 else \
        f"{len(found)} transfers are the strongest, which keep {least[0]['accuracy']:.1f} %"
    if beaten := beaten_white_box(values):
        own, away = beaten[0]
        names = dict.fromkeys(label(profile, pair[0]["target"]) for pair in beaten)
        says += (f"; on {' and '.join(names)} a transfer leaves less than the model's own white-box attack "
                 f"({away['attack']} at ε = {epsilon_text(away['epsilon'])} from {label(profile, away['substitute'])} leaves "
                 f"{label(profile, away['target'])} {with_interval(away)}, its own {with_interval(own)})")
    steps, names = profile.transfer.steps, shorts(profile, profile.transfer.models)
    return Item("Figure 4", "figure_4", f"Accuracy (%) under transfer attacks (PGD-{steps} and MIM-{steps}, untargeted)", says,
                values=values.round(4),
                figure=draw_transfer(values, names, paper_figure_4(), figure_title(profile, "Transfer attacks: accuracy (%)")),
                notes="Rows: the model the examples are crafted on; columns: the model that they are tried on; framed: the same model, "
                      "white box. Two scales of colour. "
                      f"{profile.transfer.images} test images, steps of {epsilon_text(profile.transfer.step_size)}. Below, the two rows of "
                      "the paper's figure that our source still has (CIFAR-10, ε in 1/256 as it prints them); the order of their columns "
                      "is inferred, not printed: a lead, not a fact.")


def beaten_white_box(values: pd.DataFrame) -> list[tuple[dict, dict]]:
    """Rows of a target's own white-box attack and of the transfer that leaves less, the intervals apart, the widest gap first.

    Such a model is not robust to its own attack: the gradients of the objective that the attack climbs mislead it.
    """
    pairs = []
    for _, rows in values.groupby(["attack", "epsilon", "target"]):
        own, away = rows[rows["substitute"] == rows["target"]], rows[rows["substitute"] != rows["target"]]
        if len(own) and len(away):
            pairs.append((own.iloc[0].to_dict(), away.loc[away["accuracy"].idxmin()].to_dict()))
    return sorted((pair for pair in pairs if pair[1]["high"] < pair[0]["low"]), key=lambda pair: pair[1]["accuracy"] - pair[0]["accuracy"])


def paper_figure_4() -> pd.DataFrame:
    """The surviving rows of the paper's Fig. 4: attack, epsilon, substitute, target, accuracy (%)."""
    wide = pd.read_csv(ROOT / "paper" / "figure4_partial.csv", comment="#")
    long = wide.melt(["substitute", "attack", "eps_256"], var_name="target", value_name="accuracy")
    return pd.DataFrame({"attack": long["attack"].str.extract("([A-Z]+)")[0], "epsilon": long["eps_256"] / 256,
                         "substitute": long["substitute"], "target": long["target"].str.replace("AT-", "AT "),
                         "accuracy": 100 * long["accuracy"]})


@styled
def draw_transfer(data: pd.DataFrame, names: dict, paper: pd.DataFrame, title: str):
    """Fig. 4: one heat map for each attack and epsilon, white box framed; below, what is left of the paper's.

    `data` has columns attack, epsilon, substitute, target, accuracy (%), `paper` the same with names for models; `names` maps keys to
    short names.
    """
    ours = data.assign(substitute=data["substitute"].map(names), target=data["target"].map(names))
    panels = list(ours.groupby(["attack", "epsilon"]))
    most = [10 * np.ceil(part["accuracy"].max() / 10) for part in (ours, paper)]
    heights = [ours["substitute"].nunique(), paper["substitute"].nunique()]
    figure, axes = subplots(2, len(panels), figsize=(WIDE, 1.7 + 0.32 * sum(heights)), sharey="row", squeeze=False,
                                height_ratios=heights)
    for row, frame, top, who in zip(axes, (ours, paper), most, ("ours", "the paper"), strict=True):
        for axis, ((attack, epsilon), rows) in zip(row, frame.groupby(["attack", "epsilon"]), strict=False):
            across, down = list(dict.fromkeys(rows["target"])), list(dict.fromkeys(rows["substitute"]))
            matrix = rows.pivot(index="substitute", columns="target", values="accuracy").loc[down, across]
            drawn = axis.imshow(matrix, cmap="cividis", vmin=0, vmax=top, aspect="auto")
            for (y, x), value in np.ndenumerate(matrix.to_numpy()):
                axis.text(x, y, f"{value:.0f}", ha="center", va="center", color="white" if value < 0.55 * top else "black",
                          fontsize="small")
                if across[x] == down[y]:  # crafted on the very model: white box
                    axis.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor="#D55E00", linewidth=1.6, clip_on=False))
            axis.set_xticks(range(len(across)), across, rotation=90 if len(across) > 2 else 0)
            axis.set_yticks(range(len(down)), down)
            text = epsilon_text(epsilon) if frame is ours else f"{round(256 * epsilon)}/256"  # as the paper prints it
            axis.set(title=rf"{attack}, $\varepsilon$ = {text}")
            axis.tick_params(length=0)
            axis.grid(False)
        figure.colorbar(drawn, ax=row, label="accuracy (%)", aspect=4 * len(down))  # as wide beside few rows as beside many
        row[0].set_ylabel(f"{who}:\ncrafted on")
    axes[0][0].figure.supxlabel("tried on", fontsize="medium")
    figure.suptitle(title)
    return figure


def table_2_spsa(profile: Profile, methods: list[str] | None = None) -> Item:
    """Table 2, part II: accuracy under SPSA."""
    long, plan = [], profile.spsa
    titles = {f"{goal}_{place}": f"SPSA {goal}, ε = {epsilon_text(epsilon)}" for goal in ("tar", "un")
              for place, epsilon in zip(("8", "16"), plan.epsilons if plan else (), strict=False)}
    for model in chosen(plan.models if plan else [], methods):
        cells = {column: number(evaluation(profile, spec)) for column, spec in black_box.spsa(profile, model).items()}
        long += [{"model": model, "method": label(profile, model), "column": column, "title": titles[column], **cell}
                 for column, cell in cells.items()]
    values = pd.DataFrame(long)
    says = _compare(profile, values, "un_8", titles["un_8"])
    return Item("Table 2-II", "table_2_spsa", f"Accuracy (%) under SPSA, {plan.evaluations} evaluations a step", says,
                pivot(values), values.round(4),
                notes=f"{plan.images} images, {plan.steps} Adam steps, learning rate {plan.learning_rate}, δ = {plan.delta}. MMC rows "
                      "under L_Ada^{un,1} and L_Ada^{tar,1}, the others under cross-entropy (SPSA's own source takes the margin): another "
                      f"objective may leave less. {NO_PAPER}")


def _compare(profile: Profile, values: pd.DataFrame, column: str, title: str) -> str:
    at = values[values["column"] == column].set_index("model")
    pair = [model for loss in ("mmc", "sce") if (model := profile.find(list(at.index), loss))] or profile.principal(list(at.index))
    return f"{title}: " + "; ".join(f"{label(profile, model)} keeps {with_interval(at.loc[model])}" for model in pair)


def table_3(profile: Profile, methods: list[str] | None = None) -> Item:
    """Table 3: SPSA with larger batches."""
    plan = profile.spsa
    (model,) = chosen([plan.table_3_model] if plan else [], methods)
    name = label(profile, model)
    values = pd.DataFrame([{"method": name, "evaluations": count, "title": f"batch {count}", **number(evaluation(profile, spec))}
                           for count, spec in black_box.table_3(profile).items()])
    first, last = values.iloc[0], values.iloc[-1]
    if cell_text(first) == cell_text(last):
        says = f"{name} keeps {with_interval(first)} with {first['evaluations']} evaluations a step and no less with {last['evaluations']}"
    else:
        says = (f"from {first['evaluations']} to {last['evaluations']} evaluations a step {name} "
                f"{'falls' if last['accuracy'] < first['accuracy'] else 'rises'} from {with_interval(first)} to {with_interval(last)}")
    return Item("Table 3", "table_3", f"Accuracy (%) of {name} under SPSA by batch size, ε = {epsilon_text(plan.epsilons[0])}", says,
                pivot(values), values.round(4),
                notes=f"Untargeted. {plan.images} images, {plan.steps} Adam steps, learning rate {plan.learning_rate}, δ = {plan.delta}. "
                      f"{NO_PAPER}")
