"""One HTML page that shows every figure and table of a profile: what came out first, the paper's numbers inside the tables."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from artifact import jobs, methods, receipts
from artifact.exhibits.exhibit import cell_number, cell_text
from artifact.experiment import Profile, read_receipt, results_folder
from mmclib.files import write_whole

CHIPS = {"holds": "holds", "holds in part": "part", "does not hold": "fails", "not judged": "open"}  # a verdict's class in the template
GROUPS = ("The paper", "Beyond it", "Can the attacks be trusted?")
TRUST = ("convergence", "indicators", "equal_passes", "self_checks", "verdict", "claims")
_CHECKED = re.compile(r"(?P<outcome>ok|FLAG) \((?P<measured>.+)\)")
_WITH_INTERVAL = re.compile(r"(?P<number>[\d.]+) \[(?P<low>[\d.]+), (?P<high>[\d.]+)\](?: \((?P<rest>.+)\))?")
_ATTACKED = re.compile(r"(?P<attack>.+?) (?P<goal>tar|un|margin), ε = (?P<epsilon>.+)")


@dataclass(frozen=True)
class Cell:
    """One number or text of a table, with what stands small below it (its interval) and the paper's number where there are any."""

    text: str
    interval: str = ""
    paper: str = ""
    best: bool = False  # or to be seen for another reason


@dataclass(frozen=True)
class Grid:
    """A table as the template draws it: header rows of (text, columns, rows), and rows of a name and cells."""

    header: list[list[tuple[str, int, int]]]
    rows: list[tuple[str, list[Cell]]]
    words: list[bool]  # columns of sentences, which read from the left
    columns: list[str]
    turned: bool = False  # rows and columns are exchanged

    @property
    def legend(self) -> str:
        """How to read the table: what small, italic and bold mean where numbers are so, and whether it is turned."""
        cells = [cell for _, cells in self.rows for cell in cells if re.match(r"\d", cell.text)]
        parts = ["small: 95 % intervals"] if any(cell.interval for cell in cells) else []
        parts += ["italics: the paper's number"] if any(cell.paper for cell in cells) else []
        parts += [f"bold: the best of a {'row' if self.turned else 'column'}"] if any(cell.best for cell in cells) else []
        parts += ["rows and columns are swapped compared with the files"] if self.turned else []
        legend = "; ".join(parts)
        return f"{legend[:1].upper()}{legend[1:]}." if legend else ""


def symbols(text: str) -> Markup:
    """Text as the page writes it: escaped, objectives by name, subscripts, powers and minus signs, no line that begins with "%"."""
    text = re.sub(r"\b(?:un)?targeted_[12]\b", lambda match: methods.OBJECTIVES[match[0]].name.removesuffix(" (margin)"), str(text))
    text = re.sub(r"(?<![\w)])-(?=\d)", "−", re.sub(r"(?<=\d) (?=%)", "\N{NO-BREAK SPACE}", text))
    text = re.sub(r"σ_(k\N{COMBINING TILDE}?)", r"σ<sub>\1</sub>", methods.html(text))
    return Markup(re.sub(r"\b([eC])\^(?:\(((?:[^()]|\([^()]*\))*)\)|(\w+))", r"\1<sup>\2\3</sup>", text))


def _environment() -> Environment:
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, autoescape=True,
                              trim_blocks=True, lstrip_blocks=True)
    environment.filters["symbols"] = symbols
    return environment


def write(profile: Profile, folder: Path, items: list, mark: str = "") -> Path:
    """Write figures/<profile>/index.html over the files beside it; `mark` says what drew it (jobs.page_mark)."""
    by_stem = {item.stem: item for item in items}
    groups = {name: [item for item in items if _group(item) == name] for name in GROUPS}
    claims = by_stem["verdict"].table["verdict"] if "verdict" in by_stem else {}
    text = _environment().get_template("report.html.j2").render(
        profile=profile, paper=any(item.beside_the_paper for item in items),
        groups={name: found for name, found in groups.items() if found}, grids={item.stem: grid(item) for item in items},
        lead=by_stem.get("glance") or by_stem.get("ladder"), headline=headline(profile, by_stem.get("ladder")), chips=CHIPS,
        claims=dict(claims),
        results=_address(results_folder(profile), folder), sources={item.stem: _sources(item, folder) for item in items},
        made=provenance(profile), mark=mark)
    path = folder / "index.html"
    write_whole(path, text.encode())
    return path


def _sources(item, folder: Path) -> list[tuple[str, str]]:
    """The receipts that an item was drawn from: address as seen from the page, and model and file."""
    return [(_address(path, folder), f"{path.parent.name}/{path.stem}") for path in item.receipts]


def _address(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


def _group(item) -> str:
    return GROUPS[0] if item.stem.startswith(("figure_", "table_")) else GROUPS[2] if item.stem in TRUST else GROUPS[1]


def headline(profile: Profile, ladder) -> str:
    """What came out, in one sentence; empty without a ladder that MMC and the paper's attack are part of."""
    if ladder is None or (mmc := profile.find(list(dict.fromkeys(ladder.values["model"])), "mmc")) is None:
        return ""
    rows = ladder.values[ladder.values["model"] == mmc].set_index("rung")
    if not {"clean", "untargeted_1"} <= set(rows.index):
        return ""
    return (f"In this reproduction {methods.label(profile, mmc)} classifies {rows.loc['clean', 'accuracy']:.1f} % of the images correctly "
            f"without attack, {rows.loc['untargeted_1', 'accuracy']:.1f} % under the paper's untargeted attack, and "
            f"{rows.loc['worst', 'accuracy']:.1f} % when each image is attacked in the way that is worst for it.")


def provenance(profile: Profile) -> dict:
    """What made the receipts of the profile as it is: commits (and how many receipts are of code that none holds), processors, hours of
    training and of attacks, the day of the last."""
    all_made = [read_receipt(path) for path in jobs.made(profile)]
    made = [receipt["provenance"] for receipt in all_made]
    return {"receipts": len(made), "commits": sorted({(one.get("commit") or "unknown")[:10] for one in made}),
            "uncommitted": sum(bool(one.get("uncommitted_changes")) for one in made),
            "devices": sorted({one["device"] for one in made}),
            "hours": sum(map(receipts.seconds, all_made)) / 3600, "last": max((one["finished"] for one in made), default="")[:10]}


def grid(item) -> Grid | None:
    """An item's table with intervals, the paper's numbers and the best of each column; None where it is a figure alone."""
    if item.table is None:
        return None
    table, columns = item.table, [str(column) for column in item.table.columns]
    rows = []
    for name, texts in zip(table.index, table.itertuples(index=False, name=None), strict=True):
        cells = []
        for column, text in zip(columns, texts, strict=True):
            number = item.numbers.get((name, column))
            if number is None:
                cells.append(_text_cell(text))
                continue
            paper = number.get("paper")
            peers = [cell_number(found) for (_, place), found in item.numbers.items() if place == column]
            best = len(peers) > 1 and cell_number(number) == max(peers) > min(peers)
            cells.append(Cell(str(text), cell_text(number, "–"),
                              str(paper).replace("<=", "≤ ") if paper is not None and not pd.isna(paper) else "", best))
        rows.append((str(name), cells))
    turned = len(header(columns)) == 1 and len(columns) > max(7, len(rows))  # too wide for a page: read down what was read across
    if turned:
        names = [name for name, _ in rows]
        rows = [(column, [cells[place] for _, cells in rows]) for place, column in enumerate(columns)]
        columns = names
    sentences = [any(re.search("[a-z]{4}", cells[place].text) for _, cells in rows) for place in range(len(columns))]
    return Grid(header(columns), rows, sentences, columns, turned)


def _text_cell(text) -> Cell:
    """A cell of a table whose numbers are text already: what stands in brackets behind the number or the outcome stands small below."""
    if checked := _CHECKED.fullmatch(str(text)):
        return Cell(checked["outcome"], checked["measured"], best=checked["outcome"] == "FLAG")
    if number := _WITH_INTERVAL.fullmatch(str(text)):
        return Cell(number["number"], ", ".join(filter(None, (f"{number['low']}–{number['high']}", number["rest"]))))
    return Cell("" if pd.isna(text) else str(text))


def header(columns: list[str]) -> list[list[tuple[str, int, int]]]:
    """Header rows of (text, columns, rows): epsilon over attack over goal where titles say so, one row otherwise."""
    found = [_ATTACKED.fullmatch(column) for column in columns]
    if sum(match is not None for match in found) < 2:
        return [[(column, 1, 1) for column in columns]]
    rows: list[list] = [[], [], []]
    before: tuple = ()
    for column, match in zip(columns, found, strict=True):
        if match is None:
            rows[0].append((column, 1, 3))
            before = ()
            continue
        path = (f"ε = {match['epsilon']}", match["attack"])
        for level in (0, 1):
            if before[:level + 1] == path[:level + 1]:
                text, across, down = rows[level][-1]
                rows[level][-1] = (text, across + 1, down)
            else:
                rows[level].append((path[level], 1, 1))
        rows[2].append((match["goal"], 1, 1))
        before = path
    return rows


# What the page's own style does for its tables; Jupyter has its own for the rest.
_IN_A_NOTEBOOK = """<style>.mmc td small, .mmc td i { display: block; color: #888; white-space: nowrap }
.mmc tbody th, .mmc th.words, .mmc td.words { text-align: left !important } .mmc td.words { min-width: 8rem }
.mmc th.over { text-align: center !important } .mmc th.short { white-space: nowrap }</style>"""


class Shown:
    """Items as Jupyter shows them, but for figures: title, sentence, table with intervals and the paper's numbers, notes; or as text."""

    def __init__(self, items: list):
        self.items = items

    def __repr__(self) -> str:
        tables = [item.on_one_line() for item in self.items]
        parts = [[f"{item.name}. {item.title}", item.sentence, "" if table is None else table.to_string(), item.notes]
                 for item, table in zip(self.items, tables, strict=True)]
        return "\n\n".join("\n".join(filter(None, part)) for part in parts)

    def _repr_html_(self) -> str:
        return _IN_A_NOTEBOOK + "".join(self._html(item) for item in self.items)

    def _html(self, item) -> str:
        name, title, sentence, notes = (methods.html(text) for text in (item.name, item.title, item.sentence, item.notes))
        table = "" if item.table is None else _environment().get_template("table.html.j2").module.draw(grid(item))
        return f'<div class="mmc"><p><b>{name}.</b> {title}</p><p>{sentence}</p>{table}<p><small>{notes}</small></p></div>'
