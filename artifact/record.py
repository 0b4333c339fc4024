"""The README's numbers: every one stands between two markers and is written there from receipts, never by hand."""

import json
import re
from pathlib import Path

from artifact import items, report
from artifact.exhibits.exhibit import Missing
from artifact.experiment import ROOT, Profile, model_receipt_path, read_receipt

SHOWN = ("Table 1", "Table 4", "Ladder", "Verdict")
_BLOCK = re.compile(r"(<!-- record: ([a-z/_]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def update(path: Path = ROOT / "README.md") -> str:
    """A Markdown file's text, every `<!-- record: NAME -->` block made anew; NAME is a profile, or a file of benchmarks/results."""
    from artifact.experiment import load_profile

    def anew(match):
        name = match[2]
        text = benchmark(name.removeprefix("benchmark/")) if name.startswith("benchmark/") else block(load_profile(name))
        return f"{match[1]}{text}\n{match[3]}"
    return _BLOCK.sub(anew, path.read_text(encoding="utf-8"))


def block(profile: Profile) -> str:
    """Trained models and the main tables of a profile, as Markdown."""
    lines = [
        f"**Trained models** (profile `{profile.name}`)",
        "",
        "| model | data | epochs | test accuracy (%) | hours | device | receipt |",
        "|---|---|---:|---:|---:|---|---|",
    ]
    for model in profile.models:
        path = model_receipt_path(profile, model)
        if path.exists():
            receipt = read_receipt(path)
            network, made = receipt["config"]["network"], receipt["provenance"]
            lines.append(
                f"| {items.label(model)} | {network['dataset']} | {network['epochs']} | {100 * receipt['results']['test_accuracy']:.2f} "
                f"| {made['epoch_seconds'][-1] / 3600:.2f} | {made['device']} | `{path.stem}` |"
            )
    for name in SHOWN:
        try:
            item = report.ITEMS[name](profile)
        except Missing:
            continue
        lines += ["", report.markdown(item).rstrip()]
    return "\n".join(lines)


def benchmark(name: str) -> str:
    """A benchmark's table as Markdown, from the JSON file that its run wrote."""
    kept = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))
    return kept["markdown"]
