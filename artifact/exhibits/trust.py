"""Which attack may be trusted: self-checks, indicators of failure on each rung's survivors, and attacks at the same number of passes."""

import numpy as np
import pandas as pd

from artifact.exhibits.distances import asked, least
from artifact.exhibits.exhibit import Item, NotPlanned, chosen, epsilon_text, evaluation, figure_title
from artifact.exhibits.ladder import attacked, kept
from artifact.exhibits.style import WIDE, log_ticks, styled, subplots
from artifact.experiment import Profile, unpack
from artifact.measurements import ladder
from artifact.methods import OBJECTIVES, label, mathtext, rungs
from mmclib.optimality import optimality


def self_checks(profile: Profile, methods: list[str] | None = None) -> Item:
    """Are the attacks sound on this model? After AutoAttack's flags and the checklist of Carlini et al. (2019)."""
    methods, rows, long = chosen(profile.verdict.models if profile.verdict else [], methods), {}, []
    for model in methods:
        cells = _checks(profile, model)
        rows[label(profile, model)] = {name: ("ok" if ok else "FLAG") + f" ({text})" for name, (ok, text) in cells.items()}
        long += [{"model": model, "check": name, "ok": ok, "measured": text} for name, (ok, text) in cells.items()]
    values = pd.DataFrame(long)
    flags = values[~values["ok"]]
    says = (f"{len(values) - len(flags)} of {len(values)} checks pass"
            + "".join(f"; {label(profile, row.model)}: {row.check}: {row.measured}" for row in flags.itertuples()))
    return Item("Self-checks", "self_checks", "Can the attacks be trusted?", says, pd.DataFrame(rows).T.fillna("–"), values,
                notes=f"Accuracies in %, on {ladder.check_images(profile)} images (transfer and AutoAttack: {profile.verdict.images}). "
                      "White box: the worst case over the ladder and a longer run towards every wrong class, with twice the steps. A FLAG "
                      "under zero gradients says that cross-entropy is blind on this model, which is why no number here rests on it alone; "
                      "the share is of the images attacked, which are right without attack. One attack beats another if it leaves no "
                      f"higher accuracy. The black box is SPSA, {ladder.GUESSES} steps of {profile.verdict.queries} evaluations"
                      + (", a weak one: that a white box beats it says little." if profile.verdict.queries < 128 else "."))


def _checks(profile: Profile, model: str) -> dict[str, tuple[bool, str]]:
    rung, extra, images = ladder.rungs(profile, model), ladder.checks(profile, model), ladder.check_images(profile)

    def own(spec):  # of the images that the checks were made on
        return kept(profile, spec)[:images]

    def share(spec):
        return 100 * own(spec).mean()
    left = np.logical_and.reduce([kept(profile, spec) for spec in rung.values()])
    before = 100 * left[:images].mean()
    left[:images] &= own(extra["longer"])
    robust, whole = 100 * left[:images].mean(), 100 * left.mean()
    single, iterated = share(extra["single_step"]), share(rung["untargeted_2"])
    moved = [results["targets"][model]["accuracy"] * 100 for substitute, spec in ladder.transfer(profile).items() if substitute != model
             for results in [evaluation(profile, spec)]]
    masked = {name: 100 * evaluation(profile, rung[name])["zero_gradients"] for name in ("cross_entropy", "untargeted_2")}
    different = evaluation(profile, extra["repeated"])["largest_difference"]
    cells = {
        "iterating beats one step": (iterated <= single, f"{single:.1f} → {iterated:.1f}"),
        "ε = 1 reaches 0": (share(extra["unbounded"]) == 0, f"{share(extra['unbounded']):.1f}"),
        "white box beats black box": (robust <= share(extra["black_box"]), f"{robust:.1f} ≤ {share(extra['black_box']):.1f}"),
        # a model alone has none to transfer from
        **({"white box beats transfer": (whole <= min(moved), f"{whole:.1f} ≤ {min(moved):.1f}")} if moved else {}),
        "more steps gain no more": (before - robust <= max(1.0, 100 / images) + 1e-9, f"{before:.1f} → {robust:.1f}"),
        "no more than 5 % zero gradients, cross-entropy": (masked["cross_entropy"] <= 5, f"{masked['cross_entropy']:.1f} %"),
        "no more than 5 % zero gradients, margin": (masked["untargeted_2"] <= 5, f"{masked['untargeted_2']:.1f} %"),
        "not random": (different == 0, f"{different:.1g}"),
    }
    if "autoattack" in attacked(profile, model):
        ours = 100 * np.logical_and.reduce([kept(profile, spec) for name, spec in rung.items() if name != "autoattack"]).mean()
        theirs = 100 * kept(profile, rung["autoattack"]).mean()
        cells["AutoAttack finds no more"] = (ours <= theirs + 0.5, f"{ours:.1f} ≤ {theirs:.1f} + 0.5")
    return cells


INDICATORS = {  # of mmclib.attacks.indicators: what is said of a rung whose survivors raise one
    "unavailable_gradients": "no gradient", "unstable_predictions": "unstable", "silent_success": "silent success",
    "incomplete_optimisation": "unfinished", "unbounded_failure": "fails without bounds",
}
BEATEN = {"beaten": "another attack fools"}  # what silence of the indicators cannot vouch for: an objective that leads astray


def survivors(profile: Profile, model: str) -> pd.DataFrame:
    """Of each rung: how many images it leaves, and which share of them is fooled by another rung, or (of those among the first images that
    indicators are made on) raises each indicator, in %; in long form."""
    known, count, long = ladder.indicators(profile, model), profile.verdict.indicators, []
    surface = evaluation(profile, known["model"])["raised"]
    best = np.logical_and.reduce([kept(profile, spec) for spec in ladder.rungs(profile, model).values()])
    for name, spec in ladder.rungs(profile, model).items():
        if name not in known:
            continue
        left, raised = kept(profile, spec), surface | evaluation(profile, known[name])["raised"]
        signs = {indicator: unpack(raised[indicator], count) for indicator in INDICATORS} | {"beaten": ~best}
        for indicator, sign in signs.items():
            looked_at = left[:len(sign)]
            fired = sign & looked_at
            long.append({"model": model, "rung": name, "indicator": indicator, "survivors": int(left.sum()),
                         "looked_at": int(looked_at.sum()), "share": 100 * fired.sum() / looked_at.sum() if looked_at.any() else 0.0})
    return pd.DataFrame(long)


def indicators(profile: Profile, methods: list[str] | None = None) -> Item:
    """Which rung's number is evidence: one on whose survivors no indicator of failure fires more often than the profile's rule allows."""
    models, limit = asked(profile, methods, "indicators"), 100 * profile.verdict.rules.indicator_limit
    values = pd.concat([survivors(profile, model) for model in models], ignore_index=True)
    values["trusted"] = values.groupby(["model", "rung"])["share"].transform("max") <= limit
    tried = [name for name in rungs(profile) if name in set(values["rung"])]
    by = dict(list(values.groupby(["model", "rung"])))
    rows = {label(profile, model): {rungs(profile)[name]: _cell(by[model, name], limit) if (model, name) in by else "–" for name in tried}
            for model in models}
    each = values[values["survivors"] > 0].drop_duplicates(["model", "rung"])
    says = f"of {len(each)} attacks that do not fool all images, {int(each['trusted'].sum())} count as evidence"
    for model in (model for model in models if model in ladder.side_by_side(profile)):
        refused = each[(each["model"] == model) & ~each["trusted"]]["rung"]
        if len(refused):
            says += f"; {label(profile, model)}: not {' / '.join(rungs(profile)[name] for name in refused)}"
    notes = (f"Beyond the paper: indicators of attack failure (Pintor et al., 2022) on the first {profile.verdict.indicators} images. A "
             f"rung (attack) is evidence if no indicator is raised on more than {limit:g} % of its survivors among them, the images that "
             f"it did not fool, and no more of its survivors among all {profile.verdict.images} images (their number is in brackets) are "
             "fooled by the other rungs. Shares above half the limit are given: near it, another seed may decide otherwise. Where few "
             "survive, silence says little; the CSV has every share. Of several restarts the last "
             "is looked at, of several targets the likeliest. No gradient: exactly zero at the image. Unstable: the margin changes by "
             "more than 10 % between random points within half of ε. Silent success: the attack met an adversarial example and did not "
             "return it. Unfinished: the best loss still rose by more than 5 % in the last 10 steps. Fails without bounds: no success "
             "even with ε = 1. Every attack is crafted on the model that it judges, so none can fail by transfer; AutoAttack runs in its "
             "own package and is not measured.")
    return Item("Indicators", "indicators", "Which attack may be trusted", says, pd.DataFrame(rows).T, values.round(4), notes=notes)


def _cell(part: pd.DataFrame, limit: float) -> str:
    if part["survivors"].iloc[0] == 0:
        return "yes (none left)"
    raised = {(INDICATORS | BEATEN)[row.indicator]: row.share for row in part.itertuples()}
    fired = [f"{name} {share:.1f} %" for name, share in raised.items() if share > limit]
    below = [f"{name} {share:.1f} %" for name, share in raised.items() if limit / 2 < share <= limit]
    return (f"{'no: ' + ', '.join(fired) if fired else 'yes'}{'; ' * bool(below) + ', '.join(below)} "
            f"({part['survivors'].iloc[0]} left)")


def equal_passes(profile: Profile, methods: list[str] | None = None) -> Item:
    """Each attack at the same number of passes: accuracy against them, and AttackBench's optimality against the best of all attacks."""
    models = [model for model in asked(profile, methods, "matched") if ladder.matched(profile, model)]
    if not models:
        raise NotPlanned("attacks are compared at equal passes on SCE and MMC alone")
    rows, long, scores, epsilon = {}, [], [], profile.white_box.epsilons[0]
    for model in models:
        seen = {name: evaluation(profile, spec) for name, spec in ladder.matched(profile, model).items()}
        grid = ladder.matched(profile, model)["untargeted_2"].settings["epsilons"]
        found = {name: _between(np.array([np.inf if value is None else value for value in results["least"]]), grid)
                 for name, results in seen.items()}
        known = list(found.values())
        if (profile.verdict.distances or 0) >= profile.verdict.matched:
            known.append(_between(least(profile, model)[:profile.verdict.matched], grid))
        best = np.minimum.reduce(known)
        for name, results in seen.items():
            share = optimality(found[name], best, epsilon)
            scores.append({"model": model, "attack": name, "optimality": share, "spent": results["spent"],
                           "accuracy": 100 * results["accuracy"]})
            long += _steps(model, name, np.array(results["passes"]), found[name] > epsilon, profile.verdict.passes)
        rows[label(profile, model)] = {rungs(profile)[row["attack"]]: "–" if row["optimality"] is None else f"{row['optimality']:.2f}"
                                       for row in scores if row["model"] == model}
    table = pd.DataFrame(rows).T
    table = table[[title for title in rungs(profile).values() if title in table]].fillna("–")
    values, plan = pd.DataFrame(scores), profile.verdict
    title = f"Attacks at the same number of passes, {plan.matched} images, ε = {epsilon_text(epsilon)}"
    names = {model: mathtext(label(profile, model)) for model in models}
    notes = (f"Beyond the paper. Each attack may use {plan.passes} forward and backward passes of an image; restarts and steps are set to "
             "use them up, at ε and at ε halved repeatedly. The table has AttackBench's optimality, up to ε and on these ε alone: the best "
             "of all attacks of the verdict, image by image, removes a part of the area under accuracy against ε; optimality is the share "
             "of this part that the attack removes. 1: as good as the best known; 0: it finds nothing. The figure shows ε alone.")
    return Item("Equal passes", "equal_passes", title, _passes_say(profile, values), table, values.round(4),
                draw_equal_passes(pd.DataFrame(long), names, rungs(profile), plan.passes, figure_title(profile, title)), notes)


def _between(distances, grid) -> np.ndarray:
    """Each distance as the middle of the two epsilons of the grid that hold it, for whom the area under the curve is the trapezoids'.

    0 stays, and what lies beyond the grid is infinity.
    """
    places = np.array([0.0, *sorted(grid)])
    middles = np.array([0.0, *(places[:-1] + places[1:]) / 2, np.inf])
    return middles[np.searchsorted(places, distances - 1e-9)]


def _steps(model, name, passes, holds, budget) -> list[dict]:
    """Accuracy after each number of passes at which an image falls, from the first to the last of the budget."""
    when, count = np.sort(passes[~holds]), len(holds)
    places = np.unique(np.concatenate(([1, budget], when)))
    return [{"model": model, "attack": name, "passes": int(place), "accuracy": 100 * (1 - (when <= place).sum() / count)}
            for place in places]


def _passes_say(profile, values) -> str:
    names = {"cross_entropy": "cross-entropy", "untargeted_1": "L_Ada^{un,1}", "untargeted_2": "margin",
             "multi_targeted": "every wrong class"}
    parts = []
    for model, rows in values.dropna(subset="optimality").groupby("model", sort=False):
        by = rows.set_index("attack")["optimality"]
        parts.append(f"{label(profile, model)}: " + ", ".join(f"{text} {by[name]:.2f}" for name, text in names.items() if name in by))
    return f"optimality against the best of all attacks; {'; '.join(parts)}" if parts else "no attack finds anything"


COLOURS = {"cross_entropy": OBJECTIVES["cross_entropy"].colour, "divided": "#0072B2", "gap": "#009E73", "pma": "#CC79A7",
           "pma_gap": "#E69F00", "untargeted_1": OBJECTIVES["untargeted_1"].colour, "untargeted_2": OBJECTIVES["untargeted_2"].colour,
           "malt": "#7B4B94", "multi_targeted": "#000000"}


@styled
def draw_equal_passes(data: pd.DataFrame, names: dict, rungs: dict, budget: int, title: str):
    """A panel for each model: accuracy at epsilon against the passes that an image has had; `data`: model, attack, passes, accuracy;
    `rungs` maps attacks to titles."""
    models = list(names)
    across = min(2, len(models))
    down = -(-len(models) // across)
    figure, axes = subplots(down, across, figsize=(WIDE, 0.9 + 1.9 * down), sharex=True, sharey=True, squeeze=False)
    attacks = [name for name in rungs if name in set(data["attack"])]
    for axis, model in zip(axes.flat, models, strict=False):
        for name in attacks:
            rows = data[(data["model"] == model) & (data["attack"] == name)]
            if len(rows):
                axis.plot(rows["passes"], rows["accuracy"], drawstyle="steps-post", color=COLOURS[name])
        axis.set(xscale="log", xlim=(1, budget), ylim=(-2, 102), title=names[model])
        log_ticks(axis)
    for axis in axes.flat[len(models):]:
        axis.set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("forward and backward passes of an image")
    for row in axes:
        row[0].set_ylabel("accuracy (%)")
    for name in attacks:
        axes[0][0].plot([], [], color=COLOURS[name], label=mathtext(rungs[name]))
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle(title)
    return figure
