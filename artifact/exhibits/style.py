"""The one style of all figures, two widths, and the one way to save. Wherever a function that draws takes `looks`, it maps a model's key to
what `artifact.methods.look` says of it, in the order of drawing.
"""

import io
from pathlib import Path

import matplotlib.style
import pandas as pd
from matplotlib.figure import Figure

STYLE = Path(__file__).with_name("mmc.mplstyle")
NARROW, WIDE = 84 / 25.4, 174 / 25.4  # inches: a column and a page of 84 and 174 mm
# Whatever a user's own matplotlibrc says, a figure is drawn, and later saved, over matplotlib's defaults.
styled = matplotlib.style.context(["default", STYLE])


def subplots(rows: int = 1, columns: int = 1, *, figsize: tuple[float, float], **settings):
    """A new figure and its axes, as pyplot's function of this name returns them, without pyplot: no list of open figures holds it."""
    figure = Figure(figsize=figsize)
    return figure, figure.subplots(rows, columns, **settings)


def drawn(figure: Figure, kind: str) -> bytes:
    """A figure as a "pdf" or "png" file, without clock times in it."""
    without = {"pdf": {"CreationDate": None, "Producer": None, "Creator": None}, "png": {"Software": None}}
    file = io.BytesIO()
    with matplotlib.style.context(["default", STYLE]):
        figure.savefig(file, format=kind, metadata=without[kind])
    return file.getvalue()


def error(rows: pd.DataFrame) -> list[pd.Series]:
    """The lengths of an interval's two sides, as `errorbar` wants them."""
    return [(rows["accuracy"] - rows["low"]).clip(lower=0), (rows["high"] - rows["accuracy"]).clip(lower=0)]


def panels_of(looks: dict) -> dict[str, list[str]]:
    """Titles of panels and the models in them: standard and adversarial training each in its own, where there is any."""
    found = {"standard training": [model for model in looks if looks[model]["linestyle"] == "-"],
             "adversarial training": [model for model in looks if looks[model]["linestyle"] != "-"]}
    return {title: models for title, models in found.items() if models}


def log_ticks(axis) -> None:
    """Ticks of a logarithmic x axis as plain numbers, 0.01 rather than 10^-2, and few enough to stand beside each other."""
    low, high = axis.get_xlim()
    places = [base * 10.0**power for power in range(-5, 4) for base in (1, 2, 5)]
    shown = [place for place in places if low <= place <= high]
    if len(shown) > 7:
        shown = [place for place in shown if f"{place:e}"[0] == "1"]
    axis.set_xticks(shown, [f"{place:g}" for place in shown])
    axis.minorticks_off()
