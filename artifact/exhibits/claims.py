"""The claims of the paper's conclusion, each judged by a rule that the profile fixes, on every seed there is."""

from dataclasses import dataclass, replace

import pandas as pd

from artifact.exhibits.exhibit import (
    Item,
    Missing,
    NotPlanned,
    chosen,
    clean,
    difference,
    epsilon_text,
    evaluation,
    signed,
    with_difference,
)
from artifact.exhibits.ladder import kept, strongest
from artifact.exhibits.variants import NAMES
from artifact.experiment import Profile
from artifact.measurements import ladder, white_box
from artifact.methods import base

LEVELS = ("holds", "holds in part", "does not hold")
ROLES = {"sce": "SCE", "mmc": "MMC", "at_sce": "AT_un of SCE", "at_mmc": "AT_un of MMC"}


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
    chosen(profile.verdict.models if profile.verdict else [], methods)  # NotPlanned where none has a part in it
    rules = profile.verdict.rules
    cast, *others = casts(profile, methods or ladder.models(profile))
    judges = {"(i) reliable robustness under strong adaptive attacks": (_claim_robust, ("sce", "mmc")),
              "(ii) clean accuracy comparable to SCE": (_claim_clean, ("sce", "mmc")),
              "(iii) little extra computation": (_claim_time, ("sce", "mmc")),
              "(iv) compatible with adversarial training": (_claim_training, ("mmc", "at_sce", "at_mmc"))}
    rows, away = {}, []
    for claim, (judge, needed) in judges.items():
        if lacking := [name for name in needed if getattr(cast, name) is None]:
            rows[claim] = {"verdict": "not judged", "measured": f"needs {' and '.join(ROLES[name] for name in lacking)}, not here",
                           "rule": "–"}
            continue
        try:
            rule, measured, level = judge(profile, rules, cast)
        except Missing as missing:
            away.append(str(missing))
            rows[claim] = {"verdict": "not judged", "measured": f"not made yet: {missing}", "rule": "–"}
            continue
        told, seeds_away = [f"seed {cast.seed}: {measured}"], []
        for other in others if judge is not _claim_time else ():  # a step's time does not depend on the seed
            if None in [getattr(other, name) for name in needed]:
                continue
            try:
                _, again, found = judge(profile, rules, other)
            except Missing:
                seeds_away.append(str(other.seed))
                continue
            told, level = [*told, f"seed {other.seed}: {again}"], max(level, found)
        told += [f"seed{'s' * (len(seeds_away) > 1)} {' and '.join(seeds_away)}: not made yet"] if seeds_away else []
        rows[claim] = {"verdict": LEVELS[level], "measured": "\n".join(told) if len(told) > 1 else measured, "rule": rule}
    table = pd.DataFrame(rows).T
    if set(table["verdict"]) == {"not judged"}:
        raise Missing(away[0]) if away else NotPlanned("the claims are about SCE and MMC")
    says = "; ".join(f"{claim}: {row.verdict}" for claim, row in table.iterrows())
    plan, fmn = profile.verdict, ""
    if plan.distances:
        fmn = f", FMN ({plan.distances} images)"
    elsewhere = " (Table 2 has other threat models of the paper's, which no rule judges)" * bool(profile.carlini_wagner or profile.spsa)
    over = (f" The worst case, in l_inf at ε = {epsilon_text(profile.white_box.epsilons[0])}{elsewhere}, is over the ladder and the "
            f"transfers between these models ({plan.images} images), the longer run and SPSA ({ladder.check_images(profile)} images){fmn}.")
    several = (" A claim holds only if it holds on every seed; for seeds after the first, the worst case is over the ladder alone."
               if others else " Each model is of one seed, so a difference is between two models, not between two losses.")
    models = "." if profile.comparable else \
        ", on models not trained as the paper trained: a verdict about these models, not about the paper."
    item = Item("Verdict", "verdict", "What holds of the paper's conclusion", says, table,
                notes=f"Judged by fixed rules (verdict.rules of the profile) from receipts alone{models}{over}{several}")
    return replace(item, values=item.on_one_line().rename_axis("claim").reset_index())


def _claim_robust(profile, rules, cast):
    left, paper = strongest(profile, cast.mmc), kept(profile, ladder.rungs(profile, cast.mmc)["untargeted_1"])
    gap = 100 * (paper.mean() - left.mean())
    over = difference(left, strongest(profile, cast.sce))
    rule = (
        f"accuracy in the worst case over the verdict's attacks is at most {rules.attack_gap:g} points below that under the paper's "
        "untargeted attack, and significantly above SCE's; in part: only the second"
    )
    try:  # the paper's other one, of one random target an image: Table 1's, of the first seed, which may be made after the ladder
        targeted = f" ({100 * kept(profile, white_box.table_1(profile, cast.mmc)['pgd50_tar_8']).mean():.1f} % under its targeted one)"
    except Missing:
        targeted = ""
    measured = (f"{base(profile, cast.mmc)}: {100 * paper.mean():.1f} % under the paper's untargeted attack{targeted}, "
                f"{100 * left.mean():.1f} % in the worst case ({gap:.1f} points lower); difference to SCE "
                f"{with_difference(over)}")
    return rule, measured, 2 if over.low <= 0 else 0 if _at_most(gap, rules.attack_gap) else 1


def _at_most(points: float, limit: float) -> bool:
    return points <= limit + 1e-9  # 5.000000000000001 points are 50 of 1,000 images


def _claim_clean(profile, rules, cast):
    mine, theirs = (clean(profile, model, None) for model in (cast.mmc, cast.sce))
    gap = difference(mine, theirs)
    rule = f"{base(profile, cast.mmc)} loses less than {rules.clean_gap:g} point to SCE, at 95 %; in part: only the estimate is below it"
    data = NAMES[profile.dataset(cast.mmc)]
    measured = (f"{100 * mine.mean():.1f} % against {100 * theirs.mean():.1f} %: {with_difference(gap)} on {len(mine)} test "
                f"images of {data}")
    return rule, measured, 0 if gap.low > -rules.clean_gap else 1 if not _at_most(gap.points, -rules.clean_gap) else 2


def _claim_time(profile, rules, cast):
    results = evaluation(profile, ladder.step_time(profile, cast.mmc, cast.sce))
    extra, ratios = results["ratio"] - 1, results["ratios"]
    rule = f"a training step takes at most {100 * rules.extra_time:g} % longer than SCE's; in part: at most {300 * rules.extra_time:g} %"
    measured = (
        f"{signed(100 * extra)} % per training step against SCE (median of {len(ratios)} alternating blocks, "
        f"{signed(100 * (ratios[0] - 1))} to {signed(100 * (ratios[-1] - 1))})"
    )
    return rule, measured, 0 if extra <= rules.extra_time else 1 if extra <= 3 * rules.extra_time else 2


def _claim_training(profile, rules, cast):
    mine, theirs, without = (strongest(profile, model) for model in (cast.at_mmc, cast.at_sce, cast.mmc))
    over, gain = difference(mine, theirs), difference(mine, without)
    rule = (f"in that worst case, adversarially trained {base(profile, cast.mmc)} is significantly above {base(profile, cast.mmc)} without "
            "adversarial training, and significantly above adversarially trained SCE; in part: no significant difference to the latter is "
            "found. What it costs in clean accuracy takes no part")
    cost = difference(clean(profile, cast.at_mmc, None), clean(profile, cast.at_sce, None))
    measured = (f"AT {base(profile, cast.mmc)} {100 * mine.mean():.1f} %; difference to AT SCE {with_difference(over)}, "
                f"to {base(profile, cast.mmc)} {with_difference(gain)}; clean, to AT SCE {with_difference(cost)}")
    return rule, measured, 2 if gain.low <= 0 or over.high < 0 else 0 if over.low > 0 else 1
