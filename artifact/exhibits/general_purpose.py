"""Noise and rotation: Table 2-III, from receipts."""

import pandas as pd

from artifact.exhibits.exhibit import NO_PAPER, Item, chosen, correct, pivot
from artifact.experiment import Profile
from artifact.measurements import general_purpose
from artifact.methods import label
from mmclib.intervals import wilson_interval


def table_2_transformations(profile: Profile, methods: list[str] | None = None) -> Item:
    """Table 2, part III: accuracy under noise and rotation, the mean over several draws."""
    long, plan = [], profile.transformations
    for model in chosen(plan.models if plan else [], methods):
        for kind, specs in general_purpose.transformations(profile, model).items():
            flags = [correct(profile, spec) for spec in specs]
            draws = [100 * found.mean() for found in flags]
            # An image counts once however often it is drawn: as if its draws told nothing beyond their mean.
            low, high = wilson_interval(sum(found.sum() for found in flags) / len(flags), len(flags[0]))
            long.append({"model": model, "method": label(profile, model), "column": kind,
                         "title": f"noise σ = {plan.sigma:g}" if kind == "noise" else f"rotation ±{plan.degrees:g}°",
                         "accuracy": sum(draws) / len(draws), "low": 100 * low, "high": 100 * high,
                         "lowest_draw": min(draws), "highest_draw": max(draws)})
    values = pd.DataFrame(long)
    at = values[values["column"] == "rotation"].set_index("model")["accuracy"]
    named = profile.principal([model for model in at.index if profile.models[model].adversarial != "targeted"] or list(at.index))
    says = "rotation: " + "; ".join(f"{label(profile, model)} keeps {at[model]:.1f} %" for model in named)
    return Item("Table 2-III", "table_2_transformations", "Accuracy (%) under general transformations", says, pivot(values),
                values.round(4), notes=f"{plan.images} images, mean over {plan.draws} draws (CSV: lowest and highest draw); noisy pixels "
                f"are clipped to [0, 1]. {NO_PAPER}")
