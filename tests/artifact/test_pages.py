"""A page is that of its settings, rules and receipts as they are; a part that cannot be drawn is missing aloud."""

import dataclasses
import os

import pandas as pd
import pytest

from artifact import __main__ as command_line
from artifact import experiment, jobs, page, plain, receipts, report
from artifact.compute import trained
from artifact.exhibits import exhibit
from artifact.exhibits.exhibit import Item, Missing, NotPlanned
from artifact.experiment import ROOT
from artifact.receipts import write_receipt


def drawn(profile):
    """Draw all and write the last job's receipt, as its notebook does; returns the job."""
    items = [written.summary() for written in report.write_all(profile)]
    job = jobs.find(profile, "report")
    write_receipt(job.receipt, {"identity": job.receipt.stem.rsplit("-", 1)[-1], "kind": "notebook", "provenance": {},
                                "results": {"items": items, "code": experiment.notebook_code("08_report")}})
    return job


def test_a_page_of_other_settings_is_drawn_again(load, tmp_path, monkeypatch):
    for module in (report, jobs):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    first = load()
    for model in first.models:
        trained.train(first, model, progress=False)
    job = drawn(first)
    assert job.done()
    other = drawn(load(lambda settings: settings["white_box"].update(epsilons=[0.05, 0.3])))
    assert other.done() and not job.done(), "a value changed and changed back: the page is the other one's"
    job = drawn(load())
    assert job.done() and not other.done()
    for change in ({"title": "digits under another title"}, {"band": {"near": 9.0}}):
        shown = jobs.find(load(lambda settings, change=change: settings.update(change)), "report")
        assert shown.receipt == job.receipt and not shown.done(), change
    assert jobs.find(load(lambda settings: settings.update(device="cuda")), "report").done()
    next((tmp_path / "figures" / "tiny").glob("*.csv")).unlink()
    assert not job.done(), "a file that the report names is gone"


def test_the_verdicts_rules_are_part_of_what_a_page_shows(monkeypatch):
    monkeypatch.setenv("MMC_RESULTS", str(ROOT / "results"))  # the committed page is the committed receipts', not another folder's
    quick = experiment.load_profile("quick")
    rules = quick.verdict.rules.model_copy(update={"clean_gap": 0.05})
    strict = quick.model_copy(update={"verdict": quick.verdict.model_copy(update={"rules": rules})})
    before, after = (next(job for job in jobs.plan(profile) if job.name == "report") for profile in (quick, strict))
    assert before.done() and before.receipt == after.receipt and not after.done()


def test_a_report_without_what_it_needs_is_not_written(load, capsys):
    profile = load()
    job = jobs.find(profile, "report")
    plain.in_turn(profile, [job])
    assert not job.receipt.exists() and not job.outputs[-1].exists()
    assert command_line.main(["run", "--profile", profile.source, "--only", "report"]) == 1
    assert "1 jobs need others that were not asked for" in capsys.readouterr().err and not job.receipt.exists()


@pytest.mark.parametrize(("name", "item"), [("quick", "Verdict"), ("cpu", "Verdict"), ("cpu", "Equal passes")])
def test_what_is_planned_and_has_no_receipts_is_missing(name, item, tmp_path, monkeypatch):
    monkeypatch.setenv("MMC_RESULTS", str(tmp_path))
    with pytest.raises(Missing) as missing:
        report.make(item, experiment.load_profile(name))
    assert not isinstance(missing.value, NotPlanned), item


def written(path, results, kind="evaluation", **more):
    receipts.write_receipt(path, {"identity": path.stem.rsplit("-", 1)[-1], "kind": kind, "results": results, "provenance": {}} | more)


def test_claims_and_page_are_of_the_evaluations_that_are_there(load, tmp_path, monkeypatch):
    profile = load()
    one = next(job for job in jobs.plan(profile) if job.name == "white box")
    first, claims = tmp_path / "one-000000000001.json", tmp_path / "claims-000000000002.json"
    job = dataclasses.replace(one, outputs=(claims,), makes={first: 1.0}, profile=None)
    monkeypatch.setattr(receipts, "_verify", lambda receipt, path: None)
    written(first, {"accuracy": 0.5, "seconds": 3.0})
    code = experiment.notebook_code("03_white_box")
    written(claims, {"of": receipts.together([first]), "code": code}, "notebook")
    assert job.done()
    written(first, {"accuracy": 0.5, "seconds": 4.0})
    assert job.done()  # the same, made again
    written(first, {"accuracy": 0.25, "seconds": 4.0})
    assert not job.done()
    written(claims, {"of": receipts.together([first]), "code": experiment.notebook_code("04_black_box")}, "notebook")
    assert not job.done(), "its cells have changed since"
    written(claims, {"of": receipts.together([first])}, "notebook")
    assert not job.done(), "of an earlier version, which did not say"
    written(claims, {"of": receipts.together([first]), "code": code}, "notebook")
    assert job.done()
    marks = []
    for accuracy in (0.25, 0.125):
        written(first, {"accuracy": accuracy})
        monkeypatch.setattr(jobs, "plan", lambda _: [job])
        marks.append(jobs.page_mark(profile, tmp_path / "report.json"))
    assert marks[0] != marks[1]


def test_only_receipts_of_the_profile_as_it_is_count(load):
    profile = load()
    path = next(path for job in jobs.plan(profile) for path in job.makes)
    old = path.with_name("sce-000000000000.json")
    for place in (path, old):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("{}")
    assert jobs.made(profile) == [path]


def test_a_drawn_file_is_whole_or_as_it_was(tmp_path, monkeypatch):
    values = pd.DataFrame({"model": ["sce"], "accuracy": [1.0]})
    item = Item("Table 9", "table_9", "Numbers", "says", values, values)
    assert report.write_item(tmp_path, item) == ["table_9.csv", "table_9.md", "table_9.tex"]
    before = (tmp_path / "table_9.md").read_bytes()

    def full(source, target):
        raise OSError("no space left on device")
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        report.write_item(tmp_path, dataclasses.replace(item, title="Other numbers"))
    assert (tmp_path / "table_9.md").read_bytes() == before and len(list(tmp_path.iterdir())) == 3


def test_an_exhibit_that_fails_is_named(load, tmp_path, monkeypatch):
    def fails(*_):
        raise ValueError("Index contains duplicate entries")
    monkeypatch.setattr(report, "make", fails)
    with pytest.raises(ValueError) as failed:
        report._write(load(), tmp_path, "Figure 4")
    assert failed.value.__notes__ == ["(while drawing Figure 4 of profile tiny)"]


def test_the_page_says_where_the_papers_numbers_stand_only_where_they_do(load, tmp_path):
    profile = load()
    plain = exhibit.Item("Table 9", "table_9", "Numbers", "a sentence", pd.DataFrame({"a": ["1"]}, index=["row"]),
                         pd.DataFrame({"a": [1]}))
    text = page.write(profile, tmp_path, [plain]).read_text()
    assert "so none is called\nreproduced or not.</p>" in text and "grey italics" not in text
