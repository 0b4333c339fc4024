"""The verdict: how far the accuracy falls along the ladder, whether the attacks can be trusted, and which claims of the paper hold."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from artifact import items, ladder
from artifact.exhibits import figures_verdict
from artifact.exhibits.exhibit import (
    Item,
    Missing,
    NotPlanned,
    clean,
    correct,
    difference,
    epsilon_text,
    evaluation,
    figure_title,
    looks,
    paper_table,
    with_difference,
    with_interval,
    worst,
)
from artifact.experiment import Profile
from artifact.methods import base, label, paper_label

LEVELS = ("holds", "holds in part", "does not hold")
ROLES = {"sce": "SCE", "mmc": "MMC", "at_sce": "AT_un of SCE", "at_mmc": "AT_un of MMC"}


def _methods(profile, methods):
    chosen = [model for model in (methods or profile.verdict.models) if model in profile.verdict.models] if profile.verdict else []
    if not chosen:
        raise NotPlanned("this profile's verdict is not about these models")
    return chosen


def _flags(profile: Profile, spec: items.Evaluation) -> np.ndarray:
    return correct(profile, spec)[:profile.verdict.images]


def strongest(profile: Profile, model: str) -> np.ndarray:
    """Which images no attack of the ladder fooled, or of its checks where they were made, as booleans."""
    left = np.logical_and.reduce([_flags(profile, spec) for spec in ladder.rungs(profile, model).values()])
    if model in profile.verdict.models:
        for name in ("longer", "black_box"):
            found = _flags(profile, ladder.checks(profile, model)[name])
            left[:len(found)] &= found
    return left


def ladder_item(profile: Profile, methods: list[str] | None = None) -> Item:
    """Accuracy along the ladder: each rung's own number, and the worst case over it and all before."""
    methods, rows, long = _methods(profile, methods), {}, []
    for model in methods:
        own = clean(profile, model, profile.verdict.images)
        before, cells = [own], {"Clean": f"{100 * own.mean():.1f}"}
        long.append({"model": model, "rung": "clean", "own": 100 * own.mean(), **worst(before), "zero_gradients": None})
        for name, spec in ladder.rungs(profile, model).items():
            own = _flags(profile, spec)
            before.append(own)
            masked = evaluation(profile, spec)["zero_gradients"] if name != "autoattack" else None
            cells[ladder.RUNGS[name]] = f"{100 * own.mean():.1f}"
            long.append({"model": model, "rung": name, "own": 100 * own.mean(), **worst(before), "zero_gradients": masked})
        rows[label(profile, model)] = {title: cells.get(title, "–") for title in ("Clean", *ladder.titles(profile))} | {
            "worst case": f"{long[-1]['accuracy']:.1f}"
        }
    values = pd.DataFrame(long)
    plan, epsilon = profile.verdict, epsilon_text(profile.white_box.epsilons[0])
    title = f"Accuracy (%) under ever stronger attacks, ε = {epsilon}"
    return Item(
        "Ladder",
        "ladder",
        title,
        _ladder_says(profile, values),
        pd.DataFrame(rows).T,
        None,
        values.round(4),
        figures_verdict.ladder(values, looks(profile, methods), _papers(profile, methods), figure_title(profile, title)),
        f"Beyond the paper. The same {plan.images} test images on every rung. A row's numbers are each attack's own; the figure "
        "(hollow marks: "
        "own numbers where they are higher) and 'worst case' in the table are the worst, per image, over the rung and all before it. "
        "PGD takes "
        f"{profile.white_box.steps[1]} steps; restarts: {plan.restarts}; every wrong class: {plan.classes} targets of {plan.steps} "
        "steps that decay to zero. Dividing logits needs centers of known norm C."
        + " AutoAttack was run on what every wrong class left: its number is the worst case of both."
        * (plan.autoattack_on == "survivors" and "autoattack" in set(values["rung"])),
    )


def _ladder_says(profile, values) -> str:
    parts = []
    for model in profile.principal(list(dict.fromkeys(values["model"]))):
        rows = values[values["model"] == model].set_index("rung")
        parts.append(
            f"{label(profile, model)}: {rows['own'].iloc[0]:.1f} % without attack, {rows.loc['cross_entropy', 'own']:.1f} % under "
            f"cross-entropy, {rows.loc['untargeted_1', 'own']:.1f} % under L_Ada^{{un,1}}, {with_interval(rows.iloc[-1])} in the worst case"
        )
    return "; ".join(parts)


def _papers(profile: Profile, methods: list[str]) -> dict[str, float]:
    """What the paper prints for MMC models under its longest attack at the first epsilon, CIFAR-10 only."""
    printed = paper_table("table1.csv")["pgd50_un_8"]
    return {model: float(printed[paper_label(profile, model)]) for model in methods
            if profile.dataset(model) == "cifar10" and profile.models[model].loss == "mmc" and paper_label(profile, model) in printed}


def self_checks(profile: Profile, methods: list[str] | None = None) -> Item:
    """Are the attacks sound on this model? After AutoAttack's flags and the checklist of Carlini et al. (2019)."""
    methods, rows, long = _methods(profile, methods), {}, []
    for model in methods:
        cells = _checks(profile, model)
        rows[label(profile, model)] = {name: ("ok" if ok else "FLAG") + f" ({text})" for name, (ok, text) in cells.items()}
        long += [{"model": model, "check": name, "ok": ok, "measured": text} for name, (ok, text) in cells.items()]
    values = pd.DataFrame(long)
    flags = values[~values["ok"]]
    says = (f"{len(values) - len(flags)} of {len(values)} checks pass"
            + "".join(f"; {label(profile, row.model)}: {row.check}: {row.measured}" for row in flags.itertuples()))
    return Item("Self-checks", "self_checks", "Can the attacks be trusted?", says, pd.DataFrame(rows).T.fillna("–"), None, values,
                notes=f"Accuracies in %, on {ladder.check_images(profile)} images (transfer and AutoAttack: {profile.verdict.images}). "
                      "Robust means the worst case over all white-box attacks made here. A flag under zero gradients says "
                      "that cross-entropy is blind on this model, which is why no number here rests on it alone.")


def _checks(profile: Profile, model: str) -> dict[str, tuple[bool, str]]:
    rung, extra, images = ladder.rungs(profile, model), ladder.checks(profile, model), ladder.check_images(profile)

    def flags(spec):  # of the images that the checks were made on
        return _flags(profile, spec)[:images]

    def share(spec):
        return 100 * flags(spec).mean()
    left = np.logical_and.reduce([_flags(profile, spec) for spec in rung.values()])
    before = 100 * left[:images].mean()
    left[:images] &= flags(extra["longer"])
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
        "white box beats transfer": (whole <= min(moved), f"{whole:.1f} ≤ {min(moved):.1f}"),
        "more steps gain no more": (before - robust <= max(1.0, 100 / images) + 1e-9, f"{before:.1f} → {robust:.1f}"),
        "no more than 5 % zero gradients, cross-entropy": (masked["cross_entropy"] <= 5, f"{masked['cross_entropy']:.1f} %"),
        "no more than 5 % zero gradients, margin": (masked["untargeted_2"] <= 5, f"{masked['untargeted_2']:.1f} %"),
        "not random": (different == 0, f"{different:.1g}"),
    }
    if "autoattack" in rung:
        ours = 100 * np.logical_and.reduce([_flags(profile, spec) for name, spec in rung.items() if name != "autoattack"]).mean()
        theirs = 100 * _flags(profile, rung["autoattack"]).mean()
        cells["AutoAttack finds no more"] = (ours <= theirs + 0.5, f"{ours:.1f} ≤ {theirs:.1f} + 0.5")
    return cells


@dataclass(frozen=True)
class Cast:
    """The models that the claims are about, from one seed; None where there is none."""

    seed: int
    sce: str | None
    mmc: str | None
    at_sce: str | None
    at_mmc: str | None


def casts(profile: Profile, methods: list[str]) -> list[Cast]:
    """SCE and MMC without and with adversarial training among `methods`: the verdict's own rows first, then each further seed's."""
    own = [profile.find([model for model in profile.verdict.models if model in methods], loss, adversarial)
           for adversarial in (None, "untargeted") for loss in ("sce", "mmc")]
    by_seed = {profile.models[key].seed: {} for model in own if model for key in profile.seeds_of(model)}
    for place, model in enumerate(own):
        for key in profile.seeds_of(model) if model else ():
            if key in methods:
                by_seed[profile.models[key].seed][place] = key
    return [Cast(seed, *map(found.get, range(4))) for seed, found in by_seed.items() if found] or [Cast(0, None, None, None, None)]


def claims(profile: Profile, methods: list[str] | None = None) -> Item:
    """The four claims of the paper's conclusion, each judged by a rule that the profile fixes, on every seed there is."""
    _methods(profile, methods)  # NotPlanned where none has a part in it
    rules = profile.verdict.rules
    cast, *others = casts(profile, methods or ladder.models(profile))
    judges = {"(i) reliable robustness under strong adaptive attacks": (_claim_robust, ("sce", "mmc")),
              "(ii) clean accuracy comparable to SCE": (_claim_clean, ("sce", "mmc")),
              "(iii) little extra computation": (_claim_time, ("sce", "mmc")),
              "(iv) compatible with adversarial training": (_claim_training, ("mmc", "at_sce", "at_mmc"))}
    rows = {}
    for claim, (judge, needed) in judges.items():
        if lacking := [name for name in needed if getattr(cast, name) is None]:
            rows[claim] = {"verdict": "not judged", "measured": f"needs {' and '.join(ROLES[name] for name in lacking)}, not here",
                           "rule": "–"}
            continue
        try:
            rule, measured, level = judge(profile, rules, cast)
        except Missing as missing:
            rows[claim] = {"verdict": "not judged", "measured": f"not made yet: {missing}", "rule": "–"}
            continue
        away = []
        for other in others if judge is not _claim_time else ():  # a step's time does not depend on the seed
            if None in [getattr(other, name) for name in needed]:
                continue
            try:
                _, again, found = judge(profile, rules, other)
            except Missing:
                away.append(str(other.seed))
                continue
            measured, level = f"{measured}; seed {other.seed}: {again}", max(level, found)
        measured += f"; seed{'s' * (len(away) > 1)} {' and '.join(away)}: not made yet" if away else ""
        rows[claim] = {"verdict": LEVELS[level], "measured": measured, "rule": rule}
    table = pd.DataFrame(rows).T
    if set(table["verdict"]) == {"not judged"}:
        raise NotPlanned("the claims are about SCE and MMC")
    values = table.rename_axis("claim").reset_index()
    says = "; ".join(f"{claim}: {row.verdict}" for claim, row in table.iterrows())
    several = " A claim holds where it holds on every seed." if others else ""
    return Item("Verdict", "verdict", "What holds of the paper's conclusion", says, table, None, values,
                notes="Judged by fixed rules (verdict.rules of the profile) from receipts alone"
                      + ("." if profile.comparable else
                         ", on models not trained as the paper trained: a verdict about these models, not about the paper.") + several)


def _claim_robust(profile, rules, cast):
    left, paper = strongest(profile, cast.mmc), _flags(profile, ladder.rungs(profile, cast.mmc)["untargeted_1"])
    gap = 100 * (paper.mean() - left.mean())
    over, low, high = difference(left, strongest(profile, cast.sce))
    rule = (
        f"the strongest attack takes at most {rules.attack_gap:g} points more than the paper's own, and leaves significantly more "
        "than SCE keeps; in part: the second alone"
    )
    measured = (f"{base(profile, cast.mmc)}: {100 * paper.mean():.1f} under the paper's attack, {100 * left.mean():.1f} under the "
                f"strongest ({gap:.1f} less); over SCE by {with_difference((over, low, high))}")
    return rule, measured, 2 if low <= 0 else 0 if gap <= rules.attack_gap else 1


def _claim_clean(profile, rules, cast):
    mine, theirs = (clean(profile, model, None) for model in (cast.mmc, cast.sce))
    gap, low, high = difference(mine, theirs)
    rule = f"{base(profile, cast.mmc)} loses less than {rules.clean_gap:g} point to SCE, at 95 %; in part: as an estimate"
    measured = f"{100 * mine.mean():.1f} against {100 * theirs.mean():.1f}: {with_difference((gap, low, high))} on {len(mine)} images"
    return rule, measured, 0 if low >= -rules.clean_gap else 1 if gap >= -rules.clean_gap else 2


def _claim_time(profile, rules, cast):
    results = evaluation(profile, ladder.step_time(profile, cast.mmc, cast.sce))
    extra, ratios = results["ratio"] - 1, results["ratios"]
    rule = f"a training step takes at most {100 * rules.extra_time:g} % longer than SCE's; in part: three times that"
    measured = (
        f"{100 * extra:+.1f} % (median of {len(ratios)} alternating blocks, {100 * (ratios[0] - 1):+.1f} to {100 * (ratios[-1] - 1):+.1f})"
    )
    return rule, measured, 0 if extra <= rules.extra_time else 1 if extra <= 3 * rules.extra_time else 2


def _claim_training(profile, rules, cast):
    mine, theirs, without = (strongest(profile, model) for model in (cast.at_mmc, cast.at_sce, cast.mmc))
    over, low, high = difference(mine, theirs)
    gain, least, most = difference(mine, without)
    rule = (f"adversarially trained, {base(profile, cast.mmc)} keeps significantly more than SCE under the strongest attack; "
            "in part: not significantly less, and significantly more than without adversarial training")
    measured = (f"AT {base(profile, cast.mmc)} {100 * mine.mean():.1f}; over AT SCE by {with_difference((over, low, high))}, "
                f"over {base(profile, cast.mmc)} by {with_difference((gain, least, most))}")
    return rule, measured, 0 if low > 0 else 1 if high >= 0 and least > 0 else 2


def diagnosis(profile: Profile, methods: list[str] | None = None) -> Item:
    """Why cross-entropy is blind on large distance logits: scales, iterations, loss surfaces."""
    chosen = [model for model in _methods(profile, methods) if model in profile.verdict.diagnosed]
    if not chosen:
        raise NotPlanned("this profile diagnoses none of these models")
    seen = {model: evaluation(profile, ladder.diagnosis(profile, model)) for model in chosen}
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
        figure=figures_verdict.diagnosis(seen, looks(profile, seen), figure_title(profile, title)),
        notes="Beyond the paper. Loss surfaces: one test image moved by up to ε along the sign of the margin's gradient and along "
        "random signs.",
    )
