"""Jobs in slices of time: their order, side by side in processes, stopped by the clock, and what a failure leaves."""

import time

import pytest

from artifact import experiment, jobs, slices
from artifact.compute import trained
from tests.artifact.tiny import TINY, told


@pytest.fixture()
def tiny(tmp_path, monkeypatch):
    monkeypatch.setenv("MMC_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("MMC_CHECKPOINTS", str(tmp_path / "checkpoints"))
    monkeypatch.setattr(jobs, "log_path", lambda profile, job: tmp_path / f"{job.name}.ipynb")
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY.replace("train_on_the_spot: true", "train_on_the_spot: false"))
    return experiment.load_profile(str(path))


def outcomes(profile):
    """What every receipt of the profile holds, without how long it took."""
    receipts = {path.name: told(experiment.read_receipt(path)) for path in experiment.results_folder(profile).rglob("*.json")}
    return {name: {key: value for key, value in receipt["results"].items() if key != "seconds"} for name, receipt in receipts.items()}


@pytest.mark.parametrize("name", ["demo", "quick", "paper"])
def test_what_a_job_needs_comes_before_it_and_evaluations_follow_their_training(name):
    planned = jobs.plan(experiment.load_profile(name))
    ordered = slices.by_worth(planned)
    assert sorted(job.name for job in ordered) == sorted(job.name for job in planned)
    place = {job.receipt: number for number, job in enumerate(ordered)}
    assert all(place[need] < place[job.receipt] for job in ordered for need in job.needs)
    for before, job in zip(ordered, ordered[1:], strict=False):  # a training starts only when nothing made possible waits
        if job.name.startswith("train "):
            made = {earlier.receipt for earlier in ordered[:place[job.receipt]]}
            assert not [late.name for late in ordered[place[job.receipt]:] if late.needs and set(late.needs) <= made], before.name


def test_side_by_side_makes_the_receipts_of_one_after_another(tiny, capsys):
    todo = [job for job in slices.by_worth(jobs.plan(tiny)) if job.name.startswith(("train", "white box"))]
    assert [job.name for job in todo] == ["train sce", "train mmc-10", "white box"]
    assert slices.side_by_side(tiny, todo, None, parallel=2) == []
    assert all(job.done() for job in todo) and "white box: done" in capsys.readouterr().out
    parallel = outcomes(tiny)
    assert sum("correct" in result for result in parallel.values()) > 20
    for path in experiment.results_folder(tiny).rglob("*.json"):
        path.unlink()
    slices.in_turn(tiny, todo, None)
    assert outcomes(tiny) == parallel


def test_a_failed_job_is_named_with_its_reason_and_what_needs_it_waits(tiny, capsys):
    for model in ("sce", "mmc-10"):
        trained.train(tiny, model, progress=False)
    (experiment.checkpoint_folder(tiny, "mmc-10") / "model.safetensors").unlink()
    todo = [job for job in jobs.plan(tiny) if job.name.startswith("white box")] + [jobs.find(tiny, "report")]
    assert slices.side_by_side(tiny, todo, None, parallel=2) == ["white box"]
    said = capsys.readouterr().out
    assert "failed" in said and "checkpoint of 'mmc-10' is missing" in said and "delete" in said
    assert not jobs.find(tiny, "report").done()


@pytest.mark.parametrize("name", ["white box", "train mmc-10"])
def test_the_clock_stops_a_job_and_starts_no_further_one(tiny, monkeypatch, capsys, name):
    started = []

    def slow(profile, job):
        started.append(job.name)
        if job.name.startswith("train "):
            trained.train(profile, "mmc-10", time_budget=job.parameters["time_budget"], progress=False)
        time.sleep(30)

    monkeypatch.setattr(jobs, "run_plain", slow)
    monkeypatch.setattr(slices, "LEAST", 0.01)
    todo = [jobs.find(tiny, name), jobs.find(tiny, "report")]  # planning takes time of its own on a busy machine
    began = time.monotonic()
    slices.in_turn(tiny, todo, began + 0.05)
    assert started == [name] and time.monotonic() - began < 20
    assert "saved" in capsys.readouterr().out
