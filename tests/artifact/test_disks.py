"""What the disks lack is named before the first job, with the remedy."""

import pytest

from artifact import experiment, jobs, preflight
from artifact.compute import trained


def test_a_folder_of_figures_that_cannot_be_is_named_before_the_first_job(load, tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "ROOT", tmp_path)
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "tiny").touch()
    profile = load()
    faults = preflight.disk_faults(profile, jobs.plan(profile))
    assert len(faults) == 1 and str(tmp_path / "figures" / "tiny") in faults[0]


def test_weights_that_are_nowhere_are_missed_before_the_first_job(load):
    profile = load()
    todo = [job for job in jobs.plan(profile) if job.name == "white box"]
    assert preflight.checkpoint_faults(profile, todo) == []  # to be trained first
    path = experiment.model_receipt_path(profile, "sce")
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    (fault,) = preflight.checkpoint_faults(profile, todo)
    assert "the weights of 'sce' are needed" in fault and "MMC_CHECKPOINTS" in fault and str(path) in fault
    file = experiment.checkpoint_folder(profile, "sce") / "model.safetensors"
    file.parent.mkdir(parents=True)
    file.touch()
    assert preflight.checkpoint_faults(profile, todo) == []
    cpu = experiment.load_profile("cpu")  # released: made again of that
    assert preflight.checkpoint_faults(cpu, [job for job in jobs.plan(cpu) if job.name == "verdict: sce"]) == []


def test_a_damaged_checkpoint_of_a_released_model_costs_no_receipt(load, monkeypatch):
    profile = load()
    trained.train(profile, "sce", progress=False)
    file = experiment.checkpoint_folder(profile, "sce") / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    with pytest.raises(ValueError, match="is damaged.*delete .*sce-.*json and train it again"):
        trained.ensure_model(profile, "sce")
    monkeypatch.setattr(trained.zoo, "released", lambda: ["tiny-sce"])
    with pytest.raises(ValueError, match="is damaged.*delete .*model.safetensors, and it is made again of the released model"):
        trained.ensure_model(profile, "sce")
