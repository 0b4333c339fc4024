"""One HTML page that shows every figure and table of a profile, with the paper's numbers where they exist."""

import html
from pathlib import Path

from artifact.experiment import Profile

CSS = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin: 2.5rem 0 .3rem; border-top: 1px solid #ddd; padding-top: 1rem }
table { border-collapse: collapse; font-size: .82rem; margin: .6rem 0; font-variant-numeric: tabular-nums; display: block;
        overflow-x: auto }
th, td { padding: .25rem .55rem; text-align: right; border-bottom: 1px solid #e5e5e5 }
th:first-child { text-align: left; white-space: nowrap }
thead th { border-bottom: 2px solid #888; vertical-align: bottom } caption { text-align: left; font-weight: 600; padding: .3rem 0 }
img { max-width: 100%; height: auto } .says { background: #f4f6f8; padding: .5rem .8rem; border-left: 3px solid #0072B2 }
.notes { color: #555; font-size: .85rem } .stand-in { background: #fff4e0; padding: .5rem .8rem; border-left: 3px solid #E69F00 }
"""


def write(profile: Profile, folder: Path, items: list) -> Path:
    """Write figures/<profile>/index.html over the files beside it."""
    parts = [f"<h1>Rethinking Softmax Cross-Entropy Loss for Adversarial Robustness: profile {html.escape(profile.name)}</h1>"]
    if not profile.comparable:
        parts.append(f'<p class="stand-in">Made with: {html.escape(profile.title)}. These numbers are real, but not the paper\'s setting, '
                     "so none is called reproduced or not; the paper's own stand beside them for orientation.</p>")
    for item in items:
        parts.append(
            f'<h2 id="{item.stem}">{html.escape(item.name)}. {html.escape(item.title)}</h2><p class="says">{html.escape(item.sentence)}</p>'
        )
        if item.figure is not None:
            parts.append(f'<img src="{item.stem}.png" alt="{html.escape(item.title)}" loading="lazy">')
        if item.table is not None:
            parts.append(_table(item.table, "This run"))
        if item.paper is not None:
            parts.append(_table(item.paper, "The paper (CIFAR-10)"))
        if item.values is not None and "verdict" in item.values and profile.comparable:
            parts.append(_table(item.values.pivot(index="method", columns="column", values="verdict"), "Verdict per number"))
        parts.append(f'<p class="notes">{html.escape(item.notes)} Numbers: <a href="{item.stem}.csv">{item.stem}.csv</a></p>')
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "index.html"
    path.write_text(f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
                    f"<title>MMC: {html.escape(profile.name)}</title><style>{CSS}</style><body>{''.join(parts)}</body></html>",
                    encoding="utf-8")
    return path


class Tables:
    """The items' tables and sentences, shown by Jupyter."""

    def __init__(self, items: list):
        self.items = [item for item in items if item.table is not None]

    def _repr_html_(self) -> str:
        return "".join(_table(item.table, f"{item.name}. {item.title}") + f"<p>{html.escape(item.sentence)}</p>" for item in self.items)


def _table(frame, caption: str) -> str:
    text = frame.rename_axis(None).rename_axis(None, axis=1).to_html(border=0, na_rep="")
    return text.replace("<thead>", f"<caption>{html.escape(caption)}</caption><thead>", 1)
