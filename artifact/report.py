"""Writing every table and figure of a profile from receipts, beside the paper's numbers: nothing is computed here."""

import os
import signal
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pandas as pd

from artifact import jobs, machine, methods, page, processes
from artifact.exhibits import (
    black_box,
    claims,
    distances,
    general_purpose,
    glance,
    ladder,
    plane,
    seeds,
    style,
    theory,
    training,
    trust,
    variants,
    white_box,
)
from artifact.exhibits.exhibit import Item, Missing, NotPlanned, as_far_as_made, cell_text, worded
from artifact.experiment import ROOT, Profile, read_receipt
from mmclib.files import write_whole

NOT_MADE = "not made yet"


def _theory(stem: str, name: str, title: str):
    def build(profile: Profile, methods=None) -> Item:
        receipt = jobs.find(profile, "theory").receipt
        if not receipt.exists():
            raise Missing("01_theory has not been run")
        drawn = read_receipt(receipt)["results"][stem]
        return Item(name, stem, title, drawn["says"], values=long_form(drawn), figure=getattr(theory, stem)(drawn))
    return build


def notebook_claims(profile: Profile, methods=None) -> Item:
    """Every claim that a notebook made, with whether it holds; of a notebook that ran in several jobs the last, over all models."""
    if methods is not None:
        raise NotPlanned("a notebook's claims are of all its models together")
    jobs_by_notebook: dict[str, list] = {}
    for job in jobs.plan(profile):
        jobs_by_notebook.setdefault(job.notebook, []).append(Path(job.parameters["output"]))
    found: dict[tuple[str, str], dict] = {}
    away = []
    for notebook, outputs in jobs_by_notebook.items():
        last = outputs if notebook == jobs.TRAINING else outputs[-1:]  # each of its jobs trains other models
        if notebook != "08_report" and not all(path.exists() for path in last):
            away.append(notebook[:2])
        for path in last:
            for claim in _claims(path):
                one = found.setdefault((notebook, claim["name"]), {"holds": True, "says": []})
                one["holds"] &= claim["holds"]
                one["says"] += [claim["says"]] if claim["says"] else []
    if not found:
        raise Missing("no notebook of it has been run")
    values = pd.DataFrame([{"notebook": notebook, "claim": name, "holds": one["holds"], "says": "; ".join(one["says"])}
                           for (notebook, name), one in found.items()])
    names = [f"{row.notebook[:2]}: {row.claim}" for row in values.itertuples()]
    table = pd.DataFrame({"verdict": ["holds" if holds else "does not hold" for holds in values["holds"]],
                          "found": list(values["says"])}, index=names)
    failed = [name for name, holds in zip(names, values["holds"], strict=True) if not holds]
    says = f"{int(values['holds'].sum())} of {len(values)} claims hold" + (f"; these do not: {'; '.join(failed)}" if failed else "")
    return Item("Claims", "claims", "What the notebooks claim, by notebook", says, table, values=values,
                notes="Each is computed in the notebook that its number names, in the cell above its verdict; those of 01 and those "
                      "that say \"by hand\" are about digits and drawings, the same in every profile."
                      + (f" Not run over all its models yet: {', '.join(sorted(away))}." if away else ""))


def _claims(path: Path) -> list[dict]:
    # A receipt may be of a notebook that made none, or of an earlier form of it, which kept other things under this name.
    claims = read_receipt(path)["results"].get("claims") if path.exists() else None
    return claims if isinstance(claims, list) and all(isinstance(claim, dict) for claim in claims) else []


def long_form(drawn) -> pd.DataFrame:
    """The numbers of a figure's nested lists and mappings, one a row, named by where they stand."""
    rows = []

    def walk(value, place):
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, [*place, key])
        elif isinstance(value, list):
            for index, inner in enumerate(value):
                walk(inner, [*place, index])
        elif isinstance(value, (int, float)):
            rows.append((".".join(map(str, place)), value))

    walk(drawn, [])
    return pd.DataFrame(rows, columns=["what", "value"])


ITEMS = {  # in the paper's order, our own after the paper's: the notebook that shows and explains it, and what draws it
    "Figure 1": ("01_theory", _theory("figure_1", "Figure 1", "How features move and how dense they become")),
    "Figure 2": ("01_theory", _theory("figure_2", "Figure 2", "Contours of the losses")),
    "Figure 3a": ("02_training", training.figure_3a),
    "Probe": ("02_training", training.probe),
    "Figure 3b": ("03_white_box", plane.figure_3b),
    "Table 1": ("03_white_box", white_box.table_1),
    "Figure 4": ("04_black_box", black_box.figure_4),
    "Table 2-I": ("03_white_box", white_box.table_2_distortion),
    "Table 2-II": ("04_black_box", black_box.table_2_spsa),
    "Table 2-III": ("05_general_purpose", general_purpose.table_2_transformations),
    "Table 3": ("04_black_box", black_box.table_3),
    "Table 4": ("06_cifar100", variants.table_4),
    "Table 5": ("06_cifar100", variants.table_5),
    "Figure 5": ("01_theory", _theory("figure_5", "Figure 5", "Max-Mahalanobis centers for L = 2, 3, 4")),
    "Figure 6": ("01_theory", _theory("figure_6", "Figure 6", "Where the adaptive objectives push a feature")),
    "Objectives": ("03_white_box", white_box.objectives),
    "Convergence": ("03_white_box", white_box.convergence),
    "Curve": ("03_white_box", white_box.curve),
    "Elastic": ("06_cifar100", variants.elastic),
    "Hierarchical": ("06_cifar100", variants.hierarchical),
    "Forms": ("06_cifar100", variants.forms),
    "Inner objective": ("06_cifar100", variants.inner),
    "Radius": ("06_cifar100", variants.radius),
    "Uncertainty": ("06_cifar100", variants.uncertainty),
    "At a glance": ("07_verdict", glance.glance),
    "Ladder": ("07_verdict", ladder.ladder_item),
    "Whole curve": ("07_verdict", distances.whole_curve),
    "Why": ("07_verdict", distances.why),
    "Seeds": ("07_verdict", seeds.seeds),
    "Diagnosis": ("07_verdict", ladder.diagnosis),
    "Indicators": ("07_verdict", trust.indicators),
    "Equal passes": ("07_verdict", trust.equal_passes),
    "Self-checks": ("07_verdict", trust.self_checks),
    "Verdict": ("07_verdict", claims.claims),
    "Claims": ("08_report", notebook_claims),
}


def not_planned(profile: Profile) -> str:
    """What is said of an item that the profile has no part in."""
    return f"profile {profile.name} does not plan it"


# These take any model that is named; unasked, they show those of white_box, and Figure 3a its own choice.
WHITE_BOX = ("Table 1", "Objectives", "Convergence", "Curve")


def make(name: str, profile: Profile) -> Item:
    """An item as far as its receipts are there; Missing where none is, NotPlanned where the profile has no part in it."""
    notebook, build = ITEMS[name]
    models = training.models(profile) if name == "Figure 3a" else profile.white_box.models if name in WHITE_BOX else list(profile.models)
    item = as_far_as_made(build, profile, models)
    return replace(item, notebook=notebook)


@dataclass(frozen=True)
class Written:
    """What became of one item: its files, and the sentence that it says; `item` is None where a receipt is missing."""

    name: str
    files: str
    says: str
    item: Item | None = None

    def summary(self) -> dict:
        return {"name": self.name, "files": self.files, "says": self.says}


def write_all(profile: Profile) -> list[Written]:
    """Write every item that the receipts allow under figures/<profile>/, side by side on all cores, and a page over them."""
    folder = ROOT / "figures" / profile.name
    # Each process starts afresh: a copy of this one would hold locks of threads that it has not, a notebook's kernel above all.
    with ProcessPoolExecutor(machine.processes(), get_context("spawn"), _as_one_of_several, (os.getpid(),)) as pool:
        try:
            written = list(pool.map(partial(_write, profile, folder), ITEMS))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    where = folder.relative_to(ROOT)
    written = [replace(entry, files=f"{where}/{{{entry.files}}}") if entry.item else entry for entry in written]
    mark = jobs.page_mark(profile, jobs.find(profile, "report").receipt)
    page.write(profile, folder, [entry.item for entry in written if entry.item], mark)
    return written


def _as_one_of_several(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C asks all of a terminal's processes at once; the one that waits for us answers it
    processes.end_with_parent(signal.SIGKILL, parent)


def _write(profile: Profile, folder: Path, name: str) -> Written:
    try:
        item = make(name, profile)
        files = write_item(folder, item)
        written = item if item.figure is None else replace(item, figure=folder / f"{item.stem}.png")
        return Written(item.name, ", ".join(files), item.says, written)
    except NotPlanned:
        return Written(name, NOT_MADE, not_planned(profile))
    except Missing as missing:
        return Written(name, NOT_MADE, f"{missing}; make it with: make reproduce PROFILE={profile.argument}")
    except Exception as error:
        error.add_note(f"(while drawing {name} of profile {profile.name})")
        raise


def write_item(folder: Path, item: Item) -> list[str]:
    """A table as Markdown, CSV and LaTeX, a figure as PDF and PNG with the CSV that it drew; returns the file names."""
    contents = {}
    if item.figure is not None:
        contents |= {f"{item.stem}.pdf": style.drawn(item.figure, "pdf"), f"{item.stem}.png": style.drawn(item.figure, "png")}
    contents[f"{item.stem}.csv"] = item.values.to_csv(index=False).encode()
    if item.table is not None:
        contents |= {f"{item.stem}.md": markdown(item).encode(), f"{item.stem}.tex": latex(item).encode()}
    for name, content in contents.items():  # each whole, for what is there is believed
        write_whole(folder / name, content)
    return list(contents)


def latex(item: Item) -> str:
    """A table for pdflatex and booktabs, with caption and label; sentences in columns of 4 cm; over pages where one is too small."""
    table = item.table.fillna("").astype(str).map(methods.latex)
    table.index, table.columns = [[methods.latex(str(name)) for name in names] for names in (table.index, table.columns)]
    first = "p{4cm}" if max(map(len, table.index)) > 40 else "l"
    place = {"environment": "longtable"} if len(table) > 25 else {"position": "t", "position_float": "centering"}
    text = table.style.to_latex(hrules=True, column_format=first + "".join("p{4cm}" if word else "r" for word in worded(item.table)),
                                caption=methods.latex(item.title), label=f"tab:{item.stem}", **place)
    return f"% needs \\usepackage{{booktabs{', longtable' if 'environment' in place else ''}}}\n{text}"


def with_evidence(item: Item) -> Item:
    """The item, below each number of its table its 95 % interval and, where there is one, the paper's number."""
    if not item.numbers:
        return item
    table = item.table.astype(object)
    for place, row in item.numbers.items():
        paper = row.get("paper")
        printed = "" if paper is None or pd.isna(paper) else f"<br>paper {paper.replace('<=', '≤ ')}"
        table.loc[place] = f"{cell_text(row)}<br>[{cell_text(row, ', ')}]{printed}"
    told = " Below each number its 95 % interval and what the paper prints for the row, from its own network and training."
    return replace(item, table=table, notes=item.notes + told * item.beside_the_paper)


def markdown(item: Item) -> str:
    """A table with its title, notes and sentence."""
    aligned = ["left", *("left" if word else "right" for word in worded(item.table))]
    table = item.on_one_line("<br>").to_markdown(disable_numparse=True, colalign=aligned)
    return methods.symbols_html(f"**{item.name}.** {item.title}\n\n{table}\n\n{item.notes}\n\n{item.sentence}\n")
