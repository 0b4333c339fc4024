"""The numbers of README, RESULTS, BENCHMARKS, SCALING and ARTIFACT: each stands between two markers and is written there from receipts."""

import json
import re
from pathlib import Path

from artifact import estimates, jobs, methods, receipts, report, scaling
from artifact.exhibits.exhibit import Missing
from artifact.experiment import ROOT, Profile, load_profile, model_receipt_path, read_receipt

FILES = tuple(ROOT / name for name in ("README.md", "RESULTS.md", "BENCHMARKS.md", "SCALING.md", "ARTIFACT.md"))
# What came out before what it rests on.
SHOWN = ("Verdict", "At a glance", "Ladder", "Why", "Whole curve", "Indicators", "Equal passes", "Seeds", "Table 1", "Inner objective",
         "Table 4", "Probe")
_BLOCK = re.compile(r"(<!-- record: (\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def update(path: Path) -> str:
    """A Markdown file's text, every `<!-- record: NAME -->` block made anew.

    NAME is a profile (its models and tables), PROFILE/verdict (one line a claim), PROFILE/rules (what decides it), PROFILE/why (a
    sentence), PROFILE/cost, benchmark/FILE of benchmarks/results, or scaling/PROFILE (wall times on more nodes).
    """
    parts = {"": block, "verdict": verdicts, "rules": rules, "cost": costs, "why": why}
    old = path.read_text(encoding="utf-8")
    if (begun := old.count("<!-- record:")) != len(_BLOCK.findall(old)) or begun != old.count("<!-- end -->"):
        raise ValueError(f"{path.name} has a record block without its end, or an end without its block; what lies between would be lost")

    def anew(match):
        name = match[2]
        first, _, rest = name.partition("/")
        if first not in ("benchmark", "scaling") and rest not in parts:
            raise ValueError(f"{path.name}: there is no block {name!r}; after a profile's name comes {', '.join(filter(None, parts))} or "
                             "nothing")
        if first == "benchmark":
            text = benchmark(rest)
        elif first == "scaling":
            text = scaling.page(load_profile(rest))
        else:
            text = parts[rest](load_profile(first))
        return f"{match[1]}{text}\n{match[4]}"
    return _BLOCK.sub(anew, old)


def block(profile: Profile) -> str:
    """The verdict, the main tables and the trained models of a profile, as Markdown."""
    models = [
        f"**Trained models** (profile `{profile.name}`)",
        "",
        "| model | data | epochs | test accuracy (%) | hours | precision | device | receipt |",
        "|---|---|---:|---:|---:|---|---|---|",
    ]
    for model in profile.models:
        path = model_receipt_path(profile, model)
        if path.exists():
            receipt = read_receipt(path)
            network, made = receipt["config"]["network"], receipt["provenance"]
            models.append(
                f"| {methods.symbols_html(methods.label(profile, model))} | {network['dataset']} | {network['epochs']} "
                f"| {100 * receipt['results']['test_accuracy']:.2f} "
                f"| {receipts.seconds(receipt) / 3600:.2f} | {made['precision']} | {made['device']} | `{path.stem}` |"
            )
    lines = []
    for name in (*SHOWN, "Claims"):
        try:
            item = report.make(name, profile)
        except Missing:
            continue
        # Of the notebooks' claims the count and those that do not hold; the page has them all.
        if item.table is None:
            lines += [f"**{item.name}.** {item.title} ([figure](figures/{profile.name}/{item.stem}.png)). {item.sentence}", ""]
        elif name == "Claims":
            lines += [f"**What the notebooks claim.** {item.sentence}", ""]
        else:
            lines += [report.markdown(report.with_evidence(item)).rstrip(), ""]
    return "\n".join([*lines, *models, "", *cost(profile)])


def cost(profile: Profile) -> list[str]:
    """What the profile's receipts took, in hours of one core (CUDA: of the device), by training and by attack, and what is left."""
    hours, counts = {}, {}
    of_one = f"of one {'core' if profile.device == 'cpu' else 'device'}"
    for path in jobs.made(profile):
        receipt = read_receipt(path)
        what = "training" if receipt["kind"] == "model" else receipt["config"]["attack"]
        hours[what] = hours.get(what, 0) + estimates.core_seconds(profile, receipt) / 3600
        counts[what] = counts.get(what, 0) + 1
    lines = [f"**Cost** (profile `{profile.name}`)", "",
             f"| what | receipts | hours {of_one} |", "|---|---:|---:|"]
    lines += [f"| `{what}` | {counts[what]} | {spent:.2f} |" for what, spent in sorted(hours.items(), key=lambda pair: -pair[1])]
    uncommitted = sum(bool(read_receipt(path)["provenance"].get("uncommitted_changes")) for path in jobs.made(profile))
    count, seconds = estimates.left(profile)
    rest = f"Not made yet: {count} receipts, about {seconds / 3600:.1f} hours {of_one} at the pace of those that are made."
    notes = [rest if count else "All models and evaluations are made."]
    if profile.device == "cpu":
        notes.append("Hours are the clock's, of processes that may have shared their cores with other work.")
    if uncommitted:
        notes.append(f"{uncommitted} of the receipts were made with changes to the code that were not committed: the commit that they name "
                     "does not hold it.")
    return [*lines, f"| together | {sum(counts.values())} | {sum(hours.values()):.2f} |", "", " ".join(notes)]


def costs(profile: Profile) -> str:
    """`cost` as a text of its own."""
    return "\n".join(cost(profile))


def verdicts(profile: Profile) -> str:
    """The paper's claims with what was measured, one line each, and what the models were."""
    item = report.make("Verdict", profile)
    lines = ["| claim of the paper | measured | verdict |", "|---|---|---|"]
    for claim, row in item.on_one_line("<br>").iterrows():
        lines.append(f"| {claim} | {row['measured']} | **{row['verdict']}** |")
    return "\n".join([*lines, "", item.notes])


def rules(profile: Profile) -> str:
    """The rule that decides each of the paper's claims, one line each."""
    table = report.make("Verdict", profile).table
    lines = [f"| {claim} | {row['rule']} |" for claim, row in table.iterrows()]
    return "\n".join(["| claim of the paper | holds where |", "|---|---|", *lines])


def why(profile: Profile) -> str:
    """How many times SCE's margin and distance MMC has, without the medians themselves."""
    times = report.make("Why", profile).says.partition("; median distance")[0]
    return methods.symbols_html(f"Medians over the correctly classified of the first {profile.verdict.distances} test images: {times}.")


def benchmark(name: str) -> str:
    """A benchmark's table as Markdown, from the JSON file that its run wrote."""
    kept = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))
    return kept["markdown"]
