"""A profile of one's own, for the test files that change one thing of it."""

import pytest
import yaml

from artifact import experiment
from tests.artifact.tiny import TINY


@pytest.fixture()
def load(tmp_path, monkeypatch):
    """tiny.yaml, or the text of another profile, with a change; its results and weights in folders of its own."""
    monkeypatch.setenv("MMC_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("MMC_CHECKPOINTS", str(tmp_path / "checkpoints"))

    def loaded(change=lambda settings: None, name="tiny", text=TINY):
        settings = yaml.safe_load(text)
        change(settings)
        path = tmp_path / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
        return experiment.load_profile(str(path))
    return loaded
