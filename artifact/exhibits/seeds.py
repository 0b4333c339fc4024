"""The same rows from several seeds: mean and range of each number, and the paired differences of MMC and SCE seed by seed."""

import numpy as np
import pandas as pd

from artifact.exhibits.claims import casts
from artifact.exhibits.exhibit import Item, Missing, NotPlanned, clean, correct, difference, epsilon_text, trained_in, with_difference
from artifact.exhibits.ladder import attacked
from artifact.experiment import Profile
from artifact.measurements import ladder
from artifact.methods import label, rungs, short

CLEAN, WORST = "Clean", "worst case of the ladder"


def seeds(profile: Profile, methods: list[str] | None = None) -> Item:
    """Clean accuracy, each rung of the ladder and their worst case: the mean over the seeds that are made, and the lowest and highest."""
    rows = [model for model in profile.verdict.models if len(profile.seeds_of(model)) > 1] if profile.seeds else []
    rows = [model for model in rows if not methods or set(profile.seeds_of(model)) <= set(methods)]
    if not rows:
        raise NotPlanned("this profile does not train these models with several seeds")
    long, cells, names = [], {}, {}
    for model in rows:
        known = {key: flags for key in profile.seeds_of(model) if (flags := _flags(profile, key))}
        for key, flags in known.items():
            names[key] = f"{short(profile, model)} seed {profile.models[key].seed}"
            long += [{"model": model, "seed": profile.models[key].seed, "title": title, "accuracy": 100 * found.mean()}
                     for title, found in flags.items()]
        cells[label(profile, model)] = {"seeds": len(known), "attacked": sum(WORST in flags for flags in known.values())} | {
            title: _range([100 * flags[title].mean() for flags in known.values() if title in flags])
            for title in (CLEAN, *rungs(profile).values(), WORST) if any(title in flags for flags in known.values())}
    values = pd.DataFrame(long)
    if values.empty or values["seed"].nunique() < 2:
        raise Missing("no second seed is made yet")
    plan = profile.verdict
    titles = [title for title in (CLEAN, *rungs(profile).values(), WORST) if title in set(values["title"])]
    table = pd.DataFrame(cells).T.reindex(columns=["seeds", "attacked", *titles]).fillna("–")
    return Item("Seeds", "seeds", f"Accuracy (%) over seeds: mean (lowest to highest), ε = {epsilon_text(profile.white_box.epsilons[0])}",
                _says(profile, methods), table, values.round(4),
                notes=f"Each seed has its own initial weights, order of images and shifts; centers are the same, except random ones. "
                      f"Clean: the whole test set; attacks: the same {plan.images} images, for the seeds that were attacked. Brackets in "
                      f"the sentence: paired 95 % intervals.{trained_in(profile, names)}")


def _flags(profile, model) -> dict[str, np.ndarray]:
    """Right answers by column, as booleans: none where the seed is not trained, the clean ones alone where its ladder is not whole."""
    found = {}
    try:
        found[CLEAN] = clean(profile, model, None)
        flags = {rungs(profile)[name]: correct(profile, spec)[:profile.verdict.images]
                 for name, spec in attacked(profile, model).items()}
        return found | flags | {WORST: np.logical_and.reduce(list(flags.values()))}
    except Missing:
        return found


def _range(numbers: list[float]) -> str:
    span = f" ({min(numbers):.1f} to {max(numbers):.1f})" if len(numbers) > 1 else ""
    return f"{np.mean(numbers):.1f}{span}"


def _says(profile, methods) -> str:
    parts, everyone = [], casts(profile, methods or ladder.models(profile))
    for mine, theirs in (("mmc", "sce"), ("at_mmc", "at_sce")):
        for cast in everyone:
            first, second = (_flags(profile, getattr(cast, role)) if getattr(cast, role) else {} for role in (mine, theirs))
            if first and second:
                names = [short(profile, getattr(everyone[0], role)) for role in (mine, theirs)]
                gaps = [f"{'clean' if title == CLEAN else 'worst case'} {with_difference(difference(first[title], second[title]))}"
                        for title in (CLEAN, WORST) if title in first and title in second]
                parts.append(f"seed {cast.seed}, {' over '.join(names)}: {', '.join(gaps)}")
    return "; ".join(parts)
