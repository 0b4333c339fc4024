"""The Workflow Run RO-Crate: roc-validator's verdict on one, and the sentences where none can be written."""

import json
from pathlib import Path

import pytest

from artifact import crate, experiment, jobs, report
from artifact.receipts import write_receipt
from tests.artifact.tiny import TINY

ROOT = experiment.ROOT


@pytest.fixture()
def committed():
    """A profile whose receipts come with the repository."""
    return experiment.load_profile("quick")


@pytest.fixture()
def own_contexts(monkeypatch):
    # The validator would fetch RO-Crate's JSON-LD context from the web; these are its lines for the terms that a crate of ours uses.
    validator_http = pytest.importorskip("rocrate_validator.utils.http", reason="roc-validator is not installed: pip install '.[crate]'")
    context = json.loads((Path(__file__).parent / "ro_crate_1_1_context.json").read_text(encoding="utf-8"))

    class Response:
        status_code, ok, headers = 200, True, {"Content-Type": "application/ld+json"}
        text, content = json.dumps(context), json.dumps(context).encode()

        @staticmethod
        def json():
            return context

    def get(self, url, *_, **__):
        assert str(url).startswith("https://w3id.org/ro/crate/1.1/context"), f"{url} would be fetched"
        return Response()

    monkeypatch.setattr(validator_http.HttpRequester, "get", get, raising=False)


def test_a_crate_is_valid_and_holds_every_receipt(committed, tmp_path, own_contexts):
    pytest.importorskip("rocrate", reason="rocrate is not installed: pip install '.[crate]'")
    from rocrate_validator import models, services
    written = crate.write(committed, tmp_path / "crate")
    settings = services.ValidationSettings(
        rocrate_uri=str(written), profile_identifier="workflow-run-crate-0.5", requirement_severity=models.Severity.REQUIRED,
        abort_on_first=False, cache_path=tmp_path / "cache")
    verdict = services.validate(settings)
    assert [f"{issue.check.identifier}: {issue.message}" for issue in verdict.get_issues()] == []

    said = {entity["@id"]: entity for entity in json.loads((written / "ro-crate-metadata.json").read_text(encoding="utf-8"))["@graph"]}
    for path in (written / "results" / "quick").rglob("*.json"):
        action = said[f"#{path.stem}"]
        assert action["result"] == {"@id": str(path.relative_to(written))}
        assert path.read_bytes() == (experiment.results_folder(committed) / path.relative_to(written / "results" / "quick")).read_bytes()
    model = experiment.model_receipt_path(committed, "mmc-10")
    attacks = [entity for name, entity in said.items() if name.startswith("#pgd-") and "mmc-10" in entity["name"].split()]
    assert attacks and all({"@id": f"results/quick/models/{model.name}"} in entity["object"] for entity in attacks)

    metadata = written / "ro-crate-metadata.json"  # and the validator sees what is wrong
    metadata.write_text(metadata.read_text(encoding="utf-8").replace('"instrument"', '"name2"'), encoding="utf-8")
    settings.abort_on_first = True
    assert services.validate(settings).has_issues()


def test_what_cannot_be_written_says_why(committed, tmp_path, monkeypatch):
    pytest.importorskip("rocrate", reason="rocrate is not installed: pip install '.[crate]'")
    (tmp_path / "here").write_text("taken")
    with pytest.raises(ValueError, match="is there already; name a new folder"):
        crate.write(committed, tmp_path / "here")
    monkeypatch.setenv("MMC_RESULTS", str(tmp_path / "none"))
    (tmp_path / "tiny.yaml").write_text(TINY)
    with pytest.raises(ValueError, match="has no receipts yet"):
        crate.write(experiment.load_profile(str(tmp_path / "tiny.yaml")), tmp_path / "crate")


def drawn(profile):
    """Draw all and write the last job's receipt, as its notebook does; returns the job."""
    items = [written.summary() for written in report.write_all(profile)]
    job = jobs.find(profile, "report")
    write_receipt(job.receipt, {"identity": job.receipt.stem.rsplit("-", 1)[-1], "kind": "notebook", "results": {"items": items},
                                "provenance": {}})
    return job


def test_a_crate_is_a_folder_or_a_zip_and_holds_what_its_receipts_drew(load, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="would become a folder"):
        crate.write(load(), tmp_path / "out.tar.gz")
    quick = experiment.load_profile("quick")
    monkeypatch.setenv("MMC_RESULTS", str(ROOT / "results"))
    drawn = {path.name for path in jobs.drawn_files(quick)}
    assert {"index.html", "table_1.csv", "table_1.tex", "figure_4.png"} <= drawn and "table_5.csv" not in drawn
    monkeypatch.setenv("MMC_RESULTS", str(tmp_path))
    assert jobs.drawn_files(quick) == []
