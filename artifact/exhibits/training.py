"""Fig. 3a: test error while training, from the models' receipts."""

import pandas as pd

from artifact.exhibits.exhibit import Item, Missing, figure_title, looks
from artifact.exhibits.style import NARROW, WIDE, panels_of, styled, subplots
from artifact.experiment import Profile, model_receipt_path, read_receipt
from artifact.methods import label


def models(profile: Profile) -> list[str]:
    """What Fig. 3a draws unasked: the models of Table 1 and Fig. 4 that are on Table 1's data set."""
    planned = dict.fromkeys([*profile.white_box.models, *(profile.transfer.models if profile.transfer else [])])
    return [model for model in planned if profile.dataset(model) == profile.dataset(profile.white_box.models[0])]


def figure_3a(profile: Profile, methods: list[str] | None = None) -> Item:
    """Fig. 3a: test error against training time."""
    long = []
    for model in methods or models(profile):
        if not model_receipt_path(profile, model).exists():
            raise Missing(f"{model} is not trained")
        receipt = read_receipt(model_receipt_path(profile, model))
        for epoch, seconds in zip(receipt["results"]["history"], receipt["provenance"]["epoch_seconds"], strict=True):
            if epoch["test_accuracy"] is not None:
                long.append({"model": model, "epoch": epoch["epoch"], "seconds": seconds, "test_error": 100 * (1 - epoch["test_accuracy"])})
    values = pd.DataFrame(long)
    last = values.groupby("model", sort=False).last()
    says = "; ".join(f"{label(profile, m)} ends at {last.loc[m, 'test_error']:.1f} % after {last.loc[m, 'epoch']:.0f} epochs"
                     for m in profile.principal(list(last.index)))
    title = figure_title(profile, "Test error by epoch")
    return Item("Figure 3a", "figure_3a", "Test error by epoch", says, values=values.round(4),
                figure=draw_training_curves(values, looks(profile, last.index), title),
                notes="Drawn by epoch: the seconds in the CSV (without the test passes) carry a shared machine's load, and claim (iii) "
                "of the verdict measures what a step of MMC costs over one of SCE, in alternation.")


@styled
def draw_training_curves(data: pd.DataFrame, looks: dict, title: str):
    """Fig. 3a: test error by epoch; `data` has columns model, epoch, test_error (%)."""
    panels = panels_of(looks)
    figure, axes = subplots(1, len(panels), figsize=(WIDE if len(panels) > 1 else NARROW, 2.9), sharey=True, squeeze=False)
    for axis, (name, models) in zip(axes[0], panels.items(), strict=True):
        for model in models:
            rows, own = data[data["model"] == model], looks[model]
            bold = len(models) <= 4 or own["label"] in ("SCE", "MMC-10")  # of many, the two that the claim is about
            axis.plot(rows["epoch"], rows["test_error"], markevery=max(1, len(rows) // 8), **own | {"linewidth": 1.8 if bold else 0.9})
        axis.set(xlabel="epoch", title=name)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend(ncols=2)
    axes[0][0].set(ylabel="test error (%)", ylim=(0, None))
    figure.suptitle(title)
    return figure
