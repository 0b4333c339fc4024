"""A notebook's frame, so that its cells are about the paper: Run, and the small network on digits that the hand-worked parts look at."""

import sys
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import nn

from artifact import methods, page
from artifact.compute import measure, trained
from artifact.exhibits.exhibit import Item, attempt
from artifact.exhibits.style import STYLE
from artifact.experiment import Profile, load_profile, notebook_code
from artifact.receipts import together
from mmclib import data
from mmclib.attacks.ledger import GradientMaskingWarning
from mmclib.models import Classifier

NO_PART = "These models have no part in it; `methods = []` takes all that the profile has."


@dataclass
class Run:
    """One run of a notebook: its three parameters, the evaluations it made or found, and its claims with their verdicts.

    `methods` are models of the profile, none named: all that the notebook is about. `output` is the receipt to write, "" for none.
    What pyplot draws after this takes the project's look and shows at its cell's end; an exhibit's figure shows as a cell's last value.
    """

    profile: str | Profile
    methods: list[str] = field(default_factory=list)
    output: str = ""
    claims: list[dict] = field(default_factory=list, init=False)
    receipts: list[Path] = field(default_factory=list, init=False)
    items: list[Item] = field(default_factory=list, init=False)  # what was shown

    def __post_init__(self):
        self.began = time.perf_counter()
        self.code = notebook_code(Path(self.output).stem.rpartition("-")[0])  # of the cells that run, whatever is saved meanwhile
        if isinstance(self.profile, str):
            self.profile = load_profile(self.profile)
        if not isinstance(self.methods, list):
            raise ValueError(f"methods must be a list of names, got {self.methods!r}; papermill takes lists by -y 'methods: [sce, mmc-10]'")
        for method in self.methods:
            if method not in self.profile.models:
                raise ValueError(f"profile {self.profile.name!r} has no model {method!r}; known: {', '.join(self.profile.models)}")
        torch.set_num_threads(self.profile.threads)  # as for every measurement, for the parts worked by hand too
        plt.style.use(STYLE)
        plt.ion()

    def evaluate(self, room) -> None:
        """Look up or make what a room of artifact.measurements lists for each method, of all its models where none is named.

        Zero gradients are warned of by no line here: each receipt counts them, and the exhibits name them.
        """
        self.methods = list(self.methods or room.models(self.profile))
        for method in self.methods:
            specs = room.measurements(self.profile, method)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", GradientMaskingWarning)
                for spec in specs:
                    measure.evaluate(self.profile, spec)
            self.receipts += [spec.path(self.profile) for spec in specs]
            print(f"{methods.label(self.profile, method)}: {len(specs)} evaluations")

    def show(self, *exhibits) -> Item | None:
        """Show exhibits (functions of profile and methods): title, sentence, table, notes, figure; return the last one's item.

        One that these models have no part in is left out, and where that is all of them, a line says so.
        """
        made = [attempt(build, self.profile, self.methods) for build in exhibits]
        if all(item is None for item in made):
            print(NO_PART)
        for item in (item for item in made if item is not None):
            _display(page.Shown([item]))
            if item.figure is not None:
                _display(item.figure)
            self.items.append(item)
        return made[-1]

    def claim(self, text: str, holds, says: str = "") -> None:
        """Print whether a claim holds, with what was found, and keep it for the receipt, which the report reads.

        What must hold on any machine is an assert's matter, not a claim's.
        """
        self.claims.append({"name": text, "holds": bool(holds), "says": says})
        print(f"{'holds' if holds else 'DOES NOT HOLD'}: {text}" + (f". {says}" if says else ""))

    def finish(self, **results) -> None:
        """Count the claims, and write the receipt where one is asked for."""
        if self.claims:
            print(f"{sum(claim['holds'] for claim in self.claims)} of {len(self.claims)} claims hold")
        if self.output:
            kept = {"evaluations": [path.name for path in self.receipts], "claims": self.claims, "code": self.code} | results
            if self.receipts:
                kept["of"] = together(self.receipts)
            trained.write_notebook_receipt(self.output, kept, profile=self.profile, began=self.began)


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """scikit-learn's handwritten digits to test on: float images (500, 1, 8, 8) in [0, 1] and labels (500,)."""
    images, labels = data.load("digits", "test")
    return images.float() / 255, labels


def trained_on_digits(head, *, epochs=40, width=256, seed=0, watch=None) -> Classifier:
    """Train two layers with this head on the digits, in a second: a network to look at by hand, of no profile and in no table.

    Trained in float64 and rounded to float32 at the end, so that another machine's rounding does not change what a notebook prints.
    `watch` is called with the model (float64) after each epoch.
    """
    images, labels = data.load("digits", "train")
    images = images.double() / 255
    torch.manual_seed(seed)
    for layer in head.modules():
        if isinstance(layer, nn.Linear):  # drawn before the seed was set
            layer.reset_parameters()
    body = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), width), nn.ReLU(), nn.Linear(width, head.feature_dim))
    model = Classifier(body, head).double()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, fused=True)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, epochs * -(-len(images) // 50))
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(50):
            optimizer.zero_grad()
            model.head.loss(model.features(images[batch]), labels[batch]).backward()
            optimizer.step()
            schedule.step()
        if watch is not None:
            watch(model)
    return model.float().eval().requires_grad_(False)


def _display(part):
    # As rich output in a kernel; in a plain Python run words are printed, and a figure has nowhere to be shown.
    shell = sys.modules.get("IPython")
    if shell is not None and shell.get_ipython() is not None:
        from IPython.display import display
        display(part)
    elif isinstance(part, page.Shown):
        print(part)
