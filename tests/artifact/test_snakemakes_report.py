"""make report: every drawn exhibit of a finished profile, with its sentence and category, in one file."""

import json
import re

import pytest

from artifact import __main__ as command_line
from artifact import experiment, jobs
from tests.artifact.tiny import TINY


def test_the_report_holds_every_exhibit_with_its_sentence(capsys):
    profile = experiment.load_profile("quick")
    drawn = jobs.exhibits(profile)
    assert {exhibit.category for exhibit in drawn} == {"Tables of the paper", "Figures of the paper", "Beyond the paper"}
    path = experiment.ROOT / "figures" / "quick" / "report.html"
    try:
        assert command_line.main(["report", "--profile", "quick"]) == 0, capsys.readouterr().err
        text = path.read_text(encoding="utf-8")
        for exhibit in drawn:
            begins = json.dumps(re.split(r"['\"<>&*_|`]", exhibit.says)[0][:30])[1:-1]  # as it stands in a script of the page
            assert exhibit.file.name in text and begins in text, exhibit.name
    finally:
        path.unlink(missing_ok=True)


def test_an_unfinished_profile_has_no_report(tmp_path, monkeypatch):
    monkeypatch.setenv("MMC_RESULTS", str(tmp_path))
    (tmp_path / "tiny.yaml").write_text(TINY)
    with pytest.raises(ValueError, match="not finished.*make reproduce PROFILE=/.*/tiny.yaml"):
        jobs.exhibits(experiment.load_profile(str(tmp_path / "tiny.yaml")))
