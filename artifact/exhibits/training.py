"""What trainings went through, from the models' receipts: Fig. 3a's test error, and the probe that watches adversarial ones."""

import pandas as pd

from artifact.exhibits.exhibit import Item, Missing, NotPlanned, epsilon_text, figure_title, looks
from artifact.exhibits.style import NARROW, WIDE, panels_of, styled, subplots
from artifact.experiment import Profile, model_receipt_path, read_receipt
from artifact.methods import label, mathtext, shorts


def models(profile: Profile) -> list[str]:
    """What Fig. 3a draws unasked: the models of Table 1 and Fig. 4 that are on Table 1's data set."""
    planned = dict.fromkeys([*profile.white_box.models, *(profile.transfer.models if profile.transfer else [])])
    return [model for model in planned if profile.dataset(model) == profile.dataset(profile.white_box.models[0])]


def figure_3a(profile: Profile, methods: list[str] | None = None) -> Item:
    """Fig. 3a: test error by epoch; the paper's axis, the time, is in the values."""
    long = []
    for model in methods or models(profile):
        receipt = _receipt(profile, model)
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


def _receipt(profile: Profile, model: str) -> dict:
    if not model_receipt_path(profile, model).exists():
        raise Missing(f"{model} is not trained")
    return read_receipt(model_receipt_path(profile, model))


def probe(profile: Profile, methods: list[str] | None = None) -> Item:
    """The guard against catastrophic overfitting: accuracy under a short PGD after each epoch of an adversarial training."""
    watched = [model for model in methods or profile.models
               if profile.models[model].adversarial and profile.network(model).guard is not None]
    if not watched:
        raise NotPlanned("no training of these models has a guard")
    long = [{"model": model, "after": number, "epoch": epoch["epoch"], "accuracy": 100 * epoch["probe"], "collapsed": epoch["collapsed"]}
            for model in watched for number, epoch in enumerate(_receipt(profile, model)["results"]["history"], 1)]
    values = pd.DataFrame(long)
    falls = -values.groupby("model")["accuracy"].diff()
    worst, thrown = falls.max(), values["collapsed"].sum()
    networks = [profile.network(model) for model in watched]
    limits = sorted({100 * network.guard for network in networks})
    gone = {0: "no epoch was", 1: "1 epoch was"}.get(int(thrown), f"{thrown} epochs were")
    says = (f"{gone} thrown away; from one epoch to the next the probe fell by at "
            f"most {max(0.0, worst):.1f} points, and the guard acts where it falls by more than "
            f"{' or '.join(f'{limit:g}' for limit in limits)}")
    epsilons = " and ".join(sorted({epsilon_text(network.epsilon) for network in networks}))
    title = "Accuracy under the probe for catastrophic overfitting, by epoch"
    return Item("Probe", "probe", title, says, values=values.round(4),
                figure=draw_probe(values, _one_by_one(profile, watched), figure_title(profile, title)),
                notes="Beyond the paper. After each epoch of an adversarial training of few steps, PGD-5 on the margin at "
                      f"ε = {epsilons} on the first 256 training images. Catastrophic overfitting shows as a fall to nearly nothing "
                      "within an epoch; such an epoch is thrown away (a cross) and trained again with two steps.")


def _one_by_one(profile, models) -> dict[str, dict]:
    """Looks of models that share a loss, several seeds of it above all: each with a dash and a short name of its own."""
    own, names = looks(profile, models), shorts(profile, models)
    alike: dict[str, int] = {}
    for model in models:
        number = alike[own[model]["color"]] = alike.get(own[model]["color"], -1) + 1
        own[model] |= {"label": mathtext(names[model]), "linestyle": ("-", "--", ":", "-.")[number % 4]}
    return own


@styled
def draw_probe(data: pd.DataFrame, looks: dict, title: str):
    """The probe's accuracy after each epoch; `data` has columns model, after (which epoch, those thrown away counted), accuracy (%),
    collapsed."""
    figure, axis = subplots(figsize=(WIDE, 3.1))
    for model, own in looks.items():
        rows = data[data["model"] == model]
        axis.plot(rows["after"], rows["accuracy"], markevery=3, **own)
        away = rows[rows["collapsed"].astype(bool)]
        axis.plot(away["after"], away["accuracy"], "x", color="black", markersize=8)
    axis.set(xlabel="epoch", ylabel="accuracy (%)", ylim=(0, None))
    axis.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(loc="outside lower center", ncols=3, handlelength=4.5)
    figure.suptitle(title, wrap=True)
    return figure


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
